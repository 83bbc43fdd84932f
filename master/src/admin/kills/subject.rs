//! What is killed, as operators name it.

use picket_proto::{
    host::{HostId, Name},
    wire::admin as wire,
};

use super::super::{network_id, node};
use crate::{
    desk::Desk,
    kill::say::scope_word,
    networks::Kept,
    record::network::{KillRecord, KillScope},
    refused::Refused,
};

/// No kill of this id or subject.
pub(super) fn unknown(name: impl ToString) -> Refused {
    Refused::Unknown {
        what: "kill",
        name: name.to_string(),
        list: "picketctl kill list",
    }
}

/// Reads what is to be killed.
///
/// # Errors
/// When there is no such thing, or none that anything is known of.
pub(super) fn subject(desk: &Desk, scope: i32, text: &str) -> Result<KillScope, Refused> {
    Ok(match wire::KillScope::try_from(scope) {
        Ok(wire::KillScope::Node) => KillScope::Node(node(desk, text)?),
        Ok(wire::KillScope::Host) => KillScope::Host(host(desk, text.strip_prefix("host/").unwrap_or(text))?),
        Ok(wire::KillScope::Network) => {
            let id = network_id(text)?;
            if desk.views.read().networks.network(id).is_none() {
                return Err(Refused::NotNow(format!(
                    "network {id} is not watched, so nothing can be done on it; `picketctl network adopt {id}` first (it changes nothing), then kill it"
                )));
            }
            KillScope::Network(id)
        }
        // As lists show an owner, too.
        Ok(wire::KillScope::Owner) => {
            if let Some(name) = text.strip_prefix("host/") {
                return Err(Refused::invalid(
                    "subject",
                    format_args!("{name} is a host, and no person; `picketctl kill host {name}` kills it"),
                ));
            }
            let text = text.strip_prefix("person/").unwrap_or(text);
            let known = desk.views.read().networks.devices_of(text).next().is_some();
            if !known {
                return Err(Refused::Unknown {
                    what: "owner of a device",
                    name: text.to_owned(),
                    list: "picketctl device list",
                });
            }
            KillScope::Owner(text.to_owned())
        }
        Ok(wire::KillScope::All) if text.is_empty() => KillScope::All,
        Ok(wire::KillScope::All) => {
            return Err(Refused::invalid(
                "subject",
                "everybody on every network has no name; leave it empty",
            ));
        }
        Ok(wire::KillScope::Unspecified) | Err(_) => {
            return Err(Refused::invalid("scope", "say node, host, network, owner or all"));
        }
    })
}

/// A host by its name, or by its id when it is retired.
fn host(desk: &Desk, text: &str) -> Result<HostId, Refused> {
    if let Ok(id) = text.parse::<HostId>()
        && desk.views.read().roster.host(id).is_some()
    {
        return Ok(id);
    }
    let name: Name = text.parse().map_err(|error| Refused::invalid("subject", error))?;
    desk.host_named(&name)
}

/// Finds the kill to lift: the one of this subject that holds, or else the one that was lifted last. The subject may be
/// gone since: it is found as it is shown, too.
///
/// # Errors
/// When nothing of the kind was killed.
pub(super) fn killed(desk: &Desk, scope: i32, text: &str) -> Result<Kept<KillRecord>, Refused> {
    let named = subject(desk, scope, text);
    let kind = wire::KillScope::try_from(scope).unwrap_or_default();
    if kind == wire::KillScope::Unspecified {
        named?;
        return Err(unknown(text));
    }
    let kills: Vec<_> = desk.views.read().networks.kills().cloned().collect();
    let is = |kill: &&Kept<KillRecord>| {
        let scope = &kill.record.scope;
        named.as_ref().is_ok_and(|named| named == scope)
            || (scope_of(scope) == kind && shown_subject(desk, scope) == text)
    };
    let newest = kills.iter().filter(is).max_by_key(|kill| {
        let lifted = kill.record.lifted.as_ref();
        (lifted.is_none(), lifted.map(|lifted| lifted.at))
    });
    match (newest, named) {
        (Some(kill), _) => Ok(kill.clone()),
        (None, Err(refused)) => Err(refused),
        (None, Ok(_)) => Err(unknown(if text.is_empty() { "all" } else { text })),
    }
}

/// The scope on the wire.
pub(super) fn scope_of(scope: &KillScope) -> wire::KillScope {
    match scope {
        KillScope::Node(_) => wire::KillScope::Node,
        KillScope::Host(_) => wire::KillScope::Host,
        KillScope::Network(_) => wire::KillScope::Network,
        KillScope::Owner(_) => wire::KillScope::Owner,
        KillScope::All => wire::KillScope::All,
    }
}

/// The subject as it is shown.
pub(super) fn shown_subject(desk: &Desk, scope: &KillScope) -> String {
    match scope {
        KillScope::Node(node) => node.to_string(),
        KillScope::Host(host) => desk.name_of(*host),
        KillScope::Network(network) => network.to_string(),
        KillScope::Owner(owner) => owner.clone(),
        KillScope::All => String::new(),
    }
}

/// What is killed in words: `host bern`, `everything`.
pub(super) fn words(desk: &Desk, scope: &KillScope) -> String {
    match scope {
        KillScope::All => "everything".to_owned(),
        KillScope::Node(_) | KillScope::Host(_) | KillScope::Network(_) | KillScope::Owner(_) => {
            format!("{} {}", scope_word(scope), shown_subject(desk, scope))
        }
    }
}
