//! Whose a ZeroTier node is, and which nodes an operator may act on.

use std::fmt;

use picket_proto::host::Name;
use picket_zerotier::ids::NodeId;

use crate::{record::OperatorRole, views::State};

/// Whose a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// An enrolled host's.
    Host(Name),
    /// A person's: the operator that it is registered for.
    Person(String),
}

impl Owner {
    /// The owner of a node, if it has one. A host that is believed to run it comes before the person it was registered
    /// for, and a person's device is theirs after it was removed too.
    #[must_use]
    pub fn of(state: &State, node: NodeId) -> Option<Self> {
        if let Some(host) = state.roster.of_node(node) {
            return Some(Self::Host(host.record.name.clone()));
        }
        let device = state.networks.device(node)?;
        Some(Self::Person(device.record.owner.clone()))
    }

    /// Whether it is this operator.
    #[must_use]
    pub fn is(&self, operator: &str) -> bool {
        matches!(self, Self::Person(name) if name == operator)
    }
}

/// `host/oslo`, `person/ana`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "host/{name}"),
            Self::Person(name) => write!(f, "person/{name}"),
        }
    }
}

/// An operator who calls, with the role it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Which.
    pub name: String,
    /// What it may do.
    pub role: OperatorRole,
}

impl Caller {
    /// Whether it may see the nodes of others.
    #[must_use]
    pub fn sees_all(&self) -> bool {
        match self.role {
            OperatorRole::Requester => false,
            OperatorRole::Viewer | OperatorRole::Operator | OperatorRole::Admin => true,
        }
    }

    /// Whether it may ask, activate, end, register and remove for others.
    #[must_use]
    pub fn acts_for_all(&self) -> bool {
        match self.role {
            OperatorRole::Requester | OperatorRole::Viewer => false,
            OperatorRole::Operator | OperatorRole::Admin => true,
        }
    }

    /// Whether a node is its own.
    #[must_use]
    pub fn owns(&self, owner: Option<&Owner>) -> bool {
        owner.is_some_and(|owner| owner.is(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requester_owns_what_is_registered_for_it_and_no_host() {
        let ana = Caller {
            name: "ana".into(),
            role: OperatorRole::Requester,
        };
        assert!(ana.owns(Some(&Owner::Person("ana".into()))));
        assert!(!ana.owns(Some(&Owner::Person("bo".into()))));
        assert!(!ana.owns(Some(&Owner::Host("ana".parse().unwrap()))));
        assert!(!ana.owns(None));
    }

    #[test]
    fn a_viewer_sees_everything_and_acts_for_itself() {
        let may = OperatorRole::ALL.map(|role| {
            let caller = Caller {
                name: "ana".into(),
                role,
            };
            (caller.sees_all(), caller.acts_for_all())
        });
        assert_eq!(may, [(false, false), (true, false), (true, true), (true, true)]);
    }
}
