//! Where a secret is read from: a file of its owner's, or a credential of the service manager's.

use std::path::{Path, PathBuf};

use crate::{FileError, read_bounded, read_private};

/// A file with a secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFile {
    /// A file that only its owner may read.
    Named(PathBuf),
    /// A credential that systemd hands to a service. Its directory is closed to others, and the mode of the file itself
    /// says nothing: the access list by which the service reads it shows there as a permission of the group.
    Credential(PathBuf),
}

impl SecretFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Named(path) | Self::Credential(path) => path,
        }
    }

    /// Reads it; at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// As [`read_private`]; a credential's mode is not looked at.
    pub fn read(&self, limit: u64) -> Result<Vec<u8>, FileError> {
        match self {
            Self::Named(path) => read_private(path, limit),
            Self::Credential(path) => read_bounded(path, limit),
        }
    }
}
