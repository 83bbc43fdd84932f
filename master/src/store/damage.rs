//! What is said when the store on disk is not what was written, and which command helps.

use std::{fmt, path::PathBuf};

use super::file::FileError;

/// A place in a file of the store that is not what was written there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The byte in it from which on it cannot be used.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// The data directory, for the command.
    pub data: PathBuf,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the store is damaged: {} at byte {}: {}; nothing was changed; run \
             `picket-master restore --data-dir {} --from SNAPSHOT` (without --from it keeps what comes before the damage)",
            self.file.display(),
            self.offset,
            self.what,
            self.data.display()
        )
    }
}

/// Says why a file of the store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not what was written.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// A newer program wrote it.
    #[error(
        "{} has format {found}, and this picket-master knows formats up to {known}; start the newer picket-master \
         that wrote it, or restore a snapshot taken before the upgrade",
        file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// The system does not let us.
    #[error(transparent)]
    File(#[from] FileError),
}
