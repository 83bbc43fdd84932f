//! The listening end: a handshake with a deadline, an answer to those who are refused, and who is there.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use jiff::Timestamp;
use picket_pki::{Certificate, Fingerprint, Identity, Issuer, Refusal};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::{Binding, Io};

/// How long a refused peer has to read why. After that the connection is dropped, read or not.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How many bytes of a refused peer are thrown away while it reads why.
const DRAIN: u64 = 64 * 1024;

/// Why a connection was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// We refused the client, and it was told why.
    #[error("refused the client")]
    Refused(#[source] Refusal),
    /// The client refused us: to it, we are not its master.
    #[error("the client does not take this for its master")]
    Distrusted(#[source] io::Error),
    /// The connection broke before the handshake was done.
    #[error("the connection broke in the handshake")]
    Broken(#[source] io::Error),
    /// The handshake took too long.
    #[error("the handshake took longer than {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl AcceptError {
    /// The outcome as one word, for counting.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(reason) => reason.label(),
            Self::Distrusted(_) => "distrusted",
            Self::Broken(_) => "broken",
            Self::TimedOut(_) => "timed_out",
        }
    }
}

/// Who is at the other end, as the verified certificate says. Every request on the connection carries it as an
/// extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Whom the certificate speaks for.
    pub identity: Identity,
    /// Which certificate it is.
    pub fingerprint: Fingerprint,
    /// The CA that signed it, as it says itself.
    pub issuer: Issuer,
    /// Until when it holds: open sessions end then.
    pub not_after: Timestamp,
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// What tells this connection from every other.
    pub binding: Binding,
    /// Which connection this is: no other one that this process accepts has the number.
    pub connection: u64,
}

/// The number of the next connection.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A connection whose peer has been verified and pinned.
#[derive(Debug)]
pub struct TlsServerIo {
    stream: TlsStream<Plain>,
    peer: Peer,
}

/// Shakes hands with whoever came from `address`, within `deadline`. No HTTP/2 is read before this returns.
///
/// A client that is refused is told why before the connection closes.
///
/// # Errors
///
/// [`AcceptError`].
pub async fn accept(
    io: Box<dyn Io>,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    deadline: Duration,
) -> Result<TlsServerIo, AcceptError> {
    let handshake = TlsAcceptor::from(config).accept(Plain(io)).into_fallible();
    match time::timeout(deadline, handshake).await {
        Ok(Ok(stream)) => {
            let peer = peer(&stream, address).ok_or_else(|| {
                AcceptError::Broken(io::Error::other("the verified certificate cannot be read"))
            })?;
            Ok(TlsServerIo { stream, peer })
        }
        Ok(Err((cause, io))) => {
            let refused = explain(cause);
            // The alert is written. A close while the peer's bytes lie unread would reset a TCP connection, and the
            // reset would overtake the alert.
            drop(time::timeout(LAST_WORD, part(io)).await);
            Err(refused)
        }
        Err(_) => Err(AcceptError::TimedOut(deadline)),
    }
}

async fn part(mut io: Plain) -> io::Result<u64> {
    io.flush().await?;
    io.shutdown().await?;
    tokio::io::copy(&mut io.take(DRAIN), &mut tokio::io::sink()).await
}

fn explain(cause: io::Error) -> AcceptError {
    match cause
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::AlertReceived(_)) => AcceptError::Distrusted(cause),
        Some(tls) => Refusal::ours(tls).map_or(AcceptError::Broken(cause), AcceptError::Refused),
        None => AcceptError::Broken(cause),
    }
}

fn peer(stream: &TlsStream<Plain>, address: SocketAddr) -> Option<Peer> {
    let (_, session) = stream.get_ref();
    let leaf = session.peer_certificates()?.first()?;
    let Certificate {
        identity,
        fingerprint,
        not_after,
        issuer,
        ..
    } = Certificate::parse(leaf).ok()?;
    Some(Peer {
        identity,
        fingerprint,
        issuer,
        not_after,
        address,
        binding: Binding::of(session).ok()?,
        connection: NEXT.fetch_add(1, Ordering::Relaxed),
    })
}

impl TlsServerIo {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for TlsServerIo {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for TlsServerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsServerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A boxed connection with a `Debug` that shows nothing of it.
struct Plain(Box<dyn Io>);

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plain")
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
