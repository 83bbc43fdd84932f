//! Networks, and everything that was said of who may be on them: a view of the store's records, with the order in which
//! decisions changed.
//!
//! What changed since a generation is found in three orders: of pairs of network and node, of nodes, and of whole
//! networks. So a ban touches one node and not each of its networks, and a settings file one network and not each member.

mod changes;
pub mod deadlines;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use picket_proto::{
    host::{HostId, Name},
    rules::{Governed, Members, Presence},
};
use picket_zerotier::ids::{NetworkId, NodeId};

use self::{changes::Changes, deadlines::Deadlines};
use crate::{
    membership::{Decision, Facts, authorized, rule},
    record::network::{
        ActivationRecord, Governor, GrantRecord, KillRecord, KillScope, MoonRecord, NetworkMode,
        NetworkRecord, RegisteredRecord, RequestRecord, RequestState,
    },
    roster::Roster,
    store::Revision,
};

/// A record and the revision that wrote it.
#[derive(Debug, Clone)]
pub struct Kept<R> {
    /// As stored.
    pub record: R,
    /// Of the last write.
    pub revision: Revision,
}

/// A network's record.
pub type Network = Kept<NetworkRecord>;

type ByPair<R> = BTreeMap<NetworkId, BTreeMap<NodeId, Kept<R>>>;

/// Every network, and what was said of its members.
#[derive(Debug, Default)]
pub struct Networks {
    networks: BTreeMap<NetworkId, Network>,
    grants: ByPair<GrantRecord>,
    activations: ByPair<ActivationRecord>,
    requests: ByPair<RequestRecord>,
    devices: BTreeMap<NodeId, Kept<RegisteredRecord>>,
    /// Of devices that stand.
    names: HashMap<Name, NodeId>,
    kills: BTreeMap<String, Kept<KillRecord>>,
    /// The kill of each scope that holds.
    holding: BTreeMap<KillScope, String>,
    moons: BTreeMap<NodeId, Kept<MoonRecord>>,
    /// Of activations that go on.
    ends: Deadlines,
    /// Of requests that wait.
    lapses: Deadlines,
    pairs: Changes<(NetworkId, NodeId)>,
    nodes: Changes<NodeId>,
    whole: Changes<NetworkId>,
    /// Of the last kill of everybody, and its lifting.
    everything: Revision,
    /// Of anything at all that is said here.
    newest: Revision,
}

/// What a change here is about; whoever is told of it follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// One node on one network.
    Pair(NetworkId, NodeId),
    /// One node on every network.
    Node(NodeId),
    /// One network, with all of its members.
    Network(NetworkId),
    /// Everything.
    All,
    /// No decision.
    Nothing,
}

impl Networks {
    fn note(&mut self, touched: Touched, revision: Revision) -> Touched {
        self.newest = self.newest.max(revision);
        match touched {
            Touched::Pair(network, node) => self.pairs.touch((network, node), revision),
            Touched::Node(node) => self.nodes.touch(node, revision),
            Touched::Network(network) => self.whole.touch(network, revision),
            Touched::All => self.everything = self.everything.max(revision),
            Touched::Nothing => {}
        }
        touched
    }

    /// Takes in a network's record.
    pub fn put_network(&mut self, record: NetworkRecord, revision: Revision) -> Touched {
        let id = record.id;
        self.networks.insert(id, Kept { record, revision });
        self.note(Touched::Network(id), revision)
    }

    /// Takes in a grant's record.
    pub fn put_grant(&mut self, record: GrantRecord, revision: Revision) -> Touched {
        let (network, node) = (record.network, record.node);
        let kept = Kept { record, revision };
        self.grants.entry(network).or_default().insert(node, kept);
        self.note(Touched::Pair(network, node), revision)
    }

    /// Takes in an activation's record.
    pub fn put_activation(&mut self, record: ActivationRecord, revision: Revision) -> Touched {
        let (network, node) = (record.network, record.node);
        let end = record.ended.is_none().then_some(record.until);
        self.ends.set((network, node), end);
        let kept = Kept { record, revision };
        self.activations.entry(network).or_default().insert(node, kept);
        self.note(Touched::Pair(network, node), revision)
    }

    /// Takes in a request's record, which decides nothing by itself.
    pub fn put_request(&mut self, record: RequestRecord, revision: Revision) -> Touched {
        let (network, node) = (record.network, record.node);
        let lapse = (record.state == RequestState::Pending).then_some(record.expires_at);
        self.lapses.set((network, node), lapse);
        let kept = Kept { record, revision };
        self.requests.entry(network).or_default().insert(node, kept);
        Touched::Nothing
    }

    /// Takes in the record of a person's device.
    pub fn put_device(&mut self, record: RegisteredRecord, revision: Revision) -> Touched {
        let node = record.node;
        if let Some(old) = self.devices.get(&node)
            && self.names.get(&old.record.name) == Some(&node)
        {
            self.names.remove(&old.record.name);
        }
        if record.removed.is_none() {
            self.names.insert(record.name.clone(), node);
        }
        self.devices.insert(node, Kept { record, revision });
        self.note(Touched::Node(node), revision)
    }

    /// Takes in a kill's record. Returns everything that it is about.
    pub fn put_kill(&mut self, record: KillRecord, revision: Revision, roster: &Roster) -> Vec<Touched> {
        let touched = match &record.scope {
            KillScope::Node(node) => vec![Touched::Node(*node)],
            KillScope::Host(host) => nodes_of_host(roster, *host).map(Touched::Node).collect(),
            KillScope::Network(network) => vec![Touched::Network(*network)],
            KillScope::Owner(owner) => self.devices_of(owner).map(Touched::Node).collect(),
            KillScope::All => vec![Touched::All],
        };
        if record.lifted.is_none() {
            self.holding.insert(record.scope.clone(), record.id.clone());
        } else if self.holding.get(&record.scope) == Some(&record.id) {
            self.holding.remove(&record.scope);
        }
        self.kills.insert(record.id.clone(), Kept { record, revision });
        self.newest = self.newest.max(revision);
        touched.into_iter().map(|one| self.note(one, revision)).collect()
    }

    /// Takes in a moon's record.
    pub fn put_moon(&mut self, record: MoonRecord, revision: Revision) {
        self.newest = self.newest.max(revision);
        self.moons.insert(record.node, Kept { record, revision });
    }

    /// Notes that something of a host changed that decisions depend on: the node it runs, where it stands, its labels.
    pub fn host_changed(&mut self, node: NodeId, revision: Revision) -> Touched {
        self.note(Touched::Node(node), revision)
    }

    /// Of the newest change of anything that is said here.
    #[must_use]
    pub fn newest(&self) -> Revision {
        self.newest
    }

    /// A network, unless it is gone.
    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks
            .get(&id)
            .filter(|network| network.record.mode != NetworkMode::Gone)
    }

    /// A network's record, one that is gone too.
    #[must_use]
    pub fn network_or_gone(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id)
    }

    /// Every network that is not gone, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        let here = |network: &&Network| network.record.mode != NetworkMode::Gone;
        self.networks.values().filter(here)
    }

    /// A grant.
    #[must_use]
    pub fn grant(&self, network: NetworkId, node: NodeId) -> Option<&Kept<GrantRecord>> {
        self.grants.get(&network)?.get(&node)
    }

    /// An activation.
    #[must_use]
    pub fn activation(&self, network: NetworkId, node: NodeId) -> Option<&Kept<ActivationRecord>> {
        self.activations.get(&network)?.get(&node)
    }

    /// Every activation that has not ended, whatever the time is.
    pub fn activations(&self) -> impl Iterator<Item = &Kept<ActivationRecord>> {
        let all = self.activations.values().flat_map(BTreeMap::values);
        all.filter(|kept| kept.record.ended.is_none())
    }

    /// A request.
    #[must_use]
    pub fn request(&self, network: NetworkId, node: NodeId) -> Option<&Kept<RequestRecord>> {
        self.requests.get(&network)?.get(&node)
    }

    /// The requests that wait on a network, by node. Those of a network of this id that ended before are none.
    pub fn waiting_on(&self, network: NetworkId) -> impl Iterator<Item = &RequestRecord> {
        let here = self.network(network).map(|kept| &kept.record);
        let all = self.requests.get(&network).into_iter().flat_map(BTreeMap::values);
        let all = all.map(|kept| &kept.record);
        all.filter(move |request| {
            request.state == RequestState::Pending && here.is_some_and(|here| here.knows(request.at))
        })
    }

    /// When activations that go on come to their ends.
    #[must_use]
    pub fn ends(&self) -> &Deadlines {
        &self.ends
    }

    /// When requests that wait are too old.
    #[must_use]
    pub fn lapses(&self) -> &Deadlines {
        &self.lapses
    }

    /// A person's device by its node, a removed one too.
    #[must_use]
    pub fn device(&self, node: NodeId) -> Option<&Kept<RegisteredRecord>> {
        self.devices.get(&node)
    }

    /// A person's device by its name.
    #[must_use]
    pub fn device_named(&self, name: &Name) -> Option<&Kept<RegisteredRecord>> {
        self.names.get(name).and_then(|node| self.devices.get(node))
    }

    /// Every person's device, removed ones too.
    pub fn devices(&self) -> impl Iterator<Item = &Kept<RegisteredRecord>> {
        self.devices.values()
    }

    /// The nodes of a person, removed ones too.
    pub fn devices_of(&self, owner: &str) -> impl Iterator<Item = NodeId> {
        let theirs = self
            .devices
            .values()
            .filter(move |device| device.record.owner == owner);
        theirs.map(|device| device.record.node)
    }

    /// A kill by its id.
    #[must_use]
    pub fn kill(&self, id: &str) -> Option<&Kept<KillRecord>> {
        self.kills.get(id)
    }

    /// Every kill, lifted ones too.
    pub fn kills(&self) -> impl Iterator<Item = &Kept<KillRecord>> {
        self.kills.values()
    }

    /// The kill of this scope that holds.
    #[must_use]
    pub fn kill_of(&self, scope: &KillScope) -> Option<&Kept<KillRecord>> {
        self.holding.get(scope).and_then(|id| self.kills.get(id))
    }

    /// Every moon, removed ones too.
    pub fn moons(&self) -> impl Iterator<Item = &Kept<MoonRecord>> {
        self.moons.values()
    }

    /// Every node that somebody registered, or said something of on this network. Others are unknown there.
    #[must_use]
    pub fn known_on(&self, roster: &Roster, network: NetworkId) -> BTreeSet<NodeId> {
        let allowed = self
            .networks
            .get(&network)
            .into_iter()
            .flat_map(|kept| kept.record.allow.keys());
        let said = self.grants.get(&network).into_iter().flat_map(BTreeMap::keys);
        let killed = self.holding.keys().filter_map(|scope| match scope {
            KillScope::Node(node) => Some(*node),
            KillScope::Host(_) | KillScope::Network(_) | KillScope::Owner(_) | KillScope::All => None,
        });
        let registered = self.devices.keys().copied().chain(roster.nodes());
        allowed
            .chain(said)
            .copied()
            .chain(killed)
            .chain(registered)
            .collect()
    }

    /// The kill that covers a node on a network, the widest first.
    fn kill_over(&self, roster: &Roster, network: NetworkId, node: NodeId) -> Option<&KillRecord> {
        self.kills_over(roster, network, node)
            .next()
            .map(|kill| &kill.record)
    }

    /// The kills that cover a node on a network, the widest first.
    fn kills_over(
        &self,
        roster: &Roster,
        network: NetworkId,
        node: NodeId,
    ) -> impl Iterator<Item = &Kept<KillRecord>> {
        // Most of the time nobody is killed, and everybody is decided of.
        let scopes = if self.holding.is_empty() {
            Vec::new()
        } else {
            self.scopes_over(roster, network, node)
        };
        scopes.into_iter().filter_map(|scope| self.kill_of(&scope))
    }

    fn scopes_over(&self, roster: &Roster, network: NetworkId, node: NodeId) -> Vec<KillScope> {
        let hosts = [
            roster.of_node(node),
            roster.formerly(node),
            roster.retired_with(node).map(|(host, _)| host),
        ];
        let hosts = hosts
            .into_iter()
            .flatten()
            .map(|host| KillScope::Host(host.record.id));
        // What a host is believed to run is the host's, whoever registered it before that.
        let device = self.devices.get(&node).filter(|_| roster.of_node(node).is_none());
        let owner = device.map(|device| KillScope::Owner(device.record.owner.clone()));
        let whole = [KillScope::All, KillScope::Network(network)].into_iter();
        whole
            .chain(owner)
            .chain(hosts)
            .chain([KillScope::Node(node)])
            .collect()
    }

    /// Since when everybody who is told is told that a node is killed on a network; none when it is not.
    #[must_use]
    pub fn killed_since(&self, roster: &Roster, network: NetworkId, node: NodeId) -> Option<Revision> {
        let covering = self.kills_over(roster, network, node);
        covering.map(|kill| kill.revision).min()
    }

    /// Whether a kill of this scope is about a node on a network.
    #[must_use]
    pub fn covers(&self, roster: &Roster, scope: &KillScope, network: NetworkId, node: NodeId) -> bool {
        self.scopes_over(roster, network, node).contains(scope)
    }

    /// Whether a kill that holds may be about somebody on a network.
    fn has_kill(&self, network: NetworkId) -> bool {
        self.holding.keys().any(|scope| match scope {
            KillScope::Network(id) => *id == network,
            KillScope::All | KillScope::Node(_) | KillScope::Host(_) | KillScope::Owner(_) => true,
        })
    }

    /// What is known of a node on a network; none when the network is not watched.
    #[must_use]
    pub fn facts<'a>(&'a self, roster: &'a Roster, network: NetworkId, node: NodeId) -> Option<Facts<'a>> {
        let retired = roster.retired_with(node);
        Some(Facts {
            node,
            network: &self.networks.get(&network)?.record,
            kill: self.kill_over(roster, network, node),
            grant: self.grant(network, node).map(|kept| &kept.record),
            activation: self.activation(network, node).map(|kept| &kept.record),
            host: roster.of_node(node).map(|host| &host.record),
            former: roster.formerly(node).map(|host| &host.record),
            retired: retired.map(|(host, at)| (&host.record.name, at)),
            device: self.devices.get(&node).map(|kept| &kept.record),
        })
    }

    /// What holds for a node on a network.
    #[must_use]
    pub fn decide(&self, roster: &Roster, network: NetworkId, node: NodeId, now: Timestamp) -> Decision {
        self.facts(roster, network, node)
            .map_or(Decision::Unknown, |facts| authorized(&facts, now))
    }

    /// When a node was taken off a network last, by a revocation or with its device: settings that name it anew come after.
    #[must_use]
    pub fn taken_off(&self, network: NetworkId, node: NodeId) -> Option<Timestamp> {
        let grant = self.grant(network, node).map(|kept| &kept.record);
        let revoked = grant.filter(|grant| !grant.admitted).map(|grant| grant.at);
        let device = self.devices.get(&node);
        let removed = device.and_then(|device| device.record.removed.as_ref());
        revoked.max(removed.map(|removed| removed.at))
    }

    /// The kill of a whole network that holds, if there is one.
    #[must_use]
    pub fn closed(&self, network: NetworkId) -> Option<&KillRecord> {
        let kill = self
            .kill_of(&KillScope::All)
            .or_else(|| self.kill_of(&KillScope::Network(network)));
        kill.map(|kept| &kept.record)
    }

    /// The networks that a controller has to follow.
    pub fn governed_by(&self, governor: Governor) -> impl Iterator<Item = &Network> {
        self.networks
            .values()
            .filter(move |network| network.record.controller == governor && network.record.is_governed())
    }

    /// A network as its controller is to have it. Of one that is observed only those who are killed are governed: its
    /// settings and its other members stay as they are.
    #[must_use]
    pub fn governed(&self, record: &NetworkRecord) -> Governed {
        let closed = self.closed(record.id).is_some();
        if record.mode == NetworkMode::Observe {
            return Governed {
                closed,
                resumed: record.resumed,
                watched: true,
                ..Governed::default()
            };
        }
        let presence = match (record.mode, record.made) {
            (NetworkMode::Deleting, _) => Presence::Deleted,
            // Central chooses ids itself, so that one it has lost cannot be made again.
            (_, true) if record.controller.host().is_some() => Presence::Made,
            (_, _) => Presence::Kept,
        };
        Governed {
            presence,
            unknown: record.unknown,
            closed,
            settings: record.settings.clone(),
            resumed: record.resumed,
            watched: false,
        }
    }

    /// What changed after `since` for a controller, with the newest revision it depends on.
    #[must_use]
    pub fn changed_since(
        &self,
        roster: &Roster,
        governor: Governor,
        since: Revision,
        now: Timestamp,
    ) -> (Revision, Members) {
        let mut members = Members::default();
        let mut newest = since;
        // A network that is gone is named no more, which is news to whoever had it.
        let theirs = self
            .networks
            .values()
            .filter(|kept| kept.record.controller == governor);
        for network in theirs {
            let id = network.record.id;
            let whole = self.whole.of(id).max(self.everything);
            newest = newest.max(whole);
            let everybody = network.record.is_governed();
            // An order to cut somebody off is carried out on a network that is only watched, too.
            let killed_only = network.record.mode == NetworkMode::Observe;
            if !everybody && !killed_only {
                continue;
            }
            if everybody || self.has_kill(id) {
                members.networks.insert(id, self.governed(&network.record));
            }
            // What changed as a whole is told as a whole: whoever had a rule and is not known any more is in no list that could
            // lift it.
            let anew = whole > since;
            let from = if anew { Revision(0) } else { since };
            let pairs = self.pairs.since(from).filter(|(_, (network, _))| *network == id);
            let changed = pairs.map(|(_, (_, node))| node);
            let mut nodes: BTreeSet<_> = changed
                .chain(self.nodes.since(from).map(|(_, node)| node))
                .collect();
            if anew {
                nodes.extend(self.known_on(roster, id));
                if since > Revision(0) && members.networks.contains_key(&id) {
                    members.anew.insert(id);
                }
            }
            for node in nodes {
                newest = newest.max(self.pairs.of((id, node))).max(self.nodes.of(node));
                let facts = self.facts(roster, id, node);
                let facts = facts.filter(|facts| everybody || facts.kill.is_some());
                match facts.and_then(|facts| rule(&facts, now)) {
                    Some(rule) => drop(members.rules.insert((id, node), rule)),
                    None if since == Revision(0) => {}
                    None => drop(members.lifted.insert((id, node))),
                }
            }
        }
        (newest, members)
    }
}

/// The nodes that a host runs, or was believed to run.
fn nodes_of_host(roster: &Roster, host: HostId) -> impl Iterator<Item = NodeId> {
    let record = roster.host(host).map(|host| &host.record);
    let nodes = record
        .into_iter()
        .flat_map(|record| record.node.iter().chain(&record.former_nodes));
    nodes.copied()
}
