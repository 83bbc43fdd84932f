//! How much of anything a peer may have. Every number here is a constant with its reason.

use std::time::Duration;

/// Connections at once. A decoy is one small process among many on a worker; a scanner needs a handful.
pub const CONNECTIONS: usize = 64;
/// Connections at once from one address, so that one peer cannot take every place.
pub const CONNECTIONS_PER_PEER: usize = 16;
/// A whole connection; an attacker at a login prompt is done well before.
pub const CONNECTION_TIME: Duration = Duration::from_secs(120);
/// Silence within a connection.
pub const IDLE_TIME: Duration = Duration::from_secs(30);
/// Bytes received in one connection. The longest honest ones are HTTP forms and SSH algorithm lists.
pub const CONNECTION_BYTES: usize = 64 * 1024;
/// One line of a dialogue.
pub const LINE_BYTES: usize = 1024;
/// Login attempts in one connection.
pub const LOGINS: u32 = 3;
/// Commands or requests in one connection.
pub const COMMANDS: u32 = 32;
/// What a refused login costs, as with the real services.
pub const LOGIN_DELAY: Duration = Duration::from_secs(1);
/// Bytes of one string in a record.
pub const TEXT_BYTES: usize = 256;
/// Records that wait for stdout. When it is slow, further ones are counted and left out.
pub const RECORDS: usize = 1024;
/// From the signal until the process is gone, whatever its connections do.
pub const STOP_TIME: Duration = Duration::from_millis(500);
