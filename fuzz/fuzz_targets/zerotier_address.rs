//! Addresses come from operators and files, and name nodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use picket_zerotier::{NetworkId, address};

fuzz_target!(|given: (u64, [u8; 16], &str)| {
    let (number, octets, text) = given;
    if let Some((network, node)) = address::from_rfc4193(octets.into()) {
        assert_eq!(address::rfc4193(network, node).octets(), octets);
    }
    let of_any = address::from_sixplane(octets.into());
    if let Ok(network) = NetworkId::new(number) {
        let of_this = address::from_sixplane_of(network, octets.into());
        assert!(of_this.is_none() || of_this == of_any);
        let mac = [octets[0], octets[1], octets[2], octets[3], octets[4], octets[5]];
        if let Some(node) = address::from_mac(network, mac) {
            assert_eq!(address::mac(network, node), mac);
        }
    }
    if let Some(mac) = address::mac_from_text(text) {
        assert_eq!(address::mac_text(mac), text.to_lowercase());
    }
});
