//! The members document: who may be on the networks of a host's controller, and what these networks are to be like.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;
use picket_zerotier::{
    ids::{NetworkId, NodeId},
    settings::NetworkSettings,
};

use crate::{
    WireError,
    field::{from_wire_time, parse, text, to_wire_time},
    wire::agent as wire,
};

/// The most addresses of one member: what a controller keeps.
pub const MOST_ADDRESSES: usize = 32;
/// The longest name of a member.
const MOST_NAME: usize = 128;

/// What holds for one node on one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Whether the controller lets it on.
    pub authorized: bool,
    /// When that ends by itself, by the master's time.
    pub until: Option<Timestamp>,
    /// It does not wait for the brake: a kill, a ban, a retirement, an end, a revocation.
    pub urgent: bool,
    /// What the controller is to call it; its own business when empty.
    pub name: String,
    /// The addresses it is to have; the controller's business when empty.
    pub addresses: BTreeSet<IpAddr>,
}

impl Rule {
    /// A rule that says no more than whether the node is let on.
    #[must_use]
    pub fn plain(authorized: bool) -> Self {
        Self {
            authorized,
            ..Self::default()
        }
    }

    /// Whether the controller is to let the node on at `now`.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.authorized && !self.is_over(now)
    }

    /// Whether an authorization came to its end by itself.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.authorized && self.until.is_some_and(|until| until <= now)
    }
}

/// The rules of every node that somebody registered, or said something of.
pub type Rules = BTreeMap<(NetworkId, NodeId), Rule>;

/// What becomes of members without a rule.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// They are reported and left as they are.
    #[default]
    Report,
    /// They are reported and deauthorized.
    Deauthorize,
}

/// Whether a controller is to have a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    /// It was there before us; one that is missing is reported.
    #[default]
    Kept,
    /// It is made where it is missing.
    Made,
    /// It is deleted where it is there.
    Deleted,
}

/// A network whose repairs have begun, as its controller is to have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Governed {
    /// Whether it is to be there.
    pub presence: Presence,
    /// What becomes of members without a rule.
    pub unknown: Unknown,
    /// It is killed: nobody is let on, whatever the rules say.
    pub closed: bool,
    /// What is managed of its settings.
    pub settings: NetworkSettings,
    /// Counts the times that held-back repairs were let through.
    pub resumed: u64,
    /// It is only watched: the rules are of those who are killed, and nothing else of it is changed.
    pub watched: bool,
}

/// The whole document, or what changed of its rules; its networks are always all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// The networks whose repairs have begun.
    pub networks: BTreeMap<NetworkId, Governed>,
    /// The rules.
    pub rules: Rules,
    /// Nodes that had a rule before and have none any more; none in a whole document.
    pub lifted: BTreeSet<(NetworkId, NodeId)>,
    /// Networks whose rules are all here: what was held of them before is over; none in a whole document.
    pub anew: BTreeSet<NetworkId>,
}

impl Members {
    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This document with the changes of a later one laid over it. Of a network that is governed no more nothing is kept:
    /// when it comes back, what was said of it before holds no longer.
    #[must_use]
    pub fn with(&self, changes: Self) -> Self {
        let mut rules = self.rules.clone();
        let goes_on =
            |network: &NetworkId| changes.networks.contains_key(network) && !changes.anew.contains(network);
        rules.retain(|at, _| goes_on(&at.0) && !changes.lifted.contains(at));
        rules.extend(changes.rules);
        Self {
            networks: changes.networks,
            rules,
            lifted: BTreeSet::new(),
            anew: BTreeSet::new(),
        }
    }

    pub(crate) fn to_wire(&self) -> wire::MembersDocument {
        let network = |(id, network): (&NetworkId, &Governed)| wire::GovernedNetwork {
            anew: self.anew.contains(id),
            ..governed_to_wire((id, network))
        };
        wire::MembersDocument {
            rules: self.rules.iter().map(rule_to_wire).collect(),
            networks: self.networks.iter().map(network).collect(),
            lifted: self
                .lifted
                .iter()
                .map(|(network, node)| wire::LiftedRule {
                    network_id: network.to_string(),
                    node_id: node.to_string(),
                })
                .collect(),
        }
    }

    /// Reads a document. Entries that make no sense are skipped and named.
    pub(crate) fn from_wire(document: wire::MembersDocument) -> (Self, Vec<(String, WireError)>) {
        let (mut members, mut skipped) = (Self::default(), Vec::new());
        for rule in document.rules {
            let subject = format!("{}/{}", rule.network_id, rule.node_id);
            match rule_from_wire(rule) {
                Ok((at, rule)) => drop(members.rules.insert(at, rule)),
                Err(error) => skipped.push((subject, error)),
            }
        }
        for lifted in document.lifted {
            let read = parse("network_id", &lifted.network_id)
                .and_then(|network| Ok((network, parse("node_id", &lifted.node_id)?)));
            match read {
                Ok(at) => drop(members.lifted.insert(at)),
                Err(error) => skipped.push((format!("{}/{}", lifted.network_id, lifted.node_id), error)),
            }
        }
        for network in document.networks {
            let (subject, anew) = (network.network_id.clone(), network.anew);
            match governed_from_wire(network) {
                Ok((id, network)) => {
                    members.networks.insert(id, network);
                    members.anew.extend(anew.then_some(id));
                }
                Err(error) => skipped.push((subject, error)),
            }
        }
        (members, skipped)
    }
}

fn rule_to_wire(((network, node), rule): (&(NetworkId, NodeId), &Rule)) -> wire::MemberRule {
    wire::MemberRule {
        network_id: network.to_string(),
        node_id: node.to_string(),
        authorized: rule.authorized,
        until: rule.until.map(to_wire_time),
        urgent: rule.urgent,
        name: rule.name.clone(),
        addresses: rule.addresses.iter().map(ToString::to_string).collect(),
    }
}

fn rule_from_wire(rule: wire::MemberRule) -> Result<((NetworkId, NodeId), Rule), WireError> {
    let at = (
        parse("network_id", &rule.network_id)?,
        parse("node_id", &rule.node_id)?,
    );
    if rule.addresses.len() > MOST_ADDRESSES {
        return Err(WireError::new(
            "addresses",
            format_args!("{} addresses, at most {MOST_ADDRESSES}", rule.addresses.len()),
        ));
    }
    let until = rule
        .until
        .map(|until| from_wire_time(&until).ok_or_else(|| WireError::new("until", "is no moment there is")));
    let addresses = rule.addresses.iter().map(|address| parse("addresses", address));
    let read = Rule {
        authorized: rule.authorized,
        until: until.transpose()?,
        urgent: rule.urgent,
        name: text("name", rule.name, MOST_NAME)?,
        addresses: addresses.collect::<Result<_, _>>()?,
    };
    Ok((at, read))
}

fn governed_to_wire((id, network): (&NetworkId, &Governed)) -> wire::GovernedNetwork {
    wire::GovernedNetwork {
        network_id: id.to_string(),
        presence: wire::NetworkPresence::from(network.presence).into(),
        unknown: wire::UnknownMembers::from(network.unknown).into(),
        closed: network.closed,
        settings: Some((&network.settings).into()),
        resumed: network.resumed,
        watched: network.watched,
        anew: false,
    }
}

fn governed_from_wire(network: wire::GovernedNetwork) -> Result<(NetworkId, Governed), WireError> {
    let id = parse("network_id", &network.network_id)?;
    let presence = match wire::NetworkPresence::try_from(network.presence) {
        Ok(wire::NetworkPresence::Kept) => Presence::Kept,
        Ok(wire::NetworkPresence::Made) => Presence::Made,
        Ok(wire::NetworkPresence::Deleted) => Presence::Deleted,
        Ok(wire::NetworkPresence::Unspecified) | Err(_) => {
            return Err(WireError::new("presence", "is none this version knows"));
        }
    };
    let settings = network.settings.map(crate::settings::from_wire).transpose()?;
    let read = Governed {
        presence,
        unknown: unknown("unknown", network.unknown)?,
        closed: network.closed,
        settings: settings.unwrap_or_default(),
        resumed: network.resumed,
        watched: network.watched,
    };
    Ok((id, read))
}

/// Reads what becomes of unknown members from the wire.
///
/// # Errors
/// A value this version does not know.
pub fn unknown(field: &str, value: i32) -> Result<Unknown, WireError> {
    match wire::UnknownMembers::try_from(value) {
        Ok(wire::UnknownMembers::Report) => Ok(Unknown::Report),
        Ok(wire::UnknownMembers::Deauthorize) => Ok(Unknown::Deauthorize),
        Ok(wire::UnknownMembers::Unspecified) | Err(_) => {
            Err(WireError::new(field, "is none this version knows"))
        }
    }
}

impl From<Unknown> for wire::UnknownMembers {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Report => Self::Report,
            Unknown::Deauthorize => Self::Deauthorize,
        }
    }
}

impl From<Presence> for wire::NetworkPresence {
    fn from(presence: Presence) -> Self {
        match presence {
            Presence::Kept => Self::Kept,
            Presence::Made => Self::Made,
            Presence::Deleted => Self::Deleted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authorization_holds_until_its_end_and_not_at_it() {
        let rule = Rule {
            until: Some(Timestamp::from_second(100).unwrap()),
            ..Rule::plain(true)
        };
        assert!(rule.holds(Timestamp::from_second(99).unwrap()));
        assert!(!rule.holds(Timestamp::from_second(100).unwrap()));
        assert!(!Rule::plain(false).is_over(Timestamp::MAX));
    }

    #[test]
    fn a_rule_reads_back_as_it_was_written() {
        let rule = Rule {
            authorized: true,
            until: Some(Timestamp::from_second(100).unwrap()),
            urgent: true,
            name: "oslo".into(),
            addresses: ["10.147.20.5".parse().unwrap()].into(),
        };
        let at = ("5350d87547c880cb".parse().unwrap(), "39966434ba".parse().unwrap());
        let governed = Governed {
            presence: Presence::Made,
            unknown: Unknown::Deauthorize,
            closed: true,
            resumed: 3,
            watched: true,
            ..Governed::default()
        };
        let members = Members {
            networks: [(at.0, governed)].into(),
            rules: [(at, rule)].into(),
            lifted: [(at.0, "68c19b4c83".parse().unwrap())].into(),
            anew: [at.0].into(),
        };
        assert_eq!(
            Members::from_wire(members.to_wire()),
            (members.clone(), Vec::new())
        );
    }

    #[test]
    fn changes_lay_rules_over_those_before_and_take_lifted_ones_away() {
        let network: NetworkId = "5350d87547c880cb".parse().unwrap();
        let at = |node: &str| (network, node.parse::<NodeId>().unwrap());
        let members = |rules: &[(&str, bool)], lifted: &[&str]| Members {
            rules: rules
                .iter()
                .map(|(node, authorized)| (at(node), Rule::plain(*authorized)))
                .collect(),
            lifted: lifted.iter().map(|node| at(node)).collect(),
            networks: [(network, Governed::default())].into(),
            ..Members::default()
        };
        let before = members(&[("39966434ba", true), ("68c19b4c83", true)], &[]);
        let after = before.with(members(&[("68c19b4c83", false)], &["39966434ba"]));
        assert_eq!(after, members(&[("68c19b4c83", false)], &[]));
        // Whoever was let on before a network was forgotten is not let on by that when it is governed again.
        let forgotten = before.with(Members::default());
        assert_eq!(forgotten, Members::default());
        let again = Members {
            anew: [network].into(),
            ..members(&[("68c19b4c83", false)], &[])
        };
        assert_eq!(
            before.with(again),
            members(&[("68c19b4c83", false)], &[]),
            "nor when the one who holds it heard of neither"
        );
    }

    #[test]
    fn a_33rd_address_is_refused() {
        let rule = wire::MemberRule {
            network_id: "5350d87547c880cb".into(),
            node_id: "39966434ba".into(),
            addresses: vec!["10.0.0.1".into(); MOST_ADDRESSES + 1],
            ..Default::default()
        };
        assert_eq!(rule_from_wire(rule).unwrap_err().field, "addresses");
    }
}
