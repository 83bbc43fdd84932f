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
    Commit(Commit, oneshot::Sender<Answer>),
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

/// Runs until the store is closed, or no handle is left.
pub(super) async fn run(
    shared: Arc<Shared>,
    disk: Disk,
    clock: Clock,
    mut requests: mpsc::Receiver<Request>,
) {
    let mut disk = Some(disk);
    while let Some((commits, more)) = gather(&mut requests).await {
        let now = clock.now();
        match disk.take() {
            Some(held) if !commits.is_empty() => disk = write(&shared, held, commits, now).await,
            Some(held) => disk = Some(held),
            None => {
                for (_, answer) in commits {
                    reply(answer, Err(shared.refusal()));
                }
            }
        }
        if !more {
            break;
        }
    }
    requests.close();
    let closing = Arc::clone(&shared);
    let closed = tokio::task::spawn_blocking(move || close(&closing, disk)).await;
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
                commits.push((commit, answer));
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

/// Writes a batch and answers. Returns the disk, unless it failed.
async fn write(
    shared: &Arc<Shared>,
    mut disk: Disk,
    commits: Vec<(Commit, oneshot::Sender<Answer>)>,
    now: Timestamp,
) -> Option<Disk> {
    let (commits, answers): (Vec<_>, Vec<_>) = commits.into_iter().unzip();
    let blocking = Arc::clone(shared);
    let written = tokio::task::spawn_blocking(move || {
        let batch = {
            let view = blocking.view.read().unwrap_or_else(PoisonError::into_inner);
            plan(&view, commits, now)
        };
        let verdicts = put(&blocking, &mut disk, batch)?;
        Ok::<_, WriteError>((disk, verdicts))
    });
    let reason = match written.await {
        Ok(Ok((disk, verdicts))) => {
            shared.history.announce(shared.revision());
            for (answer, verdict) in answers.into_iter().zip(verdicts) {
                reply(answer, verdict);
            }
            return Some(disk);
        }
        Ok(Err(error)) => chain(&error),
        Err(error) => format!("the thread that writes the journal ended: {error}"),
    };
    tracing::error!(%reason, "the store takes no more commits");
    shared.history.end(End::Failed(reason.into()));
    for answer in answers {
        reply(answer, Err(shared.refusal()));
    }
    None
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
    let writes = batch
        .changes
        .iter()
        .flat_map(|change| change.writes.iter().map(|write| (change.revision, write)));
    let mut view = shared.view.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(index) = &view.index {
        index.apply(writes, head).map_err(WriteError::Index)?;
    }
    for change in &batch.changes {
        stamp(&mut view.stamps, change.revision, &change.writes);
    }
    (view.revision, view.head) = head;
    shared.history.add(batch.changes, batch.revision);
    Ok(batch.verdicts)
}

fn close(shared: &Shared, disk: Option<Disk>) {
    let (index, head) = {
        let mut view = shared.view.write().unwrap_or_else(PoisonError::into_inner);
        (view.index.take(), (view.revision, view.head))
    };
    // Without a disk there was an error, and the index may be ahead of what is known.
    let Some(disk) = disk else { return };
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
