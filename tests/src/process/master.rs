//! A master as a process, with an operator beside it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use picket_failpoint::ENVIRONMENT;
use serde_json::Value;

use super::{
    binary::binary,
    metrics::{self, Metrics},
    program::{Program, Said, Stopped, command, run},
    wait::until,
};

/// How long a master may take until its doors are open. It reads and checks its whole store before.
const OPENS: Duration = Duration::from_secs(20);
/// Silence is noticed within seconds, so that a test need not wait for minutes.
const QUICK: &str = "beat_interval = \"1s\"\n[liveness]\nlate_after = \"5s\"\noffline_after = \"12s\"\n";
/// How long a clean stop may take.
pub(crate) const STOPS: Duration = Duration::from_secs(10);

/// A master: its data directory, its settings, and its process when it runs.
#[derive(Debug)]
pub struct Master {
    root: PathBuf,
    /// The agents' door.
    pub agents: SocketAddr,
    /// The operators' door.
    pub admin: SocketAddr,
    /// Metrics and health.
    pub monitor: SocketAddr,
    /// The lines of its settings about the CA's key.
    ca: String,
    program: Option<Program>,
}

impl Master {
    /// Makes a master in `root` whose doors are on the loopback address `at`.
    ///
    /// # Panics
    /// When `picket-master init` fails.
    #[must_use]
    #[track_caller]
    pub fn init(root: &Path, at: Ipv4Addr) -> Self {
        Self::with_ca_key("ca.key = \"plain\"", root, at)
    }

    /// Makes a master in `root` whose settings have these lines about the CA's key.
    ///
    /// # Panics
    /// When `picket-master init` fails.
    #[must_use]
    #[track_caller]
    pub fn with_ca_key(ca: &str, root: &Path, at: Ipv4Addr) -> Self {
        let master = Self::not_yet(ca, root, at);
        drop(master.make().ok());
        master
    }

    /// A master that has its settings, and that nobody made yet.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    #[track_caller]
    pub fn not_yet(ca: &str, root: &Path, at: Ipv4Addr) -> Self {
        fs::create_dir_all(root).expect("a temporary folder can be written");
        let [agents, admin, monitor] = free(at);
        let master = Self {
            root: root.to_owned(),
            agents,
            admin,
            monitor,
            ca: ca.to_owned(),
            program: None,
        };
        master.configure(QUICK);
        master
    }

    /// Runs `picket-master init` by its settings.
    pub fn make(&self) -> Said {
        run(command(&binary("picket-master"))
            .arg("init")
            .arg("--config")
            .arg(self.config())
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--trust-domain", "example.org", "--name", "localhost"])
            .args([
                "--advertise",
                &self.agents.to_string(),
                "--admin-address",
                &self.admin.to_string(),
            ]))
    }

    /// Takes other lines about the CA's key into its settings.
    pub fn set_ca_key(&mut self, ca: &str) {
        ca.clone_into(&mut self.ca);
        self.configure(QUICK);
    }

    /// Writes its configuration: where everything is, and what `more` says.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn configure(&self, more: &str) {
        let Self {
            agents,
            admin,
            monitor,
            ca,
            ..
        } = self;
        let data = self.data_dir();
        let text = format!(
            "data_dir = {data:?}\n{ca}\nagents.listen = \"{agents}\"\nadmin.listen = \"{admin}\"\nmetrics.listen = \"{monitor}\"\n{more}"
        );
        fs::write(self.config(), text).expect("a temporary file can be written");
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("master.toml")
    }

    /// Its first admin bundle.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.data_dir().join("admin.bundle")
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.join("master.log")).unwrap_or_default()
    }

    /// Starts it and waits until its doors are open.
    ///
    /// # Panics
    /// When they do not open.
    #[track_caller]
    pub fn start(&mut self) {
        self.start_to_die_at(None);
    }

    /// Starts it, to end itself at a point, and waits until its doors are open.
    ///
    /// # Panics
    /// When they do not open.
    #[track_caller]
    pub fn start_to_die_at(&mut self, point: Option<&str>) {
        let mut command = command(&binary("picket-master"));
        command.arg("run").arg("--config").arg(self.config());
        command.envs(point.map(|point| (ENVIRONMENT, point)));
        let mut program = Program::start("the master", &mut command, &self.root.join("master.log"));
        until("the master's doors to open", OPENS, || {
            assert!(program.ended().is_none(), "the master ended: {}", program.log());
            metrics::get(self.monitor, "/readyz")
                .map(drop)
                .map_err(|error| error.to_string())
        });
        self.program = Some(program);
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn program(&mut self) -> &mut Program {
        self.program.as_mut().expect("the master runs")
    }

    /// `kill -9`.
    #[track_caller]
    pub fn kill(&mut self) {
        self.program().kill();
        self.program = None;
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it runs on.
    #[track_caller]
    pub fn until_dead(&mut self, bound: Duration) {
        until("the master to be dead", bound, || match self.program().ended() {
            Some(_) => Ok(()),
            None => Err("it runs".to_owned()),
        });
        self.program = None;
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn stop(&mut self) -> Stopped {
        let stopped = self.program().stop(STOPS);
        self.program = None;
        stopped
    }

    /// What `picket-master VERB` answers, with this master's data directory.
    #[must_use]
    #[track_caller]
    pub fn local(&self, verb: &str, args: &[&str]) -> Said {
        run(command(&binary("picket-master"))
            .arg(verb)
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(args))
    }

    /// What `picket-master run` answers when it is to use another data directory and cannot.
    #[must_use]
    #[track_caller]
    pub fn run_on(&self, data_dir: &Path) -> Said {
        run(command(&binary("picket-master"))
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .arg("--data-dir")
            .arg(data_dir))
    }

    /// What `picketctl` answers to its first admin.
    #[must_use]
    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> Said {
        self.ctl_as(&self.bundle(), args)
    }

    /// What `picketctl` answers to whoever holds `bundle`.
    #[must_use]
    #[track_caller]
    pub fn ctl_as(&self, bundle: &Path, args: &[&str]) -> Said {
        run(command(&binary("picketctl"))
            .current_dir(&self.root)
            .arg("--bundle")
            .arg(bundle)
            .args(args))
    }

    /// What `picketctl -o json` answers.
    ///
    /// # Errors
    /// What it said when it failed.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Result<Value, String> {
        let said = self.ctl(&[&["-o", "json"], args].concat());
        if said.code != Some(0) {
            return Err(said.stderr);
        }
        serde_json::from_str(&said.stdout).map_err(|error| format!("{error}: {}", said.stdout))
    }

    /// Its metrics page.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::read(self.monitor).expect("the master shows its metrics")
    }

    /// One host as `picketctl host show` shows it.
    ///
    /// # Errors
    /// What it said when it failed.
    #[track_caller]
    pub fn host(&self, name: &str) -> Result<Value, String> {
        self.json(&["host", "show", name])
    }

    /// Waits until a host is in a state, and returns how it is shown.
    ///
    /// # Panics
    /// When it is not within `bound`.
    #[track_caller]
    pub fn until_host(&self, name: &str, state: &str, bound: Duration) -> Value {
        until(&format!("{name} to be {state}"), bound, || {
            let host = self.host(name)?;
            if host["state"] == state {
                Ok(host)
            } else {
                Err(host.to_string())
            }
        })
    }

    /// Waits until there is an event of a kind about a subject.
    ///
    /// # Panics
    /// When there is none within `bound`.
    #[track_caller]
    pub fn until_event(&self, kind: &str, subject: &str, bound: Duration) -> Value {
        until(&format!("the event {kind} of {subject}"), bound, || {
            let events = self.json(&["event", "list"])?;
            let found = events
                .as_array()
                .into_iter()
                .flatten()
                .find(|event| event["kind"] == kind && event["subject"] == subject);
            found.cloned().ok_or_else(|| events.to_string())
        })
    }
}

/// Free ports on an address, each found by having one.
pub(crate) fn free<const N: usize>(at: Ipv4Addr) -> [SocketAddr; N] {
    let held: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind((at, 0)).expect("loopback has free ports"));
    held.map(|listener| listener.local_addr().expect("a listener has an address"))
}
