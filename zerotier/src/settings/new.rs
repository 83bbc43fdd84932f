//! What a new network is to be like.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};

use super::{NetworkSettings, Pool, Route};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V4Range {
    /// The range.
    pub route: Ipv4Net,
    /// The first address that members are given.
    pub first: Ipv4Addr,
    /// One past the last address that members are given.
    pub end: Ipv4Addr,
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
        let route: Ipv4Net = given.parse().map_err(|_| error())?;
        if !(8..=30).contains(&route.prefix_len()) || route != route.trunc() {
            return Err(error());
        }
        Ok(Self {
            route,
            first: Ipv4Addr::from(u32::from(route.network()) + 1),
            end: route.broadcast(),
        })
    }
}

impl NewNetwork {
    /// Returns what is wanted of a network that is made so.
    #[must_use]
    pub fn settings(&self) -> NetworkSettings {
        let route = |v4: &V4Range| Route {
            target: IpNet::V4(v4.route),
            via: None,
        };
        let pool = |v4: &V4Range| Pool {
            start: IpAddr::V4(v4.first),
            end: IpAddr::V4(v4.end),
        };
        NetworkSettings {
            name: Some(self.name.clone()),
            routes: Some(self.v4.iter().map(route).collect()),
            pools: Some(self.v4.iter().map(pool).collect()),
            v4_assign: Some(self.v4.is_some()),
            rfc4193: Some(self.rfc4193),
            sixplane: Some(self.sixplane),
            zt_v6: Some(false),
            ..NetworkSettings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_out_every_address_but_the_first_and_the_last() {
        let range: V4Range = "10.147.20.0/24".parse().unwrap();
        assert_eq!(
            (range.first, range.end),
            (Ipv4Addr::new(10, 147, 20, 1), Ipv4Addr::new(10, 147, 20, 255))
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
