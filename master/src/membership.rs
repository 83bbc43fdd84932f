//! Who may be on a network: computed, never stored.

use std::fmt;

use jiff::Timestamp;
use picket_proto::host::Name;

use crate::record::{GrantRecord, HostStanding};

/// What holds for a node on a network, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may be there.
    Authorized(Because),
    /// It may not.
    Denied(Because),
    /// Nobody ever said anything of it.
    Unknown,
}

impl Decision {
    /// Whether the controller is to let the node on; none when it is nobody's business.
    #[must_use]
    pub fn rule(&self) -> Option<bool> {
        match self {
            Self::Authorized(_) => Some(true),
            Self::Denied(_) => Some(false),
            Self::Unknown => None,
        }
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
    /// The grant was taken away.
    Revoked {
        /// By whom.
        by: String,
        /// The reason that was given.
        reason: String,
    },
    /// The host that runs the node is cut off.
    HostBanned(Name),
    /// The host that ran the node is gone for good.
    HostRetired(Name),
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admitted { by, reason } => write!(f, "admitted by {by}: {reason}"),
            Self::Revoked { by, reason } => write!(f, "revoked by {by}: {reason}"),
            Self::HostBanned(name) => write!(f, "its host {name} is banned"),
            Self::HostRetired(name) => write!(f, "its host {name} is retired"),
        }
    }
}

/// Decides for one node on one network, from the grant there is, the host that runs the node, and the host that was
/// retired last of those that ran it. What was granted before that retirement ended with it, whoever runs the node since.
#[must_use]
pub fn authorized(
    grant: Option<&GrantRecord>,
    owner: Option<(&Name, &HostStanding)>,
    retired: Option<(&Name, Timestamp)>,
) -> Decision {
    let Some(grant) = grant else {
        return Decision::Unknown;
    };
    let (by, reason) = (grant.by.clone(), grant.reason.clone());
    if !grant.admitted {
        return Decision::Denied(Because::Revoked { by, reason });
    }
    if let Some((name, at)) = retired
        && grant.at <= at
    {
        return Decision::Denied(Because::HostRetired(name.clone()));
    }
    match owner {
        Some((name, HostStanding::Banned { .. })) => Decision::Denied(Because::HostBanned(name.clone())),
        Some((name, HostStanding::Retired { .. })) => Decision::Denied(Because::HostRetired(name.clone())),
        Some((_, HostStanding::Active)) | None => Decision::Authorized(Because::Admitted { by, reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(admitted: bool) -> GrantRecord {
        GrantRecord {
            network: "5350d87547c880cb".parse().unwrap(),
            node: "39966434ba".parse().unwrap(),
            admitted,
            by: "ada".into(),
            reason: "sensor".into(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_node_without_a_grant_is_unknown_whoever_runs_it() {
        let oslo: Name = "oslo".parse().unwrap();
        assert_eq!(authorized(None, None, None), Decision::Unknown);
        assert_eq!(
            authorized(None, Some((&oslo, &HostStanding::Active)), None),
            Decision::Unknown
        );
    }

    #[test]
    fn a_ban_beats_a_grant_and_says_so() {
        let oslo: Name = "oslo".parse().unwrap();
        let banned = HostStanding::Banned {
            at: Timestamp::UNIX_EPOCH,
            reason: String::new(),
        };
        let decision = authorized(Some(&grant(true)), Some((&oslo, &banned)), None);
        assert_eq!(decision, Decision::Denied(Because::HostBanned(oslo)));
    }

    #[test]
    fn a_revoked_grant_denies_and_a_standing_one_authorizes() {
        assert_eq!(authorized(Some(&grant(false)), None, None).rule(), Some(false));
        assert_eq!(authorized(Some(&grant(true)), None, None).rule(), Some(true));
    }

    #[test]
    fn a_grant_ends_with_the_host_it_was_for_and_one_made_later_stands() {
        let (oslo, granted): (Name, _) = ("oslo".parse().unwrap(), grant(true));
        let at = |seconds| granted.at + jiff::SignedDuration::from_secs(seconds);
        for owner in [None, Some((&oslo, &HostStanding::Active))] {
            let ended = authorized(Some(&granted), owner, Some((&oslo, at(1))));
            assert_eq!(ended, Decision::Denied(Because::HostRetired(oslo.clone())));
            assert_eq!(
                authorized(Some(&granted), owner, Some((&oslo, at(-1)))).rule(),
                Some(true)
            );
        }
    }
}
