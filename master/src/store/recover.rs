//! From the files to a store that can be used: everything is read and checked, nothing is believed.

use std::{fs, path::Path, time::Duration};

use jiff::Timestamp;
use picket_clock::Clock;

use super::{
    CreateError, OpenError,
    commit::{Key, Revision, Write},
    damage::Unreadable,
    file::{self, FileError},
    format::{Format, Layout, Lineage, Standing},
    head::{self, Head},
    index::{Index, IndexError, Seal, Stamp, Stamps, stamp},
    journal::{self, Journal, Torn, Walk},
    lock::{Lock, LockError},
    record::Hash,
    snapshot,
    writer::Disk,
};

/// A rebuilt index is sorted in pieces of this many bytes of values: memory for time.
const PIECE: usize = 16 << 20;
/// So many writes of a rebuilt index are one batch for sled.
const TOGETHER: usize = 64;

/// Makes an empty store in a data directory.
pub(super) fn create(dir: &Path) -> Result<(), CreateError> {
    let place = Layout::of(dir);
    if fs::symlink_metadata(&place.root).is_ok() {
        return Err(CreateError::Exists { dir: dir.to_owned() });
    }
    file::make_dir(dir).map_err(|cause| LockError::of(dir, cause))?;
    let _lock = Lock::take(dir)?;
    let making = Layout::in_the_making(dir);
    file::remove_dir(&making.root)?;
    file::make_dir(&making.journal())?;
    let format = Format {
        lineage: Lineage::random(),
        standing: Standing::Live,
        base: None,
    };
    format.write(&making)?;
    let (revision, head) = format.start();
    let mut witness = Head::open(&making, format.lineage)?;
    witness.write(revision, head)?;
    witness.flush()?;
    file::settle(&making.root, &place.root)?;
    Ok(())
}

/// A store as it was found, ready to run.
pub(super) struct Recovered {
    pub(super) format: Format,
    pub(super) state: State,
    pub(super) index: Index,
    pub(super) disk: Disk,
    /// Why the index was made anew, if it was.
    pub(super) healed: Option<String>,
}

/// What the journal says, without the values.
#[derive(Debug)]
pub(super) struct State {
    pub(super) stamps: Stamps,
    pub(super) revision: Revision,
    pub(super) head: Hash,
    /// The time of the last record, or of the base.
    pub(super) time: Option<Timestamp>,
    pub(super) records: u64,
    pub(super) segments: usize,
    pub(super) last: Option<std::path::PathBuf>,
    pub(super) torn: Option<Torn>,
}

/// Reads base and journal, up to a revision where one is given. Changes nothing.
pub(super) fn replay(layout: &Layout, format: &Format, upto: Option<Revision>) -> Result<State, Unreadable> {
    let mut stamps = Stamps::new();
    let mut time = None;
    if let Some(base) = &format.base {
        let seen = snapshot::read(layout, &layout.base(), |key, revision, value| {
            let stamp = Stamp::of(&key, revision, &value);
            stamps.insert(key, stamp);
        })?;
        if (seen.revision, seen.head, seen.hash) != (base.revision, base.head, base.file) {
            return Err(layout
                .damage(&layout.base(), 0, "it is not the base this store was made with")
                .into());
        }
        time = Some(seen.time);
    }
    let mut walk = Walk::new(layout, format.lineage, format.start())?;
    while upto.is_none_or(|upto| walk.revision < upto) {
        let Some(record) = walk.next()? else { break };
        stamp(&mut stamps, record.revision, &record.writes);
        time = Some(record.time);
    }
    Ok(State {
        stamps,
        revision: walk.revision,
        head: walk.head,
        time,
        records: walk.records,
        segments: walk.segments(),
        last: walk.last().map(Path::to_owned),
        torn: walk.torn,
    })
}

/// Reads base and journal once more and hands out each live value, in the order they were written.
pub(super) fn live<E: From<Unreadable>>(
    layout: &Layout,
    format: &Format,
    state: &State,
    mut take: impl FnMut(Key, Revision, Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let is_live = |key: &Key, revision| {
        state
            .stamps
            .get(key)
            .is_some_and(|stamp| stamp.revision == revision)
    };
    if format.base.is_some() {
        let mut failed = Ok(());
        snapshot::read(layout, &layout.base(), |key, revision, value| {
            if failed.is_ok() && is_live(&key, revision) {
                failed = take(key, revision, value);
            }
        })?;
        failed?;
    }
    let mut walk = Walk::new(layout, format.lineage, format.start()).map_err(Unreadable::from)?;
    while walk.revision < state.revision {
        let Some(record) = walk.next()? else { break };
        for write in record.writes {
            if let Write::Put(key, value) = write
                && is_live(&key, record.revision)
            {
                take(key, record.revision, value)?;
            }
        }
    }
    Ok(())
}

/// Compares what the journal says with what is known of it from elsewhere: a journal that ends too early is damaged.
pub(super) fn confirm(layout: &Layout, format: &Format, state: &State) -> Result<(), Unreadable> {
    let witness = head::read(layout, format.lineage)?;
    let seal = Seal::read(layout)?.map(|seal| (seal.revision, seal.head));
    if witness.is_none() {
        tracing::warn!(
            "the store's witness of the journal's head cannot be read; the journal alone is believed"
        );
    }
    let end = state.torn.as_ref().map(|torn| (torn.file.clone(), torn.keep));
    let end = end.or_else(|| {
        state
            .last
            .clone()
            .map(|last| (last.clone(), fs::metadata(&last).map_or(0, |it| it.len())))
    });
    let (file, offset) = end.unwrap_or_else(|| (layout.journal(), 0));
    for (revision, head) in witness.into_iter().chain(seal) {
        if revision > state.revision {
            let what = format!(
                "the journal ends with revision {}, but revision {revision} was acknowledged; its end is missing",
                state.revision
            );
            return Err(layout.damage(&file, offset, what).into());
        }
        if revision == state.revision && head != state.head {
            let what = format!(
                "revision {revision} is not the one that was acknowledged; the journal was rewritten"
            );
            return Err(layout.damage(&file, offset, what).into());
        }
    }
    Ok(())
}

/// The format of a store that is there.
pub(super) fn intact(layout: &Layout) -> Result<Format, Unreadable> {
    match Format::read(layout)? {
        Some(format) => Ok(format),
        None => Err(layout.damage(&layout.format(), 0, "the file is missing").into()),
    }
}

/// Opens the store of a data directory. The lock is held from here on.
pub(super) fn open(dir: &Path, clock: &Clock) -> Result<Recovered, OpenError> {
    let layout = Layout::of(dir);
    if !layout.root.exists() {
        return Err(OpenError::Missing { dir: dir.to_owned() });
    }
    let lock = Lock::take(dir)?;
    let format = intact(&layout)?;
    let started = clock.monotonic();
    let state = replay(&layout, &format, None)?;
    confirm(&layout, &format, &state)?;
    if let Some(torn) = &state.torn {
        let bytes = torn.len - torn.keep;
        tracing::warn!(file = %torn.file.display(), bytes, "cut off the end of a commit that was never acknowledged");
        journal::cut(torn)?;
    }
    let (index, healed) = match Index::reuse(&layout, &state.stamps, (state.revision, state.head)) {
        Ok(index) => (index, None),
        Err(reason) => (
            rebuild(&layout, &format, &state)?,
            Some(reason).filter(|_| state.revision > Revision(0)),
        ),
    };
    if let Some(reason) = &healed {
        let took: Duration = clock.monotonic() - started;
        tracing::warn!(
            reason,
            keys = state.stamps.len(),
            ?took,
            "healed the store's index from the journal"
        );
    }
    let journal = Journal::open(&layout, format.lineage, state.last.as_deref())?;
    let mut head = Head::open(&layout, format.lineage)?;
    // Both places, so that the older one is not ahead of a journal that was cut on purpose.
    head.write(state.revision, state.head)?;
    head.write(state.revision, state.head)?;
    Ok(Recovered {
        format,
        state,
        index,
        healed,
        disk: Disk {
            layout,
            journal,
            head,
            lock,
        },
    })
}

fn rebuild(layout: &Layout, format: &Format, state: &State) -> Result<Index, OpenError> {
    let index = Index::anew(layout)?;
    let head = (state.revision, state.head);
    let mut piece: Vec<(Revision, Write)> = Vec::new();
    let mut bytes = 0;
    let put = |piece: &mut Vec<(Revision, Write)>| -> Result<(), IndexError> {
        // Neighbours share a page; in the order of the journal, each write would be another one.
        piece.sort_by(|(_, one), (_, other)| one.key().cmp(other.key()));
        for together in piece.chunks(TOGETHER) {
            index.apply(together.iter().map(|(revision, write)| (*revision, write)), head)?;
        }
        piece.clear();
        Ok(())
    };
    live::<OpenError>(layout, format, state, |key, revision, value| {
        bytes += value.len();
        piece.push((revision, Write::Put(key, value)));
        if bytes >= PIECE {
            put(&mut piece)?;
            bytes = 0;
        }
        Ok(())
    })?;
    put(&mut piece)?;
    if state.stamps.is_empty() {
        index.apply(std::iter::empty(), head)?;
    }
    Ok(index)
}

impl From<FileError> for OpenError {
    fn from(cause: FileError) -> Self {
        Self::Unreadable(cause.into())
    }
}
