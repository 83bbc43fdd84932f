//! A settings file: what it would change, and making it so.

use std::collections::BTreeMap;

use picket_proto::{
    form::Form,
    wire::admin::{self as wire, ApplyNetworkResponse, PlanNetworkResponse},
};
use picket_zerotier::ids::{NetworkId, NodeId};

use super::shown::{change, record, shown};
use crate::{
    desk::{Actor, Desk},
    event::Severity,
    gate,
    network_plan::{self, Plan, revocation},
    networks::Network,
    record::{
        OperatorRole, Record as _, key,
        network::{NetworkMode, NetworkRecord},
    },
    refused::Refused,
    store::{CommitError, Guard, VALUE_MAX, WRITES_MAX, Write},
};

/// How often a file is looked at again when somebody else decided of a node meanwhile.
const MOST_TRIES: usize = 16;
/// As many nodes as one commit takes beside the network: a guard and a write for each.
const MOST_TOGETHER: usize = WRITES_MAX - 2;

pub(super) fn plan(
    desk: &Desk,
    id: NetworkId,
    form: Option<wire::NetworkForm>,
) -> Result<PlanNetworkResponse, Refused> {
    let form = Form::from_wire(form.unwrap_or_default())?;
    let plan = planned(desk, id, form)?.plan;
    Ok(PlanNetworkResponse {
        changes: plan.changes.into_iter().map(change).collect(),
        cuts_own_path: plan.cuts,
        needs_admin: plan.needs_admin.unwrap_or_default(),
        cautions: plan
            .nobody_approves
            .map(|why| format!("it is refused: {why}"))
            .into_iter()
            .chain(plan.cautions)
            .collect(),
    })
}

/// What a file changes of a network as it is, with a guard for each node that it names no more: what is decided of one of
/// them meanwhile is not written over.
#[derive(Debug)]
struct Planned {
    before: Network,
    plan: Plan,
    undecided: BTreeMap<NodeId, Guard>,
}

fn planned(desk: &Desk, id: NetworkId, form: Form) -> Result<Planned, Refused> {
    let before = record(desk, id)?;
    if before.record.mode == NetworkMode::Deleting {
        return Err(Refused::NotNow(format!("network {id} is being deleted")));
    }
    let (now, paths) = (desk.now(), desk.paths_over(id));
    let views = desk.views.read();
    let taken_off = |node| views.networks.taken_off(id, node);
    let after = network_plan::with_form(&before.record, form, now, taken_off)?;
    let plan = network_plan::plan(&views, &before.record, after, &paths, now);
    let undecided = |node: &NodeId| {
        let at = key::grant(id, *node);
        let guard = match views.networks.grant(id, *node) {
            Some(kept) => Guard::At(at, kept.revision),
            None => Guard::Absent(at),
        };
        (*node, guard)
    };
    Ok(Planned {
        undecided: plan.dropped.iter().map(undecided).collect(),
        before,
        plan,
    })
}

pub(super) async fn apply(
    desk: &Desk,
    actor: &Actor,
    id: NetworkId,
    form: Option<wire::NetworkForm>,
) -> Result<ApplyNetworkResponse, Refused> {
    let form = Form::from_wire(form.unwrap_or_default())?;
    // One file at a time.
    let turn = desk.turn.lock().await;
    let mut changes = None;
    for _ in 0..MOST_TRIES {
        let planned = planned(desk, id, form.clone())?;
        if let Some(why) = &planned.plan.needs_admin
            && gate::role(desk, actor.name()) != Some(OperatorRole::Admin)
        {
            return Err(Refused::Denied(format!(
                "{} may not apply this: {why}",
                actor.name()
            )));
        }
        if let Some(why) = &planned.plan.nobody_approves {
            return Err(Refused::invalid("approvers", why));
        }
        if planned.plan.admits {
            desk.may_approve()?;
        }
        match write(desk, actor, id, &planned).await {
            Ok(()) => {
                changes = Some(planned.plan.changes);
                break;
            }
            // Somebody decided of a node meanwhile, and that holds: the plan is another one.
            Err(Refused::Commit(CommitError::Conflict { key, .. })) if key != key::network(id) => {}
            Err(error) => return Err(error),
        }
    }
    drop(turn);
    let changes = changes.ok_or_else(|| {
        Refused::NotNow(format!(
            "the members of network {id} are being decided on by many at once; look at the plan, and try again"
        ))
    })?;
    Ok(ApplyNetworkResponse {
        network: Some(shown(desk, id)?),
        changes: changes.into_iter().map(change).collect(),
    })
}

/// Writes a plan, when it changes anything.
async fn write(desk: &Desk, actor: &Actor, id: NetworkId, planned: &Planned) -> Result<(), Refused> {
    let Planned {
        before,
        plan,
        undecided,
    } = planned;
    if plan.record == before.record {
        return Ok(());
    }
    let record = bounded(&plan.record)?;
    let now = desk.now();
    let dropped = undecided.iter();
    let dropped = dropped.map(|(node, guard)| {
        let write = revocation(id, *node, actor.name(), now).put();
        (guard.clone(), write)
    });
    let mut dropped: Vec<(Guard, Write)> = dropped.collect();
    // What does not fit into one commit comes before the record: a node that is revoked and named still is denied by then,
    // and applying again goes on with the others.
    let audit = actor.does("network.apply", id, "");
    let guard = Guard::At(key::network(id), before.revision);
    let first = if dropped.len() < MOST_TOGETHER {
        Vec::new()
    } else {
        std::mem::take(&mut dropped)
    };
    for batch in first.chunks(MOST_TOGETHER) {
        let (mut guards, writes): (Vec<_>, Vec<_>) = batch.iter().cloned().unzip();
        guards.push(guard.clone());
        desk.commit(guards, writes, audit.clone()).await?;
    }
    let (mut guards, mut writes): (Vec<_>, Vec<_>) = dropped.into_iter().unzip();
    guards.push(guard);
    writes.push(record);
    desk.commit(guards, writes, audit).await?;
    let message = format!("{} things changed by {}", plan.changes.len(), actor.name());
    desk.say(Severity::Notice, "network.applied", &id.to_string(), &message);
    Ok(())
}

/// The write of a record that is not too long to be kept.
pub(super) fn bounded(record: &NetworkRecord) -> Result<Write, Refused> {
    let write = record.put();
    if let Write::Put(_, value) = &write
        && value.len() >= VALUE_MAX
    {
        let problem = format_args!(
            "with its rules and names the file has {} KiB, and at most {} KiB are kept; leave out names, or shorten the rules",
            value.len() / 1024,
            VALUE_MAX / 1024
        );
        return Err(Refused::invalid("form", problem));
    }
    Ok(write)
}
