//! How a ZeroTier controller is made to follow the rules: who may be on its networks, what these are to be like, and
//! what to make of a record that somebody else changed.
//!
//! Used by an agent for the controller on its machine, and by the master for ZeroTier Central.
//!
//! - [`plan()`] decides: it is handed what is wanted, what there is and what is remembered, and cannot fail.
//! - [`pass()`] reads, plans, acts and remembers, once; [`look()`] reads and plans alone.
//! - [`Memory`] is what was seen to be true before, so that a change of the rules and a change by somebody else can be
//!   told apart. It is kept across restarts by whoever calls.
//! - [`shown()`] is how a network that was read looks to people.
//! - `process` says when the controller may have been started anew, and `again` what it may have forgotten by that.

mod again;
mod brake;
mod gap;
mod memory;
mod pass;
mod plan;
mod process;
mod shown;

pub use again::{CREDENTIALS, SETTLING};
pub use memory::Memory;
pub use pass::{Lasts, Left, Look, Moment, Report, Trouble, look, pass, pass_until};
pub use plan::{Act, Have, Plan, Standing, State, Step, There, Told, next, plan};
pub use process::{Sighting, Watched};
pub use shown::{shown, unseen};
