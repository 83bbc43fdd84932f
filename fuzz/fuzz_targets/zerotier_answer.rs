//! What a ZeroTier service and Central answer; whoever took the port of either may answer otherwise.
#![no_main]

use libfuzzer_sys::fuzz_target;
use picket_zerotier::{
    NetworkId, NodeId, central,
    controller::local,
    home::{self, Token},
    member::{Member, MemberChange, Members},
    moon::Moon,
    network::Network,
    node::{Joined, Peer, Status},
    settings::NetworkSettings,
};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    drop(serde_json::from_slice::<Status>(data));
    drop(serde_json::from_slice::<Vec<Joined>>(data));
    drop(serde_json::from_slice::<Joined>(data));
    drop(serde_json::from_slice::<Vec<Peer>>(data));
    drop(serde_json::from_slice::<Vec<Moon>>(data));
    drop(serde_json::from_slice::<Moon>(data));
    let Ok(network) = NodeId::new(0x53_50d8_7547).map(|node| NetworkId::at(node, 0xc8_80cb)) else {
        return;
    };
    if let Ok(read) = serde_json::from_slice::<Network>(data) {
        // Nothing is wanted of it but that it is private.
        assert_eq!(
            NetworkSettings::default().differences(&read).is_empty(),
            read.private
        );
    }
    if let Ok(member) = serde_json::from_slice::<Member>(data) {
        assert!(MemberChange::authorized(member.authorized).holds_in(&member));
        assert!(!MemberChange::authorized(!member.authorized).holds_in(&member));
    }
    if let Ok(Value::Object(mut bulk)) = serde_json::from_slice(data) {
        if let Some(Value::Array(records)) = bulk.remove("data") {
            let count = records.len();
            let members = Members::read(network, records);
            assert!(members.by_node.len() + members.skipped.len() <= count);
        }
    }
    central::fuzz::read(data, network);
    local::fuzz::read(data, network);
    // The small files beside a service.
    if let Ok(text) = str::from_utf8(data) {
        assert!(home::port(text).is_none_or(|port| port > 0));
        assert!(home::secondary_port(text).is_ok_and(|port| port != Some(0)) || home::secondary_port(text).is_err());
        if let Some(token) = Token::new(text.trim()) {
            assert_eq!(token.expose(), text.trim());
        }
    }
});
