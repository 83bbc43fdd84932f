//! The dialling end: one connection to a master, known to be accepted before anything is asked over it.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use picket_pki::{Certificate, Distrust, Refusal};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{io::AsyncReadExt, sync::Mutex, time};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::{Binding, Dial, Io, replay::Replay};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// For one address, twice: to dial it, and then to shake hands and hear the first byte.
    pub deadline: Duration,
    /// How often an idle connection is tried with a ping.
    pub ping_every: Duration,
    /// How long the answer to a ping may take before the connection is given up.
    pub ping_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(15),
            ping_every: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

/// One address, and why it gave no connection.
#[derive(Debug)]
pub struct Failure {
    /// The address as it was dialled.
    pub address: String,
    /// What the network or the other end said.
    pub cause: io::Error,
}

/// Why there is no connection to the master.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No address answered.
    #[error("no master answers at {}; check the addresses, the network between and whether the master runs", listed(.0))]
    Unreachable(Vec<Failure>),
    /// What answered is not our master.
    #[error("did not connect to {address}")]
    NotTheMaster {
        /// Where.
        address: String,
        /// Why it is not taken for the master, and what to do.
        #[source]
        cause: Distrust,
    },
    /// The master does not accept us.
    #[error("the master at {address} refused the connection")]
    Refused {
        /// Where.
        address: String,
        /// Why, and what to do.
        #[source]
        cause: Refusal,
    },
    /// Something answered and then was silent.
    #[error("{address} took the connection and then was silent for {} s; the master may be overloaded, or something that is no master answers there", after.as_secs())]
    TimedOut {
        /// Where.
        address: String,
        /// How long the wait was.
        after: Duration,
    },
    /// There is no address to dial.
    #[error("there is no master address to dial; add one to the configuration")]
    NoAddress,
}

/// A connection that the master has accepted.
pub struct Connected {
    /// For the calls. When the connection breaks, calls fail; it never dials again.
    pub channel: Channel,
    /// The address that answered.
    pub address: String,
    /// The master's certificate.
    pub master: Certificate,
    /// The master's certificate (DER).
    pub master_der: Vec<u8>,
    /// What tells this connection from every other.
    pub binding: Binding,
    /// The address of this end, where it has one.
    pub local: Option<SocketAddr>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected")
            .field("address", &self.address)
            .field("master", &self.master)
            .finish_non_exhaustive()
    }
}

/// Connects to the first of `addresses` that answers. An address that cannot be reached gives way to the next; a master
/// that refuses, and one that is not ours, end the attempt when no other address does better.
///
/// # Errors
///
/// [`LinkError`]. When addresses fail differently the most telling failure is reported: refused before not the master,
/// before silent, before unreachable.
pub async fn connect(
    dial: &dyn Dial,
    addresses: &[String],
    config: Arc<ClientConfig>,
    options: Options,
) -> Result<Connected, LinkError> {
    let mut unreachable = Vec::new();
    let mut telling: Option<LinkError> = None;
    for address in addresses {
        let error = match one(dial, address, &config, options).await {
            Ok(connected) => return Ok(connected),
            Err(error) => error,
        };
        if let LinkError::Unreachable(mut failures) = error {
            unreachable.append(&mut failures);
        } else if telling
            .as_ref()
            .is_none_or(|before| weight(&error) > weight(before))
        {
            telling = Some(error);
        }
    }
    Err(match telling {
        Some(error) => error,
        None if unreachable.is_empty() => LinkError::NoAddress,
        None => LinkError::Unreachable(unreachable),
    })
}

fn weight(error: &LinkError) -> u8 {
    match error {
        LinkError::NoAddress | LinkError::Unreachable(_) => 0,
        LinkError::TimedOut { .. } => 1,
        LinkError::NotTheMaster { .. } => 2,
        LinkError::Refused { .. } => 3,
    }
}

async fn one(
    dial: &dyn Dial,
    address: &str,
    config: &Arc<ClientConfig>,
    options: Options,
) -> Result<Connected, LinkError> {
    let io = match time::timeout(options.deadline, dial.dial(address)).await {
        Ok(dialled) => dialled.map_err(|cause| lost(address, cause))?,
        Err(elapsed) => return Err(lost(address, elapsed.into())),
    };
    let local = io.local();
    let silent = || LinkError::TimedOut {
        address: address.to_owned(),
        after: options.deadline,
    };
    let opened = time::timeout(options.deadline, open(io, address, config))
        .await
        .map_err(|_| silent())??;
    let connected = time::timeout(options.deadline, serve(opened, address, options))
        .await
        .map_err(|_| silent())??;
    Ok(Connected { local, ..connected })
}

fn lost(address: &str, cause: io::Error) -> LinkError {
    LinkError::Unreachable(vec![Failure {
        address: address.to_owned(),
        cause,
    }])
}

type Opened = Replay<TlsStream<Box<dyn Io>>>;

/// Shakes hands, and waits for the first decrypted byte. In TLS 1.3 a client is done before the server has seen
/// its certificate; only what the server says next, its HTTP/2 settings or an alert, tells whether it is accepted.
///
/// An alert during the handshake is nobody's word: whoever is on the path can write one. Only what is read after the
/// handshake comes from the holder of the master's key, and only that can be a refusal of our certificate.
async fn open(io: Box<dyn Io>, address: &str, config: &Arc<ClientConfig>) -> Result<Opened, LinkError> {
    let failed = |cause: io::Error| explain(address, cause, Refusal::of);
    // The verifier ignores the name and the configuration does not send it.
    let name = ServerName::try_from("master").expect("a plain word is a valid DNS name");
    let mut stream = TlsConnector::from(config.clone())
        .connect(name, io)
        .await
        .map_err(|cause| explain(address, cause, unproven))?;
    let mut first = [0; 1];
    match stream.read(&mut first).await {
        Ok(0) => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(Replay::new(first[0], stream)),
        Err(cause) => Err(failed(cause)),
    }
}

/// What an error of the handshake says of us: at most that the two do not speak the same.
fn unproven(error: &rustls::Error) -> Option<Refusal> {
    Refusal::of(error).filter(|refusal| *refusal == Refusal::Protocol)
}

fn explain(
    address: &str,
    cause: io::Error,
    refusal: impl FnOnce(&rustls::Error) -> Option<Refusal>,
) -> LinkError {
    let tls = cause
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(cause) = tls.and_then(Distrust::of) {
        return LinkError::NotTheMaster {
            address: address.to_owned(),
            cause,
        };
    }
    // On this side everything else that goes wrong in TLS means that the two do not speak the same.
    if let Some(cause) = tls.and_then(refusal) {
        return LinkError::Refused {
            address: address.to_owned(),
            cause,
        };
    }
    lost(address, cause)
}

/// Puts a gRPC channel on this one stream.
async fn serve(stream: Opened, address: &str, options: Options) -> Result<Connected, LinkError> {
    let failed = |cause| lost(address, cause);
    let (_, session) = stream.get_ref().get_ref();
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    let master_der = leaf.map(|der| der.to_vec()).unwrap_or_default();
    let master = Certificate::parse(&master_der).map_err(|cause| failed(io::Error::other(cause)))?;
    let binding = Binding::of(session).map_err(failed)?;

    let endpoint = Endpoint::from_static("https://master")
        .http2_keep_alive_interval(options.ping_every)
        .keep_alive_timeout(options.ping_timeout)
        .keep_alive_while_idle(true);
    // The channel asks for a stream again when this one breaks. It gets none: who connects decides when.
    let only = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = tower::service_fn(move |_: http::Uri| {
        let only = only.clone();
        async move {
            only.lock()
                .await
                .take()
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
        }
    });
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|cause| failed(io::Error::other(cause)))?;
    Ok(Connected {
        channel,
        address: address.to_owned(),
        master,
        master_der,
        binding,
        local: None,
    })
}

fn listed(failures: &[Failure]) -> String {
    let each: Vec<String> = failures
        .iter()
        .map(|one| format!("{} ({})", one.address, one.cause))
        .collect();
    each.join(", ")
}
