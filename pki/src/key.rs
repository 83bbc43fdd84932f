//! Keys: ECDSA on P-256, made here, kept as PKCS#8, wiped when dropped and never printed.

use std::{fmt, sync::Arc};

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::{Zeroize, Zeroizing};

use crate::{Fingerprint, pem};

/// Why a key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The bytes are no PKCS#8 key on P-256.
    #[error(
        "this is no private key of ours (PKCS#8, ECDSA on P-256); restore the file or make a new identity"
    )]
    Unreadable,
    /// The public key is on another curve, or no key at all.
    #[error("this is no public key of ours (ECDSA on P-256)")]
    NotP256,
    /// The system gave no randomness, or the signature failed.
    #[error("the cryptographic library could not {0}")]
    Library(&'static str),
}

/// A private key. Clones share the one copy in memory.
#[derive(Clone)]
pub struct Key {
    pkcs8: Arc<Zeroizing<Vec<u8>>>,
    public: PublicKey,
}

impl Key {
    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// [`KeyError::Library`] when the system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| KeyError::Library("make a key"))?;
        Ok(Self::from_pair(pair))
    }

    /// Reads a key from PKCS#8 DER.
    ///
    /// # Errors
    ///
    /// [`KeyError::Unreadable`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Ok(Self::from_pair(pair(der)?))
    }

    /// Reads a key from a PEM block of PKCS#8.
    ///
    /// # Errors
    ///
    /// [`KeyError::Unreadable`].
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let mut der = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| KeyError::Unreadable)?;
        let key = Self::from_pkcs8(der.secret_pkcs8_der());
        der.zeroize();
        key
    }

    /// The key as a PEM block of PKCS#8, wiped when dropped.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// The key as PKCS#8 DER.
    #[must_use]
    pub fn as_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A certificate signing request (DER) that proves possession of this key and asks for nothing else: what goes
    /// into a certificate is the signer's decision.
    ///
    /// # Errors
    ///
    /// [`KeyError::Library`] when the signature fails.
    pub fn csr(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let failed = |_| KeyError::Library("sign a certificate request");
        Ok(params
            .serialize_request(&self.pair())
            .map_err(failed)?
            .der()
            .to_vec())
    }

    pub(crate) fn pair(&self) -> KeyPair {
        pair(&self.pkcs8).expect("these bytes were read as a key when this value was made")
    }

    pub(crate) fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
    }

    fn from_pair(mut pair: KeyPair) -> Self {
        let public = PublicKey {
            spki: pair.subject_public_key_info(),
        };
        let pkcs8 = Arc::new(Zeroizing::new(pair.serialized_der().to_vec()));
        pair.zeroize();
        Self { pkcs8, public }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.public.fingerprint())
    }
}

fn pair(der: &[u8]) -> Result<KeyPair, KeyError> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ECDSA_P256_SHA256)
        .map_err(|_| KeyError::Unreadable)
}

/// A public key on P-256.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    spki: Vec<u8>,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (DER).
    ///
    /// # Errors
    ///
    /// [`KeyError::NotP256`] for every other kind of key.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let info = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::NotP256)?;
        // 65 bytes, beginning with 4: an uncompressed point, the only spelling we write.
        let plain = info.der_bytes().len() == 65 && info.der_bytes().first() == Some(&4);
        if info.algorithm() != &PKCS_ECDSA_P256_SHA256 || !plain {
            return Err(KeyError::NotP256);
        }
        Ok(Self { spki: der.to_vec() })
    }

    /// Reads a SubjectPublicKeyInfo from a PEM block `PUBLIC KEY`.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotP256`] for every other kind of key, and for what is no such block.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        Self::from_spki(&pem::block("PUBLIC KEY", text).ok_or(KeyError::NotP256)?)
    }

    /// Whether `signature` (DER) over SHA-256 of `message` is this key's.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        webpki::aws_lc_rs::ECDSA_P256_SHA256
            .verify_signature(self.info().der_bytes(), message, signature)
            .is_ok()
    }

    /// The SubjectPublicKeyInfo (DER).
    #[must_use]
    pub fn as_spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the name of this key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.spki)
    }

    pub(crate) fn info(&self) -> SubjectPublicKeyInfo {
        SubjectPublicKeyInfo::from_der(&self.spki)
            .expect("these bytes were read as a key when this value was made")
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_text() {
        let key = Key::generate().unwrap();
        let back = Key::from_pem(key.to_pem().as_bytes()).unwrap();
        assert_eq!((back.public(), back.as_pkcs8()), (key.public(), key.as_pkcs8()));
        assert_eq!(
            PublicKey::from_spki(key.public().as_spki()).unwrap(),
            *key.public()
        );
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = Key::generate().unwrap();
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("Key({})", key.public().fingerprint()));
    }

    #[test]
    fn other_keys_and_damaged_ones_are_refused() {
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert!(matches!(
            Key::from_pkcs8(other.serialized_der()).unwrap_err(),
            KeyError::Unreadable
        ));
        let key = Key::generate().unwrap();
        for length in 0..key.as_pkcs8().len() {
            assert!(Key::from_pkcs8(&key.as_pkcs8()[..length]).is_err(), "{length}");
        }
        assert!(Key::from_pem(b"").is_err());
    }
}
