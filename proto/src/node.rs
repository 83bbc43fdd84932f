//! A ZeroTier node's word that it is at one end of a connection, as Hello carries it.

use bytes::Bytes;

use crate::{WireError, field::text, host::HostId, wire::agent as wire};

/// The longest identity and signature that are looked at; the ones there are have 141 characters and 96 bytes.
const MOST: usize = 512;
/// What is signed begins with this, so that no other signature of a node can be taken for a proof.
const PURPOSE: &[u8] = b"picket: this ZeroTier node is at the host's end of this connection\0";

/// What a host shows for its ZeroTier node. Nothing in it is checked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeProof {
    /// The node's public identity, as text.
    pub identity: String,
    /// Over [`signed`].
    pub signature: Bytes,
}

/// The bytes that a node signs for a host of a trust domain, over the connection that `binding` was exported from.
///
/// Every part but the trust domain has a fixed length, and that one ends with a zero byte that it cannot contain: two
/// different claims are never the same bytes.
#[must_use]
pub fn signed(trust_domain: &str, host: HostId, binding: &[u8; 32]) -> Vec<u8> {
    [PURPOSE, trust_domain.as_bytes(), &[0], host.0.as_bytes(), binding].concat()
}

impl From<&NodeProof> for wire::NodeProof {
    fn from(proof: &NodeProof) -> Self {
        Self {
            identity: proof.identity.clone(),
            signature: proof.signature.clone(),
        }
    }
}

impl TryFrom<wire::NodeProof> for NodeProof {
    type Error = WireError;

    fn try_from(proof: wire::NodeProof) -> Result<Self, WireError> {
        if proof.signature.len() > MOST {
            return Err(WireError::new(
                "hello.node_proof.signature",
                format_args!("{} bytes, at most {MOST}", proof.signature.len()),
            ));
        }
        Ok(Self {
            identity: text("hello.node_proof.identity", proof.identity, MOST)?,
            signature: proof.signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_signed_differs_with_the_domain_the_host_and_the_connection() {
        let (a, b) = (HostId(Uuid::from_u128(1)), HostId(Uuid::from_u128(2)));
        let all = [
            signed("example.org", a, &[1; 32]),
            signed("example.com", a, &[1; 32]),
            signed("example.org", b, &[1; 32]),
            signed("example.org", a, &[2; 32]),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|other| other != one), "{n}");
        }
    }

    #[test]
    fn a_proof_without_bound_is_refused() {
        let long = wire::NodeProof {
            identity: "x".repeat(MOST + 1),
            signature: Bytes::new(),
        };
        assert!(NodeProof::try_from(long).is_err());
        let long = wire::NodeProof {
            identity: String::new(),
            signature: vec![0; MOST + 1].into(),
        };
        assert!(NodeProof::try_from(long).is_err());
    }
}
