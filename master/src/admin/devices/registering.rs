//! Who may register and remove which node: plain functions of what is known.

use jiff::{SignedDuration, Timestamp};
use picket_proto::host::Name;
use picket_zerotier::ids::{NetworkId, NodeId};

use super::sight::Sight;
use crate::{
    admin::naming::{bare_node, not_yours, reads_as_node},
    owner::Caller,
    record::{Revocation, network::RegisteredRecord},
    refused::Refused,
    views::State,
};

/// The most devices a person has at a time. One that was removed counts for as long as [`REMOVED_FOR`], unless an operator
/// registers: nobody goes through nodes by registering and removing them.
const MOST_DEVICES: usize = 64;
/// How long a removed device counts.
const REMOVED_FOR: SignedDuration = SignedDuration::from_hours(24);
/// The most that are remembered of a person who registers them without an operator.
const MOST_REMEMBERED: usize = 256;

/// What somebody wants to register.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    /// The node.
    pub(super) node: NodeId,
    /// What it is to be called.
    pub(super) name: Name,
    /// Whose it is to be.
    pub(super) owner: String,
}

/// Decides on a registration. Nothing when it is registered just so.
///
/// A person who registers without an operator proves nothing: so nobody gets a node that way of which somebody decided
/// something before, or that works somewhere, and that could be removed from where it works then.
///
/// A node that works on a network where it is unknown would be denied there as somebody's whom nobody admitted. So an
/// operator decides first whether it is to be there: nothing ends by being registered.
pub(super) fn register(
    state: &State,
    caller: &Caller,
    (wanted, sight): (&Registration, &Sight),
    now: Timestamp,
) -> Result<Option<RegisteredRecord>, Refused> {
    let Registration { node, name, owner } = wanted;
    if let Some(host) = state.roster.of_node(*node) {
        let host = &host.record.name;
        return Err(Refused::NotNow(if caller.sees_all() {
            format!(
                "node {node} is host {host}'s, and a host's node is not registered; name the host instead, as in `picketctl \
                 member admit {host}`"
            )
        } else {
            format!("node {node} is an enrolled host's, and nobody registers that")
        }));
    }
    if !caller.acts_for_all() && *owner != caller.name {
        return Err(Refused::Denied(format!(
            "{}, as {}, registers its own devices; an operator registers those of others",
            caller.name, caller.role
        )));
    }
    let known = state.roster.operator(owner);
    if known.is_none_or(|(operator, _)| operator.revoked.is_some()) {
        return Err(Refused::no_operator(owner));
    }
    if reads_as_node(name) {
        let problem = format!("`{name}` reads as a node id; choose a name that does not");
        return Err(Refused::invalid("name", problem));
    }
    let before = state.networks.device(*node).map(|kept| &kept.record);
    match before {
        Some(before) if before.removed.is_none() => return standing(before, caller, wanted),
        Some(before) => came_back(before, caller)?,
        None => {
            nobody_decided(state, caller, *node)?;
            works_nowhere(caller, *node, sight)?;
        }
    }
    free(state, name)?;
    room(state, caller, owner, now)?;
    Ok(Some(RegisteredRecord {
        node: *node,
        name: name.clone(),
        owner: owner.clone(),
        at: now,
        by: caller.name.clone(),
        removed: None,
    }))
}

/// The node is registered.
fn standing(
    before: &RegisteredRecord,
    caller: &Caller,
    wanted: &Registration,
) -> Result<Option<RegisteredRecord>, Refused> {
    let node = before.node;
    let theirs = before.owner == wanted.owner;
    if theirs && before.name == wanted.name {
        return Ok(None);
    }
    Err(Refused::Exists(if theirs {
        format!(
            "node {node} is registered as `{}`; `picketctl device remove {0}` first when it is to be called otherwise",
            before.name
        )
    } else if caller.sees_all() {
        format!("node {node} is {}'s, as `{}`", before.owner, before.name)
    } else {
        format!("node {node} is registered already; ask an operator whose it is")
    }))
}

/// The node was removed.
fn came_back(before: &RegisteredRecord, caller: &Caller) -> Result<(), Refused> {
    let by_itself = before
        .removed
        .as_ref()
        .is_some_and(|removed| removed.by == caller.name);
    if caller.acts_for_all() || (by_itself && before.owner == caller.name) {
        return Ok(());
    }
    Err(Refused::Denied(format!(
        "node {} was a device that was removed; an operator registers it again",
        before.node
    )))
}

/// Nobody decided anything of the node, where no operator registers it.
fn nobody_decided(state: &State, caller: &Caller, node: NodeId) -> Result<(), Refused> {
    let somebody = state.networks.networks().any(|network| {
        let id: NetworkId = network.record.id;
        network.record.allow.contains_key(&node) || state.networks.grant(id, node).is_some()
    });
    if somebody && !caller.acts_for_all() {
        return Err(known_already(node));
    }
    Ok(())
}

/// The node would not be cut off by being somebody's.
fn works_nowhere(caller: &Caller, node: NodeId, sight: &Sight) -> Result<(), Refused> {
    if caller.acts_for_all() {
        if sight.on.is_empty() {
            return Ok(());
        }
        let each = sight.on.iter().map(|(network, approvals)| match approvals {
            0 => format!("`picketctl member admit {node} --network {network} --reason ...`"),
            _ => {
                format!("`picketctl member request {node} --network {network} --reason ...` and somebody's approval")
            }
        });
        let networks: Vec<_> = sight.on.iter().map(|(network, _)| network.to_string()).collect();
        return Err(Refused::NotNow(format!(
            "node {node} works on network {}, where nobody admitted it, and would be cut off there as somebody's; first {}, \
             or `picketctl member revoke` where it is not to be; then register it",
            networks.join(", "),
            each.collect::<Vec<_>>().join(", ")
        )));
    }
    if !sight.on.is_empty() {
        return Err(known_already(node));
    }
    if !sight.unread.is_empty() {
        return Err(Refused::NotNow(format!(
            "whether node {node} is on a network already cannot be seen just now; ask an operator to register it for you, or \
             try again later"
        )));
    }
    Ok(())
}

/// What an operator should know who registers a node.
pub(super) fn remarks(node: NodeId, sight: &Sight) -> Vec<String> {
    let remark = |(network, problem): &(NetworkId, String)| {
        format!(
            "network {network} cannot be read just now ({problem}); if node {node} is let on there by hand, it is put off as \
             soon as it can: `picketctl member admit {node} --network {network} --reason ...` keeps it there"
        )
    };
    sight.unread.iter().map(remark).collect()
}

fn known_already(node: NodeId) -> Refused {
    Refused::Denied(format!(
        "node {node} is known on a network already; an operator registers it for you"
    ))
}

/// Nothing else is called so.
fn free(state: &State, name: &Name) -> Result<(), Refused> {
    if state.networks.device_named(name).is_some() {
        return Err(Refused::Exists(format!(
            "another device is called `{name}`; choose another name"
        )));
    }
    if state.roster.named(name).is_some() {
        return Err(Refused::Exists(format!(
            "a host is called `{name}`; choose another name"
        )));
    }
    Ok(())
}

fn room(state: &State, caller: &Caller, owner: &str, now: Timestamp) -> Result<(), Refused> {
    let theirs = state.networks.devices().filter(|kept| kept.record.owner == owner);
    let (mut all, mut here, mut lately) = (0, 0, 0);
    for kept in theirs {
        all += 1;
        match &kept.record.removed {
            None => here += 1,
            Some(removed) if now.duration_since(removed.at) < REMOVED_FOR => lately += 1,
            Some(_) => {}
        }
    }
    if here >= MOST_DEVICES {
        return Err(Refused::NotNow(format!(
            "{owner} has {MOST_DEVICES} devices, which is as many as there can be; `picketctl device remove` one that is not \
             used"
        )));
    }
    if here + lately >= MOST_DEVICES && !caller.acts_for_all() {
        return Err(Refused::NotNow(format!(
            "{owner} has {here} devices and removed {lately} within a day, which count too, and {MOST_DEVICES} is as many as \
             there can be; wait, or ask an operator to register more"
        )));
    }
    if all >= MOST_REMEMBERED && !caller.acts_for_all() {
        return Err(Refused::NotNow(format!(
            "{MOST_REMEMBERED} devices of {owner} are remembered, with those that were removed; an operator registers more"
        )));
    }
    Ok(())
}

/// Decides on a removal: the node, and its record from there on; nothing when it was removed.
pub(super) fn removal(
    state: &State,
    caller: &Caller,
    text: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(NodeId, Option<RegisteredRecord>), Refused> {
    let there = named(state, text)?;
    let device = there.filter(|device| caller.acts_for_all() || device.owner == caller.name);
    let Some(device) = device else {
        if let Some(there) = there.filter(|_| caller.sees_all()) {
            return Err(not_yours(state, there.node, text, caller));
        }
        let host = bare_node(text).ok().and_then(|node| state.roster.of_node(node));
        return Err(match host.filter(|_| caller.sees_all()) {
            Some(host) => Refused::NotNow(format!(
                "node {text} is host {0}'s; `picketctl host retire {0}` when it is gone for good",
                host.record.name
            )),
            None => Refused::no_device(text),
        });
    };
    let record = device.removed.is_none().then(|| RegisteredRecord {
        removed: Some(Revocation {
            at: now,
            by: caller.name.clone(),
            reason: reason.to_owned(),
        }),
        ..device.clone()
    });
    Ok((device.node, record))
}

/// A person's device by its node or name; the one that was removed last where none of that name stands.
fn named<'a>(state: &'a State, text: &str) -> Result<Option<&'a RegisteredRecord>, Refused> {
    if let Ok(node) = bare_node(text) {
        return Ok(state.networks.device(node).map(|kept| &kept.record));
    }
    let name: Name = super::name("device", text)?;
    if let Some(kept) = state.networks.device_named(&name) {
        return Ok(Some(&kept.record));
    }
    let removed = state
        .networks
        .devices()
        .map(|kept| &kept.record)
        .filter(|device| device.name == name);
    Ok(removed.max_by_key(|device| device.removed.as_ref().map(|removed| removed.at)))
}

#[cfg(test)]
#[path = "registering_tests.rs"]
mod tests;
