//! How a network that was read is shown to whoever asks.

use picket_proto::{
    plain,
    status::{ControlledMember, ControlledNetwork, MOST_TEXT, MOST_VALUES},
};
use picket_zerotier::{
    controller::{Members, Network},
    ids::NetworkId,
};

/// A network with all its records, as it was read, but for what a terminal would act on: anybody may write names into
/// records.
#[must_use]
pub fn shown(network: &Network, members: &Members) -> ControlledNetwork {
    let members = members.by_node.iter().map(|(node, member)| ControlledMember {
        node: *node,
        name: plain(member.name.as_deref().unwrap_or_default(), MOST_TEXT),
        authorized: member.authorized,
        addresses: member
            .addresses
            .iter()
            .take(MOST_VALUES)
            .map(|address| plain(address, MOST_TEXT))
            .collect(),
    });
    ControlledNetwork {
        name: plain(&network.name, MOST_TEXT),
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
