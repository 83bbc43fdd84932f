//! Networks and their members, as lists show them.

use std::collections::{BTreeMap, BTreeSet};

use picket_proto::{
    status::ControlledNetwork,
    wire::admin::{self as wire},
};
use picket_zerotier::ids::{NetworkId, NodeId};

use crate::{
    admin::member_view::{self, Seen},
    comparison::{Comparison, compare, rules},
    desk::Desk,
    membership::{Because, Decision},
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
    let views = desk.views.read();
    let rules = rules(&views, record, now);
    compare(observed, &rules, &views.networks.governed(record), now)
}

/// A network, everything of it.
pub(super) fn shown(desk: &Desk, id: NetworkId) -> Result<wire::Network, Refused> {
    let record = record(desk, id)?.record;
    let observed = desk.controlled(record.controller, id);
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
    let authorized = match &compared {
        Some(compared) => compared.authorized,
        None => rules(&views, &record, now)
            .values()
            .filter(|rule| rule.holds(now))
            .count(),
    };
    drop(views);
    let compared = compared.unwrap_or_default();
    let (name, problem, held_back, differences) = match observed {
        Ok(network) => (
            network.name,
            network.frozen,
            network.held_back,
            network.differences,
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
        form: Some(network_plan::form(&record).to_wire()),
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
pub(super) fn glance(desk: &Desk, record: &NetworkRecord) -> wire::Network {
    let mut network = glanced(record);
    if let Ok(observed) = desk.controlled(record.controller, record.id) {
        network.name = observed.name;
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

/// Every node that has a grant on a network, or a record at its controller.
pub(in crate::admin) fn members(desk: &Desk, id: NetworkId) -> Result<Vec<wire::Member>, Refused> {
    let network = record(desk, id)?.record;
    let observed = desk.controlled(network.controller, id).ok();
    let reports = observed.is_some();
    let records: BTreeMap<_, _> = observed
        .into_iter()
        .flat_map(|network| network.members)
        .map(|member| (member.node, member))
        .collect();
    let views = desk.views.read();
    let now = desk.now();
    let mut nodes: BTreeSet<NodeId> = records.keys().copied().collect();
    // Everybody who is registered is denied; those of whom nothing else is to be said here are left out.
    nodes.extend(
        views
            .networks
            .known_on(&views.roster, id)
            .into_iter()
            .filter(|node| {
                views.networks.decide(&views.roster, id, *node, now) != Decision::Denied(Because::NotAdmitted)
            }),
    );
    nodes.extend(views.networks.waiting_on(id).map(|request| request.node));
    let member = |node: NodeId| {
        let seen = match records.get(&node) {
            Some(record) => Seen::Record(record),
            None if reports => Seen::Absent,
            None => Seen::Nothing,
        };
        member_view::member(&views, &network, node, seen, now)
    };
    Ok(nodes.into_iter().map(member).collect())
}
