//! Stories over a whole site: each says in its name what Picket promises.

mod audit;
mod deckies;
mod doors;
mod identity;
mod members;
mod sessions;
mod store;
