//! The node side of a service: what it is, which networks it has joined, whom it knows.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    ids::{NetworkId, NodeId},
    lenient,
    moon::Moon,
    service::{Ask, Error, Service},
};

/// The calls about a node and its networks.
#[derive(Debug, Clone)]
pub struct Node {
    service: Service,
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// Its id.
    pub address: NodeId,
    /// Whether it has heard from a root within 30 s.
    pub online: bool,
    /// The version of the service, such as `1.14.1`.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub version: String,
    /// Its public identity in text form; its first ten digits are the id.
    #[serde(default, rename = "publicIdentity", deserialize_with = "lenient::or_default")]
    pub public_identity: Option<String>,
    /// Its wall clock, in milliseconds since 1970.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub clock: u64,
    /// Whether it talks through a relay over TCP because UDP does not get through.
    #[serde(
        default,
        rename = "tcpFallbackActive",
        deserialize_with = "lenient::or_default"
    )]
    pub tcp_fallback: bool,
}

/// Where a node stands with a network. Only [`Admission::Ok`] means that it was admitted, and even that lags: a node
/// that was cut off learns of it at its next poll, after about a minute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Admission {
    /// No answer from the controller so far.
    Requesting,
    /// The node has a configuration.
    Ok,
    /// The controller has refused; addresses from before may still be there.
    Denied,
    /// The controller does not have this network.
    NotFound,
    /// The interface could not be set up.
    PortError,
    /// The controller wants a newer service.
    ClientTooOld,
    /// The network wants a login.
    LoginRequired,
    /// A word this crate does not know.
    Other(String),
}

/// A network that a node has joined, as the node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Joined {
    /// The network.
    pub id: NetworkId,
    /// Where the node stands with it.
    pub status: Admission,
    /// The network's name, empty until a configuration has come.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub name: String,
    /// The node's MAC address there.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub mac: String,
    /// The name of the interface.
    #[serde(default, rename = "portDeviceName", deserialize_with = "lenient::or_default")]
    pub device: String,
    /// `address/prefix`, as last assigned. These stay after a refusal: having one does not mean being admitted.
    #[serde(
        default,
        rename = "assignedAddresses",
        deserialize_with = "lenient::or_default"
    )]
    pub addresses: Vec<String>,
    /// The revision of the network's configuration that the node has.
    #[serde(default, rename = "netconfRevision", deserialize_with = "lenient::or_default")]
    pub revision: u64,
    /// What the node lets the network change on its machine.
    #[serde(flatten)]
    pub settings: Settings,
}

/// What a node lets a network change on its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Settings {
    /// Assign addresses and routes.
    #[serde(default = "yes", rename = "allowManaged")]
    pub managed: bool,
    /// Assign addresses and routes of the public internet.
    #[serde(default, rename = "allowGlobal")]
    pub global: bool,
    /// Replace the default route.
    #[serde(default, rename = "allowDefault")]
    pub default_route: bool,
    /// Set the name servers.
    #[serde(default, rename = "allowDNS")]
    pub dns: bool,
}

/// A node that this one has talked to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Peer {
    /// Its id.
    pub address: NodeId,
    /// What it is to this node: `LEAF`, `MOON` or `PLANET`.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub role: String,
    /// Round trip in milliseconds; -1 when unknown.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub latency: i64,
    /// The version of its service, when known.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub version: String,
    /// The physical paths to it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub paths: Vec<Path>,
}

/// A physical path to a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Path {
    /// Where it leads: `address/port`.
    pub address: String,
    /// Whether it is in use.
    pub active: bool,
    /// Whether it has fallen silent.
    pub expired: bool,
    /// Whether it is the one that is used first.
    pub preferred: bool,
    /// When something last came, in milliseconds since 1970.
    #[serde(rename = "lastReceive")]
    pub last_receive: i64,
}

impl Node {
    pub(crate) fn new(service: Service) -> Self {
        Self { service }
    }

    /// Asks what the node is.
    ///
    /// # Errors
    /// Fails when there is no sensible answer in time.
    pub async fn status(&self) -> Result<Status, Error> {
        self.service.call(Ask::get("/status")).await
    }

    /// Lists the networks the node has joined.
    ///
    /// # Errors
    /// Fails when there is no sensible answer in time.
    pub async fn networks(&self) -> Result<Vec<Joined>, Error> {
        self.service.call(Ask::get("/network")).await
    }

    /// Asks how the node stands with one network.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it has not joined it.
    pub async fn network(&self, network: NetworkId) -> Result<Joined, Error> {
        self.service.call(Ask::get(format!("/network/{network}"))).await
    }

    /// Lists the nodes this one has talked to.
    ///
    /// # Errors
    /// Fails when there is no sensible answer in time.
    pub async fn peers(&self) -> Result<Vec<Peer>, Error> {
        self.service.call(Ask::get("/peer")).await
    }

    /// Lists the moons whose definition has arrived.
    ///
    /// # Errors
    /// Fails when there is no sensible answer in time.
    pub async fn moons(&self) -> Result<Vec<Moon>, Error> {
        self.service.call(Ask::get("/moon")).await
    }

    /// Orbits a moon, whose definition one of its roots, the seed, is asked for. Calling twice is harmless.
    ///
    /// It is waited for until the definition has arrived, which takes some seconds; then [`Self::moons`] lists it.
    ///
    /// # Errors
    /// [`Error::Disagrees`] when the node says that it orbits something else.
    pub async fn orbit(&self, moon: NodeId, seed: NodeId) -> Result<Moon, Error> {
        let ask = Ask::post(format!("/moon/{moon}"), &serde_json::json!({ "seed": seed }));
        let request = ask.name();
        let orbited: Moon = self.service.call(ask).await?;
        if orbited.id != moon {
            return Err(Error::Disagrees {
                request,
                place: self.service.place(),
                want: format!("moon {moon}"),
                have: format!("moon {}", orbited.id),
            });
        }
        Ok(orbited)
    }

    /// Orbits a moon no longer; one that is not orbited is left already.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the service was reached over IPv6, where it does not know this call.
    pub async fn deorbit(&self, moon: NodeId) -> Result<(), Error> {
        let left = self
            .service
            .call::<Map<String, Value>>(Ask::delete(format!("/moon/{moon}")))
            .await;
        match left {
            Ok(_) => Ok(()),
            Err(Error::NotFound { place, .. }) => Err(Error::Unsupported {
                place,
                what: "a moon is left over IPv4 only; reach the service at 127.0.0.1",
            }),
            Err(error) => Err(error),
        }
    }

    /// Joins a network, or changes the settings of a joined one. Calling twice is harmless.
    ///
    /// The answer comes before the controller's: a first join is [`Admission::Requesting`] for up to 5 s.
    ///
    /// # Errors
    /// [`Error::NoTun`] when the service took the call and could not join; [`Error::Disagrees`] when the network has
    /// other settings afterwards.
    pub async fn join(&self, network: NetworkId, settings: Settings) -> Result<Joined, Error> {
        let ask = Ask::post(format!("/network/{network}"), &settings.to_json());
        let request = ask.name();
        let answer: Map<String, Value> = self.service.call(ask).await?;
        if !answer.contains_key("id") {
            return Err(Error::NoTun {
                network,
                place: self.service.place(),
            });
        }
        let joined: Joined = serde_json::from_value(Value::Object(answer))
            .map_err(|error| self.service.broken(&request, error.to_string()))?;
        if joined.id != network || joined.settings != settings {
            return Err(Error::Disagrees {
                request,
                place: self.service.place(),
                want: format!("{network} with {settings:?}"),
                have: format!("{} with {:?}", joined.id, joined.settings),
            });
        }
        Ok(joined)
    }

    /// Leaves a network; one that is not joined is left already.
    ///
    /// # Errors
    /// Fails when there is no sensible answer in time.
    pub async fn leave(&self, network: NetworkId) -> Result<(), Error> {
        let _: Map<String, Value> = self
            .service
            .call(Ask::delete(format!("/network/{network}")))
            .await?;
        Ok(())
    }
}

impl Default for Settings {
    /// What the service itself starts from.
    fn default() -> Self {
        Self {
            managed: true,
            global: false,
            default_route: false,
            dns: false,
        }
    }
}

impl Settings {
    fn to_json(self) -> Value {
        serde_json::json!({
            "allowManaged": self.managed,
            "allowGlobal": self.global,
            "allowDefault": self.default_route,
            "allowDNS": self.dns,
        })
    }
}

fn yes() -> bool {
    true
}

impl Admission {
    /// Returns the word that the service uses.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Requesting => "REQUESTING_CONFIGURATION",
            Self::Ok => "OK",
            Self::Denied => "ACCESS_DENIED",
            Self::NotFound => "NOT_FOUND",
            Self::PortError => "PORT_ERROR",
            Self::ClientTooOld => "CLIENT_TOO_OLD",
            Self::LoginRequired => "AUTHENTICATION_REQUIRED",
            Self::Other(word) => word,
        }
    }
}

impl fmt::Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl From<String> for Admission {
    fn from(word: String) -> Self {
        let known = [
            Self::Requesting,
            Self::Ok,
            Self::Denied,
            Self::NotFound,
            Self::PortError,
            Self::ClientTooOld,
            Self::LoginRequired,
        ];
        known
            .into_iter()
            .find(|known| known.word() == word)
            .unwrap_or(Self::Other(word))
    }
}

impl<'de> Deserialize<'de> for Admission {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_though_fields_are_missing_new_or_of_another_shape() {
        let joined: Joined = serde_json::from_value(serde_json::json!({
            "id": "5350d87547c880cb", "status": "OK", "assignedAddresses": null, "name": 7, "fresh": {"a": 1},
        }))
        .unwrap();
        assert_eq!(joined.status, Admission::Ok);
        assert!(joined.addresses.is_empty() && joined.name.is_empty());
        assert_eq!(joined.settings, Settings::default());
    }

    #[test]
    fn a_status_word_of_a_later_version_is_kept_and_is_not_ok() {
        let admission = Admission::from("SOMETHING_NEW".to_owned());
        assert_eq!(admission, Admission::Other("SOMETHING_NEW".to_owned()));
        assert_eq!(Admission::from("ACCESS_DENIED".to_owned()), Admission::Denied);
    }

    #[test]
    fn a_network_without_a_status_is_refused() {
        let bare = serde_json::json!({"id": "5350d87547c880cb"});
        assert!(serde_json::from_value::<Joined>(bare).is_err());
    }
}
