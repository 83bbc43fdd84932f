//! What each host said last, decoded once for as long as it says the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use picket_proto::{
    beat::{Digest, SectionKind},
    document::{Kind, MOST_PROBLEMS, OutcomeStatus},
    host::HostId,
    status::{ControllerStatus, ZeroTierStatus},
    witness::Answer,
};
use picket_zerotier::ids::{NetworkId, NodeId};

use crate::{desk::Desk, observed::Seen, record::network::Governor, store::Revision};

/// What an agent names when its service cannot be asked anything.
const SERVICE: &str = "zerotier";

/// What one host said, as far as kills are about it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// It has a session.
    pub(crate) session: bool,
    /// Up to where its agent tried what it is told of members, and of networks.
    pub(crate) tried_members: Revision,
    pub(crate) tried_networks: Revision,
    /// What its agent could not do of that about members: the service, a network, or a network and a node.
    pub(crate) undone_members: BTreeSet<String>,
    pub(crate) controller: Option<Controlled>,
    pub(crate) zerotier: Option<Joined>,
    /// How many deckies there are.
    pub(crate) deckies: Option<usize>,
    /// Of the bodies that the controller's part and the service's were read from.
    pub(super) digests: [Option<Digest>; 2],
}

/// The controller of a host.
#[derive(Debug, Default)]
pub(crate) struct Controlled {
    /// Why it cannot be asked.
    pub(crate) problem: Option<String>,
    pub(crate) networks: BTreeMap<NetworkId, Records>,
}

/// A network of it.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Why it cannot be repaired just now.
    pub(crate) frozen: String,
    /// Who is authorized.
    pub(crate) authorized: BTreeMap<NodeId, bool>,
}

/// The ZeroTier service of a host.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// Why it cannot be asked.
    pub(crate) problem: Option<String>,
    pub(crate) networks: BTreeMap<NetworkId, On>,
    pub(crate) witnesses: HashMap<(NetworkId, NodeId), Answer>,
}

/// How it is on a network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct On {
    pub(crate) admitted: bool,
    pub(crate) managed: bool,
    pub(crate) carries_session: bool,
}

impl From<ControllerStatus> for Controlled {
    fn from(status: ControllerStatus) -> Self {
        let network = |network: picket_proto::status::ControlledNetwork| {
            let members = network.members.into_iter();
            let records = Records {
                frozen: network.frozen,
                authorized: members.map(|member| (member.node, member.authorized)).collect(),
            };
            (network.id, records)
        };
        Self {
            problem: status.service.problem().map(str::to_owned),
            networks: status.networks.into_iter().map(network).collect(),
        }
    }
}

impl From<ZeroTierStatus> for Joined {
    fn from(status: ZeroTierStatus) -> Self {
        let on = |network: picket_proto::status::JoinedNetwork| {
            let on = On {
                admitted: network.status == "OK",
                managed: network.managed,
                carries_session: network.carries_session,
            };
            (network.id, on)
        };
        let witnesses = status.witnesses.iter();
        Self {
            problem: status.service.problem().map(str::to_owned),
            witnesses: witnesses
                .map(|one| ((one.network, one.node), one.answer))
                .collect(),
            networks: status.networks.into_iter().map(on).collect(),
        }
    }
}

/// What hosts said, by host, and what ZeroTier Central did.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    hosts: HashMap<HostId, Report>,
    central: Option<Report>,
}

impl Reports {
    /// What a host said; none when it was never heard.
    pub(crate) fn of(&self, host: HostId) -> Option<&Report> {
        self.hosts.get(&host)
    }

    /// What was said by whoever runs a controller; none when it was never heard.
    pub(crate) fn of_controller(&self, governor: Governor) -> Option<&Report> {
        match governor {
            Governor::Host(host) => self.of(host),
            Governor::Central(_) => self.central.as_ref(),
        }
    }

    /// Takes in what every host says by now.
    pub(crate) fn refresh(&mut self, desk: &Desk) {
        let all = desk.observed.all();
        if all.len() < self.hosts.len() {
            let there: std::collections::HashSet<_> = all.iter().map(|(id, _)| *id).collect();
            self.hosts.retain(|host, _| there.contains(host));
        }
        for (id, seen) in all {
            self.hosts.entry(id).or_default().refresh(desk, id, &seen);
        }
        // In this order: what was seen is never older than what was followed then.
        let followed = desk.central.followed();
        self.central = desk.central.seen().map(|status| Report {
            session: true,
            tried_members: followed,
            controller: Some(status.into()),
            ..Report::default()
        });
    }

    #[cfg(test)]
    pub(crate) fn said(mut self, host: HostId, report: Report) -> Self {
        self.hosts.insert(host, report);
        self
    }
}

impl Report {
    /// Whether its agent did what it was told of a member up to a revision. What was seen before that proves nothing.
    pub(crate) fn did(&self, network: NetworkId, node: NodeId, since: Option<Revision>) -> bool {
        let is_told = since.is_some_and(|since| since <= self.tried_members);
        let all = self.undone_members.len() < MOST_PROBLEMS;
        let subjects = [
            SERVICE.to_owned(),
            network.to_string(),
            format!("{network}/{node}"),
        ];
        is_told
            && all
            && !subjects
                .iter()
                .any(|subject| self.undone_members.contains(subject))
    }

    fn refresh(&mut self, desk: &Desk, id: HostId, seen: &Seen) {
        self.session = desk.sessions.has(id);
        let tried = |kind| {
            let outcome = seen.tried(kind).outcome;
            let ours = outcome.filter(|outcome| outcome.stamp.lineage == desk.lineage());
            ours.map_or(Revision(0), |outcome| Revision(outcome.stamp.generation))
        };
        (self.tried_members, self.tried_networks) = (tried(Kind::Members), tried(Kind::Networks));
        let outcome = seen.tried(Kind::Members).outcome;
        self.undone_members = outcome
            .filter(|outcome| outcome.status != OutcomeStatus::Done)
            .into_iter()
            .flat_map(|outcome| outcome.problems.into_iter().map(|problem| problem.subject))
            .collect();
        let controller = seen.digest(SectionKind::Controller);
        if controller != self.digests[0] {
            self.digests[0] = controller;
            self.controller = seen.controller().map(Into::into);
        }
        let zerotier = seen.digest(SectionKind::ZeroTier);
        if zerotier != self.digests[1] {
            self.digests[1] = zerotier;
            self.zerotier = seen.zerotier().map(Into::into);
        }
        let told = seen.digest(SectionKind::Deckies).is_some();
        let count = seen.glance(|summary| summary.decky_counts().0);
        self.deckies = told.then(|| usize::try_from(count).unwrap_or(usize::MAX));
    }
}
