//! The words of a commit: keys, revisions, guards, writes and the audit entry, and the limits they keep.

use std::{borrow::Borrow, collections::BTreeSet, fmt, sync::Arc};

pub use picket_proto::audit::{Audit, MOST_TEXT as AUDIT_MAX, Outcome};

/// A key is at most this long.
pub const KEY_MAX: usize = 512;
/// A value is shorter than this, and a commit has fewer writes than [`WRITES_MAX`]: what an etcd takes with its
/// defaults, so that a second engine can stand in.
pub const VALUE_MAX: usize = 1 << 20;
/// A commit has fewer writes, and fewer guards, than this.
pub const WRITES_MAX: usize = 128;
/// All of a commit together; bounds the one buffer a batch is written from.
pub const COMMIT_MAX: usize = 8 << 20;

/// Counts commits; the first one makes revision 1, an empty store is at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of the commit after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a value, such as `host/<uuid>`. Clones share one text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// Says why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is empty or too long.
    #[error("a key has {len} bytes, but 1 to {KEY_MAX} are possible")]
    Length {
        /// How many bytes it has.
        len: usize,
    },
    /// The text has a byte that does not print.
    #[error("the key {key:?} has a byte that is not printable ASCII")]
    Unprintable {
        /// The text.
        key: String,
    },
}

impl Key {
    /// Checks a key: printable ASCII, 1 to [`KEY_MAX`] bytes.
    ///
    /// # Errors
    /// When it is neither.
    pub fn new(key: impl AsRef<str>) -> Result<Self, KeyError> {
        let key = key.as_ref();
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(KeyError::Length { len: key.len() });
        }
        if !key.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
            return Err(KeyError::Unprintable { key: key.to_owned() });
        }
        Ok(Self(key.into()))
    }

    /// The text of the key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Key {
    type Err = KeyError;

    fn from_str(key: &str) -> Result<Self, KeyError> {
        Self::new(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A value as it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// Its bytes.
    pub value: Vec<u8>,
    /// The revision that wrote it last.
    pub revision: Revision,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{} ({} bytes)", self.key, self.revision, self.value.len())
    }
}

/// What must hold for a commit to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The key has no value.
    Absent(Key),
    /// The key was last written by this revision.
    At(Key, Revision),
}

impl Guard {
    /// The key that is looked at.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key) | Self::At(key, _) => key,
        }
    }

    /// Whether it holds for a key that was last written at `stands`, or has no value.
    #[must_use]
    pub fn holds(&self, stands: Option<Revision>) -> bool {
        match self {
            Self::Absent(_) => stands.is_none(),
            Self::At(_, at) => stands == Some(*at),
        }
    }
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// The key has this value from here on.
    Put(Key, Vec<u8>),
    /// The key has no value from here on. Deleting what is not there is fine.
    Delete(Key),
}

impl Write {
    /// The key that is changed.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

impl fmt::Debug for Write {
    /// Names key and length; a value may be nobody else's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, value) => write!(f, "Put({key:?}, {} bytes)", value.len()),
            Self::Delete(key) => write!(f, "Delete({key:?})"),
        }
    }
}

/// Writes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// All of these must hold.
    pub guards: Vec<Guard>,
    /// At most one for each key. None at all is fine: the audit entry alone.
    pub writes: Vec<Write>,
    /// What the journal says about it, under the same hash.
    pub audit: Audit,
}

/// Says which limit a commit does not keep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Too many writes or guards.
    #[error(
        "a commit has {count} {what}, but fewer than {WRITES_MAX} are possible; make it one record and a job"
    )]
    Many {
        /// Writes or guards.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// A value is too large.
    #[error("the value of {key} has {len} bytes, but fewer than {VALUE_MAX} are possible")]
    Value {
        /// Which.
        key: Key,
        /// Its length.
        len: usize,
    },
    /// A field of the audit entry is too large.
    #[error("a field of the audit entry has {len} bytes, but at most {AUDIT_MAX} are possible")]
    Audit {
        /// Its length.
        len: usize,
    },
    /// The commit as a whole is too large.
    #[error("a commit has {len} bytes, but at most {COMMIT_MAX} are possible")]
    Whole {
        /// Its length.
        len: usize,
    },
    /// One key is written twice, so that its value would depend on an order.
    #[error("a commit writes {key} twice")]
    Twice {
        /// Which.
        key: Key,
    },
}

impl Commit {
    /// Checks every limit that does not depend on the state.
    pub(super) fn check(&self) -> Result<(), LimitError> {
        for (what, count) in [("writes", self.writes.len()), ("guards", self.guards.len())] {
            if count >= WRITES_MAX {
                return Err(LimitError::Many { what, count });
            }
        }
        let mut len = 0;
        for field in self.audit.texts() {
            if field.len() > AUDIT_MAX {
                return Err(LimitError::Audit { len: field.len() });
            }
            len += field.len();
        }
        let mut seen = BTreeSet::new();
        for write in &self.writes {
            if !seen.insert(write.key()) {
                return Err(LimitError::Twice {
                    key: write.key().clone(),
                });
            }
            len += write.key().as_str().len();
            if let Write::Put(key, value) = write {
                if value.len() >= VALUE_MAX {
                    return Err(LimitError::Value {
                        key: key.clone(),
                        len: value.len(),
                    });
                }
                len += value.len();
            }
        }
        if len > COMMIT_MAX {
            Err(LimitError::Whole { len })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_printable_and_bounded() {
        assert!(Key::new("host/0f").is_ok());
        assert_eq!(Key::new("").unwrap_err(), KeyError::Length { len: 0 });
        assert!(Key::new("k".repeat(KEY_MAX)).is_ok());
        assert_eq!(
            Key::new("k".repeat(KEY_MAX + 1)).unwrap_err(),
            KeyError::Length { len: KEY_MAX + 1 }
        );
        for bad in ["a\nb", "a\0", "ä", "\x7f"] {
            assert!(
                matches!(Key::new(bad), Err(KeyError::Unprintable { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn debug_of_a_commit_tells_no_value() {
        let commit = Commit {
            writes: vec![Write::Put(Key::new("a").unwrap(), b"hush".to_vec())],
            ..Commit::default()
        };
        let text = format!("{commit:?}");
        assert!(text.contains("4 bytes"), "{text}");
        assert!(!text.contains("hush") && !text.contains("104, 117"), "{text}");
    }

    #[test]
    fn limits_are_kept_to_the_byte() {
        let put = |key: &str, len: usize| Write::Put(Key::new(key).unwrap(), vec![7; len]);
        let with = |writes| {
            Commit {
                writes,
                ..Commit::default()
            }
            .check()
        };
        assert_eq!(with(vec![put("a", VALUE_MAX - 1)]), Ok(()));
        assert!(matches!(
            with(vec![put("a", VALUE_MAX)]),
            Err(LimitError::Value { .. })
        ));
        assert!(matches!(
            with(vec![put("a", 1), put("a", 1)]),
            Err(LimitError::Twice { .. })
        ));
        let many = |count: usize| (0..count).map(|n| put(&format!("k{n}"), 1)).collect::<Vec<_>>();
        assert_eq!(with(many(WRITES_MAX - 1)), Ok(()));
        assert!(matches!(
            with(many(WRITES_MAX)),
            Err(LimitError::Many { what: "writes", .. })
        ));
        let big = (0..9).map(|n| put(&format!("k{n}"), VALUE_MAX - 1)).collect();
        assert!(matches!(with(big), Err(LimitError::Whole { .. })));
    }
}
