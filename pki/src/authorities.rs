//! The CAs that are trusted, exchangeable while connections go on, and the check of a chain.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{CertificateError, crypto::WebPkiSupportedAlgorithms};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

use crate::{AuthorityError, Certificate, Fingerprint, Root, TrustDomain};

/// How many CAs are trusted at once: the one in use, its successor and a few that are retired.
const MOST: usize = 16;

/// The CA certificates of one trust domain.
#[derive(Debug)]
pub struct Authorities {
    trust_domain: TrustDomain,
    roots: ArcSwap<Roots>,
}

#[derive(Debug)]
struct Roots {
    certificates: Vec<Vec<u8>>,
    anchors: Vec<TrustAnchor<'static>>,
}

/// Why certificates are not trusted as CAs.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// There is none.
    #[error("there is no CA certificate to trust")]
    None,
    /// There are more than anybody needs.
    #[error("there are {0} CA certificates; at most {MOST} are trusted")]
    TooMany(usize),
    /// One is no CA of ours.
    #[error("the certificate {0} is no CA to trust")]
    Unreadable(Fingerprint, #[source] AuthorityError),
    /// One is another trust domain's.
    #[error("the CA {ca} is of the trust domain {seen}, and this is {expected}")]
    OtherTrustDomain {
        /// The CA.
        ca: Fingerprint,
        /// Its trust domain.
        seen: TrustDomain,
        /// The trust domain here.
        expected: TrustDomain,
    },
}

impl Authorities {
    /// Trusts these CA certificates (DER), which are all of `trust_domain`.
    ///
    /// # Errors
    ///
    /// [`AuthoritiesError`].
    pub fn new(trust_domain: TrustDomain, certificates: Vec<Vec<u8>>) -> Result<Self, AuthoritiesError> {
        let roots = Roots::new(&trust_domain, certificates)?;
        Ok(Self {
            roots: ArcSwap::from_pointee(roots),
            trust_domain,
        })
    }

    /// Trusts these from the next handshake on, instead of those before.
    ///
    /// # Errors
    ///
    /// [`AuthoritiesError`]; then nothing changes.
    pub fn replace(&self, certificates: Vec<Vec<u8>>) -> Result<(), AuthoritiesError> {
        self.roots
            .store(Arc::new(Roots::new(&self.trust_domain, certificates)?));
        Ok(())
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The CA certificates (DER).
    #[must_use]
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        self.roots.load().certificates.clone()
    }

    /// Checks that one of these CAs signed `leaf`, and nothing else: neither purpose, nor name, nor whether its time
    /// has come or is over, which have reasons of their own.
    pub(crate) fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), CertificateError> {
        let entity = EndEntityCert::try_from(leaf).map_err(|_| CertificateError::BadEncoding)?;
        // The chain is checked at a time inside the leaf's own validity; a leaf never outlives its CA.
        let validity = crate::certificate::read(leaf)
            .and_then(|leaf| crate::certificate::validity(&leaf))
            .map_err(|_| CertificateError::BadEncoding)?;
        let time =
            u64::try_from(validity.not_after.as_second()).map_err(|_| CertificateError::BadEncoding)?;
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(time));
        let roots = self.roots.load();
        entity
            .verify_for_usage(
                algorithms.all,
                &roots.anchors,
                intermediates,
                time,
                AnyPurpose,
                None,
                None,
            )
            .map(drop)
            .map_err(|_| CertificateError::UnknownIssuer)
    }

    /// Whether one of these CAs itself signed this certificate (DER).
    #[must_use]
    pub fn signed(&self, leaf: &[u8]) -> bool {
        let algorithms = crate::tls::provider().signature_verification_algorithms;
        self.check_chain(&CertificateDer::from(leaf), &[], &algorithms)
            .is_ok()
    }

    /// Reads a certificate whose chain has been checked; one that is not as we write them names no role.
    pub(crate) fn read(leaf: &CertificateDer<'_>) -> Result<Certificate, CertificateError> {
        Certificate::parse(leaf).map_err(|cause| match cause {
            crate::CertificateError::Unreadable | crate::CertificateError::Key => {
                CertificateError::BadEncoding
            }
            crate::CertificateError::NotOneName(_)
            | crate::CertificateError::Identity(_)
            | crate::CertificateError::Purpose => CertificateError::InvalidPurpose,
        })
    }
}

impl Roots {
    fn new(domain: &TrustDomain, certificates: Vec<Vec<u8>>) -> Result<Self, AuthoritiesError> {
        if certificates.is_empty() {
            return Err(AuthoritiesError::None);
        }
        if certificates.len() > MOST {
            return Err(AuthoritiesError::TooMany(certificates.len()));
        }
        let mut anchors = Vec::with_capacity(certificates.len());
        for der in &certificates {
            let ca = Fingerprint::of(der);
            let root = Root::parse(der).map_err(|cause| AuthoritiesError::Unreadable(ca, cause))?;
            if &root.trust_domain != domain {
                let (seen, expected) = (root.trust_domain, domain.clone());
                return Err(AuthoritiesError::OtherTrustDomain { ca, seen, expected });
            }
            let der = CertificateDer::from(der.as_slice());
            let anchor = webpki::anchor_from_trusted_cert(&der)
                .map_err(|_| AuthoritiesError::Unreadable(ca, AuthorityError::NotAnAuthority))?;
            anchors.push(anchor.to_owned());
        }
        Ok(Self {
            certificates,
            anchors,
        })
    }
}

/// Purposes are checked after the chain, so that a stranger's certificate is a stranger's whatever it is for.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Identity, Key, lifetime};

    #[test]
    fn a_certificate_with_any_byte_changed_was_signed_by_nobody() {
        let authority = authority("example.org");
        let trust = Authorities::new(domain("example.org"), vec![authority.certificate().to_vec()]).unwrap();
        let der = authority
            .issue(key().public(), &Identity::Master, lifetime::MASTER, now())
            .unwrap()
            .der;
        assert!(trust.signed(&der));
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 0x01;
            assert!(!trust.signed(&changed), "byte {at}");
        }
    }

    #[test]
    fn replaced_cas_are_trusted_from_then_on_and_those_before_no_more() {
        let (one, two) = (authority("example.org"), authority("example.org"));
        let trust = Authorities::new(domain("example.org"), vec![one.certificate().to_vec()]).unwrap();
        let sign = |by: &Authority| {
            by.issue(key().public(), &Identity::Master, lifetime::MASTER, now())
                .unwrap()
                .der
        };
        let (old, new) = (sign(&one), sign(&two));
        assert!(trust.signed(&old) && !trust.signed(&new));
        trust.replace(vec![two.certificate().to_vec()]).unwrap();
        assert!(trust.signed(&new) && !trust.signed(&old));
        trust.replace(Vec::new()).unwrap_err();
        assert!(trust.signed(&new), "a refused replacement changes nothing");
    }

    #[test]
    fn what_is_no_ca_of_this_domain_is_not_trusted() {
        let (ours, theirs) = (authority("example.org"), authority("example.com"));
        let new = |certificates| Authorities::new(domain("example.org"), certificates).unwrap_err();
        assert!(matches!(new(vec![]), AuthoritiesError::None));
        assert!(matches!(
            new(vec![theirs.certificate().to_vec()]),
            AuthoritiesError::OtherTrustDomain { .. }
        ));
        let many = vec![ours.certificate().to_vec(); MOST + 1];
        assert!(matches!(new(many), AuthoritiesError::TooMany(_)));
        let leaf = ours
            .issue(key().public(), &Identity::Master, lifetime::MASTER, now())
            .unwrap()
            .der;
        assert!(matches!(new(vec![leaf]), AuthoritiesError::Unreadable(..)));
        assert!(matches!(
            new(vec![b"x".to_vec()]),
            AuthoritiesError::Unreadable(..)
        ));
    }

    fn authority(name: &str) -> Authority {
        Authority::create(&domain(name), now()).unwrap()
    }

    fn domain(name: &str) -> TrustDomain {
        name.parse().unwrap()
    }

    fn key() -> Key {
        Key::generate().unwrap()
    }

    fn now() -> jiff::Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }
}
