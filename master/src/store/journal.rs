//! The journal: segments of chained records. [`Walk`] reads and checks it, [`Journal`] appends to it.
//!
//! A segment starts with its own header: magic "PKTJRNL1", lineage, its first revision, the hash before it, and the
//! first 8 bytes of the SHA-256 of those. It is moved into place whole, so that one without a header is damaged and not
//! torn.
//!
//! Only the end of the last segment can be torn: the file ends before the record does, or is zeros from a sector in
//! the record to its end. Whatever else does not fit is damage, and nobody guesses.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use picket_failpoint::{Point, pass};
use picket_proto::audit::Entry;

use super::{
    commit::Revision,
    damage::{Damage, Unreadable},
    file::{self, FileError},
    format::{Layout, Lineage},
    record::{HEADER, Hash, Header, Reader, Record, TRAILER, VERSION, check},
};

/// A segment that has reached this length gets no further record. Small enough to copy one at a time, large enough that
/// a year of a busy site is a few dozen files.
pub(super) const SEGMENT: u64 = 16 << 20;

/// The smallest piece that disks write.
const SECTOR: u64 = 512;
const MAGIC: [u8; 8] = *b"PKTJRNL1";
pub(super) const SEGMENT_HEADER: usize = 8 + 16 + 8 + 32 + 8;
const NO_HEADER: &str = "the file does not start like a piece of a journal";

/// Where a torn tail begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Torn {
    pub(super) file: PathBuf,
    pub(super) keep: u64,
    pub(super) len: u64,
}

/// Reads a journal from its start, record by record, and checks each.
pub(super) struct Walk {
    layout: Layout,
    lineage: Lineage,
    segments: Vec<PathBuf>,
    /// How many of `segments` were opened.
    opened: usize,
    open: Option<Segment>,
    /// The revision of the last record read.
    pub(super) revision: Revision,
    /// Its hash.
    pub(super) head: Hash,
    /// How many were read.
    pub(super) records: u64,
    /// Set when the end was reached and there was a torn record.
    pub(super) torn: Option<Torn>,
}

struct Segment {
    path: PathBuf,
    reader: BufReader<File>,
    at: u64,
    len: u64,
}

impl Walk {
    pub(super) fn new(
        layout: &Layout,
        lineage: Lineage,
        (revision, head): (Revision, Hash),
    ) -> Result<Self, FileError> {
        let segments = segments(&layout.journal())?;
        Ok(Self {
            layout: layout.clone(),
            lineage,
            segments,
            opened: 0,
            open: None,
            revision,
            head,
            records: 0,
            torn: None,
        })
    }

    /// A walk that begins with the segment that has the record after `after`. What is before that is not looked at.
    pub(super) fn after(
        layout: &Layout,
        lineage: Lineage,
        start: (Revision, Hash),
        after: Revision,
    ) -> Result<Self, Unreadable> {
        let mut walk = Self::new(layout, lineage, start)?;
        let skipped = walk
            .segments
            .partition_point(|path| first_of(path) <= Some(after.next()));
        let Some(first) = skipped.checked_sub(1).filter(|first| *first > 0) else {
            return Ok(walk);
        };
        walk.segments.drain(..first);
        if let Some(path) = walk.segments.first() {
            let header = File::open(path)
                .and_then(|mut file| read_header(&mut file))
                .map_err(FileError::on("read", path))?
                .ok_or_else(|| layout.damage(path, 0, NO_HEADER))?;
            let before = header
                .first
                .0
                .checked_sub(1)
                .ok_or_else(|| layout.damage(path, 0, NO_HEADER))?;
            (walk.revision, walk.head) = (Revision(before), header.before);
        }
        Ok(walk)
    }

    /// The last segment, if there is one.
    pub(super) fn last(&self) -> Option<&Path> {
        self.segments.last().map(PathBuf::as_path)
    }

    /// How many segments there are.
    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    /// The next record with its bytes checked, or `None` at the end of the journal.
    pub(super) fn next(&mut self) -> Result<Option<Record>, Unreadable> {
        Ok(self.step()?.map(|whole| whole.record))
    }

    /// The next record as whoever audits sees it.
    pub(super) fn entry(&mut self) -> Result<Option<Entry>, Unreadable> {
        let lineage = self.lineage;
        Ok(self.step()?.map(|whole| whole.entry(lineage)))
    }

    fn step(&mut self) -> Result<Option<Whole>, Unreadable> {
        loop {
            let Some(segment) = &mut self.open else {
                let Some(path) = self.segments.get(self.opened) else {
                    return Ok(None);
                };
                let segment =
                    Segment::open(&self.layout, path, self.lineage, self.revision.next(), self.head)?;
                self.open = Some(segment);
                self.opened += 1;
                continue;
            };
            if segment.at == segment.len {
                self.open = None;
                continue;
            }
            match segment.record(&self.layout, self.revision.next(), self.head)? {
                Read::Whole(whole) => {
                    (self.revision, self.head) = (whole.record.revision, whole.hash);
                    self.records += 1;
                    return Ok(Some(*whole));
                }
                Read::Torn if self.opened == self.segments.len() => {
                    self.torn = Some(Torn {
                        file: segment.path.clone(),
                        keep: segment.at,
                        len: segment.len,
                    });
                    // Reading on finds the end again.
                    segment.len = segment.at;
                }
                Read::Torn => {
                    let what = "a record is cut here, and the journal goes on in another file";
                    return Err(self.layout.damage(&segment.path, segment.at, what).into());
                }
            }
        }
    }
}

enum Read {
    Whole(Box<Whole>),
    Torn,
}

/// A record that was read, with its bytes.
pub(super) struct Whole {
    pub(super) record: Record,
    header: Header,
    body: Vec<u8>,
    before: Hash,
    hash: Hash,
}

impl Whole {
    /// The record of a checked header, from all of its bytes; none when they are not those that were written.
    pub(super) fn read(header: Header, before: Hash, bytes: &[u8]) -> Option<Self> {
        let (front, rest) = bytes.split_at_checked(HEADER)?;
        let (body, trailer) = rest.split_at_checked(header.body)?;
        let hash = header.hash(before, front, body);
        let record = Record::decode(&header, body).filter(|_| hash.0 == trailer)?;
        Some(Self {
            record,
            header,
            body: body.to_vec(),
            before,
            hash,
        })
    }

    pub(super) fn entry(&self, lineage: Lineage) -> Entry {
        self.header
            .entry(lineage, (self.before, self.hash), &self.record, &self.body)
    }
}

impl Segment {
    fn open(
        layout: &Layout,
        path: &Path,
        lineage: Lineage,
        first: Revision,
        before: Hash,
    ) -> Result<Self, Unreadable> {
        let file = File::open(path).map_err(FileError::on("open", path))?;
        let len = file.metadata().map_err(FileError::on("read", path))?.len();
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let header = read_header(&mut reader)
            .map_err(FileError::on("read", path))?
            .ok_or_else(|| layout.damage(path, 0, NO_HEADER))?;
        let damage = |what: String| -> Damage { layout.damage(path, 0, what) };
        if header.lineage != lineage {
            return Err(damage(format!(
                "it is of lineage {}, but the store is {lineage}",
                header.lineage
            ))
            .into());
        }
        if header.first != first {
            return Err(damage(format!(
                "it starts with revision {}, but revision {first} comes next; a piece of the journal is missing",
                header.first
            ))
            .into());
        }
        if header.before != before {
            return Err(damage("it does not follow the piece before it".to_owned()).into());
        }
        Ok(Self {
            path: path.to_owned(),
            reader,
            at: SEGMENT_HEADER as u64,
            len,
        })
    }

    /// Reads the record that starts at `self.at`.
    fn record(&mut self, layout: &Layout, revision: Revision, before: Hash) -> Result<Read, Unreadable> {
        let path = self.path.clone();
        let trouble = || FileError::on("read", &path);
        let left = self.len - self.at;
        if left < HEADER as u64 {
            return Ok(Read::Torn);
        }
        let mut front = [0; HEADER];
        self.reader.read_exact(&mut front).map_err(trouble())?;
        let Some(header) = Header::decode(&front) else {
            let torn = self.torn_before(self.at + HEADER as u64).map_err(trouble())?;
            return if torn {
                Ok(Read::Torn)
            } else {
                Err(self.damage(layout, "a record's header is not intact"))
            };
        };
        if header.revision != revision {
            let what = format!("revision {} stands where {revision} belongs", header.revision);
            return Err(self.damage(layout, &what));
        }
        if header.readable().is_none() {
            return Err(Unreadable::Newer {
                file: path,
                found: header.version.into(),
                known: VERSION.into(),
            });
        }
        let whole = (HEADER + header.body + TRAILER) as u64;
        if left < whole {
            return Ok(Read::Torn);
        }
        let mut body = vec![0; header.body];
        let mut trailer = [0; TRAILER];
        self.reader.read_exact(&mut body).map_err(trouble())?;
        self.reader.read_exact(&mut trailer).map_err(trouble())?;
        let seen = header.hash(before, &front, &body);
        if seen.0 != trailer {
            let torn = self.torn_before(self.at + whole).map_err(trouble())?;
            let what =
                format!("the record of revision {revision} does not have the hash it was written with");
            return if torn {
                Ok(Read::Torn)
            } else {
                Err(self.damage(layout, &what))
            };
        }
        let Some(record) = Record::decode(&header, &body) else {
            let what = format!("the record of revision {revision} makes no sense, though its hash is right");
            return Err(self.damage(layout, &what));
        };
        self.at += whole;
        Ok(Read::Whole(Box::new(Whole {
            record,
            header,
            body,
            before,
            hash: seen,
        })))
    }

    fn damage(&self, layout: &Layout, what: &str) -> Unreadable {
        layout.damage(&self.path, self.at, what).into()
    }

    /// Whether what should reach from here to `end` was never wholly written: the file is nothing but zeros, up to its
    /// end, from this record on, or from the start of a sector in it. A disk writes sectors whole.
    fn torn_before(&mut self, end: u64) -> io::Result<bool> {
        let mut at = self.reader.seek(SeekFrom::Start(self.at))?;
        let mut written = at;
        let mut piece = [0; 4096];
        loop {
            let read = self.reader.read(&mut piece)?;
            let Some(seen) = piece.get(..read).filter(|seen| !seen.is_empty()) else {
                break;
            };
            if let Some(last) = seen.iter().rposition(|byte| *byte != 0) {
                written = at + last as u64 + 1;
            }
            at += read as u64;
        }
        Ok(written == self.at || written.next_multiple_of(SECTOR) < end)
    }
}

/// What a segment says about itself.
pub(super) struct SegmentHeader {
    pub(super) lineage: Lineage,
    pub(super) first: Revision,
    pub(super) before: Hash,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
        bytes.extend(MAGIC);
        bytes.extend(self.lineage.0);
        bytes.extend(self.first.0.to_be_bytes());
        bytes.extend(self.before.0);
        bytes.extend(check(&[&bytes]).to_be_bytes());
        bytes
    }
}

/// The header at the start of a segment, when there is an intact one.
pub(super) fn read_header(from: &mut impl io::Read) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = [0; SEGMENT_HEADER];
    match from.read_exact(&mut bytes) {
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    Ok(parse_header(&bytes))
}

fn parse_header(bytes: &[u8]) -> Option<SegmentHeader> {
    let (front, sum) = bytes.split_at_checked(SEGMENT_HEADER - 8)?;
    if sum != check(&[front]).to_be_bytes() {
        return None;
    }
    let mut reader = Reader(front.strip_prefix(&MAGIC)?);
    Some(SegmentHeader {
        lineage: Lineage(reader.array()?),
        first: Revision(reader.u64()?),
        before: Hash(reader.array()?),
    })
}

/// The revision of the first record of a segment, by its name.
pub(super) fn first_of(segment: &Path) -> Option<Revision> {
    segment.file_stem()?.to_str()?.parse().ok().map(Revision)
}

/// The segments of a journal in their order; none when there is no such directory.
pub(super) fn segments(journal: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = match fs::read_dir(journal) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(FileError::on("list", journal))?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry.map_err(FileError::on("list", journal))?.path();
        // A file that was not moved to its place yet ends in `.new`; nothing in it was acknowledged.
        if path.extension().is_some_and(|extension| extension == "log") {
            segments.push(path);
        }
    }
    segments.sort();
    Ok(segments)
}

/// The end of a journal, to append to.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    lineage: Lineage,
    pub(super) file: Option<File>,
    path: PathBuf,
    len: u64,
}

impl Journal {
    /// A journal that continues in `last`, a segment that was read to its end, or in a first one.
    pub(super) fn open(layout: &Layout, lineage: Lineage, last: Option<&Path>) -> Result<Self, FileError> {
        let dir = layout.journal();
        let Some(last) = last else {
            return Ok(Self {
                path: dir.clone(),
                dir,
                lineage,
                file: None,
                len: 0,
            });
        };
        let mut file = file::private()
            .write(true)
            .open(last)
            .map_err(FileError::on("open", last))?;
        let len = file.seek(SeekFrom::End(0)).map_err(FileError::on("read", last))?;
        // What an earlier process wrote and could not flush must not be built upon before it is on the disk.
        file.sync_all().map_err(FileError::on("flush", last))?;
        Ok(Self {
            dir,
            lineage,
            file: Some(file),
            path: last.to_owned(),
            len,
        })
    }

    /// Writes whole records and returns when they are on the disk. `first` is the revision of the first of them, and
    /// `before` the hash it is chained to. After an error it must not be used again.
    pub(super) fn append(&mut self, records: &[u8], first: Revision, before: Hash) -> Result<(), FileError> {
        let mut file = match self.file.take() {
            Some(file) if self.len < SEGMENT => file,
            Some(_) | None => self.segment(first, before)?,
        };
        pass(Point::StoreBeforeAppend);
        file.write_all(records)
            .map_err(FileError::on("append to", &self.path))?;
        pass(Point::StoreAfterAppend);
        file.sync_data().map_err(FileError::on("flush", &self.path))?;
        pass(Point::StoreAfterFlush);
        self.len += records.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    fn segment(&mut self, first: Revision, before: Hash) -> Result<File, FileError> {
        self.path = self.dir.join(format!("{:020}.log", first.0));
        let header = SegmentHeader {
            lineage: self.lineage,
            first,
            before,
        }
        .encode();
        file::replace(&self.path, &header)?;
        self.len = header.len() as u64;
        file::private()
            .append(true)
            .open(&self.path)
            .map_err(FileError::on("open", &self.path))
    }
}

/// Cuts off a record that was never acknowledged.
pub(super) fn cut(torn: &Torn) -> Result<(), FileError> {
    let file = file::private()
        .write(true)
        .open(&torn.file)
        .map_err(FileError::on("open", &torn.file))?;
    file.set_len(torn.keep)
        .and_then(|()| file.sync_all())
        .map_err(FileError::on("cut", &torn.file))
}
