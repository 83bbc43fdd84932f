//! Comparing and repairing at once, and letting through what the brake holds back.

use std::time::Duration;

use picket_proto::{
    document::Kind,
    wire::admin::{ReconcileNetworkResponse, ResumeNetworkResponse},
};
use picket_zerotier::ids::NetworkId;
use tokio::time;

use super::shown::{change, compared, count, record, shown};
use crate::{
    comparison::Comparison,
    desk::{Actor, Desk},
    event::Severity,
    record::{
        Record as _, key,
        network::{Governor, NetworkMode, NetworkRecord},
    },
    refused::Refused,
    store::{Guard, Revision},
};

/// How long a controller has to follow.
const PATIENCE: Duration = Duration::from_secs(10);

/// What would be repaired.
pub(super) fn differs(desk: &Desk, id: NetworkId) -> Result<ReconcileNetworkResponse, Refused> {
    let record = record(desk, id)?.record;
    let observed = desk.controlled(record.controller, id).map_err(Refused::NotNow)?;
    let found = compared(desk, &record, &observed);
    answer(desk, id, &found, found.held_back)
}

/// Has the controller compare and repair, waits for its next word, and says what was repaired.
pub(super) async fn reconcile(
    desk: &Desk,
    actor: &Actor,
    id: NetworkId,
) -> Result<ReconcileNetworkResponse, Refused> {
    let before = record(desk, id)?;
    enforced(&before.record)?;
    let governor = before.record.controller;
    let observed = desk.controlled(governor, id).map_err(Refused::NotNow)?;
    if let Governor::Host(host) = governor
        && !desk.sessions.has(host)
    {
        let host = desk.name_of(host);
        return Err(Refused::NotNow(format!(
            "{host} is not connected; its agent repairs by itself, and tells when it is back"
        )));
    }
    let found = compared(desk, &before.record, &observed);
    let mut looked = desk.watchers.looked();
    // Written again as it is, it is announced again, and whoever has it compares at once.
    let guards = vec![Guard::At(key::network(id), before.revision)];
    let audit = actor.does("network.reconcile", id, "");
    let revision = desk.commit(guards, vec![before.record.put()], audit).await?;
    let give_up = time::Instant::now() + PATIENCE;
    let left = loop {
        let observed = desk.controlled(governor, id).map_err(Refused::NotNow)?;
        let left = compared(desk, &before.record, &observed);
        let followed = has_followed(desk, governor, revision);
        if followed && (left.changes.is_empty() || observed.held_back > 0 || !observed.frozen.is_empty()) {
            break (left, observed.held_back);
        }
        if time::timeout_at(give_up, looked.changed()).await.is_err() {
            break (left, observed.held_back);
        }
    };
    let (left, held_back) = left;
    let repaired = Comparison {
        authorize: &found.authorize - &left.authorize,
        deauthorize: &found.deauthorize - &left.deauthorize,
        correct: &found.correct - &left.correct,
        changes: found
            .changes
            .into_iter()
            .filter(|change| !left.changes.contains(change))
            .collect(),
        unknown: left.unknown,
        unchanged: found.unchanged,
        authorized: left.authorized,
        held_back: 0,
    };
    answer(
        desk,
        id,
        &repaired,
        usize::try_from(held_back).unwrap_or(usize::MAX),
    )
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
    held_back: usize,
) -> Result<ReconcileNetworkResponse, Refused> {
    Ok(ReconcileNetworkResponse {
        network: Some(shown(desk, id)?),
        authorize: count(found.authorize.len()),
        deauthorize: count(found.deauthorize.len()),
        correct: count(found.correct.len()),
        held_back: count(held_back),
        unknown: count(found.unknown.len()),
        unchanged: count(found.unchanged),
        changes: found.changes.iter().cloned().map(change).collect(),
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
    let observed = desk
        .controlled(before.record.controller, id)
        .map_err(Refused::NotNow)?;
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
