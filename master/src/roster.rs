//! The hosts and operators: by id, by name, by pin. A view of the store's records; it decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use picket_pki::{Fingerprint, Identity, PinKind, Standing};
use picket_proto::host::{HostId, Name};
use picket_zerotier::ids::NodeId;

use crate::{
    operators,
    record::{HostRecord, HostStanding, OperatorRecord, OperatorRole, Pin, Pins},
    store::Revision,
};

/// A host's record and the revision that wrote it. The certificates in its pins are left in the store.
#[derive(Debug, Clone)]
pub struct Host {
    /// As stored, without certificates.
    pub record: HostRecord,
    /// Of the last write.
    pub revision: Revision,
}

/// Whose pin a certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinOwner {
    /// A host's.
    Host(HostId),
    /// An operator's.
    Operator(String),
}

#[derive(Debug, Clone)]
struct Pinned {
    owner: PinOwner,
    standing: Standing,
}

/// Everybody the master knows.
#[derive(Debug, Default)]
pub struct Roster {
    hosts: HashMap<HostId, Host>,
    names: BTreeMap<Name, HostId>,
    operators: BTreeMap<String, (OperatorRecord, Revision)>,
    pins: HashMap<Fingerprint, Pinned>,
    nodes: HashMap<NodeId, HostId>,
    /// The host that was retired last of those that ran a node.
    retired: HashMap<NodeId, HostId>,
    /// The host that was believed to run a node, and is believed to run another by now.
    former: HashMap<NodeId, HostId>,
}

impl Roster {
    /// Takes in a host's record. Returns the nodes that other things are to be decided of from here on: those the host was
    /// and is, when anything changed of it that decisions depend on.
    pub fn put_host(&mut self, mut record: HostRecord, revision: Revision) -> BTreeSet<NodeId> {
        let before = self.hosts.get(&record.id).map(|host| &host.record);
        let nodes = |record: &HostRecord| -> Vec<NodeId> {
            record.node.iter().chain(&record.former_nodes).copied().collect()
        };
        let same = before.is_some_and(|before| {
            before.name == record.name
                && before.labels == record.labels
                && before.standing == record.standing
                && nodes(before) == nodes(&record)
        });
        let changed = if same {
            BTreeSet::new()
        } else {
            let before = before.map(nodes).unwrap_or_default();
            before.into_iter().chain(nodes(&record)).collect()
        };
        self.drop_host(record.id);
        for (fingerprint, standing) in standings(&record) {
            self.pins.insert(
                fingerprint,
                Pinned {
                    owner: PinOwner::Host(record.id),
                    standing,
                },
            );
        }
        match (&record.standing, record.node) {
            (HostStanding::Retired { at, .. }, Some(node)) => {
                if self.retired_with(node).is_none_or(|(_, before)| before <= *at) {
                    self.retired.insert(node, record.id);
                }
            }
            (HostStanding::Retired { .. }, None) => {}
            (HostStanding::Active | HostStanding::Banned { .. }, node) => {
                self.names.insert(record.name.clone(), record.id);
                if let Some(node) = node {
                    self.nodes.insert(node, record.id);
                }
            }
        }
        for node in &record.former_nodes {
            self.former.insert(*node, record.id);
        }
        let Pins {
            bundle,
            current,
            pending,
            ..
        } = &mut record.pins;
        for pin in [bundle, current, pending].into_iter().flatten() {
            pin.certificate = String::new();
        }
        self.hosts.insert(record.id, Host { record, revision });
        changed
    }

    fn drop_host(&mut self, id: HostId) {
        let Some(old) = self.hosts.remove(&id) else { return };
        self.pins.retain_of(&old.record);
        if self.names.get(&old.record.name) == Some(&id) {
            self.names.remove(&old.record.name);
        }
        if let Some(node) = old.record.node
            && self.nodes.get(&node) == Some(&id)
        {
            self.nodes.remove(&node);
        }
        for node in old.record.former_nodes {
            if self.former.get(&node) == Some(&id) {
                self.former.remove(&node);
            }
        }
    }

    /// Takes in an operator's record.
    pub fn put_operator(&mut self, record: OperatorRecord, revision: Revision) {
        self.drop_operator(&record.name);
        for (fingerprint, standing) in operators::standings(&record) {
            let pinned = Pinned {
                owner: PinOwner::Operator(record.name.clone()),
                standing,
            };
            self.pins.insert(fingerprint, pinned);
        }
        self.operators.insert(record.name.clone(), (record, revision));
    }

    /// Forgets an operator.
    pub fn drop_operator(&mut self, name: &str) {
        if let Some((old, _)) = self.operators.remove(name) {
            for (fingerprint, _) in operators::standings(&old) {
                self.pins.remove(&fingerprint);
            }
        }
    }

    /// A host by its id, retired ones included.
    #[must_use]
    pub fn host(&self, id: HostId) -> Option<&Host> {
        self.hosts.get(&id)
    }

    /// A host by its name; retired ones have none.
    #[must_use]
    pub fn named(&self, name: &Name) -> Option<&Host> {
        self.names.get(name).and_then(|id| self.hosts.get(id))
    }

    /// The host whose machine runs a node.
    #[must_use]
    pub fn of_node(&self, node: NodeId) -> Option<&Host> {
        self.nodes.get(&node).and_then(|id| self.hosts.get(id))
    }

    /// The host that was believed to run a node, and is believed to run another by now.
    #[must_use]
    pub fn formerly(&self, node: NodeId) -> Option<&Host> {
        self.former.get(&node).and_then(|id| self.hosts.get(id))
    }

    /// Every node that is or was a host's.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        let (here, retired, former) = (self.nodes.keys(), self.retired.keys(), self.former.keys());
        here.chain(retired).chain(former).copied()
    }

    /// The host that was retired last of those that ran a node, and when.
    #[must_use]
    pub fn retired_with(&self, node: NodeId) -> Option<(&Host, Timestamp)> {
        let host = self.retired.get(&node).and_then(|id| self.hosts.get(id))?;
        match host.record.standing {
            HostStanding::Retired { at, .. } => Some((host, at)),
            HostStanding::Active | HostStanding::Banned { .. } => None,
        }
    }

    /// The host that has a certificate pinned for the key of this fingerprint, or had a bundle for it, banned and retired
    /// ones included, and as which pin. Looks at every host: keys come seldom.
    #[must_use]
    pub fn of_key(&self, key: &Fingerprint) -> Option<(&Host, KeyOf)> {
        let has = |pin: &Option<Pin>| pin.as_ref().is_some_and(|pin| &pin.key == key);
        self.hosts.values().find_map(|host| {
            let pins = &host.record.pins;
            let kinds = [
                (&pins.current, KeyOf::Certificate),
                (&pins.pending, KeyOf::Certificate),
                (&pins.bundle, KeyOf::Bundle),
            ];
            let kind = kinds
                .into_iter()
                .find_map(|(pin, kind)| has(pin).then_some(kind))
                .or_else(|| pins.bundle_keys.contains(key).then_some(KeyOf::SpentBundle))?;
            Some((host, kind))
        })
    }

    /// Every host that is not retired, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.names.values().filter_map(|id| self.hosts.get(id))
    }

    /// Every host that is not retired and stands after `name`, by name.
    pub fn hosts_after<'a>(&'a self, name: Option<&Name>) -> impl Iterator<Item = &'a Host> {
        use std::ops::Bound;
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.names
            .range((from, Bound::Unbounded))
            .filter_map(|(_, id)| self.hosts.get(id))
    }

    /// How many hosts there are that are not retired.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// An operator's record and its revision.
    #[must_use]
    pub fn operator(&self, name: &str) -> Option<&(OperatorRecord, Revision)> {
        self.operators.get(name)
    }

    /// The role of an operator; none when it is revoked or not known.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<OperatorRole> {
        let (record, _) = self.operators.get(name)?;
        record.revoked.is_none().then_some(record.role)
    }

    /// Every operator that stands after `name`, by name; revoked ones too.
    pub fn operators_after<'a>(&'a self, name: Option<&str>) -> impl Iterator<Item = &'a OperatorRecord> {
        use std::ops::Bound;
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.operators
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(_, (record, _))| record)
    }

    /// The host that a pin is or was of.
    #[must_use]
    pub fn of_pin(&self, fingerprint: &Fingerprint) -> Option<&Host> {
        match &self.pins.get(fingerprint)?.owner {
            PinOwner::Host(id) => self.hosts.get(id),
            PinOwner::Operator(_) => None,
        }
    }

    /// What the handshake is told of a certificate.
    #[must_use]
    pub fn standing(&self, fingerprint: &Fingerprint) -> Standing {
        self.pins
            .get(fingerprint)
            .map_or(Standing::Unknown, |pinned| pinned.standing)
    }

    /// Whether the certificate of an open connection still speaks for `identity`, and as which pin.
    #[must_use]
    pub fn admits(&self, identity: &Identity, fingerprint: &Fingerprint) -> Option<PinKind> {
        let pinned = self.pins.get(fingerprint)?;
        let same = match (&pinned.owner, identity) {
            (PinOwner::Host(id), Identity::Host(uuid)) => id.0 == *uuid,
            (PinOwner::Operator(name), Identity::Operator(said)) => name == said.as_str(),
            (
                PinOwner::Host(_) | PinOwner::Operator(_),
                Identity::Master | Identity::Host(_) | Identity::Operator(_),
            ) => false,
        };
        match pinned.standing {
            Standing::Pinned(kind) if same => Some(kind),
            Standing::Pinned(_)
            | Standing::Spent
            | Standing::Banned
            | Standing::Retired
            | Standing::Unknown => None,
        }
    }
}

/// What a host has a key for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOf {
    /// The certificate it works under, or is about to.
    Certificate,
    /// A bundle that is not used up.
    Bundle,
    /// A bundle that was.
    SpentBundle,
}

trait RetainOf {
    fn retain_of(&mut self, record: &HostRecord);
}

impl RetainOf for HashMap<Fingerprint, Pinned> {
    /// Removes the pins of a host.
    fn retain_of(&mut self, record: &HostRecord) {
        for (fingerprint, _) in standings(record) {
            self.remove(&fingerprint);
        }
    }
}

/// Every fingerprint of a host with what it is worth.
fn standings(record: &HostRecord) -> Vec<(Fingerprint, Standing)> {
    let Pins {
        bundle,
        current,
        pending,
        spent,
        bundle_keys: _,
    } = &record.pins;
    let all = |standing: fn(PinKind) -> Standing| {
        let pin = |pin: &Option<Pin>, kind| pin.as_ref().map(|pin| (pin.fingerprint, standing(kind)));
        [
            pin(bundle, PinKind::Bundle),
            pin(current, PinKind::Current),
            pin(pending, PinKind::Pending),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
    };
    let (mut pins, spent_standing) = match record.standing {
        HostStanding::Active => (all(Standing::Pinned), Standing::Spent),
        HostStanding::Banned { .. } => (all(|_| Standing::Banned), Standing::Banned),
        HostStanding::Retired { .. } => (all(|_| Standing::Retired), Standing::Retired),
    };
    pins.extend(spent.iter().map(|fingerprint| (*fingerprint, spent_standing)));
    pins
}

#[cfg(test)]
mod tests {
    use picket_proto::host::Labels;
    use uuid::Uuid;

    use super::*;

    fn fingerprint(n: u8) -> Fingerprint {
        Fingerprint::of(&[n])
    }

    fn pin(n: u8) -> Option<Pin> {
        Some(Pin {
            fingerprint: fingerprint(n),
            key: fingerprint(100 + n),
            not_after: Timestamp::UNIX_EPOCH,
            certificate: "00".into(),
            from: String::new(),
        })
    }

    fn host() -> HostRecord {
        HostRecord {
            id: HostId(Uuid::from_u128(1)),
            name: "oslo".parse().unwrap(),
            labels: Labels::default(),
            note: String::new(),
            enrolled_at: Timestamp::UNIX_EPOCH,
            standing: HostStanding::Active,
            pins: Pins {
                bundle: pin(1),
                current: None,
                pending: pin(2),
                spent: vec![fingerprint(3)],
                bundle_keys: Vec::new(),
            },
            node: None,
            node_standing: Default::default(),
            node_identity: None,
            former_nodes: Vec::new(),
        }
    }

    #[test]
    fn each_pin_has_its_standing_and_a_dropped_one_is_forgotten() {
        let mut roster = Roster::default();
        roster.put_host(host(), Revision(1));
        assert_eq!(
            roster.standing(&fingerprint(1)),
            Standing::Pinned(PinKind::Bundle)
        );
        assert_eq!(
            roster.standing(&fingerprint(2)),
            Standing::Pinned(PinKind::Pending)
        );
        assert_eq!(roster.standing(&fingerprint(3)), Standing::Spent);
        let mut next = host();
        next.pins = Pins {
            current: pin(2),
            spent: vec![fingerprint(1)],
            ..Pins::default()
        };
        roster.put_host(next, Revision(2));
        assert_eq!(roster.standing(&fingerprint(1)), Standing::Spent);
        assert_eq!(
            roster.standing(&fingerprint(2)),
            Standing::Pinned(PinKind::Current)
        );
        assert_eq!(roster.standing(&fingerprint(3)), Standing::Unknown);
    }

    #[test]
    fn a_banned_host_has_no_pin_that_opens_anything() {
        let mut roster = Roster::default();
        let banned = HostStanding::Banned {
            at: Timestamp::UNIX_EPOCH,
            reason: "found a shell".into(),
        };
        roster.put_host(
            HostRecord {
                standing: banned,
                ..host()
            },
            Revision(1),
        );
        for n in 1..=3 {
            assert_eq!(roster.standing(&fingerprint(n)), Standing::Banned);
            assert_eq!(
                roster.admits(&Identity::Host(Uuid::from_u128(1)), &fingerprint(n)),
                None
            );
        }
    }

    #[test]
    fn a_retired_host_leaves_its_name_free_and_its_pins_refused() {
        let mut roster = Roster::default();
        let retired = HostStanding::Retired {
            at: Timestamp::UNIX_EPOCH,
            reason: String::new(),
        };
        roster.put_host(
            HostRecord {
                standing: retired,
                ..host()
            },
            Revision(1),
        );
        assert!(roster.named(&"oslo".parse().unwrap()).is_none());
        assert_eq!(roster.standing(&fingerprint(1)), Standing::Retired);
    }

    #[test]
    fn a_pin_speaks_only_for_the_identity_it_was_pinned_for() {
        let mut roster = Roster::default();
        roster.put_host(host(), Revision(1));
        let admits = |id| roster.admits(&Identity::Host(Uuid::from_u128(id)), &fingerprint(2));
        assert_eq!((admits(1), admits(2)), (Some(PinKind::Pending), None));
    }
}
