//! A small site in one process: a master with state that speaks real TLS and real gRPC over pipes, a simulated ZeroTier
//! site, and machines whose agents run the same code as the daemon.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it, and none is its outside"
)]

pub mod controlled;
pub mod master;
pub mod overlay;

use std::{path::PathBuf, sync::Arc, time::Duration};

use picket_agent::{
    Farewell, Parts, RunError,
    config::Config,
    deckies::{engine::Engine, fake::FakeEngine},
    enroll::{EnrollError, Enrolled, Tools, enroll},
    machine::Machine,
    witness::fake::FakeProber,
    zerotier::Reach,
};
use picket_clock::Clock;
use picket_link::{Dial, Pipes, Wire};
use picket_settings::Settings;
use picket_zerotier::{NetworkId, NodeId, fake::Lab, service::Service};
use tokio::{task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

use self::master::Master;

/// How long a state may take to come about, in simulated time.
const PATIENCE: Duration = Duration::from_secs(180);
/// Lets the master put a machine on every network.
pub const ANY_NETWORK: &str = "networks.allow = [\"*\"]\n";
const LOOK: Duration = Duration::from_millis(100);

pub struct Site {
    pub clock: Clock,
    pub pipes: Pipes,
    pub master: Master,
    pub lab: Lab,
    root: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
        let pipes = Pipes::new();
        Self {
            master: Master::start(&pipes, clock.clone()),
            clock,
            pipes,
            lab: Lab::new(),
            root: tempfile::tempdir().unwrap(),
        }
    }

    /// A machine with a ZeroTier node, and a bundle for it.
    pub fn machine(&self, name: &str) -> Worker {
        let node = self.lab.grow();
        let directory = self.root.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        let bundle = directory.join("bundle");
        picket_durable::write_private(&bundle, &self.master.bundle(name)).unwrap();
        let number = u8::try_from(node.to_u64() & 0x7f).unwrap();
        Worker {
            name: name.to_owned(),
            node,
            bundle,
            state: directory.join("state"),
            settings: ANY_NETWORK.to_owned(),
            wire: self.pipes.wire(([10, 0, 0, number], 40_000).into()),
            clock: self.clock.clone(),
            zerotier: self.lab.service(node),
            overlay: None,
            reach: None,
            prober: FakeProber::default(),
            docker: None,
            running: None,
        }
    }

    /// A machine that is enrolled and whose agent runs.
    pub async fn worker(&self, name: &str) -> Worker {
        let mut worker = self.machine(name);
        worker.enroll().await.unwrap();
        worker.start();
        worker
    }
}

/// Waits until `seen` gives something. Gives up after [`PATIENCE`] and says what was waited for.
pub async fn until<T>(what: &str, mut seen: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = seen().await {
            return found;
        }
        assert!(time::Instant::now() < give_up, "waited {PATIENCE:?} for: {what}");
        time::sleep(LOOK).await;
    }
}

pub struct Worker {
    pub name: String,
    pub node: NodeId,
    pub bundle: PathBuf,
    pub state: PathBuf,
    /// More lines for its `agent.toml`.
    pub settings: String,
    pub wire: Wire,
    pub clock: Clock,
    pub zerotier: Service,
    /// Its way to the master, when that is no plain wire.
    pub overlay: Option<Arc<dyn Dial>>,
    /// How its agent reaches its ZeroTier service, when not in memory.
    pub reach: Option<Reach>,
    /// Who answers it.
    pub prober: FakeProber,
    /// Its Docker Engine.
    pub docker: Option<Arc<FakeEngine>>,
    running: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    agent: JoinHandle<Result<Farewell, RunError>>,
}

impl Worker {
    /// Gives it a home of a ZeroTier service, which is empty.
    pub fn home(&mut self) -> PathBuf {
        let home = self.state.with_file_name("zerotier");
        std::fs::create_dir(&home).unwrap();
        self.settings += &format!("zerotier.home = {home:?}\n");
        home
    }

    pub fn config(&self) -> Config {
        let text = format!("state_dir = {:?}\n{}", self.state, self.settings);
        let empty = figment::providers::Serialized::defaults(figment::value::Dict::new());
        let settings = Settings::from_layers(&text, "agent.toml".as_ref(), empty, &[]).unwrap();
        Config::resolve(settings).unwrap()
    }

    fn machine(&self) -> Arc<Machine> {
        Arc::new(Machine {
            machine_id: self.name.clone(),
            boot_id: "boot".into(),
            instance_id: *uuid::Uuid::new_v4().as_bytes(),
            hostname: self.name.clone(),
            os: "Linux".into(),
            kernel: "6.12".into(),
        })
    }

    pub async fn enroll(&self) -> Result<Enrolled, EnrollError> {
        let tools = Tools {
            clock: self.clock.clone(),
            dial: Arc::new(self.wire.clone()),
            machine: self.machine(),
        };
        enroll(&self.bundle, &[], &self.config(), &tools).await
    }

    pub fn start(&mut self) {
        let plain = || Arc::new(self.wire.clone()) as Arc<dyn Dial>;
        let in_memory = || Reach::Service(self.zerotier.clone());
        let parts = Parts {
            clock: self.clock.clone(),
            dial: self.overlay.clone().unwrap_or_else(plain),
            zerotier: Some(self.reach.clone().unwrap_or_else(in_memory)),
            prober: Arc::new(self.prober.clone()),
            engine: self.docker.clone().map(|engine| engine as Arc<dyn Engine>),
            machine: self.machine(),
        };
        let stop = CancellationToken::new();
        let agent = tokio::task::spawn(picket_agent::run(self.config(), parts, stop.clone()));
        self.running = Some(Running { stop, agent });
    }

    /// Tells the agent to stop, and returns how it went.
    pub async fn stop(&mut self) -> Result<Farewell, RunError> {
        let running = self.running.take().unwrap();
        running.stop.cancel();
        running.agent.await.unwrap()
    }

    /// Waits until the agent ends by itself.
    pub async fn ends(&mut self) -> Result<Farewell, RunError> {
        let running = self.running.take().unwrap();
        time::timeout(PATIENCE, running.agent)
            .await
            .expect("the agent ends by itself")
            .unwrap()
    }

    /// Ends the agent as a power failure would.
    pub async fn kill(&mut self) {
        let running = self.running.take().unwrap();
        running.agent.abort();
        drop(running.agent.await);
    }

    pub async fn networks(&self) -> Vec<NetworkId> {
        let networks = self.zerotier.node().networks().await.unwrap();
        networks.into_iter().map(|network| network.id).collect()
    }

    pub async fn until_on(&self, wanted: &[NetworkId]) {
        until(&format!("{} to be on {wanted:?}", self.name), async || {
            let mut on = self.networks().await;
            on.sort_unstable();
            (on == wanted).then_some(())
        })
        .await;
    }
}
