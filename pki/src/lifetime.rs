//! How long things live.

use jiff::{SignedDuration, Timestamp};

/// A CA certificate: ten years, in days.
pub const CA: SignedDuration = SignedDuration::from_hours(3652 * 24);

/// The master's own certificate, which it renews in process.
pub const MASTER: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A host's certificate.
pub const HOST: SignedDuration = SignedDuration::from_hours(7 * 24);

/// An operator's certificate.
pub const OPERATOR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The certificate in a host's bundle.
pub const BUNDLE: SignedDuration = SignedDuration::from_hours(72);

/// How far back a certificate begins, so that a clock that is a little behind accepts it.
pub const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// For how long after its end the certificate in use still lets its host in, to renew and for nothing else: a machine
/// that was off for a holiday comes back by itself.
pub const EXPIRED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// From when and until when something holds, both in whole seconds and both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: Timestamp,
    /// The last second.
    pub not_after: Timestamp,
}

impl Validity {
    /// The validity of something made at `now` that lives for `lifetime`, backdated by [`BACKDATE`].
    #[must_use]
    pub fn starting(now: Timestamp, lifetime: SignedDuration) -> Self {
        Self {
            not_before: whole_seconds(now.saturating_sub(BACKDATE).unwrap_or(now)),
            not_after: whole_seconds(now.saturating_add(lifetime).unwrap_or(now)),
        }
    }

    /// The part of this validity that lies inside `outer`, or `None` when there is none.
    #[must_use]
    pub fn within(&self, outer: &Self) -> Option<Self> {
        let not_before = self.not_before.max(outer.not_before);
        let not_after = self.not_after.min(outer.not_after);
        (not_before < not_after).then_some(Self {
            not_before,
            not_after,
        })
    }
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
