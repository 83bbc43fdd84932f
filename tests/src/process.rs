//! A site of the real programs, each a process of its own, as an operator runs them: a master, its agents, and the
//! wires between them, in one temporary directory and on a loopback address of its own.
//!
//! It looks at them as an operator does (`picketctl -o json`, the metrics page, `picket-agent status`, the files) and
//! never into their memory. Every wait is for a state and has a bound.

mod agent;
mod binary;
mod caller;
mod engine;
mod forger;
mod master;
mod metrics;
mod program;
mod proxy;
mod recorder;
mod site;
mod snapshot;
mod street;
mod tree;
mod wait;
mod zerotier;

pub use agent::{Agent, Deckies};
pub use binary::binary;
pub use caller::{Caller, Impostor, Operator, RawSession};
pub use engine::{Container, Engine};
pub use forger::twin;
pub use master::Master;
pub use metrics::Metrics;
pub use program::{Program, Said, Stopped, command, run};
pub use proxy::{Flow, Proxy};
pub use recorder::{Change, Recorder};
pub use site::Site;
pub use snapshot::Plain;
pub use street::Street;
pub use tree::{Tree, write_private};
pub use wait::{elapsed, until};
pub use zerotier::FakeZeroTier;
