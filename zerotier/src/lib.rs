//! ZeroTier for Picket: ids and address arithmetic.
//!
//! This crate knows nothing of hosts or grants.

pub mod address;
pub mod ids;

pub use ids::{IdError, NetworkId, NodeId};
