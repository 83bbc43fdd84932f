//! A network in memory, for tests and simulated fleets: listeners by address, wires that can be cut.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use futures::{Stream, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::mpsc,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{Dial, Io};

/// Connections that wait for a listener to take them. A listener that is slower than this makes callers wait, as a
/// full backlog does.
const BACKLOG: usize = 1024;

/// How many bytes lie in one direction of a pipe before the writer waits.
const BUFFER: usize = 64 * 1024;

/// A network in memory. Clones are the same network.
#[derive(Clone, Default)]
pub struct Pipes {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::Sender<Arrival>>>>,
    cable: Cable,
}

type Arrival = (Box<dyn Io>, SocketAddr);

impl Pipes {
    /// A network without listeners.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens at `address`, in place of whoever listened there before. The listener goes away when it is dropped.
    #[must_use]
    pub fn listen(&self, address: &str) -> Incoming {
        let (sender, arrivals) = mpsc::channel(BACKLOG);
        self.lock().insert(address.to_owned(), sender);
        Incoming { arrivals }
    }

    /// A wire into this network for somebody whose address is `from`. It can be cut by itself.
    #[must_use]
    pub fn wire(&self, from: SocketAddr) -> Wire {
        Wire { pipes: self.clone(), from, cable: Cable::default() }
    }

    /// Breaks every open pipe at both ends, and refuses new ones until [`Self::mend`].
    pub fn cut(&self) {
        self.cable.cut();
    }

    /// Lets new pipes be opened again.
    pub fn mend(&self) {
        self.cable.mend();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, mpsc::Sender<Arrival>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, address: &str, from: SocketAddr, own: &Cable) -> io::Result<Box<dyn Io>> {
        let (whole, wire) = (self.cable.current()?, own.current()?);
        let listener = self.lock().get(address).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
        let (here, there) = tokio::io::duplex(BUFFER);
        let there: Box<dyn Io> = Box::new(Pipe::new(there, &whole, &wire));
        listener.send((there, from)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(Pipe::new(here, &whole, &wire)))
    }
}

impl fmt::Debug for Pipes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipes").field("listeners", &self.lock().keys()).finish_non_exhaustive()
    }
}

/// The connections that arrive at one address.
#[derive(Debug)]
pub struct Incoming {
    arrivals: mpsc::Receiver<Arrival>,
}

impl Incoming {
    /// The next connection and where it comes from, or `None` when another listener took the address and all that
    /// arrived here has been taken.
    pub async fn accept(&mut self) -> Option<(Box<dyn Io>, SocketAddr)> {
        self.arrivals.recv().await
    }
}

impl Stream for Incoming {
    type Item = (Box<dyn Io>, SocketAddr);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.arrivals.poll_recv(cx)
    }
}

/// One participant's way into a network in memory. Clones are the same wire.
#[derive(Clone, Debug)]
pub struct Wire {
    pipes: Pipes,
    from: SocketAddr,
    cable: Cable,
}

impl Wire {
    /// Breaks every pipe that was opened over this wire, at both ends, and refuses new ones until [`Self::mend`].
    pub fn cut(&self) {
        self.cable.cut();
    }

    /// Lets new pipes be opened over this wire again.
    pub fn mend(&self) {
        self.cable.mend();
    }
}

impl Dial for Wire {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(self.pipes.open(address, self.from, &self.cable))
    }
}

/// What a cut goes through: all pipes opened since the last one.
#[derive(Clone, Debug, Default)]
struct Cable(Arc<Mutex<Laid>>);

#[derive(Debug, Default)]
struct Laid {
    broken: CancellationToken,
}

impl Cable {
    fn current(&self) -> io::Result<CancellationToken> {
        let broken = self.lock().broken.clone();
        if broken.is_cancelled() { Err(io::ErrorKind::NetworkUnreachable.into()) } else { Ok(broken) }
    }

    fn cut(&self) {
        self.lock().broken.cancel();
    }

    fn mend(&self) {
        let mut laid = self.lock();
        if laid.broken.is_cancelled() {
            laid.broken = CancellationToken::new();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Laid> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a pipe. After a cut every read and every write fails, those that were waiting too.
struct Pipe {
    io: DuplexStream,
    broken: [Pin<Box<WaitForCancellationFutureOwned>>; 2],
    is_broken: bool,
}

impl Pipe {
    fn new(io: DuplexStream, whole: &CancellationToken, wire: &CancellationToken) -> Self {
        let wait = |token: &CancellationToken| Box::pin(token.clone().cancelled_owned());
        Self { io, broken: [wait(whole), wait(wire)], is_broken: false }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.is_broken = self.is_broken || self.broken.iter_mut().any(|cut| cut.as_mut().poll(cx).is_ready());
        if self.is_broken { Poll::Ready(io::ErrorKind::ConnectionReset.into()) } else { Poll::Pending }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.check(cx) {
            Poll::Ready(cut) => Poll::Ready(Err(cut)),
            Poll::Pending => Pin::new(&mut self.io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.check(cx) {
            Poll::Ready(cut) => Poll::Ready(Err(cut)),
            Poll::Pending => Pin::new(&mut self.io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.check(cx) {
            Poll::Ready(cut) => Poll::Ready(Err(cut)),
            Poll::Pending => Pin::new(&mut self.io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}
