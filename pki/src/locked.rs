//! A private key under a passphrase: PKCS#8 `ENCRYPTED PRIVATE KEY` (PBES2), which `openssl pkey` reads too.
//!
//! The passphrase is stretched with scrypt. Its cost is as high as OpenSSL's own limit of 32 MiB lets others read it.

use std::fmt;

use pkcs8::{
    EncryptedPrivateKeyInfo,
    der::{Decode as _, Encode as _},
    pkcs5::{EncryptionScheme, pbes2, scrypt},
};
use rustls::crypto::aws_lc_rs;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{Key, KeyError, pem};

/// What the block is called.
const LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// The cost of scrypt: 2^14 blocks of 8, five times over; 16 MiB of memory.
const COST: (u8, u32, u32) = (14, 8, 5);
/// The most memory that reading a key may take; what we write takes 16 MiB.
const MOST_MEMORY: u64 = 1 << 30;
/// The longest passphrase.
const LONGEST: usize = 1024;
/// The shortest passphrase that a key is locked with.
const SHORTEST: usize = 12;

/// Why a key could not be locked or unlocked.
#[derive(Debug, thiserror::Error)]
pub enum LockedKeyError {
    /// The passphrase is not that of the key, or the file is damaged: nobody can tell which.
    #[error(
        "the passphrase does not open the key; give the one it was encrypted with, or restore the file if that is certain"
    )]
    WrongPassphrase,
    /// The text is no locked key.
    #[error("this is no encrypted private key (PKCS#8 with PBES2); restore the file from a backup")]
    Unreadable,
    /// The key is encrypted with something this program does not do.
    #[error(
        "the key is encrypted in a way that is not read here ({0}); rewrite it with `openssl pkcs8 -topk8 -scrypt`"
    )]
    Unsupported(String),
    /// The passphrase cannot be one.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// What was under it is no key of ours.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Why a text is no passphrase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// There is nothing.
    #[error("the passphrase is empty")]
    Empty,
    /// It has more than one line, or bytes that nobody can type.
    #[error("the passphrase must be one line of text without control characters")]
    NotOneLine,
    /// It is too long.
    #[error("the passphrase is longer than {LONGEST} bytes")]
    TooLong,
    /// It is too short to encrypt with.
    #[error(
        "the passphrase is shorter than {SHORTEST} characters; `openssl rand -base64 32` makes a good one"
    )]
    TooShort,
}

/// A passphrase: wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Reads a passphrase from the bytes of a file or variable; one line end after it does not belong to it.
    ///
    /// # Errors
    ///
    /// [`PassphraseError`], when it is empty, too long, or not one line of text.
    pub fn new(bytes: &[u8]) -> Result<Self, PassphraseError> {
        if bytes.len() > LONGEST {
            return Err(PassphraseError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| PassphraseError::NotOneLine)?;
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err(PassphraseError::Empty);
        }
        if line.contains(char::is_control) {
            return Err(PassphraseError::NotOneLine);
        }
        Ok(Self(Zeroizing::new(line.to_owned())))
    }

    /// Says whether it is long enough to encrypt with.
    ///
    /// # Errors
    ///
    /// [`PassphraseError::TooShort`].
    pub fn long_enough(&self) -> Result<(), PassphraseError> {
        if self.0.chars().count() < SHORTEST {
            return Err(PassphraseError::TooShort);
        }
        Ok(())
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

impl Key {
    /// The key as a PEM block under a passphrase.
    ///
    /// # Errors
    ///
    /// [`PassphraseError::TooShort`], and [`KeyError::Library`] when the system gives no randomness.
    pub fn to_locked_pem(&self, passphrase: &Passphrase) -> Result<Zeroizing<String>, LockedKeyError> {
        passphrase.long_enough()?;
        let failed = || KeyError::Library("encrypt a key");
        let mut random = [0; 32];
        aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut random)
            .map_err(|_| failed())?;
        let (salt, iv) = random.split_at(16);
        let (log_n, r, p) = COST;
        let cost = scrypt::Params::new(log_n, r, p, 32).map_err(|_| failed())?;
        let iv = iv.try_into().map_err(|_| failed())?;
        let parameters = pbes2::Parameters::scrypt_aes256cbc(cost, salt, iv).map_err(|_| failed())?;
        let encrypted = parameters
            .encrypt(passphrase.0.as_bytes(), self.as_pkcs8())
            .map_err(|_| failed())?;
        let block = EncryptedPrivateKeyInfo {
            encryption_algorithm: parameters.into(),
            encrypted_data: &encrypted,
        };
        Ok(pem::encode(LABEL, &block.to_der().map_err(|_| failed())?))
    }

    /// Reads a key from a PEM block under a passphrase.
    ///
    /// # Errors
    ///
    /// [`LockedKeyError`].
    pub fn from_locked_pem(text: &[u8], passphrase: &Passphrase) -> Result<Self, LockedKeyError> {
        let der = pem::block(LABEL, text).ok_or(LockedKeyError::Unreadable)?;
        let block = EncryptedPrivateKeyInfo::from_der(&der).map_err(|_| LockedKeyError::Unreadable)?;
        affordable(&block.encryption_algorithm)?;
        let mut plain = Zeroizing::new(block.encrypted_data.to_vec());
        let opened = block
            .encryption_algorithm
            .decrypt_in_place(passphrase.0.as_bytes(), &mut plain)
            .map_err(|error| {
                use pkcs8::pkcs5::Error::{DecryptFailed, EncryptFailed};
                // The library names both for a padding that is wrong.
                if matches!(error, DecryptFailed | EncryptFailed) {
                    LockedKeyError::WrongPassphrase
                } else {
                    LockedKeyError::Unsupported(error.to_string())
                }
            });
        // A wrong passphrase passes the padding check once in 256 times, and then there is no key in what comes out.
        let key = opened.and_then(|der| Self::from_pkcs8(der).map_err(|_| LockedKeyError::WrongPassphrase));
        plain.zeroize();
        key
    }

    /// Whether a text holds a key under a passphrase.
    #[must_use]
    pub fn is_locked(text: &[u8]) -> bool {
        pem::block(LABEL, text).is_some()
    }
}

/// A file that asks for more memory than any of ours is not tried.
fn affordable(scheme: &EncryptionScheme<'_>) -> Result<(), LockedKeyError> {
    let EncryptionScheme::Pbes2(parameters) = scheme else {
        return Err(LockedKeyError::Unsupported("PBES1".to_owned()));
    };
    if let pbes2::Kdf::Scrypt(scrypt) = &parameters.kdf {
        let memory = scrypt
            .cost_parameter
            .saturating_mul(u64::from(scrypt.block_size))
            .saturating_mul(128);
        if memory > MOST_MEMORY {
            return Err(LockedKeyError::Unsupported(format!(
                "scrypt with {memory} bytes of memory"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSPHRASE: &[u8] = b"correct horse battery staple\n";

    #[test]
    fn a_locked_key_opens_with_its_passphrase_and_with_no_other() {
        let key = Key::generate().unwrap();
        let passphrase = Passphrase::new(PASSPHRASE).unwrap();
        let text = key.to_locked_pem(&passphrase).unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
        assert!(Key::is_locked(text.as_bytes()) && !Key::is_locked(key.to_pem().as_bytes()));
        let back = Key::from_locked_pem(text.as_bytes(), &passphrase).unwrap();
        assert_eq!(back.as_pkcs8(), key.as_pkcs8());
        let other = Passphrase::new(b"correct horse battery stable").unwrap();
        let error = Key::from_locked_pem(text.as_bytes(), &other).unwrap_err();
        assert!(matches!(error, LockedKeyError::WrongPassphrase), "{error}");
        let again = key.to_locked_pem(&passphrase).unwrap();
        assert_ne!(*again, *text, "every encryption has a salt of its own");
    }

    #[test]
    fn a_damaged_or_plain_file_opens_with_no_passphrase() {
        let key = Key::generate().unwrap();
        let passphrase = Passphrase::new(PASSPHRASE).unwrap();
        let plain = Key::from_locked_pem(key.to_pem().as_bytes(), &passphrase).unwrap_err();
        assert!(matches!(plain, LockedKeyError::Unreadable), "{plain}");
        let text = key.to_locked_pem(&passphrase).unwrap();
        assert!(Key::from_locked_pem(&text.as_bytes()[..text.len() / 2], &passphrase).is_err());
    }

    #[test]
    fn a_file_that_asks_for_gigabytes_is_not_tried() {
        let parameters = pbes2::Parameters::scrypt_aes256cbc(
            scrypt::Params::new(24, 8, 1, 32).unwrap(),
            &[1; 16],
            &[2; 16],
        )
        .unwrap();
        let block = EncryptedPrivateKeyInfo {
            encryption_algorithm: parameters.into(),
            encrypted_data: &[0; 160],
        };
        let text = pem::encode(LABEL, &block.to_der().unwrap());
        let error = Key::from_locked_pem(text.as_bytes(), &Passphrase::new(PASSPHRASE).unwrap()).unwrap_err();
        assert!(matches!(error, LockedKeyError::Unsupported(_)), "{error}");
    }

    #[test]
    fn a_passphrase_is_one_line_and_is_never_printed() {
        let passphrase = Passphrase::new(PASSPHRASE).unwrap();
        assert_eq!(
            passphrase,
            Passphrase::new(b"correct horse battery staple").unwrap()
        );
        assert_eq!(format!("{passphrase:?}"), "Passphrase(..)");
        for (bytes, wanted) in [
            (&b""[..], PassphraseError::Empty),
            (b"\r\n", PassphraseError::Empty),
            (b"one\ntwo", PassphraseError::NotOneLine),
            (b"\xff\xfe", PassphraseError::NotOneLine),
            (&[b'a'; 1025], PassphraseError::TooLong),
        ] {
            assert_eq!(Passphrase::new(bytes).unwrap_err(), wanted);
        }
        let short = Passphrase::new(b"short").unwrap();
        let error = Key::generate().unwrap().to_locked_pem(&short).unwrap_err();
        assert!(
            matches!(error, LockedKeyError::Passphrase(PassphraseError::TooShort)),
            "{error}"
        );
    }
}
