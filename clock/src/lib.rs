//! One source of wall and monotonic time for a daemon, which also feeds its TLS.
//!
//! Only this crate reads a clock. Everything else is handed `now`, or a [`Clock`] at its shell. Under tokio's paused
//! time a [`Clock::simulated`] moves with the pause, and so does the time certificates are checked at.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::UnixTime;
pub use tokio::time::Instant;

/// Wall and monotonic time. Clones share one source.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    /// Wall time is `epoch` plus what tokio's clock has run since `start`, plus `shift` seconds.
    Simulated {
        epoch: Timestamp,
        start: Instant,
        shift: Arc<AtomicI64>,
    },
}

impl Clock {
    /// The machine's own clocks.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A wall clock that starts at `epoch` and follows tokio's clock, paused or not.
    #[must_use]
    pub fn simulated(epoch: Timestamp) -> Self {
        Self(Source::Simulated {
            epoch,
            start: Instant::now(),
            shift: Arc::new(AtomicI64::new(0)),
        })
    }

    /// The same monotonic time with a wall clock that is `seconds` ahead (or behind, when negative).
    /// On the system's clock this is a simulated one that starts from the system's present.
    #[must_use]
    pub fn skewed(&self, seconds: i64) -> Self {
        let shifted = seconds.saturating_add(match &self.0 {
            Source::System => 0,
            Source::Simulated { shift, .. } => shift.load(Ordering::Relaxed),
        });
        let (epoch, start) = match &self.0 {
            Source::System => (self.now(), Instant::now()),
            Source::Simulated { epoch, start, .. } => (*epoch, *start),
        };
        Self(Source::Simulated {
            epoch,
            start,
            shift: Arc::new(AtomicI64::new(shifted)),
        })
    }

    /// Wall time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_now(),
            Source::Simulated { epoch, start, shift } => {
                let run = SignedDuration::try_from(start.elapsed()).unwrap_or(SignedDuration::MAX);
                *epoch + run + SignedDuration::from_secs(shift.load(Ordering::Relaxed))
            }
        }
    }

    /// Monotonic time: never goes back, does not count a suspended machine.
    #[must_use]
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }

    /// Wall time as TLS libraries take it. Before 1970 it is 1970.
    #[must_use]
    pub fn unix(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(
            u64::try_from(self.now().as_second()).unwrap_or(0),
        ))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock(system)",
            Source::Simulated { .. } => "Clock(simulated)",
        })
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the wall clock"
)]
fn system_now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_moves_with_tokio_and_tells_tls_the_same() {
        let epoch: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::simulated(epoch);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.now(), epoch + SignedDuration::from_hours(1));
        assert_eq!(
            i64::try_from(clock.unix().as_secs()).unwrap(),
            clock.now().as_second()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_skewed_clock_differs_on_the_wall_and_not_in_monotonic_time() {
        let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        let ahead = clock.skewed(600);
        assert_eq!(
            ahead.now().duration_since(clock.now()),
            SignedDuration::from_mins(10)
        );
        assert_eq!(ahead.monotonic(), clock.monotonic());
    }
}
