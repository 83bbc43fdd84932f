//! ZeroTier for Picket: ids and address arithmetic, clients of a local service, and sites to try them on.
//!
//! - [`ids`], [`address`], [`network`], [`member`] and [`settings`] are always there and know no socket.
//! - Feature `identity`: [`identity`], the key pairs of nodes, and [`world`], the files that name roots.
//! - Feature `client`: [`dial`], [`home`], [`service`], and the two clients [`node`] and [`controller`].
//! - Feature `fake`: [`fake`], a simulated site whose nodes answer as real ones were recorded to.
//! - Feature `real`: [`real`], a site of real `zerotier-one` processes in namespaces of their own.
//!
//! This crate knows nothing of hosts or grants.

pub mod address;
pub mod ids;
mod lenient;
pub mod member;
pub mod network;
pub mod settings;

#[cfg(feature = "client")]
pub mod controller;
#[cfg(feature = "client")]
pub mod dial;
#[cfg(feature = "client")]
pub mod home;
#[cfg(feature = "identity")]
pub mod identity;
#[cfg(feature = "client")]
pub mod moon;
#[cfg(feature = "client")]
pub mod node;
#[cfg(feature = "client")]
pub mod service;

#[cfg(feature = "identity")]
pub mod world;

#[cfg(feature = "fake")]
pub mod fake;
#[cfg(feature = "real")]
pub mod real;

pub use ids::{IdError, NetworkId, NodeId};
