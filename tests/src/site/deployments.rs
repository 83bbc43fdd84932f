//! What an operator does with deckies.

use std::collections::BTreeMap;

use picket_proto::wire::admin::{
    ApplyDeploymentRequest, Change, Decky, DeckyState, GetDeploymentRequest, GetDeploymentResponse,
    ListDeckiesRequest, RemoveDeploymentRequest, Site as SiteFile, SiteDecky, SiteNetwork, SiteService,
    decky_service_client::DeckyServiceClient, deployment_service_client::DeploymentServiceClient,
};
use tonic::Status;

use super::{Site, until};
use crate::host::IMAGE;

/// What an operator writes in a site file.
#[derive(Debug, Clone)]
pub struct Branch(SiteFile);

impl Default for Branch {
    fn default() -> Self {
        Self::new("branch", 1)
    }
}

impl Branch {
    /// A site without deckies, on the subnet `10.77.N.0/24`.
    #[must_use]
    pub fn new(name: &str, subnet: u8) -> Self {
        let lan = SiteNetwork {
            name: "lan".to_owned(),
            driver: "bridge".to_owned(),
            subnet: format!("10.77.{subnet}.0/24"),
            ..Default::default()
        };
        Self(SiteFile {
            name: name.to_owned(),
            networks: vec![lan],
            deckies: Vec::new(),
        })
    }

    /// The site with one more decky, an ssh server.
    #[must_use]
    pub fn decky(self, name: &str, host: &str) -> Self {
        self.decky_of(name, host, IMAGE)
    }

    /// The site with one more decky, of an image.
    #[must_use]
    pub fn decky_of(mut self, name: &str, host: &str, image: &str) -> Self {
        let subnet = self.0.networks[0].subnet.trim_end_matches("0/24").to_owned();
        let ssh = SiteService {
            name: "ssh".to_owned(),
            image: image.to_owned(),
            command: vec!["ssh".to_owned()],
            ports: vec![22],
            ..Default::default()
        };
        self.0.deckies.push(SiteDecky {
            name: name.to_owned(),
            host: host.to_owned(),
            network: "lan".to_owned(),
            address: format!("{subnet}{}", 20 + self.0.deckies.len()),
            services: vec![ssh],
            ..Default::default()
        });
        self
    }
}

impl Site {
    /// Applies a site, and returns what that changes.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_deploy(&self, branch: &Branch) -> Result<Vec<Change>, Status> {
        let asked = ApplyDeploymentRequest {
            site: Some(branch.0.clone()),
        };
        let answer = self.ask(async |channel| {
            DeploymentServiceClient::new(channel)
                .apply_deployment(asked)
                .await
        });
        Ok(answer.await?.changes)
    }

    /// Applies a site, and returns what that changes.
    pub async fn deploy(&self, branch: &Branch) -> Vec<Change> {
        self.try_deploy(branch)
            .await
            .unwrap_or_else(|status| panic!("deploy: {}", status.message()))
    }

    /// Removes a deployment.
    pub async fn remove_deployment(&self, name: &str) -> Vec<Change> {
        let asked = RemoveDeploymentRequest {
            name: name.to_owned(),
        };
        self.told(async |channel| {
            DeploymentServiceClient::new(channel)
                .remove_deployment(asked)
                .await
        })
        .await
        .changes
    }

    /// One deployment.
    pub async fn deployment(&self, name: &str) -> GetDeploymentResponse {
        let asked = GetDeploymentRequest {
            name: name.to_owned(),
        };
        self.told(async |channel| DeploymentServiceClient::new(channel).get_deployment(asked).await)
            .await
    }

    /// All deckies.
    pub async fn deckies(&self) -> Vec<Decky> {
        let asked = ListDeckiesRequest::default();
        self.told(async |channel| DeckyServiceClient::new(channel).list_deckies(asked).await)
            .await
            .deckies
    }

    /// Waits until there are exactly these deckies and all are in a state, and returns the ids of their containers.
    pub async fn until_deckies(&self, names: &[&str], state: DeckyState) -> BTreeMap<String, Vec<String>> {
        until(&format!("{names:?} to be {state:?}"), async || {
            let deckies = self.deckies().await;
            let mut seen: Vec<_> = deckies.iter().map(|decky| decky.name.as_str()).collect();
            let mut wanted = names.to_vec();
            seen.sort_unstable();
            wanted.sort_unstable();
            if seen != wanted || deckies.iter().any(|decky| decky.state() != state) {
                let shown = deckies
                    .iter()
                    .map(|decky| format!("{} {:?} {}", decky.name, decky.state(), decky.problem));
                return Err(shown.collect::<Vec<_>>().join(", "));
            }
            Ok(deckies
                .into_iter()
                .map(|decky| (decky.name.clone(), containers(decky)))
                .collect())
        })
        .await
    }

    /// Waits until one decky is in a state, and returns what is wrong with it.
    pub async fn until_decky(&self, name: &str, state: DeckyState) -> String {
        until(&format!("{name} to be {state:?}"), async || {
            let decky = self.deckies().await.into_iter().find(|decky| decky.name == name);
            match decky {
                Some(decky) if decky.state() == state => Ok(decky.problem),
                Some(decky) => Err(format!("{:?}: {}", decky.state(), decky.problem)),
                None => Err("it is not there".to_owned()),
            }
        })
        .await
    }
}

fn containers(decky: Decky) -> Vec<String> {
    let services = decky.services.into_iter().map(|service| service.container_id);
    std::iter::once(decky.container_id).chain(services).collect()
}
