//! A way to the master that leads over a ZeroTier network: it is there as long as the node is on that network.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use picket_link::{Dial, Io, Wire};
use picket_zerotier::{NetworkId, NodeId, fake::Lab};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The way of one node over one network.
#[derive(Clone)]
pub struct Overlay {
    pub lab: Lab,
    pub node: NodeId,
    pub network: NetworkId,
    pub wire: Wire,
}

impl Overlay {
    fn check(&self) -> io::Result<()> {
        if self.lab.is_on(self.network, self.node) {
            Ok(())
        } else {
            Err(io::ErrorKind::NetworkUnreachable.into())
        }
    }
}

impl Dial for Overlay {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            self.check()?;
            let io = self.wire.dial(address).await?;
            let over = self.clone();
            Ok(Box::new(Over { io, over }) as Box<dyn Io>)
        })
    }
}

struct Over {
    io: Box<dyn Io>,
    over: Overlay,
}

impl Io for Over {
    fn local(&self) -> Option<SocketAddr> {
        self.io.local()
    }
}

impl AsyncRead for Over {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.over.check()?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Over {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.over.check()?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.over.check()?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
