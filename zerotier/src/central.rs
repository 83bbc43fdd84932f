//! ZeroTier Central, by its API v1: the controller that ZeroTier, Inc. runs for others.
//!
//! - **Too many requests** (429) means that nothing was done: the call waits as long as it is told, and so do all others
//!   of this client, unless that is longer than the call may take. Between a second and an hour of that are believed.
//! - **Not allowed** (403) is about what was asked for, one network as a rule; only 401 means that nothing can be asked.
//! - **A read** that Central could not answer (5xx, or a connection that broke) is tried again after a pause.
//! - **A write** is not: it may have been done, and whoever wanted it looks before wanting it again.
//! - **No paging.** This version of the API answers with whole lists; what is longer than [`MAX_ANSWER`] is not taken
//!   (decision 20).
//!
//! Rules, tags and capabilities are compiled there from a text of its own (`rulesSource`), which is never touched.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use picket_backoff::Backoff;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};

pub use crate::exchange::MAX_ANSWER;
use crate::{
    controller::{self, Controller},
    dial::Dial,
    exchange::{Ask, Line, Manner, Reply},
    home::Token,
    ids::{NetworkId, NodeId},
    member::{Member, MemberChange, Members},
    network::Network,
    service::{Error, Place},
    settings::{NetworkSettings, NewNetwork},
};

/// Where Central is.
pub const HOST: &str = "api.zerotier.com";
/// What comes before every path there.
const BASE: &str = "/api/v1";
/// Requests under way at once: a free account may ask 20 times a second, and an answer takes some 100 ms.
const AT_ONCE: usize = 4;
/// How long a call may take unless [`Central::within`] says otherwise, waiting for Central's patience included.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How often a read is tried.
const READ_TRIES: u32 = 4;
/// The first pause between two tries of a read, which doubles up to the other one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long to wait when Central does not say how long.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest that it is left alone for one answer.
const MOST_PATIENCE: Duration = Duration::from_secs(3600);

/// A client of ZeroTier Central. Clones share its limits.
#[derive(Debug, Clone)]
pub struct Central {
    dial: Arc<dyn Dial>,
    host: String,
    token: Token,
    slots: Arc<Semaphore>,
    /// Nothing is asked before this.
    quiet_until: Arc<Mutex<Option<Instant>>>,
    deadline: Duration,
}

impl Central {
    /// Returns a client that reaches Central through `dial`, which has to speak TLS to whom it reaches: the token
    /// travels in every request. `host` is what Central is called in requests, usually [`HOST`].
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, host: impl Into<String>, token: Token) -> Self {
        Self {
            dial,
            host: host.into(),
            token,
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            quiet_until: Arc::default(),
            deadline: DEADLINE,
        }
    }

    /// Gives every call this long instead of [`DEADLINE`], all waiting included.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Returns who is asked, for messages.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::Central(self.dial.to_string())
    }

    async fn call<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, Error> {
        let until = Instant::now() + self.deadline;
        let body = time::timeout_at(until, self.insist(&ask, until))
            .await
            .unwrap_or_else(|_| {
                Err(Error::TimedOut {
                    request: ask.name(),
                    place: self.place(),
                    deadline: self.deadline,
                })
            })?;
        serde_json::from_slice(&body).map_err(|error| self.broken(&ask, error.to_string()))
    }

    /// Asks until there is an answer, or a reason not to ask again.
    async fn insist(&self, ask: &Ask, until: Instant) -> Result<bytes::Bytes, Error> {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut tries = 1;
        loop {
            self.keep_quiet(ask, until).await?;
            let error = match self.exchange(ask).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            if let Error::TooMany { retry_after, .. } = &error {
                // Nothing was done, so that this holds for writes too.
                self.be_quiet(*retry_after);
            } else if ask.is_read() && tries < READ_TRIES && passes(&error) {
                tracing::debug!(%error, tries, "asks Central again");
                time::sleep(backoff.next_wait()).await;
                tries += 1;
            } else {
                return Err(error);
            }
        }
    }

    /// Waits until Central may be asked, or says that this would take too long.
    async fn keep_quiet(&self, ask: &Ask, until: Instant) -> Result<(), Error> {
        loop {
            let quiet = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(quiet) = quiet.filter(|quiet| *quiet > Instant::now()) else {
                return Ok(());
            };
            if quiet >= until {
                return Err(Error::TooMany {
                    request: ask.name(),
                    place: self.place(),
                    retry_after: quiet - Instant::now(),
                });
            }
            time::sleep_until(quiet).await;
        }
    }

    fn be_quiet(&self, wait: Duration) {
        let mut quiet = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now().checked_add(wait);
        *quiet = (*quiet).max(until);
    }

    async fn exchange(&self, ask: &Ask) -> Result<bytes::Bytes, Error> {
        let cut = |cut| Error::of_cut(ask.name(), self.place(), cut);
        // The semaphore is never closed; were it, there would be no limit to keep.
        let _slot = self.slots.acquire().await;
        let secret = format!("token {}", self.token.expose());
        let manner = Manner {
            host: &self.host,
            secret: ("authorization", &secret),
            base: BASE,
            last: true,
        };
        let mut line = Line::open(&self.dial).await.map_err(cut)?;
        let reply = line.send(ask, &manner).await.map_err(cut)?;
        self.judge(ask.name(), reply)
    }

    fn judge(&self, request: String, reply: Reply) -> Result<bytes::Bytes, Error> {
        let place = self.place();
        match reply.status {
            StatusCode::OK => Ok(reply.body),
            StatusCode::UNAUTHORIZED => Err(Error::Refused { request, place }),
            StatusCode::NOT_FOUND => Err(Error::NotFound { request, place }),
            StatusCode::TOO_MANY_REQUESTS => Err(Error::TooMany {
                request,
                place,
                retry_after: patience(reply.retry_after),
            }),
            other => Err(Error::Failed {
                request,
                place,
                status: other.as_u16(),
            }),
        }
    }

    fn broken(&self, ask: &Ask, why: String) -> Error {
        Error::Broken {
            request: ask.name(),
            place: self.place(),
            why,
        }
    }

    /// Sends the settings of a network and compares what comes back.
    async fn settle(
        &self,
        path: String,
        settings: &NetworkSettings,
        have: Option<&Network>,
    ) -> Result<Network, Error> {
        if settings.rules.is_some() || settings.tags.is_some() || settings.capabilities.is_some() {
            return Err(Error::Unsupported {
                place: self.place(),
                what: "it compiles rules, tags and capabilities from a text of its own; change them there and leave \
                       them out of the settings",
            });
        }
        let ask = Ask::post(path, &json!({ "config": settings.to_json(have) }));
        let request = ask.name();
        let NetworkRecord(network) = self.call(ask).await?;
        let differences = settings.differences(&network);
        if differences.is_empty() && have.is_none_or(|have| have.id == network.id) {
            return Ok(network);
        }
        Err(controller::disagreement(
            request,
            self.place(),
            network.id,
            &differences,
        ))
    }
}

impl Controller for Central {
    async fn networks(&self) -> Result<Vec<NetworkId>, Error> {
        #[derive(Deserialize)]
        struct Listed {
            id: NetworkId,
        }
        let all: Vec<Listed> = self.call(Ask::get("/network")).await?;
        Ok(all.into_iter().map(|listed| listed.id).collect())
    }

    async fn network(&self, network: NetworkId) -> Result<Network, Error> {
        let NetworkRecord(read) = self.call(Ask::get(network_path(network))).await?;
        Ok(read)
    }

    async fn members(&self, network: NetworkId) -> Result<Members, Error> {
        let records: Vec<Value> = self
            .call(Ask::get(format!("{}/member", network_path(network))))
            .await?;
        Ok(Members::read(network, records.into_iter().map(flat).collect()))
    }

    async fn member(&self, network: NetworkId, node: NodeId) -> Result<Member, Error> {
        let MemberRecord(member) = self.call(Ask::get(member_path(network, node))).await?;
        Ok(member)
    }

    async fn create_network(&self, new: &NewNetwork) -> Result<Network, Error> {
        self.settle("/network".to_owned(), &new.settings(), None).await
    }

    /// A network that is not there is not found: Central chooses the ids of its networks.
    async fn put_network(&self, network: NetworkId, settings: &NetworkSettings) -> Result<Network, Error> {
        let have = self.network(network).await?;
        self.settle(network_path(network), settings, Some(&have)).await
    }

    async fn delete_network(&self, network: NetworkId) -> Result<(), Error> {
        let deleted = self.call::<Value>(Ask::delete(network_path(network))).await;
        controller::gone(deleted)
    }

    async fn change_member(
        &self,
        network: NetworkId,
        node: NodeId,
        change: &MemberChange,
    ) -> Result<Member, Error> {
        let mut config = change.to_json();
        let mut body = Map::new();
        // A name is of the account's view of the member, all else of the member.
        body.extend(config.remove_entry("name"));
        body.insert("config".into(), config.into());
        let ask = Ask::post(member_path(network, node), &body.into());
        let request = ask.name();
        let MemberRecord(member) = self.call(ask).await?;
        controller::agree(request, self.place(), (network, node), change, member)
    }

    async fn delete_member(&self, network: NetworkId, node: NodeId) -> Result<(), Error> {
        let deleted = self.call::<Value>(Ask::delete(member_path(network, node))).await;
        controller::gone(deleted)
    }
}

/// How long Central is left alone, by what it says of that. None at all would be a loop that never rests, and no answer
/// silences this client for longer than [`MOST_PATIENCE`].
fn patience(asked: Option<Duration>) -> Duration {
    asked.unwrap_or(PATIENCE).clamp(PATIENCE, MOST_PATIENCE)
}

/// Whether it may be otherwise in a moment.
fn passes(error: &Error) -> bool {
    matches!(
        error,
        Error::Unreachable { .. } | Error::Failed { status: 500.., .. }
    )
}

fn network_path(network: NetworkId) -> String {
    format!("/network/{network}")
}

fn member_path(network: NetworkId, node: NodeId) -> String {
    format!("/network/{network}/member/{node}")
}

/// A network as Central answers with it: the controller's own record in `config`.
#[derive(Deserialize)]
#[serde(try_from = "Wrapped")]
struct NetworkRecord(Network);

/// A member as Central answers with it.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct MemberRecord(Member);

#[derive(Deserialize)]
struct Wrapped {
    id: NetworkId,
    config: Map<String, Value>,
}

impl TryFrom<Wrapped> for NetworkRecord {
    type Error = serde_json::Error;

    fn try_from(Wrapped { id, mut config }: Wrapped) -> Result<Self, Self::Error> {
        config.insert("id".into(), id.to_string().into());
        serde_json::from_value(config.into()).map(Self)
    }
}

impl TryFrom<Value> for MemberRecord {
    type Error = serde_json::Error;

    fn try_from(record: Value) -> Result<Self, Self::Error> {
        serde_json::from_value(flat(record)).map(Self)
    }
}

/// Makes one record of a member's two halves: what the controller keeps, and what Central knows besides.
fn flat(mut record: Value) -> Value {
    let mut outer = |key: &str| {
        record
            .get_mut(key)
            .map(Value::take)
            .filter(|value| !value.is_null())
    };
    let mut flat = match outer("config") {
        Some(Value::Object(config)) => config,
        Some(_) | None => Map::new(),
    };
    for (key, from) in [("id", "nodeId"), ("nwid", "networkId"), ("name", "name")] {
        // What the halves say twice is taken from the outer one.
        if let Some(value) = outer(from) {
            flat.insert(key.to_owned(), value);
        }
    }
    // Both times are forgotten now and then, and 0 after that.
    let seen = ["lastSeen", "lastOnline"].map(|key| outer(key).as_ref().and_then(Value::as_u64));
    if let Some(seen) = seen.into_iter().flatten().max().filter(|seen| *seen > 0) {
        flat.insert("lastSeen".into(), seen.into());
    }
    flat.into()
}

/// For the fuzz targets: reads answers as this client does.
#[cfg(fuzzing)]
pub mod fuzz {
    use super::*;

    /// Reads an answer about a network, its members and one of them.
    pub fn read(bytes: &[u8], network: NetworkId) {
        drop(serde_json::from_slice::<NetworkRecord>(bytes));
        drop(serde_json::from_slice::<MemberRecord>(bytes));
        if let Ok(records) = serde_json::from_slice::<Vec<Value>>(bytes) {
            let count = records.len();
            let members = Members::read(network, records.into_iter().map(flat).collect());
            assert!(members.by_node.len() + members.skipped.len() <= count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn central_is_left_alone_for_a_second_at_least_and_an_hour_at_most() {
        let waits = [None, Some(0), Some(7), Some(u64::MAX)].map(|asked| asked.map(Duration::from_secs));
        let seconds = waits.map(|asked| patience(asked).as_secs());
        assert_eq!(seconds, [1, 1, 7, 3600]);
    }

    #[test]
    fn a_member_is_read_from_both_halves_of_its_record() {
        let record = json!({
            "id": "8056c2e21c000001-abcdef0123", "networkId": "8056c2e21c000001", "nodeId": "abcdef0123",
            "name": "pump", "hidden": false, "lastOnline": 0, "lastSeen": 1_612_993_673_254_u64,
            "config": {
                "id": "abcdef0123", "authorized": true, "ipAssignments": ["10.0.0.3"], "revision": 3,
                "identity": "abcdef0123:0:00", "creationTime": 1, "lastAuthorizedTime": 2, "lastDeauthorizedTime": 0,
            },
        });
        let MemberRecord(member) = serde_json::from_value(record).unwrap();
        assert_eq!(member.name.as_deref(), Some("pump"));
        assert!(member.authorized && member.has_asked());
        assert_eq!(
            (member.last_seen, member.last_authorized),
            (Some(1_612_993_673_254), 2)
        );
        assert!(serde_json::from_value::<MemberRecord>(json!({"nodeId": "abcdef0123"})).is_err());
    }
}
