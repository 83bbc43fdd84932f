//! The journal as auditors read it: entry by entry, from the oldest on or from the newest back, beside the writer. It
//! holds one record at a time. All of it blocks.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use picket_proto::audit::Entry;

use super::{
    commit::Revision,
    damage::Unreadable,
    file::FileError,
    format::{Layout, Lineage},
    journal::{self, SEGMENT_HEADER, Walk, Whole, read_header},
    record::{HEADER, Hash, Header, TRAILER},
    recover,
    verify::VerifyError,
};

/// A journal up to what was acknowledged when this was asked for.
#[derive(Clone, Debug)]
pub struct Trail {
    layout: Layout,
    lineage: Lineage,
    revision: Revision,
    head: Hash,
}

impl Trail {
    pub(super) fn new(layout: Layout, lineage: Lineage, (revision, head): (Revision, Hash)) -> Self {
        Self {
            layout,
            lineage,
            revision,
            head,
        }
    }

    /// The journal of a data directory, to its end. A master may be running.
    ///
    /// # Errors
    /// When there is none, or not even its format can be read.
    pub fn of(dir: &Path) -> Result<Self, VerifyError> {
        let layout = Layout::of(dir);
        if !layout.root.exists() {
            return Err(VerifyError::Missing { dir: dir.to_owned() });
        }
        let lineage = recover::intact(&layout)?.lineage;
        // What a running master is writing looks torn, and ends the walk.
        let head = (Revision(u64::MAX), Hash([0; 32]));
        Ok(Self::new(layout, lineage, head))
    }

    /// Which line of history it is.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// The last revision in it and its hash, as the running store has them in memory.
    #[must_use]
    pub fn head(&self) -> (Revision, Hash) {
        (self.revision, self.head)
    }

    /// The entries after `after`, oldest first, each checked against the one before.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn forward(&self, after: Revision) -> Result<Forward, Unreadable> {
        let format = recover::intact(&self.layout)?;
        Ok(Forward {
            walk: Walk::after(&self.layout, self.lineage, format.start(), after)?,
            after,
            upto: self.revision,
        })
    }

    /// The entries before `before`, or all of them, newest first.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn backward(&self, before: Option<Revision>) -> Result<Backward, Unreadable> {
        let before = before.map_or(self.revision.next(), |before| before.min(self.revision.next()));
        let mut segments = journal::segments(&self.layout.journal())?;
        segments.retain(|segment| journal::first_of(segment) < Some(before));
        Ok(Backward {
            layout: self.layout.clone(),
            lineage: self.lineage,
            before,
            segments,
            open: None,
        })
    }
}

/// Entries, oldest first.
pub struct Forward {
    walk: Walk,
    after: Revision,
    upto: Revision,
}

impl Forward {
    /// The next one; none when that was all.
    ///
    /// # Errors
    /// When the journal is damaged there, or cannot be read.
    pub fn step(&mut self) -> Result<Option<Entry>, Unreadable> {
        while self.walk.revision < self.upto {
            let Some(entry) = self.walk.entry()? else { break };
            if entry.revision > self.after.0 {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The last revision that was read, and its hash.
    #[must_use]
    pub fn head(&self) -> (Revision, Hash) {
        (self.walk.revision, self.walk.head)
    }
}

/// Entries, newest first.
pub struct Backward {
    layout: Layout,
    lineage: Lineage,
    /// Those from here on were handed out.
    before: Revision,
    segments: Vec<PathBuf>,
    open: Option<Backwards>,
}

/// A segment with the places of the records in it that were not handed out.
struct Backwards {
    path: PathBuf,
    file: File,
    before: Hash,
    places: Vec<(u64, Header)>,
}

impl Backward {
    /// The next one; none when that was all.
    ///
    /// # Errors
    /// When the journal is damaged there, or cannot be read.
    pub fn step(&mut self) -> Result<Option<Entry>, Unreadable> {
        loop {
            if let Some(segment) = &mut self.open {
                if let Some((at, header)) = segment.places.pop() {
                    let whole = segment.read(&self.layout, at, header)?;
                    self.before = header.revision;
                    return Ok(Some(whole.entry(self.lineage)));
                }
                self.open = None;
            }
            let Some(path) = self.segments.pop() else {
                return Ok(None);
            };
            self.open = Some(Backwards::open(&self.layout, path, self.before)?);
        }
    }
}

impl Backwards {
    fn open(layout: &Layout, path: PathBuf, before: Revision) -> Result<Self, Unreadable> {
        let trouble = || FileError::on("read", &path);
        let file = File::open(&path).map_err(FileError::on("open", &path))?;
        let mut reader = BufReader::with_capacity(1 << 16, &file);
        let header = read_header(&mut reader)
            .map_err(trouble())?
            .ok_or_else(|| layout.damage(&path, 0, "the file does not start like a piece of a journal"))?;
        let places = places(&mut reader, header.first, before).map_err(trouble())?;
        let places = places.map_err(|at| layout.damage(&path, at, "a record's header is not intact"))?;
        Ok(Self {
            before: header.before,
            file,
            path,
            places,
        })
    }

    fn read(&self, layout: &Layout, at: u64, header: Header) -> Result<Whole, Unreadable> {
        let trouble = || FileError::on("read", &self.path);
        let before = if at == SEGMENT_HEADER as u64 {
            self.before
        } else {
            let mut trailer = [0; TRAILER];
            self.file
                .read_exact_at(&mut trailer, at - TRAILER as u64)
                .map_err(trouble())?;
            Hash(trailer)
        };
        let mut bytes = vec![0; HEADER + header.body + TRAILER];
        self.file.read_exact_at(&mut bytes, at).map_err(trouble())?;
        let whole = Whole::read(header, before, &bytes);
        whole.ok_or_else(|| damaged(layout, &self.path, at, header.revision))
    }
}

fn damaged(layout: &Layout, path: &Path, at: u64, revision: Revision) -> Unreadable {
    let what = format!("the record of revision {revision} does not have the hash it was written with");
    layout.damage(path, at, what).into()
}

/// The places of the records before a revision, found by their headers; or where a header is that is none.
fn places(
    reader: &mut BufReader<&File>,
    first: Revision,
    before: Revision,
) -> io::Result<Result<Vec<(u64, Header)>, u64>> {
    let mut places = Vec::new();
    let mut at = reader.stream_position()?;
    let mut next = first;
    while next < before {
        let mut front = [0; HEADER];
        match reader.read_exact(&mut front) {
            // The next segment goes on.
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        let header = Header::decode(&front).filter(|header| header.revision == next);
        let Some(header) = header else { return Ok(Err(at)) };
        places.push((at, header));
        at += (HEADER + header.body + TRAILER) as u64;
        // Inside the buffer nothing is read twice.
        let behind = i64::try_from(header.body + TRAILER).unwrap_or(i64::MAX);
        reader.seek_relative(behind)?;
        next = next.next();
    }
    Ok(Ok(places))
}

#[cfg(test)]
mod tests {
    use picket_clock::Clock;
    use picket_proto::audit::{Outcome, Version, Written, chain::Chain, hash, header};

    use super::*;
    use crate::store::{Audit, Commit, Key, Store, Write, journal::SegmentHeader};

    #[tokio::test]
    async fn a_journal_of_the_first_format_reads_on_and_is_continued_in_the_second() {
        let dir = tempfile::tempdir().unwrap();
        Store::create(dir.path()).unwrap();
        let lineage = Trail::of(dir.path()).unwrap().lineage();
        let segment = SegmentHeader {
            lineage,
            first: Revision(1),
            before: lineage.genesis(),
        };
        let mut bytes = segment.encode();
        let mut previous = lineage.genesis().0;
        for revision in 1..=3 {
            let body = first_format(revision, &format!("k/{revision}"), b"old");
            let front = header(Version::One, u32::try_from(body.len()).unwrap(), 0, revision);
            let after = hash(&[&previous, &front, &body]).0;
            bytes.extend([&front[..], &body, &after].concat());
            previous = after;
        }
        std::fs::write(dir.path().join("store/journal/00000000000000000001.log"), bytes).unwrap();

        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        assert_eq!(store.load("k/").unwrap().len(), 3);
        assert_eq!(store.head().0, Revision(3));
        let change = Commit {
            writes: vec![Write::Put(Key::new("k/4").unwrap(), b"new".to_vec())],
            audit: Audit {
                who: "operator/ada".to_owned(),
                after: "{}".to_owned(),
                ..Audit::default()
            },
            ..Commit::default()
        };
        store.commit(change).await.unwrap();
        store.close().await;
        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        assert_eq!(store.load("k/").unwrap().len(), 4);
        let mut walk = store.trail().forward(Revision(0)).unwrap();
        let mut chain = Chain::default();
        let mut seen = Vec::new();
        while let Some(entry) = walk.step().unwrap() {
            chain.take(&entry).unwrap();
            seen.push(entry);
        }
        assert_eq!(seen.len(), 4);
        assert_eq!(
            (seen[0].audit.who.as_str(), seen[0].audit.times),
            ("operator/eve", 1)
        );
        assert_eq!(seen[0].audit.outcome, Outcome::Done);
        assert!(
            matches!(seen[0].written, Written::Whole(_)) && matches!(seen[3].written, Written::Apart { .. })
        );
        let mut edited = seen[0].clone();
        edited.audit.who = "operator/bo".to_owned();
        assert_eq!(edited.computed(), None, "what is shown is what was hashed");
    }

    /// A body as the first format had it.
    fn first_format(revision: u64, key: &str, value: &[u8]) -> Vec<u8> {
        let mut body = i64::try_from(revision).unwrap().to_be_bytes().to_vec();
        let text = |body: &mut Vec<u8>, text: &str| {
            body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            body.extend(text.as_bytes());
        };
        for field in ["operator/eve", "192.0.2.1:1", "host.note", "oslo", ""] {
            text(&mut body, field);
        }
        body.extend(1_u16.to_be_bytes());
        body.push(1);
        text(&mut body, key);
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value);
        body
    }
}
