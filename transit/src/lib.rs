//! A client of the transit engine of Vault and OpenBao: it asks for signatures and keeps its token alive.
//!
//! The key stays in the engine. This crate knows keys by name and version, and tokens; it must never know what a
//! certificate is. [`Engine`] is the handle; behind it one thread of its own does all the talking, so that an engine
//! that is slow, sealed or away holds up nobody but whoever waits for a signature.

mod answer;
mod engine;
mod error;
mod exchange;
#[cfg(feature = "fake")]
pub mod fake;
mod place;
mod token;

pub use answer::Versions;
pub use engine::{Engine, Health};
pub use error::TransitError;
pub use place::{Address, Name, Place, PlaceError};
pub use token::TokenHealth;
