//! What of a desired shard this machine permits. Pure.
//!
//! The agent trusts the master with decoys, not with the machine. Privileged containers, host namespaces, the
//! Docker socket, binds and added capabilities cannot even be said in a shard; images, networks and ports can, and
//! are checked here against `agent.toml`. What is not allowed is refused: an empty list allows nothing.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, ops::RangeInclusive, str::FromStr};

use ipnet::Ipv4Net;
use picket_proto::{
    host::Name,
    shard::{Decky, DeckyNetwork, Driver, Shard, usable},
};

/// What `agent.toml` allows. By default, nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Images of services.
    pub images: Vec<ImageRule>,
    /// Networks deckies may live on.
    pub networks: Vec<NetworkRule>,
    /// TCP ports services may say they listen on.
    pub ports: Vec<PortRule>,
}

/// One image by its exact reference, or every image whose reference begins so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRule {
    /// `picket-decoy:latest`
    Exactly(String),
    /// `registry.example.org/decoys/*`
    Prefix(String),
}

/// Networks of one driver on one parent interface, inside one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRule {
    /// How deckies get onto the wire.
    pub driver: Driver,
    /// The interface; none for a bridge.
    pub parent: Option<String>,
    /// The whole network lies inside.
    pub subnet: Ipv4Net,
}

/// `22` or `1024-65535`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRule(pub RangeInclusive<u16>);

/// A rule in `agent.toml` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Of images.
    #[error(
        "`{0}` is no image rule; write an image such as picket-decoy:latest, or a beginning such as picket-*"
    )]
    Image(String),
    /// Of ports.
    #[error("`{0}` is no port rule; write a port such as 22, or a range such as 1024-65535")]
    Ports(String),
}

impl FromStr for ImageRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (stem, rule): (_, fn(String) -> Self) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, Self::Prefix),
            None => (text, Self::Exactly),
        };
        let fits = stem
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "./:-_@".contains(c));
        if text.is_empty() || !fits {
            return Err(RuleError::Image(text.to_owned()));
        }
        Ok(rule(stem.to_owned()))
    }
}

impl ImageRule {
    fn allows(&self, image: &str) -> bool {
        match self {
            Self::Exactly(exactly) => image == exactly,
            Self::Prefix(prefix) => image.starts_with(prefix.as_str()),
        }
    }
}

impl FromStr for PortRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Self(first..=last)),
            _ => Err(RuleError::Ports(text.to_owned())),
        }
    }
}

impl NetworkRule {
    fn allows(&self, network: &DeckyNetwork) -> bool {
        self.driver == network.driver
            && self.parent == network.parent
            && self.subnet.contains(&network.subnet)
    }
}

impl fmt::Display for NetworkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, self.driver, self.parent.as_deref(), &self.subnet)
    }
}

/// Why a decky is refused, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The image is in no rule.
    #[error(
        "service {service}: agent.toml allows no image {image}; add it to the allowed images, or use another"
    )]
    Image {
        /// Which service.
        service: Name,
        /// The image.
        image: String,
    },
    /// The port is in no rule.
    #[error(
        "service {service}: agent.toml allows no port {port}; add it to the allowed ports, or use another"
    )]
    Port {
        /// Which service.
        service: Name,
        /// The port.
        port: u16,
    },
    /// The network is in no rule.
    #[error("network {name}: agent.toml allows no {network}; add it to the allowed networks, or use another")]
    Network {
        /// Its name in the shard.
        name: Name,
        /// What it is.
        network: String,
    },
    /// The network is not in the shard.
    #[error("network {0} is not in the shard; add it to the site's networks")]
    NoNetwork(Name),
    /// The address is not in the subnet, or is the subnet's first or last.
    #[error("address {address} is none a machine may have in {subnet}; choose one inside")]
    Outside {
        /// The address.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// The address belongs to the gateway, or to the host itself on a network without one.
    #[error("address {0} is the network's own; choose another")]
    Gateway(Ipv4Addr),
    /// Another decky has the address.
    #[error("address {address} belongs to {other}; choose another")]
    Duplicate {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        other: Name,
    },
    /// Two services have one name.
    #[error("two services are called {0}; rename one")]
    TwoServices(Name),
}

/// The part of a shard that this machine permits, and why it refuses the rest, by decky.
#[must_use]
pub fn permit(shard: &Shard, allowed: &Allowed) -> (Shard, BTreeMap<Name, Refused>) {
    let mut permitted = Shard::default();
    let mut refusals = BTreeMap::new();
    let mut taken: BTreeMap<Ipv4Addr, Name> = BTreeMap::new();
    for decky in shard.deckies.values() {
        match check(decky, shard, allowed, &taken) {
            Ok(network) => {
                taken.insert(decky.address, decky.name.clone());
                permitted.networks.insert(network.name.clone(), network.clone());
                permitted.deckies.insert(decky.name.clone(), decky.clone());
            }
            Err(refused) => {
                refusals.insert(decky.name.clone(), refused);
            }
        }
    }
    (permitted, refusals)
}

fn check<'a>(
    decky: &Decky,
    shard: &'a Shard,
    allowed: &Allowed,
    taken: &BTreeMap<Ipv4Addr, Name>,
) -> Result<&'a DeckyNetwork, Refused> {
    let network = shard
        .networks
        .get(&decky.network)
        .ok_or_else(|| Refused::NoNetwork(decky.network.clone()))?;
    if !allowed.networks.iter().any(|rule| rule.allows(network)) {
        return Err(Refused::Network {
            name: network.name.clone(),
            network: Described(network).to_string(),
        });
    }
    let address = decky.address;
    if !usable(&network.subnet, address) {
        return Err(Refused::Outside {
            address,
            subnet: network.subnet,
        });
    }
    // Docker gives the first address to the network itself when no gateway is named.
    let own = network.gateway.or_else(|| network.subnet.hosts().next());
    if own == Some(address) {
        return Err(Refused::Gateway(address));
    }
    if let Some(other) = taken.get(&address) {
        return Err(Refused::Duplicate {
            address,
            other: other.clone(),
        });
    }
    let mut names = std::collections::BTreeSet::new();
    for service in &decky.services {
        if !names.insert(&service.name) {
            return Err(Refused::TwoServices(service.name.clone()));
        }
        if !allowed.images.iter().any(|rule| rule.allows(&service.image)) {
            return Err(Refused::Image {
                service: service.name.clone(),
                image: service.image.clone(),
            });
        }
        let refused = service
            .ports
            .iter()
            .find(|port| !allowed.ports.iter().any(|rule| rule.0.contains(port)));
        if let Some(&port) = refused {
            return Err(Refused::Port {
                service: service.name.clone(),
                port,
            });
        }
    }
    Ok(network)
}

struct Described<'a>(&'a DeckyNetwork);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, self.0.driver, self.0.parent.as_deref(), &self.0.subnet)
    }
}

fn describe(
    f: &mut fmt::Formatter<'_>,
    driver: Driver,
    parent: Option<&str>,
    subnet: &Ipv4Net,
) -> fmt::Result {
    write!(f, "{driver} ")?;
    if let Some(parent) = parent {
        write!(f, "on {} ", parent.escape_debug())?;
    }
    write!(f, "with {subnet}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deckies::plan::tests::{allowed, shard};

    fn refused(change: impl FnOnce(&mut Shard)) -> String {
        let mut shard = shard(2);
        change(&mut shard);
        let (permitted, refusals) = permit(&shard, &allowed());
        assert!(
            permitted.deckies.contains_key(&name("decky-00")),
            "the other decky is permitted"
        );
        assert_eq!(permitted.deckies.len() + refusals.len(), shard.deckies.len());
        refusals[&name("decky-01")].to_string()
    }

    fn name(name: &str) -> Name {
        name.parse().unwrap()
    }

    fn second(shard: &mut Shard) -> &mut Decky {
        shard.deckies.get_mut(&name("decky-01")).unwrap()
    }

    #[test]
    fn what_is_allowed_is_permitted_whole() {
        let (permitted, refusals) = permit(&shard(5), &allowed());
        assert_eq!((permitted, refusals), (shard(5), BTreeMap::new()));
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        let (permitted, refusals) = permit(&shard(3), &Allowed::default());
        assert_eq!((permitted, refusals.len()), (Shard::default(), 3));
    }

    #[test]
    fn each_refusal_names_what_to_change_and_leaves_the_other_decky_alone() {
        let said = [
            refused(|shard| second(shard).services[0].image = "evil:latest".to_owned()),
            refused(|shard| second(shard).services[0].ports = vec![2375]),
            refused(|shard| second(shard).network = name("elsewhere")),
            refused(|shard| second(shard).address = [10, 99, 0, 1].into()),
            refused(|shard| second(shard).address = [10, 77, 0, 255].into()),
            refused(|shard| second(shard).address = [10, 77, 0, 1].into()),
            refused(|shard| second(shard).address = [10, 77, 0, 10].into()),
            refused(|shard| {
                let service = second(shard).services[0].clone();
                second(shard).services.push(service);
            }),
            refused(|shard| {
                let mut network = shard.networks[&name("lan")].clone();
                network.name = name("wide");
                network.subnet = "10.0.0.0/8".parse().unwrap();
                shard.networks.insert(network.name.clone(), network);
                second(shard).network = name("wide");
            }),
            refused(|shard| {
                let mut network = shard.networks[&name("lan")].clone();
                network.name = name("wire");
                network.driver = Driver::Macvlan;
                network.parent = Some("eth0".to_owned());
                shard.networks.insert(network.name.clone(), network);
                second(shard).network = name("wire");
            }),
        ];
        let expected = [
            "service ssh: agent.toml allows no image evil:latest; add it to the allowed images, or use another",
            "service ssh: agent.toml allows no port 2375; add it to the allowed ports, or use another",
            "network elsewhere is not in the shard; add it to the site's networks",
            "address 10.99.0.1 is none a machine may have in 10.77.0.0/24; choose one inside",
            "address 10.77.0.255 is none a machine may have in 10.77.0.0/24; choose one inside",
            "address 10.77.0.1 is the network's own; choose another",
            "address 10.77.0.10 belongs to decky-00; choose another",
            "two services are called ssh; rename one",
            "network wide: agent.toml allows no bridge with 10.0.0.0/8; add it to the allowed networks, or use another",
            "network wire: agent.toml allows no macvlan on eth0 with 10.77.0.0/24; add it to the allowed networks, or use another",
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_prefix_covers_what_begins_so_and_an_exact_name_only_itself() {
        let prefix: ImageRule = "registry.example.org/decoys/*".parse().unwrap();
        assert!(prefix.allows("registry.example.org/decoys/ssh:1"));
        assert!(!prefix.allows("registry.example.org/decoys-evil/ssh:1"));
        let exact: ImageRule = "picket-decoy:latest".parse().unwrap();
        assert!(!exact.allows("picket-decoy:latest2"));
        assert!("a b".parse::<ImageRule>().is_err() && "a*b".parse::<ImageRule>().is_err());
    }

    #[test]
    fn port_rules_are_a_port_or_a_range_and_nothing_else() {
        assert_eq!("22".parse(), Ok(PortRule(22..=22)));
        assert_eq!("1-65535".parse(), Ok(PortRule(1..=65535)));
        for bad in ["", "0", "0-5", "9-5", "70000", "a", "1-2-3"] {
            assert!(bad.parse::<PortRule>().is_err(), "{bad}");
        }
    }
}
