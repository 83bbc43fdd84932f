//! The kill switch, measured: how far each proof has come that a kill is true on the wire.
//!
//! A kill makes decisions at once (`membership`), and the documents carry them out, also when an offline host or
//! controller comes back. This room decides from what hosts say what is proven of it, and when. In: the times that were
//! proven before, one `Sight` of a member, the time. Out: the times, and a `Standing` to show.

pub(crate) mod cover;
pub mod progress;
pub(crate) mod report;
pub(crate) mod say;
pub(crate) mod sight;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// For how long a member of a worker's network may go on by the credential it has: what a self-hosted controller gives
/// out when it is left as it is. Nothing in its API changes that.
pub(crate) const WINDOW: Duration = Duration::from_secs(30 * 60);
/// The same of a controller that somebody else runs: the longest there is.
pub(crate) const LONGEST_WINDOW: Duration = Duration::from_secs(2 * 3600);

/// What was proven of one member, and when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Times {
    /// Its controller said that it is not authorized.
    #[serde(default)]
    pub(crate) deauthorized: Option<Timestamp>,
    /// Its agent said that it left.
    #[serde(default)]
    pub(crate) left: Option<Timestamp>,
    /// A witness said that it does not answer any more.
    #[serde(default)]
    pub(crate) silent: Option<Timestamp>,
    /// It was authorized again after that was proven otherwise.
    #[serde(default)]
    pub(crate) again: bool,
    /// Its host's session went over the network.
    #[serde(default)]
    pub(crate) own_path: bool,
}

/// What the controller says of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Controller {
    /// It has not been told of the kill yet.
    Untold,
    /// It lets the member on.
    Authorizes,
    /// It does not.
    Denies,
    /// It cannot be asked, for this reason.
    Away(String),
}

/// What the member's own agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Agent {
    /// There is none of ours.
    Nobody,
    /// It has not been told of the kill yet.
    Untold,
    /// It is on the network.
    On,
    /// It is on the network, where somebody put it by hand.
    ByHand(String),
    /// It is not.
    Off,
    /// It cannot be asked, for this reason.
    Away(String),
    /// It was cut off and will not be heard, for this reason.
    Cut(String),
}

/// What the witnesses say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Silence {
    /// There are none.
    Unwitnessed,
    /// None of them knows yet.
    Unknown,
    /// It answers this host.
    Answers(String),
    /// It answered before, and does not.
    Silent,
}

/// One look at one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) controller: Controller,
    pub(crate) agent: Agent,
    /// The session of its host goes over the network just now.
    pub(crate) carries_session: bool,
    pub(crate) silence: Silence,
    /// How long its credential may last.
    pub(crate) window: Duration,
}

/// How far a proof has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// There is none to be had.
    None,
    /// It is waited for.
    Waiting,
    /// It was there then.
    Confirmed(Timestamp),
    /// It cannot be had just now.
    Unreachable,
}

impl Proof {
    fn or_waiting(at: Option<Timestamp>) -> Self {
        at.map_or(Self::Waiting, Self::Confirmed)
    }

    fn or_unreachable(at: Option<Timestamp>) -> Self {
        at.map_or(Self::Unreachable, Self::Confirmed)
    }

    fn is_there(self) -> bool {
        matches!(self, Self::Confirmed(_))
    }
}

/// How one member stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) deauthorized: Proof,
    pub(crate) left: Proof,
    pub(crate) silent: Proof,
    /// Until when it may go on by its credential, as far as anybody can prove.
    pub(crate) unconfirmed_until: Option<Timestamp>,
    /// What is in the way.
    pub(crate) problem: String,
    /// Nothing more is to be waited for.
    pub(crate) done: bool,
}

/// Weighs a look at a member. What was proven stays proven until somebody says otherwise: one who cannot be asked any
/// more takes nothing back.
pub(crate) fn weigh(mut times: Times, sight: &Sight, now: Timestamp) -> (Times, Standing) {
    let mut problems = Vec::new();
    times.own_path |= sight.carries_session;
    if times.own_path {
        let tense = if sight.carries_session { "goes" } else { "went" };
        problems.push(format!(
            "its path to this master {tense} over this network: this cuts our own path"
        ));
    }
    let deauthorized = controlled(&mut times, &sight.controller, now, &mut problems);
    let left = departed(&mut times, &sight.agent, now, &mut problems);
    let silent = match &sight.silence {
        Silence::Unwitnessed => times.silent.map_or(Proof::None, Proof::Confirmed),
        Silence::Unknown => Proof::or_waiting(times.silent),
        Silence::Answers(whom) => {
            times.silent = None;
            if deauthorized.is_there() {
                problems.push(format!("it still answers {whom}"));
            }
            Proof::Waiting
        }
        Silence::Silent => Proof::Confirmed(*times.silent.get_or_insert(now)),
    };
    let answers = matches!(sight.silence, Silence::Answers(_));
    let gone = silent.is_there() || (left.is_there() && !answers);
    let unconfirmed_until = times
        .deauthorized
        .filter(|_| !gone)
        .map(|at| at.saturating_add(sight.window).unwrap_or(Timestamp::MAX));
    let departs = match &sight.agent {
        // It is told when it comes back.
        Agent::Untold | Agent::On | Agent::Away(_) => left.is_there(),
        Agent::Nobody | Agent::ByHand(_) | Agent::Off | Agent::Cut(_) => true,
    };
    let over = unconfirmed_until.is_none_or(|until| until <= now) && !answers;
    let standing = Standing {
        deauthorized,
        left,
        silent,
        unconfirmed_until,
        problem: problems.join("; "),
        done: deauthorized.is_there() && departs && (gone || over),
    };
    (times, standing)
}

fn controlled(
    times: &mut Times,
    controller: &Controller,
    now: Timestamp,
    problems: &mut Vec<String>,
) -> Proof {
    match controller {
        Controller::Untold => Proof::or_waiting(times.deauthorized),
        Controller::Authorizes => {
            times.again |= times.deauthorized.take().is_some();
            if times.again {
                problems.push("it was authorized again outside Picket, which is being taken back".to_owned());
            }
            Proof::Waiting
        }
        Controller::Denies => {
            times.again = false;
            Proof::Confirmed(*times.deauthorized.get_or_insert(now))
        }
        Controller::Away(why) => {
            problems.push(why.clone());
            Proof::or_unreachable(times.deauthorized)
        }
    }
}

fn departed(times: &mut Times, agent: &Agent, now: Timestamp, problems: &mut Vec<String>) -> Proof {
    match agent {
        Agent::Nobody => Proof::None,
        Agent::Untold => Proof::or_waiting(times.left),
        Agent::On => {
            times.left = None;
            Proof::Waiting
        }
        Agent::ByHand(host) => {
            times.left = None;
            problems.push(format!(
                "somebody at {host} joined it by hand, and its agent does not leave what it did not join"
            ));
            Proof::None
        }
        Agent::Off => Proof::Confirmed(*times.left.get_or_insert(now)),
        Agent::Away(why) | Agent::Cut(why) => {
            problems.push(why.clone());
            Proof::or_unreachable(times.left)
        }
    }
}

/// What was proven of the host itself, when a host is killed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostTimes {
    /// Its session was seen to be cut.
    #[serde(default)]
    pub(crate) banned: Option<Timestamp>,
    /// It had no deckies any more.
    #[serde(default)]
    pub(crate) shard: Option<Timestamp>,
}

/// One look at a killed host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostSight {
    /// The kill is made, and not only thought of.
    pub(crate) made: bool,
    /// It may not come in.
    pub(crate) banned: bool,
    /// It has a session.
    pub(crate) session: bool,
    /// How many deckies it had when it was heard last; none when it never said.
    pub(crate) deckies: Option<usize>,
    /// How many it is to have when it is let in again.
    pub(crate) wanted: usize,
}

/// How a killed host stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostStanding {
    pub(crate) banned: Proof,
    pub(crate) shard_removed: Proof,
    /// What the operator should know of it.
    pub(crate) cautions: Vec<String>,
}

impl HostStanding {
    /// Whether nothing more of the host itself is to be waited for: it is cut off, and no deckies of it may run.
    pub(crate) fn is_done(&self) -> bool {
        [self.banned, self.shard_removed].iter().all(|proof| match proof {
            Proof::None | Proof::Confirmed(_) => true,
            Proof::Waiting | Proof::Unreachable => false,
        })
    }
}

/// Weighs a look at a killed host.
pub(crate) fn weigh_host(
    mut times: HostTimes,
    sight: HostSight,
    name: &str,
    now: Timestamp,
) -> (HostTimes, HostStanding) {
    let mut cautions = Vec::new();
    let banned = match (sight.banned, sight.session) {
        (true, false) => Proof::Confirmed(*times.banned.get_or_insert(now)),
        (true, true) => Proof::or_waiting(times.banned),
        (false, _) => {
            times = HostTimes::default();
            if sight.made {
                cautions.push(format!(
                    "{name} is let in since, by `picketctl host unban`; its nodes stay killed, and killing it again bans it again"
                ));
            }
            Proof::None
        }
    };
    let shard_removed = match sight.deckies {
        Some(0) => Proof::Confirmed(*times.shard.get_or_insert(now)),
        None if sight.wanted == 0 => Proof::None,
        _ if !sight.banned => Proof::None,
        Some(_) | None if sight.session => Proof::or_waiting(times.shard),
        Some(_) | None => {
            let count = sight.deckies.unwrap_or(sight.wanted);
            if times.shard.is_none() {
                cautions.push(format!(
                    "{name} stops its {} when it hears that it is banned, and nobody can tell from here that it did",
                    counted(count, "decky", "deckies")
                ));
            }
            Proof::or_unreachable(times.shard)
        }
    };
    let standing = HostStanding {
        banned,
        shard_removed,
        cautions,
    };
    (times, standing)
}

/// `1 decky`, `3 deckies`.
pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
#[path = "kill/tests.rs"]
mod tests;
