//! Certificate signing requests, of which only the proven public key counts.

use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::{KeyError, PublicKey};

/// The longest request that is looked at. One of ours has about 200 bytes; other tools add names and extensions.
pub const LONGEST: usize = 8 * 1024;

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// It is longer than any honest one.
    #[error("the certificate request has {0} bytes; at most {LONGEST} are read")]
    TooLong(usize),
    /// It is no request, or has bytes behind it.
    #[error("this is no certificate request (PKCS#10 in DER)")]
    Unreadable,
    /// The key in it is of another kind.
    #[error("the certificate request is for another kind of key; make it with ECDSA on P-256")]
    Key(#[source] KeyError),
    /// Whoever sent it does not show that it has the key.
    #[error("the certificate request is not signed by the key it names")]
    NotSigned,
}

/// A request whose sender has the private key.
#[derive(Debug, Clone)]
pub struct Csr {
    public_key: PublicKey,
}

impl Csr {
    /// Reads a request (DER) and checks that it is signed by its own key. Names and extensions in it are ignored.
    ///
    /// # Errors
    ///
    /// [`CsrError`].
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > LONGEST {
            return Err(CsrError::TooLong(der.len()));
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Unreadable)?;
        if !rest.is_empty() {
            return Err(CsrError::Unreadable);
        }
        let spki = request.certification_request_info.subject_pki.raw;
        let public_key = PublicKey::from_spki(spki).map_err(CsrError::Key)?;
        request.verify_signature().map_err(|_| CsrError::NotSigned)?;
        Ok(Self { public_key })
    }

    /// The key that the request is for.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}
