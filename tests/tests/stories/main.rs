//! Stories over a whole site: each says in its name what Picket promises.

#![allow(
    clippy::unwrap_used,
    reason = "a story may fail at any line, the words that several of them share too"
)]

mod access;
mod activations;
mod audit;
mod ca_key;
mod central;
mod clones;
mod deckies;
mod devices;
mod doors;
mod enrolling;
mod freezing;
mod governance;
mod identity;
mod kill_proofs;
mod kills;
mod leaving;
mod looks;
mod members;
mod moons;
mod network_life;
mod networks;
mod nodes;
mod operators;
mod promises;
mod renewal;
mod renewing;
mod requests;
mod rotation;
mod sessions;
mod store;
mod time;
