//! A host as it is printed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;

use super::node::Node;
use crate::{
    print::{Cell, Named, Page, Row, Tone, View},
    words::{ago, filled, moment, pairs, to_the_second},
};

/// A host in a list.
#[derive(Debug, Serialize)]
pub(super) struct Host {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) note: Option<String>,
    pub(super) state: State,
    pub(super) enrolled_at: Option<Timestamp>,
    pub(super) last_seen_at: Option<Timestamp>,
    pub(super) address: Option<String>,
    pub(super) agent_version: Option<String>,
    pub(super) node_id: Option<String>,
    pub(super) deckies: u32,
    pub(super) deckies_running: u32,
    pub(super) conditions: Vec<String>,
}

/// Where a host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Unknown,
    NeverSeen,
    Online,
    Late,
    Offline,
    Banned,
    Retired,
}

impl State {
    fn cell(self) -> Cell {
        match self {
            Self::Unknown => Cell::new("unknown", Tone::Dim),
            Self::NeverSeen => Cell::new("never-seen", Tone::Dim),
            Self::Online => Cell::new("online", Tone::Good),
            Self::Late => Cell::new("late", Tone::Fair),
            Self::Offline => Cell::new("offline", Tone::Bad),
            Self::Banned => Cell::new("banned", Tone::Bad),
            Self::Retired => Cell::new("retired", Tone::Dim),
        }
    }
}

impl From<wire::Host> for Host {
    fn from(host: wire::Host) -> Self {
        let state = match host.state() {
            wire::HostState::Unspecified => State::Unknown,
            wire::HostState::NeverSeen => State::NeverSeen,
            wire::HostState::Online => State::Online,
            wire::HostState::Late => State::Late,
            wire::HostState::Offline => State::Offline,
            wire::HostState::Banned => State::Banned,
            wire::HostState::Retired => State::Retired,
        };
        Self {
            state,
            id: host.id,
            name: host.name,
            labels: host.labels.into_iter().collect(),
            note: filled(host.note),
            enrolled_at: host.enrolled_at.as_ref().and_then(from_wire_time),
            last_seen_at: host.last_seen_at.as_ref().and_then(from_wire_time),
            address: filled(host.address),
            agent_version: filled(host.agent_version),
            node_id: filled(host.node_id),
            deckies: host.deckies,
            deckies_running: host.deckies_running,
            conditions: host.conditions,
        }
    }
}

impl Host {
    fn deckies(&self) -> Cell {
        let text = format!("{}/{}", self.deckies_running, self.deckies);
        let tone = match (self.deckies, self.deckies_running) {
            (0, _) => Tone::Dim,
            (all, running) if running < all => Tone::Fair,
            _ => Tone::Plain,
        };
        Cell::new(text, tone)
    }
}

impl Named for Host {
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for Host {
    const NOUNS: &'static str = "hosts";
    const HEADERS: &'static [&'static str] = &[
        "NAME",
        "STATE",
        "LAST SEEN",
        "DECKIES",
        "NODE",
        "ADDRESS",
        "AGENT",
        "LABELS",
        "CONDITIONS",
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let conditions = match self.conditions.as_slice() {
            [] => Cell::or_dash(None::<&str>),
            [only] => Cell::new(only, Tone::Fair),
            [first, more @ ..] => Cell::new(format!("{first} (+{})", more.len()), Tone::Fair),
        };
        vec![
            self.name.as_str().into(),
            self.state.cell(),
            Cell::or_dash(self.last_seen_at.map(|then| ago(then, now))),
            self.deckies(),
            Cell::or_dash(self.node_id.as_ref()),
            Cell::or_dash(self.address.as_ref()),
            Cell::or_dash(self.agent_version.as_ref()),
            Cell::or_dash(Some(pairs(&self.labels))),
            conditions,
        ]
    }
}

/// A host with everything it last said of itself.
#[derive(Debug, Serialize)]
pub(super) struct HostDetail {
    #[serde(flatten)]
    host: Host,
    hostname: Option<String>,
    os: Option<String>,
    kernel: Option<String>,
    machine_id: Option<String>,
    node: Node,
    pins: Vec<Pin>,
    documents: Vec<Document>,
    networks: Vec<Network>,
}

#[derive(Debug, Serialize)]
struct Pin {
    kind: String,
    fingerprint: String,
    expires_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Document {
    kind: String,
    wanted_generation: u64,
    attempted_generation: u64,
    outcome: Option<String>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Network {
    network_id: String,
    status: String,
    addresses: Vec<String>,
    managed: bool,
}

impl From<wire::GetHostResponse> for HostDetail {
    fn from(answer: wire::GetHostResponse) -> Self {
        let pin = |pin: wire::Pin| Pin {
            kind: pin.kind,
            fingerprint: pin.fingerprint,
            expires_at: pin.expires_at.as_ref().and_then(from_wire_time),
        };
        let document = |document: wire::HostDocument| Document {
            kind: document.kind,
            wanted_generation: document.wanted_generation,
            attempted_generation: document.attempted_generation,
            outcome: filled(document.outcome),
            problems: document.problems,
        };
        let network = |network: wire::HostNetwork| Network {
            network_id: network.network_id,
            status: network.status,
            addresses: network.addresses,
            managed: network.managed,
        };
        Self {
            host: Host::from(answer.host.unwrap_or_default()),
            hostname: filled(answer.hostname),
            os: filled(answer.os),
            kernel: filled(answer.kernel),
            machine_id: filled(answer.machine_id),
            node: Node::from(answer.node.unwrap_or_default()),
            pins: answer.pins.into_iter().map(pin).collect(),
            documents: answer.documents.into_iter().map(document).collect(),
            networks: answer.networks.into_iter().map(network).collect(),
        }
    }
}

impl Named for HostDetail {
    fn name(&self) -> String {
        self.host.name()
    }
}

impl View for HostDetail {
    fn page(&self, now: Timestamp) -> Page {
        let host = &self.host;
        let mut page = Page::default();
        page.facts([
            ("Name", host.name.as_str().into()),
            ("State", host.state.cell()),
            (
                "Last seen",
                Cell::or_dash(host.last_seen_at.map(|then| moment(then, now))),
            ),
            (
                "Enrolled",
                Cell::or_dash(host.enrolled_at.map(|then| moment(then, now))),
            ),
            ("Id", host.id.as_str().into()),
            ("Labels", Cell::or_dash(Some(pairs(&host.labels)))),
            ("Note", Cell::or_dash(host.note.as_ref())),
            ("Address", Cell::or_dash(host.address.as_ref())),
            ("Agent", Cell::or_dash(host.agent_version.as_ref())),
            ("Node", self.node.cell()),
            ("Deckies", host.deckies()),
            ("Hostname", Cell::or_dash(self.hostname.as_ref())),
            ("System", Cell::or_dash(self.os.as_ref())),
            ("Kernel", Cell::or_dash(self.kernel.as_ref())),
            ("Machine id", Cell::or_dash(self.machine_id.as_ref())),
        ]);
        page.sentences("Conditions", &host.conditions, Tone::Fair);
        if !self.documents.is_empty() {
            page.title("Desired documents");
            page.table(
                &["KIND", "WANTED", "TRIED", "OUTCOME"],
                self.documents.iter().map(Document::cells).collect(),
            );
        }
        let problems: Vec<String> = self
            .documents
            .iter()
            .flat_map(|document| document.problems.clone())
            .collect();
        page.sentences("Problems", &problems, Tone::Bad);
        if !self.networks.is_empty() {
            page.title("Networks");
            page.table(
                &["NETWORK", "STATUS", "MANAGED", "ADDRESSES"],
                self.networks.iter().map(Network::cells).collect(),
            );
        }
        if !self.pins.is_empty() {
            page.title("Pins");
            page.table(
                &["KIND", "EXPIRES", "FINGERPRINT"],
                self.pins.iter().map(Pin::cells).collect(),
            );
        }
        page
    }
}

impl Document {
    fn cells(&self) -> Vec<Cell> {
        let tone = match self.outcome.as_deref() {
            Some("done") => Tone::Good,
            Some("failed") => Tone::Bad,
            Some("blocked") => Tone::Fair,
            Some(_) | None => Tone::Plain,
        };
        vec![
            self.kind.as_str().into(),
            self.wanted_generation.to_string().into(),
            self.attempted_generation.to_string().into(),
            self.outcome
                .as_ref()
                .map_or_else(|| Cell::or_dash(None::<&str>), |outcome| Cell::new(outcome, tone)),
        ]
    }
}

impl Network {
    fn cells(&self) -> Vec<Cell> {
        vec![
            self.network_id.as_str().into(),
            self.status.as_str().into(),
            if self.managed { "yes" } else { "no" }.into(),
            Cell::or_dash(Some(self.addresses.join(","))),
        ]
    }
}

impl Pin {
    fn cells(&self) -> Vec<Cell> {
        vec![
            self.kind.as_str().into(),
            Cell::or_dash(self.expires_at.map(to_the_second)),
            self.fingerprint.as_str().into(),
        ]
    }
}
