//! The wire: the `.proto` files, what is generated from them, and the domain types they convert into.
//!
//! A generated message lives in [`wire`] and goes no further than the service that sent or received it; everything
//! else speaks in the types of the other modules, which are checked once, at the conversion. This crate knows no
//! socket.

pub mod audit;
pub mod beat;
pub mod document;
pub mod form;
pub mod host;
pub mod node;
pub mod repair;
pub mod rules;
pub mod session;
pub mod settings;
pub mod shard;
pub mod site;
pub mod status;
pub mod stay;
pub mod witness;

mod field;

pub use field::{WireError, from_wire_time, plain, to_wire_time};

/// Where the generated code of `picket.admin.v1` looks for what it takes from `picket.agent.v1`.
mod agent {
    pub(crate) mod v1 {
        pub(crate) use crate::wire::agent::*;
    }
}

/// Generated code.
pub mod wire {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::wildcard_enum_match_arm,
        reason = "generated; the comments are in the .proto files, and enum variants carry none"
    )]

    /// `picket.agent.v1`.
    pub mod agent {
        tonic::include_proto!("picket.agent.v1");
    }

    /// `picket.admin.v1`.
    pub mod admin {
        tonic::include_proto!("picket.admin.v1");

        impl std::fmt::Debug for EnrollHostResponse {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("EnrollHostResponse")
                    .field("host", &self.host)
                    .finish_non_exhaustive()
            }
        }

        impl std::fmt::Debug for AddOperatorResponse {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("AddOperatorResponse")
                    .field("operator", &self.operator)
                    .finish_non_exhaustive()
            }
        }

        impl std::fmt::Debug for BundleHostResponse {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("BundleHostResponse")
                    .field("host", &self.host)
                    .finish_non_exhaustive()
            }
        }
    }
}

/// The compiled descriptors of every `.proto` file, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/picket.bin"));

/// This build's version, as Hello and Welcome carry it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
