//! Naming a node: by its id, its RFC4193 or 6PLANE address, or the name of its device or host.

use std::net::Ipv6Addr;

use picket_proto::host::Name;
use picket_zerotier::{
    address,
    ids::{NetworkId, NodeId},
};

use crate::{
    desk::Desk,
    owner::{Caller, Owner},
    refused::Refused,
    views::State,
};

/// What a text names a node by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    /// The node itself.
    Node(NodeId),
    /// The name of a device or a host.
    Name(Name),
}

/// Reads a text that names a node. An address is one of the network, where there is one.
fn read(text: &str, network: Option<NetworkId>) -> Result<Named, Refused> {
    let invalid = |problem: String| Refused::invalid("node", problem);
    let as_id = match text.parse::<NodeId>() {
        Ok(node) => return Ok(Named::Node(node)),
        Err(error) => error,
    };
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return of_address(address, network).map(Named::Node).map_err(invalid);
    }
    text.parse().map(Named::Name).map_err(|_| {
        invalid(format!(
            "{as_id}; a node is named by its id, its RFC4193 or 6PLANE address, or the name of its device or host"
        ))
    })
}

/// The node that has an address.
fn of_address(given: Ipv6Addr, network: Option<NetworkId>) -> Result<NodeId, String> {
    if let Some((of, node)) = address::from_rfc4193(given) {
        return match network {
            Some(network) if network != of => {
                Err(format!("{given} is an address on network {of}, not on {network}"))
            }
            Some(_) | None => Ok(node),
        };
    }
    let node = match network {
        Some(network) => address::from_sixplane_of(network, given),
        None => address::from_sixplane(given),
    };
    node.ok_or_else(|| match network {
        Some(network) => format!("{given} is no RFC4193 or 6PLANE address on network {network}"),
        None => format!("{given} is no RFC4193 or 6PLANE address"),
    })
}

/// A node that is given by its id or by an address, and by no name.
pub(super) fn bare_node(text: &str) -> Result<NodeId, Refused> {
    match read(text, None)? {
        Named::Node(node) => Ok(node),
        Named::Name(name) => Err(Refused::invalid(
            "node",
            format_args!("`{name}` is no node id (10 hex digits) and no RFC4193 or 6PLANE address"),
        )),
    }
}

/// Whether a text that is to be a name would be read as something else.
pub(super) fn reads_as_node(name: &Name) -> bool {
    matches!(read(name.as_str(), None), Ok(Named::Node(_)))
}

/// A node, whatever the network.
///
/// # Errors
/// When nothing is called so, or two things are.
pub fn node(desk: &Desk, text: &str) -> Result<NodeId, Refused> {
    resolve(&desk.views.read(), text, None)
}

/// A node on a network: an address is one there.
pub(super) fn node_on(desk: &Desk, network: NetworkId, text: &str) -> Result<NodeId, Refused> {
    resolve(&desk.views.read(), text, Some(network))
}

/// As [`node_on`], and not a host that says it is another node than the one that is believed: a permission for either may
/// be for the wrong machine.
pub(super) fn settled_node_on(desk: &Desk, network: NetworkId, text: &str) -> Result<NodeId, Refused> {
    let host = match read(text, Some(network)) {
        Ok(Named::Name(name)) => desk.host_named(&name).ok(),
        Ok(Named::Node(_)) | Err(_) => None,
    };
    if let Some(waiting) = host.and_then(|host| desk.nodes.of(host)) {
        let sentence = waiting.sentence(text);
        return Err(Refused::NotNow(format!(
            "host {text} {sentence}; or admit a node by its id"
        )));
    }
    node_on(desk, network, text)
}

/// One of the caller's own nodes on a network. Of what is not its own it is not told whether that is there.
pub(super) fn own_node_on(
    desk: &Desk,
    network: NetworkId,
    text: &str,
    caller: &Caller,
) -> Result<NodeId, Refused> {
    let views = desk.views.read();
    let node = match read(text, Some(network))? {
        Named::Node(node) => Some(node),
        Named::Name(name) => own_named(&views, &name, caller),
    };
    let own = node.filter(|node| caller.owns(Owner::of(&views, *node).as_ref()));
    own.ok_or_else(|| not_own(&views, network, text, caller))
}

/// That a node is not the caller's. Whoever sees all nodes is told that it is there, and who acts for it.
fn not_own(state: &State, network: NetworkId, text: &str, caller: &Caller) -> Refused {
    let seen = resolve(state, text, Some(network)).ok();
    match seen.filter(|_| caller.sees_all()) {
        Some(node) => not_yours(state, node, text, caller),
        None => Refused::no_device(text),
    }
}

/// That a node that the caller sees is not its own.
pub(super) fn not_yours(state: &State, node: NodeId, text: &str, caller: &Caller) -> Refused {
    let whose = match Owner::of(state, node) {
        Some(Owner::Person(name)) => format!("{name}'s"),
        Some(Owner::Host(name)) => format!("host {name}'s"),
        None => "nobody's".to_owned(),
    };
    Refused::Denied(format!(
        "{text} is {whose}; {}, as {}, acts for its own devices, and an operator or admin for those of others",
        caller.name, caller.role
    ))
}

fn own_named(state: &State, name: &Name, caller: &Caller) -> Option<NodeId> {
    let device = state.networks.device_named(name)?;
    (device.record.owner == caller.name).then_some(device.record.node)
}

fn resolve(state: &State, text: &str, network: Option<NetworkId>) -> Result<NodeId, Refused> {
    let name = match read(text, network)? {
        Named::Node(node) => return Ok(node),
        Named::Name(name) => name,
    };
    let device = state.networks.device_named(&name).map(|kept| &kept.record);
    let host = state.roster.named(&name).map(|host| &host.record);
    match (device, host) {
        (Some(device), Some(host)) if host.node != Some(device.node) => {
            let of_host = host
                .node
                .map_or("which has no node that is believed".to_owned(), |node| {
                    format!("node {node}")
                });
            Err(Refused::NotNow(format!(
                "`{name}` is host {name}, {of_host}, and a device of {}, node {}; name the one that you mean by its node id",
                device.owner, device.node
            )))
        }
        (Some(device), _) => Ok(device.node),
        (None, Some(host)) => host.node.ok_or_else(|| {
            Refused::NotNow(format!(
                "host {name} has no ZeroTier node that is believed; see its conditions in `picketctl host show {name}`"
            ))
        }),
        (None, None) => Err(Refused::invalid(
            "node",
            format_args!(
                "`{name}` is no node id (10 hex digits) and no address, and no device or host is called so (`picketctl device \
                 list`, `picketctl host list`)"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = "5350d87547c880cb";
    const NODE: &str = "39966434ba";
    const RFC4193: &str = "fd53:50d8:7547:c880:cb99:9339:9664:34ba";
    const SIXPLANE: &str = "fc14:9858:be39:9664:34ba::1";

    fn network() -> NetworkId {
        NETWORK.parse().unwrap()
    }

    fn node() -> Named {
        Named::Node(NODE.parse().unwrap())
    }

    #[test]
    fn an_id_and_both_addresses_name_the_same_node_with_a_network_and_without() {
        for text in [NODE, RFC4193, SIXPLANE] {
            for network in [None, Some(network())] {
                assert_eq!(read(text, network).unwrap(), node(), "{text}");
            }
        }
    }

    #[test]
    fn an_address_on_another_network_names_nobody() {
        let other = NetworkId::at("39966434ba".parse().unwrap(), 1);
        for text in [RFC4193, SIXPLANE] {
            let refused = read(text, Some(other)).unwrap_err().to_string();
            assert!(refused.contains(&other.to_string()), "{refused}");
        }
        for text in ["fe80::1", "::1", "2001:db8::1"] {
            assert!(read(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_id_and_no_address_is_a_name_when_it_can_be_one() {
        let name = "anas-laptop".parse().unwrap();
        assert_eq!(read("anas-laptop", None).unwrap(), Named::Name(name));
        for text in ["", "Ana's laptop", "10.0.0.1/24"] {
            assert!(read(text, None).is_err(), "{text}");
        }
        assert!(reads_as_node(&"deadbeef00".parse().unwrap()));
        assert!(!reads_as_node(&"deadbeef".parse().unwrap()));
    }
}
