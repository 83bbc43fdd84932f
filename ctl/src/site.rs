//! The site file: its shape, and nothing of its sense. Unknown keys and wrong types are refused here, with the line;
//! whether a name, an address or a host will do is the master's to say.

use std::{cell::Cell, collections::BTreeMap, fmt, marker::PhantomData};

use picket_proto::wire::admin as wire;
use serde::{
    Serialize,
    de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor},
};

/// The longest site file that is read: a thousand deckies have less than half of it.
pub(crate) const LONGEST: u64 = 1024 * 1024;

/// The most problems that are named at once.
const MOST_PROBLEMS: usize = 20;

/// What `picketctl deploy --help` says of the file.
pub(crate) const FORMAT: &str = "\
A site file is YAML:

  name: oslo                     # the deployment
  networks:                      # Docker networks, made on each host that has a decky on them
    - name: lan
      driver: bridge             # bridge, macvlan or ipvlan
      parent: eth1               # the interface, for macvlan and ipvlan
      subnet: 10.77.0.0/24
      gateway: 10.77.0.1         # optional
  deckies:
    - name: web-01
      host: edge-07              # where it runs
      network: lan
      address: 10.77.0.20        # inside the network's subnet
      hostname: intranet         # optional: what it calls itself, its name unless given
      services:                  # one container each, sharing the decky's address
        - name: ssh
          image: picket-decoy:latest
          command: [ssh]         # optional
          environment:           # optional
            TZ: Europe/Oslo
          ports: [22]

The file is the whole deployment: a decky that is not in it is removed.";

/// A deployment as an operator writes it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Site {
    pub(crate) name: String,
    networks: Vec<Network>,
    deckies: Vec<Decky>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Network {
    name: String,
    driver: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent: String,
    subnet: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    gateway: String,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Decky {
    name: String,
    host: String,
    network: String,
    address: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hostname: String,
    services: Vec<Service>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Service {
    name: String,
    image: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<u32>,
}

/// Everything that is wrong with a site file's shape.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct SiteFault(pub(crate) Vec<String>);

impl Site {
    /// Reads a site file.
    ///
    /// The parser knows where it is only while it is there, and stops at the first problem it is told of. So the file
    /// is read once per problem, each time looking past those that are known already.
    pub(crate) fn parse(text: &str) -> Result<Self, SiteFault> {
        let mut problems = Vec::new();
        loop {
            let past = Cell::new(problems.len());
            let read = One::<Self>::past(&past).deserialize(serde_norway::Deserializer::from_str(text));
            match read {
                Ok(site) if problems.is_empty() && site == Self::default() => {
                    return Err(SiteFault(vec!["there is nothing in it".to_owned()]));
                }
                Ok(site) if problems.is_empty() => return Ok(site),
                Ok(_) => return Err(SiteFault(problems)),
                Err(cause) => {
                    let problem = describe(&cause);
                    // What cannot be looked past comes again; nothing behind it can be read.
                    let stuck = problems.last() == Some(&problem);
                    if !stuck {
                        problems.push(problem);
                    }
                    if stuck || past.get() > 0 || problems.len() >= MOST_PROBLEMS {
                        return Err(SiteFault(problems));
                    }
                }
            }
        }
    }
}

/// The parser's sentence with the line in front, as compilers do.
fn describe(cause: &serde_norway::Error) -> String {
    let text = cause.to_string();
    let Some(place) = cause.location() else {
        return text;
    };
    let suffix = format!(" at line {} column {}", place.line(), place.column());
    format!("line {}: {}", place.line(), text.replacen(&suffix, "", 1))
}

/// A mapping with known keys.
trait Shape: Default {
    const WHAT: &'static str;
    const KEYS: &'static [&'static str];

    /// Reads the value of one of the keys.
    fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        past: &Cell<usize>,
    ) -> Result<(), A::Error>;
}

impl Shape for Site {
    const WHAT: &'static str = "a site";
    const KEYS: &'static [&'static str] = &["name", "networks", "deckies"];

    fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        past: &Cell<usize>,
    ) -> Result<(), A::Error> {
        match key {
            "name" => self.name = map.next_value()?,
            "networks" => self.networks = map.next_value_seed(Many::past(past))?,
            _ => self.deckies = map.next_value_seed(Many::past(past))?,
        }
        Ok(())
    }
}

impl Shape for Network {
    const WHAT: &'static str = "a network";
    const KEYS: &'static [&'static str] = &["name", "driver", "parent", "subnet", "gateway"];

    fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        _: &Cell<usize>,
    ) -> Result<(), A::Error> {
        match key {
            "name" => self.name = map.next_value()?,
            "driver" => self.driver = map.next_value()?,
            "parent" => self.parent = map.next_value()?,
            "subnet" => self.subnet = map.next_value()?,
            _ => self.gateway = map.next_value()?,
        }
        Ok(())
    }
}

impl Shape for Decky {
    const WHAT: &'static str = "a decky";
    const KEYS: &'static [&'static str] = &["name", "host", "network", "address", "hostname", "services"];

    fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        past: &Cell<usize>,
    ) -> Result<(), A::Error> {
        match key {
            "name" => self.name = map.next_value()?,
            "host" => self.host = map.next_value()?,
            "network" => self.network = map.next_value()?,
            "address" => self.address = map.next_value()?,
            "hostname" => self.hostname = map.next_value()?,
            _ => self.services = map.next_value_seed(Many::past(past))?,
        }
        Ok(())
    }
}

impl Shape for Service {
    const WHAT: &'static str = "a service";
    const KEYS: &'static [&'static str] = &["name", "image", "command", "environment", "ports"];

    fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        _: &Cell<usize>,
    ) -> Result<(), A::Error> {
        match key {
            "name" => self.name = map.next_value()?,
            "image" => self.image = map.next_value()?,
            "command" => self.command = map.next_value()?,
            "environment" => self.environment = map.next_value()?,
            _ => self.ports = map.next_value()?,
        }
        Ok(())
    }
}

/// Reads one mapping; `past` counts the problems that are still to be looked past.
struct One<'a, T> {
    past: &'a Cell<usize>,
    shape: PhantomData<T>,
}

impl<'a, T> One<'a, T> {
    fn past(past: &'a Cell<usize>) -> Self {
        Self {
            past,
            shape: PhantomData,
        }
    }
}

impl<'de, T: Shape> DeserializeSeed<'de> for One<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Shape> Visitor<'de> for One<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with the keys {}", T::WHAT, T::KEYS.join(", "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut read = T::default();
        let mut seen = Vec::new();
        while let Some(key) = map.next_key_seed(Key {
            what: T::WHAT,
            known: T::KEYS,
            seen: &seen,
            past: self.past,
        })? {
            match key {
                Some(key) => {
                    read.take(key, &mut map, self.past)?;
                    seen.push(key);
                }
                None => drop(map.next_value::<de::IgnoredAny>()?),
            }
        }
        Ok(read)
    }
}

/// Reads a list of mappings; an empty value is an empty list.
struct Many<'a, T> {
    past: &'a Cell<usize>,
    shape: PhantomData<T>,
}

impl<'a, T> Many<'a, T> {
    fn past(past: &'a Cell<usize>) -> Self {
        Self {
            past,
            shape: PhantomData,
        }
    }
}

impl<'de, T: Shape> DeserializeSeed<'de> for Many<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Shape> Visitor<'de> for Many<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list, each entry {}", T::WHAT)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = seq.next_element_seed(One::past(self.past))? {
            all.push(one);
        }
        Ok(all)
    }
}

/// Reads a key: one of the known ones, or nothing for a problem that is looked past.
struct Key<'a> {
    what: &'static str,
    known: &'static [&'static str],
    seen: &'a [&'static str],
    past: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}", self.known.join(", "))
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        let known = self.known.iter().copied().find(|known| *known == key);
        let problem = match known {
            Some(known) if self.seen.contains(&known) => format!("`{key}` stands twice in {}", self.what),
            Some(known) => return Ok(Some(known)),
            None => format!(
                "{} has no key `{key}`; it has {}",
                self.what,
                self.known.join(", ")
            ),
        };
        match self.past.get() {
            0 => Err(E::custom(problem)),
            more => {
                self.past.set(more - 1);
                Ok(None)
            }
        }
    }
}

impl From<Site> for wire::Site {
    fn from(site: Site) -> Self {
        let network = |network: Network| wire::SiteNetwork {
            name: network.name,
            driver: network.driver,
            parent: network.parent,
            subnet: network.subnet,
            gateway: network.gateway,
        };
        let service = |service: Service| wire::SiteService {
            name: service.name,
            image: service.image,
            command: service.command,
            environment: service.environment,
            ports: service.ports,
        };
        let decky = |decky: Decky| wire::SiteDecky {
            name: decky.name,
            host: decky.host,
            network: decky.network,
            address: decky.address,
            hostname: decky.hostname,
            services: decky.services.into_iter().map(service).collect(),
        };
        Self {
            name: site.name,
            networks: site.networks.into_iter().map(network).collect(),
            deckies: site.deckies.into_iter().map(decky).collect(),
        }
    }
}

impl From<wire::Site> for Site {
    fn from(site: wire::Site) -> Self {
        let network = |network: wire::SiteNetwork| Network {
            name: network.name,
            driver: network.driver,
            parent: network.parent,
            subnet: network.subnet,
            gateway: network.gateway,
        };
        let service = |service: wire::SiteService| Service {
            name: service.name,
            image: service.image,
            command: service.command,
            environment: service.environment.into_iter().collect(),
            ports: service.ports,
        };
        let decky = |decky: wire::SiteDecky| Decky {
            name: decky.name,
            host: decky.host,
            network: decky.network,
            address: decky.address,
            hostname: decky.hostname,
            services: decky.services.into_iter().map(service).collect(),
        };
        Self {
            name: site.name,
            networks: site.networks.into_iter().map(network).collect(),
            deckies: site.deckies.into_iter().map(decky).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../docs/examples/site.yaml");

    #[test]
    fn the_example_and_the_help_are_site_files() {
        let example = Site::parse(EXAMPLE).unwrap();
        assert!(!example.deckies.is_empty());
        let (_, indented) = FORMAT.split_once("\n\n").unwrap();
        let (indented, _) = indented.split_once("\n\nThe file").unwrap();
        assert_eq!(Site::parse(indented).unwrap().deckies.len(), 1);
    }

    #[test]
    fn what_is_printed_of_a_site_reads_back_as_that_site() {
        let example = Site::parse(EXAMPLE).unwrap();
        let printed = serde_norway::to_string(&example).unwrap();
        assert_eq!(Site::parse(&printed).unwrap(), example);
    }

    #[test]
    fn a_site_goes_over_the_wire_and_comes_back_the_same() {
        let example = || Site::parse(EXAMPLE).unwrap();
        assert_eq!(Site::from(wire::Site::from(example())), example());
    }

    #[test]
    fn every_unknown_key_is_named_with_its_line() {
        let wrong = "name: oslo\nnetwork: x\ndeckies:\n  - name: web-01\n    adress: 10.77.0.20\n    services:\n      - name: ssh\n        port: [22]\n        image: a\nname: bergen\n";
        insta::assert_snapshot!(Site::parse(wrong).unwrap_err(), @r"
        line 2: a site has no key `network`; it has name, networks, deckies
        line 5: deckies[0]: a decky has no key `adress`; it has name, host, network, address, hostname, services
        line 8: deckies[0].services[0]: a service has no key `port`; it has name, image, command, environment, ports
        line 10: `name` stands twice in a site
        ");
    }

    #[test]
    fn a_wrong_type_is_named_after_the_keys_before_it() {
        let wrong = "name: oslo\nextra: 1\ndeckies:\n  - name: web-01\n    services:\n      - ports: 22\n";
        insta::assert_snapshot!(Site::parse(wrong).unwrap_err(), @r"
        line 2: a site has no key `extra`; it has name, networks, deckies
        line 6: deckies[0].services[0].ports: invalid type: integer `22`, expected a sequence
        ");
    }

    #[test]
    fn what_is_no_yaml_or_no_mapping_is_refused() {
        for wrong in [
            "",
            "- a\n",
            "name: [",
            "deckies: oslo\n",
            "name: a\n---\nname: b\n",
        ] {
            let SiteFault(problems) = Site::parse(wrong).unwrap_err();
            assert_eq!(problems.len(), 1, "{wrong:?}: {problems:?}");
        }
    }

    #[test]
    fn no_file_keeps_the_parser_busy() {
        let many: String = (0..1000).map(|n| format!("key{n}: 1\n")).collect();
        assert_eq!(Site::parse(&many).unwrap_err().0.len(), MOST_PROBLEMS);
        let deep = "[".repeat(1000);
        assert!(Site::parse(&deep).is_err());
    }
}
