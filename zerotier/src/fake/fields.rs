//! The fields of a controller's records: what they start as, and what a POST makes of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    coerce::{Record, Thrown, boolean, integer, string},
    pool,
};
use crate::ids::NetworkId;

/// Arrays in records are cut off at this length.
const MAX_ARRAY: usize = 16384;

/// Fills in what a network's record lacks.
pub(super) fn init_network(record: &mut Record, id: NetworkId, wall: u64) {
    let Value::Object(defaults) = json!({
        "authTokens": [null], "authorizationEndpoint": "", "capabilities": [], "clientId": "", "creationTime": wall,
        "dns": [], "enableBroadcast": true, "id": id, "ipAssignmentPools": [], "mtu": 2800, "multicastLimit": 32,
        "name": "", "nwid": id, "objtype": "network", "private": true, "remoteTraceTarget": null, "revision": 0,
        "routes": [], "rules": [{"not": false, "or": false, "type": "ACTION_ACCEPT"}], "rulesSource": "",
        "ssoEnabled": false, "tags": [], "v4AssignMode": {"zt": false},
        "v6AssignMode": {"6plane": false, "rfc4193": false, "zt": false},
    }) else {
        unreachable!("an object was written above")
    };
    for (key, value) in defaults {
        record.entry(key).or_insert(value);
    }
    // Every write starts from 0 here, so a level lasts until the next one.
    record.insert("remoteTraceLevel".into(), 0.into());
}

/// Fills in what a member's record lacks.
pub(super) fn init_member(record: &mut Record, wall: u64) {
    let Value::Object(defaults) = json!({
        "activeBridge": false, "authenticationExpiryTime": 0, "authorized": false, "capabilities": [],
        "creationTime": wall, "ipAssignments": [], "lastAuthorizedCredential": null,
        "lastAuthorizedCredentialType": null, "lastAuthorizedTime": 0, "lastDeauthorizedTime": 0,
        "noAutoAssignIps": false, "objtype": "member", "remoteTraceTarget": null, "revision": 0, "ssoExempt": false,
        "tags": [], "vMajor": -1, "vMinor": -1, "vProto": -1, "vRev": -1,
    }) else {
        unreachable!("an object was written above")
    };
    for (key, value) in defaults {
        record.entry(key).or_insert(value);
    }
    record.insert("remoteTraceLevel".into(), 0.into());
}

/// Returns what a field of a POST to a network becomes; none for what is ignored.
pub(super) fn network_field(key: &str, value: &Value) -> Option<Value> {
    let list = |items: Vec<Value>| Some(Value::Array(items));
    match key {
        "name" => Some(string(value).into()),
        "private" => Some(boolean(value, true).into()),
        "enableBroadcast" => Some(boolean(value, false).into()),
        "multicastLimit" => Some(integer(value, 32).into()),
        "mtu" => Some(integer(value, 2800).clamp(1280, 10_000).into()),
        "remoteTraceTarget" => Some(trace_target(value)),
        "remoteTraceLevel" => Some(integer(value, 0).into()),
        "v4AssignMode" => {
            let zt = match value {
                Value::String(mode) => mode == "zt",
                Value::Object(mode) => mode.get("zt").is_some_and(|zt| boolean(zt, false)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => false,
            };
            Some(json!({ "zt": zt }))
        }
        "v6AssignMode" => Some(match value {
            Value::Object(mode) => {
                let known = ["6plane", "rfc4193", "zt"].into_iter();
                known
                    .filter_map(|key| Some((key.to_owned(), boolean(mode.get(key)?, false).into())))
                    .collect::<Record>()
                    .into()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                let modes = value
                    .as_str()
                    .unwrap_or_default()
                    .split(',')
                    .collect::<BTreeSet<_>>();
                json!({
                    "6plane": modes.contains("6plane"),
                    "rfc4193": modes.contains("rfc4193"),
                    "zt": modes.contains("zt"),
                })
            }
        }),
        "routes" => list(
            value
                .as_array()?
                .iter()
                .filter_map(pool::clean_route)
                .take(MAX_ARRAY)
                .collect(),
        ),
        "ipAssignmentPools" => list(
            value
                .as_array()?
                .iter()
                .filter_map(pool::clean_pool)
                .take(MAX_ARRAY)
                .collect(),
        ),
        // Rules, tags and capabilities are kept as sent: the simulated network filters nothing.
        "rules" | "capabilities" | "tags" => {
            list(value.as_array()?.iter().take(MAX_ARRAY).cloned().collect())
        }
        "authTokens" => Some(match value {
            Value::Object(tokens) => tokens
                .iter()
                .filter(|(_, until)| until.is_number())
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect::<Record>()
                .into(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                json!([null])
            }
        }),
        "dns" => {
            let dns = value.as_object()?;
            let mut kept = Record::new();
            kept.insert("domain".into(), dns.get("domain").cloned().unwrap_or_default());
            if let Some(servers @ Value::Array(_)) = dns.get("servers") {
                kept.insert("servers".into(), servers.clone());
            }
            Some(kept.into())
        }
        _ => None,
    }
}

/// Returns what a field of a POST to a member becomes; none for what is ignored.
pub(super) fn member_field(key: &str, value: &Value) -> Result<Option<Value>, Thrown> {
    Ok(match key {
        "activeBridge" | "noAutoAssignIps" => Some(boolean(value, false).into()),
        "authenticationExpiryTime" | "remoteTraceLevel" => Some(integer(value, 0).into()),
        "name" => Some(string(value).into()),
        "remoteTraceTarget" => Some(trace_target(value)),
        "ipAssignments" => {
            let Some(items) = value.as_array() else {
                return Ok(None);
            };
            let mut kept = Vec::new();
            for item in items {
                let Value::String(text) = item else {
                    return Err(Thrown(format!(
                        "[json.exception.type_error.302] type must be string, but is {}",
                        type_name(item)
                    )));
                };
                kept.extend(pool::ip(text).map(|ip| Value::String(ip.to_string())));
            }
            Some(kept.into())
        }
        "tags" => value.as_array().map(|tags| {
            let tags: BTreeMap<u64, u64> = tags
                .iter()
                .filter_map(|tag| match tag.as_array()?.as_slice() {
                    [id, value] => Some((integer(id, 0) & 0xffff_ffff, integer(value, 0) & 0xffff_ffff)),
                    _ => None,
                })
                .collect();
            json!(tags.into_iter().collect::<Vec<_>>())
        }),
        "capabilities" => value
            .as_array()
            .map(|ids| json!(ids.iter().map(|id| integer(id, 0)).collect::<BTreeSet<_>>())),
        _ => None,
    })
}

fn trace_target(value: &Value) -> Value {
    match string(value) {
        target if target.len() == 10 => target.into(),
        _ => Value::Null,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
