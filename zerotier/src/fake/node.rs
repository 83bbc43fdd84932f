//! A joined network as its member sees it: status, configuration, credentials.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde_json::{Value, json};

use super::controller::{Config, Reply};
use crate::{
    address,
    ids::{NetworkId, NodeId},
    node::Admission,
};

/// A configuration this old is asked for again.
const REFRESH: Duration = Duration::from_secs(60);
/// How far the times of two members' credentials may be apart for traffic between them: the default window.
const WINDOW: Duration = Duration::from_secs(30 * 60);
/// How long after a change of addresses the interface's multicast groups are noticed.
const GROUPS_NOTICED: Duration = Duration::from_secs(5);

/// A joined network.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) status: Admission,
    config: Option<Config>,
    /// When the last configuration came in this process.
    configured: Option<Duration>,
    credential: Option<Credential>,
    /// Nodes whose credentials up to a number are refused.
    revoked: BTreeMap<NodeId, u64>,
    settings: BTreeMap<&'static str, bool>,
    joined: Duration,
}

/// A certificate of membership: its place in the order of everything that is issued, and its time.
#[derive(Debug, Clone, Copy)]
struct Credential {
    number: u64,
    issued: Duration,
}

impl Joined {
    /// Joins. An ad-hoc network configures itself.
    pub(super) fn new(network: NetworkId, node: NodeId, number: u64, now: Duration) -> Self {
        let settings = [
            ("allowManaged", true),
            ("allowGlobal", false),
            ("allowDefault", false),
            ("allowDNS", false),
        ];
        let mut joined = Self {
            status: Admission::Requesting,
            config: None,
            configured: None,
            credential: None,
            revoked: BTreeMap::new(),
            settings: settings.into(),
            joined: now,
        };
        if network.is_ad_hoc() {
            let [_, a, b, c, d, ..] = network.to_u64().to_be_bytes();
            let config = Config {
                name: format!("adhoc-{a:02x}{b:02x}-{c:02x}{d:02x}"),
                revision: 1,
                public: true,
                mtu: 2800,
                broadcast: false,
                addresses: vec![format!(
                    "{}/{}",
                    address::sixplane(network, node),
                    address::SIXPLANE_PREFIX
                )],
                routes: Vec::new(),
                dns: json!({"domain": "", "servers": []}),
            };
            joined.hear(Reply::Config(Box::new(config)), number, now);
        }
        joined
    }

    /// Takes the settings of a POST; what is not a boolean is passed over.
    pub(super) fn set(&mut self, body: &str) {
        let Ok(body) = serde_json::from_str::<Value>(body) else {
            return;
        };
        for (key, setting) in &mut self.settings {
            if let Some(value) = body.get(key).and_then(Value::as_bool) {
                *setting = value;
            }
        }
    }

    /// Returns whether the node asks its controller at this tick.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.configured.is_none_or(|at| now - at >= REFRESH)
    }

    /// Takes what the controller said. A refusal leaves the last configuration in place.
    pub(super) fn hear(&mut self, reply: Reply, number: u64, now: Duration) {
        match reply {
            Reply::Config(config) => {
                self.status = Admission::Ok;
                self.config = Some(*config);
                self.configured = Some(now);
                self.credential = Some(Credential { number, issued: now });
            }
            Reply::Denied => self.status = Admission::Denied,
            Reply::NotFound => self.status = Admission::NotFound,
        }
    }

    /// Learns that a node's credentials up to this number are worth nothing.
    pub(super) fn revoke(&mut self, node: NodeId, number: u64) {
        self.revoked.insert(node, number);
    }

    /// What is left after a restart: the cached configuration, which counts until the controller says otherwise.
    pub(super) fn restart(&mut self, network: NetworkId) {
        self.revoked.clear();
        if network.is_ad_hoc() {
            return;
        }
        self.configured = None;
        self.status = if self.config.is_some() {
            Admission::Ok
        } else {
            Admission::Requesting
        };
    }

    /// Returns whether packets from `peer` with the credentials of `theirs` are let in here.
    pub(super) fn admits(&self, peer: NodeId, theirs: &Self) -> bool {
        let (Some(own), Some(credential)) = (self.credential, theirs.credential) else {
            return false;
        };
        let revoked = self
            .revoked
            .get(&peer)
            .is_some_and(|number| *number >= credential.number);
        !revoked && own.issued.abs_diff(credential.issued) <= WINDOW
    }

    /// Returns whether a configuration has ever come.
    pub(super) fn is_configured(&self) -> bool {
        self.config.is_some()
    }

    /// Returns the network as `GET /network` shows it.
    pub(super) fn show(&self, network: NetworkId, node: NodeId, now: Duration) -> Value {
        let mac = address::mac(network, node);
        let mut shown = json!({
            "assignedAddresses": self.config.as_ref().map(|config| &config.addresses[..]).unwrap_or_default(),
            "bridge": false,
            "broadcastEnabled": self.config.as_ref().is_some_and(|config| config.broadcast),
            "dhcp": false,
            "dns": self.config.as_ref().map_or_else(|| json!({"domain": "", "servers": []}), |config| config.dns.clone()),
            "id": network,
            "mac": address::mac_text(mac),
            "mtu": self.config.as_ref().map_or(2800, |config| config.mtu),
            "multicastSubscriptions": self.groups(mac, now),
            "name": self.config.as_ref().map_or("", |config| &config.name),
            "netconfRevision": self.config.as_ref().map_or(0, |config| config.revision),
            "nwid": network,
            "portDeviceName": address::device(network),
            "portError": 0,
            "routes": self.config.as_ref().map(|config| &config.routes[..]).unwrap_or_default(),
            "status": self.status.word(),
            "type": if self.config.as_ref().is_some_and(|config| config.public) { "PUBLIC" } else { "PRIVATE" },
        });
        for (key, value) in &self.settings {
            shown[*key] = (*value).into();
        }
        shown
    }

    /// The multicast groups of the interface: some of every interface, and one or two for each address.
    fn groups(&self, mac: [u8; 6], now: Duration) -> Vec<Value> {
        if now - self.joined < Duration::from_secs(1) {
            return Vec::new();
        }
        let solicited = |a: u8, b: u8, c: u8| format!("33:33:ff:{a:02x}:{b:02x}:{c:02x}");
        let mut groups = vec![
            ("01:00:5e:00:00:01".to_owned(), 0),
            ("33:33:00:00:00:01".to_owned(), 0),
            (solicited(mac[3], mac[4], mac[5]), 0),
        ];
        if let (Some(config), Some(since)) = (&self.config, self.configured)
            && now - since >= GROUPS_NOTICED
        {
            for address in &config.addresses {
                match address.split('/').next().and_then(|ip| ip.parse().ok()) {
                    Some(IpAddr::V4(ip)) => groups.push(("ff:ff:ff:ff:ff:ff".to_owned(), u32::from(ip))),
                    Some(IpAddr::V6(ip)) => {
                        let [.., a, b, c] = ip.octets();
                        groups.push((solicited(a, b, c), 0));
                    }
                    None => {}
                }
            }
        }
        groups.sort();
        groups
            .into_iter()
            .map(|(mac, adi)| json!({ "adi": adi, "mac": mac }))
            .collect()
    }
}
