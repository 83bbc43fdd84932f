use std::collections::HashMap;

use jiff::Timestamp;
use picket_proto::{
    host::{HostId, Labels},
    witness::Answer,
};

use super::*;
use crate::{
    kill::{
        Proof,
        report::{Controlled, Joined, On, Records, Report},
    },
    node::NodeStanding,
    record::{
        HostRecord, HostStanding, Pins,
        network::{Governor, GrantRecord, NetworkMode, NetworkRecord},
    },
    store::Revision,
};

const NETWORK: &str = "39966434ba000001";
/// The controller's, a member's, a witness's, and nobody's.
const OSLO: &str = "39966434ba";
const BERN: &str = "8fee13b48c";
const CORK: &str = "68c19b4c83";
const NOBODY: &str = "1122334455";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn id(number: u8) -> HostId {
    HostId(uuid::Uuid::from_u128(number.into()))
}

fn host(number: u8, name: &str, node: &str) -> HostRecord {
    HostRecord {
        id: id(number),
        name: name.parse().unwrap(),
        labels: Labels::default(),
        note: String::new(),
        enrolled_at: at(0),
        standing: HostStanding::Active,
        pins: Pins::default(),
        node: Some(node.parse().unwrap()),
        node_standing: NodeStanding::Proven,
        node_identity: None,
        former_nodes: Vec::new(),
    }
}

fn kill(scope: KillScope) -> KillRecord {
    KillRecord {
        id: "k3v9x2mq".into(),
        scope,
        by: "ada".into(),
        reason: "a leak".into(),
        at: at(30),
        banned: false,
        lifted: None,
    }
}

/// A network on oslo's controller that bern and cork are admitted to, and a kill.
fn state(mode: NetworkMode, scope: KillScope) -> (State, KillRecord) {
    let mut state = State::default();
    for (number, name, node) in [(1, "oslo", OSLO), (2, "bern", BERN), (3, "cork", CORK)] {
        state.roster.put_host(host(number, name, node), Revision(1));
    }
    let mut network = NetworkRecord::watched(NETWORK.parse().unwrap(), Governor::Host(id(1)), at(0));
    network.mode = mode;
    network.witnesses = true;
    network.settings.rfc4193 = Some(true);
    state.networks.put_network(network, Revision(2));
    for node in [BERN, CORK] {
        let grant = GrantRecord {
            network: NETWORK.parse().unwrap(),
            node: node.parse().unwrap(),
            admitted: true,
            for_activation: false,
            by: "ada".into(),
            reason: "sensor".into(),
            at: at(10),
        };
        state.networks.put_grant(grant, Revision(3));
    }
    let kill = kill(scope);
    state.networks.put_kill(kill.clone(), Revision(9), &state.roster);
    (state, kill)
}

fn bern() -> KillScope {
    KillScope::Node(BERN.parse().unwrap())
}

/// Oslo's word on who is authorized, by an agent that tried up to `tried`.
fn controller(tried: u64, authorized: &[(&str, bool)]) -> Report {
    let records = Records {
        frozen: String::new(),
        authorized: authorized
            .iter()
            .map(|(node, on)| (node.parse().unwrap(), *on))
            .collect(),
    };
    Report {
        session: true,
        tried_members: Revision(tried),
        controller: Some(Controlled {
            problem: None,
            networks: [(NETWORK.parse().unwrap(), records)].into(),
        }),
        ..Report::default()
    }
}

/// A member's word on where it is, and whether bern answers it.
fn member(tried: u64, managed: Option<bool>, answer: Option<Answer>) -> Report {
    let network: NetworkId = NETWORK.parse().unwrap();
    let on = managed.map(|managed| On {
        admitted: true,
        managed,
        carries_session: false,
    });
    let about: (NetworkId, NodeId) = (network, BERN.parse().unwrap());
    Report {
        session: true,
        tried_networks: Revision(tried),
        zerotier: Some(Joined {
            problem: None,
            networks: on.into_iter().map(|on| (network, on)).collect(),
            witnesses: answer
                .map(|answer| (about, answer))
                .into_iter()
                .collect::<HashMap<_, _>>(),
        }),
        ..Report::default()
    }
}

fn only(view: &View) -> &Standing {
    assert_eq!(view.members.len(), 1, "{view:?}");
    &view.members[0].standing
}

#[test]
fn what_was_true_before_anybody_was_told_of_the_kill_proves_nothing() {
    let (state, kill) = state(NetworkMode::Enforce, bern());
    let before = Reports::default()
        .said(id(1), controller(8, &[(BERN, false)]))
        .said(id(2), member(8, None, None));
    let view = standing(&state, &before, &kill, at(31));
    assert_eq!(
        (only(&view).deauthorized, only(&view).left),
        (Proof::Waiting, Proof::Waiting)
    );
    let told = Reports::default()
        .said(id(1), controller(9, &[(BERN, false)]))
        .said(id(2), member(9, None, None));
    let view = standing(&state, &told, &kill, at(31));
    assert!(view.done, "{view:?}");
    assert_eq!(only(&view).deauthorized, Proof::Confirmed(at(31)));
}

#[test]
fn a_second_kill_is_proven_by_those_who_were_told_of_the_first() {
    let (mut state, _) = state(NetworkMode::Enforce, bern());
    let all = kill(KillScope::All);
    let all = KillRecord {
        id: "another1".into(),
        ..all
    };
    state.networks.put_kill(all.clone(), Revision(20), &state.roster);
    let reports = Reports::default()
        .said(id(1), controller(20, &[(BERN, false), (CORK, false)]))
        .said(id(2), member(9, None, None));
    let view = standing(&state, &reports, &all, at(31));
    let bern = view.members.iter().find(|member| member.name == "bern").unwrap();
    assert_eq!(bern.standing.left, Proof::Confirmed(at(31)));
}

#[test]
fn a_kill_of_a_network_is_about_who_was_admitted_and_who_is_seen_and_the_controller_itself() {
    let (state, kill) = state(NetworkMode::Enforce, KillScope::Network(NETWORK.parse().unwrap()));
    let reports = Reports::default().said(id(1), controller(8, &[(NOBODY, true), (CORK, false)]));
    let view = standing(&state, &reports, &kill, at(31));
    let nodes: Vec<_> = view
        .members
        .iter()
        .map(|member| member.node.to_string())
        .collect();
    assert_eq!(nodes, [NOBODY, OSLO, CORK, BERN]);
}

#[test]
fn a_kill_of_somebody_who_is_on_nothing_has_nothing_to_wait_for() {
    let (state, kill) = state(NetworkMode::Enforce, KillScope::Node(NOBODY.parse().unwrap()));
    let reports = Reports::default().said(id(1), controller(8, &[(NOBODY, false)]));
    let view = standing(&state, &reports, &kill, at(31));
    assert!(view.members.is_empty() && view.done);
}

#[test]
fn what_was_seen_before_a_controller_failed_to_do_as_told_proves_nothing() {
    let (state, kill) = state(NetworkMode::Enforce, bern());
    let said = |undone: &[&str]| {
        let mut report = controller(9, &[(BERN, false)]);
        report.undone_members = undone.iter().map(|subject| (*subject).to_owned()).collect();
        let reports = Reports::default().said(id(1), report);
        standing(&state, &reports, &kill, at(31)).members[0]
            .standing
            .deauthorized
    };
    assert_eq!(said(&[]), Proof::Confirmed(at(31)));
    let (other, own) = (format!("{NETWORK}/{CORK}"), format!("{NETWORK}/{BERN}"));
    assert_eq!(said(&[&other]), Proof::Confirmed(at(31)));
    for subject in ["zerotier", NETWORK, &own] {
        assert_eq!(said(&[subject]), Proof::Waiting, "{subject}");
    }
    let many: Vec<_> = (0..64).map(|number| number.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(said(&many), Proof::Waiting, "there may be more than were named");
}

#[test]
fn one_witness_who_gets_an_answer_is_right_and_only_those_who_were_told_are_heard() {
    let (state, kill) = state(NetworkMode::Enforce, bern());
    let said = |oslo: Option<Answer>, cork: Option<Answer>, tried: u64| {
        let mut controller = controller(9, &[(BERN, false)]);
        let witness = member(tried, Some(true), oslo);
        (controller.tried_networks, controller.zerotier) = (witness.tried_networks, witness.zerotier);
        let reports = Reports::default()
            .said(id(1), controller)
            .said(id(2), member(9, Some(true), None))
            .said(id(3), member(tried, Some(true), cork));
        standing(&state, &reports, &kill, at(31)).members[0]
            .standing
            .clone()
    };
    let (silent, answers, never) = (Some(Answer::Silent), Some(Answer::Answers), Some(Answer::Never));
    assert_eq!(said(silent, never, 9).silent, Proof::Confirmed(at(31)));
    let contradicted = said(silent, answers, 9);
    assert_eq!(contradicted.silent, Proof::Waiting);
    assert!(
        contradicted.problem.contains("still answers cork"),
        "{}",
        contradicted.problem
    );
    assert_eq!(
        said(never, never, 9).silent,
        Proof::None,
        "their silence says nothing"
    );
    assert_eq!(said(silent, silent, 8).silent, Proof::Waiting);
}

#[test]
fn hosts_that_are_not_witnesses_prove_no_silence() {
    let (mut state, kill) = state(NetworkMode::Enforce, bern());
    let liar = host(4, "lima", NOBODY);
    state.roster.put_host(liar, Revision(4));
    let reports = Reports::default()
        .said(id(1), controller(9, &[(BERN, false)]))
        .said(id(4), member(9, None, Some(Answer::Silent)));
    let view = standing(&state, &reports, &kill, at(31));
    assert_eq!(only(&view).silent, Proof::Waiting);
}

#[test]
fn an_observed_network_and_an_unreachable_controller_are_said() {
    let (state, kill) = state(NetworkMode::Observe, bern());
    let view = standing(&state, &Reports::default(), &kill, at(31));
    let all = view.cautions.join("\n");
    assert!(
        all.contains("only observed") && all.contains("oslo, whose controller"),
        "{all}"
    );
    assert_eq!(only(&view).deauthorized, Proof::Unreachable);
}

#[test]
fn a_network_that_was_deleted_has_no_members_and_of_a_forgotten_one_nobody_knows() {
    for deleted in [true, false] {
        let (mut state, kill) = state(NetworkMode::Enforce, bern());
        let mut tracked = Tracked::default();
        let pair = (NETWORK.parse().unwrap(), BERN.parse().unwrap());
        tracked.members.insert(pair, Times::default());
        let mut gone = state.networks.network(pair.0).unwrap().record.clone();
        (gone.mode, gone.deleted) = (NetworkMode::Gone, deleted);
        state.networks.put_network(gone, Revision(10));
        let reports = Reports::default().said(id(2), member(10, None, None));
        let view = tracked.look(&mut Eyes::new(&state, &reports, &kill.scope, true, at(31)));
        let (proof, done) = if deleted {
            (Proof::Confirmed(at(31)), true)
        } else {
            (Proof::Unreachable, false)
        };
        assert_eq!((only(&view).deauthorized, view.done), (proof, done));
        let says = only(&view).problem.contains("watched no longer");
        assert_eq!(says, !deleted, "{}", only(&view).problem);
    }
}

#[test]
fn a_killed_host_whose_deckies_may_run_is_not_done() {
    for (deckies, done) in [(Some(2), false), (Some(0), true)] {
        let (mut state, mut kill) = state(NetworkMode::Enforce, KillScope::Host(id(4)));
        kill.banned = true;
        let mut lima = host(4, "lima", NOBODY);
        lima.standing = HostStanding::Banned {
            at: at(30),
            reason: "a leak".into(),
        };
        state.roster.put_host(lima, Revision(9));
        let report = Report {
            deckies,
            ..Report::default()
        };
        let reports = Reports::default().said(id(4), report);
        let view = standing(&state, &reports, &kill, at(31));
        assert!(view.members.is_empty(), "{view:?}");
        assert_eq!(view.done, done, "{view:?}");
        let mut said = Said::default();
        let nothing = BTreeMap::new();
        let news = say::news(&kill, &mut said, (&nothing, &nothing), &view, at(120));
        assert_eq!(news[0].kind, if done { "kill.done" } else { "kill.incomplete" });
        assert_eq!(news[0].message.contains("deckies of the host"), !done, "{news:?}");
    }
}

#[test]
fn killing_the_host_of_a_controller_says_that_nothing_is_carried_out_there_any_more() {
    let (mut state, mut kill) = state(NetworkMode::Enforce, KillScope::Host(id(1)));
    kill.banned = true;
    let mut oslo = host(1, "oslo", OSLO);
    oslo.standing = HostStanding::Banned {
        at: at(30),
        reason: "a leak".into(),
    };
    state.roster.put_host(oslo, Revision(9));
    let view = standing(&state, &Reports::default(), &kill, at(31));
    let all = view.cautions.join("\n");
    assert!(all.contains("oslo runs the controller"), "{all}");
    assert_eq!(
        view.members[0].name, "oslo",
        "it was on its own network before it was banned"
    );
    assert_eq!(
        view.host.as_ref().map(|host| host.banned),
        Some(Proof::Confirmed(at(31)))
    );
}
