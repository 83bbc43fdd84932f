//! Where a host's node is to be, which moons it orbits, and whose silence it witnesses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use picket_proto::{
    host::HostId,
    stay::{MOST_WITNESSED, Moon, Stay, Witnessed},
};
use picket_zerotier::{
    address,
    ids::{NetworkId, NodeId},
};

use crate::{
    membership::{Because, Decision},
    record::{
        HostRecord, HostStanding,
        network::{NetworkMode, NetworkRecord},
    },
    views::State,
};

/// How many hosts witness one member.
const WITNESSES: usize = 2;
/// With more hosts than this nobody is witnessed: who witnesses whom is worked out for each of them.
const MOST_HOSTS: usize = 512;

/// Everything of one host.
pub(super) fn of(state: &State, host: &HostRecord, now: Timestamp) -> Stay {
    let mut stay = Stay::default();
    let Some(node) = host.node else { return stay };
    // Two machines that say they are one node are not to be sent anywhere.
    let believed = state
        .roster
        .of_node(node)
        .is_some_and(|owner| owner.record.id == host.id);
    if !believed || host.standing != HostStanding::Active {
        return stay;
    }
    for network in state.networks.networks() {
        let id = network.record.id;
        let enforced = network.record.mode == NetworkMode::Enforce;
        match state.networks.decide(&state.roster, id, node, now) {
            Decision::Authorized { .. } if enforced => {
                stay.networks.insert(id, network.record.join);
                if network.record.witnesses {
                    stay.witnessed
                        .extend(witnessed_by(state, &network.record, node, now));
                }
            }
            // A network that is only watched is left too: somebody asked for just that.
            Decision::Denied(Because::Killed { .. }) => drop(stay.killed.insert(id)),
            Decision::Authorized { .. } | Decision::Denied(_) | Decision::Unknown => {}
        }
    }
    while stay.witnessed.len() > MOST_WITNESSED {
        stay.witnessed.pop_last();
    }
    stay.moons = moons(state);
    stay.root_of_moon = root_of_moon(state, host.id);
    stay
}

fn moons(state: &State) -> BTreeMap<u64, Moon> {
    let standing = state
        .networks
        .moons()
        .filter(|moon| moon.record.removed.is_none());
    let signed = standing.filter_map(|moon| {
        let definition = HEXLOWER.decode(moon.record.definition.as_bytes()).ok()?;
        let definition = (!definition.is_empty()).then(|| Bytes::from(definition))?;
        Some((moon.record.node.to_u64(), Moon { definition }))
    });
    signed.collect()
}

fn root_of_moon(state: &State, host: HostId) -> Option<BTreeSet<std::net::SocketAddr>> {
    let mut standing = state
        .networks
        .moons()
        .filter(|moon| moon.record.removed.is_none());
    let own = standing.find(|moon| moon.record.host == host)?;
    Some(own.record.endpoints.clone())
}

/// Whom a member of a network witnesses there: those whose [`WITNESSES`] next members, in the order of node ids, it is
/// one of. A killed one is no witness, and stays with the witnesses it had.
fn witnessed_by(state: &State, network: &NetworkRecord, witness: NodeId, now: Timestamp) -> Vec<Witnessed> {
    if state.roster.len() > MOST_HOSTS {
        return Vec::new();
    }
    let mut members = BTreeSet::new();
    let mut killed = BTreeSet::new();
    for host in state.roster.hosts() {
        let Some(node) = host.record.node else { continue };
        match state.networks.decide(&state.roster, network.id, node, now) {
            Decision::Authorized { .. } => drop(members.insert(node)),
            Decision::Denied(Because::Killed { .. }) => drop(killed.insert(node)),
            Decision::Denied(_) | Decision::Unknown => {}
        }
    }
    let known = state.networks.known_on(&state.roster, network.id);
    let others = known
        .into_iter()
        .filter(|node| state.roster.of_node(*node).is_none());
    let mut subjects: BTreeMap<NodeId, bool> = members.iter().map(|node| (*node, false)).collect();
    subjects.extend(killed.iter().map(|node| (*node, true)));
    for node in others {
        match state.networks.decide(&state.roster, network.id, node, now) {
            Decision::Authorized { .. } => drop(subjects.insert(node, false)),
            Decision::Denied(Because::Killed { .. }) => drop(subjects.insert(node, true)),
            Decision::Denied(_) | Decision::Unknown => {}
        }
    }
    let sees = |(node, killed): (NodeId, bool)| {
        if !next_to(&members, node).any(|next| next == witness) {
            return None;
        }
        Some(Witnessed {
            network: network.id,
            node,
            address: address_of(network, node)?,
            killed,
        })
    };
    subjects.into_iter().filter_map(sees).collect()
}

/// Those of `members` who witness a node.
fn next_to(members: &BTreeSet<NodeId>, node: NodeId) -> impl Iterator<Item = NodeId> {
    let next = members.range(node..).chain(members.range(..node));
    next.copied().filter(move |other| *other != node).take(WITNESSES)
}

/// The hosts that are told to witness who is killed on a network.
#[derive(Debug, Default)]
pub(crate) struct Witnesses(BTreeSet<NodeId>);

impl Witnesses {
    /// Of a network.
    pub(crate) fn on(state: &State, network: &NetworkRecord, now: Timestamp) -> Self {
        let nobody =
            !network.witnesses || network.mode != NetworkMode::Enforce || state.roster.len() > MOST_HOSTS;
        if nobody {
            return Self::default();
        }
        let nodes = state.roster.hosts().filter_map(|host| host.record.node);
        let decide = |node: &NodeId| state.networks.decide(&state.roster, network.id, *node, now);
        Self(nodes.filter(|node| decide(node).authorizes()).collect())
    }

    /// Whose word counts for a node.
    pub(crate) fn of(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        next_to(&self.0, node)
    }
}

/// An address of a member that follows from what is managed; none when the controller chooses it.
pub(crate) fn address_of(network: &NetworkRecord, node: NodeId) -> Option<IpAddr> {
    let given = network
        .allow
        .get(&node)
        .and_then(|allowed| allowed.addresses.first());
    if let Some(given) = given {
        return Some(*given);
    }
    let id: NetworkId = network.id;
    if network.settings.rfc4193 == Some(true) {
        return Some(address::rfc4193(id, node).into());
    }
    (network.settings.sixplane == Some(true)).then(|| address::sixplane(id, node).into())
}
