//! Waiting for a state, with a bound, and saying what was seen last when it does not come.

use std::{thread, time::Duration};

use picket_clock::{Clock, Instant};

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Looks until `look` finds what it looks for.
///
/// # Panics
/// When that takes longer than `bound`, with what was seen last.
#[track_caller]
pub fn until<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = elapsed();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(
                began() < bound,
                "waited {} s for {what}; seen last: {seen}",
                bound.as_secs()
            ),
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Tells the time since it was made.
pub fn elapsed() -> impl Fn() -> Duration {
    let clock = Clock::system();
    let began: Instant = clock.monotonic();
    move || clock.monotonic().duration_since(began)
}
