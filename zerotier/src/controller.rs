//! Whoever governs networks: which there are, how they are, who may be on them.
//!
//! There are two kinds, the controller built into a service ([`LocalController`]) and ZeroTier Central, and one set of
//! calls that both answer alike.

#[cfg(fuzzing)]
pub mod local;
#[cfg(not(fuzzing))]
mod local;

use std::{collections::BTreeMap, future::Future};

use futures::{StreamExt as _, stream::FuturesUnordered};

pub use local::LocalController;

use crate::{
    ids::{NetworkId, NodeId},
    service::{AT_ONCE, Error, Place},
    settings::{Difference, NetworkSettings},
};
pub use crate::{
    member::{Member, MemberChange, Members},
    network::{Dns, Network, Pool, Route},
    settings::{NewNetwork, RangeError, V4Range},
};

/// Whoever governs networks.
///
/// Every call fails when there is no sensible answer in time. [`Error::NotFound`] means that there is no such network
/// or member, and [`Error::Foreign`] that another controller governs the network, which is found out before anything is
/// sent.
pub trait Controller: Send + Sync {
    /// Lists the networks that this controller governs.
    fn networks(&self) -> impl Future<Output = Result<Vec<NetworkId>, Error>> + Send;

    /// Reads one network.
    fn network(&self, network: NetworkId) -> impl Future<Output = Result<Network, Error>> + Send;

    /// Reads all members of a network in one call, where the controller can list records.
    fn members(&self, network: NetworkId) -> impl Future<Output = Result<Members, Error>> + Send;

    /// Reads one member; one that has neither asked nor been changed here is not found.
    fn member(&self, network: NetworkId, node: NodeId) -> impl Future<Output = Result<Member, Error>> + Send;

    /// Creates a private network, whose id the controller chooses. Calling twice makes two networks.
    ///
    /// [`Error::Disagrees`] when it was created otherwise than asked: controllers drop what they cannot read.
    fn create_network(&self, new: &NewNetwork) -> impl Future<Output = Result<Network, Error>> + Send;

    /// Makes a network follow the settings and private; what they do not manage stays as it is. Calling twice is
    /// harmless.
    ///
    /// [`Error::Disagrees`] when the answer says otherwise than what was asked; [`Error::Unsupported`] when this
    /// controller has no such setting.
    fn put_network(
        &self,
        network: NetworkId,
        settings: &NetworkSettings,
    ) -> impl Future<Output = Result<Network, Error>> + Send;

    /// Deletes a network and all its members. One that is not there is deleted already.
    fn delete_network(&self, network: NetworkId) -> impl Future<Output = Result<(), Error>> + Send;

    /// Changes a member; a node that never joined may be authorized ahead. Calling twice is harmless.
    ///
    /// [`Error::Disagrees`] when the answer says otherwise than what was asked.
    fn change_member(
        &self,
        network: NetworkId,
        node: NodeId,
        change: &MemberChange,
    ) -> impl Future<Output = Result<Member, Error>> + Send;

    /// Changes many members of a network, as fast as the controller takes it, and returns what came of each that was
    /// tried. Calling twice is harmless.
    ///
    /// After the first call that nobody answered ([`Error::is_away`]) nothing more is tried.
    fn change_members(
        &self,
        network: NetworkId,
        changes: &BTreeMap<NodeId, MemberChange>,
    ) -> impl Future<Output = BTreeMap<NodeId, Result<Member, Error>>> + Send {
        async move {
            let mut queue = changes.iter();
            let mut under_way = FuturesUnordered::new();
            let mut answers = BTreeMap::new();
            let mut goes_on = true;
            loop {
                while goes_on
                    && under_way.len() < AT_ONCE
                    && let Some((node, change)) = queue.next()
                {
                    under_way.push(async move { (*node, self.change_member(network, *node, change).await) });
                }
                let Some((node, answer)) = under_way.next().await else {
                    break answers;
                };
                goes_on &= !answer.as_ref().is_err_and(Error::is_away);
                answers.insert(node, answer);
            }
        }
    }

    /// Forgets a member, which cuts it off when it was authorized. One that is not there is forgotten already.
    ///
    /// A node that keeps asking appears again, not authorized.
    fn delete_member(
        &self,
        network: NetworkId,
        node: NodeId,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Authorizes a node or takes its authorization away, and changes nothing else about it.
    fn authorize(
        &self,
        network: NetworkId,
        node: NodeId,
        authorized: bool,
    ) -> impl Future<Output = Result<Member, Error>> + Send {
        async move {
            self.change_member(network, node, &MemberChange::authorized(authorized))
                .await
        }
    }
}

/// Whether a controller can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Its records are loaded.
    Ready,
    /// It is still reading its records.
    Loading,
    /// This service has no controller built in.
    Absent,
}

/// Checks that a member is as a change made it.
pub(crate) fn agree(
    request: String,
    place: Place,
    (network, node): (NetworkId, NodeId),
    change: &MemberChange,
    member: Member,
) -> Result<Member, Error> {
    if (member.network, member.id) == (network, node) && change.holds_in(&member) {
        return Ok(member);
    }
    Err(Error::Disagrees {
        request,
        place,
        want: format!("{node} on {network} {change}"),
        have: format!("{} on {} {}", member.id, member.network, change.of(&member)),
    })
}

/// Says in which fields a network is otherwise than asked for.
pub(crate) fn disagreement(
    request: String,
    place: Place,
    network: NetworkId,
    differences: &[Difference],
) -> Error {
    let list = |pick: fn(&Difference) -> &str| {
        let parts = differences
            .iter()
            .map(|difference| format!("{} {}", difference.field, pick(difference)));
        parts.collect::<Vec<_>>().join("; ")
    };
    Error::Disagrees {
        request,
        place,
        want: list(|difference| &difference.want),
        have: format!("of {network}: {}", list(|difference| &difference.have)),
    }
}

/// What is not there is gone already.
pub(crate) fn gone<T>(deleted: Result<T, Error>) -> Result<(), Error> {
    match deleted {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
