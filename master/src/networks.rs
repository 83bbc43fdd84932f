//! Networks and grants, as the store has them, and the order in which decisions changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use picket_proto::host::HostId;
use picket_zerotier::ids::{NetworkId, NodeId};

use crate::{
    membership::{Decision, authorized},
    record::{GrantRecord, NetworkMode, NetworkRecord},
    roster::Roster,
    store::Revision,
};

/// A network's record and the revision that wrote it.
#[derive(Debug, Clone)]
pub struct Network {
    /// As stored.
    pub record: NetworkRecord,
    /// Of the last write.
    pub revision: Revision,
}

/// A grant's record, and when what it means changed last.
#[derive(Debug, Clone)]
pub struct Grant {
    /// As stored.
    pub record: GrantRecord,
    /// Of the last write.
    pub revision: Revision,
    /// Of the last write of anything the decision depends on: the grant, the network, the node's host.
    pub effective: Revision,
}

/// Every network and grant.
#[derive(Debug, Default)]
pub struct Networks {
    networks: BTreeMap<NetworkId, Network>,
    grants: BTreeMap<NetworkId, BTreeMap<NodeId, Grant>>,
    /// The same grants in the order their decisions changed: what changed since a generation is a range of it.
    changed: BTreeMap<Revision, BTreeSet<(NetworkId, NodeId)>>,
    /// The networks a node has grants on.
    of_node: HashMap<NodeId, BTreeSet<NetworkId>>,
}

impl Networks {
    /// Takes in a network's record.
    pub fn put_network(&mut self, record: NetworkRecord, revision: Revision) {
        let id = record.id;
        self.networks.insert(id, Network { record, revision });
        let nodes: Vec<_> = self.grants_on(id).map(|(node, _)| node).collect();
        for node in nodes {
            self.touch(id, node, revision);
        }
    }

    /// Takes in a grant's record.
    pub fn put_grant(&mut self, record: GrantRecord, revision: Revision) {
        let (network, node) = (record.network, record.node);
        let grant = Grant {
            record,
            revision,
            effective: revision,
        };
        if let Some(old) = self.grants.entry(network).or_default().insert(node, grant) {
            self.forget_change(old.effective, network, node);
        }
        self.changed.entry(revision).or_default().insert((network, node));
        self.of_node.entry(node).or_default().insert(network);
    }

    fn forget_change(&mut self, at: Revision, network: NetworkId, node: NodeId) {
        if let Some(there) = self.changed.get_mut(&at) {
            there.remove(&(network, node));
            if there.is_empty() {
                self.changed.remove(&at);
            }
        }
    }

    /// Notes that the host that runs `node` changed. Returns the networks whose decisions may have changed with it.
    pub fn host_changed(&mut self, node: NodeId, revision: Revision) -> Vec<NetworkId> {
        let networks: Vec<_> = self.networks_of(node).collect();
        for network in &networks {
            self.touch(*network, node, revision);
        }
        networks
    }

    fn touch(&mut self, network: NetworkId, node: NodeId, revision: Revision) {
        let Some(grant) = self
            .grants
            .get_mut(&network)
            .and_then(|grants| grants.get_mut(&node))
        else {
            return;
        };
        if grant.effective < revision {
            let before = std::mem::replace(&mut grant.effective, revision);
            self.forget_change(before, network, node);
            self.changed.entry(revision).or_default().insert((network, node));
        }
    }

    /// A network.
    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id)
    }

    /// Every network, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    /// A grant.
    #[must_use]
    pub fn grant(&self, network: NetworkId, node: NodeId) -> Option<&Grant> {
        self.grants.get(&network)?.get(&node)
    }

    /// Every grant on a network, by node.
    pub fn grants_on(&self, network: NetworkId) -> impl Iterator<Item = (NodeId, &Grant)> {
        self.grants
            .get(&network)
            .into_iter()
            .flatten()
            .map(|(node, grant)| (*node, grant))
    }

    /// The networks a node has grants on, standing or revoked.
    pub fn networks_of(&self, node: NodeId) -> impl Iterator<Item = NetworkId> {
        self.of_node.get(&node).into_iter().flatten().copied()
    }

    /// What holds for a node on a network.
    #[must_use]
    pub fn decide(&self, roster: &Roster, network: NetworkId, node: NodeId) -> Decision {
        let owner = roster
            .of_node(node)
            .map(|host| (&host.record.name, &host.record.standing));
        let retired = roster
            .retired_with(node)
            .map(|(host, at)| (&host.record.name, at));
        authorized(
            self.grant(network, node).map(|grant| &grant.record),
            owner,
            retired,
        )
    }

    /// The nodes whose decisions changed after `since`, on the enforced networks that `controller` runs, oldest first.
    pub fn changed_since(
        &self,
        controller: HostId,
        since: Revision,
    ) -> impl Iterator<Item = (Revision, NetworkId, NodeId)> {
        let ours = move |network: &NetworkId| {
            self.networks.get(network).is_some_and(|network| {
                network.record.controller == controller && network.record.mode == NetworkMode::Enforce
            })
        };
        let changes = self.changed.range(since.next()..);
        let flat =
            changes.flat_map(|(at, there)| there.iter().map(move |(network, node)| (*at, *network, *node)));
        flat.filter(move |(_, network, _)| ours(network))
    }
}
