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
        if !ends_as_written(
            der,
            request.certification_request_info.raw,
            &request.signature_value.data,
        ) {
            return Err(CsrError::Unreadable);
        }
        request.verify_signature().map_err(|_| CsrError::NotSigned)?;
        Ok(Self { public_key })
    }

    /// The key that the request is for.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

/// ecdsa-with-SHA256, without parameters (RFC 5758, section 3.2).
const ALGORITHM: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];

/// Whether what follows the signed part is this algorithm and this signature in their one spelling. The parser does not
/// look at the tags there, and a request that reads in two ways would have two meanings.
pub(crate) fn ends_as_written(der: &[u8], signed: &[u8], signature: &[u8]) -> bool {
    let Ok(length) = u8::try_from(signature.len() + 1) else {
        return false;
    };
    let end = [&ALGORITHM[..], &[0x03, length, 0x00], signature].concat();
    length < 0x80
        && der
            .strip_suffix(&end[..])
            .is_some_and(|rest| rest.ends_with(signed))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;
    use crate::Key;

    #[test]
    fn a_request_gives_the_key_it_was_made_with() {
        let key = Key::generate().unwrap();
        assert_eq!(
            Csr::parse(&key.csr().unwrap()).unwrap().public_key(),
            key.public()
        );
    }

    #[test]
    fn a_request_is_read_back_from_its_pem_and_nothing_else_is_taken_for_one() {
        let der = Key::generate().unwrap().csr().unwrap();
        let text = crate::pem::request_to_pem(&der);
        assert!(crate::pem::is_request(text.as_bytes()));
        assert_eq!(crate::pem::request_from_pem(text.as_bytes()), Some(der.clone()));
        assert_eq!(crate::pem::request_from_pem(&der), None);
        let certificate = crate::pem::certificate_to_pem(&der);
        assert!(!crate::pem::is_request(certificate.as_bytes()));
        assert_eq!(crate::pem::request_from_pem(certificate.as_bytes()), None);
    }

    #[test]
    fn names_and_extensions_that_a_request_asks_for_do_not_matter() {
        let key = Key::generate().unwrap();
        let mut params = CertificateParams::new(vec!["master.example.org".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
        let der = params.serialize_request(&key.pair()).unwrap().der().to_vec();
        assert_eq!(Csr::parse(&der).unwrap().public_key(), key.public());
    }

    #[test]
    fn a_request_with_any_byte_changed_is_refused() {
        let der = Key::generate().unwrap().csr().unwrap();
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 0x04;
            assert!(Csr::parse(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_request_for_another_kind_of_key_is_refused() {
        for kind in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let pair = KeyPair::generate_for(kind).unwrap();
            let der = CertificateParams::default()
                .serialize_request(&pair)
                .unwrap()
                .der()
                .to_vec();
            assert!(matches!(Csr::parse(&der).unwrap_err(), CsrError::Key(_)));
        }
    }

    #[test]
    fn a_request_that_is_too_long_or_has_something_behind_it_is_refused() {
        assert!(matches!(
            Csr::parse(&vec![0x30; LONGEST + 1]).unwrap_err(),
            CsrError::TooLong(_)
        ));
        let mut der = Key::generate().unwrap().csr().unwrap();
        der.push(0);
        assert!(matches!(Csr::parse(&der).unwrap_err(), CsrError::Unreadable));
    }
}
