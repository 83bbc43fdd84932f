//! A signed head: the master's word for how far its journal had come, and with which hash.
//!
//! Whoever keeps one outside of the master finds out when the journal's tail was cut, or the history rewritten. It carries
//! the certificate it was signed under, so that the CA alone is needed to check it, also when that certificate has ended.

use std::{fmt, str::FromStr};

use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use rcgen::SigningKey as _;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::{Authorities, Identity, Key, KeyError, Purpose, TrustDomain, certificate};

/// The longest head that is read. One of ours has about 1,100 bytes.
pub const LONGEST: usize = 32 * 1024;

/// How far a journal had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Whose journal.
    pub trust_domain: TrustDomain,
    /// Which line of its history.
    pub lineage: [u8; 16],
    /// The revision of the last entry.
    pub revision: u64,
    /// Its hash, which stands for everything before it.
    pub hash: [u8; 32],
    /// When it was signed.
    pub time: Timestamp,
}

/// A head with the master's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    head: Head,
    signature: Vec<u8>,
    certificate: Vec<u8>,
}

/// Why a head proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The text is no head.
    #[error("this is no signed head of a journal")]
    Unreadable,
    /// Its certificate is not of this CA.
    #[error("the head is signed under a certificate of another CA")]
    OtherAuthority,
    /// Its certificate is not the master's.
    #[error("the head is signed by somebody who is not the master of {0}")]
    NotTheMaster(TrustDomain),
    /// It was signed outside of its certificate's time.
    #[error("the head says it was signed at {0}, when its certificate did not hold")]
    Time(Timestamp),
    /// The signature is not of these words.
    #[error("the head's signature does not fit it: it was changed, or never signed")]
    Signature,
}

impl SignedHead {
    /// Signs a head with the key of a master's certificate (DER).
    ///
    /// # Errors
    ///
    /// [`KeyError::Library`] when the signature fails.
    pub fn sign(head: Head, key: &Key, certificate: &[u8]) -> Result<Self, KeyError> {
        let signature = key
            .pair()
            .sign(&head.words())
            .map_err(|_| KeyError::Library("sign a head"))?;
        Ok(Self {
            head,
            signature,
            certificate: certificate.to_vec(),
        })
    }

    /// What it says, whoever said so.
    #[must_use]
    pub fn unchecked(&self) -> &Head {
        &self.head
    }

    /// What it says, when one of these CAs' masters said so.
    ///
    /// # Errors
    ///
    /// [`HeadError`].
    pub fn checked(&self, authorities: &Authorities) -> Result<&Head, HeadError> {
        if !authorities.signed(&self.certificate) {
            return Err(HeadError::OtherAuthority);
        }
        let domain = &self.head.trust_domain;
        let certificate =
            certificate::Certificate::parse(&self.certificate).map_err(|_| HeadError::Unreadable)?;
        let of_master = certificate.identity == Identity::Master && certificate.purpose == Purpose::Server;
        if !of_master || certificate.trust_domain != *domain || authorities.trust_domain() != domain {
            return Err(HeadError::NotTheMaster(authorities.trust_domain().clone()));
        }
        if self.head.time < certificate.not_before || self.head.time > certificate.not_after {
            return Err(HeadError::Time(self.head.time));
        }
        let der = CertificateDer::from(self.certificate.as_slice());
        let entity = EndEntityCert::try_from(&der).map_err(|_| HeadError::Unreadable)?;
        entity
            .verify_signature(
                webpki::aws_lc_rs::ECDSA_P256_SHA256,
                &self.head.words(),
                &self.signature,
            )
            .map_err(|_| HeadError::Signature)?;
        Ok(&self.head)
    }
}

impl Head {
    /// What is signed. Its first line keeps it apart from anything else a master signs.
    fn words(&self) -> Vec<u8> {
        format!("picket audit head 1\n{self}\n").into_bytes()
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "revision {} sha256 {} lineage {} of {} at {}",
            self.revision,
            HEXLOWER.encode(&self.hash),
            HEXLOWER.encode(&self.lineage),
            self.trust_domain,
            self.time
        )
    }
}

impl fmt::Display for SignedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} signed {} under {}",
            self.head,
            BASE64.encode(&self.signature),
            BASE64.encode(&self.certificate)
        )
    }
}

impl FromStr for SignedHead {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let read = || {
            let mut words = text.split(' ');
            let mut after = |name: &str| (words.next()? == name).then(|| words.next()).flatten();
            let head = Head {
                revision: after("revision")?.parse().ok()?,
                hash: hexadecimal(after("sha256")?)?,
                lineage: hexadecimal(after("lineage")?)?,
                trust_domain: after("of")?.parse().ok()?,
                time: after("at")?.parse().ok()?,
            };
            let (signature, certificate) = (after("signed")?, after("under")?);
            let decode = |text: &str| BASE64.decode(text.as_bytes()).ok();
            let signed = Self {
                head,
                signature: decode(signature)?,
                certificate: decode(certificate)?,
            };
            words.next().is_none().then_some(signed)
        };
        if text.len() > LONGEST {
            return Err(HeadError::Unreadable);
        }
        read().ok_or(HeadError::Unreadable)
    }
}

fn hexadecimal<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, OperatorName, lifetime};

    #[test]
    fn a_signed_head_reads_back_and_holds_under_its_ca_alone() {
        let authority = authority();
        let signed = signed(&authority, &Identity::Master);
        let back: SignedHead = signed.to_string().parse().unwrap();
        assert_eq!(back, signed);
        assert_eq!(back.checked(&trust(&authority)).unwrap().revision, 12);
        let other = Authority::create(&"example.org".parse().unwrap(), now()).unwrap();
        assert_eq!(back.checked(&trust(&other)), Err(HeadError::OtherAuthority));
    }

    #[test]
    fn a_head_with_any_word_changed_holds_no_more() {
        let authority = authority();
        let text = signed(&authority, &Identity::Master).to_string();
        for (was, is) in [
            ("revision 12", "revision 11"),
            ("sha256 07", "sha256 08"),
            ("lineage 03", "lineage 04"),
            ("at 2026-01-01", "at 2026-01-02"),
            ("of example.org", "of example.com"),
        ] {
            assert!(text.contains(was), "{text}");
            let changed: SignedHead = text.replacen(was, is, 1).parse().unwrap();
            assert!(changed.checked(&trust(&authority)).is_err(), "{is}");
        }
    }

    #[test]
    fn nobody_but_the_master_signs_heads_and_not_outside_of_its_certificates_time() {
        let authority = authority();
        let ada = Identity::Operator(OperatorName::from_str("ada").unwrap());
        assert!(matches!(
            signed(&authority, &ada).checked(&trust(&authority)),
            Err(HeadError::NotTheMaster(_))
        ));
        let (key, der) = certified(&authority, &Identity::Master);
        let late = Head {
            time: now() + lifetime::MASTER + jiff::SignedDuration::from_secs(1),
            ..head()
        };
        let late = SignedHead::sign(late, &key, &der).unwrap();
        assert!(matches!(
            late.checked(&trust(&authority)),
            Err(HeadError::Time(_))
        ));
    }

    #[test]
    fn what_is_no_head_is_unreadable() {
        let text = signed(&authority(), &Identity::Master).to_string();
        let long = "x".repeat(LONGEST + 1);
        for wrong in [
            "",
            "revision 12",
            &text[..text.len() - 3],
            &format!("{text} more"),
            &long,
        ] {
            assert_eq!(wrong.parse::<SignedHead>(), Err(HeadError::Unreadable), "{wrong}");
        }
    }

    fn signed(authority: &Authority, identity: &Identity) -> SignedHead {
        let (key, der) = certified(authority, identity);
        SignedHead::sign(head(), &key, &der).unwrap()
    }

    fn certified(authority: &Authority, identity: &Identity) -> (Key, Vec<u8>) {
        let key = Key::generate().unwrap();
        let issued = authority
            .issue(key.public(), identity, lifetime::MASTER, now())
            .unwrap();
        (key, issued.der)
    }

    fn head() -> Head {
        Head {
            trust_domain: "example.org".parse().unwrap(),
            lineage: [3; 16],
            revision: 12,
            hash: [7; 32],
            time: now(),
        }
    }

    fn authority() -> Authority {
        Authority::create(&"example.org".parse().unwrap(), now()).unwrap()
    }

    fn trust(authority: &Authority) -> Authorities {
        let certificates = vec![authority.certificate().to_vec()];
        Authorities::new("example.org".parse().unwrap(), certificates).unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }
}
