//! Worlds: the files that name roots, which are nodes that introduce others and relay for them.
//!
//! A *planet* replaces the public roots, a *moon* adds to them. A world is signed, and the next one under its id must be
//! newer and signed by the key that this one names. That key is of the world alone and no node's.
//!
//! What is read is written again to the same bytes, or refused.

mod bytes;
mod key;

use std::net::SocketAddr;

use crate::{
    identity::{self, PublicIdentity, SIGNATURE},
    ids::NodeId,
};
use bytes::Reader;
pub use key::{WorldKey, WorldKeyError, WorldPublicKey};

/// The most roots of a world.
pub const MAX_ROOTS: usize = 4;
/// The most addresses of a root.
pub const MAX_ENDPOINTS: usize = 32;
/// The longest file: every root with every address.
pub const MAX_BYTES: usize = HEAD + SIGNATURE + 1 + MAX_ROOTS * (ROOT + MAX_ENDPOINTS * ENDPOINT) + END;

/// Kind, id, time and key.
const HEAD: usize = 1 + 8 + 8 + identity::KEYS;
/// An identity, its two empty fields, and the count of its addresses.
const ROOT: usize = 5 + 1 + identity::KEYS + 1 + 1;
/// An IPv6 address with its kind and port.
const ENDPOINT: usize = 1 + 16 + 2;
/// The length of a moon's attachments, of which there are none.
const END: usize = 2;
/// What surrounds that which is signed.
const SIGNED_BEFORE: [u8; 8] = [0x7f; 8];
const SIGNED_AFTER: [u8; 8] = [0xf7; 8];

/// Which world it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorldId {
    /// A planet, under a number that somebody chose.
    Planet(u64),
    /// A moon, under the id of one of its roots.
    Moon(NodeId),
}

/// A node that others are introduced by, and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The node.
    pub identity: PublicIdentity,
    /// Its stable addresses.
    pub endpoints: Vec<SocketAddr>,
}

/// A signed list of roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    id: WorldId,
    timestamp: u64,
    updates: WorldPublicKey,
    signature: [u8; SIGNATURE],
    roots: Vec<Root>,
}

/// Why something is no world, or not the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// It ends in the middle of something.
    #[error("it ends in the middle of its {0}; the file was cut off")]
    Short(&'static str),
    /// It goes on after its end.
    #[error("{0} bytes follow its end; the file was added to")]
    Long(usize),
    /// A field has a value that no world has.
    #[error("its {field} is {found}; {want}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it says.
        found: u64,
        /// What it may say.
        want: &'static str,
    },
    /// A root is nobody.
    #[error("root {0} is no node: {1}")]
    Root(usize, crate::ids::IdError),
    /// There are no roots, or too many of something.
    #[error("{found} {what}, and a world has 1 to {most}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// The most.
        most: usize,
    },
    /// The same root is named twice.
    #[error("root {0} is named twice")]
    Twice(NodeId),
    /// It was not signed by the key that signs for it.
    #[error("its signature is not of the key that signs for this world")]
    Signature,
    /// It is not a later one of the same world.
    #[error("it is no update: {0}")]
    NoUpdate(&'static str),
}

impl World {
    /// Makes and signs a world. It names `key` as the one that signs what replaces it.
    ///
    /// # Errors
    /// Fails when there are no roots, too many, one of them twice, or a root without addresses or with too many.
    pub fn make(
        id: WorldId,
        timestamp: u64,
        mut roots: Vec<Root>,
        key: &WorldKey,
    ) -> Result<Self, WorldError> {
        count("roots", roots.len(), MAX_ROOTS)?;
        for root in &mut roots {
            root.endpoints.sort_unstable();
            root.endpoints.dedup();
            count("addresses of a root", root.endpoints.len(), MAX_ENDPOINTS)?;
        }
        roots.sort_by_key(|root| root.identity);
        for pair in roots.windows(2) {
            if pair[0].identity.node() == pair[1].identity.node() {
                return Err(WorldError::Twice(pair[0].identity.node()));
            }
        }
        let mut world = Self {
            id,
            timestamp,
            updates: *key.public(),
            signature: [0; SIGNATURE],
            roots,
        };
        world.signature = key.sign(&world.signed());
        Ok(world)
    }

    /// Makes the world that replaces this one.
    ///
    /// # Errors
    /// [`WorldError::Signature`] when `key` does not sign for this world, [`WorldError::NoUpdate`] when the time is not
    /// later, and what [`Self::make`] fails for.
    pub fn update(&self, timestamp: u64, roots: Vec<Root>, key: &WorldKey) -> Result<Self, WorldError> {
        let next = Self::make(self.id, timestamp, roots, key)?;
        next.check_update(self)?;
        Ok(next)
    }

    /// Checks that a node that has `old` would replace it by this one.
    ///
    /// # Errors
    /// [`WorldError::Signature`] or [`WorldError::NoUpdate`].
    pub fn check_update(&self, old: &Self) -> Result<(), WorldError> {
        if self.id != old.id {
            return Err(WorldError::NoUpdate("it is another world"));
        }
        if self.timestamp <= old.timestamp {
            return Err(WorldError::NoUpdate("it is not newer"));
        }
        self.check_signature(&old.updates)
    }

    /// Checks that this is the first of its world, or one that did not change the key: signed by the key it names.
    ///
    /// # Errors
    /// [`WorldError::Signature`].
    pub fn check(&self) -> Result<(), WorldError> {
        self.check_signature(&self.updates)
    }

    fn check_signature(&self, key: &WorldPublicKey) -> Result<(), WorldError> {
        if key.verify(&self.signed(), &self.signature) {
            Ok(())
        } else {
            Err(WorldError::Signature)
        }
    }

    /// Returns which world it is.
    #[must_use]
    pub fn id(&self) -> WorldId {
        self.id
    }

    /// Returns when it was made, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Returns the key that signs what replaces it.
    #[must_use]
    pub fn updates(&self) -> &WorldPublicKey {
        &self.updates
    }

    /// Returns its roots.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Reads a file. Whether it is signed by whom it should be is for [`Self::check`] and [`Self::check_update`] to say.
    ///
    /// # Errors
    /// Fails for everything that [`Self::to_bytes`] does not write.
    pub fn parse(file: &[u8]) -> Result<Self, WorldError> {
        let mut reader = Reader(file);
        let kind = reader.byte("kind")?;
        let number = reader.number("id")?;
        let id = match kind {
            1 => WorldId::Planet(number),
            127 => WorldId::Moon(NodeId::new(number).map_err(|_| WorldError::Field {
                field: "id",
                found: number,
                want: "a moon has the id of a node",
            })?),
            _ => {
                return Err(WorldError::Field {
                    field: "kind",
                    found: kind.into(),
                    want: "a planet says 1 and a moon 127",
                });
            }
        };
        let timestamp = reader.number("time")?;
        let updates = WorldPublicKey::new(reader.array("key")?);
        let signature = reader.array("signature")?;
        let roots = usize::from(reader.byte("roots")?);
        count("roots", roots, MAX_ROOTS)?;
        let roots = (0..roots)
            .map(|index| reader.root(index))
            .collect::<Result<_, _>>()?;
        if matches!(id, WorldId::Moon(_)) {
            reader.nothing("attachments", "a moon has none", END)?;
        }
        if !reader.0.is_empty() {
            return Err(WorldError::Long(reader.0.len()));
        }
        Ok(Self {
            id,
            timestamp,
            updates,
            signature,
            roots,
        })
    }

    /// Returns the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = Vec::with_capacity(MAX_BYTES);
        self.write(&mut file, Some(&self.signature));
        file
    }

    /// Returns the name that a service looks for: `planet` in its home, a moon in its `moons.d`.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self.id {
            WorldId::Planet(_) => "planet".to_owned(),
            WorldId::Moon(node) => format!("{:016x}.moon", node.to_u64()),
        }
    }

    /// What is signed: everything but the signature.
    fn signed(&self) -> Vec<u8> {
        let mut signed = Vec::with_capacity(MAX_BYTES);
        signed.extend_from_slice(&SIGNED_BEFORE);
        self.write(&mut signed, None);
        signed.extend_from_slice(&SIGNED_AFTER);
        signed
    }

    fn write(&self, out: &mut Vec<u8>, signature: Option<&[u8; SIGNATURE]>) {
        let (kind, number) = match self.id {
            WorldId::Planet(number) => (1, number),
            WorldId::Moon(node) => (127, node.to_u64()),
        };
        out.push(kind);
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(self.updates.as_bytes());
        out.extend_from_slice(signature.map_or(&[], |signature| &signature[..]));
        out.extend(u8::try_from(self.roots.len()));
        for root in &self.roots {
            bytes::write_root(out, root);
        }
        if matches!(self.id, WorldId::Moon(_)) {
            out.extend_from_slice(&[0; END]);
        }
    }
}

fn count(what: &'static str, found: usize, most: usize) -> Result<(), WorldError> {
    if (1..=most).contains(&found) {
        Ok(())
    } else {
        Err(WorldError::Count { what, found, most })
    }
}

#[cfg(test)]
mod tests;
