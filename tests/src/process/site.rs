//! One temporary directory with a master and its agents, on a loopback address that no other test has.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use tempfile::TempDir;

use super::{agent::Agent, master::Master, snapshot::Plain};

/// How long an agent that was just started may take until its master says it is online.
pub(crate) const COMES_ONLINE: Duration = Duration::from_secs(20);

/// A master that runs, and everything around it.
#[derive(Debug)]
pub struct Site {
    /// Stopped first when the site goes.
    pub master: Master,
    at: Ipv4Addr,
    root: TempDir,
}

impl Site {
    /// A site whose master runs.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        let mut site = Self::at_rest();
        site.master.start();
        site
    }

    /// A site whose master is made and does not run.
    #[must_use]
    #[track_caller]
    pub fn at_rest() -> Self {
        let root = tempfile::Builder::new()
            .prefix("picket-")
            .tempdir()
            .expect("there is room for temporary files");
        let at = address();
        let master = Master::init(&root.path().join("master"), at);
        Self { master, at, root }
    }

    /// Its temporary directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Its loopback address.
    #[must_use]
    pub fn at(&self) -> Ipv4Addr {
        self.at
    }

    /// Has the master enroll a host, and returns where its bundle is.
    #[track_caller]
    #[must_use]
    pub fn bundle(&self, name: &str) -> PathBuf {
        let bundle = self.root().join(format!("{name}.bundle"));
        let out = bundle.display().to_string();
        drop(self.master.ctl(&["host", "enroll", name, "--out", &out]).ok());
        bundle
    }

    /// A machine with a bundle, not enrolled.
    #[track_caller]
    #[must_use]
    pub fn machine(&self, name: &str) -> Agent {
        Agent::new(name, &self.root().join(name), &self.bundle(name))
    }

    /// A machine that is enrolled and whose agent does not run.
    #[track_caller]
    #[must_use]
    pub fn enrolled(&self, name: &str) -> Agent {
        let agent = self.machine(name);
        drop(agent.enroll().ok());
        agent
    }

    /// A machine whose agent runs and is online.
    #[track_caller]
    #[must_use]
    pub fn online(&self, name: &str) -> Agent {
        let mut agent = self.enrolled(name);
        agent.start();
        drop(self.master.until_host(name, "online", COMES_ONLINE));
        agent
    }

    /// Takes out of a text what is this site's own.
    #[must_use]
    pub fn plain(&self) -> Plain {
        Plain::default()
            .with_path(self.root(), "[dir]")
            .with_address(self.master.agents, "[agents]")
            .with_address(self.master.admin, "[admin]")
            .with_address(self.master.monitor, "[metrics]")
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

/// A loopback address of this process and this call alone: all of 127.0.0.0/8 is this machine, and with an address of
/// one's own a port that was just found free stays free.
fn address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let own = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, own.max(1), high, low.clamp(1, 254))
}
