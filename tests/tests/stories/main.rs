//! Stories over a whole site: each says in its name what Picket promises.

mod access;
mod deckies;
mod doors;
mod identity;
mod members;
mod operators;
mod renewing;
mod sessions;
mod store;
