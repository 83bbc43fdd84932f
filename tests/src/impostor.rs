//! Whoever answers at the master's address in its place, and keeps what it is sent.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use picket_link::{AcceptError, Incoming, Io, accept};
use picket_master::signer;
use picket_pki::{
    Authorities, Authority, Fingerprint, Key, PinKind, Pins, Presented, Role, Standing, server_config,
};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::site::{AGENTS, Site};

/// How long a caller has for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Somebody at the master's address.
pub struct Impostor {
    arrivals: Incoming,
    tls: Arc<ServerConfig>,
}

/// A record of TLS as it is seen on the wire: its type and how many bytes are in it.
pub type Record = (u8, usize);

impl Impostor {
    /// Somebody with a CA of the same trust domain and another key, in place of the stopped master.
    #[must_use]
    pub fn with_a_ca_of_its_own(site: &Site) -> Self {
        let domain = "example.org".parse().expect("a trust domain");
        let authority = Authority::create(&domain, site.clock.now()).expect("a CA");
        Self::new(site, &authority)
    }

    /// Somebody with the CA itself: what a caller says to whom it trusts.
    #[must_use]
    pub fn with_our_ca(site: &Site) -> Self {
        let read = |path| std::fs::read(path).expect("the CA is in the data directory");
        let dir = site.data_dir();
        let authority = Authority::load(
            &read(signer::certificate_path(&dir)),
            &read(signer::key_path(&dir)),
        );
        Self::new(site, &authority.expect("the CA can be loaded"))
    }

    fn new(site: &Site, authority: &Authority) -> Self {
        let key = Key::generate().expect("a key");
        let names = ["master.example.org".to_owned()];
        let issued = authority
            .issue_master(key.public(), &names, site.clock.now())
            .expect("a CA signs");
        let authorities = Authorities::new(
            authority.trust_domain().clone(),
            vec![authority.certificate().to_vec()],
        );
        let clock = site.clock.clone();
        let tls = server_config(
            Arc::new(Presented::new(&issued.der, &key).expect("certificate and key are a pair")),
            Arc::new(authorities.expect("a CA's certificate")),
            Role::Host,
            Arc::new(Everybody),
            Arc::new(move || clock.unix()),
        );
        Self {
            arrivals: site.pipes.listen(AGENTS),
            tls: Arc::new(tls.expect("the library can serve")),
        }
    }

    /// Shakes hands with the next caller. Returns the records that it sent, and whether it went on to show itself.
    ///
    /// # Panics
    /// When nobody calls.
    pub async fn hears(&mut self) -> (Vec<Record>, Result<(), AcceptError>) {
        let (io, from) = self.arrivals.accept().await.expect("somebody calls");
        let heard = Arc::default();
        let tap = Tap {
            io,
            heard: Arc::clone(&heard),
        };
        let accepted = accept(Box::new(tap), from, Arc::clone(&self.tls), HANDSHAKE).await;
        let bytes = heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (records(&bytes), accepted.map(drop))
    }
}

/// The records in these bytes; one that is cut off counts with what is there.
fn records(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        records.push((*kind, length));
        bytes = &rest[length..];
    }
    records
}

#[derive(Debug)]
struct Everybody;

impl Pins for Everybody {
    fn standing(&self, _: &Fingerprint) -> Standing {
        Standing::Pinned(PinKind::Bundle)
    }
}

/// A connection that keeps what is read from it.
struct Tap {
    io: Box<dyn Io>,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Io for Tap {}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
