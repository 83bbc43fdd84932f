//! The key pair that signs a world. It has the shape of a node's keys and is no node's.

use std::{fmt, str::FromStr};

use zeroize::Zeroizing;

use crate::identity::{self, IdentityError, KEYS, SIGNATURE};

/// How long a public key is as text.
const PUBLIC_TEXT: usize = 2 * KEYS;

/// The public half, which a world file holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorldPublicKey([u8; KEYS]);

/// A key pair that signs worlds.
#[derive(Clone)]
pub struct WorldKey {
    public: WorldPublicKey,
    private: Zeroizing<[u8; KEYS]>,
}

/// Why a text is no key that signs worlds. What was given is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorldKeyError {
    /// The parts are not where they should be.
    #[error("it is not `<128 digits>:<128 digits>`, the public and the private key with digits 0-9 and a-f")]
    Parts,
    /// The private key is of another public one.
    #[error("its private key does not belong to its public key; it was put together from two, or is damaged")]
    Mismatch,
    /// The system has no random bytes.
    #[error("the system gave no random bytes for a key")]
    Random,
}

impl WorldPublicKey {
    pub(super) fn new(keys: [u8; KEYS]) -> Self {
        Self(keys)
    }

    pub(super) fn as_bytes(&self) -> &[u8; KEYS] {
        &self.0
    }

    /// Returns whether `signature` is one of this key over `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        identity::verify(&self.0, message, signature)
    }
}

impl WorldKey {
    /// Makes a key pair.
    ///
    /// # Errors
    /// [`WorldKeyError::Random`].
    pub fn generate() -> Result<Self, WorldKeyError> {
        let private = identity::random().map_err(|_| WorldKeyError::Random)?;
        Ok(Self {
            public: WorldPublicKey(identity::public_of(&private)),
            private,
        })
    }

    /// Returns the public half.
    #[must_use]
    pub fn public(&self) -> &WorldPublicKey {
        &self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE] {
        identity::sign(&self.private, &self.public.0, message)
    }

    /// Returns the text that [`Self::from_str`] reads, to be written for its owner alone.
    #[must_use]
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * PUBLIC_TEXT + 1));
        text.push_str(&self.public.to_string());
        text.push(':');
        for byte in self.private.iter() {
            identity::push_hex(&mut text, *byte);
        }
        text
    }
}

impl FromStr for WorldKey {
    type Err = WorldKeyError;

    fn from_str(text: &str) -> Result<Self, WorldKeyError> {
        let keys = |text| identity::keys(text, "key").map_err(|_: IdentityError| WorldKeyError::Parts);
        let (public, private) = text.split_once(':').ok_or(WorldKeyError::Parts)?;
        let (public, private) = (keys(public)?, Zeroizing::new(keys(private)?));
        if identity::public_of(&private) != public {
            return Err(WorldKeyError::Mismatch);
        }
        Ok(Self {
            public: WorldPublicKey(public),
            private,
        })
    }
}

impl fmt::Display for WorldPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for WorldPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for WorldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorldKey({}, …)", self.public)
    }
}
