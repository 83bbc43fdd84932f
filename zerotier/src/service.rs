//! One request to a ZeroTier service and its answer, with the habits that its HTTP server needs.
//!
//! - **One connection per request**, since an idle one occupies one of the service's eight workers. Only a batch sends as
//!   many over one as the service takes, one right after the other.
//! - **A body is read only from a 200.** Others carry `{}`, nothing, or text that claims to be JSON and is not.
//! - **A write is never repeated.** A connection that could not be opened is tried again, since nothing was sent.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;
use tokio::{sync::Semaphore, time};

use crate::{
    controller::LocalController,
    dial::Dial,
    exchange::{Cut, Line, Manner},
    home::Token,
    ids::{NetworkId, NodeId},
    node::Node,
};

pub(crate) use crate::exchange::Ask;
pub use crate::exchange::MAX_ANSWER;

/// Requests under way at once. The service queues five connections that it has not accepted; beyond that they are
/// lost and cost a second each.
pub const AT_ONCE: usize = 4;
/// Requests that the service takes on one connection before it closes it.
const PER_CONNECTION: usize = 5;
/// How long a call may take unless [`Service::within`] says otherwise. The largest list measured took 0.26 s; a
/// service whose workers are all held by idle connections answers after 5 s.
pub const DEADLINE: Duration = Duration::from_secs(10);
// As many as `call_all` has at work.
const _: () = assert!(AT_ONCE == 4, "call_all works off its requests in four places");

/// A client of one ZeroTier service. Clones share its limit of requests under way.
#[derive(Debug, Clone)]
pub struct Service {
    dial: Arc<dyn Dial>,
    token: Token,
    slots: Slots,
    deadline: Duration,
}

/// The places of requests under way at one service. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Semaphore>);

impl Default for Slots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// Why a call to a service has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be opened, or it broke before the answer was there.
    #[error("{request}: no connection to {place}; {}", place.when_unreachable())]
    Unreachable {
        /// The method and path.
        request: String,
        /// Who was asked.
        place: Place,
        /// What the connection said.
        #[source]
        cause: io::Error,
    },
    /// The service does not let this caller in: a 401.
    #[error("{request}: {place} refuses us; {}", place.when_refused())]
    Refused {
        /// The method and path.
        request: String,
        /// Who was asked.
        place: Place,
    },
    /// The answer is not what a ZeroTier service says.
    #[error("{request}: the answer of {place} makes no sense: {why}; {}", place.when_broken())]
    Broken {
        /// The method and path.
        request: String,
        /// Who was asked.
        place: Place,
        /// What is wrong with it.
        why: String,
    },
    /// The service understood the request and could not do it.
    #[error("{request}: {place} answered {status}; {}", place.when_failed(*status))]
    Failed {
        /// The method and path.
        request: String,
        /// Who was asked.
        place: Place,
        /// The HTTP status.
        status: u16,
    },
    /// There is no such network, member or path.
    #[error("{request}: {place} knows nothing there (404)")]
    NotFound {
        /// The method and path.
        request: String,
        /// Who was asked.
        place: Place,
    },
    /// There was no answer in time. A write may have been done all the same: look before doing it again.
    #[error("{request}: no answer from {place} within {deadline:?}")]
    TimedOut {
        /// The method and path.
        request: String,
        /// Who was asked.
        place: Place,
        /// How long was waited.
        deadline: Duration,
    },
    /// The service took a join and did not do it: it could open no TUN device.
    #[error("join {network}: {place} could open no TUN device; check /dev/net/tun and restart zerotier-one")]
    NoTun {
        /// The network.
        network: NetworkId,
        /// Who was asked.
        place: Place,
    },
    /// The service answered that something else is the case than what was asked for.
    #[error(
        "{request}: asked for {want}, and {place} now says {have}; look for another program that changes it"
    )]
    Disagrees {
        /// The method and path.
        request: String,
        /// Who was asked.
        place: Place,
        /// What was asked for.
        want: String,
        /// What the answer says.
        have: String,
    },
    /// The network belongs to another controller; this one would store it and never serve it.
    #[error("network {network} is controlled by node {}, not by {controller}; ask that node's service", network.controller())]
    Foreign {
        /// The network.
        network: NetworkId,
        /// The controller that was asked.
        controller: NodeId,
    },
    /// There were too many requests, and waiting as long as asked would take longer than the call may.
    #[error("{request}: {place} has had too many requests; ask again in {retry_after:?}")]
    TooMany {
        /// The method and path.
        request: String,
        /// Who was asked.
        place: Place,
        /// How long to wait before anything is asked again.
        retry_after: Duration,
    },
    /// This kind of controller cannot do it.
    #[error("{place} cannot do that: {what}")]
    Unsupported {
        /// Who would have been asked.
        place: Place,
        /// What cannot be done, and what to do instead.
        what: &'static str,
    },
}

/// Who is asked, and where, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A service, at this address.
    Service(String),
    /// ZeroTier Central, at this address.
    Central(String),
}

impl Place {
    fn when_unreachable(&self) -> &'static str {
        match self {
            Self::Service(_) => "check that zerotier-one is running",
            Self::Central(_) => "check that this machine reaches it over HTTPS",
        }
    }

    fn when_refused(&self) -> &'static str {
        match self {
            Self::Service(_) => {
                "check authtoken.secret, and off loopback settings.allowManagementFrom in its local.conf"
            }
            Self::Central(_) => {
                "make an API token on the account page of Central, of somebody who may change the networks"
            }
        }
    }

    fn when_broken(&self) -> &'static str {
        match self {
            Self::Service(_) => "check that this is a zerotier-one 1.14 or later",
            Self::Central(_) => "check that this is the address of its API v1",
        }
    }

    fn when_failed(&self, status: u16) -> &'static str {
        match self {
            Self::Service(_) => "see its log",
            Self::Central(_) if status == StatusCode::FORBIDDEN.as_u16() => {
                "its token is not allowed that; make one of somebody who may change the network"
            }
            Self::Central(_) => "try again later",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(address) => write!(f, "the ZeroTier service at {address}"),
            Self::Central(address) => write!(f, "ZeroTier Central at {address}"),
        }
    }
}

impl From<&str> for Place {
    /// Takes it for the address of a service.
    fn from(address: &str) -> Self {
        Self::Service(address.to_owned())
    }
}

impl Service {
    /// Returns a client that reaches a service through `dial`.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, token: Token) -> Self {
        Self {
            dial,
            token,
            slots: Slots::default(),
            deadline: DEADLINE,
        }
    }

    /// A place for one request, if there is any.
    #[cfg(test)]
    pub(crate) fn place_for_one(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.slots.0.try_acquire().ok()
    }

    /// Shares the limit of requests under way with other clients of the same service.
    pub(crate) fn sharing(self, slots: Slots) -> Self {
        Self { slots, ..self }
    }

    /// Gives every call this long instead of [`DEADLINE`], the wait for its turn among the others included.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    pub(crate) fn within_at_least(self, deadline: Duration) -> Self {
        let deadline = deadline.max(self.deadline);
        self.within(deadline)
    }

    /// Returns the calls about the node itself and the networks it has joined.
    #[must_use]
    pub fn node(&self) -> Node {
        Node::new(self.clone())
    }

    /// Returns the calls about the networks that this service controls; `address` is its own node id.
    #[must_use]
    pub fn controller(&self, address: NodeId) -> LocalController {
        LocalController::new(self.clone(), address)
    }

    /// Returns the address, for messages.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::Service(self.dial.to_string())
    }

    /// Sends one request over a connection of its own and reads its answer as JSON.
    pub(crate) async fn call<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, Error> {
        let request = ask.name();
        let alone = async {
            // The semaphore is never closed; were it, there would be no limit to keep.
            let _slot = self.slots.0.acquire().await;
            let mut line = self.open(&request).await?;
            self.exchange(&mut line, &ask, true).await
        };
        let body = self.in_time(&request, alone).await?;
        self.read(request, &body)
    }

    /// Sends requests, [`AT_ONCE`] at a time and several over one connection, and returns what came of each that was
    /// sent, in no order.
    ///
    /// After the first that nobody answered nothing more is sent: the next one would wait for the same.
    pub(crate) async fn call_all<K, T: DeserializeOwned>(
        &self,
        asks: Vec<(K, Ask)>,
    ) -> Vec<(K, Result<T, Error>)> {
        let turns = Turns::new(asks);
        tokio::join!(
            self.work(&turns),
            self.work(&turns),
            self.work(&turns),
            self.work(&turns)
        );
        turns.into_answers()
    }

    /// Works off requests over one connection after the other, until there are none.
    async fn work<K, T: DeserializeOwned>(&self, turns: &Turns<K, T>) {
        let mut next = turns.take();
        while next.is_some() {
            let _slot = self.slots.0.acquire().await;
            let mut line = None;
            for turn in 1..=PER_CONNECTION {
                let Some((key, ask)) = next else { break };
                let request = ask.name();
                let exchange = async {
                    let line = match &mut line {
                        Some(line) => line,
                        None => line.insert(self.open(&request).await?),
                    };
                    self.exchange(line, &ask, turn == PER_CONNECTION).await
                };
                let body = self.in_time(&request, exchange).await;
                let goes_on = body.is_ok();
                turns.put(key, body.and_then(|body| self.read(request, &body)));
                next = turns.take();
                // A connection on which something went wrong is not used again.
                if !goes_on {
                    break;
                }
            }
        }
    }

    async fn in_time<T>(
        &self,
        request: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        time::timeout(self.deadline, call).await.unwrap_or_else(|_| {
            Err(Error::TimedOut {
                request: request.to_owned(),
                place: self.place(),
                deadline: self.deadline,
            })
        })
    }

    async fn open(&self, request: &str) -> Result<Line, Error> {
        Line::open(&self.dial).await.map_err(|cut| self.cut(request, cut))
    }

    async fn exchange(&self, line: &mut Line, ask: &Ask, last: bool) -> Result<Bytes, Error> {
        let manner = Manner {
            host: "localhost",
            secret: ("X-ZT1-Auth", self.token.expose()),
            base: "",
            last,
        };
        let request = ask.name();
        let reply = line
            .send(ask, &manner)
            .await
            .map_err(|cut| self.cut(&request, cut))?;
        let place = self.place();
        match reply.status {
            StatusCode::OK => Ok(reply.body),
            StatusCode::UNAUTHORIZED => Err(Error::Refused { request, place }),
            StatusCode::NOT_FOUND => Err(Error::NotFound { request, place }),
            other => Err(Error::Failed {
                request,
                place,
                status: other.as_u16(),
            }),
        }
    }

    fn read<T: DeserializeOwned>(&self, request: String, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| self.broken(request, error.to_string()))
    }

    fn cut(&self, request: &str, cut: Cut) -> Error {
        Error::of_cut(request.to_owned(), self.place(), cut)
    }

    /// Says that an answer makes no sense.
    pub(crate) fn broken(&self, request: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Broken {
            request: request.into(),
            place: self.place(),
            why: why.into(),
        }
    }
}

impl Error {
    /// Says what ended an exchange early.
    pub(crate) fn of_cut(request: String, place: Place, cut: Cut) -> Self {
        match cut {
            Cut::Io(cause) => Self::Unreachable {
                request,
                place,
                cause,
            },
            Cut::Nonsense(why) => Self::Broken { request, place, why },
        }
    }

    /// Whether nobody can be asked anything at present: the next question would wait for the same answer.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Refused { .. }
            | Self::TooMany { .. } => true,
            Self::Broken { .. }
            | Self::Failed { .. }
            | Self::NotFound { .. }
            | Self::NoTun { .. }
            | Self::Disagrees { .. }
            | Self::Foreign { .. }
            | Self::Unsupported { .. } => false,
        }
    }
}

/// Requests that wait for their turn, and what came of those that had it.
struct Turns<K, T>(Mutex<Batch<K, T>>);

struct Batch<K, T> {
    waiting: VecDeque<(K, Ask)>,
    answers: Vec<(K, Result<T, Error>)>,
}

impl<K, T> Turns<K, T> {
    fn new(asks: Vec<(K, Ask)>) -> Self {
        Self(Mutex::new(Batch {
            answers: Vec::with_capacity(asks.len()),
            waiting: asks.into(),
        }))
    }

    fn take(&self) -> Option<(K, Ask)> {
        self.batch().waiting.pop_front()
    }

    fn put(&self, key: K, answer: Result<T, Error>) {
        let mut batch = self.batch();
        if answer.as_ref().is_err_and(Error::is_away) {
            batch.waiting.clear();
        }
        batch.answers.push((key, answer));
    }

    fn batch(&self) -> MutexGuard<'_, Batch<K, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn into_answers(self) -> Vec<(K, Result<T, Error>)> {
        self.0
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .answers
    }
}
