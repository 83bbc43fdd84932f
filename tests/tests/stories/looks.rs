//! What an operator is told of a controller is how it is now, or says from when it is.

use std::time::Duration;

use picket_tests::{
    Host,
    HostState::Offline,
    MemberObservation::{Authorized, Deauthorized},
    Site,
    conversation::Conversation,
    stranger::{Door, Stranger},
};
use picket_zerotier::{NetworkId, NodeId, controller::Controller as _};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

fn node(number: u64) -> NodeId {
    NodeId::new(0x10_0000_0000 + number).unwrap()
}

async fn let_on(oslo: &Host, network: NetworkId, numbers: std::ops::RangeInclusive<u64>, on: bool) {
    for number in numbers {
        let changed = oslo.controller().authorize(network, node(number), on).await;
        changed.unwrap();
    }
}

/// A network with `on` members that were adopted, and `off` records beside them.
async fn with_records(site: &Site, oslo: &Host, on: u64, off: u64) -> NetworkId {
    let network = site.network_on(oslo).await;
    let_on(oslo, network, 1..=on, true).await;
    let_on(oslo, network, on + 1..=on + off, false).await;
    site.wait(MINUTE).await;
    site.adopt(network).await;
    network
}

async fn enforced(site: &Site, network: NetworkId) {
    site.enforce(network).await;
    site.until_outcome("oslo", "members", "done").await;
    site.wait(MINUTE).await;
}

async fn with_a_revoked_friend(site: &Site, oslo: &Host) -> (NetworkId, NodeId) {
    let friend = site.lab().grow();
    let network = site.governed_network_on(oslo).await;
    site.admit(network, friend).await;
    site.until_member(network, friend, Authorized).await;
    site.revoke(network, friend).await;
    site.until_member(network, friend, Deauthorized).await;
    site.wait(MINUTE).await;
    (network, friend)
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_was_changed_at_the_controller_a_moment_ago_and_changes_nothing() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let (network, friend) = with_a_revoked_friend(&site, &oslo).await;
    oslo.controller().authorize(network, friend, true).await.unwrap();
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert_eq!((dry.deauthorize, dry.cautions), (1, vec![]));
    let record = oslo.controller().member(network, friend).await.unwrap();
    assert!(record.authorized, "a dry run repairs nothing");
    let done = site.try_reconcile(network, false).await.unwrap();
    assert_eq!(
        (done.deauthorize, done.changes.len(), done.cautions),
        (1, 1, vec![])
    );
    let record = oslo.controller().member(network, friend).await.unwrap();
    assert!(!record.authorized);
}

#[tokio::test(start_paused = true)]
async fn a_report_too_long_for_a_beat_is_waited_for_too() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = with_records(&site, &oslo, 1500, 0).await;
    enforced(&site, network).await;
    let_on(&oslo, network, 1..=2, false).await;
    let asked = Instant::now();
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert_eq!((dry.authorize, dry.held_back, dry.cautions), (2, 0, vec![]));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn of_a_host_that_does_not_answer_it_is_said_from_when_that_is() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let (network, friend) = with_a_revoked_friend(&site, &oslo).await;
    oslo.unplug();
    oslo.controller().authorize(network, friend, true).await.unwrap();
    let asked = Instant::now();
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!((dry.deauthorize, dry.cautions.len()), (0, 1));
    let caution = &dry.cautions[0];
    assert!(
        caution.starts_with("oslo ") && caution.contains("; this is as of 2026-11-22T"),
        "{caution}"
    );
    site.until("oslo", Offline).await;
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert!(
        dry.cautions[0].starts_with("oslo is not connected; this is as of"),
        "{:?}",
        dry.cautions
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_too_old_to_look_is_not_waited_for() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let (network, _) = with_a_revoked_friend(&site, &oslo).await;
    oslo.stop().await;
    let older = Stranger::with_identity_of(&site, &oslo)
        .connect(Door::Agents)
        .await;
    let older = older.unwrap_or_else(|error| panic!("{error}"));
    let mut talk = Conversation::open(&older).await.unwrap();
    talk.welcomed().await.unwrap();
    let asked = Instant::now();
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert!(
        dry.cautions[0].contains("is older than this"),
        "{:?}",
        dry.cautions
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_stopped_is_not_taken_for_one_that_was_looked_at() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let (network, _) = with_a_revoked_friend(&site, &oslo).await;
    oslo.stop_zerotier();
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert!(
        dry.cautions[0].starts_with("oslo cannot read its controller: "),
        "{:?}",
        dry.cautions
    );
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_has_the_brake_of_whoever_repairs_and_not_another_one() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = with_records(&site, &oslo, 20, 80).await;
    enforced(&site, network).await;
    let_on(&oslo, network, 1..=8, false).await;
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert_eq!((dry.authorize, dry.held_back), (8, 8));
    site.until_event("network.held-back").await;
    let held = site.try_reconcile(network, false).await.unwrap();
    assert_eq!((held.authorize, held.held_back), (0, 8));
    site.resume(network).await;
    site.until_event("network.recovered").await;
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert_eq!((dry.authorize, dry.held_back), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn before_it_is_enforced_nothing_is_promised_to_be_held_back() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = with_records(&site, &oslo, 30, 0).await;
    let_on(&oslo, network, 1..=30, false).await;
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert_eq!(
        (dry.authorize, dry.held_back),
        (31, 0),
        "the controller's own node is to be on it too"
    );
    assert!(
        dry.cautions[0].contains(&format!(
            "`picketctl network enforce {network}` does all of this at once"
        )),
        "{:?}",
        dry.cautions
    );
    enforced(&site, network).await;
    let members = oslo.controller().members(network).await.unwrap();
    let on = members
        .by_node
        .values()
        .filter(|member| member.authorized)
        .count();
    assert!(on >= 30, "{on}");
    assert_eq!(site.events("network.held-back").await, []);
}

#[tokio::test(start_paused = true)]
async fn every_repair_and_every_stranger_is_told_within_a_minute_however_much_was_told_before() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = with_records(&site, &oslo, 60, 0).await;
    enforced(&site, network).await;
    for round in 1..=5 {
        let_on(&oslo, network, 1..=12, false).await;
        let stranger = site.lab().grow();
        let asked = oslo.controller().authorize(network, stranger, false).await;
        asked.unwrap();
        site.wait(MINUTE).await;
        let repaired = site.events("member.repaired").await;
        assert_eq!(repaired.len(), 12 * round, "round {round}");
        assert!(
            repaired[0].message.contains("and repaired, at 2026-11-22T"),
            "{}",
            repaired[0].message
        );
        let unknown = site.events("member.unknown").await;
        let subject = format!("{network}/{stranger}");
        assert!(
            unknown.iter().any(|event| event.subject == subject),
            "round {round}"
        );
    }
}
