//! One source of wall and monotonic time for a daemon, which also feeds its TLS.
//!
//! Only this crate reads a clock. Everything else is handed `now`, or a [`Clock`] at its shell. Under tokio's paused
//! time a [`Clock::simulated`] moves with the pause, and so does the time certificates are checked at.

pub mod judge;
mod simulated;
mod steady;

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls_pki_types::UnixTime;
pub use tokio::time::Instant;

use self::simulated::Simulated;
pub use self::{
    judge::{Kept, Reading, Verdict},
    steady::Steady,
};

/// Wall and monotonic time. Clones share one source.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Simulated(Simulated),
    Steady(Arc<Steady>),
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
        Self(Source::Simulated(Simulated::new(epoch)))
    }

    /// The same monotonic time with a wall clock that is `seconds` ahead (or behind, when negative) and from here on
    /// jumps by itself.
    /// On the system's clock this is a simulated one that starts from the system's present.
    #[must_use]
    pub fn skewed(&self, seconds: i64) -> Self {
        Self(Source::Simulated(match &self.0 {
            Source::System => Simulated::new(self.now()).skewed(seconds),
            Source::Simulated(simulated) => simulated.skewed(seconds),
            Source::Steady(steady) => return steady.machine().skewed(seconds),
        }))
    }

    /// Sets the wall clock ahead by `seconds`, or back when negative, as somebody does who sets a machine's clock. Only a
    /// simulated one can be set.
    pub fn jump(&self, seconds: i64) {
        if let Some(simulated) = self.simulation() {
            simulated.jump(seconds);
        }
    }

    /// Lets the machines of a simulation sleep: wall and boot time of this clock and of all that were made from it, or
    /// that it was made from, go on, and the monotonic time of tokio does not.
    pub fn sleep(&self, span: Duration) {
        if let Some(simulated) = self.simulation() {
            simulated.sleep(span);
        }
    }

    /// Starts the simulated machine anew: boot time begins at nought.
    pub fn reboot(&self) {
        if let Some(simulated) = self.simulation() {
            simulated.reboot();
        }
    }

    fn simulation(&self) -> Option<&Simulated> {
        match &self.0 {
            Source::System => None,
            Source::Simulated(simulated) => Some(simulated),
            Source::Steady(steady) => steady.machine().simulation(),
        }
    }

    /// Wall time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_now(),
            Source::Simulated(simulated) => simulated.now(),
            Source::Steady(steady) => steady.now(),
        }
    }

    /// Monotonic time: never goes back, does not count a suspended machine.
    #[must_use]
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }

    /// Time since the machine started, with the time it was suspended. Nobody can set it.
    #[must_use]
    pub fn boot(&self) -> Duration {
        match &self.0 {
            Source::System => system_boot(),
            Source::Simulated(simulated) => simulated.boot(),
            Source::Steady(steady) => steady.machine().boot(),
        }
    }

    /// What tells one start of the machine from another; empty when that is not known.
    #[must_use]
    pub fn boot_id(&self) -> String {
        match &self.0 {
            Source::System => {
                let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
                id.unwrap_or_default().trim().to_owned()
            }
            Source::Simulated(simulated) => simulated.boot_id(),
            Source::Steady(steady) => steady.machine().boot_id(),
        }
    }

    /// Wall and boot time of one moment.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let mut boot = self.boot();
        let mut reading = Reading {
            wall: self.now(),
            boot,
        };
        // Whoever is put aside between the two looks would see a jump where there is none.
        for _ in 0..READ_AGAIN {
            boot = self.boot();
            if boot.saturating_sub(reading.boot) < READ_WITHIN {
                break;
            }
            reading = Reading {
                wall: self.now(),
                boot,
            };
        }
        reading
    }

    /// Wall time as TLS libraries take it. Before 1970 it is 1970.
    #[must_use]
    pub fn unix(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(
            u64::try_from(self.now().as_second()).unwrap_or(0),
        ))
    }
}

/// Two looks at two clocks are of one moment when they are no further apart.
const READ_WITHIN: Duration = Duration::from_secs(1);
/// How often the clocks are read again when they are not.
const READ_AGAIN: usize = 3;

impl From<Arc<Steady>> for Clock {
    fn from(steady: Arc<Steady>) -> Self {
        Self(Source::Steady(steady))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock(system)",
            Source::Simulated(_) => "Clock(simulated)",
            Source::Steady(_) => "Clock(steady)",
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

fn system_boot() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(at.tv_sec).unwrap_or(0),
        u32::try_from(at.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

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

    #[tokio::test(start_paused = true)]
    async fn a_jump_moves_one_wall_clock_and_a_sleep_those_of_all_machines_with_their_boot_time() {
        let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        let other = clock.skewed(0);
        let (before, boot) = (clock.now(), clock.boot());
        clock.jump(-90);
        assert_eq!(clock.now(), before - SignedDuration::from_secs(90));
        assert_eq!((other.now(), clock.boot()), (before, boot));
        other.sleep(Duration::from_secs(100));
        assert_eq!(clock.now(), before + SignedDuration::from_secs(10));
        assert_eq!(clock.boot(), boot + Duration::from_secs(100));
        other.reboot();
        assert_ne!(other.boot_id(), clock.boot_id());
        assert_eq!(other.boot(), Duration::ZERO);
    }

    #[test]
    fn the_machines_boot_time_goes_on_and_belongs_to_one_boot() {
        let clock = Clock::system();
        let first = clock.boot();
        assert!(first > Duration::ZERO && clock.boot() >= first);
        assert_eq!(clock.boot_id(), clock.boot_id());
    }
}
