//! How a host leaves, for a while or for good, and what becomes of what it had.

use std::time::Duration;

use picket_agent::{Farewell, status::State};
use picket_pki::Refusal;
use picket_tests::{
    Branch, DeckyState,
    HostState::{Banned, Online},
    MemberObservation::{Authorized, Deauthorized},
    Site,
    site::until,
    stranger::{Door, Stranger},
};
use tokio::time::Instant;

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn until_sessions(site: &Site, wanted: u64) {
    until(&format!("{wanted} sessions to be open"), async || {
        let open = site.metric("master_sessions").await;
        if open == wanted { Ok(()) } else { Err(open) }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_ban_takes_session_network_and_deckies_and_unban_brings_all_of_it_back() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.deploy(&Branch::default().decky("web", "bern")).await;
    site.until_deckies(&["web"], DeckyState::Running).await;

    let asked = Instant::now();
    assert!(site.ban("bern", "seen scanning").await.session_cut);
    until_sessions(&site, 1).await;
    assert!(asked.elapsed() <= Duration::from_secs(1), "{:?}", asked.elapsed());
    let last_word = bern.until(State::Banned).await;
    assert!(
        last_word.contains("this host is banned: seen scanning") && last_word.contains("host unban"),
        "{last_word}"
    );
    let stranger = Stranger::with_identity_of(&site, &bern);
    assert_eq!(stranger.refused_at(Door::Agents).await, Refusal::Revoked);
    let member = site.until_member(network, bern.node, Deauthorized).await;
    assert!(member.because.contains("bern is banned"), "{}", member.because);
    bern.until_on(&[]).await;
    until("bern to stop its deckies", async || {
        let left = bern.docker.container_names();
        if left.is_empty() {
            Ok(())
        } else {
            Err(left.join(", "))
        }
    })
    .await;
    site.until("bern", Banned).await;

    site.unban("bern").await;
    bern.restart().await;
    site.until("bern", Online).await;
    site.until_member(network, bern.node, Authorized).await;
    bern.until_on(&[network]).await;
    site.until_deckies(&["web"], DeckyState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_ban_holds_without_a_word_for_whom_it_finds_away_and_through_its_own_restarts() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    bern.unplug();
    until_sessions(&site, 1).await;
    assert!(!site.ban("bern", "stolen").await.session_cut);
    site.until_member(network, bern.node, Deauthorized).await;
    bern.plug_in();
    let refusal = bern.until(State::Refused).await;
    assert!(refusal.contains("banned or retired"), "{refusal}");
    bern.until_on(&[]).await;
    site.restart_master().await;
    bern.power_off().await;
    bern.start();
    bern.until(State::Refused).await;
    assert_eq!(bern.joined().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_retired_host_is_rid_of_deckies_networks_and_keys_within_a_minute() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.deploy(&Branch::default().decky("web", "bern")).await;
    site.until_deckies(&["web"], DeckyState::Running).await;
    let asked = Instant::now();
    assert!(site.retire("bern", "moved").await.told);
    assert_eq!(bern.farewell().await, Farewell::Retired);
    assert!(
        asked.elapsed() <= Duration::from_secs(60),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(bern.docker.container_names(), [""; 0]);
    assert_eq!(bern.docker.network_names(), [""; 0]);
    assert_eq!(bern.joined().await, []);
    let left: Vec<_> = std::fs::read_dir(bern.state().join("identity"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_clean_up_that_was_cut_off_at_its_end_takes_nothing_of_the_next_host_on_the_machine() {
    let site = Site::new().await;
    let machine = site.bring_in(site.machine("bern").without_zerotier()).await;
    site.retire("bern", "moved").await;
    assert_eq!(machine.farewell().await, Farewell::Retired);
    // It died when the keys were gone, and the mark of the one who is to be cleaned up was not.
    let mark = machine.state().join("identity/retired");
    picket_durable::write_private(&mark, b"").unwrap();
    machine.enroll(&site.bundle("rome").await).await.unwrap();
    assert!(!mark.exists());
    for _ in 0..2 {
        machine.start();
        site.until("rome", Online).await;
        machine.until(State::Connected).await;
        machine.stop().await;
    }
    assert_eq!(site.pins("rome").await, ["current", "spent"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_away_when_it_was_retired_finds_the_tombstone_for_ever() {
    let site = Site::new().await;
    let bern = site.bring_in(site.machine("bern").without_zerotier()).await;
    let stranger = Stranger::with_identity_of(&site, &bern);
    bern.unplug();
    site.until_gone().await;
    assert!(!site.retire("bern", "site closed").await.told);
    assert_eq!(stranger.refused_at(Door::Agents).await, Refusal::Revoked);

    site.restart_master().await;
    assert_eq!(stranger.refused_at(Door::Agents).await, Refusal::Revoked);

    let heir = site.machine("bern").without_zerotier();
    heir.enroll(&site.bundle("bern").await).await.unwrap();
    heir.start();
    heir.until(State::Connected).await;
    assert_eq!(
        stranger.refused_at(Door::Agents).await,
        Refusal::Revoked,
        "the name is another's"
    );
    let refused = Stranger::with_identity_of(&site, &heir)
        .connect(Door::Agents)
        .await;
    assert!(refused.is_ok(), "the heir is no ghost");
    heir.stop().await;

    // Nobody runs meanwhile: a quarter of a year of beats says nothing about it.
    bern.stop().await;
    site.stop_master().await;
    site.wait(90 * DAY).await;
    site.start_master().await;
    bern.plug_in();
    bern.start();
    let refusal = bern.until(State::Refused).await;
    assert!(refusal.contains("banned or retired"), "{refusal}");
    assert_eq!(
        stranger.refused_at(Door::Agents).await,
        Refusal::Revoked,
        "and not that its certificate has ended, which it has"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stolen_bundle_that_was_used_first_is_noticed_when_its_owner_comes_and_both_are_named() {
    let site = Site::new().await;
    let (thief, oslo) = (site.machine("thief"), site.machine("oslo"));
    let bundle = site.bundle("oslo").await;
    thief.enroll(&bundle).await.unwrap();
    thief.start();
    thief.until(State::Connected).await;
    let refused = picket_agent::sentence(&oslo.enroll(&bundle).await.unwrap_err());
    assert!(refused.contains("it was stolen"), "{refused}");
    let alarm = site.until_event("certificate.spent").await;
    assert_eq!(alarm.subject, "oslo");
    for named in ["10.0.0.1:40000", "10.0.0.2", "host bundle oslo --cut"] {
        assert!(alarm.message.contains(named), "{named}: {}", alarm.message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_takes_every_certificate_and_the_next_bundle_starts_over() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let stolen = Stranger::with_identity_of(&site, &oslo);
    stolen.connect(Door::Agents).await.unwrap();
    let asked = Instant::now();
    let another = site.another_bundle("oslo", true).await;
    site.until_gone().await;
    assert!(asked.elapsed() <= Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(site.pins("oslo").await, ["bundle", "spent", "spent"]);
    assert_eq!(stolen.refused_at(Door::Agents).await, Refusal::Spent);
    oslo.until(State::Refused).await;
    oslo.stop().await;
    oslo.enroll(&another).await.unwrap();
    oslo.start();
    oslo.until(State::Connected).await;
    assert_eq!(site.pins("oslo").await[0], "current");
    assert_eq!(stolen.refused_at(Door::Agents).await, Refusal::Spent);
}
