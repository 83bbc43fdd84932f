//! What ZeroTier calls things: the ids of nodes and networks, parsed once at the edge.
//!
//! An id is kept as a number and written in lower case, because a controller stores a member id as it was typed and
//! would keep two spellings of one node apart in its lists.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How many hex digits a node id has.
const NODE_DIGITS: usize = 10;
/// How many hex digits a network id has.
const NETWORK_DIGITS: usize = 16;
/// The first byte of ids that no node may have, and of networks without a controller.
const RESERVED: u64 = 0xff;

/// The 40-bit id of a ZeroTier node, which is also its id as a member of a network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

/// The 64-bit id of a ZeroTier network: the node id of its controller and a 24-bit number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(u64);

/// Why a text is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is too short or too long.
    #[error("`{given}` has {} characters; a {kind} id has {want} hex digits", given.chars().count())]
    Length {
        /// What was given.
        given: String,
        /// Which id was wanted.
        kind: &'static str,
        /// How many digits it has.
        want: usize,
    },
    /// A character is not a hex digit.
    #[error("`{given}` contains `{letter}`; a {kind} id has {want} hex digits, 0-9 and a-f")]
    Letter {
        /// What was given.
        given: String,
        /// The first character that is no hex digit.
        letter: char,
        /// Which id was wanted.
        kind: &'static str,
        /// How many digits it has.
        want: usize,
    },
    /// The id is well formed and belongs to nobody.
    #[error("`{given}` is reserved by ZeroTier: no node has id 0 or one that starts with ff")]
    Reserved {
        /// What was given.
        given: String,
    },
}

impl NodeId {
    /// Returns the id as a number; only the low 40 bits are ever set.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// Returns the five bytes of the id, most significant first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 5] {
        let [_, _, _, a, b, c, d, e] = self.0.to_be_bytes();
        [a, b, c, d, e]
    }

    /// Makes an id of a number, or says that no node may have it.
    ///
    /// # Errors
    /// Fails for numbers over 40 bits and for the reserved ids.
    pub fn new(number: u64) -> Result<Self, IdError> {
        if number >> 40 != 0 {
            return Err(IdError::Length {
                given: format!("{number:x}"),
                kind: "node",
                want: NODE_DIGITS,
            });
        }
        if number == 0 || number >> 32 == RESERVED {
            return Err(IdError::Reserved {
                given: format!("{number:010x}"),
            });
        }
        Ok(Self(number))
    }
}

impl NetworkId {
    /// Makes an id of a number, or says that no network may have it.
    ///
    /// # Errors
    /// Fails for numbers whose controller would be node 0.
    pub fn new(number: u64) -> Result<Self, IdError> {
        if number >> 24 == 0 {
            return Err(IdError::Reserved {
                given: format!("{number:016x}"),
            });
        }
        Ok(Self(number))
    }

    /// Makes the id of the network with this number (24 bits) at a controller.
    ///
    /// Bits of `number` over the 24 are dropped.
    #[must_use]
    pub fn at(controller: NodeId, number: u32) -> Self {
        Self(controller.0 << 24 | u64::from(number & 0x00ff_ffff))
    }

    /// Returns the id as a number.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// Returns the node that controls this network: the first ten digits.
    ///
    /// An ad-hoc network has no controller; what this returns for it is an id that no node can have.
    #[must_use]
    pub fn controller(self) -> NodeId {
        NodeId(self.0 >> 24)
    }

    /// Returns whether the network is governed by nobody: everyone may join, and the id says which ports are open.
    #[must_use]
    pub fn is_ad_hoc(self) -> bool {
        self.0 >> 56 == RESERVED
    }
}

/// Reads exactly `want` hex digits.
fn digits(given: &str, kind: &'static str, want: usize) -> Result<u64, IdError> {
    if given.chars().count() != want {
        return Err(IdError::Length {
            given: given.to_owned(),
            kind,
            want,
        });
    }
    given
        .chars()
        .try_fold(0_u64, |number, letter| match letter.to_digit(16) {
            Some(digit) => Ok(number << 4 | u64::from(digit)),
            None => Err(IdError::Letter {
                given: given.to_owned(),
                letter,
                kind,
                want,
            }),
        })
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(given: &str) -> Result<Self, IdError> {
        Self::new(digits(given, "node", NODE_DIGITS)?)
    }
}

impl FromStr for NetworkId {
    type Err = IdError;

    fn from_str(given: &str) -> Result<Self, IdError> {
        Self::new(digits(given, "network", NETWORK_DIGITS)?)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010x}", self.0)
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for NetworkId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for NetworkId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_case_is_accepted_and_written_in_lower_case() {
        let id: NetworkId = "5350D87547C880CB".parse().unwrap();
        assert_eq!(id.to_string(), "5350d87547c880cb");
        assert_eq!(id.controller(), "5350d87547".parse().unwrap());
        assert_eq!("ABCDEF0123".parse::<NodeId>().unwrap().to_string(), "abcdef0123");
    }

    #[test]
    fn a_wrong_length_names_what_was_given_and_what_is_wanted() {
        let error = "5350d87547c880c".parse::<NetworkId>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`5350d87547c880c` has 15 characters; a network id has 16 hex digits"
        );
        let error = "39966434ba00".parse::<NodeId>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`39966434ba00` has 12 characters; a node id has 10 hex digits"
        );
        assert!("".parse::<NodeId>().is_err());
        assert!(" 39966434b".parse::<NodeId>().is_err());
        assert!("+39966434b".parse::<NodeId>().is_err());
        assert!("39966434bé".parse::<NodeId>().is_err());
    }

    #[test]
    fn a_wrong_letter_is_named() {
        let error = "39966434bx".parse::<NodeId>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`39966434bx` contains `x`; a node id has 10 hex digits, 0-9 and a-f"
        );
    }

    #[test]
    fn ids_that_no_node_can_have_are_refused() {
        for reserved in ["0000000000", "ff00000001", "ffffffffff"] {
            assert_eq!(
                reserved.parse::<NodeId>().unwrap_err(),
                IdError::Reserved {
                    given: reserved.to_owned()
                }
            );
        }
        assert!("0000000000000001".parse::<NetworkId>().is_err());
        assert!("00000000aa".parse::<NodeId>().is_ok());
    }

    #[test]
    fn a_network_that_starts_with_ff_is_ad_hoc() {
        assert!("ff0001ffff000000".parse::<NetworkId>().unwrap().is_ad_hoc());
        assert!(!"5350d87547c880cb".parse::<NetworkId>().unwrap().is_ad_hoc());
    }

    #[test]
    fn ids_travel_as_text_and_wrong_ones_are_refused_on_the_way_in() {
        let id: NodeId = "68c19b4c83".parse().unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"68c19b4c83\"");
        assert_eq!(serde_json::from_str::<NodeId>("\"68C19B4C83\"").unwrap(), id);
        assert!(serde_json::from_str::<NodeId>("450123").is_err());
        assert!(serde_json::from_str::<NetworkId>("\"68c19b4c83\"").is_err());
    }
}
