//! One request to a ZeroTier service and its answer, with the habits that its HTTP server needs.
//!
//! - **One connection per request.** On a reused connection each answer of the service waits about 43 ms for a delayed
//!   acknowledgement, and an idle one occupies one of its eight workers.
//! - **A body is read only from a 200.** Others carry `{}`, nothing, or text that claims to be JSON and is not.
//! - **A write is never repeated.** A connection that could not be opened is tried again, since nothing was sent.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Body, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{sync::Semaphore, time};

use crate::{
    controller::LocalController,
    dial::{Dial, Wire},
    home::Token,
    ids::{NetworkId, NodeId},
    node::Node,
};

/// Requests under way at once. The service queues five connections that it has not accepted; beyond that they are
/// lost and cost a second each.
pub const AT_ONCE: usize = 4;
/// The largest answer that is read. A controller lists a member in about 520 bytes: room for 60,000 of them.
pub const MAX_ANSWER: usize = 32 << 20;
/// How long a call may take unless [`Service::within`] says otherwise. The largest list measured took 0.26 s; a
/// service whose workers are all held by idle connections answers after 5 s.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How often a connection is tried before the service counts as unreachable: a restart takes the port away shortly.
const CONNECT_TRIES: u32 = 3;
/// The pause between two of them.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A client of one ZeroTier service. Clones share its limit of requests under way.
#[derive(Debug, Clone)]
pub struct Service {
    dial: Arc<dyn Dial>,
    token: Token,
    slots: Arc<Semaphore>,
    deadline: Duration,
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
    /// The service does not let this caller in: a 401, or a 403.
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
    #[error("{request}: {place} answered {status}; {}", place.when_failed())]
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
                "make an API token on the account page of Central, of somebody who may change the network"
            }
        }
    }

    fn when_broken(&self) -> &'static str {
        match self {
            Self::Service(_) => "check that this is a zerotier-one 1.14 or later",
            Self::Central(_) => "check that this is the address of its API v1",
        }
    }

    fn when_failed(&self) -> &'static str {
        match self {
            Self::Service(_) => "see its log",
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

/// One request, named for messages.
pub(crate) struct Ask {
    method: Method,
    path: String,
    body: Option<String>,
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: None,
        }
    }

    pub(crate) fn post(path: impl Into<String>, body: &serde_json::Value) -> Self {
        Self {
            method: Method::POST,
            path: path.into(),
            body: Some(body.to_string()),
        }
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self {
            method: Method::DELETE,
            path: path.into(),
            body: None,
        }
    }

    /// The method and path, as messages name it.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

impl Service {
    /// Returns a client that reaches a service through `dial`.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, token: Token) -> Self {
        Self {
            dial,
            token,
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            deadline: DEADLINE,
        }
    }

    /// Gives every call this long instead of [`DEADLINE`], the wait for its turn among the others included.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
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

    /// Sends one request and reads its answer as JSON.
    pub(crate) async fn call<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, Error> {
        let request = ask.name();
        let body = match time::timeout(self.deadline, self.exchange(ask)).await {
            Ok(body) => body?,
            Err(_) => {
                return Err(Error::TimedOut {
                    request,
                    place: self.place(),
                    deadline: self.deadline,
                });
            }
        };
        serde_json::from_slice(&body).map_err(|error| self.broken(request, error.to_string()))
    }

    /// The whole exchange: wait for a slot, connect, send, read.
    async fn exchange(&self, ask: Ask) -> Result<Bytes, Error> {
        let request = ask.name();
        // The semaphore is never closed; were it, there would be no limit to keep.
        let _slot = self.slots.acquire().await;
        let wire = self.connect(&request).await?;
        let (status, body) = self.send(wire, ask).await.map_err(|cause| match cause {
            Cut::Io(cause) => Error::Unreachable {
                request: request.clone(),
                place: self.place(),
                cause,
            },
            Cut::Nonsense(why) => self.broken(request.clone(), why),
        })?;
        let place = self.place();
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::UNAUTHORIZED => Err(Error::Refused { request, place }),
            StatusCode::NOT_FOUND => Err(Error::NotFound { request, place }),
            other => Err(Error::Failed {
                request,
                place,
                status: other.as_u16(),
            }),
        }
    }

    /// Opens a connection, again after a pause when that failed: nothing has been sent.
    async fn connect(&self, request: &str) -> Result<Box<dyn Wire>, Error> {
        let mut tries = 1;
        loop {
            match self.dial.dial().await {
                Ok(wire) => return Ok(wire),
                Err(cause) if tries >= CONNECT_TRIES => {
                    return Err(Error::Unreachable {
                        request: request.to_owned(),
                        place: self.place(),
                        cause,
                    });
                }
                Err(cause) => {
                    tracing::debug!(%cause, tries, "could not connect to the ZeroTier service");
                    time::sleep(CONNECT_PAUSE).await;
                    tries += 1;
                }
            }
        }
    }

    async fn send(&self, wire: Box<dyn Wire>, ask: Ask) -> Result<(StatusCode, Bytes), Cut> {
        let head = Request::builder()
            .method(ask.method)
            .uri(&ask.path)
            .header(header::HOST, "localhost")
            .header(header::CONNECTION, "close")
            .header("X-ZT1-Auth", self.token.expose());
        let request = match ask.body {
            Some(body) => head
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(body))),
            None => head.body(Full::default()),
        }
        .map_err(|error| Cut::Nonsense(error.to_string()))?;

        let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await.map_err(cut)?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(cut)?;
            let (head, body) = answer.into_parts();
            if head.status != StatusCode::OK {
                return Ok((head.status, Bytes::new()));
            }
            let too_long = || Cut::Nonsense(format!("it is longer than {MAX_ANSWER} bytes"));
            if usize::try_from(body.size_hint().lower()).map_or(true, |announced| announced > MAX_ANSWER) {
                return Err(too_long());
            }
            let body = Limited::new(body, MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| match error.downcast::<hyper::Error>() {
                    Ok(error) => cut(*error),
                    Err(error) if error.is::<LengthLimitError>() => too_long(),
                    Err(error) => Cut::Nonsense(error.to_string()),
                })?;
            Ok((head.status, body.to_bytes()))
        };
        tokio::pin!(answer);
        // The connection is driven here, not by a task of its own: dropping the call drops all of it.
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            ended = connection => {
                // An answer that ends with the connection is complete by now; otherwise this is what ended it.
                tokio::select! {
                    biased;
                    answer = &mut answer => answer,
                    () = std::future::ready(()) => Err(match ended {
                        Err(error) => cut(error),
                        Ok(()) => Cut::Io(io::ErrorKind::UnexpectedEof.into()),
                    }),
                }
            }
        }
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

/// What ended an exchange early.
enum Cut {
    Io(io::Error),
    Nonsense(String),
}

fn cut(error: hyper::Error) -> Cut {
    if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        Cut::Nonsense(format!("it is not HTTP ({error})"))
    } else {
        Cut::Io(io::Error::other(error))
    }
}
