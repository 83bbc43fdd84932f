//! The passes over Central: follow what was decided, then read what there is.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use picket_govern::{Left, Memory, Moment, Report, State, shown, unseen};
use picket_proto::{
    rules::{Members, Rule},
    status::{ControlledNetwork, ControllerStatus, ServiceState},
};
use picket_zerotier::{
    central::Central as Client, controller::Controller as _, ids::NetworkId, service::Error,
};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{chain, lock};
use crate::{desk::Desk, event::Severity, record::network::Governor, store::Revision};

/// How often Central is looked at while nothing is decided.
const EVERY: Duration = Duration::from_secs(60);
/// When the next pass comes after one that left something undone.
const AGAIN: Duration = Duration::from_secs(10);
/// And after one that could not cut off somebody who has to go.
const SOON: Duration = Duration::from_secs(2);
/// Decisions that follow each other at once are one pass.
const GATHER: Duration = Duration::from_millis(50);
/// Networks in a row that may keep a reading waiting for nothing; the others are not waited for.
const MOST_IN_VAIN: usize = 2;
/// Why those are not known.
const NOT_ASKED: &str = "ZeroTier Central answered about none of the networks before it; it is asked again";

/// Follows what is decided, until `stop`.
pub async fn tend(desk: Arc<Desk>, stop: CancellationToken) {
    if desk.central.is_configured() {
        follow(&desk, &stop).await;
    } else {
        stop.cancelled().await;
    }
    // A network that was made is kept.
    desk.central.making.close();
    desk.central.making.wait().await;
}

async fn follow(desk: &Desk, stop: &CancellationToken) {
    let mut due = desk.central.due.subscribe();
    let mut wait = Duration::ZERO;
    let mut told = String::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = time::sleep(wait) => {}
            seen = due.changed() => match seen {
                Ok(()) => time::sleep(GATHER).await,
                Err(_) => return,
            },
        }
        // Nothing is told to anybody of a store that was restored without its latest changes.
        if desk.store.frozen() {
            wait = EVERY;
            continue;
        }
        // What is decided from here on is for the next pass, which this one then makes way for.
        due.mark_unchanged();
        let (revision, want) = wanted(desk);
        let end = next_end(&want, desk.now());
        let hurry = || due.has_changed().unwrap_or(true) || end.is_some_and(|end| end <= desk.now());
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = pass(desk, (revision, &want), &hurry, &mut told) => next,
        };
        wait = match next_end(&want, desk.now()) {
            Some(end) => next.min(span_until(end, desk.now())),
            None => next,
        };
    }
}

/// All that Central is to follow, and the newest decision at all: whoever follows the one has followed the other, though it
/// may be about networks of others.
pub(super) fn wanted(desk: &Desk) -> (Revision, Members) {
    let views = desk.views.read();
    let now = desk.now();
    let (_, members) = views
        .networks
        .changed_since(&views.roster, Governor::CENTRAL, Revision(0), now);
    (views.networks.newest(), members)
}

/// When the next authorization comes to its end.
fn next_end(want: &Members, now: Timestamp) -> Option<Timestamp> {
    let ends = want.rules.values().filter(|rule: &&Rule| rule.holds(now));
    ends.filter_map(|rule| rule.until).min()
}

fn span_until(end: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(now)).unwrap_or_default()
}

/// One pass, which makes way when there is a `hurry`. Returns when the next one is due.
async fn pass(
    desk: &Desk,
    (revision, want): (Revision, &Members),
    hurry: &(dyn Fn() -> bool + Sync),
    told: &mut String,
) -> Duration {
    let watched: Vec<NetworkId> = {
        let views = desk.views.read();
        let networks = views.networks.networks();
        networks
            .filter(|network| network.record.controller == Governor::CENTRAL)
            .map(|network| network.record.id)
            .collect()
    };
    let client = match desk.central.client() {
        Ok(client) => client,
        Err(problem) => {
            complain(desk, told, &problem);
            saw(desk, ServiceState::Unreachable(problem), Vec::new(), None);
            return EVERY;
        }
    };
    let (now, kept) = (desk.now(), lock(&desk.central.kept).memory.clone());
    let mut memory = kept.unwrap_or_else(|| Memory::new(now));
    let moment = Moment { now, here: now };
    let report = picket_govern::pass_until(&client, want, &mut memory, moment, hurry).await;
    lock(&desk.central.kept).memory = Some(memory);
    let troubles: Vec<_> = report
        .troubles
        .iter()
        .map(|trouble| format!("{}: {}", trouble.subject, trouble.sentence))
        .collect();
    complain(desk, told, troubles.first().map_or("", String::as_str));
    let (service, networks) = look(&client, watched, &report).await;
    saw(desk, service, networks, Some(revision));
    match report.left {
        Left::Nothing => EVERY,
        Left::More => Duration::ZERO,
        Left::Failed => AGAIN,
        Left::Departures => SOON,
    }
}

/// Reads every network. One that cannot be read is frozen by itself; only when Central lets nobody ask anything, none is
/// known.
async fn look(
    client: &Client,
    watched: Vec<NetworkId>,
    report: &Report,
) -> (ServiceState, Vec<ControlledNetwork>) {
    let mut networks = Vec::new();
    // How many in a row were waited for in vain.
    let mut in_vain = 0;
    for id in watched {
        let known = report.networks.get(&id).map(|standing| &standing.state);
        if let Some(State::Frozen(why)) = known {
            networks.push(unseen(id, why.clone()));
            continue;
        }
        if in_vain >= MOST_IN_VAIN {
            networks.push(unseen(id, NOT_ASKED.to_owned()));
            continue;
        }
        if let Some(there) = report.untouched.get(&id) {
            networks.push(standing(shown(&there.network, &there.members), report));
            continue;
        }
        let read = read(client, id).await;
        in_vain = match &read {
            Err(Error::TimedOut { .. }) => in_vain + 1,
            Ok(_) | Err(_) => 0,
        };
        match read {
            Ok(network) => networks.push(standing(network, report)),
            // It is not there, which whoever looks for it sees.
            Err(Error::NotFound { .. }) => {}
            Err(error @ (Error::Unreachable { .. } | Error::Refused { .. } | Error::TooMany { .. })) => {
                return (ServiceState::Unreachable(chain(&error)), Vec::new());
            }
            Err(error) => networks.push(unseen(id, chain(&error))),
        }
    }
    (ServiceState::Answers, networks)
}

fn saw(desk: &Desk, service: ServiceState, networks: Vec<ControlledNetwork>, revision: Option<Revision>) {
    let (repairs, repairs_forgotten) = {
        let kept = lock(&desk.central.kept);
        let memory = kept.memory.as_ref();
        (
            memory.map(Memory::repairs).unwrap_or_default(),
            memory.map_or(0, Memory::forgotten),
        )
    };
    *lock(&desk.central.seen) = Some(ControllerStatus {
        service,
        node: None,
        networks,
        repairs,
        repairs_forgotten,
    });
    if let Some(revision) = revision {
        desk.central.followed.send_replace(revision);
    }
    desk.watchers.note(Governor::CENTRAL);
    desk.news.send_replace(());
}

/// Says what is wrong, once.
fn complain(desk: &Desk, told: &mut String, problem: &str) {
    if told == problem {
        return;
    }
    if problem.is_empty() {
        desk.say(
            Severity::Info,
            "central.recovered",
            "central",
            "what is decided is in effect",
        );
    } else {
        desk.say(Severity::Warning, "central.blocked", "central", problem);
    }
    problem.clone_into(told);
}

/// Reads a network with its members.
pub(super) async fn read(client: &Client, id: NetworkId) -> Result<ControlledNetwork, Error> {
    let network = client.network(id).await?;
    let members = client.members(id).await?;
    Ok(shown(&network, &members))
}

pub(super) fn standing(network: ControlledNetwork, report: &Report) -> ControlledNetwork {
    let Some(standing) = report.networks.get(&network.id) else {
        return network;
    };
    let frozen = match &standing.state {
        State::Read => String::new(),
        State::Frozen(why) | State::Foreign(why) => why.clone(),
    };
    ControlledNetwork {
        held_back: u32::try_from(standing.held_back).unwrap_or(u32::MAX),
        frozen,
        differences: standing.differences.clone(),
        ..network
    }
}
