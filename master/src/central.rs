//! Networks that ZeroTier Central governs: the master itself makes their members what the grants say.
//!
//! In: that something was decided, the time, what Central answers. Out: what Central has, in the words in which a host's
//! controller tells it, so that whoever looks need not know the difference. Nobody else ends an activation there.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use picket_proto::status::ControllerStatus;
use tokio::sync::{Notify, watch};

use crate::{network_watch::Told, record::network::Governor, store::Revision};

/// Why nothing can be done in Central, and what to do.
pub const NOT_CONFIGURED: &str = "this master has no account in ZeroTier Central; give it the token of one, as \
    `token_file` in the section `central` of its settings, and start it again";
/// How often Central is looked at while nothing is decided.
pub const EVERY: Duration = Duration::from_secs(60);

/// What operators are told before they rely on it.
const CAUTION: &str = "ZeroTier Central governs this network: the master ends activations there, and while it does not run, or \
    does not reach Central, they go on";

/// What an operator has to know of a network with activations; nothing where its controller ends them by itself.
#[must_use]
pub fn caution(governor: Governor) -> Option<&'static str> {
    match governor {
        Governor::Host(_) => None,
        Governor::Central(_) => Some(CAUTION),
    }
}

/// What is known of Central.
#[derive(Debug)]
pub struct Central {
    configured: bool,
    seen: Mutex<Option<ControllerStatus>>,
    told: Mutex<Told>,
    followed: watch::Sender<Revision>,
    due: Notify,
}

impl Central {
    /// Nothing is known yet. Without an account, nothing ever is.
    #[must_use]
    pub fn new(configured: bool) -> Self {
        Self {
            configured,
            seen: Mutex::default(),
            told: Mutex::default(),
            followed: watch::Sender::new(Revision(0)),
            due: Notify::new(),
        }
    }

    /// Whether there is an account.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.configured
    }

    /// What Central said last.
    #[must_use]
    pub fn seen(&self) -> Option<ControllerStatus> {
        lock(&self.seen).clone()
    }

    /// Notes that something was decided.
    pub fn nudge(&self) {
        self.due.notify_one();
    }

    /// Returns when something was decided.
    pub async fn nudged(&self) {
        self.due.notified().await;
    }

    /// Takes in what Central said, after a pass over what was decided up to `revision`.
    pub fn saw(&self, status: ControllerStatus, revision: Revision) {
        *lock(&self.seen) = Some(status);
        self.followed.send_replace(revision);
    }

    /// Whether a pass was made over what was decided at `revision`.
    #[must_use]
    pub fn has_followed(&self, revision: Revision) -> bool {
        *self.followed.borrow() >= revision
    }

    /// What was told of it.
    #[must_use]
    pub fn told(&self) -> Told {
        lock(&self.told).clone()
    }

    /// Notes what was told of it.
    pub fn remember(&self, told: Told) {
        *lock(&self.told) = told;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
