//! A whole site, in one process for the stories, and as the real programs side by side ([`process`]).
//!
//! In one process: a master, agents, their ZeroTier nodes and Docker Engines, and an operator.
//!
//! TLS and gRPC are real and run over pipes in memory; the clock is tokio's, paused, so that an hour passes at once.
//! ZeroTier and Docker are stateful fakes. The master is looked at through the admin API and its metrics, an agent
//! through its status file: never through a daemon's memory. What a story does behind everybody's back it does at a
//! fake, at a line, or through a second handle on the store.
//!
//! | file | is |
//! | --- | --- |
//! | [`site`] | the master, the time, and what an operator does and sees |
//! | [`host`] | a worker machine with its agent |
//! | [`crash`] | a daemon that ends at a named point, and what it starts from again |
//! | [`conversation`] | a session that a story speaks by hand, for what no agent of ours says |
//! | [`impostor`] | whoever answers at the master's address in its place |
//! | [`office`] | an operator who types `picketctl` |
//! | [`mod@line`] | the network between a machine and the master, which can be cut or go silent |
//! | [`Transit`] | an engine that has the CA's key |
//! | [`stranger`] | whoever comes to a door with a certificate that may not be good there |

pub mod conversation;
pub mod crash;
pub mod host;
pub mod impostor;
pub mod line;
pub mod office;
pub mod process;
pub mod site;
pub mod stranger;
mod transit;

pub use crate::{
    host::Host,
    office::Office,
    site::{Branch, GRACE, Person, Site, members_by_label, naming},
    transit::Transit,
};
pub use picket_proto::wire::admin::{
    DeckyState, GrantKind, HostNodeStanding, HostState, Kill, KillScope, MemberDecision, MemberObservation,
    Moon, NetworkMode, OperatorRole, Proof, ProofState, RequestState,
};

/// An error and its causes in one line, for the message of a story that fails.
pub(crate) fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    picket_agent::sentence(error)
}
