//! What each verb changes of a node on a network: from what is decided of it and who calls, to a change or a refusal.
//! Nothing here is written, and no clock is read.

use std::time::Duration;

use super::pair::{Change, Pair};
use crate::{
    activation,
    membership::Because,
    owner::Caller,
    record::{
        Revocation,
        network::{ActivationRecord, GrantRecord, NetworkMode, RequestRecord, RequestState},
    },
    refused::Refused,
    request::{self, Approved, Permission},
};

/// Why an activation is over where there is nothing to activate any more.
const STANDS: &str = "it stands from here on";
/// Why an activation or a request is over with a permission.
const REVOKED: &str = "it was revoked";

/// Lets a node on in one call, as far as the network's rules allow that.
pub(super) fn admit(
    pair: &Pair,
    caller: &Caller,
    reason: &str,
    lasts: Option<Duration>,
) -> Result<Option<Change>, Refused> {
    enforced(pair)?;
    grantable(pair)?;
    let granted = pair.granted().filter(|grant| grant.admitted);
    match (granted, lasts) {
        (Some(grant), None) if !grant.for_activation => return Ok(None),
        (Some(grant), Some(_)) if grant.for_activation => return activate(pair, caller, reason, lasts),
        (Some(_), Some(_)) => {
            return Err(Refused::NotNow(format!(
                "{} is on network {} until that is revoked; revoke it first when it is to end by itself",
                pair.node, pair.network.record.id
            )));
        }
        (Some(_) | None, _) => {}
    }
    let permission = match lasts {
        None => Permission::Stands,
        Some(_) => Permission::MayActivate,
    };
    let (request, permission) = if pair.network.record.approvals == 0 {
        (fulfilled(pair, caller, reason), permission)
    } else {
        // Somebody before may have said that it is to be activated only.
        let (request, permission) = approved_by_admitting(pair, caller, reason, permission)?;
        (Some(request), permission)
    };
    let activation = match (lasts, permission) {
        (Some(_), _) => Some(activation::begun(
            pair.network.record.id,
            pair.node,
            pair.word(&caller.name, reason),
            activation::span(&pair.network.record, lasts)?,
        )),
        (None, Permission::Stands) => ended(pair, &caller.name, STANDS),
        (None, Permission::MayActivate) => None,
    };
    let said = match (&activation, permission) {
        (Some(activation), _) if activation.ended.is_none() => {
            format!(
                "admitted by {} until {:.0}: {reason}",
                caller.name, activation.until
            )
        }
        (_, Permission::MayActivate) => {
            format!("may be activated, by the word of {}: {reason}", caller.name)
        }
        (_, Permission::Stands) => format!("admitted by {}: {reason}", caller.name),
    };
    Ok(Some(Change {
        what: "member.admit",
        reason: reason.to_owned(),
        grant: Some(grant(pair, &caller.name, reason, Some(permission))),
        activation,
        request,
        said: ("member.admitted", said),
    }))
}

/// The wish that waits, when nobody has to approve it.
fn fulfilled(pair: &Pair, caller: &Caller, reason: &str) -> Option<RequestRecord> {
    let mut request = waiting(pair)?.clone();
    request.approvals.push(pair.word(&caller.name, reason));
    request.state = RequestState::Approved;
    Some(request)
}

/// Admitting where approvals are needed is giving the last one of them.
fn approved_by_admitting(
    pair: &Pair,
    caller: &Caller,
    reason: &str,
    permission: Permission,
) -> Result<(RequestRecord, Permission), Refused> {
    let (network, node) = (&pair.network.record, pair.node);
    let needed = request::needed(network);
    let what_to_do = || {
        Refused::NotNow(format!(
            "network {id} wants {needed} approval{s}, of others than the one who asks; run `picketctl member request {node} \
             --network {id}`, and have it approved with `picketctl member approve {node} --network {id}`",
            id = network.id,
            s = if needed == 1 { "" } else { "s" },
        ))
    };
    if waiting(pair).is_none() {
        return Err(what_to_do());
    }
    let role = |name: &str| pair.role(name);
    let word = pair.word(&caller.name, reason);
    match request::approve(pair.requested(), &pair.about(&role), (caller, permission), word)? {
        Approved::Granted(request, permission) => Ok((request, permission)),
        Approved::Same | Approved::Waits(_) => Err(what_to_do()),
    }
}

/// Asks that a node be let on.
pub(super) fn ask(pair: &Pair, caller: &Caller, reason: &str) -> Result<Option<Change>, Refused> {
    let (network, node) = (&pair.network.record, pair.node);
    match network.mode {
        NetworkMode::Observe | NetworkMode::Enforce => {}
        NetworkMode::Deleting | NetworkMode::Gone => return Err(deleted(pair)),
    }
    if let Some(because @ Because::DeviceRemoved { .. }) = &pair.forbidden {
        return Err(kept_off(pair, because));
    }
    let stands = pair
        .granted()
        .is_some_and(|grant| grant.admitted && !grant.for_activation);
    if stands {
        let already = format!(
            "{node} is on network {} already; there is nothing to ask for",
            network.id
        );
        return Err(Refused::NotNow(already));
    }
    let word = pair.word(&caller.name, reason);
    let Some(request) = request::make(pair.requested(), network, node, word)? else {
        return Ok(None);
    };
    let message = format!(
        "asked for by {}, until {:.0}: {reason}",
        request.by, request.expires_at
    );
    Ok(Some(Change {
        what: "member.request",
        reason: reason.to_owned(),
        grant: None,
        activation: None,
        request: Some(request),
        said: ("member.requested", message),
    }))
}

/// Approves a request.
pub(super) fn approve(
    pair: &Pair,
    caller: &Caller,
    reason: &str,
    permission: Permission,
) -> Result<Option<Change>, Refused> {
    let network = &pair.network.record;
    request::approver(network, caller)?;
    enforced(pair)?;
    grantable(pair)?;
    let role = |name: &str| pair.role(name);
    let about = pair.about(&role);
    let word = pair.word(&caller.name, reason);
    let because = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    match request::approve(pair.requested(), &about, (caller, permission), word)? {
        Approved::Same => {
            let still = waiting(pair).is_some() || pair.granted().is_some_and(|grant| grant.admitted);
            if still {
                return Ok(None);
            }
            Err(Refused::NotNow(format!(
                "what was granted to {} on network {} is revoked since; it takes another request",
                pair.node, network.id
            )))
        }
        Approved::Waits(request) => {
            // Whoever just approved is one who may.
            let missing = request::needed(network).saturating_sub(request.approvals.len());
            let message = format!("approved by {}, {missing} more needed{because}", caller.name);
            Ok(Some(Change {
                what: "member.approve",
                reason: reason.to_owned(),
                grant: None,
                activation: None,
                request: Some(request),
                said: ("member.approved", message),
            }))
        }
        Approved::Granted(request, permission) => {
            let granted = match permission {
                Permission::Stands => "it stands",
                Permission::MayActivate => "it may be activated",
            };
            let message = format!("approved by {}, {granted}{because}", caller.name);
            let why = if reason.is_empty() {
                &request.reason
            } else {
                reason
            };
            Ok(Some(Change {
                what: "member.approve",
                reason: reason.to_owned(),
                grant: Some(grant(pair, &caller.name, why, Some(permission))),
                activation: ended(pair, &caller.name, STANDS).filter(|_| permission == Permission::Stands),
                request: Some(request),
                said: ("member.approved", message),
            }))
        }
    }
}

/// Turns a request down.
pub(super) fn deny(pair: &Pair, caller: &Caller, reason: &str) -> Result<Option<Change>, Refused> {
    let (before, network) = (pair.requested(), &pair.network.record);
    let word = pair.word(&caller.name, reason);
    let denied = request::deny(before, network, pair.node, caller, word)?;
    let message = format!("denied by {}: {reason}", caller.name);
    Ok(denied.map(|request| of_request("member.deny", request, reason, ("member.denied", message))))
}

/// Takes one's own request back.
pub(super) fn cancel(pair: &Pair, caller: &Caller, reason: &str) -> Result<Option<Change>, Refused> {
    let (before, network) = (pair.requested(), &pair.network.record);
    let word = pair.word(&caller.name, reason);
    let cancelled = request::cancel(before, network, pair.node, word)?;
    let message = format!("the request was taken back by {}", caller.name);
    Ok(cancelled.map(|request| of_request("member.cancel", request, reason, ("member.cancelled", message))))
}

/// Takes a node's permission away, with an activation that goes on and a request that waits.
pub(super) fn revoke(pair: &Pair, caller: &Caller, reason: &str) -> Result<Option<Change>, Refused> {
    enforced(pair)?;
    let revoked = pair.grant.as_ref().is_some_and(|kept| !kept.record.admitted);
    let activation = ended(pair, &caller.name, REVOKED);
    let request = waiting(pair).map(|waits| {
        let word = pair.word(&caller.name, REVOKED);
        request::closed(waits, RequestState::Denied, word)
    });
    if revoked && activation.is_none() && request.is_none() {
        return Ok(None);
    }
    Ok(Some(Change {
        what: "member.revoke",
        reason: reason.to_owned(),
        grant: Some(grant(pair, &caller.name, reason, None)).filter(|_| !revoked),
        activation,
        request,
        said: ("member.revoked", format!("revoked by {}: {reason}", caller.name)),
    }))
}

/// Starts an activation.
pub(super) fn activate(
    pair: &Pair,
    caller: &Caller,
    reason: &str,
    lasts: Option<Duration>,
) -> Result<Option<Change>, Refused> {
    enforced(pair)?;
    if let Some(because) = &pair.forbidden {
        return Err(kept_off(pair, because));
    }
    let before = (pair.activated(), pair.node);
    let word = pair.word(&caller.name, reason);
    let begun = activation::start(&pair.network.record, pair.granted(), before, word, lasts)?;
    let Some(activation) = begun else { return Ok(None) };
    let message = format!(
        "activated by {} until {:.0}: {reason}",
        caller.name, activation.until
    );
    Ok(Some(of_activation(
        "member.activate",
        activation,
        reason,
        ("member.activated", message),
    )))
}

/// Moves the end of an activation.
pub(super) fn extend(
    pair: &Pair,
    caller: &Caller,
    reason: &str,
    lasts: Option<Duration>,
) -> Result<Option<Change>, Refused> {
    request::approver(&pair.network.record, caller)?;
    enforced(pair)?;
    if let Some(because) = &pair.forbidden {
        return Err(kept_off(pair, because));
    }
    somebody_elses(pair, caller)?;
    let before = (pair.activated(), pair.node);
    let activation = activation::extend(&pair.network.record, before, lasts, pair.now)?;
    let message = format!(
        "extended by {} until {:.0}: {reason}",
        caller.name, activation.until
    );
    Ok(Some(of_activation(
        "member.extend",
        activation,
        reason,
        ("member.extended", message),
    )))
}

/// Refuses to extend one's own activation where others have to approve: whoever's node it is, asked for it or started it.
fn somebody_elses(pair: &Pair, caller: &Caller) -> Result<(), Refused> {
    let network = &pair.network.record;
    if network.approvals == 0 {
        return Ok(());
    }
    let asked = pair.requested().is_some_and(|request| request.by == caller.name);
    let started = pair
        .activated()
        .is_some_and(|activation| activation.by == caller.name);
    let why = match (caller.owns(pair.owner.as_ref()), asked, started) {
        (true, _, _) => format!("{} is {}'s own", pair.node, caller.name),
        (_, true, _) => format!("{} asked for it", caller.name),
        (_, _, true) => format!("{} started it", caller.name),
        (false, false, false) => return Ok(()),
    };
    Err(Refused::Denied(format!(
        "{why}, and on network {}, which wants approvals, another one of {} extends it",
        network.id,
        request::who_approves(network)
    )))
}

/// Ends an activation before its time.
pub(super) fn end(pair: &Pair, caller: &Caller, reason: &str) -> Result<Option<Change>, Refused> {
    if pair.activated().is_none() {
        let (network, node) = (pair.network.record.id, pair.node);
        return Err(activation::ActivationError::NotOn { network, node }.into());
    }
    let Some(activation) = ended(pair, &caller.name, reason) else {
        return Ok(None);
    };
    let because = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    let message = format!("ended by {}{because}", caller.name);
    Ok(Some(of_activation(
        "member.end",
        activation,
        reason,
        ("member.ended", message),
    )))
}

/// Everything that was decided of a node is undone, whoever is to have the node next.
pub(in crate::admin) fn undo(pair: &Pair, by: &str, reason: &str) -> Option<Change> {
    let admitted = pair.grant.as_ref().is_some_and(|kept| kept.record.admitted);
    let activation = ended(pair, by, reason);
    let request =
        waiting(pair).map(|waits| request::closed(waits, RequestState::Cancelled, pair.word(by, reason)));
    let change = Change {
        what: "member.revoke",
        reason: reason.to_owned(),
        grant: admitted.then(|| grant(pair, by, reason, None)),
        activation,
        request,
        said: ("member.revoked", format!("revoked by {by}: {reason}")),
    };
    let nothing = change.grant.is_none() && change.activation.is_none() && change.request.is_none();
    (!nothing).then_some(change)
}

fn of_request(
    what: &'static str,
    request: RequestRecord,
    reason: &str,
    said: (&'static str, String),
) -> Change {
    Change {
        what,
        reason: reason.to_owned(),
        grant: None,
        activation: None,
        request: Some(request),
        said,
    }
}

fn of_activation(
    what: &'static str,
    activation: ActivationRecord,
    reason: &str,
    said: (&'static str, String),
) -> Change {
    Change {
        what,
        reason: reason.to_owned(),
        grant: None,
        activation: Some(activation),
        request: None,
        said,
    }
}

/// A grant of this permission; without one, none.
fn grant(pair: &Pair, by: &str, reason: &str, permission: Option<Permission>) -> GrantRecord {
    GrantRecord {
        network: pair.network.record.id,
        node: pair.node,
        admitted: permission.is_some(),
        for_activation: permission == Some(Permission::MayActivate),
        by: by.to_owned(),
        reason: reason.to_owned(),
        at: pair.now,
    }
}

fn waiting(pair: &Pair) -> Option<&RequestRecord> {
    pair.requested()
        .filter(|request| request::waits(request, pair.now))
}

/// The activation that goes on, ended.
fn ended(pair: &Pair, by: &str, reason: &str) -> Option<ActivationRecord> {
    let word: Revocation = pair.word(by, reason);
    activation::end(pair.activated(), word)
}

/// Refuses where nothing would come of a change.
fn enforced(pair: &Pair) -> Result<(), Refused> {
    let id = pair.network.record.id;
    match pair.network.record.mode {
        NetworkMode::Enforce => Ok(()),
        NetworkMode::Observe => Err(Refused::NotNow(format!(
            "network {id} is adopted and not enforced, so nothing would change on it; run `picketctl network enforce {id}` \
             first"
        ))),
        NetworkMode::Deleting | NetworkMode::Gone => Err(deleted(pair)),
    }
}

fn deleted(pair: &Pair) -> Refused {
    let id = pair.network.record.id;
    Refused::NotNow(format!(
        "network {id} is being deleted; nobody is let on it any more"
    ))
}

/// Refuses to grant what is killed or removed. A host that is banned may be granted what holds when it is let in again.
fn grantable(pair: &Pair) -> Result<(), Refused> {
    match &pair.forbidden {
        None | Some(Because::HostBanned(_)) => Ok(()),
        Some(because) => Err(kept_off(pair, because)),
    }
}

/// What keeps a node off, and what to do about it.
fn kept_off(pair: &Pair, because: &Because) -> Refused {
    let node = pair.node;
    let remedy = if matches!(because, Because::Killed { .. }) {
        "; lift that with `picketctl unkill` first".to_owned()
    } else if let Because::HostBanned(host) = because {
        format!("; `picketctl host unban {host}` first")
    } else if matches!(because, Because::DeviceRemoved { .. }) {
        format!("; `picketctl device register {node}` first")
    } else {
        String::new()
    };
    Refused::NotNow(format!("{node} is kept off: {because}{remedy}"))
}
