//! Who lets whom on a network: requests, approvals, and who gives them.

use std::time::Duration;

use picket_proto::wire::admin::{ListAuditRequest, NetworkForm};
use picket_tests::{
    GrantKind::{self, MayActivate, Stands},
    Host, MemberDecision,
    MemberObservation::{Authorized, Deauthorized},
    OperatorRole::{Admin, Operator, Requester, Viewer},
    RequestState, Site, naming,
};
use picket_zerotier::{NetworkId, NodeId, controller::Controller as _, node::Settings};
use tonic::{Code, Status};

/// A site whose one network wants so many approvals, and a node that knocks there.
async fn site(approvals: u8) -> (Site, Host, NetworkId, NodeId) {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.governed_network_on(&oslo).await;
    site.rule(network, |record| record.approvals = approvals).await;
    let laptop = site.lab().grow();
    let service = site.lab().service(laptop);
    service.node().join(network, Settings::default()).await.unwrap();
    (site, oslo, network, laptop)
}

fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.unwrap_err().code()
}

#[tokio::test(start_paused = true)]
async fn what_a_requester_asks_for_is_let_on_when_another_one_approves() {
    let (site, _oslo, network, laptop) = site(1).await;
    let ana = site.person("ana", Requester).await;
    let bo = site.person("bo", Operator).await;
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    let asked = ana.request(network, "anas-laptop").await.unwrap();
    assert_eq!(asked.decision(), MemberDecision::Denied);
    let request = asked.request.unwrap();
    assert_eq!(
        (request.state(), request.missing, request.by.as_str()),
        (RequestState::Pending, 1, "ana")
    );
    let listed = site.members(network).await;
    assert!(listed.iter().any(|member| member.node_id == laptop.to_string()));

    let approved = bo.approve(network, "anas-laptop", Stands).await.unwrap();
    assert_eq!(approved.decision(), MemberDecision::Authorized);
    assert_eq!(
        (approved.grant(), approved.owner.as_str()),
        (Stands, "person/ana")
    );
    site.until_member(network, laptop, Authorized).await;

    let trail = site
        .trail(&ListAuditRequest {
            oldest_first: true,
            ..Default::default()
        })
        .await;
    let subject = format!("{network}/{laptop}");
    let done: Vec<_> = trail
        .iter()
        .filter(|entry| entry.subject == subject)
        .map(|entry| (entry.what.as_str(), entry.who.as_str(), entry.why.as_str()))
        .collect();
    assert_eq!(
        done,
        [
            ("member.request", "operator/ana", "a story"),
            ("member.approve", "operator/bo", "a story")
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn two_approvals_come_from_two_people_and_the_stricter_word_is_granted() {
    let (site, _oslo, network, laptop) = site(2).await;
    let ana = site.person("ana", Requester).await;
    let (bo, cy) = (
        site.person("bo", Operator).await,
        site.person("cy", Operator).await,
    );
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    ana.request(network, laptop).await.unwrap();
    for _ in 0..2 {
        let member = bo.approve(network, laptop, MayActivate).await.unwrap();
        assert_eq!(member.request.as_ref().unwrap().missing, 1);
        assert_eq!(member.decision(), MemberDecision::Denied);
    }
    let member = cy.approve(network, laptop, Stands).await.unwrap();
    assert_eq!(member.grant(), MayActivate);
    assert_eq!(member.decision(), MemberDecision::Denied, "{}", member.because);
    ana.activate(network, laptop, None).await.unwrap();
    site.until_member(network, laptop, Authorized).await;
}

#[tokio::test(start_paused = true)]
async fn the_approval_of_somebody_who_is_revoked_counts_no_more_nor_does_the_request_of_one() {
    let (site, _oslo, network, laptop) = site(2).await;
    let ana = site.person("ana", Requester).await;
    let (bo, cy) = (
        site.person("bo", Operator).await,
        site.person("cy", Operator).await,
    );
    let eve = site.person("eve", Operator).await;
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    ana.request(network, laptop).await.unwrap();
    bo.approve(network, laptop, Stands).await.unwrap();
    site.revoke_operator("bo", "").await.unwrap();
    let request = cy.member(network, laptop).await.unwrap().request.unwrap();
    assert_eq!((request.missing, request.approvals[0].lapsed), (2, true));
    let member = cy.approve(network, laptop, Stands).await.unwrap();
    assert_eq!(member.request.unwrap().missing, 1);
    site.revoke_operator("ana", "").await.unwrap();
    let refused = eve.approve(network, laptop, Stands).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("ana"), "{refused}");
    eve.deny(network, laptop).await.unwrap();
    cy.request(network, laptop).await.unwrap();
    eve.approve(network, laptop, Stands).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_revokes_an_operator_is_told_which_nodes_of_its_stay() {
    let (site, _oslo, network, laptop) = site(1).await;
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    ana.register(site.lab().grow(), "anas-phone", "").await.unwrap();
    ana.request(network, laptop).await.unwrap();
    bo.approve(network, laptop, Stands).await.unwrap();
    let left = site.revoke_operator("ana", "").await.unwrap().still_authorized;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].name, "anas-laptop");
    assert_eq!(left[0].network_ids, [network.to_string()]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_and_what_runs_ends_with_its_network_and_not_when_it_is_adopted_again() {
    let (site, oslo, network, laptop) = site(1).await;
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );
    let phone = site.lab().grow();
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    ana.register(phone, "anas-phone", "").await.unwrap();
    ana.request(network, laptop).await.unwrap();
    bo.approve(network, laptop, MayActivate).await.unwrap();
    ana.activate(network, laptop, Some(Duration::from_secs(7200)))
        .await
        .unwrap();
    ana.request(network, phone).await.unwrap();
    site.try_delete(network, true).await.unwrap();
    // It is adopted by who knows only that nobody is on it.
    site.until_no_network(network).await;
    let put_off = oslo.controller().authorize(network, laptop, false).await;
    put_off.unwrap();
    site.wait(Duration::from_secs(60)).await;
    site.adopt(network).await;
    site.enforce(network).await;
    assert_eq!(site.network(network).await.requests, 0);
    assert_eq!(bo.member(network, phone).await.unwrap().request, None);
    let refused = bo.approve(network, phone, Stands).await.unwrap_err();
    assert!(refused.message().contains("waits"), "{refused}");
    let member = bo.member(network, laptop).await.unwrap();
    assert_eq!(
        (member.decision(), member.activation),
        (MemberDecision::Denied, None)
    );
    ana.request(network, laptop).await.unwrap();
    let member = bo.approve(network, laptop, MayActivate).await.unwrap();
    assert_eq!(member.decision(), MemberDecision::Denied, "{}", member.because);
    let member = ana.activate(network, laptop, None).await.unwrap();
    assert_eq!(
        member.decision(),
        MemberDecision::Authorized,
        "{}",
        member.because
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_approves_what_they_asked_for_or_own_and_admitting_does_not_get_around_it() {
    let (site, _oslo, network, laptop) = site(1).await;
    let (ana, bo) = (
        site.person("ana", Operator).await,
        site.person("bo", Operator).await,
    );
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    let refused = ana.admit(network, laptop, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("picketctl member request"),
        "{refused}"
    );

    bo.request(network, laptop).await.unwrap();
    assert_eq!(
        code(bo.approve(network, laptop, Stands).await),
        Code::PermissionDenied
    );
    assert_eq!(
        code(bo.admit(network, laptop, None).await),
        Code::PermissionDenied
    );
    // The node is ana's own.
    assert_eq!(
        code(ana.approve(network, laptop, Stands).await),
        Code::PermissionDenied
    );
    // Both are told who may.
    for person in [&ana, &bo] {
        let refused = person.approve(network, laptop, Stands).await.unwrap_err();
        let who = "somebody else has to approve: any operator or admin but ana, bo";
        assert!(refused.message().contains(who), "{refused}");
    }
    bo.cancel(network, laptop).await.unwrap();

    ana.request(network, laptop).await.unwrap();
    let admitted = bo.admit(network, laptop, None).await.unwrap();
    assert_eq!(admitted.decision(), MemberDecision::Authorized);
    assert_eq!(admitted.request.unwrap().state(), RequestState::Approved);
}

#[tokio::test(start_paused = true)]
async fn a_settings_file_does_not_get_around_approvals_but_in_the_hands_of_an_admin() {
    let (site, _oslo, network, laptop) = site(2).await;
    let (bo, ada) = (site.person("bo", Operator).await, site.person("ada", Admin).await);
    let two = NetworkForm {
        approvals: 2,
        ..NetworkForm::default()
    };
    let his_own = NetworkForm {
        approvals: 2,
        ..naming(&[laptop.to_string()])
    };
    for form in [his_own.clone(), NetworkForm::default()] {
        let why = site.plan_network(network, form.clone()).await.needs_admin;
        assert!(why.contains("2 approvals"), "{why}");
        let refused = bo.apply(network, form).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains(&why), "{refused}");
    }
    let witnessed = NetworkForm {
        witnesses: true,
        ..two
    };
    assert_eq!(
        site.plan_network(network, witnessed.clone()).await.needs_admin,
        ""
    );
    bo.apply(network, witnessed).await.unwrap();
    ada.apply(network, his_own).await.unwrap();
    site.until_member(network, laptop, Authorized).await;
}

#[tokio::test(start_paused = true)]
async fn the_approvers_a_network_names_are_the_only_ones_whatever_their_role() {
    let (site, _oslo, network, laptop) = site(1).await;
    site.rule(network, |record| {
        record.approvers.insert("vi".to_owned());
    })
    .await;
    let (ana, vi) = (
        site.person("ana", Requester).await,
        site.person("vi", Viewer).await,
    );
    let bo = site.person("bo", Operator).await;
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    ana.request(network, laptop).await.unwrap();
    let refused = bo.approve(network, laptop, Stands).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("vi"), "{refused}");
    assert_eq!(code(bo.deny(network, laptop).await), Code::PermissionDenied);
    assert_eq!(
        code(ana.approve(network, laptop, Stands).await),
        Code::PermissionDenied
    );
    vi.approve(network, laptop, MayActivate).await.unwrap();
    let active = ana.activate(network, laptop, None).await.unwrap();
    assert_eq!(active.decision(), MemberDecision::Authorized);
    let longer = Duration::from_secs(7200);
    assert_eq!(
        code(bo.extend(network, laptop, longer).await),
        Code::PermissionDenied
    );
    assert_eq!(
        code(ana.extend(network, laptop, longer).await),
        Code::PermissionDenied
    );
    vi.extend(network, laptop, longer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn approvers_who_may_not_approve_are_named_and_settings_that_leave_none_are_refused() {
    let (site, _oslo, network, _laptop) = site(1).await;
    site.person("ana", Requester).await;
    site.person("bo", Operator).await;
    let naming = |approvers: &[&str]| picket_proto::wire::admin::NetworkForm {
        approvals: 1,
        approvers: approvers.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    let plan = site.plan_network(network, naming(&["ana", "bo", "ghost"])).await;
    assert_eq!(plan.cautions.len(), 2, "{:?}", plan.cautions);
    assert!(
        plan.cautions[0].contains("ana's role is requester"),
        "{:?}",
        plan.cautions
    );
    assert!(
        plan.cautions[1].contains("ghost is no operator"),
        "{:?}",
        plan.cautions
    );
    let refused = site
        .try_apply(network, naming(&["ana", "ghost"]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("ghost is no operator"), "{refused}");
    let plan = site.plan_network(network, naming(&["ana", "ghost"])).await;
    assert!(plan.cautions[0].contains("refused"), "{:?}", plan.cautions);
    site.apply(network, naming(&["ana", "bo", "ghost"])).await;
    // What is not about approvers is applied whoever is left of them.
    site.rule(network, |record| {
        record.approvers = ["ghost".to_owned()].into();
    })
    .await;
    site.apply(network, naming(&["ghost"])).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_again_for_another_reason_is_told_that_the_first_one_stays() {
    let (site, _oslo, network, laptop) = site(1).await;
    let ana = site.person("ana", Requester).await;
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    let ask = async |reason| ana.request_because(network, laptop, reason).await.unwrap();
    assert_eq!(ask("ticket 1").await.1, "");
    assert_eq!(ask("ticket 1").await.1, "");
    let (member, remark) = ask("ticket 2").await;
    assert_eq!(member.request.unwrap().reason, "ticket 1");
    assert!(
        remark.contains("ticket 1") && remark.contains("member cancel"),
        "{remark}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_denied_taken_back_or_too_old_grants_nothing_and_can_be_made_again() {
    let (site, _oslo, network, laptop) = site(1).await;
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    site.rule(network, |record| record.spans.request = Duration::from_secs(600))
        .await;
    let state = |member: picket_proto::wire::admin::Member| member.request.unwrap().state();

    ana.request(network, laptop).await.unwrap();
    assert_eq!(
        state(bo.deny(network, laptop).await.unwrap()),
        RequestState::Denied
    );
    assert_eq!(
        state(ana.request(network, laptop).await.unwrap()),
        RequestState::Pending
    );
    assert_eq!(
        state(ana.cancel(network, laptop).await.unwrap()),
        RequestState::Cancelled
    );
    assert_eq!(
        state(ana.request(network, laptop).await.unwrap()),
        RequestState::Pending
    );
    site.wait(Duration::from_secs(590)).await;
    assert_eq!(site.events("member.request-expired").await.len(), 0);
    site.wait(Duration::from_secs(12)).await;
    assert_eq!(site.events("member.request-expired").await.len(), 1);
    assert_eq!(
        state(ana.member(network, laptop).await.unwrap()),
        RequestState::Expired
    );
    assert_eq!(
        code(bo.approve(network, laptop, Stands).await),
        Code::FailedPrecondition
    );
    let member = ana.member(network, laptop).await.unwrap();
    assert_eq!(
        (member.decision(), member.grant()),
        (MemberDecision::Denied, GrantKind::Unspecified)
    );
}

#[tokio::test(start_paused = true)]
async fn revoking_closes_what_waits_and_ends_what_goes_on() {
    let (site, _oslo, network, laptop) = site(0).await;
    let bo = site.person("bo", Operator).await;
    bo.request(network, laptop).await.unwrap();
    let revoked = bo.revoke(network, laptop).await.unwrap();
    assert_eq!(revoked.request.as_ref().unwrap().state(), RequestState::Denied);
    assert_eq!(revoked.decision(), MemberDecision::Denied);

    let active = bo
        .admit(network, laptop, Some(Duration::from_secs(3600)))
        .await
        .unwrap();
    assert_eq!(active.decision(), MemberDecision::Authorized);
    site.until_member(network, laptop, Authorized).await;
    let revoked = bo.revoke(network, laptop).await.unwrap();
    assert!(revoked.activation.unwrap().ended_at.is_some());
    site.until_member(network, laptop, Deauthorized).await;
    // It was over with the permission, and does not come back with another one.
    bo.request(network, laptop).await.unwrap();
    let cy = site.person("cy", Operator).await;
    let again = cy.approve(network, laptop, MayActivate).await.unwrap();
    assert_eq!(again.decision(), MemberDecision::Denied, "{}", again.because);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_beats_the_settings_file_that_allows_a_node() {
    let (site, _oslo, network, laptop) = site(0).await;
    site.rule(network, |record| {
        record
            .allow
            .insert(laptop, picket_master::record::network::AllowedNode::default());
    })
    .await;
    site.until_member(network, laptop, Authorized).await;
    site.revoke(network, laptop).await;
    let member = site.until_member(network, laptop, Deauthorized).await;
    assert!(member.because.contains("revoked by admin"), "{}", member.because);
}
