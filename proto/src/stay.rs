//! The networks document: where a host's node is to be, and what it is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use picket_zerotier::ids::{NetworkId, NodeId};
use serde::{Deserialize, Serialize};

use crate::{WireError, field::parse, wire::agent as wire};

/// The most endpoints of a moon's root: what a world holds.
pub const MOST_ENDPOINTS: usize = 32;
/// The longest definition of a moon: four roots with 32 endpoints each fit.
pub const MOST_DEFINITION: usize = 4096;
/// The most members that one host witnesses.
pub const MOST_WITNESSED: usize = 64;

/// What the local service may do with what a network's controller says. ZeroTier's own defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Join {
    /// Takes addresses and routes.
    pub managed: bool,
    /// Takes addresses and routes that are not private.
    pub global: bool,
    /// Takes a default route.
    #[serde(rename = "default")]
    pub default_route: bool,
    /// Takes DNS servers.
    pub dns: bool,
}

impl Default for Join {
    fn default() -> Self {
        Self {
            managed: true,
            global: false,
            default_route: false,
            dns: false,
        }
    }
}

/// A moon as its root signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moon {
    /// As a moon file holds it; whoever uses it verifies it.
    pub definition: Bytes,
}

/// A member whose silence is to be witnessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Witnessed {
    /// The network.
    pub network: NetworkId,
    /// The member.
    pub node: NodeId,
    /// Its address there.
    pub address: IpAddr,
    /// It is killed: three probes in a row tell whether it is silent.
    pub killed: bool,
}

/// The whole document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stay {
    /// The networks to be on, and how.
    pub networks: BTreeMap<NetworkId, Join>,
    /// Networks this host is killed on.
    pub killed: BTreeSet<NetworkId>,
    /// The moons to orbit, by world id.
    pub moons: BTreeMap<u64, Moon>,
    /// The endpoints of the moon this host is the root of; none when it is no root.
    pub root_of_moon: Option<BTreeSet<SocketAddr>>,
    /// Whose silence to witness.
    pub witnessed: BTreeSet<Witnessed>,
}

impl Stay {
    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// On these networks, as ZeroTier's defaults have it, and nothing else.
    #[must_use]
    pub fn on(networks: impl IntoIterator<Item = NetworkId>) -> Self {
        Self {
            networks: networks.into_iter().map(|id| (id, Join::default())).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn to_wire(&self) -> wire::NetworksDocument {
        let default = Join::default();
        let changed = self.networks.iter().filter(|(_, join)| **join != default);
        wire::NetworksDocument {
            network_ids: self.networks.keys().map(ToString::to_string).collect(),
            settings: changed
                .map(|(id, join)| wire::JoinSettings {
                    network_id: id.to_string(),
                    ..join_to_wire(*join)
                })
                .collect(),
            killed_network_ids: self.killed.iter().map(ToString::to_string).collect(),
            moons: self
                .moons
                .iter()
                .map(|(id, moon)| wire::Moon {
                    world_id: format!("{id:016x}"),
                    definition: moon.definition.clone(),
                })
                .collect(),
            moon_root: self.root_of_moon.as_ref().map(|endpoints| wire::MoonRoot {
                endpoints: endpoints.iter().map(endpoint_text).collect(),
            }),
            witnessed: self
                .witnessed
                .iter()
                .map(|one| wire::Witnessed {
                    network_id: one.network.to_string(),
                    node_id: one.node.to_string(),
                    address: one.address.to_string(),
                    killed: one.killed,
                })
                .collect(),
        }
    }

    /// Reads a document. Entries that make no sense are skipped and named.
    pub(crate) fn from_wire(document: wire::NetworksDocument) -> (Self, Vec<(String, WireError)>) {
        let (mut stay, mut skipped) = (Self::default(), Vec::new());
        let mut or_skip = |subject: String, read: Result<(), WireError>| {
            if let Err(error) = read {
                skipped.push((subject, error));
            }
        };
        for id in document.network_ids {
            let read = parse("network_id", &id).map(|id| {
                stay.networks.insert(id, Join::default());
            });
            or_skip(id, read);
        }
        for settings in document.settings {
            let read = join_from_wire(&settings).map(|(id, join)| {
                // Settings of a network it is not to be on say nothing.
                if let Some(kept) = stay.networks.get_mut(&id) {
                    *kept = join;
                }
            });
            or_skip(settings.network_id, read);
        }
        for id in document.killed_network_ids {
            let read = parse("network_id", &id).map(|id| {
                stay.killed.insert(id);
            });
            or_skip(id, read);
        }
        for moon in document.moons {
            let read = world_id(&moon.world_id).and_then(|id| {
                let definition = definition("definition", moon.definition)?;
                stay.moons.insert(id, Moon { definition });
                Ok(())
            });
            or_skip(moon.world_id, read);
        }
        if let Some(root) = document.moon_root {
            let read = endpoints(&root.endpoints).map(|endpoints| stay.root_of_moon = Some(endpoints));
            or_skip("moon_root".to_owned(), read);
        }
        for one in document.witnessed.into_iter().take(MOST_WITNESSED) {
            let read = witnessed_from_wire(&one).map(|one| {
                stay.witnessed.insert(one);
            });
            or_skip(format!("{}/{}", one.network_id, one.node_id), read);
        }
        (stay, skipped)
    }
}

/// How a node is on a network, for the wire; which one is for the caller to say.
#[must_use]
pub fn join_to_wire(join: Join) -> wire::JoinSettings {
    wire::JoinSettings {
        network_id: String::new(),
        allow_managed: join.managed,
        allow_global: join.global,
        allow_default: join.default_route,
        allow_dns: join.dns,
    }
}

fn join_from_wire(settings: &wire::JoinSettings) -> Result<(NetworkId, Join), WireError> {
    Ok((parse("network_id", &settings.network_id)?, join(settings)))
}

/// How a node is on a network, whichever that is.
#[must_use]
pub fn join(settings: &wire::JoinSettings) -> Join {
    Join {
        managed: settings.allow_managed,
        global: settings.allow_global,
        default_route: settings.allow_default,
        dns: settings.allow_dns,
    }
}

fn witnessed_from_wire(one: &wire::Witnessed) -> Result<Witnessed, WireError> {
    Ok(Witnessed {
        network: parse("network_id", &one.network_id)?,
        node: parse("node_id", &one.node_id)?,
        address: parse("address", &one.address)?,
        killed: one.killed,
    })
}

/// Reads the id of a world: 16 hex digits.
///
/// # Errors
/// Anything else.
pub fn world_id(text: &str) -> Result<u64, WireError> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
        .ok_or_else(|| WireError::new("world_id", "want 16 hex digits"))
}

/// Reads a moon's definition, which is not looked at here.
///
/// # Errors
/// One that is longer than any there is.
pub fn definition(field: &str, bytes: Bytes) -> Result<Bytes, WireError> {
    if bytes.len() > MOST_DEFINITION {
        let problem = format_args!("{} bytes, at most {MOST_DEFINITION}", bytes.len());
        return Err(WireError::new(field, problem));
    }
    Ok(bytes)
}

/// Reads the endpoints of a moon's root, `address/port` each.
///
/// # Errors
/// None, too many, or one that makes no sense.
pub fn endpoints(texts: &[String]) -> Result<BTreeSet<SocketAddr>, WireError> {
    if !(1..=MOST_ENDPOINTS).contains(&texts.len()) {
        let problem = format_args!("{} endpoints, want 1 to {MOST_ENDPOINTS}", texts.len());
        return Err(WireError::new("endpoints", problem));
    }
    let read = |text: &String| {
        let (address, port) = text.split_once('/')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(SocketAddr::new(address.parse().ok()?, port))
    };
    let wrong = |text: &String| {
        WireError::new(
            "endpoints",
            format_args!("`{text}`: write address/port, as 192.0.2.1/9993"),
        )
    };
    texts
        .iter()
        .map(|text| read(text).ok_or_else(|| wrong(text)))
        .collect()
}

/// An endpoint as ZeroTier writes it: `address/port`.
#[must_use]
pub fn endpoint_text(endpoint: &SocketAddr) -> String {
    format!("{}/{}", endpoint.ip(), endpoint.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stay_reads_back_as_it_was_written() {
        let network: NetworkId = "5350d87547c880cb".parse().unwrap();
        let stay = Stay {
            networks: [(
                network,
                Join {
                    dns: true,
                    ..Join::default()
                },
            )]
            .into(),
            killed: [network].into(),
            moons: [(
                0x8f_ee13_b48c,
                Moon {
                    definition: Bytes::from_static(b"a moon"),
                },
            )]
            .into(),
            root_of_moon: Some(["192.0.2.1:9993".parse().unwrap()].into()),
            witnessed: [Witnessed {
                network,
                node: "39966434ba".parse().unwrap(),
                address: "10.147.20.5".parse().unwrap(),
                killed: true,
            }]
            .into(),
        };
        assert_eq!(Stay::from_wire(stay.to_wire()), (stay.clone(), Vec::new()));
    }

    #[test]
    fn settings_of_a_network_it_is_not_on_say_nothing() {
        let network: NetworkId = "5350d87547c880cb".parse().unwrap();
        let document = wire::NetworksDocument {
            settings: vec![wire::JoinSettings {
                network_id: network.to_string(),
                ..join_to_wire(Join::default())
            }],
            ..Default::default()
        };
        assert_eq!(Stay::from_wire(document), (Stay::default(), Vec::new()));
    }

    #[test]
    fn an_endpoint_without_a_port_is_refused_and_says_how_to_write_it() {
        let error = endpoints(&["192.0.2.1".to_owned()]).unwrap_err();
        assert!(error.problem.contains("192.0.2.1/9993"), "{error}");
        assert!(endpoints(&[]).is_err());
    }
}
