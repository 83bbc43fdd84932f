//! Expired is not lost: what becomes of a host whose certificate has ended.
//!
//! The handshake lets the certificate in use knock for [`lifetime::EXPIRED`] after its end. Here is what that is worth:
//! its host may renew, and nothing else; operators see that it has no better one.

use jiff::Timestamp;
use picket_pki::{PinKind, lifetime};

use crate::record::{HostRecord, HostStanding, Pin};

/// What the end of a certificate means for the calls under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It has not ended.
    No,
    /// It has, and its host may renew.
    Renewable,
    /// It opens nothing any more.
    Lost,
}

/// Judges a certificate that stands as `pin` and holds until `not_after`.
#[must_use]
pub fn ended(pin: PinKind, not_after: Timestamp, now: Timestamp) -> Ended {
    match pin {
        _ if now <= not_after => Ended::No,
        PinKind::Current if now <= renewable_until(not_after) => Ended::Renewable,
        PinKind::Current | PinKind::Bundle | PinKind::Pending | PinKind::Operator => Ended::Lost,
    }
}

/// Until when a certificate that was in use can be renewed.
#[must_use]
pub fn renewable_until(not_after: Timestamp) -> Timestamp {
    not_after
        .saturating_add(lifetime::EXPIRED)
        .unwrap_or(Timestamp::MAX)
}

/// What operators are told of a host that has only a certificate that ended.
#[must_use]
pub fn condition(host: &HostRecord, now: Timestamp) -> Option<String> {
    if host.standing != HostStanding::Active {
        return None;
    }
    let holds = |pin: &Option<Pin>| pin.as_ref().is_some_and(|pin| now <= pin.not_after);
    let current = host.pins.current.as_ref()?;
    if [&host.pins.current, &host.pins.pending, &host.pins.bundle]
        .into_iter()
        .any(holds)
    {
        return None;
    }
    let (end, name) = (current.not_after, &host.name);
    let until = renewable_until(end);
    Some(match ended(PinKind::Current, end, now) {
        Ended::No => return None,
        Ended::Renewable => format!(
            "certificate: it ended on {end:.0}; its agent may only renew it until {until:.0}, and does so when it is back"
        ),
        Ended::Lost => format!(
            "certificate: it ended on {end:.0} and could be renewed until {until:.0}; enroll it again with \
             `picketctl host bundle {name} --out FILE`"
        ),
    })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use picket_pki::Fingerprint;
    use picket_proto::host::{HostId, Labels};
    use uuid::Uuid;

    use super::*;
    use crate::record::Pins;

    const END: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn after(days: i64) -> Timestamp {
        END + SignedDuration::from_hours(24 * days)
    }

    fn pin(not_after: Timestamp) -> Option<Pin> {
        Some(Pin {
            fingerprint: Fingerprint::of(b"certificate"),
            key: Fingerprint::of(b"key"),
            not_after,
            certificate: String::new(),
            from: String::new(),
        })
    }

    fn host(pins: Pins) -> HostRecord {
        HostRecord {
            id: HostId(Uuid::from_u128(1)),
            name: "oslo".parse().unwrap(),
            labels: Labels::default(),
            note: String::new(),
            enrolled_at: END,
            standing: HostStanding::Active,
            pins,
            node: None,
            node_standing: Default::default(),
            node_identity: None,
            former_nodes: Vec::new(),
        }
    }

    #[test]
    fn the_certificate_in_use_may_be_renewed_for_30_days_after_its_end_and_no_other() {
        for (days, want) in [
            (0, Ended::No),
            (1, Ended::Renewable),
            (30, Ended::Renewable),
            (31, Ended::Lost),
        ] {
            assert_eq!(ended(PinKind::Current, END, after(days)), want, "day {days}");
        }
        for pin in [PinKind::Bundle, PinKind::Pending, PinKind::Operator] {
            assert_eq!(ended(pin, END, after(0)), Ended::No);
            assert_eq!(ended(pin, END, after(1)), Ended::Lost, "{pin:?}");
        }
    }

    #[test]
    fn a_host_with_only_an_expired_certificate_says_until_when_it_may_renew_and_then_how_to_get_in() {
        let oslo = host(Pins {
            current: pin(END),
            ..Pins::default()
        });
        assert_eq!(condition(&oslo, after(0)), None);
        let renewable = condition(&oslo, after(30)).unwrap();
        assert!(
            renewable.contains("may only renew it until 2026-12-18"),
            "{renewable}"
        );
        let lost = condition(&oslo, after(31)).unwrap();
        assert!(lost.contains("picketctl host bundle oslo"), "{lost}");
    }

    #[test]
    fn a_host_that_has_a_better_certificate_or_is_cut_off_has_no_such_condition() {
        let current = pin(END);
        for better in [
            Pins {
                current: current.clone(),
                pending: pin(after(8)),
                ..Pins::default()
            },
            Pins {
                current: current.clone(),
                bundle: pin(after(8)),
                ..Pins::default()
            },
        ] {
            assert_eq!(condition(&host(better), after(7)), None);
        }
        let mut banned = host(Pins {
            current,
            ..Pins::default()
        });
        banned.standing = HostStanding::Banned {
            at: END,
            reason: String::new(),
        };
        assert_eq!(condition(&banned, after(7)), None);
    }
}
