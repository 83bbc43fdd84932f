//! The real programs side by side: what they promise while one of them is killed, cut off or lied to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::print_stdout,
    reason = "what was measured is read in the tests' output"
)]

mod ca_key;
mod connection;
mod deckies;
mod governed;
mod killed;
mod points;
mod settings;
mod trust;
mod upkeep;
