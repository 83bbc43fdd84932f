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

/// Follows what is decided, until `stop`.
pub async fn tend(desk: Arc<Desk>, stop: CancellationToken) {
    if !desk.central.is_configured() {
        return stop.cancelled().await;
    }
    let mut wait = Duration::ZERO;
    let mut told = String::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = time::sleep(wait) => {}
            () = desk.central.due.notified() => time::sleep(GATHER).await,
        }
        // Nothing is told to anybody of a store that was restored without its latest changes.
        if desk.store.frozen() {
            wait = EVERY;
            continue;
        }
        let (revision, want) = wanted(&desk);
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = pass(&desk, revision, &want, &mut told) => next,
        };
        wait = match until(&want, desk.now()) {
            Some(end) => next.min(end),
            None => next,
        };
    }
}

/// All that Central is to follow.
pub(super) fn wanted(desk: &Desk) -> (Revision, Members) {
    let views = desk.views.read();
    let now = desk.now();
    views
        .networks
        .changed_since(&views.roster, Governor::CENTRAL, Revision(0), now)
}

/// How long it is to the next end of an authorization.
fn until(want: &Members, now: Timestamp) -> Option<Duration> {
    let ends = want.rules.values().filter(|rule: &&Rule| rule.holds(now));
    let next = ends.filter_map(|rule| rule.until).min()?;
    Duration::try_from(next.duration_since(now)).ok()
}

/// One pass. Returns when the next one is due.
async fn pass(desk: &Desk, revision: Revision, want: &Members, told: &mut String) -> Duration {
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
    let report = picket_govern::pass(&client, want, &mut memory, moment).await;
    lock(&desk.central.kept).memory = Some(memory);
    let troubles: Vec<_> = report
        .troubles
        .iter()
        .map(|trouble| format!("{}: {}", trouble.subject, trouble.sentence))
        .collect();
    complain(desk, told, troubles.first().map_or("", String::as_str));
    let mut networks = Vec::new();
    let mut away = None;
    for id in watched {
        if let Some(there) = report.untouched.get(&id) {
            networks.push(standing(shown(&there.network, &there.members), &report));
            continue;
        }
        match read(&client, id).await {
            Ok(network) => networks.push(standing(network, &report)),
            // It is not there, which whoever looks for it sees.
            Err(Error::NotFound { .. }) => {}
            Err(error) if error.is_away() => {
                away = Some(chain(&error));
                break;
            }
            Err(error) => networks.push(unseen(id, chain(&error))),
        }
    }
    let service = away.map_or(ServiceState::Answers, ServiceState::Unreachable);
    saw(desk, service, networks, Some(revision));
    match report.left {
        Left::Nothing => EVERY,
        Left::More => Duration::ZERO,
        Left::Failed => AGAIN,
        Left::Departures => SOON,
    }
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
