//! What was changed at a controller so that it follows the rules, as its agent tells it.

use jiff::Timestamp;
use picket_zerotier::ids::{NetworkId, NodeId};
use serde::{Deserialize, Serialize};

use crate::{
    WireError,
    field::{parse, text, time, to_wire_time},
    wire::agent as wire,
};

/// The most repairs that are told of what somebody else changed: the newest. Each is an event.
pub const MOST_DRIFT: usize = 256;
/// The most of the others.
pub const MOST_OTHERS: usize = 64;
/// The longest `before` and `after`.
const MOST_VALUE: usize = 256;

/// Why a controller's record was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// The rules changed.
    Decided,
    /// Somebody changed it outside Picket.
    Drift,
    /// An activation came to its end.
    Ended,
    /// A deauthorization was made again, since the service may have lost the first.
    Repeated,
}

/// One change of a controller's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Counts up, across restarts too.
    pub sequence: u64,
    /// By the clock of whoever made it.
    pub at: Timestamp,
    /// Why.
    pub why: Why,
    /// Where.
    pub network: NetworkId,
    /// Whose record; none for the network's own.
    pub node: Option<NodeId>,
    /// What was there.
    pub before: String,
    /// What is there instead.
    pub after: String,
}

impl From<&Repair> for wire::Repair {
    fn from(repair: &Repair) -> Self {
        Self {
            sequence: repair.sequence,
            time: Some(to_wire_time(repair.at)),
            kind: match repair.why {
                Why::Decided => wire::RepairKind::Decided,
                Why::Drift => wire::RepairKind::Drift,
                Why::Ended => wire::RepairKind::Ended,
                Why::Repeated => wire::RepairKind::Repeated,
            }
            .into(),
            network_id: repair.network.to_string(),
            node_id: repair.node.map(|node| node.to_string()).unwrap_or_default(),
            before: repair.before.chars().take(MOST_VALUE).collect(),
            after: repair.after.chars().take(MOST_VALUE).collect(),
        }
    }
}

impl TryFrom<wire::Repair> for Repair {
    type Error = WireError;

    fn try_from(repair: wire::Repair) -> Result<Self, WireError> {
        let why = match wire::RepairKind::try_from(repair.kind) {
            Ok(wire::RepairKind::Decided) => Why::Decided,
            Ok(wire::RepairKind::Drift) => Why::Drift,
            Ok(wire::RepairKind::Ended) => Why::Ended,
            Ok(wire::RepairKind::Repeated) => Why::Repeated,
            Ok(wire::RepairKind::Unspecified) | Err(_) => {
                return Err(WireError::new("repair.kind", "is none this version knows"));
            }
        };
        let node = (!repair.node_id.is_empty()).then(|| parse("repair.node_id", &repair.node_id));
        Ok(Self {
            sequence: repair.sequence,
            at: time("repair.time", repair.time)?,
            why,
            network: parse("repair.network_id", &repair.network_id)?,
            node: node.transpose()?,
            before: text("repair.before", repair.before, MOST_VALUE)?,
            after: text("repair.after", repair.after, MOST_VALUE)?,
        })
    }
}
