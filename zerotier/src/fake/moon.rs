//! Orbiting moons: a request to orbit waits until the seed has sent the moon's definition.

use std::time::Duration;

use serde_json::{Value, json};

use crate::ids::NodeId;

/// How long the definition takes to arrive from a seed that has it: as long as it took in the recorded lab.
const ARRIVES_AFTER: Duration = Duration::from_secs(19);

/// A moon that a node was told to orbit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orbit {
    pub(super) seed: NodeId,
    pub(super) since: Duration,
}

/// A moon that was made: one root, which is the node its id names.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) identity: String,
    pub(super) endpoint: String,
    pub(super) made: u64,
    /// Stands in for the key and the signature, which nothing in a simulated site checks.
    pub(super) key: String,
}

impl Orbit {
    /// Returns the moon's definition when it has arrived.
    pub(super) fn arrived<'a>(&self, world: Option<&'a World>, now: Duration) -> Option<&'a World> {
        world.filter(|_| now - self.since >= ARRIVES_AFTER)
    }
}

/// Returns a moon as the service shows it; without a definition it is waited for.
pub(super) fn show(moon: NodeId, world: Option<&World>) -> Value {
    let id = format!("000000{moon}");
    match world {
        None => json!({
            "id": id, "roots": [], "signature": null, "timestamp": 0, "updatesMustBeSignedBy": null, "waiting": true,
        }),
        Some(world) => json!({
            "id": id,
            "roots": [{ "identity": world.identity, "stableEndpoints": [world.endpoint] }],
            "signature": format!("{}{}", world.key, &world.key[..64]),
            "timestamp": world.made,
            "updatesMustBeSignedBy": world.key,
            "waiting": false,
        }),
    }
}
