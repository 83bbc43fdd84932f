//! What a new network is to be like, in the words of its controller.

use std::{net::Ipv4Addr, str::FromStr};

use serde_json::{Value, json};

/// What a new network is to be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Its IPv4 range as `address/prefix`, and the first and last address given to members. Without it a network
    /// assigns no IPv4 addresses.
    pub v4: Option<V4Range>,
    /// Whether members get RFC4193 addresses.
    pub rfc4193: bool,
    /// Whether members get 6PLANE addresses.
    pub sixplane: bool,
}

/// The IPv4 range of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V4Range {
    /// The range as `address/prefix`.
    pub route: String,
    /// The first address that members are given.
    pub first: String,
    /// One past the last address that members are given.
    pub end: String,
}

/// A text that is no IPv4 range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not an IPv4 range; write one like 10.147.20.0/24, 8 to 30 bits, with no host bits set")]
pub struct RangeError {
    /// What was given.
    pub given: String,
}

impl FromStr for V4Range {
    type Err = RangeError;

    /// Reads `address/prefix` (8 to 30 bits) and hands out every address of it except the first and the last.
    fn from_str(given: &str) -> Result<Self, RangeError> {
        let error = || RangeError {
            given: given.to_owned(),
        };
        let (address, bits) = given.split_once('/').ok_or_else(error)?;
        let address: Ipv4Addr = address.parse().map_err(|_| error())?;
        let bits: u32 = bits.parse().map_err(|_| error())?;
        let host_bits = 32_u32
            .checked_sub(bits)
            .filter(|bits| (2..=24).contains(bits))
            .ok_or_else(error)?;
        let network = u32::from(address);
        let hosts = (1_u32 << host_bits) - 1;
        if network & hosts != 0 {
            return Err(error());
        }
        Ok(Self {
            route: given.to_owned(),
            first: Ipv4Addr::from(network + 1).to_string(),
            end: Ipv4Addr::from(network + hosts).to_string(),
        })
    }
}

impl NewNetwork {
    pub(super) fn to_json(&self) -> Value {
        let mut body = json!({
            "name": self.name,
            "private": true,
            "v4AssignMode": { "zt": self.v4.is_some() },
            "v6AssignMode": { "rfc4193": self.rfc4193, "6plane": self.sixplane, "zt": false },
        });
        if let Some(v4) = &self.v4 {
            body["routes"] = json!([{ "target": v4.route, "via": null }]);
            body["ipAssignmentPools"] = json!([{ "ipRangeStart": v4.first, "ipRangeEnd": v4.end }]);
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_out_every_address_but_the_first_and_the_last() {
        let range: V4Range = "10.147.20.0/24".parse().unwrap();
        assert_eq!(
            (range.first.as_str(), range.end.as_str()),
            ("10.147.20.1", "10.147.20.255")
        );
        for wrong in [
            "10.147.20.0",
            "10.147.20.7/24",
            "10.147.20.0/31",
            "10.0.0.0/7",
            "fd00::/64",
            "10.147.20.0/x",
        ] {
            assert!(wrong.parse::<V4Range>().unwrap_err().to_string().contains(wrong));
        }
    }
}
