//! The CA at work: what it signs for hosts, operators and the master itself.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use picket_durable::FileError;
use picket_pki::{
    Authority, AuthorityError, Bundle, Csr, Fingerprint, Holder, Identity, IssuedCertificate, Key, KeyError,
    Keyless, OperatorName, PublicKey, TrustDomain, lifetime,
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
    authority: Authority,
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
        let key = Key::generate()?;
        let authority = Authority::create_with(Arc::new(key.clone()), trust_domain, now)?;
        picket_durable::create_private(key_path(data_dir), key.to_pem().as_bytes())?;
        picket_durable::write_private(certificate_path(data_dir), authority.certificate_pem().as_bytes())?;
        Ok(Self { authority })
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
        Ok(Self {
            authority: Authority::load(&certificate, &key)?,
        })
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
        name: &OperatorName,
        csr: &Csr,
        from: &str,
        now: Timestamp,
    ) -> Result<Pin, AuthorityError> {
        let identity = Identity::Operator(name.clone());
        let issued = self
            .authority
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
        let issued = self
            .authority
            .issue(csr.public_key(), &holder.identity(), lifetime::BUNDLE, now)?;
        let pin = Pin {
            certificate: String::new(),
            ..pin(&issued, csr.public_key(), "")
        };
        let bundle = Keyless {
            holder,
            trust_domain: self.trust_domain().clone(),
            masters: masters.to_vec(),
            authorities: vec![self.certificate().to_vec()],
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

fn pin(issued: &IssuedCertificate, key: &PublicKey, from: &str) -> Pin {
    Pin {
        fingerprint: issued.fingerprint,
        key: key.fingerprint(),
        not_after: issued.not_after,
        certificate: data_encoding::HEXLOWER.encode(&issued.der),
        from: from.to_owned(),
    }
}
