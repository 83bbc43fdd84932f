//! Who is there: from the time of each host's last beat to its state.
//!
//! Plain functions of `now`. There is one ordered set of deadlines and no timer for each host: a beat only notes the
//! time, and a deadline that comes due is moved on when the host has beaten since.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use jiff::Timestamp;
use picket_clock::Instant;
use picket_proto::host::HostId;
use serde::{Deserialize, Serialize};

/// How long a host may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// Then it is late.
    pub late: Duration,
    /// Then it is offline. For this long after its own start the master accuses nobody.
    pub offline: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        Self {
            late: Duration::from_secs(45),
            offline: Duration::from_secs(100),
        }
    }
}

/// How often the master looks for deadlines that came due.
pub const SCAN_EVERY: Duration = Duration::from_secs(1);
/// A scan this much later than planned means that the master itself stood still.
const STOOD_STILL: Duration = Duration::from_secs(3);
/// So many hosts falling silent together is the master's or the network's fault, not theirs.
const MASS_SILENCE_PERCENT: usize = 30;
/// With fewer hosts than this a share says nothing.
const MASS_SILENCE_LEAST: usize = 5;

/// Whether a host is heard from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// It never beat.
    NeverSeen,
    /// It beats.
    Online,
    /// It missed a beat.
    Late,
    /// It is silent.
    Offline,
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NeverSeen => "never-seen",
            Self::Online => "online",
            Self::Late => "late",
            Self::Offline => "offline",
        })
    }
}

/// A host went from one presence to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Which.
    pub host: HostId,
    /// Before.
    pub from: Presence,
    /// After.
    pub to: Presence,
}

#[derive(Debug)]
struct Seen {
    presence: Presence,
    /// When it last beat, or from when on its silence counts.
    since: Instant,
    deadline: Option<Instant>,
    /// Wall time of the last beat.
    at: Option<Timestamp>,
}

/// The presence of every host.
#[derive(Debug)]
pub struct Liveness {
    grace: Grace,
    seen: HashMap<HostId, Seen>,
    due: BTreeSet<(Instant, HostId)>,
    last_scan: Instant,
    /// Nobody is accused before.
    quiet_until: Instant,
    /// When hosts fell silent lately.
    silenced: Vec<Instant>,
    alarmed: bool,
}

/// What one scan found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Who changed.
    pub transitions: Vec<Transition>,
    /// So many hosts of so many fell silent within one grace period; said once for each such time.
    pub mass_silence: Option<(usize, usize)>,
}

impl Liveness {
    /// Nobody is known yet; the master started at `now`.
    #[must_use]
    pub fn new(grace: Grace, now: Instant) -> Self {
        Self {
            grace,
            seen: HashMap::new(),
            due: BTreeSet::new(),
            last_scan: now,
            quiet_until: now + grace.offline,
            silenced: Vec::new(),
            alarmed: false,
        }
    }

    /// Takes up a host as the master knew it before its start, with the wall time of its last beat. One that was heard
    /// then is not accused before the quiet time after the start is over.
    pub fn restore(&mut self, host: HostId, presence: Presence, at: Timestamp, now: Instant) {
        let deadline = match presence {
            Presence::Online | Presence::Late => Some(self.quiet_until),
            Presence::NeverSeen | Presence::Offline => None,
        };
        if let Some(deadline) = deadline {
            self.due.insert((deadline, host));
        }
        self.seen.insert(
            host,
            Seen {
                presence,
                since: now,
                deadline,
                at: Some(at),
            },
        );
    }

    /// Notes a beat.
    pub fn beat(&mut self, host: HostId, now: Instant, at: Timestamp) -> Option<Transition> {
        let seen = self.seen.entry(host).or_insert(Seen {
            presence: Presence::NeverSeen,
            since: now,
            deadline: None,
            at: None,
        });
        seen.since = now;
        seen.at = Some(at);
        if seen.presence == Presence::Online {
            return None;
        }
        let from = std::mem::replace(&mut seen.presence, Presence::Online);
        let deadline = now + self.grace.late;
        if let Some(old) = seen.deadline.replace(deadline) {
            self.due.remove(&(old, host));
        }
        self.due.insert((deadline, host));
        Some(Transition {
            host,
            from,
            to: Presence::Online,
        })
    }

    /// Notes a planned end: the host is offline at once, and nobody is alarmed.
    pub fn goodbye(&mut self, host: HostId) -> Option<Transition> {
        let seen = self.seen.get_mut(&host)?;
        if let Some(old) = seen.deadline.take() {
            self.due.remove(&(old, host));
        }
        let from = std::mem::replace(&mut seen.presence, Presence::Offline);
        (from != Presence::Offline).then_some(Transition {
            host,
            from,
            to: Presence::Offline,
        })
    }

    /// Forgets a host.
    pub fn forget(&mut self, host: HostId) {
        if let Some(seen) = self.seen.remove(&host)
            && let Some(deadline) = seen.deadline
        {
            self.due.remove(&(deadline, host));
        }
    }

    /// Moves on whoever has been silent too long.
    ///
    /// A scan that comes late moves every deadline by the delay: a master that stood still accuses nobody.
    pub fn expire(&mut self, now: Instant) -> Scan {
        let delay = now.saturating_duration_since(self.last_scan + SCAN_EVERY);
        self.last_scan = now;
        if delay > STOOD_STILL {
            for seen in self.seen.values_mut() {
                seen.since = (seen.since + delay).min(now);
            }
        }
        let mut scan = Scan::default();
        while let Some(&(deadline, host)) = self.due.first() {
            if deadline > now {
                break;
            }
            self.due.pop_first();
            let Some(seen) = self.seen.get_mut(&host) else {
                continue;
            };
            let silent_from = seen
                .since
                .max(self.quiet_until.checked_sub(self.grace.late).unwrap_or(now));
            let (late, offline) = (silent_from + self.grace.late, silent_from + self.grace.offline);
            let to = if now >= offline {
                Presence::Offline
            } else if now >= late {
                Presence::Late
            } else {
                Presence::Online
            };
            seen.deadline = match to {
                Presence::Online => Some(late),
                Presence::Late => Some(offline),
                Presence::Offline | Presence::NeverSeen => None,
            };
            if let Some(deadline) = seen.deadline {
                self.due.insert((deadline, host));
            }
            if seen.presence != to {
                let from = std::mem::replace(&mut seen.presence, to);
                scan.transitions.push(Transition { host, from, to });
                if to == Presence::Offline {
                    self.silenced.push(now);
                }
            }
        }
        scan.mass_silence = self.mass_silence(now);
        scan
    }

    fn mass_silence(&mut self, now: Instant) -> Option<(usize, usize)> {
        let grace = self.grace.offline;
        self.silenced
            .retain(|at| now.saturating_duration_since(*at) < grace);
        let silent = self.silenced.len();
        if silent == 0 {
            self.alarmed = false;
            return None;
        }
        let heard = self
            .seen
            .values()
            .filter(|seen| matches!(seen.presence, Presence::Online | Presence::Late))
            .count();
        let of = heard + silent;
        let mass = of >= MASS_SILENCE_LEAST && silent * 100 >= of * MASS_SILENCE_PERCENT;
        let already = self.alarmed;
        self.alarmed |= mass;
        (mass && !already).then_some((silent, of))
    }

    /// How a host is, and the wall time of its last beat.
    #[must_use]
    pub fn of(&self, host: HostId) -> (Presence, Option<Timestamp>) {
        self.seen
            .get(&host)
            .map_or((Presence::NeverSeen, None), |seen| (seen.presence, seen.at))
    }
}

#[cfg(test)]
mod tests {
    use picket_clock::Clock;
    use uuid::Uuid;

    use super::*;

    const OSLO: HostId = HostId(Uuid::from_u128(1));

    struct Desk {
        liveness: Liveness,
        now: Instant,
    }

    impl Desk {
        /// A master that has been up for longer than its quiet time.
        fn new() -> Self {
            let now = Clock::system().monotonic();
            let mut desk = Self {
                liveness: Liveness::new(Grace::default(), now),
                now,
            };
            desk.run(101);
            desk
        }

        fn beat(&mut self, host: HostId) {
            self.liveness.beat(host, self.now, Timestamp::UNIX_EPOCH);
        }

        /// Scans every second for `seconds`.
        fn run(&mut self, seconds: u64) -> Vec<(HostId, Presence)> {
            let mut seen = Vec::new();
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                let scan = self.liveness.expire(self.now);
                seen.extend(
                    scan.transitions
                        .into_iter()
                        .map(|transition| (transition.host, transition.to)),
                );
            }
            seen
        }
    }

    fn host(n: u128) -> HostId {
        HostId(Uuid::from_u128(n))
    }

    #[test]
    fn a_silent_host_is_late_at_45_and_offline_at_100_seconds() {
        let mut desk = Desk::new();
        desk.beat(OSLO);
        assert_eq!(desk.run(44), []);
        assert_eq!(desk.run(1), [(OSLO, Presence::Late)]);
        assert_eq!(desk.run(54), []);
        assert_eq!(desk.run(1), [(OSLO, Presence::Offline)]);
        assert_eq!(desk.run(500), []);
    }

    #[test]
    fn a_host_that_beats_is_never_accused() {
        let mut desk = Desk::new();
        for _ in 0..50 {
            desk.beat(OSLO);
            assert_eq!(desk.run(30), []);
        }
    }

    #[test]
    fn a_master_that_stood_still_accuses_nobody() {
        let mut desk = Desk::new();
        desk.beat(OSLO);
        desk.run(20);
        desk.now += Duration::from_secs(60);
        assert_eq!(desk.run(24), []);
        assert_eq!(desk.run(30), [(OSLO, Presence::Late)]);
    }

    #[test]
    fn a_master_that_just_started_accuses_nobody_for_its_grace_period() {
        let now = Clock::system().monotonic();
        let mut desk = Desk {
            liveness: Liveness::new(Grace::default(), now),
            now,
        };
        desk.beat(OSLO);
        assert_eq!(desk.run(44), []);
        let later = desk.run(156);
        assert_eq!(later, [(OSLO, Presence::Late), (OSLO, Presence::Offline)]);
    }

    #[test]
    fn a_goodbye_makes_a_host_offline_without_waiting() {
        let mut desk = Desk::new();
        desk.beat(OSLO);
        let gone = desk.liveness.goodbye(OSLO).unwrap();
        assert_eq!((gone.from, gone.to), (Presence::Online, Presence::Offline));
        assert_eq!(desk.run(200), []);
    }

    #[test]
    fn a_third_of_the_fleet_falling_silent_is_one_alert() {
        let mut desk = Desk::new();
        (0..10).for_each(|n| desk.beat(host(n)));
        let mut alerts = 0;
        for _ in 0..8 {
            for _ in 0..30 {
                desk.now += Duration::from_secs(1);
                alerts += usize::from(desk.liveness.expire(desk.now).mass_silence.is_some());
            }
            (4..10).for_each(|n| desk.beat(host(n)));
        }
        assert_eq!(alerts, 1);
    }

    #[test]
    fn a_host_that_was_online_before_a_restart_is_online_after_it_until_the_quiet_time_is_over() {
        let now = Clock::system().monotonic();
        let mut desk = Desk {
            liveness: Liveness::new(Grace::default(), now),
            now,
        };
        desk.liveness
            .restore(OSLO, Presence::Online, Timestamp::UNIX_EPOCH, now);
        assert_eq!(desk.liveness.of(OSLO).0, Presence::Online);
        assert_eq!(desk.run(99), []);
        assert_eq!(desk.run(60), [(OSLO, Presence::Late), (OSLO, Presence::Offline)]);
    }

    #[test]
    fn silence_never_deletes_a_host() {
        let mut desk = Desk::new();
        desk.beat(OSLO);
        desk.run(90 * 24);
        assert_eq!(
            desk.liveness.of(OSLO),
            (Presence::Offline, Some(Timestamp::UNIX_EPOCH))
        );
    }
}
