//! What the agent remembers of the controller, on disk.

use std::{io, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use picket_durable::FileError;
use picket_govern::Memory;
use picket_proto::{beat::MOST_DOCUMENT_BYTES, document::Problem};

use crate::sentence;

/// A rule takes no more room here than a few times what it takes in the document.
const LONGEST: u64 = 8 * MOST_DOCUMENT_BYTES as u64;

/// The memory, and where it is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    path: Arc<PathBuf>,
    pub(super) memory: Memory,
    /// The last write failed.
    behind: bool,
}

impl Kept {
    /// Reads what was kept. Of what cannot be read nothing is believed, and that is named.
    pub(crate) fn open(path: PathBuf, now: Timestamp) -> (Self, Vec<Problem>) {
        let (memory, problems) = match picket_durable::read_private(&path, LONGEST) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(memory) => (memory, Vec::new()),
                Err(error) => (Memory::new(now), vec![damaged(&error.to_string())]),
            },
            Err(FileError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                (Memory::new(now), Vec::new())
            }
            Err(error) => (Memory::new(now), vec![damaged(&sentence(&error))]),
        };
        let kept = Self {
            path: Arc::new(path),
            memory,
            behind: false,
        };
        (kept, problems)
    }

    /// Writes it when there is something new in it.
    pub(super) async fn keep(&mut self) {
        if !self.memory.take_changed() && !self.behind {
            return;
        }
        let bytes = serde_json::to_vec(&self.memory).expect("texts and numbers always become JSON");
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || picket_durable::write_private(&*path, &bytes))
            .await
            .expect("writing a file does not panic");
        if let Err(error) = &written
            && !self.behind
        {
            tracing::error!(error = %sentence(error), "after a restart the agent will not know what it saw of the controller");
        }
        self.behind = written.is_err();
    }
}

fn damaged(what: &str) -> Problem {
    let message = format!(
        "what was remembered of the controller is of no use ({what}); what somebody changed there meanwhile is not told apart from what is wanted anew"
    );
    Problem::new("members", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_damaged_is_named_and_nothing_of_it_believed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("governed.json");
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let (mut kept, problems) = Kept::open(path.clone(), now);
        assert!(problems.is_empty());
        kept.keep().await;
        assert!(!path.exists(), "there is nothing to keep");

        picket_durable::write_private(&path, b"{\"networks\":").unwrap();
        let (kept, problems) = Kept::open(path, now);
        assert_eq!((problems.len(), kept.memory), (1, Memory::new(now)));
    }
}
