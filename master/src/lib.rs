//! The Picket master daemon: it keeps the roster, signs certificates, hears beats, and tells agents what is wanted.
//!
//! It never connects to a worker. [`run`] is the house; `main.rs` opens its doors.

pub mod admin;
pub mod agents;
pub mod ca;
pub mod caller;
pub mod checkpoint;
pub mod config;
pub mod deployments;
pub mod desired;
pub mod desk;
pub mod event;
pub mod init;
pub mod listen;
pub mod liveness;
pub mod local;
pub mod membership;
pub mod metrics;
pub mod monitor;
pub mod networks;
pub mod observed;
pub mod record;
pub mod refused;
pub mod renewal;
pub mod roster;
pub mod session;
pub mod sessions;
pub mod signer;
pub mod status;
pub mod store;
pub mod views;

mod house;

pub use house::{Doors, RunError, run};
