//! Certificates as read: whom one speaks for, for what, and until when. Chains are checked elsewhere.

use jiff::Timestamp;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time};

use crate::{Fingerprint, Identity, IdentityError, PublicKey, TrustDomain, lifetime::Validity};

/// The longest certificate that is looked at. One of ours has about 700 bytes.
pub const LONGEST: usize = 16 * 1024;

/// Why a certificate is none of ours, before anybody asks who signed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is no X.509 certificate, has bytes behind it, or is too long.
    #[error("this is no certificate (X.509 in DER)")]
    Unreadable,
    /// It names no identity, or more than one.
    #[error("the certificate has {0} URI names; exactly one says whom it speaks for")]
    NotOneName(usize),
    /// Its one URI is no identity.
    #[error("the certificate names nobody we know")]
    Identity(#[source] IdentityError),
    /// Its key is of another kind.
    #[error("the certificate is for another kind of key; ours are ECDSA on P-256")]
    Key,
    /// It is a CA's certificate, or has no key usage of a client or of a server alone.
    #[error("the certificate may be used for something else than to be a client alone or a server alone")]
    Purpose,
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To be a server (`serverAuth`).
    Server,
    /// To be a client (`clientAuth`).
    Client,
}

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it speaks for.
    pub identity: Identity,
    /// In which trust domain.
    pub trust_domain: TrustDomain,
    /// What for.
    pub purpose: Purpose,
    /// From when.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// The key it is for.
    pub public_key: PublicKey,
    /// Which CA signed it, by what it says of itself: to be believed of a certificate that is pinned.
    pub issuer: Issuer,
}

/// A CA as the certificates it signed name it: SHA-256 of its distinguished name, which no two CAs of ours share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Issuer(pub Fingerprint);

impl Issuer {
    /// The CA whose certificate (DER) this is.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Unreadable`].
    pub fn of_authority(der: &[u8]) -> Result<Self, CertificateError> {
        Ok(Self(Fingerprint::of(read(der)?.subject().as_raw())))
    }
}

impl Certificate {
    /// Reads an end entity's certificate (DER).
    ///
    /// # Errors
    ///
    /// [`CertificateError`], for everything that is not as our CA writes it.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = read(der)?;
        let (trust_domain, identity) =
            Identity::parse_uri(only_uri(&certificate)?).map_err(CertificateError::Identity)?;
        let validity = validity(&certificate)?;
        Ok(Self {
            identity,
            trust_domain,
            purpose: purpose(&certificate)?,
            not_before: validity.not_before,
            not_after: validity.not_after,
            fingerprint: Fingerprint::of(der),
            public_key: PublicKey::from_spki(certificate.public_key().raw)
                .map_err(|_| CertificateError::Key)?,
            issuer: Issuer(Fingerprint::of(certificate.issuer().as_raw())),
        })
    }

    /// From when until when it holds.
    #[must_use]
    pub fn validity(&self) -> Validity {
        Validity {
            not_before: self.not_before,
            not_after: self.not_after,
        }
    }
}

pub(crate) fn read(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if der.len() > LONGEST {
        return Err(CertificateError::Unreadable);
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Unreadable)?;
    if rest.is_empty() {
        Ok(certificate)
    } else {
        Err(CertificateError::Unreadable)
    }
}

pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Result<Validity, CertificateError> {
    let time =
        |at: ASN1Time| Timestamp::from_second(at.timestamp()).map_err(|_| CertificateError::Unreadable);
    Ok(Validity {
        not_before: time(certificate.validity().not_before)?,
        not_after: time(certificate.validity().not_after)?,
    })
}

pub(crate) fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, CertificateError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateError::Unreadable)?;
    let mut uris = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| {
            if let GeneralName::URI(uri) = name {
                Some(*uri)
            } else {
                None
            }
        });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri),
        (None, _) => Err(CertificateError::NotOneName(0)),
        (Some(_), more) => Err(CertificateError::NotOneName(more + 1)),
    }
}

fn purpose(certificate: &X509Certificate<'_>) -> Result<Purpose, CertificateError> {
    let usage = certificate
        .extended_key_usage()
        .map_err(|_| CertificateError::Unreadable)?;
    let usage = usage.ok_or(CertificateError::Purpose)?.value;
    let other = usage.any
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || !usage.other.is_empty();
    let key_usage = certificate
        .key_usage()
        .map_err(|_| CertificateError::Unreadable)?;
    let signs =
        key_usage.is_some_and(|usage| usage.value.digital_signature() && !usage.value.key_cert_sign());
    match (usage.server_auth, usage.client_auth) {
        (true, false) if signs && !other && !certificate.is_ca() => Ok(Purpose::Server),
        (false, true) if signs && !other && !certificate.is_ca() => Ok(Purpose::Client),
        (true | false, true | false) => Err(CertificateError::Purpose),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    const URI: &str = "spiffe://example.org/master";

    #[test]
    fn a_certificate_as_we_write_them_is_read() {
        assert_eq!(parse(|_| ()).unwrap().identity, Identity::Master);
    }

    #[test]
    fn none_two_or_foreign_names_are_refused() {
        assert_eq!(
            parse(|it| it.subject_alt_names.clear()),
            Err(CertificateError::NotOneName(0))
        );
        let twice = parse(|it| {
            it.subject_alt_names
                .push(uri("spiffe://example.org/operator/ana"))
        });
        assert_eq!(twice, Err(CertificateError::NotOneName(2)));
        let foreign = parse(|it| it.subject_alt_names = vec![uri("https://example.org/master")]);
        assert!(
            matches!(foreign, Err(CertificateError::Identity(_))),
            "{foreign:?}"
        );
        let dns = parse(|it| it.subject_alt_names = vec![SanType::DnsName("master".try_into().unwrap())]);
        assert_eq!(dns, Err(CertificateError::NotOneName(0)));
    }

    #[test]
    fn a_purpose_that_is_missing_double_or_wide_is_refused() {
        use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
        for usages in [
            vec![],
            vec![ServerAuth, ClientAuth],
            vec![Any],
            vec![ClientAuth, CodeSigning],
        ] {
            let seen = parse(|it| it.extended_key_usages.clone_from(&usages));
            assert_eq!(seen, Err(CertificateError::Purpose), "{usages:?}");
        }
        assert_eq!(parse(|it| it.key_usages.clear()), Err(CertificateError::Purpose));
        assert_eq!(
            parse(|it| it.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            Err(CertificateError::Purpose)
        );
        assert_eq!(
            parse(|it| it.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
            Err(CertificateError::Purpose)
        );
    }

    #[test]
    fn bytes_behind_a_certificate_and_damage_are_refused() {
        let mut der = der(|_| ());
        for length in 0..der.len() {
            assert_eq!(
                Certificate::parse(&der[..length]),
                Err(CertificateError::Unreadable),
                "{length}"
            );
        }
        der.push(0);
        assert_eq!(Certificate::parse(&der), Err(CertificateError::Unreadable));
        assert_eq!(
            Certificate::parse(&vec![0x30; LONGEST + 1]),
            Err(CertificateError::Unreadable)
        );
    }

    fn parse(change: impl Fn(&mut CertificateParams)) -> Result<Certificate, CertificateError> {
        Certificate::parse(&der(change))
    }

    fn der(change: impl Fn(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri(URI)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }
}
