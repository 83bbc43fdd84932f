//! Metrics and health over plain HTTP: `/metrics`, `/healthz` (the process answers), `/readyz` (the listeners are open).

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use picket_proto::status::DeckyState;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{desk::Desk, listen::Door, liveness::Presence, record::HostStanding};

/// How many connections are served at once.
const CONNECTIONS: usize = 16;
/// How long a client may take to send its request's headers.
const HEADERS: Duration = Duration::from_secs(5);

/// Serves until `stop`.
pub async fn serve(desk: Arc<Desk>, mut door: Door, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            next = door.next() => next,
        };
        let Some((io, _)) = next else { return };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let desk = Arc::clone(&desk);
        connections.spawn(async move {
            let answer = service_fn(move |request| {
                let answer = answer(&desk, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .keep_alive(false);
            // A client that breaks off gets no answer, and that is all.
            drop(server.serve_connection(TokioIo::new(io), answer).await);
            drop(place);
        });
    }
}

fn answer(desk: &Desk, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            count(desk);
            (StatusCode::OK, "text/plain; version=0.0.4", desk.metrics.render())
        }
        (&Method::GET, "/healthz" | "/readyz") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (&Method::GET, _) => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "try /metrics, /healthz or /readyz\n".to_owned(),
        ),
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "only GET\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// Sets the gauges that are counted when someone looks.
fn count(desk: &Desk) {
    const STATES: [&str; 5] = ["never-seen", "online", "late", "offline", "banned"];
    let mut hosts = [0; STATES.len()];
    {
        let views = desk.views.read();
        let liveness = desk.liveness();
        for host in views.roster.hosts() {
            let state = match (&host.record.standing, liveness.of(host.record.id).0) {
                (HostStanding::Banned { .. } | HostStanding::Retired { .. }, _) => 4,
                (HostStanding::Active, Presence::NeverSeen) => 0,
                (HostStanding::Active, Presence::Online) => 1,
                (HostStanding::Active, Presence::Late) => 2,
                (HostStanding::Active, Presence::Offline) => 3,
            };
            hosts[state] += 1;
        }
    }
    for (state, count) in STATES.into_iter().zip(hosts) {
        desk.metrics.hosts(state, count);
    }
    let mut deckies = [0_usize; DeckyState::ALL.len()];
    for (_, seen) in desk.observed.all() {
        seen.glance(|summary| {
            for (sum, count) in deckies.iter_mut().zip(summary.deckies) {
                *sum += usize::from(count);
            }
        });
    }
    for (state, count) in DeckyState::ALL.into_iter().zip(deckies) {
        desk.metrics.deckies(state, count);
    }
}
