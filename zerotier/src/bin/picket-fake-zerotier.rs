//! `picket-fake-zerotier`: simulated nodes in home directories, for demonstrations on machines without ZeroTier.

use std::{
    fs::File,
    io::{Read, Write, stdout},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::Parser;
use picket_zerotier::{
    NodeId,
    controller::{Controller as _, NewNetwork},
    fake::{Lab, Mood},
};
use tokio::signal::unix::{SignalKind, signal};

/// Simulated ZeroTier nodes, one in each home directory. They move no packets.
///
/// At SIGUSR1 the first node's controller goes on doing what it is asked to change and says so no more, as one that dies
/// in between; at SIGUSR2 it answers again.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The home directory of a node; repeat it for more nodes of one site.
    #[arg(long = "home", value_name = "DIR", required = true)]
    homes: Vec<PathBuf>,
    /// Create a network with this name on the first node and print its id.
    #[arg(long, value_name = "NAME")]
    create_network: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hush = signal(SignalKind::user_defined1())?;
    let mut speak = signal(SignalKind::user_defined2())?;

    let lab = Lab::seeded(seed()?, wall_clock()?);
    let mut out = stdout();
    writeln!(
        out,
        "SIMULATED ZeroTier: these nodes answer like zerotier-one and move no packets"
    )?;
    let mut first: Option<NodeId> = None;
    for home in &arguments.homes {
        let node = lab.readmit(home).unwrap_or_else(|| lab.grow());
        let settled = lab.settle(node, home).await.with_context(|| {
            format!(
                "settle a simulated node in {}; name a directory that can be written",
                home.display()
            )
        })?;
        writeln!(out, "node {node} at {} in {}", settled.address, home.display())?;
        first.get_or_insert(node);
    }
    if let (Some(name), Some(node)) = (arguments.create_network, first) {
        let new = NewNetwork {
            name,
            v4: Some("10.147.20.0/24".parse()?),
            rfc4193: true,
            sixplane: false,
        };
        let network = lab.service(node).controller(node).create_network(&new).await?;
        writeln!(out, "network {}", network.id)?;
    }
    writeln!(out, "ready")?;
    out.flush()?;

    loop {
        let mood = tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hush.recv() => Mood::Mute,
            _ = speak.recv() => Mood::Well,
        };
        if let Some(node) = first {
            lab.set_mood(node, mood);
            writeln!(out, "node {node} is {mood:?}")?;
        }
    }
}

fn seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(u64::from_ne_bytes(bytes))
}

#[allow(
    clippy::disallowed_methods,
    reason = "the shell of this program: the simulated clocks start at the real time"
)]
fn wall_clock() -> anyhow::Result<u64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Ok(u64::try_from(since.as_millis())?)
}
