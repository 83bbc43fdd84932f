//! A site: what an operator wants deployed, as the admin API carries it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    WireError,
    field::parse,
    host::Name,
    shard::{Decky, DeckyNetwork, DeckyService, MOST_DECKIES, MOST_SERVICES, optional, ports, usable},
    wire::admin as wire,
};

/// The most problems that are named at once.
const MOST_COMPLAINTS: usize = 32;

/// A deployment as an operator wrote it, checked for everything that can be checked without knowing the hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// The deployment's name.
    pub name: Name,
    /// By name.
    pub networks: BTreeMap<Name, DeckyNetwork>,
    /// In the order they were written.
    pub deckies: Vec<Placed>,
}

/// A decky and the host it is to run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The host, by name.
    pub host: Name,
    /// The decky.
    pub decky: Decky,
}

/// Everything that is wrong with a site, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct SiteError(pub Vec<WireError>);

impl TryFrom<wire::Site> for Site {
    type Error = SiteError;

    fn try_from(site: wire::Site) -> Result<Self, SiteError> {
        let mut wrong = Vec::new();
        let deployment = parse::<Name>("name", &site.name)
            .map_err(|error| wrong.push(error))
            .ok();
        if site.deckies.len() > MOST_DECKIES {
            wrong.push(WireError::new(
                "deckies",
                format_args!("{} deckies, at most {MOST_DECKIES}", site.deckies.len()),
            ));
        }
        // A network that is wrong is there all the same: its deckies are not blamed for it.
        let (mut networks, mut broken) = (BTreeMap::new(), BTreeSet::new());
        for network in site.networks {
            let place = format!("network {}", shown(&network.name));
            let name = network.name.clone();
            match DeckyNetwork::try_from(network) {
                Ok(network) => {
                    if networks.insert(network.name.clone(), network).is_some() {
                        wrong.push(WireError::new(
                            place,
                            "this name stands twice; rename one of them",
                        ));
                    }
                }
                Err(error) => {
                    broken.insert(name);
                    wrong.push(error.within(&place));
                }
            }
        }
        let fallback = || "unnamed".parse::<Name>().expect("a literal that is a name");
        let deployment_name = deployment.clone().unwrap_or_else(fallback);
        let (mut names, mut addresses) = (BTreeMap::new(), BTreeSet::new());
        let mut deckies = Vec::new();
        for decky in site.deckies.into_iter().take(MOST_DECKIES) {
            let place = format!("decky {}", shown(&decky.name));
            let placed = match placed(decky, &deployment_name) {
                Ok(placed) => placed,
                Err(error) => {
                    wrong.push(error.within(&place));
                    continue;
                }
            };
            let Placed { host, decky } = &placed;
            if let Some(other) = names.insert(decky.name.clone(), host.clone()) {
                wrong.push(WireError::new(
                    place.as_str(),
                    format_args!("this name stands twice, on {other} and on {host}; rename one of them"),
                ));
            }
            match networks.get(&decky.network) {
                None if broken.contains(decky.network.as_str()) => {}
                None => wrong.push(WireError::new(
                    format!("{place}.network"),
                    format_args!("there is no network `{}` in this site", decky.network),
                )),
                Some(network) => {
                    if !usable(&network.subnet, decky.address) {
                        wrong.push(WireError::new(
                            format!("{place}.address"),
                            format_args!("{} is not an address inside {}", decky.address, network.subnet),
                        ));
                    }
                    if network.gateway == Some(decky.address) {
                        wrong.push(WireError::new(
                            format!("{place}.address"),
                            format_args!("{} is the gateway of {}", decky.address, network.name),
                        ));
                    }
                }
            }
            if !addresses.insert((decky.network.clone(), decky.address)) {
                wrong.push(WireError::new(
                    format!("{place}.address"),
                    format_args!(
                        "{} stands twice on {}; choose another",
                        decky.address, decky.network
                    ),
                ));
            }
            deckies.push(placed);
        }
        match deployment {
            Some(name) if wrong.is_empty() => Ok(Self {
                name,
                networks,
                deckies,
            }),
            Some(_) | None => {
                wrong.truncate(MOST_COMPLAINTS);
                Err(SiteError(wrong))
            }
        }
    }
}

fn shown(name: &str) -> String {
    if name.is_empty() {
        "(without a name)".to_owned()
    } else {
        name.chars().take(63).collect()
    }
}

fn placed(decky: wire::SiteDecky, deployment: &Name) -> Result<Placed, WireError> {
    if decky.services.is_empty() || decky.services.len() > MOST_SERVICES {
        return Err(WireError::new(
            "services",
            format_args!("a decky has 1 to {MOST_SERVICES} services"),
        ));
    }
    let name: Name = parse("name", &decky.name)?;
    let mut services = Vec::with_capacity(decky.services.len());
    let mut names = BTreeSet::new();
    for service in decky.services {
        let place = format!("service {}", shown(&service.name));
        let service = DeckyService::try_from(service).map_err(|error| error.within(&place))?;
        if !names.insert(service.name.clone()) {
            return Err(WireError::new(place, "this name stands twice in the decky"));
        }
        services.push(service);
    }
    Ok(Placed {
        host: parse("host", &decky.host)?,
        decky: Decky {
            deployment: deployment.clone(),
            network: parse("network", &decky.network)?,
            address: parse("address", &decky.address)?,
            hostname: match optional(decky.hostname) {
                Some(hostname) => parse("hostname", &hostname)?,
                None => name.clone(),
            },
            name,
            services,
        },
    })
}

impl TryFrom<wire::SiteNetwork> for DeckyNetwork {
    type Error = WireError;

    fn try_from(network: wire::SiteNetwork) -> Result<Self, WireError> {
        let read = Self {
            name: parse("name", &network.name)?,
            driver: network.driver.parse()?,
            parent: optional(network.parent),
            subnet: parse("subnet", &network.subnet)?,
            gateway: optional(network.gateway)
                .map(|gateway| parse("gateway", &gateway))
                .transpose()?,
        };
        if read.subnet.trunc() != read.subnet {
            return Err(WireError::new(
                "subnet",
                format_args!("{} has host bits set; write {}", read.subnet, read.subnet.trunc()),
            ));
        }
        read.check()?;
        Ok(read)
    }
}

impl TryFrom<wire::SiteService> for DeckyService {
    type Error = WireError;

    fn try_from(service: wire::SiteService) -> Result<Self, WireError> {
        let read = Self {
            name: parse("name", &service.name)?,
            image: service.image,
            command: service.command,
            environment: service.environment.into_iter().collect(),
            ports: ports(&service.ports)?,
        };
        read.check()?;
        Ok(read)
    }
}

impl From<&Site> for wire::Site {
    fn from(site: &Site) -> Self {
        let network = |network: &DeckyNetwork| wire::SiteNetwork {
            name: network.name.to_string(),
            driver: network.driver.to_string(),
            parent: network.parent.clone().unwrap_or_default(),
            subnet: network.subnet.to_string(),
            gateway: network
                .gateway
                .map(|gateway| gateway.to_string())
                .unwrap_or_default(),
        };
        let service = |service: &DeckyService| wire::SiteService {
            name: service.name.to_string(),
            image: service.image.clone(),
            command: service.command.clone(),
            environment: service.environment.clone().into_iter().collect(),
            ports: service.ports.iter().map(|port| u32::from(*port)).collect(),
        };
        let decky = |Placed { host, decky }: &Placed| wire::SiteDecky {
            name: decky.name.to_string(),
            host: host.to_string(),
            network: decky.network.to_string(),
            address: decky.address.to_string(),
            hostname: decky.hostname.to_string(),
            services: decky.services.iter().map(service).collect(),
        };
        Self {
            name: site.name.to_string(),
            networks: site.networks.values().map(network).collect(),
            deckies: site.deckies.iter().map(decky).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> wire::Site {
        let decky = |name: &str, address: &str| wire::SiteDecky {
            name: name.into(),
            host: "edge-07".into(),
            network: "lan".into(),
            address: address.into(),
            hostname: String::new(),
            services: vec![wire::SiteService {
                name: "ssh".into(),
                image: "picket-decoy:latest".into(),
                ports: vec![22],
                ..wire::SiteService::default()
            }],
        };
        wire::Site {
            name: "oslo".into(),
            networks: vec![wire::SiteNetwork {
                name: "lan".into(),
                driver: "bridge".into(),
                subnet: "10.77.0.0/24".into(),
                gateway: "10.77.0.1".into(),
                ..wire::SiteNetwork::default()
            }],
            deckies: vec![decky("web-01", "10.77.0.20"), decky("web-02", "10.77.0.21")],
        }
    }

    #[test]
    fn a_site_reads_back_as_it_was_written() {
        let read = Site::try_from(site()).unwrap();
        assert_eq!(Site::try_from(wire::Site::from(&read)).unwrap(), read);
    }

    #[test]
    fn a_network_that_is_wrong_is_not_said_to_be_missing() {
        let mut bad = site();
        bad.networks[0].gateway = "192.0.2.1".into();
        let SiteError(wrong) = Site::try_from(bad).unwrap_err();
        let fields: Vec<_> = wrong.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["network lan.gateway"]);
    }

    #[test]
    fn every_problem_of_a_site_is_named_at_once() {
        let mut bad = site();
        bad.deckies[1].name = "web-01".into();
        bad.deckies[1].address = "10.78.0.1".into();
        bad.deckies.push(bad.deckies[0].clone());
        bad.deckies[2].name = "web-03".into();
        bad.networks[0].gateway = "10.77.0.20".into();
        let SiteError(wrong) = Site::try_from(bad).unwrap_err();
        let fields: Vec<_> = wrong.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "decky web-01.address",
                "decky web-01",
                "decky web-01.address",
                "decky web-03.address",
                "decky web-03.address"
            ]
        );
    }
}
