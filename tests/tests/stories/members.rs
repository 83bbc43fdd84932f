//! Who is on which ZeroTier network.

use std::time::Duration;

use picket_tests::{
    MemberDecision,
    MemberObservation::{Authorized, Deauthorized},
    NetworkMode, Site, members_by_label,
};
use picket_zerotier::{controller::Controller as _, node::Settings};
use tokio::time::Instant;
use tonic::Code;

#[tokio::test(start_paused = true)]
async fn adopting_imports_who_is_authorized_and_changes_nothing() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.network_on(&oslo).await;
    let (friend, stranger) = (site.lab().grow(), site.lab().grow());
    oslo.controller().authorize(network, friend, true).await.unwrap();
    oslo.controller()
        .authorize(network, stranger, false)
        .await
        .unwrap();
    let before = oslo.controller().members(network).await.unwrap();
    site.wait(Duration::from_secs(40)).await;
    assert_eq!(site.adopt(network).await, 1);
    site.wait(Duration::from_secs(120)).await;
    assert_eq!(oslo.controller().members(network).await.unwrap(), before);
    assert_eq!(site.network(network).await.mode(), NetworkMode::Observe);
    let member = site.until_member(network, friend, Authorized).await;
    assert_eq!(member.decision(), MemberDecision::Authorized);
    assert!(member.because.contains("adopted"), "{}", member.because);
}

#[tokio::test(start_paused = true)]
async fn an_observed_network_takes_no_admissions() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.network_on(&oslo).await;
    site.adopt(network).await;
    let refused = site.try_admit(network, "bern").await.unwrap_err();
    assert_eq!(
        refused.code(),
        tonic::Code::FailedPrecondition,
        "{}",
        refused.message()
    );
    site.wait(Duration::from_secs(60)).await;
    assert_eq!(bern.joined().await, []);
}

#[tokio::test(start_paused = true)]
async fn an_admitted_host_joins_by_itself_and_is_let_in() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.until_member(network, bern.node, Authorized).await;
    site.until_outcome("oslo", "members", "done").await;
    site.until_outcome("bern", "networks", "done").await;
    let seen = site.try_host("bern").await.unwrap().networks;
    assert!(
        seen.iter()
            .any(|on| on.network_id == network.to_string() && on.managed),
        "{seen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_revoked_host_is_deauthorized_and_leaves() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.revoke(network, "bern").await;
    site.until_member(network, bern.node, Deauthorized).await;
    bern.until_on(&[]).await;
    assert!(
        !oslo
            .controller()
            .member(network, bern.node)
            .await
            .unwrap()
            .authorized
    );
}

#[tokio::test(start_paused = true)]
async fn a_network_joined_by_hand_is_never_left() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    bern.join_by_hand(network).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.revoke(network, "bern").await;
    site.until_member(network, bern.node, Deauthorized).await;
    site.ban("bern", "and that even so").await;
    site.wait(Duration::from_secs(300)).await;
    assert_eq!(
        bern.joined().await.len(),
        1,
        "it is refused there, and still there"
    );
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_changes_at_the_controller_is_repaired_within_a_minute() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    oslo.controller()
        .authorize(network, bern.node, false)
        .await
        .unwrap();
    let meddled = Instant::now();
    site.wait(Duration::from_secs(60)).await;
    assert!(
        oslo.controller()
            .member(network, bern.node)
            .await
            .unwrap()
            .authorized,
        "after {:?}",
        meddled.elapsed()
    );
    bern.until_on(&[network]).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_is_repaired_without_a_master_and_after_a_power_failure() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.stop_master().await;
    oslo.power_off().await;
    oslo.start();
    oslo.controller()
        .authorize(network, bern.node, false)
        .await
        .unwrap();
    site.wait(Duration::from_secs(60)).await;
    assert!(
        oslo.controller()
            .member(network, bern.node)
            .await
            .unwrap()
            .authorized
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_nobody_registered_is_shown_and_left_alone() {
    let site = Site::new().await;
    let (oslo, stranger) = (site.enroll("oslo").await, site.lab().grow());
    let network = site.governed_network_on(&oslo).await;
    site.lab()
        .service(stranger)
        .node()
        .join(network, Settings::default())
        .await
        .unwrap();
    let member = site.until_member(network, stranger, Deauthorized).await;
    assert_eq!(member.decision(), MemberDecision::Unknown);
    oslo.controller()
        .authorize(network, stranger, true)
        .await
        .unwrap();
    site.until_member(network, stranger, Authorized).await;
    site.wait(Duration::from_secs(120)).await;
    assert!(
        oslo.controller()
            .member(network, stranger)
            .await
            .unwrap()
            .authorized
    );
    assert_eq!(site.network(network).await.members_unknown, 1);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_down_blocks_and_is_caught_up_with_when_it_is_back() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    oslo.stop_zerotier();
    site.admit(network, "bern").await;
    let problems = site.until_outcome("oslo", "members", "blocked").await;
    assert!(!problems.is_empty());
    site.wait(Duration::from_secs(600)).await;
    oslo.start_zerotier();
    site.until_outcome("oslo", "members", "done").await;
    bern.until_on(&[network]).await;
}

#[tokio::test(start_paused = true)]
async fn two_thousand_members_travel_beside_the_beats_in_both_directions() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.network_on(&oslo).await;
    let controller = oslo.controller();
    for number in 1..=2000_u64 {
        let node = picket_zerotier::NodeId::new(0x10_0000_0000 + number).unwrap();
        controller.authorize(network, node, true).await.unwrap();
    }
    site.wait(Duration::from_secs(40)).await;
    assert_eq!(
        site.adopt(network).await,
        2000,
        "the list reached the master, though no beat is long enough for it"
    );
    let beats = site.metric("master_beats_total").await;
    site.enforce(network).await;
    site.until_outcome("oslo", "members", "done").await;
    site.until_metric("master_beats_total", beats + 2).await;
    // The controller's own node is one by itself.
    assert_eq!(site.network(network).await.members_authorized, 2001);
    assert_eq!(site.network(network).await.drift, 0);
}

#[tokio::test(start_paused = true)]
async fn no_label_and_no_enforcing_and_no_accepted_node_lets_anybody_on_while_the_clock_is_not_believed() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.machine("bern"));
    bern.hide_identity();
    let bern = site.bring_in(bern).await;
    let network = site.governed_network_on(&oslo).await;
    site.apply(network, members_by_label("site", "bern")).await;
    let watched = site.network_on(&oslo).await;
    site.adopt(watched).await;
    site.until_waiting("bern", bern.node).await;
    site.clock.jump(3600);
    let refused = [
        site.try_label("bern", "site", "bern").await,
        site.try_enforce(watched).await,
        site.try_accept_node("bern", bern.node).await.map(drop),
    ];
    for refused in refused {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("picketctl clock accept"), "{refused}");
    }
    // What lets nobody on is no approval.
    site.try_label("bern", "rack", "7").await.unwrap();
    site.clock.jump(-3600);
    site.wait(Duration::from_secs(5)).await;
    site.try_label("bern", "site", "bern").await.unwrap();
    site.try_enforce(watched).await.unwrap();
    site.try_accept_node("bern", bern.node).await.unwrap();
    site.clock.jump(3600);
    // Nor is what takes a member away, or leaves it.
    site.try_label("bern", "rack", "8").await.unwrap();
    site.unlabel("bern", "site").await;
}
