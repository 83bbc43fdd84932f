//! Who is let in, under which key, and how whoever is not learns why.

use std::{sync::Arc, time::Duration};

use picket_agent::{Farewell, status::State};
use picket_pki::Refusal;
use picket_tests::{
    HostState::{Banned, Online},
    MemberObservation, Site,
    stranger::{Door, Stranger},
};
use tokio::{task::JoinSet, time::Instant};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_renew_is_harmless() {
    let site = Site::new().await;
    let (oslo, bundle) = (site.machine("oslo"), site.bundle("oslo").await);
    let line = oslo.line.clone();
    let cut = site.at_commit(1, "host/", move || line.cut());
    oslo.enroll(&bundle).await.unwrap_err();
    cut.await.unwrap();
    assert!(!oslo.state().join("identity/next.json").exists());
    assert_eq!(
        site.pins("oslo").await,
        ["pending", "bundle"],
        "the master has signed, the agent has nothing"
    );
    oslo.plug_in();
    oslo.enroll(&bundle).await.unwrap();
    assert_eq!(
        site.pins("oslo").await,
        ["current", "spent"],
        "and no second key was signed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_bundle_opens_nothing_after_its_use() {
    let site = Site::new().await;
    let (oslo, bundle) = (site.machine("oslo"), site.bundle("oslo").await);
    oslo.enroll(&bundle).await.unwrap();
    assert_eq!(
        Stranger::with_bundle(&site, &bundle)
            .refused_at(Door::Agents)
            .await,
        Refusal::Spent
    );
    let thief = site.machine("thief");
    let refused = picket_agent::sentence(&thief.enroll(&bundle).await.unwrap_err());
    assert!(refused.contains("the bundle has been used before"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn another_key_under_a_used_bundle_is_refused_and_an_alarm_that_names_both_addresses() {
    let site = Site::new().await;
    let (thief, oslo, bundle) = (
        site.machine("thief"),
        site.machine("oslo"),
        site.bundle("oslo").await,
    );
    let line = thief.line.clone();
    let cut = site.at_commit(1, "host/", move || line.cut());
    thief.enroll(&bundle).await.unwrap_err();
    cut.await.unwrap();
    let refused = picket_agent::sentence(&oslo.enroll(&bundle).await.unwrap_err());
    assert!(
        refused.contains("10.0.0.1:40000"),
        "whoever came second learns where the first one was: {refused}"
    );
    let alarm = site.until_event("renewal.refused").await;
    assert!(
        alarm.message.contains("10.0.0.1:40000") && alarm.message.contains("10.0.0.2:40000"),
        "{}",
        alarm.message
    );
    assert_eq!(alarm.subject, "oslo");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_enrolled_once() {
    let site = Site::new().await;
    site.enroll("oslo").await;
    let refused = site.try_bundle("oslo").await.unwrap_err();
    assert_eq!(
        refused.code(),
        tonic::Code::AlreadyExists,
        "{}",
        refused.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_our_ca_without_a_pin_is_refused_before_a_byte_of_http_is_read() {
    let site = Site::new().await;
    let stranger = Stranger::with_unpinned_certificate(&site);
    let accepted = site.handshakes("agents", "accepted").await;
    assert_eq!(stranger.refused_at(Door::Agents).await, Refusal::Unknown);
    assert_eq!(
        stranger.bursts_in().await,
        0,
        "not even the settings of an HTTP/2 server came back"
    );
    assert_eq!(site.handshakes("agents", "unknown").await, 2);
    assert_eq!(site.handshakes("agents", "accepted").await, accepted);
    let event = site.until_event("handshake.refused").await;
    assert!(
        event.message.contains("2 handshakes"),
        "one event a minute for both: {}",
        event.message
    );
}

#[tokio::test(start_paused = true)]
async fn a_hosts_certificate_does_not_open_the_operators_door_nor_an_operators_the_hosts() {
    let site = Site::new().await;
    let host = Stranger::with_bundle(&site, &site.bundle("oslo").await);
    assert_eq!(host.refused_at(Door::Admin).await, Refusal::WrongRole);
    let operator = Stranger::with_admin_bundle(&site);
    assert_eq!(operator.refused_at(Door::Agents).await, Refusal::WrongRole);
    host.connect(Door::Agents).await.unwrap();
    operator.connect(Door::Admin).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_ban_cuts_the_session_within_a_second_after_a_last_word_and_shuts_the_door() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let asked = Instant::now();
    assert!(site.ban("oslo", "seen scanning").await.session_cut);
    let last_word = oslo.until(State::Banned).await;
    site.until_gone().await;
    assert!(asked.elapsed() <= Duration::from_secs(1), "{:?}", asked.elapsed());
    assert!(
        last_word.contains("this host is banned: seen scanning"),
        "{last_word}"
    );
    site.until("oslo", Banned).await;
    oslo.restart().await;
    let refusal = oslo.until(State::Refused).await;
    assert!(refusal.contains("banned or retired"), "{refusal}");
    assert_eq!(site.handshakes("agents", Refusal::Revoked.label()).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_banned_hosts_node_is_off_the_network_at_the_controller_and_at_home() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.ban("bern", "seen scanning").await;
    let member = site
        .until_member(network, bern.node, MemberObservation::Deauthorized)
        .await;
    assert!(member.because.contains("bern is banned"), "{}", member.because);
    bern.until_on(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_retired_host_cleans_up_forgets_its_keys_and_frees_its_name() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    assert!(site.retire("bern", "moved").await.told);
    assert_eq!(bern.farewell().await, Farewell::Retired);
    bern.until_on(&[]).await;
    assert_eq!(
        std::fs::read_dir(bern.state().join("identity")).unwrap().count(),
        0,
        "no key is left on the machine"
    );
    site.until_member(network, bern.node, MemberObservation::Deauthorized)
        .await;
    assert_eq!(
        site.try_host("bern").await.unwrap_err().code(),
        tonic::Code::NotFound
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_host_was_granted_ends_with_it_though_its_machine_comes_back_under_its_name() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.retire("bern", "sold").await;
    bern.farewell().await;
    let bern = site.bring_in(bern).await;
    site.wait(Duration::from_secs(60)).await;
    let member = site
        .until_member(network, bern.node, MemberObservation::Deauthorized)
        .await;
    assert!(member.because.contains("retired"), "{}", member.because);
    assert_eq!(bern.joined().await, []);
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_half_its_life_and_nobody_is_alarmed() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let first = site.current_pin("oslo").await;
    for (off, renewed) in [(65, false), (35, true)] {
        oslo.stop().await;
        site.wait(off * HOUR).await;
        oslo.start();
        site.wait(HOUR).await;
        let differs = site.current_pin("oslo").await != first;
        assert_eq!(
            differs, renewed,
            "after {off} more hours; half its week less a tenth is 67 h, half and a tenth 101 h"
        );
    }
    oslo.until(State::Connected).await;
    assert_eq!(
        (site.events("host.late").await, site.events("host.offline").await),
        (vec![], vec![])
    );
    assert_eq!(site.pins("oslo").await, ["current", "spent", "spent"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_unbanned_comes_back_with_what_it_had() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.ban("bern", "by mistake").await;
    bern.until_on(&[]).await;
    site.unban("bern").await;
    bern.restart().await;
    site.until("bern", Online).await;
    bern.until_on(&[network]).await;
}

#[tokio::test(start_paused = true)]
async fn an_enrolment_that_is_cut_off_at_any_commit_is_finished_by_the_next() {
    for commits in 1..=2 {
        let site = Site::new().await;
        let (oslo, bundle) = (Arc::new(site.machine("oslo")), site.bundle("oslo").await);
        let (machine, carried) = (Arc::clone(&oslo), bundle.clone());
        let mut enrolment = JoinSet::new();
        let power = enrolment.spawn(async move { machine.enroll(&carried).await });
        let fails = site.at_commit(commits, "host/", move || power.abort());
        assert!(enrolment.join_next().await.unwrap().unwrap_err().is_cancelled());
        fails.await.unwrap();
        oslo.enroll(&bundle)
            .await
            .unwrap_or_else(|error| panic!("{}", picket_agent::sentence(&error)));
        oslo.start();
        site.until("oslo", Online).await;
        assert_eq!(
            site.pins("oslo").await,
            ["current", "spent"],
            "cut off at commit {commits}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn another_bundle_shuts_out_whoever_used_the_first_one() {
    let site = Site::new().await;
    let (thief, oslo, stolen) = (
        site.machine("thief"),
        site.machine("oslo"),
        site.bundle("oslo").await,
    );
    thief.enroll(&stolen).await.unwrap();
    thief.start();
    thief.until(State::Connected).await;
    let another = site.another_bundle("oslo", true).await;
    site.until_gone().await;
    oslo.enroll(&another).await.unwrap();
    oslo.start();
    oslo.until(State::Connected).await;
    let refusal = thief.until(State::Refused).await;
    assert!(refusal.contains("has been replaced"), "{refusal}");
}
