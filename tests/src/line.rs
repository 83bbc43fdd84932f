//! The network between a machine and the master.
//!
//! A line that is unplugged breaks its connections, and both ends notice. A line that loses packets keeps them open and
//! carries nothing: nobody notices but by waiting.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use picket_link::{Dial, Io, Pipes, Wire};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A machine's line to the master. Clones are the same line.
#[derive(Clone)]
pub struct Line {
    wire: Wire,
    loss: Arc<Loss>,
}

#[derive(Default)]
struct Loss {
    silent: AtomicBool,
    /// Connections that one end gave up. The other end does not hear of it, so they stay open for it.
    forsaken: Mutex<Vec<Box<dyn Io>>>,
}

impl Loss {
    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}

impl Line {
    /// A line into `pipes` for somebody whose address is `from`.
    #[must_use]
    pub fn new(pipes: &Pipes, from: SocketAddr) -> Self {
        Self {
            wire: pipes.wire(from),
            loss: Arc::default(),
        }
    }

    /// Breaks every connection, and refuses new ones.
    pub fn cut(&self) {
        self.wire.cut();
    }

    /// Loses every packet from here on, in both directions.
    pub fn lose_packets(&self) {
        self.loss.silent.store(true, Ordering::Relaxed);
    }

    /// Carries new connections again. Old ones have lost bytes and never recover.
    pub fn mend(&self) {
        self.wire.mend();
        self.loss.silent.store(false, Ordering::Relaxed);
    }
}

impl Dial for Line {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            if self.loss.is_silent() {
                std::future::pending::<()>().await;
            }
            let io = self.wire.dial(address).await?;
            Ok(Box::new(Lossy {
                io: Some(io),
                loss: Arc::clone(&self.loss),
                lost: false,
            }) as Box<dyn Io>)
        })
    }
}

/// A connection over a line that may lose packets.
struct Lossy {
    /// There until it is dropped.
    io: Option<Box<dyn Io>>,
    loss: Arc<Loss>,
    /// Something was lost, so that nothing that comes later can be read.
    lost: bool,
}

impl Lossy {
    fn loses(&mut self) -> bool {
        self.lost = self.lost || self.loss.is_silent();
        self.lost
    }

    fn io(&mut self) -> Pin<&mut Box<dyn Io>> {
        Pin::new(self.io.as_mut().expect("it is there until it is dropped"))
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        if self.loses() {
            let mut forsaken = self.loss.forsaken.lock().unwrap_or_else(PoisonError::into_inner);
            forsaken.extend(self.io.take());
        }
    }
}

impl Io for Lossy {
    fn local(&self) -> Option<std::net::SocketAddr> {
        self.io.as_ref().and_then(|io| io.local())
    }
}

impl AsyncRead for Lossy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nobody is woken: what would wake a reader does not arrive.
        if self.loses() {
            Poll::Pending
        } else {
            self.io().poll_read(cx, buf)
        }
    }
}

impl AsyncWrite for Lossy {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.loses() {
            Poll::Ready(Ok(bytes.len()))
        } else {
            self.io().poll_write(cx, bytes)
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.loses() {
            Poll::Ready(Ok(()))
        } else {
            self.io().poll_flush(cx)
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.loses() {
            Poll::Ready(Ok(()))
        } else {
            self.io().poll_shutdown(cx)
        }
    }

    // A last alert is written once, together with what lay before it; piecemeal it would be lost.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.loses() {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        self.io().poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(|io| io.is_write_vectored())
    }
}
