//! The moon that this host is the root of: its signing key, and the definition that others orbit.
//!
//! The key is of the moon alone and stays in the state directory. A definition that has been signed is kept beside it:
//! the same endpoints give the same bytes for ever, and others a later one signed with the same key.

use std::{collections::BTreeSet, io, net::SocketAddr, path::PathBuf};

use picket_durable::FileError;
use picket_zerotier::{
    identity::PublicIdentity,
    world::{MAX_BYTES, Root, World, WorldError, WorldId, WorldKey, WorldKeyError},
};
use zeroize::Zeroizing;

/// Longer than any key is as text.
const MOST_KEY: u64 = 1024;
/// A definition is no secret.
const PUBLIC: u32 = 0o644;

/// Where the key and the definition are.
#[derive(Debug, Clone)]
pub(crate) struct OwnMoon {
    pub(crate) key: PathBuf,
    pub(crate) definition: PathBuf,
}

/// Why there is no definition.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnMoonError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key that is there is none. Another one would make a moon that nobody who orbits this one accepts.
    #[error("{} holds no key of a moon; bring it back from a backup, or remove it and the file of the definition beside it, remove the moon with `picketctl moon remove` and create it again", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: WorldKeyError,
    },
    /// The definition cannot be made.
    #[error("sign the moon's definition")]
    World(#[from] WorldError),
}

impl OwnMoon {
    /// The definition of the moon whose root is `identity` at `endpoints`, signed when there is none that says the same.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// [`OwnMoonError`].
    pub(crate) fn define(
        &self,
        identity: PublicIdentity,
        endpoints: &BTreeSet<SocketAddr>,
        now: jiff::Timestamp,
    ) -> Result<World, OwnMoonError> {
        let roots = vec![Root {
            identity,
            endpoints: endpoints.iter().copied().collect(),
        }];
        let id = WorldId::Moon(identity.node());
        let key = self.key()?;
        let kept = self.kept()?.filter(|kept| kept.id() == id);
        let now = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let world = match kept {
            Some(kept) => {
                // The clock may have been ahead when the last one was signed.
                let later = now.max(kept.timestamp().saturating_add(1));
                let next = kept.update(later, roots, &key)?;
                if next.roots() == kept.roots() {
                    return Ok(kept);
                }
                next
            }
            None => World::make(id, now, roots, &key)?,
        };
        picket_durable::write(&self.definition, &world.to_bytes(), PUBLIC)?;
        Ok(world)
    }

    fn key(&self) -> Result<WorldKey, OwnMoonError> {
        let failed = |cause| OwnMoonError::Key {
            path: self.key.clone(),
            cause,
        };
        match picket_durable::read_private(&self.key, MOST_KEY) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(bytes);
                let text = std::str::from_utf8(&bytes).unwrap_or_default();
                text.trim_end().parse().map_err(failed)
            }
            Err(FileError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                let key = WorldKey::generate().map_err(failed)?;
                picket_durable::create_private(&self.key, key.to_secret_text().as_bytes())?;
                Ok(key)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The definition that was signed last; one that cannot be read is made again.
    fn kept(&self) -> Result<Option<World>, FileError> {
        match picket_durable::read_bounded(&self.definition, MAX_BYTES as u64) {
            Ok(bytes) => Ok(World::parse(&bytes).ok()),
            Err(FileError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use picket_zerotier::fake::Lab;

    use super::*;

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).unwrap()
    }

    fn endpoints(list: &[&str]) -> BTreeSet<SocketAddr> {
        list.iter().map(|one| one.parse().unwrap()).collect()
    }

    #[test]
    fn the_same_endpoints_give_the_same_bytes_for_ever_and_others_a_later_one_of_the_same_key() {
        let root = tempfile::tempdir().unwrap();
        let moon = OwnMoon {
            key: root.path().join("moon.key"),
            definition: root.path().join("moon.world"),
        };
        let lab = Lab::new();
        let node = lab.grow();
        let identity = *lab.secret(node).unwrap().public();
        let here = endpoints(&["192.0.2.1:9993", "[2001:db8::1]:9993"]);
        let first = moon.define(identity, &here, at(1000)).unwrap();
        first.check().unwrap();
        assert_eq!(first.id(), WorldId::Moon(node));
        let mode = std::fs::metadata(&moon.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = moon.define(identity, &here, at(2000)).unwrap();
        assert_eq!(again.to_bytes(), first.to_bytes());

        // The clock was set back meanwhile.
        let moved = moon
            .define(identity, &endpoints(&["192.0.2.2:9993"]), at(10))
            .unwrap();
        moved.check_update(&first).unwrap();
        assert_eq!(moved.updates(), first.updates());
    }

    #[test]
    fn a_damaged_key_is_not_replaced_and_the_message_says_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let moon = OwnMoon {
            key: root.path().join("moon.key"),
            definition: root.path().join("moon.world"),
        };
        picket_durable::write_private(&moon.key, b"nonsense").unwrap();
        let lab = Lab::new();
        let identity = *lab.secret(lab.grow()).unwrap().public();
        let error = moon
            .define(identity, &endpoints(&["192.0.2.1:9993"]), at(1))
            .unwrap_err();
        assert!(error.to_string().contains("picketctl moon remove"), "{error}");
        assert_eq!(std::fs::read(&moon.key).unwrap(), b"nonsense");
    }
}
