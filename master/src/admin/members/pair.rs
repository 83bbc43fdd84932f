//! One node on one network: everything that is decided of it, read at one moment and changed in one commit.

use std::collections::BTreeMap;

use jiff::Timestamp;
use picket_zerotier::ids::{NetworkId, NodeId};

use crate::{
    desk::{Actor, Desk},
    event::Severity,
    membership::{self, Because},
    networks::Kept,
    owner::Owner,
    record::{
        OperatorRole, Record, Revocation, key,
        network::{
            ActivationRecord, GrantRecord, NetworkRecord, RegisteredRecord, RequestRecord, RequestState,
        },
    },
    refused::Refused,
    request::About,
    store::{CommitError, Guard, Key, Write},
    views::State,
};

/// How often a change is tried again when someone else changed the same records meanwhile.
const MOST_TRIES: usize = 16;

/// Everything that is decided of a node on a network.
#[derive(Debug, Clone)]
pub(in crate::admin) struct Pair {
    /// The network.
    pub(in crate::admin) network: Kept<NetworkRecord>,
    /// The node.
    pub(in crate::admin) node: NodeId,
    /// Whose it is.
    pub(in crate::admin) owner: Option<Owner>,
    /// The grant as it stands.
    pub(in crate::admin) grant: Option<Kept<GrantRecord>>,
    /// It counts: it was not made for a host that is retired since.
    pub(in crate::admin) holds: bool,
    /// The activation that was started last.
    activation: Option<Kept<ActivationRecord>>,
    /// The request that was made last.
    request: Option<Kept<RequestRecord>>,
    device: Option<Kept<RegisteredRecord>>,
    /// What keeps it off whatever is granted.
    pub(in crate::admin) forbidden: Option<Because>,
    /// Those who have to do with the request, and the roles they have.
    people: BTreeMap<String, Option<Kept<OperatorRole>>>,
    /// When this was read.
    pub(in crate::admin) now: Timestamp,
}

/// A change of what is decided. What is none stays as it is.
#[derive(Debug)]
pub(in crate::admin) struct Change {
    /// What the audit calls it.
    pub(in crate::admin) what: &'static str,
    /// Why.
    pub(in crate::admin) reason: String,
    /// The grant from here on.
    pub(in crate::admin) grant: Option<GrantRecord>,
    /// The activation from here on.
    pub(in crate::admin) activation: Option<ActivationRecord>,
    /// The request from here on.
    pub(in crate::admin) request: Option<RequestRecord>,
    /// The event: its kind, and what it says.
    pub(in crate::admin) said: (&'static str, String),
}

impl Pair {
    /// Reads what is decided of a node.
    pub(in crate::admin) fn look(desk: &Desk, network: NetworkId, node: NodeId) -> Result<Self, Refused> {
        let (views, now) = (desk.views.read(), desk.now());
        let networks = &views.networks;
        let kept = networks
            .network(network)
            .ok_or_else(|| Refused::no_network(network))?;
        let facts = networks
            .facts(&views.roster, network, node)
            .ok_or_else(|| Refused::no_network(network))?;
        let request = networks.request(network, node);
        Ok(Self {
            people: request.map_or_else(BTreeMap::new, |kept| people(&views, &kept.record)),
            network: kept.clone(),
            node,
            owner: Owner::of(&views, node),
            grant: networks.grant(network, node).cloned(),
            holds: membership::holding(&facts).is_some(),
            activation: networks.activation(network, node).cloned(),
            request: request.cloned(),
            device: networks.device(node).cloned(),
            forbidden: membership::forbidden(&facts),
            now,
        })
    }

    /// The grant, as far as it counts.
    pub(in crate::admin) fn granted(&self) -> Option<&GrantRecord> {
        self.grant
            .as_ref()
            .filter(|_| self.holds)
            .map(|kept| &kept.record)
    }

    /// The activation that was started last, since the network is watched.
    pub(in crate::admin) fn activated(&self) -> Option<&ActivationRecord> {
        let activation = self.activation.as_ref().map(|kept| &kept.record);
        activation.filter(|activation| self.network.record.knows(activation.at))
    }

    /// The request that was made last, since the network is watched.
    pub(in crate::admin) fn requested(&self) -> Option<&RequestRecord> {
        let request = self.request.as_ref().map(|kept| &kept.record);
        request.filter(|request| self.network.record.knows(request.at))
    }

    /// What its request is about. `role` is [`Pair::role`].
    pub(in crate::admin) fn about<'a>(&'a self, role: &'a dyn Fn(&str) -> Option<OperatorRole>) -> About<'a> {
        About {
            network: &self.network.record,
            node: self.node,
            owner: self.owner.as_ref(),
            role,
        }
    }

    /// The role of one of those who have to do with its request.
    pub(in crate::admin) fn role(&self, name: &str) -> Option<OperatorRole> {
        let kept = self.people.get(name)?.as_ref();
        kept.map(|kept| kept.record)
    }

    /// Somebody's word at this moment.
    pub(in crate::admin) fn word(&self, by: &str, reason: &str) -> Revocation {
        Revocation {
            at: self.now,
            by: by.to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// That nothing of what was read changed meanwhile, its network's rules, its device and who approved among that.
    fn guards(&self) -> Vec<Guard> {
        let (network, node) = (self.network.record.id, self.node);
        let people = self.people.iter();
        let people = people.filter_map(|(name, kept)| {
            let revision = kept.as_ref()?.revision;
            Some(Guard::At(key::operator(name), revision))
        });
        let mut guards = vec![
            Guard::At(key::network(network), self.network.revision),
            guard(key::grant(network, node), self.grant.as_ref()),
            guard(key::activation(network, node), self.activation.as_ref()),
            guard(key::request(network, node), self.request.as_ref()),
            guard(key::registered(node), self.device.as_ref()),
        ];
        guards.extend(people);
        guards
    }
}

/// Those who asked for something that waits and approved it, as far as they stand.
fn people(state: &State, request: &RequestRecord) -> BTreeMap<String, Option<Kept<OperatorRole>>> {
    let approved = request.approvals.iter().map(|approval| &approval.by);
    let names = approved
        .chain([&request.by])
        .filter(|_| request.state == RequestState::Pending);
    let stands = |name: &String| {
        let (record, revision) = state.roster.operator(name)?;
        record.revoked.is_none().then_some(Kept {
            record: record.role,
            revision: *revision,
        })
    };
    names.map(|name| (name.clone(), stands(name))).collect()
}

fn guard<R>(key: Key, kept: Option<&Kept<R>>) -> Guard {
    match kept {
        Some(kept) => Guard::At(key, kept.revision),
        None => Guard::Absent(key),
    }
}

/// Changes what is decided of a node. `decide` is called again when somebody else was faster; when it gives nothing,
/// nothing is written. Returns whether something was.
pub(in crate::admin) async fn change(
    desk: &Desk,
    actor: &Actor,
    (network, node): (NetworkId, NodeId),
    decide: impl Fn(&Pair) -> Result<Option<Change>, Refused> + Send,
) -> Result<bool, Refused> {
    let subject = format!("{network}/{node}");
    for _ in 0..MOST_TRIES {
        let pair = Pair::look(desk, network, node)?;
        let Some(change) = decide(&pair)? else {
            return Ok(false);
        };
        let writes: Vec<Write> = [
            change.grant.as_ref().map(Record::put),
            change.activation.as_ref().map(Record::put),
            change.request.as_ref().map(Record::put),
        ]
        .into_iter()
        .flatten()
        .collect();
        let audit = actor.does(change.what, &subject, &change.reason);
        match desk.commit(pair.guards(), writes, audit).await {
            Ok(_) => {
                let (kind, message) = change.said;
                desk.say(Severity::Notice, kind, &subject, &message);
                return Ok(true);
            }
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refused::NotNow(format!(
        "{node} on network {network} is being changed by many at once; try again"
    )))
}
