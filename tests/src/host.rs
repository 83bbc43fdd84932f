//! A worker machine: its ZeroTier node, its line to the master, and the agent on it.

use std::{
    fmt, fs,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use picket_agent::{
    Farewell, Parts, RunError,
    config::Config,
    deckies::{engine::Engine, fake::FakeEngine},
    enroll::{EnrollError, Enrolled, Tools, enroll, node as identities},
    machine::Machine,
    request::{RequestError, Which, request},
    state::status_file,
    status::{State, Status},
    witness::{Echo, Prober},
    zerotier::Reach,
};
use picket_clock::Clock;
use picket_pki::{Fingerprint, pem};
use picket_settings::Settings;
use picket_zerotier::{
    NetworkId, NodeId,
    address::from_rfc4193,
    controller::LocalController,
    dial::{Dial, Dialing},
    fake::Lab,
    home::{Home, Token},
    node,
    service::Service,
};
use tokio::{task::JoinHandle, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{line::Line, sentence, site::until};

/// A worker machine.
pub struct Host {
    /// What the master calls it, and its own host name.
    pub name: String,
    /// Its ZeroTier node.
    pub node: NodeId,
    /// Its line to the master.
    pub line: Line,
    /// Its wall clock.
    pub clock: Clock,
    /// Its Docker Engine.
    pub docker: Arc<FakeEngine>,
    lab: Lab,
    /// The node that answers as its ZeroTier service.
    speaks: Speaker,
    directory: PathBuf,
    settings: String,
    zerotier: bool,
    boots: AtomicU32,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: CancellationToken,
    agent: JoinHandle<Result<Farewell, RunError>>,
}

impl Host {
    pub(crate) fn new(name: &str, directory: PathBuf, line: Line, clock: Clock, lab: Lab) -> Self {
        fs::create_dir_all(&directory).expect("the site's directory takes another one");
        let node = lab.grow();
        put_identity(&directory, &lab, node);
        Self {
            name: name.to_owned(),
            node,
            line,
            clock,
            docker: Arc::new(engine()),
            speaks: Speaker::new(&lab, node),
            lab,
            directory,
            settings: DECKIES.to_owned(),
            zerotier: true,
            boots: AtomicU32::new(1),
            running: Mutex::default(),
        }
    }

    /// The machine without ZeroTier, for stories of days: its service is looked at every second.
    #[must_use]
    pub fn without_zerotier(mut self) -> Self {
        self.zerotier = false;
        self
    }

    /// The machine with a wall clock that is `seconds` ahead.
    #[must_use]
    pub fn skewed(mut self, seconds: i64) -> Self {
        self.clock = self.clock.skewed(seconds);
        self
    }

    /// The machine with these lines as its `agent.toml`, in place of those that allow deckies.
    #[must_use]
    pub fn with_settings(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.settings);
        self
    }

    /// The machine with a ZeroTier that was installed and has not run: there is no identity, and nothing answers.
    #[must_use]
    pub fn before_zerotier_ran(self) -> Self {
        self.lose_identity();
        self.stop_zerotier();
        self
    }

    /// Gives the machine a ZeroTier identity, as `picket-agent enroll` does at its end. From here on that is its node,
    /// whose service has yet to run for the first time.
    ///
    /// # Panics
    /// When it has one.
    pub fn make_identity(&mut self) {
        let home = Home::new(self.zerotier_home());
        let made = identities::provide(&home, None).expect("a machine's directory takes an identity");
        assert!(
            matches!(made, identities::NodeIdentity::Made(_)),
            "it had one: {made:?}"
        );
        self.node = self.lab.add_identity(home.identity().expect("it was just made"));
        self.stop_zerotier();
        self.says_it_is(self.node);
    }

    /// Enrolls the machine, as `picket-agent enroll FILE` does.
    ///
    /// # Errors
    /// As that does.
    pub async fn enroll(&self, bundle: &[u8]) -> Result<Enrolled, EnrollError> {
        self.enroll_expecting(bundle, &[]).await
    }

    /// Enrolls the machine, as `picket-agent enroll FILE --expect-ca FINGERPRINT` does.
    ///
    /// # Errors
    /// As that does.
    pub async fn enroll_expecting(
        &self,
        bundle: &[u8],
        authorities: &[Fingerprint],
    ) -> Result<Enrolled, EnrollError> {
        let file = self.directory.join("bundle");
        picket_durable::write_private(&file, bundle).expect("the machine's directory takes a file");
        let tools = Tools {
            clock: self.clock.clone(),
            dial: Arc::new(self.line.clone()),
            machine: self.machine(),
        };
        enroll(&file, authorities, &self.config(), &tools).await
    }

    /// Makes a certificate request, as `picket-agent request --out FILE` does, and returns it in DER.
    ///
    /// # Errors
    /// As that does.
    pub fn request(&self, which: Which) -> Result<Vec<u8>, RequestError> {
        let file = self.directory.join("host.csr");
        request(&file, &self.config(), which)?;
        let text = fs::read(&file).expect("it was written");
        Ok(pem::request_from_pem(&text).expect("in PEM"))
    }

    /// Starts the agent, as `picket-agent run` does.
    pub fn start(&self) {
        let parts = Parts {
            clock: self.clock.clone(),
            dial: Arc::new(self.line.clone()),
            zerotier: self.zerotier.then(|| Reach::Service(self.speaks.service())),
            engine: Some(Arc::clone(&self.docker) as Arc<dyn Engine>),
            prober: Arc::new(Asker(self.speaks.clone())),
            machine: self.machine(),
        };
        let stop = CancellationToken::new();
        let agent = TaskTracker::new().spawn(picket_agent::run(self.config(), parts, stop.clone()));
        *self.running() = Some(Running { stop, agent });
    }

    /// Stops the agent as the service manager does, and waits for it.
    pub async fn stop(&self) {
        let running = self.take();
        running.stop.cancel();
        let end = running.agent.await.expect("an agent does not panic");
        end.unwrap_or_else(|error| panic!("{}: {}", self.name, sentence(&error)));
    }

    /// Ends the agent as a power failure does.
    pub async fn power_off(&self) {
        let running = self.take();
        running.agent.abort();
        drop(running.agent.await);
    }

    /// Ends the agent if it runs, however it takes that.
    pub(crate) async fn end(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.agent.abort();
            drop(running.agent.await);
        }
    }

    /// The machine starts again after [`Self::power_off`], and so does its agent.
    pub fn boot(&self) {
        self.boots.fetch_add(1, Ordering::Relaxed);
        self.start();
    }

    /// Stops the agent and starts it.
    pub async fn restart(&self) {
        self.stop().await;
        self.start();
    }

    /// Waits until the agent ends by itself, and returns why it did.
    pub async fn farewell(&self) -> Farewell {
        let agent = self.take().agent;
        let end = time::timeout(PATIENCE, agent).await;
        let end = end.unwrap_or_else(|_| panic!("{}'s agent does not end by itself", self.name));
        end.expect("an agent does not panic")
            .unwrap_or_else(|error| panic!("{}: {}", self.name, sentence(&error)))
    }

    /// Breaks the line to the master.
    pub fn unplug(&self) {
        self.line.cut();
    }

    /// Makes the line to the master whole.
    pub fn plug_in(&self) {
        self.line.mend();
    }

    /// What `picket-agent status` shows.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        Status::read(&status_file(&self.state()))
    }

    /// Waits until the agent says that it stands so with its master, and returns what it says is wrong.
    pub async fn until(&self, state: State) -> String {
        until(&format!("{} to be {state:?}", self.name), async || {
            let master = self.status().ok_or("it has no status")?.master;
            let problem = master.problem.unwrap_or_default();
            if master.state == state {
                Ok(problem)
            } else {
                Err(format!("{:?}: {problem}", master.state))
            }
        })
        .await
    }

    /// Waits until the machine is on exactly these ZeroTier networks and admitted to them.
    pub async fn until_on(&self, networks: &[NetworkId]) {
        let mut wanted = networks.to_vec();
        wanted.sort_unstable();
        until(&format!("{} to be on {wanted:?}", self.name), async || {
            let mut joined = self.joined().await;
            joined.sort_unstable();
            let on: Vec<_> = joined.iter().map(|(network, _)| *network).collect();
            if on == wanted && joined.iter().all(|(_, status)| status == "OK") {
                Ok(())
            } else {
                Err(format!("{joined:?}"))
            }
        })
        .await;
    }

    /// The networks its ZeroTier node is on, with ZeroTier's word for how it stands there.
    pub async fn joined(&self) -> Vec<(NetworkId, String)> {
        let joined = self
            .zerotier()
            .node()
            .networks()
            .await
            .expect("a running node answers");
        joined
            .into_iter()
            .map(|network| (network.id, network.status.word().to_owned()))
            .collect()
    }

    /// Joins a network as somebody at the machine does, past Picket.
    pub async fn join_by_hand(&self, network: NetworkId) {
        let joined = self
            .zerotier()
            .node()
            .join(network, node::Settings::default())
            .await;
        joined.expect("a running node joins");
    }

    /// The machine's ZeroTier controller, as somebody who has its token uses it.
    #[must_use]
    pub fn controller(&self) -> LocalController {
        self.zerotier().controller(self.node)
    }

    /// Ends the machine's ZeroTier service.
    pub fn stop_zerotier(&self) {
        self.lab.stop(self.node);
    }

    /// Starts it.
    pub fn start_zerotier(&self) {
        self.lab.start(self.node);
    }

    /// Copies all that the agent keeps to another machine, as whoever clones a disk does.
    pub fn clone_to(&self, other: &Self) {
        copy(&self.state(), &other.state());
    }

    /// Where the agent keeps its state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Has its ZeroTier service say that it is another node. While the agent runs that must be one that no other machine is.
    pub fn says_it_is(&self, node: NodeId) {
        self.speaks.become_node(node);
    }

    /// Gives its ZeroTier service the identity of a node, secret and all; what it says is another matter.
    pub fn put_identity_of(&self, node: NodeId) {
        self.lose_identity();
        put_identity(&self.directory, &self.lab, node);
    }

    /// Makes the identity of its ZeroTier service unreadable.
    pub fn hide_identity(&self) {
        self.lose_identity();
        // A directory in the file's place: unreadable for root too.
        fs::create_dir(self.identity_file()).expect("a machine's directory takes another one");
    }

    fn lose_identity(&self) {
        let file = self.identity_file();
        if file.is_dir() {
            fs::remove_dir(file).expect("it is empty");
        } else {
            fs::remove_file(file).expect("there is one");
        }
    }

    fn identity_file(&self) -> PathBuf {
        self.zerotier_home().join("identity.secret")
    }

    /// Where its ZeroTier service keeps its identity.
    #[must_use]
    pub fn zerotier_home(&self) -> PathBuf {
        self.directory.join(ZEROTIER)
    }

    fn zerotier(&self) -> Service {
        self.lab.service(self.node)
    }

    fn config(&self) -> Config {
        let home = self.zerotier_home();
        let text = format!(
            "state_dir = {:?}\nzerotier.home = {home:?}\n{}",
            self.state(),
            self.settings
        );
        let settings =
            Settings::from_text(&text, "agent.toml".as_ref()).expect("a story's settings are TOML");
        Config::resolve(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn machine(&self) -> Arc<Machine> {
        Arc::new(Machine {
            machine_id: format!("machine-{}", self.node),
            boot_id: format!("boot-{}-{}", self.node, self.boots.load(Ordering::Relaxed)),
            instance_id: *uuid::Uuid::new_v4().as_bytes(),
            hostname: self.name.clone(),
            os: "Linux".to_owned(),
            kernel: "6.12".to_owned(),
        })
    }

    fn take(&self) -> Running {
        self.running()
            .take()
            .unwrap_or_else(|| panic!("{}'s agent does not run", self.name))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `agent.toml` allows on every machine, unless a story says otherwise.
const DECKIES: &str =
    "networks.allow = [\"*\"]\n[[deckies.networks]]\ndriver = \"bridge\"\nsubnet = \"10.77.0.0/16\"\n";

/// A ZeroTier service that can become another node.
#[derive(Clone)]
struct Speaker {
    lab: Lab,
    node: Arc<Mutex<NodeId>>,
    /// The token that an agent has read.
    token: Arc<OnceLock<Token>>,
}

impl Speaker {
    fn new(lab: &Lab, node: NodeId) -> Self {
        Self {
            lab: lab.clone(),
            node: Arc::new(Mutex::new(node)),
            token: Arc::default(),
        }
    }

    fn node(&self) -> NodeId {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn become_node(&self, node: NodeId) {
        if let Some(token) = self.token.get() {
            self.lab.set_token(node, token);
        }
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = node;
    }

    fn service(&self) -> Service {
        let token = self.token.get_or_init(|| self.lab.token(self.node()));
        Service::new(Arc::new(self.clone()), token.clone())
    }
}

impl Dial for Speaker {
    fn dial(&self) -> Dialing<'_> {
        let dial = self.lab.dial(self.node());
        Box::pin(async move { dial.dial().await })
    }
}

impl fmt::Debug for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service of node {}", self.node())
    }
}

/// Asks members of the simulated networks, as far as their addresses tell who they are.
struct Asker(Speaker);

impl Prober for Asker {
    fn probe(&self, address: IpAddr) -> BoxFuture<'_, Echo> {
        let who = match address {
            IpAddr::V6(address) => from_rfc4193(address),
            IpAddr::V4(_) => None,
        };
        let echo = match who {
            Some((network, node)) if self.0.lab.connected(network, self.0.node(), node) => Echo::Answered,
            Some(_) => Echo::Silence,
            None => Echo::Blind,
        };
        Box::pin(std::future::ready(echo))
    }
}

/// The home of a machine's ZeroTier service.
const ZEROTIER: &str = "zerotier";

/// Writes what a ZeroTier service keeps of its identity.
fn put_identity(directory: &std::path::Path, lab: &Lab, node: NodeId) {
    let home = directory.join(ZEROTIER);
    picket_durable::create_private_dir(&home).expect("a machine's directory takes another one");
    let identity = lab.secret(node).expect("a node that was grown has an identity");
    let text = identity.to_secret_text();
    picket_durable::write_private(home.join("identity.secret"), text.as_bytes()).expect("and a file");
}

/// An engine that has our image.
fn engine() -> FakeEngine {
    let engine = FakeEngine::new();
    engine.load_image(IMAGE);
    engine
}

/// The image of every decky.
pub const IMAGE: &str = "picket-decoy:latest";
/// How long an agent may take to end.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn copy(from: &std::path::Path, to: &std::path::Path) {
    picket_durable::create_private_dir(to).expect("a machine's directory takes another one");
    for entry in fs::read_dir(from).expect("an agent's state can be read") {
        let entry = entry.expect("and listed");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("and copied");
        }
    }
}
