//! Who may be on a network: computed, never stored.
//!
//! One function of what was granted, activated and killed, of whose node it is and how that stands, and of the time. What
//! a controller is told, what lists show and what a kill waits for all follow from it.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use jiff::Timestamp;
use picket_proto::{host::Name, rules::Rule};
use picket_zerotier::ids::NodeId;

use crate::record::{
    HostRecord, HostStanding,
    network::{ActivationRecord, GrantRecord, KillRecord, NetworkMode, NetworkRecord, RegisteredRecord},
};

/// Everything that is known of one node on one network.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The node.
    pub node: NodeId,
    /// The network.
    pub network: &'a NetworkRecord,
    /// The kill that covers it, if one does that holds.
    pub kill: Option<&'a KillRecord>,
    /// What was decided of it.
    pub grant: Option<&'a GrantRecord>,
    /// The activation that was started last.
    pub activation: Option<&'a ActivationRecord>,
    /// The host that is believed to run the node.
    pub host: Option<&'a HostRecord>,
    /// The host that was believed to run it and is believed to run another one by now.
    pub former: Option<&'a HostRecord>,
    /// The host that was retired last of those that ran the node, and when.
    pub retired: Option<(&'a Name, Timestamp)>,
    /// The person's device that it is.
    pub device: Option<&'a RegisteredRecord>,
}

/// What holds for a node on a network, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may be there.
    Authorized {
        /// Why.
        because: Because,
        /// When that ends by itself.
        until: Option<Timestamp>,
    },
    /// It may not.
    Denied(Because),
    /// Nobody registered it, and nobody ever said anything of it.
    Unknown,
}

impl Decision {
    /// Whether the node may be there.
    #[must_use]
    pub fn authorizes(&self) -> bool {
        matches!(self, Self::Authorized { .. })
    }
}

/// Why a decision is as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// A standing grant.
    Admitted {
        /// By whom.
        by: String,
        /// The reason that was given.
        reason: String,
    },
    /// An activation that goes on.
    Active {
        /// By whom.
        by: String,
        /// The reason that was given.
        reason: String,
        /// Its end.
        until: Timestamp,
    },
    /// The labels of its host.
    Labels(Name),
    /// The network's own settings file.
    Allowed,
    /// It is the node of the controller, without which nothing works.
    Controller(Name),
    /// The grant was taken away.
    Revoked {
        /// By whom.
        by: String,
        /// The reason that was given.
        reason: String,
    },
    /// It may be activated, and is not.
    NotActive,
    /// An activation is over.
    Over {
        /// When it ended.
        at: Timestamp,
        /// Who ended it before its time.
        by: Option<String>,
    },
    /// A kill covers it.
    Killed {
        /// The kill.
        id: String,
        /// By whom.
        by: String,
        /// The reason that was given.
        reason: String,
    },
    /// The host that runs the node is cut off.
    HostBanned(Name),
    /// The host that ran the node is gone for good.
    HostRetired(Name),
    /// The host that was known by this node is another one.
    HostMoved(Name),
    /// It was a person's device, and was removed.
    DeviceRemoved {
        /// By whom.
        by: String,
        /// The reason that was given.
        reason: String,
    },
    /// It is somebody's, and nobody admitted it.
    NotAdmitted,
    /// The network is being deleted.
    NetworkDeleted,
}

impl Because {
    /// Whether a deauthorization for this waits for nothing. What is merely not admitted may be held back with the rest
    /// of a network that somebody turned upside down.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        match self {
            Self::Revoked { .. }
            | Self::Over { .. }
            | Self::Killed { .. }
            | Self::HostBanned(_)
            | Self::HostRetired(_)
            | Self::HostMoved(_)
            | Self::DeviceRemoved { .. }
            | Self::NetworkDeleted => true,
            Self::Admitted { .. }
            | Self::Active { .. }
            | Self::Labels(_)
            | Self::Allowed
            | Self::Controller(_)
            | Self::NotActive
            | Self::NotAdmitted => false,
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admitted { by, reason } => write!(f, "admitted by {by}: {reason}"),
            Self::Active { by, reason, until } => {
                write!(f, "activated by {by} until {until:.0}: {reason}")
            }
            Self::Labels(host) => write!(f, "its host {host} has the labels of the network's members"),
            Self::Allowed => write!(f, "the network's settings allow it"),
            Self::Controller(host) => write!(f, "it is the node of the controller, on {host}"),
            Self::Revoked { by, reason } => write!(f, "revoked by {by}: {reason}"),
            Self::NotActive => write!(f, "it may be activated, and is not"),
            Self::Over { at, by: None } => write!(f, "its activation came to its end at {at:.0}"),
            Self::Over { at, by: Some(by) } => write!(f, "its activation was ended by {by} at {at:.0}"),
            Self::Killed { id, by, reason } => write!(f, "killed by {by} (kill {id}): {reason}"),
            Self::HostBanned(name) => write!(f, "its host {name} is banned"),
            Self::HostRetired(name) => write!(f, "its host {name} is retired"),
            Self::HostMoved(name) => write!(f, "it was the node of host {name}, which is another one by now"),
            Self::DeviceRemoved { by, reason } => write!(f, "its device was removed by {by}: {reason}"),
            Self::NotAdmitted => write!(f, "nobody admitted it"),
            Self::NetworkDeleted => write!(f, "the network is being deleted"),
        }
    }
}

/// Decides for one node on one network.
///
/// A kill beats everything. Then come those who are cut off, then what was decided of the node itself, a later revocation
/// over an earlier rule, and then the rules that hold for many. A node that belongs to somebody and that nothing admits is
/// denied; one that nobody knows is unknown.
#[must_use]
pub fn authorized(facts: &Facts<'_>, now: Timestamp) -> Decision {
    if let Some(because) = forbidden(facts) {
        return Decision::Denied(because);
    }
    let grant = holding(facts);
    let activation = facts
        .activation
        .filter(|activation| facts.network.knows(activation.at) && outlived(facts, activation.at));
    let may_activate = grant.is_some_and(|grant| grant.admitted);
    let running = activation
        .filter(|_| may_activate)
        .filter(|activation| activation.is_on(now));

    let by_itself = |because| Decision::Authorized { because, until: None };
    if let Some(host) = facts.host
        && facts.network.controller.host() == Some(host.id)
    {
        return by_itself(Because::Controller(host.name.clone()));
    }
    match (grant, running) {
        (Some(grant), _) if !grant.admitted => {
            let (by, reason) = (grant.by.clone(), grant.reason.clone());
            return Decision::Denied(Because::Revoked { by, reason });
        }
        (Some(grant), _) if !grant.for_activation => {
            let (by, reason) = (grant.by.clone(), grant.reason.clone());
            return by_itself(Because::Admitted { by, reason });
        }
        (_, Some(running)) => {
            return Decision::Authorized {
                because: Because::Active {
                    by: running.by.clone(),
                    reason: running.reason.clone(),
                    until: running.until,
                },
                until: Some(running.until),
            };
        }
        (Some(_) | None, None) => {}
    }
    if let Some(host) = facts.host
        && facts.network.takes_labels_of(host)
    {
        return by_itself(Because::Labels(host.name.clone()));
    }
    if facts.network.allow.contains_key(&facts.node) {
        return by_itself(Because::Allowed);
    }
    Decision::Denied(if let Some(activation) = activation.filter(|_| grant.is_some()) {
        Because::Over {
            at: activation.end(now),
            by: activation.ended_by().map(str::to_owned),
        }
    } else if grant.is_some() {
        Because::NotActive
    } else if let Some((name, _)) = facts
        .retired
        .filter(|_| facts.host.is_none() || facts.grant.is_some())
    {
        Because::HostRetired(name.clone())
    } else if facts.host.is_some() || facts.device.is_some() {
        Because::NotAdmitted
    } else if let Some(host) = facts.former {
        Because::HostMoved(host.name.clone())
    } else {
        return Decision::Unknown;
    })
}

/// What was decided of the node, as far as that counts.
#[must_use]
pub fn holding<'a>(facts: &Facts<'a>) -> Option<&'a GrantRecord> {
    facts
        .grant
        .filter(|grant| outlived(facts, grant.at) && holds(grant, facts))
}

/// What was granted before a host retired ended with it, whoever runs the node since.
fn outlived(facts: &Facts<'_>, at: Timestamp) -> bool {
    facts.retired.is_none_or(|(_, retired)| at > retired)
}

/// Whether what was decided of a node still counts: a permission for a network of this id that was deleted and made again
/// does not, nor does a revocation from before the settings named the node.
fn holds(grant: &GrantRecord, facts: &Facts<'_>) -> bool {
    if grant.admitted {
        return facts.network.knows(grant.at);
    }
    let named = facts.network.allow.get(&facts.node);
    named.is_none_or(|named| named.since <= grant.at)
}

/// What keeps a node off whatever was granted.
#[must_use]
pub fn forbidden(facts: &Facts<'_>) -> Option<Because> {
    if let Some(kill) = facts.kill {
        return Some(Because::Killed {
            id: kill.id.clone(),
            by: kill.by.clone(),
            reason: kill.reason.clone(),
        });
    }
    match facts.network.mode {
        NetworkMode::Deleting | NetworkMode::Gone => return Some(Because::NetworkDeleted),
        NetworkMode::Observe | NetworkMode::Enforce => {}
    }
    if let Some(host) = facts.host {
        return match host.standing {
            HostStanding::Active => None,
            HostStanding::Banned { .. } => Some(Because::HostBanned(host.name.clone())),
            HostStanding::Retired { .. } => Some(Because::HostRetired(host.name.clone())),
        };
    }
    let removed = facts.device.and_then(|device| device.removed.as_ref())?;
    // Whoever names it in the settings after that decided anew, as somebody does who registers it again.
    let named = facts.network.allow.get(&facts.node);
    if named.is_some_and(|named| named.since > removed.at) {
        return None;
    }
    Some(Because::DeviceRemoved {
        by: removed.by.clone(),
        reason: removed.reason.clone(),
    })
}

/// What the controller is told of a node; nothing when nobody knows it.
#[must_use]
pub fn rule(facts: &Facts<'_>, now: Timestamp) -> Option<Rule> {
    let (name, addresses) = wanted_record(facts);
    match authorized(facts, now) {
        Decision::Authorized { until, .. } => Some(Rule {
            authorized: true,
            until,
            urgent: false,
            name,
            addresses,
        }),
        Decision::Denied(because) => Some(Rule {
            urgent: because.is_urgent(),
            ..Rule::plain(false)
        }),
        Decision::Unknown => None,
    }
}

/// The name and the addresses that the controller's record is to have. Where Picket did not make the network, names are
/// somebody else's, unless the settings file gives one.
fn wanted_record(facts: &Facts<'_>) -> (String, BTreeSet<IpAddr>) {
    let allowed = facts.network.allow.get(&facts.node);
    let addresses = allowed
        .map(|allowed| allowed.addresses.clone())
        .unwrap_or_default();
    let given = allowed.map(|allowed| allowed.name.clone()).unwrap_or_default();
    if !given.is_empty() || !facts.network.made {
        return (given, addresses);
    }
    let host = facts.host.map(|host| host.name.to_string());
    let device = facts.device.map(|device| device.name.to_string());
    (host.or(device).unwrap_or_default(), addresses)
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
