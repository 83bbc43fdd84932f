//! Whether a member answers another one: the last proof that a kill is true on the wire.

use std::net::IpAddr;

use picket_zerotier::ids::{NetworkId, NodeId};

use crate::{WireError, field::parse, wire::agent as wire};

/// How a member answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// It never answered this host, so that its silence says nothing.
    Never,
    /// It does.
    Answers,
    /// It did before, and three probes in a row got no answer.
    Silent,
}

/// What a host sees of another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// The network.
    pub network: NetworkId,
    /// The member.
    pub node: NodeId,
    /// The address that is asked.
    pub address: IpAddr,
    /// What comes back.
    pub answer: Answer,
}

impl From<&Witness> for wire::Witness {
    fn from(witness: &Witness) -> Self {
        Self {
            network_id: witness.network.to_string(),
            node_id: witness.node.to_string(),
            address: witness.address.to_string(),
            state: match witness.answer {
                Answer::Never => wire::WitnessState::NeverAnswered,
                Answer::Answers => wire::WitnessState::Answers,
                Answer::Silent => wire::WitnessState::Silent,
            }
            .into(),
        }
    }
}

impl TryFrom<wire::Witness> for Witness {
    type Error = WireError;

    fn try_from(witness: wire::Witness) -> Result<Self, WireError> {
        Ok(Self {
            network: parse("witness.network_id", &witness.network_id)?,
            node: parse("witness.node_id", &witness.node_id)?,
            address: parse("witness.address", &witness.address)?,
            answer: match wire::WitnessState::try_from(witness.state) {
                Ok(wire::WitnessState::NeverAnswered) => Answer::Never,
                Ok(wire::WitnessState::Answers) => Answer::Answers,
                Ok(wire::WitnessState::Silent) => Answer::Silent,
                Ok(wire::WitnessState::Unspecified) | Err(_) => {
                    return Err(WireError::new("witness.state", "is none this version knows"));
                }
            },
        })
    }
}
