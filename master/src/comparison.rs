//! What a controller has of a network beside what was decided: who would be let on, and who would be put off. What the brake
//! holds back of that is for whoever repairs to say: it knows what was true before.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use picket_proto::{
    rules::{Governed, Rule, Unknown},
    status::{ControlledMember, ControlledNetwork},
};
use picket_zerotier::ids::NodeId;

use crate::{membership::rule, network_plan::Change, record::network::NetworkRecord, views::State};

/// How two pictures of one network differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Nodes that are to be let on and are not.
    pub authorize: BTreeSet<NodeId>,
    /// Nodes that are on and are not to be.
    pub deauthorize: BTreeSet<NodeId>,
    /// Members whose name or addresses are others.
    pub correct: BTreeSet<NodeId>,
    /// Nodes with a record at the controller, whom nobody registered.
    pub unknown: BTreeSet<NodeId>,
    /// How many nodes may be on.
    pub authorized: usize,
    /// Nodes that are as they are to be.
    pub unchanged: usize,
    /// Every difference, the settings' first.
    pub changes: Vec<Change>,
}

impl Comparison {
    /// How many members differ.
    #[must_use]
    pub fn drift(&self) -> usize {
        self.authorize.len() + self.deauthorize.len() + self.correct.len()
    }
}

/// The rules of a network, of every node that somebody knows.
#[must_use]
pub fn rules(state: &State, network: &NetworkRecord, now: Timestamp) -> BTreeMap<NodeId, Rule> {
    let known = state.networks.known_on(&state.roster, network.id);
    let rule = |node| {
        let facts = state.networks.facts(&state.roster, network.id, node)?;
        Some((node, rule(&facts, now)?))
    };
    known.into_iter().filter_map(rule).collect()
}

/// Compares what a controller has with the rules.
#[must_use]
pub fn compare(
    observed: &ControlledNetwork,
    rules: &BTreeMap<NodeId, Rule>,
    governed: &Governed,
    now: Timestamp,
) -> Comparison {
    let mut found = Comparison::default();
    for difference in &observed.differences {
        found.changes.push(Change::new("settings", difference, ""));
    }
    let records: BTreeMap<NodeId, &ControlledMember> = observed
        .members
        .iter()
        .map(|member| (member.node, member))
        .collect();
    let nodes: BTreeSet<NodeId> = records.keys().chain(rules.keys()).copied().collect();
    for node in nodes {
        let record = records.get(&node).copied();
        let rule = rules.get(&node);
        let on = record.is_some_and(|record| record.authorized);
        if rule.is_none() {
            found.unknown.insert(node);
        }
        let want = match rule {
            Some(rule) => rule.holds(now) && !governed.closed,
            None => on && governed.unknown == Unknown::Report && !governed.closed,
        };
        found.authorized += usize::from(want && rule.is_some());
        let (set, before, after) = match (on, want) {
            (false, true) => (&mut found.authorize, state_of(record), "authorized".to_owned()),
            (true, false) => (
                &mut found.deauthorize,
                state_of(record),
                "deauthorized".to_owned(),
            ),
            (true, true) => match rule.zip(record).and_then(|(rule, record)| wrong(rule, record)) {
                Some((before, after)) => (&mut found.correct, before, after),
                None => {
                    found.unchanged += 1;
                    continue;
                }
            },
            (false, false) => {
                found.unchanged += usize::from(record.is_some());
                continue;
            }
        };
        set.insert(node);
        found
            .changes
            .push(Change::new(format!("member {node}"), before, after));
    }
    found
}

fn state_of(record: Option<&ControlledMember>) -> String {
    match record {
        Some(record) if record.authorized => "authorized",
        Some(_) => "deauthorized",
        None => "no record",
    }
    .to_owned()
}

/// What is wrong with a member's record beside its authorization. Addresses come when a member asks: those it was given
/// and has not yet are no difference while it has none at all.
fn wrong(rule: &Rule, record: &ControlledMember) -> Option<(String, String)> {
    if !rule.name.is_empty() && rule.name != record.name {
        return Some((format!("name={}", record.name), format!("name={}", rule.name)));
    }
    let have: BTreeSet<_> = record
        .addresses
        .iter()
        .filter_map(|address| address.split('/').next()?.parse().ok())
        .collect();
    if rule.addresses.is_empty() || rule.addresses == have {
        return None;
    }
    let text = |addresses: &BTreeSet<std::net::IpAddr>| {
        let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        format!("addresses={}", all.join(","))
    };
    Some((text(&have), text(&rule.addresses)))
}

#[cfg(test)]
mod tests {
    use picket_zerotier::ids::NetworkId;

    use super::*;

    const NETWORK: &str = "5350d87547c880cb";

    fn node(number: u64) -> NodeId {
        NodeId::new(0x10_0000_0000 + number).unwrap()
    }

    fn member(number: u64, authorized: bool) -> ControlledMember {
        ControlledMember {
            node: node(number),
            name: String::new(),
            authorized,
            addresses: Vec::new(),
        }
    }

    fn controlled(members: Vec<ControlledMember>) -> ControlledNetwork {
        ControlledNetwork {
            id: NETWORK.parse::<NetworkId>().unwrap(),
            name: "lab".into(),
            private: true,
            members,
            held_back: 0,
            frozen: String::new(),
            differences: Vec::new(),
        }
    }

    fn compared(members: Vec<ControlledMember>, rules: &[(u64, Rule)], governed: &Governed) -> Comparison {
        let rules = rules
            .iter()
            .map(|(number, rule)| (node(*number), rule.clone()))
            .collect();
        compare(&controlled(members), &rules, governed, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_is_as_decided_is_no_difference_and_a_denied_node_without_a_record_is_nothing_at_all() {
        let members = vec![member(1, true), member(2, false)];
        let rules = [
            (1, Rule::plain(true)),
            (2, Rule::plain(false)),
            (3, Rule::plain(false)),
        ];
        let found = compared(members, &rules, &Governed::default());
        assert_eq!((found.drift(), found.unchanged, found.authorized), (0, 2, 1));
        assert_eq!(found.changes, []);
    }

    #[test]
    fn drift_is_found_both_ways_and_in_names_and_addresses() {
        let named = Rule {
            name: "oslo".into(),
            addresses: ["10.147.20.5".parse().unwrap()].into(),
            ..Rule::plain(true)
        };
        let right = ControlledMember {
            name: "oslo".into(),
            addresses: vec!["10.147.20.5/24".into()],
            ..member(4, true)
        };
        let members = vec![member(1, true), member(2, false), member(3, true), right];
        let rules = [
            (1, Rule::plain(false)),
            (2, Rule::plain(true)),
            (3, named.clone()),
            (4, named),
        ];
        let found = compared(members, &rules, &Governed::default());
        assert_eq!(found.deauthorize, [node(1)].into());
        assert_eq!(found.authorize, [node(2)].into());
        assert_eq!(found.correct, [node(3)].into());
        assert_eq!((found.unchanged, found.changes.len()), (1, 3));
    }

    #[test]
    fn an_unknown_member_is_a_difference_only_where_unknown_ones_are_put_off() {
        let members = vec![member(1, true), member(2, false)];
        let reported = compared(members.clone(), &[], &Governed::default());
        assert_eq!((reported.unknown.len(), reported.drift()), (2, 0));
        let put_off = Governed {
            unknown: Unknown::Deauthorize,
            ..Governed::default()
        };
        let found = compared(members, &[], &put_off);
        assert_eq!(found.deauthorize, [node(1)].into());
    }
}
