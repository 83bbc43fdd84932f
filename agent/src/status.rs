//! What `picket-agent status` shows: written by the agent beside its other files, read by anybody who may.

use std::{fmt::Write as _, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use picket_clock::Clock;
use picket_proto::{
    VERSION,
    beat::SectionKind,
    document::{Kind, OutcomeStatus, Problem},
    host::HostId,
    status::{ControllerStatus, DeckiesStatus, DeckyState, ZeroTierStatus},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::{
    desired::Reports,
    observed::{Observed, Sections},
};

/// The file is written at least this often.
const WRITE: Duration = Duration::from_secs(30);
/// An agent that is well has written since.
const STALE: Duration = Duration::from_secs(120);
/// The least time between two writes.
const COALESCE: Duration = Duration::from_secs(1);
/// The longest status file that is read.
const LONGEST: u64 = 16 << 20;

/// How the agent stands with its master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// In one word.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Where the master answered last.
    pub address: Option<String>,
    /// When it last acknowledged a beat.
    pub last_ack: Option<Timestamp>,
    /// Why there is no session, and what to do.
    pub problem: Option<String>,
}

/// How the agent stands with its master, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has not had an answer since it started.
    Connecting,
    /// A session is open.
    Connected,
    /// The master could not be reached.
    Disconnected,
    /// The master does not accept this host's identity.
    Refused,
    /// The host is banned.
    Banned,
    /// The host is retired.
    Retired,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Refused => "refused",
            Self::Banned => "banned",
            Self::Retired => "retired",
        }
    }
}

/// One desired document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentStatus {
    /// Which.
    pub kind: Kind,
    /// Its generation; none for what the agent does by itself after a ban.
    pub generation: Option<u64>,
    /// How it ended.
    pub status: OutcomeStatus,
    /// What is not done and why.
    pub problems: Vec<Problem>,
}

/// One local service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `zerotier`, `controller` or `docker`.
    pub name: String,
    /// What is wrong, unless it answers.
    pub problem: Option<String>,
}

/// One decky.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeckyLine {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: DeckyState,
    /// Why it is not running.
    pub problem: String,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// When it was written.
    pub written: Timestamp,
    /// The host's id.
    pub host: HostId,
    /// The host's name.
    pub name: String,
    /// How it stands with its master.
    pub master: Connection,
    /// The local services.
    pub services: Vec<ServiceStatus>,
    /// The desired documents.
    pub documents: Vec<DocumentStatus>,
    /// The deckies.
    pub deckies: Vec<DeckyLine>,
}

/// What a status file says about the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It runs and has a session.
    Connected,
    /// It runs and has none.
    NotConnected,
    /// Its process is there and has not written for a while.
    Silent,
    /// It does not run.
    NotRunning,
}

impl Status {
    /// Judges the agent that wrote this; `used` says whether a process has its state directory.
    #[must_use]
    pub fn verdict(&self, now: Timestamp, used: bool) -> Verdict {
        let age = now.duration_since(self.written).unsigned_abs();
        if !used {
            Verdict::NotRunning
        } else if age > STALE {
            Verdict::Silent
        } else if self.master.state == State::Connected {
            Verdict::Connected
        } else {
            Verdict::NotConnected
        }
    }

    /// Reads the file at `path`; none when there is no such file or it is no status.
    #[must_use]
    pub fn read(path: &std::path::Path) -> Option<Self> {
        let bytes = picket_durable::read_private(path, LONGEST).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The status for a person.
    #[must_use]
    pub fn to_text(&self, now: Timestamp, verdict: Verdict) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: String| {
            writeln!(text, "{label:<12}{value}").expect("a String takes every write");
        };
        let ago = |at: Timestamp| format!("{} s ago", now.duration_since(at).as_secs().max(0));
        line("host", format!("{} ({})", self.name, self.host));
        line(
            "agent",
            match verdict {
                Verdict::NotRunning => format!(
                    "not running, last seen {}; start it with `systemctl start picket-agent`",
                    ago(self.written)
                ),
                Verdict::Silent => format!(
                    "its process is there and wrote this {}; see its log, whether the disk is full and whether the clock was set",
                    ago(self.written)
                ),
                Verdict::Connected | Verdict::NotConnected => format!("running, version {}", self.version),
            },
        );
        let address = self.master.address.as_deref().unwrap_or("no address yet");
        line(
            "master",
            format!(
                "{} since {} ({address})",
                self.master.state.word(),
                self.master.since
            ),
        );
        if let Some(at) = self.master.last_ack {
            line("last ack", ago(at));
        }
        if let Some(problem) = &self.master.problem {
            line("problem", problem.clone());
        }
        for service in &self.services {
            line(
                &service.name,
                service.problem.clone().unwrap_or_else(|| "answers".to_owned()),
            );
        }
        for document in &self.documents {
            let generation = document
                .generation
                .map_or_else(String::new, |number| format!(" (generation {number})"));
            line(
                &document.kind.to_string(),
                format!("{}{generation}", document.status),
            );
            for problem in &document.problems {
                line("", problem.to_string());
            }
        }
        for decky in &self.deckies {
            let problem = if decky.problem.is_empty() {
                String::new()
            } else {
                format!(": {}", decky.problem)
            };
            line("decky", format!("{} {}{problem}", decky.name, decky.state));
        }
        text
    }
}

/// What the status is made of.
pub(crate) struct Writer {
    pub(crate) path: PathBuf,
    pub(crate) clock: Clock,
    pub(crate) host: HostId,
    pub(crate) name: String,
    pub(crate) connection: watch::Receiver<Connection>,
    pub(crate) reports: watch::Receiver<Reports>,
    pub(crate) observed: Observed,
}

impl Writer {
    /// Writes until `stop`, and once more after it.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut sections = self.observed.watch();
        loop {
            let status = self.status(&sections.borrow_and_update());
            self.write(status).await;
            if stop.is_cancelled() {
                return;
            }
            let changed = async {
                tokio::select! {
                    seen = sections.changed() => seen,
                    seen = self.connection.changed() => seen,
                    seen = self.reports.changed() => seen,
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = time::sleep(WRITE) => {}
                seen = changed => {
                    if seen.is_err() {
                        return;
                    }
                    tokio::select! {
                        () = time::sleep(COALESCE) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        }
    }

    fn status(&mut self, sections: &Sections) -> Status {
        let mut services = Vec::new();
        let mut service = |name: &str, problem: Option<&str>| {
            services.push(ServiceStatus {
                name: name.to_owned(),
                problem: problem.map(ToOwned::to_owned),
            });
        };
        let body = |kind| sections.get(&kind).map(|body| &body.bytes);
        // These bytes were encoded by this process.
        if let Some(Ok(read)) = body(SectionKind::ZeroTier).map(|bytes| ZeroTierStatus::decode(bytes)) {
            service("zerotier", read.status.service.problem());
        }
        if let Some(Ok(read)) = body(SectionKind::Controller).map(|bytes| ControllerStatus::decode(bytes)) {
            service("controller", read.status.service.problem());
        }
        let mut deckies = Vec::new();
        if let Some(Ok(read)) = body(SectionKind::Deckies).map(|bytes| DeckiesStatus::decode(bytes)) {
            service("docker", read.status.service.problem());
            deckies = read.status.deckies;
        }
        Status {
            version: VERSION.to_owned(),
            written: self.clock.now(),
            host: self.host,
            name: self.name.clone(),
            master: self.connection.borrow_and_update().clone(),
            services,
            documents: self
                .reports
                .borrow_and_update()
                .iter()
                .map(|(kind, report)| DocumentStatus {
                    kind: *kind,
                    generation: report.stamp.map(|stamp| stamp.generation),
                    status: report.status,
                    problems: report.problems.clone(),
                })
                .collect(),
            deckies: deckies
                .into_iter()
                .map(|decky| DeckyLine {
                    name: decky.name.to_string(),
                    state: decky.state,
                    problem: decky.problem,
                })
                .collect(),
        }
    }

    async fn write(&self, status: Status) {
        let path = self.path.clone();
        let bytes =
            Arc::new(serde_json::to_vec_pretty(&status).expect("texts and numbers always become JSON"));
        let write = move || picket_durable::write_private(&path, &bytes);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(error = %crate::sentence(&error), "could not write the status file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: State) -> Status {
        let at: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        Status {
            version: "0.1.0".into(),
            written: at,
            host: HostId(uuid::Uuid::from_u128(7)),
            name: "edge-07".into(),
            master: Connection {
                state,
                since: at,
                address: Some("master.example.org:7443".into()),
                last_ack: Some(at),
                problem: None,
            },
            services: vec![ServiceStatus {
                name: "zerotier".into(),
                problem: None,
            }],
            documents: Vec::new(),
            deckies: Vec::new(),
        }
    }

    #[test]
    fn an_agent_that_is_not_there_is_not_connected_whatever_its_file_says() {
        let now: Timestamp = "2026-11-22T12:00:10Z".parse().unwrap();
        let connected = status(State::Connected);
        assert_eq!(connected.verdict(now, true), Verdict::Connected);
        assert_eq!(connected.verdict(now, false), Verdict::NotRunning);
        let later = now + jiff::SignedDuration::from_mins(5);
        assert_eq!(connected.verdict(later, true), Verdict::Silent);
        let text = connected.to_text(later, Verdict::Silent);
        assert!(text.contains("its process is there"), "{text}");
        assert_eq!(status(State::Refused).verdict(now, true), Verdict::NotConnected);
    }

    #[test]
    fn the_text_for_people_names_host_agent_master_and_services() {
        let now: Timestamp = "2026-11-22T12:00:10Z".parse().unwrap();
        let text = status(State::Connected).to_text(now, Verdict::Connected);
        let want = "\
host        edge-07 (00000000-0000-0000-0000-000000000007)
agent       running, version 0.1.0
master      connected since 2026-11-22T12:00:00Z (master.example.org:7443)
last ack    10 s ago
zerotier    answers
";
        assert_eq!(text, want);
    }
}
