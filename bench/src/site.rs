//! The made-up site: a CA in a folder, and hosts that it knows.
//!
//! For a master the hosts are written into its store while it does not run: enrolled, renewed once and with a known
//! node, as a fleet is that comes back after a restart of its master.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use picket_clock::Clock;
use picket_durable::FileError;
use picket_master::{
    desk::Actor,
    init::{InitError, Plan, init},
    record::{HostRecord, HostStanding, Pin, Pins, Record as _, key},
    signer::{CaKey, certificate_path, key_path},
    store::{Commit, CommitError, OpenError, Store, WRITES_MAX, Write},
};
use picket_pki::{
    Authorities, AuthoritiesError, Authority, AuthorityError, Identity, IssuedCertificate, Key, KeyError,
    TlsError, TrustDomain, client_config, lifetime,
};
use picket_proto::host::{HostId, Labels, Name};
use rustls::ClientConfig;
use uuid::Uuid;

use crate::report::node;

const TRUST_DOMAIN: &str = "bench.example.org";
/// The longest CA file that is read.
const LONGEST: u64 = 16 * 1024;
/// A host is two writes: its record, and the claim on its name.
const HOSTS_A_COMMIT: usize = WRITES_MAX / 2 - 1;

/// Why there is no site.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The CA's files cannot be written or read.
    #[error("keep the site's CA in {}; is the temporary folder writable?", dir.display())]
    File {
        /// Where.
        dir: PathBuf,
        /// What happened.
        #[source]
        cause: FileError,
    },
    /// The CA does not sign.
    #[error("sign certificates for the made-up hosts")]
    Authority(#[from] AuthorityError),
    /// No key could be made.
    #[error("make keys for the made-up hosts")]
    Key(#[from] KeyError),
    /// The CA's own certificate is not taken.
    #[error("use the site's CA")]
    Authorities(#[from] AuthoritiesError),
    /// TLS cannot be set up.
    #[error("set up TLS for a made-up host")]
    Tls(#[from] TlsError),
    /// There is no master.
    #[error("make a master")]
    Init(#[from] InitError),
    /// Its store does not open.
    #[error("open the master's store to enroll the made-up hosts")]
    Open(#[from] OpenError),
    /// It does not take the hosts.
    #[error("enroll the made-up hosts")]
    Commit(#[from] CommitError),
}

/// A CA in a folder.
#[derive(Debug)]
pub struct Site {
    dir: PathBuf,
    authority: Authority,
    authorities: Arc<Authorities>,
    clock: Clock,
}

/// A host of the site, with the key that a real one would keep to itself.
#[derive(Debug)]
pub struct Host {
    /// Its number, from 0.
    pub number: u32,
    id: HostId,
    key: Key,
    certificate: IssuedCertificate,
}

impl Site {
    /// Makes a site in `dir` that has a CA and nothing else.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn bare(dir: &Path, clock: &Clock) -> Result<Self, SiteError> {
        let key = Key::generate()?;
        let authority = Authority::create_with(Arc::new(key.clone()), &trust_domain(), clock.now())?;
        let kept = picket_durable::create_private(key_path(dir), key.to_pem().as_bytes()).and_then(|()| {
            picket_durable::create_private(certificate_path(dir), authority.certificate_pem().as_bytes())
        });
        kept.map_err(|cause| SiteError::File {
            dir: dir.to_owned(),
            cause,
        })?;
        Self::of(dir, authority, clock)
    }

    /// Makes a master in `dir` that knows no host.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn master(dir: &Path, clock: &Clock) -> Result<Self, SiteError> {
        let plan = Plan {
            data_dir: dir.to_owned(),
            trust_domain: trust_domain(),
            names: vec!["localhost".to_owned()],
            addresses: vec!["127.0.0.1:7443".to_owned()],
            admin_addresses: vec!["127.0.0.1:7444".to_owned()],
            // The site is made up, and gone after the run.
            ca: CaKey::Plain,
        };
        init(&plan, clock).await?;
        Self::load(dir, clock)
    }

    /// Loads the CA of a site.
    ///
    /// # Errors
    /// When `dir` holds none.
    pub fn load(dir: &Path, clock: &Clock) -> Result<Self, SiteError> {
        let read = |path| {
            picket_durable::read_private(path, LONGEST).map_err(|cause| SiteError::File {
                dir: dir.to_owned(),
                cause,
            })
        };
        let authority = Authority::load(&read(certificate_path(dir))?, &read(key_path(dir))?)?;
        Self::of(dir, authority, clock)
    }

    fn of(dir: &Path, authority: Authority, clock: &Clock) -> Result<Self, SiteError> {
        let trusted = vec![authority.certificate().to_vec()];
        Ok(Self {
            dir: dir.to_owned(),
            authorities: Arc::new(Authorities::new(authority.trust_domain().clone(), trusted)?),
            authority,
            clock: clock.clone(),
        })
    }

    /// The CA.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whom its members trust.
    #[must_use]
    pub fn authorities(&self) -> &Arc<Authorities> {
        &self.authorities
    }

    /// The time it goes by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Makes keys and certificates for `count` hosts.
    ///
    /// # Errors
    /// When a key or certificate cannot be made.
    pub fn hosts(&self, count: u32) -> Result<Vec<Host>, SiteError> {
        (0..count).map(|number| self.host(number)).collect()
    }

    fn host(&self, number: u32) -> Result<Host, SiteError> {
        let id = HostId(Uuid::new_v4());
        let key = Key::generate()?;
        let identity = Identity::Host(id.0);
        let certificate = self
            .authority
            .issue(key.public(), &identity, lifetime::HOST, self.clock.now())?;
        Ok(Host {
            number,
            id,
            key,
            certificate,
        })
    }

    /// Writes the hosts into the store of the site's master, which must not run.
    ///
    /// # Errors
    /// When the store does not open or does not take them.
    pub async fn enroll(&self, hosts: &[Host]) -> Result<(), SiteError> {
        let store = Store::open(&self.dir, self.clock.clone()).await?;
        for some in hosts.chunks(HOSTS_A_COMMIT) {
            let commit = Commit {
                guards: Vec::new(),
                writes: some
                    .iter()
                    .flat_map(|host| host.writes(self.clock.now()))
                    .collect(),
                audit: Actor::master().does(
                    "host.enroll",
                    format!("{} made-up hosts", some.len()),
                    "a bench",
                ),
            };
            store.commit(commit).await?;
        }
        store.close().await;
        Ok(())
    }

    /// What a host dials with.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn tls(&self, host: &Host) -> Result<Arc<ClientConfig>, SiteError> {
        let clock = self.clock.clone();
        let config = client_config(
            Arc::clone(&self.authorities),
            &host.certificate.der,
            &host.key,
            Arc::new(move || clock.unix()),
        );
        Ok(Arc::new(config?))
    }
}

impl Host {
    /// What the master calls it.
    pub(crate) fn name(&self) -> Name {
        let name = format!("edge-{:05}", self.number);
        name.parse().expect("made of letters, digits and a dash")
    }

    fn writes(&self, now: Timestamp) -> [Write; 2] {
        let name = self.name();
        let current = Pin {
            fingerprint: self.certificate.fingerprint,
            key: self.key.public().fingerprint(),
            not_after: self.certificate.not_after,
            certificate: data_encoding::HEXLOWER.encode(&self.certificate.der),
            from: "127.0.0.1:0".to_owned(),
        };
        let record = HostRecord {
            id: self.id,
            name: name.clone(),
            labels: Labels::default(),
            note: String::new(),
            enrolled_at: now,
            standing: HostStanding::Active,
            pins: Pins {
                current: Some(current),
                ..Pins::default()
            },
            node: Some(node(self.number)),
            node_standing: Default::default(),
            node_identity: None,
            former_nodes: Vec::new(),
        };
        let claim = Write::Put(key::name(&name), self.id.to_string().into_bytes());
        [record.put(), claim]
    }
}

fn trust_domain() -> TrustDomain {
    TRUST_DOMAIN.parse().expect("a plain domain")
}
