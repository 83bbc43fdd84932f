//! How each container and network is to look, computed from the shard. Pure.
//!
//! A form carries a hash over everything in it that the shard decides; an object is right when it carries the same
//! hash in its label. What is the same for every container (limits, capabilities, logs) is not in the hash but under
//! [`FORM_VERSION`], so that an agent with other limits restarts deckies only when its authors mean it to.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use data_encoding::HEXLOWER;
use picket_proto::{
    host::Name,
    shard::{Decky, DeckyNetwork, DeckyService, Shard},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Owner;

/// Part of every hash. Another number recreates every container when the agent is updated.
pub const FORM_VERSION: u32 = 1;

/// The label keys of our objects.
pub mod label {
    /// The trust domain and host that made it.
    pub const OWNER: &str = "picket.owner";
    /// The deployment.
    pub const DEPLOYMENT: &str = "picket.deployment";
    /// The decky.
    pub const DECKY: &str = "picket.decky";
    /// `base` or `service`.
    pub const ROLE: &str = "picket.role";
    /// The service's name; only on services.
    pub const SERVICE: &str = "picket.service";
    /// The network's name; only on networks.
    pub const NETWORK: &str = "picket.network";
    /// The hash of the form.
    pub const FORM: &str = "picket.form";
    /// When the base was started whose namespace a service was made to join; only on services of a base that ran.
    pub const BASE_STARTED: &str = "picket.base-started";
    /// On an image: `true` when its containers need no writable file system.
    pub const READ_ONLY: &str = "picket.read-only";
}

/// What holds a decky's network namespace: an image of the agent's own configuration, and how to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// The image.
    pub image: String,
    /// Arguments after its entry point.
    pub command: Vec<String>,
}

impl Default for BaseImage {
    fn default() -> Self {
        Self {
            image: "picket-decoy:latest".to_owned(),
            command: vec!["base".to_owned()],
        }
    }
}

/// Every object of a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forms {
    /// By decky.
    pub deckies: BTreeMap<Name, DeckyForm>,
    /// By network.
    pub networks: BTreeMap<Name, NetworkForm>,
}

/// The containers of one decky.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeckyForm {
    /// Its deployment.
    pub deployment: Name,
    /// The network it lives on.
    pub network: Name,
    /// Its address there.
    pub address: Ipv4Addr,
    /// The container that holds address and namespace.
    pub base: ContainerForm,
    /// In the order they are started.
    pub services: Vec<(Name, ContainerForm)>,
}

/// What a container is to its decky.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Holds the address and the network namespace.
    Base,
    /// Runs one service inside it.
    Service(Name),
}

/// One container.
#[derive(Clone, PartialEq, Eq)]
pub struct ContainerForm {
    /// As Docker calls it.
    pub docker_name: String,
    /// The decky.
    pub decky: Name,
    /// What it is to the decky.
    pub role: Role,
    /// The image.
    pub image: String,
    /// Arguments after the image's entry point; empty for the image's own.
    pub command: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Where it lives.
    pub place: Place,
    /// Every label.
    pub labels: BTreeMap<String, String>,
}

/// Where a container lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At an address of its own.
    Network {
        /// As Docker calls it.
        network: String,
        /// Fixed.
        address: Ipv4Addr,
        /// What the machine calls itself.
        hostname: Name,
    },
    /// In the base's network namespace.
    Base,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkForm {
    /// As Docker calls it.
    pub docker_name: String,
    /// What it is to be.
    pub network: DeckyNetwork,
    /// Every label.
    pub labels: BTreeMap<String, String>,
}

/// Without the values of the environment and the arguments, which may be what a decoy has to hide.
impl fmt::Debug for ContainerForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerForm")
            .field("docker_name", &self.docker_name)
            .field("decky", &self.decky)
            .field("role", &self.role)
            .field("image", &self.image)
            .field("hash", &self.hash())
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl ContainerForm {
    /// The hash in its label.
    #[must_use]
    pub fn hash(&self) -> &str {
        self.labels.get(label::FORM).map_or("", String::as_str)
    }
}

impl NetworkForm {
    /// The hash in its label.
    #[must_use]
    pub fn hash(&self) -> &str {
        self.labels.get(label::FORM).map_or("", String::as_str)
    }
}

impl DeckyForm {
    /// One hash for the whole decky, by which a failure is remembered.
    #[must_use]
    pub fn hash(&self) -> String {
        let hashes: Vec<&str> = std::iter::once(&self.base)
            .chain(self.services.iter().map(|(_, form)| form))
            .map(ContainerForm::hash)
            .collect();
        hash(&hashes)
    }

    /// Its containers, the base first.
    pub fn containers(&self) -> impl Iterator<Item = &ContainerForm> {
        std::iter::once(&self.base).chain(self.services.iter().map(|(_, form)| form))
    }
}

/// The forms of a shard.
#[must_use]
pub fn forms(shard: &Shard, owner: &Owner, base: &BaseImage) -> Forms {
    let deckies = shard
        .deckies
        .values()
        .map(|decky| (decky.name.clone(), decky_form(decky, owner, base)))
        .collect();
    let networks = shard
        .networks
        .values()
        .map(|network| {
            let labels = BTreeMap::from([
                (label::OWNER.to_owned(), owner.label()),
                (label::NETWORK.to_owned(), network.name.to_string()),
                (label::FORM.to_owned(), hash(network)),
            ]);
            let docker_name = network_name(owner, &network.name);
            (
                network.name.clone(),
                NetworkForm {
                    docker_name,
                    network: network.clone(),
                    labels,
                },
            )
        })
        .collect();
    Forms { deckies, networks }
}

fn decky_form(decky: &Decky, owner: &Owner, base: &BaseImage) -> DeckyForm {
    let labels = |role: &str, hash: String| {
        BTreeMap::from([
            (label::OWNER.to_owned(), owner.label()),
            (label::DEPLOYMENT.to_owned(), decky.deployment.to_string()),
            (label::DECKY.to_owned(), decky.name.to_string()),
            (label::ROLE.to_owned(), role.to_owned()),
            (label::FORM.to_owned(), hash),
        ])
    };
    let network = network_name(owner, &decky.network);
    let base_name = format!("{}-{}", owner.prefix(), decky.name);
    let base_form = ContainerForm {
        docker_name: base_name.clone(),
        decky: decky.name.clone(),
        role: Role::Base,
        image: base.image.clone(),
        command: base.command.clone(),
        environment: BTreeMap::new(),
        labels: labels(
            "base",
            hash(&(
                &base.image,
                &base.command,
                &decky.deployment,
                &decky.network,
                decky.address,
                &decky.hostname,
            )),
        ),
        place: Place::Network {
            network,
            address: decky.address,
            hostname: decky.hostname.clone(),
        },
    };
    let service_form = |service: &DeckyService| {
        let mut labels = labels("service", hash(&(&decky.deployment, service)));
        labels.insert(label::SERVICE.to_owned(), service.name.to_string());
        let form = ContainerForm {
            // A name has no underscore, so that the service `b` of `a` is never called like the decky `a-b`.
            docker_name: format!("{base_name}_{}", service.name),
            decky: decky.name.clone(),
            role: Role::Service(service.name.clone()),
            image: service.image.clone(),
            command: service.command.clone(),
            environment: service.environment.clone(),
            place: Place::Base,
            labels,
        };
        (service.name.clone(), form)
    };
    DeckyForm {
        deployment: decky.deployment.clone(),
        network: decky.network.clone(),
        address: decky.address,
        base: base_form,
        services: decky.services.iter().map(service_form).collect(),
    }
}

fn network_name(owner: &Owner, network: &Name) -> String {
    format!("{}-{network}", owner.prefix())
}

fn hash(value: &impl Serialize) -> String {
    let canonical = serde_json::to_vec(&(FORM_VERSION, value)).expect("names, strings and numbers");
    HEXLOWER.encode(&Sha256::digest(canonical))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deckies::plan::tests::{owner, shard};

    #[test]
    fn a_hash_changes_with_what_it_covers_and_with_nothing_else() {
        let before = forms(&shard(2), &owner(), &BaseImage::default());
        let mut changed = shard(2);
        let decky = changed.deckies.get_mut(&"decky-01".parse().unwrap()).unwrap();
        decky.services[0]
            .environment
            .insert("LANG".to_owned(), "C".to_owned());
        let after = forms(&changed, &owner(), &BaseImage::default());
        let (first, second) = ("decky-00".parse().unwrap(), "decky-01".parse().unwrap());
        assert_eq!(before.deckies[&first], after.deckies[&first]);
        assert_eq!(before.deckies[&second].base, after.deckies[&second].base);
        assert_ne!(
            before.deckies[&second].services[0].1.hash(),
            after.deckies[&second].services[0].1.hash()
        );
        assert_ne!(before.deckies[&second].hash(), after.deckies[&second].hash());
    }

    #[test]
    fn what_is_logged_of_a_form_is_neither_its_arguments_nor_its_environment() {
        let mut shard = shard(1);
        let service = &mut shard.deckies.values_mut().next().unwrap().services[0];
        service
            .environment
            .insert("PASSWORD".to_owned(), "hunter2".to_owned());
        service.command = vec!["--token=geheim".to_owned()];
        let said = format!("{:?}", forms(&shard, &owner(), &BaseImage::default()));
        assert!(
            said.contains("decky-00_ssh") && !said.contains("hunter2") && !said.contains("geheim"),
            "{said}"
        );
    }

    #[test]
    fn no_two_containers_of_a_shard_share_a_name_in_docker() {
        let mut shard = shard(1);
        let decky = shard.deckies.values().next().unwrap().clone();
        for (name, service) in [("a", "b-c"), ("a-b", "c"), ("a-b-c", "d")] {
            let mut decky = decky.clone();
            decky.name = name.parse().unwrap();
            decky.services[0].name = service.parse().unwrap();
            shard.deckies.insert(decky.name.clone(), decky);
        }
        let forms = forms(&shard, &owner(), &BaseImage::default());
        let mut names: Vec<_> = forms
            .deckies
            .values()
            .flat_map(DeckyForm::containers)
            .map(|form| &form.docker_name)
            .collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
