//! One HTTP connection, and the requests and answers on it. Nothing here tries a request again.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    body::Body,
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::time;

use crate::dial::{Dial, Wire};

/// The largest answer that is read. A controller lists a member in about 520 bytes: room for 60,000 of them.
pub const MAX_ANSWER: usize = 32 << 20;
/// How often a connection is tried before nobody counts as reachable: a restart takes the port away shortly.
const CONNECT_TRIES: u32 = 3;
/// The pause between two of them.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long to wait when an answer says it in a way that is not read.
const A_WHILE: Duration = Duration::from_secs(60);

/// One request, named for messages.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    body: Option<String>,
}

/// What a request needs besides what is asked.
pub(crate) struct Manner<'a> {
    pub(crate) host: &'a str,
    /// The header that lets the caller in, and its value, which no log shows.
    pub(crate) secret: (&'static str, &'a str),
    /// What comes before every path.
    pub(crate) base: &'a str,
    /// Whether the connection ends with the answer.
    pub(crate) last: bool,
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    /// Empty unless the status is 200: what others carry is nothing, `{}`, or text that claims to be JSON and is not.
    pub(crate) body: Bytes,
    /// How long to wait before asking again, where the answer says so.
    pub(crate) retry_after: Option<Duration>,
}

/// What ended an exchange early.
pub(crate) enum Cut {
    Io(io::Error),
    Nonsense(String),
}

/// An open connection.
pub(crate) struct Line {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<TokioIo<Box<dyn Wire>>, Full<Bytes>>,
}

impl Ask {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            body: None,
        }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>, body: &serde_json::Value) -> Self {
        Self {
            body: Some(body.to_string()),
            ..Self::new(Method::POST, path)
        }
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// The method and path, as messages name it.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether asking changes nothing.
    pub(crate) fn is_read(&self) -> bool {
        self.method == Method::GET
    }

    fn to_request(&self, manner: &Manner<'_>) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut secret = HeaderValue::from_str(manner.secret.1)?;
        secret.set_sensitive(true);
        let mut head = Request::builder()
            .method(self.method.clone())
            .uri(format!("{}{}", manner.base, self.path))
            .header(header::HOST, manner.host)
            .header(manner.secret.0, secret);
        if manner.last {
            head = head.header(header::CONNECTION, "close");
        }
        match &self.body {
            Some(body) => head
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(body.clone()))),
            None => head.body(Full::default()),
        }
    }
}

impl Line {
    /// Opens a connection, again after a pause when that failed: nothing has been sent.
    pub(crate) async fn open(dial: &Arc<dyn Dial>) -> Result<Self, Cut> {
        let mut tries = 1;
        let wire = loop {
            match dial.dial().await {
                Ok(wire) => break wire,
                Err(cause) if tries >= CONNECT_TRIES => return Err(Cut::Io(cause)),
                Err(cause) => {
                    tracing::debug!(%cause, tries, %dial, "could not connect");
                    time::sleep(CONNECT_PAUSE).await;
                    tries += 1;
                }
            }
        };
        let (sender, connection) = http1::handshake(TokioIo::new(wire)).await.map_err(cut)?;
        Ok(Self { sender, connection })
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn send(&mut self, ask: &Ask, manner: &Manner<'_>) -> Result<Reply, Cut> {
        let request = ask
            .to_request(manner)
            .map_err(|error| Cut::Nonsense(error.to_string()))?;
        let Self { sender, connection } = self;
        let answer = answer(sender, request);
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
}

/// Reads for how long to wait. A date is not compared with a clock that may be wrong: it means a while.
fn wait(text: &[u8]) -> Duration {
    let text = text.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return A_WHILE;
    }
    let seconds = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    // More digits than a number has.
    Duration::from_secs(seconds.unwrap_or(u64::MAX))
}

async fn answer(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Reply, Cut> {
    sender.ready().await.map_err(cut)?;
    let answer = sender.send_request(request).await.map_err(cut)?;
    let (head, body) = answer.into_parts();
    let retry_after = head
        .headers
        .get(header::RETRY_AFTER)
        .map(|value| wait(value.as_bytes()));
    let reply = |body| Reply {
        status: head.status,
        body,
        retry_after,
    };
    if head.status != StatusCode::OK {
        return Ok(reply(Bytes::new()));
    }
    let too_long = || Cut::Nonsense(format!("it is longer than {MAX_ANSWER} bytes"));
    if usize::try_from(body.size_hint().lower()).map_or(true, |announced| announced > MAX_ANSWER) {
        return Err(too_long());
    }
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
        match error.downcast::<hyper::Error>() {
            Ok(error) => cut(*error),
            Err(error) if error.is::<LengthLimitError>() => too_long(),
            Err(error) => Cut::Nonsense(error.to_string()),
        }
    })?;
    Ok(reply(body.to_bytes()))
}

fn cut(error: hyper::Error) -> Cut {
    if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        Cut::Nonsense(format!("it is not HTTP ({error})"))
    } else {
        Cut::Io(io::Error::other(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_number_of_seconds_and_anything_else_a_while() {
        for (text, seconds) in [
            ("0", 0),
            (" 120 ", 120),
            ("99999999999999999999999", u64::MAX),
            ("Fri, 27 Nov 2026 08:00:00 GMT", 60),
            ("-1", 60),
            ("soon", 60),
            ("", 60),
        ] {
            assert_eq!(wait(text.as_bytes()).as_secs(), seconds, "{text}");
        }
    }
}
