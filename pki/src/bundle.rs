//! The bundle: the one file that an operator carries to a new worker, or keeps to be an operator.
//!
//! Text: lines for people first, then JSON, then a line with the SHA-256 of all before it, so that a file that was
//! cut off and one that was edited are told apart. The checksum finds accidents; what holds against an attacker is the
//! CA fingerprint that people compare, and the pin.

use std::fmt::{self, Write as _};

use data_encoding::BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    Authorities, AuthoritiesError, Certificate, CertificateError, Fingerprint, Identity, Key, KeyError,
    OperatorName, TrustDomain,
};

mod keyless;
mod node;
mod seal;

pub use keyless::{Carried, Keyless};
pub use node::NodeSecret;

/// The longest bundle that is read. One has about 4 KiB.
pub const LONGEST: usize = 64 * 1024;

/// The newest version of the format that this program reads.
pub const VERSION: u32 = 2;

/// The version of a bundle that carries a [`NodeSecret`]. Any other has the first, which older programs read.
const WITH_NODE: u32 = 2;

const PLAIN: u32 = 1;

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
    #[error(
        "the bundle has version {0} and this program reads up to {VERSION}; install the version of the master"
    )]
    NewerVersion(u64),
    /// It is for a machine that made its own key.
    #[error(
        "the bundle has no key: it is good on the machine alone that made the request for it (`picket-agent request`); enroll that one with it, or make a bundle with a key by `picketctl host bundle NAME`"
    )]
    NoKey,
    /// Its certificate has ended.
    #[error(
        "the bundle has expired at {0}; get a new one with `picketctl host bundle NAME` (an operator's: `picket-master admin-bundle`), or set this machine's clock if that is wrong"
    )]
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
    #[error(
        "the key in the bundle is not the one its certificate is for; get a new one with `picketctl host bundle NAME`"
    )]
    KeyDoesNotMatch,
    /// The certificate is of another CA than the one in the bundle.
    #[error(
        "the certificate in the bundle is not of the CA in the bundle; get a new one with `picketctl host bundle NAME`"
    )]
    WrongAuthority,
    /// The certificate speaks for somebody else than the bundle says.
    #[error(
        "the bundle says it is for {says}, and its certificate is for {certificate}; get a new one with `picketctl host bundle NAME`"
    )]
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
    #[error(
        "the CA certificates in the bundle are of no use; get a new one with `picketctl host bundle NAME`"
    )]
    Authorities(#[source] AuthoritiesError),
    /// The key cannot be read.
    #[error("the key in the bundle is of no use; get a new one with `picketctl host bundle NAME`")]
    Key(#[source] KeyError),
    /// What is to be, or is, carried as a ZeroTier identity is none.
    #[error(
        "the ZeroTier identity in the bundle is none; make another bundle, with `picketctl host bundle NAME`: the machine then makes an identity of its own"
    )]
    Node,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl Drop for Data {
    fn drop(&mut self) {
        self.key.zeroize();
        self.node.zeroize();
    }
}

/// What a bundle says beside its key.
struct Said<'a> {
    holder: &'a Holder,
    trust_domain: &'a TrustDomain,
    masters: &'a [String],
    authorities: &'a [Vec<u8>],
    certificate: &'a [u8],
}

impl Bundle {
    /// Writes the file's text. It is secret, and wiped when dropped.
    ///
    /// # Errors
    ///
    /// [`BundleError::Value`] for a name or address that cannot stand in a bundle, [`BundleError::Certificate`].
    pub fn encode(&self) -> Result<Zeroizing<String>, BundleError> {
        self.said().write(Some(&self.key), None)
    }

    /// Writes the text of a file that carries a node's identity beside all that. It stays secret after its use.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_with(&self, node: &NodeSecret) -> Result<Zeroizing<String>, BundleError> {
        self.said().write(Some(&self.key), Some(node))
    }

    fn said(&self) -> Said<'_> {
        Said {
            holder: &self.holder,
            trust_domain: &self.trust_domain,
            masters: &self.masters,
            authorities: &self.authorities,
            certificate: &self.certificate,
        }
    }

    /// Reads a bundle, and refuses one that is not byte for byte what [`Self::encode`] wrote. What it says is then still
    /// to be [checked](Self::check).
    ///
    /// # Errors
    ///
    /// [`BundleError`], [`BundleError::NoKey`] when it is for a machine that made its own.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        match Carried::parse(bytes)? {
            Carried::Whole(bundle) | Carried::WithNode(bundle, _) => Ok(bundle),
            Carried::Keyless(_) => Err(BundleError::NoKey),
        }
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
        if !authorities
            .map_err(BundleError::Authorities)?
            .signed(&self.certificate)
        {
            return Err(BundleError::WrongAuthority);
        }
        let says = self.holder.identity();
        if certificate.identity != says || certificate.trust_domain != self.trust_domain {
            return Err(BundleError::OtherIdentity {
                says,
                certificate: certificate.identity,
            });
        }
        if &certificate.public_key != self.key.public() {
            return Err(BundleError::KeyDoesNotMatch);
        }
        if now > certificate.not_after {
            return Err(BundleError::Expired(certificate.not_after));
        }
        if now < certificate.not_before {
            return Err(BundleError::NotYetValid {
                not_before: certificate.not_before,
                now,
            });
        }
        Ok(certificate)
    }
}

impl Said<'_> {
    fn write(&self, key: Option<&Key>, node: Option<&NodeSecret>) -> Result<Zeroizing<String>, BundleError> {
        self.check_values()?;
        let certificate = Certificate::parse(self.certificate).map_err(BundleError::Certificate)?;
        let data = Data {
            holder: self.holder.clone(),
            trust_domain: self.trust_domain.clone(),
            masters: self.masters.to_vec(),
            authorities: self.authorities.iter().map(|der| BASE64.encode(der)).collect(),
            certificate: BASE64.encode(self.certificate),
            key: key.map(|key| BASE64.encode(key.as_pkcs8())),
            node: node.map(|node| node.as_secret_text().to_owned()),
        };
        // A text that grows would leave copies of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(LONGEST));
        let mut json = Zeroizing::new(Vec::with_capacity(LONGEST));
        serde_json::to_writer_pretty(&mut *json, &data).expect("plain strings are written to memory");
        self.describe(&mut text, certificate.not_after, key.is_some(), node)
            .expect("a string takes all text");
        text.push_str(str::from_utf8(&json).expect("JSON is text"));
        text.push('\n');
        seal::close(&mut text);
        Ok(text)
    }

    fn describe(
        &self,
        text: &mut String,
        expires: Timestamp,
        has_key: bool,
        node: Option<&NodeSecret>,
    ) -> fmt::Result {
        let version = if node.is_some() { WITH_NODE } else { PLAIN };
        writeln!(text, "{}{version}", seal::MAGIC)?;
        text.push_str(if has_key {
            "# It holds a private key: keep it secret (chmod 600) and do not edit it.\n"
        } else {
            "# It holds no key: it is for the machine that made the request, and for no other. Do not edit it.\n"
        });
        match self.holder {
            Holder::Host { id, name } => writeln!(text, "# for host:      {name} ({id})")?,
            Holder::Operator { name } => writeln!(text, "# for operator:  {name}")?,
        }
        if let Some(node) = node {
            writeln!(
                text,
                "# ZeroTier node: {}, whose identity is in here and stays a secret: destroy every copy once it is used",
                node.node()
            )?;
        }
        writeln!(text, "# trust domain:  {}", self.trust_domain)?;
        writeln!(text, "# master:        {}", self.masters.join(", "))?;
        writeln!(text, "# expires:       {expires}")?;
        writeln!(
            text,
            "# CA fingerprint (SHA-256), to be compared with the one the master shows:"
        )?;
        for der in self.authorities {
            let grouped = Fingerprint::of(der).grouped();
            let (first, second) = grouped.split_at(grouped.len() / 2);
            writeln!(text, "#   {}", first.trim())?;
            writeln!(text, "#   {}", second.trim())?;
        }
        writeln!(text, "#")
    }

    /// A line break in a name would put words into the lines for people.
    fn check_values(&self) -> Result<(), BundleError> {
        let refused = |what, value: &str, wanted| {
            Err(BundleError::Value {
                what,
                value: value.to_owned(),
                wanted,
            })
        };
        if let Holder::Host { name, .. } = self.holder
            && !shown(name)
        {
            return refused("the host name", name, "letters, digits, `.`, `-` and `_`");
        }
        if self.masters.is_empty() || self.masters.len() > MOST_ADDRESSES {
            let count = self.masters.len().to_string();
            return refused("the number of master addresses", &count, "1 to 16");
        }
        for address in self.masters {
            let port = address.rsplit_once(':').and_then(|(host, port)| {
                let bracketed = host.starts_with('[') && host.ends_with(']');
                (!host.is_empty() && (bracketed || !host.contains(':'))).then_some(())?;
                port.parse::<u16>().ok().filter(|port| *port != 0)
            });
            if !shown(address) || port.is_none() {
                return refused(
                    "the master address",
                    address,
                    "HOST:PORT, such as `master.example.org:7443`",
                );
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
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'%');
    !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{Authority, lifetime};

    #[test]
    fn a_bundle_reads_back_as_it_was_written() {
        let bundle = bundle();
        let text = bundle.encode().unwrap();
        let back = Bundle::parse(text.as_bytes()).unwrap();
        assert_eq!(back.encode().unwrap(), text);
        assert_eq!((&back.holder, &back.masters), (&bundle.holder, &bundle.masters));
        let certificate = back.check(now()).unwrap();
        assert_eq!(certificate.identity, bundle.holder.identity());
    }

    #[test]
    fn an_operators_bundle_reads_back_too() {
        let bundle = operators();
        let back = Bundle::parse(bundle.encode().unwrap().as_bytes()).unwrap();
        assert_eq!(
            back.check(now()).unwrap().identity,
            Identity::Operator("ana".parse().unwrap())
        );
    }

    #[test]
    fn the_first_lines_tell_a_person_what_it_is_for_whom_and_whose() {
        let text = bundle().encode().unwrap();
        let lines: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let head = lines.join("\n");
        let id = Uuid::from_u128(7);
        for wanted in [
            "picket bundle, version 1",
            "edge-07",
            &id.to_string(),
            "example.org",
            "2026-01-04T00:00:00Z",
        ] {
            assert!(head.contains(wanted), "{wanted} is not in\n{head}");
        }
        let digits = head.replace(['\n', ' ', '#'], "");
        assert!(
            digits.contains(&Fingerprint::of(&bundle().authorities[0]).to_string()),
            "{head}"
        );
    }

    #[test]
    fn a_bundle_cut_off_at_any_length_is_never_accepted() {
        let text = bundle().encode().unwrap();
        for length in 1..text.len() {
            let error = Bundle::parse(&text.as_bytes()[..length]).unwrap_err();
            assert!(matches!(error, BundleError::Truncated), "{length}: {error}");
        }
        assert!(matches!(Bundle::parse(b"").unwrap_err(), BundleError::NotABundle));
    }

    #[test]
    fn a_bundle_with_any_byte_changed_is_never_accepted() {
        let text = bundle().encode().unwrap();
        for at in 0..text.len() {
            for bits in [0x01, 0x20, 0x80] {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] ^= bits;
                assert!(
                    Bundle::parse(&bytes).is_err(),
                    "byte {at} with {bits:#x} changed was accepted"
                );
            }
        }
    }

    #[test]
    fn a_changed_byte_in_the_middle_is_called_an_edit() {
        let text = bundle().encode().unwrap().replace("edge-07", "edge-08");
        assert!(matches!(
            Bundle::parse(text.as_bytes()).unwrap_err(),
            BundleError::Edited
        ));
    }

    #[test]
    fn lines_for_people_that_differ_from_the_data_are_refused_even_under_a_right_checksum() {
        let text = bundle().encode().unwrap();
        let body = text[..text.rfind("sha256 ").unwrap()]
            .replace("# for host:      edge-07", "# for host:      edge-99");
        let mut forged = body;
        seal::close(&mut forged);
        assert!(matches!(
            Bundle::parse(forged.as_bytes()).unwrap_err(),
            BundleError::Edited
        ));
    }

    #[test]
    fn a_newer_version_and_another_file_are_told_apart() {
        let text = bundle().encode().unwrap().replace("version 1\n", "version 3\n");
        assert!(matches!(
            Bundle::parse(text.as_bytes()).unwrap_err(),
            BundleError::NewerVersion(3)
        ));
        assert!(matches!(
            Bundle::parse(b"[Unit]\n").unwrap_err(),
            BundleError::NotABundle
        ));
        assert!(matches!(
            Bundle::parse(&[0xff; 4096]).unwrap_err(),
            BundleError::NotABundle
        ));
    }

    #[test]
    fn an_expired_bundle_says_when_and_an_early_one_blames_the_clock() {
        let bundle = bundle();
        let end = now() + lifetime::BUNDLE;
        assert!(bundle.check(end).is_ok());
        let late = bundle.check(end + SignedDuration::from_secs(1)).unwrap_err();
        assert!(matches!(late, BundleError::Expired(at) if at == end), "{late}");
        let early = bundle.check(now() - SignedDuration::from_mins(6)).unwrap_err();
        assert!(matches!(early, BundleError::NotYetValid { .. }), "{early}");
    }

    #[test]
    fn a_key_a_ca_and_a_holder_that_do_not_belong_together_are_each_named() {
        let mut other_key = bundle();
        other_key.key = Key::generate().unwrap();
        assert!(matches!(
            other_key.check(now()).unwrap_err(),
            BundleError::KeyDoesNotMatch
        ));

        let mut other_ca = bundle();
        let stranger = Authority::create(&other_ca.trust_domain, now()).unwrap();
        other_ca.authorities = vec![stranger.certificate().to_vec()];
        assert!(matches!(
            other_ca.check(now()).unwrap_err(),
            BundleError::WrongAuthority
        ));

        let mut other_holder = bundle();
        other_holder.holder = Holder::Host {
            id: Uuid::from_u128(8),
            name: "edge-07".into(),
        };
        assert!(matches!(
            other_holder.check(now()).unwrap_err(),
            BundleError::OtherIdentity { .. }
        ));
    }

    #[test]
    fn a_name_or_an_address_that_would_write_its_own_lines_is_refused() {
        let mut named = bundle();
        named.holder = Holder::Host {
            id: Uuid::from_u128(7),
            name: "a\n# CA".into(),
        };
        assert!(matches!(
            named.encode().unwrap_err(),
            BundleError::Value {
                what: "the host name",
                ..
            }
        ));
        for address in [
            "",
            "master",
            "master:0",
            ":7443",
            "a b:7443",
            "master:99999",
            "2001:db8::1:7443",
        ] {
            let mut placed = bundle();
            placed.masters = vec![address.into()];
            assert!(
                matches!(placed.encode().unwrap_err(), BundleError::Value { .. }),
                "{address:?}"
            );
        }
    }

    #[test]
    fn a_bundle_shows_no_key_when_it_is_printed() {
        let bundle = bundle();
        let shown = format!("{bundle:?}{:?}", bundle.key);
        assert!(!shown.contains(&BASE64.encode(bundle.key.as_pkcs8())));
        assert!(!shown.contains(&format!("{:?}", bundle.key.as_pkcs8())));
        assert!(shown.contains("edge-07"));
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    pub(super) fn bundle() -> Bundle {
        sealed(Holder::Host {
            id: Uuid::from_u128(7),
            name: "edge-07".into(),
        })
    }

    fn operators() -> Bundle {
        sealed(Holder::Operator {
            name: "ana".parse().unwrap(),
        })
    }

    fn sealed(holder: Holder) -> Bundle {
        let trust_domain: TrustDomain = "example.org".parse().unwrap();
        let authority = authority(&trust_domain);
        let key = Key::generate().unwrap();
        let issued = authority
            .issue(key.public(), &holder.identity(), lifetime::BUNDLE, now())
            .unwrap();
        let masters = vec!["master.example.org:7443".into(), "[2001:db8::1]:7443".into()];
        let authorities = vec![authority.certificate().to_vec()];
        Bundle {
            holder,
            trust_domain,
            masters,
            authorities,
            certificate: issued.der,
            key,
        }
    }

    /// One CA for all tests, so that bundles of one domain have one.
    fn authority(domain: &TrustDomain) -> &'static Authority {
        static ONE: std::sync::OnceLock<Authority> = std::sync::OnceLock::new();
        ONE.get_or_init(|| Authority::create(domain, now()).unwrap())
    }
}
