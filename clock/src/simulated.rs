//! Clocks of machines that are not there: they follow tokio's clock, paused or not, and can be set, sent to sleep and
//! started anew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// One machine's clocks. Wall time is `epoch` plus what tokio's clock has run since `start`, plus what was slept, plus
/// `shift` seconds.
#[derive(Clone)]
pub(crate) struct Simulated {
    epoch: Timestamp,
    start: Instant,
    shift: Arc<AtomicI64>,
    /// How long the machines of the simulation slept, in milliseconds.
    slept: Arc<AtomicU64>,
    boot: Arc<Boot>,
}

#[derive(Default)]
struct Boot {
    count: AtomicU64,
    /// What the simulation had run at the last start, in milliseconds.
    began: AtomicU64,
}

impl Simulated {
    pub(crate) fn new(epoch: Timestamp) -> Self {
        Self {
            epoch,
            start: Instant::now(),
            shift: Arc::default(),
            slept: Arc::default(),
            boot: Arc::default(),
        }
    }

    /// Another machine of the simulation.
    pub(crate) fn skewed(&self, seconds: i64) -> Self {
        let shift = seconds.saturating_add(self.shift.load(Ordering::Relaxed));
        Self {
            shift: Arc::new(AtomicI64::new(shift)),
            boot: Arc::default(),
            ..self.clone()
        }
    }

    pub(crate) fn jump(&self, seconds: i64) {
        self.shift.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(crate) fn sleep(&self, span: Duration) {
        self.slept.fetch_add(millis(span), Ordering::Relaxed);
    }

    pub(crate) fn reboot(&self) {
        self.boot.count.fetch_add(1, Ordering::Relaxed);
        self.boot.began.store(millis(self.run()), Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Timestamp {
        let run = SignedDuration::try_from(self.run()).unwrap_or(SignedDuration::MAX);
        self.epoch + run + SignedDuration::from_secs(self.shift.load(Ordering::Relaxed))
    }

    pub(crate) fn boot(&self) -> Duration {
        let began = Duration::from_millis(self.boot.began.load(Ordering::Relaxed));
        self.run().saturating_sub(began)
    }

    pub(crate) fn boot_id(&self) -> String {
        let machine = Arc::as_ptr(&self.boot).addr();
        format!(
            "simulated-{machine:x}-{}",
            self.boot.count.load(Ordering::Relaxed)
        )
    }

    /// What the simulation has run, asleep or not.
    fn run(&self) -> Duration {
        self.start.elapsed() + Duration::from_millis(self.slept.load(Ordering::Relaxed))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
