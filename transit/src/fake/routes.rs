//! What the simulated server answers to which request.

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::{Fault, Policy, State};

/// A request, read.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// What is sent back.
pub(super) enum Answer {
    /// A status and a body.
    Json(StatusCode, Value),
    /// Something that is no JSON.
    Babble,
    /// Nothing, ever.
    Silence,
    /// The end of the connection.
    Closed,
}

/// The common form of every refusal.
fn refused(status: u16, texts: &[&str]) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer::Json(status, json!({ "errors": texts }))
}

fn denied() -> Answer {
    refused(403, &["permission denied"])
}

fn data(data: Value) -> Answer {
    let around = json!({
        "request_id": "f00341c1-fad5-f6e6-13fd-235617f858a1",
        "lease_id": "",
        "renewable": false,
        "lease_duration": 0,
        "data": data,
        "wrap_info": null,
        "warnings": null,
        "auth": null,
    });
    Answer::Json(StatusCode::OK, around)
}

pub(super) fn answer(state: &mut State, asked: &Asked) -> Answer {
    let about_token = asked.path.starts_with("/v1/auth/token/");
    let fault = match &state.always {
        Some(fault) => Some(fault.clone()),
        None if about_token || state.faults.is_empty() => None,
        None => Some(state.faults.remove(0)),
    };
    let (mut other_key, mut other_version) = (false, false);
    match fault {
        Some(Fault::Status(status, text)) => return refused(status, &[&text]),
        Some(Fault::Silence) => return Answer::Silence,
        Some(Fault::Closed) => return Answer::Closed,
        Some(Fault::Babble) => return Answer::Babble,
        Some(Fault::OtherKey) => other_key = true,
        Some(Fault::OtherVersion) => other_version = true,
        None => {}
    }
    if state.sealed {
        return refused(503, &["Vault is sealed"]);
    }
    let header = |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok());
    let token = header("X-Vault-Token").unwrap_or_default();
    let now = state.clock.now();
    let Some(policy) = state.tokens.policy(token, now) else {
        return refused(
            403,
            &["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"],
        );
    };
    if header("X-Vault-Namespace") != state.namespace.as_deref() {
        return denied();
    }
    let Some(path) = asked.path.strip_prefix("/v1/") else {
        return refused(404, &[]);
    };
    if about_token {
        return match (&asked.method, path) {
            (&Method::GET, "auth/token/lookup-self") => match state.tokens.look(token, now) {
                Some(about) => data(about),
                None => denied(),
            },
            (&Method::POST | &Method::PUT, "auth/token/renew-self") => match state.tokens.renew(token, now) {
                Ok(auth) => Answer::Json(StatusCode::OK, json!({ "data": null, "auth": auth })),
                Err((status, text)) => refused(status, &[&text]),
            },
            _ => denied(),
        };
    }
    let inside = path
        .strip_prefix(&state.mount)
        .and_then(|rest| rest.strip_prefix('/'));
    let parts: Vec<_> = inside.unwrap_or_default().split('/').collect();
    match (&asked.method, &parts[..]) {
        (&Method::GET, ["keys", name]) if policy != Policy::Default => match state.keys.read(name) {
            Some(key) => data(key),
            None => refused(404, &[]),
        },
        (&Method::POST | &Method::PUT, ["sign", name, "sha2-256"]) if policy == Policy::Sign => {
            let Ok(body) = serde_json::from_slice::<Value>(&asked.body) else {
                return refused(400, &["failed to parse JSON input: invalid character"]);
            };
            match state.keys.sign(name, &body, other_key, other_version) {
                Ok(signed) => data(signed),
                Err((status, text)) => refused(status, &[&text]),
            }
        }
        _ if inside.is_none() && policy == Policy::Sign => {
            let text = format!("no handler for route {path:?}. route entry not found.");
            refused(404, &[&text])
        }
        _ => refused(403, &["1 error occurred:\n\t* permission denied\n\n"]),
    }
}
