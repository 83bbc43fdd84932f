//! What time it is at the master, which the ends of activations go by.
//!
//! Its Welcome says so, and from then on the clock that nobody sets tells how much later it is: setting the clock of this
//! machine neither extends an activation nor cuts it short. That is kept, so that it holds after a restart of the agent
//! too. After a restart of the machine the wall clock tells, less what it was ahead of the master's when that was last
//! looked at. A wall clock that is behind what was certainly told is not believed, and no activation goes on by it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use picket_clock::{Clock, Reading};
use picket_durable::FileError;
use picket_proto::document::Problem;
use serde::{Deserialize, Serialize};
use tokio::time;

use crate::sentence;

const LONGEST: u64 = 4096;
/// Less than this is no news: it is not written down.
const NEWS: SignedDuration = SignedDuration::from_secs(1);
/// How old what is written down of how late it certainly is may become: after a restart of the machine nothing else tells
/// that its clock is behind.
const FLOOR: SignedDuration = SignedDuration::from_secs(60);
/// A wall clock may be behind what was told by so much.
const BEHIND: SignedDuration = SignedDuration::from_secs(60);
/// The longest wait before the time is looked at again: a machine that slept does not know how long.
const LOOK: Duration = Duration::from_secs(1);

/// The master's time. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct MasterTime(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    clock: Clock,
    boot_id: String,
    known: Mutex<Option<Known>>,
}

/// The master's time at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    master: Timestamp,
    /// The clocks here at that moment.
    here: Reading,
    /// Which start of the machine boot times count from.
    boot_id: String,
    /// It was certainly so late already.
    told: Timestamp,
}

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is this.
    Known(Timestamp),
    /// It is this or later, and nobody knows how much.
    Doubtful(Timestamp),
}

impl Told {
    pub(crate) fn at(self) -> Timestamp {
        match self {
            Self::Known(at) | Self::Doubtful(at) => at,
        }
    }
}

impl MasterTime {
    /// Goes on from what was kept. What cannot be read is left out, and named.
    pub(crate) fn open(path: PathBuf, clock: Clock) -> (Self, Vec<Problem>) {
        let (known, problems) = match read(&path) {
            Ok(known) => (known, Vec::new()),
            Err(what) => {
                let message = format!(
                    "what was kept of the master's time is of no use ({what}); until the master says, this machine's clock is taken for it"
                );
                (None, vec![Problem::new("time", message)])
            }
        };
        let boot_id = clock.boot_id();
        let known = Mutex::new(known);
        let inner = Inner {
            path,
            clock,
            boot_id,
            known,
        };
        (Self(Arc::new(inner)), problems)
    }

    /// The master's time.
    pub(crate) fn now(&self) -> Told {
        tell(self.known().as_ref(), self.0.clock.reading(), &self.0.boot_id)
    }

    /// Takes the time that the master said when it was asked, at `asked` by the boot clock. It was said later than that:
    /// rather an activation ends by that much too early. What fits what is known already is no news, however long the
    /// answer took.
    pub(crate) async fn said(&self, master: Timestamp, asked: Duration) {
        let now = self.0.clock.reading();
        let waited = signed(now.boot.saturating_sub(asked));
        let here = Reading {
            wall: now.wall.saturating_sub(waited).unwrap_or(now.wall),
            boot: asked,
        };
        let is_news = {
            let known = self.known();
            known
                .as_ref()
                .is_none_or(|known| match tell(Some(known), now, &self.0.boot_id) {
                    Told::Known(at) => known.boot_id != self.0.boot_id || !fits(master, at, waited),
                    Told::Doubtful(_) => true,
                })
        };
        if is_news {
            self.keep(Known {
                master,
                here,
                boot_id: self.0.boot_id.clone(),
                told: master,
            })
            .await;
        }
    }

    /// Looks how late it certainly is by now, and how far the wall clock is from that, for the next start of the machine.
    pub(crate) async fn look(&self) {
        let now = self.0.clock.reading();
        let next = {
            let known = self.known();
            let Some(known) = known.as_ref().filter(|known| known.is_of(&self.0.boot_id, now)) else {
                return;
            };
            let at = tell(Some(known), now, &self.0.boot_id).at();
            let ahead = now.wall.duration_since(at);
            let is_as_before = (ahead - known.here.wall.duration_since(known.master)).abs() <= NEWS;
            if is_as_before && at.duration_since(known.told) < FLOOR {
                return;
            }
            Known {
                master: at,
                here: now,
                told: known.told.max(at),
                ..known.clone()
            }
        };
        self.keep(next).await;
    }

    /// Notes that it is certainly so late: an activation ended.
    pub(crate) async fn passed(&self, at: Timestamp) {
        let next = {
            let known = self.known();
            match known.as_ref().filter(|known| known.told < at) {
                Some(known) => Known {
                    told: at,
                    ..known.clone()
                },
                None => return,
            }
        };
        self.keep(next).await;
    }

    /// Returns when it is `at` at the master.
    pub(crate) async fn reaches(&self, at: Timestamp) {
        loop {
            let left = at.duration_since(self.now().at());
            let Ok(left) = Duration::try_from(left) else {
                return;
            };
            if left.is_zero() {
                return;
            }
            time::sleep(left.min(LOOK)).await;
        }
    }

    /// In force at once, and on disk when it can be.
    async fn keep(&self, known: Known) {
        let bytes = serde_json::to_vec(&known).expect("times always become JSON");
        *self.known() = Some(known);
        let path = self.0.path.clone();
        let written = tokio::task::spawn_blocking(move || picket_durable::write_private(path, &bytes));
        if let Ok(Err(error)) = written.await {
            tracing::error!(error = %sentence(&error), "could not keep the master's time");
        }
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether boot times of this start of the machine can be compared with it.
    fn is_of(&self, boot_id: &str, now: Reading) -> bool {
        self.boot_id == boot_id && !boot_id.is_empty() && now.boot >= self.here.boot
    }
}

/// What time it is at the master, by what is known of it and the clocks here.
fn tell(known: Option<&Known>, now: Reading, boot_id: &str) -> Told {
    let Some(known) = known else {
        return Told::Known(now.wall);
    };
    if known.is_of(boot_id, now) {
        let run = signed(now.boot.saturating_sub(known.here.boot));
        return Told::Known(later(known.master, run).max(known.told));
    }
    let ahead = known.here.wall.duration_since(known.master);
    let corrected = now.wall.saturating_sub(ahead).unwrap_or(now.wall);
    let floor = known.told.max(known.master);
    if floor.duration_since(corrected) > BEHIND {
        return Told::Doubtful(floor);
    }
    Told::Known(corrected.max(floor))
}

/// Whether the master can have said that while it was waited for an answer that came at `at`.
fn fits(master: Timestamp, at: Timestamp, waited: SignedDuration) -> bool {
    let ago = at.duration_since(master);
    -NEWS <= ago && ago <= waited + NEWS
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

fn signed(span: Duration) -> SignedDuration {
    SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}

fn read(path: &PathBuf) -> Result<Option<Known>, String> {
    match picket_durable::read_private(path, LONGEST) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| error.to_string()),
        Err(FileError::Read { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(sentence(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::constant(1_795_000_000, 0);

    struct Machine {
        clock: Clock,
        root: tempfile::TempDir,
        time: MasterTime,
    }

    impl Machine {
        /// A machine whose clock is `ahead` seconds ahead of its master's, at noon there.
        async fn welcomed(ahead: i64) -> Self {
            let clock = Clock::simulated(NOON).skewed(ahead);
            let root = tempfile::tempdir().unwrap();
            let time = MasterTime::open(root.path().join("time.json"), clock.clone()).0;
            time.said(NOON, clock.boot()).await;
            Self { clock, root, time }
        }

        fn restart(&mut self) {
            let path = self.root.path().join("time.json");
            let (time, problems) = MasterTime::open(path, self.clock.clone());
            assert_eq!(problems, []);
            self.time = time;
        }

        /// Seconds after noon, and whether that is sure.
        fn told(&self) -> (i64, bool) {
            let told = self.time.now();
            (
                told.at().duration_since(NOON).as_secs(),
                matches!(told, Told::Known(_)),
            )
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_done_to_the_clock_here_the_masters_time_goes_on_across_restarts_of_the_agent() {
        for ahead in [0, -600, 600] {
            let mut machine = Machine::welcomed(ahead).await;
            time::sleep(Duration::from_secs(10)).await;
            assert_eq!(machine.told(), (10, true));
            machine.clock.jump(-7200);
            machine.restart();
            machine.clock.sleep(Duration::from_secs(60));
            machine.clock.jump(3600);
            assert_eq!(
                machine.told(),
                (70, true),
                "a machine that sleeps does not stop the time"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_reboot_the_wall_clock_tells_less_what_it_was_last_seen_ahead() {
        let mut machine = Machine::welcomed(600).await;
        time::sleep(Duration::from_secs(10)).await;
        machine.clock.reboot();
        machine.restart();
        assert_eq!(machine.told(), (10, true));

        // Somebody set it right: without another look the correction would give the activation ten minutes more.
        let mut machine = Machine::welcomed(600).await;
        machine.clock.jump(-600);
        machine.time.look().await;
        time::sleep(Duration::from_secs(10)).await;
        machine.clock.reboot();
        machine.restart();
        assert_eq!(machine.told(), (10, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_went_back_over_a_reboot_is_not_believed() {
        let mut machine = Machine::welcomed(0).await;
        time::sleep(Duration::from_secs(3600)).await;
        machine.time.look().await;
        machine.clock.reboot();
        machine.clock.jump(-1800);
        machine.restart();
        assert_eq!(machine.told(), (3600, false));
        machine.time.said(NOON, machine.clock.boot()).await;
        assert_eq!(machine.told(), (0, true), "the master knows");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_master_said_is_taken_for_what_it_was_when_it_was_asked() {
        let machine = Machine::welcomed(0).await;
        let asked = machine.clock.boot();
        time::sleep(Duration::from_secs(20)).await;
        machine
            .time
            .said(NOON + SignedDuration::from_secs(100), asked)
            .await;
        assert_eq!(machine.told(), (120, true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_took_long_moves_nothing_and_a_master_whose_time_was_set_does() {
        let machine = Machine::welcomed(0).await;
        let asked = machine.clock.boot();
        time::sleep(Duration::from_secs(8)).await;
        for said_at in [0, 4, 8] {
            machine
                .time
                .said(NOON + SignedDuration::from_secs(said_at), asked)
                .await;
            assert_eq!(machine.told(), (8, true));
        }
        for set in [-7200, 7200] {
            let asked = machine.clock.boot();
            machine
                .time
                .said(NOON + SignedDuration::from_secs(set), asked)
                .await;
            assert_eq!(machine.told(), (set, true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_is_reached_on_time_by_a_machine_that_slept_too() {
        let machine = Machine::welcomed(-300).await;
        let began = time::Instant::now();
        machine.clock.sleep(Duration::from_secs(50));
        machine.time.reaches(NOON + SignedDuration::from_secs(60)).await;
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_named_and_the_clock_here_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("time.json");
        picket_durable::write_private(&path, b"{").unwrap();
        let clock = Clock::simulated(NOON);
        let (time, problems) = MasterTime::open(path, clock);
        assert_eq!(problems.len(), 1);
        assert_eq!(time.now(), Told::Known(NOON));
    }
}
