//! The doors: connections are accepted, shaken hands with, and counted, before anything of them is read.
//!
//! Each door has a bound on its connections that leaves descriptors for the others, and a [`Crowd`] of those that have not
//! shown who they are, which no address can fill.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use metrics::Gauge;
use picket_link::{Io, Peer, TlsServerIo, accept};
use picket_pki::Fingerprint;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::Connected;

use crate::{
    crowd::{Crowd, Place},
    desk::Desk,
    event::Severity,
    sessions::Link,
    spent,
};

/// Connections as they come, with where they come from.
pub type Door = BoxStream<'static, (Box<dyn Io>, SocketAddr)>;

/// A handshake takes two round trips, over a satellite with losses some seconds. Whoever needs longer than this is not
/// there or means ill; a place that they hold so long is taken from them when somebody else needs it.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many handshakes go on at once on one door. One costs half a millisecond of a core, and some 20 KiB meanwhile.
const HANDSHAKES: usize = 512;
/// How many accepted connections may wait for the HTTP/2 server to take them up.
const ACCEPTED: usize = 64;
/// After an error of the listening socket (no descriptors left, say) nothing is accepted for this long.
const PAUSE: Duration = Duration::from_millis(100);
/// How many addresses and reasons of refusals are told apart within one minute.
const MOST_REFUSALS: usize = 256;

/// Connections of a TCP listener.
#[must_use]
pub fn tcp(listener: TcpListener) -> Door {
    futures::stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    // Beats and acknowledgements are small and answered at once.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection broke as it was accepted");
                        continue;
                    }
                    return Some(((Box::new(stream) as Box<dyn Io>, address), listener));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections just now");
                    time::sleep(PAUSE).await;
                }
            }
        }
    })
    .boxed()
}

/// What a door is called, and how many connections it may have open.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    /// As metrics call it.
    pub listener: &'static str,
    /// Handshakes among them.
    pub most: usize,
}

/// Shakes hands at a door until `stop`, and hands out the connections that are let in. A connection for which there is no
/// room is closed without a word: it has not shown who it is.
pub fn admit(
    Name { listener: name, most }: Name,
    mut door: Door,
    config: Arc<ServerConfig>,
    desk: Arc<Desk>,
    refusals: Arc<Refusals>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> ReceiverStream<Result<Guarded, io::Error>> {
    let (let_in, admitted) = mpsc::channel(ACCEPTED);
    let rooms = Arc::new(Semaphore::new(most));
    let crowd = Arc::new(Crowd::new(HANDSHAKES.min(most / 2)));
    let counted = Arc::new(desk.metrics.connections(name));
    let shaking = tasks.clone();
    tasks.spawn(async move {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = door.next() => next,
            };
            let Some((io, address)) = next else { return };
            let entered = Room::enter(&rooms, &crowd, &counted, address.ip());
            let (room, place) = match entered {
                Ok(entered) => entered,
                Err(turned_away) => {
                    desk.metrics.handshake(name, turned_away.label());
                    refusals.note(address.ip(), turned_away.label(), None, || {
                        turned_away.to_string()
                    });
                    continue;
                }
            };
            let (config, desk, refusals) = (Arc::clone(&config), Arc::clone(&desk), Arc::clone(&refusals));
            let let_in = let_in.clone();
            shaking.spawn(async move {
                let (shaken, shown) = tokio::select! {
                    shaken = spent::watching(accept(io, address, config, HANDSHAKE)) => shaken,
                    () = place.place.displaced.cancelled() => {
                        desk.metrics.handshake(name, TurnedAway::Displaced.label());
                        let why = || TurnedAway::Displaced.to_string();
                        refusals.note(address.ip(), TurnedAway::Displaced.label(), None, why);
                        return;
                    }
                };
                match shaken {
                    Ok(io) => {
                        desk.metrics.handshake(name, "accepted");
                        drop(place);
                        // The server takes no more when it stops.
                        drop(let_in.send(Ok(Guarded::new(io, &desk, room))).await);
                    }
                    Err(error) => {
                        desk.metrics.handshake(name, error.label());
                        refusals.note(address.ip(), error.label(), shown, || {
                            crate::status::chain(&error)
                        });
                    }
                }
            });
        }
    });
    ReceiverStream::new(admitted)
}

/// Why a connection was closed before its handshake was done.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum TurnedAway {
    #[error(
        "this door has as many connections open as it may (agents.most_connections, or the file descriptors this process has)"
    )]
    Full,
    #[error("its address has more handshakes open than its share")]
    Crowded,
    #[error("somebody else needed the place of its handshake, and its address had the most of them")]
    Displaced,
}

impl TurnedAway {
    fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Crowded => "crowded",
            Self::Displaced => "displaced",
        }
    }
}

/// A connection's share of what its door may have open.
struct Room {
    _permit: OwnedSemaphorePermit,
    counted: Arc<[Gauge; 2]>,
}

/// A handshake's place in the crowd.
struct Counted {
    place: Place,
    counted: Arc<[Gauge; 2]>,
}

impl Room {
    fn enter(
        rooms: &Arc<Semaphore>,
        crowd: &Arc<Crowd>,
        counted: &Arc<[Gauge; 2]>,
        address: IpAddr,
    ) -> Result<(Self, Counted), TurnedAway> {
        let permit = Arc::clone(rooms).try_acquire_owned();
        let permit = permit.map_err(|_| TurnedAway::Full)?;
        let place = crowd.enter(address).ok_or(TurnedAway::Crowded)?;
        counted.iter().for_each(|gauge| gauge.increment(1));
        let room = Self {
            _permit: permit,
            counted: Arc::clone(counted),
        };
        let counted = Arc::clone(counted);
        Ok((room, Counted { place, counted }))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counted[0].decrement(1);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counted[1].decrement(1);
    }
}

/// A connection that ends when its peer is cut off.
pub struct Guarded {
    io: TlsServerIo,
    _link: Link,
    _room: Room,
    closed: BoxFuture<'static, ()>,
}

impl Guarded {
    fn new(io: TlsServerIo, desk: &Desk, room: Room) -> Self {
        let link = desk.sessions.link(io.peer(), desk.clock.monotonic());
        let closed = Box::pin(link.closed.clone().cancelled_owned());
        Self {
            io,
            _link: link,
            _room: room,
            closed,
        }
    }
}

impl Connected for Guarded {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.io.connect_info()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(ready!(Pin::new(&mut self.io).poll_write_vectored(cx, parts))?))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Refused handshakes of the last minute, by address and reason.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    by: BTreeMap<(IpAddr, &'static str, Option<Fingerprint>), (u64, String)>,
    others: u64,
}

impl Refusals {
    /// How often they are reported.
    pub const EVERY: Duration = Duration::from_secs(60);

    fn note(
        &self,
        address: IpAddr,
        label: &'static str,
        spent: Option<Fingerprint>,
        why: impl FnOnce() -> String,
    ) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address, label, spent);
        if noted.by.len() >= MOST_REFUSALS && !noted.by.contains_key(&key) {
            noted.others += 1;
            return;
        }
        noted.by.entry(key).or_insert_with(|| (0, why())).0 += 1;
    }

    /// Reports what was noted since the last time: an event for each address and reason.
    pub fn report(&self, desk: &Desk) {
        let Noted { by, others } =
            std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for ((address, label, spent), (count, why)) in by {
            if let Some(fingerprint) = spent {
                spent::report(desk, &fingerprint, address, count);
            }
            let message = format!("{count} handshakes refused within a minute ({label}): {why}");
            desk.say(
                Severity::Warning,
                "handshake.refused",
                &address.to_string(),
                &message,
            );
        }
        if others > 0 {
            let message = format!("{others} more handshakes refused, from too many addresses to name");
            desk.say(Severity::Warning, "handshake.refused", "many", &message);
        }
    }
}
