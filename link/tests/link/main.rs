//! Both ends of a connection to a master: real TLS and real gRPC over pipes in memory, and over loopback.

#![allow(clippy::unwrap_used, reason = "a story whose stage cannot be set has failed")]

mod connection;
mod distrust;
mod forger;
mod impostor;
mod openssl;
mod refusals;
mod site;
