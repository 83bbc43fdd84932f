//! The controller that is built into every service: the networks whose id starts with its own node id.
//!
//! For others it would store what it is told and never serve it, so the prefix is checked before anything is sent.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Controller, Readiness};
use crate::{
    ids::{NetworkId, NodeId},
    member::{Member, MemberChange, Members},
    network::Network,
    service::{Ask, Error, Service},
    settings::{NetworkSettings, NewNetwork},
};

/// How long the deletion of a network may take: the service revokes what each authorized member holds before it answers,
/// which took it 18 s for 10,000 of them.
const DELETION: Duration = Duration::from_secs(120);

/// The controller of one service.
#[derive(Debug, Clone)]
pub struct LocalController {
    service: Service,
    address: NodeId,
}

impl LocalController {
    pub(crate) fn new(service: Service, address: NodeId) -> Self {
        Self { service, address }
    }

    /// Returns the node id of this controller: the prefix of all its networks.
    #[must_use]
    pub fn address(&self) -> NodeId {
        self.address
    }

    /// Asks whether the controller can answer.
    ///
    /// # Errors
    /// Fails when there is no sensible answer in time.
    pub async fn ready(&self) -> Result<Readiness, Error> {
        match self.service.call::<Answer>(Ask::get("/controller")).await {
            Ok(Answer {
                controller: false, ..
            })
            | Err(Error::NotFound { .. }) => Ok(Readiness::Absent),
            Ok(Answer {
                database_ready: false,
                ..
            })
            | Err(Error::Failed { status: 503, .. }) => Ok(Readiness::Loading),
            Ok(Answer { .. }) => Ok(Readiness::Ready),
            Err(error) => Err(error),
        }
    }

    /// The older way: ids and revisions, then a call for each. A member deleted in between is not one.
    async fn members_one_by_one(&self, network: NetworkId) -> Result<Members, Error> {
        let revisions: Revisions = self
            .service
            .call(Ask::get(format!("/controller/network/{network}/member")))
            .await?;
        let mut records = Vec::new();
        for id in revisions.keys() {
            let Some(node) = listed(id) else {
                records.push(json!({ "id": id }));
                continue;
            };
            match self.service.call(Ask::get(member_path(network, node))).await {
                Ok(record) => records.push(record),
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Members::read(network, records))
    }

    /// Checks that a network is as a request made it.
    fn agree(&self, request: String, settings: &NetworkSettings, network: Network) -> Result<Network, Error> {
        let differences = settings.differences(&network);
        if differences.is_empty() && network.id.controller() == self.address {
            return Ok(network);
        }
        Err(super::disagreement(
            request,
            self.service.place(),
            network.id,
            &differences,
        ))
    }

    fn own(&self, network: NetworkId) -> Result<(), Error> {
        if network.controller() == self.address {
            Ok(())
        } else {
            Err(Error::Foreign {
                network,
                controller: self.address,
            })
        }
    }
}

impl Controller for LocalController {
    async fn networks(&self) -> Result<Vec<NetworkId>, Error> {
        let all: Vec<NetworkId> = self.service.call(Ask::get("/controller/network")).await?;
        Ok(all
            .into_iter()
            .filter(|network| network.controller() == self.address)
            .collect())
    }

    async fn network(&self, network: NetworkId) -> Result<Network, Error> {
        self.own(network)?;
        self.service.call(Ask::get(network_path(network))).await
    }

    async fn members(&self, network: NetworkId) -> Result<Members, Error> {
        self.own(network)?;
        match self
            .service
            .call::<Bulk>(Ask::get(format!("/unstable/controller/network/{network}/member")))
            .await
        {
            Ok(Bulk { data }) => Ok(Members::read(network, data)),
            Err(Error::NotFound { .. }) => self.members_one_by_one(network).await,
            Err(error) => Err(error),
        }
    }

    async fn member(&self, network: NetworkId, node: NodeId) -> Result<Member, Error> {
        self.own(network)?;
        self.service.call(Ask::get(member_path(network, node))).await
    }

    async fn create_network(&self, new: &NewNetwork) -> Result<Network, Error> {
        let settings = new.settings();
        let path = format!("/controller/network/{}______", self.address);
        let ask = Ask::post(path, &settings.to_json(None).into());
        let request = ask.name();
        let network = self.service.call(ask).await?;
        self.agree(request, &settings, network)
    }

    /// Creates the network when there is none: the controller makes one of any id it is told.
    async fn put_network(&self, network: NetworkId, settings: &NetworkSettings) -> Result<Network, Error> {
        let have = match self.network(network).await {
            Ok(have) => Some(have),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let ask = Ask::post(network_path(network), &settings.to_json(have.as_ref()).into());
        let request = ask.name();
        let network = self.service.call(ask).await?;
        self.agree(request, settings, network)
    }

    async fn delete_network(&self, network: NetworkId) -> Result<(), Error> {
        self.own(network)?;
        super::gone(
            self.service
                .clone()
                .within_at_least(DELETION)
                .call::<Map<String, Value>>(Ask::delete(network_path(network)))
                .await,
        )
    }

    async fn change_member(
        &self,
        network: NetworkId,
        node: NodeId,
        change: &MemberChange,
    ) -> Result<Member, Error> {
        self.own(network)?;
        let ask = Ask::post(member_path(network, node), &change.to_json().into());
        let request = ask.name();
        let member = self.service.call(ask).await?;
        super::agree(request, self.service.place(), (network, node), change, member)
    }

    /// Several connections carry several changes each, which takes a fraction of the time of one after the other.
    async fn change_members(
        &self,
        network: NetworkId,
        changes: &BTreeMap<NodeId, MemberChange>,
    ) -> BTreeMap<NodeId, Result<Member, Error>> {
        if self.own(network).is_err() {
            let each = |node: &NodeId| Some((*node, Err(self.own(network).err()?)));
            return changes.keys().filter_map(each).collect();
        }
        let asks = changes
            .iter()
            .map(|(node, change)| {
                let ask = Ask::post(member_path(network, *node), &change.to_json().into());
                ((*node, ask.name(), change), ask)
            })
            .collect();
        let answers = self.service.call_all(asks).await;
        let agreed = answers.into_iter().map(|((node, request, change), member)| {
            let place = self.service.place();
            let agreed =
                member.and_then(|member| super::agree(request, place, (network, node), change, member));
            (node, agreed)
        });
        agreed.collect()
    }

    async fn delete_member(&self, network: NetworkId, node: NodeId) -> Result<(), Error> {
        self.own(network)?;
        super::gone(
            self.service
                .call::<Map<String, Value>>(Ask::delete(member_path(network, node)))
                .await,
        )
    }
}

/// What a service says of its controller.
#[derive(Deserialize)]
struct Answer {
    controller: bool,
    #[serde(default = "loaded", rename = "databaseReady")]
    database_ready: bool,
}

fn loaded() -> bool {
    true
}

/// All records at once.
#[derive(Deserialize)]
struct Bulk {
    data: Vec<Value>,
}

/// The older list: ids and revisions.
type Revisions = Map<String, Value>;

/// What is listed becomes part of a path; nothing but an id may.
fn listed(id: &str) -> Option<NodeId> {
    id.parse().ok()
}

/// For the fuzz targets: reads answers as this client does.
#[cfg(fuzzing)]
pub mod fuzz {
    use super::*;

    /// Reads an answer about the controller and its lists.
    pub fn read(bytes: &[u8], network: NetworkId) {
        drop(serde_json::from_slice::<Answer>(bytes));
        drop(serde_json::from_slice::<Vec<NetworkId>>(bytes));
        if let Ok(Bulk { data }) = serde_json::from_slice(bytes) {
            let count = data.len();
            let members = Members::read(network, data);
            assert!(members.by_node.len() + members.skipped.len() <= count);
        }
        if let Ok(revisions) = serde_json::from_slice::<Revisions>(bytes) {
            for node in revisions.keys().filter_map(|id| listed(id)) {
                assert_eq!(
                    member_path(network, node),
                    format!("/controller/network/{network}/member/{node}")
                );
            }
        }
    }
}

fn network_path(network: NetworkId) -> String {
    format!("/controller/network/{network}")
}

fn member_path(network: NetworkId, node: NodeId) -> String {
    format!("/controller/network/{network}/member/{node}")
}
