//! One point of the process may be armed. Whoever passes it then goes no further.

use std::{
    panic::resume_unwind,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use rustix::process::{Signal, getpid, kill_process};

use super::Point;

/// Names a point, or a point and how many times it is passed before (`store-after-flush:2`).
pub const ENVIRONMENT: &str = "PICKET_FAILPOINT";

static ARMED: Mutex<Option<Trap>> = Mutex::new(None);

struct Trap {
    point: Point,
    /// How many times it is passed before.
    before: u32,
    act: Act,
    sprung: Arc<AtomicBool>,
}

enum Act {
    Kill,
    /// What is done at the point, before the one who passed it is unwound.
    Do(Box<dyn FnOnce() + Send>),
}

/// An armed point. Dropping it disarms.
#[derive(Debug)]
pub struct Armed(Arc<AtomicBool>);

impl Armed {
    /// Whether somebody came to the point and was ended there.
    #[must_use]
    pub fn is_sprung(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Arms a point of this process, in place of any other: whoever passes it after `before` times does `act` there and goes
/// no further; its thread of work is unwound without a word.
#[must_use]
pub fn arm(point: Point, before: u32, act: impl FnOnce() + Send + 'static) -> Armed {
    let sprung = Arc::new(AtomicBool::new(false));
    set(point, before, Act::Do(Box::new(act)), Arc::clone(&sprung));
    Armed(sprung)
}

/// Arms the point that the environment names: whoever passes it ends the whole process by SIGKILL.
///
/// # Panics
/// When it names none: a test that kills nobody proves nothing.
pub fn arm_from_environment() {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is no setting: no daemon that is installed reads it"
    )]
    let Ok(named) = std::env::var(ENVIRONMENT) else {
        return;
    };
    let (name, before) = named.split_once(':').unwrap_or((&named, "0"));
    match (Point::named(name), before.parse()) {
        (Some(point), Ok(before)) => set(point, before, Act::Kill, Arc::default()),
        (Some(_) | None, _) => panic!("{ENVIRONMENT}={named} names no point"),
    }
}

fn set(point: Point, before: u32, act: Act, sprung: Arc<AtomicBool>) {
    let trap = Trap {
        point,
        before,
        act,
        sprung,
    };
    *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = Some(trap);
}

/// Comes by a point.
pub fn pass(point: Point) {
    let trap = {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *armed {
            Some(trap) if trap.point == point && trap.before == 0 => armed.take(),
            Some(trap) if trap.point == point => {
                trap.before -= 1;
                None
            }
            Some(_) | None => None,
        }
    };
    let Some(trap) = trap else { return };
    match trap.act {
        Act::Kill => {
            // Nothing that can be caught, and nobody is told.
            kill_process(getpid(), Signal::KILL).expect("a process may end itself");
            loop {
                std::thread::park();
            }
        }
        Act::Do(act) => {
            act();
            trap.sprung.store(true, Ordering::Release);
            resume_unwind(Box::new(Crash(point)));
        }
    }
}

/// What a thread of work is unwound with.
#[derive(Debug)]
struct Crash(#[allow(dead_code, reason = "it is printed by whoever catches it")] Point);

/// Comes by a point each time that a future waits.
pub fn pending<F: Future>(point: Point, future: F) -> Pending<F> {
    Pending {
        point,
        future: Box::pin(future),
    }
}

/// A future that comes by a point each time that it waits.
#[derive(Debug)]
pub struct Pending<F> {
    point: Point,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Pending<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = self.future.as_mut().poll(cx);
        if polled.is_pending() {
            pass(self.point);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// The armed point is one for the process, so that this is one test.
    #[test]
    fn an_armed_point_ends_who_passes_it_once_and_after_as_many_times_as_was_said() {
        let (seen, acted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let act = Arc::clone(&acted);
        let armed = arm(Point::StoreAfterFlush, 1, move || {
            act.store(true, Ordering::Release)
        });
        pass(Point::StoreAfterAppend);
        pass(Point::StoreAfterFlush);
        assert!(!armed.is_sprung());
        let ended = catch_unwind(AssertUnwindSafe(|| {
            pass(Point::StoreAfterFlush);
            seen.store(true, Ordering::Release);
        }));
        assert!(ended.is_err() && armed.is_sprung());
        assert!(acted.load(Ordering::Acquire) && !seen.load(Ordering::Acquire));
        pass(Point::StoreAfterFlush);

        let armed = arm(Point::StoreAfterFlush, 0, || {});
        drop(armed);
        pass(Point::StoreAfterFlush);
    }
}
