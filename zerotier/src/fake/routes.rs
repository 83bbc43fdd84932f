//! Which method and path does what.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    air::State,
    coerce::Thrown,
    controller::{Change, Hosted},
    http::{Answer, Asked, Origin},
    machine,
    moon::{self, Orbit},
    node::Joined,
};
use crate::ids::{NetworkId, NodeId};

/// What a request wants, as far as its method tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Write,
    Delete,
}

/// Answers a request that was let in.
pub(super) fn answer(state: &mut State, node: NodeId, asked: &Asked) -> Answer {
    let verb = match asked.method {
        Method::GET => Verb::Get,
        Method::POST | Method::PUT => Verb::Write,
        Method::DELETE => Verb::Delete,
        _ => return nothing(),
    };
    let Some(path) = asked.path.strip_prefix('/') else {
        return nothing();
    };
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        ["controller", rest @ ..] => controller(state, node, verb, rest, &asked.body),
        ["unstable", "controller", "network", rest @ ..] if verb == Verb::Get => unstable(state, node, rest),
        ["network", rest @ ..] => network(state, node, verb, rest, &asked.body),
        ["moon", rest @ ..] => moon_of(state, node, verb, rest, asked),
        ["peer", rest @ ..] if verb == Verb::Get => peer(state, node, rest),
        [single] if verb == Verb::Get => simple(state, node, single),
        _ => nothing(),
    }
    .unwrap_or_else(|Thrown(why)| Answer::thrown(&why))
}

type Outcome = Result<Answer, Thrown>;

fn nothing<T: From<Answer>>() -> T {
    Answer::empty(StatusCode::NOT_FOUND).into()
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Ok(answer)
    }
}

fn simple(state: &State, node: NodeId, path: &str) -> Outcome {
    let Some(machine) = state.machines.get(&node) else {
        return nothing();
    };
    let wall = state.wall();
    Ok(match path {
        "status" => Answer::json(&machine.status(wall, state.epoch())),
        "health" => Answer::json(&machine::health(wall)),
        "config" => Answer::json(&json!({"settings": {
            "allowTcpFallbackRelay": false, "portMappingEnabled": false, "primaryPort": 9993,
            "softwareUpdate": "disable",
        }})),
        "metrics" => Answer::text(
            "text/plain",
            metrics(machine.networks().count(), state.peers(node).len()),
        ),
        _ => return nothing(),
    })
}

/// A simulated node counts no packets: it moves none.
fn metrics(networks: usize, peers: usize) -> String {
    let mut text = String::from("# HELP zt_packet ZeroTier packet type counts\n# TYPE zt_packet counter\n");
    for direction in ["tx", "rx"] {
        for kind in ["hello", "frame", "network_config", "network_config_request"] {
            text += &format!("zt_packet{{direction=\"{direction}\",packet_type=\"{kind}\"}} 0\n");
        }
    }
    text += "# HELP zt_num_networks number of networks this instance is joined to\n# TYPE zt_num_networks gauge\n";
    text += &format!("zt_num_networks {networks}\n");
    text += "# HELP zt_num_peers number of known peers\n# TYPE zt_num_peers gauge\n";
    text + &format!("zt_num_peers {peers}\n")
}

fn peer(state: &State, node: NodeId, rest: &[&str]) -> Outcome {
    let peers = state.peers(node);
    Ok(match rest {
        [] => Answer::json(&Value::Array(peers.into_values().collect())),
        [id] if is_hex(id, 10) => {
            let found = id.parse().ok().and_then(|id: NodeId| peers.get(&id).cloned());
            Answer::json(&found.unwrap_or_else(|| json!({})))
        }
        _ => return nothing(),
    })
}

fn network(state: &mut State, node: NodeId, verb: Verb, rest: &[&str], body: &str) -> Outcome {
    let number = state.issue();
    let now = state.now;
    let Some(machine) = state.machines.get_mut(&node) else {
        return nothing();
    };
    let id = match rest {
        [] if verb == Verb::Get => {
            let all = machine
                .networks()
                .map(|(network, joined)| joined.show(network, node, now))
                .collect();
            return Ok(Answer::json(&Value::Array(all)));
        }
        [id] if is_hex(id, 16) => match id.parse::<NetworkId>() {
            Ok(id) => id,
            Err(_) => return nothing(),
        },
        _ => return nothing(),
    };
    if !machine.tun {
        let status = if verb == Verb::Get {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::OK
        };
        return Ok(Answer::hollow(status));
    }
    Ok(match verb {
        Verb::Get => match machine.joined.get(&id) {
            Some(joined) => Answer::json(&joined.show(id, node, now)),
            None => Answer::hollow(StatusCode::NOT_FOUND),
        },
        Verb::Write => {
            let joined = machine
                .joined
                .entry(id)
                .or_insert_with(|| Joined::new(id, node, number, now));
            joined.set(body);
            Answer::json(&joined.show(id, node, now))
        }
        Verb::Delete => match machine.joined.remove(&id) {
            Some(_) => Answer::json(&json!({ "result": true })),
            None => Answer::json(&json!({})),
        },
    })
}

fn moon_of(state: &mut State, node: NodeId, verb: Verb, rest: &[&str], asked: &Asked) -> Outcome {
    let now = state.now;
    let worlds: Vec<_> = state
        .machines
        .values()
        .filter_map(|root| Some((root.id, root.moon.clone()?)))
        .collect();
    let world = |orbit: &Orbit, moon: NodeId| {
        let known = worlds
            .iter()
            .find(|(id, _)| *id == moon && *id == orbit.seed)
            .map(|(_, world)| world);
        orbit.arrived(known, now).cloned()
    };
    let Some(machine) = state.machines.get_mut(&node) else {
        return nothing();
    };
    let id = match rest {
        [] if verb == Verb::Get => {
            let listed = machine
                .orbits
                .iter()
                .filter_map(|(moon, orbit)| world(orbit, *moon).map(|world| moon::show(*moon, Some(&world))));
            return Ok(Answer::json(&Value::Array(listed.collect())));
        }
        [id] if is_hex(id, 10) => match id.parse::<NodeId>() {
            Ok(id) => id,
            Err(_) => return Ok(Answer::json(&json!({}))),
        },
        _ => return nothing(),
    };
    let present = machine.orbits.get(&id).and_then(|orbit| world(orbit, id));
    Ok(match verb {
        Verb::Get => match present {
            Some(world) => Answer::json(&moon::show(id, Some(&world))),
            None => Answer::json(&json!({})),
        },
        Verb::Write => {
            let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
            match body
                .get("seed")
                .and_then(Value::as_str)
                .and_then(|seed| seed.parse().ok())
            {
                Some(seed) => {
                    machine.orbits.entry(id).or_insert(Orbit { seed, since: now });
                    Answer::json(&moon::show(id, present.as_ref()))
                }
                None => Answer::json(&json!({})),
            }
        }
        Verb::Delete if asked.origin == Origin::Loopback6 => return nothing(),
        Verb::Delete => {
            machine.orbits.remove(&id);
            Answer::json(&json!({ "result": true }))
        }
    })
}

fn unstable(state: &State, node: NodeId, rest: &[&str]) -> Outcome {
    let Some(machine) = state.machines.get(&node) else {
        return nothing();
    };
    Ok(match rest {
        [] => {
            let data: Vec<Value> = machine
                .hosted
                .values()
                .map(|hosted| {
                    let (total, authorized) = hosted.count();
                    let mut record = hosted.record.clone();
                    record.insert(
                        "meta".into(),
                        json!({ "authorizedMemberCount": authorized, "totalMemberCount": total }),
                    );
                    record.into()
                })
                .collect();
            Answer::json(&json!({ "meta": { "networkCount": data.len() }, "data": data }))
        }
        [id, "member"] if is_hex(id, 16) => {
            match id.parse().ok().and_then(|id: NetworkId| machine.hosted.get(&id)) {
                Some(hosted) => {
                    let (total, authorized) = hosted.count();
                    let data: Vec<_> = hosted.members.values().cloned().map(Value::Object).collect();
                    let meta = json!({ "authorizedCount": authorized, "totalCount": total });
                    Answer::json(&json!({ "data": data, "meta": meta }))
                }
                None => return nothing(),
            }
        }
        _ => return nothing(),
    })
}

fn controller(state: &mut State, node: NodeId, verb: Verb, rest: &[&str], body: &str) -> Outcome {
    match rest {
        // This one answer of the service is laid out by hand, neither compact nor sorted.
        [] if verb == Verb::Get => Ok(Answer::text(
            "application/json",
            format!(
                "{{\n\t\"controller\": true,\n\t\"apiVersion\": 4,\n\t\"clock\": {},\n\t\"databaseReady\": true\n}}\n",
                state.wall()
            ),
        )),
        ["network"] => match verb {
            Verb::Get => {
                let Some(machine) = state.machines.get(&node) else {
                    return nothing();
                };
                Ok(Answer::json(&json!(machine.hosted.keys().collect::<Vec<_>>())))
            }
            Verb::Write => {
                let id = state.free_network(node);
                post_network(state, node, id, body)
            }
            Verb::Delete => nothing(),
        },
        ["network", id, rest @ ..] => match (id.strip_suffix("______"), rest) {
            (Some(prefix), []) if verb == Verb::Write && is_hex(prefix, 10) => {
                if prefix.parse() != Ok(node) {
                    return Ok(Answer::empty(StatusCode::BAD_REQUEST));
                }
                let id = state.free_network(node);
                post_network(state, node, id, body)
            }
            (None, []) if is_hex(id, 16) => one_network(state, node, verb, id, body),
            (None, ["member"]) if is_hex(id, 16) && verb == Verb::Get => members(state, node, id),
            (None, ["member", member]) if is_hex(id, 16) && is_hex(member, 10) => {
                one_member(state, node, verb, (id, member), body)
            }
            _ => nothing(),
        },
        _ => nothing(),
    }
}

fn post_network(state: &mut State, node: NodeId, id: NetworkId, body: &str) -> Outcome {
    let wall = state.wall();
    let Some(machine) = state.machines.get_mut(&node) else {
        return nothing();
    };
    let changed = match machine.hosted.get_mut(&id) {
        Some(hosted) => hosted.post(id, body, wall)?,
        None => {
            machine.hosted.insert(id, Hosted::create(id, body, wall)?);
            false
        }
    };
    // A record below another node's id is stored and never served.
    if changed && id.controller() == node {
        state.push_all(id);
    }
    let record = state
        .machines
        .get(&node)
        .and_then(|machine| machine.hosted.get(&id))
        .map(|hosted| &hosted.record);
    Ok(Answer::json(&json!(record)))
}

fn one_network(state: &mut State, node: NodeId, verb: Verb, id: &str, body: &str) -> Outcome {
    let Ok(id) = id.parse::<NetworkId>() else {
        return nothing();
    };
    match verb {
        Verb::Write => post_network(state, node, id, body),
        Verb::Get => match state
            .machines
            .get(&node)
            .and_then(|machine| machine.hosted.get(&id))
        {
            Some(hosted) => Ok(Answer::json(&json!(hosted.record))),
            None => nothing(),
        },
        Verb::Delete => {
            let told = state.online(node, id);
            match state
                .machines
                .get_mut(&node)
                .and_then(|machine| machine.hosted.remove(&id))
            {
                Some(hosted) => {
                    state.revoke(id, &hosted.authorized(), &told);
                    Ok(Answer::json(&json!(hosted.record)))
                }
                None => nothing(),
            }
        }
    }
}

fn members(state: &State, node: NodeId, id: &str) -> Outcome {
    let hosted = id
        .parse()
        .ok()
        .and_then(|id: NetworkId| state.machines.get(&node)?.hosted.get(&id));
    let Some(hosted) = hosted else { return nothing() };
    let revisions = hosted.members.values().map(|member| {
        let id = member["id"].as_str().unwrap_or_default().to_owned();
        (id, member["revision"].clone())
    });
    Ok(Answer::json(&Value::Object(revisions.collect())))
}

fn one_member(state: &mut State, node: NodeId, verb: Verb, typed: (&str, &str), body: &str) -> Outcome {
    let (Ok(id), Ok(member)) = (typed.0.parse::<NetworkId>(), typed.1.parse::<NodeId>()) else {
        return nothing();
    };
    let wall = state.wall();
    let told = state.online(node, id);
    let hosted = state
        .machines
        .get_mut(&node)
        .and_then(|machine| machine.hosted.get_mut(&id));
    let Some(hosted) = hosted else { return nothing() };
    let (record, change) = match verb {
        Verb::Get => match hosted.members.get(&member) {
            Some(record) => (record.clone(), Change::None),
            None => return nothing(),
        },
        Verb::Delete => match hosted.delete_member(member) {
            Some(deleted) => deleted,
            None => return nothing(),
        },
        Verb::Write => {
            let change = hosted.post_member(member, typed, body, wall)?;
            (hosted.members[&member].clone(), change)
        }
    };
    // A record below another node's id is stored and never served.
    if id.controller() == node {
        match change {
            Change::None => {}
            Change::Saved => state.push(id, member),
            Change::Revoked => state.revoke(id, &[member].into(), &told),
        }
    }
    Ok(Answer::json(&Value::Object(record)))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
