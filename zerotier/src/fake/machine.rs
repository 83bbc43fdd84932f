//! One simulated service: its secrets, what it has joined, what it hosts.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{
    controller::Hosted,
    disk::Disk,
    lab::Mood,
    moon::{Orbit, World},
    node::Joined,
};
use crate::{
    identity::Identity,
    ids::{NetworkId, NodeId},
};

/// Connections that a service works on at once; the others wait, also behind idle ones.
const WORKERS: usize = 8;

/// Who is to live on a machine.
pub(super) enum Resident {
    /// A node with this id and no private keys.
    Chosen(NodeId),
    /// A node with this identity.
    Identified(Identity),
}

impl Resident {
    pub(super) fn id(&self) -> NodeId {
        match self {
            Self::Chosen(id) => *id,
            Self::Identified(identity) => identity.public().node(),
        }
    }
}

/// One simulated service.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) identity: String,
    /// With its private keys; none when the id was chosen, since nobody can make an identity for a chosen id.
    pub(super) secret: Option<Identity>,
    pub(super) token: String,
    pub(super) metrics_token: String,
    /// Its place in the simulated physical network.
    pub(super) place: usize,
    pub(super) running: bool,
    pub(super) mood: Mood,
    pub(super) tun: bool,
    pub(super) next_tick: Duration,
    pub(super) joined: BTreeMap<NetworkId, Joined>,
    pub(super) hosted: BTreeMap<NetworkId, Hosted>,
    pub(super) orbits: BTreeMap<NodeId, Orbit>,
    pub(super) moon: Option<World>,
    pub(super) workers: Arc<Semaphore>,
    /// Where its controller keeps everything, when it has a home.
    pub(super) disk: Option<Disk>,
    /// How often each method and path was asked for.
    pub(super) asked: BTreeMap<String, usize>,
}

impl Machine {
    /// Starts a service; what is secret or random about it follows from `seed`.
    pub(super) fn new(resident: Resident, seed: u64, place: usize, now: Duration) -> Self {
        let id = resident.id();
        let (identity, secret) = match resident {
            Resident::Chosen(id) => (
                format!("{id}:0:{}", hex(seed, &format!("identity {id}"), 64)),
                None,
            ),
            Resident::Identified(identity) => (identity.public().to_string(), Some(identity)),
        };
        Self {
            id,
            identity,
            secret,
            token: word(seed, &format!("token {id}")),
            metrics_token: word(seed, &format!("metrics {id}")),
            place,
            running: true,
            mood: Mood::Well,
            tun: true,
            next_tick: now,
            joined: BTreeMap::new(),
            hosted: BTreeMap::new(),
            orbits: BTreeMap::new(),
            moon: None,
            workers: Arc::new(Semaphore::new(WORKERS)),
            disk: None,
            asked: BTreeMap::new(),
        }
    }

    /// Returns the networks that are there; without a TUN device there are none.
    pub(super) fn networks(&self) -> impl Iterator<Item = (NetworkId, &Joined)> {
        self.joined
            .iter()
            .filter(|_| self.tun)
            .map(|(network, joined)| (*network, joined))
    }

    /// Has what its controller knows in its home.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        match &mut self.disk {
            Some(disk) => disk.write(&self.hosted),
            None => Ok(()),
        }
    }

    /// The physical address.
    pub(super) fn address(&self) -> String {
        format!("10.99.{}.{}", self.place / 250, self.place % 250 + 1)
    }

    /// Returns the answer to `GET /status`.
    pub(super) fn status(&self, wall: u64, started: u64) -> Value {
        let (first, second) = (
            format!("{}/9993", self.address()),
            format!("{}/27232", self.address()),
        );
        let mut status = health(wall);
        let rest = json!({
            "address": self.id,
            "config": {"settings": {
                "allowTcpFallbackRelay": false, "forceTcpRelay": false, "homeDir": "/var/lib/zerotier-one",
                "listeningOn": [first, second], "portMappingEnabled": false, "primaryPort": 9993,
                "secondaryPort": 27232, "softwareUpdate": "disable", "softwareUpdateChannel": "release",
                "surfaceAddresses": [second, first], "tertiaryPort": 0,
            }},
            "planetWorldId": 542_625_497_089_u64, "planetWorldTimestamp": started,
            "publicIdentity": self.identity, "tcpFallbackActive": false,
        });
        for (key, value) in rest.as_object().into_iter().flatten() {
            status[key] = value.clone();
        }
        status
    }

    /// Returns this node as another one lists it.
    pub(super) fn as_peer(&self, role: &str, wall: u64) -> Value {
        peer(self.id, role, &self.address(), wall)
    }
}

/// Returns the answer to `GET /health`; a simulated node always hears its root.
pub(super) fn health(wall: u64) -> Value {
    json!({
        "clock": wall, "online": true, "version": "1.14.1", "versionBuild": 0, "versionMajor": 1, "versionMinor": 14,
        "versionRev": 1,
    })
}

/// Returns a node as others list it.
pub(super) fn peer(id: NodeId, role: &str, address: &str, wall: u64) -> Value {
    let path = |socket: u64, preferred: bool| {
        json!({
            "active": true, "address": format!("{address}/9993"), "expired": false, "lastReceive": wall,
            "lastSend": wall, "localPort": 0, "localSocket": socket, "preferred": preferred, "trustedPathId": 0,
        })
    };
    json!({
        "address": id, "isBonded": false, "latency": 1, "paths": [path(1, false), path(2, true)], "role": role,
        "tunneled": false, "version": "1.14.1", "versionMajor": 1, "versionMinor": 14, "versionRev": 1,
    })
}

/// Derives `bytes` (at most 64) from the seed, as hex.
pub(super) fn hex(seed: u64, what: &str, bytes: usize) -> String {
    derive(seed, what)
        .iter()
        .take(bytes)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Derives a token: 24 characters a-z and 0-9.
fn word(seed: u64, what: &str) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    derive(seed, what)
        .iter()
        .take(24)
        .map(|byte| char::from(LETTERS[usize::from(*byte) % 36]))
        .collect()
}

/// Derives a number.
pub(super) fn number(seed: u64, what: &str) -> u64 {
    derive(seed, what)
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Derives 64 bytes.
pub(super) fn bytes(seed: u64, what: &str) -> Zeroizing<[u8; 64]> {
    let mut bytes = Zeroizing::new([0; 64]);
    bytes.copy_from_slice(&derive(seed, what));
    bytes
}

fn derive(seed: u64, what: &str) -> impl AsRef<[u8]> + std::ops::Deref<Target = [u8]> {
    Sha512::new()
        .chain_update(seed.to_be_bytes())
        .chain_update(what)
        .finalize()
}
