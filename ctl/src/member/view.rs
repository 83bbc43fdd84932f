//! A member as it is printed.

use jiff::Timestamp;
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;

use crate::{
    print::{Cell, Named, Page, Row, Tone, View},
    words::{ago, count, filled, moment, to_the_second},
};

/// A node on a network.
#[derive(Debug, Serialize)]
pub(crate) struct Member {
    pub(super) network_id: String,
    pub(super) node_id: String,
    host: Option<String>,
    device: Option<String>,
    owner: Option<String>,
    pub(super) decision: Decision,
    pub(super) because: String,
    until: Option<Timestamp>,
    pub(super) observed: Observation,
    addresses: Vec<String>,
    rfc4193: Option<String>,
    sixplane: Option<String>,
    grant: Option<Grant>,
    request: Option<Request>,
    activation: Option<Activation>,
}

/// What the grants say of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Decision {
    Authorized,
    Denied,
    Unknown,
}

impl Decision {
    fn cell(self) -> Cell {
        match self {
            Self::Authorized => Cell::new("authorized", Tone::Good),
            Self::Denied => Cell::new("denied", Tone::Bad),
            Self::Unknown => Cell::new("unknown", Tone::Fair),
        }
    }
}

/// What the controller said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Observation {
    Authorized,
    Deauthorized,
    Absent,
    Unknown,
}

/// What a grant allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Grant {
    Stands,
    MayActivate,
    Revoked,
}

/// Somebody's wish that it be there.
#[derive(Debug, Serialize)]
struct Request {
    state: RequestState,
    by: String,
    reason: String,
    at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    approvals: Vec<Approval>,
    missing: u32,
    missing_from: Option<String>,
    ended_by: Option<String>,
    ended_because: Option<String>,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum RequestState {
    Unknown,
    Pending,
    Approved,
    Denied,
    Cancelled,
    Expired,
}

#[derive(Debug, Serialize)]
struct Approval {
    by: String,
    at: Option<Timestamp>,
    reason: Option<String>,
    lapsed: bool,
}

/// A permission that ends by itself.
#[derive(Debug, Serialize)]
struct Activation {
    by: String,
    reason: String,
    started_at: Option<Timestamp>,
    until: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    ended_because: Option<String>,
}

fn time(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    time.as_ref().and_then(from_wire_time)
}

impl From<wire::Member> for Member {
    fn from(member: wire::Member) -> Self {
        let decision = match member.decision() {
            wire::MemberDecision::Authorized => Decision::Authorized,
            wire::MemberDecision::Denied => Decision::Denied,
            wire::MemberDecision::Unspecified | wire::MemberDecision::Unknown => Decision::Unknown,
        };
        let observed = match member.observed() {
            wire::MemberObservation::Authorized => Observation::Authorized,
            wire::MemberObservation::Deauthorized => Observation::Deauthorized,
            wire::MemberObservation::Absent => Observation::Absent,
            wire::MemberObservation::Unspecified | wire::MemberObservation::Unknown => Observation::Unknown,
        };
        let grant = match member.grant() {
            wire::GrantKind::Unspecified => None,
            wire::GrantKind::Stands => Some(Grant::Stands),
            wire::GrantKind::MayActivate => Some(Grant::MayActivate),
            wire::GrantKind::Revoked => Some(Grant::Revoked),
        };
        Self {
            decision,
            observed,
            grant,
            network_id: member.network_id,
            node_id: member.node_id,
            host: filled(member.host),
            device: filled(member.device),
            owner: filled(member.owner),
            because: member.because,
            until: time(member.until),
            addresses: member.addresses,
            rfc4193: filled(member.rfc4193),
            sixplane: filled(member.sixplane),
            request: member.request.map(Request::from),
            activation: member.activation.map(Activation::from),
        }
    }
}

impl From<wire::MemberRequest> for Request {
    fn from(request: wire::MemberRequest) -> Self {
        let state = match request.state() {
            wire::RequestState::Unspecified => RequestState::Unknown,
            wire::RequestState::Pending => RequestState::Pending,
            wire::RequestState::Approved => RequestState::Approved,
            wire::RequestState::Denied => RequestState::Denied,
            wire::RequestState::Cancelled => RequestState::Cancelled,
            wire::RequestState::Expired => RequestState::Expired,
        };
        let approval = |approval: wire::Approval| Approval {
            by: approval.by,
            at: time(approval.at),
            reason: filled(approval.reason),
            lapsed: approval.lapsed,
        };
        Self {
            state,
            by: request.by,
            reason: request.reason,
            at: time(request.at),
            expires_at: time(request.expires_at),
            approvals: request.approvals.into_iter().map(approval).collect(),
            missing: request.missing,
            missing_from: filled(request.missing_from),
            ended_by: filled(request.ended_by),
            ended_because: filled(request.ended_because),
        }
    }
}

impl From<wire::Activation> for Activation {
    fn from(activation: wire::Activation) -> Self {
        Self {
            by: activation.by,
            reason: activation.reason,
            started_at: time(activation.started_at),
            until: time(activation.until),
            ended_at: time(activation.ended_at),
            ended_because: filled(activation.ended_because),
        }
    }
}

impl RequestState {
    fn cell(self) -> Cell {
        match self {
            Self::Unknown => Cell::new("unknown", Tone::Dim),
            Self::Pending => Cell::new("pending", Tone::Fair),
            Self::Approved => Cell::new("approved", Tone::Good),
            Self::Denied => Cell::new("denied", Tone::Bad),
            Self::Cancelled => Cell::new("cancelled", Tone::Dim),
            Self::Expired => Cell::new("expired", Tone::Dim),
        }
    }
}

impl Request {
    fn page(&self, page: &mut Page, now: Timestamp) {
        let missing = usize::try_from(self.missing).unwrap_or(usize::MAX);
        let missing = Cell::new(count(missing, "approval", "approvals"), Tone::Fair);
        page.title("Request");
        page.facts([
            ("State", self.state.cell()),
            ("By", self.by.as_str().into()),
            ("Reason", self.reason.as_str().into()),
            ("Made", Cell::or_dash(self.at.map(|at| moment(at, now)))),
        ]);
        if self.state == RequestState::Pending {
            page.facts([
                ("Missing", missing),
                ("From", Cell::or_dash(self.missing_from.as_ref())),
                ("Waits until", Cell::or_dash(self.expires_at.map(to_the_second))),
            ]);
        }
        if let Some(by) = &self.ended_by {
            let because = self.ended_because.as_deref().unwrap_or("no reason given");
            page.facts([("Ended by", format!("{by}: {because}").into())]);
        }
        let approvals = self.approvals.iter().map(|approval| {
            let by = match approval.lapsed {
                false => approval.by.as_str().into(),
                true => Cell::new(format!("{} (counts no more)", approval.by), Tone::Dim),
            };
            vec![
                by,
                Cell::or_dash(approval.at.map(|at| moment(at, now))),
                Cell::or_dash(approval.reason.as_ref()),
            ]
        });
        page.table(&["APPROVED BY", "AT", "REASON"], approvals.collect());
    }
}

impl Activation {
    fn page(&self, page: &mut Page, now: Timestamp) {
        page.title("Activation");
        page.facts([
            ("By", self.by.as_str().into()),
            ("Reason", self.reason.as_str().into()),
            (
                "Started",
                Cell::or_dash(self.started_at.map(|at| moment(at, now))),
            ),
            ("Until", Cell::or_dash(self.until.map(to_the_second))),
        ]);
        if let Some(at) = self.ended_at {
            page.facts([
                ("Ended", moment(at, now).into()),
                ("Because", Cell::or_dash(self.ended_because.as_ref())),
            ]);
        }
    }
}

impl Member {
    /// The headers of requests that wait.
    pub(crate) const WAITING: &'static [&'static str] =
        &["NODE", "NAME", "BY", "MADE", "APPROVED BY", "MISSING", "REASON"];

    /// What it is called: by its host, or by its owner.
    fn called(&self) -> Option<String> {
        match (&self.host, &self.device) {
            (Some(host), _) => Some(host.clone()),
            (None, Some(device)) => Some(device.clone()),
            (None, None) => None,
        }
    }

    /// The node, with its name where that is known.
    pub(super) fn label(&self) -> String {
        match self.called() {
            Some(name) => format!("{} ({name})", self.node_id),
            None => self.node_id.clone(),
        }
    }

    /// How many approvals a request that waits still needs.
    pub(super) fn missing(&self) -> Option<usize> {
        let request = self.request.as_ref()?;
        let waits = request.state == RequestState::Pending;
        waits.then(|| usize::try_from(request.missing).unwrap_or(usize::MAX))
    }

    /// Until when a request waits, at the end of a sentence.
    pub(super) fn waits_until(&self) -> String {
        let until = self.request.as_ref().and_then(|request| request.expires_at);
        until.map_or_else(String::new, |until| {
            format!(", and it waits until {}", to_the_second(until))
        })
    }

    /// Until when it may be there, at the end of a sentence.
    pub(super) fn until_when(&self) -> String {
        self.until
            .map_or_else(String::new, |until| format!(" until {}", to_the_second(until)))
    }

    /// Whether the grant is for activations alone.
    pub(super) fn may_only_be_activated(&self) -> bool {
        self.grant == Some(Grant::MayActivate)
    }

    /// What an approval came to.
    pub(super) fn what_the_grant_allows(&self) -> String {
        match self.grant {
            Some(Grant::Stands) => "it is a member until that is revoked".to_owned(),
            Some(Grant::MayActivate) => format!(
                "it may be activated, with `picketctl member activate {} --network {} --reason ...`",
                self.called().as_ref().unwrap_or(&self.node_id),
                self.network_id
            ),
            Some(Grant::Revoked) | None => self.because.clone(),
        }
    }

    /// A line among the requests that wait, when it is one.
    pub(crate) fn waiting(&self, now: Timestamp) -> Option<Vec<Cell>> {
        let missing = self.missing()?;
        let request = self.request.as_ref()?;
        let approved: Vec<&str> = request
            .approvals
            .iter()
            .filter(|approval| !approval.lapsed)
            .map(|approval| approval.by.as_str())
            .collect();
        Some(vec![
            self.node_id.as_str().into(),
            Cell::or_dash(self.called()),
            request.by.as_str().into(),
            Cell::or_dash(request.at.map(|at| ago(at, now))),
            Cell::or_dash(Some(approved.join(","))),
            missing.to_string().into(),
            request.reason.as_str().into(),
        ])
    }

    /// What is decided of it. One that waits for an approval says so, where nothing else is to be said.
    fn decided(&self) -> (Cell, Cell) {
        let waits = self.request.as_ref().filter(|request| {
            let plain = self.grant.is_none() && self.decision != Decision::Authorized;
            plain && request.state == RequestState::Pending
        });
        let Some(request) = waits else {
            return (self.decision.cell(), self.because.as_str().into());
        };
        let missing = usize::try_from(request.missing).unwrap_or(usize::MAX);
        let because = format!(
            "asked for by {}: {}; {} missing",
            request.by,
            request.reason,
            count(missing, "approval is", "approvals are")
        );
        (Cell::new("requested", Tone::Fair), because.into())
    }

    /// What the controller says, with a tone that tells whether it agrees.
    fn observation(&self) -> Cell {
        let word = match self.observed {
            Observation::Authorized => "authorized",
            Observation::Deauthorized => "deauthorized",
            Observation::Absent => "absent",
            Observation::Unknown => return Cell::new("unknown", Tone::Dim),
        };
        let authorized = self.observed == Observation::Authorized;
        let tone = match self.decision {
            Decision::Unknown => Tone::Fair,
            Decision::Authorized if authorized => Tone::Good,
            Decision::Denied if !authorized => Tone::Good,
            Decision::Authorized | Decision::Denied => Tone::Bad,
        };
        Cell::new(word, tone)
    }
}

impl Named for Member {
    fn name(&self) -> String {
        self.node_id.clone()
    }
}

impl Row for Member {
    const NOUNS: &'static str = "members";
    const HEADERS: &'static [&'static str] = &[
        "NODE",
        "NAME",
        "DECISION",
        "UNTIL",
        "CONTROLLER SAYS",
        "ADDRESSES",
        "BECAUSE",
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let (decision, because) = self.decided();
        vec![
            self.node_id.as_str().into(),
            Cell::or_dash(self.called()),
            decision,
            Cell::or_dash(self.until.map(to_the_second)),
            self.observation(),
            Cell::or_dash(Some(self.addresses.join(","))),
            because,
        ]
    }
}

/// A node whose request waits, on whatever network.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Requested(pub(super) Member);

impl Named for Requested {
    fn name(&self) -> String {
        self.0.name()
    }
}

impl Row for Requested {
    const NOUNS: &'static str = "requests";
    const HEADERS: &'static [&'static str] = &[
        "NETWORK",
        "NODE",
        "NAME",
        "BY",
        "MADE",
        "APPROVED BY",
        "MISSING",
        "REASON",
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let waiting = self.0.waiting(now).unwrap_or_default();
        [self.0.network_id.as_str().into()]
            .into_iter()
            .chain(waiting)
            .collect()
    }
}

impl View for Member {
    fn page(&self, now: Timestamp) -> Page {
        let mut page = Page::default();
        let grant = match self.grant {
            None => Cell::or_dash(None::<&str>),
            Some(Grant::Stands) => "stands".into(),
            Some(Grant::MayActivate) => "may be activated".into(),
            Some(Grant::Revoked) => Cell::new("revoked", Tone::Bad),
        };
        page.facts([
            ("Network", self.network_id.as_str().into()),
            ("Node", self.node_id.as_str().into()),
            ("Host", Cell::or_dash(self.host.as_ref())),
            ("Device", Cell::or_dash(self.device.as_ref())),
            ("Owner", Cell::or_dash(self.owner.as_ref())),
            ("Decision", self.decision.cell()),
            ("Because", self.because.as_str().into()),
            ("Until", Cell::or_dash(self.until.map(to_the_second))),
            ("Controller says", self.observation()),
            ("Grant", grant),
            ("Addresses", Cell::or_dash(Some(self.addresses.join(", ")))),
            ("RFC4193", Cell::or_dash(self.rfc4193.as_ref())),
            ("6PLANE", Cell::or_dash(self.sixplane.as_ref())),
        ]);
        if let Some(request) = &self.request {
            request.page(&mut page, now);
        }
        if let Some(activation) = &self.activation {
            activation.page(&mut page, now);
        }
        page
    }
}
