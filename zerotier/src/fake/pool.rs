//! Which address a member is given: the arithmetic of pools and routes.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use serde_json::{Value, json};

use super::coerce::string;
use crate::ids::NodeId;

/// How many addresses of a pool are tried before a member gets none.
const TRIES: u32 = 1000;

/// A route: its address and prefix length.
pub(super) type Route = (IpAddr, u8);

/// Reads an address; what follows a slash does not count.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

/// Reads the routes of a network's record.
pub(super) fn routes(records: &[Value]) -> Vec<Route> {
    records
        .iter()
        .filter_map(|route| target(&string(&route["target"])))
        .collect()
}

/// Returns the longest prefix among the routes that cover an address.
pub(super) fn prefix(routes: &[Route], ip: IpAddr) -> Option<u8> {
    routes
        .iter()
        .filter(|route| covers(route, ip))
        .map(|(_, bits)| *bits)
        .max()
}

/// Keeps what the service keeps of a route that was posted.
pub(super) fn clean_route(route: &Value) -> Option<Value> {
    let (address, bits) = target(route.get("target")?.as_str()?)?;
    let via = route.get("via").and_then(Value::as_str).and_then(ip);
    let via = via
        .filter(|via| via.is_ipv4() == address.is_ipv4())
        .map(|via| via.to_string());
    Some(json!({ "target": format!("{address}/{bits}"), "via": via }))
}

/// Keeps what the service keeps of a pool that was posted.
pub(super) fn clean_pool(pool: &Value) -> Option<Value> {
    let start = ip(&string(pool.get("ipRangeStart")?))?;
    let end = ip(&string(pool.get("ipRangeEnd")?))?;
    (start.is_ipv4() == end.is_ipv4())
        .then(|| json!({ "ipRangeStart": start.to_string(), "ipRangeEnd": end.to_string() }))
}

/// Picks a free IPv4 address for a node: it starts where the node's id says, walks upwards, and never gives out the
/// end of a range.
pub(super) fn pick(
    pools: &[Value],
    routes: &[Route],
    taken: &BTreeSet<Ipv4Addr>,
    node: NodeId,
) -> Option<Ipv4Addr> {
    let low = u32::try_from(node.to_u64() & 0xffff_ffff).unwrap_or_default();
    pools.iter().find_map(|pool| {
        let (IpAddr::V4(start), IpAddr::V4(end)) = (
            ip(&string(&pool["ipRangeStart"]))?,
            ip(&string(&pool["ipRangeEnd"]))?,
        ) else {
            return None;
        };
        let (start, end) = (u32::from(start), u32::from(end));
        let length = end.checked_sub(start)?;
        let first = if length > 1 { low % length } else { 0 };
        (0..TRIES)
            .map(|step| {
                if length > 1 {
                    start + first.wrapping_add(step) % length
                } else {
                    start
                }
            })
            .filter(|number| number & 0xff != 0xff)
            .map(Ipv4Addr::from)
            .find(|ip| !taken.contains(ip) && prefix(routes, (*ip).into()).is_some())
    })
}

fn target(text: &str) -> Option<Route> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "0"));
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

fn covers((route, bits): &Route, ip: IpAddr) -> bool {
    match (route, ip) {
        (IpAddr::V4(route), IpAddr::V4(ip)) => {
            (u32::from(*route) ^ u32::from(ip))
                .checked_shr(32 - u32::from(*bits))
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(route), IpAddr::V6(ip)) => {
            (u128::from(*route) ^ u128::from(ip))
                .checked_shr(128 - u32::from(*bits))
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab() -> (Vec<Value>, Vec<Route>) {
        (
            vec![json!({"ipRangeStart": "10.147.20.1", "ipRangeEnd": "10.147.20.254"})],
            vec![("10.147.20.0".parse().unwrap(), 24)],
        )
    }

    #[test]
    fn a_node_gets_the_address_that_a_real_controller_gave_it() {
        let (pools, routes) = lab();
        for (node, given) in [
            ("68c19b4c83", 135),
            ("39966434ba", 233),
            ("5350d87547", 226),
            ("8fee13b48c", 194),
        ] {
            let ip = pick(&pools, &routes, &BTreeSet::new(), node.parse().unwrap()).unwrap();
            assert_eq!(ip, Ipv4Addr::new(10, 147, 20, given));
        }
    }

    #[test]
    fn a_taken_address_is_passed_over_and_a_full_pool_gives_none() {
        let (pools, routes) = lab();
        let node = "68c19b4c83".parse().unwrap();
        let mut taken = BTreeSet::from([Ipv4Addr::new(10, 147, 20, 135)]);
        assert_eq!(
            pick(&pools, &routes, &taken, node),
            Some(Ipv4Addr::new(10, 147, 20, 136))
        );
        taken = (1..=253).map(|last| Ipv4Addr::new(10, 147, 20, last)).collect();
        assert_eq!(pick(&pools, &routes, &taken, node), None);
    }

    #[test]
    fn without_a_route_there_is_no_address() {
        let (pools, _) = lab();
        assert_eq!(
            pick(&pools, &[], &BTreeSet::new(), "68c19b4c83".parse().unwrap()),
            None
        );
    }
}
