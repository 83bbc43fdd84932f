//! The life of one network, from its making to its restoration after a kill.

use std::time::Duration;

use picket_tests::{
    GrantKind::MayActivate,
    KillScope, MemberDecision,
    MemberObservation::{Authorized, Deauthorized},
    OperatorRole::{Operator, Requester},
    Site, members_by_label,
};
use picket_zerotier::{controller::Controller as _, node::Settings};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_network_is_made_requested_approved_activated_expired_drifted_killed_and_restored() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );

    // Made on oslo's controller, for hosts of one site.
    let network = site.create(&oslo, members_by_label("site", "bern")).await;
    site.label("bern", "site", "bern").await;
    bern.until_on(&[network]).await;
    site.until_member(network, bern.node, Authorized).await;

    // Requested for ana's laptop, which is refused until somebody else approves.
    let laptop = site.lab().grow();
    let service = site.lab().service(laptop);
    service.node().join(network, Settings::default()).await.unwrap();
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    site.until_member(network, laptop, Deauthorized).await;
    ana.request(network, "anas-laptop").await.unwrap();
    assert!(ana.activate(network, "anas-laptop", None).await.is_err());

    // Approved, so that it may be activated; activated, and let on.
    bo.approve(network, "anas-laptop", MayActivate).await.unwrap();
    ana.activate(network, "anas-laptop", Some(10 * MINUTE))
        .await
        .unwrap();
    site.until_member(network, laptop, Authorized).await;

    // Expired by itself.
    site.wait(10 * MINUTE + Duration::from_secs(5)).await;
    let over = site.until_member(network, laptop, Deauthorized).await;
    assert_eq!(over.decision(), MemberDecision::Denied);
    assert!(over.because.contains("came to its end"), "{}", over.because);

    // Drifted: somebody puts a member off at the controller, and it is told and repaired.
    oslo.controller()
        .authorize(network, bern.node, false)
        .await
        .unwrap();
    let told = site.until_event("member.repaired").await;
    assert!(told.message.contains("outside Picket"), "{}", told.message);
    site.until_member(network, bern.node, Authorized).await;

    // Killed: off at the controller, and gone from its own machine.
    let kill = site.kill(KillScope::Node, "bern").await;
    site.until_member(network, bern.node, Deauthorized).await;
    bern.until_on(&[]).await;
    site.until_killed(&kill.id).await;

    // Restored: what the grants say, and no more.
    site.unkill(KillScope::Node, "bern").await;
    bern.until_on(&[network]).await;
    site.until_member(network, bern.node, Authorized).await;
    site.wait(3 * MINUTE).await;
    assert!(
        !oslo
            .controller()
            .member(network, laptop)
            .await
            .unwrap()
            .authorized
    );
}
