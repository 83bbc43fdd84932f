//! Jittered, capped waiting between attempts.

use std::time::Duration;

/// How long to wait before the next attempt: full jitter under an exponential ceiling.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    attempt: u32,
}

impl Backoff {
    /// Ceilings run from `first` and double up to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            attempt: 0,
        }
    }

    /// The next wait: anywhere between nothing and the present ceiling, never less than a tenth of `first`.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(fastrand::f64()).max(self.first / 10)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    fn ceiling(&self) -> Duration {
        self.first
            .saturating_mul(2_u32.saturating_pow(self.attempt))
            .min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_between_a_tenth_of_the_first_and_the_most() {
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(20));
        let mut backoff = Backoff::new(first, most);
        for _ in 0..200 {
            let wait = backoff.next_wait();
            assert!(wait >= first / 10 && wait <= most, "{wait:?}");
        }
    }

    #[test]
    fn the_ceiling_doubles_until_the_cap_and_a_success_starts_it_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(20));
        let mut seen = Vec::new();
        for _ in 0..7 {
            seen.push(backoff.ceiling().as_secs());
            backoff.next_wait();
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 20, 20]);
        backoff.reset();
        assert_eq!(backoff.ceiling().as_secs(), 1);
    }
}
