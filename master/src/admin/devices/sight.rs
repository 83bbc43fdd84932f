//! Where a node works of which nobody decided anything: what controllers said of it.

use picket_zerotier::ids::{NetworkId, NodeId};

use crate::{
    desk::Desk,
    membership::Decision,
    record::network::{Governor, NetworkMode},
};

/// Where an unknown node works, as far as that can be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// Networks whose controller lets it on, and how many approvals they want.
    pub(super) on: Vec<(NetworkId, u8)>,
    /// Networks that cannot be read just now, and why.
    pub(super) unread: Vec<(NetworkId, String)>,
}

/// Looks for a node on every network of which it is unknown. Registered, it would be denied there.
pub(super) fn sight(desk: &Desk, node: NodeId) -> Sight {
    let unknown: Vec<(NetworkId, Governor, u8)> = {
        let (views, now) = (desk.views.read(), desk.now());
        let networks = views.networks.networks().map(|network| &network.record);
        networks
            .filter(|network| network.mode != NetworkMode::Deleting)
            .filter(|network| {
                views.networks.decide(&views.roster, network.id, node, now) == Decision::Unknown
            })
            .map(|network| (network.id, network.controller, network.approvals))
            .collect()
    };
    let mut controllers = desk.controllers();
    let mut sight = Sight::default();
    for (id, governor, approvals) in unknown {
        let network = match controllers.network(governor, id) {
            Ok(network) => network,
            Err(problem) => {
                sight.unread.push((id, problem));
                continue;
            }
        };
        let mut members = network.members.iter();
        if members.any(|member| member.node == node && member.authorized) {
            sight.on.push((id, approvals));
        } else if !network.frozen.is_empty() {
            sight.unread.push((id, network.frozen.clone()));
        } else if let Governor::Host(host) = governor
            && !desk.sessions.has(host)
        {
            sight
                .unread
                .push((id, format!("{} is not connected", desk.name_of(host))));
        }
    }
    sight
}
