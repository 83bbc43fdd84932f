//! The controller side of a service: the networks it governs and who is authorized on them.
//!
//! Every service answers these calls; one governs the networks whose id starts with its own node id. For others it
//! would store what it is told and never serve it, so the prefix is checked before anything is sent.

mod new;

use std::collections::BTreeMap;

pub use new::{NewNetwork, RangeError, V4Range};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    ids::{NetworkId, NodeId},
    lenient,
    service::{Ask, Error, Service},
};

/// The calls about networks and members.
#[derive(Debug, Clone)]
pub struct Controller {
    service: Service,
    address: NodeId,
}

/// Whether a controller can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Its records are loaded.
    Ready,
    /// It is still reading its records.
    Loading,
    /// This service has no controller built in.
    Absent,
}

/// A network as its controller keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub name: String,
    /// Whether members need authorization; a public network admits everybody who asks.
    pub private: bool,
    /// Counts the changes that were saved.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub revision: u64,
    /// The routes of the network; addresses are only assigned inside one of them.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub routes: Vec<Route>,
    /// The ranges that IPv4 addresses are taken from.
    #[serde(
        default,
        rename = "ipAssignmentPools",
        deserialize_with = "lenient::or_default"
    )]
    pub pools: Vec<Pool>,
}

/// A route of a network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Route {
    /// `address/prefix`.
    pub target: String,
    /// The gateway; none for the network's own range.
    #[serde(default)]
    pub via: Option<String>,
}

/// A range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pool {
    /// The first address.
    #[serde(rename = "ipRangeStart")]
    pub start: String,
    /// The last address, which is never assigned.
    #[serde(rename = "ipRangeEnd")]
    pub end: String,
}

/// A member of a network as the controller keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// The network.
    #[serde(rename = "nwid")]
    pub network: NetworkId,
    /// Whether it may be on the network.
    pub authorized: bool,
    /// The identity it showed at first contact; none while it has never asked.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub identity: Option<String>,
    /// A name that somebody gave it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub name: Option<String>,
    /// The addresses assigned to it; they come when it asks, not when it is authorized.
    #[serde(default, rename = "ipAssignments", deserialize_with = "lenient::or_default")]
    pub addresses: Vec<String>,
    /// Counts the saved changes; starts again at 1 after a delete.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub revision: u64,
    /// When it was first seen or created, in milliseconds since 1970.
    #[serde(default, rename = "creationTime", deserialize_with = "lenient::or_default")]
    pub created: u64,
    /// When it was last authorized, in milliseconds since 1970; 0 for never.
    #[serde(
        default,
        rename = "lastAuthorizedTime",
        deserialize_with = "lenient::or_default"
    )]
    pub last_authorized: u64,
    /// When it was last deauthorized, in milliseconds since 1970; 0 for never.
    #[serde(
        default,
        rename = "lastDeauthorizedTime",
        deserialize_with = "lenient::or_default"
    )]
    pub last_deauthorized: u64,
}

/// The members of a network, and what could not be read among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// The members by node.
    pub by_node: BTreeMap<NodeId, Member>,
    /// One sentence for each record that makes no sense.
    pub skipped: Vec<String>,
}

impl Controller {
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
        #[derive(Deserialize)]
        struct Answer {
            controller: bool,
            #[serde(default = "loaded", rename = "databaseReady")]
            database_ready: bool,
        }
        fn loaded() -> bool {
            true
        }
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

    /// Lists the networks that this controller governs. Records below other nodes' ids are left out.
    ///
    /// # Errors
    /// Fails when there is no sensible answer in time.
    pub async fn networks(&self) -> Result<Vec<NetworkId>, Error> {
        let all: Vec<NetworkId> = self.service.call(Ask::get("/controller/network")).await?;
        Ok(all
            .into_iter()
            .filter(|network| network.controller() == self.address)
            .collect())
    }

    /// Reads one network.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; [`Error::Foreign`] when another node governs it.
    pub async fn network(&self, network: NetworkId) -> Result<Network, Error> {
        self.own(network)?;
        self.service
            .call(Ask::get(format!("/controller/network/{network}")))
            .await
    }

    /// Reads all members of a network in one call, or one by one where the service has no list of records.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such network; [`Error::Foreign`] when another node governs it.
    pub async fn members(&self, network: NetworkId) -> Result<Members, Error> {
        #[derive(Deserialize)]
        struct Bulk {
            data: Vec<Value>,
        }
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

    /// The older way: ids and revisions, then a call for each. A member deleted in between is not one.
    async fn members_one_by_one(&self, network: NetworkId) -> Result<Members, Error> {
        let revisions: Map<String, Value> = self
            .service
            .call(Ask::get(format!("/controller/network/{network}/member")))
            .await?;
        let mut records = Vec::new();
        for id in revisions.keys() {
            // What is listed becomes part of a path; nothing but an id may.
            let Ok(node) = id.parse::<NodeId>() else {
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

    /// Reads one member.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it has neither asked nor been authorized; [`Error::Foreign`] when another node governs
    /// the network.
    pub async fn member(&self, network: NetworkId, node: NodeId) -> Result<Member, Error> {
        self.own(network)?;
        self.service.call(Ask::get(member_path(network, node))).await
    }

    /// Authorizes a node or takes its authorization away; a node that never joined may be authorized ahead.
    /// Calling twice is harmless.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such network; [`Error::Disagrees`] when the answer says otherwise than
    /// what was asked; [`Error::Foreign`] when another node governs the network.
    pub async fn authorize(
        &self,
        network: NetworkId,
        node: NodeId,
        authorized: bool,
    ) -> Result<Member, Error> {
        self.own(network)?;
        let ask = Ask::post(member_path(network, node), &json!({ "authorized": authorized }));
        let request = ask.name();
        let member: Member = self.service.call(ask).await?;
        if (member.network, member.id, member.authorized) != (network, node, authorized) {
            let say = |network: NetworkId, node: NodeId, authorized: bool| {
                format!(
                    "{node} {} on {network}",
                    if authorized {
                        "authorized"
                    } else {
                        "not authorized"
                    }
                )
            };
            return Err(Error::Disagrees {
                request,
                place: self.service.place(),
                want: say(network, node, authorized),
                have: say(member.network, member.id, member.authorized),
            });
        }
        Ok(member)
    }

    /// Forgets a member, which cuts it off when it was authorized. One that is not there is forgotten already.
    ///
    /// A node that keeps asking appears again, not authorized.
    ///
    /// # Errors
    /// [`Error::Foreign`] when another node governs the network.
    pub async fn delete_member(&self, network: NetworkId, node: NodeId) -> Result<(), Error> {
        self.own(network)?;
        match self
            .service
            .call::<Map<String, Value>>(Ask::delete(member_path(network, node)))
            .await
        {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Creates a private network; the controller chooses the last six digits of its id.
    ///
    /// Calling twice makes two networks.
    ///
    /// # Errors
    /// [`Error::Disagrees`] when the network was created otherwise than asked: the service drops what it cannot read.
    pub async fn create_network(&self, new: &NewNetwork) -> Result<Network, Error> {
        let ask = Ask::post(
            format!("/controller/network/{}______", self.address),
            &new.to_json(),
        );
        let request = ask.name();
        let network: Network = self.service.call(ask).await?;
        let pools = usize::from(new.v4.is_some());
        let as_asked = network.private
            && network.name == new.name
            && network.routes.len() == pools
            && network.pools.len() == pools
            && network.id.controller() == self.address;
        if !as_asked {
            return Err(Error::Disagrees {
                request,
                place: self.service.place(),
                want: format!("{new:?}"),
                have: format!("{network:?}"),
            });
        }
        Ok(network)
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

fn member_path(network: NetworkId, node: NodeId) -> String {
    format!("/controller/network/{network}/member/{node}")
}

impl Members {
    fn read(network: NetworkId, records: Vec<Value>) -> Self {
        let mut members = Self::default();
        for record in records {
            let name = record
                .get("id")
                .map_or_else(|| "a member without an id".to_owned(), Value::to_string);
            match serde_json::from_value::<Member>(record) {
                Ok(member) if member.network == network => {
                    members.by_node.insert(member.id, member);
                }
                Ok(member) => members
                    .skipped
                    .push(format!("{name} is of network {}", member.network)),
                Err(error) => members.skipped.push(format!("{name}: {error}")),
            }
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_before_and_after_its_untyped_fields_were_set() {
        for dns in [
            json!([]),
            json!({"domain": "lab.example", "servers": ["10.147.20.53"]}),
        ] {
            let network: Network = serde_json::from_value(json!({
                "id": "5350d87547c880cb", "private": true, "authTokens": [null], "dns": dns,
                "routes": [{"target": "10.147.20.0/24", "via": null}],
            }))
            .unwrap();
            assert_eq!(network.routes[0].via, None);
        }
    }

    #[test]
    fn a_member_record_that_makes_no_sense_is_named_and_does_not_hide_the_others() {
        let network: NetworkId = "5350d87547c880cb".parse().unwrap();
        let members = Members::read(
            network,
            vec![
                json!({"id": "39966434ba", "nwid": "5350d87547c880cb", "authorized": "yes"}),
                json!({"id": "ABCDEF0123", "nwid": "5350D87547C880CB", "authorized": true}),
                json!({"id": "68c19b4c83", "nwid": "5350d87547000001", "authorized": true}),
            ],
        );
        assert_eq!(
            members
                .by_node
                .keys()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["abcdef0123"]
        );
        assert_eq!(members.skipped.len(), 2);
        assert!(members.skipped[0].contains("39966434ba"));
    }
}
