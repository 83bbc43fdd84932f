//! The agent's identity on disk: key, certificate, CAs and master addresses, one file for each, replaced whole.
//!
//! | file | is |
//! | --- | --- |
//! | `key.json` | a key that a certificate has been, or will be, asked for: written before the request goes out |
//! | `next.json` | a whole identity that the master has signed and has not seen used |
//! | `current.json` | the identity the agent works under |
//! | `previous.json` | the one before it, for a master that was restored from before the renewal |
//! | `bundle` | the fingerprint of the bundle that this machine used up last |
//! | `retired` | there while the machine of a retired host is cleaned up |
//!
//! Whatever step a crash comes after, doing the renewal again from its start ends in the same place.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::BASE64;
use jiff::{SignedDuration, Timestamp};
use picket_clock::Clock;
use picket_durable::FileError;
use picket_pki::{
    Authorities, AuthoritiesError, Bundle, Certificate, CertificateError, Fingerprint, Key, KeyError,
    Purpose, TlsError, TrustDomain, VouchError,
};
use picket_proto::{host::HostId, session::Trust};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// The longest identity file that is read. One has about 4 KiB.
const LONGEST: u64 = 64 * 1024;
const VERSION: u32 = 1;
const KEY: &str = "key.json";
const NEXT: &str = "next.json";
const CURRENT: &str = "current.json";
const PREVIOUS: &str = "previous.json";
const BUNDLE: &str = "bundle";
const RETIRED: &str = "retired";
/// What the name of a file that was moved aside ends with.
const DAMAGED: &str = ".damaged";

/// Everything a host needs to speak with its master.
#[derive(Clone)]
pub struct Identity {
    /// Its id.
    pub host: HostId,
    /// Its name, as the master called it when the bundle was made.
    pub name: String,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Where the master is dialled.
    pub masters: Vec<String>,
    /// The CA certificates to trust (DER).
    pub authorities: Vec<Vec<u8>>,
    /// The host's certificate (DER).
    pub certificate: Vec<u8>,
    /// The key it is for.
    pub key: Key,
    /// When the certificate begins.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("host", &self.host)
            .field("name", &self.name)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why an identity cannot be read, kept or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is there and is not what was written.
    #[error("{} is damaged: {what}; enroll again with a new bundle (`picketctl host bundle NAME`)", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There is no identity.
    #[error(
        "this machine is not enrolled; get a bundle with `picketctl host enroll NAME` and run `picket-agent enroll FILE`"
    )]
    NotEnrolled,
    /// An enrolment stopped half-way.
    #[error(
        "an enrolment of this machine was begun and not finished; run `picket-agent enroll FILE` again with the same bundle"
    )]
    HalfEnrolled,
    /// A file cannot be moved or removed.
    #[error("change {}", path.display())]
    Change {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A key cannot be made.
    #[error("make a key for this host")]
    Key(#[from] KeyError),
    /// The certificate is no host's.
    #[error("the certificate is of no use")]
    Certificate(#[from] CertificateError),
    /// The certificate is not for this host and this key.
    #[error("the certificate that came is not for this host and its key; tell the operator of the master")]
    NotOurs,
    /// The CA certificates cannot be used.
    #[error("the CA certificates are of no use")]
    Authorities(#[from] AuthoritiesError),
    /// They are not vouched for.
    #[error(transparent)]
    Vouch(#[from] VouchError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Identity {
    /// The identity that is in a host's bundle; `None` when it is an operator's.
    ///
    /// # Errors
    /// When the certificate in it cannot be read.
    pub fn from_bundle(bundle: &Bundle) -> Result<Option<Self>, IdentityError> {
        let picket_pki::Holder::Host { id, name } = &bundle.holder else {
            return Ok(None);
        };
        let certificate = Certificate::parse(&bundle.certificate)?;
        Ok(Some(Self {
            host: HostId(*id),
            name: name.clone(),
            trust_domain: bundle.trust_domain.clone(),
            masters: bundle.masters.clone(),
            authorities: bundle.authorities.clone(),
            certificate: bundle.certificate.clone(),
            key: bundle.key.clone(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
        }))
    }

    /// The same host under a new key and certificate. An empty list of CAs keeps those it has.
    ///
    /// # Errors
    /// When the certificate is not for this host, this key and a client, or a CA is of another trust domain.
    pub fn renewed(
        &self,
        key: Key,
        certificate: Vec<u8>,
        authorities: Vec<Vec<u8>>,
    ) -> Result<Self, IdentityError> {
        let read = Certificate::parse(&certificate)?;
        let ours = read.identity == picket_pki::Identity::Host(self.host.0)
            && read.trust_domain == self.trust_domain
            && read.purpose == Purpose::Client
            && &read.public_key == key.public();
        if !ours {
            return Err(IdentityError::NotOurs);
        }
        let authorities = if authorities.is_empty() {
            self.authorities.clone()
        } else {
            Authorities::new(self.trust_domain.clone(), authorities.clone())?;
            authorities
        };
        Ok(Self {
            key,
            certificate,
            authorities,
            not_before: read.not_before,
            not_after: read.not_after,
            ..self.clone()
        })
    }

    /// When to renew: at half life, moved by `jitter` (-1 to 1) times a tenth of the life.
    #[must_use]
    pub fn renew_at(&self, jitter: f64) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        let share = 0.5 + 0.1 * jitter.clamp(-1.0, 1.0);
        let wait = SignedDuration::try_from_secs_f64(life.as_secs_f64() * share).unwrap_or(life / 2);
        self.not_before.checked_add(wait).unwrap_or(self.not_after)
    }

    /// TLS under this identity, with the time of `clock`.
    ///
    /// # Errors
    /// [`IdentityError::Authorities`] and [`IdentityError::Tls`].
    pub fn tls(&self, clock: &Clock) -> Result<Arc<ClientConfig>, IdentityError> {
        let authorities = Arc::new(Authorities::new(
            self.trust_domain.clone(),
            self.authorities.clone(),
        )?);
        let clock = clock.clone();
        let time: picket_pki::Time = Arc::new(move || clock.unix());
        Ok(Arc::new(picket_pki::client_config(
            authorities,
            &self.certificate,
            &self.key,
            time,
        )?))
    }
}

/// The identity files of one host.
#[derive(Debug, Clone)]
pub struct IdentityStore {
    directory: PathBuf,
}

/// The identities there are, the one to be tried first in front.
#[derive(Debug, Clone)]
pub struct Identities {
    /// Signed, and not yet used.
    pub next: Option<Identity>,
    /// The one to work under.
    pub current: Option<Identity>,
    /// The one before.
    pub previous: Option<Identity>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    host: HostId,
    name: String,
    trust_domain: TrustDomain,
    masters: Vec<String>,
    authorities: Vec<String>,
    certificate: String,
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    version: u32,
    host: HostId,
    key: String,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Drop for StoredKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl IdentityStore {
    /// The store in `directory`, which is made when it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made or is open to others.
    pub fn open(directory: PathBuf) -> Result<Self, IdentityError> {
        picket_durable::create_private_dir(&directory)?;
        Ok(Self { directory })
    }

    /// Reads what there is.
    ///
    /// # Errors
    /// When a file is unreadable or open to others, or the current identity is damaged. Of the others a damaged one is
    /// moved aside and counts as absent: what it held can be had again while the current one is whole.
    pub fn load(&self) -> Result<Identities, IdentityError> {
        Ok(Identities {
            next: self.aside(NEXT, self.read(NEXT))?,
            current: self.read(CURRENT)?,
            previous: self.aside(PREVIOUS, self.read(PREVIOUS))?,
        })
    }

    /// Like [`Self::load`], for a machine that is about to be given another identity: a damaged current one is moved
    /// aside too.
    ///
    /// # Errors
    /// When a file is unreadable or open to others, or cannot be moved.
    pub fn salvage(&self) -> Result<Identities, IdentityError> {
        self.aside(CURRENT, self.read(CURRENT))?;
        self.load()
    }

    /// Moves a damaged file aside.
    fn aside<T>(
        &self,
        name: &str,
        read: Result<Option<T>, IdentityError>,
    ) -> Result<Option<T>, IdentityError> {
        let error = match read {
            Err(error @ IdentityError::Damaged { .. }) => error,
            read => return read,
        };
        let (from, to) = (self.path(name), self.path(&format!("{name}{DAMAGED}")));
        tracing::warn!(%error, to = %to.display(), "moves it aside and goes on without it");
        fs::rename(&from, to).map_err(|cause| IdentityError::Change { path: from, cause })?;
        Ok(None)
    }

    /// Notes that the bundle with this certificate was used up by this machine.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn mark_spent(&self, bundle: &Identity) -> Result<(), IdentityError> {
        let text = Fingerprint::of(&bundle.certificate).to_string();
        Ok(picket_durable::write_private(self.path(BUNDLE), text.as_bytes())?)
    }

    /// Whether the bundle with this certificate is the one that this machine used up last.
    #[must_use]
    pub fn is_spent(&self, bundle: &Identity) -> bool {
        let spent = picket_durable::read_private(self.path(BUNDLE), LONGEST);
        spent.is_ok_and(|text| *text == *Fingerprint::of(&bundle.certificate).to_string().as_bytes())
    }

    /// Notes that the host is retired and its machine not clean yet.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn mark_retired(&self) -> Result<(), IdentityError> {
        Ok(picket_durable::write_private(self.path(RETIRED), b"")?)
    }

    /// Whether the host is retired and its machine not clean yet.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.path(RETIRED).exists()
    }

    /// The key to ask a certificate for. It is on disk when this returns, and is the same at every call until
    /// [`Self::promote`].
    ///
    /// # Errors
    /// When it cannot be made, written or read.
    pub fn next_key(&self, host: HostId) -> Result<Key, IdentityError> {
        // A key that already has the current certificate is a leftover of a renewal that was completed.
        let used = self.read(CURRENT)?.map(|current| current.key);
        let is_used = |key: &Key| used.as_ref().is_some_and(|used| used.public() == key.public());
        if let Some((owner, key)) = self.aside(KEY, self.read_key())?
            && owner == host
            && !is_used(&key)
        {
            return Ok(key);
        }
        let key = Key::generate()?;
        let stored = StoredKey {
            version: VERSION,
            host,
            key: BASE64.encode(key.as_pkcs8()),
        };
        self.write(KEY, &stored)?;
        Ok(key)
    }

    /// Keeps an identity that the master has signed and not yet seen.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_next(&self, identity: &Identity) -> Result<(), IdentityError> {
        self.write(NEXT, &Stored::from(identity))
    }

    /// Makes the next identity the current one, after the master has seen it used.
    ///
    /// # Errors
    /// When a file cannot be written or moved. Calling again is safe.
    pub fn promote(&self) -> Result<(), IdentityError> {
        if let Some(current) = self.read(CURRENT)? {
            self.write(PREVIOUS, &Stored::from(&current))?;
        }
        // A rename that a power loss undoes is done again: the next identity is tried first at every start.
        let (from, to) = (self.path(NEXT), self.path(CURRENT));
        fs::rename(&from, to).map_err(|cause| IdentityError::Change { path: from, cause })?;
        self.remove(KEY)
    }

    /// Trusts these CAs from here on. They are on disk when this returns the current identity, which trusts them.
    ///
    /// # Errors
    /// When one of them is not vouched for by one that is trusted, or a file cannot be written. Calling again is safe.
    pub fn trust(&self, trust: &Trust) -> Result<Identity, IdentityError> {
        let current = self.read(CURRENT)?.ok_or(IdentityError::NotEnrolled)?;
        let trusting = current.trusting(trust)?;
        if trusting.authorities != current.authorities {
            self.write(CURRENT, &Stored::from(&trusting))?;
        }
        // The identity before is left as it is: it is for a master that was restored from before.
        if let Some(next) = self.aside(NEXT, self.read(NEXT))?
            && next.authorities != trusting.authorities
        {
            let authorities = trusting.authorities.clone();
            self.write(NEXT, &Stored::from(&Identity { authorities, ..next }))?;
        }
        Ok(trusting)
    }

    /// Forgets an identity that the master will not take any more.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub fn drop_next(&self) -> Result<(), IdentityError> {
        self.remove(NEXT)?;
        self.remove(KEY)
    }

    /// Removes every key and certificate: the host is retired.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clear(&self) -> Result<(), IdentityError> {
        for name in [KEY, NEXT, PREVIOUS, CURRENT] {
            self.remove(name)?;
            // It may hold a key all the same.
            self.remove(&format!("{name}{DAMAGED}"))?;
        }
        self.remove(BUNDLE)?;
        self.remove(RETIRED)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<Identity>, IdentityError> {
        let path = self.path(name);
        let Some(mut bytes) = read(&path)? else {
            return Ok(None);
        };
        let stored = serde_json::from_slice::<Stored>(&bytes).map_err(|error| damaged(&path, &error));
        bytes.zeroize();
        stored?.read(&path).map(Some)
    }

    fn read_key(&self) -> Result<Option<(HostId, Key)>, IdentityError> {
        let path = self.path(KEY);
        let Some(mut bytes) = read(&path)? else {
            return Ok(None);
        };
        let stored = serde_json::from_slice::<StoredKey>(&bytes).map_err(|error| damaged(&path, &error));
        bytes.zeroize();
        let stored = stored?;
        Ok(Some((stored.host, key(&path, &stored.key)?)))
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), IdentityError> {
        let path = self.path(name);
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| damaged(&path, &error))?;
        let written = picket_durable::write_private(&path, &bytes);
        bytes.zeroize();
        Ok(written?)
    }

    fn remove(&self, name: &str) -> Result<(), IdentityError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(IdentityError::Change { path, cause })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match picket_durable::read_private(path, LONGEST) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FileError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn damaged(path: &Path, what: &impl fmt::Display) -> IdentityError {
    IdentityError::Damaged {
        path: path.to_owned(),
        what: what.to_string(),
    }
}

fn key(path: &Path, text: &str) -> Result<Key, IdentityError> {
    let mut der = BASE64
        .decode(text.as_bytes())
        .map_err(|error| damaged(path, &error))?;
    let key = Key::from_pkcs8(&der);
    der.zeroize();
    key.map_err(|error| damaged(path, &error))
}

impl From<&Identity> for Stored {
    fn from(identity: &Identity) -> Self {
        Self {
            version: VERSION,
            host: identity.host,
            name: identity.name.clone(),
            trust_domain: identity.trust_domain.clone(),
            masters: identity.masters.clone(),
            authorities: identity
                .authorities
                .iter()
                .map(|der| BASE64.encode(der))
                .collect(),
            certificate: BASE64.encode(&identity.certificate),
            key: BASE64.encode(identity.key.as_pkcs8()),
        }
    }
}

impl Stored {
    fn read(self, path: &Path) -> Result<Identity, IdentityError> {
        if self.version != VERSION {
            return Err(damaged(
                path,
                &format_args!("it has version {}, and this agent reads {VERSION}", self.version),
            ));
        }
        let der = |text: &String| {
            BASE64
                .decode(text.as_bytes())
                .map_err(|error| damaged(path, &error))
        };
        let certificate = der(&self.certificate)?;
        let read = Certificate::parse(&certificate).map_err(|error| damaged(path, &error))?;
        let key = key(path, &self.key)?;
        if &read.public_key != key.public() || read.identity != picket_pki::Identity::Host(self.host.0) {
            return Err(damaged(path, &"key, certificate and host do not belong together"));
        }
        Ok(Identity {
            host: self.host,
            name: self.name.clone(),
            trust_domain: self.trust_domain.clone(),
            masters: self.masters.clone(),
            authorities: self.authorities.iter().map(der).collect::<Result<_, _>>()?,
            certificate,
            key,
            not_before: read.not_before,
            not_after: read.not_after,
        })
    }
}

#[cfg(test)]
mod tests {
    use picket_pki::{Authority, Csr, lifetime};
    use uuid::Uuid;

    use super::*;

    const HOST: HostId = HostId(Uuid::from_u128(7));

    struct Ca(Authority, Timestamp);

    impl Ca {
        fn new() -> Self {
            let now = "2026-11-22T12:00:00Z".parse().unwrap();
            Self(
                Authority::create(&"example.org".parse().unwrap(), now).unwrap(),
                now,
            )
        }

        fn sign(&self, key: &Key) -> Vec<u8> {
            let csr = Csr::parse(&key.csr().unwrap()).unwrap();
            let identity = picket_pki::Identity::Host(HOST.0);
            self.0
                .issue(csr.public_key(), &identity, lifetime::HOST, self.1)
                .unwrap()
                .der
        }

        fn identity(&self) -> Identity {
            let key = Key::generate().unwrap();
            let certificate = self.sign(&key);
            let bundle = Bundle {
                holder: picket_pki::Holder::Host {
                    id: HOST.0,
                    name: "edge-07".into(),
                },
                trust_domain: "example.org".parse().unwrap(),
                masters: vec!["master.example.org:7443".into()],
                authorities: vec![self.0.certificate().to_vec()],
                certificate,
                key,
            };
            Identity::from_bundle(&bundle).unwrap().unwrap()
        }
    }

    fn store(root: &tempfile::TempDir) -> IdentityStore {
        IdentityStore::open(root.path().join("identity")).unwrap()
    }

    /// One renewal; `crash_after` stops it after so many of its steps. Returns whether it came to its end.
    fn renew(store: &IdentityStore, ca: &Ca, base: &Identity, crash_after: usize) -> bool {
        if crash_after == 0 {
            return false;
        }
        let key = store.next_key(HOST).unwrap();
        if crash_after == 1 {
            return false;
        }
        let next = base.renewed(key.clone(), ca.sign(&key), Vec::new()).unwrap();
        store.keep_next(&next).unwrap();
        if crash_after == 2 {
            return false;
        }
        store.promote().unwrap();
        true
    }

    #[test]
    fn whatever_step_a_crash_comes_after_the_renewal_ends_under_the_key_that_was_stored_first() {
        let ca = Ca::new();
        let bundle = ca.identity();
        for crash_after in 0..3 {
            let root = tempfile::tempdir().unwrap();
            assert!(!renew(&store(&root), &ca, &bundle, crash_after));
            let stored = (crash_after > 0).then(|| store(&root).next_key(HOST).unwrap());
            assert!(renew(&store(&root), &ca, &bundle, 9));
            let found = store(&root).load().unwrap();
            let current = found.current.unwrap();
            if let Some(stored) = stored {
                assert_eq!(current.key.public(), stored.public());
            }
            assert!(found.next.is_none() && found.previous.is_none());
        }
    }

    #[test]
    fn a_crash_inside_the_promotion_loses_neither_identity() {
        let ca = Ca::new();
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        renew(&store, &ca, &ca.identity(), 9);
        let first = store.load().unwrap().current.unwrap();
        renew(&store, &ca, &first, 2);
        let second = store.load().unwrap().next.unwrap();
        // The promotion has moved the files and died before it removed the key.
        picket_durable::write_private(store.path(PREVIOUS), &fs::read(store.path(CURRENT)).unwrap()).unwrap();
        fs::rename(store.path(NEXT), store.path(CURRENT)).unwrap();
        let found = store.load().unwrap();
        assert_eq!(found.current.unwrap().key.public(), second.key.public());
        assert_eq!(found.previous.unwrap().key.public(), first.key.public());
        // The key that is in use is not asked another certificate for.
        assert_ne!(store.next_key(HOST).unwrap().public(), second.key.public());
    }

    #[test]
    fn the_previous_identity_stays_until_the_next_renewal() {
        let ca = Ca::new();
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        let mut keys = Vec::new();
        for _ in 0..3 {
            let base = store.load().unwrap().current.unwrap_or_else(|| ca.identity());
            assert!(renew(&store, &ca, &base, 9));
            let found = store.load().unwrap();
            let previous = found.previous.map(|identity| identity.key.public().clone());
            assert_eq!(previous.as_ref(), keys.last());
            keys.push(found.current.unwrap().key.public().clone());
        }
        store.clear().unwrap();
        assert!(store.load().unwrap().current.is_none());
    }

    #[test]
    fn a_certificate_for_another_key_is_not_taken() {
        let ca = Ca::new();
        let base = ca.identity();
        let other = ca.sign(&Key::generate().unwrap());
        let error = base
            .renewed(Key::generate().unwrap(), other, Vec::new())
            .unwrap_err();
        assert!(matches!(error, IdentityError::NotOurs));
    }

    #[test]
    fn a_damaged_file_is_named_and_an_exposed_one_is_refused() {
        let ca = Ca::new();
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        renew(&store, &ca, &ca.identity(), 9);
        let path = store.path(CURRENT);
        let text = fs::read_to_string(&path).unwrap();
        picket_durable::write(&path, text.as_bytes(), 0o644).unwrap();
        assert!(matches!(
            store.load(),
            Err(IdentityError::File(FileError::Exposed { .. }))
        ));
        picket_durable::write_private(&path, &text.as_bytes()[..200]).unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("current.json is damaged"), "{error}");
    }

    #[test]
    fn renewal_comes_at_half_life_give_or_take_a_tenth() {
        let identity = Ca::new().identity();
        let life = identity.not_after.duration_since(identity.not_before).as_secs();
        for (jitter, want) in [(-1.0, 40), (0.0, 50), (1.0, 60)] {
            let at = identity
                .renew_at(jitter)
                .duration_since(identity.not_before)
                .as_secs();
            assert_eq!((at * 100 + life / 2) / life, want);
        }
    }
}
