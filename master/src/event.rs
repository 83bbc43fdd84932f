//! What happened, for people: a bounded list with ids that only count up, kept on disk and streamed to watchers.
//!
//! Events are soft state. What must not be lost is in the store's journal; an event tells about it.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use picket_proto::plain;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// The most events kept, in memory and in each of the two files on disk.
pub const MOST_KEPT: usize = 10_000;
/// How far a watcher may fall behind before it is told so.
const MOST_BEHIND: usize = 1024;
/// How many events may wait to be written. A fleet of 15,000 coming back at once fits.
const MOST_WAITING: usize = 32_768;
/// How many events may be told and not written when the master is killed: one batch. Ids jump by that at a start.
const MOST_LOST: u64 = BATCH as u64;
/// How many events are written at once.
const BATCH: usize = 256;
/// The longest message kept.
const MOST_TEXT: usize = 512;
/// The longest that is kept whole: a signed head has about 1,200 characters, and comes once a minute at most.
const MOST_WHOLE: usize = 4096;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is as it should be.
    Info,
    /// Someone changed something.
    Notice,
    /// Something is not as it should be.
    Warning,
    /// Someone should look now.
    Alert,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up by one.
    pub id: u64,
    /// When.
    pub time: Timestamp,
    /// How much it matters.
    pub severity: Severity,
    /// A dotted word, `host.offline`.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// One sentence.
    pub message: String,
}

/// The kept events and those who watch.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<Kept>,
    live: broadcast::Sender<Arc<Event>>,
    to_disk: mpsc::Sender<Arc<Event>>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    last: u64,
}

/// Why events cannot be kept on disk.
#[derive(Debug, thiserror::Error)]
#[error("keep events at {}; see that the directory is there and writable", path.display())]
pub struct EventError {
    path: PathBuf,
    #[source]
    cause: std::io::Error,
}

/// The end that writes events to disk.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
    lines: usize,
    queue: mpsc::Receiver<Arc<Event>>,
}

impl Events {
    /// Reads what was kept in `dir` and goes on from there. Lines that cannot be read are passed over.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn open(dir: &Path) -> Result<(Self, EventFile), EventError> {
        let [_, path] = files(dir);
        let wrong = |cause| EventError {
            path: path.clone(),
            cause,
        };
        let mut kept = Kept::default();
        let mut lines = 0;
        for file in files(dir) {
            lines = 0;
            let Ok(file) = File::open(&file) else { continue };
            for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
                lines += 1;
                if let Ok(event) = serde_json::from_slice::<Event>(&line)
                    && event.id > kept.last
                {
                    kept.push(Arc::new(event));
                }
            }
        }
        // Ids that were told and not written are not given out again.
        kept.last += if kept.last == 0 { 0 } else { MOST_LOST };
        let mut file = append(&path).map_err(wrong)?;
        // A line that a crash cut off does not swallow the next.
        file.write_all(b"\n").map_err(wrong)?;
        let (to_disk, queue) = mpsc::channel(MOST_WAITING);
        let events = Self {
            kept: Mutex::new(kept),
            live: broadcast::Sender::new(MOST_BEHIND),
            to_disk,
        };
        Ok((
            events,
            EventFile {
                path,
                file,
                lines,
                queue,
            },
        ))
    }

    /// Says that something happened.
    pub fn say(&self, time: Timestamp, severity: Severity, kind: &str, subject: &str, message: &str) {
        self.tell(time, severity, kind, subject, plain(message, MOST_TEXT));
    }

    /// Says something that is worth nothing when it is cut.
    pub fn say_all(&self, time: Timestamp, severity: Severity, kind: &str, subject: &str, message: &str) {
        self.tell(time, severity, kind, subject, plain(message, MOST_WHOLE));
    }

    fn tell(&self, time: Timestamp, severity: Severity, kind: &str, subject: &str, message: String) {
        let mut kept = self.kept();
        let event = Arc::new(Event {
            id: kept.last + 1,
            time,
            severity,
            kind: kind.to_owned(),
            subject: plain(subject, MOST_TEXT),
            message,
        });
        kept.push(Arc::clone(&event));
        // Under the lock, so that watchers see ids in order. Nobody watching is fine.
        drop(self.live.send(Arc::clone(&event)));
        drop(kept);
        match event.severity {
            Severity::Info | Severity::Notice => {
                tracing::info!(kind, subject = event.subject, "{}", event.message)
            }
            Severity::Warning => tracing::warn!(kind, subject = event.subject, "{}", event.message),
            Severity::Alert => tracing::error!(kind, subject = event.subject, "{}", event.message),
        }
        if self.to_disk.try_send(event).is_err() {
            tracing::warn!("an event is not kept on disk; the disk does not keep up");
        }
    }

    /// The events after `after` that `wanted` takes, oldest first; the newest `limit` of them.
    pub fn list(&self, after: u64, limit: usize, wanted: impl Fn(&Event) -> bool) -> Vec<Arc<Event>> {
        let kept = self.kept();
        let mut found: Vec<_> = kept
            .events
            .iter()
            .rev()
            .take_while(|e| e.id > after)
            .filter(|e| wanted(e))
            .take(limit)
            .cloned()
            .collect();
        found.reverse();
        found
    }

    /// The events after `after`, and a stream of those that follow without a gap. Without `after`, only what follows.
    pub fn watch(&self, after: Option<u64>) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let kept = self.kept();
        let live = self.live.subscribe();
        let before = match after {
            Some(after) => kept
                .events
                .iter()
                .filter(|event| event.id > after)
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        (before, live)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn push(&mut self, event: Arc<Event>) {
        self.last = event.id;
        self.events.push_back(event);
        if self.events.len() > MOST_KEPT {
            self.events.pop_front();
        }
    }
}

impl EventFile {
    /// Writes events as they come, until the sender is gone, or until `stop` and what waits then is written.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                taken = self.queue.recv_many(&mut batch, BATCH) => if taken == 0 { return },
                () = stop.cancelled() => return,
            }
            let taken = std::mem::take(&mut batch);
            let task = tokio::task::spawn_blocking(move || {
                let written = self.write(&taken);
                (self, written)
            });
            match task.await {
                Ok((file, written)) => {
                    self = file;
                    if let Err(error) = written {
                        tracing::warn!(%error, "events are not kept on disk");
                    }
                }
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, events: &[Arc<Event>]) -> std::io::Result<()> {
        let mut text = Vec::new();
        for event in events {
            serde_json::to_writer(&mut text, &**event)?;
            text.push(b'\n');
        }
        if self.lines >= MOST_KEPT {
            fs::rename(&self.path, older(&self.path))?;
            self.file = append(&self.path)?;
            self.lines = 0;
        }
        self.lines += events.len();
        self.file.write_all(&text)
    }
}

/// Where events are kept, the older file first.
pub(crate) fn files(dir: &Path) -> [PathBuf; 2] {
    let path = dir.join("events.jsonl");
    [older(&path), path]
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("older.jsonl")
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(events: &Events, kind: &str) {
        events.say(Timestamp::UNIX_EPOCH, Severity::Info, kind, "oslo", "it happened");
    }

    #[tokio::test]
    async fn an_id_that_was_told_before_a_restart_is_not_told_again() {
        let dir = tempfile::tempdir().unwrap();
        let (events, file) = Events::open(dir.path()).unwrap();
        say(&events, "host.online");
        say(&events, "host.late");
        drop(events);
        file.run(CancellationToken::new()).await;
        let (events, _file) = Events::open(dir.path()).unwrap();
        say(&events, "host.offline");
        let ids: Vec<_> = events
            .list(0, 10, |_| true)
            .iter()
            .map(|event| (event.id, event.kind.clone()))
            .collect();
        assert_eq!(
            ids,
            [
                (1, "host.online".into()),
                (2, "host.late".into()),
                (3 + MOST_LOST, "host.offline".into())
            ]
        );
    }

    #[tokio::test]
    async fn a_watcher_gets_what_was_kept_and_what_follows_without_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let (events, _file) = Events::open(dir.path()).unwrap();
        say(&events, "one");
        say(&events, "two");
        let (before, mut live) = events.watch(Some(1));
        say(&events, "three");
        assert_eq!(before.iter().map(|event| event.id).collect::<Vec<_>>(), [2]);
        assert_eq!(live.recv().await.unwrap().id, 3);
    }

    #[tokio::test]
    async fn the_list_is_bounded_and_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let (events, _file) = Events::open(dir.path()).unwrap();
        (0..MOST_KEPT + 5).for_each(|_| say(&events, "host.online"));
        let all = events.list(0, usize::MAX, |_| true);
        assert_eq!((all.len(), all[0].id), (MOST_KEPT, 6));
        assert_eq!(events.list(0, 2, |_| true).len(), 2);
    }
}
