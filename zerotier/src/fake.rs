//! A simulated ZeroTier site: several nodes that answer as real ones were recorded to.
//!
//! **It moves no packets.** It keeps what real nodes keep (joined networks, member records, configurations, credentials)
//! and changes it when real nodes would: on a member's 5 s tick, 60 s after a configuration, when a controller pushes.
//! Time is tokio's, so a paused clock works; it is computed from elapsed time at every request, and there is no task
//! that ticks.
//!
//! - [`Lab`] is the site; `air` is what passes between its nodes, and when.
//! - `http` speaks the service's HTTP, `routes` says which path does what.
//! - [`FakeCentral`] is ZeroTier's own controller, in the same words.
//! - `disk` is what a controller with a home keeps there.
//! - `node` is a joined network as its member sees it, `controller` a network as its controller keeps it.

mod air;
mod central;
mod coerce;
mod controller;
mod disk;
mod fields;
mod home;
mod http;
mod lab;
mod machine;
mod moon;
mod node;
mod pool;
mod routes;

pub use central::{FakeCentral, Trouble};
pub use home::HomeFiles;
pub use http::Origin;
pub use lab::{Lab, Mood};
