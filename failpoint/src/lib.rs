//! Named places where a test ends a daemon as a crash would.
//!
//! Code passes a point with [`pass`], or wraps a future in [`pending`]. Without the feature `armed`, and in every build
//! without debug assertions, both are nothing. With it a story arms one point in its own process, and a daemon that is a
//! process of its own kills itself at the point that `PICKET_FAILPOINT` names.

mod point;

pub use point::{Point, Side};

#[cfg(all(feature = "armed", debug_assertions))]
mod armed;

#[cfg(all(feature = "armed", debug_assertions))]
pub use armed::{Armed, ENVIRONMENT, arm, arm_from_environment, pass, pending};

#[cfg(not(all(feature = "armed", debug_assertions)))]
mod absent {
    use super::Point;

    /// Nothing.
    #[inline(always)]
    pub const fn pass(_: Point) {}

    /// The future itself.
    #[inline(always)]
    pub const fn pending<F: Future>(_: Point, future: F) -> F {
        future
    }

    /// Nothing.
    #[inline(always)]
    pub const fn arm_from_environment() {}
}

#[cfg(not(all(feature = "armed", debug_assertions)))]
pub use absent::{arm_from_environment, pass, pending};
