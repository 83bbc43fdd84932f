//! A kill as it is printed: each member with the proofs there are, and with the ones there are not.

use jiff::Timestamp;
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;

use crate::{
    print::{Cell, Named, Page, Row, Tone, View},
    words::{ago, count, filled, moment, to_the_second},
};

/// A kill.
#[derive(Debug, Serialize)]
pub(super) struct Kill {
    id: Option<String>,
    drill: bool,
    scope: Scope,
    subject: Option<String>,
    by: String,
    reason: String,
    at: Option<Timestamp>,
    lifted_at: Option<Timestamp>,
    lifted_by: Option<String>,
    lifted_because: Option<String>,
    pub(super) done: bool,
    banned: Option<Proof>,
    shard_removed: Option<Proof>,
    cautions: Vec<String>,
    pub(super) members: Vec<Killed>,
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    Unknown,
    Node,
    Host,
    Network,
    Owner,
    All,
}

impl Scope {
    fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Node => "node",
            Self::Host => "host",
            Self::Network => "network",
            Self::Owner => "owner",
            Self::All => "all",
        }
    }
}

/// How far a proof has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    None,
    Waiting,
    Confirmed,
    Unreachable,
}

/// A proof, and when it was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Proof {
    state: State,
    at: Option<Timestamp>,
}

/// One member of one network.
#[derive(Debug, Serialize)]
pub(super) struct Killed {
    network_id: String,
    node_id: String,
    name: Option<String>,
    deauthorized: Proof,
    left: Proof,
    silent: Proof,
    unconfirmed_until: Option<Timestamp>,
    problem: Option<String>,
}

fn time(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    time.as_ref().and_then(from_wire_time)
}

impl From<wire::Proof> for Proof {
    fn from(proof: wire::Proof) -> Self {
        let state = match proof.state() {
            wire::ProofState::Unspecified | wire::ProofState::None => State::None,
            wire::ProofState::Waiting => State::Waiting,
            wire::ProofState::Confirmed => State::Confirmed,
            wire::ProofState::Unreachable => State::Unreachable,
        };
        Self {
            state,
            at: time(proof.at),
        }
    }
}

impl Proof {
    const NONE: Self = Self {
        state: State::None,
        at: None,
    };

    fn or_none(proof: Option<wire::Proof>) -> Self {
        proof.map_or(Self::NONE, Self::from)
    }

    fn is_missing(self) -> bool {
        match self.state {
            State::Waiting | State::Unreachable => true,
            State::None | State::Confirmed => false,
        }
    }

    /// How it stands: how long it took, from the kill on.
    fn told(self, since: Option<Timestamp>) -> String {
        match (self.state, self.at, since) {
            (State::None, _, _) => "-".to_owned(),
            (State::Waiting, _, _) => "waiting".to_owned(),
            (State::Unreachable, _, _) => "unreachable".to_owned(),
            (State::Confirmed, Some(at), Some(since)) => {
                format!("{:.1} s", at.duration_since(since).as_secs_f64().max(0.0))
            }
            (State::Confirmed, _, _) => "yes".to_owned(),
        }
    }

    fn cell(self, since: Option<Timestamp>) -> Cell {
        let tone = match self.state {
            State::None => Tone::Dim,
            State::Waiting => Tone::Fair,
            State::Confirmed => Tone::Good,
            State::Unreachable => Tone::Bad,
        };
        Cell::new(self.told(since), tone)
    }
}

impl From<wire::Kill> for Kill {
    fn from(kill: wire::Kill) -> Self {
        let scope = match kill.scope() {
            wire::KillScope::Unspecified => Scope::Unknown,
            wire::KillScope::Node => Scope::Node,
            wire::KillScope::Host => Scope::Host,
            wire::KillScope::Network => Scope::Network,
            wire::KillScope::Owner => Scope::Owner,
            wire::KillScope::All => Scope::All,
        };
        Self {
            scope,
            id: filled(kill.id),
            drill: false,
            subject: filled(kill.subject),
            by: kill.by,
            reason: kill.reason,
            at: time(kill.at),
            lifted_at: time(kill.lifted_at),
            lifted_by: filled(kill.lifted_by),
            lifted_because: filled(kill.lifted_because),
            done: kill.done,
            banned: kill.banned.map(Proof::from),
            shard_removed: kill.shard_removed.map(Proof::from),
            cautions: kill.cautions,
            members: kill.members.into_iter().map(Killed::from).collect(),
        }
    }
}

impl From<wire::KilledMember> for Killed {
    fn from(member: wire::KilledMember) -> Self {
        Self {
            network_id: member.network_id,
            node_id: member.node_id,
            name: filled(member.name),
            deauthorized: Proof::or_none(member.deauthorized),
            left: Proof::or_none(member.left),
            silent: Proof::or_none(member.silent),
            unconfirmed_until: time(member.unconfirmed_until),
            problem: filled(member.problem),
        }
    }
}

impl Killed {
    fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{} ({name}) on {}", self.node_id, self.network_id),
            None => format!("{} on {}", self.node_id, self.network_id),
        }
    }

    /// Whether nothing shows that it is silent, and it may go on by its credential.
    fn is_unconfirmed(&self, now: Timestamp) -> bool {
        self.silent.state != State::Confirmed && self.unconfirmed_until.is_some_and(|until| until > now)
    }

    fn silence(&self, since: Option<Timestamp>, now: Timestamp) -> Cell {
        match self.unconfirmed_until {
            Some(until) if self.silent.state == State::None && until > now => {
                Cell::new(format!("unconfirmed until {}", to_the_second(until)), Tone::Fair)
            }
            Some(_) if self.silent.state == State::None => Cell::new("credential ended", Tone::Good),
            Some(_) | None => self.silent.cell(since),
        }
    }

    fn cells(&self, since: Option<Timestamp>, now: Timestamp) -> Vec<Cell> {
        vec![
            self.network_id.as_str().into(),
            self.node_id.as_str().into(),
            Cell::or_dash(self.name.as_ref()),
            self.deauthorized.cell(since),
            self.left.cell(since),
            self.silence(since, now),
            Cell::or_dash(self.problem.as_ref()),
        ]
    }

    /// What is not confirmed of it; nothing when all of it is.
    fn open(&self, now: Timestamp) -> Option<String> {
        let mut missing = Vec::new();
        if self.deauthorized.is_missing() {
            missing.push("its controller has not confirmed that it is deauthorized".to_owned());
        }
        if self.left.is_missing() {
            missing.push("its own agent has not shown that it left".to_owned());
        }
        if self.is_unconfirmed(now)
            && let Some(until) = self.unconfirmed_until
        {
            let until = to_the_second(until);
            missing.push(format!(
                "nothing shows that it is silent, and members it talks to directly may hear it until {until}"
            ));
        }
        if missing.is_empty() {
            return None;
        }
        let problem = self.problem.as_ref();
        let problem = problem.map_or_else(String::new, |problem| format!(" ({problem})"));
        Some(format!("{}: {}{problem}", self.label(), missing.join("; ")))
    }
}

impl Kill {
    pub(super) fn drilled(self) -> Self {
        Self { drill: true, ..self }
    }

    pub(super) fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// Who has lifted it, when it holds no more.
    pub(super) fn lifted_by(&self) -> Option<&str> {
        self.lifted_at?;
        Some(self.lifted_by.as_deref().unwrap_or("somebody"))
    }

    pub(super) fn cautions(&self) -> &[String] {
        &self.cautions
    }

    /// The command that shows how it stands.
    pub(super) fn see(&self) -> String {
        format!("picketctl kill show {}", self.id())
    }

    fn of_host(&self) -> impl Iterator<Item = (&'static str, Proof)> {
        let banned = self.banned.map(|proof| ("banned, and its session cut", proof));
        let shard = self.shard_removed.map(|proof| ("its deckies are gone", proof));
        banned.into_iter().chain(shard)
    }

    /// How each part of it stands, a line by a name.
    pub(super) fn states(&self) -> Vec<(String, String)> {
        let subject = self.subject.as_deref().unwrap_or_default();
        let of_host = self.of_host().map(|(what, proof)| {
            let name = format!("host {subject}, {what}");
            (name, proof.told(self.at))
        });
        let of_members = self.members.iter().map(|member| {
            let state = format!(
                "deauthorized {}, left {}, silent {}",
                member.deauthorized.told(self.at),
                member.left.told(self.at),
                member.silent.told(self.at)
            );
            (member.label(), state)
        });
        of_host.chain(of_members).collect()
    }

    /// Whether something may come true any moment.
    pub(super) fn is_moving(&self) -> bool {
        let of_members = self
            .members
            .iter()
            .flat_map(|member| [member.deauthorized, member.left, member.silent]);
        let of_host = self.of_host().map(|(_, proof)| proof);
        of_members
            .chain(of_host)
            .any(|proof| proof.state == State::Waiting)
    }

    /// What is not confirmed, a line each; nothing when all of it is.
    pub(super) fn open(&self, now: Timestamp) -> Vec<String> {
        if self.done {
            return Vec::new();
        }
        let subject = self.subject.as_deref().unwrap_or_default();
        let of_host = self.of_host().filter(|(_, proof)| proof.is_missing());
        let of_host = of_host.map(|(what, _)| format!("host {subject}: not confirmed that it is {what}"));
        let of_host = of_host.map(|line| line.replace("it is its", "its"));
        let of_members = self.members.iter().filter_map(|member| member.open(now));
        let mut open: Vec<String> = of_host.chain(of_members).collect();
        if open.is_empty() {
            open.push("the master does not call it done yet".to_owned());
        }
        open
    }

    fn state(&self) -> Cell {
        match (self.lifted_at, self.done) {
            (Some(_), _) => Cell::new("lifted", Tone::Dim),
            (None, true) => Cell::new("done", Tone::Good),
            (None, false) => Cell::new("not all confirmed", Tone::Fair),
        }
    }

    /// A drill: what is true of nothing yet is not told as waited for.
    fn drill_page(&self) -> Page {
        let mut page = Page::default();
        page.line(match &self.id {
            Some(id) => {
                format!("a drill, nothing is changed; this is killed already, see `picketctl kill show {id}`")
            }
            None => format!(
                "a drill, nothing is changed; this would cut off {}",
                count(self.members.len(), "member", "members")
            ),
        });
        if self.scope == Scope::Host && self.id.is_none() {
            let subject = self.subject.as_deref().unwrap_or_default();
            page.line(format!(
                "host {subject} would be banned, and its deckies taken away"
            ));
        }
        let cells = |member: &Killed| {
            vec![
                member.network_id.as_str().into(),
                member.node_id.as_str().into(),
                Cell::or_dash(member.name.as_ref()),
                Cell::or_dash(member.problem.as_ref()),
            ]
        };
        page.table(
            &["NETWORK", "NODE", "NAME", "NOTE"],
            self.members.iter().map(cells).collect(),
        );
        page.sentences("Cautions", &self.cautions, Tone::Bad);
        page
    }
}

impl Named for Kill {
    fn name(&self) -> String {
        self.id().to_owned()
    }
}

impl Row for Kill {
    const NOUNS: &'static str = "kills";
    const HEADERS: &'static [&'static str] = &[
        "ID", "WHAT", "SUBJECT", "STATE", "MEMBERS", "WHEN", "BY", "REASON",
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.id().into(),
            self.scope.word().into(),
            Cell::or_dash(self.subject.as_ref()),
            self.state(),
            self.members.len().to_string().into(),
            Cell::or_dash(self.at.map(|at| ago(at, now))),
            self.by.as_str().into(),
            self.reason.as_str().into(),
        ]
    }
}

impl View for Kill {
    fn page(&self, now: Timestamp) -> Page {
        if self.drill {
            return self.drill_page();
        }
        let mut page = Page::default();
        page.facts([
            ("Kill", self.id().into()),
            ("What", self.scope.word().into()),
            ("Subject", Cell::or_dash(self.subject.as_ref())),
            ("State", self.state()),
            ("By", self.by.as_str().into()),
            ("Reason", self.reason.as_str().into()),
            ("When", Cell::or_dash(self.at.map(|at| moment(at, now)))),
        ]);
        if let Some(at) = self.lifted_at {
            page.facts([
                ("Lifted", moment(at, now).into()),
                ("Lifted by", Cell::or_dash(self.lifted_by.as_ref())),
                ("Because", Cell::or_dash(self.lifted_because.as_ref())),
            ]);
        }
        if self.scope == Scope::Host {
            let proof = |proof: Option<Proof>| proof.unwrap_or(Proof::NONE).cell(self.at);
            page.facts([
                ("Banned", proof(self.banned)),
                ("Deckies gone", proof(self.shard_removed)),
            ]);
        }
        if !self.members.is_empty() {
            page.title("Members");
            page.table(
                &[
                    "NETWORK",
                    "NODE",
                    "NAME",
                    "DEAUTHORIZED",
                    "LEFT",
                    "SILENT",
                    "PROBLEM",
                ],
                self.members
                    .iter()
                    .map(|member| member.cells(self.at, now))
                    .collect(),
            );
        }
        page.sentences("Cautions", &self.cautions, Tone::Bad);
        page
    }
}
