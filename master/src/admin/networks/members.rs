//! Lists of members, a page at a time. A controller's report is read once for a page, and the views are held for one node
//! at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use jiff::Timestamp;
use picket_zerotier::ids::{NetworkId, NodeId};

use super::shown::record;
use crate::{
    admin::member_view::{self, Seen},
    desk::Desk,
    membership::{Because, Decision},
    owner::Owner,
    record::network::NetworkRecord,
    refused::Refused,
    request,
    views::State,
};
use picket_proto::wire::admin as wire;

/// A node on a network, by which a list goes on.
pub(in crate::admin) type Place = (NetworkId, NodeId);

/// Which members are listed.
#[derive(Debug, Clone, Copy)]
pub(in crate::admin) struct Wanted<'a> {
    /// Of one network; of every one when none is named, and then requests alone.
    pub(in crate::admin) network: Option<NetworkId>,
    /// Only those whose request waits.
    pub(in crate::admin) requested: bool,
    /// Only this person's.
    pub(in crate::admin) of: Option<&'a str>,
    /// Those after this one.
    pub(in crate::admin) after: Option<Place>,
    /// As many at most.
    pub(in crate::admin) size: usize,
}

/// A page of members, and the last one on it when there are more.
#[derive(Debug, Default)]
pub(in crate::admin) struct Members {
    pub(in crate::admin) members: Vec<wire::Member>,
    pub(in crate::admin) last: Option<Place>,
}

impl Members {
    /// What asks for the next page; empty on the last one.
    pub(in crate::admin) fn token(&self) -> String {
        let last = self.last.map(|(network, node)| format!("{network}/{node}"));
        last.unwrap_or_default()
    }
}

/// Reads what asks for a page.
pub(in crate::admin) fn place(token: &str) -> Result<Option<Place>, Refused> {
    if token.is_empty() {
        return Ok(None);
    }
    let read = token.split_once('/').and_then(|(network, node)| {
        let place = (network.parse().ok()?, node.parse().ok()?);
        Some(place)
    });
    match read {
        Some(place) => Ok(Some(place)),
        None => Err(Refused::invalid(
            "page_token",
            "is none that a page before gave; begin without one",
        )),
    }
}

/// Lists members: every node that has a grant on a network, or a record at its controller, or a request that waits.
pub(in crate::admin) fn members(desk: &Desk, wanted: Wanted<'_>) -> Result<Members, Refused> {
    let networks: Vec<NetworkRecord> = match wanted.network {
        Some(id) => vec![record(desk, id)?.record],
        None => {
            let views = desk.views.read();
            let all = views.networks.networks().map(|kept| kept.record.clone());
            all.collect()
        }
    };
    let (now, mut controllers) = (desk.now(), desk.controllers());
    let mut page = Members::default();
    let mut last = None;
    for network in networks {
        let id = network.id;
        let from = match wanted.after {
            Some((on, _)) if on > id => continue,
            Some((on, node)) if on == id => Bound::Excluded(node),
            Some(_) | None => Bound::Unbounded,
        };
        let waiting = waiting(&desk.views.read(), id, now);
        let requested = wanted.requested || wanted.network.is_none();
        if requested && waiting.is_empty() {
            continue;
        }
        let observed = controllers.network(network.controller, id).ok();
        let records: BTreeMap<_, _> = observed
            .into_iter()
            .flat_map(|network| &network.members)
            .map(|member| (member.node, member))
            .collect();
        let nodes = if requested {
            waiting.clone()
        } else {
            let known = {
                let views = desk.views.read();
                views.networks.known_on(&views.roster, id)
            };
            records.keys().chain(&known).chain(&waiting).copied().collect()
        };
        for node in nodes.range((from, Bound::Unbounded)).copied() {
            let views = desk.views.read();
            let theirs = |name: &str| Owner::of(&views, node).is_some_and(|owner| owner.is(name));
            let seen = match records.get(&node) {
                Some(record) => Seen::Record(record),
                None if observed.is_some() => Seen::Absent,
                None => Seen::Nothing,
            };
            let listed =
                records.contains_key(&node) || waiting.contains(&node) || says(&views, id, node, now);
            if !listed || wanted.of.is_some_and(|name| !theirs(name)) {
                continue;
            }
            if page.members.len() == wanted.size {
                page.last = last;
                return Ok(page);
            }
            page.members
                .push(member_view::member(&views, &network, node, seen, now));
            last = Some((id, node));
        }
    }
    Ok(page)
}

fn waiting(state: &State, id: NetworkId, now: Timestamp) -> BTreeSet<NodeId> {
    let waiting = state.networks.waiting_on(id);
    let waiting = waiting.filter(|request| request::waits(request, now));
    waiting.map(|request| request.node).collect()
}

/// Whether something is to be said of a node that its controller has no record of. Everybody who is registered is denied;
/// those of whom nothing else is to be said are left out.
fn says(state: &State, id: NetworkId, node: NodeId, now: Timestamp) -> bool {
    let granted = state.networks.grant(id, node).is_some();
    match state.networks.decide(&state.roster, id, node, now) {
        Decision::Denied(Because::NotAdmitted) => false,
        // `device list --removed` has it.
        Decision::Denied(Because::DeviceRemoved { .. }) if !granted => false,
        Decision::Authorized { .. } | Decision::Denied(_) | Decision::Unknown => true,
    }
}
