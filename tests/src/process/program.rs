//! A program as a child process: its log, its signals, its end.
//!
//! Children stay in the test's own process group, so that whoever ends a test that hangs ends them too.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{elapsed, until};

/// How long a program may run that is to end by itself.
const LONGEST_RUN: Duration = Duration::from_secs(120);
/// How much of a log is shown when a test fails.
const LAST_LINES: usize = 40;

/// A program that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Said {
    /// Fails the test unless the program did what it was asked.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "it failed: {}\n{}", self.stderr, self.stdout);
        self
    }
}

/// A command in an environment that holds nothing of ours but the path.
#[must_use]
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C.UTF-8");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started, or does not end in time.
#[track_caller]
#[must_use]
pub fn run(command: &mut Command) -> Said {
    run_within(command, LONGEST_RUN)
}

/// Runs a program to its end, which comes within `bound`.
#[track_caller]
pub(crate) fn run_within(command: &mut Command, bound: Duration) -> Said {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = (thread::spawn(move || text(out)), thread::spawn(move || text(err)));
    let began = elapsed();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if began() > bound {
            drop(child.kill());
            drop(child.wait());
            panic!("{command:?} does not end: {}", err.join().unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(2));
    };
    Said {
        code: status.code(),
        stdout: out.join().expect("reading does not panic"),
        stderr: err.join().expect("reading does not panic"),
    }
}

fn text(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        from.read_to_end(&mut bytes).expect("a pipe can be read");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a program stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// How long that took.
    pub took: Duration,
}

/// A program that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it says goes to the end of `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    #[must_use]
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .expect("a log can be written")
        };
        let child = command.stdin(Stdio::null()).stdout(open()).stderr(open()).spawn();
        let child = child.unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("a child can be waited for");
    }

    /// SIGTERM, and waits for an orderly end.
    ///
    /// # Panics
    /// When it does not end within `bound`.
    #[track_caller]
    pub fn stop(&mut self, bound: Duration) -> Stopped {
        let began = elapsed();
        self.signal(Signal::TERM);
        let status = until(&format!("{} to stop", self.name), bound, || {
            self.ended().ok_or_else(|| self.log())
        });
        Stopped {
            code: status.code(),
            took: began(),
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it has ended before.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        assert!(
            self.ended().is_none(),
            "{} has ended by itself: {}",
            self.name,
            self.log()
        );
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a child has a pid");
        kill_process(pid, signal).expect("a child takes signals");
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines
                .get(lines.len().saturating_sub(LAST_LINES)..)
                .unwrap_or_default()
                .join("\n");
            drop(writeln!(
                std::io::stderr(),
                "--- the end of the log of {}\n{last}",
                self.name
            ));
        }
    }
}
