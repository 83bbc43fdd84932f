//! The identities of ZeroTier nodes: parsed strictly, checked, signed with, made.
//!
//! An identity is two key pairs, X25519 for what nodes send each other and Ed25519 for what they sign, and a node id
//! that follows from the public halves by a computation that takes a while: see `work`. A service checks neither that
//! the private half belongs to the public one nor that a text is nothing but an identity; this parser does.
//!
//! Private keys are wiped when they are dropped, and neither errors nor `Debug` show them.

mod work;

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    agreement::{self, X25519},
    rand,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use crate::ids::{IdError, NodeId};

/// The bytes of a signature: one of Ed25519, and the digest that it signs.
pub const SIGNATURE: usize = 96;
/// How long a public identity is as text.
pub const PUBLIC_TEXT: usize = 10 + 1 + 1 + 1 + 2 * KEYS;
/// How long a secret identity is as text.
pub const SECRET_TEXT: usize = PUBLIC_TEXT + 1 + 2 * KEYS;

/// The bytes of the two public keys, and of the two private ones.
pub(crate) const KEYS: usize = 64;
/// Where the Ed25519 half begins.
const ED: usize = 32;
/// The one kind of identity there is.
const KIND: &str = "0";

/// The public half of an identity: the node's id and its two public keys.
///
/// Whether the id belongs to the keys is not known until [`Self::check`] has said so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicIdentity {
    node: NodeId,
    keys: [u8; KEYS],
}

/// An identity with its private keys, which belong to the public ones.
#[derive(Clone)]
pub struct Identity {
    public: PublicIdentity,
    private: Zeroizing<[u8; KEYS]>,
}

/// Why something is no identity. What was given is not repeated: it may hold a private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text has another length.
    #[error("it has {found} characters; {kind} identity has {want}")]
    Length {
        /// How many it has.
        found: usize,
        /// How many it should have.
        want: usize,
        /// Which identity was wanted.
        kind: &'static str,
    },
    /// The parts are not where they should be.
    #[error(
        "its parts are not `<10 digits>:0:<128 digits>`, with `:<128 digits>` after it when it is a secret one"
    )]
    Parts,
    /// The node id is none.
    #[error("its node id is none")]
    Node(#[source] IdError),
    /// A key has a character that is none of 0-9 and a-f.
    #[error("its {part} contains something else than 0-9 and a-f")]
    Letter {
        /// The part.
        part: &'static str,
    },
    /// The private keys are of other public ones.
    #[error(
        "its private key does not belong to its public key; it was put together from two identities, or is damaged"
    )]
    Mismatch,
    /// The id does not follow from the keys.
    #[error("node id {0} does not belong to these keys: they make another id, or none")]
    Forged(NodeId),
    /// The system has no random bytes.
    #[error("the system gave no random bytes for a key")]
    Random,
}

impl PublicIdentity {
    /// Returns the node it names.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Checks that the node id belongs to the keys. Takes 2 MiB and some milliseconds: not for the threads of a runtime.
    ///
    /// # Errors
    /// [`IdentityError::Forged`].
    pub fn check(&self) -> Result<(), IdentityError> {
        if work::Memory::new().id_of(&self.keys) == Some(self.node) {
            Ok(())
        } else {
            Err(IdentityError::Forged(self.node))
        }
    }

    /// Returns whether `signature` is one of this identity over `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        verify(&self.keys, message, signature)
    }

    /// Puts an id and keys together, which may not belong to each other.
    pub(crate) fn from_parts(node: NodeId, keys: [u8; KEYS]) -> Self {
        Self { node, keys }
    }

    pub(crate) fn keys(&self) -> &[u8; KEYS] {
        &self.keys
    }
}

impl Identity {
    /// Makes an identity. Takes some hundred milliseconds: not for the threads of a runtime.
    ///
    /// # Errors
    /// [`IdentityError::Random`].
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self::grow(random()?))
    }

    /// Returns the public half.
    #[must_use]
    pub fn public(&self) -> &PublicIdentity {
        &self.public
    }

    /// Signs `message` as a node does.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE] {
        sign(&self.private, &self.public.keys, message)
    }

    /// Returns the text of a file `identity.secret`, to be written for its owner alone.
    #[must_use]
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(SECRET_TEXT));
        text.push_str(&self.public.to_string());
        text.push(':');
        for byte in self.private.iter() {
            push_hex(&mut text, *byte);
        }
        text
    }

    /// Makes the identity that is found first when the search begins at these private keys.
    pub(crate) fn grow(mut private: Zeroizing<[u8; KEYS]>) -> Self {
        let mut memory = work::Memory::new();
        let mut keys = [0; KEYS];
        keys[ED..].copy_from_slice(&ed25519(&private));
        loop {
            keys[..ED].copy_from_slice(&x25519(&private));
            if let Some(node) = memory.id_of(&keys) {
                return Self {
                    public: PublicIdentity { node, keys },
                    private,
                };
            }
            // Any other private key will do. The bits that X25519 sets by itself are not among these.
            let (_, counter) = private[..ED].split_at_mut(8);
            for byte in &mut counter[..8] {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
    }
}

/// Makes private keys.
pub(crate) fn random() -> Result<Zeroizing<[u8; KEYS]>, IdentityError> {
    let mut private = Zeroizing::new([0; KEYS]);
    rand::fill(private.as_mut_slice()).map_err(|_| IdentityError::Random)?;
    Ok(private)
}

/// The public keys of private ones.
pub(crate) fn public_of(private: &[u8; KEYS]) -> [u8; KEYS] {
    let mut public = [0; KEYS];
    public[..ED].copy_from_slice(&x25519(private));
    public[ED..].copy_from_slice(&ed25519(private));
    public
}

/// Signs with keys that were found to be a pair when they were read or made.
pub(crate) fn sign(private: &[u8; KEYS], public: &[u8; KEYS], message: &[u8]) -> [u8; SIGNATURE] {
    let pair =
        Ed25519KeyPair::from_seed_and_public_key(&private[ED..], &public[ED..]).expect("the keys are a pair");
    let digest = signed_part(message);
    let mut signature = [0; SIGNATURE];
    signature[..SIGNATURE - ED].copy_from_slice(pair.sign(&digest).as_ref());
    signature[SIGNATURE - ED..].copy_from_slice(&digest);
    signature
}

/// Returns whether `signature` is one of these public keys over `message`.
pub(crate) fn verify(public: &[u8; KEYS], message: &[u8], signature: &[u8]) -> bool {
    let Some((signed, digest)) = signature.split_at_checked(SIGNATURE - ED) else {
        return false;
    };
    digest == signed_part(message)
        && UnparsedPublicKey::new(&ED25519, &public[ED..])
            .verify(digest, signed)
            .is_ok()
}

/// What is signed of a message.
fn signed_part(message: &[u8]) -> [u8; ED] {
    let digest = Sha512::digest(message);
    let mut part = [0; ED];
    part.copy_from_slice(&digest[..ED]);
    part
}

/// The public X25519 key of private ones.
fn x25519(private: &[u8; KEYS]) -> [u8; ED] {
    let key = agreement::PrivateKey::from_private_key(&X25519, &private[..ED])
        .expect("any 32 bytes are a private key");
    let computed = key.compute_public_key().expect("a private key has a public one");
    let mut public = [0; ED];
    public.copy_from_slice(computed.as_ref());
    public
}

/// The public Ed25519 key of private ones.
fn ed25519(private: &[u8; KEYS]) -> [u8; ED] {
    let pair = Ed25519KeyPair::from_seed_unchecked(&private[ED..]).expect("any 32 bytes are a private key");
    let mut public = [0; ED];
    public.copy_from_slice(pair.public_key().as_ref());
    public
}

fn length(text: &str, want: usize, kind: &'static str) -> Result<(), IdentityError> {
    if text.len() == want {
        return Ok(());
    }
    Err(IdentityError::Length {
        found: text.chars().count(),
        want,
        kind,
    })
}

/// Reads two keys, in lower case and of that length alone.
pub(crate) fn keys(text: &str, part: &'static str) -> Result<[u8; KEYS], IdentityError> {
    let digit = |letter: u8| match letter {
        b'0'..=b'9' => Ok(letter - b'0'),
        b'a'..=b'f' => Ok(letter - b'a' + 10),
        _ => Err(IdentityError::Letter { part }),
    };
    let digits = text.as_bytes();
    if digits.len() != 2 * KEYS {
        return Err(IdentityError::Parts);
    }
    let mut keys = [0; KEYS];
    for (byte, pair) in keys.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(keys)
}

pub(crate) fn push_hex(text: &mut String, byte: u8) {
    for nibble in [byte >> 4, byte & 0xf] {
        text.extend(char::from_digit(u32::from(nibble), 16));
    }
}

impl FromStr for PublicIdentity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        length(text, PUBLIC_TEXT, "a public")?;
        let mut parts = text.split(':');
        let (Some(node), Some(KIND), Some(public), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::Parts);
        };
        if node.bytes().any(|letter| letter.is_ascii_uppercase()) {
            return Err(IdentityError::Letter { part: "node id" });
        }
        Ok(Self {
            node: node.parse().map_err(IdentityError::Node)?,
            keys: keys(public, "public key")?,
        })
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        length(text, SECRET_TEXT, "a secret")?;
        let (public, private) = text.rsplit_once(':').ok_or(IdentityError::Parts)?;
        let private = Zeroizing::new(keys(private, "private key")?);
        let public: PublicIdentity = public.parse()?;
        if public_of(&private) != public.keys {
            return Err(IdentityError::Mismatch);
        }
        Ok(Self { public, private })
    }
}

impl fmt::Display for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{KIND}:", self.node)?;
        self.keys.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, …)", self.public.node)
    }
}

impl Serialize for PublicIdentity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicIdentity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
