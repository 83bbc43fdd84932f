//! Address arithmetic: what follows from a network id and a node id alone.
//!
//! Nothing here is looked up: a node's MAC address, its RFC4193 and 6PLANE addresses and the name of its interface on
//! Linux are functions of the two ids, and all but the name can be read backwards.

use std::net::Ipv6Addr;

use crate::ids::{NetworkId, NodeId};

/// Prefix length of the RFC4193 range of a network.
pub const RFC4193_PREFIX: u8 = 88;
/// Prefix length of the 6PLANE range of a network.
pub const SIXPLANE_PREFIX: u8 = 40;

/// Returns the RFC4193 address of a node on a network.
#[must_use]
pub fn rfc4193(network: NetworkId, node: NodeId) -> Ipv6Addr {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..9].copy_from_slice(&network.to_u64().to_be_bytes());
    bytes[9..11].copy_from_slice(&[0x99, 0x93]);
    bytes[11..].copy_from_slice(&node.to_bytes());
    bytes.into()
}

/// Returns the network and the node whose RFC4193 address this is.
#[must_use]
pub fn from_rfc4193(address: Ipv6Addr) -> Option<(NetworkId, NodeId)> {
    let [0xfd, a, b, c, d, e, f, g, h, 0x99, 0x93, node @ ..] = address.octets() else {
        return None;
    };
    let network = NetworkId::new(u64::from_be_bytes([a, b, c, d, e, f, g, h])).ok()?;
    Some((network, node_of(node)?))
}

/// Returns the first address of the /80 that a node owns on a network with 6PLANE.
#[must_use]
pub fn sixplane(network: NetworkId, node: NodeId) -> Ipv6Addr {
    let [a, b, c, d, e, f, g, h] = network.to_u64().to_be_bytes();
    let mut bytes = [0; 16];
    bytes[0] = 0xfc;
    bytes[1..5].copy_from_slice(&[a ^ e, b ^ f, c ^ g, d ^ h]);
    bytes[5..10].copy_from_slice(&node.to_bytes());
    bytes[15] = 1;
    bytes.into()
}

/// Returns the node that owns a 6PLANE address, whichever network it is of: the address holds only half of that id.
#[must_use]
pub fn from_sixplane(address: Ipv6Addr) -> Option<NodeId> {
    let [0xfc, _, _, _, _, a, b, c, d, e, ..] = address.octets() else {
        return None;
    };
    node_of([a, b, c, d, e])
}

/// Returns the node that owns a 6PLANE address of this network.
#[must_use]
pub fn from_sixplane_of(network: NetworkId, address: Ipv6Addr) -> Option<NodeId> {
    let node = from_sixplane(address)?;
    (sixplane(network, node).octets()[..10] == address.octets()[..10]).then_some(node)
}

/// Returns the MAC address of a node on a network.
#[must_use]
pub fn mac(network: NetworkId, node: NodeId) -> [u8; 6] {
    let network = network.to_u64().to_le_bytes();
    // The first octet is made locally administered and never 52, which QEMU and libvirt use for their own.
    let first = match network[0] & 0xfe | 0x02 {
        0x52 => 0x32,
        octet => octet,
    };
    let [a, b, c, d, e] = node.to_bytes();
    [
        first,
        a ^ network[1],
        b ^ network[2],
        c ^ network[3],
        d ^ network[4],
        e ^ network[5],
    ]
}

/// Returns the node that has a MAC address on a network.
#[must_use]
pub fn from_mac(network: NetworkId, address: [u8; 6]) -> Option<NodeId> {
    let bytes = network.to_u64().to_le_bytes();
    let [_, a, b, c, d, e] = address;
    let node = node_of([
        a ^ bytes[1],
        b ^ bytes[2],
        c ^ bytes[3],
        d ^ bytes[4],
        e ^ bytes[5],
    ])?;
    // The first octet is of the network alone.
    (mac(network, node) == address).then_some(node)
}

fn node_of([a, b, c, d, e]: [u8; 5]) -> Option<NodeId> {
    NodeId::new(u64::from_be_bytes([0, 0, 0, a, b, c, d, e])).ok()
}

/// Returns the MAC address in the usual notation.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// Reads a MAC address in the usual notation, in any case.
#[must_use]
pub fn mac_from_text(text: &str) -> Option<[u8; 6]> {
    let mut octets = text.split(':').map(|octet| {
        let plain = octet.len() == 2 && octet.bytes().all(|digit| digit.is_ascii_hexdigit());
        plain.then(|| u8::from_str_radix(octet, 16).ok())?
    });
    let mut mac = [0; 6];
    for octet in &mut mac {
        *octet = octets.next()??;
    }
    octets.next().is_none().then_some(mac)
}

/// Returns the name that a Linux service gives the interface of a network.
#[must_use]
pub fn device(network: NetworkId) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let folded = (network.to_u64() ^ (network.to_u64() >> 24)) & 0xff_ffff_ffff;
    let letters = (0..8).rev().map(|group| {
        let index = usize::try_from(folded >> (group * 5) & 0x1f).unwrap_or_default();
        char::from(ALPHABET[index])
    });
    ['z', 't'].into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_those_that_real_nodes_were_given() {
        let rows = [
            (
                "5350d87547c880cb",
                "39966434ba",
                "fd53:50d8:7547:c880:cb99:9339:9664:34ba",
                "fc14:9858:be39:9664:34ba::1",
                "ca:b9:5e:23:41:62",
            ),
            (
                "5350d87547c880cb",
                "8fee13b48c",
                "fd53:50d8:7547:c880:cb99:938f:ee13:b48c",
                "fc14:9858:be8f:ee13:b48c::1",
                "ca:0f:26:54:c1:54",
            ),
            (
                "5350d87547f38326",
                "5350d87547",
                "fd53:50d8:7547:f383:2699:9353:50d8:7547",
                "fc14:a35b:5353:50d8:7547::1",
                "26:d0:a3:9f:00:9f",
            ),
            (
                "5350d87547f38326",
                "39966434ba",
                "fd53:50d8:7547:f383:2699:9339:9664:34ba",
                "fc14:a35b:5339:9664:34ba::1",
                "26:ba:65:23:41:62",
            ),
            (
                "5350d87547f38326",
                "8fee13b48c",
                "fd53:50d8:7547:f383:2699:938f:ee13:b48c",
                "fc14:a35b:538f:ee13:b48c::1",
                "26:0c:1d:54:c1:54",
            ),
        ];
        for (network, node, v6, plane, ether) in rows {
            let (network, node) = (network.parse().unwrap(), node.parse().unwrap());
            assert_eq!(rfc4193(network, node).to_string(), v6);
            assert_eq!(sixplane(network, node).to_string(), plane);
            assert_eq!(mac_text(mac(network, node)), ether);

            assert_eq!(from_rfc4193(v6.parse().unwrap()), Some((network, node)));
            assert_eq!(from_sixplane(plane.parse().unwrap()), Some(node));
            assert_eq!(from_sixplane_of(network, plane.parse().unwrap()), Some(node));
            assert_eq!(from_mac(network, mac_from_text(ether).unwrap()), Some(node));
        }
    }

    #[test]
    fn addresses_of_another_kind_or_network_name_nobody() {
        let network: NetworkId = "5350d87547c880cb".parse().unwrap();
        for text in [
            "fc14:9858:be39:9664:34ba::1",
            "fd53:50d8:7547:c880:cb99:9439:9664:34ba",
            "fd00::99:9339:9664:34ba",
            "fd53:50d8:7547:c880:cb99:93ff:9664:34ba",
            "::1",
        ] {
            assert_eq!(from_rfc4193(text.parse().unwrap()), None, "{text}");
        }
        for text in [
            "fd14:9858:be39:9664:34ba::1",
            "fc14:9858:beff:9664:34ba::1",
            "fc14:9858:be00::1",
        ] {
            assert_eq!(from_sixplane(text.parse().unwrap()), None, "{text}");
        }
        let of_another = "fc14:a35b:5339:9664:34ba::1".parse().unwrap();
        assert!(from_sixplane(of_another).is_some());
        assert_eq!(from_sixplane_of(network, of_another), None);
        for text in [
            "",
            "ca:b9:5e:23:41",
            "ca:b9:5e:23:41:62:00",
            "ca-b9-5e-23-41-62",
            "+a:b9:5e:23:41:62",
            "caa:9:5e:23:41:62",
        ] {
            assert_eq!(mac_from_text(text), None, "{text}");
        }
        let first_octet_of_another = mac_from_text("cc:b9:5e:23:41:62").unwrap();
        assert_eq!(from_mac(network, first_octet_of_another), None);
    }

    fn ids() -> impl Strategy<Value = (NetworkId, NodeId)> {
        let network = any::<u64>().prop_filter_map("a network", |number| NetworkId::new(number).ok());
        let node = (0_u64..1 << 40).prop_filter_map("a node", |number| NodeId::new(number).ok());
        (network, node)
    }

    proptest! {
        #[test]
        fn every_address_leads_back_to_the_ids_it_was_made_of((network, node) in ids(), rest in any::<[u8; 6]>()) {
            prop_assert_eq!(from_rfc4193(rfc4193(network, node)), Some((network, node)));
            prop_assert_eq!(from_sixplane_of(network, sixplane(network, node)), Some(node));
            prop_assert_eq!(from_mac(network, mac(network, node)), Some(node));
            prop_assert_eq!(mac_from_text(&mac_text(mac(network, node))), Some(mac(network, node)));
            // The whole /80 is the node's.
            let mut inside = sixplane(network, node).octets();
            inside[10..].copy_from_slice(&rest);
            prop_assert_eq!(from_sixplane_of(network, inside.into()), Some(node));
        }

        #[test]
        fn an_address_that_names_somebody_is_that_nodes_address(octets in any::<[u8; 16]>()) {
            if let Some((network, node)) = from_rfc4193(octets.into()) {
                prop_assert_eq!(rfc4193(network, node).octets(), octets);
            }
        }
    }

    #[test]
    fn a_mac_address_never_starts_with_52() {
        let network = "5350d87547000052".parse().unwrap();
        assert_eq!(mac(network, "39966434ba".parse().unwrap())[0], 0x32);
    }

    #[test]
    fn interface_names_are_those_that_real_nodes_chose() {
        let rows = [
            ("5350d87547c880cb", "zteylrb5mm"),
            ("5350d87547397c1d", "zteyl6cck2"),
            ("5350d875470000ff", "zteyl5q5ny"),
            ("0123456789000001", "ztm2vekz4i"),
            ("ff0001ffff000000", "ztad7qd777"),
        ];
        for (network, name) in rows {
            assert_eq!(device(network.parse().unwrap()), name);
        }
    }
}
