//! Which ZeroTier node a host is believed to be: decided here, from what the host says and shows and what is kept of it
//! and of the others.
//!
//! A node that a host proves to have is believed at once when the host has none yet and nobody else has it. Everything
//! else waits for an operator: what nobody proved, what another host has, and another node than before, proven or not.
//! While it waits nothing rests on it, and the node from before stays the one that is believed.

mod proof;

pub use self::proof::{ProofError, Prover};

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use picket_proto::host::{HostId, Name};
use picket_zerotier::{identity::PublicIdentity, ids::NodeId};
use serde::{Deserialize, Serialize};

use crate::event::Severity;

/// How the node that is kept with a host came to be believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeStanding {
    /// The host proved it.
    Proven,
    /// An operator said so.
    Accepted,
    /// The host said so, at a time when no more was asked for. It counts until somebody proves it.
    #[default]
    Unproven,
}

/// What a host says of its node in its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The node that its ZeroTier service is.
    pub node: NodeId,
    /// The identity by which it proved that in this session; otherwise why it has not.
    pub proof: Result<PublicIdentity, Box<str>>,
}

/// What is kept of the host, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The node that is believed.
    pub node: NodeId,
    /// Why it is.
    pub standing: NodeStanding,
    /// The identity it was proven by.
    pub identity: Option<PublicIdentity>,
}

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is what is kept.
    Known,
    /// It is kept from here on, as proven.
    Keep,
    /// It is kept from here on, as proven, and no longer with the host that only said so.
    Take,
    /// It waits for an operator.
    Wait(Doubt),
}

/// Why a claim waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Nobody has the node, and the host did not prove it either.
    Unproven,
    /// The host was another node before.
    Changed,
    /// Another host has the node.
    Taken,
    /// Another host has proven the same.
    Copied,
    /// The host proves the same id by other keys than before.
    OtherKeys,
}

/// Weighs a claim against what is kept of the host, and of another host that has the node.
#[must_use]
pub fn weigh(claim: &Claim, kept: Option<Kept>, other: Option<NodeStanding>) -> Verdict {
    use NodeStanding::{Accepted, Proven, Unproven};
    let shown = claim.proof.as_ref().ok();
    match (kept, other, shown) {
        (Some(kept), _, shown) if kept.node == claim.node => match (kept.standing, shown) {
            (Proven, Some(shown)) if kept.identity.is_some_and(|before| before != *shown) => {
                Verdict::Wait(Doubt::OtherKeys)
            }
            (Accepted | Unproven, Some(_)) => Verdict::Keep,
            (Proven, _) | (Accepted | Unproven, None) => Verdict::Known,
        },
        (_, Some(Proven), Some(_)) => Verdict::Wait(Doubt::Copied),
        (Some(_), _, _) => Verdict::Wait(Doubt::Changed),
        (None, None, Some(_)) => Verdict::Keep,
        (None, None, None) => Verdict::Wait(Doubt::Unproven),
        (None, Some(Unproven), Some(_)) => Verdict::Take,
        (None, Some(Proven | Accepted | Unproven), _) => Verdict::Wait(Doubt::Taken),
    }
}

/// A claim that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What the host says.
    pub claim: Claim,
    /// Why it waits.
    pub doubt: Doubt,
    /// The node that is believed meanwhile.
    pub before: Option<NodeId>,
    /// The host that has the node.
    pub other: Option<Name>,
}

impl Waiting {
    /// The kind of event that says so, and how bad it is.
    #[must_use]
    pub fn kind(&self) -> (Severity, &'static str) {
        match self.doubt {
            Doubt::Unproven => (Severity::Warning, "node.unproven"),
            Doubt::Changed => (Severity::Alert, "node.changed"),
            Doubt::Taken => (Severity::Alert, "node.claimed-twice"),
            Doubt::Copied => (Severity::Alert, "node.copied"),
            Doubt::OtherKeys => (Severity::Alert, "node.other-keys"),
        }
    }

    /// What the host called `name` says, why that is not believed, and what to do.
    #[must_use]
    pub fn sentence(&self, name: &str) -> String {
        let node = self.claim.node;
        let proven = match &self.claim.proof {
            Ok(_) => "proves".to_owned(),
            Err(why) => format!("says and does not prove ({why})"),
        };
        let accept = format!("`picketctl host node {name} --accept {node} --reason ...`");
        let other = self.other.as_ref().map_or("another host", Name::as_str);
        match self.doubt {
            Doubt::Unproven => {
                format!("{proven} that it is node {node}; not believed until it does, or until {accept}")
            }
            Doubt::Changed => {
                let before = self.before.map(|node| node.to_string()).unwrap_or_default();
                format!(
                    "{proven} that it is node {node}, and was {before}, which stays the one that is believed; if its \
                     identity was made anew, {accept}"
                )
            }
            Doubt::Taken => format!(
                "{proven} that it is node {node}, which is {other}'s; not believed; if {other} is wrong, \
                 `picketctl host node {other} --forget --reason ...`"
            ),
            Doubt::Copied => format!(
                "proves that it is node {node}, and so did {other}: two machines have one identity.secret; make a new \
                 identity on the one that has the copy, and see how it came there"
            ),
            Doubt::OtherKeys => format!(
                "proves that it is node {node} by other keys than before: somebody made an identity with this id, which \
                 takes years of computing; find out who before you forget the old one with \
                 `picketctl host node {name} --forget --reason ...`"
            ),
        }
    }
}

/// The claims that wait, while their hosts say so, and what checks proofs.
#[derive(Debug, Default)]
pub struct Nodes {
    waiting: Mutex<BTreeMap<HostId, Waiting>>,
    /// Checks proofs.
    pub prover: Prover,
}

impl Nodes {
    /// Has a claim wait. Returns whether that is news.
    pub fn wait(&self, host: HostId, waiting: Waiting) -> bool {
        let mut all = self.waiting();
        let same = all.get(&host) == Some(&waiting);
        if !same {
            all.insert(host, waiting);
        }
        !same
    }

    /// Nothing of a host waits.
    pub fn settle(&self, host: HostId) {
        self.waiting().remove(&host);
    }

    /// What waits of a host.
    #[must_use]
    pub fn of(&self, host: HostId) -> Option<Waiting> {
        self.waiting().get(&host).cloned()
    }

    /// The hosts whose claim of a node waits.
    #[must_use]
    pub fn claimants(&self, node: NodeId) -> Vec<HostId> {
        let all = self.waiting();
        let of_node = all.iter().filter(|(_, waiting)| waiting.claim.node == node);
        of_node.map(|(host, _)| *host).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<HostId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1298e69128";
    const OTHER: &str = "39966434ba";

    fn identity(node: &str, key: u8) -> PublicIdentity {
        format!("{node}:0:{}", format!("{key:02x}").repeat(64))
            .parse()
            .unwrap()
    }

    fn claim(node: &str, proven: bool) -> Claim {
        Claim {
            node: node.parse().unwrap(),
            proof: if proven {
                Ok(identity(node, 1))
            } else {
                Err("no".into())
            },
        }
    }

    fn kept(node: &str, standing: NodeStanding) -> Option<Kept> {
        Some(Kept {
            node: node.parse().unwrap(),
            standing,
            identity: (standing == NodeStanding::Proven).then(|| identity(node, 1)),
        })
    }

    const STANDINGS: [NodeStanding; 3] = [
        NodeStanding::Proven,
        NodeStanding::Accepted,
        NodeStanding::Unproven,
    ];

    #[test]
    fn a_first_node_is_believed_when_it_is_proven_and_waits_when_it_is_not() {
        assert_eq!(weigh(&claim(ONE, true), None, None), Verdict::Keep);
        assert_eq!(
            weigh(&claim(ONE, false), None, None),
            Verdict::Wait(Doubt::Unproven)
        );
    }

    #[test]
    fn what_is_kept_stays_believed_without_a_new_proof() {
        for standing in STANDINGS {
            assert_eq!(
                weigh(&claim(ONE, false), kept(ONE, standing), None),
                Verdict::Known
            );
        }
    }

    #[test]
    fn a_proof_makes_proven_what_was_accepted_or_only_said() {
        for standing in [NodeStanding::Accepted, NodeStanding::Unproven] {
            assert_eq!(weigh(&claim(ONE, true), kept(ONE, standing), None), Verdict::Keep);
        }
        assert_eq!(
            weigh(&claim(ONE, true), kept(ONE, NodeStanding::Proven), None),
            Verdict::Known
        );
    }

    #[test]
    fn another_node_than_before_waits_however_well_it_is_proven() {
        for (standing, proven) in STANDINGS.into_iter().flat_map(|s| [(s, true), (s, false)]) {
            let verdict = weigh(&claim(ONE, proven), kept(OTHER, standing), None);
            assert_eq!(verdict, Verdict::Wait(Doubt::Changed), "{standing:?} {proven}");
        }
    }

    #[test]
    fn a_proof_beats_what_was_only_said_and_nothing_else() {
        use NodeStanding::{Accepted, Proven, Unproven};
        for (other, proven, want) in [
            (Unproven, true, Verdict::Take),
            (Accepted, true, Verdict::Wait(Doubt::Taken)),
            (Proven, true, Verdict::Wait(Doubt::Copied)),
            (Unproven, false, Verdict::Wait(Doubt::Taken)),
            (Accepted, false, Verdict::Wait(Doubt::Taken)),
            (Proven, false, Verdict::Wait(Doubt::Taken)),
        ] {
            assert_eq!(
                weigh(&claim(ONE, proven), None, Some(other)),
                want,
                "{other:?} {proven}"
            );
        }
        let verdict = weigh(&claim(ONE, true), kept(OTHER, Proven), Some(Proven));
        assert_eq!(
            verdict,
            Verdict::Wait(Doubt::Copied),
            "two secrets are an alarm, changed or not"
        );
    }

    #[test]
    fn the_same_id_by_other_keys_is_not_the_same_node() {
        let forged = Claim {
            node: ONE.parse().unwrap(),
            proof: Ok(identity(ONE, 2)),
        };
        let verdict = weigh(&forged, kept(ONE, NodeStanding::Proven), None);
        assert_eq!(verdict, Verdict::Wait(Doubt::OtherKeys));
    }

    #[test]
    fn the_same_doubt_is_news_once() {
        let (nodes, host) = (Nodes::default(), HostId(uuid::Uuid::from_u128(1)));
        let waiting = Waiting {
            claim: claim(ONE, false),
            doubt: Doubt::Unproven,
            before: None,
            other: None,
        };
        assert!(nodes.wait(host, waiting.clone()));
        assert!(!nodes.wait(host, waiting.clone()));
        assert_eq!(nodes.claimants(waiting.claim.node), [host]);
        nodes.settle(host);
        assert_eq!(
            (nodes.of(host), nodes.claimants(waiting.claim.node)),
            (None, vec![])
        );
    }
}
