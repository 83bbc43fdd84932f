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
mod naming;
pub mod networks;
pub mod operators;
mod page;

pub use self::naming::node;

use picket_proto::host::Name;
use picket_zerotier::ids::NetworkId;

use crate::refused::Refused;

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

/// A reason that may be missing.
pub(crate) fn remark(text: &str) -> Result<String, Refused> {
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    reason(text)
}
