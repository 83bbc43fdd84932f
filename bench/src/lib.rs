//! Thousands of real mTLS agents in one process, and a bare server to hold the master against.
//!
//! The agents are thin: the connector, the messages and the beats are those of `picket-agent`, the machine behind them
//! is made up. The server is always another process, so that its processor time and memory can be read alone. Nothing
//! here is linked into a daemon.

pub mod agent;
pub mod bare;
pub mod compare;
pub mod figures;
pub mod identity;
pub mod load;
pub mod process;
pub mod report;
pub mod run;
pub mod server;
pub mod site;
