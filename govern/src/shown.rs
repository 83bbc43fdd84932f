//! How a network that was read is shown to whoever asks.

use picket_proto::status::{ControlledMember, ControlledNetwork};
use picket_zerotier::{
    controller::{Members, Network},
    ids::NetworkId,
};

/// A network with all its records, as it was read.
#[must_use]
pub fn shown(network: &Network, members: &Members) -> ControlledNetwork {
    let members = members.by_node.iter().map(|(node, member)| ControlledMember {
        node: *node,
        name: member.name.clone().unwrap_or_default(),
        authorized: member.authorized,
        addresses: member.addresses.clone(),
    });
    ControlledNetwork {
        name: network.name.clone(),
        private: network.private,
        members: members.collect(),
        ..unseen(network.id, String::new())
    }
}

/// A network that cannot be read, and why.
#[must_use]
pub fn unseen(id: NetworkId, why: String) -> ControlledNetwork {
    ControlledNetwork {
        id,
        name: String::new(),
        private: true,
        members: Vec::new(),
        held_back: 0,
        frozen: why,
        differences: Vec::new(),
    }
}
