//! An operator as it is printed.

use jiff::Timestamp;
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;

use crate::{
    device::Device as Registered,
    print::{Cell, Named, Page, Row, Tone, View},
    words::{ago, filled, moment, to_the_second},
};

/// An operator.
#[derive(Debug, Serialize)]
pub(super) struct Operator {
    pub(super) name: String,
    pub(super) role: Role,
    state: State,
    devices: Vec<Device>,
    added_at: Option<Timestamp>,
    added_by: Option<String>,
    revoked_at: Option<Timestamp>,
    revoked_by: Option<String>,
    reason: Option<String>,
    /// The device of this call, where an operator asks who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    this_device: Option<String>,
}

#[derive(Debug, Serialize)]
struct Device {
    name: String,
    state: State,
    fingerprint: Option<String>,
    issued_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    pending_fingerprint: Option<String>,
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    Unknown,
    Requester,
    Viewer,
    Operator,
    Admin,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Requester => "requester",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    pub(super) fn with_article(self) -> &'static str {
        match self {
            Self::Unknown => "of a role this picketctl does not know",
            Self::Requester => "a requester",
            Self::Viewer => "a viewer",
            Self::Operator => "an operator",
            Self::Admin => "an admin",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Unknown,
    Active,
    Revoked,
    Expired,
}

impl State {
    fn of(state: wire::OperatorState) -> Self {
        match state {
            wire::OperatorState::Unspecified => Self::Unknown,
            wire::OperatorState::Active => Self::Active,
            wire::OperatorState::Revoked => Self::Revoked,
            wire::OperatorState::Expired => Self::Expired,
        }
    }

    fn cell(self) -> Cell {
        match self {
            Self::Unknown => Cell::new("unknown", Tone::Dim),
            Self::Active => Cell::new("active", Tone::Good),
            Self::Revoked => Cell::new("revoked", Tone::Bad),
            Self::Expired => Cell::new("expired", Tone::Fair),
        }
    }
}

impl From<wire::Operator> for Operator {
    fn from(operator: wire::Operator) -> Self {
        let role = match operator.role() {
            wire::OperatorRole::Unspecified => Role::Unknown,
            wire::OperatorRole::Requester => Role::Requester,
            wire::OperatorRole::Viewer => Role::Viewer,
            wire::OperatorRole::Operator => Role::Operator,
            wire::OperatorRole::Admin => Role::Admin,
        };
        Self {
            role,
            state: State::of(operator.state()),
            name: operator.name,
            devices: operator.devices.into_iter().map(Device::from).collect(),
            added_at: operator.added_at.as_ref().and_then(from_wire_time),
            added_by: filled(operator.added_by),
            revoked_at: operator.revoked_at.as_ref().and_then(from_wire_time),
            revoked_by: filled(operator.revoked_by),
            reason: filled(operator.reason),
            this_device: None,
        }
    }
}

impl From<wire::OperatorDevice> for Device {
    fn from(device: wire::OperatorDevice) -> Self {
        Self {
            state: State::of(device.state()),
            name: device.name,
            fingerprint: filled(device.fingerprint),
            issued_at: device.issued_at.as_ref().and_then(from_wire_time),
            expires_at: device.expires_at.as_ref().and_then(from_wire_time),
            pending_fingerprint: filled(device.pending_fingerprint),
        }
    }
}

impl Operator {
    /// With the device that asks.
    pub(super) fn called_from(self, device: &str) -> Self {
        Self {
            this_device: filled(device.to_owned()),
            ..self
        }
    }
}

/// An operator that was cut off, and what of its stays where it is.
#[derive(Debug, Serialize)]
pub(super) struct Revoked {
    #[serde(flatten)]
    operator: Operator,
    still_authorized: Vec<Registered>,
}

impl Revoked {
    pub(super) fn new(operator: Operator, still_authorized: Vec<wire::Device>) -> Self {
        Self {
            operator,
            still_authorized: still_authorized.into_iter().map(Registered::from).collect(),
        }
    }

    /// What stays, and what to do about that; empty when nothing does.
    pub(super) fn what_is_left(&self) -> String {
        if self.still_authorized.is_empty() {
            return String::new();
        }
        let each = self.still_authorized.iter().map(Registered::where_it_is);
        let each: Vec<String> = each.collect();
        format!(
            "\nits nodes are still on their networks: {}\nnext: `picketctl kill owner {} --reason ...` cuts them off",
            each.join(", "),
            self.operator.name
        )
    }
}

impl Named for Revoked {
    fn name(&self) -> String {
        self.operator.name.clone()
    }
}

impl Named for Operator {
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for Operator {
    const NOUNS: &'static str = "operators";
    const HEADERS: &'static [&'static str] = &["NAME", "ROLE", "STATE", "DEVICES", "ADDED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let devices: Vec<&str> = self.devices.iter().map(|device| device.name.as_str()).collect();
        vec![
            self.name.as_str().into(),
            self.role.word().into(),
            self.state.cell(),
            Cell::or_dash(Some(devices.join(","))),
            Cell::or_dash(self.added_at.map(|then| ago(then, now))),
        ]
    }
}

impl View for Operator {
    fn page(&self, now: Timestamp) -> Page {
        let mut page = Page::default();
        let by = |by: &Option<String>| by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let added = self
            .added_at
            .map(|then| format!("{}{}", moment(then, now), by(&self.added_by)));
        let mut facts = vec![
            ("name", Cell::from(self.name.as_str())),
            ("role", Cell::from(self.role.word())),
            ("state", self.state.cell()),
            ("added", Cell::or_dash(added)),
        ];
        if let Some(then) = self.revoked_at {
            let revoked = format!("{}{}", moment(then, now), by(&self.revoked_by));
            facts.push(("revoked", Cell::from(revoked)));
            facts.push(("reason", Cell::or_dash(self.reason.as_ref())));
        }
        if let Some(device) = &self.this_device {
            facts.push(("this device", Cell::from(device.as_str())));
        }
        page.facts(facts);
        if !self.devices.is_empty() {
            page.title("Devices");
        }
        let rows = self.devices.iter().map(|device| {
            vec![
                device.name.as_str().into(),
                device.state.cell(),
                Cell::or_dash(device.issued_at.map(to_the_second)),
                Cell::or_dash(device.expires_at.map(to_the_second)),
                Cell::or_dash(device.fingerprint.as_ref()),
            ]
        });
        page.table(
            &["DEVICE", "STATE", "ISSUED", "EXPIRES", "CERTIFICATE"],
            rows.collect(),
        );
        page
    }
}
