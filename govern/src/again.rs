//! Deauthorizations that the controller may have lost, and that are therefore made again.
//!
//! Members learn of a deauthorization only from a controller that they have asked since it started. One that is made right
//! after a start reaches nobody, and the member goes on until its credentials run out. Asking for it again does nothing,
//! since the record says so already: the record has to be changed there and back.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long after a controller's start a deauthorization may reach nobody: by then every member has asked.
pub const SETTLING: SignedDuration = SignedDuration::from_mins(2);
/// How long the credentials of a member are good at the others.
pub const CREDENTIALS: SignedDuration = SignedDuration::from_mins(30);
/// How long a record stays authorized when it is changed there and back.
pub(crate) const BETWEEN: Duration = Duration::from_secs(1);
/// So many are done in one go, so that none is let on for longer than that, and a kill in between waits no longer.
pub(crate) const AT_ONCE: usize = 64;

/// A deauthorization of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// When it was made, or made again.
    pub(crate) at: Timestamp,
    /// It is about to be made again. This is kept before anything is done: whoever finds the record authorized after a
    /// crash knows who did that.
    #[serde(default)]
    pub(crate) reopened: bool,
}

impl Cut {
    pub(crate) fn new(at: Timestamp) -> Self {
        Self { at, reopened: false }
    }

    /// Whether the member's credentials may still be good somewhere.
    pub(crate) fn is_recent(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) < CREDENTIALS
    }

    /// When it has to be made again, by a controller that has run since then; none when it surely arrived.
    pub(crate) fn again_at(&self, since: Timestamp) -> Option<Timestamp> {
        let settled = since.saturating_add(SETTLING).unwrap_or(Timestamp::MAX);
        (self.at < settled && self.is_recent(settled)).then_some(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    #[test]
    fn what_was_cut_before_members_had_time_to_ask_is_cut_again_once_they_had() {
        assert_eq!(Cut::new(at(10)).again_at(at(0)), Some(at(120)));
        assert_eq!(Cut::new(at(-60)).again_at(at(0)), Some(at(120)));
        assert_eq!(Cut::new(at(120)).again_at(at(0)), None, "it arrived");
    }

    #[test]
    fn what_was_cut_so_long_ago_that_no_credential_is_left_is_not_cut_again() {
        assert_eq!(Cut::new(at(120 - 1800)).again_at(at(0)), None);
        assert!(Cut::new(at(121 - 1800)).again_at(at(0)).is_some());
    }
}
