//! A member of a network as its controller keeps it, and what can be changed about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    ids::{NetworkId, NodeId},
    lenient,
};

/// A member of a network as the controller keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// The network.
    #[serde(rename = "nwid")]
    pub network: NetworkId,
    /// Whether it may be on the network.
    pub authorized: bool,
    /// The identity it showed at first contact; none while it has never asked.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub identity: Option<String>,
    /// A name that somebody gave it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub name: Option<String>,
    /// The addresses assigned to it; they come when it asks, not when it is authorized.
    #[serde(default, rename = "ipAssignments", deserialize_with = "lenient::or_default")]
    pub addresses: Vec<String>,
    /// Counts the saved changes; starts again at 1 after a delete.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub revision: u64,
    /// When it was first seen or created, in milliseconds since 1970.
    #[serde(default, rename = "creationTime", deserialize_with = "lenient::or_default")]
    pub created: u64,
    /// When it was last authorized, in milliseconds since 1970; 0 for never.
    #[serde(
        default,
        rename = "lastAuthorizedTime",
        deserialize_with = "lenient::or_default"
    )]
    pub last_authorized: u64,
    /// When it was last deauthorized, in milliseconds since 1970; 0 for never.
    #[serde(
        default,
        rename = "lastDeauthorizedTime",
        deserialize_with = "lenient::or_default"
    )]
    pub last_deauthorized: u64,
    /// When it last asked, in milliseconds since 1970. Only Central knows.
    #[serde(default, rename = "lastSeen", deserialize_with = "lenient::or_default")]
    pub last_seen: Option<u64>,
}

/// The members of a network, and what could not be read among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// The members by node.
    pub by_node: BTreeMap<NodeId, Member>,
    /// One sentence for each record that makes no sense.
    pub skipped: Vec<String>,
}

/// What is to change about a member; what is none stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// Whether it may be on the network.
    pub authorized: Option<bool>,
    /// Its name.
    pub name: Option<String>,
    /// All its addresses, without a prefix length; those it has and that are not named go.
    pub addresses: Option<Vec<String>>,
}

impl Member {
    /// Returns whether the node has ever asked: from then on another node cannot take its id.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.identity.is_some()
    }
}

impl Members {
    /// Reads the records of a network's members.
    #[must_use]
    pub fn read(network: NetworkId, records: Vec<Value>) -> Self {
        let mut members = Self::default();
        for record in records {
            let name = record
                .get("id")
                .map_or_else(|| "a member without an id".to_owned(), Value::to_string);
            match serde_json::from_value::<Member>(record) {
                Ok(member) if member.network == network => {
                    members.by_node.insert(member.id, member);
                }
                Ok(member) => members
                    .skipped
                    .push(format!("{name} is of network {}", member.network)),
                Err(error) => members.skipped.push(format!("{name}: {error}")),
            }
        }
        members
    }
}

impl MemberChange {
    /// Returns the change that admits a member, or takes that away.
    #[must_use]
    pub fn authorized(authorized: bool) -> Self {
        Self {
            authorized: Some(authorized),
            ..Self::default()
        }
    }

    /// Returns whether a member is as this change makes it.
    #[must_use]
    pub fn holds_in(&self, member: &Member) -> bool {
        self.authorized.is_none_or(|want| want == member.authorized)
            && self
                .name
                .as_deref()
                .is_none_or(|want| want == member.name.as_deref().unwrap_or_default())
            && self
                .addresses
                .as_deref()
                .is_none_or(|want| plain(want) == plain(&member.addresses))
    }

    /// Returns the fields of a member's record that change it so.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        if let Some(authorized) = self.authorized {
            fields.insert("authorized".into(), authorized.into());
        }
        if let Some(name) = &self.name {
            fields.insert("name".into(), name.as_str().into());
        }
        if let Some(addresses) = &self.addresses {
            fields.insert("ipAssignments".into(), addresses.clone().into());
        }
        fields
    }

    /// Returns the part of a member that this change is about, in the words of the change.
    #[must_use]
    pub fn of(&self, member: &Member) -> Self {
        Self {
            authorized: self.authorized.map(|_| member.authorized),
            name: self
                .name
                .as_ref()
                .map(|_| member.name.clone().unwrap_or_default()),
            addresses: self.addresses.as_ref().map(|_| member.addresses.clone()),
        }
    }
}

impl fmt::Display for MemberChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match self.authorized {
            Some(true) => parts.push("authorized".to_owned()),
            Some(false) => parts.push("not authorized".to_owned()),
            None => {}
        }
        if let Some(name) = &self.name {
            parts.push(format!("named `{name}`"));
        }
        match self.addresses.as_deref() {
            Some([]) => parts.push("without addresses".to_owned()),
            Some(addresses) => parts.push(format!("at {}", addresses.join(", "))),
            None => {}
        }
        if parts.is_empty() {
            parts.push("as it is".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}

/// Addresses in one spelling, whatever their order.
fn plain(addresses: &[String]) -> BTreeSet<String> {
    let plain = |text: &String| {
        text.parse::<IpAddr>()
            .map_or_else(|_| text.clone(), |ip| ip.to_string())
    };
    addresses.iter().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_record_that_makes_no_sense_is_named_and_does_not_hide_the_others() {
        let network: NetworkId = "5350d87547c880cb".parse().unwrap();
        let members = Members::read(
            network,
            vec![
                json!({"id": "39966434ba", "nwid": "5350d87547c880cb", "authorized": "yes"}),
                json!({"id": "ABCDEF0123", "nwid": "5350D87547C880CB", "authorized": true}),
                json!({"id": "68c19b4c83", "nwid": "5350d87547000001", "authorized": true}),
            ],
        );
        assert_eq!(
            members
                .by_node
                .keys()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["abcdef0123"]
        );
        assert_eq!(members.skipped.len(), 2);
        assert!(members.skipped[0].contains("39966434ba"));
    }

    #[test]
    fn a_change_says_only_what_it_is_about() {
        let member: Member = serde_json::from_value(json!({
            "id": "39966434ba", "nwid": "5350d87547c880cb", "authorized": true, "name": "pump",
            "ipAssignments": ["fd00:0::7", "10.0.0.7"],
        }))
        .unwrap();
        let nothing = MemberChange::default();
        assert!(nothing.holds_in(&member) && nothing.to_json().is_empty());
        assert_eq!(nothing.to_string(), "as it is");
        let addresses = MemberChange {
            addresses: Some(vec!["10.0.0.7".into(), "fd00::7".into()]),
            ..nothing
        };
        assert!(addresses.holds_in(&member));
        let other = MemberChange {
            authorized: Some(false),
            name: Some("pump".into()),
            addresses: Some(Vec::new()),
        };
        assert!(!other.holds_in(&member));
        assert_eq!(
            other.to_string(),
            "not authorized, named `pump`, without addresses"
        );
        assert_eq!(
            other.of(&member).to_string(),
            "authorized, named `pump`, at fd00:0::7, 10.0.0.7"
        );
    }
}
