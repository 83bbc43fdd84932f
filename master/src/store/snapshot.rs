//! A snapshot: the whole state at one revision in one file, with the hash of the journal's head there.
//!
//! ```text
//! "PKTSNAP1" | lineage 16 | revision u64 | head 32 | time in microseconds i64 | count u64
//! count × (key length u16, key, revision u64, value length u32, value) | SHA-256 of all before
//! ```
//!
//! It is made from base and journal, up to a revision that is on the disk: nobody's commit waits for it, and it proves
//! on the way that the journal can be read.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use picket_clock::Clock;
use sha2::{Digest as _, Sha256};

use super::{
    commit::{Key, Revision, VALUE_MAX},
    damage::Unreadable,
    file::{self, FileError},
    format::{Layout, Lineage},
    head, lock,
    record::{Hash, Reader, put_text},
    recover,
};

const MAGIC: [u8; 8] = *b"PKTSNAP1";
const HEADER: usize = 8 + 16 + 8 + 32 + 8 + 8;

/// What a snapshot says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The file.
    pub file: PathBuf,
    /// The store it was taken of.
    pub lineage: Lineage,
    /// The revision whose state it holds.
    pub revision: Revision,
    /// The hash of the journal's head at that revision.
    pub head: Hash,
    /// When it was taken.
    pub time: Timestamp,
    /// How many keys it has.
    pub keys: u64,
    /// The hash at its end.
    pub hash: Hash,
}

/// Says why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store cannot be read, or the snapshot not written.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// There is no store.
    #[error("{} holds no store; is it the --data-dir of a master?", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// What was read back is not what was written.
    #[error("the snapshot {} does not read back as it was written; look at that disk and take it to another", file.display())]
    Mismatch {
        /// The file, which was removed.
        file: PathBuf,
    },
}

impl From<FileError> for SnapshotError {
    fn from(cause: FileError) -> Self {
        Self::Unreadable(cause.into())
    }
}

/// Takes a snapshot of the store in a data directory into the directory `to`, and reads it back. A master may be running.
///
/// # Errors
/// When there is no store, or it cannot be read, or the snapshot not be written.
pub fn snapshot(dir: &Path, to: &Path, clock: &Clock) -> Result<Snapshot, SnapshotError> {
    let layout = Layout::of(dir);
    if !layout.root.exists() {
        return Err(SnapshotError::Missing { dir: dir.to_owned() });
    }
    // What a running master is writing is not acknowledged, and may not last.
    let acknowledged = match lock::held(dir)? {
        Some(_) => head::read(&layout, recover::intact(&layout)?.lineage)?.map(|(revision, _)| revision),
        None => None,
    };
    take(&layout, acknowledged, to, clock.now())
}

/// Takes a snapshot of the state at `upto`, or at the end of the journal, into the directory `to`.
pub(super) fn take(
    layout: &Layout,
    upto: Option<Revision>,
    to: &Path,
    now: Timestamp,
) -> Result<Snapshot, SnapshotError> {
    let format = recover::intact(layout)?;
    let state = recover::replay(layout, &format, upto)?;
    match upto {
        None => recover::confirm(layout, &format, &state)?,
        Some(upto) if state.revision < upto => {
            let what = format!(
                "it ends with revision {}, but revision {upto} was acknowledged",
                state.revision
            );
            return Err(Unreadable::from(layout.damage(&layout.journal(), 0, what)).into());
        }
        Some(_) => {}
    }
    file::make_dir(to)?;
    let lineage = format.lineage.to_string();
    let short = lineage.get(..8).unwrap_or(&lineage);
    let path = to.join(format!("picket-{short}-{:012}.snapshot", state.revision.0));
    let beside = file::beside(&path);
    let snapshot = Snapshot {
        file: path.clone(),
        lineage: format.lineage,
        revision: state.revision,
        head: state.head,
        time: Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now),
        keys: state.stamps.len() as u64,
        hash: Hash([0; 32]),
    };
    let mut writer = Writer::create(&beside, &snapshot)?;
    recover::live::<SnapshotError>(layout, &format, &state, |key, revision, value| {
        Ok(writer.entry(&key, revision, &value)?)
    })?;
    let snapshot = Snapshot {
        hash: writer.finish()?,
        ..snapshot
    };
    let back = read(layout, &beside, |_, _, _| ())?;
    if (Snapshot {
        file: path.clone(),
        ..back
    }) != snapshot
    {
        file::remove(&beside)?;
        return Err(SnapshotError::Mismatch { file: path });
    }
    file::settle(&beside, &path)?;
    Ok(snapshot)
}

struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    sha: Sha256,
    piece: Vec<u8>,
}

impl Writer {
    fn create(path: &Path, snapshot: &Snapshot) -> Result<Self, FileError> {
        let file = file::private().write(true).create(true).truncate(true).open(path);
        let file = BufWriter::with_capacity(1 << 18, file.map_err(FileError::on("create", path))?);
        let mut writer = Self {
            file,
            path: path.to_owned(),
            sha: Sha256::new(),
            piece: Vec::new(),
        };
        writer.piece.extend(MAGIC);
        writer.piece.extend(snapshot.lineage.0);
        writer.piece.extend(snapshot.revision.0.to_be_bytes());
        writer.piece.extend(snapshot.head.0);
        writer.piece.extend(snapshot.time.as_microsecond().to_be_bytes());
        writer.piece.extend(snapshot.keys.to_be_bytes());
        writer.put()?;
        Ok(writer)
    }

    fn entry(&mut self, key: &Key, revision: Revision, value: &[u8]) -> Result<(), FileError> {
        put_text(&mut self.piece, key.as_str());
        self.piece.extend(revision.0.to_be_bytes());
        self.piece.extend(
            u32::try_from(value.len())
                .expect("less than a mebibyte")
                .to_be_bytes(),
        );
        self.piece.extend(value);
        self.put()
    }

    fn put(&mut self) -> Result<(), FileError> {
        self.sha.update(&self.piece);
        self.file
            .write_all(&self.piece)
            .map_err(FileError::on("write", &self.path))?;
        self.piece.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Hash, FileError> {
        let hash = Hash(self.sha.finalize().into());
        let written = self.file.write_all(&hash.0).and_then(|()| self.file.flush());
        written
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(FileError::on("write", &self.path))?;
        Ok(hash)
    }
}

/// Reads a snapshot, checks all of it, and hands out its entries. What was handed out counts when it returns `Ok`.
pub(super) fn read(
    layout: &Layout,
    path: &Path,
    mut take: impl FnMut(Key, Revision, Vec<u8>),
) -> Result<Snapshot, Unreadable> {
    let file = File::open(path).map_err(FileError::on("open the snapshot", path))?;
    let mut source = Source {
        reader: BufReader::with_capacity(1 << 18, file),
        sha: Sha256::new(),
        at: 0,
    };
    match source.snapshot(path, &mut take) {
        Ok(Some(snapshot)) => Ok(snapshot),
        Ok(None) => Err(layout
            .damage(path, source.at, "this is not, or not all of, a snapshot")
            .into()),
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Err(layout
            .damage(path, source.at, "the snapshot ends too early")
            .into()),
        Err(cause) => Err(FileError::on("read", path)(cause).into()),
    }
}

/// Copies an intact snapshot.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::copy(from, to).map_err(FileError::on("copy the snapshot to", to))?;
    let private = fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o600));
    private
        .and_then(|()| File::open(to)?.sync_all())
        .map_err(FileError::on("flush", to))
}

struct Source {
    reader: BufReader<File>,
    sha: Sha256,
    at: u64,
}

impl Source {
    fn bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.reader.read_exact(&mut bytes)?;
        self.sha.update(&bytes);
        self.at += len as u64;
        Ok(bytes)
    }

    fn snapshot(
        &mut self,
        path: &Path,
        take: &mut impl FnMut(Key, Revision, Vec<u8>),
    ) -> io::Result<Option<Snapshot>> {
        let header = self.bytes(HEADER)?;
        let Some(mut snapshot) = header_of(path, &header) else {
            return Ok(None);
        };
        for _ in 0..snapshot.keys {
            let Some(len) = Reader(&self.bytes(2)?).u16() else {
                return Ok(None);
            };
            let front = self.bytes(usize::from(len) + 12)?;
            let (key, rest) = front.split_at(usize::from(len));
            let key = std::str::from_utf8(key).ok().and_then(|key| Key::new(key).ok());
            let mut rest = Reader(rest);
            let (Some(key), Some(revision), Some(len)) = (key, rest.u64(), rest.u32()) else {
                return Ok(None);
            };
            let Some(len) = usize::try_from(len).ok().filter(|len| *len < VALUE_MAX) else {
                return Ok(None);
            };
            take(key, Revision(revision), self.bytes(len)?);
        }
        snapshot.hash = Hash(self.sha.finalize_reset().into());
        let mut trailer = [0; 32];
        self.reader.read_exact(&mut trailer)?;
        let more = self.reader.read(&mut [0])?;
        Ok((more == 0 && trailer == snapshot.hash.0).then_some(snapshot))
    }
}

fn header_of(path: &Path, bytes: &[u8]) -> Option<Snapshot> {
    let mut reader = Reader(bytes.strip_prefix(&MAGIC)?);
    Some(Snapshot {
        file: path.to_owned(),
        lineage: Lineage(reader.array()?),
        revision: Revision(reader.u64()?),
        head: Hash(reader.array()?),
        time: Timestamp::from_microsecond(reader.i64()?).ok()?,
        keys: reader.u64()?,
        hash: Hash([0; 32]),
    })
}
