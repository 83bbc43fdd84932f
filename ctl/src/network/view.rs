//! A network as it is printed.

use jiff::Timestamp;
use picket_proto::{form::Form, wire::admin as wire};
use serde::Serialize;

use super::file::Shape;
use crate::{
    member::Member,
    print::{Cell, Named, Page, Row, Tone, View},
    words::filled,
};

/// One network.
#[derive(Debug, Serialize)]
pub(super) struct Network {
    pub(super) id: String,
    name: Option<String>,
    pub(super) mode: Mode,
    central: bool,
    controller_host: Option<String>,
    approvals: u32,
    members_authorized: u32,
    members_unknown: u32,
    requests: u32,
    pub(super) drift: u32,
    pub(super) held_back: u32,
    killed: Option<String>,
    problem: Option<String>,
}

/// How far Picket goes on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    Unknown,
    Observe,
    Enforce,
    Deleting,
}

impl From<&wire::Network> for Network {
    fn from(network: &wire::Network) -> Self {
        let mode = match network.mode() {
            wire::NetworkMode::Unspecified => Mode::Unknown,
            wire::NetworkMode::Observe => Mode::Observe,
            wire::NetworkMode::Enforce => Mode::Enforce,
            wire::NetworkMode::Deleting => Mode::Deleting,
        };
        Self {
            mode,
            id: network.id.clone(),
            name: filled(network.name.clone()),
            central: network.central,
            controller_host: filled(network.controller_host.clone()),
            approvals: network.approvals,
            members_authorized: network.members_authorized,
            members_unknown: network.members_unknown,
            requests: network.requests,
            drift: network.drift,
            held_back: network.held_back,
            killed: filled(network.killed.clone()),
            problem: filled(network.problem.clone()),
        }
    }
}

impl Network {
    /// `host hub-01`, as the subject or object of a sentence.
    pub(super) fn governor(&self) -> String {
        match &self.controller_host {
            _ if self.central => "ZeroTier Central".to_owned(),
            Some(host) => host.clone(),
            None => "its controller".to_owned(),
        }
    }

    /// Its name, behind its id.
    pub(super) fn as_named(&self) -> String {
        let name = self.name.as_ref();
        name.map_or_else(String::new, |name| format!(", as `{name}`"))
    }

    fn controller(&self) -> Cell {
        if self.central {
            "central".into()
        } else {
            Cell::or_dash(self.controller_host.as_ref())
        }
    }

    fn mode(&self) -> Cell {
        if self.killed.is_some() {
            return Cell::new("killed", Tone::Bad);
        }
        match self.mode {
            Mode::Unknown => Cell::new("unknown", Tone::Dim),
            Mode::Observe => Cell::new("observe", Tone::Fair),
            Mode::Enforce => Cell::new("enforce", Tone::Good),
            Mode::Deleting => Cell::new("deleting", Tone::Bad),
        }
    }
}

/// A number that should be nought.
pub(super) fn worrying(number: u32) -> Cell {
    Cell::new(
        number.to_string(),
        if number == 0 { Tone::Plain } else { Tone::Fair },
    )
}

impl Named for Network {
    fn name(&self) -> String {
        self.id.clone()
    }
}

impl Row for Network {
    const NOUNS: &'static str = "networks";
    const HEADERS: &'static [&'static str] = &[
        "ID",
        "NAME",
        "MODE",
        "CONTROLLER",
        "AUTHORIZED",
        "REQUESTS",
        "UNKNOWN",
        "DRIFT",
        "HELD BACK",
        "PROBLEM",
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            Cell::or_dash(self.name.as_ref()),
            self.mode(),
            self.controller(),
            self.members_authorized.to_string().into(),
            worrying(self.requests),
            worrying(self.members_unknown),
            worrying(self.drift),
            worrying(self.held_back),
            Cell::or_dash(self.problem.as_ref()),
        ]
    }
}

/// One network with its settings and members.
#[derive(Debug, Serialize)]
pub(super) struct NetworkDetail {
    #[serde(flatten)]
    network: Network,
    /// As a settings file; none when this program cannot read it.
    form: Option<Shape>,
    differences: Vec<String>,
    members: Vec<Member>,
}

impl NetworkDetail {
    /// A network, with the members that the answer has no room for.
    pub(super) fn new(answer: wire::GetNetworkResponse, rest: Vec<Member>) -> Self {
        let network = answer.network.unwrap_or_default();
        let form = network.form.clone().unwrap_or_default();
        Self {
            form: Form::from_wire(form).ok().as_ref().map(Shape::from),
            differences: network.differences.clone(),
            network: Network::from(&network),
            members: answer.members.into_iter().map(Member::from).chain(rest).collect(),
        }
    }
}

impl Named for NetworkDetail {
    fn name(&self) -> String {
        self.network.name()
    }
}

impl View for NetworkDetail {
    fn page(&self, now: Timestamp) -> Page {
        let network = &self.network;
        let mut page = Page::default();
        let held_back = match network.held_back {
            0 => worrying(0),
            held => Cell::new(
                format!(
                    "{held}; `picketctl network resume {} --reason ...` lets them through",
                    network.id
                ),
                Tone::Fair,
            ),
        };
        let killed = network.killed.as_ref();
        page.facts([
            ("Id", network.id.as_str().into()),
            ("Name", Cell::or_dash(network.name.as_ref())),
            ("Mode", network.mode()),
            ("Controller", network.controller()),
            ("Authorized", network.members_authorized.to_string().into()),
            ("Requests", worrying(network.requests)),
            ("Unknown", worrying(network.members_unknown)),
            ("Drift", worrying(network.drift)),
            ("Held back", held_back),
            (
                "Killed",
                killed.map_or_else(
                    || Cell::or_dash(None::<&str>),
                    |kill| Cell::new(format!("yes; see `picketctl kill show {kill}`"), Tone::Bad),
                ),
            ),
            ("Problem", Cell::or_dash(network.problem.as_ref())),
        ]);
        if let Some(form) = &self.form {
            form.page(&mut page);
        } else {
            page.facts([("Approvals", network.approvals.to_string().into())]);
        }
        page.sentences("The controller's settings differ", &self.differences, Tone::Fair);
        let waiting: Vec<Vec<Cell>> = self
            .members
            .iter()
            .filter_map(|member| member.waiting(now))
            .collect();
        if !waiting.is_empty() {
            page.title("Requests");
            page.table(Member::WAITING, waiting);
        }
        if !self.members.is_empty() {
            page.title("Members");
            page.table(
                Member::HEADERS,
                self.members.iter().map(|member| member.cells(now)).collect(),
            );
        }
        page
    }
}

/// One thing that changes.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    what: String,
    before: Option<String>,
    after: Option<String>,
}

pub(super) fn changes(changes: Vec<wire::NetworkChange>) -> Vec<Change> {
    let change = |change: wire::NetworkChange| Change {
        what: change.what,
        before: filled(change.before),
        after: filled(change.after),
    };
    changes.into_iter().map(change).collect()
}

fn table(page: &mut Page, changes: &[Change]) {
    let cells = |change: &Change| {
        vec![
            change.what.as_str().into(),
            Cell::or_dash(change.before.as_ref()),
            "→".into(),
            Cell::or_dash(change.after.as_ref()),
        ]
    };
    page.table(
        &["WHAT", "BEFORE", "", "AFTER"],
        changes.iter().map(cells).collect(),
    );
}

/// What a settings file would change, or does.
#[derive(Debug, Serialize)]
pub(super) struct Plan {
    pub(super) network_id: String,
    pub(super) changes: Vec<Change>,
    pub(super) cuts_own_path: Vec<String>,
    pub(super) needs_admin: Option<String>,
    pub(super) cautions: Vec<String>,
}

impl Named for Plan {
    fn name(&self) -> String {
        self.network_id.clone()
    }
}

impl View for Plan {
    fn page(&self, _: Timestamp) -> Page {
        let mut page = Page::default();
        if self.changes.is_empty() {
            page.line(format!("network {}: nothing to change", self.network_id));
            page.sentences("Caution", &self.cautions, Tone::Fair);
            return page;
        }
        table(&mut page, &self.changes);
        let cuts: Vec<String> = self
            .cuts_own_path
            .iter()
            .map(|host| format!("host {host} reaches the master through it and would lose that way"))
            .collect();
        page.sentences("This cuts our own path", &cuts, Tone::Bad);
        page.sentences("This takes an admin", self.needs_admin.as_slice(), Tone::Fair);
        page.sentences("Caution", &self.cautions, Tone::Fair);
        page
    }
}

/// What comparing and repairing came to.
#[derive(Debug, Serialize)]
pub(super) struct Reconciled {
    network: Network,
    dry_run: bool,
    authorize: u32,
    deauthorize: u32,
    correct: u32,
    held_back: u32,
    unknown: u32,
    unchanged: u32,
    changes: Vec<Change>,
    cautions: Vec<String>,
}

impl Reconciled {
    pub(super) fn new(answer: wire::ReconcileNetworkResponse, dry_run: bool) -> Self {
        Self {
            network: Network::from(&answer.network.unwrap_or_default()),
            dry_run,
            authorize: answer.authorize,
            deauthorize: answer.deauthorize,
            correct: answer.correct,
            held_back: answer.held_back,
            unknown: answer.unknown,
            unchanged: answer.unchanged,
            changes: changes(answer.changes),
            cautions: answer.cautions,
        }
    }
}

impl Named for Reconciled {
    fn name(&self) -> String {
        self.network.name()
    }
}

impl View for Reconciled {
    fn page(&self, _: Timestamp) -> Page {
        let mut page = Page::default();
        page.line(format!(
            "network {}: {}",
            self.network.id,
            if self.dry_run {
                "this would be done"
            } else {
                "this is being done"
            }
        ));
        page.facts([
            ("Authorize", worrying(self.authorize)),
            ("Deauthorize", worrying(self.deauthorize)),
            ("Correct", worrying(self.correct)),
            ("Held back", worrying(self.held_back)),
            ("Unknown", worrying(self.unknown)),
            ("Unchanged", self.unchanged.to_string().into()),
        ]);
        if !self.changes.is_empty() {
            page.title("Changes");
            table(&mut page, &self.changes);
        }
        page.sentences("Cautions", &self.cautions, Tone::Bad);
        page
    }
}

/// A network that is none any more.
#[derive(Debug, Serialize)]
pub(super) struct Deleted {
    pub(super) network_id: String,
    pub(super) forgotten: bool,
}

impl Named for Deleted {
    fn name(&self) -> String {
        self.network_id.clone()
    }
}
