//! What identity costs a master: handshakes and renewals in a second, and how long a ban takes until its session is cut.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use picket_clock::{Clock, Instant};
use picket_link::{LinkError, Options, Tcp, connect};
use picket_pki::{Bundle, BundleError, client_config};
use picket_proto::wire::admin::{BanHostRequest, host_service_client::HostServiceClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use crate::{
    agent::{Agent, AgentError},
    figures::{micros, percentile},
    load::{self, LoadError},
    process::{self, Machine, ProcError},
    run::{RunError, fits},
    server::{Server, ServerError},
    site::{Host, Site, SiteError},
};

/// So many handshakes, renewals and bans go on at once.
const AT_ONCE: usize = 64;
/// How long one handshake may take on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// This program, which is the bare server too.
    pub bare: PathBuf,
    /// `picket-master`.
    pub master: PathBuf,
    /// How many hosts connect, renew, and are banned.
    pub hosts: u32,
    /// What was built.
    pub commit: String,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The fleet does not fit, or there is no folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// No site.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// No server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// No fleet.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A handshake failed.
    #[error("a handshake failed")]
    Handshake(#[source] LinkError),
    /// An agent failed.
    #[error("an agent failed")]
    Agent(#[from] AgentError),
    /// The operator's bundle cannot be used.
    #[error("read the operator's bundle at {}", path.display())]
    Operator {
        /// Where.
        path: PathBuf,
        /// What happened.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The master does not ban.
    #[error("the master refuses to ban: {} ({:?})", .0.message(), .0.code())]
    Ban(Box<Status>),
    /// The kernel does not say.
    #[error(transparent)]
    Proc(#[from] ProcError),
}

/// Handshakes of one server.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Handshakes {
    /// In a second, both ends on this machine.
    pub per_second: f64,
    /// Of the server's processors, for each.
    pub cpu_us: f64,
}

/// How long bans took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bans {
    /// From before the operator asks until the agent sees its session end.
    pub p50_us: u64,
    /// The same.
    pub p99_us: u64,
    /// The same.
    pub most_us: u64,
    /// All of them together.
    pub wall_us: u64,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// When.
    pub at: jiff::Timestamp,
    /// What was built.
    pub commit: String,
    /// On what.
    pub machine: Machine,
    /// Of the machine, before and after.
    pub load: [f64; 2],
    /// How many hosts.
    pub hosts: u32,
    /// The server without a store, pins or a log.
    pub bare: Handshakes,
    /// The master.
    pub master: Handshakes,
    /// Renewals in a second: a signature and a durable commit each.
    pub renewals_per_second: f64,
    /// Bans.
    pub bans: Bans,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| Duration::from_micros(us).as_secs_f64() * 1000.0;
        writeln!(
            f,
            "{} hosts, commit {}, {} cores of {}, load {:.1} before and {:.1} after",
            self.hosts, self.commit, self.machine.cores, self.machine.processor, self.load[0], self.load[1]
        )?;
        for (name, handshakes) in [("bare server", self.bare), ("master", self.master)] {
            writeln!(
                f,
                "handshakes, {name}: {:.0}/s, {:.0} us of the server's processors each",
                handshakes.per_second, handshakes.cpu_us
            )?;
        }
        writeln!(
            f,
            "handshakes, master over bare: {:.2} of the processor time",
            self.master.cpu_us / self.bare.cpu_us
        )?;
        writeln!(f, "renewals: {:.0}/s", self.renewals_per_second)?;
        write!(
            f,
            "ban until the session is cut, {AT_ONCE} at once: p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms; all in {:.1} ms",
            ms(self.bans.p50_us),
            ms(self.bans.p99_us),
            ms(self.bans.most_us),
            ms(self.bans.wall_us)
        )
    }
}

/// Measures. Everything it makes is in a temporary folder and gone at the end.
///
/// # Errors
/// When the server or a single agent fails.
pub async fn measure(plan: &Plan, clock: &Clock) -> Result<Measured, IdentityError> {
    fits(plan.hosts, process::descriptors())?;
    let (at, before) = (clock.now(), process::load()?);
    let folder = tempfile::tempdir().map_err(RunError::Folder)?;

    let dir = folder.path().join("bare");
    fs::create_dir(&dir).map_err(RunError::Folder)?;
    let site = Site::bare(&dir, clock)?;
    let hosts = site.hosts(plan.hosts)?;
    let server = Server::bare(&plan.bare, &dir).await?;
    let bare = handshakes(&server, &site, &hosts).await?;
    server.stop().await;

    let dir = folder.path().join("master");
    let site = Site::master(&dir, clock).await?;
    let hosts = site.hosts(plan.hosts)?;
    site.enroll(&hosts).await?;
    let server = Server::master(&plan.master, &dir).await?;
    let master = handshakes(&server, &site, &hosts).await?;
    let address = server.address.to_string();
    let fleet = load::open(&address, &Arc::new(site), hosts, 0).await?;
    let (fleet, renewals_per_second) = renewals(fleet.into_agents()).await?;
    let operator = operator(&dir, &server.admin.to_string(), clock).await?;
    let bans = bans(operator, fleet).await?;
    server.stop().await;
    Ok(Measured {
        at,
        commit: plan.commit.clone(),
        machine: Machine::this()?,
        load: [before, process::load()?],
        hosts: plan.hosts,
        bare,
        master,
        renewals_per_second,
        bans,
    })
}

/// Opens a connection for each host and closes it again.
async fn handshakes(server: &Server, site: &Site, hosts: &[Host]) -> Result<Handshakes, IdentityError> {
    let (address, options) = (
        [server.address.to_string()],
        Options {
            deadline: PATIENCE,
            ..Options::default()
        },
    );
    let dialling: Vec<_> = hosts
        .iter()
        .map(|host| site.tls(host))
        .collect::<Result<_, _>>()?;
    let cpu = process::cpu(server.pid())?;
    let began = Instant::now();
    stream::iter(dialling)
        .map(|tls| connect(&Tcp { deadline: PATIENCE }, &address, tls, options))
        .buffer_unordered(AT_ONCE)
        .try_for_each(|connected| async move {
            drop(connected);
            Ok(())
        })
        .await
        .map_err(IdentityError::Handshake)?;
    let wall = began.elapsed();
    let cpu = process::cpu(server.pid())?.saturating_sub(cpu);
    let many = count(hosts.len());
    Ok(Handshakes {
        per_second: many / wall.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / many,
    })
}

/// Has each agent's certificate renewed, over the connection of its session.
///
/// # Errors
/// When the master refuses one.
pub async fn renewals(agents: Vec<Agent>) -> Result<(Vec<Agent>, f64), AgentError> {
    let many = count(agents.len());
    let began = Instant::now();
    let agents = stream::iter(agents)
        .map(|agent| async move { agent.renew().await.map(|()| agent) })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok((agents, many / began.elapsed().as_secs_f64()))
}

/// The operator whose bundle `init` left in `dir`, at the admin listener.
///
/// # Errors
/// When the bundle cannot be used, or the listener does not answer.
pub async fn operator(dir: &Path, admin: &str, clock: &Clock) -> Result<Channel, IdentityError> {
    let path = dir.join("admin.bundle");
    let broken = |cause: Box<dyn std::error::Error + Send + Sync>| IdentityError::Operator {
        path: path.clone(),
        cause,
    };
    let text = fs::read(&path).map_err(|error| broken(error.into()))?;
    let bundle = Bundle::parse(&text).map_err(|error: BundleError| broken(error.into()))?;
    let site = Site::load(dir, clock)?;
    let clock = clock.clone();
    let tls = client_config(
        Arc::clone(site.authorities()),
        &bundle.certificate,
        &bundle.key,
        Arc::new(move || clock.unix()),
    );
    let tls = Arc::new(tls.map_err(SiteError::from)?);
    let connected = connect(&Tcp::default(), &[admin.to_owned()], tls, Options::default()).await;
    Ok(connected.map_err(IdentityError::Handshake)?.channel)
}

/// Bans every host, `AT_ONCE` at once, and waits until each sees its session end.
///
/// # Errors
/// When the master refuses, or a session does not end.
pub async fn bans(operator: Channel, agents: Vec<Agent>) -> Result<Bans, IdentityError> {
    let began = Instant::now();
    let mut took: Vec<Duration> = stream::iter(agents)
        .map(|agent| {
            let mut hosts = HostServiceClient::new(operator.clone());
            let request = BanHostRequest {
                name: agent.name(),
                reason: "a bench".to_owned(),
            };
            async move {
                let began = Instant::now();
                let cut = async { agent.until_cut().await.map_err(IdentityError::from) };
                let ban = async {
                    let banned = hosts.ban_host(request).await;
                    banned.map_err(|status| IdentityError::Ban(Box::new(status)))
                };
                let (cut, _) = tokio::try_join!(cut, ban)?;
                Ok::<_, IdentityError>(cut.duration_since(began))
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let wall = began.elapsed();
    took.sort_unstable();
    Ok(Bans {
        p50_us: micros(percentile(&took, 50)),
        p99_us: micros(percentile(&took, 99)),
        most_us: micros(took.last().copied().unwrap_or_default()),
        wall_us: micros(wall),
    })
}

/// For dividing; a fleet is far below 2^32.
fn count(many: usize) -> f64 {
    f64::from(u32::try_from(many).unwrap_or(u32::MAX))
}
