//! The desired documents of a host, from the views.
//!
//! A document's generation is the revision of the newest record it depends on: it only goes up, it is the same after a
//! restart, and what changed since a generation is what has a newer revision.

pub(crate) mod stay;

use bytes::Bytes;
use jiff::Timestamp;
use picket_proto::{
    beat::{Digest, MOST_INLINE_BYTES},
    document::{Contents, Document, Kind, Lineage, Stamp},
    host::HostId,
    stay::Stay,
};

use crate::{record::network::Governor, store::Revision, views::State};

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
pub fn document(state: &State, host: HostId, kind: Kind, since: u64, now: Timestamp) -> Made {
    match kind {
        Kind::Networks => networks(state, host, now),
        Kind::Members => members(state, host, since, now),
        Kind::Shard => {
            let shard = state.deployments.shard(host);
            Made::new(kind, state.deployments.newest(), 0, &Contents::Shard(shard))
        }
    }
}

/// The newest revision that a host's networks depend on is that of anything said of any network: which other members a
/// host witnesses depends on all of them.
fn networks(state: &State, id: HostId, now: Timestamp) -> Made {
    let Some(host) = state.roster.host(id) else {
        return Made::new(
            Kind::Networks,
            Revision(0),
            0,
            &Contents::Networks(Stay::default()),
        );
    };
    let generation = host.revision.max(state.networks.newest());
    let stay = stay::of(state, &host.record, now);
    Made::new(Kind::Networks, generation, 0, &Contents::Networks(stay))
}

fn members(state: &State, id: HostId, since: u64, now: Timestamp) -> Made {
    let (generation, members) =
        state
            .networks
            .changed_since(&state.roster, Governor::Host(id), Revision(since), now);
    Made::new(Kind::Members, generation, since, &Contents::Members(members))
}
