//! How long a token lives, and when it is renewed: plain functions of what the engine says about it.

use std::{fmt, path::Path, time::Duration};

use jiff::Timestamp;
use picket_durable::SecretFile;
use zeroize::Zeroizing;

use crate::TransitError;

/// The longest token; theirs have up to a few hundred characters.
const LONGEST: u64 = 4096;
/// The token is looked at this often at least: another may have been put in its file.
pub(crate) const LOOK: Duration = Duration::from_secs(60);
/// And no more often than this.
const SHORTEST: Duration = Duration::from_millis(200);
/// A token that ends within this time, and cannot be renewed, ends soon.
const SOON: Duration = Duration::from_secs(24 * 3600);

/// A token: wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(Zeroizing<String>);

impl Token {
    pub(crate) fn read(file: &SecretFile) -> Result<Self, TransitError> {
        let bytes = Zeroizing::new(file.read(LONGEST).map_err(TransitError::Token)?);
        Self::parse(&bytes, file.path())
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, TransitError> {
        let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TransitError::NoToken(path.to_owned()));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How it stands with the token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TokenHealth {
    /// The engine was not asked yet.
    #[default]
    Unknown,
    /// It is renewed in time, or never ends.
    Good,
    /// It ends, and no renewal gives it more time.
    Ends {
        /// When.
        at: Timestamp,
        /// Whether that is within a day, or its last quarter.
        soon: bool,
    },
    /// It is refused, or nobody could say: why.
    Lost(String),
}

/// What the engine says about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// How long it has yet.
    pub(crate) ttl: Duration,
    /// How long it had when it was made or last renewed; zero, with nothing left: it never ends.
    pub(crate) lease: Duration,
    /// Whether a renewal would give it more time.
    pub(crate) renewable: bool,
}

/// What to do about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Renew it.
    Renew,
    /// Look again after this time.
    Wait(Duration),
}

impl Standing {
    /// Whole seconds are told: one that has less than a second yet has nothing left, and is not one that never ends.
    fn is_endless(self) -> bool {
        self.ttl.is_zero() && self.lease.is_zero()
    }
}

/// Decides when a token is renewed: when two fifths of its lease are over, before half of it is.
pub(crate) fn next(standing: Standing) -> Next {
    let Standing {
        ttl,
        lease,
        renewable,
    } = standing;
    if standing.is_endless() {
        return Next::Wait(LOOK);
    }
    if !renewable {
        // One that ended meanwhile is seen soon.
        return Next::Wait(ttl.clamp(SHORTEST, LOOK));
    }
    let due = lease.max(ttl) * 3 / 5;
    match ttl.checked_sub(due) {
        None | Some(Duration::ZERO) => Next::Renew,
        Some(left) => Next::Wait(left.clamp(SHORTEST, LOOK)),
    }
}

/// How it stands with a token at `now`.
pub(crate) fn health(standing: Standing, now: Timestamp) -> TokenHealth {
    let Standing {
        ttl,
        lease,
        renewable,
    } = standing;
    if standing.is_endless() || renewable {
        return TokenHealth::Good;
    }
    TokenHealth::Ends {
        at: now.saturating_add(ttl).unwrap_or(Timestamp::MAX),
        soon: ttl <= SOON || ttl <= lease / 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn standing(ttl: Duration, lease: Duration, renewable: bool) -> Standing {
        Standing {
            ttl,
            lease,
            renewable,
        }
    }

    #[test]
    fn a_token_is_renewed_before_half_of_its_lease_is_over() {
        assert_eq!(next(standing(HOUR, HOUR, true)), Next::Wait(LOOK));
        let late = HOUR * 3 / 5 + Duration::from_secs(1);
        assert_eq!(
            next(standing(late, HOUR, true)),
            Next::Wait(Duration::from_secs(1))
        );
        assert_eq!(next(standing(HOUR * 3 / 5, HOUR, true)), Next::Renew);
        assert_eq!(next(standing(Duration::from_secs(1), HOUR, true)), Next::Renew);
        let longer = standing(HOUR, Duration::from_secs(1), true);
        assert_eq!(
            next(longer),
            Next::Wait(LOOK),
            "a renewal gave it more than it was made with"
        );
    }

    #[test]
    fn one_that_cannot_be_renewed_is_never_renewed_and_its_end_is_told() {
        let ends = standing(HOUR * 48, HOUR * 48, false);
        assert_eq!(next(ends), Next::Wait(LOOK));
        let at = Timestamp::UNIX_EPOCH + HOUR * 48;
        assert_eq!(
            health(ends, Timestamp::UNIX_EPOCH),
            TokenHealth::Ends { at, soon: false }
        );
        let soon = health(standing(HOUR, HOUR * 48, false), Timestamp::UNIX_EPOCH);
        assert!(matches!(soon, TokenHealth::Ends { soon: true, .. }));
        let root = standing(Duration::ZERO, Duration::ZERO, false);
        assert_eq!(health(root, Timestamp::UNIX_EPOCH), TokenHealth::Good);
        let last = health(standing(Duration::ZERO, HOUR, false), Timestamp::UNIX_EPOCH);
        assert!(
            matches!(last, TokenHealth::Ends { soon: true, .. }),
            "its last second is no eternity"
        );
    }

    #[test]
    fn a_token_is_one_word_and_is_never_printed() {
        let path = Path::new("/run/token");
        let token = Token::parse(b"hvs.secret\n", path).unwrap();
        assert_eq!(
            (token.expose(), format!("{token:?}")),
            ("hvs.secret", "Token(..)".to_owned())
        );
        for wrong in [&b""[..], b"\n", b"two words", b"\xff", b"one\r\nInjected: header"] {
            assert!(Token::parse(wrong, path).is_err(), "{wrong:?}");
        }
    }
}
