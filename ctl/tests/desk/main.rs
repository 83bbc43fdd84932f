//! What operators type and read: the program in one process with a master that keeps its state in memory, over real TLS
//! and real gRPC through pipes, with time that stands still until everybody waits.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails here says where, which is all there is to say"
)]

mod audit;
mod clocks;
mod deployments;
mod devices;
mod events;
mod help;
mod hosts;
mod kills;
mod master;
mod members;
mod networks;
mod office;
mod operators;
mod process;
mod refusals;
