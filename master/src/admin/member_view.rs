//! One node on one network, as lists show it.

use picket_proto::{status::ControlledMember, wire::admin as wire};
use picket_zerotier::ids::{NetworkId, NodeId};

use crate::{membership::Decision, views::State};

/// What a controller said of a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Observed<'a> {
    /// It has not said anything of the network.
    Nothing,
    /// It has no record of the node.
    Absent,
    /// It has this one.
    Record(&'a ControlledMember),
}

/// A node on a network: what was decided of it, and what its controller has.
pub(super) fn shown(
    state: &State,
    (network, node): (NetworkId, NodeId),
    observed: Observed<'_>,
    now: jiff::Timestamp,
) -> wire::Member {
    let (decision, because) = match state.networks.decide(&state.roster, network, node, now) {
        Decision::Authorized { because, .. } => (wire::MemberDecision::Authorized, because.to_string()),
        Decision::Denied(because) => (wire::MemberDecision::Denied, because.to_string()),
        Decision::Unknown => (wire::MemberDecision::Unknown, "nobody registered it".to_owned()),
    };
    let (observation, addresses) = match observed {
        Observed::Nothing => (wire::MemberObservation::Unknown, Vec::new()),
        Observed::Absent => (wire::MemberObservation::Absent, Vec::new()),
        Observed::Record(record) if record.authorized => {
            (wire::MemberObservation::Authorized, record.addresses.clone())
        }
        Observed::Record(record) => (wire::MemberObservation::Deauthorized, record.addresses.clone()),
    };
    let host = state.roster.of_node(node);
    wire::Member {
        network_id: network.to_string(),
        node_id: node.to_string(),
        host: host.map(|host| host.record.name.to_string()).unwrap_or_default(),
        decision: decision.into(),
        because,
        observed: observation.into(),
        addresses,
        ..Default::default()
    }
}
