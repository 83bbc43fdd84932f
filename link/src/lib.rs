//! One pinned mTLS HTTP/2 connection to a master.
//!
//! [`connect`] is the dialling end and [`accept`] the listening one. Who is trusted is decided in `picket-pki`; what is
//! asked over the connection is decided above. This crate never retries and never reconnects.

mod accept;
mod binding;
mod connect;
mod dial;
mod pipe;
mod replay;

pub use accept::{AcceptError, Peer, TlsServerIo, accept};
pub use binding::Binding;
pub use connect::{Connected, Failure, LinkError, Options, connect};
pub use dial::{Dial, Io, Tcp};
pub use pipe::{Incoming, Pipes, Wire};
