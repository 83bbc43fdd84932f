//! Deckies on real containers: hosts of a site that run some, and what the engine says of them.

use std::{fs, sync::Arc, time::Duration};

use super::{
    agent::{Agent, Deckies},
    engine::{Container, Engine},
    site::Site,
    wait::until,
};

/// How long deckies may take to be right. The image is there already.
const DECKIES_COME: Duration = Duration::from_secs(60);

/// Some hosts of a site, each with two deckies on a network of its own.
#[derive(Debug)]
pub struct Street {
    owners: Vec<String>,
    /// The engine of all of them.
    pub engine: Arc<Engine>,
}

impl Street {
    /// An engine, and no deckies yet.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        Self {
            owners: Vec::new(),
            engine: Engine::get(),
        }
    }

    /// A machine that may run deckies on the site's network `number`.
    #[must_use]
    #[track_caller]
    pub fn machine(&mut self, site: &Site, name: &str, number: u8) -> Agent {
        let deckies = Deckies {
            socket: self.engine.socket(),
            subnet: subnet(site, number, 0),
        };
        let agent = site.machine(name).with_deckies(deckies);
        drop(agent.enroll().ok());
        let id = site.master.host(name).expect("an enrolled host is shown")["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.owners.push(format!("picket.owner=example.org/{id}"));
        agent
    }

    /// Deploys two deckies on each of these hosts, in the order they were made, and waits until they run.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn deploy(&self, site: &Site, hosts: &[&str]) {
        let mut text = "name: street\nnetworks:\n".to_owned();
        for (number, _) in (0..).zip(hosts) {
            text.push_str(&format!(
                "  - {{ name: lan-{number}, driver: bridge, subnet: {} }}\n",
                subnet(site, number, 0)
            ));
        }
        text.push_str("deckies:\n");
        for (number, host) in (0..).zip(hosts) {
            for (name, service, port, last) in [("web", "http", 80, 20), ("nas", "ftp", 21, 21)] {
                let address = subnet(site, number, last).replace("/24", "");
                text.push_str(&format!(
                    "  - name: {name}-{number}\n    host: {host}\n    network: lan-{number}\n    address: {address}\n    services:\n      - {{ name: {service}, image: \"picket-decoy:latest\", command: [{service}], ports: [{port}] }}\n"
                ));
            }
        }
        let file = site.root().join("street.yaml");
        fs::write(&file, text).expect("a temporary file can be written");
        drop(
            site.master
                .ctl(&[
                    "deploy",
                    "apply",
                    "-f",
                    &file.display().to_string(),
                    "--within",
                    "90s",
                ])
                .ok(),
        );
        drop(self.until_running(4 * hosts.len()));
    }

    /// The containers of every host, by name.
    #[must_use]
    #[track_caller]
    pub fn containers(&self) -> Vec<Container> {
        let mut all: Vec<Container> = self
            .owners
            .iter()
            .flat_map(|owner| self.engine.containers(owner))
            .collect();
        all.sort();
        all
    }

    /// Waits until so many containers run, and none is there that does not.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn until_running(&self, count: usize) -> Vec<Container> {
        until(&format!("{count} containers to run"), DECKIES_COME, || {
            let all = self.containers();
            let right = all.len() == count && all.iter().all(|one| one.state == "running");
            if right { Ok(all) } else { Err(format!("{all:?}")) }
        })
    }
}

impl Default for Street {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Street {
    fn drop(&mut self) {
        for owner in &self.owners {
            self.engine.clear(owner);
        }
    }
}

/// A network that no other test has, as long as its process lives; `last` is the last part of the address.
fn subnet(site: &Site, number: u8, last: u8) -> String {
    let [_, own, high, low] = site.at().octets();
    format!("10.{}.{}.{last}/24", 128 | (high ^ own), low.wrapping_add(number))
}
