//! What the kernel says of a process and of the machine, read from `/proc`.

use std::{fs, io, time::Duration};

use serde::{Deserialize, Serialize};

/// Why a figure of the kernel's cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// No such file; the process may have ended.
    #[error("read {path}; the server may have ended")]
    Read {
        /// Which.
        path: String,
        /// What happened.
        #[source]
        cause: io::Error,
    },
    /// It does not have the form that the kernel documents.
    #[error("{0} does not have the form it should")]
    Form(String),
}

/// The time on processors that a process has had, in user and kernel mode, all its threads together.
///
/// # Errors
/// When it does not run.
pub fn cpu(pid: u32) -> Result<Duration, ProcError> {
    let path = format!("/proc/{pid}/stat");
    let ticks = ticks(&read(&path)?).ok_or(ProcError::Form(path))?;
    let second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_nanos(
        ticks.saturating_mul(1_000_000_000 / second.max(1)),
    ))
}

/// The memory of a process that is resident, in KiB.
///
/// # Errors
/// When it does not run.
pub fn resident(pid: u32) -> Result<u64, ProcError> {
    let path = format!("/proc/{pid}/status");
    kib(&read(&path)?, "VmRSS:").ok_or(ProcError::Form(path))
}

/// The machine a figure comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor, as it calls itself.
    pub processor: String,
    /// How many of its cores there are to use.
    pub cores: usize,
    /// In MiB.
    pub memory: u64,
    /// Its release.
    pub kernel: String,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn this() -> Result<Self, ProcError> {
        let processors = read("/proc/cpuinfo")?;
        let model = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let memory = kib(&read("/proc/meminfo")?, "MemTotal:");
        Ok(Self {
            processor: model
                .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']))
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.ok_or_else(|| ProcError::Form("/proc/meminfo".to_owned()))? / 1024,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        })
    }
}

/// How many processes wanted a processor, on average of the last minute.
///
/// # Errors
/// When `/proc` is not there.
pub fn load() -> Result<f64, ProcError> {
    let path = "/proc/loadavg";
    let text = read(path)?;
    let first = text.split(' ').next().and_then(|number| number.parse().ok());
    first.ok_or_else(|| ProcError::Form(path.to_owned()))
}

/// Takes as many file descriptors as the system allows this process, and returns how many that are. Children have the
/// same.
#[must_use]
pub fn descriptors() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let raised = setrlimit(Resource::Nofile, limit).is_ok();
    let limit = if raised {
        limit
    } else {
        getrlimit(Resource::Nofile)
    };
    limit.current.unwrap_or(u64::MAX)
}

fn read(path: &str) -> Result<String, ProcError> {
    fs::read_to_string(path).map_err(|cause| ProcError::Read {
        path: path.to_owned(),
        cause,
    })
}

/// utime and stime, fields 14 and 15; the second field is a name in brackets that may hold blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn kib(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticks_of_a_process_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 120 34 5 6 20 0 3 0 99 1 2";
        assert_eq!(ticks(stat), Some(154));
    }

    #[test]
    fn this_process_has_used_memory_and_is_on_a_machine_with_a_core() {
        assert!(resident(std::process::id()).unwrap() > 100);
        assert!(cpu(std::process::id()).is_ok());
        let machine = Machine::this().unwrap();
        assert!(machine.cores > 0 && machine.memory > 0, "{machine:?}");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error_that_says_so() {
        let error = resident(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("may have ended"), "{error}");
    }
}
