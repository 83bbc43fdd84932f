//! Networks that ZeroTier Central governs.

use std::time::Duration;

use picket_proto::wire::{
    admin::{ListAuditRequest, NetworkForm},
    agent::NetworkSettings,
};
use picket_tests::{
    Kill, KillScope,
    MemberObservation::{Authorized, Deauthorized},
    OperatorRole::Operator,
    ProofState, Site, naming,
    site::{killed, until},
};
use picket_zerotier::{
    NetworkId, NodeId,
    controller::{Controller as _, NewNetwork},
    fake::Trouble,
};
use tonic::Code;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
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

/// A network in Central that the friend is on.
async fn befriended(site: &Site) -> NetworkId {
    let network = site.create_in_central(naming(&[FRIEND.to_owned()])).await;
    site.until_member(network, friend(), Authorized).await;
    network
}

/// What a kill says of Central's word.
fn deauthorized(kill: &Kill) -> ProofState {
    killed(kill, friend()).deauthorized.as_ref().unwrap().state()
}

fn is_deauthorized(kill: &Kill) -> bool {
    deauthorized(kill) == ProofState::Confirmed
}

#[tokio::test(start_paused = true)]
async fn a_kill_in_central_is_confirmed_at_once_whatever_is_decided_of_other_networks_meanwhile() {
    let site = Site::in_central().await;
    let oslo = site.enroll("oslo").await;
    let elsewhere = site.governed_network_on(&oslo).await;
    let network = befriended(&site).await;
    let kill = site.kill(KillScope::Node, FRIEND).await;
    site.admit(elsewhere, site.lab().grow()).await;
    let seen = site
        .until_kill(&kill.id, "deauthorized in Central", is_deauthorized)
        .await;
    let proof = killed(&seen, friend()).deauthorized.unwrap();
    let took = proof.at.unwrap().seconds - kill.at.unwrap().seconds;
    assert!(took <= 3, "{seen:#?}");
    let member = site.central().client().member(network, friend()).await.unwrap();
    assert!(!member.authorized);
    // Nobody of ours sees it: Central's credentials may last two hours.
    assert!(!seen.done);
    site.wait(121 * MINUTE).await;
    site.until_killed(&kill.id).await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_while_central_is_away_is_carried_out_when_it_is_back_also_after_a_restart_of_the_master() {
    let site = Site::in_central().await;
    let oslo = site.enroll("oslo").await;
    let elsewhere = site.governed_network_on(&oslo).await;
    for restarts in [false, true] {
        let network = befriended(&site).await;
        site.central().unplug();
        let kill = site.kill(KillScope::Network, network).await;
        let away = |kill: &Kill| deauthorized(kill) == ProofState::Unreachable;
        let seen = site.until_kill(&kill.id, "out of reach", away).await;
        let problem = &killed(&seen, friend()).problem;
        assert!(problem.contains("Central"), "{problem}");
        site.admit(elsewhere, site.lab().grow()).await;
        if restarts {
            site.restart_master().await;
        }
        site.wait(5 * MINUTE).await;
        site.central().plug_in();
        site.until_kill(&kill.id, "deauthorized in Central", is_deauthorized)
            .await;
        let member = site.central().client().member(network, friend()).await.unwrap();
        assert!(!member.authorized);
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_in_central_that_is_not_ours_or_does_not_answer_keeps_no_kill_on_another_waiting() {
    for trouble in [Trouble::Status(403), Trouble::Silence] {
        let site = Site::in_central().await;
        let networks = [befriended(&site).await, befriended(&site).await];
        for (bad, good) in [(networks[0], networks[1]), (networks[1], networks[0])] {
            site.central().afflict(bad, Some(trouble));
            let kill = site.kill(KillScope::Network, good).await;
            site.until_kill(&kill.id, "deauthorized in Central", is_deauthorized)
                .await;
            let kill = site.kill(KillScope::Network, bad).await;
            let away = |kill: &Kill| deauthorized(kill) == ProofState::Unreachable;
            site.until_kill(&kill.id, "out of reach", away).await;
            site.central().afflict(bad, None);
            site.until_kill(&kill.id, "deauthorized in Central", is_deauthorized)
                .await;
            for network in networks {
                site.unkill(KillScope::Network, network).await;
                site.until_member(network, friend(), Authorized).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_activation_in_central_ends_on_time_and_whoever_asks_for_one_is_told_who_ends_it() {
    let site = Site::in_central().await;
    let bo = site.person("bo", Operator).await;
    let network = site.create_in_central(NetworkForm::default()).await;
    let lasts = Some(10 * MINUTE);
    let active = bo.admit(network, friend(), lasts).await.unwrap();
    let end = picket_proto::from_wire_time(&active.until.expect("it ends")).unwrap();
    site.until_member(network, friend(), Authorized).await;
    let central = site.central().client();
    // Whoever ends it has read of it on disk.
    site.restart_master().await;
    let left = Duration::try_from(end.duration_since(site.clock.now())).unwrap();
    site.wait(left - SECOND).await;
    assert!(central.member(network, friend()).await.unwrap().authorized);
    site.wait(6 * SECOND).await;
    assert!(!central.member(network, friend()).await.unwrap().authorized);
    let cautions = site.cautions_of(network, friend()).await;
    assert_eq!(cautions.len(), 3);
    for (what, caution) in cautions {
        assert!(caution.contains("they go on"), "{what}: {caution}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_central_is_slow_to_make_is_kept_though_whoever_asked_has_gone() {
    let site = Site::in_central().await;
    site.central().trouble([Trouble::TooMany(Some(5))]);
    let asked = site.try_create_in_central(naming(&[FRIEND.to_owned()]));
    let gone = tokio::time::timeout(SECOND, asked).await;
    assert!(gone.is_err(), "Central has it wait");
    let networks = until("the network to be made", async || {
        let made = site.central().client().networks().await.unwrap();
        if made.is_empty() { Err("none is") } else { Ok(made) }
    })
    .await;
    site.until_event("network.created").await;
    site.until_member(networks[0], friend(), Authorized).await;
}

#[tokio::test(start_paused = true)]
async fn a_network_that_central_made_without_saying_so_is_found_by_its_name_in_the_refusal_and_the_trail() {
    let site = Site::in_central().await;
    site.central().trouble([Trouble::Cut]);
    let refused = site
        .try_create_in_central(NetworkForm::default())
        .await
        .unwrap_err();
    let central = site.central().client();
    let made = central.networks().await.unwrap();
    assert_eq!(made.len(), 1, "it was made: {}", refused.message());
    let name = central.network(made[0]).await.unwrap().name;
    assert!(refused.message().contains(&name), "{}", refused.message());
    let intended = ListAuditRequest {
        what: "network.intend".to_owned(),
        ..ListAuditRequest::default()
    };
    assert_eq!(site.trail(&intended).await[0].subject, name);
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
