//! What is wanted of a network: only what is written down is managed, and the rest stays as somebody made it.
//!
//! A network is always private: one that is not admits whoever asks, and there would be nothing to govern. That is no
//! setting, and every change says so along with what it is about.

mod new;
mod rules;

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use crate::network::{Dns, Pool, Route};
pub use new::{NewNetwork, RangeError, V4Range};

use crate::network::{Network, V6Assign};

/// The longest name, and the longest domain, that members are told, in bytes.
pub const MAX_NAME: usize = 127;
/// The smallest packet size a network can have.
pub const MIN_MTU: u32 = 1280;
/// The largest packet size a network can have.
pub const MAX_MTU: u32 = 10_000;
/// The most routes that members are told.
pub const MAX_ROUTES: usize = 128;
/// The most ranges of addresses; a controller looks through all of them for each new member.
pub const MAX_POOLS: usize = 128;
/// The most name servers that members are told.
pub const MAX_SERVERS: usize = 4;
/// The most members that may hear a multicast packet, which its sender sends once to each: more is a slip of the hand.
pub const MAX_MULTICAST: u32 = 100_000;

/// What is wanted of a network. A field that is none is not managed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSettings {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// All its routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
    /// All ranges that addresses are taken from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pools: Option<Vec<Pool>>,
    /// Whether members get IPv4 addresses from the pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v4_assign: Option<bool>,
    /// Whether members get RFC4193 addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rfc4193: Option<bool>,
    /// Whether members get 6PLANE addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sixplane: Option<bool>,
    /// Whether members get IPv6 addresses from the pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zt_v6: Option<bool>,
    /// Its name servers; an empty domain without servers takes them away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Its largest packet, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// How many members hear a multicast packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multicast_limit: Option<u32>,
    /// Whether broadcast packets travel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<bool>,
    /// The flow rules, in the controller's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<Value>>,
    /// The tags that rules refer to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Value>>,
    /// The capabilities that rules refer to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Value>>,
}

/// Why a setting cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsProblem {
    /// The field, such as `routes[1]`.
    pub field: String,
    /// What is wrong with it, and what would do.
    pub sentence: String,
}

/// A field of a network that is not as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field.
    pub field: &'static str,
    /// What is wanted.
    pub want: String,
    /// What the controller has.
    pub have: String,
}

impl NetworkSettings {
    /// Returns everything that is wrong with these settings; nothing when they can be had.
    #[must_use]
    pub fn validate(&self) -> Vec<SettingsProblem> {
        let mut problems = Problems::default();
        if let Some(name) = &self.name {
            problems.text("name", name);
        }
        self.validate_addresses(&mut problems);
        if let Some(dns) = &self.dns {
            validate_dns(dns, &mut problems);
        }
        if let Some(mtu) = self.mtu.filter(|mtu| !(MIN_MTU..=MAX_MTU).contains(mtu)) {
            problems.add("mtu", format!("{mtu} is none of {MIN_MTU} to {MAX_MTU}"));
        }
        if let Some(limit) = self.multicast_limit.filter(|limit| *limit > MAX_MULTICAST) {
            problems.add("multicast_limit", format!("{limit} is over {MAX_MULTICAST}"));
        }
        for (field, items) in self.opaque() {
            for (field, sentence) in rules::problems(field, items) {
                problems.add(field, sentence);
            }
        }
        if let Some(rules) = &self.rules
            && !rules::let_through(rules, self.capabilities.as_deref().unwrap_or_default())
        {
            problems.add(
                "rules",
                "they let nothing through, and members could not reach each other; add {type: ACTION_ACCEPT}, or leave rules out"
                    .to_owned(),
            );
        }
        problems.0
    }

    /// Returns what of the settings a network does not follow. Being public is a difference too.
    #[must_use]
    pub fn differences(&self, have: &Network) -> Vec<Difference> {
        let mut seen = Differences::default();
        seen.see("private", Some(&true), &have.private, bool::to_string);
        seen.see("name", self.name.as_ref(), &have.name, |name| format!("`{name}`"));
        seen.see(
            "routes",
            self.routes.as_deref().map(routes).as_ref(),
            &routes(&have.routes),
            list,
        );
        seen.see(
            "pools",
            self.pools.as_deref().map(pools).as_ref(),
            &pools(&have.pools),
            list,
        );
        let V6Assign {
            rfc4193,
            sixplane,
            zt,
        } = have.v6_assign;
        seen.see(
            "v4_assign",
            self.v4_assign.as_ref(),
            &have.v4_assign,
            bool::to_string,
        );
        seen.see("rfc4193", self.rfc4193.as_ref(), &rfc4193, bool::to_string);
        seen.see("sixplane", self.sixplane.as_ref(), &sixplane, bool::to_string);
        seen.see("zt_v6", self.zt_v6.as_ref(), &zt, bool::to_string);
        seen.see(
            "dns",
            self.dns.as_ref().map(plain_dns).as_ref(),
            &plain_dns(&have.dns),
            Dns::to_string,
        );
        seen.see("mtu", self.mtu.as_ref(), &have.mtu, u32::to_string);
        seen.see(
            "multicast_limit",
            self.multicast_limit.as_ref(),
            &have.multicast_limit,
            u32::to_string,
        );
        seen.see(
            "broadcast",
            self.broadcast.as_ref(),
            &have.broadcast,
            bool::to_string,
        );
        let held = [
            ("rules", &have.rules),
            ("tags", &have.tags),
            ("capabilities", &have.capabilities),
        ];
        for (field, want) in self.opaque() {
            let Some((_, have)) = held.iter().find(|(held, _)| *held == field) else {
                continue;
            };
            if !rules::follows(field, have, want) {
                seen.add(field, rules::show(want), rules::show(have));
            }
        }
        seen.0
    }

    /// Returns the fields of a network's record that make it so, and what has to be sent along: that it is private, and
    /// what the network has of a field that is managed in part.
    #[must_use]
    pub fn to_json(&self, have: Option<&Network>) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("private".into(), true.into());
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(key.to_owned(), value);
            }
        };
        put("name", self.name.as_deref().map(Value::from));
        put("routes", self.routes.as_deref().map(routes_json));
        put("ipAssignmentPools", self.pools.as_deref().map(pools_json));
        put("v4AssignMode", self.v4_assign.map(|zt| json!({ "zt": zt })));
        put("v6AssignMode", self.v6_json(have));
        put("dns", self.dns.as_ref().map(|dns| json!(dns)));
        put("mtu", self.mtu.map(Value::from));
        put("multicastLimit", self.multicast_limit.map(Value::from));
        put("enableBroadcast", self.broadcast.map(Value::from));
        for (field, items) in self.opaque() {
            put(field, Some(items.to_vec().into()));
        }
        body
    }

    /// The three ways to IPv6 addresses are one field of the record, and what is not sent of it is lost.
    fn v6_json(&self, have: Option<&Network>) -> Option<Value> {
        if self.rfc4193.is_none() && self.sixplane.is_none() && self.zt_v6.is_none() {
            return None;
        }
        let have = have.map(|have| have.v6_assign).unwrap_or_default();
        Some(json!({
            "rfc4193": self.rfc4193.unwrap_or(have.rfc4193),
            "6plane": self.sixplane.unwrap_or(have.sixplane),
            "zt": self.zt_v6.unwrap_or(have.zt),
        }))
    }

    /// The managed ones among the fields that are passed on as they are.
    fn opaque(&self) -> impl Iterator<Item = (&'static str, &[Value])> {
        [
            ("rules", &self.rules),
            ("tags", &self.tags),
            ("capabilities", &self.capabilities),
        ]
        .into_iter()
        .filter_map(|(field, items)| Some((field, items.as_deref()?)))
    }

    fn validate_addresses(&self, problems: &mut Problems) {
        let routes = self.routes.as_deref().unwrap_or_default();
        problems.count("routes", routes.len(), MAX_ROUTES);
        let mut targets = BTreeSet::new();
        for (index, Route { target, via }) in routes.iter().enumerate() {
            let field = format!("routes[{index}]");
            if *target != target.trunc() {
                problems.add(
                    &field,
                    format!("{target} has host bits set; write {}", target.trunc()),
                );
            }
            if let Some(via) = via.filter(|via| via.is_ipv4() != target.addr().is_ipv4()) {
                problems.add(
                    &field,
                    format!("gateway {via} is of another kind than the target {target}"),
                );
            }
            if !targets.insert(target.trunc()) {
                problems.add(&field, format!("there is a route to {target} already"));
            }
        }
        let pools = self.pools.as_deref().unwrap_or_default();
        problems.count("pools", pools.len(), MAX_POOLS);
        for (index, pool) in pools.iter().enumerate() {
            let field = format!("pools[{index}]");
            if pool.start.is_ipv4() != pool.end.is_ipv4() {
                problems.add(
                    &field,
                    format!("{pool} begins and ends in different kinds of address"),
                );
            } else if pool.start > pool.end {
                problems.add(&field, format!("{pool} ends before it begins"));
            } else if self.routes.is_some() && !routes.iter().any(|route| holds(&route.target, pool)) {
                problems.add(
                    &field,
                    format!("{pool} is inside none of the routes; addresses are only assigned inside one"),
                );
            }
        }
        let ranges = [("v4_assign", self.v4_assign, true), ("zt_v6", self.zt_v6, false)];
        for (field, assign, v4) in ranges {
            let wanted = assign == Some(true) && self.pools.is_some();
            if wanted && !pools.iter().any(|pool| pool.start.is_ipv4() == v4) {
                let kind = if v4 { "IPv4" } else { "IPv6" };
                problems.add(
                    field,
                    format!("there is no {kind} range in pools to take addresses from"),
                );
            }
        }
    }
}

fn validate_dns(dns: &Dns, problems: &mut Problems) {
    problems.text("dns.domain", &dns.domain);
    problems.count("dns.servers", dns.servers.len(), MAX_SERVERS);
    if dns.domain.is_empty() != dns.servers.is_empty() {
        problems.add(
            "dns",
            "a domain needs servers and servers need a domain; leave both empty to have no name servers",
        );
    }
    for (index, server) in dns.servers.iter().enumerate() {
        if server.parse::<IpAddr>().is_err() {
            problems.add(
                format!("dns.servers[{index}]"),
                format!("`{server}` is no address; write one like 10.147.20.53"),
            );
        }
    }
}

fn holds(target: &IpNet, pool: &Pool) -> bool {
    target.contains(&pool.start) && target.contains(&pool.end)
}

fn routes(routes: &[Route]) -> BTreeSet<Route> {
    let plain = |route: &Route| Route {
        target: route.target.trunc(),
        ..*route
    };
    routes.iter().map(plain).collect()
}

fn pools(pools: &[Pool]) -> BTreeSet<Pool> {
    pools.iter().copied().collect()
}

/// The servers in one spelling.
fn plain_dns(dns: &Dns) -> Dns {
    let plain = |text: &String| {
        text.parse::<IpAddr>()
            .map_or_else(|_| text.clone(), |ip| ip.to_string())
    };
    Dns {
        domain: dns.domain.clone(),
        servers: dns.servers.iter().map(plain).collect(),
    }
}

fn routes_json(routes: &[Route]) -> Value {
    let route = |route: &Route| json!({ "target": route.target, "via": route.via });
    routes.iter().map(route).collect()
}

fn pools_json(pools: &[Pool]) -> Value {
    let pool = |pool: &Pool| json!({ "ipRangeStart": pool.start, "ipRangeEnd": pool.end });
    pools.iter().map(pool).collect()
}

fn list<T: fmt::Display>(items: &BTreeSet<T>) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[derive(Default)]
struct Problems(Vec<SettingsProblem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, sentence: impl Into<String>) {
        self.0.push(SettingsProblem {
            field: field.into(),
            sentence: sentence.into(),
        });
    }

    fn text(&mut self, field: &str, text: &str) {
        if text.len() > MAX_NAME {
            self.add(
                field,
                format!("{} bytes are more than members are told: {MAX_NAME}", text.len()),
            );
        }
        if text.chars().any(char::is_control) {
            self.add(field, "there are control characters in it; leave them out");
        }
    }

    fn count(&mut self, field: &str, count: usize, most: usize) {
        if count > most {
            self.add(field, format!("{count} are more than a network has: {most}"));
        }
    }
}

#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, field: &'static str, want: String, have: String) {
        self.0.push(Difference { field, want, have });
    }

    fn see<T: PartialEq>(
        &mut self,
        field: &'static str,
        want: Option<&T>,
        have: &T,
        say: impl Fn(&T) -> String,
    ) {
        if let Some(want) = want.filter(|want| *want != have) {
            self.add(field, say(want), say(have));
        }
    }
}

impl fmt::Display for SettingsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.sentence)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, wanted {}", self.field, self.have, self.want)
    }
}

#[cfg(test)]
mod tests;
