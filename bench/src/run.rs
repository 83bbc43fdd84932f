//! One run: a fresh site, one server, one fleet, and a look at the server between the phases.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use picket_clock::{Clock, Instant};
use tokio::time;

use crate::{
    figures::{Kind, Measured, Raw, micros, percentile},
    load::{self, LoadError},
    process::{self, Machine, ProcError},
    report::{TooMany, sections},
    server::{Server, ServerError},
    site::{Host, Site, SiteError},
};

/// Memory is read after so many beats of each host.
const MEMORY_BEATS: u32 = 12;
/// No process gets more descriptors than this.
const MOST_DESCRIPTORS: u64 = 20_000;
/// What a process needs beside one descriptor for each host: its files, its listeners, handshakes that end.
const OTHER_DESCRIPTORS: u64 = 200;
/// A server is at rest when it used no more than `IDLE` of a processor within `REST`; waited for at most `PATIENCE`.
const REST: Duration = Duration::from_millis(150);
const IDLE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which server.
    pub server: Kind,
    /// Its program: this one for the bare server, else `picket-master`.
    pub program: PathBuf,
    /// How many hosts.
    pub hosts: u32,
    /// Of each.
    pub deckies: u16,
    /// Of each; the first is in full, the others say that nothing changed.
    pub beats: u32,
    /// Between two beats of an agent; zero for flat out.
    pub interval: Duration,
    /// What was built.
    pub commit: String,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// They do not fit into a process.
    #[error(
        "{hosts} hosts need more than the {most} file descriptors a process has here; take at most {fit}"
    )]
    Descriptors {
        /// So many were asked for.
        hosts: u32,
        /// A process has so many descriptors.
        most: u64,
        /// So many hosts fit.
        fit: u64,
    },
    /// A beat has no room for them.
    #[error(transparent)]
    Deckies(#[from] TooMany),
    /// No folder.
    #[error("make a temporary folder")]
    Folder(#[source] io::Error),
    /// No site.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// No server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The load broke off.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel does not say.
    #[error(transparent)]
    Proc(#[from] ProcError),
}

/// Measures. Everything it makes is in a temporary folder and gone at the end.
///
/// # Errors
/// When the server or a single agent fails: there are no figures of half a fleet.
pub async fn measure(plan: &Plan, clock: &Clock) -> Result<Measured, RunError> {
    fits(plan.hosts, process::descriptors())?;
    sections(0, plan.deckies)?;
    let (at, before) = (clock.now(), process::load()?);
    let folder = tempfile::tempdir().map_err(RunError::Folder)?;
    let dir = folder.path().join("server");
    let (site, hosts, empty_kib) = prepare(plan, &dir, clock).await?;
    let server = start(plan, &dir).await?;
    let mut raw = put_on(plan, &server, Arc::new(site), hosts).await?;
    raw.empty_kib = if plan.server == Kind::Bare {
        raw.start_kib
    } else {
        empty_kib
    };
    server.stop().await;
    Ok(Measured {
        server: plan.server,
        at,
        commit: plan.commit.clone(),
        machine: Machine::this()?,
        load: [before, process::load()?],
        hosts: plan.hosts,
        deckies: plan.deckies,
        beats: plan.beats,
        interval_ms: u64::try_from(plan.interval.as_millis()).unwrap_or(u64::MAX),
        raw,
    })
}

/// Refuses a fleet that does not fit into one process.
#[allow(clippy::result_large_err, reason = "it is returned once in a run")]
pub(crate) fn fits(hosts: u32, descriptors: u64) -> Result<(), RunError> {
    let most = descriptors.min(MOST_DESCRIPTORS);
    let fit = most.saturating_sub(OTHER_DESCRIPTORS);
    if u64::from(hosts) > fit {
        return Err(RunError::Descriptors { hosts, most, fit });
    }
    Ok(())
}

/// Makes the site and its hosts. A master is looked at before it knows them.
async fn prepare(plan: &Plan, dir: &Path, clock: &Clock) -> Result<(Site, Vec<Host>, u64), RunError> {
    match plan.server {
        Kind::Bare => {
            std::fs::create_dir(dir).map_err(RunError::Folder)?;
            let site = Site::bare(dir, clock)?;
            let hosts = site.hosts(plan.hosts)?;
            Ok((site, hosts, 0))
        }
        Kind::Master => {
            let site = Site::master(dir, clock).await?;
            let hosts = site.hosts(plan.hosts)?;
            let empty = start(plan, dir).await?;
            rest(&empty).await?;
            let empty_kib = process::resident(empty.pid())?;
            empty.stop().await;
            site.enroll(&hosts).await?;
            Ok((site, hosts, empty_kib))
        }
    }
}

async fn start(plan: &Plan, dir: &Path) -> Result<Server, ServerError> {
    match plan.server {
        Kind::Bare => Server::bare(&plan.program, dir).await,
        Kind::Master => Server::master(&plan.program, dir).await,
    }
}

async fn put_on(plan: &Plan, server: &Server, site: Arc<Site>, hosts: Vec<Host>) -> Result<Raw, RunError> {
    let pid = server.pid();
    let mut raw = Raw::default();
    let mut cpu = rest(server).await?;
    raw.start_kib = process::resident(pid)?;

    let began = Instant::now();
    let fleet = load::open(&server.address.to_string(), &site, hosts, plan.deckies).await?;
    raw.connect_wall_us = micros(began.elapsed());
    raw.connect_cpu_us = spent(&mut cpu, rest(server).await?);
    raw.open_kib = process::resident(pid)?;

    let fleet = fleet.report().await?;
    raw.report_cpu_us = spent(&mut cpu, rest(server).await?);

    raw.memory_beats = plan.beats.min(MEMORY_BEATS);
    let began = Instant::now();
    let (fleet, mut waits) = fleet.beat(raw.memory_beats - 1, plan.interval).await?;
    let mut wall = began.elapsed();
    raw.beats_kib = process::resident(pid)?;
    let began = Instant::now();
    let (fleet, more) = fleet.beat(plan.beats - raw.memory_beats, plan.interval).await?;
    wall += began.elapsed();
    raw.beats_cpu_us = spent(&mut cpu, rest(server).await?);
    raw.end_kib = process::resident(pid)?;
    drop(fleet);

    waits.extend(more);
    waits.sort_unstable();
    raw.beats = u64::try_from(waits.len()).unwrap_or(u64::MAX);
    raw.beats_wall_us = micros(wall);
    raw.ack_p50_us = micros(percentile(&waits, 50));
    raw.ack_p99_us = micros(percentile(&waits, 99));
    raw.ack_most_us = micros(waits.last().copied().unwrap_or_default());
    Ok(raw)
}

/// The processor time since the last look.
fn spent(last: &mut Duration, now: Duration) -> u64 {
    micros(now.saturating_sub(std::mem::replace(last, now)))
}

/// Waits until the server is at rest, so that what it does belatedly counts for the phase that caused it. Returns the
/// processor time it has had.
async fn rest(server: &Server) -> Result<Duration, ProcError> {
    let give_up = Instant::now() + PATIENCE;
    let mut last = process::cpu(server.pid())?;
    while Instant::now() < give_up {
        time::sleep(REST).await;
        let now = process::cpu(server.pid())?;
        if now.saturating_sub(last) <= IDLE {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_that_does_not_fit_is_refused_with_the_number_that_does() {
        assert!(fits(1_000, 20_000).is_ok());
        let error = fits(15_000, 4096).unwrap_err().to_string();
        assert!(error.contains("take at most 3896"), "{error}");
        assert!(fits(20_000, u64::MAX).is_err(), "whatever the system allows");
    }
}
