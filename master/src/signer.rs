//! The CA at work: what it signs for hosts, operators and the master itself.
//!
//! The key is in the data directory or in a transit engine. Signing with one that is elsewhere takes as long as a
//! network does, so whoever signs on the runtime goes through [`Signer::sign`].

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use picket_clock::Clock;
use picket_durable::FileError;
use picket_pki::{
    Authority, AuthorityError, Bundle, CertificateError, Csr, Fingerprint, Holder, Identity,
    IssuedCertificate, Key, KeyError, OperatorName, PublicKey, Root, TrustDomain, lifetime,
};
use picket_proto::host::{HostId, Name};
use picket_transit::{Engine, Health, TransitError};
use tokio::{sync::Semaphore, sync::watch, task, time};

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
    authority: Authority,
    key: Kept,
    turns: Arc<Semaphore>,
}

/// Where the CA's key is.
#[derive(Debug)]
enum Kept {
    Encrypted,
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
        let passphrase = match ca {
            CaKey::Encrypted(from) => Some(from.read().map_err(KeyFileError::from)?),
            CaKey::Plain => None,
            CaKey::Transit(place) => {
                let engine = Arc::new(Engine::start((**place).clone(), clock.clone())?);
                let key = Arc::new(Remote::newest(Arc::clone(&engine))?);
                let authority = Authority::create_with(key, domain, clock.now())?;
                keep_certificate(dir, &authority)?;
                return Ok(Self::of(authority, Kept::Elsewhere(engine)));
            }
        };
        let key = Key::generate()?;
        let text = key_file::written(&key, passphrase.as_ref())?;
        let authority = Authority::create_with(Arc::new(key), domain, clock.now())?;
        picket_durable::create_private(key_path(dir), text.as_bytes())?;
        keep_certificate(dir, &authority)?;
        let kept = passphrase.map_or(Kept::Plain, |_| Kept::Encrypted);
        Ok(Self::of(authority, kept))
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
        let read = |kept, from| -> Result<Self, SignerError> {
            let key = key_file::read(dir, from)?;
            let certificate = picket_durable::read_private(certificate_path(dir), LONGEST)?;
            Ok(Self::of(Authority::load_with(&certificate, Arc::new(key))?, kept))
        };
        match ca {
            CaKey::Encrypted(from) => read(Kept::Encrypted, Some(from)),
            CaKey::Plain => read(Kept::Plain, None),
            CaKey::Transit(place) => {
                let text = picket_durable::read_private(certificate_path(dir), LONGEST)?;
                let ders = picket_pki::pem::certificates_from_pem(&text).unwrap_or_default();
                let der = ders
                    .first()
                    .ok_or(AuthorityError::from(CertificateError::Unreadable))?;
                let public = Root::parse(der)?.public_key;
                let engine = Arc::new(Engine::start((**place).clone(), clock.clone())?);
                let key = Arc::new(Remote::of(Arc::clone(&engine), public));
                Ok(Self::of(
                    Authority::load_with(&text, key)?,
                    Kept::Elsewhere(engine),
                ))
            }
        }
    }

    fn of(authority: Authority, key: Kept) -> Self {
        Self {
            authority,
            key,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
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
        let Kept::Elsewhere(_) = &self.key else {
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
        matches!(self.key, Kept::Plain)
    }

    /// How it stands with the engine that has the key, when one has it.
    #[must_use]
    pub fn health(&self) -> Option<watch::Receiver<Health>> {
        match &self.key {
            Kept::Encrypted | Kept::Plain => None,
            Kept::Elsewhere(engine) => Some(engine.health()),
        }
    }

    /// Asks the engine that has the key, when one has it, whether it has, and whether it would give it away: the
    /// settings of the key there that are too wide. It may take as long as a network does.
    ///
    /// # Errors
    /// When the engine is away, or its key is another.
    pub fn look(&self) -> Result<Vec<&'static str>, SignerError> {
        match &self.key {
            Kept::Encrypted | Kept::Plain => Ok(Vec::new()),
            Kept::Elsewhere(engine) => {
                let versions = engine.versions()?;
                let public = Root::parse(self.certificate())?.public_key;
                remote::version_of(engine, &versions, &public)?;
                Ok(versions.loose)
            }
        }
    }

    /// The CA's certificate (DER).
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.authority.certificate()
    }

    /// Its SHA-256, for people to compare.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.authority.fingerprint()
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.authority.trust_domain()
    }

    /// A new certificate and key for the master's own listeners.
    ///
    /// # Errors
    /// When the CA's time is over, or a name cannot stand in a certificate.
    pub fn master(&self, names: &[String], now: Timestamp) -> Result<(IssuedCertificate, Key), SignerError> {
        let key = Key::generate()?;
        Ok((self.authority.issue_master(key.public(), names, now)?, key))
    }

    /// A certificate for a host's own key.
    ///
    /// # Errors
    /// When the CA's time is over.
    pub fn host(&self, id: HostId, csr: &Csr, from: &str, now: Timestamp) -> Result<Pin, AuthorityError> {
        let issued = self
            .authority
            .issue(csr.public_key(), &Identity::Host(id.0), lifetime::HOST, now)?;
        Ok(pin(&issued, csr.public_key(), from))
    }

    /// A certificate for an operator's own key.
    ///
    /// # Errors
    /// When the CA's time is over.
    pub fn operator(
        &self,
        name: OperatorName,
        csr: &Csr,
        now: Timestamp,
    ) -> Result<IssuedCertificate, AuthorityError> {
        self.authority.issue(
            csr.public_key(),
            &Identity::Operator(name),
            lifetime::OPERATOR,
            now,
        )
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
            .issue(key.public(), &holder.identity(), life, now)?;
        let pin = Pin {
            certificate: String::new(),
            ..pin(&issued, key.public(), "")
        };
        let bundle = Bundle {
            holder,
            trust_domain: self.trust_domain().clone(),
            masters: masters.to_vec(),
            authorities: vec![self.certificate().to_vec()],
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

fn keep_certificate(dir: &Path, authority: &Authority) -> Result<(), SignerError> {
    picket_durable::write_private(certificate_path(dir), authority.certificate_pem().as_bytes())?;
    Ok(())
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
