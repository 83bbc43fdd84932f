//! Networks that ZeroTier Central governs.

use std::time::Duration;

use picket_proto::wire::{admin::NetworkForm, agent::NetworkSettings};
use picket_tests::{
    MemberObservation::{Authorized, Deauthorized},
    Site, naming,
};
use picket_zerotier::{
    NodeId,
    controller::{Controller as _, NewNetwork},
    fake::Trouble,
};
use tonic::Code;

const MINUTE: Duration = Duration::from_secs(60);
const FRIEND: &str = "39966434ba";

fn friend() -> NodeId {
    FRIEND.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_network_in_central_is_adopted_as_it_is_and_follows_the_grants_when_it_is_enforced() {
    let site = Site::in_central().await;
    let central = site.central().client();
    let network = central.create_network(&NewNetwork::default()).await.unwrap().id;
    let (stays, comes): (NodeId, NodeId) = ("68c19b4c83".parse().unwrap(), friend());
    central.authorize(network, stays, true).await.unwrap();
    assert_eq!(site.adopt_in_central(network).await, 1);
    site.enforce(network).await;
    site.admit(network, comes).await;
    site.until_member(network, comes, Authorized).await;
    assert!(central.member(network, comes).await.unwrap().authorized);
    site.revoke(network, comes).await;
    site.until_member(network, comes, Deauthorized).await;
    assert!(!central.member(network, comes).await.unwrap().authorized);
    assert!(central.member(network, stays).await.unwrap().authorized);
    assert!(site.network(network).await.central);
    let caution = site.until_event("network.caution").await;
    assert!(caution.message.contains("they go on"), "{}", caution.message);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_changes_at_centrals_page_is_repaired_within_a_minute_and_told_once() {
    let site = Site::in_central().await;
    let network = site.create_in_central(naming(&[FRIEND.to_owned()])).await;
    site.until_member(network, friend(), Authorized).await;
    let central = site.central().client();
    central.authorize(network, friend(), false).await.unwrap();
    site.wait(MINUTE + Duration::from_secs(5)).await;
    assert!(central.member(network, friend()).await.unwrap().authorized);
    let event = site.until_event("member.repaired").await;
    assert_eq!(event.subject, format!("{network}/{FRIEND}"));
    site.restart_master().await;
    site.wait(3 * MINUTE).await;
    assert_eq!(site.events("member.repaired").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_comparison_reads_central_now_and_one_that_cannot_is_refused() {
    let site = Site::in_central().await;
    let network = site.create_in_central(naming(&[FRIEND.to_owned()])).await;
    site.until_member(network, friend(), Authorized).await;
    let central = site.central().client();
    central.authorize(network, friend(), false).await.unwrap();
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert_eq!((dry.authorize, dry.cautions), (1, vec![]));
    assert!(!central.member(network, friend()).await.unwrap().authorized);
    let done = site.try_reconcile(network, false).await.unwrap();
    assert_eq!((done.authorize, done.cautions), (1, vec![]));
    assert!(central.member(network, friend()).await.unwrap().authorized);
    site.central()
        .trouble(std::iter::repeat_n(Trouble::Status(503), 200));
    let refused = site.try_reconcile(network, true).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test(start_paused = true)]
async fn a_network_is_made_in_central_with_its_settings_and_deleted_there() {
    let site = Site::in_central().await;
    let form = NetworkForm {
        settings: Some(NetworkSettings {
            name: Some("sensors".into()),
            mtu: Some(1400),
            ..NetworkSettings::default()
        }),
        ..NetworkForm::default()
    };
    let network = site.create_in_central(form).await;
    let central = site.central().client();
    site.wait(MINUTE).await;
    let made = central.network(network).await.unwrap();
    assert_eq!((made.name.as_str(), made.mtu), ("sensors", 1400));
    site.try_delete(network, false).await.unwrap();
    site.until_no_network(network).await;
    assert_eq!(central.networks().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn while_central_does_not_answer_a_network_says_so_and_is_caught_up_with_afterwards() {
    let site = Site::in_central().await;
    let network = site.create_in_central(naming(&[FRIEND.to_owned()])).await;
    site.until_member(network, friend(), Authorized).await;
    site.central()
        .trouble(std::iter::repeat_n(Trouble::Status(503), 200));
    site.revoke(network, FRIEND).await;
    let told = site.until_event("central.blocked").await;
    assert!(!told.message.is_empty());
    site.wait(30 * MINUTE).await;
    site.until_member(network, friend(), Deauthorized).await;
    site.until_event("central.recovered").await;
}

#[tokio::test(start_paused = true)]
async fn without_an_account_nothing_is_made_in_central_and_the_refusal_says_what_to_set() {
    let site = Site::new().await;
    let refused = site
        .try_create_in_central(NetworkForm::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("token_file"), "{}", refused.message());
}
