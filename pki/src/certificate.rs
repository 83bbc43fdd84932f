//! Certificates as read: whom one speaks for, for what, and until when. Chains are checked elsewhere.

use jiff::Timestamp;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::FromDer,
    time::ASN1Time,
};

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
            public_key: PublicKey::from_spki(certificate.public_key().raw).map_err(|_| CertificateError::Key)?,
        })
    }

    /// From when until when it holds.
    #[must_use]
    pub fn validity(&self) -> Validity {
        Validity { not_before: self.not_before, not_after: self.not_after }
    }
}

pub(crate) fn read(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if der.len() > LONGEST {
        return Err(CertificateError::Unreadable);
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Unreadable)?;
    if rest.is_empty() { Ok(certificate) } else { Err(CertificateError::Unreadable) }
}

pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Result<Validity, CertificateError> {
    let time = |at: ASN1Time| Timestamp::from_second(at.timestamp()).map_err(|_| CertificateError::Unreadable);
    Ok(Validity {
        not_before: time(certificate.validity().not_before)?,
        not_after: time(certificate.validity().not_after)?,
    })
}

pub(crate) fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, CertificateError> {
    let names = certificate.subject_alternative_name().map_err(|_| CertificateError::Unreadable)?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| {
        if let GeneralName::URI(uri) = name { Some(*uri) } else { None }
    });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri),
        (None, _) => Err(CertificateError::NotOneName(0)),
        (Some(_), more) => Err(CertificateError::NotOneName(more + 1)),
    }
}

fn purpose(certificate: &X509Certificate<'_>) -> Result<Purpose, CertificateError> {
    let usage = certificate.extended_key_usage().map_err(|_| CertificateError::Unreadable)?;
    let usage = usage.ok_or(CertificateError::Purpose)?.value;
    let other = usage.any
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || !usage.other.is_empty();
    let key_usage = certificate.key_usage().map_err(|_| CertificateError::Unreadable)?;
    let signs = key_usage.is_some_and(|usage| usage.value.digital_signature() && !usage.value.key_cert_sign());
    match (usage.server_auth, usage.client_auth) {
        (true, false) if signs && !other && !certificate.is_ca() => Ok(Purpose::Server),
        (false, true) if signs && !other && !certificate.is_ca() => Ok(Purpose::Client),
        (true | false, true | false) => Err(CertificateError::Purpose),
    }
}
