//! The session's path: the local address it goes out from, whose network that is, and when the master last answered.
//!
//! In: what the session tells when it is opened and when a beat is acknowledged. Out: the ZeroTier network that carries
//! it, for the section of the beat and for the guard that undoes what cuts it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use picket_clock::Instant;
use picket_zerotier::{NetworkId, node::Joined};
use tokio::sync::watch;

/// What is known of the session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Heard {
    /// This end's address, while there is a session.
    local: Option<IpAddr>,
    /// When that was said which the master answered last.
    said: Option<Instant>,
}

/// The path. Clones are the same; the session alone changes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path(watch::Sender<Heard>);

impl Path {
    /// A session is open, whose first word was said at `said`.
    pub(crate) fn opened(&self, local: Option<IpAddr>, said: Instant) {
        let local = local.map(|address| address.to_canonical());
        self.0.send_replace(Heard {
            local,
            said: Some(said),
        });
    }

    /// The session is over: where it went is not known to lead anywhere any more.
    pub(crate) fn closed(&self) {
        self.0.send_modify(|heard| heard.local = None);
    }

    /// The master answered what was said at `said`.
    pub(crate) fn answered(&self, said: Instant) {
        self.0
            .send_modify(|heard| heard.said = heard.said.max(Some(said)));
    }

    /// When that was said which the master answered last.
    pub(crate) fn said(&self) -> Option<Instant> {
        self.0.borrow().said
    }

    /// Returns once the master has answered what was said after `since`.
    pub(crate) async fn answers_after(&self, since: Instant) {
        let mut watch = self.0.subscribe();
        // The sender lives as long as `self`.
        drop(watch.wait_for(|heard| heard.said > Some(since)).await);
    }

    /// The network that carries the session, of those that are joined.
    pub(crate) fn carrier(&self, joined: &[Joined]) -> Carrier {
        let Some(local) = self.0.borrow().local else {
            return Carrier::Unknown;
        };
        if let Some(network) = by_address(local, joined) {
            return Carrier::Network(network);
        }
        // An address that was put on the device by hand is none that the controller assigned.
        let device = if joined.is_empty() { None } else { device_of(local) };
        match device.and_then(|device| by_device(&device, joined)) {
            Some(network) => Carrier::Network(network),
            None => Carrier::Other,
        }
    }
}

/// What carries the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// There is no session.
    Unknown,
    /// Something that is no joined network.
    Other,
    /// A network.
    Network(NetworkId),
}

impl Carrier {
    pub(crate) fn network(self) -> Option<NetworkId> {
        match self {
            Self::Unknown | Self::Other => None,
            Self::Network(network) => Some(network),
        }
    }
}

fn by_address(local: IpAddr, joined: &[Joined]) -> Option<NetworkId> {
    let has = |assigned: &String| {
        let address = assigned.split('/').next().unwrap_or_default();
        address.parse() == Ok(local)
    };
    let found = joined.iter().find(|network| network.addresses.iter().any(has))?;
    Some(found.id)
}

fn by_device(device: &str, joined: &[Joined]) -> Option<NetworkId> {
    let found = joined
        .iter()
        .find(|network| !network.device.is_empty() && network.device == device)?;
    Some(found.id)
}

/// The device that has an address, as the kernel's tables tell.
fn device_of(address: IpAddr) -> Option<String> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    match address {
        IpAddr::V4(address) => device_of_v4(address, &read("/proc/net/route")),
        IpAddr::V6(address) => device_of_v6(address, &read("/proc/net/if_inet6")),
    }
}

/// The device whose own range an address lies in, the narrowest one: the table of routes names no addresses. It writes
/// them in the byte order of the machine.
fn device_of_v4(address: Ipv4Addr, route: &str) -> Option<String> {
    let own = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (device, target, gateway, mask) = (
            *fields.first()?,
            *fields.get(1)?,
            *fields.get(2)?,
            *fields.get(7)?,
        );
        let number = |text: &str| {
            Some(u32::from_be_bytes(
                u32::from_str_radix(text, 16).ok()?.to_ne_bytes(),
            ))
        };
        let (target, gateway, mask) = (number(target)?, number(gateway)?, number(mask)?);
        let inside = gateway == 0 && mask != 0 && address.to_bits() & mask == target;
        inside.then(|| (mask.count_ones(), device.to_owned()))
    };
    let narrowest = route
        .lines()
        .skip(1)
        .filter_map(own)
        .max_by_key(|(bits, _)| *bits);
    narrowest.map(|(_, device)| device)
}

/// The device of an address in the kernel's list: `<32 digits> <index> <prefix> <scope> <flags> <device>`.
fn device_of_v6(address: Ipv6Addr, if_inet6: &str) -> Option<String> {
    let digits: String = address
        .octets()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let line = if_inet6
        .lines()
        .find(|line| line.split_whitespace().next() == Some(&digits))?;
    line.split_whitespace().nth(5).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(id: &str, device: &str, addresses: &[&str]) -> Joined {
        let value = serde_json::json!({
            "id": id, "status": "OK", "portDeviceName": device, "assignedAddresses": addresses,
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_network_that_assigned_the_sessions_address_carries_it_and_without_a_session_none_is_known_to() {
        let networks = [
            joined("5350d87547c880cb", "ztaaaaaaaa", &["10.147.20.5/24"]),
            joined(
                "5350d87547f38326",
                "ztbbbbbbbb",
                &["fd53:50d8:7547:f383:2699:9339:9664:34ba/88"],
            ),
        ];
        let path = Path::default();
        assert_eq!(path.carrier(&networks), Carrier::Unknown);
        let at = |address: &str| {
            path.opened(Some(address.parse().unwrap()), Instant::now());
            path.carrier(&networks)
        };
        assert_eq!(at("10.147.20.5"), Carrier::Network(networks[0].id));
        assert_eq!(at("::ffff:10.147.20.5"), Carrier::Network(networks[0].id));
        assert_eq!(
            at("fd53:50d8:7547:f383:2699:9339:9664:34ba"),
            Carrier::Network(networks[1].id)
        );
        assert_eq!(at("192.0.2.7"), Carrier::Other);
        path.closed();
        assert_eq!(path.carrier(&networks), Carrier::Unknown);
    }

    #[test]
    fn an_address_that_was_put_on_by_hand_is_known_by_its_device() {
        let hex = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |device: &str, target, gateway, mask| {
            format!(
                "{device}\t{}\t{}\t0001\t0\t0\t0\t{}\t0\t0\t0\n",
                hex(target),
                hex(gateway),
                hex(mask)
            )
        };
        let route = [
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n".to_owned(),
            line("eth0", [0, 0, 0, 0], [192, 0, 2, 1], [0, 0, 0, 0]),
            line("eth0", [10, 0, 0, 0], [0, 0, 0, 0], [255, 0, 0, 0]),
            line("ztaaaaaaaa", [10, 9, 8, 0], [0, 0, 0, 0], [255, 255, 255, 0]),
        ]
        .concat();
        let of = |address: &str| device_of_v4(address.parse().unwrap(), &route);
        assert_eq!(of("10.9.8.7").as_deref(), Some("ztaaaaaaaa"));
        assert_eq!(of("10.9.9.7").as_deref(), Some("eth0"));
        assert_eq!(of("203.0.113.1"), None);
        let inet6 = "fd000000000000000000000000000007 05 40 00 80 ztbbbbbbbb\n";
        let six = device_of_v6("fd00::7".parse().unwrap(), inet6);
        assert_eq!(six.as_deref(), Some("ztbbbbbbbb"));
        assert_eq!(device_of_v6("fd00::8".parse().unwrap(), inet6), None);
        let networks = [joined("5350d87547c880cb", "ztaaaaaaaa", &[])];
        assert_eq!(by_device("ztaaaaaaaa", &networks), Some(networks[0].id));
        assert_eq!(by_device("", &[joined("5350d87547c880cb", "", &[])]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_what_was_said_before_is_no_sign_that_the_path_is_there() {
        let path = Path::default();
        let before = Instant::now();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let since = Instant::now();
        path.answered(before);
        assert_eq!(path.said(), Some(before));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        path.answered(Instant::now());
        path.answers_after(since).await;
        path.answered(before);
        assert!(path.said() > Some(since), "it does not go back");
    }
}
