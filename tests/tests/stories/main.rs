//! Stories over a whole site: each says in its name what Picket promises.

mod access;
mod activations;
mod audit;
mod ca_key;
mod clones;
mod deckies;
mod devices;
mod doors;
mod enrolling;
mod identity;
mod leaving;
mod members;
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
