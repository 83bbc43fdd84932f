//! `picket.admin.v1`: what operators call. One room for each noun; each decides little, commits, and answers.

pub mod ca;
pub mod deckies;
pub mod deployments;
pub mod events;
pub mod hosts;
pub mod members;
pub mod networks;

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

fn reason(text: &str) -> Result<String, Refused> {
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
            "host {name} has not reported its ZeroTier node yet; see its conditions in `picketctl host show {name}`"
        ))),
        (None, Err(error)) => Err(Refused::invalid(
            "node",
            format_args!("{error}; and no host is called so (`picketctl host list`)"),
        )),
        (None, Ok(node)) => Ok(node),
    }
}
