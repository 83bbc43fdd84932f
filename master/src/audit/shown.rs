//! Which part of a record the audit trail shows, and how: as JSON where it is short and for showing, as a hash otherwise.
//!
//! A field is for showing when it is on the list here. One that nobody put there appears as a hash, so that a new field
//! tells nothing by accident.

use serde_json::{Map, Value, json};

use crate::{
    record::key,
    store::{Key, Write},
};
use picket_proto::audit::hash;

/// The longest description; what is longer is a hash.
const MOST: usize = 2048;
/// The longest single text in it.
const MOST_TEXT: usize = 256;

/// The fields that are shown, by the record they are in. A deployment's site is not: it may hold what a decky's service
/// is to give away, and its revision names it.
const SHOWN: [(&str, &[&str]); 8] = [
    (
        "master",
        &[
            "trust_domain",
            "names",
            "addresses",
            "admin_addresses",
            "authority",
            "created_at",
        ],
    ),
    (
        key::HOSTS,
        &[
            "id",
            "name",
            "labels",
            "note",
            "enrolled_at",
            "standing",
            "pins",
            "node",
            "node_standing",
            "node_identity",
        ],
    ),
    (
        key::OPERATORS,
        &["name", "role", "devices", "revoked", "added_at", "added_by"],
    ),
    (
        key::NETWORKS,
        &["id", "mode", "controller", "adopted_at", "approvals"],
    ),
    (
        key::GRANTS,
        &["network", "node", "admitted", "by", "reason", "at", "until"],
    ),
    (key::DEPLOYMENTS, &["name", "revision", "hosts", "at", "by"]),
    ("ca/roots", &["roots"]),
    ("clock", &["was", "machine", "went_back", "by", "reason"]),
];

/// Inside of what is shown, these are left out: a pin's certificate is long, and its fingerprint stands beside it.
const LEFT_OUT: &[&str] = &["certificate"];

/// How what is written was before, and how it is after; each a JSON object by key, of the fields that differ.
pub(super) fn described(writes: &[Write], before: &[Option<Vec<u8>>]) -> (String, String) {
    let (mut was, mut is) = (Map::new(), Map::new());
    for (write, before) in writes.iter().zip(before) {
        let after = match write {
            Write::Put(_, value) => Some(value.as_slice()),
            Write::Delete(_) => None,
        };
        let key = write.key();
        let (from, to) = differing(read(key, before.as_deref()), read(key, after));
        was.insert(key.to_string(), from);
        is.insert(key.to_string(), to);
    }
    if was.is_empty() {
        return (String::new(), String::new());
    }
    (bounded(was), bounded(is))
}

fn bounded(described: Map<String, Value>) -> String {
    let text = Value::Object(described.clone()).to_string();
    if text.len() <= MOST {
        return text;
    }
    let keys: Map<_, _> = described
        .iter()
        .map(|(key, value)| (key.clone(), hashed(value.to_string().as_bytes())))
        .collect();
    let short = Value::Object(keys).to_string();
    if short.len() <= MOST {
        return short;
    }
    json!({ "keys": described.len(), "sha256": hash(&[text.as_bytes()]).to_string() }).to_string()
}

/// A value as it is shown.
fn read(key: &Key, value: Option<&[u8]>) -> Value {
    let Some(value) = value else { return Value::Null };
    let listed = SHOWN.iter().find(|(place, _)| {
        key.as_str() == *place || (place.ends_with('/') && key.as_str().starts_with(place))
    });
    let parsed = serde_json::from_slice(value);
    match (listed, parsed) {
        (Some((_, fields)), Ok(Value::Object(record))) => {
            let shown = record.into_iter().map(|(name, value)| {
                let value = if fields.contains(&name.as_str()) {
                    trimmed(value)
                } else {
                    hashed(value.to_string().as_bytes())
                };
                (name, value)
            });
            Value::Object(shown.collect())
        }
        // A claim on a name holds nothing but an id.
        (None, _) if key.as_str().starts_with(key::NAMES) => {
            trimmed(Value::String(String::from_utf8_lossy(value).into_owned()))
        }
        (Some(_) | None, _) => hashed(value),
    }
}

fn trimmed(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()))
                .map(|(name, value)| (name, trimmed(value)))
                .collect(),
        ),
        Value::Array(values) => Value::Array(values.into_iter().map(trimmed).collect()),
        Value::String(text) if text.len() > MOST_TEXT => hashed(text.as_bytes()),
        short @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => short,
    }
}

/// Both, without what is the same in them.
fn differing(before: Value, after: Value) -> (Value, Value) {
    match (before, after) {
        (Value::Object(mut before), Value::Object(mut after)) => {
            let names: Vec<_> = before
                .keys()
                .filter(|name| after.contains_key(*name))
                .cloned()
                .collect();
            for name in names {
                let (Some(was), Some(is)) = (before.remove(&name), after.remove(&name)) else {
                    continue;
                };
                if was != is {
                    let (was, is) = differing(was, is);
                    before.insert(name.clone(), was);
                    after.insert(name, is);
                }
            }
            (Value::Object(before), Value::Object(after))
        }
        other => other,
    }
}

fn hashed(bytes: &[u8]) -> Value {
    json!({ "sha256": hash(&[bytes]).to_string(), "bytes": bytes.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "host/0198a1de-0000-7000-8000-000000000001";

    #[test]
    fn only_what_differs_is_told_and_how_it_was() {
        let before = json!({ "id": "1", "note": "", "standing": { "state": "active" } });
        let after = json!({ "id": "1", "note": "", "standing": { "state": "banned", "reason": "lost" } });
        assert_eq!(
            of(HOST, Some(&before), Some(&after)),
            (
                json!({ HOST: { "standing": { "state": "active" } } }),
                json!({ HOST: { "standing": { "state": "banned", "reason": "lost" } } })
            )
        );
        assert_eq!(
            of(HOST, None, Some(&json!({ "note": "new" }))),
            (json!({ HOST: null }), json!({ HOST: { "note": "new" } }))
        );
        assert_eq!(
            of(HOST, Some(&json!({ "note": "old" })), None).1,
            json!({ HOST: null })
        );
    }

    #[test]
    fn a_field_that_is_on_no_list_is_a_hash_and_so_is_a_record_of_no_list() {
        for key in [HOST, "deployment/dmz", "grant/1/2", "operator/ada", "tomorrow/1"] {
            let (_, after) = of(
                key,
                None,
                Some(&json!({ "site": "hush", "other": { "deep": "hush" } })),
            );
            assert!(!after.to_string().contains("hush"), "{after}");
            assert!(after.to_string().contains("sha256"), "{after}");
        }
    }

    #[test]
    fn a_certificate_is_left_to_its_fingerprint() {
        let pins = json!({ "pins": { "current": { "fingerprint": "ab", "certificate": "308201" } } });
        let (_, after) = of(HOST, None, Some(&pins));
        assert_eq!(
            after,
            json!({ HOST: { "pins": { "current": { "fingerprint": "ab" } } } })
        );
    }

    #[test]
    fn what_is_long_is_a_hash_and_many_keys_are_one() {
        let (_, after) = of(HOST, None, Some(&json!({ "note": "x".repeat(MOST_TEXT + 1) })));
        assert_eq!(after[HOST]["note"]["bytes"], MOST_TEXT + 1);
        let writes: Vec<_> = (0..127)
            .map(|n| {
                Write::Put(
                    Key::new(format!("grant/1/{n}")).unwrap(),
                    b"{\"by\":\"ada\"}".to_vec(),
                )
            })
            .collect();
        let (before, after) = described(&writes, &vec![None; 127]);
        assert!(before.len() <= MOST && after.len() <= MOST);
        let after: Value = serde_json::from_str(&after).unwrap();
        assert_eq!(after["keys"], 127);
    }

    fn of(key: &str, before: Option<&Value>, after: Option<&Value>) -> (Value, Value) {
        let key = Key::new(key).unwrap();
        let bytes = |value: &Value| value.to_string().into_bytes();
        let write = after.map_or(Write::Delete(key.clone()), |after| Write::Put(key, bytes(after)));
        let (before, after) = described(&[write], &[before.map(bytes)]);
        (
            serde_json::from_str(&before).unwrap(),
            serde_json::from_str(&after).unwrap(),
        )
    }
}
