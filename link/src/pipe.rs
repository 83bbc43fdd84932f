//! A network in memory, for tests and simulated fleets: listeners by address, wires that can be cut.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
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
        Wire {
            pipes: self.clone(),
            from,
            cable: Cable::default(),
        }
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
        let listener = self
            .lock()
            .get(address)
            .cloned()
            .ok_or(io::ErrorKind::ConnectionRefused)?;
        let (here, there) = tokio::io::duplex(BUFFER);
        let there: Box<dyn Io> = Box::new(Pipe::new(there, None, &whole, &wire));
        listener
            .send((there, from))
            .await
            .map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(Pipe::new(here, Some(from), &whole, &wire)))
    }
}

impl fmt::Debug for Pipes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipes")
            .field("listeners", &self.lock().keys())
            .finish_non_exhaustive()
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
        if broken.is_cancelled() {
            Err(io::ErrorKind::NetworkUnreachable.into())
        } else {
            Ok(broken)
        }
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
///
/// Reading and writing wait for the cut separately, since one task may read while another one writes.
struct Pipe {
    io: DuplexStream,
    /// The address of the dialling end.
    local: Option<SocketAddr>,
    reading: Cut,
    writing: Cut,
}

/// The cut of either cable that a pipe runs through.
struct Cut {
    cables: [Pin<Box<WaitForCancellationFutureOwned>>; 2],
    seen: bool,
}

impl Pipe {
    fn new(
        io: DuplexStream,
        local: Option<SocketAddr>,
        whole: &CancellationToken,
        wire: &CancellationToken,
    ) -> Self {
        Self {
            io,
            local,
            reading: Cut::new(whole, wire),
            writing: Cut::new(whole, wire),
        }
    }
}

impl Cut {
    fn new(whole: &CancellationToken, wire: &CancellationToken) -> Self {
        let wait = |token: &CancellationToken| Box::pin(token.clone().cancelled_owned());
        Self {
            cables: [wait(whole), wait(wire)],
            seen: false,
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.seen = self.seen || self.cables.iter_mut().any(|cut| cut.as_mut().poll(cx).is_ready());
        if self.seen {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(())
        }
    }
}

impl Io for Pipe {
    fn local(&self) -> Option<SocketAddr> {
        self.local
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reading.check(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writing.check(cx)?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writing.check(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    // A last alert is written once, together with what lay before it; piecemeal it would be lost.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writing.check(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn bytes_go_both_ways_and_the_listener_learns_where_they_come_from() {
        let pipes = Pipes::new();
        let (mut here, mut there, from) = pair(&pipes, &pipes.wire(address())).await;
        here.write_all(b"ping").await.unwrap();
        there.write_all(b"pong").await.unwrap();
        let (mut ping, mut pong) = ([0; 4], [0; 4]);
        there.read_exact(&mut ping).await.unwrap();
        here.read_exact(&mut pong).await.unwrap();
        assert_eq!((&ping, &pong, from), (b"ping", b"pong", address()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_breaks_both_ends_even_while_one_reads_and_another_task_writes() {
        let pipes = Pipes::new();
        let (here, there, _) = pair(&pipes, &pipes.wire(address())).await;
        let (mut reads, mut writes) = tokio::io::split(here);
        let (mut reads_there, _kept) = tokio::io::split(there);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { reads.read_u8().await.map(drop) });
        tasks.spawn(async move { writes.write_all(&[0; 3 * BUFFER]).await });
        tasks.spawn(async move { tokio::io::copy(&mut reads_there, &mut Stuck).await.map(drop) });
        tokio::task::yield_now().await;
        pipes.cut();
        for _ in 0..2 {
            let ended = timeout(PATIENCE, tasks.join_next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_wire_takes_no_other_with_it_and_can_be_mended() {
        let pipes = Pipes::new();
        let (oslo, bern) = (pipes.wire(address()), pipes.wire(address()));
        let (mut cut, mut cut_there, _) = pair(&pipes, &oslo).await;
        let (mut whole, mut whole_there, _) = pair(&pipes, &bern).await;
        oslo.cut();
        assert!(cut.read_u8().await.is_err() && cut_there.read_u8().await.is_err());
        whole.write_u8(7).await.unwrap();
        assert_eq!(whole_there.read_u8().await.unwrap(), 7);
        assert!(oslo.dial("m").await.is_err());
        oslo.mend();
        pair(&pipes, &oslo).await;
        assert!(cut.read_u8().await.is_err(), "what was cut stays cut");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_listening_is_a_refused_connection() {
        let pipes = Pipes::new();
        let wire = pipes.wire(address());
        let refused = |dialled: io::Result<Box<dyn Io>>| dialled.err().map(|cause| cause.kind());
        assert_eq!(
            refused(wire.dial("m").await),
            Some(io::ErrorKind::ConnectionRefused)
        );
        drop(pipes.listen("m"));
        assert_eq!(
            refused(wire.dial("m").await),
            Some(io::ErrorKind::ConnectionRefused)
        );
    }

    async fn pair(pipes: &Pipes, wire: &Wire) -> (Box<dyn Io>, Box<dyn Io>, SocketAddr) {
        let mut incoming = pipes.listen("m");
        let here = wire.dial("m").await.unwrap();
        let (there, from) = incoming.accept().await.unwrap();
        (here, there, from)
    }

    fn address() -> SocketAddr {
        "192.0.2.1:1".parse().unwrap()
    }

    /// Takes nothing, so that a pipe fills up.
    struct Stuck;

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
}
