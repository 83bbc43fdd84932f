//! Whom a kill is about: those who were on a network when it was made, by what was decided or by what was seen.

use std::collections::BTreeSet;

use jiff::Timestamp;
use picket_zerotier::ids::{NetworkId, NodeId};

use super::report::Reports;
use crate::{
    membership::{Decision, authorized},
    record::{
        HostRecord, HostStanding,
        network::{KillScope, NetworkRecord},
    },
    views::State,
};

/// A node on a network.
pub(crate) type Pair = (NetworkId, NodeId);

/// Everybody in a kill's scope who was on a network at `at` or is seen on one. `banned` says that the kill banned the
/// host it is about: by the host's standing alone nobody was on anything.
pub(crate) fn members(
    state: &State,
    reports: &Reports,
    scope: &KillScope,
    banned: bool,
    at: Timestamp,
) -> BTreeSet<Pair> {
    let mut found = seen(state, reports, scope);
    for network in in_scope(state, scope) {
        let nodes = state.networks.known_on(&state.roster, network.id);
        let covered = nodes
            .into_iter()
            .filter(|node| state.networks.covers(&state.roster, scope, network.id, *node));
        let on = covered.filter(|node| was_on(state, network.id, *node, banned, at));
        found.extend(on.map(|node| (network.id, node)));
    }
    found
}

/// Everybody in a kill's scope who is seen on a network: its controller authorizes them, or they say that they are on.
pub(crate) fn seen(state: &State, reports: &Reports, scope: &KillScope) -> BTreeSet<Pair> {
    let mut found = BTreeSet::new();
    for network in in_scope(state, scope) {
        let covers = |node: NodeId| state.networks.covers(&state.roster, scope, network.id, node);
        let records = reports
            .of_controller(network.controller)
            .and_then(|report| report.controller.as_ref())
            .and_then(|controlled| controlled.networks.get(&network.id));
        let authorized = records.into_iter().flat_map(|records| &records.authorized);
        let nodes = authorized
            .filter(|(_, authorized)| **authorized)
            .map(|(node, _)| *node);
        found.extend(nodes.filter(|node| covers(*node)).map(|node| (network.id, node)));
    }
    for host in state.roster.hosts().map(|host| &host.record) {
        let joined = reports.of(host.id).and_then(|report| report.zerotier.as_ref());
        let (Some(node), Some(joined)) = (host.node, joined) else {
            continue;
        };
        for (id, on) in &joined.networks {
            let watched = state.networks.network(*id).is_some();
            if on.admitted && watched && state.networks.covers(&state.roster, scope, *id, node) {
                found.insert((*id, node));
            }
        }
    }
    found
}

fn in_scope<'a>(state: &'a State, scope: &'a KillScope) -> impl Iterator<Item = &'a NetworkRecord> {
    let all = state.networks.networks().map(|network| &network.record);
    all.filter(move |network| match scope {
        KillScope::Network(id) => network.id == *id,
        KillScope::Node(_) | KillScope::Host(_) | KillScope::Owner(_) | KillScope::All => true,
    })
}

/// Whether a node would be on a network if nothing were killed.
fn was_on(state: &State, network: NetworkId, node: NodeId, banned: bool, at: Timestamp) -> bool {
    let Some(mut facts) = state.networks.facts(&state.roster, network, node) else {
        return false;
    };
    facts.kill = None;
    let active: HostRecord;
    if banned && let Some(host) = facts.host {
        active = HostRecord {
            standing: HostStanding::Active,
            ..host.clone()
        };
        facts.host = Some(&active);
    }
    matches!(authorized(&facts, at), Decision::Authorized { .. })
}
