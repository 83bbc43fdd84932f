//! An agent as a process, with its own state directory.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use picket_agent::identity::{Identity, IdentityStore};
use picket_failpoint::ENVIRONMENT;
use serde_json::Value;

use super::{
    binary::binary,
    master::STOPS,
    program::{Program, Said, Stopped, command, run},
    wait::until,
};

/// The deckies an agent may run.
#[derive(Debug, Clone)]
pub struct Deckies {
    /// The engine's socket.
    pub socket: PathBuf,
    /// The subnet of the bridge networks it may make.
    pub subnet: String,
}

/// A machine with an agent.
#[derive(Debug)]
pub struct Agent {
    /// The host's name.
    pub name: String,
    root: PathBuf,
    /// The bundle it was enrolled with.
    pub bundle: PathBuf,
    masters: Option<SocketAddr>,
    zerotier: Option<PathBuf>,
    deckies: Option<Deckies>,
    dies_at: Option<String>,
    program: Option<Program>,
}

impl Agent {
    /// A machine that keeps everything in `root`, with no ZeroTier and no Docker.
    #[must_use]
    pub fn new(name: &str, root: &Path, bundle: &Path) -> Self {
        fs::create_dir_all(root).expect("a temporary folder can be written");
        let agent = Self {
            name: name.to_owned(),
            root: root.to_owned(),
            bundle: bundle.to_owned(),
            masters: None,
            zerotier: None,
            deckies: None,
            dies_at: None,
            program: None,
        };
        agent.configure();
        agent
    }

    /// Has it dial `master` and not what its bundle says.
    #[must_use]
    pub fn dialling(mut self, master: SocketAddr) -> Self {
        self.dial(master);
        self
    }

    /// As [`Agent::dialling`], from its next start on.
    pub fn dial(&mut self, master: SocketAddr) {
        self.masters = Some(master);
        self.configure();
    }

    /// Has every program that is started on it from here on end itself at a point, or at none.
    pub fn dies_at(&mut self, point: Option<&str>) {
        self.dies_at = point.map(ToOwned::to_owned);
    }

    fn command(&self) -> Command {
        let mut command = command(&binary("picket-agent"));
        command.envs(self.dies_at.as_ref().map(|point| (ENVIRONMENT, point)));
        command
    }

    /// Has it use the ZeroTier service whose home is `home`.
    #[must_use]
    pub fn with_zerotier(mut self, home: &Path) -> Self {
        self.zerotier = Some(home.to_owned());
        self.configure();
        self
    }

    /// Has it run deckies.
    #[must_use]
    pub fn with_deckies(mut self, deckies: Deckies) -> Self {
        self.deckies = Some(deckies);
        self.configure();
        self
    }

    fn configure(&self) {
        let mut text = format!("state_dir = {:?}\n", self.state_dir());
        if let Some(master) = self.masters {
            text.push_str(&format!("master.addresses = [\"{master}\"]\n"));
        }
        match &self.zerotier {
            Some(home) => text.push_str(&format!("zerotier.home = {home:?}\nnetworks.allow = [\"*\"]\n")),
            None => text.push_str("zerotier.enabled = false\n"),
        }
        match &self.deckies {
            Some(Deckies { socket, subnet }) => text.push_str(&format!(
                "docker.socket = {socket:?}\n[[deckies.networks]]\ndriver = \"bridge\"\nsubnet = \"{subnet}\"\n"
            )),
            None => text.push_str("docker.enabled = false\n"),
        }
        fs::write(self.config(), text).expect("a temporary file can be written");
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("agent.toml")
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.root.join("state")
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.join("agent.log")).unwrap_or_default()
    }

    /// What `picket-agent enroll` answers.
    #[must_use]
    #[track_caller]
    pub fn enroll(&self) -> Said {
        self.ask(&["enroll", &self.bundle.display().to_string()])
    }

    /// What `picket-agent` answers, with this machine's configuration.
    #[must_use]
    #[track_caller]
    pub fn ask(&self, args: &[&str]) -> Said {
        run(self.command().args(args).arg("--config").arg(self.config()))
    }

    /// Starts it.
    #[track_caller]
    pub fn start(&mut self) {
        let mut command = self.command();
        command.arg("run").arg("--config").arg(self.config());
        let log = self.root.join("agent.log");
        self.program = Some(Program::start(
            &format!("the agent of {}", self.name),
            &mut command,
            &log,
        ));
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn program(&mut self) -> &mut Program {
        self.program.as_mut().expect("the agent runs")
    }

    /// `kill -9`.
    #[track_caller]
    pub fn kill(&mut self) {
        self.program().kill();
        self.program = None;
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn stop(&mut self) -> Stopped {
        let stopped = self.program().stop(STOPS);
        self.program = None;
        stopped
    }

    /// What `picket-agent status -o json` shows.
    ///
    /// # Errors
    /// What it said when there is no status.
    #[track_caller]
    pub fn status(&self) -> Result<Value, String> {
        let said = self.ask(&["status", "-o", "json"]);
        serde_json::from_str(&said.stdout).map_err(|_| said.stderr)
    }

    /// Waits until it stands so with its master (connected, refused, banned, ...), and returns its status.
    ///
    /// # Panics
    /// When it does not within `bound`.
    #[track_caller]
    pub fn until_standing(&self, state: &str, bound: Duration) -> Value {
        until(
            &format!("the agent of {} to be {state}", self.name),
            bound,
            || {
                let status = self.status()?;
                if status["master"]["state"] == state {
                    Ok(status)
                } else {
                    Err(status.to_string())
                }
            },
        )
    }

    /// The identity it has, from its own files.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn identity(&self) -> Identity {
        let store = IdentityStore::open(self.state_dir().join("identity"))
            .expect("an enrolled machine has an identity");
        let found = store.load().expect("an enrolled machine's identity can be read");
        found.current.expect("an enrolled machine has an identity in use")
    }
}
