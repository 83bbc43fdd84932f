//! Whoever comes to a door with a certificate that may not be good there.

use std::{sync::Arc, time::Duration};

use picket_agent::identity::{Identity as AgentIdentity, IdentityStore};
use picket_clock::Clock;
use picket_link::{Connected, Dial as _, LinkError, Options, connect};
use picket_master::signer;
use picket_pki::{Authorities, Authority, Bundle, Identity, Key, Refusal, client_config, lifetime};
use picket_proto::wire::agent::{RenewRequest, agent_service_client::AgentServiceClient};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tonic::Status;

use crate::{
    host::Host,
    line::Line,
    site::{ADMIN, AGENTS, Site},
};

/// What every HTTP/2 client says first, and a request's empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A door of the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The agents'.
    Agents,
    /// The operators'.
    Admin,
}

/// A certificate with its key, and a line to the master.
pub struct Stranger {
    tls: Arc<ClientConfig>,
    line: Line,
    /// The host's identity that it has, if it has one.
    identity: Option<AgentIdentity>,
    clock: Clock,
}

impl Stranger {
    /// Somebody who has a host's bundle or an operator's.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn with_bundle(site: &Site, bundle: &[u8]) -> Self {
        let bundle = Bundle::parse(bundle).expect("the master wrote it");
        Self {
            tls: tls(&bundle, &site.clock),
            line: site.machine("stranger").line,
            identity: None,
            clock: site.clock.clone(),
        }
    }

    /// Somebody who has the identity that a machine's agent works under.
    ///
    /// # Panics
    /// When the machine is not enrolled.
    #[must_use]
    pub fn with_identity_of(site: &Site, host: &Host) -> Self {
        let store = IdentityStore::open(host.state().join("identity")).expect("the agent has one");
        let identity = store
            .load()
            .expect("that can be read")
            .current
            .expect("and is enrolled");
        Self {
            tls: identity.tls(&site.clock).expect("and works"),
            line: site.machine("stranger").line,
            identity: Some(identity),
            clock: site.clock.clone(),
        }
    }

    /// The operator, on another machine.
    #[must_use]
    pub fn with_admin_bundle(site: &Site) -> Self {
        Self {
            tls: tls(&site.admin_bundle(), &site.clock),
            line: site.machine("stranger").line,
            identity: None,
            clock: site.clock.clone(),
        }
    }

    /// Somebody who shows no certificate.
    #[must_use]
    pub fn with_no_certificate(site: &Site) -> Self {
        let mut config = (*tls(&site.admin_bundle(), &site.clock)).clone();
        config.client_auth_cert_resolver = Arc::new(Nothing);
        Self {
            tls: Arc::new(config),
            line: site.machine("stranger").line,
            identity: None,
            clock: site.clock.clone(),
        }
    }

    /// Somebody who had our CA sign a host's certificate, past the master.
    #[must_use]
    pub fn with_unpinned_certificate(site: &Site) -> Self {
        let read = |path| std::fs::read(path).expect("the CA is in the data directory");
        let dir = site.data_dir();
        let authority = Authority::load(
            &read(signer::certificate_path(&dir)),
            &read(signer::key_path(&dir)),
        );
        let authority = authority.expect("the CA can be loaded");
        let key = Key::generate().expect("a key");
        let identity = Identity::Host(uuid::Uuid::new_v4());
        let issued = authority
            .issue(key.public(), &identity, lifetime::HOST, site.clock.now())
            .expect("the CA signs");
        let mut bundle = site.admin_bundle();
        bundle.certificate = issued.der;
        bundle.key = key;
        Self {
            tls: tls(&bundle, &site.clock),
            line: site.machine("stranger").line,
            identity: None,
            clock: site.clock.clone(),
        }
    }

    /// Connects to a door.
    ///
    /// # Errors
    /// As an agent's connection.
    pub async fn connect(&self, door: Door) -> Result<Connected, LinkError> {
        let address = match door {
            Door::Agents => AGENTS,
            Door::Admin => ADMIN,
        };
        connect(
            &self.line,
            &[address.to_owned()],
            self.tls.clone(),
            Options::default(),
        )
        .await
    }

    /// Has the identity renewed with a key of its own, and returns itself under the new certificate.
    ///
    /// # Errors
    /// What the master refuses.
    ///
    /// # Panics
    /// When it has no host's identity.
    pub async fn renew(&self, connected: &Connected) -> Result<Self, Status> {
        let identity = self.identity.as_ref().expect("it has a host's identity");
        let key = Key::generate().expect("a key");
        let csr = key.csr().expect("a request").into();
        let mut client = AgentServiceClient::new(connected.channel.clone());
        let answer = client.renew(RenewRequest { csr }).await?.into_inner();
        let authorities = answer.authorities.iter().map(|der| der.to_vec()).collect();
        let renewed = identity.renewed(key, answer.certificate.to_vec(), authorities);
        let renewed = renewed.expect("the master signs what was asked");
        Ok(Self {
            tls: renewed.tls(&self.clock).expect("and that works"),
            line: self.line.clone(),
            identity: Some(renewed),
            clock: self.clock.clone(),
        })
    }

    /// Why a door refuses.
    ///
    /// # Panics
    /// When it does not.
    pub async fn refused_at(&self, door: Door) -> Refusal {
        match self.connect(door).await {
            Err(LinkError::Refused { cause, .. }) => cause,
            Err(error) => panic!("not refused, but {}", crate::sentence(&error)),
            Ok(_) => panic!("the door opened"),
        }
    }

    /// Is let in at the agents' door, says half of the first words of HTTP/2, and waits until it is cut off.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn mumbles(&self) {
        let io = self.line.dial(AGENTS).await.expect("the door is there");
        let name = ServerName::try_from("master").expect("a plain word is a valid DNS name");
        let connector = TlsConnector::from(self.tls.clone());
        let mut tls = connector
            .connect(name, io)
            .await
            .expect("this side takes the master");
        let said = tls.write_all(&PREFACE[..PREFACE.len() / 2]).await;
        said.expect("it was let in");
        tls.flush().await.expect("and heard");
        let mut heard = Vec::new();
        // However it ends, it ends.
        drop(tls.read_to_end(&mut heard).await);
    }

    /// Speaks HTTP/2 to the agents' door without waiting whether it is let in, and returns how many decrypted bytes came
    /// back before the end.
    ///
    /// # Panics
    /// When the handshake fails on this side.
    pub async fn bursts_in(&self) -> usize {
        let io = self.line.dial(AGENTS).await.expect("the door is there");
        let name = ServerName::try_from("master").expect("a plain word is a valid DNS name");
        let mut tls = TlsConnector::from(self.tls.clone())
            .connect(name, io)
            .await
            .expect("this side takes the master");
        let mut heard = Vec::new();
        // The door may close before all of it is said.
        drop(tls.write_all(PREFACE).await);
        drop(tls.flush().await);
        let listening = tls.read_to_end(&mut heard);
        drop(tokio::time::timeout(Duration::from_secs(30), listening).await);
        heard.len()
    }
}

/// TLS under what is in a bundle.
pub(crate) fn tls(bundle: &Bundle, clock: &Clock) -> Arc<ClientConfig> {
    let authorities =
        Authorities::new(bundle.trust_domain.clone(), bundle.authorities.clone()).expect("the bundle's CA");
    let clock = clock.clone();
    let time: picket_pki::Time = Arc::new(move || clock.unix());
    let config = client_config(Arc::new(authorities), &bundle.certificate, &bundle.key, time);
    Arc::new(config.expect("certificate and key are a pair"))
}

/// Has no certificate to show.
#[derive(Debug)]
struct Nothing;

impl rustls::client::ResolvesClientCert for Nothing {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
