//! A moon as a node shows it that was told to orbit it.

use serde::{Deserialize, Deserializer, de};

use crate::{ids::NodeId, lenient};

/// A moon that a node orbits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Moon {
    /// Its id: the node id of one of its roots.
    #[serde(deserialize_with = "id")]
    pub id: NodeId,
    /// Whether its definition has not arrived. Until then it is not listed.
    pub waiting: bool,
    /// When it was made, in milliseconds since 1970; 0 while it is waited for.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub timestamp: u64,
    /// Its roots, none while it is waited for.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub roots: Vec<MoonRoot>,
    /// The key that signs what replaces it, as text.
    #[serde(
        default,
        rename = "updatesMustBeSignedBy",
        deserialize_with = "lenient::or_default"
    )]
    pub updates: Option<String>,
}

/// A root of a moon.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MoonRoot {
    /// Its public identity as text.
    pub identity: String,
    /// Its addresses as `address/port`.
    #[serde(default, rename = "stableEndpoints", deserialize_with = "lenient::or_default")]
    pub endpoints: Vec<String>,
}

/// A moon is shown with 16 digits and named with the last ten of them.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text
        .strip_prefix("000000")
        .filter(|digits| digits.len() == 10)
        .ok_or_else(|| de::Error::custom(format!("`{text}` is no id of a moon")))?;
    digits.parse().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moon_is_read_while_it_is_waited_for_and_when_it_is_there() {
        let waiting = serde_json::json!({
            "id": "0000008fee13b48c", "roots": [], "signature": null, "timestamp": 0, "updatesMustBeSignedBy": null,
            "waiting": true,
        });
        let moon: Moon = serde_json::from_value(waiting).unwrap();
        assert_eq!(moon.id, "8fee13b48c".parse().unwrap());
        assert!(moon.waiting && moon.roots.is_empty() && moon.updates.is_none());
        for id in ["8fee13b48c", "0000018fee13b48c", "000000000000000000", ""] {
            let record = serde_json::json!({ "id": id, "waiting": true });
            assert!(serde_json::from_value::<Moon>(record).is_err(), "{id}");
        }
    }
}
