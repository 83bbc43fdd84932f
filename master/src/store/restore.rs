//! Bringing a store back: a snapshot, then whatever of the journal still follows it.
//!
//! Every record after the snapshot proves itself by the chain, so it does not matter what happened to the journal before.
//! Only when the journal provably goes on to its end is the history the old one. Otherwise something acknowledged may
//! be missing: the store gets a new lineage and is frozen until an operator accepts that.
//!
//! The new store is made beside the old one and exchanged with it in one step; the old one is kept under another name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use picket_clock::Clock;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    commit::Revision,
    damage::Unreadable,
    file::{self, FileError},
    format::{Base, Format, Layout, Lineage, Standing},
    head::Head,
    journal::{Journal, Walk},
    lock::{Lock, LockError},
    recover,
    snapshot::{self, Snapshot, SnapshotError},
    tail::Tail,
};

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The line of history the store belongs to from here on.
    pub lineage: Lineage,
    /// The revision it is at.
    pub revision: Revision,
    /// How many commits after the snapshot the journal still had.
    pub replayed: u64,
    /// Why something acknowledged may be missing. Then the store is frozen.
    pub missing: Option<String>,
    /// Where the store that was there before is kept.
    pub aside: Option<PathBuf>,
}

/// Says why a store was not restored, or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A master uses the directory, or it cannot be written.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The snapshot, or a file of the store, cannot be used.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// What is left could not be written down.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What was made does not open.
    #[error("the restored store does not read back; look at the disk of {}", dir.display())]
    Mismatch {
        /// The data directory, in which nothing was changed.
        dir: PathBuf,
    },
    /// There is no store.
    #[error("{} holds no store; bring one back with `picket-master restore --data-dir {} --from SNAPSHOT`", dir.display(), dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
}

impl From<FileError> for RestoreError {
    fn from(cause: FileError) -> Self {
        Self::Unreadable(cause.into())
    }
}

/// Puts a store in a data directory: the state of a snapshot, and the commits after it that the journal there still has.
/// Without a snapshot, what the journal has before the first damage. What was there is kept aside.
///
/// # Errors
/// When the directory is in use or cannot be written, or the snapshot is not intact. Then nothing was changed.
pub fn restore(dir: &Path, from: Option<&Path>, clock: &Clock) -> Result<Restored, RestoreError> {
    let old = Layout::of(dir);
    if let Some(from) = from {
        snapshot::read(&old, from, |_, _, _| ())?;
    } else if !old.root.exists() {
        return Err(RestoreError::Missing { dir: dir.to_owned() });
    }
    file::make_dir(dir)?;
    let _lock = Lock::take(dir)?;
    let making = Layout::in_the_making(dir);
    file::remove_dir(&making.root)?;
    file::make_dir(&making.journal())?;
    let snapshot = match from {
        Some(from) => {
            snapshot::copy(from, &making.base())?;
            snapshot::read(&making, &making.base(), |_, _, _| ())?
        }
        None => salvage(&old, &making, clock.now())?,
    };
    let tail = Tail::find(&old, &snapshot)?;
    let (lineage, standing) = match &tail.missing {
        None => (snapshot.lineage, tail.standing),
        Some(_) => (Lineage::random(), Standing::Frozen),
    };
    let base = Base {
        revision: snapshot.revision,
        head: snapshot.head,
        file: snapshot.hash,
    };
    let format = Format {
        lineage,
        standing,
        base: Some(base),
    };
    format.write(&making)?;
    tail.copy(&snapshot, &mut Journal::open(&making, lineage, None)?)?;
    let mut witness = Head::open(&making, lineage)?;
    witness.write(tail.revision, tail.head)?;
    witness.flush()?;
    let state = recover::replay(&making, &format, None)?;
    if (state.revision, state.head) != (tail.revision, tail.head) || state.torn.is_some() {
        return Err(RestoreError::Mismatch { dir: dir.to_owned() });
    }
    file::sync_dir(&making.root)?;
    let aside = exchange(&making, &old, clock.now())?;
    let replayed = tail.len() as u64;
    Ok(Restored {
        lineage,
        revision: tail.revision,
        replayed,
        missing: tail.missing,
        aside,
    })
}

/// Makes a snapshot of what a journal has before its first damage, as the base of another store.
fn salvage(old: &Layout, making: &Layout, now: Timestamp) -> Result<Snapshot, RestoreError> {
    let missing = || RestoreError::Missing {
        dir: old.data.clone(),
    };
    let format = Format::read(old)?.ok_or_else(missing)?;
    let mut walk = Walk::new(old, format.lineage, format.start())?;
    let damage = loop {
        match walk.next() {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(Unreadable::Damage(damage)) => break Some(damage),
            Err(other @ (Unreadable::Newer { .. } | Unreadable::File(_))) => return Err(other.into()),
        }
    };
    if let Some(damage) = damage {
        tracing::warn!(%damage, revision = %walk.revision, "keeping what comes before the damage");
    }
    let taken = snapshot::take(old, Some(walk.revision), &making.root, now)?;
    file::settle(&taken.file, &making.base())?;
    Ok(Snapshot {
        file: making.base(),
        ..taken
    })
}

/// Accepts a store that was restored without its latest changes: it takes commits from here on.
///
/// # Errors
/// When a master uses the directory, or there is no store in it.
pub fn accept(dir: &Path) -> Result<Lineage, RestoreError> {
    let layout = Layout::of(dir);
    let missing = || RestoreError::Missing { dir: dir.to_owned() };
    if !layout.root.exists() {
        return Err(missing());
    }
    let _lock = Lock::take(dir)?;
    let mut format = Format::read(&layout)?.ok_or_else(missing)?;
    if format.standing == Standing::Frozen {
        format.standing = Standing::Live;
        format.write(&layout)?;
    }
    Ok(format.lineage)
}

/// Puts the new store in place and the old one aside. There is no moment without a store where there was one.
fn exchange(making: &Layout, place: &Layout, now: Timestamp) -> Result<Option<PathBuf>, FileError> {
    if !place.root.exists() {
        file::settle(&making.root, &place.root)?;
        return Ok(None);
    }
    let aside = free_name(&place.data, now);
    let exchanged = renameat_with(CWD, &making.root, CWD, &place.root, RenameFlags::EXCHANGE);
    match exchanged {
        Ok(()) => file::settle(&making.root, &aside)?,
        // Not every file system can exchange; then it takes two steps, and a crash between them leaves both.
        Err(_) => {
            file::settle(&place.root, &aside)?;
            file::settle(&making.root, &place.root)?;
        }
    }
    Ok(Some(aside))
}

fn free_name(data: &Path, now: Timestamp) -> PathBuf {
    let stamp = now.strftime("%Y%m%dT%H%M%SZ");
    let names = (0..).map(|n: u64| {
        if n == 0 {
            format!("store.{stamp}")
        } else {
            format!("store.{stamp}-{n}")
        }
    });
    let mut paths = names.map(|name| data.join(name));
    paths
        .find(|path| fs::symlink_metadata(path).is_err())
        .expect("the names never end")
}
