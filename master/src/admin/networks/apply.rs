//! A settings file: what it would change, and making it so.

use picket_proto::{
    form::Form,
    wire::admin::{self as wire, ApplyNetworkResponse, PlanNetworkResponse},
};
use picket_zerotier::ids::NetworkId;

use super::shown::{change, record, shown};
use crate::{
    desk::{Actor, Desk},
    event::Severity,
    network_plan::{self, Plan, revocation},
    networks::Network,
    record::{
        Record as _, key,
        network::{NetworkMode, NetworkRecord},
    },
    refused::Refused,
    store::{Guard, VALUE_MAX, WRITES_MAX, Write},
};

pub(super) fn plan(
    desk: &Desk,
    id: NetworkId,
    form: Option<wire::NetworkForm>,
) -> Result<PlanNetworkResponse, Refused> {
    let form = Form::from_wire(form.unwrap_or_default())?;
    let (_, plan) = planned(desk, id, form)?;
    Ok(PlanNetworkResponse {
        changes: plan.changes.into_iter().map(change).collect(),
        cuts_own_path: plan.cuts,
    })
}

fn planned(desk: &Desk, id: NetworkId, form: Form) -> Result<(Network, Plan), Refused> {
    let before = record(desk, id)?;
    if before.record.mode == NetworkMode::Deleting {
        return Err(Refused::NotNow(format!("network {id} is being deleted")));
    }
    let (now, paths) = (desk.now(), desk.paths_over(id));
    let views = desk.views.read();
    let taken_off = |node| views.networks.taken_off(id, node);
    let after = network_plan::with_form(&before.record, form, now, taken_off)?;
    let plan = network_plan::plan(&views, &before.record, after, &paths, now);
    Ok((before, plan))
}

pub(super) async fn apply(
    desk: &Desk,
    actor: &Actor,
    id: NetworkId,
    form: Option<wire::NetworkForm>,
) -> Result<ApplyNetworkResponse, Refused> {
    let form = Form::from_wire(form.unwrap_or_default())?;
    // Nobody decides of a member between the look and the commit.
    let turn = desk.turn.lock().await;
    let (before, plan) = planned(desk, id, form)?;
    if plan.admits {
        desk.may_approve()?;
    }
    if plan.record != before.record {
        let write = bounded(&plan.record)?;
        let now = desk.now();
        let dropped = plan.dropped.iter();
        let mut writes: Vec<Write> = dropped
            .map(|node| revocation(id, *node, actor.name(), now).put())
            .collect();
        // What does not fit into one commit comes before the record: a node that is revoked and named still is denied by
        // then, and applying again goes on with the others.
        let audit = actor.does("network.apply", id, "");
        let guard = Guard::At(key::network(id), before.revision);
        let together = writes.len() + 1 < WRITES_MAX;
        let first = if together {
            Vec::new()
        } else {
            std::mem::take(&mut writes)
        };
        for batch in first.chunks(WRITES_MAX - 1) {
            desk.commit(vec![guard.clone()], batch.to_vec(), audit.clone())
                .await?;
        }
        writes.push(write);
        desk.commit(vec![guard], writes, audit).await?;
        let message = format!("{} things changed by {}", plan.changes.len(), actor.name());
        desk.say(Severity::Notice, "network.applied", &id.to_string(), &message);
    }
    drop(turn);
    Ok(ApplyNetworkResponse {
        network: Some(shown(desk, id)?),
        changes: plan.changes.into_iter().map(change).collect(),
    })
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
