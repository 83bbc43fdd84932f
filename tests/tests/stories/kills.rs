//! The kill switch, measured at the controller and on the line between nodes.

use std::time::Duration;

use picket_proto::wire::agent::{JoinedNetwork, ServiceState, ZeroTierStatus};
use picket_tests::{
    Branch, DeckyState, Host, HostState, Kill, KillScope, MemberDecision,
    MemberObservation::{Authorized, Deauthorized},
    NetworkMode, Proof, ProofState, Site, Transit,
    conversation::Conversation,
    members_by_label,
    site::{killed, until},
    stranger::{Door, Stranger},
};
use picket_transit::fake::Fault;
use picket_zerotier::{NetworkId, NodeId, controller::Controller as _, node::Settings};
use tokio::time::Instant;

/// A network on oslo's controller that bern and cork are on, and the three machines.
pub(crate) async fn three(site: &Site) -> (NetworkId, Host, Host, Host) {
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let cork = site.enroll("cork").await;
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    site.admit(network, "cork").await;
    bern.until_on(&[network]).await;
    cork.until_on(&[network]).await;
    assert!(site.lab().connected(network, bern.node, cork.node));
    (network, oslo, bern, cork)
}

/// Waits until no packet arrives between two nodes.
pub(crate) async fn until_cut(site: &Site, network: NetworkId, a: NodeId, b: NodeId) {
    until(
        &format!("{a} and {b} to be cut off from each other"),
        async || {
            if site.lab().connected(network, a, b) {
                Err("packets arrive")
            } else {
                Ok(())
            }
        },
    )
    .await;
}

/// A node that no agent of ours runs, admitted and on the network.
pub(crate) async fn external(site: &Site, network: NetworkId) -> NodeId {
    let node = site.lab().grow();
    site.admit(network, node).await;
    site.until_member(network, node, Authorized).await;
    join(site, node, network).await;
    node
}

async fn join(site: &Site, node: NodeId, network: NetworkId) {
    let service = site.lab().service(node);
    service.node().join(network, Settings::default()).await.unwrap();
}

pub(crate) fn state(proof: &Option<Proof>) -> ProofState {
    proof.as_ref().expect("a member has three proofs").state()
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_is_off_every_network_within_seconds_and_each_proof_has_its_time() {
    let site = Site::new().await;
    let (network, oslo, bern, cork) = three(&site).await;
    let asked = Instant::now();
    let kill = site.kill(KillScope::Node, "bern").await;
    assert_eq!(kill.id.len(), 8);
    let watch = site.watch_kill(&kill.id).await;
    until_cut(&site, network, bern.node, cork.node).await;
    assert!(asked.elapsed() <= Duration::from_secs(5), "{:?}", asked.elapsed());
    bern.until_on(&[]).await;
    let seen = watch.to_its_end().await;
    let last = seen.last().expect("a watch shows at least how it stands");
    assert!(last.done, "{last:#?}");
    let member = killed(last, bern.node);
    assert_eq!(member.name, "bern");
    for proof in [&member.deauthorized, &member.left] {
        let proof = proof.as_ref().unwrap();
        assert_eq!(proof.state(), ProofState::Confirmed, "{member:?}");
        let (at, killed_at) = (proof.at.unwrap(), kill.at.unwrap());
        assert!(at.seconds >= killed_at.seconds, "{member:?}");
    }
    assert_eq!(member.unconfirmed_until, None);
    let left_alone = oslo.controller().member(network, cork.node).await.unwrap();
    assert!(left_alone.authorized, "the others stay");
    let why = site.until_member(network, bern.node, Deauthorized).await;
    assert!(why.because.contains(&kill.id), "{}", why.because);
    site.until_event("kill.done").await;
    assert_eq!(site.events("kill.member").await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drill_changes_nothing_and_is_about_whom_the_kill_is_about() {
    let site = Site::new().await;
    let (network, _oslo, bern, cork) = three(&site).await;
    let drill = site.drill(KillScope::Network, network).await;
    assert_eq!((drill.id.as_str(), drill.done), ("", false));
    assert_eq!(
        drill.members.len(),
        3,
        "bern, cork and the controller: {drill:#?}"
    );
    assert_eq!(
        state(&killed(&drill, bern.node).deauthorized),
        ProofState::Waiting
    );
    site.wait(Duration::from_secs(120)).await;
    assert!(site.lab().connected(network, bern.node, cork.node));
    assert_eq!(site.kills(true).await.len(), 0);
    assert_eq!(site.events("kill").await.len(), 0);
    let kill = site.kill(KillScope::Network, network).await;
    assert_eq!(kill.members.len(), 3);
    site.until_killed(&kill.id).await;
    until_cut(&site, network, bern.node, cork.node).await;
}

#[tokio::test(start_paused = true)]
async fn the_second_kill_is_the_first_and_unkill_restores_what_the_grants_say_and_no_more() {
    let site = Site::new().await;
    let (network, oslo, bern, cork) = three(&site).await;
    let outsider = site.lab().grow();
    let controller = oslo.controller();
    controller.authorize(network, outsider, true).await.unwrap();
    site.until_member(network, outsider, Authorized).await;
    let kill = site.kill(KillScope::All, "").await;
    assert_eq!(site.kill(KillScope::All, "").await.id, kill.id);
    bern.until_on(&[]).await;
    cork.until_on(&[]).await;
    site.revoke(network, "cork").await;
    let lifted = site.unkill(KillScope::All, "").await;
    assert_eq!((lifted.id, lifted.lifted_by.as_str()), (kill.id, "admin"));
    site.until_member(network, bern.node, Authorized).await;
    bern.until_on(&[network]).await;
    site.wait(Duration::from_secs(120)).await;
    assert!(!controller.member(network, cork.node).await.unwrap().authorized);
    assert_eq!(cork.joined().await, []);
    assert_eq!(site.kills(false).await.len(), 0);
    assert_eq!(site.unkill(KillScope::All, "").await.lifted_by, "admin");
    let again = site.kill(KillScope::All, "").await;
    assert_ne!(again.id, site.kills(true).await[0].id, "another one");
}

#[tokio::test(start_paused = true)]
async fn an_external_node_is_unconfirmed_until_its_credential_has_ended_and_that_is_said() {
    let site = Site::new().await;
    let (network, _oslo, bern, _cork) = three(&site).await;
    let node = external(&site, network).await;
    let kill = site.kill(KillScope::Node, node).await;
    until_cut(&site, network, bern.node, node).await;
    let confirmed = |kill: &Kill| state(&kill.members[0].deauthorized) == ProofState::Confirmed;
    let seen = site.until_kill(&kill.id, "deauthorized", confirmed).await;
    let member = killed(&seen, node);
    let none = (ProofState::None, ProofState::None);
    assert_eq!((state(&member.left), state(&member.silent)), none);
    assert!(!seen.done, "nobody can show that it is silent");
    let (at, until) = (
        member.deauthorized.unwrap().at.unwrap(),
        member.unconfirmed_until.unwrap(),
    );
    assert_eq!(until.seconds - at.seconds, 30 * 60);
    let honest = site.until_event("kill.incomplete").await;
    assert!(honest.message.contains("unconfirmed until"), "{}", honest.message);
    site.wait(Duration::from_secs(30 * 60)).await;
    site.until_killed(&kill.id).await;
    site.until_event("kill.done").await;
}

#[tokio::test(start_paused = true)]
async fn an_offline_host_is_told_when_it_comes_back_also_after_a_restart_of_the_master() {
    let site = Site::new().await;
    let (network, _oslo, bern, cork) = three(&site).await;
    bern.unplug();
    site.until("bern", HostState::Offline).await;
    let kill = site.kill(KillScope::Node, bern.node).await;
    until_cut(&site, network, bern.node, cork.node).await;
    let confirmed = |kill: &Kill| state(&kill.members[0].deauthorized) == ProofState::Confirmed;
    let before = site.until_kill(&kill.id, "deauthorized", confirmed).await;
    let member = killed(&before, bern.node);
    assert_eq!(state(&member.left), ProofState::Unreachable);
    assert!(
        member.problem.contains("bern is not connected"),
        "{}",
        member.problem
    );
    assert!(!before.done);
    site.restart_master().await;
    site.until("oslo", HostState::Online).await;
    let after = site.kill_by_id(&kill.id).await;
    assert_eq!(
        killed(&after, bern.node).deauthorized,
        member.deauthorized,
        "a proof outlives a restart"
    );
    assert_eq!(bern.joined().await.len(), 1);
    bern.plug_in();
    let done = site.until_killed(&kill.id).await;
    assert_eq!(state(&killed(&done, bern.node).left), ProofState::Confirmed);
    bern.until_on(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_down_is_said_and_does_it_when_it_is_back() {
    let site = Site::new().await;
    let (network, oslo, bern, _cork) = three(&site).await;
    oslo.stop_zerotier();
    site.until_condition("oslo", "does not run").await;
    let kill = site.kill(KillScope::Node, "bern").await;
    let left = |kill: &Kill| state(&kill.members[0].left) == ProofState::Confirmed;
    let seen = site.until_kill(&kill.id, "left, by the other path", left).await;
    let member = killed(&seen, bern.node);
    assert_eq!(state(&member.deauthorized), ProofState::Unreachable);
    assert!(
        member.problem.contains("controller on oslo"),
        "{}",
        member.problem
    );
    assert!(
        seen.cautions.iter().any(|caution| caution.contains("oslo")),
        "{:?}",
        seen.cautions
    );
    site.until_event("kill.incomplete").await;
    assert!(!site.kill_by_id(&kill.id).await.done);
    oslo.start_zerotier();
    site.until_killed(&kill.id).await;
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
async fn a_master_that_dies_right_after_a_kill_carries_it_out_and_knows_whom_it_is_about() {
    let site = Site::new().await;
    let (network, _oslo, bern, cork) = three(&site).await;
    let kill = site.kill(KillScope::Node, "bern").await;
    site.crash_master().await;
    until_cut(&site, network, bern.node, cork.node).await;
    let done = site.until_killed(&kill.id).await;
    assert_eq!(state(&killed(&done, bern.node).left), ProofState::Confirmed);
    site.until("cork", HostState::Online).await;
    assert_eq!(cork.joined().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whom_somebody_authorizes_again_outside_is_taken_off_again_and_not_called_done_meanwhile() {
    let site = Site::new().await;
    let (network, oslo, bern, _cork) = three(&site).await;
    let kill = site.kill(KillScope::Node, "bern").await;
    site.until_killed(&kill.id).await;
    oslo.stop().await;
    let controller = oslo.controller();
    controller.authorize(network, bern.node, true).await.unwrap();
    oslo.start();
    until("the controller to follow the kill again", async || {
        let authorized = controller.member(network, bern.node).await.unwrap().authorized;
        if authorized {
            Err("it authorizes what is killed")
        } else {
            Ok(())
        }
    })
    .await;
    site.until_killed(&kill.id).await;
    let refused = site.try_admit(network, "bern").await.unwrap_err();
    assert!(refused.message().contains("unkill"), "{}", refused.message());
    // The deauthorization is made again meanwhile, which lets it on for a second.
    site.wait(Duration::from_secs(130)).await;
    assert!(!controller.member(network, bern.node).await.unwrap().authorized);
    let member = site.until_member(network, bern.node, Deauthorized).await;
    assert_eq!(member.decision(), MemberDecision::Denied);
}

#[tokio::test(start_paused = true)]
async fn a_killed_host_is_banned_off_its_networks_and_rid_of_deckies_and_let_in_again_by_unkill() {
    let site = Site::new().await;
    let (network, _oslo, bern, cork) = three(&site).await;
    site.deploy(&Branch::default().decky("web", "bern")).await;
    site.until_deckies(&["web"], DeckyState::Running).await;
    let drill = site.drill(KillScope::Host, "bern").await;
    assert_eq!(
        state(&drill.banned),
        ProofState::None,
        "it is not banned by a drill"
    );
    site.until("bern", HostState::Online).await;
    let kill = site.kill(KillScope::Host, "bern").await;
    until_cut(&site, network, bern.node, cork.node).await;
    site.until("bern", HostState::Banned).await;
    bern.until_on(&[]).await;
    let cut = |kill: &Kill| state(&kill.banned) == ProofState::Confirmed;
    let seen = site.until_kill(&kill.id, "cut", cut).await;
    assert_eq!(
        state(&seen.shard_removed),
        ProofState::Unreachable,
        "its own word would be needed: {seen:#?}"
    );
    assert!(
        seen.cautions.iter().any(|caution| caution.contains("1 decky")),
        "{:?}",
        seen.cautions
    );
    assert_eq!(site.events("host.banned").await.len(), 1);
    until("bern to stop its deckies", async || {
        let left = bern.docker.container_names();
        if left.is_empty() {
            Ok(())
        } else {
            Err(left.join(", "))
        }
    })
    .await;
    site.unkill(KillScope::Host, "bern").await;
    bern.restart().await;
    site.until("bern", HostState::Online).await;
    bern.until_on(&[network]).await;
    site.until_deckies(&["web"], DeckyState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn unkill_lets_no_host_in_that_was_banned_before_or_since() {
    let site = Site::new().await;
    let (_network, _oslo, _bern, _cork) = three(&site).await;
    site.ban("bern", "before").await;
    site.kill(KillScope::Host, "bern").await;
    site.unkill(KillScope::Host, "bern").await;
    site.until("bern", HostState::Banned).await;
    site.kill(KillScope::Host, "cork").await;
    site.unban("cork").await;
    site.wait(Duration::from_secs(1)).await;
    site.ban("cork", "since").await;
    site.unkill(KillScope::Host, "cork").await;
    site.until("cork", HostState::Banned).await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_reaches_a_network_that_is_only_observed_and_touches_nobody_else_there() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let (network, friend) = (site.network_on(&oslo).await, site.lab().grow());
    let controller = oslo.controller();
    for node in [bern.node, friend] {
        controller.authorize(network, node, true).await.unwrap();
    }
    bern.join_by_hand(network).await;
    join(&site, friend, network).await;
    until("bern and a friend to reach each other", async || {
        let connected = site.lab().connected(network, bern.node, friend);
        if connected {
            Ok(())
        } else {
            Err("no packet arrives")
        }
    })
    .await;
    site.wait(Duration::from_secs(40)).await;
    assert_eq!(site.adopt(network).await, 2);
    let kill = site.kill(KillScope::Node, "bern").await;
    until_cut(&site, network, bern.node, friend).await;
    let by_hand = |kill: &Kill| kill.members[0].problem.contains("by hand");
    let seen = site
        .until_kill(&kill.id, "said to be joined by hand", by_hand)
        .await;
    assert_eq!(state(&killed(&seen, bern.node).left), ProofState::None);
    assert!(
        seen.cautions
            .iter()
            .any(|caution| caution.contains("only observed")),
        "{:?}",
        seen.cautions
    );
    assert!(controller.member(network, friend).await.unwrap().authorized);
    assert_eq!(site.network(network).await.mode(), NetworkMode::Observe);
    let lifted = site.unkill(KillScope::Node, "bern").await;
    assert!(
        lifted
            .cautions
            .iter()
            .any(|caution| caution.contains("network enforce")),
        "{:?}",
        lifted.cautions
    );
    controller.authorize(network, bern.node, true).await.unwrap();
    site.wait(Duration::from_secs(120)).await;
    assert!(
        controller.member(network, bern.node).await.unwrap().authorized,
        "a lifted kill is not carried out any more"
    );
}

#[tokio::test(start_paused = true)]
async fn that_a_kill_cuts_our_own_path_is_said_before_and_after() {
    let site = Site::new().await;
    let (network, _oslo, bern, _cork) = three(&site).await;
    bern.stop().await;
    let stranger = Stranger::with_identity_of(&site, &bern);
    let connected = stranger.connect(Door::Agents).await.expect("the door opens");
    let mut talk = Conversation::open(&connected).await.expect("the master talks");
    let over = ZeroTierStatus {
        service: ServiceState::Answers.into(),
        node_id: bern.node.to_string(),
        networks: vec![JoinedNetwork {
            network_id: network.to_string(),
            status: "OK".to_owned(),
            managed: true,
            carries_session: true,
            ..Default::default()
        }],
        ..Default::default()
    };
    talk.beat_zerotier(1, &over).await;
    talk.acknowledged().await;
    for kill in [
        site.drill(KillScope::Network, network).await,
        site.kill(KillScope::Network, network).await,
    ] {
        let says = |caution: &String| caution.contains("bern") && caution.contains("cuts our own path");
        assert!(kill.cautions.iter().any(says), "{:?}", kill.cautions);
        let member = killed(&kill, bern.node);
        assert!(member.problem.contains("cuts our own path"), "{}", member.problem);
    }
    drop((talk, connected));
    let kill = site.kills(false).await.remove(0);
    let away = |kill: &Kill| state(&killed(kill, bern.node).left) == ProofState::Unreachable;
    let seen = site.until_kill(&kill.id, "without bern's word", away).await;
    let member = killed(&seen, bern.node);
    assert!(
        member.problem.contains("went over this network"),
        "{}",
        member.problem
    );
}

#[tokio::test(start_paused = true)]
async fn a_label_that_takes_a_host_off_the_network_of_its_session_is_taken_away_by_force_alone() {
    let site = Site::new().await;
    let (network, _oslo, bern, _cork) = three(&site).await;
    site.label("bern", "site", "bern").await;
    site.apply(network, members_by_label("site", "bern")).await;
    bern.stop().await;
    let stranger = Stranger::with_identity_of(&site, &bern);
    let connected = stranger.connect(Door::Agents).await.expect("the door opens");
    let mut talk = Conversation::open(&connected).await.expect("the master talks");
    let over = ZeroTierStatus {
        service: ServiceState::Answers.into(),
        node_id: bern.node.to_string(),
        networks: vec![JoinedNetwork {
            network_id: network.to_string(),
            status: "OK".to_owned(),
            managed: true,
            carries_session: true,
            ..Default::default()
        }],
        ..Default::default()
    };
    talk.beat_zerotier(1, &over).await;
    talk.acknowledged().await;
    let refused = site.try_label("bern", "site", "other").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(
        refused.message().contains("cuts our own path"),
        "{}",
        refused.message()
    );
    site.label("bern", "rack", "4").await;
    site.label_by_force("bern", "site", "other").await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_killed_says_why() {
    let site = Site::new().await;
    for (scope, subject, code) in [
        (KillScope::Node, "nobody", tonic::Code::InvalidArgument),
        (KillScope::Host, "nobody", tonic::Code::NotFound),
        (KillScope::Owner, "nobody", tonic::Code::NotFound),
        (
            KillScope::Network,
            "39966434ba000001",
            tonic::Code::FailedPrecondition,
        ),
        (KillScope::All, "oslo", tonic::Code::InvalidArgument),
        (KillScope::Unspecified, "oslo", tonic::Code::InvalidArgument),
    ] {
        let refused = site.try_kill(scope, subject).await.unwrap_err();
        assert_eq!(refused.code(), code, "{scope:?} {subject}: {}", refused.message());
    }
    let refused = site.try_unkill(KillScope::All, "").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound, "{}", refused.message());
}

#[tokio::test(start_paused = true)]
async fn a_kill_waits_for_no_decision_that_waits_for_the_cas_key() {
    let transit = Transit::new();
    let site = Site::with_ca_key(&transit.lines, "").await;
    let (network, _oslo, bern, cork) = three(&site).await;
    transit.fake.fail_always(Some(Fault::Silence));
    let asked = transit.fake.asked().len();
    let (prepared, took) = tokio::join!(site.try_prepare_ca(), async {
        until("the engine to be asked", async || {
            if transit.fake.asked().len() > asked {
                Ok(())
            } else {
                Err("it is not asked")
            }
        })
        .await;
        let before = Instant::now();
        site.kill(KillScope::Node, "bern").await;
        before.elapsed()
    });
    assert!(prepared.is_err(), "the engine is silent");
    assert!(took < Duration::from_secs(2), "{took:?}");
    until_cut(&site, network, bern.node, cork.node).await;
}
