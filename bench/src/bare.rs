//! The yardstick: the least server that speaks the session's messages under the master's TLS settings.
//!
//! It takes every host certificate of its CA, answers Hello with Welcome and a beat with its acknowledgement, and keeps,
//! pins and logs nothing. What a master takes beyond this is the price of being one.

use std::{
    io::Result as IoResult,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt as _, stream::BoxStream};
use picket_clock::Clock;
use picket_pki::{Fingerprint, Key, PinKind, Pins, Presented, Role, Standing, server_config};
use picket_proto::wire::agent as wire;
use picket_proto::wire::agent::agent_service_server::{AgentService, AgentServiceServer};
use picket_proto::{document::Lineage, session as say};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Error, Server, server::Connected};
use tonic::{Request, Response, Status, Streaming};

use crate::site::{Site, SiteError};

type Replies<T> = BoxStream<'static, Result<T, Status>>;
type Reply<T> = Result<Response<T>, Status>;

/// As many handshakes at once as a master has.
const HANDSHAKES: usize = 256;

/// Serves agents of `site` until the listener fails. Fails itself when TLS cannot be set up.
pub async fn serve(listener: TcpListener, site: &Site) -> Result<Result<(), Error>, SiteError> {
    let (clock, key, authority) = (site.clock().clone(), Key::generate()?, site.authority());
    let shown = authority.issue_master(key.public(), &[], clock.now())?;
    let presented = Arc::new(Presented::new(&shown.der, &key)?);
    let trusted = Arc::clone(site.authorities());
    let (bare, time) = (Bare(clock.clone()), Arc::new(move || clock.unix()));
    let tls = server_config(presented, trusted, Role::Host, Arc::new(Anyone), time)?;
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let shake = move |stream: IoResult<TcpStream>| {
        let acceptor = acceptor.clone();
        async move {
            let stream = stream?;
            stream.set_nodelay(true)?;
            acceptor.accept(stream).await.map(Tls)
        }
    };
    let shaken = TcpListenerStream::new(listener).map(shake);
    let server = Server::builder().add_service(AgentServiceServer::new(bare));
    let connections = shaken.buffer_unordered(HANDSHAKES);
    Ok(server.serve_with_incoming(connections).await)
}

/// Every certificate of the CA is pinned.
#[derive(Debug)]
struct Anyone;

impl Pins for Anyone {
    fn standing(&self, _: &Fingerprint) -> Standing {
        Standing::Pinned(PinKind::Current)
    }
}

struct Bare(Clock);

#[tonic::async_trait]
impl AgentService for Bare {
    type SessionStream = Replies<wire::SessionResponse>;
    type FetchStream = Replies<wire::FetchResponse>;

    async fn session(&self, request: Request<Streaming<wire::SessionRequest>>) -> Reply<Self::SessionStream> {
        let clock = self.0.clone();
        let answers = request.into_inner().filter_map(move |request| {
            let answer = request.map(|request| answer(request, &clock)).transpose();
            async { answer }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn renew(&self, _: Request<wire::RenewRequest>) -> Reply<wire::RenewResponse> {
        Err(Status::unimplemented("a yardstick signs nothing"))
    }

    async fn report(&self, _: Request<Streaming<wire::ReportRequest>>) -> Reply<wire::ReportResponse> {
        Err(Status::unimplemented("a yardstick keeps nothing"))
    }

    async fn fetch(&self, _: Request<wire::FetchRequest>) -> Reply<Self::FetchStream> {
        Err(Status::unimplemented("a yardstick wants nothing"))
    }
}

fn answer(request: wire::SessionRequest, clock: &Clock) -> Option<wire::SessionResponse> {
    use wire::session_request::Message as Asked;
    match request.message? {
        Asked::Hello(_) => Some((&say::FromMaster::Welcome(welcome(clock))).into()),
        Asked::Beat(wire::Beat { sequence, .. }) => {
            Some((&say::FromMaster::BeatAck(ack(sequence, clock))).into())
        }
        Asked::Outcome(_) | Asked::Goodbye(_) | Asked::Pong(_) | Asked::TrustAck(_) | Asked::Looked(_) => {
            None
        }
    }
}

fn ack(sequence: u64, clock: &Clock) -> say::BeatAck {
    say::BeatAck {
        sequence,
        beat_interval: None,
        unknown: Vec::new(),
        time: Some(clock.now()),
    }
}

fn welcome(clock: &Clock) -> say::Welcome {
    say::Welcome {
        version: picket_proto::VERSION.to_owned(),
        capabilities: Vec::new(),
        limits: say::Limits::OURS,
        beat_interval: Duration::from_secs(30),
        time: clock.now(),
        lineage: Lineage([0; 16]),
    }
}

struct Tls(TlsStream<TcpStream>);

impl Connected for Tls {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Tls {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context, buf: &mut ReadBuf) -> Poll<IoResult<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<IoResult<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<IoResult<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
