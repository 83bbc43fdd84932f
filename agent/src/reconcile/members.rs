//! Authorizes and deauthorizes members on the networks of the local controller.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use picket_proto::document::{Contents, Kind, Problem};
use picket_zerotier::{
    NetworkId, NodeId,
    controller::{Controller as _, LocalController},
    service::Error,
};
use tokio::sync::Notify;

use super::{Newer, Reconciler, Trouble};
use crate::{
    desired::Wanted,
    sentence,
    zerotier::{Reach, ZeroTierError, is_away},
};

/// Whether each node with a record is authorized, by network. A network without an entry is not there.
pub(crate) type Records = BTreeMap<NetworkId, BTreeMap<NodeId, bool>>;

/// Whether each node is let on.
pub(crate) type Rules = BTreeMap<(NetworkId, NodeId), bool>;

/// One change of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) network: NetworkId,
    pub(crate) node: NodeId,
    pub(crate) authorized: bool,
}

/// What follows from a document.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Networks that are ruled and not on this controller.
    pub(crate) missing: BTreeSet<NetworkId>,
}

/// Returns the steps that make `have` follow `rules`: only records that differ, deauthorizations first.
///
/// A node without a rule is nobody's business. One without a record is not authorized already.
pub(crate) fn plan(rules: &Rules, have: &Records) -> Plan {
    let mut plan = Plan::default();
    for ((network, node), authorized) in rules {
        let Some(records) = have.get(network) else {
            plan.missing.insert(*network);
            continue;
        };
        if records.get(node).copied().unwrap_or(false) != *authorized {
            plan.steps.push(Step {
                network: *network,
                node: *node,
                authorized: *authorized,
            });
        }
    }
    // Stable, and false sorts before true.
    plan.steps.sort_by_key(|step| step.authorized);
    plan
}

/// Makes the members document true.
#[derive(Debug)]
pub(crate) struct MemberReconciler {
    pub(crate) reach: Option<Reach>,
    /// Told after every change.
    pub(crate) changed: Arc<Notify>,
}

impl Reconciler for MemberReconciler {
    fn kind(&self) -> Kind {
        Kind::Members
    }

    async fn pass(&mut self, wanted: &Wanted, _newer: Newer) -> Vec<Trouble> {
        let Contents::Members(members) = &wanted.contents else {
            return Vec::new();
        };
        let rules: Rules = members
            .rules
            .iter()
            .map(|(at, rule)| (*at, rule.authorized))
            .collect();
        let rules = &rules;
        if rules.is_empty() {
            return Vec::new();
        }
        let Some(reach) = &self.reach else {
            let message = "ZeroTier is switched off here (zerotier.enabled in agent.toml)";
            return vec![Trouble::Refused(Problem::new("zerotier", message))];
        };
        let (controller, have) = match observe(reach, rules).await {
            Ok(observed) => observed,
            Err(error) => return vec![Trouble::InTheWay(Problem::new("zerotier", sentence(&error)))],
        };
        let plan = plan(rules, &have);
        let mut troubles = Vec::new();
        for network in plan.missing {
            // The wrong controller stays the wrong one. A network of ours that is missing may be restored.
            troubles.push(if network.controller() == controller.address() {
                let message = "the controller on this host has no such network; create it or restore the controller's records";
                Trouble::InTheWay(Problem::new(network, message))
            } else {
                let message = format!("node {} governs it, and this host's is {}", network.controller(), controller.address());
                Trouble::Refused(Problem::new(network, message))
            });
        }
        let changes = !plan.steps.is_empty();
        for step in plan.steps {
            if let Err(error) = take(&controller, step).await {
                let ends = is_away(&error);
                troubles.push(trouble(step, &error));
                if ends {
                    break;
                }
            }
        }
        if changes {
            self.changed.notify_one();
        }
        troubles
    }
}

async fn take(controller: &LocalController, step: Step) -> Result<(), Error> {
    let Step {
        network,
        node,
        authorized,
    } = step;
    tracing::info!(%network, %node, authorized, "changes a member");
    controller.authorize(network, node, authorized).await.map(drop)
}

fn trouble(step: Step, error: &Error) -> Trouble {
    let problem = Problem::new(format_args!("{}/{}", step.network, step.node), sentence(error));
    if matches!(error, Error::Foreign { .. }) {
        Trouble::Refused(problem)
    } else {
        Trouble::InTheWay(problem)
    }
}

/// The records of every network that has a rule and that this controller governs.
async fn observe(reach: &Reach, rules: &Rules) -> Result<(LocalController, Records), ZeroTierError> {
    let service = reach.service()?;
    let controller = service.controller(service.node().status().await?.address);
    let ruled: BTreeSet<_> = rules.keys().map(|(network, _)| *network).collect();
    let mut records = Records::new();
    for network in ruled
        .into_iter()
        .filter(|network| network.controller() == controller.address())
    {
        match controller.members(network).await {
            Ok(members) => {
                let authorized = members
                    .by_node
                    .into_iter()
                    .map(|(node, member)| (node, member.authorized));
                records.insert(network, authorized.collect());
            }
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((controller, records))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(number: u32) -> NetworkId {
        NetworkId::at(NodeId::new(0x53_50d8_7547).unwrap(), number)
    }

    fn node(number: u64) -> NodeId {
        NodeId::new(number + 1).unwrap()
    }

    fn rules() -> impl Strategy<Value = Rules> {
        let key = (0_u32..3, 0_u64..6).prop_map(|(n, m)| (network(n), node(m)));
        prop::collection::btree_map(key, any::<bool>(), 0..12)
    }

    fn records() -> impl Strategy<Value = Records> {
        let members = prop::collection::btree_map((0_u64..6).prop_map(node), any::<bool>(), 0..6);
        prop::collection::btree_map((0_u32..3).prop_map(network), members, 0..3)
    }

    #[test]
    fn deauthorizations_come_first() {
        let have = Records::from([(network(1), BTreeMap::from([(node(2), true)]))]);
        let rules = Rules::from([((network(1), node(1)), true), ((network(1), node(2)), false)]);
        let steps: Vec<_> = plan(&rules, &have)
            .steps
            .iter()
            .map(|step| (step.node, step.authorized))
            .collect();
        assert_eq!(steps, [(node(2), false), (node(1), true)]);
    }

    #[test]
    fn a_network_that_is_not_here_is_named_and_nothing_is_tried_on_it() {
        let rules = Rules::from([((network(1), node(1)), true), ((network(1), node(2)), true)]);
        let plan = plan(&rules, &Records::new());
        assert_eq!((plan.steps, plan.missing), (vec![], BTreeSet::from([network(1)])));
    }

    proptest! {
        #[test]
        fn a_second_pass_has_nothing_to_do(rules in rules(), mut have in records()) {
            for step in plan(&rules, &have).steps {
                have.get_mut(&step.network).unwrap().insert(step.node, step.authorized);
            }
            prop_assert_eq!(plan(&rules, &have).steps, vec![]);
        }

        #[test]
        fn a_node_without_a_rule_is_left_alone(rules in rules(), have in records()) {
            for step in plan(&rules, &have).steps {
                prop_assert!(rules.contains_key(&(step.network, step.node)));
            }
        }
    }
}
