//! A simulated ZeroTier Central: networks and members as a controller keeps them, in Central's own wrapping.
//!
//! It can be told to fail: each trouble befalls one request, in the order in which they were asked for.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{coerce::Record, controller::Hosted, machine};
use crate::{
    central::{Central, HOST},
    dial::{Dial, Dialing, Wire},
    home::Token,
    ids::{NetworkId, NodeId},
};

/// The bytes an in-memory connection holds before the writer waits: a socket's usual buffer.
const PIPE: usize = 64 * 1024;
/// The longest body that is kept.
const MAX_BODY: usize = 1 << 20;
/// The node that governs Central's networks here.
const CONTROLLER: u64 = 0x80_56c2_e21c;
/// The wall time, an arbitrary day of 2026, in milliseconds since 1970.
const NOW: u64 = 1_795_364_728_000;

/// A simulated ZeroTier Central. Clones are the same one.
#[derive(Clone)]
pub struct FakeCentral(Arc<Inner>);

struct Inner {
    token: String,
    state: Mutex<State>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    networks: BTreeMap<NetworkId, Account>,
    created: u32,
    troubles: VecDeque<Trouble>,
    /// What befalls every request about a network.
    afflicted: BTreeMap<NetworkId, Trouble>,
    /// Nobody reaches it.
    unplugged: bool,
    requests: Vec<String>,
}

/// A network of an account.
struct Account {
    hosted: Hosted,
    rules_source: String,
}

/// What befalls a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// 429, with so many seconds to wait where they are said. Nothing is done.
    TooMany(Option<u64>),
    /// This status. Nothing is done.
    Status(u16),
    /// It is done, and then the connection breaks.
    Cut,
    /// 200, and a body that is no answer.
    Nonsense,
    /// No answer ever.
    Silence,
}

impl Default for FakeCentral {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeCentral {
    /// Returns one without networks.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            token: machine::hex(0, "central", 16),
            state: Mutex::default(),
            tasks: Mutex::default(),
        }))
    }

    /// Returns a client with the right token.
    #[must_use]
    pub fn client(&self) -> Central {
        Central::new(self.dial(), HOST, self.token())
    }

    /// Returns the token of its one account.
    ///
    /// # Panics
    /// Never: it is plain.
    #[must_use]
    pub fn token(&self) -> Token {
        Token::new(&self.0.token).expect("a derived token is plain")
    }

    /// Returns a way to connect to it in memory.
    #[must_use]
    pub fn dial(&self) -> Arc<dyn Dial> {
        Arc::new(self.clone())
    }

    /// Lets these troubles befall the next requests, one each.
    pub fn trouble(&self, troubles: impl IntoIterator<Item = Trouble>) {
        self.state().troubles.extend(troubles);
    }

    /// Takes away the troubles that have befallen nobody yet.
    pub fn untroubled(&self) {
        self.state().troubles.clear();
    }

    /// Lets a trouble befall every request about one network, until it is taken away.
    pub fn afflict(&self, network: NetworkId, trouble: Option<Trouble>) {
        let afflicted = &mut self.state().afflicted;
        match trouble {
            Some(trouble) => drop(afflicted.insert(network, trouble)),
            None => drop(afflicted.remove(&network)),
        }
    }

    /// Lets nobody reach it any more.
    pub fn unplug(&self) {
        self.state().unplugged = true;
    }

    /// Lets everybody reach it again.
    pub fn plug_in(&self) {
        self.state().unplugged = false;
    }

    /// Returns the method and path of every request that came.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// Changes a network's record past the API, as somebody does at its web page.
    ///
    /// # Panics
    /// When there is no such network, or the fields are none of a record.
    pub fn edit(&self, network: NetworkId, fields: &Value) {
        let mut state = self.state();
        let account = state.networks.get_mut(&network).expect("a network that is there");
        account
            .hosted
            .post(network, &fields.to_string(), NOW)
            .expect("fields of a record");
    }

    /// Serves one connection until either side closes it.
    pub async fn serve(&self, io: impl Wire) {
        let answer = service_fn(|request: Request<Incoming>| self.respond(request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(io), answer);
        // A connection that breaks is its client's affair.
        drop(connection.await);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn respond(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY)
            .collect()
            .await
            .map_err(io::Error::other)?;
        let body = body.to_bytes();
        let trouble = {
            let mut state = self.state();
            state
                .requests
                .push(format!("{} {}", head.method, head.uri.path()));
            state.trouble_of(head.uri.path())
        };
        match trouble {
            Some(Trouble::TooMany(wait)) => {
                let mut answer = status(StatusCode::TOO_MANY_REQUESTS);
                if let Some(wait) = wait {
                    answer.headers_mut().insert(header::RETRY_AFTER, wait.into());
                }
                return Ok(answer);
            }
            Some(Trouble::Status(code)) => {
                return Ok(status(StatusCode::from_u16(code).unwrap_or_default()));
            }
            Some(Trouble::Nonsense) => return Ok(Response::new("<html>".into())),
            Some(Trouble::Silence) => match std::future::pending::<Infallible>().await {},
            Some(Trouble::Cut) | None => {}
        }
        let answer = self.answer(&head.method, head.uri.path(), &head.headers, &body);
        if trouble == Some(Trouble::Cut) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(match answer {
            Ok(value) => Response::new(value.to_string().into()),
            Err(code) => status(code),
        })
    }

    fn answer(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Value, StatusCode> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if header(header::HOST) != Some(HOST) {
            return Err(StatusCode::MISDIRECTED_REQUEST);
        }
        if header(header::AUTHORIZATION).and_then(|value| value.strip_prefix("token "))
            != Some(self.0.token.as_str())
        {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let body: Value = match body {
            [] => Value::Null,
            body => serde_json::from_slice(body).map_err(|_| StatusCode::BAD_REQUEST)?,
        };
        let path = path.strip_prefix("/api/v1/").ok_or(StatusCode::NOT_FOUND)?;
        let segments: Vec<&str> = path.split('/').collect();
        let mut state = self.state();
        match (method.as_str(), segments.as_slice()) {
            ("GET", ["network"]) => Ok(state
                .networks
                .iter()
                .map(|(id, account)| account.show(*id))
                .collect()),
            ("POST", ["network"]) => {
                let controller = NodeId::new(CONTROLLER).map_err(|_| StatusCode::NOT_FOUND)?;
                state.created += 1;
                let id = NetworkId::at(controller, state.created);
                let hosted = Hosted::create(id, &config(&body), NOW).map_err(|_| StatusCode::BAD_REQUEST)?;
                let account = Account {
                    hosted,
                    rules_source: "accept;".to_owned(),
                };
                let shown = account.show(id);
                state.networks.insert(id, account);
                Ok(shown)
            }
            (method, ["network", network, rest @ ..]) => {
                let id: NetworkId = network.parse().map_err(|_| StatusCode::NOT_FOUND)?;
                if (method, rest) == ("DELETE", &[]) {
                    let deleted = state.networks.remove(&id).ok_or(StatusCode::NOT_FOUND)?;
                    return Ok(deleted.show(id));
                }
                let account = state.networks.get_mut(&id).ok_or(StatusCode::NOT_FOUND)?;
                account.answer(id, method, rest, &body)
            }
            _ => Err(StatusCode::NOT_FOUND),
        }
    }
}

impl State {
    /// What befalls the next request.
    fn trouble_of(&mut self, path: &str) -> Option<Trouble> {
        let mut segments = path.split('/').skip_while(|segment| *segment != "network");
        let network: Option<NetworkId> = segments.nth(1).and_then(|id| id.parse().ok());
        let afflicted = network.and_then(|network| self.afflicted.get(&network).copied());
        afflicted.or_else(|| self.troubles.pop_front())
    }
}

impl Account {
    fn answer(
        &mut self,
        id: NetworkId,
        method: &str,
        rest: &[&str],
        body: &Value,
    ) -> Result<Value, StatusCode> {
        match (method, rest) {
            ("GET", []) => Ok(self.show(id)),
            ("POST", []) => {
                self.hosted
                    .post(id, &config(body), NOW)
                    .map_err(|_| StatusCode::BAD_REQUEST)?;
                Ok(self.show(id))
            }
            ("GET", ["member"]) => Ok(self
                .hosted
                .members
                .iter()
                .map(|(node, record)| member(id, *node, record))
                .collect()),
            (method, ["member", node]) => {
                let node: NodeId = node.parse().map_err(|_| StatusCode::NOT_FOUND)?;
                match method {
                    "GET" => {}
                    "POST" => self.post_member(id, node, body)?,
                    "DELETE" => {
                        let (record, _) = self.hosted.delete_member(node).ok_or(StatusCode::NOT_FOUND)?;
                        return Ok(member(id, node, &record));
                    }
                    _ => return Err(StatusCode::METHOD_NOT_ALLOWED),
                }
                let record = self.hosted.members.get(&node).ok_or(StatusCode::NOT_FOUND)?;
                Ok(member(id, node, record))
            }
            _ => Err(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn post_member(&mut self, id: NetworkId, node: NodeId, body: &Value) -> Result<(), StatusCode> {
        let mut fields = body["config"].as_object().cloned().unwrap_or_default();
        fields.remove("name");
        if let Some(name) = body.get("name") {
            fields.insert("name".into(), name.clone());
        }
        let typed = (id.to_string(), node.to_string());
        let text = Value::Object(fields).to_string();
        self.hosted
            .post_member(node, (&typed.0, &typed.1), &text, NOW)
            .map(drop)
            .map_err(|_| StatusCode::BAD_REQUEST)
    }

    fn show(&self, id: NetworkId) -> Value {
        let (total, authorized) = self.hosted.count();
        json!({
            "id": id, "clock": NOW, "config": self.hosted.record, "description": "", "rulesSource": self.rules_source,
            "permissions": {}, "ownerId": "00000000-0000-0000-0000-000000000000", "onlineMemberCount": 0,
            "authorizedMemberCount": authorized, "totalMemberCount": total, "capabilitiesByName": {}, "tagsByName": {},
        })
    }
}

fn config(body: &Value) -> String {
    let config = body.get("config").filter(|config| config.is_object());
    config.map_or_else(|| "{}".to_owned(), Value::to_string)
}

fn member(network: NetworkId, node: NodeId, record: &Record) -> Value {
    let mut config = record.clone();
    let name = config.remove("name").unwrap_or_else(|| "".into());
    config.remove("nwid");
    json!({
        "id": format!("{network}-{node}"), "clock": NOW, "networkId": network, "nodeId": node,
        "controllerId": network.controller(), "hidden": false, "name": name, "description": "", "config": config,
        "lastOnline": 0, "lastSeen": 0, "physicalAddress": null, "clientVersion": "0.0.0", "protocolVersion": 0,
        "supportsRulesEngine": true,
    })
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from("{}"));
    *answer.status_mut() = code;
    answer
}

impl Dial for FakeCentral {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            if self.state().unplugged {
                return Err(io::ErrorKind::HostUnreachable.into());
            }
            let (near, far) = tokio::io::duplex(PIPE);
            let own = self.clone();
            let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            // Finished connections would pile up otherwise.
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move { own.serve(far).await });
            Ok(Box::new(near) as Box<dyn Wire>)
        })
    }
}

impl fmt::Debug for FakeCentral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for FakeCentral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated Central")
    }
}
