//! Every metric of the master: name, unit and labels in one list.
//!
//! The recorder belongs to one master and not to the process, so that several can run side by side.

use std::{collections::HashMap, sync::Mutex, sync::PoisonError};

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use picket_proto::{document::OutcomeStatus, status::DeckyState};

/// Handles on the master's metrics.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Beats that were acknowledged.
    pub beats: Counter,
    /// Sections whose body was taken in.
    pub sections: Counter,
    /// Entries of sections that made no sense.
    pub skipped: Counter,
    /// Open sessions.
    pub sessions: Gauge,
    /// Commits to the store.
    pub commits: Counter,
    /// Sessions that were sent away because another machine has their host's.
    pub quarantined: Counter,
    /// Connections that were closed because they had no call.
    pub idle: Counter,
    labelled: Mutex<HashMap<(&'static str, String), Counter>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

const HANDSHAKES: &str = "master_handshakes_total";
const TAKEOVERS: &str = "master_takeovers_total";
const CONNECTIONS: &str = "master_connections";
const CROWD: &str = "master_crowd";
const QUARANTINED: &str = "master_quarantined_total";
const IDLE: &str = "master_idle_closed_total";
const OUTCOMES: &str = "master_outcomes_total";
const HOSTS: &str = "master_host_state";
const DECKIES: &str = "master_decky_state";
const META: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

impl Metrics {
    /// Metrics of a master that starts.
    #[must_use]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let describe = |name: &'static str, text: &'static str| {
            recorder.describe_counter(name.into(), Some(Unit::Count), text.into());
        };
        describe("master_beats_total", "Beats that were acknowledged.");
        describe(
            "master_sections_total",
            "Sections of beats whose body was taken in.",
        );
        describe(
            "master_skipped_entries_total",
            "Entries of sections that made no sense and were skipped.",
        );
        describe(
            "master_commits_total",
            "Commits to the store by this master's services.",
        );
        describe(
            HANDSHAKES,
            "TLS handshakes by listener and outcome; `accepted` or why it was refused.",
        );
        describe(OUTCOMES, "Outcomes of desired documents that hosts reported.");
        describe(
            TAKEOVERS,
            "Sessions that took the place of another one of their host, by why.",
        );
        describe(
            QUARANTINED,
            "Sessions that were sent away because another machine has their host's.",
        );
        describe(
            IDLE,
            "Connections that were closed because they had no call open.",
        );
        let describe = |name: &'static str, text: &'static str| {
            recorder.describe_gauge(name.into(), Some(Unit::Count), text.into());
        };
        describe("master_sessions", "Open sessions.");
        describe(
            CONNECTIONS,
            "Open connections by listener, handshakes among them.",
        );
        describe(CROWD, "Handshakes going on, by listener.");
        describe(HOSTS, "Hosts by state.");
        describe(DECKIES, "Deckies by state, as their hosts said last.");
        Self {
            handle: recorder.handle(),
            beats: recorder.register_counter(&Key::from_name("master_beats_total"), &META),
            sections: recorder.register_counter(&Key::from_name("master_sections_total"), &META),
            skipped: recorder.register_counter(&Key::from_name("master_skipped_entries_total"), &META),
            sessions: recorder.register_gauge(&Key::from_name("master_sessions"), &META),
            commits: recorder.register_counter(&Key::from_name("master_commits_total"), &META),
            quarantined: recorder.register_counter(&Key::from_name(QUARANTINED), &META),
            idle: recorder.register_counter(&Key::from_name(IDLE), &META),
            labelled: Mutex::new(HashMap::new()),
            recorder,
        }
    }

    fn count(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        let key = labels
            .iter()
            .map(|(_, value)| *value)
            .collect::<Vec<_>>()
            .join(",");
        let mut known = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .entry((name, key))
            .or_insert_with(|| {
                let labels: Vec<_> = labels
                    .iter()
                    .map(|(key, value)| Label::new(*key, (*value).to_owned()))
                    .collect();
                self.recorder
                    .register_counter(&Key::from_parts(name, labels), &META)
            })
            .increment(1);
    }

    /// Counts a handshake on a listener by its outcome.
    pub fn handshake(&self, listener: &'static str, outcome: &str) {
        self.count(HANDSHAKES, &[("listener", listener), ("outcome", outcome)]);
    }

    /// Counts a session that took another one's place.
    pub fn takeover(&self, why: &str) {
        self.count(TAKEOVERS, &[("why", why)]);
    }

    /// How many connections a listener has open, and how many of them have not shown who they are.
    pub fn connections(&self, listener: &'static str) -> [Gauge; 2] {
        [CONNECTIONS, CROWD].map(|name| {
            let key = Key::from_parts(name, vec![Label::new("listener", listener)]);
            self.recorder.register_gauge(&key, &META)
        })
    }

    /// Counts an outcome.
    pub fn outcome(&self, kind: &str, status: OutcomeStatus) {
        self.count(OUTCOMES, &[("kind", kind), ("status", &status.to_string())]);
    }

    /// Sets how many hosts are in a state.
    pub fn hosts(&self, state: &'static str, count: usize) {
        let key = Key::from_parts(HOSTS, vec![Label::new("state", state)]);
        self.recorder.register_gauge(&key, &META).set(whole(count));
    }

    /// Sets how many deckies are in a state.
    pub fn deckies(&self, state: DeckyState, count: usize) {
        let key = Key::from_parts(DECKIES, vec![Label::new("state", state.to_string())]);
        self.recorder.register_gauge(&key, &META).set(whole(count));
    }

    /// Everything in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A count as a gauge takes it; exact up to 2^32, which no fleet reaches.
pub fn whole(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
