//! The server under measurement, as a process of its own on loopback. Dropping it ends the process.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use picket_clock::Instant;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time,
};

/// How long a server may take to be ready: a master reads and checks its whole store first.
const READY: Duration = Duration::from_secs(60);
/// How long it may take to stop; a master says goodbye to its sessions first.
const STOP: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// So many characters at the end of its log are shown when it fails.
const TAIL: usize = 2000;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No port, no log, no configuration.
    #[error("prepare a server in {}; is the temporary folder writable?", dir.display())]
    Prepare {
        /// Where.
        dir: PathBuf,
        /// What happened.
        #[source]
        cause: io::Error,
    },
    /// The program does not start.
    #[error("start {}; build it with `cargo build --release -p picket-master`, or name it with --master", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// What happened.
        #[source]
        cause: io::Error,
    },
    /// It ended by itself.
    #[error("the server ended with {status}; its log ends with:\n{log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its last words.
        log: String,
    },
    /// It does not come up.
    #[error("the server is not ready after {} s; its log ends with:\n{log}", READY.as_secs())]
    NotReady {
        /// Its last words.
        log: String,
    },
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    /// Where agents dial.
    pub address: SocketAddr,
    /// Where operators dial; the bare server has no other address.
    pub admin: SocketAddr,
}

impl Server {
    /// Starts the bare server of the site in `dir`: `program` is this program.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn bare(program: &Path, dir: &Path) -> Result<Self, ServerError> {
        let [address] = free_ports(dir)?;
        let mut command = Command::new(program);
        command
            .arg("serve-bare")
            .arg("--site")
            .arg(dir)
            .arg("--listen")
            .arg(address.to_string());
        let mut server = Self::start(command, program, dir, [address, address])?;
        // It has no word for being ready; it accepts when it is.
        server
            .until(|| async { TcpStream::connect(address).await.is_ok() })
            .await?;
        Ok(server)
    }

    /// Starts the master in `dir`, configured as the example is, on free ports of loopback.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn master(program: &Path, dir: &Path) -> Result<Self, ServerError> {
        let [agents, admin, metrics] = free_ports(dir)?;
        let config = dir.join("master.toml");
        let text = format!(
            "data_dir = {dir:?}\nca.key = \"plain\"\n[agents]\nlisten = \"{agents}\"\n[admin]\nlisten = \"{admin}\"\n[metrics]\nlisten = \
             \"{metrics}\"\n"
        );
        fs::write(&config, text).map_err(prepare(dir))?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&config);
        let mut server = Self::start(command, program, dir, [agents, admin])?;
        server
            .until(|| async { ready(metrics).await.unwrap_or(false) })
            .await?;
        Ok(server)
    }

    fn start(
        mut command: Command,
        program: &Path,
        dir: &Path,
        [address, admin]: [SocketAddr; 2],
    ) -> Result<Self, ServerError> {
        let log = dir.join("server.log");
        let file = File::create(&log).map_err(prepare(dir))?;
        // Nothing of this shell's environment makes one server another one than the next.
        command
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file);
        let child = command.spawn().map_err(|cause| ServerError::Start {
            program: program.to_owned(),
            cause,
        })?;
        Ok(Self {
            child,
            log,
            address,
            admin,
        })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `is_ready` says so.
    async fn until<F: Future<Output = bool>>(&mut self, is_ready: impl Fn() -> F) -> Result<(), ServerError> {
        let give_up = Instant::now() + READY;
        while Instant::now() < give_up {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = self.last_words();
                return Err(ServerError::Ended { status, log });
            }
            if time::timeout(READY, is_ready()).await == Ok(true) {
                return Ok(());
            }
            time::sleep(LOOK).await;
        }
        let log = self.last_words();
        Err(ServerError::NotReady { log })
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if pid.is_none_or(|pid| kill_process(pid, Signal::TERM).is_err()) {
            // It has ended already.
            return;
        }
        let give_up = Instant::now() + STOP;
        while Instant::now() < give_up && matches!(self.child.try_wait(), Ok(None)) {
            time::sleep(LOOK).await;
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let from = log.char_indices().rev().nth(TAIL).map_or(0, |(at, _)| at);
        log[from..].trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already is only taken off the list of processes.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Ports that nobody has just now; held all together, so that they differ.
fn free_ports<const N: usize>(dir: &Path) -> Result<[SocketAddr; N], ServerError> {
    let mut ports = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind(*port).map_err(prepare(dir))?;
        *port = listener.local_addr().map_err(prepare(dir))?;
        held.push(listener);
    }
    Ok(ports)
}

fn prepare(dir: &Path) -> impl Fn(io::Error) -> ServerError {
    let dir = dir.to_owned();
    move |cause| ServerError::Prepare {
        dir: dir.clone(),
        cause,
    }
}

/// Whether a master says that its listeners are open.
async fn ready(metrics: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(metrics).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.take(1024).read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}
