//! What signs for a CA: a key in memory, or something elsewhere that has the key and gives signatures.
//!
//! Whatever it is, no signature of it is believed: each is checked against the CA's public key before anything that
//! carries it leaves this crate.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey, SubjectPublicKeyInfo};

use crate::{AuthorityError, Key, PublicKey};

/// Why something did not sign, in its own words.
pub type SignError = Box<dyn std::error::Error + Send + Sync>;

/// The private half of a CA, wherever it is: ECDSA on P-256 over SHA-256.
pub trait AuthorityKey: fmt::Debug + Send + Sync {
    /// The public half.
    fn public(&self) -> &PublicKey;

    /// Signs `message`; the signature is DER, as X.509 has it. It may take as long as a network does: whoever calls it
    /// keeps it off threads that others wait for.
    ///
    /// # Errors
    ///
    /// What kept it from signing, and what the operator can do.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

impl AuthorityKey for Key {
    fn public(&self) -> &PublicKey {
        Self::public(self)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(SigningKey::sign(&self.pair(), message)?)
    }
}

/// A key as the certificate library takes it, for one certificate: it keeps what went wrong in its own words.
pub(crate) struct Pen<'a> {
    key: &'a dyn AuthorityKey,
    info: SubjectPublicKeyInfo,
    fault: Mutex<Option<AuthorityError>>,
}

impl<'a> Pen<'a> {
    pub(crate) fn new(key: &'a dyn AuthorityKey) -> Self {
        Self {
            key,
            info: key.public().info(),
            fault: Mutex::default(),
        }
    }

    /// What the library made with this pen, or why the key made nothing.
    pub(crate) fn made<T>(&self, made: Result<T, rcgen::Error>) -> Result<T, AuthorityError> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        match fault {
            Some(fault) => Err(fault),
            None => made.map_err(AuthorityError::Sign),
        }
    }

    fn signed(&self, message: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        let signature = self.key.sign(message).map_err(AuthorityError::Unsigned)?;
        if self.key.public().verifies(message, &signature) {
            Ok(signature)
        } else {
            Err(AuthorityError::WrongSignature(self.key.public().fingerprint()))
        }
    }
}

impl PublicKeyData for Pen<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.info.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.info.algorithm()
    }
}

impl SigningKey for Pen<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signed(message).map_err(|fault| {
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            rcgen::Error::RemoteKeyError
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::{Authority, Identity, lifetime};

    /// A key that answers as it is told to.
    #[derive(Debug)]
    struct Odd {
        key: Key,
        answer: Answer,
    }

    #[derive(Debug, Clone, Copy)]
    enum Answer {
        Nothing,
        Nonsense,
        AnotherKeys,
        AnotherMessages,
    }

    impl AuthorityKey for Odd {
        fn public(&self) -> &PublicKey {
            self.key.public()
        }

        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
            match self.answer {
                Answer::Nothing => Err("the engine is asleep; wake it".into()),
                Answer::Nonsense => Ok(b"a signature".to_vec()),
                Answer::AnotherKeys => AuthorityKey::sign(&Key::generate()?, message),
                Answer::AnotherMessages => AuthorityKey::sign(&self.key, &message[1..]),
            }
        }
    }

    fn issued_by(answer: Answer) -> Result<(), AuthorityError> {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let key = Key::generate().unwrap();
        let authority =
            Authority::create_with(Arc::new(key.clone()), &"example.org".parse().unwrap(), now).unwrap();
        let odd = Authority::load_with(
            authority.certificate_pem().as_bytes(),
            Arc::new(Odd { key, answer }),
        )?;
        odd.issue(
            Key::generate()?.public(),
            &Identity::Master,
            lifetime::MASTER,
            now,
        )
        .map(drop)
    }

    #[test]
    fn a_signature_that_the_cas_public_key_does_not_accept_leaves_in_no_certificate() {
        for answer in [Answer::Nonsense, Answer::AnotherKeys, Answer::AnotherMessages] {
            let error = issued_by(answer).unwrap_err();
            assert!(
                matches!(error, AuthorityError::WrongSignature(_)),
                "{answer:?}: {error}"
            );
        }
    }

    #[test]
    fn what_kept_a_key_from_signing_is_told_in_its_own_words() {
        let error = issued_by(Answer::Nothing).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "the engine is asleep; wake it");
    }

    #[test]
    fn a_ca_is_not_made_with_a_key_that_does_not_sign() {
        let odd = Odd {
            key: Key::generate().unwrap(),
            answer: Answer::Nonsense,
        };
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let error = Authority::create_with(Arc::new(odd), &"example.org".parse().unwrap(), now).unwrap_err();
        assert!(matches!(error, AuthorityError::WrongSignature(_)), "{error}");
    }
}
