//! Files that survive a crash and that others cannot read.
//!
//! [`write()`] replaces a file whole or not at all, across power loss too. [`read_private`] refuses a secret that
//! somebody else on the machine could have read. This crate knows paths and bytes and nothing of what they mean.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

mod secret;

pub use secret::SecretFile;

/// The mode of a file that only its owner may read and write.
pub const PRIVATE: u32 = 0o600;

/// How many leftover temporary names are stepped over before a write gives up.
const ATTEMPTS: u32 = 64;

/// Why a file could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file could not be written; what is there is whole, the old bytes or the new.
    #[error("write {}; what is there is whole, the old bytes or the new, check free space and the owner of its directory", path.display())]
    Write {
        /// The file to be written.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The file could not be opened or read.
    #[error("read {}", path.display())]
    Read {
        /// The file to be read.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// This user may not look at it, which is not to say that it is not there.
    #[error("{}: permission denied; run as root, or as the user that owns it", path.display())]
    Denied {
        /// The path.
        path: PathBuf,
    },
    /// Somebody besides the owner may read or change the file.
    #[error(
        "{} can be read or changed by others (mode {mode:04o}); it holds a secret, run `chmod 600 {}` and, \
         if others use this machine, replace what is in it",
        path.display(), path.display()
    )]
    Exposed {
        /// The file that is open to others.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The path names something other than a plain file.
    #[error("{} is not a plain file", path.display())]
    NotAFile {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The file is longer than what it should hold ever is.
    #[error("{} is longer than {limit} bytes, which is not what belongs there", path.display())]
    TooLong {
        /// The file that is too long.
        path: PathBuf,
        /// The most bytes that are read.
        limit: u64,
    },
    /// A directory could not be made.
    #[error("make the directory {}", path.display())]
    Directory {
        /// The directory to be made.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A directory for secrets exists and others may look into it.
    #[error("{} is open to others (mode {mode:04o}); run `chmod 700 {}`", path.display(), path.display())]
    OpenDirectory {
        /// The directory that is open to others.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Replaces the file at `path` by `bytes`, with permission bits `mode`, so that after a crash at any moment there is
/// either the old file or the new one, whole.
///
/// The mode is set before the first byte is written, and does not depend on the umask. When this returns `Ok`, the
/// file and its name are on disk. A symbolic link at `path` is replaced, not followed.
///
/// # Errors
///
/// [`FileError::Write`]; no temporary file stays behind.
pub fn write(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let path = path.as_ref();
    replace(path, bytes, mode).map_err(|cause| FileError::Write {
        path: path.to_owned(),
        cause,
    })
}

/// Replaces the file at `path` by `bytes` as [`write()`] does, for its owner alone (0600).
///
/// # Errors
///
/// [`FileError::Write`].
pub fn write_private(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, PRIVATE)
}

/// Writes a new file as [`write()`] does, for its owner alone, and fails with [`io::ErrorKind::AlreadyExists`] as cause
/// when there is one of that name.
///
/// # Errors
///
/// [`FileError::Write`].
pub fn create_private(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), FileError> {
    let path = path.as_ref();
    create(path, bytes).map_err(|cause| FileError::Write {
        path: path.to_owned(),
        cause,
    })
}

/// Whose a file in somebody else's directory is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// Whoever owns what is at `path`.
    ///
    /// # Errors
    ///
    /// [`FileError::Denied`], [`FileError::Read`].
    pub fn of(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let about = fs::metadata(path).map_err(|cause| unreadable(path, cause))?;
        Ok(Self {
            user: about.uid(),
            group: about.gid(),
        })
    }

    /// Gives what is at `path` to this owner, which only root may do.
    ///
    /// # Errors
    ///
    /// [`FileError::Write`].
    pub fn take(self, path: impl AsRef<Path>) -> Result<(), FileError> {
        let path = path.as_ref();
        std::os::unix::fs::chown(path, Some(self.user), Some(self.group)).map_err(|cause| FileError::Write {
            path: path.to_owned(),
            cause,
        })
    }
}

/// Replaces the file at `path` as [`write()`] does, and gives it to `owner` before it takes the name.
///
/// # Errors
///
/// [`FileError::Write`], also when this user may not give it away.
pub fn write_for(owner: Owner, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let path = path.as_ref();
    let put = || {
        let temporary = Temporary::write(path, bytes, mode)?;
        temporary.give(owner)?;
        fs::rename(&temporary.path, path)?;
        temporary.keep();
        sync_parent(path)
    };
    put().map_err(|cause| FileError::Write {
        path: path.to_owned(),
        cause,
    })
}

/// Writes a new file as [`create_private`] does, with permission bits `mode`, and gives it to `owner` before it takes the
/// name. What is there is never replaced.
///
/// # Errors
///
/// [`FileError::Write`], with [`io::ErrorKind::AlreadyExists`] as cause when there is one of that name.
pub fn create_for(owner: Owner, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let path = path.as_ref();
    let put = || {
        let temporary = Temporary::write(path, bytes, mode)?;
        temporary.give(owner)?;
        temporary.link(path)
    };
    put().map_err(|cause| FileError::Write {
        path: path.to_owned(),
        cause,
    })
}

/// Reads a secret of at most `limit` bytes.
///
/// # Errors
///
/// [`FileError::Exposed`] when group or others have any permission on it, [`FileError::NotAFile`],
/// [`FileError::TooLong`], [`FileError::Read`].
pub fn read_private(path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>, FileError> {
    let path = path.as_ref();
    read(path, limit, |mode| {
        if mode & 0o077 == 0 {
            return Ok(());
        }
        Err(FileError::Exposed {
            path: path.to_owned(),
            mode,
        })
    })
}

/// Reads a file of at most `limit` bytes, whoever else may read it.
///
/// # Errors
///
/// [`FileError::NotAFile`], [`FileError::TooLong`], [`FileError::Read`].
pub fn read_bounded(path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>, FileError> {
    read(path.as_ref(), limit, |_| Ok(()))
}

fn read(
    path: &Path,
    limit: u64,
    check: impl FnOnce(u32) -> Result<(), FileError>,
) -> Result<Vec<u8>, FileError> {
    let failed = |cause| unreadable(path, cause);
    // Nonblocking, so that a named pipe at this path cannot hold us; permissions are those of the opened file, so
    // that nobody can exchange it between the check and the read.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(FileError::NotAFile {
            path: path.to_owned(),
        });
    }
    check(about.permissions().mode() & 0o7777)?;
    let mut bytes = Vec::new();
    (&mut file)
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(FileError::TooLong {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

/// Whether there is something at `path`. One that this user may not look for is not absent.
///
/// # Errors
///
/// [`FileError::Denied`], [`FileError::Read`].
pub fn is_there(path: impl AsRef<Path>) -> Result<bool, FileError> {
    let path = path.as_ref();
    path.try_exists().map_err(|cause| unreadable(path, cause))
}

fn unreadable(path: &Path, cause: io::Error) -> FileError {
    let path = path.to_owned();
    if cause.kind() == io::ErrorKind::PermissionDenied {
        FileError::Denied { path }
    } else {
        FileError::Read { path, cause }
    }
}

/// Makes a directory that only its owner may enter (0700), with the parents it needs. One that is there already
/// and is as private is fine.
///
/// # Errors
///
/// [`FileError::Directory`], or [`FileError::OpenDirectory`] when it is there and others may enter it.
pub fn create_private_dir(path: impl AsRef<Path>) -> Result<(), FileError> {
    let path = path.as_ref();
    let failed = |cause| FileError::Directory {
        path: path.to_owned(),
        cause,
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_parent(path).map_err(failed),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => check_private_dir(path),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(failed)?;
            }
            DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
            sync_parent(path).map_err(failed)
        }
        Err(cause) => Err(failed(cause)),
    }
}

fn check_private_dir(path: &Path) -> Result<(), FileError> {
    let failed = |cause| FileError::Directory {
        path: path.to_owned(),
        cause,
    };
    let about = fs::metadata(path).map_err(failed)?;
    if !about.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(FileError::OpenDirectory {
            path: path.to_owned(),
            mode,
        })
    }
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = Temporary::write(path, bytes, mode)?;
    fs::rename(&temporary.path, path)?;
    temporary.keep();
    sync_parent(path)
}

fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Temporary::write(path, bytes, PRIVATE)?.link(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// A file beside its target that is removed again unless it took the target's place.
struct Temporary {
    path: PathBuf,
    placed: bool,
}

impl Temporary {
    fn write(target: &Path, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut attempt = 0;
        let (mut file, temporary) = loop {
            let mut hidden = OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{attempt}", std::process::id()));
            let path = directory(target).join(hidden);
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(PRIVATE)
                .open(&path)
            {
                Ok(file) => break (file, Self { path, placed: false }),
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS => {
                    attempt += 1
                }
                Err(cause) => return Err(cause),
            }
        };
        // The umask may have taken bits away at creation.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temporary)
    }

    /// Gives the file away, which only root may do; one who owns it already needs not.
    fn give(&self, owner: Owner) -> io::Result<()> {
        let about = fs::metadata(&self.path)?;
        if (about.uid(), about.gid()) == (owner.user, owner.group) {
            return Ok(());
        }
        std::os::unix::fs::chown(&self.path, Some(owner.user), Some(owner.group))
    }

    /// Takes the name `path`. A hard link refuses to replace what is there, which a rename would do.
    fn link(self, path: &Path) -> io::Result<()> {
        rustix::fs::linkat(CWD, &self.path, CWD, path, AtFlags::empty())?;
        drop(self);
        sync_parent(path)
    }

    fn keep(mut self) {
        self.placed = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed {
            // Nothing more can be done about a temporary file that will not go; its name says what it is.
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_has_its_bytes_its_mode_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write(&path, b"first", 0o644).unwrap();
        assert_eq!(mode(&path), 0o644);
        write_private(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_no_temporary_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"old").unwrap();
        let error = write_private(&path, b"new").unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_leftover_temporary_file_does_not_stop_a_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(dir.path().join(format!(".key.{}-0", std::process::id())), b"torn").unwrap();
        write_private(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn a_new_secret_never_replaces_one_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle");
        create_private(&path, b"first").unwrap();
        let error = create_private(&path, b"second").unwrap_err();
        let FileError::Write { cause, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(cause.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_for_the_owner_of_a_directory_has_the_mode_that_was_asked_and_replaces_none_when_it_is_to_be_new()
     {
        let dir = tempfile::tempdir().unwrap();
        let (owner, path) = (Owner::of(dir.path()).unwrap(), dir.path().join("identity"));
        create_for(owner, &path, b"first", 0o644).unwrap();
        assert_eq!(Owner::of(&path).unwrap(), owner);
        assert_eq!(mode(&path), 0o644);
        assert!(create_for(owner, &path, b"second", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write_for(owner, &path, b"third", 0o640).unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), mode(&path)),
            (b"third".to_vec(), 0o640)
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_that_others_could_have_read_is_refused_with_the_command_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for open in [0o601, 0o604, 0o620, 0o640, 0o644, 0o610, 0o602] {
            write(&path, b"secret", open).unwrap();
            let error = read_private(&path, 100).unwrap_err();
            assert!(
                matches!(error, FileError::Exposed { mode, .. } if mode == open),
                "{error}"
            );
            assert!(
                error
                    .to_string()
                    .contains(&format!("chmod 600 {}", path.display())),
                "{error}"
            );
        }
        for closed in [0o600, 0o400] {
            write(&path, b"secret", closed).unwrap();
            assert_eq!(read_private(&path, 100).unwrap(), b"secret");
        }
    }

    #[test]
    fn a_secret_is_read_up_to_its_limit_and_not_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_private(&path, &[7; 10]).unwrap();
        assert_eq!(read_private(&path, 10).unwrap().len(), 10);
        assert!(matches!(
            read_private(&path, 9).unwrap_err(),
            FileError::TooLong { limit: 9, .. }
        ));
    }

    #[test]
    fn a_directory_or_a_pipe_is_not_read_as_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            read_private(dir.path(), 9).unwrap_err(),
            FileError::NotAFile { .. }
        ));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(matches!(
            read_private(&pipe, 9).unwrap_err(),
            FileError::NotAFile { .. }
        ));
        assert!(matches!(
            read_private(dir.path().join("none"), 9).unwrap_err(),
            FileError::Read { .. }
        ));
    }

    #[test]
    fn what_this_user_may_not_look_at_is_not_told_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let denied = unreadable(dir.path(), io::ErrorKind::PermissionDenied.into());
        assert!(
            denied.to_string().contains("permission denied; run as"),
            "{denied}"
        );
        assert!(!is_there(dir.path().join("none")).unwrap());
        assert!(is_there(dir.path()).unwrap());
        // Root may look at everything; a path that cannot be walked fails for root too.
        let file = dir.path().join("file");
        write(&file, b"", 0o600).unwrap();
        assert!(matches!(
            is_there(file.join("inside")),
            Err(FileError::Read { .. }) | Ok(false)
        ));
    }

    #[test]
    fn a_private_directory_is_made_once_and_refused_when_others_may_enter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        create_private_dir(&path).unwrap();
        create_private_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = create_private_dir(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }
}
