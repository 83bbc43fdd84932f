//! The front door of `picket-bench`.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use picket_bench::{
    bare,
    compare::compare,
    figures::Kind,
    identity,
    run::{Plan, measure},
    site::Site,
};
use picket_clock::Clock;
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

/// Measures a master under thousands of real mTLS agents, and the bare server it is held against.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "`scripts/bench` runs both in turn and prints the ratios."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Measures the least server that speaks the same: no store, no pins, no log.
    Bare(Load),
    /// Measures `picket-master run`.
    Master {
        #[command(flatten)]
        load: Load,
        /// The program [default: `picket-master` beside this one].
        #[arg(long, value_name = "PROGRAM")]
        master: Option<PathBuf>,
    },
    /// Measures handshakes of both, and renewals and bans of `picket-master run`.
    Identity {
        /// How many hosts connect, renew, and are banned.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        hosts: u32,
        /// What was built, for the record.
        #[arg(long, value_name = "COMMIT", default_value = "unknown")]
        commit: String,
        /// Prints one line of JSON.
        #[arg(long)]
        json: bool,
        /// The program [default: `picket-master` beside this one].
        #[arg(long, value_name = "PROGRAM")]
        master: Option<PathBuf>,
    },
    /// Prints the ratios of runs of both, from lines that `--json` printed.
    Compare {
        /// The file they are in.
        file: PathBuf,
    },
    /// Is the bare server, until standard input ends.
    #[command(hide = true)]
    ServeBare {
        #[arg(long)]
        site: PathBuf,
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Args)]
struct Load {
    /// How many hosts connect.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    hosts: u32,
    /// How many deckies each of them reports.
    #[arg(long, default_value_t = 10)]
    deckies: u16,
    /// How many beats each of them sends; the first is in full.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    beats: u32,
    /// Between two beats of a host, in seconds; 0 is as fast as acknowledgements come.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds)]
    interval: f64,
    /// What was built, for the record.
    #[arg(long, value_name = "COMMIT", default_value = "unknown")]
    commit: String,
    /// Prints one line of JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let parsed = text
        .parse()
        .ok()
        .filter(|seconds| (0.0..=600.0).contains(seconds));
    parsed.ok_or_else(|| "want seconds from 0 to 600, such as 30".to_owned())
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Bare(load) => std::env::current_exe()
            .context("find this program")
            .and_then(|program| run(Kind::Bare, program, load)),
        Verb::Master { load, master } => match master {
            Some(program) => run(Kind::Master, program, load),
            None => beside("picket-master").and_then(|program| run(Kind::Master, program, load)),
        },
        Verb::Identity {
            hosts,
            commit,
            json,
            master,
        } => identified(hosts, commit, master, json),
        Verb::Compare { file } => compared(&file),
        Verb::ServeBare { site, listen } => serve_bare(&site, listen),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When standard error is gone, there is nobody to tell.
            drop(writeln!(io::stderr(), "picket-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(server: Kind, program: PathBuf, load: Load) -> anyhow::Result<()> {
    let plan = Plan {
        server,
        program,
        hosts: load.hosts,
        deckies: load.deckies,
        beats: load.beats,
        interval: Duration::from_secs_f64(load.interval),
        commit: load.commit,
    };
    let clock = Clock::system();
    let measured = runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        // What is left behind here is dropped: the server ends, the folder goes.
        tokio::select! {
            measured = measure(&plan, &clock) => Ok(measured?),
            _ = terminate.recv() => bail!("told to stop; nothing was measured"),
            _ = interrupt.recv() => bail!("told to stop; nothing was measured"),
        }
    })?;
    if load.json {
        say(&serde_json::to_string(&measured).context("write JSON")?)
    } else {
        say(&measured.to_string())
    }
}

fn identified(hosts: u32, commit: String, master: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let plan = identity::Plan {
        bare: std::env::current_exe().context("find this program")?,
        master: master.map_or_else(|| beside("picket-master"), Ok)?,
        hosts,
        commit,
    };
    let clock = Clock::system();
    let measured = runtime()?.block_on(identity::measure(&plan, &clock))?;
    if json {
        say(&serde_json::to_string(&measured).context("write JSON")?)
    } else {
        say(&measured.to_string())
    }
}

fn compared(file: &Path) -> anyhow::Result<()> {
    let lines = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    compare(&lines)?
        .iter()
        .try_for_each(|comparison| say(&format!("{comparison}\n")))
}

fn serve_bare(site: &Path, listen: SocketAddr) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let site = Site::load(site, &Clock::system())?;
    let result = runtime.block_on(async {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("listen at {listen}"))?;
        tokio::select! {
            served = bare::serve(listener, &site) => Ok(served??),
            // Whoever started this is gone.
            _ = tokio::task::spawn_blocking(|| io::stdin().read(&mut [0])) => Ok(()),
        }
    });
    runtime.shutdown_background();
    result
}

fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("find this program")?;
    let program = here.with_file_name(name);
    if !program.exists() {
        bail!(
            "there is no {}; build it with `cargo build --release -p picket-master`, or name it with --master",
            program.display()
        );
    }
    Ok(program)
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("write to standard output")
}
