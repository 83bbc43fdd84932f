//! A node on a network, as operators are shown it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use picket_proto::{status::ControlledMember, to_wire_time, wire::admin as wire};
use picket_zerotier::{
    address,
    ids::{NetworkId, NodeId},
};

use crate::{
    activation,
    membership::Decision,
    owner::Owner,
    record::network::{ActivationRecord, GrantRecord, NetworkRecord, RequestRecord, RequestState},
    request::{About, missing},
    views::State,
};

/// What the controller said of a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen<'a> {
    /// Its record.
    Record(&'a ControlledMember),
    /// That it has none.
    Absent,
    /// Nothing: it is not known what the controller has.
    Nothing,
}

/// A node on a network. What is said of it is what holds, also where nobody registered it.
pub(super) fn member(
    state: &State,
    network: &NetworkRecord,
    node: NodeId,
    seen: Seen<'_>,
    now: Timestamp,
) -> wire::Member {
    let (id, networks) = (network.id, &state.networks);
    let (decision, because, until) = match networks.decide(&state.roster, id, node, now) {
        Decision::Authorized { because, until } => {
            (wire::MemberDecision::Authorized, because.to_string(), until)
        }
        Decision::Denied(because) => (wire::MemberDecision::Denied, because.to_string(), None),
        Decision::Unknown => (
            wire::MemberDecision::Unknown,
            "nobody registered it".to_owned(),
            None,
        ),
    };
    let (observed, addresses) = match seen {
        Seen::Record(record) if record.authorized => {
            (wire::MemberObservation::Authorized, record.addresses.clone())
        }
        Seen::Record(record) => (wire::MemberObservation::Deauthorized, record.addresses.clone()),
        Seen::Absent => (wire::MemberObservation::Absent, Vec::new()),
        Seen::Nothing => (wire::MemberObservation::Unknown, Vec::new()),
    };
    let host = state.roster.of_node(node).map(|host| &host.record.name);
    let device = networks.device(node).map(|kept| &kept.record.name);
    let request = networks.request(id, node).map(|kept| &kept.record);
    let request = request.filter(|request| network.knows(request.at));
    let grant = networks.grant(id, node).map(|kept| &kept.record);
    let activation = networks.activation(id, node).map(|kept| &kept.record);
    let activation = activation.filter(|activation| network.knows(activation.at));
    let (rfc4193, sixplane) = addresses_of(id, node);
    wire::Member {
        network_id: id.to_string(),
        node_id: node.to_string(),
        host: host.map(ToString::to_string).unwrap_or_default(),
        decision: decision.into(),
        because,
        observed: observed.into(),
        addresses,
        until: until.map(to_wire_time),
        owner: Owner::of(state, node)
            .map(|owner| owner.to_string())
            .unwrap_or_default(),
        device: host.or(device).map(ToString::to_string).unwrap_or_default(),
        request: request.map(|request| {
            let owner = Owner::of(state, node);
            let about = About {
                network,
                node,
                owner: owner.as_ref(),
                role: &|name| state.roster.role(name),
            };
            shown_request(request, &about)
        }),
        grant: kind(grant).into(),
        activation: activation.map(|activation| shown_activation(activation, now)),
        rfc4193,
        sixplane,
    }
}

fn addresses_of(network: NetworkId, node: NodeId) -> (String, String) {
    let rfc4193 = address::rfc4193(network, node);
    let sixplane = address::sixplane(network, node);
    (rfc4193.to_string(), sixplane.to_string())
}

fn kind(grant: Option<&GrantRecord>) -> wire::GrantKind {
    match grant {
        None => wire::GrantKind::Unspecified,
        Some(grant) if !grant.admitted => wire::GrantKind::Revoked,
        Some(grant) if grant.for_activation => wire::GrantKind::MayActivate,
        Some(_) => wire::GrantKind::Stands,
    }
}

fn shown_request(request: &RequestRecord, about: &About<'_>) -> wire::MemberRequest {
    let ended = request.ended.as_ref();
    let counting: BTreeSet<&str> = about
        .counting(request)
        .map(|approval| approval.by.as_str())
        .collect();
    let waits = request.state == RequestState::Pending;
    let approvals = request.approvals.iter().map(|approval| wire::Approval {
        by: approval.by.clone(),
        at: Some(to_wire_time(approval.at)),
        reason: approval.reason.clone(),
        lapsed: waits && !counting.contains(approval.by.as_str()),
    });
    wire::MemberRequest {
        state: match request.state {
            RequestState::Pending => wire::RequestState::Pending,
            RequestState::Approved => wire::RequestState::Approved,
            RequestState::Denied => wire::RequestState::Denied,
            RequestState::Cancelled => wire::RequestState::Cancelled,
            RequestState::Expired => wire::RequestState::Expired,
        }
        .into(),
        by: request.by.clone(),
        reason: request.reason.clone(),
        at: Some(to_wire_time(request.at)),
        expires_at: Some(to_wire_time(request.expires_at)),
        approvals: approvals.collect(),
        missing: u32::try_from(missing(request, about)).unwrap_or(u32::MAX),
        ended_by: ended.map(|ended| ended.by.clone()).unwrap_or_default(),
        ended_because: ended.map(|ended| ended.reason.clone()).unwrap_or_default(),
        missing_from: match waits {
            true => about.missing_from(request),
            false => String::new(),
        },
    }
}

fn shown_activation(activation: &ActivationRecord, now: Timestamp) -> wire::Activation {
    let over = !activation.is_on(now);
    let because = match (&activation.ended, activation.ended_by()) {
        _ if !over => String::new(),
        (Some(ended), Some(by)) if ended.reason.is_empty() => format!("ended by {by}"),
        (Some(ended), Some(by)) => format!("ended by {by}: {}", ended.reason),
        (Some(_) | None, _) => activation::OVER.to_owned(),
    };
    wire::Activation {
        by: activation.by.clone(),
        reason: activation.reason.clone(),
        started_at: Some(to_wire_time(activation.at)),
        until: Some(to_wire_time(activation.until)),
        ended_at: over.then(|| to_wire_time(activation.end(now))),
        ended_because: because,
    }
}
