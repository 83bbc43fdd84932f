//! The fields of a world file, one after the other.

use std::net::{IpAddr, SocketAddr};

use super::{MAX_ENDPOINTS, Root, WorldError, count};
use crate::{identity::PublicIdentity, ids::NodeId};

/// How an address of each kind begins.
const V4: u8 = 4;
const V6: u8 = 6;

/// What is left of a file.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WorldError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(WorldError::Short(field))?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn byte(&mut self, field: &'static str) -> Result<u8, WorldError> {
        let [byte] = self.array(field)?;
        Ok(byte)
    }

    pub(super) fn number(&mut self, field: &'static str) -> Result<u64, WorldError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// Reads a field of `bytes` bytes that must be zero.
    pub(super) fn nothing(
        &mut self,
        field: &'static str,
        want: &'static str,
        bytes: usize,
    ) -> Result<(), WorldError> {
        for _ in 0..bytes {
            let found = self.byte(field)?.into();
            if found != 0 {
                return Err(WorldError::Field { field, found, want });
            }
        }
        Ok(())
    }

    pub(super) fn root(&mut self, index: usize) -> Result<Root, WorldError> {
        let [a, b, c, d, e] = self.array("root's id")?;
        let node = NodeId::new(u64::from_be_bytes([0, 0, 0, a, b, c, d, e]))
            .map_err(|error| WorldError::Root(index, error))?;
        self.nothing("kind of identity", "there is one kind, 0", 1)?;
        let keys = self.array("root's keys")?;
        self.nothing("length of a private key", "a world holds none", 1)?;
        let endpoints = usize::from(self.byte("root's addresses")?);
        // Nobody can reach a root without any, but a service reads it.
        if endpoints > 0 {
            count("addresses of a root", endpoints, MAX_ENDPOINTS)?;
        }
        Ok(Root {
            identity: PublicIdentity::from_parts(node, keys),
            endpoints: (0..endpoints)
                .map(|_| self.endpoint())
                .collect::<Result<_, _>>()?,
        })
    }

    fn endpoint(&mut self) -> Result<SocketAddr, WorldError> {
        const FIELD: &str = "root's address";
        let ip = match self.byte(FIELD)? {
            V4 => IpAddr::from(self.array::<4>(FIELD)?),
            V6 => IpAddr::from(self.array::<16>(FIELD)?),
            other => {
                return Err(WorldError::Field {
                    field: "kind of address",
                    found: other.into(),
                    want: "an IPv4 address says 4 and an IPv6 address 6",
                });
            }
        };
        let port = u16::from_be_bytes(self.array("root's port")?);
        Ok(SocketAddr::new(ip, port))
    }
}

pub(super) fn write_root(out: &mut Vec<u8>, root: &Root) {
    out.extend_from_slice(&root.identity.node().to_bytes());
    out.push(0);
    out.extend_from_slice(root.identity.keys());
    out.push(0);
    out.extend(u8::try_from(root.endpoints.len()));
    for endpoint in &root.endpoints {
        match endpoint.ip() {
            IpAddr::V4(ip) => {
                out.push(V4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(V6);
                out.extend_from_slice(&ip.octets());
            }
        }
        out.extend_from_slice(&endpoint.port().to_be_bytes());
    }
}
