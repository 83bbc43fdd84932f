//! What shows that a kill is true, and what a kill and its lifting do not claim.

use std::time::Duration;

use picket_proto::wire::{admin::NetworkForm, agent::NetworkSettings};
use picket_tests::{
    Branch, DeckyState, HostState, Kill, KillScope,
    MemberObservation::{Authorized, Deauthorized},
    OperatorRole::Requester,
    ProofState, Site, naming,
    site::{killed, until},
};
use picket_zerotier::{controller::Controller as _, node::Settings};

use crate::kills::{external, state, three, until_cut};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn killing_an_owner_cuts_off_every_device_of_that_person_and_nobody_elses() {
    let site = Site::new().await;
    let (network, _oslo, bern, cork) = three(&site).await;
    let ana = site.person("ana", Requester).await;
    let (laptop, phone) = (site.lab().grow(), site.lab().grow());
    for (node, name) in [(laptop, "anas-laptop"), (phone, "anas-phone")] {
        ana.register(node, name, "").await.unwrap();
        site.admit(network, name).await;
        let service = site.lab().service(node);
        service.node().join(network, Settings::default()).await.unwrap();
        site.until_member(network, node, Authorized).await;
    }
    until("ana's devices to be on", async || {
        let on = |node| site.lab().connected(network, bern.node, node);
        if on(laptop) && on(phone) {
            Ok(())
        } else {
            Err("no packet arrives")
        }
    })
    .await;
    let kill = site.kill(KillScope::Owner, "ana").await;
    for node in [laptop, phone] {
        until_cut(&site, network, bern.node, node).await;
        site.until_member(network, node, Deauthorized).await;
    }
    assert!(site.lab().connected(network, bern.node, cork.node));
    let names: Vec<_> = kill.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{kill:#?}");
    assert!(
        names.contains(&"anas-laptop") && names.contains(&"anas-phone"),
        "{names:?}"
    );
    site.wait(31 * MINUTE).await;
    site.until_killed(&kill.id).await;
    site.unkill(KillScope::Owner, "ana").await;
    site.until_member(network, laptop, Authorized).await;
    site.until_member(network, phone, Authorized).await;
}

#[tokio::test(start_paused = true)]
async fn another_hosts_agent_says_when_a_killed_member_is_silent() {
    let site = Site::new().await;
    let (oslo, cork) = (site.enroll("oslo").await, site.enroll("cork").await);
    let form = NetworkForm {
        settings: Some(NetworkSettings {
            rfc4193: Some(true),
            ..NetworkSettings::default()
        }),
        witnesses: true,
        ..NetworkForm::default()
    };
    let network = site.create(&oslo, form).await;
    site.admit(network, "cork").await;
    cork.until_on(&[network]).await;
    let node = external(&site, network).await;
    // A witness asks once a minute, and says nothing of whom it never heard.
    site.wait(5 * MINUTE).await;
    let kill = site.kill(KillScope::Node, node).await;
    let silent = |kill: &Kill| state(&killed(kill, node).silent) == ProofState::Confirmed;
    let seen = site.until_kill(&kill.id, "silent", silent).await;
    let member = killed(&seen, node);
    let took = member.silent.unwrap().at.unwrap().seconds - kill.at.unwrap().seconds;
    assert!((1..=30).contains(&took), "three probes in a row, {took} s");
    assert_eq!(member.unconfirmed_until, None);
    assert!(seen.done, "nobody of ours runs it, and it is silent: {seen:#?}");
    let told = site.events("kill.member").await;
    assert!(
        told.iter().any(|event| event.message.contains("is silent")),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_was_away_carries_a_kill_out_also_when_the_master_restarted_meanwhile() {
    let site = Site::new().await;
    let (network, oslo, bern, cork) = three(&site).await;
    let node = external(&site, network).await;
    oslo.stop_zerotier();
    site.until_condition("oslo", "does not run").await;
    let kill = site.kill(KillScope::Node, node).await;
    site.restart_master().await;
    site.until("oslo", HostState::Online).await;
    let away = |kill: &Kill| state(&killed(kill, node).deauthorized) == ProofState::Unreachable;
    site.until_kill(&kill.id, "known, and not carried out", away)
        .await;
    oslo.start_zerotier();
    let off = |kill: &Kill| state(&killed(kill, node).deauthorized) == ProofState::Confirmed;
    site.until_kill(&kill.id, "carried out", off).await;
    assert!(!oslo.controller().member(network, node).await.unwrap().authorized);
    let left_alone = oslo.controller().member(network, cork.node).await.unwrap();
    assert!(left_alone.authorized);
    drop(bern);
}

#[tokio::test(start_paused = true)]
async fn a_ban_that_was_asked_for_outlives_the_kill_that_had_banned_the_host() {
    let site = Site::new().await;
    let (_network, _oslo, _bern, _cork) = three(&site).await;
    site.kill(KillScope::Host, "bern").await;
    site.ban("bern", "forensics").await;
    assert_eq!(
        site.events("host.banned").await.len(),
        2,
        "the ban is one of its own"
    );
    let lifted = site.unkill(KillScope::Host, "bern").await;
    site.wait(Duration::from_secs(5)).await;
    site.until("bern", HostState::Banned).await;
    let says = |caution: &String| caution.contains("stays banned") && caution.contains("forensics");
    assert!(lifted.cautions.iter().any(says), "{:?}", lifted.cautions);
    site.kill(KillScope::Host, "cork").await;
    let lifted = site.unkill(KillScope::Host, "cork").await;
    let banned = |caution: &String| caution.contains("banned");
    assert!(!lifted.cautions.iter().any(banned), "{:?}", lifted.cautions);
}

#[tokio::test(start_paused = true)]
async fn the_kill_of_a_host_is_not_done_while_its_deckies_may_run() {
    let site = Site::new().await;
    let bern = site.enroll("bern").await;
    site.deploy(&Branch::default().decky("web", "bern")).await;
    site.until_deckies(&["web"], DeckyState::Running).await;
    bern.unplug();
    site.until("bern", HostState::Offline).await;
    let kill = site.kill(KillScope::Host, "bern").await;
    assert_eq!(kill.members, [], "it is on no network");
    let told = site.until_event("kill.incomplete").await;
    assert!(told.message.contains("deckies of the host"), "{}", told.message);
    let kill = site.kill_by_id(&kill.id).await;
    assert_eq!(state(&kill.banned), ProofState::Confirmed);
    assert_eq!(state(&kill.shard_removed), ProofState::Unreachable);
    assert!(!kill.done, "{kill:#?}");
    assert_eq!(site.events("kill.done").await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_kill_calls_nobody_off_a_network_that_was_forgotten_meanwhile() {
    let site = Site::new().await;
    let (network, oslo, bern, _cork) = three(&site).await;
    oslo.stop_zerotier();
    site.until_condition("oslo", "does not run").await;
    let kill = site.kill(KillScope::Node, "bern").await;
    site.try_delete(network, true).await.unwrap();
    let says = |kill: &Kill| killed(kill, bern.node).problem.contains("watched no longer");
    let seen = site.until_kill(&kill.id, "not known", says).await;
    let deauthorized = state(&killed(&seen, bern.node).deauthorized);
    assert_eq!(deauthorized, ProofState::Unreachable);
    assert!(!seen.done, "{seen:#?}");
}

#[tokio::test(start_paused = true)]
async fn whom_a_network_let_on_before_it_was_forgotten_is_not_let_on_when_it_is_watched_again() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.governed_network_on(&oslo).await;
    let friend = site.lab().grow();
    site.apply(network, naming(&[friend.to_string()])).await;
    site.until_member(network, friend, Authorized).await;
    let joined = site.lab().service(friend).node();
    joined.join(network, Settings::default()).await.unwrap();
    site.try_delete(network, true).await.unwrap();
    site.wait(MINUTE).await;
    let controller = oslo.controller();
    controller.authorize(network, friend, false).await.unwrap();
    site.wait(MINUTE).await;
    site.adopt(network).await;
    site.enforce(network).await;
    site.wait(3 * MINUTE).await;
    assert!(!controller.member(network, friend).await.unwrap().authorized);
}
