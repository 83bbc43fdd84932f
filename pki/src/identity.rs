//! Who a certificate speaks for: the trust domain and the SPIFFE identity, and nothing else.
//!
//! A role comes from here alone: not from a common name, not from a message body. Parsing is strict; what is not
//! exactly one of the three forms is nobody.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

/// The longest trust domain. The CA's common name holds at most 64 characters and names it.
const LONGEST_DOMAIN: usize = 128;

/// The longest operator name. A certificate's common name holds at most 64 characters and shows it.
const LONGEST_OPERATOR: usize = 48;

/// Why a text is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The trust domain has a letter it may not have, or none.
    #[error(
        "{0:?} is no trust domain; use lower-case letters, digits, `.`, `-` and `_`, such as `example.org`"
    )]
    TrustDomain(String),
    /// The operator name has a letter it may not have, or none.
    #[error(
        "{0:?} is no operator name; use up to 48 lower-case letters, digits, `.`, `-` and `_`, such as `ana`"
    )]
    OperatorName(String),
    /// The URI is none of the three forms.
    #[error("{0:?} is none of spiffe://DOMAIN/master, /host/UUID, /operator/NAME")]
    Uri(String),
}

/// The name of one site of trust: one CA, one master, its hosts and operators.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The domain as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if plain_name(text, LONGEST_DOMAIN) && !text.contains("..") {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdentityError::TrustDomain(shortened(text)))
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an operator, unique in its trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperatorName(String);

impl OperatorName {
    /// The name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OperatorName {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if plain_name(text, LONGEST_OPERATOR) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdentityError::OperatorName(shortened(text)))
        }
    }
}

impl fmt::Display for OperatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! serde_as_text {
    ($($name:ty),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )+};
}
serde_as_text!(TrustDomain, OperatorName);

/// The role a listener asks of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A worker machine.
    Host,
    /// A person.
    Operator,
}

/// Whom a certificate speaks for, inside a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// The master of the trust domain.
    Master,
    /// The worker with this id.
    Host(Uuid),
    /// The operator of this name.
    Operator(OperatorName),
}

impl Identity {
    /// The role a caller under this identity has; the master calls nobody and has none.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Master => None,
            Self::Host(_) => Some(Role::Host),
            Self::Operator(_) => Some(Role::Operator),
        }
    }

    /// The SPIFFE URI of this identity in `domain`.
    #[must_use]
    pub fn uri(&self, domain: &TrustDomain) -> String {
        match self {
            Self::Master => format!("spiffe://{domain}/master"),
            Self::Host(id) => format!("spiffe://{domain}/host/{}", id.hyphenated()),
            Self::Operator(name) => format!("spiffe://{domain}/operator/{name}"),
        }
    }

    /// Reads a SPIFFE URI. Each identity has one spelling; every other one is refused.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Uri`], or that of the part that is wrong.
    pub fn parse_uri(uri: &str) -> Result<(TrustDomain, Self), IdentityError> {
        let other = || IdentityError::Uri(shortened(uri));
        let (domain, path) = uri
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(other)?;
        let domain = domain.parse()?;
        let identity = match path.split_once('/') {
            None if path == "master" => Self::Master,
            Some(("host", id)) => Self::Host(Uuid::try_parse(id).map_err(|_| other())?),
            Some(("operator", name)) => Self::Operator(name.parse()?),
            None | Some(_) => return Err(other()),
        };
        // The UUID parser accepts braces, capitals and missing hyphens; a second spelling would be a second name.
        if identity.uri(&domain) == uri {
            Ok((domain, identity))
        } else {
            Err(other())
        }
    }
}

/// `master`, `host UUID` or `operator NAME`, for logs and sentences.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.write_str("master"),
            Self::Host(id) => write!(f, "host {id}"),
            Self::Operator(name) => write!(f, "operator {name}"),
        }
    }
}

fn plain_name(text: &str, longest: usize) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= longest
        && edge(text.as_bytes().first())
        && edge(text.as_bytes().last())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

/// What a stranger sent is shown only as far as it helps.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_identity_reads_back_from_its_uri() {
        let domain: TrustDomain = "example.org".parse().unwrap();
        let host = Identity::Host(Uuid::from_u128(7));
        for identity in [
            Identity::Master,
            host,
            Identity::Operator("ana.b-c_1".parse().unwrap()),
        ] {
            let uri = identity.uri(&domain);
            assert_eq!(Identity::parse_uri(&uri), Ok((domain.clone(), identity)), "{uri}");
        }
    }

    #[test]
    fn what_is_not_exactly_one_of_the_three_forms_is_nobody() {
        for uri in [
            "",
            "spiffe://",
            "spiffe:///master",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://example.org/master/",
            "spiffe://example.org/Master",
            "spiffe://example.org//master",
            "spiffe://example.org/master?x",
            "spiffe://example.org/master#x",
            "spiffe://example.org:1/master",
            "spiffe://user@example.org/master",
            "spiffe://Example.org/master",
            "SPIFFE://example.org/master",
            "https://example.org/master",
            " spiffe://example.org/master",
            "spiffe://example.org/master\0",
            "spiffe://example.org/host/",
            "spiffe://example.org/host/x",
            "spiffe://example.org/host/00000000000000000000000000000007",
            "spiffe://example.org/host/{00000000-0000-0000-0000-000000000007}",
            "spiffe://example.org/host/00000000-0000-0000-0000-00000000000A",
            "spiffe://example.org/host/00000000-0000-0000-0000-000000000007/x",
            "spiffe://example.org/operator/",
            "spiffe://example.org/operator/a/b",
            "spiffe://example.org/operator/A",
            "spiffe://example.org/operator/..",
            "spiffe://example.org/operator/a%20b",
            "spiffe://exa..mple/master",
        ] {
            assert!(Identity::parse_uri(uri).is_err(), "{uri:?} was accepted");
        }
    }

    #[test]
    fn names_that_are_too_long_are_refused() {
        assert!("a".repeat(LONGEST_OPERATOR).parse::<OperatorName>().is_ok());
        assert!("a".repeat(LONGEST_OPERATOR + 1).parse::<OperatorName>().is_err());
        assert!("a".repeat(LONGEST_DOMAIN + 1).parse::<TrustDomain>().is_err());
    }

    proptest! {
        #[test]
        fn a_uri_that_is_accepted_is_the_one_that_would_be_written(uri in "spiffe://[a-z.]{0,9}/(host|operator|master)/?[a-f0-9{}A-F-]{0,40}") {
            if let Ok((domain, identity)) = Identity::parse_uri(&uri) {
                prop_assert_eq!(identity.uri(&domain), uri);
            }
        }
    }
}
