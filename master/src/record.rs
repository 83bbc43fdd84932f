//! What the store keeps: one record for each host, operator, network, grant and deployment, as JSON under its key.
//!
//! Records only grow fields; a missing one has its default, so that an older journal reads on.

pub mod network;

use std::collections::BTreeMap;

use jiff::Timestamp;
use picket_pki::Fingerprint;
use picket_proto::{
    host::{HostId, Labels, Name},
    site::Site,
};
use picket_zerotier::{
    identity::PublicIdentity,
    ids::{NetworkId, NodeId},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    node::{Kept, NodeStanding},
    store::{Entry, Key, Write},
};

/// The most spent pins kept of one host. They matter until their certificates expire, a week each.
pub const MOST_SPENT: usize = 32;

/// The most nodes kept that a host was believed to be. Each change takes an operator, or a proof that another one's lacks.
pub const MOST_FORMER: usize = 16;

/// The master itself; written by `init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterRecord {
    /// The trust domain of every identity.
    pub trust_domain: String,
    /// The DNS names and addresses in the master's own certificate.
    pub names: Vec<String>,
    /// `host:port` of the agents' listener, as bundles say it.
    pub addresses: Vec<String>,
    /// `host:port` of the admin listener, as admin bundles say it.
    pub admin_addresses: Vec<String>,
    /// SHA-256 of the CA's certificate: a store belongs to one CA.
    #[serde(default)]
    pub authority: Option<Fingerprint>,
    /// When.
    pub created_at: Timestamp,
}

/// A worker machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// For life.
    pub id: HostId,
    /// Unique among hosts that are not retired.
    pub name: Name,
    /// What operators sort it by.
    #[serde(default)]
    pub labels: Labels,
    /// What operators write of it.
    #[serde(default)]
    pub note: String,
    /// When.
    pub enrolled_at: Timestamp,
    /// Whether it may come in.
    pub standing: HostStanding,
    /// What it may come in with.
    pub pins: Pins,
    /// The ZeroTier node it is believed to be.
    #[serde(default)]
    pub node: Option<NodeId>,
    /// Why it is believed.
    #[serde(default)]
    pub node_standing: NodeStanding,
    /// The identity it proved that by.
    #[serde(default)]
    pub node_identity: Option<PublicIdentity>,
    /// The nodes it was believed to be before, newest last. They are on no network by its labels any more.
    #[serde(default)]
    pub former_nodes: Vec<NodeId>,
}

impl HostRecord {
    /// The node that is believed, and why.
    #[must_use]
    pub fn kept_node(&self) -> Option<Kept> {
        self.node.map(|node| Kept {
            node,
            standing: self.node_standing,
            identity: self.node_identity,
        })
    }

    /// Believes that the host is this node.
    pub fn believe(&mut self, node: NodeId, standing: NodeStanding, identity: Option<PublicIdentity>) {
        if self.node != Some(node) {
            self.forget_node();
            self.former_nodes.retain(|former| *former != node);
        }
        (self.node, self.node_standing, self.node_identity) = (Some(node), standing, identity);
    }

    /// Believes nothing of the host's node.
    pub fn forget_node(&mut self) {
        if let Some(node) = self.node {
            self.former_nodes.push(node);
            let surplus = self.former_nodes.len().saturating_sub(MOST_FORMER);
            self.former_nodes.drain(..surplus);
        }
        (self.node, self.node_standing, self.node_identity) = (None, NodeStanding::default(), None);
    }
}

/// Whether a host may come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum HostStanding {
    /// It may.
    Active,
    /// Cut off, the record is kept.
    Banned {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// Gone for good; its name is free.
    Retired {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
}

/// The pins of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// Of the certificate in the bundle; may only renew.
    #[serde(default)]
    pub bundle: Option<Pin>,
    /// Of the certificate in use.
    #[serde(default)]
    pub current: Option<Pin>,
    /// Of a certificate that was issued and not yet used.
    #[serde(default)]
    pub pending: Option<Pin>,
    /// Dropped ones, newest last.
    #[serde(default)]
    pub spent: Vec<Fingerprint>,
    /// The keys of bundles that were dropped, newest last: what came from outside once enrolls no other host.
    #[serde(default)]
    pub bundle_keys: Vec<Fingerprint>,
}

/// One accepted certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 of its public key: the same key always gets the same certificate back.
    pub key: Fingerprint,
    /// Its end.
    pub not_after: Timestamp,
    /// The certificate, in hexadecimal DER; empty for the bundle's.
    #[serde(default)]
    pub certificate: String,
    /// Where the call that asked for it came from.
    #[serde(default)]
    pub from: String,
}

/// What an operator may do: `access.rs` says it of every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperatorRole {
    /// Asks for what is its own.
    Requester,
    /// Looks at everything.
    Viewer,
    /// Does the work of a day: hosts, networks, members, deployments.
    Operator,
    /// Everything, other operators too.
    Admin,
}

impl OperatorRole {
    /// All of them, the one that may least in front.
    pub const ALL: [Self; 4] = [Self::Requester, Self::Viewer, Self::Operator, Self::Admin];

    /// The role in one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Requester => "requester",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Display for OperatorRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// Someone who may use the admin API. A revoked one is kept, so that its certificates are refused with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredOperator")]
pub struct OperatorRecord {
    /// As the certificate says.
    pub name: String,
    /// What it may do.
    pub role: OperatorRole,
    /// Where it works, each with a certificate of its own.
    pub devices: Vec<DeviceRecord>,
    /// It was cut off, with all of its devices.
    pub revoked: Option<Revocation>,
    /// When it was added.
    pub added_at: Option<Timestamp>,
    /// By whom.
    pub added_by: String,
    /// Certificates that have been replaced, newest last.
    pub spent: Vec<Fingerprint>,
    /// Certificates of devices that were revoked and are not on the list any more, newest last.
    pub cut: Vec<Fingerprint>,
}

/// One device of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Unique among the operator's.
    pub name: Name,
    /// The certificate in use.
    pub current: Pin,
    /// One that was issued and not yet used.
    #[serde(default)]
    pub pending: Option<Pin>,
    /// When the one in use was issued.
    #[serde(default)]
    pub issued_at: Option<Timestamp>,
    /// It was cut off.
    #[serde(default)]
    pub revoked: Option<Revocation>,
}

impl DeviceRecord {
    /// Stands for the end of a certificate that was pinned before ends were kept.
    pub const END_NOT_KEPT: Timestamp = Timestamp::UNIX_EPOCH;
}

/// When, by whom and why an operator or a device was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// An operator as any version wrote it.
#[derive(Deserialize)]
struct StoredOperator {
    name: String,
    /// There were no roles at first, and everybody was an admin.
    #[serde(default = "admin")]
    role: OperatorRole,
    #[serde(default)]
    devices: Vec<DeviceRecord>,
    #[serde(default)]
    revoked: Option<Revocation>,
    #[serde(default)]
    added_at: Option<Timestamp>,
    #[serde(default)]
    added_by: String,
    #[serde(default)]
    spent: Vec<Fingerprint>,
    #[serde(default)]
    cut: Vec<Fingerprint>,
    /// Nor devices: certificates were all there was, newest last.
    #[serde(default)]
    pins: Vec<Fingerprint>,
}

fn admin() -> OperatorRole {
    OperatorRole::Admin
}

impl From<StoredOperator> for OperatorRecord {
    fn from(stored: StoredOperator) -> Self {
        let mut devices = stored.devices;
        devices.extend(stored.pins.into_iter().map(device_of_before));
        Self {
            name: stored.name,
            role: stored.role,
            devices,
            revoked: stored.revoked,
            added_at: stored.added_at,
            added_by: stored.added_by,
            spent: stored.spent,
            cut: stored.cut,
        }
    }
}

fn device_of_before(fingerprint: Fingerprint) -> DeviceRecord {
    let digits = fingerprint.to_string();
    let name = format!("older-{}", &digits[..12]);
    DeviceRecord {
        name: name.parse().expect("hexadecimal digits stand in a name"),
        current: Pin {
            fingerprint,
            // Its key was not kept, and no key has this digest.
            key: fingerprint,
            not_after: DeviceRecord::END_NOT_KEPT,
            certificate: String::new(),
            from: String::new(),
        },
        pending: None,
        issued_at: None,
        revoked: None,
    }
}

/// A deployment. Removing keeps the record, so that the revision never goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRecord {
    /// Unique.
    pub name: Name,
    /// Counts applies that changed something.
    pub revision: u64,
    /// What is wanted; none when it was removed.
    pub site: Option<Site>,
    /// The hosts the site names, by the id they had when it was applied.
    pub hosts: BTreeMap<Name, HostId>,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
}

/// The last time that an operator took the machine's clock for right after it had jumped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRecord {
    /// What the master went by until then.
    pub was: Timestamp,
    /// What the machine's clock said.
    pub machine: Timestamp,
    /// Whether the master's time went back to that.
    pub went_back: bool,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A value in the store that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the store's {key} cannot be read; run `picket-master verify` and see docs/operation.md")]
pub struct RecordError {
    key: String,
    #[source]
    cause: serde_json::Error,
}

/// A record that has a key of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// Where it is kept.
    fn key(&self) -> Key;

    /// The write that keeps it.
    fn put(&self) -> Write {
        Write::Put(
            self.key(),
            serde_json::to_vec(self).expect("records have only keys that are text"),
        )
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When the value is no such record.
    fn read(key: &Key, value: &[u8]) -> Result<Self, RecordError> {
        serde_json::from_slice(value).map_err(|cause| RecordError {
            key: key.to_string(),
            cause,
        })
    }

    /// Reads an entry back.
    ///
    /// # Errors
    /// When the value is no such record.
    fn of(entry: &Entry) -> Result<Self, RecordError> {
        Self::read(&entry.key, &entry.value)
    }
}

/// Keys, by what they hold.
pub mod key {
    use super::{HostId, Key, Name, NetworkId, NodeId};

    /// Every host, `host/<uuid>`.
    pub const HOSTS: &str = "host/";
    /// Every name in use, `name/<name>` → the host's id.
    pub const NAMES: &str = "name/";
    /// Every operator, `operator/<name>`.
    pub const OPERATORS: &str = "operator/";
    /// Every network, `network/<id>`.
    pub const NETWORKS: &str = "network/";
    /// Every grant, `grant/<network>/<node>`.
    pub const GRANTS: &str = "grant/";
    /// Every activation that was started last, `activation/<network>/<node>`.
    pub const ACTIVATIONS: &str = "activation/";
    /// Every request that was made last, `request/<network>/<node>`.
    pub const REQUESTS: &str = "request/";
    /// Every person's node, `device/<node>`.
    pub const REGISTERED: &str = "device/";
    /// Every kill, `kill/<id>`.
    pub const KILLS: &str = "kill/";
    /// Every moon, `moon/<node>`.
    pub const MOONS: &str = "moon/";
    /// Every deployment, `deployment/<name>`.
    pub const DEPLOYMENTS: &str = "deployment/";

    fn key(text: String) -> Key {
        Key::new(text).expect("ids and names are printable and short")
    }

    /// The master's own record.
    #[must_use]
    pub fn master() -> Key {
        key("master".to_owned())
    }

    /// The clock that was accepted last.
    #[must_use]
    pub fn clock() -> Key {
        key("clock".to_owned())
    }

    /// A host's.
    #[must_use]
    pub fn host(id: HostId) -> Key {
        key(format!("{HOSTS}{id}"))
    }

    /// The claim on a host's name.
    #[must_use]
    pub fn name(name: &Name) -> Key {
        key(format!("{NAMES}{name}"))
    }

    /// An operator's.
    #[must_use]
    pub fn operator(name: &str) -> Key {
        key(format!("{OPERATORS}{name}"))
    }

    /// A network's.
    #[must_use]
    pub fn network(id: NetworkId) -> Key {
        key(format!("{NETWORKS}{id}"))
    }

    /// A grant's.
    #[must_use]
    pub fn grant(network: NetworkId, node: NodeId) -> Key {
        key(format!("{GRANTS}{network}/{node}"))
    }

    /// An activation's.
    #[must_use]
    pub fn activation(network: NetworkId, node: NodeId) -> Key {
        key(format!("{ACTIVATIONS}{network}/{node}"))
    }

    /// A request's.
    #[must_use]
    pub fn request(network: NetworkId, node: NodeId) -> Key {
        key(format!("{REQUESTS}{network}/{node}"))
    }

    /// A person's node's.
    #[must_use]
    pub fn registered(node: NodeId) -> Key {
        key(format!("{REGISTERED}{node}"))
    }

    /// A kill's.
    #[must_use]
    pub fn kill(id: &str) -> Key {
        key(format!("{KILLS}{id}"))
    }

    /// A moon's.
    #[must_use]
    pub fn moon(node: NodeId) -> Key {
        key(format!("{MOONS}{node}"))
    }

    /// A deployment's.
    #[must_use]
    pub fn deployment(name: &Name) -> Key {
        key(format!("{DEPLOYMENTS}{name}"))
    }
}

impl Record for MasterRecord {
    fn key(&self) -> Key {
        key::master()
    }
}

impl Record for ClockRecord {
    fn key(&self) -> Key {
        key::clock()
    }
}

impl Record for HostRecord {
    fn key(&self) -> Key {
        key::host(self.id)
    }
}

impl Record for OperatorRecord {
    fn key(&self) -> Key {
        key::operator(&self.name)
    }
}

impl Record for DeploymentRecord {
    fn key(&self) -> Key {
        key::deployment(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_of_before_there_were_roles_is_an_admin_with_a_device_for_each_certificate() {
        let pins = [Fingerprint::of(b"one"), Fingerprint::of(b"two")];
        let older = format!(r#"{{"name":"admin","pins":["{}","{}"]}}"#, pins[0], pins[1]);
        let read = OperatorRecord::read(&key::operator("admin"), older.as_bytes()).unwrap();
        assert_eq!(read.role, OperatorRole::Admin);
        let kept: Vec<_> = read
            .devices
            .iter()
            .map(|device| device.current.fingerprint)
            .collect();
        assert_eq!(kept, pins);
        let Write::Put(at, value) = read.put() else {
            panic!("a record is put")
        };
        assert_eq!(OperatorRecord::read(&at, &value).unwrap(), read);
    }
}
