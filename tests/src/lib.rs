//! Stories over a whole site.

pub mod process;
