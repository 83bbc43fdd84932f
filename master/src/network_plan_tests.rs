use picket_proto::host::Labels;

use super::*;
use crate::{
    node::NodeStanding,
    record::{
        HostRecord, HostStanding, Pins,
        network::{Governor, NetworkMode, RegisteredRecord},
    },
    store::Revision,
};

const NETWORK: &str = "5350d87547c880cb";
const OSLO: &str = "6f1c2a52-9c1f-4f3e-8a77-0c7a5f1e2d3b";
const OF_OSLO: &str = "39966434ba";
const STRANGER: &str = "68c19b4c83";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn node(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn network() -> NetworkRecord {
    NetworkRecord {
        mode: NetworkMode::Enforce,
        ..NetworkRecord::watched(NETWORK.parse().unwrap(), Governor::CENTRAL, at(0))
    }
}

fn labels() -> Labels {
    Labels::new([("site".to_owned(), "oslo".to_owned())]).unwrap()
}

/// A state with a host that has labels, and this network.
fn state(network: &NetworkRecord) -> State {
    let mut state = State::default();
    let oslo = HostRecord {
        id: OSLO.parse().unwrap(),
        name: "oslo".parse().unwrap(),
        labels: labels(),
        note: String::new(),
        enrolled_at: at(0),
        standing: HostStanding::Active,
        pins: Pins::default(),
        node: Some(node(OF_OSLO)),
        node_standing: NodeStanding::Proven,
        node_identity: None,
        former_nodes: Vec::new(),
    };
    state.roster.put_host(oslo, Revision(1));
    state.networks.put_network(network.clone(), Revision(2));
    state
}

fn named(nodes: &[&str]) -> Form {
    let allowed = |node: &&str| Allowed {
        node: (*node).to_owned(),
        name: String::new(),
        addresses: BTreeSet::new(),
    };
    Form {
        allow: nodes.iter().map(allowed).collect(),
        ..Form::default()
    }
}

fn made(before: &NetworkRecord, form: Form) -> NetworkRecord {
    with_form(before, form, at(100), |_| None).unwrap()
}

fn planned(before: &NetworkRecord, form: Form) -> Plan {
    plan(
        &state(before),
        before,
        made(before, form),
        &BTreeSet::new(),
        at(100),
    )
}

fn whats(plan: &Plan) -> Vec<&str> {
    plan.changes.iter().map(|change| change.what.as_str()).collect()
}

#[test]
fn a_node_is_named_by_its_id_or_an_address_on_that_network_and_by_none_of_another() {
    let (id, other): (NetworkId, NetworkId) = (NETWORK.parse().unwrap(), "5350d87547f38326".parse().unwrap());
    for text in [
        "39966434ba",
        "fd53:50d8:7547:c880:cb99:9339:9664:34ba",
        "fc14:9858:be39:9664:34ba::1",
    ] {
        assert_eq!(node_on(id, text).unwrap(), node(OF_OSLO), "{text}");
    }
    let error = node_on(other, "fd53:50d8:7547:c880:cb99:9339:9664:34ba")
        .unwrap_err()
        .to_string();
    assert!(error.contains("on network 5350d87547c880cb"), "{error}");
    for text in ["oslo", "10.147.20.5", "fc14:9858:be39:9664:34ba::2:1"] {
        assert!(node_on(other, text).is_err(), "{text}");
    }
}

#[test]
fn a_form_reads_back_from_the_record_it_made_and_changes_nothing_the_second_time() {
    let form = Form {
        member_labels: labels(),
        approvals: 1,
        witnesses: true,
        ..named(&[STRANGER])
    };
    let record = made(&network(), form.clone());
    assert_eq!(super::form(&record), form);
    let again = with_form(&record, form.clone(), at(900), |_| None).unwrap();
    assert_eq!(again, record);
    assert_eq!(planned(&record, form).changes, []);
}

#[test]
fn one_node_named_twice_is_refused_however_it_is_named() {
    let form = named(&[OF_OSLO, "fd53:50d8:7547:c880:cb99:9339:9664:34ba"]);
    let error = with_form(&network(), form, at(100), |_| None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("named twice"), "{error}");
}

#[test]
fn a_label_rule_lets_a_host_on_by_name_and_taking_it_away_puts_it_off() {
    let form = Form {
        member_labels: labels(),
        ..Form::default()
    };
    let on = planned(&network(), form.clone());
    assert_eq!(whats(&on), ["members", "member oslo"]);
    assert!(
        on.admits && on.changes[1].after.starts_with("authorized"),
        "{on:?}"
    );
    let off = planned(&made(&network(), form), Form::default());
    assert_eq!(whats(&off), ["members", "member oslo"]);
    assert!(
        !off.admits && off.dropped.is_empty(),
        "a host is denied by itself"
    );
}

#[test]
fn a_node_named_no_more_is_to_be_revoked_unless_somebody_else_knows_it() {
    let before = made(&network(), named(&[STRANGER, OF_OSLO]));
    let plan = planned(&before, Form::default());
    assert_eq!(plan.dropped, [node(STRANGER)].into());
    let of = |what: &str| plan.changes.iter().find(|change| change.what == what).unwrap();
    assert!(of("member 68c19b4c83").after.contains(NAMED_NO_MORE));
    assert!(of("member oslo").after.starts_with("denied"));
}

#[test]
fn a_device_named_no_more_is_denied_without_a_revocation() {
    let before = made(&network(), named(&[STRANGER]));
    let mut state = state(&before);
    let laptop = RegisteredRecord {
        node: node(STRANGER),
        name: "anas-laptop".parse().unwrap(),
        owner: "ana".into(),
        at: at(0),
        by: "ana".into(),
        removed: None,
    };
    state.networks.put_device(laptop, Revision(3));
    let after = made(&before, Form::default());
    let plan = plan(&state, &before, after, &BTreeSet::new(), at(100));
    assert!(plan.dropped.is_empty());
    assert_eq!(whats(&plan), ["allow 68c19b4c83", "member anas-laptop"]);
}

#[test]
fn settings_that_name_a_revoked_node_again_come_after_its_revocation() {
    let record = with_form(&network(), named(&[STRANGER]), at(100), |_| Some(at(100))).unwrap();
    assert!(record.allow[&node(STRANGER)].since > at(100));
    let again = with_form(&record, named(&[STRANGER]), at(300), |_| Some(at(200))).unwrap();
    assert!(
        again.allow[&node(STRANGER)].since < at(200),
        "a revocation of a node that is named all along stands"
    );
}

#[test]
fn a_host_whose_session_goes_over_the_network_is_named_when_that_is_cut() {
    let form = Form {
        member_labels: labels(),
        ..Form::default()
    };
    let before = made(&network(), form.clone());
    let paths = [OSLO.parse().unwrap()].into();
    let cut = |before: &NetworkRecord, form: Form| {
        plan(&state(before), before, made(before, form), &paths, at(100)).cuts
    };
    assert_eq!(cut(&before, Form::default()), ["oslo"]);
    assert_eq!(cut(&before, form.clone()), [""; 0]);
    let unmanaged = Form {
        join: Join {
            managed: false,
            ..Join::default()
        },
        ..form
    };
    assert_eq!(cut(&before, unmanaged), ["oslo"]);
    let watched = NetworkRecord {
        mode: NetworkMode::Observe,
        ..before
    };
    assert_eq!(
        cut(&watched, Form::default()),
        [""; 0],
        "nothing is changed there"
    );
}

#[test]
fn settings_are_shown_by_field_and_long_ones_by_their_beginning() {
    let rules: Vec<_> = (0..100)
        .map(|number| serde_json::json!({"type": number}))
        .collect();
    let form = Form {
        settings: NetworkSettings {
            mtu: Some(1400),
            routes: Some(vec![]),
            rules: Some(rules),
            ..NetworkSettings::default()
        },
        ..Form::default()
    };
    let plan = planned(&network(), form);
    assert_eq!(whats(&plan), ["mtu", "routes", "rules"]);
    assert_eq!(plan.changes[0], Change::new("mtu", "not managed", "1400"));
    assert_eq!(plan.changes[1].after, "none");
    assert!(plan.changes[2].after.len() < 200, "{}", plan.changes[2].after);
}

#[test]
fn what_goes_round_the_approvals_of_a_network_takes_an_admin() {
    type Edit<'a> = &'a dyn Fn(&mut Form);
    let wants = |approvals: u8, approvers: &[&str]| NetworkRecord {
        approvals,
        approvers: approvers.iter().map(|name| (*name).to_owned()).collect(),
        ..network()
    };
    let need = |before: &NetworkRecord, change: Edit<'_>| {
        let mut wanted = form(before);
        change(&mut wanted);
        planned(before, wanted).needs_admin
    };
    let allow = |form: &mut Form| {
        form.allow.push(Allowed {
            node: "39966434ba".into(),
            name: String::new(),
            addresses: BTreeSet::new(),
        });
    };
    let labels = |form: &mut Form| {
        form.member_labels = Labels::new([("no".to_owned(), "host".to_owned())]).unwrap();
    };
    let fewer = |form: &mut Form| form.approvals = 1;
    let others = |form: &mut Form| form.approvers.extend(["eve".to_owned()]);
    let everybody = |form: &mut Form| form.approvers.clear();
    let two = wants(2, &["bo", "cy"]);
    let round: [(Edit<'_>, &str); 5] = [
        (&allow, "lets nodes on"),
        (&labels, "makes other hosts members"),
        (&fewer, "asks for fewer approvals"),
        (&others, "lets others approve"),
        (&everybody, "lets others approve"),
    ];
    for (change, word) in round {
        let why = need(&two, change).unwrap_or_else(|| panic!("it {word}"));
        assert!(why.contains(word), "{why}");
        assert_eq!(need(&wants(0, &[]), change), None, "nobody has to approve");
    }
    let more = |form: &mut Form| form.approvals = 2;
    assert_eq!(need(&wants(1, &[]), &more), None);
    let narrower = |form: &mut Form| form.approvers.retain(|name| name != "cy");
    assert_eq!(need(&two, &narrower), None);
    let settings = |form: &mut Form| form.settings.mtu = Some(1400);
    assert_eq!(need(&two, &settings), None);
}
