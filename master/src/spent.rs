//! The use of a certificate that opens nothing any more: it may be a stolen bundle, or a copy of an old disk.
//!
//! The handshake finds it out where no address is known, and answers by an alert alone; so it leaves a note with the task
//! that shakes hands, and that one knows from where.

use std::{cell::Cell, net::IpAddr};

use picket_pki::{Fingerprint, Standing};

use crate::{desk::Desk, event::Severity};

tokio::task_local! {
    static SHOWN: Cell<Option<Fingerprint>>;
}

/// Shakes hands, and returns beside the result the spent certificate that was shown, if one was.
pub(crate) async fn watching<T>(handshake: impl Future<Output = T>) -> (T, Option<Fingerprint>) {
    SHOWN
        .scope(Cell::new(None), async {
            let done = handshake.await;
            (done, SHOWN.with(Cell::get))
        })
        .await
}

/// Notes what a handshake was told of a certificate.
pub(crate) fn note(fingerprint: &Fingerprint, standing: Standing) {
    if standing == Standing::Spent {
        // Whoever asks outside of a handshake has nobody to tell.
        SHOWN
            .try_with(|shown| shown.set(Some(*fingerprint)))
            .unwrap_or_default();
    }
}

/// Says that a certificate of a host was shown from `address` that opens nothing any more, and from where the one was
/// asked for that took its place.
pub(crate) fn report(desk: &Desk, fingerprint: &Fingerprint, address: IpAddr, count: u64) {
    let (name, first) = {
        let views = desk.views.read();
        let Some(host) = views.roster.of_pin(fingerprint) else {
            return;
        };
        let pins = &host.record.pins;
        let used = pins.current.as_ref().or(pins.pending.as_ref());
        let first = used.map_or_else(|| "nowhere".to_owned(), |pin| pin.from.clone());
        (host.record.name.clone(), first)
    };
    let message = format!(
        "a bundle or certificate of this host that opens nothing any more was shown from {address} ({count} times within a \
         minute); the certificate in its place was asked for from {first}. If that is not this machine, the bundle was \
         stolen: `picketctl host bundle {name} --cut --out FILE`, and enroll the machine again"
    );
    desk.say(Severity::Alert, "certificate.spent", name.as_str(), &message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_spent_certificate_is_noted_with_the_handshake_that_showed_it_and_no_other() {
        let print = Fingerprint::of(b"old");
        let ((), shown) = watching(async { note(&print, Standing::Spent) }).await;
        assert_eq!(shown, Some(print));
        let ((), shown) = watching(async { note(&print, Standing::Unknown) }).await;
        assert_eq!(shown, None);
        note(&print, Standing::Spent);
    }
}
