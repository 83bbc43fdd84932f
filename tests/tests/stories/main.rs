//! Stories over a whole site: each says in its name what Picket promises.

mod ca_key;
mod deckies;
mod doors;
mod identity;
mod members;
mod sessions;
mod store;
