//! Looking, comparing and repairing at once, and letting through what the brake holds back.

use std::time::Duration;

use picket_proto::{
    document::Kind,
    rules::Unknown,
    wire::admin::{ReconcileNetworkResponse, ResumeNetworkResponse},
};
use picket_zerotier::ids::NetworkId;
use tokio::time;

use super::shown::{change, compared, count, record, shown};
use crate::{
    comparison::Comparison,
    desk::{Actor, Desk},
    event::Severity,
    look::{Sight, look},
    record::{
        Record as _, key,
        network::{Governor, NetworkMode, NetworkRecord},
    },
    refused::Refused,
    store::{Guard, Revision},
};

/// How long a controller has to be looked at.
const LOOK: Duration = Duration::from_secs(4);
/// How long all of it may take, looking included: picketctl waits 10 s.
const PATIENCE: Duration = Duration::from_secs(9);
/// What of that is for looking again afterwards.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// What would be repaired.
pub(super) async fn differs(desk: &Desk, id: NetworkId) -> Result<ReconcileNetworkResponse, Refused> {
    let sight = look(desk, record(desk, id)?.record.controller, id, LOOK).await?;
    let record = record(desk, id)?.record;
    let observes = record.mode == NetworkMode::Observe;
    // As it would be repaired.
    let repaired = NetworkRecord {
        mode: if observes {
            NetworkMode::Enforce
        } else {
            record.mode
        },
        ..record
    };
    let found = compared(desk, &repaired, &sight.network);
    let mut cautions: Vec<String> = sight.caution.into_iter().collect();
    if observes && !found.changes.is_empty() {
        cautions.push(unbraked(&repaired));
    }
    let held_back = if observes { 0 } else { sight.network.held_back };
    answer(desk, id, &found, held_back, cautions)
}

/// What beginning to repair does. It holds back only what differs from how it was before, and there is no before.
fn unbraked(record: &NetworkRecord) -> String {
    let all = format!(
        "it is only watched: `picketctl network enforce {}` does all of this at once, and the brake holds nothing of it back",
        record.id
    );
    match record.unknown {
        Unknown::Report => all,
        Unknown::Deauthorize => format!("{all}, unless it puts off many that nobody registered"),
    }
}

/// Has the controller looked at, compare and repair, waits for its next word, looks again, and says what was repaired.
pub(super) async fn reconcile(
    desk: &Desk,
    actor: &Actor,
    id: NetworkId,
) -> Result<ReconcileNetworkResponse, Refused> {
    let give_up = time::Instant::now() + PATIENCE;
    let before = record(desk, id)?;
    enforced(&before.record)?;
    let governor = before.record.controller;
    if let Governor::Host(host) = governor
        && !desk.sessions.has(host)
    {
        let host = desk.name_of(host);
        return Err(Refused::NotNow(format!(
            "{host} is not connected; its agent repairs by itself, and tells when it is back"
        )));
    }
    let first = look(desk, governor, id, LOOK).await?;
    let before = record(desk, id)?;
    enforced(&before.record)?;
    let found = compared(desk, &before.record, &first.network);
    let mut looked = desk.watchers.looked();
    // Written again as it is, it is announced again, and whoever has it compares at once.
    let guards = vec![Guard::At(key::network(id), before.revision)];
    let audit = actor.does("network.reconcile", id, "");
    let revision = desk.commit(guards, vec![before.record.put()], audit).await?;
    while !has_followed(desk, governor, revision) {
        if time::timeout_at(give_up - AFTERWARDS, looked.changed())
            .await
            .is_err()
        {
            break;
        }
    }
    let Sight {
        network: mut observed,
        caution,
    } = look(desk, governor, id, AFTERWARDS).await?;
    let left = loop {
        let left = compared(desk, &before.record, &observed);
        if left.changes.is_empty() || observed.held_back > 0 || !observed.frozen.is_empty() {
            break left;
        }
        if time::timeout_at(give_up, looked.changed()).await.is_err() {
            break left;
        }
        observed = desk.controlled(governor, id).map_err(Refused::NotNow)?;
    };
    let mut cautions: Vec<String> = caution.into_iter().collect();
    let held_back = observed.held_back;
    if held_back == 0 && !left.changes.is_empty() {
        cautions.push(format!(
            "{} of the changes are not made yet; whoever repairs {} goes on by itself",
            left.changes.len(),
            desk.whose(governor)
        ));
    }
    let done = if held_back == 0 {
        found
    } else {
        without(found, &left)
    };
    let done = Comparison {
        unknown: left.unknown,
        authorized: left.authorized,
        ..done
    };
    answer(desk, id, &done, held_back, cautions)
}

/// What was found and is not left.
fn without(found: Comparison, left: &Comparison) -> Comparison {
    Comparison {
        authorize: &found.authorize - &left.authorize,
        deauthorize: &found.deauthorize - &left.deauthorize,
        correct: &found.correct - &left.correct,
        changes: found
            .changes
            .into_iter()
            .filter(|change| !left.changes.contains(change))
            .collect(),
        ..found
    }
}

fn has_followed(desk: &Desk, governor: Governor, revision: Revision) -> bool {
    let Governor::Host(host) = governor else {
        return desk.central.has_followed(revision);
    };
    let tried = desk.observed.get(host).map(|seen| seen.tried(Kind::Members));
    let outcome = tried.and_then(|tried| tried.outcome);
    outcome.is_some_and(|outcome| {
        outcome.stamp.lineage == desk.lineage() && outcome.stamp.generation >= revision.0
    })
}

fn answer(
    desk: &Desk,
    id: NetworkId,
    found: &Comparison,
    held_back: u32,
    cautions: Vec<String>,
) -> Result<ReconcileNetworkResponse, Refused> {
    Ok(ReconcileNetworkResponse {
        network: Some(shown(desk, id)?),
        authorize: count(found.authorize.len()),
        deauthorize: count(found.deauthorize.len()),
        correct: count(found.correct.len()),
        held_back,
        unknown: count(found.unknown.len()),
        unchanged: count(found.unchanged),
        changes: found.changes.iter().cloned().map(change).collect(),
        cautions,
    })
}

/// Lets through what is held back.
pub(super) async fn resume(
    desk: &Desk,
    actor: &Actor,
    id: NetworkId,
    reason: &str,
) -> Result<ResumeNetworkResponse, Refused> {
    let before = record(desk, id)?;
    enforced(&before.record)?;
    let observed = look(desk, before.record.controller, id, LOOK).await?.network;
    let before = record(desk, id)?;
    enforced(&before.record)?;
    // Letting nothing through now would let something through later that nobody has looked at.
    if observed.held_back > 0 {
        let record = NetworkRecord {
            resumed: before.record.resumed + 1,
            ..before.record
        };
        let guards = vec![Guard::At(key::network(id), before.revision)];
        let audit = actor.does("network.resume", id, reason);
        desk.commit(guards, vec![record.put()], audit).await?;
        let message = format!(
            "{} repairs that were held back are let through by {}: {reason}",
            observed.held_back,
            actor.name()
        );
        desk.say(Severity::Notice, "network.resumed", &id.to_string(), &message);
    }
    Ok(ResumeNetworkResponse {
        network: Some(shown(desk, id)?),
    })
}

fn enforced(record: &NetworkRecord) -> Result<(), Refused> {
    let id = record.id;
    match record.mode {
        NetworkMode::Enforce => Ok(()),
        NetworkMode::Observe => Err(Refused::NotNow(format!(
            "network {id} is adopted and not enforced, so nothing on it is repaired; run `picketctl network enforce {id}` \
             first, or see with --dry-run what would be"
        ))),
        NetworkMode::Deleting | NetworkMode::Gone => {
            Err(Refused::NotNow(format!("network {id} is being deleted")))
        }
    }
}
