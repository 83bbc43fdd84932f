//! Where the engine is, and what is asked of it: plain values from the settings, checked once.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use picket_durable::SecretFile;
use rustls_pki_types::ServerName;

/// The port when an address names none.
const PORT: u16 = 8200;
/// The longest name of a mount, key or namespace.
const LONGEST: usize = 256;

/// Everything that has to be known to ask for signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it listens.
    pub address: Address,
    /// Where the transit engine is mounted.
    pub mount: Name,
    /// The key.
    pub key: Name,
    /// The namespace, where there are such.
    pub namespace: Option<Name>,
    /// Who vouches for the server: a file with CA certificates as PEM.
    pub authority: PathBuf,
    /// Where the token is read from, at every request.
    pub token: SecretFile,
    /// How long one request may take. With everything that is tried again, a signature takes at most three times that.
    pub timeout: Duration,
}

/// Why a text is no address or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// It is not an HTTPS address.
    #[error("`{0}` is no address over HTTPS: write https://HOST or https://HOST:PORT and nothing after it")]
    Address(String),
    /// It is not a name.
    #[error(
        "`{0}` is no name of a mount, key or namespace: use letters, digits, `-`, `_` and `.`, with `/` between parts"
    )]
    Name(String),
}

/// A host and a port over HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: ServerName<'static>,
    port: u16,
}

impl Address {
    /// The name that its certificate must have.
    #[must_use]
    pub fn host(&self) -> &ServerName<'static> {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host as it is dialled and as `Host` says it.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.host.to_str();
        if name.contains(':') {
            format!("[{name}]")
        } else {
            name.into_owned()
        }
    }
}

impl FromStr for Address {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let wrong = || PlaceError::Address(text.to_owned());
        let rest = text.strip_prefix("https://").ok_or_else(wrong)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // Brackets keep the colons of a version 6 address apart from that of the port.
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(wrong)?;
                let port = match after.strip_prefix(':') {
                    Some(port) => Some(port),
                    None if after.is_empty() => None,
                    None => return Err(wrong()),
                };
                (host, port)
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| wrong()))?;
        if port == 0 {
            return Err(wrong());
        }
        let host = ServerName::try_from(host).map_err(|_| wrong())?.to_owned();
        Ok(Self { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}", self.name(), self.port)
    }
}

/// The name of a mount, key or namespace: it stands in a path as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl FromStr for Name {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let trimmed = text.trim_matches('/');
        let part = |part: &str| {
            !part.is_empty()
                && !part.ends_with('.')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if trimmed.len() > LONGEST || !trimmed.split('/').all(part) {
            return Err(PlaceError::Name(text.to_owned()));
        }
        Ok(Self(trimmed.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_and_nothing_else() {
        let shown = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(
            shown("https://vault.example.org").unwrap(),
            "https://vault.example.org:8200"
        );
        assert_eq!(shown("https://192.0.2.1:443/").unwrap(), "https://192.0.2.1:443");
        assert_eq!(
            shown("https://[2001:db8::1]").unwrap(),
            "https://[2001:db8::1]:8200"
        );
        assert_eq!(
            shown("https://[2001:db8::1]:1").unwrap(),
            "https://[2001:db8::1]:1"
        );
        for wrong in [
            "http://vault.example.org",
            "vault.example.org:8200",
            "https://",
            "https://vault.example.org:0",
            "https://vault.example.org/v1",
            "https://user@vault.example.org",
            "https://[2001:db8::1]x",
            "https://2001:db8::1",
        ] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_a_path() {
        assert_eq!(
            "/team-a/transit/".parse::<Name>().unwrap().to_string(),
            "team-a/transit"
        );
        for wrong in ["", "/", "a//b", "..", "a/../b", "a b", "a?b", "a%2fb", "key."] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }
}
