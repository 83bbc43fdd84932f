//! Which versions understand each other: the same, and one minor version older or newer.

/// Why a master of this version is not spoken with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The master is ahead.
    #[error(
        "the master has version {master} and this agent {agent}, more than one minor version apart: update this agent"
    )]
    AgentTooOld {
        /// The master's.
        master: String,
        /// Ours.
        agent: String,
    },
    /// The agent is ahead.
    #[error(
        "the master has version {master} and this agent {agent}, more than one minor version apart: update the master"
    )]
    MasterTooOld {
        /// The master's.
        master: String,
        /// Ours.
        agent: String,
    },
    /// The text is no version.
    #[error("the master says it has version `{}`, which is none", .0.escape_debug())]
    Unreadable(String),
}

/// Checks that an agent of version `agent` and a master of version `master` understand each other.
///
/// # Errors
/// Says which of the two is to be updated.
pub(crate) fn check(agent: &str, master: &str) -> Result<(), VersionError> {
    let read = |text: &str| numbers(text).ok_or_else(|| VersionError::Unreadable(text.to_owned()));
    let (ours, theirs) = (read(agent)?, read(master)?);
    if ours.0 == theirs.0 && ours.1.abs_diff(theirs.1) <= 1 {
        return Ok(());
    }
    let (agent, master) = (agent.to_owned(), master.to_owned());
    Err(if ours < theirs {
        VersionError::AgentTooOld { master, agent }
    } else {
        VersionError::MasterTooOld { master, agent }
    })
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_apart_is_served_and_two_say_which_side_to_update() {
        for master in ["1.3.0", "1.4.9", "1.5.0-rc.1"] {
            assert_eq!(check("1.4.2", master), Ok(()));
        }
        let error = |master| check("1.4.2", master).unwrap_err().to_string();
        assert!(error("1.6.0").ends_with("update this agent"));
        assert!(error("2.4.0").ends_with("update this agent"));
        assert!(error("1.2.9").ends_with("update the master"));
        assert!(error("one").contains("which is none"));
    }
}
