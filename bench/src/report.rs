//! What a made-up machine reports: the bodies of a beat's sections, shaped and sized as a real agent's.

use std::net::Ipv4Addr;

use bytes::Bytes;
use picket_proto::{
    VERSION,
    beat::{Digest, MOST_INLINE_BYTES, Section, SectionKind},
    host::Name,
    status::{
        DeckiesStatus, DeckyServiceStatus, DeckyState, DeckyStatus, HostStatus, JoinedNetwork, Peer,
        ServiceState, ZeroTierStatus,
    },
};
use picket_zerotier::ids::{NetworkId, NodeId};

/// The node whose controller runs the made-up site's networks.
const CONTROLLER: u32 = 2_000_000;
/// The site's nodes have ids from here on.
const FIRST_NODE: u64 = 0x10_0000_0000;
/// A machine talks to the four roots and some neighbours.
const PEERS: u32 = 8;
/// What a decky of the example site runs.
const SERVICES: [&str; 2] = ["ssh", "http"];

/// Says why no such machine is made up.
#[derive(Debug, thiserror::Error)]
#[error(
    "{deckies} deckies are a section of {bytes} bytes, and more than {MOST_INLINE_BYTES} do not travel inside a beat; \
     take fewer deckies a host"
)]
pub struct TooMany {
    deckies: u16,
    bytes: usize,
}

/// The ZeroTier node of the machine number `n`.
#[must_use]
pub fn node(n: u32) -> NodeId {
    NodeId::new(FIRST_NODE + u64::from(n)).expect("these are no reserved ids")
}

/// What the machine number `n` reports in full, with `deckies` running deckies of two services each.
///
/// # Errors
/// When its deckies do not fit into a beat.
pub fn sections(n: u32, deckies: u16) -> Result<Vec<(SectionKind, Section)>, TooMany> {
    let decoys = DeckiesStatus {
        service: ServiceState::Answers,
        deckies: (0..deckies).map(|decky| running(n, decky)).collect(),
    }
    .encode();
    if decoys.len() > MOST_INLINE_BYTES {
        return Err(TooMany {
            deckies,
            bytes: decoys.len(),
        });
    }
    let host = HostStatus {
        hostname: format!("edge-{n:05}"),
        os: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        kernel: "6.1.0-41-amd64".to_owned(),
        agent_version: VERSION.to_owned(),
        problems: Vec::new(),
    };
    let bodies = [
        (SectionKind::ZeroTier, zerotier(n).encode()),
        (SectionKind::Deckies, decoys),
        (SectionKind::Host, host.encode()),
    ];
    let section = |(kind, body): (SectionKind, Bytes)| {
        let digest = Digest::of(&body);
        let body = Some(body);
        (kind, Section { digest, body })
    };
    Ok(bodies.into_iter().map(section).collect())
}

fn zerotier(n: u32) -> ZeroTierStatus {
    let [_, _, high, low] = n.to_be_bytes();
    let network = |number: u32, name: &str| JoinedNetwork {
        id: NetworkId::at(node(CONTROLLER), number),
        name: name.to_owned(),
        status: "OK".to_owned(),
        addresses: vec![format!("10.{}.{high}.{low}/16", 147 + number)],
        interface: format!("ztbench{number}"),
        managed: true,
        carries_session: false,
    };
    let peer = |number: u32| Peer {
        node: node(1_000_000 + n.wrapping_mul(PEERS) % 100_000 + number),
        role: if number < 4 { "PLANET" } else { "LEAF" }.to_owned(),
        direct: true,
    };
    ZeroTierStatus {
        service: ServiceState::Answers,
        node: Some(node(n)),
        version: "1.14.2".to_owned(),
        online: true,
        networks: vec![network(0, "decoys"), network(1, "management")],
        peers: (0..PEERS).map(peer).collect(),
        ..ZeroTierStatus::default()
    }
}

fn running(n: u32, decky: u16) -> DeckyStatus {
    let [high, low] = decky.to_be_bytes();
    let service = |service: &&str| DeckyServiceStatus {
        name: name(service),
        state: DeckyState::Running,
        container: container(&format!("{n}/{decky}/{service}")),
        problem: String::new(),
    };
    DeckyStatus {
        name: name(&format!("web-{n:05}-{decky:02}")),
        deployment: name("front"),
        state: DeckyState::Running,
        problem: String::new(),
        address: Some(Ipv4Addr::new(10, 20, high, low)),
        container: container(&format!("{n}/{decky}")),
        services: SERVICES.iter().map(service).collect(),
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("made of letters, digits and dashes")
}

/// As Docker names containers: 64 digits without a pattern.
fn container(of: &str) -> String {
    data_encoding::HEXLOWER.encode(&Digest::of(of.as_bytes()).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_reports_makes_sense_to_a_master_down_to_the_last_entry() {
        for (kind, section) in sections(4711, 10).unwrap() {
            let body = section.body.unwrap();
            match kind {
                SectionKind::ZeroTier => {
                    let read = ZeroTierStatus::decode(&body).unwrap();
                    assert_eq!((read.skipped_count, read.status.node), (0, Some(node(4711))));
                }
                SectionKind::Deckies => {
                    let read = DeckiesStatus::decode(&body).unwrap();
                    assert_eq!((read.skipped_count, read.status.deckies.len()), (0, 10));
                }
                SectionKind::Host => assert_eq!(HostStatus::decode(&body).unwrap().skipped_count, 0),
                SectionKind::Controller => panic!("no controller was asked for"),
            }
        }
    }

    #[test]
    fn two_machines_report_different_things() {
        let digests = |n| {
            sections(n, 10)
                .unwrap()
                .into_iter()
                .map(|(_, section)| section.digest)
        };
        assert!(digests(1).zip(digests(2)).all(|(one, other)| one != other));
    }

    #[test]
    fn more_deckies_than_a_beat_carries_are_refused() {
        let error = sections(1, 1000).unwrap_err().to_string();
        assert!(error.contains("take fewer deckies"), "{error}");
    }
}
