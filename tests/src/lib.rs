//! Stories over a whole site.
