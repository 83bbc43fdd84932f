use super::*;
use crate::{
    operators,
    record::{
        OperatorRole, Pin,
        network::{AllowedNode, Governor, GrantRecord, NetworkRecord},
    },
    store::Revision,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn node(last: u64) -> NodeId {
    NodeId::new(0x39_9664_3400 + last).unwrap()
}

fn caller(name: &str, role: OperatorRole) -> Caller {
    Caller {
        name: name.into(),
        role,
    }
}

fn ana() -> Caller {
    caller("ana", OperatorRole::Requester)
}

fn bo() -> Caller {
    caller("bo", OperatorRole::Operator)
}

/// A site with three operators and a network.
fn site() -> State {
    let mut state = State::default();
    for (name, role) in [
        ("ana", OperatorRole::Requester),
        ("eve", OperatorRole::Requester),
        ("bo", OperatorRole::Operator),
    ] {
        let pin = Pin {
            fingerprint: picket_pki::Fingerprint::of(name.as_bytes()),
            key: picket_pki::Fingerprint::of(b"key"),
            not_after: at(1000),
            certificate: String::new(),
            from: String::new(),
        };
        let device = operators::device(&"laptop".parse().unwrap(), pin, at(0));
        let record = operators::new(name, role, device, "ada", at(0));
        state.roster.put_operator(record, Revision(1));
    }
    state.networks.put_network(network(), Revision(1));
    state
}

fn network() -> NetworkRecord {
    NetworkRecord::watched("5350d87547c880cb".parse().unwrap(), Governor::CENTRAL, at(0))
}

fn wanted(last: u64, name: &str, owner: &str) -> Registration {
    Registration {
        node: node(last),
        name: name.parse().unwrap(),
        owner: owner.into(),
    }
}

/// Registers a node that works nowhere.
fn register(
    state: &State,
    caller: &Caller,
    wanted: &Registration,
    now: Timestamp,
) -> Result<Option<RegisteredRecord>, Refused> {
    super::register(state, caller, (wanted, &Sight::default()), now)
}

/// Registers, and takes the record in.
fn registered(state: &mut State, by: &Caller, wanted: &Registration) {
    let record = register(state, by, wanted, at(10)).unwrap().expect("it is news");
    state.networks.put_device(record, Revision(2));
}

fn remove(state: &mut State, by: &Caller, text: &str) {
    let (_, record) = removal(state, by, text, "lost", at(20)).unwrap();
    state.networks.put_device(record.expect("it stands"), Revision(3));
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the others are no answers to a registration"
)]
fn code(refused: &Refused) -> &'static str {
    match refused {
        Refused::Exists(_) => "exists",
        Refused::Denied(_) => "denied",
        Refused::NotNow(_) => "not now",
        Refused::Unknown { .. } => "unknown",
        _ => "other",
    }
}

#[test]
fn a_person_registers_its_own_and_an_operator_anybodys_who_is_one() {
    let mut state = site();
    let refuse = |state: &State, by: &Caller, owner: &str| {
        code(&register(state, by, &wanted(1, "laptop", owner), at(10)).unwrap_err())
    };
    assert_eq!(refuse(&state, &ana(), "eve"), "denied");
    assert_eq!(
        refuse(&state, &caller("ana", OperatorRole::Viewer), "eve"),
        "denied"
    );
    assert_eq!(refuse(&state, &bo(), "nobody"), "unknown");
    registered(&mut state, &ana(), &wanted(1, "laptop", "ana"));
    registered(&mut state, &bo(), &wanted(2, "phone", "eve"));
}

#[test]
fn registering_twice_is_once_and_a_node_and_a_name_are_one_persons() {
    let mut state = site();
    registered(&mut state, &ana(), &wanted(1, "laptop", "ana"));
    let again = register(&state, &ana(), &wanted(1, "laptop", "ana"), at(11)).unwrap();
    assert_eq!(again, None);
    let eve = caller("eve", OperatorRole::Requester);
    for (by, wanted) in [
        (&eve, wanted(1, "mine", "eve")),
        (&bo(), wanted(1, "mine", "eve")),
        (&eve, wanted(2, "laptop", "eve")),
        (&ana(), wanted(1, "other", "ana")),
    ] {
        let refused = register(&state, by, &wanted, at(12)).unwrap_err();
        assert_eq!(code(&refused), "exists", "{refused}");
        let names_ana = refused.to_string().contains("ana");
        assert!(!names_ana || by.name != "eve", "{refused}");
    }
}

#[test]
fn who_removed_its_own_registers_it_again_and_what_an_operator_removed_an_operator() {
    let mut state = site();
    registered(&mut state, &ana(), &wanted(1, "laptop", "ana"));
    remove(&mut state, &ana(), "laptop");
    registered(&mut state, &ana(), &wanted(1, "laptop", "ana"));
    remove(&mut state, &bo(), &node(1).to_string());
    let refused = register(&state, &ana(), &wanted(1, "laptop", "ana"), at(30)).unwrap_err();
    assert_eq!(code(&refused), "denied");
    registered(&mut state, &bo(), &wanted(1, "laptop", "eve"));
}

#[test]
fn nobody_takes_a_node_without_an_operator_of_which_somebody_decided_something() {
    let mut state = site();
    let grant = GrantRecord {
        network: network().id,
        node: node(1),
        admitted: true,
        for_activation: false,
        by: "ada".into(),
        reason: "adopted".into(),
        at: at(0),
    };
    state.networks.put_grant(grant, Revision(2));
    let mut allowing = network();
    allowing.allow.insert(node(2), AllowedNode::default());
    state.networks.put_network(allowing, Revision(3));
    for last in [1, 2] {
        let refused = register(&state, &ana(), &wanted(last, "laptop", "ana"), at(10)).unwrap_err();
        assert_eq!(code(&refused), "denied", "{refused}");
    }
    registered(&mut state, &bo(), &wanted(1, "laptop", "ana"));
}

#[test]
fn a_node_that_works_where_nobody_admitted_it_is_registered_after_somebody_decided_that() {
    let state = site();
    let works = |approvals| Sight {
        on: vec![(network().id, approvals)],
        unread: Vec::new(),
    };
    let refuse = |by: &Caller, sight: &Sight| {
        super::register(&state, by, (&wanted(1, "gateway", &by.name), sight), at(10)).unwrap_err()
    };
    let refused = refuse(&ana(), &works(0));
    assert_eq!(code(&refused), "denied", "{refused}");
    assert!(
        !refused.to_string().contains(&network().id.to_string()),
        "{refused}"
    );
    let refused = refuse(&bo(), &works(0));
    assert_eq!(code(&refused), "not now", "{refused}");
    for words in [&*network().id.to_string(), "member admit", "member revoke"] {
        assert!(refused.to_string().contains(words), "{refused}");
    }
    let refused = refuse(&bo(), &works(2)).to_string();
    assert!(refused.contains("member request"), "{refused}");
}

#[test]
fn while_a_network_cannot_be_read_an_operator_registers_and_is_told() {
    let state = site();
    let sight = Sight {
        on: Vec::new(),
        unread: vec![(network().id, "oslo is not connected".into())],
    };
    let mine = |by: &Caller| super::register(&state, by, (&wanted(1, "laptop", &by.name), &sight), at(10));
    let refused = mine(&ana()).unwrap_err();
    assert_eq!(code(&refused), "not now", "{refused}");
    assert!(refused.to_string().contains("ask an operator"), "{refused}");
    assert!(mine(&bo()).unwrap().is_some());
    let told = remarks(node(1), &sight);
    assert!(told[0].contains("oslo is not connected"), "{told:?}");
}

#[test]
fn removing_twice_is_once_and_only_ones_own_is_found() {
    let mut state = site();
    registered(&mut state, &ana(), &wanted(1, "laptop", "ana"));
    let eve = caller("eve", OperatorRole::Requester);
    for text in ["laptop".to_owned(), node(1).to_string(), "nothing".to_owned()] {
        let refused = removal(&state, &eve, &text, "lost", at(20)).unwrap_err();
        assert_eq!(code(&refused), "unknown", "{refused}");
    }
    remove(&mut state, &ana(), "laptop");
    for text in ["laptop".to_owned(), node(1).to_string()] {
        assert_eq!(
            removal(&state, &ana(), &text, "lost", at(30)).unwrap(),
            (node(1), None)
        );
    }
}

#[test]
fn a_person_has_a_bounded_number_of_devices() {
    let mut state = site();
    for number in 0..MOST_DEVICES as u64 {
        registered(
            &mut state,
            &ana(),
            &wanted(number, &format!("device-{number}"), "ana"),
        );
    }
    let refused = register(&state, &ana(), &wanted(200, "one-more", "ana"), at(10)).unwrap_err();
    assert_eq!(code(&refused), "not now", "{refused}");
    // What was removed counts for a day, where no operator registers.
    remove(&mut state, &ana(), "device-0");
    let refused = register(&state, &ana(), &wanted(200, "one-more", "ana"), at(21)).unwrap_err();
    assert_eq!(code(&refused), "not now", "{refused}");
    assert!(refused.to_string().contains("removed 1"), "{refused}");
    assert!(register(&state, &bo(), &wanted(200, "one-more", "ana"), at(21)).is_ok());
    let a_day_later = at(20 + 24 * 3600);
    assert!(register(&state, &ana(), &wanted(200, "one-more", "ana"), a_day_later).is_ok());
}
