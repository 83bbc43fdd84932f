//! The Picket master daemon: it keeps the roster, signs certificates, hears beats, and tells agents what is wanted.
//!
//! It never connects to a worker. [`run`] is the house; `main.rs` opens its doors.

pub mod access;
pub mod activation;
pub mod admin;
pub mod agents;
pub mod audit;
pub mod ca;
pub mod caller;
pub mod calls;
pub mod central;
pub mod checkpoint;
pub mod clones;
pub mod comparison;
pub mod config;
pub mod controllers;
pub mod crowd;
pub mod deployments;
pub mod descriptors;
pub mod desired;
pub mod desk;
pub mod event;
pub mod expired;
pub mod expiry;
pub mod gate;
pub mod init;
pub mod kill;
pub mod listen;
pub mod liveness;
pub mod local;
pub mod look;
pub mod membership;
pub mod metrics;
pub mod monitor;
pub mod moon;
pub mod network_plan;
pub mod network_watch;
pub mod networks;
pub mod node;
pub mod observed;
pub mod operators;
pub mod owner;
pub mod record;
pub mod refused;
pub mod renewal;
pub mod request;
pub mod roster;
pub mod session;
pub mod sessions;
pub mod signer;
mod signing;
pub mod status;
pub mod store;
pub mod time;
pub mod views;

mod ban;
mod house;
mod spent;

pub use house::{Doors, RunError, run};
