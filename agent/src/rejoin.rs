//! The local remedy of a host that was taken off the network its session goes over: puts it back there.
//!
//! It asks the ZeroTier service and needs no agent; beside a running one it works as well, and what it joins counts as
//! joined by hand: neither a document nor a kill takes it away again.

use std::time::Duration;

use picket_durable::FileError;
use picket_proto::stay::Join;
use picket_zerotier::{
    NetworkId,
    node::{Admission, Joined, Node},
    service::Error,
};
use tokio::time;

use crate::{
    config::Config,
    managed::Managed,
    reconcile::networks::{
        guard::{Held, Kept},
        settings_of,
    },
    state::{StateDir, StateError, guard_file, managed_file},
    zerotier::{Reach, ZeroTierError},
};

/// How long the network's controller may take to answer: a node asks it every 5 s.
const ANSWER: Duration = Duration::from_secs(12);
const LOOK: Duration = Duration::from_millis(500);

/// Why the machine is not back on the network.
#[derive(Debug, thiserror::Error)]
pub enum RejoinError {
    /// ZeroTier is switched off.
    #[error("ZeroTier is switched off here (zerotier.enabled in agent.toml)")]
    Off,
    /// There is nothing to go by.
    #[error(
        "no network is remembered that a session went over; name the one to join: picket-agent rejoin NETWORK"
    )]
    Nothing,
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The service cannot be asked, or did not do it.
    #[error("join {network}")]
    Service {
        /// The network.
        network: NetworkId,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What has been done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejoined {
    /// The network.
    pub network: NetworkId,
    /// As it is joined.
    pub settings: Join,
    /// The settings are those that are remembered, and not ZeroTier's own.
    pub remembered: bool,
    /// It was joined already.
    pub before: bool,
    /// Where the node stands with it, in ZeroTier's own word.
    pub status: String,
    /// Its addresses there.
    pub addresses: Vec<String>,
}

/// Joins `network`, or the one that carried the session last, as it was joined then.
///
/// # Errors
/// [`RejoinError`]. Calling again is safe.
pub async fn rejoin(
    config: &Config,
    reach: Option<Reach>,
    network: Option<NetworkId>,
) -> Result<Rejoined, RejoinError> {
    let reach = reach.ok_or(RejoinError::Off)?;
    let kept = Kept::read(&guard_file(&config.state_dir))?;
    let remembered = kept.open.map(|open| open.before).or(kept.carrier);
    let (held, remembered) = choose(network, remembered).ok_or(RejoinError::Nothing)?;
    let network = held.network;
    let failed = |cause: ZeroTierError| RejoinError::Service {
        network,
        cause: cause.into(),
    };
    let service = reach.service().map_err(failed)?;
    let node = service.node();
    let before = match node.network(network).await {
        Ok(_) => true,
        Err(Error::NotFound { .. }) => false,
        Err(error) => return Err(failed(error.into())),
    };
    let joined = node
        .join(network, settings_of(held.settings))
        .await
        .map_err(|error| failed(error.into()))?;
    by_hand(config, network).await?;
    let joined = answered(&node, joined)
        .await
        .map_err(|error| failed(error.into()))?;
    Ok(Rejoined {
        network,
        settings: held.settings,
        remembered,
        before,
        status: joined.status.word().to_owned(),
        addresses: joined.addresses,
    })
}

/// The network to join, and whether it is as it is remembered.
fn choose(named: Option<NetworkId>, remembered: Option<Held>) -> Option<(Held, bool)> {
    match (named, remembered) {
        (None, remembered) => remembered.map(|held| (held, true)),
        (Some(network), Some(held)) if held.network == network => Some((held, true)),
        (Some(network), _) => {
            let settings = Join::default();
            Some((Held { network, settings }, false))
        }
    }
}

/// Strikes the network off the list of those that an agent may leave. A running one has done so when it left; the list is
/// its own then.
async fn by_hand(config: &Config, network: NetworkId) -> Result<(), RejoinError> {
    if !picket_durable::is_there(managed_file(&config.state_dir))? {
        return Ok(());
    }
    match StateDir::open(&config.state_dir) {
        Ok(state) => {
            let managed: Managed = Managed::open(state.managed())?;
            managed.remove(network).await?;
            let path = state.guard();
            let kept = Kept::read(&path)?;
            // What is joined by hand is nobody's to undo.
            if kept.open.is_some_and(|open| open.before.network == network) {
                Kept { open: None, ..kept }.write(&path)?;
            }
            Ok(())
        }
        Err(StateError::InUse { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the controller's answer, for a while.
async fn answered(node: &Node, mut joined: Joined) -> Result<Joined, Error> {
    let give_up = time::Instant::now() + ANSWER;
    while joined.status == Admission::Requesting && time::Instant::now() < give_up {
        time::sleep(LOOK).await;
        joined = node.network(joined.id).await?;
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_named_is_joined_as_it_is_remembered_and_otherwise_as_zerotier_has_it() {
        let held = Held {
            network: "5350d87547c880cb".parse().unwrap(),
            settings: Join {
                dns: true,
                ..Join::default()
            },
        };
        let other: NetworkId = "5350d87547f38326".parse().unwrap();
        assert_eq!(choose(None, Some(held)), Some((held, true)));
        assert_eq!(choose(Some(held.network), Some(held)), Some((held, true)));
        let plain = Held {
            network: other,
            settings: Join::default(),
        };
        assert_eq!(choose(Some(other), Some(held)), Some((plain, false)));
        assert_eq!(choose(None, None), None);
    }
}
