//! Stories over a whole site: each says in its name what Picket promises.

mod deckies;
mod doors;
mod identity;
mod members;
mod rotation;
mod sessions;
mod store;
