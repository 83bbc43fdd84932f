//! Stories over a whole site: each says in its name what Picket promises.

mod deckies;
mod identity;
mod members;
mod sessions;
mod store;
