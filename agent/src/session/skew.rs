//! How far the clock here is from the master's: known at Welcome, and from then on by the clock that nobody sets.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use picket_clock::Clock;
use picket_proto::document::Problem;

/// More than this is complained of.
const MOST: i64 = 60;
/// A complaint is renewed when the difference changed by more.
const NEWS: i64 = 10;

/// The master's time at one moment.
pub(super) struct Skew {
    master: Timestamp,
    boot: Duration,
    told: i64,
}

impl Skew {
    /// What the master's Welcome says.
    pub(super) fn new(master: Timestamp, clock: &Clock) -> Self {
        Self {
            master,
            boot: clock.boot(),
            told: 0,
        }
    }

    /// Compares the clocks. Returns what to complain of when that is news; an empty list withdraws it.
    pub(super) fn look(&mut self, clock: &Clock) -> Option<Vec<Problem>> {
        let run = SignedDuration::try_from(clock.boot().saturating_sub(self.boot)).ok()?;
        let master = self.master.saturating_add(run).ok()?;
        let ahead = clock.now().duration_since(master).as_secs();
        let ahead = if ahead.abs() > MOST { ahead } else { 0 };
        if ahead == self.told || (ahead != 0 && self.told != 0 && (ahead - self.told).abs() <= NEWS) {
            return None;
        }
        self.told = ahead;
        Some(problems(ahead))
    }
}

fn problems(ahead: i64) -> Vec<Problem> {
    if ahead == 0 {
        return Vec::new();
    }
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    vec![Problem::new(
        "clock",
        format_args!(
            "the clock here is {} s {direction} the master's; set the one that is wrong",
            ahead.abs()
        ),
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_jump_while_a_session_is_open_is_noticed_once_and_withdrawn_when_it_is_undone() {
        let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
        let mut skew = Skew::new(clock.now(), &clock);
        assert!(skew.look(&clock).is_none());
        clock.jump(-600);
        let told = skew.look(&clock).unwrap();
        assert!(told[0].to_string().contains("600 s behind"), "{}", told[0]);
        clock.sleep(Duration::from_secs(3600));
        assert!(
            skew.look(&clock).is_none(),
            "sleeping is no jump, and it was told"
        );
        clock.jump(600);
        assert!(skew.look(&clock).unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_is_not_worth_a_word() {
        let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
        for (seconds, told) in [(60, false), (-60, false), (61, true), (-61, true)] {
            let mut skew = Skew::new(clock.now(), &clock.skewed(0));
            assert_eq!(skew.look(&clock.skewed(seconds)).is_some(), told, "{seconds}");
        }
    }
}
