//! Signed heads: how far the journal has come, in the master's word, told outside of the journal.
//!
//! They are signed with the key of the master's own certificate, so that whoever trusts the CA can check one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use picket_pki::{Head, KeyError, SignedHead};

use crate::{
    desk::Desk,
    event::Severity,
    store::{Hash, Revision},
};

/// The kind of the event that carries a head.
pub const KIND: &str = "audit.head";

/// What was told of the journal's head.
#[derive(Debug, Default)]
pub struct Heads {
    /// The revision that was told last.
    told: Mutex<Option<Revision>>,
}

impl Heads {
    fn told(&self) -> MutexGuard<'_, Option<Revision>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Signs a head of the journal as of now.
///
/// # Errors
/// When the key does not sign.
pub fn signed(desk: &Desk, (revision, hash): (Revision, Hash)) -> Result<SignedHead, KeyError> {
    let head = Head {
        trust_domain: desk.signer.trust_domain(),
        lineage: desk.store.lineage().0,
        revision: revision.0,
        hash: hash.0,
        time: desk.now(),
    };
    let own = desk.ca.own();
    SignedHead::sign(head, &own.key, &own.der)
}

/// Tells the head as an event, when the journal has grown since the last one.
pub(super) fn tell(desk: &Desk) {
    let (revision, hash) = desk.store.head();
    if revision == Revision(0) || *desk.heads.told() == Some(revision) {
        return;
    }
    match signed(desk, (revision, hash)) {
        Ok(head) => {
            desk.events
                .say_all(desk.now(), Severity::Info, KIND, "journal", &head.to_string());
            *desk.heads.told() = Some(revision);
        }
        Err(error) => {
            let message = format!(
                "the journal's head is not signed: {}",
                crate::status::chain(&error)
            );
            desk.say(Severity::Alert, "audit.unsigned", "journal", &message);
        }
    }
}
