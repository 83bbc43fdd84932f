//! Why there is no signature, and whether it passes by itself.

use std::{io, path::PathBuf, time::Duration};

use picket_durable::FileError;

/// Why the engine gave no answer, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum TransitError {
    /// No connection, or one that broke.
    #[error("{place} cannot be reached ({ask}); see that it runs, and the network and firewall between")]
    Unreachable {
        /// What was asked.
        ask: String,
        /// Of whom.
        place: String,
        /// What the network said.
        #[source]
        cause: io::Error,
    },
    /// The server is not who it should be, or speaks no TLS 1.3.
    #[error(
        "{place} is not taken for the engine: TLS with it failed; compare ca.transit.authority with the CA of its certificate, and see that it speaks TLS 1.3"
    )]
    Tls {
        /// Who was asked.
        place: String,
        /// What the TLS library said.
        #[source]
        cause: io::Error,
    },
    /// No answer in time.
    #[error(
        "{place} gave no answer within {after:?} ({ask}); see its load and the network between, or raise ca.transit.timeout"
    )]
    TimedOut {
        /// What was asked.
        ask: String,
        /// Of whom.
        place: String,
        /// How long the wait was.
        after: Duration,
    },
    /// The engine is sealed.
    #[error(
        "{place} is sealed, or down for maintenance; unseal it (`bao operator unseal`, `vault operator unseal`)"
    )]
    Sealed {
        /// Who was asked.
        place: String,
    },
    /// The engine has no active node.
    #[error(
        "{place} is a standby and knows no active node; wait for the election, or see the state of the cluster"
    )]
    Standby {
        /// Who was asked.
        place: String,
    },
    /// Too many requests.
    #[error(
        "{place} takes no more requests for the moment (429); raise the rate limit for this path if it lasts"
    )]
    TooMany {
        /// Who was asked.
        place: String,
    },
    /// The token does not do.
    #[error("{place} refuses the token ({ask}: {why}); put one that has not ended, and whose policy allows this path, in {}", token.display())]
    Denied {
        /// What was asked.
        ask: String,
        /// Of whom.
        place: String,
        /// What it said.
        why: String,
        /// Where the token is read.
        token: PathBuf,
    },
    /// There is nothing of this name.
    #[error(
        "{place} knows nothing at {path}; see ca.transit.mount and ca.transit.key, or make the key: `bao write -f {mount}/keys/{key} type=ecdsa-p256`"
    )]
    NotFound {
        /// Who was asked.
        place: String,
        /// For what.
        path: String,
        /// The mount in the settings.
        mount: String,
        /// The key in the settings.
        key: String,
    },
    /// The key is of another kind.
    #[error(
        "the key {key} at {place} is of the kind {kind}; a CA of ours needs one made with type=ecdsa-p256"
    )]
    WrongKind {
        /// The key.
        key: String,
        /// Where.
        place: String,
        /// What it is.
        kind: String,
    },
    /// A version of the key is not used for signing any more.
    #[error(
        "{place} no longer signs with version {version} of {key}, which the CA certificate is made for ({why}); lower min_encryption_version of the key, the CA cannot change its key by itself"
    )]
    VersionRefused {
        /// Who was asked.
        place: String,
        /// The key.
        key: String,
        /// The version the CA certificate is made for.
        version: u32,
        /// What it said.
        why: String,
    },
    /// It sends us elsewhere.
    #[error(
        "{place} sends requests on to another address; name the active node, or one that all go through, in ca.transit.address"
    )]
    Redirected {
        /// Who was asked.
        place: String,
    },
    /// It could not do what was asked.
    #[error("{place} failed ({ask}: {status}, {why}); see its log")]
    Failed {
        /// What was asked.
        ask: String,
        /// Of whom.
        place: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        why: String,
    },
    /// It refused what was asked.
    #[error("{place} refused {ask}: {status}, {why}")]
    Refused {
        /// What was asked.
        ask: String,
        /// Of whom.
        place: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        why: String,
    },
    /// The answer is not what the engine's documentation says.
    #[error("the answer of {place} to {ask} makes no sense: {why}; see that Vault or OpenBao answers there")]
    Nonsense {
        /// What was asked.
        ask: String,
        /// Of whom.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// The token cannot be read.
    #[error("the engine's token cannot be read; see ca.transit.token_file")]
    Token(#[source] FileError),
    /// What is in the token file is none.
    #[error("{} holds no token: one line of visible characters is wanted", .0.display())]
    NoToken(PathBuf),
    /// The CA of the engine's server cannot be read.
    #[error("the CA certificates that vouch for the engine cannot be read; see ca.transit.authority")]
    Authority(#[source] FileError),
    /// It holds no certificate.
    #[error("{} holds no CA certificate as PEM; ca.transit.authority vouches for the engine's server", .0.display())]
    NoAuthority(PathBuf),
    /// TLS cannot be set up.
    #[error("set up TLS")]
    Library(#[source] rustls::Error),
    /// The thread that talks to the engine cannot be started.
    #[error("start the thread that talks to the engine")]
    Thread(#[source] io::Error),
    /// More signatures are wanted than are made.
    #[error("too many signatures wait for {place}; try again in a minute")]
    Crowded {
        /// Who is asked.
        place: String,
    },
    /// The thread that talks to the engine is gone.
    #[error("nothing talks to the engine any more; this is a fault of picket-master, start it again")]
    Gone,
}

impl TransitError {
    /// Whether the same request may well succeed a moment later. Signing twice is harmless.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Standby { .. }
            | Self::TooMany { .. }
            | Self::Failed { .. } => true,
            Self::Tls { .. }
            | Self::Sealed { .. }
            | Self::Denied { .. }
            | Self::NotFound { .. }
            | Self::WrongKind { .. }
            | Self::VersionRefused { .. }
            | Self::Redirected { .. }
            | Self::Refused { .. }
            | Self::Nonsense { .. }
            | Self::Token(_)
            | Self::NoToken(_)
            | Self::Authority(_)
            | Self::NoAuthority(_)
            | Self::Library(_)
            | Self::Thread(_)
            | Self::Crowded { .. }
            | Self::Gone => false,
        }
    }

    /// The error and its causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        text
    }
}
