//! Signed heads: how far the journal has come, in the master's word, told outside of the journal.
//!
//! The key is made at the start and kept nowhere; its certificate is one of the master's own, so that whoever trusts the
//! CA can check a head, and the CA signs once in half a certificate's life and not once a minute.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use picket_pki::{Head, Key, SignedHead, lifetime};

use crate::{
    desk::Desk,
    event::Severity,
    signer::SignerError,
    store::{Hash, Revision},
};

/// The kind of the event that carries a head.
pub const KIND: &str = "audit.head";

/// Signs heads.
#[derive(Debug)]
pub struct Heads {
    /// The master's first name, which is all that its certificate needs.
    name: Vec<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    signing: Option<Signing>,
    /// The revision that was told last.
    told: Option<Revision>,
}

#[derive(Debug)]
struct Signing {
    key: Key,
    certificate: Vec<u8>,
    /// When another one is made.
    until: Timestamp,
}

impl Heads {
    /// For a master of these names.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        Self {
            name: names.iter().take(1).cloned().collect(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A state that was left half way makes another key at most.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Signs a head of the journal as of now.
///
/// # Errors
/// When the CA does not sign a certificate, or the key does not sign.
pub fn signed(desk: &Desk, (revision, hash): (Revision, Hash)) -> Result<SignedHead, SignerError> {
    let now = desk.now();
    let mut state = desk.heads.state();
    let signing = match state.signing.take() {
        Some(signing) if now < signing.until => signing,
        Some(_) | None => {
            let (certificate, key) = desk.signer.master(&desk.heads.name, now)?;
            Signing {
                key,
                certificate: certificate.der,
                until: now + lifetime::MASTER / 2,
            }
        }
    };
    let head = Head {
        trust_domain: desk.signer.trust_domain().clone(),
        lineage: desk.store.lineage().0,
        revision: revision.0,
        hash: hash.0,
        time: now,
    };
    let head = SignedHead::sign(head, &signing.key, &signing.certificate);
    state.signing = Some(signing);
    Ok(head?)
}

/// Tells the head as an event, when the journal has grown since the last one.
pub(super) fn tell(desk: &Desk) {
    let (revision, hash) = desk.store.head();
    if revision == Revision(0) || desk.heads.state().told == Some(revision) {
        return;
    }
    match signed(desk, (revision, hash)) {
        Ok(head) => {
            desk.events
                .say_all(desk.now(), Severity::Info, KIND, "journal", &head.to_string());
            desk.heads.state().told = Some(revision);
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
