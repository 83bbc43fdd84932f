//! Small static low-interaction decoy services: ssh, http, telnet and ftp up to the login prompt, and the process
//! that holds a decky's network namespace open.
//!
//! A decoy never trusts its input and never dials out: it opens no socket but the one it listens on, starts no
//! process, writes no file. Everything a peer can send is bounded in bytes, lines and time ([`bounds`]), and what is
//! worth knowing goes to stdout as one JSON line per interaction ([`record`]).

pub mod base;
pub mod bounds;
pub mod conversation;
pub mod ftp;
pub mod http;
pub mod record;
pub mod serve;
pub mod ssh;
pub mod telnet;

/// What a decoy pretends to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persona {
    /// The software's own words: the version line, the greeting, or the `Server` header.
    pub banner: String,
    /// The name the machine calls itself.
    pub hostname: String,
}
