//! How a client reaches a service: one connection at a time, over whatever carries bytes.

use std::{fmt, future::Future, io, net::SocketAddr, pin::Pin};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A connection that carries bytes both ways.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection on its way.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send + 'a>>;

/// Something that opens connections to one service.
///
/// Its `Display` says which service, for the messages an operator reads.
pub trait Dial: fmt::Debug + fmt::Display + Send + Sync {
    /// Opens a connection.
    fn dial(&self) -> Dialing<'_>;
}

/// Opens TCP connections to one address.
///
/// The service speaks plain HTTP and the token travels in the clear, so this is for loopback and for links inside one
/// machine.
#[derive(Debug, Clone, Copy)]
pub struct Tcp {
    address: SocketAddr,
}

impl Tcp {
    /// Returns a dialer for this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }
}

impl Dial for Tcp {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let stream = TcpStream::connect(self.address).await?;
            // Head and body of a request are written separately; the second must not wait for the service's ACK.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}
