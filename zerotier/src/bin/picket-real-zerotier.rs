//! `picket-real-zerotier`: real nodes in namespaces of their own, for demonstrations that leave the machine's ZeroTier
//! alone.

use std::{
    io::{Write, stdout},
    path::PathBuf,
};

use clap::Parser;
use picket_zerotier::{
    controller::{Controller as _, NewNetwork},
    real::Site,
};
use tokio::signal::unix::{SignalKind, signal};

/// Real ZeroTier nodes, each in a namespace and a home of its own, with a root of their own. Needs root.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The `zerotier-one` binary.
    #[arg(long, value_name = "FILE", default_value = "zerotier-one")]
    binary: PathBuf,
    /// Where the homes are made: `node-0`, `node-1` and so on.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3)]
    count: usize,
    /// Create a network with this name on the first node and print its id.
    #[arg(long, value_name = "NAME")]
    create_network: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // The site is part of what is waited for: a signal while it starts drops it, and with it what was made.
    tokio::select! {
        ended = site(arguments) => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Starts a site, says where it is, and keeps it until this is dropped.
async fn site(arguments: Arguments) -> anyhow::Result<()> {
    let site = Site::start(&arguments.binary, &arguments.directory, arguments.count).await?;
    let mut out = stdout();
    writeln!(
        out,
        "REAL ZeroTier nodes in namespaces of their own; this side is {}",
        site.here()
    )?;
    for index in 0..arguments.count {
        let home = site.home(index);
        writeln!(
            out,
            "node {} at {} in {} namespace {}",
            site.id(index),
            home.place()?,
            home.directory().display(),
            site.namespace(index)
        )?;
    }
    if let Some(name) = arguments.create_network {
        let new = NewNetwork {
            name,
            v4: Some("10.147.20.0/24".parse()?),
            rfc4193: true,
            sixplane: false,
        };
        let network = site
            .home(0)
            .service()?
            .controller(site.id(0))
            .create_network(&new)
            .await?;
        writeln!(out, "network {}", network.id)?;
    }
    writeln!(out, "ready")?;
    out.flush()?;
    std::future::pending().await
}
