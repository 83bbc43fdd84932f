//! What a journal, damaged perhaps, still has after a snapshot, and whether that is all.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{
    commit::Revision,
    file::FileError,
    format::{Format, Layout, Lineage, Standing},
    head,
    index::Seal,
    journal::{self, Journal, read_header},
    record::{HEADER, Hash, Header, MAGIC, Record, TRAILER},
    snapshot::Snapshot,
};

/// So many bytes of records are copied and flushed at a time.
const PIECE: usize = 4 << 20;

/// The commits after a snapshot that a journal still has.
pub(super) struct Tail {
    places: Vec<Place>,
    /// The revision of the last of them, or of the snapshot.
    pub(super) revision: Revision,
    /// Its hash.
    pub(super) head: Hash,
    /// Why these may not be all.
    pub(super) missing: Option<String>,
    /// What the old store said, if it said anything.
    pub(super) standing: Standing,
}

/// Where a record is that follows.
struct Place {
    segment: PathBuf,
    at: u64,
    len: usize,
    after: Hash,
}

impl Tail {
    /// Looks through all segments. A record counts when the chain leads to it from the snapshot, and when it stands right
    /// behind the one before it: what merely looks like a record, inside a value say, does not.
    pub(super) fn find(old: &Layout, snapshot: &Snapshot) -> Result<Self, FileError> {
        let mut tail = Self {
            places: Vec::new(),
            revision: snapshot.revision,
            head: snapshot.head,
            missing: None,
            standing: Standing::Live,
        };
        let mut seen = Seen::default();
        for path in journal::segments(&old.journal())? {
            tail.search(&path, snapshot.lineage, &mut seen)
                .map_err(FileError::on("read", &path))?;
        }
        tail.missing = tail.missing(old, snapshot.lineage, &seen)?;
        if let Ok(Some(format)) = Format::read(old) {
            tail.standing = format.standing;
        }
        Ok(tail)
    }

    /// How many commits there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Appends the records to a journal that starts behind the snapshot.
    pub(super) fn copy(&self, snapshot: &Snapshot, journal: &mut Journal) -> Result<(), FileError> {
        let (mut first, mut before) = (snapshot.revision.next(), snapshot.head);
        let (mut next, mut bytes) = (first, Vec::new());
        let mut open: Option<(&Path, File)> = None;
        for (place, more) in self.places.iter().zip((0..self.places.len()).rev()) {
            let path = place.segment.as_path();
            let file = match open.take() {
                Some((segment, file)) if segment == path => file,
                Some(_) | None => File::open(path).map_err(FileError::on("open", path))?,
            };
            let start = bytes.len();
            bytes.resize(start + place.len, 0);
            let record = bytes.get_mut(start..).unwrap_or_default();
            file.read_exact_at(record, place.at)
                .map_err(FileError::on("read", path))?;
            open = Some((path, file));
            next = next.next();
            if bytes.len() >= PIECE || more == 0 {
                journal.append(&bytes, first, before)?;
                (first, before) = (next, place.after);
                bytes.clear();
            }
        }
        Ok(())
    }

    fn search(&mut self, path: &Path, lineage: Lineage, seen: &mut Seen) -> io::Result<()> {
        let mut segment = Pieces::open(path)?;
        match &segment.header {
            Some(header) if header.lineage != lineage => return Ok(()),
            Some(header) => seen.before = header.first.0.checked_sub(1).map(Revision),
            None => seen.before = None,
        }
        while let Some((header, at)) = segment.next(seen)? {
            let before = seen.before.replace(header.revision);
            let follows = before == Some(self.revision) && header.revision == self.revision.next();
            if !follows || header.readable().is_none() {
                continue;
            }
            let len = HEADER + header.body + TRAILER;
            let bytes = segment.bytes(at, len)?;
            let (front, trailer) = bytes.split_at(len - TRAILER);
            let (front, body) = front.split_at(HEADER);
            let after = header.hash(self.head, front, body);
            if after.0 == trailer && Record::decode(&header, body).is_some() {
                (self.revision, self.head) = (header.revision, after);
                self.places.push(Place {
                    segment: path.to_owned(),
                    at,
                    len,
                    after,
                });
            }
        }
        Ok(())
    }

    /// Why there may have been more.
    fn missing(&self, old: &Layout, lineage: Lineage, seen: &Seen) -> Result<Option<String>, FileError> {
        let witness = head::read(old, lineage)?;
        let seal = Seal::read(old)?.map(|seal| (seal.revision, seal.head));
        let acknowledged = witness
            .into_iter()
            .chain(seal)
            .max_by_key(|(revision, _)| *revision);
        let revision = self.revision;
        Ok(match acknowledged {
            Some((later, _)) if later > revision => Some(format!(
                "revision {later} was acknowledged, but the journal could be followed to revision {revision} only"
            )),
            Some((same, head)) if same == revision && head != self.head => Some(format!(
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
    /// The revision that the header right before this place named, or the start of the segment.
    before: Option<Revision>,
    /// The highest revision that a header named.
    last: Revision,
    /// Whether what follows the last header makes no sense, and is no torn record either.
    rubbish: bool,
}

/// Finds whatever looks like a record in a segment, intact or not, and skips what does not.
struct Pieces {
    reader: BufReader<File>,
    header: Option<journal::SegmentHeader>,
    at: u64,
    len: u64,
}

impl Pieces {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let header = read_header(&mut reader)?;
        let at = reader.stream_position()?;
        Ok(Self {
            reader,
            header,
            at,
            len,
        })
    }

    /// The next header at or after this place, and where it is. All of its record is in the file.
    fn next(&mut self, seen: &mut Seen) -> io::Result<Option<(Header, u64)>> {
        while self.at + HEADER as u64 <= self.len {
            self.reader.seek(SeekFrom::Start(self.at))?;
            let mut front = [0; HEADER];
            self.reader.read_exact(&mut front)?;
            let Some(header) = Header::decode(&front) else {
                seen.rubbish |= self.resync()?;
                seen.before = None;
                continue;
            };
            let at = self.at;
            self.at += (HEADER + header.body + TRAILER) as u64;
            if self.at > self.len {
                // Torn: the file ends first, and nothing can follow.
                return Ok(None);
            }
            seen.last = seen.last.max(header.revision);
            seen.rubbish = false;
            return Ok(Some((header, at)));
        }
        Ok(None)
    }

    fn bytes(&mut self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.reader.get_ref().read_exact_at(&mut bytes, at)?;
        Ok(bytes)
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
