//! `picketctl host node`, and a host's ZeroTier node as it is printed.

use picket_proto::wire::admin as wire;
use serde::Serialize;

use super::view::Host;
use crate::{
    desk::Desk,
    fault::{About, Fault},
    print::{Cell, Tone},
    words::filled,
};

/// A host's ZeroTier node.
#[derive(Debug, Serialize)]
pub(super) struct Node {
    /// The one that is believed.
    pub(super) id: Option<String>,
    pub(super) standing: Option<Standing>,
    /// The one the host says it is, which waits.
    pub(super) claimed_id: Option<String>,
    pub(super) claimed_proven: bool,
    pub(super) waiting: Option<String>,
    pub(super) other_hosts: Vec<String>,
}

/// Why a node is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    Proven,
    Accepted,
    Unproven,
}

impl From<wire::HostNode> for Node {
    fn from(node: wire::HostNode) -> Self {
        let standing = match node.standing() {
            wire::HostNodeStanding::Unspecified => None,
            wire::HostNodeStanding::Proven => Some(Standing::Proven),
            wire::HostNodeStanding::Accepted => Some(Standing::Accepted),
            wire::HostNodeStanding::Unproven => Some(Standing::Unproven),
        };
        Self {
            standing,
            id: filled(node.id),
            claimed_id: filled(node.claimed_id),
            claimed_proven: node.claimed_proven,
            waiting: filled(node.waiting),
            other_hosts: node.other_hosts,
        }
    }
}

impl Node {
    /// The node that is believed and why, or what waits.
    pub(super) fn cell(&self) -> Cell {
        let believed = self.id.as_ref().map(|id| match self.standing {
            Some(Standing::Proven) => format!("{id} (proven)"),
            Some(Standing::Accepted) => format!("{id} (accepted by an operator)"),
            Some(Standing::Unproven) => format!("{id} (not proven)"),
            None => id.clone(),
        });
        match (&self.claimed_id, believed) {
            (None, believed) => Cell::or_dash(believed),
            (Some(claimed), None) => Cell::new(format!("says {claimed}, not believed"), Tone::Bad),
            (Some(claimed), Some(believed)) => {
                Cell::new(format!("{believed}; says {claimed}, not believed"), Tone::Bad)
            }
        }
    }
}

/// Accepts a node of a host, or forgets the one it has when none is named.
pub(super) async fn decide(
    desk: &mut Desk,
    name: String,
    node_id: Option<String>,
    reason: String,
) -> Result<(), Fault> {
    let about = About::changing(
        format!("decide which ZeroTier node the host {name} is"),
        format!("picketctl host show {name}"),
    );
    let mut hosts = desk.hosts().await?;
    let asked = wire::AcceptHostNodeRequest {
        name,
        node_id: node_id.unwrap_or_default(),
        reason,
    };
    let answer = desk.call(&about, hosts.accept_host_node(asked)).await?;
    let host = Host::from(answer.host.unwrap_or_default());
    let what = match &host.node_id {
        Some(node) => format!("it is node {node}"),
        None => "it is no node; one that it proves is believed again".to_owned(),
    };
    let remarks: String = answer
        .remarks
        .iter()
        .map(|remark| format!("\n{remark}"))
        .collect();
    let sentence = format!("host {}: {what}{remarks}", host.name);
    desk.print.done(&host, &sentence)
}
