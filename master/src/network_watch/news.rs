//! What is news in what a controller said. Decided here, told elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use picket_proto::{
    repair::{Repair, Why},
    status::{ControlledMember, ControlledNetwork, ControllerStatus},
};
use picket_zerotier::ids::{NetworkId, NodeId};
use serde::{Deserialize, Serialize};

use crate::{
    event::Severity,
    membership::{Because, Decision},
};

/// So many things of one kind on one network are told one by one; the others are told as one.
const MOST_EACH: usize = 8;

/// What was told of one controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// The newest repair.
    sequence: u64,
    /// How many repairs its list had lost.
    forgotten: u64,
    networks: BTreeMap<NetworkId, OfNetwork>,
}

/// What was told of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct OfNetwork {
    /// Nodes that were there, and of whom nothing is to be told any more as long as they are.
    settled: BTreeSet<NodeId>,
    held_back: bool,
    frozen: String,
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// How much it matters.
    pub severity: Severity,
    /// A dotted word.
    pub kind: &'static str,
    /// A network, or `network/node`.
    pub subject: String,
    /// One sentence.
    pub message: String,
    /// What is told with it.
    pub mark: Mark,
}

/// What need not be told again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// Repairs up to this one.
    Repairs(u64),
    /// These nodes on a network.
    Settled(NetworkId, Vec<NodeId>),
    /// Whether the brake of a network holds.
    HeldBack(NetworkId, bool),
    /// Why a network is frozen; empty when it is not.
    Frozen(NetworkId, String),
}

impl Told {
    /// Notes that something was told.
    pub fn mark(&mut self, mark: Mark) {
        match mark {
            Mark::Repairs(sequence) => self.sequence = self.sequence.max(sequence),
            Mark::Settled(network, nodes) => self.networks.entry(network).or_default().settled.extend(nodes),
            Mark::HeldBack(network, held_back) => {
                self.networks.entry(network).or_default().held_back = held_back
            }
            Mark::Frozen(network, frozen) => self.networks.entry(network).or_default().frozen = frozen,
        }
    }
}

/// What is to be told of what a controller said: how its networks are and who turned up, then what was repaired, oldest first.
/// Not all of it may be told at once, and repairs can wait. What needs no telling is noted at once. `made` brings the time of
/// a repair to the master's.
pub fn news(
    told: &mut Told,
    status: &ControllerStatus,
    watched: &BTreeSet<NetworkId>,
    decide: impl Fn(NetworkId, NodeId) -> Decision,
    made: impl Fn(Timestamp) -> Timestamp,
) -> Vec<News> {
    let mut news = Vec::new();
    told.networks.retain(|network, _| watched.contains(network));
    if status.service.problem().is_none() {
        networks(told, status, watched, &decide, &mut news);
    }
    let mut ours = Vec::new();
    lost(told, status, watched, &mut ours);
    repairs(told, &status.repairs, watched, &made, &mut ours);
    news.append(&mut ours);
    news
}

fn networks(
    told: &mut Told,
    status: &ControllerStatus,
    watched: &BTreeSet<NetworkId>,
    decide: &impl Fn(NetworkId, NodeId) -> Decision,
    news: &mut Vec<News>,
) {
    for network in status
        .networks
        .iter()
        .filter(|network| watched.contains(&network.id))
    {
        standing(told, network, news);
        // A frozen network's members are what they were when it could be read last, or nothing.
        if network.frozen.is_empty() {
            members(told, network, &status.repairs, decide, news);
        }
    }
}

/// Repairs that fell off the list before they were told: more of them at once than it has room for, or while nobody
/// listened.
fn lost(told: &mut Told, status: &ControllerStatus, watched: &BTreeSet<NetworkId>, news: &mut Vec<News>) {
    let (before, now) = (told.forgotten, status.repairs_forgotten);
    told.forgotten = now;
    // What fell off had mostly been told; nobody knows how much of it is older than what was told last.
    let first = status.repairs.iter().filter(|repair| repair.why == Why::Drift);
    let is_gap = first
        .map(|repair| repair.sequence)
        .min()
        .is_some_and(|oldest| oldest > told.sequence + 1);
    if now <= before || !is_gap {
        return;
    }
    let names: Vec<_> = watched.iter().map(NetworkId::to_string).collect();
    news.push(News {
        severity: Severity::Warning,
        kind: "network.repaired",
        subject: names.join(", "),
        message: format!(
            "up to {} members that were changed outside Picket were repaired and are not told one by one; `picketctl network \
             show` has how they are now",
            now - before
        ),
        mark: Mark::Repairs(0),
    });
}

fn repairs(
    told: &mut Told,
    repairs: &[Repair],
    watched: &BTreeSet<NetworkId>,
    made: &impl Fn(Timestamp) -> Timestamp,
    news: &mut Vec<News>,
) {
    let Some(newest) = repairs.iter().map(|repair| repair.sequence).max() else {
        return;
    };
    if newest < told.sequence {
        // Whoever counts from the beginning again lost what it had.
        told.sequence = 0;
    }
    let mut each: BTreeMap<(NetworkId, Why), (usize, u64)> = BTreeMap::new();
    for repair in repairs.iter().filter(|repair| repair.sequence > told.sequence) {
        if !watched.contains(&repair.network) {
            continue;
        }
        let (count, last) = each.entry((repair.network, repair.why)).or_default();
        (*count, *last) = (*count + 1, repair.sequence);
        if *count <= MOST_EACH || repair.why == Why::Drift {
            news.push(repaired(repair, made(repair.at)));
        }
    }
    for ((network, why), (count, _)) in each {
        if count > MOST_EACH && why != Why::Drift {
            let more = count - MOST_EACH;
            news.push(News {
                severity: weight(why),
                kind: kind(why, Some(())),
                subject: network.to_string(),
                message: format!("{more} more members: {}", cause(why)),
                mark: Mark::Repairs(0),
            });
        }
    }
    match news.last_mut() {
        // Once all of it is told, all of it is.
        Some(last) => last.mark = Mark::Repairs(newest),
        None => told.sequence = newest,
    }
}

fn repaired(repair: &Repair, at: Timestamp) -> News {
    let Repair {
        why,
        network,
        node,
        before,
        after,
        sequence,
        ..
    } = repair;
    News {
        severity: weight(*why),
        kind: kind(*why, node.map(drop)),
        subject: node.map_or_else(|| network.to_string(), |node| format!("{network}/{node}")),
        message: format!(
            "{}, at {}: {before} \u{2192} {after}",
            cause(*why),
            at.strftime("%Y-%m-%dT%H:%M:%SZ")
        ),
        mark: Mark::Repairs(*sequence),
    }
}

/// A time by the clock of a host that is `ahead`, as the master's. Nothing was done later than `now`, whatever a host says.
pub fn brought(at: Timestamp, ahead: SignedDuration, now: Timestamp) -> Timestamp {
    at.checked_sub(ahead).unwrap_or(at).min(now)
}

fn weight(why: Why) -> Severity {
    match why {
        Why::Drift => Severity::Warning,
        Why::Decided | Why::Ended | Why::Repeated => Severity::Info,
    }
}

fn kind(why: Why, member: Option<()>) -> &'static str {
    match (why, member) {
        (Why::Drift, Some(())) => "member.repaired",
        (Why::Drift, None) => "network.repaired",
        (Why::Decided, Some(())) => "member.changed",
        (Why::Decided, None) => "network.changed",
        (Why::Ended, _) => "member.deauthorized",
        (Why::Repeated, _) => "member.repeated",
    }
}

fn cause(why: Why) -> &'static str {
    match why {
        Why::Drift => "changed outside Picket, and repaired",
        Why::Decided => "its controller follows",
        Why::Ended => "its time came to its end",
        Why::Repeated => "deauthorized once more, since the service may have lost the first",
    }
}

/// What holds of a network as a whole.
fn standing(told: &mut Told, network: &ControlledNetwork, news: &mut Vec<News>) {
    let id = network.id;
    let before = told.networks.get(&id).cloned().unwrap_or_default();
    let mut tell = |severity, kind, message, mark| {
        news.push(News {
            severity,
            kind,
            subject: id.to_string(),
            message,
            mark,
        });
    };
    if network.frozen.is_empty() && !before.frozen.is_empty() {
        tell(
            Severity::Info,
            "network.recovered",
            "it can be read and repaired again".to_owned(),
            Mark::Frozen(id, String::new()),
        );
    } else if !network.frozen.is_empty() && network.frozen != before.frozen {
        tell(
            Severity::Warning,
            "network.frozen",
            network.frozen.clone(),
            Mark::Frozen(id, network.frozen.clone()),
        );
    }
    let holds = network.held_back > 0;
    if holds && !before.held_back {
        let message = format!(
            "{} repairs are held back, since they would change more of its members than drift does; see `picketctl network \
             reconcile {id} --dry-run`, and let them through with `picketctl network resume {id} --reason ...`",
            network.held_back
        );
        tell(
            Severity::Alert,
            "network.held-back",
            message,
            Mark::HeldBack(id, true),
        );
    } else if !holds && before.held_back {
        let message = "nothing is held back any more".to_owned();
        tell(
            Severity::Info,
            "network.recovered",
            message,
            Mark::HeldBack(id, false),
        );
    }
}

/// Who turned up.
fn members(
    told: &mut Told,
    network: &ControlledNetwork,
    repairs: &[Repair],
    decide: &impl Fn(NetworkId, NodeId) -> Decision,
    news: &mut Vec<News>,
) {
    let id = network.id;
    let first = !told.networks.contains_key(&id);
    let here = told.networks.entry(id).or_default();
    let present: BTreeSet<NodeId> = network.members.iter().map(|member| member.node).collect();
    here.settled.retain(|node| present.contains(node));
    let (mut strangers, mut returned) = (Vec::new(), Vec::new());
    for member in &network.members {
        if here.settled.contains(&member.node) {
            continue;
        }
        match decide(id, member.node) {
            Decision::Unknown => strangers.push(member),
            // At the first look nobody is known to have been away.
            Decision::Denied(because)
                if !first && is_gone(&because) && !let_on_by_us(repairs, id, member.node) =>
            {
                returned.push((member, because));
            }
            Decision::Denied(_) | Decision::Authorized { .. } => drop(here.settled.insert(member.node)),
        }
    }
    for (member, because) in returned {
        news.push(News {
            severity: Severity::Warning,
            kind: "member.returned",
            subject: format!("{id}/{}", member.node),
            message: format!("it turned up again, {}; {because}", state(member)),
            mark: Mark::Settled(id, vec![member.node]),
        });
    }
    let rest = strangers.split_off(strangers.len().min(MOST_EACH));
    for member in strangers {
        news.push(News {
            severity: Severity::Warning,
            kind: "member.unknown",
            subject: format!("{id}/{}", member.node),
            message: format!(
                "nobody registered it; the controller has it, {}. Register it, admit it, or have unknown members put off",
                state(member)
            ),
            mark: Mark::Settled(id, vec![member.node]),
        });
    }
    if !rest.is_empty() {
        news.push(News {
            severity: Severity::Warning,
            kind: "member.unknown",
            subject: id.to_string(),
            message: format!(
                "{} more members that nobody registered; see `picketctl network show {id}`",
                rest.len()
            ),
            mark: Mark::Settled(id, rest.iter().map(|member| member.node).collect()),
        });
    }
}

/// Whether what we did last with a node was to let it on. A revocation that came meanwhile is still on its way then.
fn let_on_by_us(repairs: &[Repair], network: NetworkId, node: NodeId) -> bool {
    let mut ours = repairs.iter().rev();
    let last = ours.find(|repair| repair.network == network && repair.node == Some(node));
    last.is_some_and(|last| last.after.starts_with("authorized"))
}

fn state(member: &ControlledMember) -> &'static str {
    if member.authorized {
        "authorized"
    } else {
        "not authorized"
    }
}

/// Whether somebody took a node away for good, so that it is news when it is back.
fn is_gone(because: &Because) -> bool {
    match because {
        Because::Revoked { .. }
        | Because::DeviceRemoved { .. }
        | Because::HostRetired(_)
        | Because::HostMoved(_) => true,
        Because::Admitted { .. }
        | Because::Active { .. }
        | Because::Labels(_)
        | Because::Allowed
        | Because::Controller(_)
        | Because::NotActive
        | Because::Over { .. }
        | Because::Killed { .. }
        | Because::HostBanned(_)
        | Because::NotAdmitted
        | Because::NetworkDeleted => false,
    }
}

#[cfg(test)]
mod tests {
    use picket_proto::status::ServiceState;

    use super::*;

    const NETWORK: &str = "5350d87547c880cb";

    fn id() -> NetworkId {
        NETWORK.parse().unwrap()
    }

    fn node(number: u64) -> NodeId {
        NodeId::new(0x10_0000_0000 + number).unwrap()
    }

    fn drift(sequence: u64) -> Repair {
        Repair {
            sequence,
            at: Timestamp::UNIX_EPOCH,
            why: Why::Drift,
            network: id(),
            node: Some(node(sequence)),
            before: "deauthorized".into(),
            after: "authorized".into(),
        }
    }

    fn status(members: &[u64], repairs: Vec<Repair>) -> ControllerStatus {
        let member = |number: &u64| ControlledMember {
            node: node(*number),
            name: String::new(),
            authorized: false,
            addresses: Vec::new(),
        };
        ControllerStatus {
            service: ServiceState::Answers,
            node: None,
            networks: vec![ControlledNetwork {
                id: id(),
                name: "lab".into(),
                private: true,
                members: members.iter().map(member).collect(),
                held_back: 0,
                frozen: String::new(),
                differences: Vec::new(),
            }],
            repairs,
            repairs_forgotten: 0,
        }
    }

    /// Tells everything, and returns the kinds and messages.
    fn told_of(
        told: &mut Told,
        status: &ControllerStatus,
        decide: fn(NodeId) -> Decision,
    ) -> Vec<(&'static str, String)> {
        let news = news(told, status, &[id()].into(), |_, node| decide(node), |at| at);
        news.into_iter()
            .map(|one| {
                told.mark(one.mark);
                (one.kind, one.message)
            })
            .collect()
    }

    fn kinds(
        told: &mut Told,
        status: &ControllerStatus,
        decide: fn(NodeId) -> Decision,
    ) -> Vec<&'static str> {
        told_of(told, status, decide)
            .into_iter()
            .map(|(kind, _)| kind)
            .collect()
    }

    fn known(_: NodeId) -> Decision {
        Decision::Denied(Because::NotAdmitted)
    }

    fn revoked(_: NodeId) -> Decision {
        Decision::Denied(Because::Revoked {
            by: "bo".into(),
            reason: "lost".into(),
        })
    }

    fn unknown(_: NodeId) -> Decision {
        Decision::Unknown
    }

    #[test]
    fn a_repair_is_told_once_with_what_was_and_what_is() {
        let mut told = Told::default();
        let first = status(&[], vec![drift(1)]);
        let news = told_of(&mut told, &first, known);
        assert_eq!(news[0].0, "member.repaired");
        assert!(news[0].1.contains("changed outside Picket"), "{}", news[0].1);
        assert!(
            news[0].1.contains("deauthorized \u{2192} authorized"),
            "{}",
            news[0].1
        );
        assert_eq!(told_of(&mut told, &first, known), []);
        let kept: Told = serde_json::from_str(&serde_json::to_string(&told).unwrap()).unwrap();
        let mut after_a_restart = kept;
        assert_eq!(
            kinds(
                &mut after_a_restart,
                &status(&[], vec![drift(1), drift(2)]),
                known
            ),
            ["member.repaired"]
        );
    }

    #[test]
    fn a_controller_that_counts_from_the_beginning_again_is_listened_to() {
        let mut told = Told::default();
        kinds(&mut told, &status(&[], vec![drift(40)]), known);
        let again = status(&[], vec![drift(1), drift(2)]);
        assert_eq!(kinds(&mut told, &again, known).len(), 2);
        assert_eq!(kinds(&mut told, &again, known).len(), 0);
    }

    #[test]
    fn many_changes_that_were_decided_are_told_as_eight_and_a_count_and_what_others_did_one_by_one() {
        let mut told = Told::default();
        let decided = |sequence| Repair {
            why: Why::Decided,
            ..drift(sequence)
        };
        let many = status(&[], (1..=20).map(decided).collect());
        let news = told_of(&mut told, &many, known);
        assert_eq!(news.len(), MOST_EACH + 1);
        assert!(news[MOST_EACH].1.starts_with("12 more"), "{}", news[MOST_EACH].1);
        assert_eq!(told_of(&mut told, &many, known), []);
        let many = status(&[], (21..=220).map(drift).collect());
        assert_eq!(told_of(&mut told, &many, known).len(), 200);
        assert_eq!(told_of(&mut told, &many, known), []);
    }

    #[test]
    fn repairs_that_fell_off_before_anybody_was_told_are_told_as_a_number() {
        let mut told = Told::default();
        told_of(&mut told, &status(&[], vec![drift(1)]), known);
        let whole = ControllerStatus {
            repairs_forgotten: 1,
            ..status(&[], (2..=257).map(drift).collect())
        };
        assert_eq!(
            told_of(&mut told, &whole, known).len(),
            256,
            "the one that fell off had been told"
        );
        let gap = ControllerStatus {
            repairs_forgotten: 45,
            ..status(&[], (302..=557).map(drift).collect())
        };
        let news = told_of(&mut told, &gap, known);
        assert_eq!(news.len(), 257);
        assert!(news[0].1.starts_with("up to 44 members"), "{}", news[0].1);
    }

    #[test]
    fn who_turned_up_is_told_before_what_was_repaired() {
        let mut told = Told::default();
        let both = status(&[7], (1..=256).map(drift).collect());
        let kinds = kinds(&mut told, &both, unknown);
        assert_eq!((kinds[0], kinds.len()), ("member.unknown", 257));
        assert_eq!(super::tests::kinds(&mut told, &both, unknown).len(), 0, "once");
    }

    #[test]
    fn a_repair_says_when_it_was_made_by_the_masters_time() {
        let mut told = Told::default();
        let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let repair = Repair { at: noon, ..drift(1) };
        let five = SignedDuration::from_mins(5);
        let news = news(
            &mut told,
            &status(&[], vec![repair]),
            &[id()].into(),
            |_, _| known(node(0)),
            |at| brought(at, five, Timestamp::MAX),
        );
        assert_eq!(
            news[0].message,
            "changed outside Picket, and repaired, at 2026-11-22T11:55:00Z: deauthorized \u{2192} authorized"
        );
        assert_eq!(brought(noon, -five, noon), noon, "nothing is from later than now");
        assert_eq!(brought(Timestamp::MIN, five, noon), Timestamp::MIN);
    }

    #[test]
    fn what_could_not_be_told_is_told_the_next_time() {
        let mut told = Told::default();
        let two = status(&[], vec![drift(1), drift(2)]);
        let news = news(&mut told, &two, &[id()].into(), |_, _| known(node(0)), |at| at);
        told.mark(news[0].mark.clone());
        assert_eq!(kinds(&mut told, &two, known), ["member.repaired"]);
    }

    #[test]
    fn a_stranger_is_told_once_and_again_when_it_was_away() {
        let mut told = Told::default();
        let (there, away) = (status(&[7], Vec::new()), status(&[], Vec::new()));
        assert_eq!(kinds(&mut told, &there, unknown), ["member.unknown"]);
        assert_eq!(kinds(&mut told, &there, unknown).len(), 0);
        assert_eq!(kinds(&mut told, &away, unknown).len(), 0);
        assert_eq!(kinds(&mut told, &there, unknown), ["member.unknown"]);
    }

    #[test]
    fn whoever_was_revoked_and_comes_back_is_told_with_who_did_that() {
        let mut told = Told::default();
        let (there, away) = (status(&[7], Vec::new()), status(&[], Vec::new()));
        assert_eq!(
            kinds(&mut told, &there, revoked).len(),
            0,
            "it may never have been away"
        );
        kinds(&mut told, &away, revoked);
        let news = told_of(&mut told, &there, revoked);
        assert_eq!(news[0].0, "member.returned");
        assert!(news[0].1.contains("revoked by bo: lost"), "{}", news[0].1);
    }

    #[test]
    fn a_service_that_does_not_answer_makes_nobody_go_and_come() {
        let mut told = Told::default();
        let there = status(&[7], Vec::new());
        kinds(&mut told, &there, unknown);
        let dead = ControllerStatus {
            service: ServiceState::Unreachable("start it".into()),
            ..ControllerStatus::default()
        };
        assert_eq!(kinds(&mut told, &dead, unknown).len(), 0);
        assert_eq!(kinds(&mut told, &there, unknown).len(), 0);
    }

    #[test]
    fn a_brake_that_holds_and_a_network_that_is_frozen_are_told_once_and_so_is_their_end() {
        let mut told = Told::default();
        let mut now = status(&[], Vec::new());
        now.networks[0].held_back = 40;
        let news = told_of(&mut told, &now, known);
        assert_eq!(news[0].0, "network.held-back");
        assert!(news[0].1.contains("picketctl network resume"), "{}", news[0].1);
        now.networks[0].held_back = 41;
        now.networks[0].frozen = "the controller answers nonsense".into();
        assert_eq!(kinds(&mut told, &now, known), ["network.frozen"]);
        assert_eq!(kinds(&mut told, &now, known).len(), 0);
        (now.networks[0].held_back, now.networks[0].frozen) = (0, String::new());
        assert_eq!(
            kinds(&mut told, &now, known),
            ["network.recovered", "network.recovered"]
        );
    }

    #[test]
    fn what_is_said_of_a_network_that_is_not_watched_is_no_news() {
        let mut told = Told::default();
        let seen = status(&[7], vec![drift(3)]);
        assert_eq!(
            news(
                &mut told,
                &seen,
                &BTreeSet::new(),
                |_, _| Decision::Unknown,
                |at| at
            ),
            []
        );
        assert_eq!(told.sequence, 3);
    }
}
