//! Which steps make a host's networks what a document says: a pure comparison.

use std::collections::{BTreeMap, BTreeSet};

use picket_proto::stay::{Join, Stay};
use picket_zerotier::NetworkId;

use crate::config::{Networks, Take};

/// One change of one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Leave a network that we joined and this host is killed on.
    Kill(NetworkId),
    /// Leave a network that we joined.
    Leave(NetworkId),
    /// Strike off the list a network that we joined and somebody else left.
    Forget(NetworkId),
    /// Join a network.
    Join(NetworkId, Join),
    /// Change how the node is on a network that we joined.
    Set(NetworkId, Join),
}

impl Step {
    pub(crate) fn network(self) -> NetworkId {
        match self {
            Self::Kill(id) | Self::Leave(id) | Self::Forget(id) | Self::Join(id, _) | Self::Set(id, _) => id,
        }
    }
}

/// What of a document is not done, and nothing but another document or another configuration helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The configuration does not let the master put the host there.
    Network(NetworkId),
    /// The configuration does not let the network give this to the machine.
    Take(NetworkId, Take),
    /// Somebody joined by hand what the host is killed on.
    ByHand(NetworkId),
    /// It was done before for the same document, cut the session off and was undone.
    Cuts(NetworkId),
}

/// What follows from a document.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// The step that may cut the session's path, taken after all others and undone when it does.
    pub(crate) cut: Option<Step>,
    pub(crate) refused: Vec<Refused>,
}

/// What a document is compared with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Have<'a> {
    /// The networks that are joined, and how.
    pub(crate) joined: &'a BTreeMap<NetworkId, Join>,
    /// Those that we joined.
    pub(crate) managed: &'a BTreeSet<NetworkId>,
    /// The one that carries the session.
    pub(crate) carrier: Option<NetworkId>,
    /// Those on which a step for the same document cut the session off.
    pub(crate) failed: &'a BTreeSet<NetworkId>,
}

/// Returns the steps that turn `have` into `want`: kills first, then departures, then arrivals, and last what may cut the
/// session's path.
///
/// A network that someone joined by hand is not ours to leave or to change, whatever is wanted. A network that the
/// configuration does not allow is not joined, and left again when we joined it before.
pub(crate) fn plan(want: &Stay, have: Have<'_>, networks: &Networks, take: &BTreeSet<Take>) -> Plan {
    let Have {
        joined,
        managed,
        carrier,
        failed,
    } = have;
    let mut plan = Plan::default();
    let mut wanted = BTreeMap::new();
    for (id, join) in want.networks.iter().filter(|(id, _)| !want.killed.contains(id)) {
        if networks.allow(*id) {
            let (join, refused) = trimmed(*join, take);
            wanted.insert(*id, join);
            plan.refused
                .extend(refused.into_iter().map(|what| Refused::Take(*id, what)));
        } else {
            plan.refused.push(Refused::Network(*id));
        }
    }
    for id in want
        .killed
        .intersection(managed)
        .filter(|id| joined.contains_key(id))
    {
        plan.steps.push(Step::Kill(*id));
    }
    let by_hand = |id: &&NetworkId| joined.contains_key(id) && !managed.contains(id);
    plan.refused
        .extend(want.killed.iter().filter(by_hand).copied().map(Refused::ByHand));

    let guarded = |plan: &mut Plan, step: Step, cuts: bool| {
        let id = step.network();
        if !cuts || carrier != Some(id) {
            plan.steps.push(step);
        } else if failed.contains(&id) {
            plan.refused.push(Refused::Cuts(id));
        } else {
            plan.cut = Some(step);
        }
    };
    for id in managed.iter().filter(|id| !wanted.contains_key(id)) {
        match (joined.contains_key(id), want.killed.contains(id)) {
            (false, _) => plan.steps.push(Step::Forget(*id)),
            (true, true) => {}
            (true, false) => guarded(&mut plan, Step::Leave(*id), true),
        }
    }
    for (id, join) in &wanted {
        match joined.get(id) {
            None => plan.steps.push(Step::Join(*id, *join)),
            Some(is) if is != join && managed.contains(id) => {
                guarded(&mut plan, Step::Set(*id, *join), takes_away(*is, *join));
            }
            Some(_) => {}
        }
    }
    plan
}

/// What is left of a wish when the machine takes no more than `take`, and what is not.
fn trimmed(join: Join, take: &BTreeSet<Take>) -> (Join, Vec<Take>) {
    let refused: Vec<_> = Take::ALL
        .into_iter()
        .filter(|what| asks(join, *what) && !take.contains(what))
        .collect();
    let keep = |what| asks(join, what) && take.contains(&what);
    let join = Join {
        managed: join.managed,
        global: keep(Take::Global),
        default_route: keep(Take::Default),
        dns: keep(Take::Dns),
    };
    (join, refused)
}

fn asks(join: Join, what: Take) -> bool {
    match what {
        Take::Global => join.global,
        Take::Default => join.default_route,
        Take::Dns => join.dns,
    }
}

/// Whether the machine loses an address, a route or a name server by the change: any of them may be what leads to the
/// master.
fn takes_away(is: Join, to: Join) -> bool {
    (is.managed && !to.managed)
        || Take::ALL
            .into_iter()
            .any(|what| asks(is, what) && !asks(to, what))
}

#[cfg(test)]
mod tests {
    use picket_zerotier::NodeId;
    use proptest::prelude::*;

    use super::*;

    fn id(number: u32) -> NetworkId {
        NetworkId::at(NodeId::new(0x53_50d8_7547).unwrap(), number)
    }

    type On = BTreeMap<NetworkId, Join>;

    fn on(numbers: &[u32]) -> On {
        numbers
            .iter()
            .map(|number| (id(*number), Join::default()))
            .collect()
    }

    fn ids(numbers: &[u32]) -> BTreeSet<NetworkId> {
        numbers.iter().map(|number| id(*number)).collect()
    }

    fn with_dns() -> Join {
        Join {
            dns: true,
            ..Join::default()
        }
    }

    /// Everything the master may ask for.
    fn everything() -> BTreeSet<Take> {
        Take::ALL.into()
    }

    fn planned(want: &Stay, joined: &On, managed: &BTreeSet<NetworkId>, carrier: Option<NetworkId>) -> Plan {
        let have = Have {
            joined,
            managed,
            carrier,
            failed: &BTreeSet::new(),
        };
        plan(want, have, &Networks::Any, &everything())
    }

    fn joins() -> impl Strategy<Value = Join> {
        any::<[bool; 4]>().prop_map(|[managed, global, default_route, dns]| Join {
            managed,
            global,
            default_route,
            dns,
        })
    }

    fn some_on() -> impl Strategy<Value = On> {
        prop::collection::btree_map((0_u32..8).prop_map(id), joins(), 0..8)
    }

    fn some() -> impl Strategy<Value = BTreeSet<NetworkId>> {
        prop::collection::btree_set((0_u32..8).prop_map(id), 0..8)
    }

    fn stays() -> impl Strategy<Value = Stay> {
        (some_on(), some()).prop_map(|(networks, killed)| Stay {
            networks,
            killed,
            ..Stay::default()
        })
    }

    /// What is joined and what is listed after all steps went well.
    fn taken(plan: &Plan, mut joined: On, mut managed: BTreeSet<NetworkId>) -> (On, BTreeSet<NetworkId>) {
        for step in plan.steps.iter().chain(&plan.cut) {
            match *step {
                Step::Join(id, join) => {
                    managed.insert(id);
                    joined.insert(id, join);
                }
                Step::Set(id, join) => drop(joined.insert(id, join)),
                Step::Kill(id) | Step::Leave(id) => {
                    joined.remove(&id);
                    managed.remove(&id);
                }
                Step::Forget(id) => drop(managed.remove(&id)),
            }
        }
        (joined, managed)
    }

    #[test]
    fn kills_come_first_departures_before_arrivals_and_what_may_cut_the_session_last() {
        let want = Stay {
            killed: ids(&[4]),
            ..Stay::on([id(2)])
        };
        let plan = planned(&want, &on(&[0, 1, 4]), &ids(&[0, 1, 4]), Some(id(0)));
        let join = Step::Join(id(2), Join::default());
        assert_eq!(plan.steps, [Step::Kill(id(4)), Step::Leave(id(1)), join]);
        assert_eq!(plan.cut, Some(Step::Leave(id(0))));
    }

    #[test]
    fn a_network_that_is_not_allowed_is_refused_and_left_when_we_joined_it_before() {
        let allowed = Networks::Only {
            networks: vec![id(1)],
            controllers: Vec::new(),
        };
        let (joined, managed, failed) = (on(&[1, 2]), ids(&[1, 2]), BTreeSet::new());
        let have = Have {
            joined: &joined,
            managed: &managed,
            carrier: None,
            failed: &failed,
        };
        let plan = plan(&Stay::on([id(1), id(2)]), have, &allowed, &BTreeSet::new());
        assert_eq!(plan.steps, [Step::Leave(id(2))]);
        assert_eq!(plan.refused, [Refused::Network(id(2))]);
    }

    #[test]
    fn what_a_network_may_not_give_is_refused_by_name_and_the_rest_is_done() {
        let all = Join {
            managed: true,
            global: true,
            default_route: true,
            dns: true,
        };
        let want = Stay {
            networks: [(id(1), all)].into(),
            ..Stay::default()
        };
        let (joined, managed, failed) = (On::new(), BTreeSet::new(), BTreeSet::new());
        let have = Have {
            joined: &joined,
            managed: &managed,
            carrier: None,
            failed: &failed,
        };
        let plan = plan(&want, have, &Networks::Any, &[Take::Dns].into());
        assert_eq!(plan.steps, [Step::Join(id(1), with_dns())]);
        let refused = [Take::Global, Take::Default].map(|what| Refused::Take(id(1), what));
        assert_eq!(plan.refused, refused);
    }

    #[test]
    fn settings_are_repaired_where_we_joined_and_left_alone_where_somebody_did_by_hand() {
        let want = Stay {
            networks: [(id(1), with_dns()), (id(2), with_dns())].into(),
            ..Stay::default()
        };
        let plan = planned(&want, &on(&[1, 2]), &ids(&[1]), None);
        assert_eq!(plan.steps, [Step::Set(id(1), with_dns())]);
    }

    #[test]
    fn taking_addresses_away_may_cut_the_session_and_giving_more_does_not() {
        let wants = |join| Stay {
            networks: [(id(1), join)].into(),
            ..Stay::default()
        };
        let bare = Join {
            managed: false,
            ..Join::default()
        };
        let plan = planned(&wants(bare), &on(&[1]), &ids(&[1]), Some(id(1)));
        assert_eq!((plan.steps, plan.cut), (Vec::new(), Some(Step::Set(id(1), bare))));
        let plan = planned(&wants(with_dns()), &on(&[1]), &ids(&[1]), Some(id(1)));
        assert_eq!((plan.steps, plan.cut), (vec![Step::Set(id(1), with_dns())], None));
    }

    #[test]
    fn what_cut_the_session_before_is_not_done_again_while_the_session_goes_there() {
        let (joined, managed, failed) = (on(&[1]), ids(&[1]), ids(&[1]));
        let with = |carrier| {
            let have = Have {
                joined: &joined,
                managed: &managed,
                carrier,
                failed: &failed,
            };
            plan(&Stay::default(), have, &Networks::Any, &everything())
        };
        assert_eq!(with(Some(id(1))).refused, [Refused::Cuts(id(1))]);
        assert_eq!(with(Some(id(2))).steps, [Step::Leave(id(1))]);
    }

    proptest! {
        #[test]
        fn a_second_pass_has_nothing_to_do(want in stays(), joined in some_on(), managed in some(), carrier in (0_u32..8).prop_map(id)) {
            let first = planned(&want, &joined, &managed, Some(carrier));
            let (joined, managed) = taken(&first, joined, managed);
            let alive = want.networks.keys().filter(|id| !want.killed.contains(id));
            prop_assert!(alive.clone().all(|id| joined.contains_key(id)));
            let second = planned(&want, &joined, &managed, Some(carrier));
            prop_assert_eq!((second.steps, second.cut), (vec![], None));
        }

        #[test]
        fn a_network_joined_by_hand_is_left_alone(want in stays(), joined in some_on(), managed in some()) {
            let by_hand = |(id, _): &(&NetworkId, &Join)| !managed.contains(id);
            let before: On = joined.iter().filter(by_hand).map(|(id, join)| (*id, *join)).collect();
            let first = planned(&want, &joined, &managed, None);
            let (joined, managed) = taken(&first, joined, managed);
            for (id, join) in before {
                prop_assert_eq!(joined.get(&id), Some(&join));
                prop_assert!(!managed.contains(&id));
            }
        }

        #[test]
        fn nobody_stays_where_the_host_is_killed_unless_joined_by_hand(want in stays(), joined in some_on(), managed in some(), carrier in (0_u32..8).prop_map(id)) {
            let failed = want.killed.clone();
            let have = Have { joined: &joined, managed: &managed, carrier: Some(carrier), failed: &failed };
            let first = plan(&want, have, &Networks::Any, &everything());
            let (after, listed) = taken(&first, joined.clone(), managed.clone());
            for id in &want.killed {
                prop_assert!(!listed.contains(id));
                prop_assert!(!after.contains_key(id) || !managed.contains(id));
            }
        }
    }
}
