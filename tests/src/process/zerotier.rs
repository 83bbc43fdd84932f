//! A simulated ZeroTier, as a process: a node in each of some home directories, one of which runs a controller.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    binary::binary,
    program::{Program, command},
    wait::until,
};

/// Nodes in home directories.
#[derive(Debug)]
pub struct FakeZeroTier {
    /// The home of each node.
    pub homes: Vec<PathBuf>,
    /// The network that the first node's controller runs.
    pub network: String,
    _program: Program,
}

impl FakeZeroTier {
    /// Starts `count` nodes with their homes in `root`, and a network on the first.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    #[track_caller]
    pub fn start(root: &Path, count: usize) -> Self {
        let homes: Vec<PathBuf> = (0..count)
            .map(|number| root.join(format!("zerotier-{number}")))
            .collect();
        let mut command = command(&binary("picket-fake-zerotier"));
        command.args(["--create-network", "site"]);
        for home in &homes {
            command.arg("--home").arg(home);
        }
        let log = root.join("zerotier.log");
        let program = Program::start("the simulated ZeroTier", &mut command, &log);
        let network = until("the simulated ZeroTier", Duration::from_secs(10), || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let ready = said.lines().any(|line| line == "ready");
            let network = said.lines().find_map(|line| line.strip_prefix("network "));
            network
                .filter(|_| ready)
                .map(ToOwned::to_owned)
                .ok_or(said.clone())
        });
        Self {
            homes,
            network,
            _program: program,
        }
    }
}
