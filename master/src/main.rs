//! The front door of `picket-master`.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use picket_clock::Clock;
use picket_master::{
    Doors,
    audit::kept::witnessed,
    config::{Config, Log, LogFormat, dialable},
    descriptors,
    init::{Plan, Reached, init},
    listen, local, run,
    signer::{self, CaKey, PassphraseFrom},
    store::{self, Store, accept, restore, verify},
    time::Back,
};
use picket_pki::TrustDomain;
use picket_proto::host::Name;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

const CONFIG: &str = "/etc/picket/master.toml";
const DATA_DIR: &str = "/var/lib/picket";
/// Exit codes: 1 something failed, 2 the settings or arguments are wrong.
const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Keeps a fleet of decoy hosts honest: enrolls agents, hears them, and tells them what is wanted.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Begin with `picket-master init`, then `picket-master run`."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes a master: its CA, an empty store, and the first admin bundle.
    Init {
        /// Where it keeps everything; made when it is not there [default: the configuration's].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// The trust domain of every identity, such as example.org.
        #[arg(long, value_name = "DOMAIN")]
        trust_domain: TrustDomain,
        /// A DNS name or address of the master; repeat it for several.
        #[arg(long = "name", value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Where agents dial, as bundles say it [default: the configuration's, or each NAME with the port it listens at].
        #[arg(long = "advertise", value_name = "HOST:PORT", value_parser = address)]
        addresses: Vec<String>,
        /// Where operators dial, as admin bundles say it [default: where the configuration listens].
        #[arg(long = "admin-address", value_name = "HOST:PORT", value_parser = address)]
        admin_addresses: Vec<String>,
        /// Keeps the CA's key unencrypted; the settings then need ca.key = "plain", which warns at every start.
        #[arg(long, conflicts_with = "passphrase_file")]
        plain_ca_key: bool,
        #[command(flatten)]
        ca: Ca,
    },
    /// Runs the master until it is told to stop.
    Run(Settings),
    /// Says what is wrong with the configuration, all of it at once, and changes nothing.
    CheckConfig(Settings),
    /// Lets an admin in, on the master's own machine; works beside a running master and without one.
    ///
    /// Whoever NAME was, it is an admin from then on: also when it, or every admin, was revoked or has expired. What
    /// DEVICE had before opens nothing any more.
    AdminBundle {
        /// The master's data directory [default: the configuration's].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// The operator it is for.
        #[arg(long, value_name = "NAME", default_value = "admin")]
        name: String,
        /// The device it is for; each has one certificate.
        #[arg(long, value_name = "DEVICE", default_value = local::DEVICE)]
        device: Name,
        /// Where to write it [default: DIR/admin.bundle].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        ca: Ca,
    },
    /// Has the running master believe its machine's clock, where picketctl cannot reach it to say so.
    ///
    /// After the clock jumped ahead and back, the master's certificate may be of a time that has not come.
    AcceptClock {
        /// The master's data directory.
        #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
        /// Why; it is audited.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Let the master's time go back, where it is ahead of the clock; without this it stands still.
        #[arg(long)]
        go_back: bool,
    },
    /// Encrypts the CA's key, or gives it another passphrase; a running master goes on with the key it has.
    CaKey {
        #[command(subcommand)]
        verb: CaKeyVerb,
    },
    /// Reads and checks all of the store; changes nothing, also beside a running master.
    Verify {
        /// The master's data directory.
        #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
    },
    /// Takes a verified snapshot of the store, also beside a running master.
    Snapshot {
        /// The master's data directory.
        #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
        /// The directory to put it in.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Brings the store back from a snapshot and what the journal still has after it; keeps what was there aside.
    Restore {
        /// The master's data directory.
        #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
        /// The snapshot; without one, what the journal has before its first damage.
        #[arg(long, value_name = "FILE", conflicts_with = "accept")]
        from: Option<PathBuf>,
        /// Accepts a store that was restored without its latest changes.
        #[arg(long)]
        accept: bool,
    },
}

#[derive(Subcommand)]
enum CaKeyVerb {
    /// Puts an unencrypted key under a passphrase.
    Encrypt {
        /// The master's data directory.
        #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
        #[command(flatten)]
        ca: Ca,
    },
    /// Gives an encrypted key another passphrase.
    Passphrase {
        /// The master's data directory.
        #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
        /// The file with the passphrase it is to have.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: PathBuf,
        #[command(flatten)]
        ca: Ca,
    },
}

/// How the CA's key is reached while no master runs.
#[derive(clap::Args)]
struct Ca {
    /// The configuration file, which says where everything is and how the CA's key is kept; it need not be there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The file with the passphrase of the CA's key; overrides `ca.passphrase_file`.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<String>,
}

impl Ca {
    /// The settings: the flags over the environment over the configuration file, where there is one.
    fn settings(&self) -> anyhow::Result<Config> {
        let flags = [("ca.passphrase_file", self.passphrase_file.clone())];
        Ok(match &self.config {
            Some(file) => Config::load(file, &flags)?,
            None if Path::new(CONFIG).exists() => Config::load(Path::new(CONFIG), &flags)?,
            None => Config::without_file(&flags)?,
        })
    }

    /// How the CA's key is kept.
    fn key(&self) -> anyhow::Result<CaKey> {
        Ok(self.settings()?.ca)
    }

    /// Where the passphrase of the key in the data directory comes from.
    fn passphrase(&self) -> anyhow::Result<PassphraseFrom> {
        if let Some(file) = &self.passphrase_file {
            return Ok(PassphraseFrom::file(file));
        }
        match self.key()? {
            CaKey::Encrypted(from) => Ok(from),
            CaKey::Plain | CaKey::Transit(_) => anyhow::bail!(
                "the settings do not keep the CA's key encrypted, so they name no passphrase; name one with --passphrase-file"
            ),
        }
    }
}

#[derive(clap::Args)]
struct Settings {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Overrides `data_dir`.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Overrides `log.level`: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

fn address(text: &str) -> Result<String, String> {
    if dialable(text) {
        Ok(text.to_owned())
    } else {
        Err("want host:port, such as master.example.org:7443".to_owned())
    }
}

fn main() -> ExitCode {
    picket_failpoint::arm_from_environment();
    let arguments = Arguments::parse();
    let clock = Clock::system();
    let done = match arguments.verb {
        Verb::Run(settings) => return start(&settings, clock),
        Verb::CheckConfig(settings) => match load(&settings) {
            Ok(config) => {
                for remark in config.remarks() {
                    // When standard error is gone, there is nobody to tell.
                    drop(writeln!(std::io::stderr(), "picket-master: {remark}"));
                }
                say(&format!("{} is fine", settings.config.display()))
            }
            Err(error) => return fail(&error, USAGE),
        },
        Verb::Init {
            data_dir,
            trust_domain,
            names,
            addresses,
            admin_addresses,
            plain_ca_key,
            ca,
        } => {
            let settings = match ca.settings() {
                Ok(settings) => settings,
                Err(error) => return fail(&error, USAGE),
            };
            let asked = Reached {
                addresses,
                admin_addresses,
            };
            let Reached {
                addresses,
                admin_addresses,
            } = Reached::by(&names, asked, &settings);
            make(
                &Plan {
                    data_dir: data_dir.unwrap_or(settings.data_dir),
                    trust_domain,
                    names,
                    addresses,
                    admin_addresses,
                    ca: if plain_ca_key { CaKey::Plain } else { settings.ca },
                },
                &clock,
            )
        }
        Verb::AdminBundle {
            data_dir,
            name,
            device,
            out,
            ca,
        } => admin_bundle(data_dir, &name, &device, out, &ca, &clock),
        Verb::AcceptClock {
            data_dir,
            reason,
            go_back,
        } => accept_clock(&data_dir, &reason, go_back),
        Verb::CaKey { verb } => ca_key(verb),
        Verb::Verify { data_dir } => return verified(&data_dir),
        Verb::Snapshot { data_dir, to } => store::snapshot(&data_dir, &to, &clock)
            .map_err(Into::into)
            .and_then(|taken| {
                say(&format!(
                    "revision {} is in {}",
                    taken.revision,
                    taken.file.display()
                ))
            }),
        Verb::Restore {
            data_dir,
            accept: true,
            ..
        } => accept(&data_dir)
            .map_err(Into::into)
            .and_then(|_| say("accepted; start the master with `picket-master run`")),
        Verb::Restore {
            data_dir,
            from,
            accept: false,
        } => restored(&data_dir, from.as_deref(), &clock),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, FAILED),
    }
}

fn load(settings: &Settings) -> anyhow::Result<Config> {
    let flags = [
        ("data_dir", settings.data_dir.clone()),
        ("log.level", settings.log_level.clone()),
    ];
    Ok(Config::load(&settings.config, &flags)?)
}

fn start(settings: &Settings, clock: Clock) -> ExitCode {
    let config = match load(settings) {
        Ok(config) => config,
        Err(error) => return fail(&error, USAGE),
    };
    log(&config.log);
    for remark in config.remarks() {
        tracing::warn!("{remark}");
    }
    let served = runtime().and_then(|runtime| {
        let result = runtime.block_on(serve(config, clock));
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, FAILED),
    }
}

async fn serve(config: Config, clock: Clock) -> anyhow::Result<()> {
    descriptors::raise();
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let doors = Doors {
        agents: listen::tcp(bind("agents.listen", config.agents).await?),
        admin: listen::tcp(bind("admin.listen", config.admin).await?),
        monitor: listen::tcp(bind("metrics.listen", config.metrics).await?),
        central: None,
        local: true,
    };
    let (name, agents) = (config.name.clone(), config.agents);
    let ready = move || {
        tracing::info!(name, %agents, "ready");
        notify(&[sd_notify::NotifyState::Ready]);
    };
    let store = Store::open(&config.data_dir, clock.clone()).await?;
    let running = run(config, store, doors, clock, ready, stop.clone());
    tokio::pin!(running);
    let mut watchdog = watchdog();
    loop {
        tokio::select! {
            result = &mut running => return Ok(result?),
            _ = terminate.recv() => stop.cancel(),
            _ = interrupt.recv() => stop.cancel(),
            () = watchdog.tick() => notify(&[sd_notify::NotifyState::Watchdog]),
        }
        if stop.is_cancelled() {
            notify(&[sd_notify::NotifyState::Stopping]);
            return Ok(running.await?);
        }
    }
}

async fn bind(setting: &str, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("listen at {address}; if something else has the port, set {setting} to another")
    })
}

struct Watchdog(Option<tokio::time::Interval>);

impl Watchdog {
    async fn tick(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
    }
}

/// Half the time the service manager allows between two signs of life, when it asks for them.
fn watchdog() -> Watchdog {
    let mut micros = 0;
    let asked = sd_notify::watchdog_enabled(false, &mut micros) && micros > 0;
    Watchdog(asked.then(|| tokio::time::interval(Duration::from_micros(micros) / 2)))
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

fn make(plan: &Plan, clock: &Clock) -> anyhow::Result<()> {
    let made = runtime()?.block_on(init(plan, clock))?;
    say(&format!(
        "A master for {} is in {}.\n\
         CA certificate SHA-256: {}\n\
         Admin bundle (keep it secret): {}\n\
         Next: picket-master run --config FILE, which says data_dir = \"{1}\" and how the CA's key opens; then\n      \
         picketctl --bundle {3} host enroll NAME --out NAME.bundle",
        plan.trust_domain,
        plan.data_dir.display(),
        made.authority,
        made.bundle.display(),
    ))
}

fn ca_key(verb: CaKeyVerb) -> anyhow::Result<()> {
    match verb {
        CaKeyVerb::Encrypt { data_dir, ca } => {
            signer::encrypt(&data_dir, &ca.passphrase()?)?;
            say(
                "The CA's key is encrypted; keep its passphrase apart from the data directory and its backups.\n\
                 Backups that were made before hold it as it was: delete them, or guard them as the key.",
            )
        }
        CaKeyVerb::Passphrase {
            data_dir,
            new_passphrase_file,
            ca,
        } => {
            let new = PassphraseFrom::file(new_passphrase_file);
            signer::change_passphrase(&data_dir, &ca.passphrase()?, &new)?;
            say("The CA's key has the new passphrase; a master needs it from its next start on.")
        }
    }
}

fn accept_clock(data_dir: &Path, reason: &str, go_back: bool) -> anyhow::Result<()> {
    let back = if go_back { Back::GoBack } else { Back::StandStill };
    runtime()?.block_on(local::accept_clock(data_dir, reason, back))?;
    say("The master believes the clock of its machine.")
}

fn admin_bundle(
    data_dir: Option<PathBuf>,
    name: &str,
    device: &Name,
    out: Option<PathBuf>,
    ca: &Ca,
    clock: &Clock,
) -> anyhow::Result<()> {
    let settings = ca.settings()?;
    let data_dir = data_dir.unwrap_or(settings.data_dir);
    let out = out.unwrap_or_else(|| data_dir.join("admin.bundle"));
    let made = local::admin_bundle(&data_dir, name, device, &out, &settings.ca, clock);
    let authority = runtime()?.block_on(made)?;
    say(&format!(
        "The bundle of operator {name} for its device {device} is in {}.\nCA certificate SHA-256: {authority}",
        out.display()
    ))
}

fn verified(data_dir: &Path) -> ExitCode {
    match verify(data_dir) {
        Ok(report) => {
            let mut intact = report.damage.is_empty();
            let mut text = report.to_string();
            if intact {
                match witnessed(data_dir) {
                    Ok(witnessed) => {
                        intact = witnessed.problem.is_none();
                        text.push_str(&witnessed.to_string());
                    }
                    Err(error) => return fail(&error.into(), FAILED),
                }
            }
            match say(text.trim_end()) {
                Ok(()) if intact => ExitCode::SUCCESS,
                Ok(()) => ExitCode::from(FAILED),
                Err(error) => fail(&error, FAILED),
            }
        }
        Err(error) => fail(&error.into(), FAILED),
    }
}

fn restored(data_dir: &Path, from: Option<&Path>, clock: &Clock) -> anyhow::Result<()> {
    let restored = restore(data_dir, from, clock)?;
    let mut text = format!(
        "Restored revision {}, {} commits from the journal.",
        restored.revision, restored.replayed
    );
    if let Some(aside) = restored.aside {
        text.push_str(&format!("\nWhat was there is kept in {}.", aside.display()));
    }
    if let Some(missing) = restored.missing {
        text.push_str(&format!(
            "\nSomething that was acknowledged may be missing: {missing}.\nThe master is frozen until you look at it and \
             run `picket-master restore --accept --data-dir {}`.",
            data_dir.display()
        ));
    }
    say(&text)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}

fn log(log: &Log) {
    let to_people = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_max_level(log.level)
        .with_writer(std::io::stderr)
        .with_ansi(to_people);
    match log.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        // Whoever read along has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // When standard error is gone, there is nobody to tell.
    drop(writeln!(std::io::stderr(), "picket-master: {error:#}"));
    ExitCode::from(code)
}
