//! Networks and their members, as lists show them.

use std::collections::BTreeMap;

use picket_proto::{
    rules::Rule,
    status::ControlledNetwork,
    wire::admin::{self as wire},
};
use picket_zerotier::ids::{NetworkId, NodeId};

use crate::{
    comparison::{Comparison, compare},
    controllers::Controllers,
    desk::Desk,
    membership::rule,
    network_plan::{self, Change},
    record::network::{NetworkMode, NetworkRecord},
    refused::Refused,
    views::State,
};

/// The record of a network that is not gone.
pub(super) fn record(desk: &Desk, id: NetworkId) -> Result<crate::networks::Network, Refused> {
    let views = desk.views.read();
    let network = views.networks.network(id).cloned();
    network.ok_or_else(|| Refused::no_network(id))
}

/// How what a controller has differs from what was decided.
pub(super) fn compared(desk: &Desk, record: &NetworkRecord, observed: &ControlledNetwork) -> Comparison {
    let now = desk.now();
    let rules = rules(desk, record, now);
    let governed = desk.views.read().networks.governed(record);
    compare(observed, &rules, &governed, now)
}

/// So many members are decided of while the views are held: whoever changes them waits that long.
const AT_A_TIME: usize = 256;

/// The rules of a network, of every node that somebody knows.
fn rules(desk: &Desk, network: &NetworkRecord, now: jiff::Timestamp) -> BTreeMap<NodeId, Rule> {
    let known: Vec<NodeId> = {
        let views = desk.views.read();
        let known = views.networks.known_on(&views.roster, network.id);
        known.into_iter().collect()
    };
    let mut rules = BTreeMap::new();
    for some in known.chunks(AT_A_TIME) {
        let views = desk.views.read();
        let rule = |node: &NodeId| {
            let facts = views.networks.facts(&views.roster, network.id, *node)?;
            Some((*node, rule(&facts, now)?))
        };
        rules.extend(some.iter().filter_map(rule));
    }
    rules
}

/// A network, everything of it.
pub(super) fn shown(desk: &Desk, id: NetworkId) -> Result<wire::Network, Refused> {
    let mut network = listed(desk, &mut desk.controllers(), id)?;
    network.form = Some(network_plan::form(&record(desk, id)?.record).to_wire());
    Ok(network)
}

/// A network as lists show it: without its settings.
pub(super) fn listed(
    desk: &Desk,
    controllers: &mut Controllers<'_>,
    id: NetworkId,
) -> Result<wire::Network, Refused> {
    let record = record(desk, id)?.record;
    let observed = controllers.network(record.controller, id);
    let compared = observed
        .as_ref()
        .ok()
        .map(|observed| compared(desk, &record, observed));
    let now = desk.now();
    let views = desk.views.read();
    let (requests, killed) = (
        pending(&views, id, now),
        views.networks.closed(id).map(|kill| kill.id.clone()),
    );
    drop(views);
    let authorized = match &compared {
        Some(compared) => compared.authorized,
        None => rules(desk, &record, now)
            .values()
            .filter(|rule| rule.holds(now))
            .count(),
    };
    let compared = compared.unwrap_or_default();
    let (name, problem, held_back, differences) = match observed {
        Ok(network) => (
            network.name.clone(),
            network.frozen.clone(),
            network.held_back,
            network.differences.clone(),
        ),
        Err(problem) => (
            record.settings.name.clone().unwrap_or_default(),
            problem,
            0,
            Vec::new(),
        ),
    };
    Ok(wire::Network {
        name,
        controller_host: record
            .controller
            .host()
            .map(|host| desk.name_of(host))
            .unwrap_or_default(),
        members_authorized: count(authorized),
        members_unknown: count(compared.unknown.len()),
        drift: count(compared.drift()),
        problem,
        central: record.controller.host().is_none(),
        held_back,
        requests,
        differences,
        killed: killed.unwrap_or_default(),
        ..glanced(&record)
    })
}

/// What anybody may know of a network who asks to be on it.
pub(super) fn glanced(record: &NetworkRecord) -> wire::Network {
    wire::Network {
        id: record.id.to_string(),
        name: record.settings.name.clone().unwrap_or_default(),
        mode: match record.mode {
            NetworkMode::Observe => wire::NetworkMode::Observe,
            NetworkMode::Enforce => wire::NetworkMode::Enforce,
            NetworkMode::Deleting | NetworkMode::Gone => wire::NetworkMode::Deleting,
        }
        .into(),
        approvals: record.approvals.into(),
        ..Default::default()
    }
}

/// As [`glanced`], by the name that its controller has for it.
pub(super) fn glance(controllers: &mut Controllers<'_>, record: &NetworkRecord) -> wire::Network {
    let mut network = glanced(record);
    if let Ok(observed) = controllers.network(record.controller, record.id) {
        network.name.clone_from(&observed.name);
    }
    network
}

fn pending(state: &State, id: NetworkId, now: jiff::Timestamp) -> u32 {
    let waiting = state.networks.waiting_on(id);
    count(waiting.filter(|request| now < request.expires_at).count())
}

pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A change, as it travels.
pub(super) fn change(change: Change) -> wire::NetworkChange {
    wire::NetworkChange {
        what: change.what,
        before: change.before,
        after: change.after,
    }
}
