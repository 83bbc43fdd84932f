//! Files of the store: private, replaced at once or not at all, and on the disk before anyone says so.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Something about a file did not work.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    cause: io::Error,
}

impl FileError {
    /// For `map_err`: names what was tried with which file.
    pub(super) fn on(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self {
            doing,
            path: path.to_owned(),
            cause,
        }
    }

    /// Whether this user may not do that.
    pub(super) fn forbidden(&self) -> bool {
        matches!(
            self.cause.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        )
    }
}

/// Options for a file that only its owner can read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Makes a directory, and those above it, that only its owner can enter. One that is there is left as it is.
pub(super) fn make_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FileError::on("make the directory", path))
}

/// Makes the names in a directory survive a power cut.
pub(super) fn sync_dir(path: &Path) -> Result<(), FileError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(FileError::on("flush the directory", path))
}

/// Writes a whole file beside its place, flushes it and moves it there: a reader sees all of it or none.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let beside = beside(path);
    let mut file = private()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&beside)
        .map_err(FileError::on("create", &beside))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(FileError::on("write", &beside))?;
    settle(&beside, path)
}

/// Where [`replace`] writes before it moves.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Moves a flushed file to its place, and makes that survive a power cut.
pub(super) fn settle(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::on("move a file into place at", to))?;
    sync_dir(parent(to))
}

/// Reads a whole small file; `None` when it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(FileError::on("read", path)(cause)),
    }
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(FileError::on("remove", path)(cause)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a directory with all that is in it, if it is there.
pub(super) fn remove_dir(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(FileError::on("remove", path)(cause)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The directory a path is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
