//! The site: one master, the machines around it, the time, and what an operator does and sees.

mod audit;
mod ca;
mod clock;
mod deployments;
mod events;
mod governing;
mod hosts;
mod kills;
mod metrics;
mod moons;
mod networks;
mod nodes;
mod operators;
mod people;
mod store;

pub use self::{
    audit::intact,
    deployments::Branch,
    governing::{members_by_label, naming},
    kills::{KillWatch, killed},
    operators::{change_role, revoke},
    people::Person,
};

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use picket_clock::Clock;
use picket_link::{Options, Pipes, Wire, connect};
use picket_master::{
    Doors, RunError,
    config::Config,
    init::{Plan, init},
    local,
    signer::CaKey,
    store::Store,
};
use picket_pki::Bundle;
use picket_settings::Settings;
use picket_zerotier::fake::{FakeCentral, Lab};
use tokio::{sync::oneshot, task::JoinHandle, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Response, Status, transport::Channel};

use crate::{host::Host, line::Line, sentence};

/// How long a host may be silent before it is offline.
pub const GRACE: Duration = Duration::from_secs(100);
/// How long a state may take to come about, in simulated time.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a story looks.
const LOOK: Duration = Duration::from_millis(250);
/// How long a call of an operator may take, in simulated time.
const CALL: Duration = Duration::from_secs(30);
/// An operator's connection is not used again when it had no call for this long: the master closes it soon.
const REUSED: Duration = Duration::from_secs(200);
/// Where agents dial.
pub(crate) const AGENTS: &str = "master.example.org:7443";
/// Where operators dial.
pub(crate) const ADMIN: &str = "127.0.0.1:7444";
/// Where metrics are read.
const MONITOR: &str = "127.0.0.1:7445";
/// What `master.toml` says about the CA's key unless a story says otherwise: unlocking one takes longer than a story.
const PLAIN: &str = "ca.key = \"plain\"";
/// An arbitrary day, the one the simulated ZeroTier site starts on.
const EPOCH: &str = "2026-11-22T20:05:28Z";

/// A site.
pub struct Site {
    /// The clock of the master's machine. Every other machine has its own.
    pub clock: Clock,
    /// The clock of the operator's machine.
    pub office: Clock,
    pub(crate) pipes: Pipes,
    lab: Lab,
    central: FakeCentral,
    root: tempfile::TempDir,
    settings: String,
    /// The lines of `master.toml` about the CA's key.
    ca: String,
    master: Mutex<Option<Master>>,
    operator: Wire,
    channel: Mutex<Option<(Channel, time::Instant)>>,
    addresses: AtomicU8,
}

/// A running master.
struct Master {
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
    store: Store,
}

impl Site {
    /// A site with a running master and nobody else, past the time in which a master that started accuses nobody.
    pub async fn new() -> Self {
        Self::with_settings("").await
    }

    /// A site whose master has these lines in its `master.toml`.
    pub async fn with_settings(lines: &str) -> Self {
        Self::with_ca_key(PLAIN, lines).await
    }

    /// A site whose master has these lines about its CA's key in its `master.toml`, and these others.
    pub async fn with_ca_key(ca: &str, lines: &str) -> Self {
        let site = Self::initialised(ca, lines).await;
        site.start_master().await;
        site.wait(GRACE).await;
        site
    }

    /// A site whose master has an account in ZeroTier Central.
    pub async fn in_central() -> Self {
        let mut site = Self::initialised(PLAIN, "").await;
        let token = site.root.path().join("central.token");
        picket_durable::write_private(&token, site.central.token().expose().as_bytes())
            .expect("a site's directory takes a file");
        site.settings = format!("central.token_file = {token:?}");
        site.start_master().await;
        site.wait(GRACE).await;
        site
    }

    /// A site whose master has never run.
    async fn initialised(ca: &str, lines: &str) -> Self {
        let pipes = Pipes::new();
        let clock = Clock::simulated(EPOCH.parse().expect("a time"));
        let site = Self {
            office: clock.skewed(0),
            clock,
            operator: pipes.wire(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_000)),
            pipes,
            lab: Lab::new(),
            central: FakeCentral::new(),
            root: directory(),
            settings: lines.to_owned(),
            ca: ca.to_owned(),
            master: Mutex::default(),
            channel: Mutex::default(),
            addresses: AtomicU8::new(1),
        };
        let plan = Plan {
            data_dir: site.data_dir(),
            trust_domain: "example.org".parse().expect("a trust domain"),
            names: vec!["master.example.org".to_owned()],
            addresses: vec![AGENTS.to_owned()],
            admin_addresses: vec![ADMIN.to_owned()],
            ca: site.config().ca,
        };
        init(&plan, &site.clock)
            .await
            .unwrap_or_else(|error| panic!("init: {}", sentence(&error)));
        site
    }

    /// Starts the master and waits until its doors are open.
    pub async fn start_master(&self) {
        let config = self.config();
        let store = Store::open(&config.data_dir, self.clock.clone()).await;
        let store = store.unwrap_or_else(|error| panic!("open the store: {}", sentence(&error)));
        let doors = Doors {
            agents: self.pipes.listen(AGENTS).boxed(),
            admin: self.pipes.listen(ADMIN).boxed(),
            monitor: self.pipes.listen(MONITOR).boxed(),
            central: Some(self.central.dial()),
            local: false,
        };
        let (stop, (open, opened)) = (CancellationToken::new(), oneshot::channel());
        let ready = move || open.send(()).expect("the story waits for it");
        let run = picket_master::run(
            config,
            store.clone(),
            doors,
            self.clock.clone(),
            ready,
            stop.clone(),
        );
        let task = TaskTracker::new().spawn(run);
        opened.await.expect("the master opens its doors");
        *self.master() = Some(Master { stop, task, store });
    }

    fn config(&self) -> Config {
        let text = format!("data_dir = {:?}\n{}\n{}", self.data_dir(), self.ca, self.settings);
        let settings =
            Settings::from_text(&text, "master.toml".as_ref()).expect("a story's settings are TOML");
        Config::resolve(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Stops the master as the service manager does, waits for it, and returns how long that took.
    pub async fn stop_master(&self) -> Duration {
        let asked = time::Instant::now();
        let Master { stop, task, store } = self.master().take().expect("the master runs");
        drop(store);
        stop.cancel();
        let end = task.await.expect("a master does not panic");
        end.unwrap_or_else(|error| panic!("the master: {}", sentence(&error)));
        *self.channel() = None;
        asked.elapsed()
    }

    /// Ends the master, however it takes that.
    pub(crate) async fn end_master(&self) {
        let Master { stop, task, store } = self.master().take().expect("the master runs");
        drop(store);
        stop.cancel();
        drop(task.await);
        *self.channel() = None;
    }

    /// Stops the master and starts it on what it has on disk.
    pub async fn restart_master(&self) {
        self.stop_master().await;
        self.start_master().await;
    }

    /// Ends the master as a power failure does, and starts it on what is on its disk at that moment.
    pub async fn crash_master(&self) {
        let (disk, dir) = (self.root.path().join("disk"), self.data_dir());
        crate::host::copy(&dir, &disk);
        self.stop_master().await;
        std::fs::remove_dir_all(&dir).expect("the master has a data directory");
        std::fs::rename(&disk, &dir).expect("and its disk was copied");
        self.start_master().await;
    }

    /// Gets the operator in again, as `picket-master admin-bundle` does while no master runs.
    pub async fn renew_admin_bundle(&self) {
        self.stop_master().await;
        let out = self.data_dir().join("admin.bundle");
        let (dir, device) = (self.data_dir(), local::first_device());
        let made = local::admin_bundle(&dir, "admin", &device, &out, &CaKey::Plain, &self.clock).await;
        made.unwrap_or_else(|error| panic!("admin-bundle: {}", sentence(&error)));
        self.start_master().await;
    }

    /// The master's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.root.path().join("master")
    }

    /// Another operator's way to the master.
    #[must_use]
    pub fn office(&self) -> Wire {
        self.operator.clone()
    }

    /// A machine that is not enrolled.
    #[must_use]
    pub fn machine(&self, name: &str) -> Host {
        let number = self.addresses.fetch_add(1, Ordering::Relaxed);
        let line = Line::new(&self.pipes, ([10, 0, 0, number], 40_000).into());
        let directory = self.root.path().join(format!("{name}-{number}"));
        Host::new(name, directory, line, self.office.skewed(0), self.lab.clone())
    }

    /// Enrolls a machine of this name, starts its agent and waits until it is online.
    pub async fn enroll(&self, name: &str) -> Host {
        self.bring_in(self.machine(name)).await
    }

    /// Enrolls a machine, starts its agent and waits until it is online.
    pub async fn bring_in(&self, host: Host) -> Host {
        let bundle = self.bundle(&host.name).await;
        let enrolled = host.enroll(&bundle).await;
        enrolled.unwrap_or_else(|error| panic!("enroll {}: {}", host.name, sentence(&error)));
        host.start();
        self.until(&host.name, crate::HostState::Online).await;
        host
    }

    /// Lets time pass.
    pub async fn wait(&self, span: Duration) {
        time::sleep(span).await;
    }

    /// The simulated ZeroTier site.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The simulated ZeroTier Central.
    #[must_use]
    pub fn central(&self) -> &FakeCentral {
        &self.central
    }

    /// Makes a call of an operator and returns its answer.
    ///
    /// # Errors
    /// What the master refuses.
    pub(crate) async fn ask<T>(
        &self,
        call: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let channel = self.dial_admin().await;
        let answer = time::timeout(CALL, call(channel)).await;
        Ok(answer
            .unwrap_or_else(|_| panic!("the master does not answer an operator within {CALL:?}"))?
            .into_inner())
    }

    /// Makes a call that is not refused.
    pub(crate) async fn told<T>(&self, call: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>) -> T {
        self.ask(call)
            .await
            .unwrap_or_else(|status| panic!("the master refuses: {} ({:?})", status.message(), status.code()))
    }

    /// The operator's connection, made when there is none.
    async fn dial_admin(&self) -> Channel {
        let open = self.channel().clone();
        if let Some((channel, last)) = open
            && last.elapsed() < REUSED
        {
            *self.channel() = Some((channel.clone(), time::Instant::now()));
            return channel;
        }
        let bundle = self.admin_bundle();
        let tls = crate::stranger::tls(&bundle, &self.office);
        let connected = connect(&self.operator, &bundle.masters, tls, Options::default()).await;
        let channel = connected
            .unwrap_or_else(|error| panic!("the operator: {}", sentence(&error)))
            .channel;
        *self.channel() = Some((channel.clone(), time::Instant::now()));
        channel
    }

    pub(crate) fn admin_bundle(&self) -> Bundle {
        let file = self.data_dir().join("admin.bundle");
        let text = std::fs::read(file).expect("`init` wrote an admin bundle");
        Bundle::parse(&text).expect("that is one")
    }

    fn master(&self) -> MutexGuard<'_, Option<Master>> {
        self.master.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self) -> MutexGuard<'_, Option<(Channel, time::Instant)>> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory in memory where the machine has one: a day has thousands of flushes, and no story is about the disk.
fn directory() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory
        .or_else(|_| tempfile::tempdir())
        .expect("the machine has room for a site")
}

/// Waits until `look` gives something. Gives up after a while of simulated time, and says what was seen last.
///
/// # Panics
/// When it gives up.
pub async fn until<T, E: std::fmt::Display>(what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let give_up = time::Instant::now() + PATIENCE;
    loop {
        let seen = match look().await {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(
            time::Instant::now() < give_up,
            "waited {PATIENCE:?} for {what}; the last look showed: {seen}"
        );
        time::sleep(LOOK).await;
    }
}
