//! Pinning: a certificate that our CA signed is only good while the master has it on its list.
//!
//! The list belongs to the master and changes there; the handshake reads it through [`Pins`].

use std::fmt;

use crate::{Fingerprint, Role};

/// Which of an identity's pins a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PinKind {
    /// The one that travelled in a host's bundle: it may renew, once, and nothing else.
    Bundle,
    /// The one a host works under.
    Current,
    /// The one a host was last given and has not used.
    Pending,
    /// An operator's.
    Operator,
}

impl PinKind {
    /// Whose pin this is.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Bundle | Self::Current | Self::Pending => Role::Host,
            Self::Operator => Role::Operator,
        }
    }
}

/// What the master knows about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It is on the list.
    Pinned(PinKind),
    /// It was on the list and has been replaced, or it is a bundle's that has been used.
    Spent,
    /// Its identity is banned.
    Banned,
    /// Its identity is retired for ever.
    Retired,
    /// It was never on the list.
    Unknown,
}

/// The list of pins as the handshake sees it.
///
/// It is asked inside every handshake, so it must answer from memory and must not block.
pub trait Pins: fmt::Debug + Send + Sync {
    /// What is known about the certificate of this fingerprint.
    fn standing(&self, fingerprint: &Fingerprint) -> Standing;
}
