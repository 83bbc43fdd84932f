use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{Sighting, Watched};

const NOON: Timestamp = Timestamp::constant(1_795_000_000, 0);

fn at(second: i64) -> Timestamp {
    NOON + SignedDuration::from_secs(second)
}

fn network(number: u32) -> NetworkId {
    NetworkId::at(NodeId::new(0x53_50d8_7547).unwrap(), number)
}

fn node(number: u64) -> NodeId {
    NodeId::new(number + 1).unwrap()
}

/// A controller that does what it is told, and that anybody may change.
#[derive(Clone, Default)]
struct World {
    networks: BTreeMap<NetworkId, There>,
}

impl World {
    fn create(&mut self, id: NetworkId) -> &mut There {
        self.networks.entry(id).or_insert_with(|| There {
            network: serde_json::from_value(json!({"id": id, "private": true})).unwrap(),
            members: controller::Members::default(),
        })
    }

    fn edit(&mut self, id: NetworkId, node: NodeId, change: &MemberChange) {
        let Some(there) = self.networks.get_mut(&id) else {
            return;
        };
        let member = there.members.by_node.entry(node).or_insert_with(|| {
            serde_json::from_value(json!({"id": node, "nwid": id, "authorized": false})).unwrap()
        });
        member.authorized = change.authorized.unwrap_or(member.authorized);
        member.name = change.name.clone().or_else(|| member.name.take());
        if let Some(addresses) = &change.addresses {
            member.addresses = addresses.clone();
        }
    }

    fn authorize(&mut self, id: NetworkId, node: NodeId, authorized: bool) {
        self.edit(id, node, &MemberChange::authorized(authorized));
    }

    fn is_on(&self, id: NetworkId, node: NodeId) -> bool {
        let there = self.networks.get(&id);
        there.is_some_and(|there| {
            there
                .members
                .by_node
                .get(&node)
                .is_some_and(|member| member.authorized)
        })
    }

    fn take(&mut self, step: &Step) {
        match &step.act {
            Act::Make(settings) | Act::Settings(settings) => follow(self.create(step.network), settings),
            Act::Delete => drop(self.networks.remove(&step.network)),
            Act::Member { node, change, .. } => self.edit(step.network, *node, change),
            Act::Again(node) => self.authorize(step.network, *node, false),
        }
    }

    fn have(&self, want: &Members) -> BTreeMap<NetworkId, Have> {
        let have = |id: &NetworkId| match self.networks.get(id) {
            Some(there) => Have::There(Box::new(there.clone())),
            None => Have::Missing,
        };
        want.networks.keys().map(|id| (*id, have(id))).collect()
    }
}

fn follow(there: &mut There, settings: &NetworkSettings) {
    there.network.private = true;
    if let Some(mtu) = settings.mtu {
        there.network.mtu = mtu;
    }
}

/// One pass, without a controller to wait for.
fn pass(world: &mut World, want: &Members, memory: &mut Memory, now: Timestamp) -> Plan {
    let plan = plan(want, &world.have(want), memory, now);
    memory.settle(want, &plan);
    for step in &plan.steps {
        world.take(step);
        memory.took(step, now, now);
    }
    memory.use_releases(want, &plan, &BTreeSet::new());
    plan
}

/// A network of which `on` are to be members, seen to be so.
fn settled(on: u64) -> (World, Members, Memory) {
    let mut world = World::default();
    world.create(network(1));
    let rule = |number| ((network(1), node(number)), Rule::plain(true));
    let want = Members {
        networks: [(network(1), Governed::default())].into(),
        rules: (0..on).map(rule).collect(),
        ..Members::default()
    };
    let mut memory = Memory::new(NOON);
    pass(&mut world, &want, &mut memory, NOON);
    assert_eq!(pass(&mut world, &want, &mut memory, NOON).steps, []);
    (world, want, memory)
}

fn governed(want: &mut Members) -> &mut Governed {
    want.networks.get_mut(&network(1)).unwrap()
}

/// What was done to members, in order.
fn done(plan: &Plan) -> Vec<(NodeId, Why)> {
    let step = |step: &Step| match step.act {
        Act::Member { node, .. } | Act::Again(node) => Some((node, step.told[0].why)),
        Act::Make(_) | Act::Settings(_) | Act::Delete => None,
    };
    plan.steps.iter().filter_map(step).collect()
}

fn held_back(plan: &Plan) -> usize {
    plan.networks[&network(1)].held_back
}

#[test]
fn whoever_has_to_go_goes_before_anybody_comes_and_urgent_ones_first() {
    let (mut world, mut want, mut memory) = settled(3);
    let denied = |urgent| Rule {
        urgent,
        ..Rule::plain(false)
    };
    want.rules.insert((network(1), node(9)), Rule::plain(true));
    want.rules.insert((network(1), node(0)), denied(false));
    want.rules.insert((network(1), node(2)), denied(true));
    let plan = pass(&mut world, &want, &mut memory, at(1));
    let order: Vec<_> = done(&plan).into_iter().map(|(node, _)| node).collect();
    assert_eq!(order, [node(2), node(0), node(9)]);
}

#[test]
fn a_change_of_the_rules_is_decided_and_a_change_of_the_record_is_drift() {
    let (mut world, mut want, mut memory) = settled(2);
    world.authorize(network(1), node(0), false);
    want.rules.insert((network(1), node(1)), Rule::plain(false));
    let plan = pass(&mut world, &want, &mut memory, at(1));
    assert_eq!(done(&plan), [(node(1), Why::Decided), (node(0), Why::Drift)]);
    let told = &plan.steps[1].told[0];
    assert_eq!(
        (told.before.as_str(), told.after.as_str()),
        ("deauthorized", "authorized")
    );
}

#[test]
fn a_public_network_that_is_only_watched_stays_public_until_it_would_let_a_killed_node_on_again() {
    let mut world = World::default();
    world.create(network(1)).network.private = false;
    world.authorize(network(1), node(0), true);
    let watched = Governed {
        watched: true,
        ..Governed::default()
    };
    let kill = |number| ((network(1), node(number)), Rule::plain(false));
    let mut want = Members {
        networks: [(network(1), watched)].into(),
        rules: [kill(7)].into(),
        ..Members::default()
    };
    let mut memory = Memory::new(NOON);
    let mut is_private = |world: &mut World, want: &Members| {
        let plan = pass(world, want, &mut memory, at(1));
        let differences = &plan.networks[&network(1)].differences;
        assert_eq!(differences.is_empty(), !world.create(network(1)).network.private);
        world.create(network(1)).network.private
    };
    assert!(
        !is_private(&mut world, &want),
        "whoever is killed was never there"
    );
    want.rules.extend([kill(0)]);
    assert!(is_private(&mut world, &want));

    world.create(network(1)).network.private = false;
    want.rules.clear();
    governed(&mut want).closed = true;
    assert!(is_private(&mut world, &want));
}

#[test]
fn an_activation_ends_by_itself_and_says_so_and_whoever_lets_it_on_again_is_undone() {
    let (mut world, mut want, mut memory) = settled(1);
    let until = Rule {
        until: Some(at(60)),
        ..Rule::plain(true)
    };
    want.rules.insert((network(1), node(0)), until);
    assert_eq!(pass(&mut world, &want, &mut memory, at(59)).steps, []);
    assert_eq!(next(&want, &memory, at(59)), Some(at(60)));
    let plan = pass(&mut world, &want, &mut memory, at(60));
    assert_eq!(done(&plan), [(node(0), Why::Ended)]);
    assert_eq!(next(&want, &memory, at(60)), None);
    world.authorize(network(1), node(0), true);
    let plan = pass(&mut world, &want, &mut memory, at(61));
    assert_eq!(done(&plan), [(node(0), Why::Drift)]);
    assert!(!world.is_on(network(1), node(0)));
}

#[test]
fn the_brake_holds_back_all_of_a_networks_drift_and_one_release_lets_it_through_once() {
    let (mut world, mut want, mut memory) = settled(10);
    let upside_down = |world: &mut World| (0..6).for_each(|n| world.authorize(network(1), node(n), false));
    upside_down(&mut world);
    for _ in 0..2 {
        let plan = pass(&mut world, &want, &mut memory, at(1));
        assert_eq!((plan.steps.len(), held_back(&plan)), (0, 6));
    }
    governed(&mut want).resumed += 1;
    let plan = pass(&mut world, &want, &mut memory, at(2));
    assert_eq!((plan.steps.len(), held_back(&plan)), (6, 0));
    upside_down(&mut world);
    assert_eq!(held_back(&pass(&mut world, &want, &mut memory, at(3))), 6);
}

#[test]
fn a_release_is_not_used_up_by_a_network_that_cannot_be_read() {
    let (mut world, mut want, mut memory) = settled(10);
    (0..6).for_each(|n| world.authorize(network(1), node(n), false));
    governed(&mut want).resumed += 1;
    let unreadable = [(network(1), Have::Unreadable("nonsense".into()))].into();
    let frozen = plan(&want, &unreadable, &memory, at(1));
    memory.settle(&want, &frozen);
    memory.use_releases(&want, &frozen, &BTreeSet::new());
    assert_eq!(pass(&mut world, &want, &mut memory, at(2)).steps.len(), 6);
}

#[test]
fn nothing_that_was_decided_or_has_to_go_waits_for_the_brake() {
    let (mut world, mut want, mut memory) = settled(10);
    (0..6).for_each(|n| world.authorize(network(1), node(n), false));
    for number in 100..107 {
        // Let on by somebody else, and killed.
        want.rules.insert(
            (network(1), node(number)),
            Rule {
                urgent: true,
                ..Rule::plain(false)
            },
        );
        world.authorize(network(1), node(number), true);
    }
    want.rules.insert((network(1), node(7)), Rule::plain(false));
    want.rules.insert((network(1), node(50)), Rule::plain(true));
    let plan = pass(&mut world, &want, &mut memory, at(1));
    assert_eq!((plan.steps.len(), held_back(&plan)), (9, 6));
    for number in 100..107 {
        world.authorize(network(1), node(number), true);
    }
    let plan = pass(&mut world, &want, &mut memory, at(2));
    assert_eq!(
        (plan.steps.len(), held_back(&plan)),
        (7, 6),
        "a kill is repaired whatever else waits"
    );
}

#[test]
fn a_record_in_which_a_decision_and_drift_meet_gets_what_was_decided_while_the_brake_holds() {
    let (mut world, mut want, mut memory) = settled(10);
    (0..6).for_each(|n| world.authorize(network(1), node(n), false));
    want.rules.get_mut(&(network(1), node(0))).unwrap().name = "oslo".into();
    let plan = pass(&mut world, &want, &mut memory, at(1));
    assert_eq!(done(&plan), [(node(0), Why::Decided)]);
    assert!(!world.is_on(network(1), node(0)));
    governed(&mut want).resumed += 1;
    let plan = pass(&mut world, &want, &mut memory, at(2));
    assert!(
        plan.steps.len() == 6 && done(&plan).iter().all(|(_, why)| *why == Why::Drift),
        "{plan:?}"
    );
}

#[test]
fn strangers_are_named_and_deauthorized_by_policy_alone_and_by_the_brake_not_in_crowds() {
    let (mut world, mut want, mut memory) = settled(1);
    world.authorize(network(1), node(7), true);
    world.authorize(network(1), node(8), false);
    let plan = pass(&mut world, &want, &mut memory, at(1));
    assert_eq!(plan.steps, []);
    assert_eq!(plan.networks[&network(1)].unknown, [node(7), node(8)].into());
    governed(&mut want).unknown = Unknown::Deauthorize;
    assert_eq!(
        done(&pass(&mut world, &want, &mut memory, at(2))),
        [(node(7), Why::Drift)]
    );
    (10..16).for_each(|n| world.authorize(network(1), node(n), true));
    assert_eq!(held_back(&pass(&mut world, &want, &mut memory, at(3))), 6);
}

#[test]
fn on_a_closed_network_is_nobody_and_opening_it_restores_what_the_rules_say_and_no_more() {
    let (mut world, mut want, mut memory) = settled(10);
    world.authorize(network(1), node(90), true);
    governed(&mut want).closed = true;
    let plan = pass(&mut world, &want, &mut memory, at(1));
    assert_eq!(plan.steps.len(), 11);
    assert!(done(&plan).iter().all(|(_, why)| *why == Why::Decided));
    (0..10).for_each(|n| world.authorize(network(1), node(n), true));
    let plan = pass(&mut world, &want, &mut memory, at(2));
    assert_eq!((plan.steps.len(), held_back(&plan)), (10, 0));
    governed(&mut want).closed = false;
    pass(&mut world, &want, &mut memory, at(3));
    assert!((0..10).all(|n| world.is_on(network(1), node(n))) && !world.is_on(network(1), node(90)));
}

#[test]
fn a_record_that_somebody_deleted_is_made_again_for_whoever_is_let_on_and_for_nobody_else() {
    let (mut world, mut want, mut memory) = settled(2);
    want.rules.insert((network(1), node(1)), Rule::plain(false));
    pass(&mut world, &want, &mut memory, at(1));
    world.networks.get_mut(&network(1)).unwrap().members = controller::Members::default();
    let plan = pass(&mut world, &want, &mut memory, at(2));
    assert_eq!(done(&plan), [(node(0), Why::Drift)]);
    assert_eq!(plan.steps[0].told[0].before, "no record");
    // The other one asks again, and somebody lets it on.
    world.authorize(network(1), node(1), true);
    assert_eq!(
        done(&pass(&mut world, &want, &mut memory, at(3))),
        [(node(1), Why::Drift)]
    );
}

#[test]
fn settings_that_somebody_changed_are_repaired_before_anybody_is_cut_off_a_public_network() {
    let (mut world, mut want, mut memory) = settled(1);
    governed(&mut want).settings.mtu = Some(1400);
    let plan = pass(&mut world, &want, &mut memory, at(1));
    assert_eq!(
        plan.steps[0].told,
        [Told {
            why: Why::Decided,
            before: "mtu=2800".into(),
            after: "mtu=1400".into(),
        }]
    );
    assert_eq!(
        plan.networks[&network(1)].differences,
        ["mtu is 2800, wanted 1400"]
    );
    world.create(network(1)).network.private = false;
    want.rules.insert((network(1), node(0)), Rule::plain(false));
    let plan = pass(&mut world, &want, &mut memory, at(2));
    assert_eq!((plan.steps.len(), plan.steps[0].told[0].why), (2, Why::Drift));
    assert_eq!(plan.steps[0].told[0].after, "private=true");
    assert_eq!(pass(&mut world, &want, &mut memory, at(2)).steps, []);
}

#[test]
fn a_network_is_made_where_it_is_missing_and_deleted_when_told_and_a_kept_one_is_waited_for() {
    let (mut world, mut want, mut memory) = settled(2);
    world.networks.clear();
    let plan = pass(&mut world, &want, &mut memory, at(1));
    assert_eq!(plan.steps, []);
    assert!(matches!(plan.networks[&network(1)].state, State::Frozen(_)));
    governed(&mut want).presence = Presence::Made;
    let plan = pass(&mut world, &want, &mut memory, at(2));
    assert_eq!(plan.steps[0].told[0].why, Why::Drift);
    assert!(world.is_on(network(1), node(1)));
    governed(&mut want).presence = Presence::Deleted;
    let plan = pass(&mut world, &want, &mut memory, at(3));
    assert_eq!(plan.steps[0].told[0].why, Why::Decided);
    assert!(world.networks.is_empty());
    assert_eq!(pass(&mut world, &want, &mut memory, at(4)).steps, []);
    world.create(network(1));
    let plan = pass(&mut world, &want, &mut memory, at(5));
    assert_eq!(plan.steps[0].told[0].why, Why::Drift);
}

#[test]
fn a_network_that_makes_no_sense_freezes_alone_and_whoever_has_to_go_is_cut_off_blind() {
    let (mut world, mut want, memory) = settled(3);
    want.networks.insert(network(2), Governed::default());
    world.create(network(2));
    want.rules.insert((network(2), node(5)), Rule::plain(true));
    want.rules.insert((network(1), node(0)), Rule::plain(false));
    world.authorize(network(1), node(1), false);
    let mut have = world.have(&want);
    have.insert(network(1), Have::Unreadable("the answer makes no sense".into()));
    let frozen = plan(&want, &have, &memory, at(1));
    assert_eq!(
        frozen.networks[&network(1)].state,
        State::Frozen("the answer makes no sense".into())
    );
    assert_eq!(done(&frozen), [(node(0), Why::Decided), (node(5), Why::Decided)]);

    let mut skipped = world.clone();
    let there = skipped.networks.get_mut(&network(1)).unwrap();
    there.members.by_node.remove(&node(2));
    there
        .members
        .skipped
        .push(format!("\"{}\": authorized is no bool", node(77)));
    let with_a_stranger = plan(&want, &skipped.have(&want), &memory, at(1));
    assert_eq!(with_a_stranger.networks[&network(1)].state, State::Read);
    let there = skipped.networks.get_mut(&network(1)).unwrap();
    there
        .members
        .skipped
        .push(format!("\"{}\": authorized is no bool", node(2)));
    let with_a_member = plan(&want, &skipped.have(&want), &memory, at(1));
    assert!(matches!(
        with_a_member.networks[&network(1)].state,
        State::Frozen(_)
    ));
}

#[test]
fn without_a_memory_nobody_is_said_to_have_changed_anything() {
    let (mut world, want, memory) = settled(3);
    world.authorize(network(1), node(0), false);
    let lost = plan(&want, &world.have(&want), &Memory::new(at(1)), at(1));
    assert_eq!(done(&lost), [(node(0), Why::Decided)]);
    // What is kept reads back, and knows as much.
    let kept: Memory = serde_json::from_slice(&serde_json::to_vec(&memory).unwrap()).unwrap();
    let known = plan(&want, &world.have(&want), &kept, at(1));
    assert_eq!(done(&known), [(node(0), Why::Drift)]);
}

#[test]
fn repairs_are_numbered_on_across_a_memory_that_was_lost_and_the_oldest_fall_off() {
    let (mut world, mut want, mut memory) = settled(80);
    let numbers =
        |memory: &Memory| -> Vec<u64> { memory.repairs().iter().map(|repair| repair.sequence).collect() };
    let before = numbers(&memory);
    assert_eq!(before.len(), picket_proto::repair::MOST_OTHERS);
    assert!(before.windows(2).all(|pair| pair[1] == pair[0] + 1));
    let mut lost = Memory::new(at(1));
    want.rules.insert((network(1), node(0)), Rule::plain(false));
    pass(&mut world, &want, &mut lost, at(1));
    assert!(numbers(&lost)[0] > *before.last().unwrap());
    assert!(memory.take_changed() && !memory.take_changed());
}

#[test]
fn a_pass_with_nothing_to_do_changes_nothing_that_would_have_to_be_kept() {
    let (mut world, want, mut memory) = settled(5);
    memory.take_changed();
    pass(&mut world, &want, &mut memory, at(30));
    assert!(!memory.take_changed());
}

fn sighting(watched: Watched) -> Sighting {
    Sighting { mark: None, watched }
}

#[test]
fn after_a_restart_of_the_controller_those_cut_off_lately_are_cut_off_again_once_members_had_time_to_ask() {
    let (mut world, mut want, mut memory) = settled(3);
    memory.saw(&sighting(Watched::Unwatched), at(-600));
    want.rules.insert((network(1), node(0)), Rule::plain(false));
    pass(&mut world, &want, &mut memory, at(0));
    memory.saw(&sighting(Watched::Answered), at(10));
    assert_eq!(next(&want, &memory, at(10)), None, "it surely arrived");

    memory.saw(&sighting(Watched::Missed), at(20));
    want.rules.insert((network(1), node(1)), Rule::plain(false));
    pass(&mut world, &want, &mut memory, at(21));
    assert_eq!(next(&want, &memory, at(21)), Some(at(140)));
    assert_eq!(pass(&mut world, &want, &mut memory, at(139)).steps, []);
    // First it is kept that it is going to be done, and then it is done.
    assert_eq!(pass(&mut world, &want, &mut memory, at(140)).steps, []);
    let plan = pass(&mut world, &want, &mut memory, at(140));
    assert_eq!(done(&plan), [(node(0), Why::Repeated), (node(1), Why::Repeated)]);
    assert_eq!(pass(&mut world, &want, &mut memory, at(141)).steps, []);
    assert_eq!(next(&want, &memory, at(141)), None, "once is enough");
}

#[test]
fn whoever_crashes_between_there_and_back_accuses_nobody_and_cuts_off_at_once() {
    let (mut world, mut want, mut memory) = settled(20);
    memory.saw(&sighting(Watched::Unwatched), at(0));
    (0..10).for_each(|n| drop(want.rules.insert((network(1), node(n)), Rule::plain(false))));
    pass(&mut world, &want, &mut memory, at(1));
    pass(&mut world, &want, &mut memory, at(120));
    (0..10).for_each(|n| world.authorize(network(1), node(n), true));
    let plan = pass(&mut world, &want, &mut memory, at(125));
    assert_eq!((plan.steps.len(), held_back(&plan)), (10, 0));
    assert!(done(&plan).iter().all(|(_, why)| *why == Why::Repeated));
}

#[test]
fn nobody_is_cut_off_again_who_is_let_on_again_or_whose_credentials_have_run_out() {
    let (mut world, mut want, mut memory) = settled(2);
    want.rules.insert((network(1), node(0)), Rule::plain(false));
    want.rules.insert((network(1), node(1)), Rule::plain(false));
    pass(&mut world, &want, &mut memory, at(0));
    want.rules.insert((network(1), node(0)), Rule::plain(true));
    pass(&mut world, &want, &mut memory, at(1));
    memory.saw(&sighting(Watched::Missed), at(1790));
    assert_eq!(next(&want, &memory, at(1790)), None);
    for _ in 0..3 {
        assert_eq!(pass(&mut world, &want, &mut memory, at(1910)).steps, []);
    }
}

#[test]
fn rules_of_a_network_that_is_not_governed_say_nothing() {
    let (mut world, mut want, mut memory) = settled(1);
    world.create(network(2));
    want.rules.insert((network(2), node(0)), Rule::plain(true));
    let plan = pass(&mut world, &want, &mut memory, at(1));
    assert!(plan.steps.is_empty() && !plan.networks.contains_key(&network(2)));
}

/// What may happen to a controller and its rules.
#[derive(Debug, Clone)]
enum Event {
    Rule(u32, u64, Rule),
    Lift(u32, u64),
    Govern(u32, Presence, Unknown, bool),
    Resume(u32),
    /// Somebody changes a record.
    Edit(u32, u64, MemberChange),
    Forget(u32, u64),
    Drop(u32),
    Open(u32, u32),
    Restart,
    LoseMemory,
    Run(i64),
    Pass,
}

const NETWORKS: u32 = 2;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let net = || 0..NETWORKS;
    let who = || 0_u64..12;
    let names = || {
        prop_oneof![
            Just(String::new()),
            Just("oslo".to_owned()),
            Just("bern".to_owned())
        ]
    };
    let addresses = || {
        prop::collection::btree_set(
            prop_oneof![Just("10.0.0.5"), Just("10.0.0.6"), Just("fd00::5")]
                .prop_map(|text| text.parse::<std::net::IpAddr>().unwrap()),
            0..3,
        )
    };
    let rule = (
        any::<bool>(),
        prop::option::of(0_i64..4000),
        any::<bool>(),
        names(),
        addresses(),
    )
        .prop_map(|(authorized, until, urgent, name, addresses)| Rule {
            authorized,
            until: until.map(at),
            urgent,
            name,
            addresses,
        });
    let change =
        (any::<bool>(), names(), addresses()).prop_map(|(authorized, name, addresses)| MemberChange {
            authorized: Some(authorized),
            name: Some(name),
            addresses: Some(addresses.iter().map(ToString::to_string).collect()),
        });
    let presence = prop_oneof![4 => Just(Presence::Made), 1 => Just(Presence::Deleted)];
    let unknown = prop_oneof![Just(Unknown::Report), Just(Unknown::Deauthorize)];
    let event = prop_oneof![
        6 => (net(), who(), rule).prop_map(|(n, m, rule)| Event::Rule(n, m, rule)),
        1 => (net(), who()).prop_map(|(n, m)| Event::Lift(n, m)),
        1 => (net(), presence, unknown, prop::bool::weighted(0.2)).prop_map(|(n, p, u, c)| Event::Govern(n, p, u, c)),
        1 => net().prop_map(Event::Resume),
        6 => (net(), who(), change).prop_map(|(n, m, change)| Event::Edit(n, m, change)),
        1 => (net(), who()).prop_map(|(n, m)| Event::Forget(n, m)),
        1 => net().prop_map(Event::Drop),
        1 => (net(), 1280_u32..9000).prop_map(|(n, mtu)| Event::Open(n, mtu)),
        1 => Just(Event::Restart),
        1 => Just(Event::LoseMemory),
        2 => (0_i64..600).prop_map(Event::Run),
        5 => Just(Event::Pass),
    ];
    prop::collection::vec(event, 0..60)
}

/// A site in which things happen.
struct Site {
    world: World,
    want: Members,
    memory: Memory,
    now: i64,
}

impl Site {
    fn new() -> Self {
        let governed = Governed {
            presence: Presence::Made,
            settings: NetworkSettings {
                mtu: Some(1400),
                ..NetworkSettings::default()
            },
            ..Governed::default()
        };
        Self {
            world: World::default(),
            want: Members {
                networks: (0..NETWORKS).map(|n| (network(n), governed.clone())).collect(),
                ..Members::default()
            },
            memory: Memory::new(NOON),
            now: 0,
        }
    }

    fn pass(&mut self) -> Plan {
        pass(&mut self.world, &self.want, &mut self.memory, at(self.now))
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Rule(n, m, rule) => drop(self.want.rules.insert((network(n), node(m)), rule)),
            Event::Lift(n, m) => drop(self.want.rules.remove(&(network(n), node(m)))),
            Event::Govern(n, presence, unknown, closed) => {
                let governed = self.want.networks.get_mut(&network(n)).unwrap();
                (governed.presence, governed.unknown, governed.closed) = (presence, unknown, closed);
            }
            Event::Resume(n) => self.want.networks.get_mut(&network(n)).unwrap().resumed += 1,
            Event::Edit(n, m, change) => self.world.edit(network(n), node(m), &change),
            Event::Forget(n, m) => {
                if let Some(there) = self.world.networks.get_mut(&network(n)) {
                    there.members.by_node.remove(&node(m));
                }
            }
            Event::Drop(n) => drop(self.world.networks.remove(&network(n))),
            Event::Open(n, mtu) => {
                if let Some(there) = self.world.networks.get_mut(&network(n)) {
                    (there.network.private, there.network.mtu) = (false, mtu);
                }
            }
            Event::Restart => self.memory.saw(&sighting(Watched::Missed), at(self.now)),
            Event::LoseMemory => self.memory = Memory::new(at(self.now)),
            Event::Run(seconds) => self.now += seconds,
            Event::Pass => drop(self.pass()),
        }
    }

    /// Where the controller is not what the rules say.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (id, governed) in &self.want.networks {
            let there = self.world.networks.get(id);
            if there.is_some() != (governed.presence == Presence::Made) {
                wrong.push(format!("{id} is there, or is not"));
            }
            let Some(there) = there else { continue };
            wrong.extend(
                governed
                    .settings
                    .differences(&there.network)
                    .iter()
                    .map(ToString::to_string),
            );
            for (who, member) in &there.members.by_node {
                let rule = self.want.rules.get(&(*id, *who));
                let right = match rule {
                    Some(rule) => member.authorized == (rule.holds(at(self.now)) && !governed.closed),
                    None => {
                        !member.authorized || !(governed.closed || governed.unknown == Unknown::Deauthorize)
                    }
                };
                let named =
                    rule.is_none_or(|rule| rule.name.is_empty() || member.name.as_ref() == Some(&rule.name));
                let placed = rule.is_none_or(|rule| {
                    let given = |address: &&std::net::IpAddr| {
                        rule.addresses
                            .iter()
                            .any(|given| given.is_ipv4() == address.is_ipv4())
                    };
                    let have: BTreeSet<std::net::IpAddr> = member
                        .addresses
                        .iter()
                        .map(|text| text.parse().unwrap())
                        .collect();
                    have.iter().filter(given).copied().collect::<BTreeSet<_>>() == rule.addresses
                });
                if !(right && named && placed) {
                    wrong.push(format!("{who} on {id}: {member:?}, and the rule is {rule:?}"));
                }
            }
            for ((_, who), rule) in self.want.rules.iter().filter(|((network, _), _)| network == id) {
                let wanted = rule.holds(at(self.now)) && !governed.closed;
                if wanted && !there.members.by_node.contains_key(who) {
                    wrong.push(format!("{who} has no record on {id}"));
                }
            }
        }
        wrong
    }
}

proptest! {
    #[test]
    fn whatever_happened_two_passes_after_the_brake_was_released_the_controller_is_what_the_rules_say(
        events in events(),
    ) {
        let mut site = Site::new();
        for event in events {
            site.happens(event);
        }
        // A memory that was lost has to know the networks before their brake can be released.
        site.pass();
        for governed in site.want.networks.values_mut() {
            governed.resumed += 1;
        }
        site.pass();
        site.pass();
        prop_assert_eq!(site.wrong(), Vec::<String>::new());
        let steps = site.pass().steps;
        let again = |step: &Step| matches!(step.act, Act::Again(_));
        prop_assert!(steps.iter().all(again), "a second pass has nothing to do: {:?}", steps);
    }

    #[test]
    fn a_node_without_a_rule_is_left_alone_where_strangers_are_only_reported(events in events()) {
        let mut site = Site::new();
        for event in events {
            site.happens(event);
            for governed in site.want.networks.values_mut() {
                (governed.unknown, governed.closed) = (Unknown::Report, false);
            }
            let plan = plan(&site.want, &site.world.have(&site.want), &site.memory, at(site.now));
            for step in plan.steps {
                match step.act {
                    Act::Member { node, .. } => prop_assert!(site.want.rules.contains_key(&(step.network, node))),
                    Act::Make(_) | Act::Settings(_) | Act::Delete | Act::Again(_) => {}
                }
            }
        }
    }

    #[test]
    fn the_same_document_twice_changes_nothing(events in events()) {
        let mut site = Site::new();
        for event in events {
            site.happens(event);
        }
        let twice = site.want.with(site.want.clone());
        prop_assert_eq!(&twice.rules, &site.want.rules);
        site.pass();
        let steps = site.pass().steps;
        let drifted = |step: &Step| matches!(step.act, Act::Again(_));
        prop_assert!(steps.iter().all(drifted), "{:?}", steps);
    }
}
