//! The HTTP of a simulated service: who is let in, how long a connection lasts, what surrounds a body.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    time,
};

use super::{
    coerce::dump,
    lab::{Lab, Mood},
    machine::Machine,
    routes,
};
use crate::ids::NodeId;

/// Requests that a connection carries before the service closes it.
const PER_CONNECTION: u32 = 5;
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(5);
/// A form that is longer is refused; nothing else is.
const MAX_FORM: usize = 8 * 1024;
/// The longest body the simulation keeps. A real service has no limit; the longest recorded was 4 MiB.
const MAX_BODY: usize = 16 << 20;

/// Where a connection comes from, as far as a service cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This machine, over IPv4.
    Loopback,
    /// This machine, over IPv6: that listener lacks one route.
    Loopback6,
    /// Another machine that may not manage this service.
    Elsewhere,
}

/// A request, read.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: String,
    pub(super) origin: Origin,
}

/// An answer, before the connection adds what is its own.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: Option<&'static str>,
    pub(super) body: String,
}

impl Answer {
    /// A 200 with JSON.
    pub(super) fn json(value: &Value) -> Self {
        Self::of(StatusCode::OK, "application/json", dump(value))
    }

    /// A 200 with text.
    pub(super) fn text(content_type: &'static str, body: String) -> Self {
        Self::of(StatusCode::OK, content_type, body)
    }

    /// A status with `{}`.
    pub(super) fn hollow(status: StatusCode) -> Self {
        Self::of(status, "application/json", "{}".to_owned())
    }

    /// A status with nothing.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            content_type: None,
            body: String::new(),
        }
    }

    /// A 500. The description is not escaped, so this is not always JSON.
    pub(super) fn thrown(description: &str) -> Self {
        let body = format!("{{\"error\": 500, \"description\": \"{description}\"}}");
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, "application/json", body)
    }

    fn of(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type: Some(content_type),
            body,
        }
    }
}

impl Lab {
    /// Serves one connection to a node, until either side closes it.
    pub async fn serve(
        &self,
        node: NodeId,
        origin: Origin,
        mut io: impl AsyncRead + AsyncWrite + Send + Unpin,
    ) {
        let (mood, workers) = self.with(node, |machine| (machine.mood, machine.workers.clone()));
        match mood {
            Mood::Closing => return,
            Mood::Hanging => {
                // Until the client gives up: an answer never comes.
                let mut ignored = [0; 1024];
                while matches!(io.read(&mut ignored).await, Ok(1..)) {}
                return;
            }
            Mood::Babbling => {
                let mut ignored = [0; 1024];
                if io.read(&mut ignored).await.is_ok() {
                    // The client may be gone already, and a babbler does not mind.
                    drop(io.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await);
                }
                return;
            }
            Mood::Well | Mood::Confused | Mood::Muddled | Mood::Mute => {}
        }
        let Ok(_worker) = workers.acquire_owned().await else {
            return;
        };
        let served = AtomicU32::new(0);
        let answer = service_fn(|request: Request<Incoming>| async {
            let last = served.fetch_add(1, Ordering::Relaxed) + 1 >= PER_CONNECTION;
            Ok::<_, Infallible>(self.respond(node, origin, request, last).await)
        });
        let connection = http1::Builder::new()
            .auto_date_header(false)
            .title_case_headers(true)
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(io), answer);
        // A connection that breaks is its client's affair.
        drop(connection.await);
    }

    /// Binds a TCP address for a node and serves it until the lab is gone; returns the address.
    ///
    /// Connections to a stopped node are closed at once.
    ///
    /// # Errors
    /// Fails when the address cannot be bound.
    pub async fn listen(&self, node: NodeId, address: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        let origin = if bound.is_ipv4() {
            Origin::Loopback
        } else {
            Origin::Loopback6
        };
        let lab = self.watch();
        self.spawn(async move {
            loop {
                let accepted = listener.accept().await;
                let Some(lab) = lab() else { return };
                match accepted {
                    Ok((stream, _)) if lab.with(node, |machine| machine.running) => {
                        let own = lab.clone();
                        lab.spawn(async move { own.serve(node, origin, stream).await });
                    }
                    Ok(_) => {}
                    // Out of descriptors, say: what is open has to end first.
                    Err(_) => time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Ok(bound)
    }

    async fn respond(
        &self,
        node: NodeId,
        origin: Origin,
        request: Request<Incoming>,
        last: bool,
    ) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let close = last
            || head
                .headers
                .get(header::CONNECTION)
                .is_some_and(|value| value == "close");
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default();

        let answer = match self.guard(node, origin, &path, query, &head.headers) {
            Err(refusal) => refusal,
            Ok(()) => match read(&head.headers, body).await {
                Err(refusal) => refusal,
                Ok(body) => {
                    let asked = Asked {
                        method: head.method,
                        path,
                        body,
                        origin,
                    };
                    match self.answer(node, &asked) {
                        Some(answer) => answer,
                        // Until the client gives up.
                        None => std::future::pending().await,
                    }
                }
            },
        };
        let answer = match parameter(query, "jsonp") {
            Some(function) if answer.status == StatusCode::OK => {
                Answer::text("application/javascript", format!("{function}({});", answer.body))
            }
            Some(_) | None => answer,
        };

        let mut response = Response::new(Full::new(Bytes::from(answer.body)));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        if let Some(content_type) = answer.content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        if close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        } else {
            headers.insert("keep-alive", HeaderValue::from_static("timeout=5, max=5"));
        }
        response
    }

    /// Answers a request, or does what is asked and says nothing about it.
    fn answer(&self, node: NodeId, asked: &Asked) -> Option<Answer> {
        let path = asked.path.strip_prefix("/unstable").unwrap_or(&asked.path);
        let of_controller = path.starts_with("/controller");
        let mood = self.with(node, |machine| {
            let what = format!("{} {}", asked.method, asked.path);
            *machine.asked.entry(what).or_default() += 1;
            machine.mood
        });
        if mood == Mood::Confused || (mood == Mood::Muddled && of_controller) {
            return Some(Answer::json(&json!({ "weather": ["fair", 21] })));
        }
        let mut state = self.state();
        let answer = routes::answer(&mut state, node, asked);
        let kept = state.machines.get_mut(&node).map(Machine::keep);
        if let Some(Err(error)) = kept {
            return Some(Answer::thrown(&error.to_string()));
        }
        let says = mood != Mood::Mute || !of_controller || asked.method == Method::GET;
        says.then_some(answer)
    }

    /// Lets a request in, or says 401. Of the places a token may be in, the first that is there counts.
    fn guard(
        &self,
        node: NodeId,
        origin: Origin,
        path: &str,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<(), Answer> {
        let near = origin != Origin::Elsewhere;
        if path == "/health" && near {
            return Ok(());
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let shown = header("x-zt1-auth")
            .or_else(|| parameter(query, "auth"))
            .or_else(|| header("authorization")?.strip_prefix("Bearer "));
        let (token, metrics_token) = self.with(node, |machine| {
            (machine.token.clone(), machine.metrics_token.clone())
        });
        let is = |token: &str| shown == Some(token);
        let allowed = if path == "/metrics" {
            is(&token) || is(&metrics_token)
        } else {
            near && is(&token)
        };
        if allowed {
            Ok(())
        } else {
            Err(Answer::hollow(StatusCode::UNAUTHORIZED))
        }
    }
}

async fn read(headers: &HeaderMap, body: Incoming) -> Result<String, Answer> {
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    let limit = if is_form { MAX_FORM } else { MAX_BODY };
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
        Err(_) => Err(Answer::empty(StatusCode::PAYLOAD_TOO_LARGE)),
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
}
