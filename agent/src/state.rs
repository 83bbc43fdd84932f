//! The state directory: what an agent keeps across restarts, and the lock that keeps two agents out of one directory.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use picket_durable::FileError;
use rustix::fs::{Access, FlockOperation, access};

const LOCK: &str = "lock";

/// A state directory that this process alone uses.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Held for the lock on it, which the system lets go when the process ends, however it ends.
    _lock: File,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made or is open to others.
    #[error(transparent)]
    Directory(#[from] FileError),
    /// It cannot be written.
    #[error("the state directory {} cannot be written by this user; run as the user that owns it, or give that user the directory with `chown`", path.display())]
    Forbidden {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The lock file cannot be opened.
    #[error("open the lock in {}; the state directory must belong to the user of this process", path.display())]
    Lock {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Another process has it.
    #[error("another picket-agent uses {}; stop it first (`systemctl stop picket-agent`) or set another state_dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

impl StateDir {
    /// Takes the directory, and makes it when it is not there.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        picket_durable::create_private_dir(path)?;
        // A lock from before can be taken in a directory in which nothing can be made any more.
        access(path, Access::WRITE_OK).map_err(|errno| StateError::Forbidden {
            path: path.to_owned(),
            cause: errno.into(),
        })?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(|cause| StateError::Lock {
                path: path.to_owned(),
                cause,
            })?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StateError::InUse {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: file,
        })
    }

    /// Whether some process has the directory at present. It is not taken, and not made.
    #[must_use]
    pub fn is_used(path: &Path) -> bool {
        let Ok(file) = File::open(path.join(LOCK)) else {
            return false;
        };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// Where keys and certificates are.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.path.join("identity")
    }

    /// Where the last desired documents are.
    #[must_use]
    pub fn desired(&self) -> PathBuf {
        self.path.join("desired")
    }

    /// The list of networks that this agent has joined.
    #[must_use]
    pub fn managed(&self) -> PathBuf {
        managed_file(&self.path)
    }

    /// The list of moons that this agent told the node to orbit.
    #[must_use]
    pub fn moons(&self) -> PathBuf {
        self.path.join("moons.json")
    }

    /// The key that signs the moon this host is the root of.
    #[must_use]
    pub fn moon_key(&self) -> PathBuf {
        self.path.join("moon.key")
    }

    /// What it signed last.
    #[must_use]
    pub fn own_moon(&self) -> PathBuf {
        self.path.join("own.moon")
    }

    /// What the guard of the session's path remembers.
    #[must_use]
    pub fn guard(&self) -> PathBuf {
        guard_file(&self.path)
    }

    /// What is remembered of the controller.
    #[must_use]
    pub fn governed(&self) -> PathBuf {
        self.path.join("governed.json")
    }

    /// What is known of the master's time.
    #[must_use]
    pub fn time(&self) -> PathBuf {
        self.path.join("time.json")
    }

    /// What `picket-agent status` reads.
    #[must_use]
    pub fn status(&self) -> PathBuf {
        status_file(&self.path)
    }
}

/// The status file of the agent whose state directory is `path`.
#[must_use]
pub fn status_file(path: &Path) -> PathBuf {
    path.join("status.json")
}

/// What the guard of the agent whose state directory is `path` remembers.
#[must_use]
pub fn guard_file(path: &Path) -> PathBuf {
    path.join("guard.json")
}

/// The list of networks that the agent whose state directory is `path` has joined.
#[must_use]
pub fn managed_file(path: &Path) -> PathBuf {
    path.join("managed.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_cannot_have_one_state_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        assert!(!StateDir::is_used(&path));
        let first = StateDir::open(&path).unwrap();
        assert!(StateDir::is_used(&path));
        assert!(matches!(StateDir::open(&path), Err(StateError::InUse { .. })));
        drop(first);
        assert!(!StateDir::is_used(&path));
        StateDir::open(&path).unwrap();
    }
}
