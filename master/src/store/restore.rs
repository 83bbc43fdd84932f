//! Bringing a store back: a snapshot, then whatever of the journal still follows it.
//!
//! Every record after the snapshot proves itself by the chain, so it does not matter what happened to the journal before.
//! Only when the journal provably goes on to its end is the history the old one. Otherwise something acknowledged may
//! be missing: the store gets a new lineage and is frozen until an operator accepts that.
//!
//! The new store is made beside the old one and exchanged with it in one step; the old one is kept under another name.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
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
    head::{self, Head},
    index::Seal,
    journal::{self, Journal, Walk, read_header},
    lock::{Lock, LockError},
    record::{HEADER, Hash, Header, MAGIC, Record, TRAILER, hash},
    recover,
    snapshot::{self, Snapshot, SnapshotError},
};

/// So many records are flushed at a time.
const PIECE: usize = 256;

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
    let mut journal = Journal::open(&making, lineage, None)?;
    let mut before = snapshot.head;
    for records in tail.records.chunks(PIECE) {
        let first = records
            .first()
            .map_or(snapshot.revision, |(revision, ..)| *revision);
        let bytes: Vec<u8> = records.iter().flat_map(|(_, bytes, _)| bytes).copied().collect();
        journal.append(&bytes, first, before)?;
        before = records.last().map_or(before, |(.., after)| *after);
    }
    let mut witness = Head::open(&making, lineage)?;
    let revision = tail
        .records
        .last()
        .map_or(snapshot.revision, |(revision, ..)| *revision);
    witness.write(revision, before)?;
    witness.flush()?;
    let state = recover::replay(&making, &format, None)?;
    if (state.revision, state.head) != (revision, before) || state.torn.is_some() {
        return Err(RestoreError::Mismatch { dir: dir.to_owned() });
    }
    file::sync_dir(&making.root)?;
    let aside = exchange(&making, &old, clock.now())?;
    let replayed = tail.records.len() as u64;
    Ok(Restored {
        lineage,
        revision,
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

/// The commits after a snapshot that a journal still has.
struct Tail {
    /// Revision, bytes, hash.
    records: Vec<(Revision, Vec<u8>, Hash)>,
    /// Why these may not be all.
    missing: Option<String>,
    /// What the old store said, if it said anything.
    standing: Standing,
}

impl Tail {
    fn find(old: &Layout, snapshot: &Snapshot) -> Result<Self, FileError> {
        let segments = journal::segments(&old.journal())?;
        let mut tail = Self {
            records: Vec::new(),
            missing: None,
            standing: Standing::Live,
        };
        let (mut revision, mut head) = (snapshot.revision, snapshot.head);
        let mut seen = Seen::default();
        for path in &segments {
            let mut segment = Pieces::open(path)?;
            if segment.lineage.is_some_and(|lineage| lineage != snapshot.lineage) {
                continue;
            }
            while let Some((header, bytes)) = segment.next(revision.next(), &mut seen)? {
                if header.revision != revision.next() || !header.readable() {
                    continue;
                }
                let (front, trailer) = bytes.split_at(bytes.len() - TRAILER);
                let after = hash(&[&head.0, front]);
                let body = front.get(HEADER..).unwrap_or_default();
                if after.0 == trailer && Record::decode(&header, body).is_some() {
                    (revision, head) = (header.revision, after);
                    tail.records.push((revision, bytes, after));
                }
            }
        }
        tail.missing = Self::missing(old, snapshot, (revision, head), &seen)?;
        if let Ok(Some(format)) = Format::read(old) {
            tail.standing = format.standing;
        }
        Ok(tail)
    }

    /// Why there may have been more after `at`.
    fn missing(
        old: &Layout,
        snapshot: &Snapshot,
        at: (Revision, Hash),
        seen: &Seen,
    ) -> Result<Option<String>, FileError> {
        let witness = head::read(old, snapshot.lineage)?;
        let seal = Seal::read(old)?.map(|seal| (seal.revision, seal.head));
        let acknowledged = witness
            .into_iter()
            .chain(seal)
            .max_by_key(|(revision, _)| *revision);
        let (revision, head) = at;
        Ok(match acknowledged {
            Some((later, _)) if later > revision => Some(format!(
                "revision {later} was acknowledged, but the journal could be followed to revision {revision} only"
            )),
            Some((same, other)) if same == revision && other != head => Some(format!(
                "revision {revision} is not the one that was acknowledged"
            )),
            Some(_) if seen.last > revision => Some(format!(
                "the journal has revision {}, but does not lead there from {revision}",
                seen.last
            )),
            Some(_) if seen.rubbish => Some(format!(
                "the journal's end after revision {revision} cannot be read"
            )),
            Some(_) => None,
            None => Some("nothing here tells how far the journal went".to_owned()),
        })
    }
}

/// What a search through the segments came by.
#[derive(Default)]
struct Seen {
    /// The highest revision that a header named.
    last: Revision,
    /// Whether what follows the last header makes no sense, and is no torn record either.
    rubbish: bool,
}

/// Reads whatever looks like a record from a segment, intact or not, and skips what does not.
struct Pieces {
    path: PathBuf,
    reader: BufReader<File>,
    lineage: Option<Lineage>,
    at: u64,
    len: u64,
}

impl Pieces {
    fn open(path: &Path) -> Result<Self, FileError> {
        let trouble = || FileError::on("read", path);
        let file = File::open(path).map_err(trouble())?;
        let len = file.metadata().map_err(trouble())?.len();
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let header = read_header(&mut reader).map_err(trouble())?;
        let at = reader.stream_position().map_err(trouble())?;
        let lineage = header.map(|header| header.lineage);
        Ok(Self {
            path: path.to_owned(),
            reader,
            lineage,
            at,
            len,
        })
    }

    /// The next record at or after this place. The body is not checked; one that is not `wanted` is not even read.
    fn next(&mut self, wanted: Revision, seen: &mut Seen) -> Result<Option<(Header, Vec<u8>)>, FileError> {
        let path = self.path.clone();
        self.piece(wanted, seen).map_err(FileError::on("read", &path))
    }

    fn piece(&mut self, wanted: Revision, seen: &mut Seen) -> io::Result<Option<(Header, Vec<u8>)>> {
        while self.at + HEADER as u64 <= self.len {
            self.reader.seek(SeekFrom::Start(self.at))?;
            let mut front = [0; HEADER];
            self.reader.read_exact(&mut front)?;
            let Some(header) = Header::decode(&front) else {
                seen.rubbish |= self.resync()?;
                continue;
            };
            let whole = (HEADER + header.body + TRAILER) as u64;
            if self.at + whole > self.len {
                // Torn: the file ends first, and nothing can follow.
                self.at = self.len;
                return Ok(None);
            }
            seen.last = seen.last.max(header.revision);
            seen.rubbish = false;
            self.at += whole;
            let mut bytes = front.to_vec();
            if header.revision == wanted {
                bytes.resize(HEADER + header.body + TRAILER, 0);
                self.reader
                    .read_exact(bytes.get_mut(HEADER..).unwrap_or_default())?;
            } else {
                bytes.resize(HEADER + TRAILER, 0);
            }
            return Ok(Some((header, bytes)));
        }
        Ok(None)
    }

    /// Moves on to the next place that could be a header. Returns whether what was skipped is more than zeros.
    fn resync(&mut self) -> io::Result<bool> {
        let mut window = vec![0; 1 << 16];
        let mut at = self.at;
        let mut rubbish = false;
        loop {
            self.reader.seek(SeekFrom::Start(at))?;
            let read = self.reader.read(&mut window)?;
            let seen = window.get(..read).unwrap_or_default();
            rubbish |= seen.iter().any(|byte| *byte != 0);
            // The one at `self.at` was looked at already.
            let skip = usize::from(at == self.at);
            let found = seen
                .windows(MAGIC.len())
                .skip(skip)
                .position(|four| four == MAGIC);
            if let Some(found) = found {
                self.at = at + (skip + found) as u64;
                return Ok(true);
            }
            if read < MAGIC.len() {
                self.at = self.len;
                return Ok(rubbish);
            }
            // A header may start in the last three bytes of the window.
            at += (read - (MAGIC.len() - 1)) as u64;
        }
    }
}
