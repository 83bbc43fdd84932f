//! A simulated ZeroTier, as a process: a node in each of some home directories, one of which runs a controller.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use super::{
    binary::binary,
    program::{Program, command},
    wait::until,
};

const SOON: Duration = Duration::from_secs(10);

/// Nodes in home directories.
#[derive(Debug)]
pub struct FakeZeroTier {
    /// The home of each node.
    pub homes: Vec<PathBuf>,
    /// The network that the first node's controller runs.
    pub network: String,
    log: PathBuf,
    program: Option<Program>,
}

impl FakeZeroTier {
    /// Starts `count` nodes with their homes in `root`, and a network on the first.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    #[track_caller]
    pub fn start(root: &Path, count: usize) -> Self {
        let homes = (0..count).map(|number| root.join(format!("zerotier-{number}")));
        let mut zerotier = Self {
            homes: homes.collect(),
            network: String::new(),
            log: root.join("zerotier.log"),
            program: None,
        };
        zerotier.run(&["--create-network", "site"]);
        let said = zerotier.said();
        let network = said.lines().find_map(|line| line.strip_prefix("network "));
        network
            .expect("it says which network it made")
            .clone_into(&mut zerotier.network);
        zerotier
    }

    /// Starts them on what they have in their homes.
    ///
    /// # Panics
    /// When they do not come up.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.run(&[]);
    }

    #[track_caller]
    fn run(&mut self, args: &[&str]) {
        let mut command = command(&binary("picket-fake-zerotier"));
        command.args(args);
        for home in &self.homes {
            command.arg("--home").arg(home);
        }
        let before = self.said().len();
        self.program = Some(Program::start("the simulated ZeroTier", &mut command, &self.log));
        self.until_said(before, "ready");
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// When they do not run.
    #[track_caller]
    pub fn kill(&mut self) {
        self.program.take().expect("the nodes run").kill();
    }

    /// Has the controller do what it is asked to change from here on, and not say so.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn mute(&mut self) {
        self.tell(Signal::USR1, "is Mute");
    }

    /// Has the controller answer again.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn speak(&mut self) {
        self.tell(Signal::USR2, "is Well");
    }

    /// Whether the controller has it on its disk that a node is let on; none when it has nothing of that node.
    #[must_use]
    pub fn lets_on(&self, node: &str) -> Option<bool> {
        let members = self.homes[0].join("controller.d/network").join(&self.network);
        let record = fs::read(members.join(format!("member/{node}.json"))).ok()?;
        let record: Value = serde_json::from_slice(&record).ok()?;
        record["authorized"].as_bool()
    }

    #[track_caller]
    fn tell(&mut self, signal: Signal, heard: &str) {
        let before = self.said().len();
        self.program.as_mut().expect("the nodes run").signal(signal);
        self.until_said(before, heard);
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    fn until_said(&self, before: usize, words: &str) {
        until(&format!("the simulated ZeroTier to say {words}"), SOON, || {
            let said = self.said();
            let lines = said.get(before..).unwrap_or_default();
            if lines.lines().any(|line| line.ends_with(words)) {
                Ok(())
            } else {
                Err(said)
            }
        });
    }
}
