//! The master's time: the machine's clock while it is believed, the time since the machine started while it is not.
//!
//! What is known of time is kept in `clock.json` in the data directory, and the journal bounds it from below, so that the
//! time never goes back over a restart either. In: the machine's clocks, an operator's word. Out: a clock for the rest of
//! the master, an alarm, and the refusal to approve anything.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
pub use picket_clock::judge::Back;
use picket_clock::{Clock, Kept, Steady, Verdict};
use picket_durable::FileError;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    desk::{Actor, Desk},
    event::Severity,
    record::{ClockRecord, Record as _},
    refused::Refused,
};

/// How often the clocks are looked at when nobody asks for the time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often what is known is written. A promise of `picket_clock::judge::PROMISE` must not run out meanwhile.
const KEEP_EVERY: u32 = 30;
/// The longest file that is read.
const LONGEST: u64 = 4096;

/// The master's time.
#[derive(Debug)]
pub struct Time {
    steady: Arc<Steady>,
    path: PathBuf,
    held_since: Mutex<Option<Timestamp>>,
}

/// One look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The time.
    pub now: Timestamp,
    /// What the machine's clock says.
    pub machine: Timestamp,
    /// By how much that jumped, ahead when positive; nothing is approved meanwhile.
    pub jumped: Option<SignedDuration>,
    /// Since when.
    pub held_since: Option<Timestamp>,
}

impl Time {
    /// Goes on from what `data_dir` has of the run before, and from `floor`, a time that was certainly told.
    ///
    /// # Errors
    /// When what is known cannot be kept.
    pub fn open(data_dir: &Path, machine: Clock, floor: Option<Timestamp>) -> Result<Self, FileError> {
        let path = data_dir.join("clock.json");
        let kept = match picket_durable::read_private(&path, LONGEST) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes)
                .inspect_err(|error| {
                    tracing::warn!(%error, path = %path.display(), "it makes no sense and is passed over; the journal tells how late it is at least");
                })
                .ok(),
            Err(error) => {
                if path.exists() {
                    tracing::warn!(%error, "it is passed over; the journal tells how late it is at least");
                }
                None
            }
        };
        let time = Self {
            steady: Arc::new(Steady::new(machine, kept.as_ref(), floor)),
            path,
            held_since: Mutex::new(None),
        };
        time.note();
        picket_durable::write_private(&time.path, &time.bytes())?;
        Ok(time)
    }

    /// A clock that tells this time.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock::from(Arc::clone(&self.steady))
    }

    /// What time it is, and whether the machine's clock is believed.
    #[must_use]
    pub fn look(&self) -> Look {
        let (told, verdict) = self.steady.look();
        let jumped = match verdict {
            Verdict::Agreed => None,
            Verdict::Jumped(by) => Some(by),
        };
        Look {
            now: told.wall,
            machine: self.steady.machine().now(),
            jumped,
            held_since: jumped.and(self.held_since().or(Some(told.wall))),
        }
    }

    /// Keeps what is known for the next start.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn keep(&self) -> Result<(), FileError> {
        let (path, bytes) = (self.path.clone(), self.bytes());
        tokio::task::spawn_blocking(move || picket_durable::write_private(path, &bytes))
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.steady.kept()).expect("times and spans are JSON")
    }

    /// Notes since when the time is held. Returns the look when that is news: it began or ended.
    fn note(&self) -> Option<Look> {
        let look = self.look();
        let mut since = self.held_since();
        if since.is_some() == look.jumped.is_some() {
            return None;
        }
        *since = look.jumped.map(|_| look.now);
        Some(look)
    }

    fn held_since(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.held_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the clocks until `stop`, says when one jumped and when they agree again, and keeps what is known.
pub async fn watch(desk: Arc<Desk>, stop: CancellationToken) {
    let at_start = desk.time.look();
    if at_start.jumped.is_some() {
        say(&desk, &at_start);
    }
    let mut looks = 0;
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            () = time::sleep(LOOK_EVERY) => false,
        };
        looks += 1;
        let news = desk.time.note();
        if let Some(look) = &news {
            say(&desk, look);
        }
        if (stopped || news.is_some() || looks % KEEP_EVERY == 0)
            && let Err(error) = desk.time.keep().await
        {
            tracing::warn!(%error, "what the time is could not be kept for the next start; tried again");
        }
        if stopped {
            return;
        }
    }
}

fn say(desk: &Desk, look: &Look) {
    match look.jumped {
        Some(by) => desk.say(Severity::Alert, "clock.jumped", "master", &told(look, by)),
        None => desk.say(
            Severity::Notice,
            "clock.agreed",
            "master",
            "the machine's clock is believed again",
        ),
    }
}

/// What happened to the clock, and what to do.
fn told(look: &Look, by: SignedDuration) -> String {
    let direction = if by.is_positive() { "ahead" } else { "back" };
    format!(
        "the clock of the master's machine jumped {direction} by {} s and says {:.0}, while by the time since the machine \
         started it is {:.0}; nothing is approved and nothing ends by the clock until it is set right, or until \
         `picketctl clock accept --reason REASON` when it is right",
        by.abs().as_secs(),
        look.machine,
        look.now,
    )
}

impl Desk {
    /// Whether anything may be granted, and any identity issued that was not there before. Renewals go on.
    ///
    /// # Errors
    /// While the machine's clock is not believed.
    pub fn may_approve(&self) -> Result<(), Refused> {
        let look = self.time.look();
        match look.jumped {
            None => Ok(()),
            Some(by) => Err(Refused::NotNow(told(&look, by))),
        }
    }

    /// Takes the machine's clock for right.
    ///
    /// # Errors
    /// When that cannot be kept; then it is not taken.
    pub(crate) async fn accept_clock(&self, actor: &Actor, reason: &str, back: Back) -> Result<(), Refused> {
        let look = self.time.look();
        if look.jumped.is_none() {
            return Ok(());
        }
        let went_back = back == Back::GoBack && look.machine < look.now;
        let record = ClockRecord {
            was: look.now,
            machine: look.machine,
            went_back,
            by: actor.name().to_owned(),
            reason: reason.to_owned(),
        };
        let audit = actor.does("clock.accept", format!("{:.0}", look.machine), reason);
        if went_back {
            // The journal's last record bounds the time of the next start from below, so it has the time from here on.
            let before = self.time.steady.accept(back);
            if let Err(error) = self.commit(Vec::new(), vec![record.put()], audit).await {
                self.time.steady.restore(before);
                return Err(error.into());
            }
        } else {
            self.commit(Vec::new(), vec![record.put()], audit).await?;
            self.time.steady.accept(back);
        }
        let message = format!(
            "the clock of the master's machine, {:.0}, was accepted by {}; the master went by {:.0}{}: {reason}",
            look.machine,
            actor.name(),
            look.now,
            if went_back { " and its time went back" } else { "" },
        );
        self.say(Severity::Alert, "clock.accepted", "master", &message);
        // The master's own certificate may be of a time that has not come.
        self.ca.changed();
        self.time.note();
        self.time.keep().await.map_err(Refused::Time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, machine: &Clock, floor: Option<Timestamp>) -> Time {
        Time::open(dir, machine.clone(), floor).unwrap()
    }

    fn machine() -> Clock {
        Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_of_the_machine_and_a_clock_that_went_back_a_minute_do_not_take_time_back() {
        let (dir, machine) = (tempfile::tempdir().unwrap(), machine());
        let time = open(dir.path(), &machine, None);
        time::sleep(LOOK_EVERY * KEEP_EVERY).await;
        let told = time.look().now;
        drop(time);
        machine.reboot();
        machine.jump(-60);
        let time = open(dir.path(), &machine, None);
        assert!(time.look().now >= told, "{} and then {}", told, time.look().now);
    }

    #[tokio::test(start_paused = true)]
    async fn without_its_file_the_master_is_no_earlier_than_its_journal() {
        let (dir, machine) = (tempfile::tempdir().unwrap(), machine());
        let journal = machine.now() + SignedDuration::from_hours(5);
        let look = open(dir.path(), &machine, Some(journal)).look();
        assert_eq!((look.now, look.jumped.is_some()), (journal, true));
        std::fs::write(dir.path().join("clock.json"), "{").unwrap();
        let look = open(dir.path(), &machine, Some(journal)).look();
        assert_eq!((look.now, look.jumped.is_some()), (journal, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_while_the_master_was_down_is_seen_at_its_start_and_over_the_next() {
        let (dir, machine) = (tempfile::tempdir().unwrap(), machine());
        drop(open(dir.path(), &machine, None));
        machine.jump(7200);
        for _ in 0..2 {
            let look = open(dir.path(), &machine, None).look();
            assert_eq!(look.jumped, Some(SignedDuration::from_hours(2)));
            assert_eq!(
                look.machine.duration_since(look.now),
                SignedDuration::from_hours(2)
            );
        }
    }
}
