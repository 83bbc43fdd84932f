//! What of a desired shard this machine permits. Pure.
//!
//! The agent trusts the master with decoys, not with the machine. Privileged containers, host namespaces, the
//! Docker socket, binds and added capabilities cannot even be said in a shard; images, networks and ports can, and
//! are checked here against `agent.toml`. What is not allowed is refused: an empty list allows nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    ops::RangeInclusive,
    str::FromStr,
};

use ipnet::Ipv4Net;
use picket_proto::{
    host::Name,
    shard::{Decky, DeckyNetwork, DeckyService, Driver, Shard, usable},
};

/// How many deckies a machine runs unless its configuration says otherwise.
pub const MOST: usize = 64;

/// What `agent.toml` allows. By default, nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Images of services.
    pub images: Vec<ImageRule>,
    /// Networks deckies may live on.
    pub networks: Vec<NetworkRule>,
    /// TCP ports services may say they listen on.
    pub ports: Vec<PortRule>,
    /// How many deckies there may be.
    pub most: usize,
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
    /// The way out.
    pub gateway: GatewayRule,
}

/// Whether a network may have a gateway, by which its deckies reach more than their own network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GatewayRule {
    /// None.
    #[default]
    Never,
    /// Any, or none.
    Any,
    /// This one, or none.
    At(Ipv4Addr),
}

/// `22` or `1024-65535`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRule(pub RangeInclusive<u16>);

/// A rule in `agent.toml` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Of images.
    #[error(
        "`{0}` is no image rule; write an image such as picket-decoy:latest, or a beginning such as picket-decoy:* or registry.example.org/decoys/*"
    )]
    Image(String),
    /// Of images of any registry.
    #[error(
        "`{0}` leaves open from which registry an image comes; write the registry out up to a /, such as registry.example.org/*"
    )]
    OpenRegistry(String),
    /// Of gateways.
    #[error("`{0}` is no gateway rule; write true, false, or the gateway's address")]
    Gateway(String),
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
        // Without a slash, what comes before the tag may still become the name of a registry.
        let is_open = text.ends_with('*')
            && !stem.contains('/')
            && (stem.is_empty() || stem.split(':').next().is_some_and(|name| name.contains('.')));
        if is_open {
            return Err(RuleError::OpenRegistry(text.to_owned()));
        }
        Ok(rule(stem.to_owned()))
    }
}

impl ImageRule {
    fn allows(&self, image: &str) -> bool {
        match self {
            Self::Exactly(exactly) => image == exactly,
            // What comes before the first slash names the registry: a rule that has none must not grow one.
            Self::Prefix(prefix) => image
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| prefix.contains('/') || !rest.contains('/')),
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

impl FromStr for GatewayRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text {
            "true" => Ok(Self::Any),
            "false" => Ok(Self::Never),
            address => address
                .parse()
                .map(Self::At)
                .map_err(|_| RuleError::Gateway(text.to_owned())),
        }
    }
}

impl GatewayRule {
    fn allows(self, gateway: Option<Ipv4Addr>) -> bool {
        match (self, gateway) {
            (_, None) | (Self::Any, Some(_)) => true,
            (Self::Never, Some(_)) => false,
            (Self::At(only), Some(gateway)) => gateway == only,
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
    /// The network has a gateway that no rule allows.
    #[error(
        "network {name}: agent.toml allows it no gateway {gateway}; add `gateway = \"{gateway}\"` to its [[deckies.networks]], or leave the gateway out"
    )]
    WayOut {
        /// Its name in the shard.
        name: Name,
        /// The gateway.
        gateway: Ipv4Addr,
    },
    /// The address is the machine's own or that of its gateway.
    #[error("address {0} is this machine's own or its gateway's; choose another")]
    Reserved(Ipv4Addr),
    /// There are as many deckies as there may be.
    #[error("agent.toml allows {0} deckies on this machine; raise deckies.most, or place it elsewhere")]
    TooMany(usize),
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

/// The part of a shard that this machine permits, and why it refuses the rest, by decky. Nobody gets a `reserved`
/// address.
#[must_use]
pub fn permit(
    shard: &Shard,
    allowed: &Allowed,
    reserved: &BTreeSet<Ipv4Addr>,
) -> (Shard, BTreeMap<Name, Refused>) {
    let mut permitted = Shard::default();
    let mut refusals = BTreeMap::new();
    let mut taken: BTreeMap<Ipv4Addr, Name> = BTreeMap::new();
    for decky in shard.deckies.values() {
        let checked = check(decky, shard, allowed, reserved, &taken).and_then(|network| {
            if permitted.deckies.len() < allowed.most {
                Ok(network)
            } else {
                Err(Refused::TooMany(allowed.most))
            }
        });
        match checked {
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
    reserved: &BTreeSet<Ipv4Addr>,
    taken: &BTreeMap<Ipv4Addr, Name>,
) -> Result<&'a DeckyNetwork, Refused> {
    let network = shard
        .networks
        .get(&decky.network)
        .ok_or_else(|| Refused::NoNetwork(decky.network.clone()))?;
    if let Some(refused) = place_refusal(decky, shard, allowed, reserved) {
        return Err(refused);
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
    let mut names = BTreeSet::new();
    for service in &decky.services {
        if !names.insert(&service.name) {
            return Err(Refused::TwoServices(service.name.clone()));
        }
        if let Some(refused) = service_refusal(service, allowed) {
            return Err(refused);
        }
    }
    Ok(network)
}

/// Why this machine does not allow a decky where it is to be: the network, its way out, the address.
pub(super) fn place_refusal(
    decky: &Decky,
    shard: &Shard,
    allowed: &Allowed,
    reserved: &BTreeSet<Ipv4Addr>,
) -> Option<Refused> {
    let network = shard.networks.get(&decky.network)?;
    let mut rules = allowed
        .networks
        .iter()
        .filter(|rule| rule.allows(network))
        .peekable();
    if rules.peek().is_none() {
        return Some(Refused::Network {
            name: network.name.clone(),
            network: Described(network).to_string(),
        });
    }
    if let Some(gateway) = network.gateway
        && !rules.any(|rule| rule.gateway.allows(network.gateway))
    {
        return Some(Refused::WayOut {
            name: network.name.clone(),
            gateway,
        });
    }
    reserved
        .contains(&decky.address)
        .then_some(Refused::Reserved(decky.address))
}

/// Why this machine does not allow a service.
pub(super) fn service_refusal(service: &DeckyService, allowed: &Allowed) -> Option<Refused> {
    if !allowed.images.iter().any(|rule| rule.allows(&service.image)) {
        return Some(Refused::Image {
            service: service.name.clone(),
            image: service.image.clone(),
        });
    }
    let refused = service
        .ports
        .iter()
        .find(|port| !allowed.ports.iter().any(|rule| rule.0.contains(port)));
    refused.map(|&port| Refused::Port {
        service: service.name.clone(),
        port,
    })
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
        let (permitted, refusals) = permit(&shard, &allowed(), &own());
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

    /// The machine's own address, inside the deckies' network.
    fn own() -> BTreeSet<Ipv4Addr> {
        BTreeSet::from([[10, 77, 0, 99].into()])
    }

    fn second(shard: &mut Shard) -> &mut Decky {
        shard.deckies.get_mut(&name("decky-01")).unwrap()
    }

    #[test]
    fn what_is_allowed_is_permitted_whole() {
        let (permitted, refusals) = permit(&shard(5), &allowed(), &own());
        assert_eq!((permitted, refusals), (shard(5), BTreeMap::new()));
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        let (permitted, refusals) = permit(&shard(3), &Allowed::default(), &own());
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
            refused(|shard| second(shard).address = [10, 77, 0, 99].into()),
            refused(|shard| {
                let mut network = shard.networks[&name("lan")].clone();
                network.name = name("out");
                network.gateway = Some([10, 77, 0, 254].into());
                shard.networks.insert(network.name.clone(), network);
                second(shard).network = name("out");
            }),
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
            "address 10.77.0.99 is this machine's own or its gateway's; choose another",
            "network out: agent.toml allows it no gateway 10.77.0.254; add `gateway = \"10.77.0.254\"` to its [[deckies.networks]], or leave the gateway out",
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
    fn a_prefix_never_grows_a_registry_of_its_own() {
        let prefix: ImageRule = "picket-*".parse().unwrap();
        assert!(prefix.allows("picket-decoy:latest"));
        assert!(!prefix.allows("picket-evil.example.org/decoy:latest"));
        let tag: ImageRule = "picket-decoy:*".parse().unwrap();
        assert!(tag.allows("picket-decoy:1.0") && !tag.allows("picket-decoy:5000/decoy"));
        for open in ["*", "registry.example.*", "registry.example.org*"] {
            assert_eq!(
                open.parse::<ImageRule>(),
                Err(RuleError::OpenRegistry(open.to_owned()))
            );
        }
    }

    #[test]
    fn a_gateway_is_allowed_by_its_address_or_altogether() {
        let rule = |text: &str| text.parse::<GatewayRule>().unwrap();
        let at = Some(Ipv4Addr::new(10, 77, 0, 1));
        assert!(rule("true").allows(at) && rule("10.77.0.1").allows(at));
        assert!(!rule("false").allows(at) && !rule("10.77.0.2").allows(at));
        assert!(rule("false").allows(None) && "yes".parse::<GatewayRule>().is_err());
    }

    #[test]
    fn no_more_deckies_than_the_machine_may_run_are_permitted() {
        let allowed = Allowed { most: 2, ..allowed() };
        let (permitted, refusals) = permit(&shard(3), &allowed, &own());
        assert_eq!(permitted.deckies.len(), 2);
        let said = refusals[&name("decky-02")].to_string();
        assert!(
            said.contains("2 deckies") && said.contains("deckies.most"),
            "{said}"
        );
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
