//! How bytes reach a master: over TCP, or over pipes in memory where a test is the network.

use std::{io, net::SocketAddr, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time,
};

/// A connection, whatever it runs over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// The address of this end, where it has one. It tells over which of a machine's interfaces the connection goes.
    fn local(&self) -> Option<SocketAddr> {
        None
    }
}

impl Io for TcpStream {
    fn local(&self) -> Option<SocketAddr> {
        // A socket that has none any more is closed.
        self.local_addr().ok()
    }
}

/// Opens connections to addresses.
pub trait Dial: Send + Sync {
    /// Opens a connection to `address`, which is `host:port`.
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Io>>>;
}

/// Dials over TCP.
#[derive(Debug, Clone, Copy)]
pub struct Tcp {
    /// How long one address of a name may take before the next is tried.
    pub deadline: Duration,
}

impl Default for Tcp {
    /// Five seconds: longer than a lost first packet and its second attempt (1 s and 2 s later).
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
        }
    }
}

impl Dial for Tcp {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            let resolved = time::timeout(self.deadline, tokio::net::lookup_host(address)).await?;
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in resolved? {
                match time::timeout(self.deadline, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => {
                        stream.set_nodelay(true)?;
                        return Ok(Box::new(stream) as Box<dyn Io>);
                    }
                    Ok(Err(cause)) => last = cause,
                    Err(elapsed) => last = elapsed.into(),
                }
            }
            Err(last)
        })
    }
}
