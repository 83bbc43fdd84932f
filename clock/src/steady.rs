//! A wall clock that never goes back and follows no jump: the machine's clocks, judged at every look.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::{
    Clock,
    judge::{self, Back, Kept, Known, PROMISE, Reading, Verdict},
};

/// The machine's clocks, and what was judged of them so far. [`Clock::from`] makes a clock of it that tells the judged
/// time.
#[derive(Debug)]
pub struct Steady {
    machine: Clock,
    boot_id: String,
    known: Mutex<Known>,
}

impl Steady {
    /// Goes on from what the run before kept, and from `floor`, a time that was certainly told.
    #[must_use]
    pub fn new(machine: Clock, kept: Option<&Kept>, floor: Option<Timestamp>) -> Self {
        let boot_id = machine.boot_id();
        let known = judge::begin(machine.reading(), &boot_id, kept, floor);
        Self {
            machine,
            boot_id,
            known: Mutex::new(known),
        }
    }

    /// The machine's own clocks.
    #[must_use]
    pub fn machine(&self) -> &Clock {
        &self.machine
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.look().0.wall
    }

    /// The time, and whether the wall clock is believed.
    #[must_use]
    pub fn look(&self) -> (Reading, Verdict) {
        let mut known = self.known();
        let Reading { wall, boot } = self.machine.reading();
        let (next, verdict) = judge::judge(wall, boot, &known);
        *known = next;
        (next.told, verdict)
    }

    /// Takes the wall clock for right, and returns what was known before.
    pub fn accept(&self, back: Back) -> Known {
        let mut known = self.known();
        let accepted = judge::accept(self.machine.reading(), &known, back);
        std::mem::replace(&mut known, accepted)
    }

    /// Takes back an acceptance.
    pub fn restore(&self, before: Known) {
        *self.known() = before;
    }

    /// What to keep for the next start. It holds as long as it is replaced within [`PROMISE`].
    #[must_use]
    pub fn kept(&self) -> Kept {
        let (told, verdict) = self.look();
        Kept {
            known: *self.known(),
            promised: told.wall.saturating_add(PROMISE).unwrap_or(Timestamp::MAX),
            held: verdict != Verdict::Agreed,
            boot_id: self.boot_id.clone(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
