//! What a directory holds, so that "nothing was changed" can be checked.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use sha2::{Digest as _, Sha256};

/// Every file and folder of a directory, with its mode and a hash of its bytes.
///
/// Left out are locks, which hold the id of a process, and sockets. What was hashed is kept by name, so that a difference
/// says where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, (u32, Option<[u8; 32]>)>);

impl Tree {
    /// Reads a directory; one that is not there is empty.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    #[track_caller]
    pub fn of(directory: &Path) -> Self {
        let mut found = BTreeMap::new();
        walk(directory, directory, &mut found);
        Self(found)
    }
}

/// Writes a file that nobody else can read.
///
/// # Panics
/// When it cannot be written, or is there.
pub fn write_private(path: &Path, bytes: &[u8]) {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .expect("a temporary file can be written");
}

fn walk(root: &Path, path: &Path, found: &mut BTreeMap<String, (u32, Option<[u8; 32]>)>) {
    let Ok(about) = fs::symlink_metadata(path) else {
        return;
    };
    let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let mode = about.permissions().mode();
    if about.is_dir() {
        found.insert(name, (mode, None));
        for entry in fs::read_dir(path).expect("a directory can be read") {
            walk(root, &entry.expect("a directory can be read").path(), found);
        }
    } else if about.is_file()
        && !matches!(
            path.file_name().and_then(|name| name.to_str()),
            Some("master.lock" | "lock")
        )
    {
        let bytes = fs::read(path).expect("a file can be read");
        found.insert(name, (mode, Some(Sha256::digest(bytes).into())));
    }
}
