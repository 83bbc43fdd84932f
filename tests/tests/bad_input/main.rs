//! What the real programs answer to input that is no good: one clear sentence that says what to do, an exit code that
//! is not zero, and nothing changed. The sentences are snapshots, so that a reviewer reads what an operator will.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod beats;
mod bundles;
mod ca_key;
mod data_directory;
mod reach;
mod settings;
mod site_files;
mod words;

use std::path::{Path, PathBuf};

use picket_tests::process::{Plain, Said, Tree};

/// Answers to what was typed, one after the other, and what must stay as it is meanwhile.
struct Answers {
    plain: Plain,
    kept: Vec<PathBuf>,
    text: Vec<String>,
}

impl Answers {
    /// Nothing in `kept` may change.
    fn keeping(plain: Plain, kept: &[&Path]) -> Self {
        Self {
            plain,
            kept: kept.iter().map(|path| path.to_path_buf()).collect(),
            text: Vec::new(),
        }
    }

    /// Takes the answer to `typed` down. It is a refusal, and changes nothing.
    #[track_caller]
    fn refusal(&mut self, typed: &str, answer: impl FnOnce() -> Said) {
        let trees = || self.kept.iter().map(|path| Tree::of(path)).collect::<Vec<_>>();
        let before = trees();
        let said = answer();
        assert_ne!(said.code, Some(0), "{typed}: {}", said.stdout);
        assert!(
            said.code.is_some() && !said.stderr.contains("panicked"),
            "{typed}: {}",
            said.stderr
        );
        assert_eq!(before, trees(), "{typed} changed something");
        self.text.push(self.plain.answer(typed, &said));
    }

    fn text(&self) -> String {
        self.text.join("\n\n")
    }
}

/// Compares with what a reviewer has read.
macro_rules! read_by_people {
    ($name:literal, $answers:expr) => {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!($name, $answers.text())
        })
    };
}
use read_by_people;
