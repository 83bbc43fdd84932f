//! The writer: the one task that owns the journal. Input: commits, each with a place for the answer. Output: records on
//! the disk, the index, the view, the history, the answers, in this order.
//!
//! What waits while one batch is flushed becomes the next batch. [`plan`] decides and touches nothing; the rest runs on
//! a blocking thread. After the first error nothing is written any more: what the disk holds then is for the next start
//! to find out.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use jiff::Timestamp;
use picket_clock::Clock;
use picket_failpoint::{Point, pass};
use tokio::sync::{mpsc, oneshot};

use super::{
    CommitError, Shared, View,
    commit::{Commit, Key, Revision},
    file::FileError,
    format::Layout,
    head::Head,
    index::{IndexError, stamp},
    journal::Journal,
    lock::Lock,
    record::{Hash, Record, weight},
    watch::{Change, End},
};

/// So many commits can wait for their turn: more than a batch, so that a batch can fill while another is flushed.
pub(super) const QUEUE: usize = 1024;
/// A batch has at most this many commits, so that the first of them does not wait long for the last.
const BATCH: usize = 512;
/// A batch is closed when it has this many bytes of keys and values.
const BATCH_BYTES: usize = 4 << 20;

/// The answer to a commit.
pub(super) type Answer = Result<Revision, CommitError>;

pub(super) enum Request {
    Commit(Box<Commit>, oneshot::Sender<Answer>),
    Close,
}

/// What the writer owns.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) layout: Layout,
    pub(super) journal: Journal,
    pub(super) head: Head,
    pub(super) lock: Lock,
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the journal could not be written")]
    Journal(#[source] FileError),
    #[error("the index could not be written")]
    Index(#[source] IndexError),
    #[error("the place of the journal's head could not be written")]
    Head(#[source] FileError),
}

/// What is left of the disk: all of it, or after a failure the lock, until the store is closed.
type Held = Result<Disk, Option<Lock>>;

/// Runs until the store is closed, or no handle is left.
pub(super) async fn run(
    shared: Arc<Shared>,
    disk: Disk,
    clock: Clock,
    mut requests: mpsc::Receiver<Request>,
) {
    let mut held = Ok(disk);
    while let Some((commits, more)) = gather(&mut requests).await {
        let now = shared.judged.get().unwrap_or(&clock).now();
        held = match held {
            Ok(disk) if !commits.is_empty() => write(&shared, disk, commits, now).await,
            Ok(disk) => Ok(disk),
            Err(lock) => {
                for (_, answer) in commits {
                    reply(answer, Err(shared.refusal()));
                }
                Err(lock)
            }
        };
        if !more {
            break;
        }
    }
    requests.close();
    let closing = Arc::clone(&shared);
    let closed = tokio::task::spawn_blocking(move || close(&closing, held)).await;
    if let Err(error) = closed {
        tracing::warn!(%error, "the store's index did not close; it is rebuilt at the next start");
    }
    shared.history.end(End::Closed);
}

/// The commits that wait, and whether others may follow; `None` when nobody is left who could ask.
async fn gather(
    requests: &mut mpsc::Receiver<Request>,
) -> Option<(Vec<(Commit, oneshot::Sender<Answer>)>, bool)> {
    let mut next = Some(requests.recv().await?);
    let (mut commits, mut bytes) = (Vec::new(), 0);
    loop {
        match next {
            Some(Request::Commit(commit, answer)) => {
                bytes += weight(&commit.writes);
                commits.push((*commit, answer));
            }
            Some(Request::Close) => return Some((commits, false)),
            None => return Some((commits, true)),
        }
        // Neither an empty queue nor one without senders ends anything here; the next `recv` tells them apart.
        next = if commits.len() < BATCH && bytes < BATCH_BYTES {
            requests.try_recv().ok()
        } else {
            None
        };
    }
}

/// Writes a batch and answers.
async fn write(
    shared: &Arc<Shared>,
    mut disk: Disk,
    commits: Vec<(Commit, oneshot::Sender<Answer>)>,
    now: Timestamp,
) -> Held {
    let (commits, answers): (Vec<_>, Vec<_>) = commits.into_iter().unzip();
    let blocking = Arc::clone(shared);
    let written = tokio::task::spawn_blocking(move || {
        let batch = {
            let view = blocking.view.read().unwrap_or_else(PoisonError::into_inner);
            plan(&view, commits, now)
        };
        let verdicts = put(&blocking, &mut disk, batch);
        (disk, verdicts)
    });
    let (reason, lock) = match written.await {
        Ok((disk, Ok(verdicts))) => {
            shared.history.announce(shared.revision());
            pass(Point::StoreAfterWatch);
            for (answer, verdict) in answers.into_iter().zip(verdicts) {
                reply(answer, verdict);
            }
            pass(Point::StoreAfterAnswer);
            return Ok(disk);
        }
        Ok((disk, Err(error))) => (chain(&error), Some(disk.lock)),
        Err(error) => (format!("the thread that writes the journal ended: {error}"), None),
    };
    tracing::error!(%reason, "the store takes no more commits");
    shared.history.end(End::Failed(reason.into()));
    for answer in answers {
        reply(answer, Err(shared.refusal()));
    }
    Err(lock)
}

/// Nobody minds when the one who asked has left; the commit stands or not without them.
fn reply(to: oneshot::Sender<Answer>, answer: Answer) {
    drop(to.send(answer));
}

/// What a batch does.
#[derive(Debug)]
struct Batch {
    /// Records, ready for the journal.
    bytes: Vec<u8>,
    first: Revision,
    before: Hash,
    revision: Revision,
    head: Hash,
    changes: Vec<Change>,
    verdicts: Vec<Answer>,
}

/// Decides what becomes of some commits, each seen against the state with those before it.
fn plan(view: &View, commits: Vec<Commit>, now: Timestamp) -> Batch {
    let mut batch = Batch {
        bytes: Vec::new(),
        first: view.revision.next(),
        before: view.head,
        revision: view.revision,
        head: view.head,
        changes: Vec::new(),
        verdicts: Vec::with_capacity(commits.len()),
    };
    let mut written: BTreeMap<Key, Option<Revision>> = BTreeMap::new();
    for commit in commits {
        let stands = |key: &Key| match written.get(key) {
            Some(revision) => *revision,
            None => view.stamps.get(key).map(|stamp| stamp.revision),
        };
        if let Some(guard) = commit
            .guards
            .iter()
            .find(|guard| !guard.holds(stands(guard.key())))
        {
            let (key, stands) = (guard.key().clone(), stands(guard.key()));
            batch.verdicts.push(Err(CommitError::Conflict { key, stands }));
            continue;
        }
        let revision = batch.revision.next();
        for write in &commit.writes {
            let put = matches!(write, super::Write::Put(..));
            written.insert(write.key().clone(), put.then_some(revision));
        }
        let record = Record {
            revision,
            time: now,
            audit: commit.audit,
            writes: commit.writes,
        };
        batch.head = record.encode(batch.head, &mut batch.bytes);
        batch.revision = revision;
        batch.changes.push(Change {
            revision,
            time: now,
            writes: record.writes,
        });
        batch.verdicts.push(Ok(revision));
    }
    batch
}

/// Makes a batch true: on the disk first, then in the index, then for everyone to see.
fn put(shared: &Shared, disk: &mut Disk, batch: Batch) -> Result<Vec<Answer>, WriteError> {
    if batch.changes.is_empty() {
        return Ok(batch.verdicts);
    }
    disk.journal
        .append(&batch.bytes, batch.first, batch.before)
        .map_err(WriteError::Journal)?;
    let head = (batch.revision, batch.head);
    disk.head
        .write(batch.revision, batch.head)
        .map_err(WriteError::Head)?;
    pass(Point::StoreAfterHead);
    let writes = batch
        .changes
        .iter()
        .flat_map(|change| change.writes.iter().map(|write| (change.revision, write)));
    let mut view = shared.view.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(index) = &view.index {
        index.apply(writes, head).map_err(WriteError::Index)?;
    }
    pass(Point::StoreAfterIndex);
    for change in &batch.changes {
        stamp(&mut view.stamps, change.revision, &change.writes);
    }
    (view.revision, view.head) = head;
    shared.history.add(batch.changes, batch.revision);
    Ok(batch.verdicts)
}

fn close(shared: &Shared, held: Held) {
    let (index, head) = {
        let mut view = shared.view.write().unwrap_or_else(PoisonError::into_inner);
        (view.index.take(), (view.revision, view.head))
    };
    let disk = match held {
        Ok(disk) => disk,
        // The index may be ahead of what was acknowledged; without a seal it is made anew.
        Err(lock) => {
            drop(index);
            drop(lock);
            return;
        }
    };
    let closed = index.map_or(Ok(()), |index| index.close(&disk.layout, head));
    if let Err(error) = closed {
        tracing::warn!(
            error = chain(&error),
            "the store's index is not sealed; it is rebuilt at the next start"
        );
    }
    if let Err(error) = disk.head.flush() {
        tracing::warn!(
            error = chain(&error),
            "the place of the journal's head is not flushed"
        );
    }
    drop(disk.lock);
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _, os::fd::OwnedFd, path::Path};

    use super::*;
    use crate::store::{Audit, Guard, OpenError, Store, Write, recover};

    fn commit(guards: Vec<Guard>, name: &str, value: &str) -> Commit {
        let key = Key::new(name).unwrap();
        Commit {
            guards,
            writes: vec![Write::Put(key, value.as_bytes().to_vec())],
            audit: Audit::default(),
        }
    }

    fn onto(dir: &Path, file: File) -> Result<Store, OpenError> {
        let mut recovered = recover::open(dir, &Clock::system())?;
        recovered.disk.journal.file = Some(file);
        Ok(Store::start(recovered, Clock::system()))
    }

    async fn expect_failure(dir: &Path, store: Store, reason: &str) {
        for _ in 0..2 {
            let answer = store.commit(commit(vec![], "b", "2")).await;
            let Err(CommitError::Failed { reason: told }) = answer else {
                panic!("{answer:?}")
            };
            assert!(told.contains(reason), "{told}");
        }
        assert!(matches!(store.ended().await, End::Failed(_)));
        assert_eq!(
            store.revision(),
            Revision(1),
            "a commit that was not acknowledged can be seen"
        );
        store.close().await;
        let store = Store::open(dir, Clock::system()).await.unwrap();
        assert_eq!(store.get(&Key::new("a").unwrap()).unwrap().unwrap().value, b"1");
        assert_eq!(store.get(&Key::new("b").unwrap()).unwrap(), None);
    }

    async fn with_one_commit(dir: &Path) {
        Store::create(dir).unwrap();
        let store = Store::open(dir, Clock::system()).await.unwrap();
        store.commit(commit(vec![], "a", "1")).await.unwrap();
        store.close().await;
    }

    #[tokio::test]
    async fn a_full_disk_ends_the_store_and_acknowledges_nothing() {
        let dir = tempfile::tempdir().unwrap();
        with_one_commit(dir.path()).await;
        let full = File::options().write(true).open("/dev/full").unwrap();
        let store = onto(dir.path(), full).unwrap();
        expect_failure(dir.path(), store, "append to").await;
    }

    #[tokio::test]
    async fn a_flush_that_fails_ends_the_store_and_acknowledges_nothing() {
        let dir = tempfile::tempdir().unwrap();
        with_one_commit(dir.path()).await;
        // A pipe takes what is written and cannot be flushed.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let store = onto(dir.path(), OwnedFd::from(writer).into()).unwrap();
        expect_failure(dir.path(), store, "flush").await;
        let mut written = Vec::new();
        reader.read_to_end(&mut written).unwrap();
        assert!(!written.is_empty(), "nothing was written before the flush");
    }

    #[tokio::test]
    async fn what_waits_is_one_batch_and_a_batch_is_bounded() {
        let (requests, mut queue) = mpsc::channel(BATCH + 10);
        for n in 0..BATCH + 3 {
            let request = Request::Commit(
                Box::new(commit(vec![], &format!("k{n}"), "v")),
                oneshot::channel().0,
            );
            requests.try_send(request).map_err(drop).unwrap();
        }
        let (first, more) = gather(&mut queue).await.unwrap();
        assert_eq!((first.len(), more), (BATCH, true));
        requests.try_send(Request::Close).map_err(drop).unwrap();
        let (second, more) = gather(&mut queue).await.unwrap();
        assert_eq!((second.len(), more), (3, false));
        drop(requests);
        assert!(gather(&mut queue).await.is_none());
    }

    #[test]
    fn a_guard_sees_the_commits_before_it_in_the_same_batch() {
        let view = View {
            revision: Revision(7),
            head: Hash([1; 32]),
            stamps: BTreeMap::new(),
            index: None,
        };
        let absent = || vec![Guard::Absent(Key::new("a").unwrap())];
        let commits = vec![
            commit(absent(), "a", "1"),
            commit(absent(), "a", "2"),
            commit(vec![], "b", "3"),
        ];
        let batch = plan(&view, commits, Timestamp::UNIX_EPOCH);
        let conflict = CommitError::Conflict {
            key: Key::new("a").unwrap(),
            stands: Some(Revision(8)),
        };
        assert_eq!(batch.verdicts, [Ok(Revision(8)), Err(conflict), Ok(Revision(9))]);
        assert_eq!(
            (batch.first, batch.revision, batch.changes.len()),
            (Revision(8), Revision(9), 2)
        );
    }

    #[tokio::test]
    async fn many_at_once_each_get_a_revision_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        Store::create(dir.path()).unwrap();
        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        let mut committers = tokio::task::JoinSet::new();
        for n in 0..300 {
            let store = store.clone();
            committers
                .spawn(async move { store.commit(commit(vec![], &format!("k{n}"), "v")).await.unwrap() });
        }
        let mut revisions = committers.join_all().await;
        revisions.sort();
        assert_eq!(revisions, (1..=300).map(Revision).collect::<Vec<_>>());
        assert_eq!(store.load("k").unwrap().len(), 300);
    }
}
