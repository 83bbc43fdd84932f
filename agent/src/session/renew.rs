//! When a certificate is renewed, and how: in a session at half its life, and before any session when it has ended.
//!
//! An ended certificate may renew and nothing else, so no session is tried under it. Spans are counted in boot time: a
//! machine that slept for a week has waited for a week.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use picket_clock::Instant;
use tonic::transport::Channel;

use super::{Session, Which, blocking};
use crate::{
    identity::{Identity, IdentityStore},
    master::{self, MasterError},
};

/// The least time between two renewals that our own clock asks for.
const LEAST: Duration = Duration::from_secs(3600);
/// How long to wait before a renewal that failed is tried again, a tenth more or less, and before the master's word starts
/// another.
const AGAIN: Duration = Duration::from_secs(60);

/// Has a certificate signed for a key that is stored before it is sent, and keeps it as the next identity.
pub(super) async fn renew(channel: Channel, store: IdentityStore, base: Identity) -> Result<(), MasterError> {
    let (keys, host) = (store.clone(), base.host);
    let key = blocking(move || keys.next_key(host)).await?;
    let next = master::renew(channel, &key, &base).await?;
    Ok(blocking(move || store.keep_next(&next)).await?)
}

impl Session {
    /// Whether the identity is to be renewed before a session is tried: its certificate has ended by the clock here. On a
    /// machine whose clock is days ahead every new one has, and then the master's word counts.
    pub(super) fn has_ended(&self, identity: &Identity) -> bool {
        identity.not_after < self.reach.clock.now() && self.rested(LEAST)
    }

    /// Whether a master that takes no session under an identity may be asked to renew it: its clock may be right, and the
    /// one here behind.
    pub(super) fn may_be_ended(&self, error: &MasterError) -> bool {
        error.is_denied() && self.rested(AGAIN)
    }

    fn rested(&self, span: Duration) -> bool {
        let boot = self.reach.clock.boot();
        self.renewed.is_none_or(|last| boot.saturating_sub(last) >= span)
    }
}

/// When the certificate in use is to be renewed.
pub(super) struct Due {
    wall: Timestamp,
    at: Instant,
    tried: bool,
}

impl Due {
    /// At half life, give or take a tenth, for an identity that was renewed last at `renewed` of boot time.
    pub(super) fn new(session: &Session, identity: &Identity) -> Self {
        let clock = &session.reach.clock;
        let jitter = fastrand::f64() * 2.0 - 1.0;
        let now = clock.now();
        let wait = identity.renew_at(jitter).duration_since(now);
        let mut wait = Duration::try_from(wait).unwrap_or(Duration::ZERO);
        // On a machine whose clock is days ahead every new certificate looks old.
        if let Some(last) = session.renewed {
            wait = wait.max((last + LEAST).saturating_sub(clock.boot()));
        }
        if let Some(within) = identity.moves_within() {
            wait = wait.min(within.mul_f64(fastrand::f64()));
        }
        // The master that takes this one does not know the newer one, whose files are here.
        if session.which == Which::Previous {
            wait = Duration::ZERO;
        }
        let later = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        Self {
            wall: now.saturating_add(later).unwrap_or(Timestamp::MAX),
            at: Instant::now() + wait,
            tried: false,
        }
    }

    /// On the clock that does not jump.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Looks at the wall clock: a machine that slept is past a time to which the other clock has not come.
    pub(super) fn look(&mut self, now: Timestamp) {
        if !self.tried && now >= self.wall {
            self.at = Instant::now();
        }
    }

    /// At some time within this span, unless it is due before: another CA signs from here on.
    pub(super) fn hurry(&mut self, within: Duration) {
        if !self.tried {
            self.at = self.at.min(Instant::now() + within.mul_f64(fastrand::f64()));
        }
    }

    /// It is on its way.
    pub(super) fn begin(&mut self) {
        self.tried = true;
        // Later than any session lasts.
        self.at = Instant::now() + Duration::from_secs(10 * 365 * 24 * 3600);
    }

    /// It failed.
    pub(super) fn fail(&mut self) {
        self.at = Instant::now() + AGAIN.mul_f64(0.9 + 0.2 * fastrand::f64());
    }
}
