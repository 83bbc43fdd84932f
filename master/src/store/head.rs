//! The witness: how far the journal went, kept beside it, so that a journal cut at the edge of a record is noticed.
//!
//! It is written after each batch that is on the disk, in one of two places by turns, and not flushed: it may be behind
//! the journal, and never ahead of it. A witness that cannot be read is no reason to refuse a journal that is whole.

use std::{fs::File, os::unix::fs::FileExt as _, path::PathBuf};

use super::{
    commit::Revision,
    file::{self, FileError},
    format::{Layout, Lineage},
    record::{Hash, Reader, check},
};

const SLOT: usize = 64;

/// Writes the witness.
#[derive(Debug)]
pub(super) struct Head {
    file: File,
    path: PathBuf,
    turn: u64,
    lineage: Lineage,
}

impl Head {
    pub(super) fn open(layout: &Layout, lineage: Lineage) -> Result<Self, FileError> {
        let path = layout.head();
        let file = file::private()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(FileError::on("open", &path))?;
        Ok(Self {
            file,
            path,
            turn: 0,
            lineage,
        })
    }

    pub(super) fn write(&mut self, revision: Revision, head: Hash) -> Result<(), FileError> {
        let mut slot = [0; SLOT];
        slot[..8].copy_from_slice(&revision.0.to_be_bytes());
        slot[8..40].copy_from_slice(&head.0);
        let sum = check(&[&self.lineage.0, &slot[..40]]);
        slot[40..48].copy_from_slice(&sum.to_be_bytes());
        let at = (self.turn % 2) * SLOT as u64;
        self.turn += 1;
        self.file
            .write_all_at(&slot, at)
            .map_err(FileError::on("write", &self.path))
    }

    pub(super) fn flush(&self) -> Result<(), FileError> {
        self.file.sync_all().map_err(FileError::on("flush", &self.path))
    }
}

/// What the witness says, when it says anything.
pub(super) fn read(layout: &Layout, lineage: Lineage) -> Result<Option<(Revision, Hash)>, FileError> {
    let bytes = file::read(&layout.head())?.unwrap_or_default();
    let seen = bytes.chunks(SLOT).take(2).filter_map(|slot| {
        let mut reader = Reader(slot);
        let (revision, head) = (Revision(reader.u64()?), Hash(reader.array()?));
        let sum = check(&[&lineage.0, &revision.0.to_be_bytes(), &head.0]);
        (reader.u64()? == sum).then_some((revision, head))
    });
    Ok(seen.max_by_key(|(revision, _)| *revision))
}
