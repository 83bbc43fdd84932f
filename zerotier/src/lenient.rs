//! Reading fields whose type a service changes with its mood: `dns` is a list until it is set, then an object.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// Reads a field, or takes its default when it has another shape than expected.
///
/// Only for fields that inform; a field that decides something is read strictly.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}
