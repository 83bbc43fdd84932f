//! The desired documents of a host, from the views.
//!
//! A document's generation is the revision of the newest record it depends on: it only goes up, it is the same after a
//! restart, and what changed since a generation is what has a newer revision.

use std::collections::BTreeSet;

use bytes::Bytes;
use picket_proto::{
    beat::{Digest, MOST_INLINE_BYTES},
    document::{Contents, Document, Kind, Lineage, Rules, Stamp},
    host::HostId,
};

use crate::{
    record::{HostStanding, NetworkMode},
    store::Revision,
    views::State,
};

/// A document made for one host: its announcement, and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Which.
    pub kind: Kind,
    /// Of the newest record it depends on.
    pub generation: u64,
    /// The generation its body begins after; 0 when it is whole.
    pub since: u64,
    /// The encoded contents.
    pub body: Bytes,
    /// Of the body.
    pub digest: Digest,
}

impl Made {
    fn new(kind: Kind, generation: Revision, since: u64, contents: &Contents) -> Self {
        let body = contents.encode();
        Self {
            kind,
            generation: generation.0,
            since,
            digest: Digest::of(&body),
            body,
        }
    }

    /// As it is announced; a long body is fetched.
    #[must_use]
    pub fn announced(&self, lineage: Lineage) -> Document {
        Document {
            kind: self.kind,
            stamp: Stamp {
                lineage,
                generation: self.generation,
            },
            since: self.since,
            digest: self.digest,
            size: self.body.len() as u64,
            body: (self.body.len() <= MOST_INLINE_BYTES).then(|| self.body.clone()),
        }
    }
}

/// Makes a document of a host. Members come as changes after `since`; the others are always whole.
#[must_use]
pub fn document(state: &State, host: HostId, kind: Kind, since: u64) -> Made {
    match kind {
        Kind::Networks => networks(state, host),
        Kind::Members => members(state, host, since),
        Kind::Shard => {
            let shard = state.deployments.shard(host);
            Made::new(kind, state.deployments.newest(), 0, &Contents::Shard(shard))
        }
    }
}

fn networks(state: &State, id: HostId) -> Made {
    let mut wanted = BTreeSet::new();
    let mut generation = Revision(0);
    // A host that is believed no longer has a newer document too, and an empty one.
    if let Some(host) = state.roster.host(id) {
        generation = host.revision;
    }
    if let Some(host) = state.roster.host(id)
        && let Some(node) = host.record.node
    {
        // Two machines that say they are one node are not to be sent anywhere.
        let proven = state
            .roster
            .of_node(node)
            .is_some_and(|owner| owner.record.id == id);
        for network in state.networks.networks_of(node) {
            let Some(kept) = state.networks.network(network) else {
                continue;
            };
            generation = generation.max(
                state
                    .networks
                    .grant(network, node)
                    .map_or(Revision(0), |g| g.effective),
            );
            let enforced = kept.record.mode == NetworkMode::Enforce;
            let active = host.record.standing == HostStanding::Active;
            if proven
                && active
                && enforced
                && state.networks.decide(&state.roster, network, node).rule() == Some(true)
            {
                wanted.insert(network);
            }
        }
    }
    Made::new(Kind::Networks, generation, 0, &Contents::Networks(wanted))
}

fn members(state: &State, id: HostId, since: u64) -> Made {
    let mut rules = Rules::new();
    let mut generation = Revision(since);
    // Most hosts run no controller, and every grant there is would be looked at for them.
    if !state
        .networks
        .networks()
        .any(|network| network.record.controller == id)
    {
        return Made::new(Kind::Members, generation, since, &Contents::Members(rules));
    }
    for (changed, network, node) in state.networks.changed_since(id, Revision(since)) {
        generation = generation.max(changed);
        if let Some(authorized) = state.networks.decide(&state.roster, network, node).rule() {
            rules.insert((network, node), authorized);
        }
    }
    Made::new(Kind::Members, generation, since, &Contents::Members(rules))
}
