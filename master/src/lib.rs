//! The Picket master daemon.

pub mod store;
