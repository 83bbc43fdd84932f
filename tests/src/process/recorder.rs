//! What `picket-recorder` writes down, and where it does.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::program::{Program, command};

/// A change that a master acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// There is a host.
    Enrolled {
        /// Its name.
        host: String,
    },
    /// A host carries the label `round`.
    Labelled {
        /// Its name.
        host: String,
        /// The label's value.
        value: String,
    },
    /// A host has a note.
    Noted {
        /// Its name.
        host: String,
        /// The note.
        note: String,
    },
    /// A node may be on a network.
    Admitted {
        /// The network's id.
        network: String,
        /// The node's id.
        node: String,
    },
}

/// A process that makes changes without end.
#[derive(Debug)]
pub struct Recorder {
    program: Program,
    ledger: PathBuf,
}

impl Recorder {
    /// Starts `binary` as the operator of `bundle`; it keeps its files in `root`. (Cargo builds this package's own
    /// programs with its tests, and tells the tests alone where they are.)
    #[must_use]
    #[track_caller]
    pub fn start(binary: &str, bundle: &Path, root: &Path, network: &str) -> Self {
        let ledger = root.join("acknowledged");
        let mut command = command(Path::new(binary));
        command.arg(bundle).arg(&ledger).arg(network);
        Self {
            program: Program::start("the recorder", &mut command, &root.join("recorder.log")),
            ledger,
        }
    }

    /// How many changes were acknowledged so far.
    ///
    /// # Panics
    /// When the recorder has ended.
    #[track_caller]
    pub fn count(&mut self) -> usize {
        assert!(
            self.program.ended().is_none(),
            "the recorder ended: {}",
            self.program.log()
        );
        fs::read(&self.ledger)
            .unwrap_or_default()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
    }

    /// Ends it, and returns everything that was acknowledged.
    ///
    /// # Panics
    /// When a line cannot be read.
    #[must_use]
    #[track_caller]
    pub fn end(mut self) -> Vec<Change> {
        self.program.kill();
        let text = fs::read_to_string(&self.ledger).expect("the recorder's file can be read");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("the recorder writes whole lines"))
            .collect()
    }
}
