//! The one place that every call on both doors passes: its path is held against the table in `access.rs`, its caller
//! against the live roster. Streams that stay open are ended when the caller may not have them any more.

use std::{
    collections::HashMap,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use picket_link::Peer;
use picket_pki::Identity;
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    access::{Access, access},
    caller,
    desk::Desk,
    operators,
    record::OperatorRole,
    status::{certificate_ended, denied, no_such_call, not_any_more},
};

/// Puts the gate before the services of a door.
#[derive(Debug, Clone)]
pub struct GateLayer(pub Arc<Desk>);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate {
            desk: Arc::clone(&self.0),
            inner,
        }
    }
}

/// Services behind the gate.
#[derive(Debug, Clone)]
pub struct Gate<S> {
    desk: Arc<Desk>,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let again = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, again);
        let desk = Arc::clone(&self.desk);
        Box::pin(async move {
            let entered = enter(&desk, request.uri().path(), request.extensions().get::<Peer>()).await;
            match entered {
                Ok(Entered::Host) => ready.call(request).await,
                Ok(Entered::Operator(call)) => {
                    let response = ready.call(request).await?;
                    Ok(response.map(|body| Body::new(Watched::new(body, call))))
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

enum Entered {
    /// What a host may have open is up to its session.
    Host,
    Operator(Call),
}

/// Lets a call in, or says why not.
#[allow(clippy::result_large_err, reason = "tonic answers a call with a Status")]
async fn enter(desk: &Arc<Desk>, path: &str, peer: Option<&Peer>) -> Result<Entered, Status> {
    let (peer, _) = caller::peer_admitted(desk, peer)?;
    let line = access(path).ok_or_else(no_such_call)?;
    let name = match &peer.identity {
        Identity::Operator(name) => name,
        Identity::Host(_) if line.callers.include_hosts() => return Ok(Entered::Host),
        Identity::Host(_) | Identity::Master => return Err(denied("a host", line)),
    };
    // On the list before the look: a change of the role after the look finds it there.
    let left = Duration::try_from(peer.not_after.duration_since(desk.now())).unwrap_or_default();
    let call = desk
        .calls
        .begin(name.as_str(), line, desk.clock.monotonic() + left);
    let role = role(desk, name.as_str()).ok_or_else(not_any_more)?;
    if !line.callers.include(role) {
        return Err(denied(&format!("{name}, {} {role},", article(role)), line));
    }
    operators::used(desk, name, &peer).await;
    Ok(Entered::Operator(call))
}

/// The role of an operator that is not revoked.
pub(crate) fn role(desk: &Desk, name: &str) -> Option<OperatorRole> {
    desk.views.read().roster.role(name)
}

fn article(role: OperatorRole) -> &'static str {
    match role {
        OperatorRole::Requester | OperatorRole::Viewer => "a",
        OperatorRole::Operator | OperatorRole::Admin => "an",
    }
}

/// The calls of operators that are not over.
#[derive(Debug, Default)]
pub struct Calls {
    open: Mutex<HashMap<String, Vec<Open>>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Open {
    id: u64,
    line: &'static Access,
    ended: CancellationToken,
}

/// A call's place on the list. Dropping it takes the call off.
#[derive(Debug)]
struct Call {
    calls: Arc<Calls>,
    operator: String,
    id: u64,
    ended: CancellationToken,
    ends: tokio::time::Instant,
}

impl Calls {
    fn begin(self: &Arc<Self>, operator: &str, line: &'static Access, ends: tokio::time::Instant) -> Call {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let ended = CancellationToken::new();
        self.open().entry(operator.to_owned()).or_default().push(Open {
            id,
            line,
            ended: ended.clone(),
        });
        Call {
            calls: Arc::clone(self),
            operator: operator.to_owned(),
            id,
            ended,
            ends,
        }
    }

    /// Ends the calls of an operator that its role does not allow; all of them when it has none.
    pub fn hold_to(&self, operator: &str, role: Option<OperatorRole>) {
        for open in self.open().get(operator).into_iter().flatten() {
            if !role.is_some_and(|role| open.line.callers.include(role)) {
                open.ended.cancel();
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Vec<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut open = self.calls.open();
        if let Some(theirs) = open.get_mut(&self.operator) {
            theirs.retain(|call| call.id != self.id);
            if theirs.is_empty() {
                open.remove(&self.operator);
            }
        }
    }
}

/// An answer that ends, with a status, when the caller may not have it any more or its certificate ends.
struct Watched {
    body: Body,
    _call: Call,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    ends: Pin<Box<Sleep>>,
    is_over: bool,
}

impl Watched {
    fn new(body: Body, call: Call) -> Self {
        Self {
            body,
            ended: Box::pin(call.ended.clone().cancelled_owned()),
            ends: Box::pin(sleep_until(call.ends)),
            _call: call,
            is_over: false,
        }
    }

    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.is_over = true;
        let mut trailers = http::HeaderMap::new();
        Poll::Ready(Some(
            status
                .add_header(&mut trailers)
                .map(|()| Frame::trailers(trailers)),
        ))
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if self.ended.as_mut().poll(cx).is_ready() {
            return self.end(&not_any_more());
        }
        if self.ends.as_mut().poll(cx).is_ready() {
            return self.end(&certificate_ended());
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_falls_ends_what_it_may_not_have_and_nothing_else() {
        let calls = Arc::new(Calls::default());
        let ends = Clock::simulated(jiff::Timestamp::UNIX_EPOCH).monotonic();
        let line = |path| access(path).unwrap();
        let watch = calls.begin("ana", line("/picket.admin.v1.EventService/WatchEvents"), ends);
        let health = calls.begin("ana", line("/grpc.health.v1.Health/Watch"), ends);
        let other = calls.begin("ben", line("/picket.admin.v1.EventService/WatchEvents"), ends);
        let ended = |calls: [&Call; 3]| calls.map(|call| call.ended.is_cancelled());
        calls.hold_to("ana", Some(OperatorRole::Viewer));
        assert_eq!(ended([&watch, &health, &other]), [false, false, false]);
        calls.hold_to("ana", Some(OperatorRole::Requester));
        assert_eq!(ended([&watch, &health, &other]), [true, false, false]);
        calls.hold_to("ana", None);
        assert_eq!(ended([&watch, &health, &other]), [true, true, false]);
        drop((watch, health, other));
        assert!(calls.open().is_empty(), "a call that is over is off the list");
    }

    use picket_clock::Clock;
}
