//! The ZeroTier nodes of hosts, as operators see them and decide on them.

use picket_proto::{
    host::{HostId, Name},
    wire::admin as wire,
};
use picket_zerotier::ids::NodeId;

use crate::{
    desk::{Actor, Desk},
    event::Severity,
    node::NodeStanding,
    record::{HostRecord, HostStanding},
    refused::Refused,
};

/// What an operator says of a host's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The host is this node.
    Accept(NodeId),
    /// Nothing is believed any more.
    Forget,
}

impl Decision {
    /// Of the text in a request.
    pub(super) fn of(text: &str) -> Result<Self, Refused> {
        if text.is_empty() {
            return Ok(Self::Forget);
        }
        text.parse()
            .map(Self::Accept)
            .map_err(|error| Refused::invalid("node_id", error))
    }
}

/// Does what an operator says. Returns what he should know besides. To say the same twice changes nothing.
pub(super) async fn decide(
    desk: &Desk,
    actor: &Actor,
    (name, id): (&Name, HostId),
    decision: Decision,
    reason: &str,
) -> Result<Vec<String>, Refused> {
    // Nobody else may be given the node between the look and the commit.
    let _turn = desk.turn.lock().await;
    let before = desk
        .views
        .read()
        .roster
        .host(id)
        .and_then(|host| host.record.node);
    if let Decision::Accept(node) = decision
        && before != Some(node)
    {
        acceptable(desk, (name, id), node)?;
        // What the host may, its node may from then on.
        desk.may_approve()?;
    }
    let shown = desk.nodes.of(id).and_then(|waiting| waiting.claim.proof.ok());
    let change = |host: &mut HostRecord| {
        if host.standing != HostStanding::Active {
            return Err(Refused::NotNow(format!(
                "host {name} is banned, and its ban rests on its node too; `picketctl host unban {name}` first"
            )));
        }
        Ok(match decision {
            Decision::Accept(node) if host.node == Some(node) => {
                let only_said = host.node_standing == NodeStanding::Unproven;
                if only_said {
                    host.node_standing = NodeStanding::Accepted;
                }
                only_said
            }
            Decision::Accept(node) => {
                let identity = shown.filter(|identity| identity.node() == node);
                let standing = identity.map_or(NodeStanding::Accepted, |_| NodeStanding::Proven);
                host.believe(node, standing, identity);
                true
            }
            Decision::Forget => {
                let had = host.node.is_some();
                host.forget_node();
                had
            }
        })
    };
    let audit = actor.does("host.node", name, &said(decision, reason));
    let (_, changed) = desk.change_host(id, audit, change).await?;
    if !changed {
        return Ok(Vec::new());
    }
    if matches!(decision, Decision::Accept(_)) {
        desk.nodes.settle(id);
    }
    let (kind, verb) = match decision {
        Decision::Accept(_) => ("node.accepted", "accepted"),
        Decision::Forget => ("node.forgotten", "forgotten"),
    };
    let message = format!("{verb} by {}: {}", actor.name(), said(decision, reason));
    desk.say(Severity::Notice, kind, name.as_str(), &message);
    let gone = before.filter(|before| decision != Decision::Accept(*before));
    Ok(gone
        .and_then(|gone| left_behind(desk, gone))
        .into_iter()
        .collect())
}

fn said(decision: Decision, reason: &str) -> String {
    match decision {
        Decision::Accept(node) => format!("node {node}: {reason}"),
        Decision::Forget => format!("none: {reason}"),
    }
}

/// A node is accepted of the host that says so, and of one at a time.
fn acceptable(desk: &Desk, (name, id): (&Name, HostId), node: NodeId) -> Result<(), Refused> {
    let owner = {
        let views = desk.views.read();
        let owner = views.roster.of_node(node).filter(|owner| owner.record.id != id);
        owner.map(|owner| owner.record.name.clone())
    };
    if let Some(owner) = owner {
        return Err(Refused::NotNow(format!(
            "node {node} is {owner}'s; if that is wrong, `picketctl host node {owner} --forget --reason ...` first"
        )));
    }
    let says = desk.nodes.of(id).map(|waiting| waiting.claim.node);
    let says = says.or_else(|| {
        desk.observed
            .get(id)
            .and_then(|seen| seen.glance(|summary| summary.node))
    });
    match says {
        Some(says) if says == node => Ok(()),
        Some(says) => Err(Refused::NotNow(format!(
            "host {name} says that it is node {says} and not {node}; look again with `picketctl host show {name}`"
        ))),
        None => Err(Refused::NotNow(format!(
            "host {name} has not said that it is node {node}; see its conditions in `picketctl host show {name}`"
        ))),
    }
}

/// Permissions are of nodes: what the node had that is believed no longer, it still has.
fn left_behind(desk: &Desk, node: NodeId) -> Option<String> {
    let views = desk.views.read();
    let watched = views.networks.networks().map(|network| network.record.id);
    let admitted = watched.filter(|network| {
        let grant = views.networks.grant(*network, node);
        grant.is_some_and(|grant| grant.record.admitted)
    });
    let networks: Vec<_> = admitted.map(|network| network.to_string()).collect();
    (!networks.is_empty()).then(|| {
        format!(
            "node {node} may still be on {}; `picketctl member revoke {node} --network ...` ends that",
            networks.join(", ")
        )
    })
}

/// The sentences that are a host's conditions, about its node.
pub(super) fn conditions(desk: &Desk, record: &HostRecord) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(waiting) = desk.nodes.of(record.id) {
        found.push(format!("zerotier: {}", waiting.sentence(record.name.as_str())));
    } else if let Some(says) = says_otherwise(desk, record) {
        found.push(format!(
            "zerotier: said that it is node {says}; not believed; `picketctl host node {} --accept {says} --reason ...`",
            record.name
        ));
    }
    if let Some(node) = record.node {
        let others = others(desk, record.id, node);
        if !others.is_empty() {
            found.push(format!(
                "zerotier: {} says too that it is node {node}; see its conditions",
                others.join(", ")
            ));
        }
        if record.node_standing == NodeStanding::Unproven {
            found.push(format!(
                "zerotier: only said that it is node {node}, when no proof was asked for; counts until somebody proves it; \
                 update its agent"
            ));
        }
    }
    found
}

/// The node that a host said it is that has no session to say so in, and is not kept.
fn says_otherwise(desk: &Desk, record: &HostRecord) -> Option<NodeId> {
    if desk.sessions.has(record.id) {
        return None;
    }
    let says = desk.observed.get(record.id)?.glance(|summary| summary.node)?;
    (record.node != Some(says)).then_some(says)
}

/// The names of other hosts whose claim of a node waits.
fn others(desk: &Desk, host: HostId, node: NodeId) -> Vec<String> {
    let all = desk.nodes.claimants(node);
    all.into_iter()
        .filter(|other| *other != host)
        .map(|other| desk.name_of(other))
        .collect()
}

/// A host's node as it is shown.
pub(super) fn shown(desk: &Desk, record: &HostRecord) -> wire::HostNode {
    let waiting = desk.nodes.of(record.id);
    let claimed = waiting
        .as_ref()
        .map(|waiting| waiting.claim.node)
        .or_else(|| says_otherwise(desk, record));
    let standing = match (record.node, record.node_standing) {
        (None, _) => wire::HostNodeStanding::Unspecified,
        (Some(_), NodeStanding::Proven) => wire::HostNodeStanding::Proven,
        (Some(_), NodeStanding::Accepted) => wire::HostNodeStanding::Accepted,
        (Some(_), NodeStanding::Unproven) => wire::HostNodeStanding::Unproven,
    };
    let owner = waiting.as_ref().and_then(|waiting| waiting.other.clone());
    let mut other_hosts: Vec<_> = owner.map(|owner| owner.to_string()).into_iter().collect();
    for node in [record.node, claimed].into_iter().flatten() {
        other_hosts.extend(others(desk, record.id, node));
    }
    other_hosts.sort();
    other_hosts.dedup();
    wire::HostNode {
        id: record.node.map(|node| node.to_string()).unwrap_or_default(),
        standing: standing.into(),
        claimed_id: claimed.map(|node| node.to_string()).unwrap_or_default(),
        claimed_proven: waiting
            .as_ref()
            .is_some_and(|waiting| waiting.claim.proof.is_ok()),
        waiting: waiting
            .map(|waiting| waiting.sentence(record.name.as_str()))
            .unwrap_or_default(),
        other_hosts,
    }
}
