//! The lock on a data directory: one master at a time, and the kernel lets go of it when the process ends.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, FlockOperation, access, flock};

use super::file::{self, FileError};

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The pid means nothing from here on. The lock itself goes with the file.
        if let Err(error) = self.file.set_len(0) {
            tracing::debug!(%error, "a stale pid stays in the lock file");
        }
    }
}

/// Says why a data directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Someone else holds it.
    #[error(
        "the data directory {} is in use by another picket-master (pid {pid}); stop that one first, or choose \
         another --data-dir",
        dir.display()
    )]
    Held {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, as far as the lock file tells.
        pid: String,
    },
    /// The directory cannot be written.
    #[error(
        "the data directory {} cannot be written by this user; run as the user that owns it, or give that user the \
         directory with `chown`",
        dir.display()
    )]
    Forbidden {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        cause: FileError,
    },
    /// The lock file does not work.
    #[error("lock the data directory {}", dir.display())]
    File {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        cause: FileError,
    },
}

impl LockError {
    /// What it means for a data directory that one of its files does not work.
    pub(super) fn of(dir: &Path, cause: FileError) -> Self {
        let dir = dir.to_owned();
        if cause.forbidden() {
            Self::Forbidden { dir, cause }
        } else {
            Self::File { dir, cause }
        }
    }
}

impl Lock {
    /// Takes the lock of a data directory, without waiting.
    pub(super) fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join("master.lock");
        let trouble = |cause: FileError| LockError::of(dir, cause);
        // A lock file from before can be taken in a directory in which nothing can be made any more.
        access(dir, Access::WRITE_OK)
            .map_err(io::Error::from)
            .map_err(FileError::on("write in", dir))
            .map_err(trouble)?;
        let mut file = file::private()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(FileError::on("open", &path))
            .map_err(trouble)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held {
                    dir: dir.to_owned(),
                    pid: holder(&mut file),
                });
            }
            Err(errno) => return Err(trouble(FileError::on("lock", &path)(errno.into()))),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(FileError::on("write", &path))
            .map_err(trouble)?;
        Ok(Self { file })
    }
}

/// Who holds the lock of a data directory, if someone does. Changes nothing.
pub(super) fn held(dir: &Path) -> Result<Option<String>, FileError> {
    let path = dir.join("master.lock");
    let mut file = match File::open(&path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(FileError::on("open", &path))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(holder(&mut file))),
        Err(errno) => Err(FileError::on("look at the lock of", &path)(errno.into())),
    }
}

/// The pid the holder wrote, or a word for not knowing.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(16).read_to_string(&mut text) {
        Ok(_) if text.trim().parse::<u32>().is_ok() => text.trim().to_owned(),
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}
