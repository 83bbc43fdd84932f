//! Cutting a host off, and letting it in again: what of its record changes. By `host ban`, and by the kill of a host.

use jiff::{SignedDuration, Timestamp};

use crate::{
    desk::Desk,
    event::Severity,
    record::{HostRecord, HostStanding},
};

/// Cuts a host off. Returns whether it was let in before; one that is retired stays that.
pub(crate) fn ban(host: &mut HostRecord, at: Timestamp, reason: &str) -> bool {
    let active = host.standing == HostStanding::Active;
    if active {
        host.standing = HostStanding::Banned {
            at,
            reason: reason.to_owned(),
        };
    }
    active
}

/// Cuts a host off that a kill may have cut off already: a ban that was asked for is one of its own, and outlives the
/// kill. `by_kill` is when the kill that holds banned it. Returns whether anything changed.
pub(crate) fn ban_apart(
    host: &mut HostRecord,
    by_kill: Option<Timestamp>,
    at: Timestamp,
    reason: &str,
) -> bool {
    let ours = |standing: &HostStanding| match standing {
        HostStanding::Banned { at, .. } => by_kill == Some(*at),
        HostStanding::Active | HostStanding::Retired { .. } => false,
    };
    if !ours(&host.standing) {
        return ban(host, at, reason);
    }
    // A kill knows its own ban by the time of it.
    let apart = at
        .saturating_add(SignedDuration::from_nanos(1))
        .unwrap_or(Timestamp::MAX);
    host.standing = HostStanding::Banned {
        at: if by_kill == Some(at) { apart } else { at },
        reason: reason.to_owned(),
    };
    true
}

/// Lets a host in again. Returns whether it was cut off.
pub(crate) fn unban(host: &mut HostRecord) -> bool {
    let banned = matches!(host.standing, HostStanding::Banned { .. });
    if banned {
        host.standing = HostStanding::Active;
    }
    banned
}

/// Says that a host was cut off.
pub(crate) fn say_banned(desk: &Desk, name: &str, by: &str, reason: &str) {
    desk.say(
        Severity::Alert,
        "host.banned",
        name,
        &format!("banned by {by}: {reason}"),
    );
}

/// Says that a host was let in again.
pub(crate) fn say_unbanned(desk: &Desk, name: &str, by: &str, reason: &str) {
    desk.say(
        Severity::Notice,
        "host.unbanned",
        name,
        &format!("unbanned by {by}: {reason}"),
    );
}
