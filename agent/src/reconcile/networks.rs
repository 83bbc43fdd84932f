//! Puts the host on the networks it is wanted on, and takes it off those that only we put it on.

use std::{collections::BTreeSet, sync::Arc};

use picket_durable::FileError;
use picket_proto::document::{Contents, Kind, Problem};
use picket_zerotier::{NetworkId, node::Settings};
use tokio::sync::Notify;

use super::{Newer, Reconciler, Trouble};
use crate::{
    config::Networks,
    desired::Wanted,
    managed::Managed,
    sentence,
    zerotier::{Reach, ZeroTierError},
};

/// One change of one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Leave a network that we joined.
    Leave(NetworkId),
    /// Strike off the list a network that we joined and somebody else left.
    Forget(NetworkId),
    /// Join a network.
    Join(NetworkId),
}

/// What follows from a document.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Wanted, and not allowed by the configuration.
    pub(crate) refused: Vec<NetworkId>,
}

/// Returns the steps that turn `have` into `want`, departures first.
///
/// A network that someone joined by hand is not ours to leave, and a network that the configuration does not allow is
/// not joined, and left again when we joined it before.
pub(crate) fn plan(
    want: &BTreeSet<NetworkId>,
    have: &BTreeSet<NetworkId>,
    managed: &BTreeSet<NetworkId>,
    allowed: &Networks,
) -> Plan {
    let (want, refused): (BTreeSet<_>, BTreeSet<_>) = want.iter().partition(|id| allowed.allow(**id));
    let gone = managed.iter().filter(|id| !want.contains(*id)).map(|id| {
        if have.contains(id) {
            Step::Leave(*id)
        } else {
            Step::Forget(*id)
        }
    });
    let join = want.difference(have).copied().map(Step::Join);
    Plan {
        steps: gone.chain(join).collect(),
        refused: refused.into_iter().collect(),
    }
}

/// Makes the networks document true.
#[derive(Debug)]
pub(crate) struct NetworkReconciler {
    pub(crate) reach: Option<Reach>,
    pub(crate) managed: Managed,
    pub(crate) allowed: Networks,
    /// Told after every change.
    pub(crate) changed: Arc<Notify>,
}

impl Reconciler for NetworkReconciler {
    fn kind(&self) -> Kind {
        Kind::Networks
    }

    async fn pass(&mut self, wanted: &Wanted, _newer: Newer) -> Vec<Trouble> {
        let Contents::Networks(stay) = &wanted.contents else {
            return Vec::new();
        };
        let want: BTreeSet<_> = stay.networks.keys().copied().collect();
        let Some(reach) = &self.reach else {
            let off = |id: &NetworkId| {
                Trouble::Refused(Problem::new(
                    id,
                    "ZeroTier is switched off here (zerotier.enabled in agent.toml)",
                ))
            };
            return want.iter().map(off).collect();
        };
        let have = match observe(reach).await {
            Ok(have) => have,
            // Nothing is wanted and nothing of ours is there: no service is needed for that.
            Err(_) if want.is_empty() && self.managed.current().is_empty() => return Vec::new(),
            Err(error) => return vec![Trouble::InTheWay(Problem::new("zerotier", sentence(&error)))],
        };
        let plan = plan(&want, &have, &self.managed.current(), &self.allowed);
        let refuse = |id: NetworkId| {
            let message = format!(
                "agent.toml does not let the master put this host on it; add \"{id}\" to networks.allow"
            );
            Trouble::Refused(Problem::new(id, message))
        };
        let mut troubles: Vec<_> = plan.refused.into_iter().map(refuse).collect();
        for step in plan.steps {
            let taken = self.take(reach, step).await;
            self.changed.notify_one();
            if let Err(stumble) = taken {
                let away = matches!(&stumble, Stumble::ZeroTier(error) if error.is_away());
                let what = sentence(&stumble);
                troubles.push(Trouble::InTheWay(Problem::new(step.network(), what)));
                if away {
                    break;
                }
            }
        }
        troubles
    }
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
enum Stumble {
    #[error(transparent)]
    List(#[from] FileError),
    #[error(transparent)]
    ZeroTier(#[from] ZeroTierError),
}

impl Step {
    fn network(self) -> NetworkId {
        match self {
            Self::Leave(id) | Self::Forget(id) | Self::Join(id) => id,
        }
    }
}

impl NetworkReconciler {
    async fn take(&self, reach: &Reach, step: Step) -> Result<(), Stumble> {
        match step {
            Step::Join(id) => {
                // Listed first: a crash in between must not leave a network behind that nobody would ever leave.
                self.managed.add(id).await?;
                tracing::info!(network = %id, "joins");
                if let Err(error) = join(reach, id).await {
                    // Nobody is to be taken off a network that somebody joins by hand meanwhile.
                    if error.changed_nothing() {
                        self.managed.remove(id).await?;
                    }
                    return Err(error.into());
                }
            }
            Step::Leave(id) => {
                tracing::info!(network = %id, "leaves");
                leave(reach, id).await?;
                self.managed.remove(id).await?;
            }
            Step::Forget(id) => self.managed.remove(id).await?,
        }
        Ok(())
    }
}

async fn join(reach: &Reach, id: NetworkId) -> Result<(), ZeroTierError> {
    reach.service()?.node().join(id, Settings::default()).await?;
    Ok(())
}

async fn leave(reach: &Reach, id: NetworkId) -> Result<(), ZeroTierError> {
    reach.service()?.node().leave(id).await?;
    Ok(())
}

async fn observe(reach: &Reach) -> Result<BTreeSet<NetworkId>, ZeroTierError> {
    let networks = reach.service()?.node().networks().await?;
    Ok(networks.into_iter().map(|network| network.id).collect())
}

#[cfg(test)]
mod tests {
    use picket_zerotier::NodeId;
    use proptest::prelude::*;

    use super::*;

    fn id(number: u32) -> NetworkId {
        NetworkId::at(NodeId::new(0x53_50d8_7547).unwrap(), number)
    }

    fn ids(numbers: &[u32]) -> BTreeSet<NetworkId> {
        numbers.iter().map(|number| id(*number)).collect()
    }

    fn some() -> impl Strategy<Value = BTreeSet<NetworkId>> {
        prop::collection::btree_set((0_u32..8).prop_map(id), 0..8)
    }

    /// What is joined and what is listed after all steps went well.
    fn taken(
        plan: &Plan,
        mut have: BTreeSet<NetworkId>,
        mut managed: BTreeSet<NetworkId>,
    ) -> (BTreeSet<NetworkId>, BTreeSet<NetworkId>) {
        for step in &plan.steps {
            match step {
                Step::Join(id) => {
                    managed.insert(*id);
                    have.insert(*id);
                }
                Step::Leave(id) => {
                    have.remove(id);
                    managed.remove(id);
                }
                Step::Forget(id) => drop(managed.remove(id)),
            }
        }
        (have, managed)
    }

    #[test]
    fn departures_come_before_arrivals() {
        let plan = plan(&ids(&[2]), &ids(&[1]), &ids(&[1]), &Networks::Any);
        assert_eq!(plan.steps, [Step::Leave(id(1)), Step::Join(id(2))]);
    }

    #[test]
    fn a_network_that_is_not_allowed_is_refused_and_left_when_we_joined_it_before() {
        let allowed = Networks::Only {
            networks: vec![id(1)],
            controllers: Vec::new(),
        };
        let plan = plan(&ids(&[1, 2]), &ids(&[1, 2]), &ids(&[1, 2]), &allowed);
        assert_eq!(
            (plan.steps, plan.refused),
            (vec![Step::Leave(id(2))], vec![id(2)])
        );
    }

    proptest! {
        #[test]
        fn a_second_pass_has_nothing_to_do(want in some(), have in some(), managed in some()) {
            let first = plan(&want, &have, &managed, &Networks::Any);
            let (have, managed) = taken(&first, have, managed);
            prop_assert!(want.is_subset(&have));
            prop_assert_eq!(plan(&want, &have, &managed, &Networks::Any).steps, vec![]);
        }

        #[test]
        fn a_network_joined_by_hand_is_left_alone(want in some(), have in some(), managed in some()) {
            let by_hand: BTreeSet<_> = have.difference(&managed).copied().collect();
            let first = plan(&want, &have, &managed, &Networks::Any);
            let (have, managed) = taken(&first, have, managed);
            prop_assert!(by_hand.is_subset(&have));
            prop_assert!(by_hand.is_disjoint(&managed));
        }
    }
}
