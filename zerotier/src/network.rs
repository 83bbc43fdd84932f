//! A network as its controller keeps it, in one shape for both kinds of controllers.
//!
//! What decides something is read strictly; what only informs is left out when it makes no sense.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{ids::NetworkId, lenient};

/// What a controller gives a network that was told nothing else.
const MTU: u32 = 2800;
/// The same for how many members hear a multicast packet.
const MULTICAST_LIMIT: u32 = 32;

/// A network as its controller keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Record")]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// Whether members need authorization; a public network admits everybody who asks.
    pub private: bool,
    /// Counts the changes that were saved; 0 where the controller does not say.
    pub revision: u64,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// The routes of the network; addresses are only assigned inside one of them.
    pub routes: Vec<Route>,
    /// The ranges that addresses are taken from.
    pub pools: Vec<Pool>,
    /// Whether members get IPv4 addresses from the pools.
    pub v4_assign: bool,
    /// Which IPv6 addresses members get.
    pub v6_assign: V6Assign,
    /// The name servers that members may use.
    pub dns: Dns,
    /// The largest packet on the network, in bytes.
    pub mtu: u32,
    /// How many members hear a multicast packet.
    pub multicast_limit: u32,
    /// Whether broadcast packets travel.
    pub broadcast: bool,
    /// The flow rules, in the controller's own words.
    pub rules: Vec<Value>,
    /// The tags that rules refer to.
    pub tags: Vec<Value>,
    /// The capabilities that rules refer to.
    pub capabilities: Vec<Value>,
}

/// Which IPv6 addresses the members of a network get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct V6Assign {
    /// RFC4193 addresses, which follow from the ids.
    pub rfc4193: bool,
    /// 6PLANE addresses, which follow from the ids.
    #[serde(rename = "6plane")]
    pub sixplane: bool,
    /// Addresses from the pools.
    pub zt: bool,
}

/// A route of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `address/prefix`.
    pub target: IpNet,
    /// The gateway; none for the network's own range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The first address.
    pub start: IpAddr,
    /// The last address, which is never assigned.
    pub end: IpAddr,
}

/// The name servers of a network.
///
/// A controller keeps whatever text it was sent, so these are texts too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// The domain whose names are asked for there.
    #[serde(default)]
    pub domain: String,
    /// The servers' addresses, the first one first.
    #[serde(default)]
    pub servers: Vec<String>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.target)?;
        match self.via {
            Some(via) => write!(f, " via {via}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

impl fmt::Display for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("none");
        }
        write!(f, "{} at {}", self.domain, self.servers.join(", "))
    }
}

/// The record that controllers answer with, field by field as they name them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    id: NetworkId,
    #[serde(default, deserialize_with = "lenient::or_default")]
    name: String,
    private: bool,
    #[serde(default, deserialize_with = "lenient::or_default")]
    revision: u64,
    #[serde(default, deserialize_with = "lenient::or_default")]
    creation_time: u64,
    #[serde(default)]
    routes: Option<Vec<RouteRecord>>,
    #[serde(default)]
    ip_assignment_pools: Option<Vec<PoolRecord>>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    v4_assign_mode: V4Record,
    #[serde(default, deserialize_with = "lenient::or_default")]
    v6_assign_mode: V6Assign,
    #[serde(default, deserialize_with = "dns")]
    dns: Dns,
    #[serde(default)]
    mtu: Option<u32>,
    #[serde(default)]
    multicast_limit: Option<u32>,
    #[serde(default)]
    enable_broadcast: Option<bool>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    rules: Vec<Value>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    tags: Vec<Value>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    capabilities: Vec<Value>,
}

#[derive(Deserialize)]
struct RouteRecord {
    target: IpNet,
    #[serde(default)]
    via: Option<IpAddr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PoolRecord {
    ip_range_start: IpAddr,
    ip_range_end: IpAddr,
}

#[derive(Default, Deserialize)]
struct V4Record {
    zt: bool,
}

impl From<Record> for Network {
    fn from(record: Record) -> Self {
        let route = |RouteRecord { target, via }| Route { target, via };
        let pool = |pool: PoolRecord| Pool {
            start: pool.ip_range_start,
            end: pool.ip_range_end,
        };
        Self {
            id: record.id,
            name: record.name,
            private: record.private,
            revision: record.revision,
            created: record.creation_time,
            routes: record.routes.into_iter().flatten().map(route).collect(),
            pools: record
                .ip_assignment_pools
                .into_iter()
                .flatten()
                .map(pool)
                .collect(),
            v4_assign: record.v4_assign_mode.zt,
            v6_assign: record.v6_assign_mode,
            dns: record.dns,
            mtu: record.mtu.unwrap_or(MTU),
            multicast_limit: record.multicast_limit.unwrap_or(MULTICAST_LIMIT),
            broadcast: record.enable_broadcast.unwrap_or(true),
            rules: record.rules,
            tags: record.tags,
            capabilities: record.capabilities,
        }
    }
}

/// Reads the name servers, which are a list until they are set, then an object with whatever somebody put there.
fn dns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Dns, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let domain = match value.get("domain") {
        None | Some(Value::Null) => String::new(),
        Some(domain) => text(domain),
    };
    let servers = value.get("servers").and_then(Value::as_array);
    Ok(Dns {
        domain,
        servers: servers.into_iter().flatten().map(text).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_network_is_read_before_and_after_its_untyped_fields_were_set() {
        for (dns, read) in [
            (json!([]), "none"),
            (json!({"domain": "", "servers": []}), "none"),
            (
                json!({"domain": "lab.example", "servers": ["10.147.20.53"]}),
                "lab.example at 10.147.20.53",
            ),
            (json!({"domain": null, "servers": ["x", 7]}), " at x, 7"),
        ] {
            let network: Network = serde_json::from_value(json!({
                "id": "5350d87547c880cb", "private": true, "authTokens": [null], "dns": dns,
                "routes": [{"target": "10.147.20.0/24", "via": null}],
            }))
            .unwrap();
            assert_eq!(network.routes[0].via, None);
            assert_eq!((network.mtu, network.multicast_limit), (MTU, MULTICAST_LIMIT));
            assert_eq!(network.dns.to_string(), read);
        }
    }

    #[test]
    fn a_route_that_makes_no_sense_is_not_taken_for_none() {
        let record =
            json!({"id": "5350d87547c880cb", "private": true, "routes": [{"target": "10.147.20/24"}]});
        assert!(serde_json::from_value::<Network>(record).is_err());
    }
}
