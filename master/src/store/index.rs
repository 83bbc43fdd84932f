//! The index: the live values in sled, so that they need no memory. The journal is the truth, and the index is rebuilt
//! from it whenever there is a doubt.
//!
//! sled does not notice a flipped byte, and may answer one with a missing key, a panic or worse. So it is only ever
//! shown files that are what it left behind: a clean stop seals the index with a SHA-256 over its files, a start removes
//! the seal before it opens them, and without a seal that fits (after a crash, say) the index is made anew. Then every
//! key, revision and checksum is compared with what the journal says, and every later read is checked again.
//!
//! sled goes on for a moment after its last handle is dropped: a thread that has written the last buffer may cut the end
//! of the file off yet. Nothing is sealed, and no seal is believed, before it has let go of its lock.

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions, TryLockError},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use super::{
    commit::{Key, Revision, Write},
    file::{self, FileError},
    format::{Layout, hex},
    record::{Hash, Reader, check, hash},
    writer::chain,
};

/// What sled may keep of its pages. Values are read when a view is built, and seldom afterwards.
const CACHE: u64 = 8 << 20;
/// How long sled may take to let go of its files, and how often it is looked whether it has. A master stops within 10 s.
const LETS_GO: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);
/// No key of ours has a byte that does not print.
const HEAD: &[u8] = b"\0head";

/// What is remembered of a value: enough to guard it, and to know it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) revision: Revision,
    /// Over key, revision and value.
    check: u64,
}

impl Stamp {
    pub(super) fn of(key: &Key, revision: Revision, value: &[u8]) -> Self {
        let key = key.as_str().as_bytes();
        let len = u64::try_from(key.len()).unwrap_or(u64::MAX);
        Self {
            revision,
            check: check(&[&len.to_be_bytes(), key, &revision.0.to_be_bytes(), value]),
        }
    }
}

/// The live keys.
pub(super) type Stamps = BTreeMap<Key, Stamp>;

/// Applies the writes of one revision.
pub(super) fn stamp(stamps: &mut Stamps, revision: Revision, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put(key, value) => {
                stamps.insert(key.clone(), Stamp::of(key, revision, value));
            }
            Write::Delete(key) => {
                stamps.remove(key);
            }
        }
    }
}

/// Says why the index does not work.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// sled says no.
    #[error("the index at {} does not work; it is rebuilt from the journal at the next start", path.display())]
    Sled {
        /// Where.
        path: PathBuf,
        /// What sled says.
        #[source]
        cause: sled::Error,
    },
    /// A value is not there, or another one.
    #[error(
        "the index does not have the value of {key} that was committed; restart the master, which rebuilds it"
    )]
    Value {
        /// Which.
        key: Key,
    },
    /// sled works on it after it was closed.
    #[error("the files of the index at {} are in use still", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// A file of it does not work.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The open index.
#[derive(Debug)]
pub(super) struct Index {
    db: sled::Db,
    path: PathBuf,
}

impl Index {
    /// Opens the index that a clean stop sealed, or says why it is not to be used. The seal is gone afterwards.
    pub(super) fn reuse(layout: &Layout, stamps: &Stamps, head: (Revision, Hash)) -> Result<Self, String> {
        let seal = Seal::read(layout)
            .map_err(|error| chain(&error))?
            .ok_or("it was not closed cleanly")?;
        if (seal.revision, seal.head) != head {
            return Err(format!(
                "it is at revision {} and the journal at {}",
                seal.revision, head.0
            ));
        }
        {
            let _nobody_else = at_rest(&layout.index()).map_err(|error| chain(&error))?;
            if digest(&layout.index()).map_err(|error| chain(&error))? != seal.files {
                return Err("its files are not those that were closed".to_owned());
            }
            file::remove(&layout.seal()).map_err(|error| chain(&error))?;
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let index = Self::open(layout).map_err(|error| chain(&error))?;
            index.compare(stamps, head).map(|()| index)
        }));
        opened.unwrap_or_else(|_| Err("sled panicked over it".to_owned()))
    }

    /// Makes an empty index in place of what is there.
    pub(super) fn anew(layout: &Layout) -> Result<Self, IndexError> {
        file::remove(&layout.seal())?;
        file::remove_dir(&layout.index())?;
        file::make_dir(&layout.index())?;
        Self::open(layout)
    }

    fn open(layout: &Layout) -> Result<Self, IndexError> {
        let path = layout.index();
        // Nobody needs sled's files before the seal is written, so it may flush when it likes.
        let db = sled::Config::new()
            .path(&path)
            .cache_capacity(CACHE)
            .flush_every_ms(None)
            .open();
        match db {
            Ok(db) => Ok(Self { db, path }),
            Err(cause) => Err(IndexError::Sled { path, cause }),
        }
    }

    fn sled(&self) -> impl FnOnce(sled::Error) -> IndexError {
        |cause| IndexError::Sled {
            path: self.path.clone(),
            cause,
        }
    }

    /// Applies writes with the revision each was made by, and the head they lead to, together.
    pub(super) fn apply<'a>(
        &self,
        writes: impl Iterator<Item = (Revision, &'a Write)>,
        head: (Revision, Hash),
    ) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        for (revision, write) in writes {
            match write {
                Write::Put(key, value) => batch.insert(key.as_str(), encode(key, revision, value)),
                Write::Delete(key) => batch.remove(key.as_str()),
            }
        }
        batch.insert(HEAD, encode_head(head));
        self.db.apply_batch(batch).map_err(self.sled())
    }

    /// The value of a key, which must be the one that was stamped.
    pub(super) fn read(&self, key: &Key, stamp: Stamp) -> Result<Vec<u8>, IndexError> {
        let missing = || IndexError::Value { key: key.clone() };
        let stored = catch_unwind(AssertUnwindSafe(|| self.db.get(key.as_str())))
            .map_err(|_| missing())?
            .map_err(self.sled())?
            .ok_or_else(missing)?;
        let (seen, value) = decode(&stored).ok_or_else(missing)?;
        if seen != stamp || Stamp::of(key, stamp.revision, value) != stamp {
            return Err(missing());
        }
        Ok(value.to_vec())
    }

    fn compare(&self, stamps: &Stamps, head: (Revision, Hash)) -> Result<(), String> {
        let mut expected = stamps.iter();
        let mut head_seen = false;
        for item in self.db.iter() {
            let (key, stored) = item.map_err(|error| error.to_string())?;
            if key == HEAD {
                head_seen = *stored == *encode_head(head);
                continue;
            }
            let (want, stamp) = expected.next().ok_or("it has a key too many")?;
            let fits = key == want.as_str().as_bytes()
                && decode(&stored).is_some_and(|(seen, value)| {
                    seen == *stamp && Stamp::of(want, stamp.revision, value) == *stamp
                });
            if !fits {
                return Err(format!("it differs from the journal at {want}"));
            }
        }
        match (head_seen, expected.next()) {
            (true, None) => Ok(()),
            (false, _) => Err("it does not know the journal's head".to_owned()),
            (true, Some((key, _))) => Err(format!("it does not have {key}")),
        }
    }

    /// Closes the index and seals it, so that the next start can use it.
    pub(super) fn close(self, layout: &Layout, (revision, head): (Revision, Hash)) -> Result<(), IndexError> {
        self.db.flush().map_err(self.sled())?;
        drop(self.db);
        let _nobody_else = at_rest(&self.path)?;
        for path in files(&self.path)? {
            let private = fs::set_permissions(&path, Permissions::from_mode(0o600));
            private.map_err(FileError::on("make private", &path))?;
        }
        let files = digest(&self.path)?;
        Ok(Seal {
            revision,
            head,
            files,
        }
        .write(layout)?)
    }
}

fn encode(key: &Key, revision: Revision, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + value.len());
    bytes.extend(revision.0.to_be_bytes());
    bytes.extend(Stamp::of(key, revision, value).check.to_be_bytes());
    bytes.extend(value);
    bytes
}

fn decode(stored: &[u8]) -> Option<(Stamp, &[u8])> {
    let mut reader = Reader(stored);
    let stamp = Stamp {
        revision: Revision(reader.u64()?),
        check: reader.u64()?,
    };
    Some((stamp, reader.0))
}

fn encode_head((revision, head): (Revision, Hash)) -> Vec<u8> {
    [&revision.0.to_be_bytes()[..], &head.0].concat()
}

/// What a clean stop leaves beside the index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) revision: Revision,
    pub(super) head: Hash,
    files: Hash,
}

impl Seal {
    /// The seal, when there is an intact one.
    pub(super) fn read(layout: &Layout) -> Result<Option<Self>, FileError> {
        let bytes = file::read(&layout.seal())?.unwrap_or_default();
        Ok(std::str::from_utf8(&bytes).ok().and_then(Self::parse))
    }

    fn parse(text: &str) -> Option<Self> {
        let (front, sum) = text.strip_suffix('\n')?.rsplit_once(' ')?;
        if Hash(hex(sum)?) != hash(&[front.as_bytes()]) {
            return None;
        }
        let mut words = front.strip_prefix("picket-index 1 ")?.split(' ');
        Some(Self {
            revision: Revision(words.next()?.parse().ok()?),
            head: Hash(hex(words.next()?)?),
            files: Hash(hex(words.next()?)?),
        })
    }

    fn write(&self, layout: &Layout) -> Result<(), FileError> {
        let front = format!("picket-index 1 {} {} {}", self.revision, self.head, self.files);
        let sum = hash(&[front.as_bytes()]);
        file::replace(&layout.seal(), format!("{front} {sum}\n").as_bytes())
    }

    /// Whether the files of the index are those that were sealed.
    pub(super) fn fits(&self, layout: &Layout) -> Result<bool, FileError> {
        Ok(digest(&layout.index())? == self.files)
    }
}

/// Waits until sled has let go of the files in `dir`, and keeps it out for as long as the answer lives.
fn at_rest(dir: &Path) -> Result<File, IndexError> {
    let path = dir.join("db");
    let file = File::open(&path).map_err(FileError::on("open", &path))?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if waited < LETS_GO => {
                thread::sleep(LOOK);
                waited += LOOK;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(IndexError::InUse { path: dir.to_owned() });
            }
            Err(TryLockError::Error(cause)) => return Err(FileError::on("lock", &path)(cause).into()),
        }
    }
}

/// One hash over the names and contents of all files below a directory.
fn digest(dir: &Path) -> Result<Hash, FileError> {
    let mut sha = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    for path in files(dir)? {
        let name = path
            .strip_prefix(dir)
            .unwrap_or(&path)
            .as_os_str()
            .as_encoded_bytes();
        let mut file = File::open(&path).map_err(FileError::on("open", &path))?;
        let len = file.metadata().map_err(FileError::on("read", &path))?.len();
        sha.update((name.len() as u64).to_be_bytes());
        sha.update(name);
        sha.update(len.to_be_bytes());
        loop {
            match file.read(&mut piece).map_err(FileError::on("read", &path))? {
                0 => break,
                read => sha.update(piece.get(..read).unwrap_or_default()),
            }
        }
    }
    Ok(Hash(sha.finalize().into()))
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).map_err(FileError::on("list", &dir))? {
            let entry = entry.map_err(FileError::on("list", &dir))?;
            let kind = entry.file_type().map_err(FileError::on("list", &dir))?;
            if kind.is_dir() {
                dirs.push(entry.path())
            } else {
                found.push(entry.path())
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn writes() -> Vec<(Revision, Write)> {
        let put = |n: u64| (Revision(n), Write::Put(key(&format!("k/{n}")), vec![7; 100]));
        (1..=40).map(put).collect()
    }

    fn head() -> (Revision, Hash) {
        (Revision(40), Hash([9; 32]))
    }

    /// An index that was closed cleanly, and what belongs in it.
    fn closed() -> (tempfile::TempDir, Layout, Stamps) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::of(dir.path());
        file::make_dir(&layout.root).unwrap();
        let index = Index::anew(&layout).unwrap();
        let mut stamps = Stamps::new();
        for (revision, write) in writes() {
            stamp(&mut stamps, revision, &[write]);
        }
        index
            .apply(
                writes().iter().map(|(revision, write)| (*revision, write)),
                head(),
            )
            .unwrap();
        index.close(&layout, head()).unwrap();
        (dir, layout, stamps)
    }

    /// Writes a seal that fits the files, whatever they are.
    fn seal(layout: &Layout) {
        let _nobody_else = at_rest(&layout.index()).unwrap();
        let (revision, head) = head();
        Seal {
            revision,
            head,
            files: digest(&layout.index()).unwrap(),
        }
        .write(layout)
        .unwrap();
    }

    #[test]
    fn an_index_is_used_once_and_only_when_it_is_what_the_journal_says() {
        let (_dir, layout, stamps) = closed();
        let index = Index::reuse(&layout, &stamps, head()).unwrap();
        index.close(&layout, head()).unwrap();
        let differs = |change: &dyn Fn(&mut Stamps) -> Option<Stamp>, head, why: &str| {
            let mut other = stamps.clone();
            change(&mut other);
            seal(&layout);
            let said = Index::reuse(&layout, &other, head).map(drop).unwrap_err();
            assert!(said.contains(why), "{said}");
        };
        let stamp = |revision, value| Stamp::of(&key("k/5"), Revision(revision), value);
        let at = "differs from the journal at";
        differs(&|stamps| stamps.remove("k/5"), head(), at);
        differs(
            &|stamps| stamps.insert(key("k/50"), stamp(5, &[7; 100])),
            head(),
            at,
        );
        differs(
            &|stamps| stamps.insert(key("k/5"), stamp(6, &[7; 100])),
            head(),
            at,
        );
        differs(
            &|stamps| stamps.insert(key("k/5"), stamp(5, &[8; 100])),
            head(),
            at,
        );
        differs(&|stamps| stamps.remove("k/9"), head(), "a key too many");
        differs(
            &|stamps| stamps.insert(key("z"), stamp(5, &[7; 100])),
            head(),
            "does not have z",
        );
        differs(
            &|_| None,
            (Revision(40), Hash([8; 32])),
            "at revision 40 and the journal at 40",
        );
        differs(&|_| None, (Revision(41), Hash([9; 32])), "the journal at 41");
        seal(&layout);
        drop(Index::reuse(&layout, &stamps, head()).unwrap());
        assert!(
            Index::reuse(&layout, &stamps, head())
                .unwrap_err()
                .contains("not closed cleanly")
        );
    }

    #[test]
    fn an_index_is_not_sealed_while_something_of_sled_has_its_files() {
        let (_dir, layout, stamps) = closed();
        let index = Index::reuse(&layout, &stamps, head()).unwrap();
        // A thread of sled's that has not come to its end.
        let straggler = index.db.clone();
        let path = layout.index();
        let (began, has_begun) = std::sync::mpsc::channel();
        let closing = thread::spawn({
            let layout = Layout::of(&layout.data);
            move || {
                began.send(()).unwrap();
                index.close(&layout, head())
            }
        });
        has_begun.recv().unwrap();
        straggler.insert("late", vec![1; 100]).unwrap();
        straggler.flush().unwrap();
        assert!(!layout.seal().exists(), "its files change yet");
        straggler.remove("late").unwrap();
        drop(straggler);
        closing.join().unwrap().unwrap();
        at_rest(&path).unwrap();
        assert!(Seal::read(&layout).unwrap().unwrap().fits(&layout).unwrap());
        Index::reuse(&layout, &stamps, head()).unwrap();
    }

    #[test]
    fn a_value_that_is_not_what_was_committed_is_an_error_and_no_answer() {
        let (_dir, layout, stamps) = closed();
        let index = Index::reuse(&layout, &stamps, head()).unwrap();
        let (lost, other, old) = (key("k/1"), key("k/2"), key("k/3"));
        index.db.remove(lost.as_str()).unwrap();
        index
            .db
            .insert(other.as_str(), encode(&old, Revision(2), &[7; 100]))
            .unwrap();
        index
            .db
            .insert(old.as_str(), encode(&old, Revision(1), &[7; 100]))
            .unwrap();
        for key in [lost, other, old] {
            let answer = index.read(&key, stamps[&key]);
            assert!(
                matches!(answer, Err(IndexError::Value { .. })),
                "{key}: {answer:?}"
            );
        }
        assert_eq!(index.read(&key("k/4"), stamps["k/4"]).unwrap(), [7; 100]);
    }

    #[test]
    fn even_a_seal_over_damaged_files_does_not_make_them_believed() {
        let (dir, layout, stamps) = closed();
        let template = tempfile::tempdir().unwrap();
        let kept: Vec<_> = files(&layout.index()).unwrap();
        let bytes: Vec<_> = kept.iter().map(|path| fs::read(path).unwrap()).collect();
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..60 {
            let making = Layout::of(&template.path().join(round.to_string()));
            let victim = random.usize(..kept.len());
            for (n, (path, bytes)) in kept.iter().zip(&bytes).enumerate() {
                let mut bytes = bytes.clone();
                // What sled wrote is at the front of its file; the rest is room.
                if n == victim && !bytes.is_empty() {
                    let at = random.usize(..bytes.len().min(8192));
                    bytes[at] ^= random.u8(1..);
                }
                let path = making.data.join(path.strip_prefix(dir.path()).unwrap());
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            seal(&making);
            if let Ok(index) = Index::reuse(&making, &stamps, head()) {
                for (key, stamp) in &stamps {
                    assert_eq!(
                        index.read(key, *stamp).unwrap(),
                        [7; 100],
                        "seed {seed}, round {round}, {key}"
                    );
                }
            }
        }
    }
}
