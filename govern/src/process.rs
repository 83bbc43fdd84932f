//! Whether the controller's process may have been started anew.
//!
//! A service does not say since when it runs. What it writes down when it starts tells it (the mark: the process id in its
//! home, and when that was written). Without a mark, every moment in which nobody saw it answer may have been a restart.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What was seen of the process since the last sighting; the worse comes after the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// It answered whenever it was asked, and it was asked all the time.
    Answered,
    /// Once it did not answer.
    Missed,
    /// Whoever asks has itself only just begun to.
    Unwatched,
    /// Nobody asked for two minutes or more: the machine slept. To its controller that is like a restart, since no
    /// member has asked it lately.
    Slept,
}

/// What is known of a process that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// What it wrote down when it started, where that can be read.
    pub mark: Option<String>,
    /// What was seen since the last sighting.
    pub watched: Watched,
}

/// A process, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    mark: Option<String>,
    /// Since when it has certainly run without a break.
    pub(crate) since: Timestamp,
}

impl Process {
    /// What is remembered after a sighting.
    pub(crate) fn seen(before: Option<&Self>, sighting: &Sighting, now: Timestamp) -> Self {
        let since = match before {
            Some(before) if !may_be_another(before.mark.as_deref(), sighting) => before.since,
            Some(_) | None => now,
        };
        Self {
            mark: sighting.mark.clone(),
            since,
        }
    }
}

fn may_be_another(before: Option<&str>, sighting: &Sighting) -> bool {
    let same = before
        .zip(sighting.mark.as_deref())
        .map(|(before, mark)| before == mark);
    match sighting.watched {
        Watched::Slept => true,
        Watched::Missed | Watched::Unwatched => same != Some(true),
        Watched::Answered => same == Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_a_restart_and_without_one_only_an_unbroken_watch_tells_that_there_was_none() {
        let sighting = |mark: Option<&str>, watched| Sighting {
            mark: mark.map(str::to_owned),
            watched,
        };
        use Watched::{Answered, Missed, Slept, Unwatched};
        for (before, mark, watched, another) in [
            (None, None, Answered, false),
            (None, None, Missed, true),
            (None, None, Unwatched, true),
            (Some("1"), Some("1"), Missed, false),
            (Some("1"), Some("1"), Unwatched, false),
            (Some("1"), Some("2"), Answered, true),
            (Some("1"), Some("2"), Unwatched, true),
            (Some("1"), None, Answered, false),
            (Some("1"), None, Missed, true),
            (Some("1"), Some("1"), Slept, true),
        ] {
            assert_eq!(
                may_be_another(before, &sighting(mark, watched)),
                another,
                "{before:?} {mark:?} {watched:?}"
            );
        }
    }
}
