//! What the program is handed from outside: streams, terminal or not, home directory, clock, network. The one room
//! that looks at the process and its environment; flags that may come from the environment are in `cli.rs`.

use std::{
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use picket_clock::Clock;
use picket_link::{Dial, Tcp};

/// Everything outside of the program that it touches. A test brings its own.
pub struct World {
    /// Where answers to questions and a site file named `-` come from.
    pub stdin: Box<dyn Read + Send>,
    /// Where results go.
    pub stdout: Box<dyn Write + Send>,
    /// Where everything else goes.
    pub stderr: Box<dyn Write + Send>,
    /// Which of them a person looks at.
    pub terminals: Terminals,
    /// Whether colours are unwanted (`NO_COLOR`).
    pub no_color: bool,
    /// The operator's home directory.
    pub home: Option<PathBuf>,
    /// The time, for certificates and for "12s ago".
    pub clock: Clock,
    /// The network.
    pub dial: Arc<dyn Dial>,
}

/// Which streams are terminals.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terminals {
    /// Somebody can be asked.
    pub stdin: bool,
    /// Results may be coloured and redrawn.
    pub stdout: bool,
    /// Progress may be drawn.
    pub stderr: bool,
}

impl World {
    /// The world of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            stdin: Box::new(io::stdin()),
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            terminals: Terminals {
                stdin: io::stdin().is_terminal(),
                stdout: io::stdout().is_terminal(),
                stderr: io::stderr().is_terminal(),
            },
            no_color: set("NO_COLOR"),
            home: std::env::home_dir(),
            clock: Clock::system(),
            dial: Arc::new(Tcp::default()),
        }
    }
}

/// Where the admin bundle is when nobody says otherwise.
pub(crate) fn default_bundle(home: &Path) -> PathBuf {
    home.join(".config/picket/admin.bundle")
}
