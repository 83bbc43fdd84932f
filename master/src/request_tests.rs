use super::*;
use crate::record::network::Governor;

fn node() -> NodeId {
    "39966434ba".parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn network(approvals: u8, approvers: &[&str]) -> NetworkRecord {
    let id = "5350d87547c880cb".parse().unwrap();
    NetworkRecord {
        approvals,
        approvers: approvers.iter().map(|name| (*name).to_owned()).collect(),
        ..NetworkRecord::watched(id, Governor::CENTRAL, at(0))
    }
}

fn caller(name: &str, role: OperatorRole) -> Caller {
    Caller {
        name: name.into(),
        role,
    }
}

fn word_of(by: &str, second: i64) -> Revocation {
    Revocation {
        at: at(second),
        by: by.into(),
        reason: "on call".into(),
    }
}

fn asked_by(by: &str, network: &NetworkRecord) -> RequestRecord {
    make(None, network, node(), word_of(by, 10)).unwrap().unwrap()
}

fn approve_as(
    name: &str,
    request: &RequestRecord,
    network: &NetworkRecord,
    permission: Permission,
) -> Result<Approved, RequestError> {
    approve_among(
        &|_| Some(OperatorRole::Operator),
        name,
        request,
        network,
        permission,
    )
}

/// As above, where those who have to do with it have these roles.
fn approve_among(
    role: &dyn Fn(&str) -> Option<OperatorRole>,
    name: &str,
    request: &RequestRecord,
    network: &NetworkRecord,
    permission: Permission,
) -> Result<Approved, RequestError> {
    let who = caller(name, OperatorRole::Operator);
    let owner = Owner::Person("ana".into());
    let about = About {
        owner: Some(&owner),
        ..about(network, role)
    };
    approve(Some(request), &about, (&who, permission), word_of(name, 20))
}

fn about<'a>(network: &'a NetworkRecord, role: &'a dyn Fn(&str) -> Option<OperatorRole>) -> About<'a> {
    About {
        network,
        node: node(),
        owner: None,
        role,
    }
}

/// How many approvals are missing while everybody is an operator.
fn missing(request: &RequestRecord, network: &NetworkRecord) -> usize {
    super::missing(request, &about(network, &|_| Some(OperatorRole::Operator)))
}

#[test]
fn one_approval_grants_where_one_is_needed_or_none() {
    for approvals in [0, 1] {
        let network = network(approvals, &[]);
        let request = asked_by("ana", &network);
        assert_eq!(missing(&request, &network), 1);
        let Ok(Approved::Granted(request, permission)) =
            approve_as("bo", &request, &network, Permission::Stands)
        else {
            panic!("it is granted")
        };
        assert_eq!(
            (request.state, permission),
            (RequestState::Approved, Permission::Stands)
        );
        assert_eq!(missing(&request, &network), 0);
    }
}

#[test]
fn who_may_give_what_is_missing_is_neither_who_asked_nor_whose_it_is_nor_who_gave_it() {
    let owner = Owner::Person("ana".into());
    let role = |name: &str| match name {
        "ana" => Some(OperatorRole::Requester),
        "ghost" => None,
        _ => Some(OperatorRole::Operator),
    };
    let said = |network: &NetworkRecord, request: &RequestRecord| {
        let about = About {
            owner: Some(&owner),
            ..about(network, &role)
        };
        about.missing_from(request)
    };
    let open = network(2, &[]);
    let mut request = asked_by("dan", &open);
    assert_eq!(said(&open, &request), "any operator or admin but ana, dan");
    request.approvals.push(word_of("bo", 20));
    assert_eq!(said(&open, &request), "any operator or admin but ana, bo, dan");

    let named = network(2, &["ana", "bo", "cy", "dan", "ghost"]);
    assert_eq!(said(&named, &request), "cy");
    request.approvals.push(word_of("cy", 21));
    assert!(
        said(&named, &request).starts_with("nobody: "),
        "{}",
        said(&named, &request)
    );
}

#[test]
fn two_approvals_are_those_of_two_people() {
    let network = network(2, &[]);
    let request = asked_by("ana", &network);
    let Ok(Approved::Waits(request)) = approve_as("bo", &request, &network, Permission::Stands) else {
        panic!("another one is needed")
    };
    assert_eq!(missing(&request, &network), 1);
    assert_eq!(
        approve_as("bo", &request, &network, Permission::Stands),
        Ok(Approved::Same)
    );
    let Ok(Approved::Granted(request, _)) = approve_as("cy", &request, &network, Permission::Stands) else {
        panic!("that is two")
    };
    assert_eq!(request.approvals.len(), 2);
    assert_eq!(
        approve_as("bo", &request, &network, Permission::Stands),
        Ok(Approved::Same)
    );
}

#[test]
fn of_two_approvals_the_stricter_word_wins_whoever_said_it() {
    use Permission::{MayActivate, Stands};
    let network = network(2, &[]);
    for (first, second, granted) in [
        (Stands, Stands, Stands),
        (Stands, MayActivate, MayActivate),
        (MayActivate, Stands, MayActivate),
        (MayActivate, MayActivate, MayActivate),
    ] {
        let request = asked_by("ana", &network);
        let Ok(Approved::Waits(request)) = approve_as("bo", &request, &network, first) else {
            panic!("another one is needed")
        };
        let Ok(Approved::Granted(_, permission)) = approve_as("cy", &request, &network, second) else {
            panic!("that is two")
        };
        assert_eq!(permission, granted, "{first:?} and {second:?}");
    }
}

#[test]
fn nobody_approves_what_they_asked_for_or_what_is_their_own() {
    let network = network(1, &[]);
    let own = approve_as("bo", &asked_by("bo", &network), &network, Permission::Stands);
    assert!(matches!(own, Err(RequestError::OwnRequest { .. })), "{own:?}");
    // The node is ana's, whoever asked.
    let own = approve_as("ana", &asked_by("bo", &network), &network, Permission::Stands);
    assert!(matches!(own, Err(RequestError::OwnNode { .. })), "{own:?}");
}

#[test]
fn approvers_are_those_whom_the_network_names_or_else_operators_and_admins() {
    use OperatorRole::{Admin, Operator, Requester, Viewer};
    let may = |network: &NetworkRecord| {
        [
            ("eve", Requester),
            ("bo", Viewer),
            ("cy", Operator),
            ("ada", Admin),
        ]
        .map(|(name, role)| approver(network, &caller(name, role)).is_ok())
    };
    assert_eq!(may(&network(1, &[])), [false, false, true, true]);
    assert_eq!(may(&network(1, &["bo"])), [false, true, false, false]);
    assert_eq!(may(&network(1, &["eve", "ada"])), [false, false, false, true]);
}

#[test]
fn asking_twice_is_asking_once_and_nobody_takes_over_another_ones_request() {
    let network = network(1, &[]);
    let request = asked_by("ana", &network);
    assert_eq!(
        make(Some(&request), &network, node(), word_of("ana", 20)),
        Ok(None)
    );
    let other = make(Some(&request), &network, node(), word_of("bo", 20));
    assert!(
        matches!(other, Err(RequestError::AskedAlready { .. })),
        "{other:?}"
    );
}

#[test]
fn what_was_denied_taken_back_or_expired_can_be_asked_for_again_and_not_approved() {
    let network = network(1, &[]);
    let request = asked_by("ana", &network);
    let by = caller("bo", OperatorRole::Operator);
    let denied = deny(Some(&request), &network, node(), &by, word_of("bo", 20)).unwrap();
    let cancelled = cancel(Some(&request), &network, node(), word_of("ana", 20)).unwrap();
    let late = request.expires_at;
    assert_eq!(expired(&request, at(late.as_second() - 1)), None);
    for over in [
        denied.unwrap(),
        cancelled.unwrap(),
        expired(&request, late).unwrap(),
    ] {
        let refused = approve_as("bo", &over, &network, Permission::Stands);
        assert!(
            matches!(refused, Err(RequestError::NothingWaits { .. })),
            "{over:?}"
        );
        assert!(
            make(Some(&over), &network, node(), word_of("bo", 30))
                .unwrap()
                .is_some()
        );
    }
}

#[test]
fn a_request_that_is_too_old_is_not_approved_before_anybody_noticed() {
    let network = network(1, &[]);
    let request = asked_by("ana", &network);
    let who = caller("bo", OperatorRole::Operator);
    let late = Revocation {
        at: request.expires_at,
        ..word_of("bo", 0)
    };
    let role = |_: &str| Some(OperatorRole::Operator);
    let refused = approve(
        Some(&request),
        &about(&network, &role),
        (&who, Permission::Stands),
        late,
    );
    assert!(
        matches!(refused, Err(RequestError::NothingWaits { .. })),
        "{refused:?}"
    );
}

#[test]
fn only_the_requester_takes_a_request_back_and_twice_is_once() {
    let network = network(1, &[]);
    let request = asked_by("ana", &network);
    let other = cancel(Some(&request), &network, node(), word_of("bo", 20));
    assert!(matches!(other, Err(RequestError::NotYours { .. })), "{other:?}");
    let cancelled = cancel(Some(&request), &network, node(), word_of("ana", 20)).unwrap();
    let again = cancel(cancelled.as_ref(), &network, node(), word_of("ana", 30));
    assert_eq!(again, Ok(None));
}

#[test]
fn a_network_that_asks_for_fewer_approvals_than_there_are_waits_for_one_more_word() {
    let two = network(2, &[]);
    let Ok(Approved::Waits(request)) = approve_as("bo", &asked_by("ana", &two), &two, Permission::Stands)
    else {
        panic!("another one is needed")
    };
    let one = network(1, &[]);
    assert_eq!(missing(&request, &one), 1);
    let granted = approve_as("bo", &request, &one, Permission::Stands);
    assert!(matches!(granted, Ok(Approved::Granted(..))), "{granted:?}");
}

#[test]
fn an_approval_counts_for_as_long_as_who_gave_it_might_approve() {
    use OperatorRole::{Operator, Viewer};
    let network = network(2, &[]);
    let Ok(Approved::Waits(request)) =
        approve_as("bo", &asked_by("ana", &network), &network, Permission::Stands)
    else {
        panic!("another one is needed")
    };
    let revoked = |name: &str| (name != "bo").then_some(Operator);
    let demoted = |name: &str| Some(if name == "bo" { Viewer } else { Operator });
    for role in [&revoked as &dyn Fn(&str) -> _, &demoted] {
        assert_eq!(super::missing(&request, &about(&network, role)), 2);
        let again = approve_among(role, "cy", &request, &network, Permission::Stands);
        let Ok(Approved::Waits(request)) = again else {
            panic!("bo's word counts no more: {again:?}")
        };
        let by: Vec<_> = request.approvals.iter().map(|one| one.by.as_str()).collect();
        assert_eq!(by, ["cy"]);
    }
    let mut named = network.clone();
    named.approvers = ["cy".to_owned(), "eve".to_owned()].into();
    let again = approve_as("cy", &request, &named, Permission::Stands);
    assert!(matches!(again, Ok(Approved::Waits(_))), "{again:?}");
    let granted = approve_as("cy", &request, &network, Permission::Stands);
    assert!(matches!(granted, Ok(Approved::Granted(..))), "{granted:?}");
}

#[test]
fn what_somebody_asked_for_who_is_revoked_is_not_approved() {
    let network = network(1, &[]);
    let request = asked_by("ana", &network);
    let role = |name: &str| (name != "ana").then_some(OperatorRole::Operator);
    let refused = approve_among(&role, "bo", &request, &network, Permission::Stands).unwrap_err();
    assert_eq!(refused, RequestError::AskerGone { by: "ana".into() });
    assert!(refused.to_string().contains("picketctl member deny"), "{refused}");
}
