//! A network as its controller keeps it: records, what a POST does to them, and what a member that asks is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    coerce::{Record, Thrown, body, boolean, integer, string},
    fields::{init_member, init_network, member_field, network_field},
    pool,
};
use crate::{
    address,
    ids::{NetworkId, NodeId},
};

/// How long after its last question a member still counts as online: pushes and revocations reach it.
pub(super) const ONLINE_FOR: Duration = Duration::from_secs(120);
/// At most this many addresses go into a configuration.
const MAX_ADDRESSES: usize = 32;

/// A network and its members.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) record: Record,
    pub(super) members: BTreeMap<NodeId, Record>,
    /// Who has asked since the controller's process started. A restart empties this.
    pub(super) seen: BTreeMap<NodeId, Seen>,
}

/// A member that has asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) asked: Duration,
    /// Whether it was given a configuration since the process started: only then can it be pushed another.
    pub(super) served: bool,
}

/// What a member that asks is told.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Config(Box<Config>),
    Denied,
    NotFound,
}

/// What a member needs to be on a network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    pub(super) name: String,
    pub(super) revision: u64,
    pub(super) public: bool,
    pub(super) mtu: u64,
    pub(super) broadcast: bool,
    pub(super) addresses: Vec<String>,
    pub(super) routes: Vec<Value>,
    pub(super) dns: Value,
}

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) node: NodeId,
    pub(super) identity: &'a str,
    pub(super) now: Duration,
    pub(super) wall: u64,
}

/// What a save did to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The record is as it was; nobody is told.
    None,
    /// The record changed; an authorized member is pushed its configuration.
    Saved,
    /// The member was authorized and is not: its credentials are revoked.
    Revoked,
}

impl Hosted {
    /// Creates a network from the body of a POST.
    pub(super) fn create(id: NetworkId, text: &str, wall: u64) -> Result<Self, Thrown> {
        let mut hosted = Self {
            record: Record::new(),
            members: BTreeMap::new(),
            seen: BTreeMap::new(),
        };
        hosted.post(id, text, wall)?;
        Ok(hosted)
    }

    /// Merges the body of a POST into the network; returns whether that changed anything.
    pub(super) fn post(&mut self, id: NetworkId, text: &str, wall: u64) -> Result<bool, Thrown> {
        let fields = body(text)?;
        let mut next = self.record.clone();
        init_network(&mut next, id, wall);
        for (key, value) in &fields {
            if let Some(value) = network_field(key, value) {
                next.insert(key.clone(), value);
            }
        }
        Ok(save(&mut self.record, next))
    }

    /// Merges the body of a POST into a member's record, which is created when there is none.
    ///
    /// The record keeps both ids as they were typed in the path.
    pub(super) fn post_member(
        &mut self,
        node: NodeId,
        (typed_network, typed_node): (&str, &str),
        text: &str,
        wall: u64,
    ) -> Result<Change, Thrown> {
        let fields = body(text)?;
        let old = self.members.get(&node);
        let mut next = old.cloned().unwrap_or_default();
        init_member(&mut next, wall);
        if let Some(value) = fields.get("authorized") {
            authorize(&mut next, boolean(value, false), wall);
        }
        for (key, value) in &fields {
            if let Some(value) = member_field(key, value)? {
                next.insert(key.clone(), value);
            }
        }
        next.insert("id".into(), typed_node.into());
        next.insert("address".into(), typed_node.into());
        next.insert("nwid".into(), typed_network.into());
        Ok(self.save_member(node, next))
    }

    /// Forgets a member.
    pub(super) fn delete_member(&mut self, node: NodeId) -> Option<(Record, Change)> {
        let record = self.members.remove(&node)?;
        self.seen.remove(&node);
        let change = if is_authorized(&record) {
            Change::Revoked
        } else {
            Change::Saved
        };
        Some((record, change))
    }

    /// Answers a member's question, which may create its record, teach the controller its identity and version, and
    /// assign it an address.
    pub(super) fn ask(&mut self, network: NetworkId, question: Question<'_>) -> Reply {
        let Question {
            node,
            identity,
            now,
            wall,
        } = question;
        let served = self.seen.get(&node).is_some_and(|seen| seen.served);
        let mut next = self.members.get(&node).cloned().unwrap_or_else(|| {
            let mut record = Record::new();
            for key in ["id", "address"] {
                record.insert(key.into(), node.to_string().into());
            }
            record.insert("nwid".into(), network.to_string().into());
            record
        });
        init_member(&mut next, wall);
        next.entry("identity").or_insert_with(|| identity.into());
        let public = !self.flag("private");
        if public && !is_authorized(&next) {
            authorize(&mut next, true, wall);
            next.insert("lastAuthorizedCredentialType".into(), "public".into());
        }
        if !is_authorized(&next) {
            self.save_member(node, next);
            self.seen.insert(node, Seen { asked: now, served });
            return Reply::Denied;
        }
        for (key, value) in [("vMajor", 1), ("vMinor", 14), ("vRev", 1), ("vProto", 12)] {
            next.insert(key.into(), value.into());
        }
        let addresses = self.assign(network, node, &mut next);
        self.save_member(node, next);
        self.seen.insert(
            node,
            Seen {
                asked: now,
                served: true,
            },
        );
        Reply::Config(Box::new(Config {
            name: string(&self.record["name"]),
            revision: integer(&self.record["revision"], 0),
            public,
            mtu: integer(&self.record["mtu"], 2800),
            broadcast: self.flag("enableBroadcast"),
            addresses,
            routes: self
                .array("routes")
                .iter()
                .map(|route| json!({"flags": 0, "metric": 0, "target": route["target"], "via": route["via"]}))
                .collect(),
            dns: match &self.record["dns"] {
                Value::Object(dns) => {
                    json!({
                        "domain": dns.get("domain").map(string).unwrap_or_default(),
                        "servers": dns.get("servers").cloned().unwrap_or_else(|| json!([])),
                    })
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    json!({"domain": "", "servers": []})
                }
            },
        }))
    }

    /// Returns how many members there are, and how many of them are authorized.
    pub(super) fn count(&self) -> (usize, usize) {
        (
            self.members.len(),
            self.members
                .values()
                .filter(|member| is_authorized(member))
                .count(),
        )
    }

    /// Returns the members that are authorized.
    pub(super) fn authorized(&self) -> BTreeSet<NodeId> {
        self.members
            .iter()
            .filter(|(_, member)| is_authorized(member))
            .map(|(node, _)| *node)
            .collect()
    }

    /// Returns who can be pushed a configuration now.
    pub(super) fn pushable(&self, now: Duration) -> BTreeSet<NodeId> {
        let served = self
            .seen
            .iter()
            .filter(|(_, seen)| seen.served && now - seen.asked < ONLINE_FOR);
        served
            .map(|(node, _)| *node)
            .filter(|node| self.members.get(node).is_some_and(is_authorized))
            .collect()
    }

    fn save_member(&mut self, node: NodeId, next: Record) -> Change {
        let old = self.members.entry(node).or_default();
        let was = is_authorized(old);
        if !save(old, next) {
            Change::None
        } else if was && !is_authorized(old) {
            Change::Revoked
        } else {
            Change::Saved
        }
    }

    /// Returns a member's addresses, after giving it one from a pool when it has none.
    fn assign(&self, network: NetworkId, node: NodeId, member: &mut Record) -> Vec<String> {
        let by_itself = !boolean(&member["noAutoAssignIps"], false);
        let mut addresses = Vec::new();
        let v6 = &self.record["v6AssignMode"];
        if by_itself && boolean(&v6["rfc4193"], false) {
            addresses.push(format!(
                "{}/{}",
                address::rfc4193(network, node),
                address::RFC4193_PREFIX
            ));
        }
        if by_itself && boolean(&v6["6plane"], false) {
            addresses.push(format!(
                "{}/{}",
                address::sixplane(network, node),
                address::SIXPLANE_PREFIX
            ));
        }
        let routes = pool::routes(self.array("routes"));
        let mut assigned = addresses_of(member);
        let has_v4 = assigned
            .iter()
            .any(|ip| ip.is_ipv4() && pool::prefix(&routes, *ip).is_some());
        if by_itself && !has_v4 && boolean(&self.record["v4AssignMode"]["zt"], false) {
            let taken: BTreeSet<Ipv4Addr> = self
                .members
                .values()
                .flat_map(addresses_of)
                .filter_map(|ip| match ip {
                    IpAddr::V4(ip) => Some(ip),
                    IpAddr::V6(_) => None,
                })
                .collect();
            if let Some(ip) = pool::pick(self.array("ipAssignmentPools"), &routes, &taken, node) {
                assigned.push(ip.into());
                member.insert(
                    "ipAssignments".into(),
                    assigned.iter().map(ToString::to_string).collect(),
                );
            }
        }
        let routed = assigned
            .into_iter()
            .filter_map(|ip| Some(format!("{ip}/{}", pool::prefix(&routes, ip)?)));
        addresses.extend(routed);
        addresses.truncate(MAX_ADDRESSES);
        addresses
    }

    fn flag(&self, key: &str) -> bool {
        boolean(&self.record[key], true)
    }

    fn array(&self, key: &str) -> &[Value] {
        self.record
            .get(key)
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }
}

/// Stores `next` with the next revision, unless it says what is there already.
fn save(old: &mut Record, mut next: Record) -> bool {
    if *old == next {
        return false;
    }
    let revision = old.get("revision").map_or(0, |revision| integer(revision, 0));
    next.insert("revision".into(), (revision + 1).into());
    *old = next;
    true
}

fn is_authorized(member: &Record) -> bool {
    member
        .get("authorized")
        .is_some_and(|value| boolean(value, false))
}

fn addresses_of(member: &Record) -> Vec<IpAddr> {
    let list = member.get("ipAssignments").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|ip| pool::ip(&string(ip)))
        .collect()
}

fn authorize(member: &mut Record, authorized: bool, wall: u64) {
    if is_authorized(member) == authorized {
        return;
    }
    member.insert("authorized".into(), authorized.into());
    let key = if authorized {
        "lastAuthorizedTime"
    } else {
        "lastDeauthorizedTime"
    };
    member.insert(key.into(), wall.into());
    if authorized {
        member.insert("lastAuthorizedCredentialType".into(), "api".into());
        member.insert("lastAuthorizedCredential".into(), Value::Null);
    }
}
