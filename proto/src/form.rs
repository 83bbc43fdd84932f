//! What a settings file says of a network: its controller's settings, who is a member by rule, how requests go.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use picket_zerotier::settings::NetworkSettings;
use serde::{Deserialize, Serialize};

use crate::{
    WireError,
    field::{parse, span, text, to_wire_span},
    host::Labels,
    rules::{MOST_ADDRESSES, Unknown, unknown},
    settings,
    stay::{Join, join, join_to_wire},
    wire::{admin as wire, agent},
};

/// The most external nodes that one file admits.
pub const MOST_ALLOWED: usize = 10_000;
/// The most approvers.
pub const MOST_APPROVERS: usize = 64;
/// The most approvals a request needs.
pub const MOST_APPROVALS: u8 = 2;
/// The longest an activation lasts.
pub const MOST_ACTIVATION: Duration = Duration::from_secs(24 * 3600);
/// The longest a request waits.
pub const MOST_REQUEST: Duration = Duration::from_secs(90 * 24 * 3600);
const MOST_TEXT: usize = 128;

/// One external node that a file admits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// A node id, or an RFC4193 or 6PLANE address on the network.
    pub node: String,
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// The addresses it is to have; the controller's choice when empty.
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// What is managed of the controller's settings.
    pub settings: NetworkSettings,
    /// Hosts with all of these labels are members; none when empty.
    pub member_labels: Labels,
    /// External members.
    pub allow: Vec<Allowed>,
    /// How many approvals a request needs.
    pub approvals: u8,
    /// Who may approve; everybody with the role when empty.
    pub approvers: BTreeSet<String>,
    /// What becomes of members that nobody registered.
    pub unknown: Unknown,
    /// How long an activation lasts unless it says otherwise.
    pub default_activation: Duration,
    /// And at most.
    pub most_activation: Duration,
    /// How long a request waits.
    pub request_expiry: Duration,
    /// How members that are hosts are on it.
    pub join: Join,
    /// Whether other members witness that a killed one is silent.
    pub witnesses: bool,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            settings: NetworkSettings::default(),
            member_labels: Labels::default(),
            allow: Vec::new(),
            approvals: 0,
            approvers: BTreeSet::new(),
            unknown: Unknown::default(),
            default_activation: Duration::from_secs(3600),
            most_activation: MOST_ACTIVATION,
            request_expiry: Duration::from_secs(7 * 24 * 3600),
            join: Join::default(),
            witnesses: false,
        }
    }
}

impl Form {
    /// As it travels.
    #[must_use]
    pub fn to_wire(&self) -> wire::NetworkForm {
        wire::NetworkForm {
            settings: Some((&self.settings).into()),
            member_labels: self
                .member_labels
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            allow: self.allow.iter().map(allowed_to_wire).collect(),
            approvals: self.approvals.into(),
            approvers: self.approvers.iter().cloned().collect(),
            unknown: agent::UnknownMembers::from(self.unknown).into(),
            default_activation: Some(to_wire_span(self.default_activation)),
            most_activation: Some(to_wire_span(self.most_activation)),
            request_expiry: Some(to_wire_span(self.request_expiry)),
            join: Some(join_to_wire(self.join)),
            witnesses: self.witnesses,
        }
    }

    /// Reads a form; what is absent has its default.
    ///
    /// # Errors
    /// The first field that does not do, by name.
    pub fn from_wire(form: wire::NetworkForm) -> Result<Self, WireError> {
        let default = Self::default();
        if form.allow.len() > MOST_ALLOWED {
            let problem = format_args!("{} nodes, at most {MOST_ALLOWED}", form.allow.len());
            return Err(WireError::new("allow", problem));
        }
        if form.approvers.len() > MOST_APPROVERS {
            let problem = format_args!("{} of them, at most {MOST_APPROVERS}", form.approvers.len());
            return Err(WireError::new("approvers", problem));
        }
        let unspecified = form.unknown == i32::from(agent::UnknownMembers::Unspecified);
        let lasts = |field: &str, value: Option<prost_types::Duration>, default: Duration, most: Duration| {
            let Some(value) = value else { return Ok(default) };
            let lasts = span(field, value)?;
            if lasts.is_zero() || lasts > most {
                let problem = format_args!("want more than nothing and at most {} h", most.as_secs() / 3600);
                return Err(WireError::new(field, problem));
            }
            Ok(lasts)
        };
        let read = Self {
            settings: form
                .settings
                .map(settings::from_wire)
                .transpose()?
                .unwrap_or_default(),
            member_labels: Labels::new(form.member_labels).map_err(|error| error.within("members"))?,
            allow: form
                .allow
                .into_iter()
                .map(allowed_from_wire)
                .collect::<Result<_, _>>()?,
            approvals: u8::try_from(form.approvals)
                .ok()
                .filter(|approvals| *approvals <= MOST_APPROVALS)
                .ok_or_else(|| WireError::new("approvals", "want 0, 1 or 2"))?,
            approvers: form
                .approvers
                .into_iter()
                .map(|name| text("approvers", name, MOST_TEXT))
                .collect::<Result<_, _>>()?,
            unknown: if unspecified {
                default.unknown
            } else {
                unknown("unknown", form.unknown)?
            },
            default_activation: lasts(
                "default_activation",
                form.default_activation,
                default.default_activation,
                MOST_ACTIVATION,
            )?,
            most_activation: lasts(
                "most_activation",
                form.most_activation,
                default.most_activation,
                MOST_ACTIVATION,
            )?,
            request_expiry: lasts(
                "request_expiry",
                form.request_expiry,
                default.request_expiry,
                MOST_REQUEST,
            )?,
            join: form.join.as_ref().map(join).unwrap_or_default(),
            witnesses: form.witnesses,
        };
        if let Some(problem) = read.settings.validate().into_iter().next() {
            let field = format!("settings.{}", problem.field);
            return Err(WireError::new(field, problem.sentence));
        }
        if read.default_activation > read.most_activation {
            return Err(WireError::new(
                "default_activation",
                "is longer than most_activation",
            ));
        }
        if usize::from(read.approvals) > read.approvers.len() && !read.approvers.is_empty() {
            let problem = "fewer operators are named than approvals are needed";
            return Err(WireError::new("approvers", problem));
        }
        Ok(read)
    }
}

fn allowed_to_wire(allowed: &Allowed) -> wire::AllowedNode {
    wire::AllowedNode {
        node: allowed.node.clone(),
        name: allowed.name.clone(),
        addresses: allowed.addresses.iter().map(ToString::to_string).collect(),
    }
}

fn allowed_from_wire(allowed: wire::AllowedNode) -> Result<Allowed, WireError> {
    if allowed.addresses.len() > MOST_ADDRESSES {
        let problem = format_args!("{} addresses, at most {MOST_ADDRESSES}", allowed.addresses.len());
        return Err(WireError::new("allow.addresses", problem));
    }
    Ok(Allowed {
        node: text("allow.node", allowed.node, MOST_TEXT)?,
        name: text("allow.name", allowed.name, MOST_TEXT)?,
        addresses: allowed
            .addresses
            .iter()
            .map(|address| parse("allow.addresses", address))
            .collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_reads_back_as_it_was_written_and_an_empty_one_is_the_default() {
        let form = Form {
            member_labels: Labels::new([("site".to_owned(), "oslo".to_owned())]).unwrap(),
            allow: vec![Allowed {
                node: "39966434ba".into(),
                name: "ana's laptop".into(),
                addresses: ["10.147.20.5".parse().unwrap()].into(),
            }],
            approvals: 2,
            unknown: Unknown::Deauthorize,
            ..Form::default()
        };
        assert_eq!(Form::from_wire(form.to_wire()).unwrap(), form);
        assert_eq!(
            Form::from_wire(wire::NetworkForm::default()).unwrap(),
            Form::default()
        );
    }

    #[test]
    fn an_activation_over_a_day_and_a_third_approval_are_refused_by_name() {
        let long = wire::NetworkForm {
            most_activation: Some(prost_types::Duration {
                seconds: 86_401,
                nanos: 0,
            }),
            ..Default::default()
        };
        assert_eq!(Form::from_wire(long).unwrap_err().field, "most_activation");
        let many = wire::NetworkForm {
            approvals: 3,
            ..Default::default()
        };
        assert_eq!(Form::from_wire(many).unwrap_err().field, "approvals");
    }

    #[test]
    fn fewer_approvers_than_approvals_are_refused_since_nobody_could_ever_be_let_on() {
        let form = wire::NetworkForm {
            approvals: 2,
            approvers: vec!["ana".into()],
            ..Default::default()
        };
        assert_eq!(Form::from_wire(form).unwrap_err().field, "approvers");
    }
}
