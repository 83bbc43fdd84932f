//! The front door of the agent: arguments, logging, configuration, and an exit code that says what failed.

#![allow(clippy::print_stdout, reason = "this is where the agent answers an operator")]

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand, ValueEnum};
use picket_agent::{
    Farewell, Parts, RunError,
    config::{Config, LogFormat},
    deckies::{docker::DockerEngine, engine::Engine},
    enroll::{
        Tools, enroll,
        node::{self, NodeIdentity},
    },
    machine::Machine,
    rejoin::rejoin,
    request::{Which, request},
    sentence,
    state::{StateDir, status_file},
    status::{Status, Verdict},
    witness::TcpProber,
    zerotier::Reach,
};
use picket_clock::Clock;
use picket_link::Tcp;
use picket_pki::Fingerprint;
use picket_zerotier::{NetworkId, home::Home, identity as zerotier};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The agent of a Picket worker.
#[derive(Parser)]
#[command(name = "picket-agent", version)]
struct Arguments {
    /// The configuration; /etc/picket/agent.toml unless named, and defaults when that is not there.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes this machine a host of the master that wrote the bundle in FILE.
    Enroll {
        /// The bundle, as `picketctl host enroll NAME --out FILE` wrote it.
        file: PathBuf,
        /// Enroll only if this is the fingerprint of the CA in the bundle, as `picketctl host enroll` showed it (in quotes
        /// when in groups). Given several times it names all that the bundle may trust, while a CA is being replaced.
        #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
        expect_ca: Vec<Fingerprint>,
        /// Make no ZeroTier identity, and use none that the bundle carries. Otherwise there will be one where the service's
        /// home is, so that the node's id is known before the service first runs; one that is there is never replaced.
        #[arg(long)]
        no_zerotier_identity: bool,
    },
    /// Makes a key that never leaves this machine, and writes a certificate request for it: `picketctl host enroll NAME
    /// --csr FILE --out BUNDLE` makes a bundle of it that holds no key.
    Request {
        /// Where the request goes. It is no secret.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Make another key than that of the request before; a bundle for that one is good for nothing then.
        #[arg(long)]
        new: bool,
    },
    /// Runs the agent. Exits 0 when it was stopped or its host retired, 1 when it failed, 2 when the configuration is
    /// at fault, 4 when this machine is not enrolled or its identity is damaged.
    Run,
    /// Reads the configuration and says everything that is wrong with it.
    CheckConfig,
    /// Puts this machine back on the ZeroTier network that its session went over, after it was taken off it. Run as root;
    /// it needs no agent, and works beside one.
    ///
    /// Without NETWORK it is the one that carried the session last, joined as it was then. The agent undoes by itself a
    /// change that cuts its session and brings none back within 60 s; this is for what it does not undo, a kill above all.
    /// What is joined this way counts as joined by hand: the agent does not leave it, whatever its master says, and the
    /// network's controller still decides who is let on. `zerotier-cli leave NETWORK` leaves it again.
    Rejoin {
        /// The network, by its 16 digits.
        network: Option<NetworkId>,
    },
    /// Shows how the agent on this machine is. Exits 0 when it is connected, 1 when not, 3 when none runs.
    Status {
        /// How to show it.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// The configuration is at fault.
const BAD_CONFIG: u8 = 2;
/// No agent runs.
const NO_AGENT: u8 = 3;
/// The machine has no identity to run under.
const NOT_ENROLLED: u8 = 4;

fn main() -> ExitCode {
    picket_failpoint::arm_from_environment();
    let arguments = Arguments::parse();
    let config = match Config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{}", sentence(&error));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    match arguments.command {
        Command::CheckConfig => {
            println!("the configuration is good");
            ExitCode::SUCCESS
        }
        Command::Status { output } => status(&config, output),
        Command::Enroll {
            file,
            expect_ca,
            no_zerotier_identity,
        } => {
            let node = (!no_zerotier_identity).then(|| config.zerotier.clone()).flatten();
            let node = node.map(|service| Home::new(service.home));
            finish(in_runtime(enrolls(file, &expect_ca, config, node)))
        }
        Command::Rejoin { network } => finish(in_runtime(rejoins(config, network))),
        Command::Request { out, new } => finish(requests(&out, &config, new)),
        Command::Run => finish(in_runtime(runs(config))),
    }
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            match error.downcast_ref::<RunError>() {
                Some(error) if error.needs_enrolment() => ExitCode::from(NOT_ENROLLED),
                Some(_) | None => ExitCode::FAILURE,
            }
        }
    }
}

/// One thread is enough for one connection; disk work has threads of its own.
fn in_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Reads a fingerprint as it is shown: in groups, or in one.
fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    let digits: String = text.split_whitespace().collect();
    digits
        .parse()
        .map_err(|_| "want the 64 hexadecimal digits that `picketctl host enroll` showed".to_owned())
}

fn requests(out: &Path, config: &Config, new: bool) -> anyhow::Result<()> {
    let which = if new { Which::New } else { Which::Same };
    request(out, config, which)?;
    println!(
        "wrote {}: carry it to an operator, who runs: picketctl host enroll NAME --csr {} --out NAME.bundle",
        out.display(),
        out.display()
    );
    println!("then, on this machine: picket-agent enroll NAME.bundle");
    Ok(())
}

async fn rejoins(config: Config, network: Option<NetworkId>) -> anyhow::Result<()> {
    let reach = config
        .zerotier
        .clone()
        .map(|service| Reach::home(service.home, service.address));
    let rejoined = rejoin(&config, reach, network).await?;
    let network = rejoined.network;
    println!(
        "{} {network}, {}",
        if rejoined.before { "was on" } else { "joined" },
        if rejoined.remembered {
            "as when the session went over it"
        } else {
            "with ZeroTier's own settings"
        }
    );
    println!(
        "ZeroTier says {}; addresses: {}",
        rejoined.status,
        listed(&rejoined.addresses)
    );
    println!("the agent leaves it alone from here on; to leave it again: zerotier-cli leave {network}");
    Ok(())
}

fn listed(addresses: &[String]) -> String {
    if addresses.is_empty() {
        "none so far".to_owned()
    } else {
        addresses.join(", ")
    }
}

async fn enrolls(
    file: PathBuf,
    expect_ca: &[Fingerprint],
    config: Config,
    node: Option<Home>,
) -> anyhow::Result<()> {
    let tools = Tools {
        clock: Clock::system(),
        dial: Arc::new(Tcp::default()),
        machine: Arc::new(Machine::read()),
    };
    let enrolled = enroll(&file, expect_ca, &config, &tools).await?;
    let (name, id, master) = (&enrolled.name, enrolled.host, &enrolled.master);
    if enrolled.before {
        println!("{name} (id {id}) is enrolled with master {master} already");
    } else {
        println!(
            "enrolled {name} (id {id}) with master {master}; start it with: systemctl enable --now picket-agent"
        );
    }
    if let Some(authority) = &enrolled.authority {
        println!("CA fingerprint: {}", authority.grouped());
    }
    let brought = enrolled.brought.as_ref();
    provide(node.as_ref(), brought)?;
    println!(
        "the bundle opens nothing any more; delete it: rm {}",
        file.display()
    );
    if let Some(brought) = brought {
        println!(
            "it holds the identity of ZeroTier node {}, which stays good: destroy every copy of it",
            brought.public().node()
        );
    }
    Ok(())
}

/// Gives the machine a ZeroTier identity if it has none.
fn provide(home: Option<&Home>, brought: Option<&zerotier::Identity>) -> anyhow::Result<()> {
    let Some(home) = home else {
        if let Some(brought) = brought {
            println!(
                "the identity of ZeroTier node {} in the bundle was left where it is",
                brought.public().node()
            );
        }
        return Ok(());
    };
    match (node::provide(home, brought), brought) {
        (Ok(NodeIdentity::Made(node)), _) => println!(
            "made a ZeroTier identity: this machine is node {node} once zerotier-one runs, and can be admitted before"
        ),
        (Ok(NodeIdentity::Placed(node)), _) => println!(
            "this machine is ZeroTier node {node} once zerotier-one runs: the identity in the bundle is in place"
        ),
        (Ok(NodeIdentity::There(node)), Some(brought)) if brought.public().node() != node => println!(
            "this machine is ZeroTier node {node} and stays it: the identity of node {} in the bundle was not used",
            brought.public().node()
        ),
        (Ok(NodeIdentity::There(node)), _) => println!("this machine is ZeroTier node {node}"),
        (Ok(NodeIdentity::NoHome), None) => {}
        (Ok(NodeIdentity::NoHome), Some(_)) => anyhow::bail!(
            "the machine is enrolled, and {} went away meanwhile: make it, and run this again for the identity in the bundle",
            home.directory().display()
        ),
        // The machine is enrolled all the same, and its service makes one when it first runs.
        (Err(error), None) => eprintln!("made no ZeroTier identity: {}", sentence(&error)),
        (Err(error), Some(_)) => anyhow::bail!(
            "the machine is enrolled, and the ZeroTier identity in the bundle is not in place: {}; run this again before zerotier-one runs",
            sentence(&error)
        ),
    }
    Ok(())
}

async fn runs(config: Config) -> anyhow::Result<()> {
    let log = tracing_subscriber::fmt()
        .with_max_level(config.log.level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let parts = Parts {
        clock: Clock::system(),
        dial: Arc::new(Tcp::default()),
        zerotier: config
            .zerotier
            .clone()
            .map(|service| Reach::home(service.home, service.address)),
        engine: config
            .docker
            .clone()
            .map(|socket| Arc::new(DockerEngine::new(socket, Clock::system())) as Arc<dyn Engine>),
        prober: Arc::new(TcpProber),
        machine: Arc::new(Machine::read()),
    };
    let told = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let farewell = tokio::select! {
        farewell = picket_agent::run(config, parts, stop.clone()) => farewell?,
        () = told => unreachable!("waits for ever after the signal"),
    };
    match farewell {
        Farewell::Stopped => {}
        Farewell::Retired => {
            println!("this host is retired; nothing of it is left here, and the agent can be removed")
        }
    }
    Ok(())
}

fn status(config: &Config, output: Output) -> ExitCode {
    let used = StateDir::is_used(&config.state_dir);
    let Some(status) = Status::read(&status_file(&config.state_dir)) else {
        eprintln!(
            "no status in {}; is this machine enrolled, does the agent run, and may you read it?",
            config.state_dir.display()
        );
        return ExitCode::from(NO_AGENT);
    };
    let now = Clock::system().now();
    let verdict = status.verdict(now, used);
    match output {
        Output::Text => print!("{}", status.to_text(now, verdict)),
        Output::Json => println!(
            "{}",
            serde_json::to_string_pretty(&status).expect("texts and numbers always become JSON")
        ),
    }
    match verdict {
        Verdict::Connected => ExitCode::SUCCESS,
        Verdict::NotConnected | Verdict::Silent => ExitCode::FAILURE,
        Verdict::NotRunning => ExitCode::from(NO_AGENT),
    }
}
