//! Address arithmetic: what follows from a network id and a node id alone.
//!
//! Nothing here is looked up: a node's MAC address, its RFC4193 and 6PLANE addresses and the name of its interface on
//! Linux are functions of the two ids.

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

/// Returns the MAC address in the usual notation.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
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
        ];
        for (network, node, v6, plane, ether) in rows {
            let (network, node) = (network.parse().unwrap(), node.parse().unwrap());
            assert_eq!(rfc4193(network, node).to_string(), v6);
            assert_eq!(sixplane(network, node).to_string(), plane);
            assert_eq!(mac_text(mac(network, node)), ether);
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
