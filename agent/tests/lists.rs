//! What a controller with many members costs while nothing changes.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail at any line; its tasks end with its runtime"
)]

mod site;

use std::{collections::BTreeMap, time::Duration};

use picket_proto::{
    document::{Contents, Kind, OutcomeStatus},
    rules::{Governed, Members, Rule},
};
use picket_zerotier::{
    NodeId,
    controller::{Controller as _, MemberChange, NewNetwork},
};
use site::{Site, until};
use tokio::time;

const MEMBERS: u64 = 10_000;
/// The reconciler compares every 30 s.
const PERIOD: Duration = Duration::from_secs(30);
const PERIODS: usize = 2;
/// What the reconciler of members reads is what the beat shows.
const LISTS_A_PERIOD: usize = 1;

#[tokio::test(start_paused = true)]
async fn ten_thousand_members_that_are_in_order_cost_bulk_lists_alone_and_no_call_for_any_of_them() {
    let site = Site::new();
    let worker = site.worker("edge-07").await;
    let controller = site.lab.service(worker.node).controller(worker.node);
    let network = controller
        .create_network(&NewNetwork::default())
        .await
        .unwrap()
        .id;
    let nodes: Vec<_> = (1..=MEMBERS)
        .map(|number| NodeId::new(0x10_0000_0000 + number).unwrap())
        .collect();
    let on = |node: &NodeId| (*node, MemberChange::authorized(true));
    let changes: BTreeMap<_, _> = nodes.iter().map(on).collect();
    let changed = controller.change_members(network, &changes).await;
    assert!(changed.values().all(Result::is_ok));

    let rules = nodes.iter().map(|node| ((network, *node), Rule::plain(true)));
    let want = Members {
        networks: [(network, Governed::default())].into(),
        rules: rules.collect(),
        ..Members::default()
    };
    site.master.want(Contents::Members(want), 1).await;
    until("the members to be in order", async || {
        let outcomes = site.master.log().outcomes;
        let mut members = outcomes.iter().filter(|outcome| outcome.kind == Kind::Members);
        members
            .any(|outcome| outcome.status == OutcomeStatus::Done)
            .then_some(())
    })
    .await;
    time::sleep(PERIOD).await;

    let list = format!("GET /unstable/controller/network/{network}/member");
    let of = |what: &str| site.lab.asked(worker.node, what);
    let singly = || {
        let one = |node: &NodeId| {
            let path = format!("/controller/network/{network}/member/{node}");
            of(&format!("GET {path}")) + of(&format!("POST {path}"))
        };
        nodes.iter().map(one).sum::<usize>()
    };
    let (lists, calls) = (of(&list), singly());
    assert_eq!(calls, nodes.len(), "each was asked for once, when it was let on");
    time::sleep(PERIOD * u32::try_from(PERIODS).unwrap()).await;
    let lists = of(&list) - lists;
    assert_eq!(singly(), calls, "no call for a member that is in order");
    // Jitter may bring one more into the time that is looked at.
    let most = LISTS_A_PERIOD * PERIODS + 1;
    assert!(
        (PERIODS - 1..=most).contains(&lists),
        "{lists} bulk lists in {PERIODS} periods"
    );
    assert_eq!(of(&format!("GET /controller/network/{network}/member")), 0);
}
