//! The store: everything the master must not forget.
//!
//! The journal is the truth, sled is its index, memory is a view. A commit is appended to the journal, chained by
//! SHA-256 to the record before it, and flushed; then it goes into the index; then to those who watch; then its caller
//! is answered. What cannot be proven intact at the start is rebuilt from the journal, or refused with the command that
//! helps.
//!
//! Values are not kept in memory: a view holds what it needs in its own form, so that a second copy would lie idle.
//! Memory has each key with the revision and checksum of its value; guards are decided on these, and a value that is
//! read from the index is compared with them.
//!
//! Private keys have no place here: every value stands in the journal for ever.

use std::{
    fmt,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard},
};

use jiff::Timestamp;
use picket_clock::Clock;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

mod commit;
mod damage;
mod file;
mod format;
#[cfg(fuzzing)]
pub mod fuzz;
mod head;
mod index;
mod journal;
mod lock;
mod record;
mod recover;
mod restore;
mod snapshot;
mod tail;
mod trail;
mod verify;
mod watch;
mod writer;

pub use self::{
    commit::{
        AUDIT_MAX, Audit, COMMIT_MAX, Commit, Entry, Guard, KEY_MAX, Key, KeyError, LimitError, Outcome,
        Revision, VALUE_MAX, WRITES_MAX, Write,
    },
    damage::{Damage, Unreadable},
    file::FileError,
    format::Lineage,
    index::IndexError,
    lock::LockError,
    record::Hash,
    restore::{RestoreError, Restored, accept, restore},
    snapshot::{Snapshot, SnapshotError, snapshot},
    trail::{Backward, Forward, Trail},
    verify::{IndexStanding, JournalReport, Report, VerifyError, verify},
    watch::{Change, Compacted, End, Watch},
};
use self::{
    format::{Layout, Standing},
    index::{Index, Stamps},
    recover::Recovered,
    watch::History,
    writer::Request,
};

/// A handle on the store. Clones are handles on the same one. When the last is gone, the store closes by itself;
/// [`Store::close`] waits for that.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    tasks: TaskTracker,
    clock: Clock,
}

struct Shared {
    layout: Layout,
    lineage: Lineage,
    standing: Standing,
    healed: Option<String>,
    /// The time of the last record there was at the start.
    time: Option<Timestamp>,
    /// What commits are dated by from when on the master has judged the machine's clock.
    judged: OnceLock<Clock>,
    view: RwLock<View>,
    history: Arc<History>,
}

/// What every handle sees.
#[derive(Debug)]
struct View {
    revision: Revision,
    head: Hash,
    stamps: Stamps,
    /// Gone when the store is closed.
    index: Option<Index>,
}

/// Says why no store was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one.
    #[error("{} holds a store already; start it with `picket-master run`, or choose another --data-dir", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory is not ours to use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file could not be made.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Says why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error(
        "{0} holds no store; make one with `picket-master init --data-dir {0}`, or bring one back with \
         `picket-master restore --data-dir {0} --from SNAPSHOT`",
        dir.display()
    )]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory is not ours to use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It is damaged, or newer than this program, or a file of it cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The index could not be rebuilt.
    #[error("the journal is intact, but no index can be made from it; is there room on the disk?")]
    Index(#[from] IndexError),
    /// The thread that read it ended.
    #[error("reading the store was cut short; this is a fault of picket-master")]
    Aborted(#[source] tokio::task::JoinError),
}

/// Says why a value was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Says why a commit did not happen, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A guard does not hold; someone else was faster. Read again.
    #[error("{key} was changed by someone else in the meantime; look at it again and repeat")]
    Conflict {
        /// The guard's key.
        key: Key,
        /// The revision that wrote it last, if it has a value.
        stands: Option<Revision>,
    },
    /// It is larger than a commit may be.
    #[error(transparent)]
    TooLarge(#[from] LimitError),
    /// The store was restored without the end of its journal.
    #[error(
        "the store was restored without its latest changes and is frozen; look at it, then run \
         `picket-master restore --accept --data-dir {}`", data.display()
    )]
    Frozen {
        /// The data directory.
        data: PathBuf,
    },
    /// The disk failed, for this commit or one before it. Whether this one lasts is known after the next start.
    #[error("the store cannot write any more and the master must be restarted: {reason}")]
    Failed {
        /// What went wrong first.
        reason: Arc<str>,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Store {
    /// Makes an empty store, of a lineage of its own, in a data directory, which is made as well if it is not there.
    ///
    /// # Errors
    /// When there is a store, or the directory is in use or cannot be written. Then nothing was changed.
    pub fn create(dir: &Path) -> Result<(), CreateError> {
        recover::create(dir)
    }

    /// Opens the store of a data directory and holds its lock until the store is closed.
    ///
    /// # Errors
    /// When there is none, it is in use, damaged or newer. Then nothing was changed.
    pub async fn open(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        let (path, time) = (dir.to_owned(), clock.clone());
        let recovered = tokio::task::spawn_blocking(move || recover::open(&path, &time));
        Ok(Self::start(recovered.await.map_err(OpenError::Aborted)??, clock))
    }

    fn start(
        Recovered {
            format,
            state,
            index,
            disk,
            healed,
        }: Recovered,
        clock: Clock,
    ) -> Self {
        let (requests, queue) = mpsc::channel(writer::QUEUE);
        let shared = Arc::new(Shared {
            layout: disk.layout.clone(),
            lineage: format.lineage,
            standing: format.standing,
            healed,
            time: state.time,
            judged: OnceLock::new(),
            history: Arc::new(History::new(state.revision)),
            view: RwLock::new(View {
                revision: state.revision,
                head: state.head,
                stamps: state.stamps,
                index: Some(index),
            }),
        });
        let tasks = TaskTracker::new();
        tasks.spawn(writer::run(Arc::clone(&shared), disk, clock.clone(), queue));
        tasks.close();
        Self {
            shared,
            requests,
            tasks,
            clock,
        }
    }

    /// Which line of history this is.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.shared.lineage
    }

    /// Whether the store was restored without its latest changes, and refuses commits until that is accepted.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.shared.standing == Standing::Frozen
    }

    /// Why the index was made anew from the journal when the store was opened, if it was.
    #[must_use]
    pub fn healed(&self) -> Option<&str> {
        self.shared.healed.as_deref()
    }

    /// When the last commit was made that there was when the store was opened.
    #[must_use]
    pub fn opened_at(&self) -> Option<Timestamp> {
        self.shared.time
    }

    /// Dates commits by `clock` from here on. Only the first call counts.
    pub fn date_by(&self, clock: Clock) {
        self.shared.judged.get_or_init(|| clock);
    }

    /// The revision of the latest commit.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.revision()
    }

    /// The latest revision with the hash of its record, which stands for everything before it.
    #[must_use]
    pub fn head(&self) -> (Revision, Hash) {
        let view = self.shared.view();
        (view.revision, view.head)
    }

    /// The journal up to here, for whoever audits it.
    #[must_use]
    pub fn trail(&self) -> Trail {
        Trail::new(self.shared.layout.clone(), self.shared.lineage, self.head())
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the index fails, or the store is closed.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        let view = self.shared.view();
        let Some(stamp) = view.stamps.get(key) else {
            return Ok(None);
        };
        let value = view.index.as_ref().ok_or(ReadError::Closed)?.read(key, *stamp)?;
        Ok(Some(Entry {
            key: key.clone(),
            value,
            revision: stamp.revision,
        }))
    }

    /// The values of all keys that start with `prefix`, in the order of the keys.
    ///
    /// # Errors
    /// When the index fails, or the store is closed.
    pub fn load(&self, prefix: &str) -> Result<Vec<Entry>, ReadError> {
        self.shared.view().load(prefix)
    }

    /// The values of all keys that start with `prefix`, and a watch that continues exactly there.
    ///
    /// # Errors
    /// When the index fails, or the store is closed.
    pub fn follow(&self, prefix: &str) -> Result<(Vec<Entry>, Watch), ReadError> {
        let view = self.shared.view();
        let entries = view.load(prefix)?;
        // Nothing is added to the history while the view is held, so its latest revision is ours.
        let watch = self
            .shared
            .history
            .follow(prefix, view.revision)
            .map_err(|_| ReadError::Closed)?;
        Ok((entries, watch))
    }

    /// The changes after `from` of keys that start with `prefix`, without a gap. A watch is for a view; thousands of them
    /// would all wake at every commit.
    ///
    /// # Errors
    /// When those changes are not all in memory, or `from` was not reached yet.
    pub fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, Compacted> {
        self.shared.history.follow(prefix, from)
    }

    /// Commits, and returns the revision when it is on the disk and can be read. Others that commit at the same time share
    /// one flush. A caller that stops waiting does not stop the commit.
    ///
    /// # Errors
    /// When a guard does not hold, a limit is not kept, the store is frozen or closed, or the disk failed.
    pub async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        commit.check()?;
        if self.frozen() {
            return Err(CommitError::Frozen {
                data: self.shared.layout.data.clone(),
            });
        }
        let (answer, answered) = oneshot::channel();
        if self
            .requests
            .send(Request::Commit(Box::new(commit), answer))
            .await
            .is_err()
        {
            return Err(self.shared.refusal());
        }
        answered.await.unwrap_or_else(|_| Err(self.shared.refusal()))
    }

    /// Takes a snapshot of the state as it is into a directory, and reads it back. No commit waits for it.
    ///
    /// # Errors
    /// When the journal cannot be read or the snapshot not be written.
    pub async fn snapshot(&self, to: &Path) -> Result<Snapshot, SnapshotError> {
        let (layout, upto) = (self.shared.layout.clone(), Some(self.revision()));
        let (to, now) = (to.to_owned(), self.clock.now());
        let taken = tokio::task::spawn_blocking(move || snapshot::take(&layout, upto, &to, now));
        taken
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Waits until the store has ended, by a failure or because it was closed. A daemon ends with its store.
    pub async fn ended(&self) -> End {
        self.shared.history.until_ended().await
    }

    /// Writes what waits, seals the index and lets go of the lock. Other handles are closed with it.
    pub async fn close(self) {
        // When the writer is gone already, there is nothing to ask for.
        drop(self.requests.send(Request::Close).await);
        drop(self.requests);
        self.tasks.wait().await;
    }
}

impl fmt::Debug for Store {
    /// Which store it is, not what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Store({} at {})",
            self.lineage(),
            self.shared.layout.data.display()
        )
    }
}

impl Shared {
    fn view(&self) -> RwLockReadGuard<'_, View> {
        // A writer that panicked has changed the index at most, and what is read from that is checked.
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn revision(&self) -> Revision {
        self.view().revision
    }

    fn refusal(&self) -> CommitError {
        match self.history.ended() {
            Some(End::Failed(reason)) => CommitError::Failed { reason },
            Some(End::Closed) | None => CommitError::Closed,
        }
    }
}

impl View {
    fn load(&self, prefix: &str) -> Result<Vec<Entry>, ReadError> {
        let index = self.index.as_ref().ok_or(ReadError::Closed)?;
        let below = self
            .stamps
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix));
        below
            .map(|(key, stamp)| {
                let value = index.read(key, *stamp)?;
                Ok(Entry {
                    key: key.clone(),
                    value,
                    revision: stamp.revision,
                })
            })
            .collect()
    }
}
