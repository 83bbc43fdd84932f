//! Compiles the `.proto` files without a `protoc` on the machine.

#![allow(
    clippy::print_stdout,
    reason = "cargo reads a build script's instructions from its stdout"
)]

use std::{env, error::Error, path::PathBuf};

use prost::Message as _;

const FILES: &[&str] = &[
    "picket/agent/v1/agent.proto",
    "picket/agent/v1/status.proto",
    "picket/agent/v1/documents.proto",
    "picket/admin/v1/hosts.proto",
    "picket/admin/v1/networks.proto",
    "picket/admin/v1/members.proto",
    "picket/admin/v1/devices.proto",
    "picket/admin/v1/kills.proto",
    "picket/admin/v1/moons.proto",
    "picket/admin/v1/deployments.proto",
    "picket/admin/v1/deckies.proto",
    "picket/admin/v1/events.proto",
    "picket/admin/v1/operators.proto",
    "picket/admin/v1/clock.proto",
    "picket/admin/v1/audit.proto",
    "picket/admin/v1/ca.proto",
];

/// Messages whose `Debug` is written by hand, because they carry a secret.
const SECRET: [&str; 3] = [
    "picket.admin.v1.EnrollHostResponse",
    "picket.admin.v1.BundleHostResponse",
    "picket.admin.v1.AddOperatorResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo says where to write")?);
    std::fs::write(out.join("picket.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    config.bytes(["."]);
    // A map has one order on the wire, so that the same document always has the same digest.
    config.btree_map(["."]);
    config.skip_debug(SECRET);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
