//! Recent changes in memory, and those who follow them.
//!
//! There is no queue per follower: a [`Watch`] is a place in the one bounded history. Who is slower than the history is
//! long learns that by [`Compacted`] and reads again; nobody makes a commit wait.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    commit::{Revision, Write},
    record::weight,
};

/// So many commits can happen between two turns of a follower: some seconds of the fastest disk.
pub(super) const HISTORY_COUNT: usize = 4096;
/// The same in bytes of keys and values, so that large values do not fill the memory.
pub(super) const HISTORY_BYTES: usize = 8 << 20;

/// What a commit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The commit.
    pub revision: Revision,
    /// When the master made it, by its wall clock.
    pub time: Timestamp,
    /// Those of its writes that the follower asked for.
    pub writes: Vec<Write>,
}

/// The changes after some revision are not all in memory; load and follow again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the changes after revision {from} are not all in memory (those after {floor} are); load the state again"
)]
pub struct Compacted {
    /// Where the follower stands.
    pub from: Revision,
    /// The earliest place from which the history is whole.
    pub floor: Revision,
}

/// How a store ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was closed.
    Closed,
    /// It could not write, for this reason, and takes no more commits.
    Failed(Arc<str>),
}

#[derive(Debug)]
pub(super) struct History {
    past: Mutex<Past>,
    /// Says that there is something to look at.
    latest: watch::Sender<Latest>,
}

#[derive(Clone, Debug, Default)]
struct Latest {
    revision: Revision,
    end: Option<End>,
}

#[derive(Debug)]
struct Past {
    /// Everything after this revision is here.
    floor: Revision,
    latest: Revision,
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
}

impl History {
    pub(super) fn new(revision: Revision) -> Self {
        let past = Past {
            floor: revision,
            latest: revision,
            changes: VecDeque::new(),
            bytes: 0,
        };
        let (latest, _) = watch::channel(Latest { revision, end: None });
        Self {
            past: Mutex::new(past),
            latest,
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        // Every change of it is complete before anything can panic.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds changes, which are the next revisions up to `latest`, and forgets what is too old.
    pub(super) fn add(&self, changes: impl IntoIterator<Item = Change>, latest: Revision) {
        let mut past = self.past();
        for change in changes {
            // An audit entry alone is nothing to follow.
            if !change.writes.is_empty() {
                past.bytes += weight(&change.writes);
                past.changes.push_back(Arc::new(change));
            }
        }
        past.latest = latest;
        while past.changes.len() > 1 && (past.changes.len() > HISTORY_COUNT || past.bytes > HISTORY_BYTES) {
            if let Some(oldest) = past.changes.pop_front() {
                past.bytes -= weight(&oldest.writes);
                past.floor = oldest.revision;
            }
        }
    }

    /// Wakes the followers.
    pub(super) fn announce(&self, revision: Revision) {
        self.latest.send_modify(|latest| latest.revision = revision);
    }

    /// Nothing follows. The first reason stays.
    pub(super) fn end(&self, end: End) {
        self.latest
            .send_modify(|latest| latest.end = latest.end.take().or(Some(end)));
    }

    pub(super) fn ended(&self) -> Option<End> {
        self.latest.borrow().end.clone()
    }

    /// Waits for the end.
    pub(super) async fn until_ended(&self) -> End {
        let mut latest = self.latest.subscribe();
        match latest.wait_for(|latest| latest.end.is_some()).await {
            Ok(latest) => latest.end.clone().unwrap_or(End::Closed),
            // The sender is ours, so it is there.
            Err(_) => End::Closed,
        }
    }

    /// The first change after `from` that `prefix` is concerned with, or how far there is none.
    fn after(&self, from: Revision, prefix: &str) -> Result<Result<Change, Revision>, Compacted> {
        let past = self.past();
        if from < past.floor || from > past.latest {
            return Err(Compacted {
                from,
                floor: past.floor,
            });
        }
        let first = past.changes.partition_point(|change| change.revision <= from);
        let ours = |write: &&Write| write.key().as_str().starts_with(prefix);
        let found = past
            .changes
            .range(first..)
            .find(|change| change.writes.iter().any(|write| ours(&write)));
        Ok(found.map_or(Err(past.latest), |change| {
            let writes = change.writes.iter().filter(ours).cloned().collect();
            Ok(Change {
                revision: change.revision,
                time: change.time,
                writes,
            })
        }))
    }

    pub(super) fn follow(self: &Arc<Self>, prefix: &str, from: Revision) -> Result<Watch, Compacted> {
        self.after(from, prefix)?.ok();
        Ok(Watch {
            latest: self.latest.subscribe(),
            history: Arc::clone(self),
            prefix: prefix.to_owned(),
            at: from,
        })
    }
}

/// Follows the changes below a prefix, in their order and without a gap.
#[derive(Debug)]
pub struct Watch {
    history: Arc<History>,
    latest: watch::Receiver<Latest>,
    prefix: String,
    at: Revision,
}

impl Watch {
    /// The next change; `None` when the store has ended and nothing follows. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the follower was slower than the history is long. Load and follow again.
    pub async fn next(&mut self) -> Result<Option<Change>, Compacted> {
        loop {
            let ended = self.latest.borrow_and_update().end.is_some();
            match self.history.after(self.at, &self.prefix)? {
                Ok(change) => {
                    self.at = change.revision;
                    return Ok(Some(change));
                }
                Err(seen) => self.at = seen,
            }
            if ended || self.latest.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Everything up to here was handed out, or did not concern the prefix.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::commit::Key;

    fn change(revision: u64, key: &str, len: usize) -> Change {
        let write = Write::Put(Key::new(key).unwrap(), vec![0; len]);
        Change {
            revision: Revision(revision),
            time: Timestamp::UNIX_EPOCH,
            writes: vec![write],
        }
    }

    fn add(history: &History, changes: Vec<Change>) {
        let last = changes.last().unwrap().revision;
        history.add(changes, last);
        history.announce(last);
    }

    #[tokio::test]
    async fn a_watch_tells_only_of_its_prefix_and_in_order() {
        let history = Arc::new(History::new(Revision(0)));
        let mut watch = history.follow("a/", Revision(0)).unwrap();
        add(
            &history,
            vec![
                change(1, "a/1", 1),
                change(2, "b/1", 1),
                change(3, "a/2", 1),
                change(4, "b/2", 1),
            ],
        );
        assert_eq!(watch.next().await.unwrap().unwrap().revision, Revision(1));
        assert_eq!(watch.next().await.unwrap().unwrap().revision, Revision(3));
        history.end(End::Closed);
        assert_eq!(watch.next().await.unwrap(), None);
        assert_eq!(watch.revision(), Revision(4));
    }

    #[tokio::test]
    async fn a_watch_that_is_too_slow_is_told_and_the_history_stays_bounded() {
        let history = Arc::new(History::new(Revision(0)));
        let mut slow = history.follow("", Revision(0)).unwrap();
        let count = HISTORY_COUNT as u64;
        add(&history, (1..=count).map(|n| change(n, "k", 1)).collect());
        assert_eq!(slow.next().await.unwrap().unwrap().revision, Revision(1));
        add(
            &history,
            (count + 1..=count + 2).map(|n| change(n, "k", 1)).collect(),
        );
        let compacted = Compacted {
            from: Revision(1),
            floor: Revision(2),
        };
        assert_eq!(slow.next().await, Err(compacted));
        assert_eq!(history.follow("", Revision(1)).unwrap_err(), compacted);
        assert!(history.follow("", Revision(2)).is_ok());
        assert!(
            history.follow("", Revision(count + 3)).is_err(),
            "a revision that was not reached"
        );

        let large = HISTORY_BYTES / 3;
        add(
            &history,
            (count + 3..=count + 6).map(|n| change(n, "k", large)).collect(),
        );
        let past = history.past();
        assert!(
            past.bytes <= HISTORY_BYTES && past.changes.len() < 4,
            "{} bytes",
            past.bytes
        );
    }
}
