//! The air between the nodes: who asks whom when, who is pushed what, whose credentials reach whom.
//!
//! Everything here is computed for a `now` that is handed in; nothing reads a clock.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use serde_json::Value;

use super::{
    controller::{Hosted, ONLINE_FOR, Question, Reply},
    machine::{self, Machine, Resident},
    node::Joined,
};
use crate::ids::{NetworkId, NodeId};

/// How often a node looks what there is to ask.
const TICK: Duration = Duration::from_secs(5);
/// The node id of the root that every lab has.
const ROOT: u64 = 0xa3_0c56_e56c;

/// What the site knows at one moment.
pub(super) struct State {
    pub(super) machines: BTreeMap<NodeId, Machine>,
    pub(super) now: Duration,
    epoch: u64,
    seed: u64,
    /// Counts credentials and revocations, so that two of the same instant have an order.
    issued: u64,
    numbers: VecDeque<u32>,
}

impl State {
    /// Returns a site without nodes.
    pub(super) fn new(seed: u64, epoch: u64) -> Self {
        Self {
            machines: BTreeMap::new(),
            now: Duration::ZERO,
            epoch,
            seed,
            issued: 0,
            numbers: VecDeque::new(),
        }
    }

    /// Adds a node, unless it is there.
    pub(super) fn add(&mut self, resident: Resident) {
        let (seed, place, now) = (self.seed, self.machines.len() + 1, self.now);
        self.machines
            .entry(resident.id())
            .or_insert_with(|| Machine::new(resident, seed, place, now));
    }

    /// Chooses the numbers of the networks that are created next.
    pub(super) fn number(&mut self, numbers: impl IntoIterator<Item = u32>) {
        self.numbers.extend(numbers);
    }

    /// Returns what everything random in this site follows from.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the wall time in milliseconds since 1970.
    pub(super) fn wall(&self) -> u64 {
        self.epoch + u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// Returns the wall time the site started at.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Does everything that happens by itself until `now`, in order of time.
    pub(super) fn advance(&mut self, now: Duration) {
        loop {
            let running = self.machines.values().filter(|machine| machine.running);
            let Some((at, node)) = running.map(|machine| (machine.next_tick, machine.id)).min() else {
                break;
            };
            if at > now {
                break;
            }
            self.now = self.now.max(at);
            self.tick(node);
        }
        self.now = self.now.max(now);
    }

    fn tick(&mut self, node: NodeId) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&node) else {
            return;
        };
        machine.next_tick = now + TICK;
        let due = machine
            .networks()
            .filter(|(network, joined)| !network.is_ad_hoc() && joined.is_due(now));
        for network in due.map(|(network, _)| network).collect::<Vec<_>>() {
            self.poll(network, node);
        }
    }

    /// Has a member ask its controller and hear the answer. A controller that is not there says nothing.
    pub(super) fn poll(&mut self, network: NetworkId, node: NodeId) {
        let (now, wall) = (self.now, self.wall());
        let Some(identity) = self.machines.get(&node).map(|machine| machine.identity.clone()) else {
            return;
        };
        let question = Question {
            node,
            identity: &identity,
            now,
            wall,
        };
        let reply = match self.machines.get_mut(&network.controller()) {
            Some(controller) if controller.running => match controller.hosted.get_mut(&network) {
                Some(hosted) => hosted.ask(network, question),
                None => Reply::NotFound,
            },
            Some(_) | None => return,
        };
        let number = self.issue();
        if let Some(joined) = self
            .machines
            .get_mut(&node)
            .and_then(|machine| machine.joined.get_mut(&network))
        {
            joined.hear(reply, number, now);
        }
    }

    /// Pushes a member its configuration, if it can be pushed to: it asked lately and was served since the start.
    ///
    /// Being pushed to is not asking: a member that is pushed one configuration after another, and so has no cause to
    /// ask, counts as offline after two minutes.
    pub(super) fn push(&mut self, network: NetworkId, node: NodeId) {
        if self.on(network, node).is_none() {
            return;
        }
        let Some(asked) = self
            .hosted(network)
            .filter(|hosted| hosted.pushable(self.now).contains(&node))
            .and_then(|hosted| Some(hosted.seen.get(&node)?.asked))
        else {
            return;
        };
        self.poll(network, node);
        if let Some(controller) = self.machines.get_mut(&network.controller())
            && let Some(hosted) = controller.hosted.get_mut(&network)
            && let Some(seen) = hosted.seen.get_mut(&node)
        {
            seen.asked = asked;
        }
    }

    /// Pushes all members that can be pushed to.
    pub(super) fn push_all(&mut self, network: NetworkId) {
        let pushable = self
            .hosted(network)
            .map(|hosted| hosted.pushable(self.now))
            .unwrap_or_default();
        for node in pushable {
            self.push(network, node);
        }
    }

    /// Revokes the credentials of `nodes`. The controller tells the members that asked lately, and they pass it on; when
    /// there is none, nobody hears of it.
    pub(super) fn revoke(&mut self, network: NetworkId, nodes: &BTreeSet<NodeId>, told: &BTreeSet<NodeId>) {
        if !told.iter().any(|node| self.on(network, *node).is_some()) {
            return;
        }
        let number = self.issue();
        for machine in self.machines.values_mut().filter(|machine| machine.running) {
            if let Some(joined) = machine.joined.get_mut(&network) {
                for node in nodes {
                    joined.revoke(*node, number);
                }
            }
        }
    }

    /// Returns a network as its own controller keeps it.
    fn hosted(&self, network: NetworkId) -> Option<&Hosted> {
        self.machines.get(&network.controller())?.hosted.get(&network)
    }

    /// Returns who asked a controller lately about a network.
    pub(super) fn online(&self, controller: NodeId, network: NetworkId) -> BTreeSet<NodeId> {
        let hosted = self
            .machines
            .get(&controller)
            .and_then(|machine| machine.hosted.get(&network));
        let seen = hosted.into_iter().flat_map(|hosted| &hosted.seen);
        seen.filter(|(_, seen)| self.now - seen.asked < ONLINE_FOR)
            .map(|(node, _)| *node)
            .collect()
    }

    /// Returns a node's side of a network, if it runs, has it, and has had a configuration.
    pub(super) fn on(&self, network: NetworkId, node: NodeId) -> Option<&Joined> {
        let machine = self
            .machines
            .get(&node)
            .filter(|machine| machine.running && machine.tun)?;
        machine
            .joined
            .get(&network)
            .filter(|joined| joined.is_configured())
    }

    /// Returns the next number in the order of what is issued.
    pub(super) fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    /// Returns the id of the next network that a controller creates.
    pub(super) fn free_network(&mut self, controller: NodeId) -> NetworkId {
        let taken = |state: &Self, id: &NetworkId| {
            state
                .machines
                .get(&controller)
                .is_some_and(|machine| machine.hosted.contains_key(id))
        };
        loop {
            let number = match self.numbers.pop_front() {
                Some(number) => number,
                None => {
                    let nonce = self.issue();
                    let number = machine::number(self.seed, &format!("network {controller} {nonce}"));
                    u32::try_from(number & 0x00ff_ffff).unwrap_or_default()
                }
            };
            let id = NetworkId::at(controller, number);
            if !taken(self, &id) {
                return id;
            }
        }
    }

    /// Returns the nodes that a node lists as peers: the root, its moons, its controllers, and members it exchanges
    /// packets with.
    pub(super) fn peers(&self, node: NodeId) -> BTreeMap<NodeId, Value> {
        let wall = self.wall();
        let mut peers = BTreeMap::new();
        let Some(machine) = self.machines.get(&node) else {
            return peers;
        };
        let mut known = BTreeSet::new();
        for (network, joined) in machine.networks() {
            known.insert(network.controller());
            let others = self.machines.keys().filter(|other| {
                self.on(network, **other)
                    .is_some_and(|theirs| joined.admits(**other, theirs) && theirs.admits(node, joined))
            });
            known.extend(others);
        }
        for other in known.into_iter().filter(|other| *other != node) {
            if let Some(other) = self.machines.get(&other).filter(|other| other.running) {
                peers.insert(other.id, other.as_peer("LEAF", wall));
            }
        }
        for (moon, orbit) in &machine.orbits {
            if let Some(root) = self.machines.get(moon)
                && orbit.arrived(root.moon.as_ref(), self.now).is_some()
            {
                peers.insert(*moon, root.as_peer("MOON", wall));
            }
        }
        if let Ok(root) = NodeId::new(ROOT) {
            peers.insert(root, machine::peer(root, "PLANET", "10.99.0.1", wall));
        }
        peers
    }
}
