//! Deployments: what is wanted where, and what an apply would change.

use std::collections::{BTreeMap, BTreeSet};

use picket_proto::{
    host::{HostId, Name},
    shard::{Decky, DeckyNetwork, Shard},
    site::{Placed, Site},
};

use crate::{record::DeploymentRecord, store::Revision};

/// A deployment's record and the revision that wrote it.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// As stored.
    pub record: DeploymentRecord,
    /// Of the last write.
    pub revision: Revision,
}

/// Every deployment, removed ones included.
#[derive(Debug, Default)]
pub struct Deployments {
    all: BTreeMap<Name, Deployment>,
    newest: Revision,
}

/// What an apply does to one decky.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Add,
    /// It is made anew in another form.
    Replace,
    /// It goes away.
    Remove,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happens.
    pub action: Action,
    /// Where.
    pub host: Name,
    /// To what.
    pub decky: Name,
    /// What differs.
    pub detail: String,
}

impl Deployments {
    /// Takes in a deployment's record. Returns the hosts whose shard may have changed.
    pub fn put(&mut self, record: DeploymentRecord, revision: Revision) -> BTreeSet<HostId> {
        self.newest = self.newest.max(revision);
        let mut hosts: BTreeSet<_> = record.hosts.values().copied().collect();
        let name = record.name.clone();
        if let Some(old) = self.all.insert(name, Deployment { record, revision }) {
            hosts.extend(old.record.hosts.values());
        }
        hosts
    }

    /// A deployment that stands.
    #[must_use]
    pub fn standing(&self, name: &Name) -> Option<(&Deployment, &Site)> {
        let deployment = self.all.get(name)?;
        deployment.record.site.as_ref().map(|site| (deployment, site))
    }

    /// A deployment, removed or not.
    #[must_use]
    pub fn any(&self, name: &Name) -> Option<&Deployment> {
        self.all.get(name)
    }

    /// Every deployment that stands, by name.
    pub fn all(&self) -> impl Iterator<Item = (&Deployment, &Site)> {
        self.all
            .values()
            .filter_map(|deployment| deployment.record.site.as_ref().map(|site| (deployment, site)))
    }

    /// The revision of the newest change of any deployment; it numbers every shard document.
    #[must_use]
    pub fn newest(&self) -> Revision {
        self.newest
    }

    /// The deckies a host is to run.
    pub fn of_host(&self, host: HostId) -> impl Iterator<Item = (&Decky, &DeckyNetwork)> {
        self.all().flat_map(move |(deployment, site)| {
            site.deckies.iter().filter_map(move |placed| {
                let here = deployment.record.hosts.get(&placed.host) == Some(&host);
                let network = site.networks.get(&placed.decky.network)?;
                here.then_some((&placed.decky, network))
            })
        })
    }

    /// What a host is to run, complete.
    #[must_use]
    pub fn shard(&self, host: HostId) -> Shard {
        let mut shard = Shard::default();
        for (decky, network) in self.of_host(host) {
            shard.deckies.insert(decky.name.clone(), decky.clone());
            shard.networks.insert(network.name.clone(), network.clone());
        }
        shard
    }

    /// What stands in the way of `site` on its hosts: names and addresses that other deployments have there.
    #[must_use]
    pub fn conflicts(&self, site: &Site, hosts: &BTreeMap<Name, HostId>) -> Vec<String> {
        let mut found = Vec::new();
        for (other, theirs) in self.all().filter(|(other, _)| other.record.name != site.name) {
            let name = &other.record.name;
            for Placed { host, decky } in &site.deckies {
                let id = hosts.get(host);
                let mut there = theirs
                    .deckies
                    .iter()
                    .filter(|p| other.record.hosts.get(&p.host) == id && id.is_some());
                if there.clone().any(|placed| placed.decky.name == decky.name) {
                    found.push(format!(
                        "decky {}: deployment {name} has one of this name on {host}; rename it",
                        decky.name
                    ));
                }
                if let Some(taken) =
                    there.find(|p| p.decky.address == decky.address && p.decky.network == decky.network)
                {
                    found.push(format!(
                        "decky {}.address: {} is {} of deployment {name} on {host}; choose another",
                        decky.name, decky.address, taken.decky.name
                    ));
                }
            }
            for (network, ours) in &site.networks {
                let shared = theirs.networks.get(network).filter(|their| *their != ours);
                let meet = hosts
                    .values()
                    .any(|id| other.record.hosts.values().any(|their| their == id));
                if shared.is_some() && meet {
                    found.push(format!(
                        "network {network}: deployment {name} has one of this name with other settings on the same host; rename it"
                    ));
                }
            }
        }
        found
    }
}

/// What it takes to go from one site to another; nothing when they are the same.
#[must_use]
pub fn plan(from: Option<&Site>, to: Option<&Site>) -> Vec<Change> {
    let by_key = |site: Option<&Site>| -> BTreeMap<(Name, Name), (Decky, Option<DeckyNetwork>)> {
        let placed = |site: &Site, placed: &Placed| {
            let network = site.networks.get(&placed.decky.network).cloned();
            (
                (placed.host.clone(), placed.decky.name.clone()),
                (placed.decky.clone(), network),
            )
        };
        site.iter()
            .flat_map(|site| site.deckies.iter().map(|p| placed(site, p)))
            .collect()
    };
    let (have, want) = (by_key(from), by_key(to));
    let keys: BTreeSet<_> = have.keys().chain(want.keys()).collect();
    let change = |key: &&(Name, Name)| {
        let (action, detail) = match (have.get(*key), want.get(*key)) {
            (None, Some((decky, _))) => (Action::Add, described(decky)),
            (Some((decky, _)), None) => (Action::Remove, described(decky)),
            (Some(old), Some(new)) if old != new => (Action::Replace, difference(old, new)),
            (Some(_), Some(_)) | (None, None) => return None,
        };
        Some(Change {
            action,
            host: key.0.clone(),
            decky: key.1.clone(),
            detail,
        })
    };
    keys.iter().filter_map(change).collect()
}

fn described(decky: &Decky) -> String {
    let services: Vec<_> = decky
        .services
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    format!("{} with {}", decky.address, services.join(", "))
}

fn difference(old: &(Decky, Option<DeckyNetwork>), new: &(Decky, Option<DeckyNetwork>)) -> String {
    let mut parts = Vec::new();
    let mut note = |what: &str, a: String, b: String| {
        if a != b {
            parts.push(format!("{what} {a} → {b}"));
        }
    };
    note("address", old.0.address.to_string(), new.0.address.to_string());
    note("hostname", old.0.hostname.to_string(), new.0.hostname.to_string());
    note("network", old.0.network.to_string(), new.0.network.to_string());
    if old.1 != new.1 && old.0.network == new.0.network {
        parts.push("network settings".to_owned());
    }
    if old.0.services != new.0.services {
        parts.push("services".to_owned());
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use picket_proto::shard::{DeckyService, Driver};
    use uuid::Uuid;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn site(deployment: &str, deckies: &[(&str, &str, &str)]) -> Site {
        let network = DeckyNetwork {
            name: name("lan"),
            driver: Driver::Bridge,
            parent: None,
            subnet: "10.77.0.0/24".parse().unwrap(),
            gateway: None,
        };
        let placed = |(host, decky, address): &(&str, &str, &str)| Placed {
            host: name(host),
            decky: Decky {
                name: name(decky),
                deployment: name(deployment),
                network: name("lan"),
                address: address.parse().unwrap(),
                hostname: name(decky),
                services: vec![DeckyService {
                    name: name("ssh"),
                    image: "picket-decoy:latest".into(),
                    command: Vec::new(),
                    environment: BTreeMap::new(),
                    ports: vec![22],
                }],
            },
        };
        Site {
            name: name(deployment),
            networks: BTreeMap::from([(name("lan"), network)]),
            deckies: deckies.iter().map(placed).collect(),
        }
    }

    fn record(site: Site, hosts: &[(&str, u128)]) -> DeploymentRecord {
        DeploymentRecord {
            name: site.name.clone(),
            revision: 1,
            site: Some(site),
            hosts: hosts
                .iter()
                .map(|(host, id)| (name(host), HostId(Uuid::from_u128(*id))))
                .collect(),
            at: jiff::Timestamp::UNIX_EPOCH,
            by: "ada".into(),
        }
    }

    #[test]
    fn applying_the_same_site_again_has_nothing_to_do() {
        let oslo = site("oslo", &[("edge", "web-01", "10.77.0.20")]);
        assert_eq!(plan(Some(&oslo), Some(&oslo.clone())), []);
    }

    #[test]
    fn a_plan_names_what_is_added_replaced_and_removed_and_leaves_the_rest() {
        let before = site(
            "oslo",
            &[
                ("edge", "a", "10.77.0.20"),
                ("edge", "b", "10.77.0.21"),
                ("edge", "c", "10.77.0.22"),
            ],
        );
        let after = site(
            "oslo",
            &[
                ("edge", "b", "10.77.0.31"),
                ("edge", "c", "10.77.0.22"),
                ("edge", "d", "10.77.0.23"),
            ],
        );
        let lines: Vec<_> = plan(Some(&before), Some(&after))
            .into_iter()
            .map(|c| (c.decky.to_string(), c.action))
            .collect();
        assert_eq!(
            lines,
            [
                ("a".into(), Action::Remove),
                ("b".into(), Action::Replace),
                ("d".into(), Action::Add)
            ]
        );
    }

    #[test]
    fn a_shard_has_every_decky_of_its_host_and_no_other() {
        let mut deployments = Deployments::default();
        let hosts = [("edge", 1), ("other", 2)];
        deployments.put(
            record(
                site(
                    "oslo",
                    &[("edge", "a", "10.77.0.20"), ("other", "b", "10.77.0.21")],
                ),
                &hosts,
            ),
            Revision(1),
        );
        let shard = deployments.shard(HostId(Uuid::from_u128(1)));
        assert_eq!(shard.deckies.keys().map(Name::as_str).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_removed_deployment_leaves_no_decky_and_its_hosts_are_told() {
        let mut deployments = Deployments::default();
        let applied = record(site("oslo", &[("edge", "a", "10.77.0.20")]), &[("edge", 1)]);
        deployments.put(applied.clone(), Revision(1));
        let told = deployments.put(
            DeploymentRecord {
                site: None,
                hosts: BTreeMap::new(),
                ..applied
            },
            Revision(2),
        );
        let edge = HostId(Uuid::from_u128(1));
        assert_eq!(told, BTreeSet::from([edge]));
        assert!(deployments.shard(edge).deckies.is_empty());
        assert_eq!(deployments.newest(), Revision(2));
    }

    #[test]
    fn two_deployments_cannot_have_the_same_decky_or_address_on_one_host() {
        let mut deployments = Deployments::default();
        let hosts = [("edge", 1)];
        deployments.put(
            record(site("oslo", &[("edge", "a", "10.77.0.20")]), &hosts),
            Revision(1),
        );
        let second = site(
            "bergen",
            &[("edge", "a", "10.77.0.21"), ("edge", "b", "10.77.0.20")],
        );
        let ids = BTreeMap::from([(name("edge"), HostId(Uuid::from_u128(1)))]);
        let found = deployments.conflicts(&second, &ids);
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
