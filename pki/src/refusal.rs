//! Refusals: why a handshake failed, read from either end, in words that say what to do.
//!
//! A master answers a client it does not accept by a TLS alert, one alert per reason, so that the client can read the
//! reason back. [`Refusal`] is that reason. [`Distrust`] is the other direction: why a client does not take a server
//! for its master.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of the TLS library may grow; what is new there is no refusal"
)]

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, Error};
use rustls_pki_types::UnixTime;

/// Why the master does not accept a client. The sentence is for the person at the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// `certificate_required`: the client sent none.
    #[error(
        "the master asks for a certificate and was sent none; use the bundle that `picketctl host enroll` or `picket-master admin-bundle` wrote"
    )]
    NoCertificate,
    /// `unknown_ca`: the certificate is of another CA, whatever that calls itself.
    #[error(
        "the certificate is of another CA than this master's; the bundle is another master's, or the CA was made anew: get a new bundle with `picketctl host bundle NAME`"
    )]
    OtherAuthority,
    /// `unsupported_certificate`: a host at the operators' door, an operator at the hosts', or a server as client.
    #[error(
        "the certificate is for another role; agents dial the agent port (7443) with a host's bundle, operators the admin port (7444) with an operator's"
    )]
    WrongRole,
    /// `bad_certificate`: it is not as our CA writes them, or of another trust domain.
    #[error(
        "the certificate is damaged or of another trust domain; get a new bundle with `picketctl host bundle NAME`"
    )]
    WrongTrustDomain,
    /// `access_denied`: a bundle that has been used, or a certificate that has been replaced.
    #[error(
        "the certificate has been replaced, or the bundle has been used before; if nobody here used it, it was stolen: an operator looks at `picketctl event list` and runs `picketctl host bundle NAME`"
    )]
    Spent,
    /// `certificate_revoked`: the identity is banned or retired.
    #[error(
        "this identity is banned or retired; an operator can run `picketctl host unban NAME`, or enroll the machine again under a new identity"
    )]
    Revoked,
    /// `certificate_unknown`: our CA signed it, and the master's list does not have it.
    #[error(
        "the master does not know this certificate, though its CA signed it; the master may have been restored from an older snapshot: get a new bundle with `picketctl host bundle NAME`"
    )]
    Unknown,
    /// `certificate_expired`: its time is over, or has not come.
    #[error(
        "the certificate has ended, and with it the 30 days in which it could still be renewed, or it is not valid yet by the master's clock; compare both clocks, and if they agree get a new bundle with `picketctl host bundle NAME` and enroll again with it"
    )]
    Expired,
    /// `certificate_expired`, seen from the master: it begins in the future.
    #[error("the certificate is not valid yet by the master's clock; compare both clocks")]
    NotYetValid,
    /// Another alert: the two sides do not speak the same TLS.
    #[error(
        "the two sides do not speak the same TLS (1.3 with HTTP/2); something that is no Picket answers there, or stands between: check the address"
    )]
    Protocol,
}

impl Refusal {
    /// Every reason there is.
    pub const ALL: &[Self] = &[
        Self::NoCertificate,
        Self::OtherAuthority,
        Self::WrongRole,
        Self::WrongTrustDomain,
        Self::Spent,
        Self::Revoked,
        Self::Unknown,
        Self::Expired,
        Self::NotYetValid,
        Self::Protocol,
    ];

    /// Reads the reason from a TLS error, on whichever side it arose. `None` when the error is no refusal of a client.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        Self::ours(error).or_else(|| Self::alerted(error))
    }

    /// On the server: why we refused the client.
    #[must_use]
    pub fn ours(error: &Error) -> Option<Self> {
        match error {
            Error::NoCertificatesPresented => Some(Self::NoCertificate),
            Error::InvalidCertificate(cause) => Self::from_certificate(cause),
            Error::PeerIncompatible(_) | Error::PeerMisbehaved(_) | Error::NoApplicationProtocol => {
                Some(Self::Protocol)
            }
            Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => Some(Self::Protocol),
            Error::InappropriateHandshakeMessage { .. } | Error::PeerSentOversizedRecord => {
                Some(Self::Protocol)
            }
            _ => None,
        }
    }

    /// On the client: the reason that the server's alert names.
    #[must_use]
    pub fn alerted(error: &Error) -> Option<Self> {
        let Error::AlertReceived(alert) = error else {
            return None;
        };
        match alert {
            AlertDescription::CertificateRequired => Some(Self::NoCertificate),
            AlertDescription::UnknownCA => Some(Self::OtherAuthority),
            AlertDescription::UnsupportedCertificate => Some(Self::WrongRole),
            AlertDescription::BadCertificate => Some(Self::WrongTrustDomain),
            AlertDescription::AccessDenied => Some(Self::Spent),
            AlertDescription::CertificateRevoked => Some(Self::Revoked),
            AlertDescription::CertificateUnknown => Some(Self::Unknown),
            AlertDescription::CertificateExpired => Some(Self::Expired),
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::NoApplicationProtocol
            | AlertDescription::DecryptError
            | AlertDescription::IllegalParameter
            | AlertDescription::DecodeError
            | AlertDescription::UnexpectedMessage
            | AlertDescription::MissingExtension
            | AlertDescription::UnsupportedExtension
            | AlertDescription::InsufficientSecurity => Some(Self::Protocol),
            _ => None,
        }
    }

    /// The reason as one word, for counting.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::OtherAuthority => "other_authority",
            Self::WrongRole => "wrong_role",
            Self::WrongTrustDomain => "wrong_trust_domain",
            Self::Spent => "spent",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Protocol => "protocol",
        }
    }

    fn from_certificate(cause: &CertificateError) -> Option<Self> {
        match cause {
            CertificateError::UnknownIssuer => Some(Self::OtherAuthority),
            CertificateError::InvalidPurpose => Some(Self::WrongRole),
            CertificateError::NotValidForName | CertificateError::BadEncoding => Some(Self::WrongTrustDomain),
            CertificateError::ApplicationVerificationFailure => Some(Self::Spent),
            CertificateError::Revoked => Some(Self::Revoked),
            CertificateError::Other(_) => Some(Self::Unknown),
            CertificateError::ExpiredContext { .. } => Some(Self::Expired),
            CertificateError::NotValidYetContext { .. } => Some(Self::NotYetValid),
            // The client has the certificate and not its key: its signature over the handshake is wrong.
            CertificateError::BadSignature => Some(Self::Protocol),
            _ => None,
        }
    }
}

/// Why a client does not take a server for its master. The sentence is for the person at the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Distrust {
    /// Its certificate is of another CA than the bundle's.
    #[error(
        "what answers there is not the master of this bundle: its certificate is of another CA; check the address, and if the master was rebuilt on purpose get a new bundle"
    )]
    OtherAuthority,
    /// Our CA signed it, and it is not the master's: a host or an operator plays master.
    #[error(
        "what answers there is not the master: it shows a certificate of this trust domain for somebody else; an impostor may stand between, tell an operator and check the address"
    )]
    NotTheMaster,
    /// It is the master of another trust domain, or the certificate is damaged.
    #[error(
        "what answers there is the master of another trust domain, or its certificate is damaged; check the address"
    )]
    OtherTrustDomain,
    /// The master's certificate begins in the future.
    #[error(
        "the master's certificate is valid from {not_before}, and the clock here says {now}: set this machine's clock (or the master's)"
    )]
    NotYetValid {
        /// What the clock here says.
        now: Timestamp,
        /// When the certificate begins.
        not_before: Timestamp,
    },
    /// The master's certificate has ended.
    #[error(
        "the master's certificate was valid until {not_after}, and the clock here says {now}: set this machine's clock; if it is right, the master has not renewed and must be restarted"
    )]
    Expired {
        /// What the clock here says.
        now: Timestamp,
        /// When the certificate ended.
        not_after: Timestamp,
    },
}

impl Distrust {
    /// On the client: why we do not take the server for the master. `None` when the error is something else.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        let Error::InvalidCertificate(cause) = error else {
            return None;
        };
        match cause {
            CertificateError::UnknownIssuer => Some(Self::OtherAuthority),
            // A wrong signature over the handshake: it shows the master's certificate and does not have the key.
            CertificateError::InvalidPurpose | CertificateError::BadSignature => Some(Self::NotTheMaster),
            CertificateError::NotValidYetContext { time, not_before } => Some(Self::NotYetValid {
                now: timestamp(*time),
                not_before: timestamp(*not_before),
            }),
            CertificateError::ExpiredContext { time, not_after } => Some(Self::Expired {
                now: timestamp(*time),
                not_after: timestamp(*not_after),
            }),
            _ => Some(Self::OtherTrustDomain),
        }
    }
}

fn timestamp(time: UnixTime) -> Timestamp {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|at| Timestamp::from_second(at).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_sentence_and_a_word_of_its_own() {
        let all = Refusal::ALL;
        let sentences: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        let words: BTreeSet<&str> = all.iter().map(|reason| reason.label()).collect();
        assert_eq!((sentences.len(), words.len()), (all.len(), all.len()));
    }

    #[test]
    fn an_alert_from_the_other_end_is_not_our_own_refusal() {
        let alert = Error::AlertReceived(AlertDescription::CertificateRevoked);
        assert_eq!(
            (Refusal::ours(&alert), Refusal::of(&alert)),
            (None, Some(Refusal::Revoked))
        );
        let own = Error::InvalidCertificate(CertificateError::Revoked);
        assert_eq!(
            (Refusal::ours(&own), Refusal::alerted(&own)),
            (Some(Refusal::Revoked), None)
        );
    }
}
