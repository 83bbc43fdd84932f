//! The CA at work: what it signs for hosts, operators and the master itself.
//!
//! The key is in the data directory or in a transit engine. Signing with one that is elsewhere takes as long as a
//! network does, so whoever signs on the runtime goes through [`Signer::sign`].

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use picket_clock::Clock;
use picket_durable::FileError;
use picket_pki::{
    Authority, AuthorityError, AuthorityKey, Bundle, CertificateError, Csr, Fingerprint, Holder, Identity,
    IssuedCertificate, Key, KeyError, Keyless, OperatorName, PublicKey, Root, TrustDomain, lifetime,
};
use picket_proto::host::{HostId, Name};
use picket_transit::{Engine, Health, TransitError};
use tokio::{sync::Semaphore, sync::watch, task, time};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::record::Pin;

mod key_file;
mod own;
mod passphrase;
mod remote;

pub use key_file::{CaKey, KeyFileError, change_passphrase, encrypt};
pub use own::Own;
pub use passphrase::{CREDENTIAL, PassphraseFrom, PassphraseFromError, VARIABLE};
use remote::Remote;
pub use remote::RemoteError;

/// The longest CA file that is read.
const LONGEST: u64 = 16 * 1024;
/// How many signatures are waited for at once when the key is elsewhere; each holds a thread.
const AT_ONCE: usize = 16;
/// How long a signature waits for its turn among those.
const TURN: Duration = Duration::from_secs(10);

/// The CA's certificate, in the data directory.
#[must_use]
pub fn certificate_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ca.pem")
}

/// The CA's key, in the data directory.
#[must_use]
pub fn key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ca.key")
}

/// Signs certificates.
#[derive(Debug)]
pub struct Signer {
    /// The CA that signs.
    authority: ArcSwap<Authority>,
    /// The CAs that bundles say to trust, the one that signs first.
    trusted: ArcSwap<Vec<Vec<u8>>>,
    keys: Keys,
    turns: Arc<Semaphore>,
}

/// Has a CA sign what nobody is given, to see that it can. It may take as long as a network does.
///
/// # Errors
/// When its time is over, or the engine that has its key does not sign.
pub fn try_sign(authority: &Authority, now: Timestamp) -> Result<(), AuthorityError> {
    let root = Root::parse(authority.certificate())?;
    let nobody = Identity::Host(Uuid::nil());
    authority
        .issue(&root.public_key, &nobody, lifetime::BUNDLE, now)
        .map(drop)
}

/// Where the keys of the CAs are.
#[derive(Debug)]
enum Keys {
    Encrypted(PassphraseFrom),
    Plain,
    Elsewhere(Arc<Engine>),
}

/// Why the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Its files cannot be read.
    #[error("read the CA; restore ca.pem and ca.key in the data directory from a backup")]
    File(#[from] FileError),
    /// They are not a CA.
    #[error("the CA in the data directory cannot be used; restore ca.pem and ca.key from a backup")]
    Authority(#[from] AuthorityError),
    /// No key could be made.
    #[error("make a key")]
    Key(#[from] KeyError),
    /// The file of its key does not do.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// Nothing talks to the engine that has its key.
    #[error("the transit engine that has the CA's key cannot be used")]
    Engine(#[from] TransitError),
    /// The engine's key is not the CA's.
    #[error("the key in the transit engine cannot be used for the CA")]
    Remote(#[from] RemoteError),
    /// The engine has no key that is not a CA's already.
    #[error(
        "the newest version of {key} at {place} is the key of a CA that there is already; make another version of it first: `vault write -f {mount}/keys/{key}/rotate`"
    )]
    NoNewKey {
        /// The key.
        key: String,
        /// Where.
        place: String,
        /// The engine's mount.
        mount: String,
    },
    /// A file is another CA's.
    #[error("{} is of the CA {seen}, and the store says that {wanted} signs; restore its files from a backup", path.display())]
    OtherCa {
        /// The file.
        path: PathBuf,
        /// The CA that was looked for.
        wanted: Fingerprint,
        /// The CA that is there.
        seen: Fingerprint,
    },
}

impl SignerError {
    /// Whether it says that the key of a CA cannot be had any more, and not that it cannot at the moment.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Self::File(FileError::Exposed { .. }) => false,
            Self::File(_) | Self::Authority(_) | Self::Key(_) | Self::OtherCa { .. } => true,
            Self::KeyFile(error) => error.is_lost(),
            Self::Remote(RemoteError::OtherKey { .. }) => true,
            Self::Remote(RemoteError::Engine(_) | RemoteError::PublicKey { .. })
            | Self::Engine(_)
            | Self::NoNewKey { .. } => false,
        }
    }
}

/// A new certificate for a bundle, and the pin that makes it good.
#[derive(Debug)]
pub struct Bundled {
    /// What the operator carries.
    pub bundle: Bundle,
    /// What the master keeps.
    pub pin: Pin,
}

impl Signer {
    /// Makes a CA and keeps it in `data_dir`, its key as `ca` says.
    ///
    /// # Errors
    /// When there is one already, or it cannot be kept.
    pub async fn create(
        data_dir: &Path,
        ca: &CaKey,
        trust_domain: &TrustDomain,
        clock: &Clock,
    ) -> Result<Self, SignerError> {
        let (dir, ca, domain, clock) = (
            data_dir.to_owned(),
            ca.clone(),
            trust_domain.clone(),
            clock.clone(),
        );
        apart(move || Self::create_apart(&dir, &ca, &domain, &clock)).await
    }

    fn create_apart(
        dir: &Path,
        ca: &CaKey,
        domain: &TrustDomain,
        clock: &Clock,
    ) -> Result<Self, SignerError> {
        let keys = Keys::open(ca, clock)?;
        let (authority, text) = keys.make(domain, &[], clock.now())?;
        if let Some(text) = text {
            picket_durable::create_private(key_path(dir), text.as_bytes())?;
        }
        picket_durable::write_private(certificate_path(dir), authority.certificate_pem().as_bytes())?;
        Ok(Self::of(authority, keys))
    }

    /// Whether a CA whose key is kept as `ca` says is in `data_dir`, all of it.
    #[must_use]
    pub fn is_there(data_dir: &Path, ca: &CaKey) -> bool {
        let key = match ca {
            CaKey::Encrypted(_) | CaKey::Plain => key_path(data_dir).exists(),
            CaKey::Transit(_) => true,
        };
        key && certificate_path(data_dir).exists()
    }

    /// Says whether `names` can stand in a master's certificate; keeps nothing.
    ///
    /// # Errors
    /// When one cannot.
    pub fn try_names(
        trust_domain: &TrustDomain,
        names: &[String],
        now: Timestamp,
    ) -> Result<(), SignerError> {
        let authority = Authority::create(trust_domain, now)?;
        authority.issue_master(Key::generate()?.public(), names, now)?;
        Ok(())
    }

    /// Loads the CA of `data_dir`. An engine that has its key may be away: it is first asked when something is signed.
    ///
    /// # Errors
    /// When its files are missing, readable by others, or no CA, or the passphrase does not open its key.
    pub async fn load(data_dir: &Path, ca: &CaKey, clock: &Clock) -> Result<Self, SignerError> {
        let (dir, ca, clock) = (data_dir.to_owned(), ca.clone(), clock.clone());
        apart(move || Self::load_apart(&dir, &ca, &clock)).await
    }

    fn load_apart(dir: &Path, ca: &CaKey, clock: &Clock) -> Result<Self, SignerError> {
        let keys = Keys::open(ca, clock)?;
        let authority = keys.load(&certificate_path(dir), &key_path(dir))?;
        Ok(Self::of(authority, keys))
    }

    fn of(authority: Authority, keys: Keys) -> Self {
        Self {
            trusted: ArcSwap::from_pointee(vec![authority.certificate().to_vec()]),
            authority: ArcSwap::from_pointee(authority),
            keys,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The CA whose certificate is in this file, with its key: in the other file, or elsewhere. It may take as long as a
    /// passphrase does.
    ///
    /// # Errors
    /// When a file is missing, readable by others, or no CA's, or the passphrase does not open the key.
    pub fn open(&self, certificate: &Path, key: &Path) -> Result<Authority, SignerError> {
        self.keys.load(certificate, key)
    }

    /// Makes another CA than `known` (DER), and the text of its key's file when it is to be in one. It may take as long
    /// as a passphrase does, or a network.
    ///
    /// # Errors
    /// When no key could be made, or the engine that has the keys has no other one.
    pub fn make(
        &self,
        domain: &TrustDomain,
        known: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<(Authority, Option<Zeroizing<String>>), SignerError> {
        self.keys.make(domain, known, now)
    }

    /// Signs with another CA from here on.
    pub fn follow(&self, authority: Authority) {
        self.trusted
            .store(Arc::new(vec![authority.certificate().to_vec()]));
        self.authority.store(Arc::new(authority));
    }

    /// Says in bundles that these CAs are to be trusted, the one that signs first.
    pub fn vouch_for(&self, trusted: Vec<Vec<u8>>) {
        self.trusted.store(Arc::new(trusted));
    }

    /// Has the CA that signs vouch for its successor, whose certificate (DER) this is.
    ///
    /// # Errors
    /// When the CA's time is over, or the other is no CA of this trust domain.
    pub fn cross_sign(&self, successor: &[u8], now: Timestamp) -> Result<Vec<u8>, AuthorityError> {
        self.authority.load().cross_sign(successor, now)
    }

    /// From when until when the CA signs.
    #[must_use]
    pub fn validity(&self) -> lifetime::Validity {
        self.authority.load().validity()
    }

    /// Does `work`, which signs: here when the key is in memory, and on a thread that may wait when it is elsewhere.
    ///
    /// # Errors
    /// What `work` refuses, and [`AuthorityError::Unsigned`] when too many wait already.
    pub async fn sign<T, E>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<AuthorityError> + Send + 'static,
    {
        let Keys::Elsewhere(_) = &self.keys else {
            return work(self);
        };
        // The semaphore is never closed.
        let Ok(Ok(turn)) = time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await else {
            let crowded = "too many signatures are waited for; try again in a minute";
            return Err(AuthorityError::Unsigned(crowded.into()).into());
        };
        let signer = Arc::clone(self);
        // Whoever asked may be gone before the engine answers: the turn is over when the thread is free.
        apart(move || {
            let done = work(&signer);
            drop(turn);
            done
        })
        .await
    }

    /// Whether the key lies in the data directory for whoever can read it.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.keys, Keys::Plain)
    }

    /// How it stands with the engine that has the key, when one has it.
    #[must_use]
    pub fn health(&self) -> Option<watch::Receiver<Health>> {
        match &self.keys {
            Keys::Encrypted(_) | Keys::Plain => None,
            Keys::Elsewhere(engine) => Some(engine.health()),
        }
    }

    /// Asks the engine that has the key, when one has it, whether it has, and whether it would give it away: the
    /// settings of the key there that are too wide. It may take as long as a network does.
    ///
    /// # Errors
    /// When the engine is away, or its key is another.
    pub fn look(&self) -> Result<Vec<&'static str>, SignerError> {
        match &self.keys {
            Keys::Encrypted(_) | Keys::Plain => Ok(Vec::new()),
            Keys::Elsewhere(engine) => {
                let versions = engine.versions()?;
                let public = Root::parse(&self.certificate())?.public_key;
                remote::version_of(engine, &versions, &public)?;
                Ok(versions.loose)
            }
        }
    }

    /// Whether the engine that has the keys, when one has them, has that of this CA. It may take as long as a network does.
    ///
    /// # Errors
    /// When the engine is away, or has no such key.
    pub fn has(&self, authority: &Authority) -> Result<(), SignerError> {
        match &self.keys {
            Keys::Encrypted(_) | Keys::Plain => Ok(()),
            Keys::Elsewhere(engine) => {
                let public = Root::parse(authority.certificate())?.public_key;
                remote::version_of(engine, &engine.versions()?, &public)?;
                Ok(())
            }
        }
    }

    /// The CA's certificate (DER).
    #[must_use]
    pub fn certificate(&self) -> Vec<u8> {
        self.authority.load().certificate().to_vec()
    }

    /// Its SHA-256, for people to compare.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.authority.load().fingerprint()
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        self.authority.load().trust_domain().clone()
    }

    /// A certificate for a host's own key.
    ///
    /// # Errors
    /// When the CA's time is over.
    pub fn host(&self, id: HostId, csr: &Csr, from: &str, now: Timestamp) -> Result<Pin, AuthorityError> {
        let issued =
            self.authority
                .load()
                .issue(csr.public_key(), &Identity::Host(id.0), lifetime::HOST, now)?;
        Ok(pin(&issued, csr.public_key(), from))
    }

    /// A certificate for an operator's own key.
    ///
    /// # Errors
    /// When the CA's time is over.
    pub fn operator(
        &self,
        name: &OperatorName,
        csr: &Csr,
        from: &str,
        now: Timestamp,
    ) -> Result<Pin, AuthorityError> {
        let identity = Identity::Operator(name.clone());
        let issued = self
            .authority
            .load()
            .issue(csr.public_key(), &identity, lifetime::OPERATOR, now)?;
        Ok(pin(&issued, csr.public_key(), from))
    }

    /// A bundle for a host.
    ///
    /// # Errors
    /// When the CA's time is over.
    pub fn host_bundle(
        &self,
        id: HostId,
        name: &Name,
        masters: &[String],
        now: Timestamp,
    ) -> Result<Bundled, AuthorityError> {
        let holder = Holder::Host {
            id: id.0,
            name: name.to_string(),
        };
        self.bundle(holder, masters, lifetime::BUNDLE, now)
    }

    /// A bundle for an operator.
    ///
    /// # Errors
    /// When the CA's time is over.
    pub fn operator_bundle(
        &self,
        name: OperatorName,
        masters: &[String],
        now: Timestamp,
    ) -> Result<Bundled, AuthorityError> {
        self.bundle(Holder::Operator { name }, masters, lifetime::OPERATOR, now)
    }

    /// A bundle for a host that has made its key itself.
    ///
    /// # Errors
    /// When the CA's time is over.
    pub fn keyless_bundle(
        &self,
        id: HostId,
        name: &Name,
        csr: &Csr,
        masters: &[String],
        now: Timestamp,
    ) -> Result<(Keyless, Pin), AuthorityError> {
        let holder = Holder::Host {
            id: id.0,
            name: name.to_string(),
        };
        let issued =
            self.authority
                .load()
                .issue(csr.public_key(), &holder.identity(), lifetime::BUNDLE, now)?;
        let pin = Pin {
            certificate: String::new(),
            ..pin(&issued, csr.public_key(), "")
        };
        let bundle = Keyless {
            holder,
            trust_domain: self.trust_domain(),
            masters: masters.to_vec(),
            authorities: self.trusted.load().to_vec(),
            certificate: issued.der,
        };
        Ok((bundle, pin))
    }

    fn bundle(
        &self,
        holder: Holder,
        masters: &[String],
        life: jiff::SignedDuration,
        now: Timestamp,
    ) -> Result<Bundled, AuthorityError> {
        let key = Key::generate()?;
        let issued = self
            .authority
            .load()
            .issue(key.public(), &holder.identity(), life, now)?;
        let pin = Pin {
            certificate: String::new(),
            ..pin(&issued, key.public(), "")
        };
        let bundle = Bundle {
            holder,
            trust_domain: self.trust_domain(),
            masters: masters.to_vec(),
            authorities: self.trusted.load().to_vec(),
            certificate: issued.der,
            key,
        };
        Ok(Bundled { bundle, pin })
    }
}

/// Runs what may wait on a thread of its own.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and whoever waits here with it.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Keys {
    fn open(ca: &CaKey, clock: &Clock) -> Result<Self, SignerError> {
        Ok(match ca {
            CaKey::Encrypted(from) => Self::Encrypted(from.clone()),
            CaKey::Plain => Self::Plain,
            CaKey::Transit(place) => {
                Self::Elsewhere(Arc::new(Engine::start((**place).clone(), clock.clone())?))
            }
        })
    }

    fn load(&self, certificate: &Path, key: &Path) -> Result<Authority, SignerError> {
        let key: Arc<dyn AuthorityKey> = match self {
            Self::Encrypted(from) => Arc::new(key_file::read(key, Some(from))?),
            Self::Plain => Arc::new(key_file::read(key, None)?),
            Self::Elsewhere(engine) => {
                let text = picket_durable::read_private(certificate, LONGEST)?;
                let ders = picket_pki::pem::certificates_from_pem(&text).unwrap_or_default();
                let der = ders
                    .first()
                    .ok_or(AuthorityError::from(CertificateError::Unreadable))?;
                let public = Root::parse(der)?.public_key;
                Arc::new(Remote::of(Arc::clone(engine), public))
            }
        };
        let text = picket_durable::read_private(certificate, LONGEST)?;
        Ok(Authority::load_with(&text, key)?)
    }

    fn make(
        &self,
        domain: &TrustDomain,
        known: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<(Authority, Option<Zeroizing<String>>), SignerError> {
        let passphrase = match self {
            Self::Encrypted(from) => Some(from.read().map_err(KeyFileError::from)?),
            Self::Plain => None,
            Self::Elsewhere(engine) => {
                let key = Remote::newest(Arc::clone(engine))?;
                let is_known =
                    |der: &Vec<u8>| Root::parse(der).is_ok_and(|root| &root.public_key == key.public());
                if known.iter().any(is_known) {
                    let place = engine.place();
                    return Err(SignerError::NoNewKey {
                        key: place.key.to_string(),
                        place: place.address.to_string(),
                        mount: place.mount.to_string(),
                    });
                }
                return Ok((Authority::create_with(Arc::new(key), domain, now)?, None));
            }
        };
        let key = Key::generate()?;
        let text = key_file::written(&key, passphrase.as_ref())?;
        Ok((Authority::create_with(Arc::new(key), domain, now)?, Some(text)))
    }
}

fn pin(issued: &IssuedCertificate, key: &PublicKey, from: &str) -> Pin {
    Pin {
        fingerprint: issued.fingerprint,
        key: key.fingerprint(),
        not_after: issued.not_after,
        certificate: data_encoding::HEXLOWER.encode(&issued.der),
        from: from.to_owned(),
    }
}
