//! The name of a certificate: SHA-256 of its DER, 64 lower-case hex digits.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};

/// SHA-256 of a certificate's DER. What a pin pins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// The text is not 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fingerprint; it is 64 lower-case hex digits")]
pub struct FingerprintError(String);

impl Fingerprint {
    /// The fingerprint of these DER bytes.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The fingerprint that these bytes are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The fingerprint in sixteen groups of four digits, which two people can read to each other.
    #[must_use]
    pub fn grouped(&self) -> String {
        let digits = self.to_string();
        let groups: Vec<&str> = (0..64).step_by(4).map(|at| &digits[at..at + 4]).collect();
        groups.join(" ")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let other = || FingerprintError(text.chars().take(80).collect());
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| other())?;
        bytes.try_into().map(Self).map_err(|_| other())
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_sha_256_and_reads_back_from_its_digits() {
        let seen = Fingerprint::of(b"abc");
        let digits = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(seen.to_string(), digits);
        assert_eq!(digits.parse(), Ok(seen));
        assert_eq!(seen.grouped().replace(' ', ""), digits);
        assert_eq!(
            serde_json::from_str::<Fingerprint>(&format!("{digits:?}")).unwrap(),
            seen
        );
    }

    #[test]
    fn a_fingerprint_has_one_spelling() {
        let digits = Fingerprint::of(b"abc").to_string();
        for other in [
            digits.to_uppercase(),
            digits[..62].to_owned(),
            format!("{digits}00"),
            format!(" {digits}"),
        ] {
            assert!(other.parse::<Fingerprint>().is_err(), "{other}");
        }
    }
}
