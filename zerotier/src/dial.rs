//! How a client reaches a service: one connection at a time, over whatever carries bytes.

#[cfg(feature = "central")]
mod tls;

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

#[cfg(feature = "central")]
pub use tls::{Tls, TlsError, authorities};

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
            Ok(Box::new(Prompt(stream)) as Box<dyn Wire>)
        })
    }
}

/// A connection that acknowledges what arrives at once.
///
/// The service writes head and body of an answer separately and holds the second back until the first is acknowledged,
/// which the kernel otherwise delays by about 43 ms on a connection that is used again.
struct Prompt(TcpStream);

impl AsyncRead for Prompt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The kernel falls back to delaying by itself, so it is told before every read. Where it cannot be told, an
        // answer is late and not lost.
        #[cfg(target_os = "linux")]
        drop(self.0.set_quickack(true));
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

/// Opens TCP connections to a host by its name, which is looked up each time.
#[derive(Debug, Clone)]
pub struct TcpHost {
    host: String,
    port: u16,
}

impl TcpHost {
    /// Returns a dialer for this host and port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
}

impl Dial for TcpHost {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    }
}

impl fmt::Display for TcpHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
