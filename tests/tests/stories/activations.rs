//! Permissions that end by themselves: started, warned of, ended on time, whatever happens meanwhile.

use std::time::Duration;

use jiff::SignedDuration;
use picket_proto::{from_wire_time, wire::admin::Member};
use picket_tests::{
    GrantKind::MayActivate,
    Host, MemberDecision,
    MemberObservation::{Authorized, Deauthorized},
    OperatorRole::{Operator, Requester},
    Person, Site,
};
use picket_zerotier::{NetworkId, NodeId, controller::Controller as _, node::Settings};
use tonic::Code;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A requester whose laptop may be activated, and an approver.
async fn site() -> (Site, Host, NetworkId, NodeId, Person, Person) {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.governed_network_on(&oslo).await;
    let laptop = site.lab().grow();
    let service = site.lab().service(laptop);
    service.node().join(network, Settings::default()).await.unwrap();
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    ana.request(network, laptop).await.unwrap();
    bo.approve(network, laptop, MayActivate).await.unwrap();
    (site, oslo, network, laptop, ana, bo)
}

fn until(member: &Member) -> jiff::Timestamp {
    from_wire_time(&member.until.expect("it ends by itself")).unwrap()
}

async fn authorized_at(oslo: &Host, network: NetworkId, node: NodeId) -> bool {
    let member = oslo.controller().member(network, node).await.unwrap();
    member.authorized
}

#[tokio::test(start_paused = true)]
async fn an_activation_is_warned_of_twice_and_ends_on_time_at_the_controller_too() {
    let (site, oslo, network, laptop, ana, _bo) = site().await;
    let active = ana.activate(network, "anas-laptop", Some(HOUR)).await.unwrap();
    assert_eq!(active.decision(), MemberDecision::Authorized);
    let (again, remark) = ana
        .activate_and_hear(network, laptop, Some(2 * HOUR))
        .await
        .unwrap();
    assert_eq!(until(&again), until(&active), "the second changes nothing");
    assert!(remark.contains(&format!("{:.0}", until(&active))), "{remark}");
    assert!(remark.contains("picketctl member extend"), "{remark}");
    site.until_member(network, laptop, Authorized).await;

    let left = until(&active).duration_since(site.clock.now());
    site.wait(Duration::try_from(left).unwrap() - 10 * MINUTE - MINUTE)
        .await;
    assert_eq!(site.events("member.ending").await.len(), 0);
    site.wait(MINUTE + Duration::from_secs(2)).await;
    assert_eq!(site.events("member.ending").await.len(), 1);
    site.wait(8 * MINUTE).await;
    let warnings = site.events("member.ending").await;
    assert_eq!(warnings.len(), 2);
    assert!(
        warnings[0].message.contains("ends in 10 min"),
        "{}",
        warnings[0].message
    );
    assert!(
        warnings[1].message.contains("ends in 2 min"),
        "{}",
        warnings[1].message
    );

    let left = until(&active).duration_since(site.clock.now());
    site.wait(Duration::try_from(left).unwrap() - Duration::from_secs(1))
        .await;
    assert!(authorized_at(&oslo, network, laptop).await);
    site.wait(Duration::from_secs(5)).await;
    assert!(!authorized_at(&oslo, network, laptop).await);
    let ended = site.events("member.ended").await;
    assert_eq!(ended.len(), 1);
    assert!(
        ended[0].message.contains("came to its end"),
        "{}",
        ended[0].message
    );
    let member = ana.member(network, laptop).await.unwrap();
    assert_eq!(member.decision(), MemberDecision::Denied);
    assert!(member.because.contains("came to its end"), "{}", member.because);
    assert_eq!(site.events("member.ending").await.len(), 2);
    // It may be activated again.
    ana.activate(network, laptop, None).await.unwrap();
    site.until_member(network, laptop, Authorized).await;
}

#[tokio::test(start_paused = true)]
async fn only_an_approver_moves_the_end_and_never_beyond_the_networks_maximum_from_its_start_on() {
    let (site, oslo, network, laptop, ana, bo) = site().await;
    site.rule(network, |record| record.spans.most_activation = 2 * HOUR)
        .await;
    let refused = ana.activate(network, laptop, Some(3 * HOUR)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let active = ana.activate(network, laptop, Some(HOUR)).await.unwrap();
    site.wait(50 * MINUTE + Duration::from_secs(2)).await;
    assert_eq!(site.events("member.ending").await.len(), 1);
    assert_eq!(
        ana.extend(network, laptop, HOUR).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(
        bo.extend(network, laptop, 3 * HOUR).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let shorter = bo.extend(network, laptop, MINUTE).await.unwrap_err();
    assert_eq!(shorter.code(), Code::FailedPrecondition, "{shorter}");
    // It began 50 minutes ago.
    let longer = bo.extend(network, laptop, 80 * MINUTE).await.unwrap_err();
    assert_eq!(longer.code(), Code::InvalidArgument, "{longer}");
    assert!(longer.message().contains("member activate"), "{longer}");
    let extended = bo.extend(network, laptop, 69 * MINUTE).await.unwrap();
    let gained = until(&extended).duration_since(until(&active));
    assert!(gained > SignedDuration::from_mins(58), "{gained}");
    site.wait(60 * MINUTE).await;
    assert!(authorized_at(&oslo, network, laptop).await);
    site.wait(9 * MINUTE + Duration::from_secs(5)).await;
    assert!(!authorized_at(&oslo, network, laptop).await);
    assert_eq!(
        site.events("member.ending").await.len(),
        3,
        "of the end that was moved there were two more"
    );
    let late = bo.extend(network, laptop, HOUR).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition, "{late}");
}

#[tokio::test(start_paused = true)]
async fn where_others_approve_nobody_extends_what_is_his_own_or_he_asked_for_or_started() {
    let (site, _oslo, network, laptop, ana, bo) = site().await;
    let (cy, dan) = (
        site.person("cy", Operator).await,
        site.person("dan", Operator).await,
    );
    site.rule(network, |record| record.approvals = 1).await;
    let cys = site.lab().grow();
    cy.register(cys, "cys-laptop", "").await.unwrap();
    dan.request(network, cys).await.unwrap();
    bo.approve(network, cys, MayActivate).await.unwrap();
    bo.activate(network, cys, Some(HOUR)).await.unwrap();
    ana.activate(network, laptop, Some(HOUR)).await.unwrap();
    for (who, why) in [(&cy, "own"), (&dan, "asked"), (&bo, "started")] {
        let refused = who.extend(network, cys, 2 * HOUR).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{}: {refused}", who.name);
        assert!(refused.message().contains(why), "{refused}");
    }
    bo.extend(network, laptop, 2 * HOUR).await.unwrap();
    // Where an operator admits directly, he extends directly.
    site.rule(network, |record| record.approvals = 0).await;
    bo.extend(network, cys, 2 * HOUR).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_its_owner_ends_is_over_at_once_and_ending_it_twice_is_once() {
    let (site, _oslo, network, laptop, ana, bo) = site().await;
    ana.activate(network, laptop, None).await.unwrap();
    site.until_member(network, laptop, Authorized).await;
    for _ in 0..2 {
        let ended = ana.end(network, laptop).await.unwrap();
        assert_eq!(ended.decision(), MemberDecision::Denied);
        assert!(ended.because.contains("ended by ana"), "{}", ended.because);
    }
    site.until_member(network, laptop, Deauthorized).await;
    assert_eq!(site.events("member.ended").await.len(), 1);
    assert!(bo.member(network, laptop).await.unwrap().activation.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_overdue_when_the_master_starts_ends_at_once_and_a_warning_is_given_once() {
    let (site, oslo, network, laptop, ana, _bo) = site().await;
    ana.activate(network, laptop, Some(HOUR)).await.unwrap();
    site.until_member(network, laptop, Authorized).await;
    site.wait(51 * MINUTE).await;
    assert_eq!(site.events("member.ending").await.len(), 1);
    site.restart_master().await;
    site.wait(Duration::from_secs(5)).await;
    assert_eq!(site.events("member.ending").await.len(), 1, "it was given before");

    site.stop_master().await;
    site.wait(20 * MINUTE).await;
    site.start_master().await;
    site.wait(Duration::from_secs(3)).await;
    let ended = site.events("member.ended").await;
    assert_eq!(ended.len(), 1);
    let member = ana.member(network, laptop).await.unwrap();
    assert_eq!(member.decision(), MemberDecision::Denied);
    site.until_member(network, laptop, Deauthorized).await;
    assert!(!authorized_at(&oslo, network, laptop).await);
    assert_eq!(site.events("member.ending").await.len(), 1, "too late to warn");
}

#[tokio::test(start_paused = true)]
async fn what_went_on_when_its_network_was_forgotten_ends_without_a_word_also_when_that_is_watched_again() {
    let (site, _oslo, network, laptop, ana, _bo) = site().await;
    let phone = site.lab().grow();
    ana.register(phone, "anas-phone", "").await.unwrap();
    site.rule(network, |record| record.spans.request = HOUR / 2).await;
    ana.request(network, phone).await.unwrap();
    ana.activate(network, laptop, Some(HOUR)).await.unwrap();
    site.until_member(network, laptop, Authorized).await;
    site.try_delete(network, true).await.unwrap();
    site.wait(MINUTE).await;
    site.adopt(network).await;
    site.wait(HOUR + MINUTE).await;
    let kinds = |events: Vec<picket_proto::wire::admin::Event>| {
        events.into_iter().map(|event| event.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(site.events("member.end").await), Vec::<String>::new());
    assert_eq!(
        kinds(site.events("member.request-expired").await),
        Vec::<String>::new()
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_clock_is_not_believed_activations_end_by_boot_time_and_nothing_is_approved_or_expires() {
    let (site, oslo, network, laptop, ana, bo) = site().await;
    let other = site.lab().grow();
    ana.register(other, "anas-phone", "").await.unwrap();
    site.rule(network, |record| record.spans.request = HOUR / 2).await;
    ana.request(network, other).await.unwrap();
    ana.activate(network, laptop, Some(HOUR)).await.unwrap();
    site.until_member(network, laptop, Authorized).await;
    site.clock.jump(86_400);
    site.wait(Duration::from_secs(10)).await;
    assert!(authorized_at(&oslo, network, laptop).await, "a jump ends nothing");
    for refused in [
        bo.approve(network, other, MayActivate).await,
        bo.admit(network, other, Some(HOUR)).await,
        ana.activate(network, laptop, None).await,
        bo.extend(network, laptop, 2 * HOUR).await,
    ] {
        let refused = refused.unwrap_err();
        assert!(refused.message().contains("picketctl clock accept"), "{refused}");
    }
    site.wait(HOUR).await;
    assert!(!authorized_at(&oslo, network, laptop).await);
    assert_eq!(site.events("member.ended").await.len(), 1);
    assert_eq!(site.events("member.request-expired").await.len(), 0);
    site.clock.jump(-86_400);
    site.until_event("member.request-expired").await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_that_end_in_one_moment_end_within_five_seconds() {
    let (site, oslo, network, _laptop, _ana, bo) = site().await;
    let nodes: Vec<_> = (0..100)
        .map(|number| NodeId::new(0x10_0000_0000 + number).unwrap())
        .collect();
    let end = site.clock.now() + SignedDuration::from_hours(1);
    for node in &nodes {
        let left = Duration::try_from(end.duration_since(site.clock.now())).unwrap();
        bo.admit(network, node, Some(left)).await.unwrap();
    }
    site.until_member(network, nodes[99], Authorized).await;
    let left = Duration::try_from(end.duration_since(site.clock.now())).unwrap();
    site.wait(left + Duration::from_secs(5)).await;
    for node in &nodes {
        assert!(!authorized_at(&oslo, network, *node).await, "{node}");
    }
    assert_eq!(site.events("member.ended").await.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_kill_beats_what_goes_on_and_nothing_is_granted_until_it_is_lifted() {
    let (site, _oslo, network, laptop, ana, bo) = site().await;
    ana.activate(network, laptop, None).await.unwrap();
    site.until_member(network, laptop, Authorized).await;
    site.kill_node(laptop).await;
    let member = site.until_member(network, laptop, Deauthorized).await;
    assert!(member.because.contains("killed by ada"), "{}", member.because);
    ana.end(network, laptop).await.unwrap();
    ana.request(network, laptop).await.unwrap();
    for refused in [
        ana.activate(network, laptop, None).await,
        bo.approve(network, laptop, MayActivate).await,
        bo.admit(network, laptop, None).await,
        bo.extend(network, laptop, HOUR).await,
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("picketctl unkill"), "{refused}");
    }
    bo.revoke(network, laptop).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_frozen_master_ends_nothing_until_what_was_restored_is_accepted() {
    let (site, _oslo, network, laptop, ana, _bo) = site().await;
    ana.activate(network, laptop, Some(HOUR)).await.unwrap();
    let snapshot = site.snapshot().await;
    site.stop_master().await;
    site.lose_journal_and_restore(&snapshot);
    site.start_master().await;
    site.wait(HOUR).await;
    site.wait(MINUTE).await;
    assert_eq!(site.events("member.end").await.len(), 0);
}
