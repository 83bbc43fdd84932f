//! Activations: permissions that end by themselves.
//!
//! An activation is started where the node was granted that, lasts as long as the network says at most, counted from its
//! start however often it is extended, and is moved by approvers alone. Its end is a time that everybody computes with; the record of it comes after. Before the end there are
//! two warnings.
//!
//! Plain functions of records and the time; nothing here is written or looked up.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use picket_zerotier::ids::{NetworkId, NodeId};

use crate::{
    networks::deadlines::{Deadlines, Pair},
    record::{
        Revocation,
        network::{ActivationRecord, GrantRecord, NetworkRecord},
    },
    request::after,
};

/// How long before its end an activation is warned of.
pub const LEADS: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(120)];
/// The shortest activation.
const LEAST: Duration = Duration::from_secs(1);
/// What is said of one that nobody ended.
pub const OVER: &str = "it came to its end";

/// Why an activation is not started or moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActivationError {
    /// Longer or shorter than there are.
    #[error(
        "lasts: {} is no time an activation on network {network} can last; that is between {} and {}",
        shown(.asked), shown(&LEAST), shown(.most)
    )]
    Span {
        /// Where.
        network: NetworkId,
        /// What was wanted.
        asked: Duration,
        /// The longest.
        most: Duration,
    },
    /// Nobody granted it.
    #[error(
        "{node} may not be activated on network {network}; ask for that with `picketctl member request {node} --network \
         {network}`"
    )]
    NotGranted {
        /// Where.
        network: NetworkId,
        /// What.
        node: NodeId,
    },
    /// There is nothing to activate.
    #[error("{node} is on network {network} until that is revoked; there is nothing to activate")]
    Stands {
        /// Where.
        network: NetworkId,
        /// What.
        node: NodeId,
    },
    /// None goes on.
    #[error(
        "no activation of {node} goes on on network {network}; `picketctl member activate {node} --network {network}` starts \
         one"
    )]
    NotOn {
        /// Where.
        network: NetworkId,
        /// What.
        node: NodeId,
    },
    /// It would go on for too long.
    #[error(
        "an activation on network {network} lasts {} at most, from its start at {at:.0}: it can go on until {latest:.0}; after \
         that `picketctl member activate {node} --network {network}` starts another",
        shown(.most)
    )]
    Beyond {
        /// Where.
        network: NetworkId,
        /// What.
        node: NodeId,
        /// When it was started.
        at: Timestamp,
        /// When it ends at the latest.
        latest: Timestamp,
        /// The longest.
        most: Duration,
    },
    /// It would end earlier.
    #[error(
        "the activation goes on until {until:.0}, which is later; `picketctl member end` ends it before its time"
    )]
    Shorter {
        /// When it ends.
        until: Timestamp,
    },
}

fn shown(span: &Duration) -> String {
    let seconds = span.as_secs();
    match (seconds % 3600, seconds % 60) {
        (0, _) if seconds > 0 => format!("{} h", seconds / 3600),
        (_, 0) if seconds > 0 => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

/// How long one lasts that is to last so long, or as long as one does on this network.
///
/// # Errors
/// When the network does not allow it.
pub fn span(network: &NetworkRecord, lasts: Option<Duration>) -> Result<Duration, ActivationError> {
    let most = network.spans.most_activation;
    let asked = lasts.unwrap_or(network.spans.activation.min(most));
    if (LEAST..=most).contains(&asked) {
        Ok(asked)
    } else {
        let network = network.id;
        Err(ActivationError::Span { network, asked, most })
    }
}

/// Starts one. Nothing when one goes on.
///
/// # Errors
/// When that was not granted, or is for longer than the network allows.
pub fn start(
    network: &NetworkRecord,
    grant: Option<&GrantRecord>,
    (before, node): (Option<&ActivationRecord>, NodeId),
    asked: Revocation,
    lasts: Option<Duration>,
) -> Result<Option<ActivationRecord>, ActivationError> {
    let network_id = network.id;
    let grant = grant
        .filter(|grant| grant.admitted)
        .ok_or(ActivationError::NotGranted {
            network: network_id,
            node,
        })?;
    if !grant.for_activation {
        return Err(ActivationError::Stands {
            network: network_id,
            node,
        });
    }
    let span = span(network, lasts)?;
    if before.is_some_and(|before| before.is_on(asked.at)) {
        return Ok(None);
    }
    Ok(Some(begun(network_id, node, asked, span)))
}

/// One that begins with somebody's word.
#[must_use]
pub fn begun(network: NetworkId, node: NodeId, asked: Revocation, span: Duration) -> ActivationRecord {
    ActivationRecord {
        network,
        node,
        until: after(asked.at, span),
        by: asked.by,
        reason: asked.reason,
        at: asked.at,
        ended: None,
    }
}

/// Moves the end of one that goes on, to so long from here on. From its start it lasts no longer than one does on this
/// network; where no time is said, it goes on until then at most.
///
/// # Errors
/// When none goes on, or the network does not allow that, or it would end earlier.
pub fn extend(
    network: &NetworkRecord,
    (before, node): (Option<&ActivationRecord>, NodeId),
    lasts: Option<Duration>,
    now: Timestamp,
) -> Result<ActivationRecord, ActivationError> {
    let before = before
        .filter(|before| before.is_on(now))
        .ok_or(ActivationError::NotOn {
            network: network.id,
            node,
        })?;
    let most = network.spans.most_activation;
    let latest = after(before.at, most).max(before.until);
    let mut until = after(now, span(network, lasts)?);
    if until > latest {
        if lasts.is_some() || before.until == latest {
            return Err(ActivationError::Beyond {
                network: network.id,
                node,
                at: before.at,
                latest,
                most,
            });
        }
        until = latest;
    }
    if until < before.until {
        return Err(ActivationError::Shorter { until: before.until });
    }
    Ok(ActivationRecord {
        until,
        ..before.clone()
    })
}

/// Ends one before its time. Nothing when none goes on.
#[must_use]
pub fn end(before: Option<&ActivationRecord>, ended: Revocation) -> Option<ActivationRecord> {
    let before = before.filter(|before| before.is_on(ended.at))?;
    Some(ActivationRecord {
        ended: Some(ended),
        ..before.clone()
    })
}

/// One that has come to its end; nothing when it is not as far as that, or somebody ended it.
#[must_use]
pub fn over(before: &ActivationRecord, now: Timestamp) -> Option<ActivationRecord> {
    let over = before.ended.is_none() && !before.is_on(now);
    over.then(|| ActivationRecord {
        ended: Some(Revocation {
            at: now,
            by: "master".to_owned(),
            reason: OVER.to_owned(),
        }),
        ..before.clone()
    })
}

/// The warnings whose time came after one moment, and at another one or before it: for each node the one that says the
/// shortest time. What has come to its end needs none.
#[must_use]
pub fn warnings(ends: &Deadlines, since: Timestamp, now: Timestamp) -> BTreeMap<Pair, Warning> {
    let mut found = BTreeMap::new();
    for lead in LEADS {
        let since = after(since, lead).max(now);
        for (until, pair) in ends.between(since, after(now, lead)) {
            found.insert(pair, Warning { until, lead });
        }
    }
    found
}

/// That an activation ends soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warning {
    /// When it ends.
    pub until: Timestamp,
    /// So long before is this warning's time.
    pub lead: Duration,
}

impl Warning {
    /// When its time was.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.until.checked_sub(self.lead).unwrap_or(Timestamp::MIN)
    }

    /// Whether it is one for an activation: a short one is not warned of before it begins.
    #[must_use]
    pub fn concerns(&self, activation: &ActivationRecord) -> bool {
        activation.ended.is_none() && activation.until == self.until && activation.at < self.at()
    }

    /// How long is left, for sentences.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> String {
        let left = Duration::try_from(self.until.duration_since(now)).unwrap_or_default();
        // A warning comes a moment late, and nobody plans by seconds.
        let minutes = (left.as_secs() + 30) / 60;
        if minutes == 0 {
            return shown(&Duration::from_secs(left.as_secs().max(1)));
        }
        shown(&Duration::from_secs(minutes * 60))
    }
}

#[cfg(test)]
#[path = "activation_tests.rs"]
mod tests;
