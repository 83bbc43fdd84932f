//! Deckies as they are wanted: the part of the deployments that one host runs.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    WireError,
    field::{parse, text},
    host::Name,
    wire::agent as wire,
};

/// The most deckies one shard has.
pub const MOST_DECKIES: usize = 1000;
/// The most services one decky has.
pub const MOST_SERVICES: usize = 32;
/// The most characters of an image's name.
pub const MOST_IMAGE: usize = 255;
/// The most arguments of a command, and the most variables of an environment.
pub const MOST_WORDS: usize = 64;
/// The most characters of one argument or variable.
pub const MOST_WORD: usize = 4096;

/// What one host is to run; complete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// By name.
    pub deckies: BTreeMap<Name, Decky>,
    /// The Docker networks they live on, by name.
    pub networks: BTreeMap<Name, DeckyNetwork>,
}

/// A decoy machine: a base container with address and host name, and one container for each service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decky {
    /// Unique on its host.
    pub name: Name,
    /// The deployment it belongs to.
    pub deployment: Name,
    /// The name of the network it lives on.
    pub network: Name,
    /// Its address there.
    pub address: Ipv4Addr,
    /// What it calls itself.
    pub hostname: Name,
    /// In the order they are started.
    pub services: Vec<DeckyService>,
}

/// One service of a decky.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeckyService {
    /// Unique in its decky.
    pub name: Name,
    /// A Docker image reference.
    pub image: String,
    /// Arguments after the image's entry point; empty for the image's own.
    pub command: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// TCP ports it listens on.
    pub ports: Vec<u16>,
}

/// A Docker network deckies live on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeckyNetwork {
    /// Unique on its host.
    pub name: Name,
    /// How deckies get onto the wire.
    pub driver: Driver,
    /// The parent interface; for [`Driver::Macvlan`] and [`Driver::Ipvlan`] only.
    pub parent: Option<String>,
    /// The network's addresses.
    pub subnet: Ipv4Net,
    /// The way out, when there is one.
    pub gateway: Option<Ipv4Addr>,
}

/// How deckies get onto the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of the engine's own.
    Bridge,
    /// A MAC address of its own on a parent interface.
    Macvlan,
    /// An address of its own under the parent's MAC.
    Ipvlan,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        })
    }
}

impl FromStr for Driver {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "macvlan" => Ok(Self::Macvlan),
            "ipvlan" => Ok(Self::Ipvlan),
            other => Err(WireError::new(
                "driver",
                format_args!("`{}`: use bridge, macvlan or ipvlan", other.escape_debug()),
            )),
        }
    }
}

impl DeckyNetwork {
    /// Checks what the types do not: a parent where one is needed and only there, a gateway inside the subnet.
    ///
    /// # Errors
    /// Names the field and what would do.
    pub fn check(&self) -> Result<(), WireError> {
        match (self.driver, &self.parent) {
            (Driver::Bridge, Some(_)) => {
                return Err(WireError::new("parent", "a bridge has none; leave it out"));
            }
            (Driver::Macvlan | Driver::Ipvlan, None) => {
                return Err(WireError::new(
                    "parent",
                    format_args!("{} needs the interface to live on", self.driver),
                ));
            }
            (Driver::Bridge, None) | (Driver::Macvlan | Driver::Ipvlan, Some(_)) => {}
        }
        if let Some(parent) = &self.parent
            && (parent.is_empty()
                || parent.len() > 15
                || parent.contains(|c: char| c == '/' || c.is_whitespace()))
        {
            return Err(WireError::new(
                "parent",
                format_args!("`{}` is no interface name", parent.escape_debug()),
            ));
        }
        if self.subnet.prefix_len() > 30 {
            return Err(WireError::new(
                "subnet",
                format_args!("{} has no room; use /30 or wider", self.subnet),
            ));
        }
        if let Some(gateway) = self.gateway
            && !usable(&self.subnet, gateway)
        {
            return Err(WireError::new(
                "gateway",
                format_args!("{gateway} is not an address inside {}", self.subnet),
            ));
        }
        Ok(())
    }
}

/// Whether a machine may have `address` in `subnet`: inside, and neither its first nor its last.
#[must_use]
pub fn usable(subnet: &Ipv4Net, address: Ipv4Addr) -> bool {
    subnet.contains(&address) && address != subnet.network() && address != subnet.broadcast()
}

impl DeckyService {
    /// Checks lengths, counts and letters.
    ///
    /// # Errors
    /// Names the field and what would do.
    pub fn check(&self) -> Result<(), WireError> {
        let image = &self.image;
        let letter = |c: char| c.is_ascii_alphanumeric() || "./:-_@".contains(c);
        if image.is_empty() || image.len() > MOST_IMAGE || !image.chars().all(letter) {
            return Err(WireError::new(
                "image",
                format_args!(
                    "`{}` is no image reference, such as picket-decoy:latest",
                    image.escape_debug()
                ),
            ));
        }
        if self.command.len() > MOST_WORDS || self.environment.len() > MOST_WORDS {
            return Err(WireError::new(
                "command",
                format_args!("at most {MOST_WORDS} arguments and variables"),
            ));
        }
        for word in self.command.iter().chain(self.environment.values()) {
            if word.len() > MOST_WORD || word.contains('\0') {
                return Err(WireError::new(
                    "command",
                    format_args!("an argument is over {MOST_WORD} bytes or has a NUL"),
                ));
            }
        }
        let key_fits = |key: &String| {
            !key.is_empty()
                && key.len() <= 128
                && !key.starts_with(|c: char| c.is_ascii_digit())
                && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if let Some(key) = self.environment.keys().find(|key| !key_fits(key)) {
            return Err(WireError::new(
                "environment",
                format_args!("`{}` is no variable name", key.escape_debug()),
            ));
        }
        if self.ports.len() > MOST_WORDS || self.ports.contains(&0) {
            return Err(WireError::new(
                "ports",
                "ports are 1 to 65535, at most 64 of them",
            ));
        }
        Ok(())
    }
}

impl From<&Shard> for wire::ShardDocument {
    fn from(shard: &Shard) -> Self {
        Self {
            deckies: shard.deckies.values().map(Into::into).collect(),
            networks: shard.networks.values().map(Into::into).collect(),
        }
    }
}

impl From<&Decky> for wire::Decky {
    fn from(decky: &Decky) -> Self {
        Self {
            name: decky.name.to_string(),
            deployment: decky.deployment.to_string(),
            network: decky.network.to_string(),
            address: decky.address.to_string(),
            hostname: decky.hostname.to_string(),
            services: decky.services.iter().map(Into::into).collect(),
        }
    }
}

impl From<&DeckyService> for wire::DeckyService {
    fn from(service: &DeckyService) -> Self {
        Self {
            name: service.name.to_string(),
            image: service.image.clone(),
            command: service.command.clone(),
            environment: service.environment.clone().into_iter().collect(),
            ports: service.ports.iter().map(|port| u32::from(*port)).collect(),
        }
    }
}

impl From<&DeckyNetwork> for wire::DeckyNetwork {
    fn from(network: &DeckyNetwork) -> Self {
        Self {
            name: network.name.to_string(),
            driver: match network.driver {
                Driver::Bridge => wire::DeckyDriver::Bridge,
                Driver::Macvlan => wire::DeckyDriver::Macvlan,
                Driver::Ipvlan => wire::DeckyDriver::Ipvlan,
            }
            .into(),
            parent: network.parent.clone().unwrap_or_default(),
            subnet: network.subnet.to_string(),
            gateway: network
                .gateway
                .map(|gateway| gateway.to_string())
                .unwrap_or_default(),
        }
    }
}

/// A shard document as it was read: what makes sense, and what does not by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadShard {
    /// The entries that make sense.
    pub shard: Shard,
    /// The entries that do not.
    pub skipped: Vec<(String, WireError)>,
}

impl From<wire::ShardDocument> for ReadShard {
    fn from(document: wire::ShardDocument) -> Self {
        let mut read = Self {
            shard: Shard::default(),
            skipped: Vec::new(),
        };
        for network in document.networks {
            let name = network.name.clone();
            match DeckyNetwork::try_from(network) {
                Ok(network) => drop(read.shard.networks.insert(network.name.clone(), network)),
                Err(error) => read.skipped.push((name, error.within("network"))),
            }
        }
        for decky in document.deckies {
            let name = decky.name.clone();
            match Decky::try_from(decky) {
                Ok(decky) if read.shard.deckies.len() >= MOST_DECKIES => {
                    read.skipped.push((
                        name,
                        WireError::new("decky", format_args!("over {MOST_DECKIES} deckies")),
                    ));
                    drop(decky);
                }
                Ok(decky) => drop(read.shard.deckies.insert(decky.name.clone(), decky)),
                Err(error) => read.skipped.push((name, error.within("decky"))),
            }
        }
        read
    }
}

impl TryFrom<wire::DeckyNetwork> for DeckyNetwork {
    type Error = WireError;

    fn try_from(network: wire::DeckyNetwork) -> Result<Self, WireError> {
        let read = Self {
            name: parse("name", &network.name)?,
            driver: match wire::DeckyDriver::try_from(network.driver) {
                Ok(wire::DeckyDriver::Bridge) => Driver::Bridge,
                Ok(wire::DeckyDriver::Macvlan) => Driver::Macvlan,
                Ok(wire::DeckyDriver::Ipvlan) => Driver::Ipvlan,
                Ok(wire::DeckyDriver::Unspecified) | Err(_) => {
                    return Err(WireError::new("driver", "is none this agent knows; update it"));
                }
            },
            parent: optional(network.parent),
            subnet: parse("subnet", &network.subnet)?,
            gateway: optional(network.gateway)
                .map(|gateway| parse("gateway", &gateway))
                .transpose()?,
        };
        read.check()?;
        Ok(read)
    }
}

impl TryFrom<wire::Decky> for Decky {
    type Error = WireError;

    fn try_from(decky: wire::Decky) -> Result<Self, WireError> {
        if decky.services.len() > MOST_SERVICES {
            return Err(WireError::new(
                "services",
                format_args!("at most {MOST_SERVICES}"),
            ));
        }
        Ok(Self {
            name: parse("name", &decky.name)?,
            deployment: parse("deployment", &decky.deployment)?,
            network: parse("network", &decky.network)?,
            address: parse("address", &decky.address)?,
            hostname: parse("hostname", &decky.hostname)?,
            services: decky
                .services
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<wire::DeckyService> for DeckyService {
    type Error = WireError;

    fn try_from(service: wire::DeckyService) -> Result<Self, WireError> {
        let read = Self {
            name: parse("service.name", &service.name)?,
            image: text("service.image", service.image, MOST_IMAGE)?,
            command: service.command,
            environment: service.environment.into_iter().collect(),
            ports: ports(&service.ports)?,
        };
        read.check().map_err(|error| error.within("service"))?;
        Ok(read)
    }
}

pub(crate) fn ports(ports: &[u32]) -> Result<Vec<u16>, WireError> {
    ports
        .iter()
        .map(|port| {
            u16::try_from(*port).map_err(|_| WireError::new("ports", format_args!("{port}: use 1 to 65535")))
        })
        .collect()
}

pub(crate) fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decky(name: &str) -> wire::Decky {
        wire::Decky {
            name: name.into(),
            deployment: "site".into(),
            network: "lan".into(),
            address: "10.77.0.20".into(),
            hostname: "intranet".into(),
            services: vec![wire::DeckyService {
                name: "ssh".into(),
                image: "picket-decoy:latest".into(),
                ports: vec![22],
                ..wire::DeckyService::default()
            }],
        }
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_named_and_the_others_count() {
        let mut bad = decky("web-02");
        bad.address = "10.77.0.999".into();
        let read = ReadShard::from(wire::ShardDocument {
            deckies: vec![decky("web-01"), bad],
            networks: Vec::new(),
        });
        assert_eq!(
            read.shard.deckies.keys().map(Name::as_str).collect::<Vec<_>>(),
            ["web-01"]
        );
        assert_eq!(read.skipped.len(), 1);
        assert_eq!(
            (read.skipped[0].0.as_str(), read.skipped[0].1.field.as_str()),
            ("web-02", "decky.address")
        );
    }

    #[test]
    fn a_shard_reads_back_as_it_was_written() {
        let read = ReadShard::from(wire::ShardDocument {
            deckies: vec![decky("web-01")],
            networks: vec![wire::DeckyNetwork {
                name: "lan".into(),
                driver: wire::DeckyDriver::Bridge.into(),
                subnet: "10.77.0.0/24".into(),
                ..wire::DeckyNetwork::default()
            }],
        });
        assert_eq!(
            ReadShard::from(wire::ShardDocument::from(&read.shard)).shard,
            read.shard
        );
    }
}
