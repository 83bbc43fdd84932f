//! `picket.admin.v1`: what operators call. One room for each noun; each decides little, commits, and answers.

pub mod audit;
mod bundle;
pub mod ca;
pub mod clock;
pub mod deckies;
pub mod deployments;
pub mod devices;
pub mod events;
mod host_nodes;
pub mod hosts;
pub mod kills;
mod member_view;
pub mod members;
pub mod moons;
pub mod networks;
pub mod operators;

use picket_proto::host::Name;
use picket_zerotier::ids::{NetworkId, NodeId};

use crate::{desk::Desk, refused::Refused};

/// The longest reason or note an operator gives.
const MOST_REASON: usize = 256;

fn name(field: &str, text: &str) -> Result<Name, Refused> {
    text.parse().map_err(|error| Refused::invalid(field, error))
}

fn network_id(text: &str) -> Result<NetworkId, Refused> {
    text.parse()
        .map_err(|error| Refused::invalid("network_id", error))
}

pub(crate) fn reason(text: &str) -> Result<String, Refused> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(Refused::invalid(
            "reason",
            "is missing; say why, for whoever reads the audit later",
        ));
    }
    if trimmed.chars().count() > MOST_REASON || trimmed.contains(|c: char| c.is_control()) {
        return Err(Refused::invalid(
            "reason",
            format_args!("use one line of at most {MOST_REASON} characters"),
        ));
    }
    Ok(trimmed.to_owned())
}

/// As [`node`], and not a host that says it is another node than the one that is believed: a permission for either may
/// be for the wrong machine.
fn settled_node(desk: &Desk, text: &str) -> Result<NodeId, Refused> {
    let named = text
        .parse::<Name>()
        .ok()
        .filter(|_| text.parse::<NodeId>().is_err());
    let host = named.and_then(|name| desk.host_named(&name).ok());
    if let Some(waiting) = host.and_then(|host| desk.nodes.of(host)) {
        let sentence = waiting.sentence(text);
        return Err(Refused::NotNow(format!(
            "host {text} {sentence}; or admit a node by its id"
        )));
    }
    node(desk, text)
}

/// A node by its id, or by the name of the host that runs it.
fn node(desk: &Desk, text: &str) -> Result<NodeId, Refused> {
    let as_id = text.parse::<NodeId>();
    if let Ok(node) = as_id {
        return Ok(node);
    }
    let named = text.parse::<Name>().ok().and_then(|name| {
        let views = desk.views.read();
        views
            .roster
            .named(&name)
            .map(|host| (host.record.name.clone(), host.record.node))
    });
    match (named, as_id) {
        (Some((_, Some(node))), _) => Ok(node),
        (Some((name, None)), _) => Err(Refused::NotNow(format!(
            "host {name} has no ZeroTier node that is believed; see its conditions in `picketctl host show {name}`"
        ))),
        (None, Err(error)) => Err(Refused::invalid(
            "node",
            format_args!("{error}; and no host is called so (`picketctl host list`)"),
        )),
        (None, Ok(node)) => Ok(node),
    }
}
