//! The audit trail: the journal, as far as it says who did what.
//!
//! Every change carries its entry in its own commit ([`changing`] adds how it was and how it is); every refused change is
//! a commit of an entry alone ([`refusal`], counted where it repeats itself); how far the journal had come is signed and
//! told as an event every minute in which it grew ([`head`]), so that it is known outside of the journal too.

pub mod asked;
pub mod head;
pub mod kept;
pub mod refusal;
mod shown;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    desk::Desk,
    store::{Audit, Store, Write},
};

/// How often repeated refusals are written down, and a head is told when the journal has grown.
pub const EVERY: Duration = Duration::from_secs(60);

/// The entry of a change, with how what it writes was before, and how it is after.
#[must_use]
pub fn changing(store: &Store, writes: &[Write], audit: Audit) -> Audit {
    let standing = |write: &Write| match store.get(write.key()) {
        Ok(entry) => entry.map(|entry| entry.value),
        // Of a value that the index lost, the entry says so; the change itself is decided by the guards.
        Err(error) => Some(format!("unreadable: {error}").into_bytes()),
    };
    let before: Vec<_> = writes.iter().map(standing).collect();
    let (before, after) = shown::described(writes, &before);
    Audit {
        before,
        after,
        ..audit
    }
}

/// Writes down what repeats itself and tells heads, until `stop`.
pub async fn keep(desk: Arc<Desk>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        settle(&desk).await;
    }
}

/// Writes down what was counted, and tells how far the journal has come.
pub async fn settle(desk: &Desk) {
    refusal::settle(desk).await;
    head::tell(desk);
}
