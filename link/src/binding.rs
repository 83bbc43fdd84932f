//! What binds a word to one connection: bytes that both ends of it know, and nobody else ever will.

use std::{fmt, io};

use rustls::ConnectionCommon;

/// What the exported bytes are for. Not registered with IANA, as the prefix says.
const LABEL: &[u8] = b"EXPERIMENTAL-picket-node-proof";

/// 32 bytes that both ends of one TLS connection have from its keys ([RFC 8446, section 7.5]). Who signs them says that
/// it is at one end of this connection; over another one the same signature is worth nothing.
///
/// [RFC 8446, section 7.5]: https://www.rfc-editor.org/rfc/rfc8446#section-7.5
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Binding([u8; 32]);

impl Binding {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of a connection whose handshake is done.
    pub(crate) fn of<Data>(connection: &ConnectionCommon<Data>) -> io::Result<Self> {
        let exported = connection.export_keying_material([0; 32], LABEL, None);
        exported.map(Self).map_err(io::Error::other)
    }
}

/// Bytes that a caller makes up bind nothing: what was signed over them verifies on no connection.
impl From<[u8; 32]> for Binding {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Binding(…)")
    }
}
