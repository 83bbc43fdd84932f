//! What is kept of networks and of who may be on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::Timestamp;
use picket_proto::{
    form::Form,
    host::{HostId, Labels, Name},
    rules::Unknown,
    stay::Join,
};
use picket_zerotier::{
    ids::{NetworkId, NodeId},
    settings::NetworkSettings,
};
use serde::{Deserialize, Serialize};

use super::{HostRecord, Record, Revocation, key};
use crate::store::Key;

/// How far Picket goes on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Watched, nothing is changed.
    Observe,
    /// Repaired.
    Enforce,
    /// Nobody is on it any more, and its controller is to forget it.
    Deleting,
    /// It is gone, or watched no longer.
    Gone,
}

/// What governs a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Governor {
    /// The ZeroTier service on a host; its agent applies.
    Host(HostId),
    /// ZeroTier Central; the master calls it.
    Central(InCentral),
}

/// Stands for ZeroTier Central.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum InCentral {
    /// The account that `master.toml` gives the token of.
    #[serde(rename = "central")]
    Account,
}

impl Governor {
    /// ZeroTier Central.
    pub const CENTRAL: Self = Self::Central(InCentral::Account);

    /// The host, unless it is Central.
    #[must_use]
    pub fn host(self) -> Option<HostId> {
        match self {
            Self::Host(host) => Some(host),
            Self::Central(_) => None,
        }
    }
}

/// An external node that a settings file admits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedNode {
    /// What it is called.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The addresses it is to have.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<IpAddr>,
    /// Since when it is named. A revocation from before then holds no more.
    #[serde(default)]
    pub since: Timestamp,
}

/// A ZeroTier network that Picket watches over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Its id.
    pub id: NetworkId,
    /// How far Picket goes.
    pub mode: NetworkMode,
    /// What runs it.
    pub controller: Governor,
    /// When it was adopted or made.
    pub adopted_at: Timestamp,
    /// Picket made it, and makes it again where it is missing.
    #[serde(default)]
    pub made: bool,
    /// What is managed of its settings.
    #[serde(default)]
    pub settings: NetworkSettings,
    /// Hosts with all of these labels are members.
    #[serde(default)]
    pub member_labels: Labels,
    /// External nodes that are members.
    #[serde(default)]
    pub allow: BTreeMap<NodeId, AllowedNode>,
    /// How many approvals a request needs.
    #[serde(default)]
    pub approvals: u8,
    /// Who may approve; everybody with the role when empty.
    #[serde(default)]
    pub approvers: BTreeSet<String>,
    /// What becomes of members that nobody registered.
    #[serde(default)]
    pub unknown: Unknown,
    /// How long activations last, and requests wait.
    #[serde(default)]
    pub spans: Spans,
    /// How members that are hosts are on it.
    #[serde(default)]
    pub join: Join,
    /// Whether other members witness that a killed one is silent.
    #[serde(default)]
    pub witnesses: bool,
    /// Counts the times that held-back repairs were let through.
    #[serde(default)]
    pub resumed: u64,
    /// Of one that is gone: its controller was seen to have it no more. Of one that was forgotten nobody knows.
    #[serde(default)]
    pub deleted: bool,
}

/// How long activations last, and requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spans {
    /// An activation that says nothing else.
    pub activation: Duration,
    /// The longest activation.
    pub most_activation: Duration,
    /// A request that nobody decides.
    pub request: Duration,
}

impl Default for Spans {
    fn default() -> Self {
        let form = Form::default();
        Self {
            activation: form.default_activation,
            most_activation: form.most_activation,
            request: form.request_expiry,
        }
    }
}

impl NetworkRecord {
    /// A network as it is first watched: nothing of it is managed but its members.
    #[must_use]
    pub fn watched(id: NetworkId, controller: Governor, at: Timestamp) -> Self {
        Self {
            id,
            mode: NetworkMode::Observe,
            controller,
            adopted_at: at,
            made: false,
            settings: NetworkSettings::default(),
            member_labels: Labels::default(),
            allow: BTreeMap::new(),
            approvals: 0,
            approvers: BTreeSet::new(),
            unknown: Unknown::default(),
            spans: Spans::default(),
            join: Join::default(),
            witnesses: false,
            resumed: 0,
            deleted: false,
        }
    }

    /// Whether a host is a member by its labels.
    #[must_use]
    pub fn takes_labels_of(&self, host: &HostRecord) -> bool {
        self.member_labels.iter().next().is_some() && host.labels.include(&self.member_labels)
    }

    /// Whether something that was decided then was decided of this network, and not of one of the same id that ended before.
    #[must_use]
    pub fn knows(&self, decided: Timestamp) -> bool {
        decided >= self.adopted_at
    }

    /// Whether its members are what the grants say: repairs have begun, and go on until it is gone.
    #[must_use]
    pub fn is_governed(&self) -> bool {
        match self.mode {
            NetworkMode::Enforce | NetworkMode::Deleting => true,
            NetworkMode::Observe | NetworkMode::Gone => false,
        }
    }
}

/// What an operator decided of a node on a network. Revoking keeps the record: a later look still says why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// Where.
    pub network: NetworkId,
    /// Who.
    pub node: NodeId,
    /// Whether it stands.
    pub admitted: bool,
    /// The node may only be activated for a time.
    #[serde(default)]
    pub for_activation: bool,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// A permission that ends by itself. The one that was started last is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationRecord {
    /// Where.
    pub network: NetworkId,
    /// Who.
    pub node: NodeId,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was started.
    pub at: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// It is over.
    #[serde(default)]
    pub ended: Option<Revocation>,
}

impl ActivationRecord {
    /// Whether it goes on.
    #[must_use]
    pub fn is_on(&self, now: Timestamp) -> bool {
        self.ended.is_none() && now < self.until
    }

    /// When it ended, or came to its end; `now` at the latest.
    #[must_use]
    pub fn end(&self, now: Timestamp) -> Timestamp {
        let cut = self
            .ended
            .as_ref()
            .map_or(self.until, |ended| ended.at.min(self.until));
        cut.min(now)
    }

    /// Who ended it before its time.
    #[must_use]
    pub fn ended_by(&self) -> Option<&str> {
        let ended = self.ended.as_ref().filter(|ended| ended.at < self.until)?;
        Some(&ended.by)
    }
}

/// Somebody's wish that a node be on a network. The last one is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Where.
    pub network: NetworkId,
    /// Who.
    pub node: NodeId,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// When it is too late to decide.
    pub expires_at: Timestamp,
    /// Who approved so far.
    #[serde(default)]
    pub approvals: Vec<Revocation>,
    /// One of them said that the node may only be activated for a time.
    #[serde(default)]
    pub for_activation: bool,
    /// Where it stands.
    pub state: RequestState,
    /// Who denied or cancelled it.
    #[serde(default)]
    pub ended: Option<Revocation>,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// It waits.
    Pending,
    /// It was granted.
    Approved,
    /// It was turned down.
    Denied,
    /// It was taken back.
    Cancelled,
    /// Nobody decided in time.
    Expired,
}

/// A person's ZeroTier node. Removing keeps the record: the node is denied, and remembered when it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredRecord {
    /// The node.
    pub node: NodeId,
    /// Unique among those that stand.
    pub name: Name,
    /// The operator whose it is.
    pub owner: String,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// It was removed.
    #[serde(default)]
    pub removed: Option<Revocation>,
}

/// What is killed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "scope", content = "subject", rename_all = "lowercase")]
pub enum KillScope {
    /// A node, on every network.
    Node(NodeId),
    /// A host: its nodes, and itself.
    Host(HostId),
    /// Everybody on a network.
    Network(NetworkId),
    /// Every node of a person.
    Owner(String),
    /// Everybody on every network.
    All,
}

/// A prohibition that beats every permission, until it is lifted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillRecord {
    /// 8 characters; also a part of the key.
    pub id: String,
    /// What.
    pub scope: KillScope,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// The host was banned by it, so that lifting it lets the host in again.
    #[serde(default)]
    pub banned: bool,
    /// It holds no more.
    #[serde(default)]
    pub lifted: Option<Revocation>,
}

/// A moon of our own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoonRecord {
    /// The host whose node is its root.
    pub host: HostId,
    /// The node.
    pub node: NodeId,
    /// Where the node can always be reached.
    pub endpoints: BTreeSet<SocketAddr>,
    /// When it was made.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// The definition that its root signed, in hexadecimal; empty until there is one.
    #[serde(default)]
    pub definition: String,
    /// When that came.
    #[serde(default)]
    pub signed_at: Option<Timestamp>,
    /// It is no more.
    #[serde(default)]
    pub removed: Option<Revocation>,
}

impl Record for NetworkRecord {
    fn key(&self) -> Key {
        key::network(self.id)
    }
}

impl Record for GrantRecord {
    fn key(&self) -> Key {
        key::grant(self.network, self.node)
    }
}

impl Record for ActivationRecord {
    fn key(&self) -> Key {
        key::activation(self.network, self.node)
    }
}

impl Record for RequestRecord {
    fn key(&self) -> Key {
        key::request(self.network, self.node)
    }
}

impl Record for RegisteredRecord {
    fn key(&self) -> Key {
        key::registered(self.node)
    }
}

impl Record for KillRecord {
    fn key(&self) -> Key {
        key::kill(&self.id)
    }
}

impl Record for MoonRecord {
    fn key(&self) -> Key {
        key::moon(self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_before_there_were_settings_is_read_with_nothing_managed() {
        let older = r#"{"id":"5350d87547c880cb","mode":"enforce","controller":"6f1c2a52-9c1f-4f3e-8a77-0c7a5f1e2d3b",
            "adopted_at":"2026-11-22T20:05:28Z"}"#;
        let id: NetworkId = "5350d87547c880cb".parse().unwrap();
        let read = NetworkRecord::read(&key::network(id), older.as_bytes()).unwrap();
        let host = "6f1c2a52-9c1f-4f3e-8a77-0c7a5f1e2d3b".parse().unwrap();
        let mut want = NetworkRecord::watched(id, Governor::Host(host), read.adopted_at);
        want.mode = NetworkMode::Enforce;
        assert_eq!(read, want);
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let id: NetworkId = "5350d87547c880cb".parse().unwrap();
        let network = NetworkRecord::watched(id, Governor::CENTRAL, Timestamp::UNIX_EPOCH);
        let value = serde_json::to_vec(&network).unwrap();
        assert_eq!(NetworkRecord::read(&network.key(), &value).unwrap(), network);
        for scope in [
            KillScope::All,
            KillScope::Network(id),
            KillScope::Owner("ana".into()),
        ] {
            let kill = KillRecord {
                id: "k3v9x2mq".into(),
                scope,
                by: "ada".into(),
                reason: "a leak".into(),
                at: Timestamp::UNIX_EPOCH,
                banned: false,
                lifted: None,
            };
            let value = serde_json::to_vec(&kill).unwrap();
            assert_eq!(KillRecord::read(&kill.key(), &value).unwrap(), kill);
        }
    }
}
