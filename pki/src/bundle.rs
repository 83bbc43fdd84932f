//! The bundle: the one file that an operator carries to a new worker, or keeps to be an operator.
//!
//! Text: lines for people first, then JSON, then a line with the SHA-256 of all before it, so that a file that was
//! cut off and one that was edited are told apart. The checksum finds accidents; what holds against an attacker is the
//! CA fingerprint that people compare, and the pin.

use std::fmt::{self, Write as _};

use data_encoding::BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    Authorities, AuthoritiesError, Certificate, CertificateError, Fingerprint, Identity, Key, KeyError, OperatorName,
    TrustDomain,
};

/// The longest bundle that is read. One has about 4 KiB.
pub const LONGEST: usize = 64 * 1024;

/// The newest version of the format that this program reads, and the one that it writes.
pub const VERSION: u32 = 1;

const MAGIC: &str = "# picket bundle, version ";
const SEAL: &str = "sha256 ";
const MOST_ADDRESSES: usize = 16;
const LONGEST_NAME: usize = 253;

/// Why a bundle is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file is something else.
    #[error("this is no picket bundle; `picketctl host enroll NAME --out FILE` writes one")]
    NotABundle,
    /// The end is missing.
    #[error("the bundle is cut off: its end is missing; copy it again, whole")]
    Truncated,
    /// It is not what was written.
    #[error("the bundle has been edited or damaged: its checksum does not fit; copy it again, unchanged")]
    Edited,
    /// A newer master wrote it.
    #[error("the bundle has version {0} and this program reads up to {VERSION}; install the version of the master")]
    NewerVersion(u64),
    /// Its certificate has ended.
    #[error("the bundle has expired at {0}; get a new one with `picketctl host bundle NAME` (an operator's: `picket-master admin-bundle`), or set this machine's clock if that is wrong")]
    Expired(Timestamp),
    /// Its certificate has not begun.
    #[error("the bundle is valid from {not_before}, and the clock here says {now}; set this machine's clock")]
    NotYetValid {
        /// When the certificate begins.
        not_before: Timestamp,
        /// What the clock here says.
        now: Timestamp,
    },
    /// Key and certificate are not a pair.
    #[error("the key in the bundle is not the one its certificate is for; get a new one with `picketctl host bundle NAME`")]
    KeyDoesNotMatch,
    /// The certificate is of another CA than the one in the bundle.
    #[error("the certificate in the bundle is not of the CA in the bundle; get a new one with `picketctl host bundle NAME`")]
    WrongAuthority,
    /// The certificate speaks for somebody else than the bundle says.
    #[error("the bundle says it is for {says}, and its certificate is for {certificate}; get a new one with `picketctl host bundle NAME`")]
    OtherIdentity {
        /// Whom the bundle names.
        says: Identity,
        /// Whom its certificate names.
        certificate: Identity,
    },
    /// The certificate cannot be read.
    #[error("the certificate in the bundle is of no use; get a new one with `picketctl host bundle NAME`")]
    Certificate(#[source] CertificateError),
    /// The CA certificates cannot be read.
    #[error("the CA certificates in the bundle are of no use; get a new one with `picketctl host bundle NAME`")]
    Authorities(#[source] AuthoritiesError),
    /// The key cannot be read.
    #[error("the key in the bundle is of no use; get a new one with `picketctl host bundle NAME`")]
    Key(#[source] KeyError),
    /// A value of a bundle to be written cannot stand in one.
    #[error("{what} {value:?} cannot stand in a bundle; use {wanted}")]
    Value {
        /// Which value.
        what: &'static str,
        /// What it is.
        value: String,
        /// What would do.
        wanted: &'static str,
    },
}

/// Whose bundle it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Holder {
    /// A host's.
    Host {
        /// Its id.
        id: Uuid,
        /// Its name.
        name: String,
    },
    /// An operator's.
    Operator {
        /// The operator's name.
        name: OperatorName,
    },
}

impl Holder {
    /// The identity that the certificate must have.
    #[must_use]
    pub fn identity(&self) -> Identity {
        match self {
            Self::Host { id, .. } => Identity::Host(*id),
            Self::Operator { name } => Identity::Operator(name.clone()),
        }
    }
}

/// Everything a host or an operator needs to speak with its master. It holds a private key.
#[derive(Clone)]
pub struct Bundle {
    /// Whose it is.
    pub holder: Holder,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Where the master is dialled, each `host:port`, in this order.
    pub masters: Vec<String>,
    /// The CA certificates to trust (DER), the one that signed first.
    pub authorities: Vec<Vec<u8>>,
    /// The holder's certificate (DER).
    pub certificate: Vec<u8>,
    /// The key it is for.
    pub key: Key,
}

/// The JSON in the file. Private keys and certificates are DER in base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    holder: Holder,
    trust_domain: TrustDomain,
    masters: Vec<String>,
    authorities: Vec<String>,
    certificate: String,
    key: String,
}

impl Drop for Data {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Bundle {
    /// Writes the file's text. It is secret, and wiped when dropped.
    ///
    /// # Errors
    ///
    /// [`BundleError::Value`] for a name or address that cannot stand in a bundle, [`BundleError::Certificate`].
    pub fn encode(&self) -> Result<Zeroizing<String>, BundleError> {
        self.check_values()?;
        let certificate = Certificate::parse(&self.certificate).map_err(BundleError::Certificate)?;
        let data = Data {
            holder: self.holder.clone(),
            trust_domain: self.trust_domain.clone(),
            masters: self.masters.clone(),
            authorities: self.authorities.iter().map(|der| BASE64.encode(der)).collect(),
            certificate: BASE64.encode(&self.certificate),
            key: BASE64.encode(self.key.as_pkcs8()),
        };
        // A text that grows would leave copies of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(LONGEST));
        let json = Zeroizing::new(serde_json::to_string_pretty(&data).map_err(|_| BundleError::NotABundle)?);
        let written = self.describe(&mut text, certificate.not_after).and_then(|()| {
            writeln!(text, "{}", *json)?;
            let seal = data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
            writeln!(text, "{SEAL}{seal}")
        });
        written.map_err(|_| BundleError::NotABundle)?;
        Ok(text)
    }

    fn describe(&self, text: &mut String, expires: Timestamp) -> fmt::Result {
        writeln!(text, "{MAGIC}{VERSION}")?;
        writeln!(text, "# It holds a private key: keep it secret (chmod 600), do not edit it, delete it after use.")?;
        match &self.holder {
            Holder::Host { id, name } => writeln!(text, "# for host:      {name} ({id})")?,
            Holder::Operator { name } => writeln!(text, "# for operator:  {name}")?,
        }
        writeln!(text, "# trust domain:  {}", self.trust_domain)?;
        writeln!(text, "# master:        {}", self.masters.join(", "))?;
        writeln!(text, "# expires:       {expires}")?;
        writeln!(text, "# CA fingerprint (SHA-256), to be compared with the one the master shows:")?;
        for der in &self.authorities {
            let grouped = Fingerprint::of(der).grouped();
            let (first, second) = grouped.split_at(grouped.len() / 2);
            writeln!(text, "#   {}", first.trim())?;
            writeln!(text, "#   {}", second.trim())?;
        }
        writeln!(text, "#")
    }

    /// Reads a bundle, and refuses one that is not byte for byte what [`Self::encode`] wrote. What it says is then still
    /// to be [checked](Self::check).
    ///
    /// # Errors
    ///
    /// [`BundleError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let version = version(bytes)?;
        if version > u64::from(VERSION) {
            return Err(BundleError::NewerVersion(version));
        }
        if version != u64::from(VERSION) || bytes.len() > LONGEST {
            return Err(BundleError::NotABundle);
        }
        let text = unseal(bytes)?;
        let start = text.find("\n{").ok_or(BundleError::Edited)?;
        let data: Data = serde_json::from_str(&text[start..]).map_err(|_| BundleError::Edited)?;
        let der = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| BundleError::Edited);
        let key = Zeroizing::new(der(&data.key)?);
        let bundle = Self {
            holder: data.holder.clone(),
            trust_domain: data.trust_domain.clone(),
            masters: data.masters.clone(),
            authorities: data.authorities.iter().map(|text| der(text)).collect::<Result<_, _>>()?,
            certificate: der(&data.certificate)?,
            key: Key::from_pkcs8(&key).map_err(BundleError::Key)?,
        };
        // The lines for people must say what the data says, or comparing fingerprints would be for show.
        if bundle.encode()?.as_bytes() == bytes { Ok(bundle) } else { Err(BundleError::Edited) }
    }

    /// Checks that everything in the bundle belongs together and that it is good at `now`, and returns the certificate
    /// as read.
    ///
    /// # Errors
    ///
    /// [`BundleError`].
    pub fn check(&self, now: Timestamp) -> Result<Certificate, BundleError> {
        let certificate = Certificate::parse(&self.certificate).map_err(BundleError::Certificate)?;
        let authorities = Authorities::new(self.trust_domain.clone(), self.authorities.clone());
        if !authorities.map_err(BundleError::Authorities)?.signed(&self.certificate) {
            return Err(BundleError::WrongAuthority);
        }
        let says = self.holder.identity();
        if certificate.identity != says || certificate.trust_domain != self.trust_domain {
            return Err(BundleError::OtherIdentity { says, certificate: certificate.identity });
        }
        if &certificate.public_key != self.key.public() {
            return Err(BundleError::KeyDoesNotMatch);
        }
        if now > certificate.not_after {
            return Err(BundleError::Expired(certificate.not_after));
        }
        if now < certificate.not_before {
            return Err(BundleError::NotYetValid { not_before: certificate.not_before, now });
        }
        Ok(certificate)
    }

    /// A line break in a name would put words into the lines for people.
    fn check_values(&self) -> Result<(), BundleError> {
        let refused = |what, value: &str, wanted| Err(BundleError::Value { what, value: value.to_owned(), wanted });
        if let Holder::Host { name, .. } = &self.holder
            && !shown(name)
        {
            return refused("the host name", name, "letters, digits, `.`, `-` and `_`");
        }
        if self.masters.is_empty() || self.masters.len() > MOST_ADDRESSES {
            let count = self.masters.len().to_string();
            return refused("the number of master addresses", &count, "1 to 16");
        }
        for address in &self.masters {
            let port = address.rsplit_once(':').and_then(|(host, port)| {
                (!host.is_empty()).then_some(())?;
                port.parse::<u16>().ok().filter(|port| *port != 0)
            });
            if !shown(address) || port.is_none() {
                return refused("the master address", address, "HOST:PORT, such as `master.example.org:7443`");
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("holder", &self.holder)
            .field("trust_domain", &self.trust_domain)
            .field("masters", &self.masters)
            .field("certificate", &Fingerprint::of(&self.certificate))
            .finish_non_exhaustive()
    }
}

fn shown(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'%');
    !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(plain)
}

/// The version in the first line.
fn version(bytes: &[u8]) -> Result<u64, BundleError> {
    let Some(rest) = bytes.strip_prefix(MAGIC.as_bytes()) else {
        let cut_short = !bytes.is_empty() && MAGIC.as_bytes().starts_with(bytes);
        return Err(if cut_short { BundleError::Truncated } else { BundleError::NotABundle });
    };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() == rest.len() {
        return Err(BundleError::Truncated);
    }
    let digits = str::from_utf8(line).map_err(|_| BundleError::NotABundle)?;
    digits.parse().map_err(|_| BundleError::NotABundle)
}

/// The text above the checksum line, once that fits.
fn unseal(bytes: &[u8]) -> Result<&str, BundleError> {
    let whole = bytes.strip_suffix(b"\n").ok_or(BundleError::Truncated)?;
    let start = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (text, last) = bytes.split_at(start);
    let last = last.strip_suffix(b"\n").unwrap_or(last);
    let seal = last.strip_prefix(SEAL.as_bytes()).filter(|seal| seal.len() == 64).ok_or(BundleError::Truncated)?;
    if data_encoding::HEXLOWER.encode(&Sha256::digest(text)).as_bytes() != seal {
        return Err(BundleError::Edited);
    }
    str::from_utf8(text).map_err(|_| BundleError::Edited)
}
