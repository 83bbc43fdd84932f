//! Requests: somebody's wish that a node be on a network, and the approvals that it waits for.
//!
//! A request needs as many approvals as its network says, and one where the network says none: there an operator admits
//! directly, and whoever may not do that asks. Whoever approves is neither the requester nor the person whose node it is,
//! and counts once, for as long as he might approve again: who is revoked, lost the role or is named no more counts no more.
//! A request is worth nothing without the one who made it. The last approval grants. Each approval says what is to be granted, and the stricter word wins: where
//! one of them said that the node may only be activated, that is what is granted.
//!
//! Plain functions of records and the time; nothing here is written or looked up.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use picket_zerotier::ids::{NetworkId, NodeId};

use crate::{
    owner::{Caller, Owner},
    record::{
        OperatorRole, Revocation,
        network::{NetworkRecord, RequestRecord, RequestState},
    },
};

/// What an approval grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// The node is a member until that is revoked.
    Stands,
    /// It may be activated for a time.
    MayActivate,
}

impl Permission {
    /// The stricter of two.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Stands, Self::Stands) => Self::Stands,
            (Self::MayActivate, _) | (_, Self::MayActivate) => Self::MayActivate,
        }
    }
}

/// What a request is about, and what those are who have to do with it.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// Where.
    pub network: &'a NetworkRecord,
    /// For what.
    pub node: NodeId,
    /// Whose that is.
    pub owner: Option<&'a Owner>,
    /// The role that somebody has; none when it is revoked, or nobody of that name is known.
    pub role: &'a dyn Fn(&str) -> Option<OperatorRole>,
}

impl About<'_> {
    /// Whether somebody's word on a request counts.
    fn counts(&self, request: &RequestRecord, name: &str) -> bool {
        let owns = self.owner.is_some_and(|owner| owner.is(name));
        let decides = (self.role)(name).is_some_and(|role| decides(self.network, name, role));
        decides && !owns && request.by != name
    }

    /// Who may give the approvals that a request waits for, in a sentence.
    #[must_use]
    pub fn missing_from(&self, request: &RequestRecord) -> String {
        let person = match self.owner {
            Some(Owner::Person(name)) => Some(name.as_str()),
            Some(Owner::Host(_)) | None => None,
        };
        let gave: BTreeSet<&str> = self.counting(request).map(|one| one.by.as_str()).collect();
        let named = &self.network.approvers;
        if named.is_empty() {
            let others: BTreeSet<&str> = gave
                .into_iter()
                .chain(person)
                .chain([request.by.as_str()])
                .collect();
            let others: Vec<&str> = others.into_iter().collect();
            return format!("any operator or admin but {}", others.join(", "));
        }
        let may = named.iter().filter(|name| self.counts(request, name));
        let may: Vec<&str> = may
            .map(String::as_str)
            .filter(|name| !gave.contains(name))
            .collect();
        let all: Vec<&str> = named.iter().map(String::as_str).collect();
        if may.is_empty() {
            format!(
                "nobody: of those whom the network's settings name ({}) none may approve this that has not",
                all.join(", ")
            )
        } else {
            may.join(", ")
        }
    }

    /// The approvals that count.
    pub fn counting<'r>(&self, request: &'r RequestRecord) -> impl Iterator<Item = &'r Revocation> {
        let approvals = request.approvals.iter();
        approvals.filter(|approval| self.counts(request, &approval.by))
    }
}

/// What an approval did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approved {
    /// The caller approved before.
    Same,
    /// More of them are needed.
    Waits(RequestRecord),
    /// It was the last one.
    Granted(RequestRecord, Permission),
}

/// Why a request is not made or decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Somebody else asked.
    #[error(
        "{by} asked for {node} on network {network} already, and that waits; see `picketctl member show {node} --network \
         {network}`"
    )]
    AskedAlready {
        /// Who.
        by: String,
        /// Where.
        network: NetworkId,
        /// For what.
        node: NodeId,
    },
    /// Nothing waits.
    #[error(
        "no request for {node} on network {network} waits{}; ask with `picketctl member request {node} --network {network}`",
        .last.map(|state| format!(": the last one {}", word(state))).unwrap_or_default()
    )]
    NothingWaits {
        /// Where.
        network: NetworkId,
        /// For what.
        node: NodeId,
        /// Where the last one stands.
        last: Option<RequestState>,
    },
    /// Not an approver.
    #[error("{name} may not decide on requests for network {network}: that is for {}", approvers(.named))]
    NoApprover {
        /// Who called.
        name: String,
        /// Where.
        network: NetworkId,
        /// Those whom the network names.
        named: Vec<String>,
    },
    /// The approver asked.
    #[error(
        "{name} asked for it, and somebody else has to approve: {who}; `picketctl member cancel` takes it back"
    )]
    OwnRequest {
        /// Who.
        name: String,
        /// Those who may.
        who: String,
    },
    /// The approver owns the node.
    #[error("{node} is {name}'s own, and somebody else has to approve: {who}")]
    OwnNode {
        /// Who.
        name: String,
        /// Those who may.
        who: String,
        /// What.
        node: NodeId,
    },
    /// Whoever asked is gone.
    #[error(
        "{by}, who asked for it, is revoked; turn it down with `picketctl member deny`, and let somebody else ask"
    )]
    AskerGone {
        /// Who asked.
        by: String,
    },
    /// Somebody else's request is taken back.
    #[error(
        "{by} asked for it, and only {by} takes it back; an approver turns it down with `picketctl member deny`"
    )]
    NotYours {
        /// Who asked.
        by: String,
    },
}

fn word(state: RequestState) -> &'static str {
    match state {
        RequestState::Pending => "expired just now",
        RequestState::Approved => "was approved",
        RequestState::Denied => "was denied",
        RequestState::Cancelled => "was taken back",
        RequestState::Expired => "expired",
    }
}

fn approvers(named: &[String]) -> String {
    if named.is_empty() {
        "operators and admins".to_owned()
    } else {
        named.join(", ")
    }
}

/// Who approves on a network, for sentences.
#[must_use]
pub fn who_approves(network: &NetworkRecord) -> String {
    let named: Vec<String> = network.approvers.iter().cloned().collect();
    approvers(&named)
}

/// How many approvals a request on this network needs.
#[must_use]
pub fn needed(network: &NetworkRecord) -> usize {
    usize::from(network.approvals).max(1)
}

/// How many approvals a request waits for.
#[must_use]
pub fn missing(request: &RequestRecord, about: &About<'_>) -> usize {
    match request.state {
        RequestState::Pending => {
            let counting = about.counting(request).count();
            needed(about.network).saturating_sub(counting).max(1)
        }
        RequestState::Approved | RequestState::Denied | RequestState::Cancelled | RequestState::Expired => 0,
    }
}

/// Checks that an operator may decide on a network's requests: it is one of those whom the network names, or, where it
/// names nobody, an operator or an admin.
///
/// # Errors
/// When it may not.
pub fn approver(network: &NetworkRecord, caller: &Caller) -> Result<(), RequestError> {
    if decides(network, &caller.name, caller.role) {
        return Ok(());
    }
    Err(RequestError::NoApprover {
        name: caller.name.clone(),
        network: network.id,
        named: network.approvers.iter().cloned().collect(),
    })
}

/// Whether somebody of this name and role decides on a network's requests.
#[must_use]
pub fn decides(network: &NetworkRecord, name: &str, role: OperatorRole) -> bool {
    let named = network.approvers.contains(name);
    match role {
        OperatorRole::Requester => false,
        OperatorRole::Viewer => named,
        OperatorRole::Operator | OperatorRole::Admin => named || network.approvers.is_empty(),
    }
}

/// Asks that a node be let on. Nothing when the caller asked already and that waits.
///
/// # Errors
/// When somebody else did.
pub fn make(
    before: Option<&RequestRecord>,
    network: &NetworkRecord,
    node: NodeId,
    asked: Revocation,
) -> Result<Option<RequestRecord>, RequestError> {
    match before.filter(|before| waits(before, asked.at)) {
        Some(before) if before.by == asked.by => return Ok(None),
        Some(before) => {
            return Err(RequestError::AskedAlready {
                by: before.by.clone(),
                network: network.id,
                node,
            });
        }
        None => {}
    }
    Ok(Some(RequestRecord {
        network: network.id,
        node,
        expires_at: after(asked.at, network.spans.request),
        by: asked.by,
        reason: asked.reason,
        at: asked.at,
        approvals: Vec::new(),
        for_activation: false,
        state: RequestState::Pending,
        ended: None,
    }))
}

/// Approves.
///
/// # Errors
/// When nothing waits, the caller is not one who may, or the one who asked is gone.
pub fn approve(
    before: Option<&RequestRecord>,
    about: &About<'_>,
    (caller, permission): (&Caller, Permission),
    approval: Revocation,
) -> Result<Approved, RequestError> {
    let (network, node) = (about.network, about.node);
    approver(network, caller)?;
    let theirs = |request: &RequestRecord| request.approvals.iter().any(|one| one.by == caller.name);
    if let Some(before) = before
        && before.state == RequestState::Approved
        && theirs(before)
    {
        return Ok(Approved::Same);
    }
    let before = waiting(before, network, node, approval.at)?;
    if before.by == caller.name {
        return Err(RequestError::OwnRequest {
            name: caller.name.clone(),
            who: about.missing_from(before),
        });
    }
    if caller.owns(about.owner) {
        return Err(RequestError::OwnNode {
            name: caller.name.clone(),
            who: about.missing_from(before),
            node,
        });
    }
    if (about.role)(&before.by).is_none() {
        return Err(RequestError::AskerGone {
            by: before.by.clone(),
        });
    }
    let mut request = before.clone();
    request.approvals = about.counting(before).cloned().collect();
    if !theirs(&request) {
        request.approvals.push(approval);
    } else if needed(network) > request.approvals.len() {
        return Ok(Approved::Same);
    }
    let said = if request.for_activation {
        Permission::MayActivate
    } else {
        Permission::Stands
    };
    let permission = permission.stricter(said);
    request.for_activation = permission == Permission::MayActivate;
    if request.approvals.len() < needed(network) {
        return Ok(Approved::Waits(request));
    }
    request.state = RequestState::Approved;
    Ok(Approved::Granted(request, permission))
}

/// Turns a request down. Nothing when it was.
///
/// # Errors
/// When nothing waits, or the caller is not one who may.
pub fn deny(
    before: Option<&RequestRecord>,
    network: &NetworkRecord,
    node: NodeId,
    caller: &Caller,
    denial: Revocation,
) -> Result<Option<RequestRecord>, RequestError> {
    approver(network, caller)?;
    if before.is_some_and(|before| before.state == RequestState::Denied) {
        return Ok(None);
    }
    let before = waiting(before, network, node, denial.at)?;
    Ok(Some(closed(before, RequestState::Denied, denial)))
}

/// Takes one's own request back. Nothing when it was.
///
/// # Errors
/// When nothing waits, or somebody else asked.
pub fn cancel(
    before: Option<&RequestRecord>,
    network: &NetworkRecord,
    node: NodeId,
    cancelled: Revocation,
) -> Result<Option<RequestRecord>, RequestError> {
    let own = |request: &RequestRecord| request.by == cancelled.by;
    if before.is_some_and(|before| before.state == RequestState::Cancelled && own(before)) {
        return Ok(None);
    }
    let before = waiting(before, network, node, cancelled.at)?;
    if !own(before) {
        return Err(RequestError::NotYours {
            by: before.by.clone(),
        });
    }
    Ok(Some(closed(before, RequestState::Cancelled, cancelled)))
}

/// A request that is over with somebody's word.
#[must_use]
pub fn closed(request: &RequestRecord, state: RequestState, ended: Revocation) -> RequestRecord {
    RequestRecord {
        state,
        ended: Some(ended),
        ..request.clone()
    }
}

/// A request that nobody decided in time; nothing when it is not as far as that.
#[must_use]
pub fn expired(request: &RequestRecord, now: Timestamp) -> Option<RequestRecord> {
    let over = request.state == RequestState::Pending && !waits(request, now);
    over.then(|| RequestRecord {
        state: RequestState::Expired,
        ..request.clone()
    })
}

/// Whether it can be decided.
#[must_use]
pub fn waits(request: &RequestRecord, now: Timestamp) -> bool {
    request.state == RequestState::Pending && now < request.expires_at
}

fn waiting<'a>(
    request: Option<&'a RequestRecord>,
    network: &NetworkRecord,
    node: NodeId,
    now: Timestamp,
) -> Result<&'a RequestRecord, RequestError> {
    request
        .filter(|request| waits(request, now))
        .ok_or(RequestError::NothingWaits {
            network: network.id,
            node,
            last: request.map(|request| request.state),
        })
}

/// A moment a span after another; the last one there is when that is beyond it.
#[must_use]
pub fn after(at: Timestamp, span: Duration) -> Timestamp {
    at.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
