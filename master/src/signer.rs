//! The CA at work: what it signs for hosts, operators and the master itself.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use picket_durable::FileError;
use picket_pki::{
    Authority, AuthorityError, Bundle, Csr, Fingerprint, Holder, Identity, IssuedCertificate, Key, KeyError,
    OperatorName, PublicKey, TrustDomain, lifetime,
};
use picket_proto::host::{HostId, Name};

use crate::record::Pin;

/// The longest CA file that is read.
const LONGEST: u64 = 16 * 1024;

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

/// A new certificate for a bundle, and the pin that makes it good.
#[derive(Debug)]
pub struct Bundled {
    /// What the operator carries.
    pub bundle: Bundle,
    /// What the master keeps.
    pub pin: Pin,
}

impl Signer {
    /// Makes a CA and keeps it in `data_dir`.
    ///
    /// # Errors
    /// When there is one already, or it cannot be kept.
    pub fn create(data_dir: &Path, trust_domain: &TrustDomain, now: Timestamp) -> Result<Self, SignerError> {
        let authority = Authority::create(trust_domain, now)?;
        picket_durable::create_private(key_path(data_dir), authority.key_pem().as_bytes())?;
        picket_durable::write_private(certificate_path(data_dir), authority.certificate_pem().as_bytes())?;
        Ok(Self::of(authority))
    }

    fn of(authority: Authority) -> Self {
        Self {
            trusted: ArcSwap::from_pointee(vec![authority.certificate().to_vec()]),
            authority: ArcSwap::from_pointee(authority),
        }
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

    /// Loads the CA of `data_dir`.
    ///
    /// # Errors
    /// When its files are missing, readable by others, or no CA.
    pub fn load(data_dir: &Path) -> Result<Self, SignerError> {
        let key = picket_durable::read_private(key_path(data_dir), LONGEST)?;
        let certificate = picket_durable::read_private(certificate_path(data_dir), LONGEST)?;
        Ok(Self::of(Authority::load(&certificate, &key)?))
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

    /// A new certificate and key for the master's own listeners.
    ///
    /// # Errors
    /// When the CA's time is over, or a name cannot stand in a certificate.
    pub fn master(&self, names: &[String], now: Timestamp) -> Result<(IssuedCertificate, Key), SignerError> {
        let key = Key::generate()?;
        let issued = self.issue_master(key.public(), names, now)?;
        Ok((issued, key))
    }

    /// A certificate for the master's own listeners, for a key that is there.
    ///
    /// # Errors
    /// When the CA's time is over, or a name cannot stand in a certificate.
    pub fn issue_master(
        &self,
        key: &PublicKey,
        names: &[String],
        now: Timestamp,
    ) -> Result<IssuedCertificate, AuthorityError> {
        self.authority.load().issue_master(key, names, now)
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

fn pin(issued: &IssuedCertificate, key: &PublicKey, from: &str) -> Pin {
    Pin {
        fingerprint: issued.fingerprint,
        key: key.fingerprint(),
        not_after: issued.not_after,
        certificate: data_encoding::HEXLOWER.encode(&issued.der),
        from: from.to_owned(),
    }
}
