//! Stories over a whole site: each says in its name what Picket promises.

mod sessions;
