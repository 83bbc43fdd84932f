use super::*;
use crate::{networks::Networks, record::network::Governor, store::Revision};

const HOUR: Duration = Duration::from_secs(3600);

fn node() -> NodeId {
    "39966434ba".parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn network() -> NetworkRecord {
    NetworkRecord::watched("5350d87547c880cb".parse().unwrap(), Governor::CENTRAL, at(0))
}

fn grant(admitted: bool, for_activation: bool) -> GrantRecord {
    GrantRecord {
        network: network().id,
        node: node(),
        admitted,
        for_activation,
        by: "ada".into(),
        reason: "on call".into(),
        at: at(0),
    }
}

fn ana(second: i64) -> Revocation {
    Revocation {
        at: at(second),
        by: "ana".into(),
        reason: "on call".into(),
    }
}

fn started(second: i64, lasts: Option<Duration>) -> ActivationRecord {
    let grant = grant(true, true);
    start(&network(), Some(&grant), (None, node()), ana(second), lasts)
        .unwrap()
        .unwrap()
}

#[test]
fn an_activation_lasts_as_long_as_it_says_or_the_networks_default() {
    assert_eq!(started(100, None).until, at(100 + 3600));
    assert_eq!(started(100, Some(2 * HOUR)).until, at(100 + 7200));
}

#[test]
fn nothing_lasts_longer_than_the_network_allows_and_nothing_no_time() {
    for lasts in [25 * HOUR, Duration::ZERO, Duration::from_millis(900)] {
        let grant = grant(true, true);
        let refused = start(&network(), Some(&grant), (None, node()), ana(0), Some(lasts));
        assert!(
            matches!(refused, Err(ActivationError::Span { .. })),
            "{refused:?}"
        );
    }
    let mut short = network();
    short.spans.most_activation = HOUR / 2;
    assert_eq!(
        span(&short, None),
        Ok(HOUR / 2),
        "the default gives way to the maximum"
    );
}

#[test]
fn only_what_was_granted_for_that_is_activated() {
    for (grant, stands) in [
        (None, false),
        (Some(grant(false, true)), false),
        (Some(grant(true, false)), true),
    ] {
        let refused = start(&network(), grant.as_ref(), (None, node()), ana(0), None).unwrap_err();
        assert_eq!(
            matches!(refused, ActivationError::Stands { .. }),
            stands,
            "{refused}"
        );
    }
}

#[test]
fn starting_one_that_goes_on_changes_nothing_and_one_that_is_over_starts_anew() {
    let grant = grant(true, true);
    let first = started(0, None);
    let again = |before: &ActivationRecord, second| {
        start(
            &network(),
            Some(&grant),
            (Some(before), node()),
            ana(second),
            None,
        )
        .unwrap()
    };
    assert_eq!(again(&first, 3599), None);
    assert_eq!(again(&first, 3600).unwrap().until, at(7200));
    let ended = end(Some(&first), ana(10)).unwrap();
    assert!(again(&ended, 20).is_some());
}

#[test]
fn an_end_is_moved_within_the_maximum_from_the_start_on_and_only_to_later() {
    let first = started(0, None);
    let to = |lasts, second| extend(&network(), (Some(&first), node()), lasts, at(second));
    assert_eq!(to(Some(23 * HOUR), 3000).unwrap().until, at(3000 + 23 * 3600));
    assert_eq!(to(Some(24 * HOUR), 0).unwrap().until, at(24 * 3600));
    for second in [1, 3000] {
        assert!(matches!(
            to(Some(24 * HOUR), second),
            Err(ActivationError::Beyond { latest, .. }) if latest == at(24 * 3600)
        ));
    }
    // Without a time it goes on as long as it may.
    let late = ActivationRecord {
        until: at(23 * 3600 + 1800),
        ..first.clone()
    };
    let plain =
        |before: &ActivationRecord| extend(&network(), (Some(before), node()), None, at(23 * 3600 + 60));
    let extended = plain(&late).unwrap();
    assert_eq!(extended.until, at(24 * 3600));
    assert!(matches!(plain(&extended), Err(ActivationError::Beyond { .. })));
    assert!(matches!(
        to(Some(25 * HOUR), 3000),
        Err(ActivationError::Span { .. })
    ));
    assert!(matches!(
        to(Some(HOUR / 2), 600),
        Err(ActivationError::Shorter { .. })
    ));
    assert!(matches!(to(None, 3600), Err(ActivationError::NotOn { .. })));
}

#[test]
fn one_that_is_over_is_ended_once_and_not_by_anybody() {
    let first = started(0, None);
    assert_eq!(over(&first, at(3599)), None);
    let ended = over(&first, at(3700)).unwrap();
    assert_eq!((ended.end(at(4000)), ended.ended_by()), (at(3600), None));
    assert_eq!(over(&ended, at(3800)), None);
    assert_eq!(end(Some(&ended), ana(3900)), None);
    let cut = end(Some(&first), ana(10)).unwrap();
    assert_eq!(cut.ended_by(), Some("ana"));
    assert_eq!(over(&cut, at(3700)), None);
}

/// The leads of the warnings at these looks.
fn warned(record: &ActivationRecord, looks: &[i64]) -> Vec<u64> {
    let mut networks = Networks::default();
    networks.put_activation(record.clone(), Revision(1));
    let mut found = Vec::new();
    for pair in looks.windows(2) {
        let due = warnings(networks.ends(), at(pair[0]), at(pair[1]));
        let due = due.values().filter(|warning| warning.concerns(record));
        found.extend(due.map(|warning| warning.lead.as_secs()));
    }
    found
}

#[test]
fn each_warning_is_given_once_whenever_somebody_looks() {
    let hour = started(0, None);
    let every = (0..=3700).step_by(1).collect::<Vec<_>>();
    assert_eq!(warned(&hour, &every), [600, 120]);
    let odd = (0..=3700).step_by(7).collect::<Vec<_>>();
    assert_eq!(warned(&hour, &odd), [600, 120]);
}

#[test]
fn who_looks_late_gives_the_shorter_warning_and_none_when_all_is_over() {
    let hour = started(0, None);
    assert_eq!(warned(&hour, &[0, 3500]), [120]);
    assert_eq!(warned(&hour, &[0, 3100, 3599]), [600, 120]);
    assert_eq!(warned(&hour, &[0, 3600]), [] as [u64; 0]);
}

#[test]
fn a_short_one_is_not_warned_of_before_it_begins() {
    let short = started(1000, Some(Duration::from_secs(300)));
    let looks = (0..=1400).collect::<Vec<_>>();
    assert_eq!(warned(&short, &looks), [120]);
    let shortest = started(1000, Some(Duration::from_secs(60)));
    assert_eq!(warned(&shortest, &looks), [] as [u64; 0]);
}

#[test]
fn a_warning_says_what_is_left() {
    let hour = started(0, None);
    let warning = Warning {
        until: hour.until,
        lead: LEADS[0],
    };
    assert_eq!(warning.left(at(3000)), "10 min");
    assert_eq!(warning.left(at(3002)), "10 min", "a moment late");
    assert_eq!(warning.left(at(3590)), "10 s");
}
