//! The three pins of a host, and how they follow each other: bundle, pending, current, spent.
//!
//! Plain functions of a record. A key always gets the same certificate back, so a lost reply is harmless; the first
//! call under a pending pin makes it current and drops the others in one commit.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use picket_clock::Instant;
use picket_pki::{Fingerprint, PinKind, lifetime};
use picket_proto::host::HostId;

use crate::record::{HostRecord, MOST_SPENT, Pin, Pins};

/// What to answer to a request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// This key has one: hand out the same.
    Again(Pin),
    /// Sign one and make it pending.
    Issue,
    /// Somebody else used the bundle first, from this address.
    BundleUsed {
        /// Where the first use came from.
        by: String,
    },
    /// The bundle's key travelled; an agent's own key never does.
    BundleKey,
    /// The certificate of the call is none of the host's.
    NotPinned,
    /// It asked for one with another key a moment ago; each costs a record in the journal.
    TooSoon,
}

/// A host, or an operator's device, gets at most one certificate for a new key in this time.
pub const SPACING: SignedDuration = SignedDuration::from_secs(60);

/// So many certificates one of them gets at once, and then one in each [`SPACING`]. Whoever uses each new one at once may ask for
/// another, and each costs a signature, a record in the journal, and the memory of an old one.
const BURST: u32 = 8;
/// So many hosts are remembered before those that have their whole burst again are forgotten.
const MOST_PACED: usize = 1024;

/// How fast hosts get certificates, or others that get them.
#[derive(Debug)]
pub struct Pace<Of = HostId>(Mutex<HashMap<Of, (u32, Instant)>>);

impl<Of> Default for Pace<Of> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Of: Eq + Hash> Pace<Of> {
    /// Whether one of them may have another one at `now`; then it is counted.
    pub fn allows(&self, host: Of, now: Instant) -> bool {
        let spacing = SPACING.unsigned_abs();
        let back = |at: Instant| {
            u32::try_from(now.saturating_duration_since(at).as_secs() / spacing.as_secs()).unwrap_or(u32::MAX)
        };
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= MOST_PACED {
            taken.retain(|_, (many, at)| back(*at) < *many);
        }
        let (many, at) = taken.entry(host).or_insert((0, now));
        let gained = back(*at);
        if gained > 0 {
            (*many, *at) = (many.saturating_sub(gained), now);
        }
        if *many >= BURST {
            return false;
        }
        *many += 1;
        true
    }
}

/// Decides on a request by `key`, made at `now` under the pin with `fingerprint`.
#[must_use]
pub fn renew(pins: &Pins, fingerprint: &Fingerprint, key: &Fingerprint, now: Timestamp) -> Renewal {
    let Some(kind) = kind(pins, fingerprint) else {
        return Renewal::NotPinned;
    };
    if pins.bundle.as_ref().is_some_and(|bundle| &bundle.key == key) {
        return Renewal::BundleKey;
    }
    let known = [&pins.pending, &pins.current]
        .into_iter()
        .flatten()
        .find(|pin| &pin.key == key);
    // One whose time is over is of no use to anybody, least of all to an agent that slept before it could use it: the
    // key gets another. So does that of one whose time has not come, since the master's was taken back.
    let holds = |pin: &&Pin| now < pin.not_after && pin.not_after - lifetime::HOST <= now;
    if let Some(pin) = known.filter(holds) {
        return Renewal::Again(pin.clone());
    }
    let issued = |pin: &Pin| pin.not_after - lifetime::HOST;
    // One from a time that was taken back is not recent, and of no use.
    let recent = |pin: &Pin| issued(pin) <= now && now < issued(pin) + SPACING;
    match (kind, &pins.pending) {
        (PinKind::Bundle, Some(first)) if known.is_none() => Renewal::BundleUsed {
            by: first.from.clone(),
        },
        (_, Some(unused)) if recent(unused) => Renewal::TooSoon,
        (PinKind::Bundle | PinKind::Current | PinKind::Pending | PinKind::Operator, _) => Renewal::Issue,
    }
}

/// Which pin of a host a certificate is.
#[must_use]
pub fn kind(pins: &Pins, fingerprint: &Fingerprint) -> Option<PinKind> {
    let is = |pin: &Option<Pin>| pin.as_ref().is_some_and(|pin| &pin.fingerprint == fingerprint);
    if is(&pins.current) {
        Some(PinKind::Current)
    } else if is(&pins.pending) {
        Some(PinKind::Pending)
    } else if is(&pins.bundle) {
        Some(PinKind::Bundle)
    } else {
        None
    }
}

/// Makes `pin` pending; one that was pending and never used is spent.
pub fn offer(record: &mut HostRecord, pin: Pin) {
    if let Some(unused) = record.pins.pending.replace(pin) {
        spend(&mut record.pins, unused.fingerprint);
    }
}

/// Makes the pending pin current when the call came under it, and spends the others. Returns whether it did.
pub fn promote(record: &mut HostRecord, fingerprint: &Fingerprint) -> bool {
    if kind(&record.pins, fingerprint) != Some(PinKind::Pending) {
        return false;
    }
    let pending = record.pins.pending.take();
    if let Some(before) = record.pins.current.take() {
        spend(&mut record.pins, before.fingerprint);
    }
    if let Some(bundle) = record.pins.bundle.take() {
        spend_bundle(&mut record.pins, &bundle);
    }
    record.pins.current = pending;
    true
}

/// Makes `pin` the bundle's, and spends what the bundle before it led to: itself, and a certificate that was issued and
/// never used. With `cut` the certificate in use as well.
pub fn rebundle(record: &mut HostRecord, pin: Pin, cut: bool) {
    let current = if cut { record.pins.current.take() } else { None };
    if let Some(before) = record.pins.bundle.replace(pin) {
        spend_bundle(&mut record.pins, &before);
    }
    for pin in [record.pins.pending.take(), current].into_iter().flatten() {
        spend(&mut record.pins, pin.fingerprint);
    }
}

fn spend(pins: &mut Pins, fingerprint: Fingerprint) {
    remember(&mut pins.spent, fingerprint);
}

/// Spends a bundle's certificate, and keeps in mind whose key that was.
fn spend_bundle(pins: &mut Pins, bundle: &Pin) {
    spend(pins, bundle.fingerprint);
    pins.bundle_keys.retain(|key| key != &bundle.key);
    remember(&mut pins.bundle_keys, bundle.key);
}

fn remember(list: &mut Vec<Fingerprint>, one: Fingerprint) {
    list.push(one);
    if list.len() > MOST_SPENT {
        list.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use picket_proto::host::Labels;
    use uuid::Uuid;

    use super::*;
    use crate::record::HostStanding;

    /// A time at which the certificates of these stories are good and were not made a moment ago.
    const LATER: Timestamp = Timestamp::UNIX_EPOCH;
    const ENDS: SignedDuration = SignedDuration::from_hours(24);

    fn print(n: u8) -> Fingerprint {
        Fingerprint::of(&[n])
    }

    fn pin(n: u8) -> Pin {
        Pin {
            fingerprint: print(n),
            key: print(100 + n),
            not_after: LATER + ENDS,
            certificate: format!("{n:02x}"),
            from: format!("192.0.2.{n}:1"),
        }
    }

    fn host(pins: Pins) -> HostRecord {
        HostRecord {
            id: HostId(Uuid::from_u128(1)),
            name: "oslo".parse().unwrap(),
            labels: Labels::default(),
            note: String::new(),
            enrolled_at: Timestamp::UNIX_EPOCH,
            standing: HostStanding::Active,
            pins,
            node: None,
            node_standing: Default::default(),
            node_identity: None,
            former_nodes: Vec::new(),
        }
    }

    #[test]
    fn a_lost_reply_is_harmless_because_the_same_key_gets_the_same_certificate() {
        let mut oslo = host(Pins {
            bundle: Some(pin(1)),
            ..Pins::default()
        });
        assert_eq!(renew(&oslo.pins, &print(1), &print(102), LATER), Renewal::Issue);
        offer(&mut oslo, pin(2));
        assert_eq!(
            renew(&oslo.pins, &print(1), &print(102), LATER),
            Renewal::Again(pin(2))
        );
        assert!(promote(&mut oslo, &print(2)));
        assert_eq!(
            renew(&oslo.pins, &print(2), &print(102), LATER),
            Renewal::Again(pin(2))
        );
    }

    #[test]
    fn a_key_whose_certificate_has_ended_gets_another_and_the_old_one_is_spent() {
        let mut oslo = host(Pins {
            bundle: Some(pin(1)),
            ..Pins::default()
        });
        offer(&mut oslo, pin(2));
        let renewal = |at| renew(&oslo.pins, &print(1), &print(102), at);
        assert_eq!(
            renewal(LATER + ENDS - SignedDuration::from_secs(1)),
            Renewal::Again(pin(2))
        );
        assert_eq!(renewal(LATER + ENDS), Renewal::Issue);
        offer(&mut oslo, pin(4));
        assert_eq!(
            (oslo.pins.pending, oslo.pins.spent),
            (Some(pin(4)), vec![print(2)])
        );
    }

    #[test]
    fn a_second_key_under_the_bundle_is_refused_with_the_first_ones_address() {
        let mut oslo = host(Pins {
            bundle: Some(pin(1)),
            ..Pins::default()
        });
        offer(&mut oslo, pin(2));
        let second = renew(&oslo.pins, &print(1), &print(103), LATER);
        assert_eq!(
            second,
            Renewal::BundleUsed {
                by: "192.0.2.2:1".into()
            }
        );
    }

    #[test]
    fn the_bundles_own_key_never_gets_a_certificate() {
        let oslo = host(Pins {
            bundle: Some(pin(1)),
            ..Pins::default()
        });
        assert_eq!(
            renew(&oslo.pins, &print(1), &print(101), LATER),
            Renewal::BundleKey
        );
    }

    #[test]
    fn the_first_call_under_the_pending_pin_leaves_exactly_that_one() {
        let mut oslo = host(Pins {
            bundle: Some(pin(1)),
            current: Some(pin(2)),
            ..Pins::default()
        });
        offer(&mut oslo, pin(3));
        assert!(
            !promote(&mut oslo, &print(2)),
            "a call under current promotes nothing"
        );
        assert!(promote(&mut oslo, &print(3)));
        assert_eq!(oslo.pins.current, Some(pin(3)));
        assert_eq!(
            (oslo.pins.bundle.clone(), oslo.pins.pending.clone()),
            (None, None)
        );
        assert_eq!(oslo.pins.spent, [print(2), print(1)]);
    }

    #[test]
    fn a_new_bundle_spends_the_old_one_and_leaves_the_certificate_in_use_unless_it_is_cut() {
        let before = Pins {
            bundle: Some(pin(1)),
            current: Some(pin(2)),
            pending: Some(pin(3)),
            ..Pins::default()
        };
        let mut kept = host(before.clone());
        rebundle(&mut kept, pin(4), false);
        assert_eq!(
            (kept.pins.bundle, kept.pins.current, kept.pins.pending),
            (Some(pin(4)), Some(pin(2)), None)
        );
        let mut cut = host(before);
        rebundle(&mut cut, pin(4), true);
        assert_eq!(
            (cut.pins.bundle, cut.pins.current, cut.pins.pending),
            (Some(pin(4)), None, None)
        );
        assert_eq!(cut.pins.spent, [print(1), print(3), print(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_uses_each_new_certificate_at_once_gets_a_few_and_then_one_a_minute() {
        let (pace, oslo) = (Pace::default(), HostId(Uuid::from_u128(1)));
        let now = Instant::now();
        let got = |now| (0..100).filter(|_| pace.allows(oslo, now)).count();
        assert_eq!(got(now), 8);
        assert!(
            pace.allows(HostId(Uuid::from_u128(2)), now),
            "nobody waits for another"
        );
        assert_eq!(got(now + std::time::Duration::from_secs(61)), 1);
        assert_eq!(got(now + std::time::Duration::from_secs(3600)), 8);
    }

    #[test]
    fn the_keys_of_bundles_are_kept_in_mind_when_those_are_used_up_and_no_more_than_so_many() {
        let mut oslo = host(Pins {
            bundle: Some(pin(1)),
            ..Pins::default()
        });
        offer(&mut oslo, pin(2));
        promote(&mut oslo, &print(2));
        assert_eq!(oslo.pins.bundle_keys, [print(101)]);
        for n in 3..=60 {
            rebundle(&mut oslo, pin(n), false);
        }
        // A bundle that was lost on the way, and another for the same key.
        rebundle(&mut oslo, pin(60), false);
        rebundle(&mut oslo, pin(61), false);
        let kept: Vec<_> = (29..=60).map(|n| print(100 + n)).collect();
        assert_eq!((oslo.pins.bundle_keys, kept.len()), (kept, MOST_SPENT));
    }

    #[test]
    fn a_host_that_asks_with_key_after_key_is_told_to_wait() {
        let oslo = host(Pins {
            current: Some(pin(1)),
            pending: Some(pin(2)),
            ..Pins::default()
        });
        let issued = pin(2).not_after - lifetime::HOST;
        let asks = |seconds| {
            renew(
                &oslo.pins,
                &print(1),
                &print(103),
                issued + SignedDuration::from_secs(seconds),
            )
        };
        assert_eq!((asks(59), asks(60)), (Renewal::TooSoon, Renewal::Issue));
    }

    #[test]
    fn another_key_under_current_replaces_the_pending_one() {
        let mut oslo = host(Pins {
            current: Some(pin(1)),
            pending: Some(pin(2)),
            ..Pins::default()
        });
        assert_eq!(renew(&oslo.pins, &print(1), &print(103), LATER), Renewal::Issue);
        offer(&mut oslo, pin(3));
        assert_eq!(oslo.pins.pending, Some(pin(3)));
        assert_eq!(oslo.pins.spent, [print(2)]);
    }
}
