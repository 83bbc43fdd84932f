//! What a settings file makes of a network: its record, and what that changes, for whoever looks before.
//!
//! Nothing here looks at a clock or at a controller: a plan is a function of what is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
    time::Duration,
};

use jiff::Timestamp;
use picket_proto::{
    WireError,
    form::{Allowed, Form},
    host::HostId,
    rules::Unknown,
    stay::Join,
};
use picket_zerotier::{
    address,
    ids::{NetworkId, NodeId},
    settings::NetworkSettings,
};

use crate::{
    membership::{Because, Decision, Facts, authorized},
    record::network::{AllowedNode, GrantRecord, NetworkRecord, Spans},
    request::{decides, needed},
    views::State,
};

/// Why a node that the settings name no more is revoked.
pub const NAMED_NO_MORE: &str = "no longer in the settings";
/// The longest value that is shown of what changes.
const MOST_SHOWN: usize = 200;

/// One thing that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What: a field, `allow 39966434ba`, `member oslo`.
    pub what: String,
    /// As it is.
    pub before: String,
    /// As it will be.
    pub after: String,
}

impl Change {
    pub(crate) fn new(what: impl Into<String>, before: impl Into<String>, after: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            before: before.into(),
            after: after.into(),
        }
    }
}

/// What a settings file would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The network's record, as it will be.
    pub record: NetworkRecord,
    /// Nodes that are named no more and that nobody else knows: they are to be revoked, since somebody unknown is only
    /// reported.
    pub dropped: BTreeSet<NodeId>,
    /// What changes, fields first.
    pub changes: Vec<Change>,
    /// Whether somebody is let on who was not.
    pub admits: bool,
    /// Why it takes an admin, in a sentence: it goes round the approvals that the network wants.
    pub needs_admin: Option<String>,
    /// Hosts whose path to the master goes over the network and is cut, by name.
    pub cuts: Vec<String>,
    /// Approvers who may not approve, a sentence each.
    pub cautions: Vec<String>,
    /// Why it is not applied, in a sentence: it names other approvers, and nothing could be approved.
    pub nobody_approves: Option<String>,
}

/// Reads a node that settings name: by id, or by its RFC4193 or 6PLANE address on the network.
///
/// # Errors
/// A text that is neither, or an address on another network.
pub fn node_on(network: NetworkId, text: &str) -> Result<NodeId, WireError> {
    let wrong = |problem: String| WireError::new("allow.node", problem);
    let error = match text.parse::<NodeId>() {
        Ok(node) => return Ok(node),
        Err(error) => error,
    };
    let Ok(address) = text.parse::<Ipv6Addr>() else {
        return Err(wrong(format!(
            "`{}` is neither a node id ({error}) nor an RFC4193 or 6PLANE address on {network}",
            text.escape_debug()
        )));
    };
    match address::from_rfc4193(address) {
        Some((on, node)) if on == network => return Ok(node),
        Some((on, _)) => return Err(wrong(format!("{address} is an address on network {on}"))),
        None => {}
    }
    address::from_sixplane_of(network, address)
        .ok_or_else(|| wrong(format!("{address} is no RFC4193 or 6PLANE address on {network}")))
}

/// The record that a form makes of a network. `taken_off` says when a node was revoked or its device removed last, if it
/// is: settings that name it anew from here on come after that.
///
/// # Errors
/// Two entries for one node, and one that names none.
pub fn with_form(
    before: &NetworkRecord,
    form: Form,
    now: Timestamp,
    taken_off: impl Fn(NodeId) -> Option<Timestamp>,
) -> Result<NetworkRecord, WireError> {
    let mut allow = BTreeMap::new();
    for Allowed {
        node: text,
        name,
        addresses,
    } in form.allow
    {
        let node = node_on(before.id, &text)?;
        let since = match (before.allow.get(&node), taken_off(node)) {
            (Some(named), _) => named.since,
            (None, Some(then)) => now.max(then + Duration::from_nanos(1)),
            (None, None) => now,
        };
        let named = AllowedNode {
            name,
            addresses,
            since,
        };
        if allow.insert(node, named).is_some() {
            let problem = format_args!("node {node} is named twice; keep one of the two");
            return Err(WireError::new("allow", problem));
        }
    }
    Ok(NetworkRecord {
        settings: form.settings,
        member_labels: form.member_labels,
        allow,
        approvals: form.approvals,
        approvers: form.approvers,
        unknown: form.unknown,
        spans: Spans {
            activation: form.default_activation,
            most_activation: form.most_activation,
            request: form.request_expiry,
        },
        join: form.join,
        witnesses: form.witnesses,
        ..before.clone()
    })
}

/// The form that would make a network what it is.
#[must_use]
pub fn form(record: &NetworkRecord) -> Form {
    let allowed = |(node, allowed): (&NodeId, &AllowedNode)| Allowed {
        node: node.to_string(),
        name: allowed.name.clone(),
        addresses: allowed.addresses.clone(),
    };
    Form {
        settings: record.settings.clone(),
        member_labels: record.member_labels.clone(),
        allow: record.allow.iter().map(allowed).collect(),
        approvals: record.approvals,
        approvers: record.approvers.clone(),
        unknown: record.unknown,
        default_activation: record.spans.activation,
        most_activation: record.spans.most_activation,
        request_expiry: record.spans.request,
        join: record.join,
        witnesses: record.witnesses,
    }
}

/// What changes when a network's record becomes `after`. `paths` are the hosts whose session goes over the network.
#[must_use]
pub fn plan(
    state: &State,
    before: &NetworkRecord,
    after: NetworkRecord,
    paths: &BTreeSet<HostId>,
    now: Timestamp,
) -> Plan {
    let mut changes = fields(before, &after);
    let facts = |node| state.networks.facts(&state.roster, before.id, node);
    let mut nodes = state.networks.known_on(&state.roster, before.id);
    nodes.extend(after.allow.keys());
    let (mut dropped, mut cuts, mut admits) = (BTreeSet::new(), Vec::new(), false);
    for node in nodes {
        let Some(facts) = facts(node) else { continue };
        let was = authorized(
            &Facts {
                network: before,
                ..facts
            },
            now,
        );
        let mut is = authorized(
            &Facts {
                network: &after,
                ..facts
            },
            now,
        );
        if is == Decision::Unknown && before.allow.contains_key(&node) {
            dropped.insert(node);
            is = Decision::Denied(Because::Revoked {
                by: "the settings".to_owned(),
                reason: NAMED_NO_MORE.to_owned(),
            });
        }
        let host = facts.host.filter(|host| paths.contains(&host.id));
        if let Some(host) = host
            && before.is_governed()
            && was.authorizes()
            && (!is.authorizes() || (before.join.managed && !after.join.managed))
        {
            cuts.push(host.name.to_string());
        }
        if was.authorizes() != is.authorizes() {
            admits |= is.authorizes();
            let what = format!("member {}", called(&facts, &after, before));
            changes.push(Change::new(what, said(&was), said(&is)));
        }
    }
    let needs_admin = goes_round(state, before, &after, admits);
    let other = before.approvers != after.approvers || needed(before) != needed(&after);
    Plan {
        needs_admin,
        cautions: unable(state, &after),
        nobody_approves: nobody_approves(state, &after).filter(|_| other),
        record: after,
        dropped,
        changes,
        admits,
        cuts,
    }
}

/// Those named as approvers who may not approve, a sentence each.
#[must_use]
pub fn unable(state: &State, network: &NetworkRecord) -> Vec<String> {
    let sentence = |name: &String| match state.roster.role(name) {
        None => Some(format!(
            "approvers: {name} is no operator, or is revoked, and approves nothing"
        )),
        Some(role) if !decides(network, name, role) => Some(format!(
            "approvers: {name}'s role is {role}, which approves nothing"
        )),
        Some(_) => None,
    };
    network.approvers.iter().filter_map(sentence).collect()
}

/// Why nothing could be approved on a network, where its settings name approvers.
#[must_use]
pub fn nobody_approves(state: &State, network: &NetworkRecord) -> Option<String> {
    let may = |name: &&String| {
        state
            .roster
            .role(name)
            .is_some_and(|role| decides(network, name, role))
    };
    let (may, needed) = (network.approvers.iter().filter(may).count(), needed(network));
    let short = !network.approvers.is_empty() && may < needed;
    short.then(|| {
        format!(
            "a request would need {needed} of them, and {may} of those who are named may approve ({}); name operators or \
             admins (`picketctl operator list`)",
            unable(state, network).join("; ").replace("approvers: ", "")
        )
    })
}

/// What of a change goes round the approvals that a network wants, in a sentence. What lets nobody on yet counts too, where
/// it would with one more change that needs no approval: a label, or the end of an activation.
fn goes_round(state: &State, before: &NetworkRecord, after: &NetworkRecord, admits: bool) -> Option<String> {
    if before.approvals == 0 {
        return None;
    }
    let names = after.allow.keys().any(|node| !before.allow.contains_key(node));
    let narrower =
        before.member_labels.iter().next().is_some() && after.member_labels.include(&before.member_labels);
    let labels = after.member_labels.iter().next().is_some() && !narrower;
    let mut others = after
        .approvers
        .iter()
        .filter(|name| match state.roster.role(name) {
            Some(role) => decides(after, name, role) && !decides(before, name, role),
            None => !before.approvers.contains(*name),
        });
    let everybody = after.approvers.is_empty() && !before.approvers.is_empty();
    let ways = [
        (admits || names, "lets nodes on"),
        (labels, "makes other hosts members"),
        (after.approvals < before.approvals, "asks for fewer approvals"),
        (everybody || others.next().is_some(), "lets others approve"),
    ];
    let ways: Vec<_> = ways
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, way)| way)
        .collect();
    (!ways.is_empty()).then(|| {
        format!(
            "it {}, and network {} wants {} for that; an admin applies it, or leave that out and have each node requested and \
             approved",
            ways.join(" and "),
            before.id,
            match before.approvals {
                1 => "1 approval".to_owned(),
                many => format!("{many} approvals"),
            }
        )
    })
}

/// What a node is called by whoever knows it.
fn called(facts: &Facts<'_>, after: &NetworkRecord, before: &NetworkRecord) -> String {
    let host = facts.host.map(|host| host.name.to_string());
    let device = || facts.device.map(|device| device.name.to_string());
    let allowed = || {
        let named = after
            .allow
            .get(&facts.node)
            .or_else(|| before.allow.get(&facts.node));
        let name = named.map(|named| named.name.clone())?;
        (!name.is_empty()).then(|| format!("{} ({name})", facts.node))
    };
    host.or_else(device)
        .or_else(allowed)
        .unwrap_or_else(|| facts.node.to_string())
}

/// A decision in words.
pub(crate) fn said(decision: &Decision) -> String {
    match decision {
        Decision::Authorized { because, .. } => format!("authorized: {because}"),
        Decision::Denied(because) => format!("denied: {because}"),
        Decision::Unknown => "unknown: nobody registered it".to_owned(),
    }
}

/// The revocation of a node that is named no more.
#[must_use]
pub fn revocation(network: NetworkId, node: NodeId, by: &str, at: Timestamp) -> GrantRecord {
    GrantRecord {
        network,
        node,
        admitted: false,
        for_activation: false,
        by: by.to_owned(),
        reason: NAMED_NO_MORE.to_owned(),
        at,
    }
}

/// Every field that differs.
fn fields(before: &NetworkRecord, after: &NetworkRecord) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut see = |what: String, before: String, after: String| {
        if before != after {
            changes.push(Change::new(what, before, after));
        }
    };
    let (was, is) = (settings(&before.settings), settings(&after.settings));
    let both: BTreeSet<_> = was.keys().chain(is.keys()).collect();
    for field in both {
        let shown = |all: &BTreeMap<String, String>| {
            all.get(field)
                .cloned()
                .unwrap_or_else(|| "not managed".to_owned())
        };
        see(field.clone(), shown(&was), shown(&is));
    }
    let labels = |record: &NetworkRecord| {
        let pairs = record.member_labels.iter();
        or_none(pairs.map(|(key, value)| format!("{key}={value}")).collect())
    };
    see("members".to_owned(), labels(before), labels(after));
    let named: BTreeSet<_> = before.allow.keys().chain(after.allow.keys()).collect();
    for node in named {
        let shown = |record: &NetworkRecord| {
            record
                .allow
                .get(node)
                .map_or_else(|| "not named".to_owned(), allowed)
        };
        see(format!("allow {node}"), shown(before), shown(after));
    }
    see(
        "approvals".to_owned(),
        before.approvals.to_string(),
        after.approvals.to_string(),
    );
    let approvers = |record: &NetworkRecord| match record.approvers.is_empty() {
        true => "everybody with the role".to_owned(),
        false => record.approvers.iter().cloned().collect::<Vec<_>>().join(", "),
    };
    see("approvers".to_owned(), approvers(before), approvers(after));
    let unknown = |record: &NetworkRecord| match record.unknown {
        Unknown::Report => "report".to_owned(),
        Unknown::Deauthorize => "deauthorize".to_owned(),
    };
    see("unknown".to_owned(), unknown(before), unknown(after));
    for (what, span) in [
        (
            "default_activation",
            (|spans| spans.activation) as fn(Spans) -> Duration,
        ),
        ("most_activation", |spans| spans.most_activation),
        ("request_expiry", |spans| spans.request),
    ] {
        let shown = |record: &NetworkRecord| format!("{:#}", friendly(span(record.spans)));
        see(what.to_owned(), shown(before), shown(after));
    }
    see("join".to_owned(), join(before.join), join(after.join));
    see(
        "witnesses".to_owned(),
        before.witnesses.to_string(),
        after.witnesses.to_string(),
    );
    changes
}

fn friendly(span: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::MAX)
}

fn join(join: Join) -> String {
    let all = [
        ("managed", join.managed),
        ("global", join.global),
        ("default", join.default_route),
        ("dns", join.dns),
    ];
    or_none(
        all.into_iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| name.to_owned())
            .collect(),
    )
}

fn or_none(parts: Vec<String>) -> String {
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

fn allowed(node: &AllowedNode) -> String {
    let name = if node.name.is_empty() { "named" } else { &node.name };
    if node.addresses.is_empty() {
        return name.to_owned();
    }
    let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
    format!("{name} at {}", addresses.join(", "))
}

/// The settings that are managed, as they are shown.
fn settings(settings: &NetworkSettings) -> BTreeMap<String, String> {
    let list = |parts: Vec<String>| shortened(or_none(parts));
    let mut shown = BTreeMap::new();
    // Their own names are those of a settings file.
    if let Ok(serde_json::Value::Object(all)) = serde_json::to_value(settings) {
        for (field, value) in all {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            shown.insert(field, shortened(text));
        }
    }
    if let Some(routes) = &settings.routes {
        shown.insert(
            "routes".to_owned(),
            list(routes.iter().map(ToString::to_string).collect()),
        );
    }
    if let Some(pools) = &settings.pools {
        shown.insert(
            "pools".to_owned(),
            list(pools.iter().map(ToString::to_string).collect()),
        );
    }
    if let Some(dns) = &settings.dns {
        shown.insert("dns".to_owned(), shortened(dns.to_string()));
    }
    shown
}

/// A long value by its beginning, and by what tells it from another one that begins so.
fn shortened(text: String) -> String {
    if text.chars().count() <= MOST_SHOWN {
        return text;
    }
    let digest = picket_proto::beat::Digest::of(text.as_bytes());
    let beginning: String = text.chars().take(MOST_SHOWN / 2).collect();
    format!("{beginning}... ({} bytes, {digest:?})", text.len())
}

#[cfg(test)]
#[path = "network_plan_tests.rs"]
mod tests;
