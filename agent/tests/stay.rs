//! Stories of a networks document: how a host is on its networks, what becomes of its own path, moons, witnesses.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail at any line; its tasks end with its runtime"
)]

mod site;

use std::{collections::BTreeSet, fs, net::IpAddr, sync::Arc, time::Duration};

use picket_agent::{
    enroll::node::{self, NodeIdentity},
    rejoin::rejoin,
    zerotier::Reach,
};
use picket_proto::{
    document::{Contents, Kind, Outcome, OutcomeStatus},
    stay::{Join, Moon, Stay, Witnessed},
    witness::Answer,
};
use picket_zerotier::{
    NetworkId, NodeId, address,
    controller::{Controller as _, NewNetwork},
    home::Home,
    node::Settings,
    world::{World, WorldId},
};
use site::{Site, Worker, overlay::Overlay, until};
use tokio::time;

/// How long the agent waits for a session after it changed the path of the last one.
const PATIENCE: Duration = Duration::from_secs(60);

fn want(stay: Stay) -> Contents {
    Contents::Networks(stay)
}

/// A network on a controller of its own that gives addresses which follow from node ids, and on which `members` are.
async fn network(site: &Site, members: &[NodeId]) -> NetworkId {
    let node = site.lab.grow();
    let controller = site.lab.service(node).controller(node);
    let new = NewNetwork {
        name: "lab".into(),
        rfc4193: true,
        ..NewNetwork::default()
    };
    let id = controller.create_network(&new).await.unwrap().id;
    for member in members {
        controller.authorize(id, *member, true).await.unwrap();
    }
    id
}

async fn until_outcome(site: &Site, generation: u64, status: OutcomeStatus) -> Outcome {
    until(&format!("networks {generation} to be {status}"), async || {
        let outcomes = site.master.log().outcomes;
        let last = outcomes
            .into_iter()
            .rfind(|outcome| outcome.kind == Kind::Networks)?;
        (last.stamp.generation == generation && last.status == status).then_some(last)
    })
    .await
}

async fn until_beats(site: &Site, at_least: usize) {
    until(&format!("{at_least} beats"), async || {
        (site.master.log().beats.len() >= at_least).then_some(())
    })
    .await;
}

async fn settings(worker: &Worker, network: NetworkId) -> Settings {
    worker.zerotier.node().network(network).await.unwrap().settings
}

/// An enrolled worker that is on `network` for its master's sake and reaches the master over it alone.
async fn over(site: &Site, network: impl AsyncFnOnce(NodeId) -> NetworkId) -> (Worker, NetworkId) {
    let mut worker = site.machine("edge-07");
    let node = worker.node;
    let network = network(node).await;
    worker.enroll().await.unwrap();
    let address = address::rfc4193(network, node);
    worker.wire = site.pipes.wire((address, 40_000).into());
    worker.start();
    site.master.want(want(Stay::on([network])), 1).await;
    worker.until_on(&[network]).await;
    until_outcome(site, 1, OutcomeStatus::Done).await;
    until("addresses", async || {
        let joined = worker.zerotier.node().network(network).await.unwrap();
        (!joined.addresses.is_empty()).then_some(())
    })
    .await;
    worker.stop().await.unwrap();
    worker.overlay = Some(Arc::new(Overlay {
        lab: site.lab.clone(),
        node,
        network,
        wire: worker.wire.clone(),
    }));
    worker.start();
    until("the section that says what carries the session", async || {
        let joined = site.master.zerotier()?.networks;
        joined
            .iter()
            .any(|joined| joined.id == network && joined.carries_session)
            .then_some(())
    })
    .await;
    (worker, network)
}

#[tokio::test(start_paused = true)]
async fn how_a_host_is_on_a_network_is_as_wanted_and_what_drifts_is_set_back_and_said() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    worker.settings += "networks.take = [\"dns\"]\n";
    let network = network(&site, &[worker.node]).await;
    worker.enroll().await.unwrap();
    worker.start();
    until_beats(&site, 1).await;
    let dns = Join {
        dns: true,
        ..Join::default()
    };
    let stay = Stay {
        networks: [(network, dns)].into(),
        ..Stay::default()
    };
    site.master.want(want(stay), 1).await;
    until_outcome(&site, 1, OutcomeStatus::Done).await;
    assert!(settings(&worker, network).await.dns);

    let node = worker.zerotier.node();
    node.join(network, Settings::default()).await.unwrap();
    until("the repair", async || {
        let said = site.master.log().outcomes.pop()?.problems.pop()?;
        (said.message == "allowDNS was set to false outside Picket, and was set back").then_some(())
    })
    .await;
    assert!(settings(&worker, network).await.dns);
}

#[tokio::test(start_paused = true)]
async fn what_agent_toml_does_not_let_a_network_give_is_refused_by_name_and_the_rest_is_done() {
    let site = Site::new();
    let worker = site.worker("edge-07").await;
    let network = network(&site, &[worker.node]).await;
    until_beats(&site, 1).await;
    let all = Join {
        managed: true,
        global: true,
        default_route: true,
        dns: true,
    };
    let stay = Stay {
        networks: [(network, all)].into(),
        ..Stay::default()
    };
    site.master.want(want(stay), 1).await;
    let outcome = until_outcome(&site, 1, OutcomeStatus::Failed).await;
    assert_eq!(settings(&worker, network).await, Settings::default());
    let said: BTreeSet<_> = outcome
        .problems
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    assert!(
        said.contains(
            "agent.toml does not let it give this machine a default route; add \"default\" to networks.take"
        ),
        "{said:?}"
    );
    assert_eq!(said.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_killed_network_is_left_at_once_and_one_joined_by_hand_is_not_and_that_is_said() {
    let site = Site::new();
    let worker = site.worker("edge-07").await;
    let (ours, by_hand) = (
        network(&site, &[worker.node]).await,
        network(&site, &[worker.node]).await,
    );
    until_beats(&site, 1).await;
    let node = worker.zerotier.node();
    node.join(by_hand, Settings::default()).await.unwrap();
    site.master.want(want(Stay::on([ours])), 1).await;
    until_outcome(&site, 1, OutcomeStatus::Done).await;
    let began = time::Instant::now();
    let killed = Stay {
        killed: [ours, by_hand].into(),
        ..Stay::default()
    };
    site.master.want(want(killed), 2).await;
    worker.until_on(&[by_hand]).await;
    assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
    let outcome = until_outcome(&site, 2, OutcomeStatus::Failed).await;
    assert_eq!(outcome.problems[0].subject, by_hand.to_string());
    assert!(
        outcome.problems[0].message.contains("joined by hand"),
        "{:?}",
        outcome.problems
    );
}

#[tokio::test(start_paused = true)]
async fn leaving_the_network_that_carries_the_session_is_undone_after_a_minute_and_not_tried_again() {
    let site = Site::new();
    let (worker, network) = over(&site, async |node| network(&site, &[node]).await).await;
    let node = worker.zerotier.node();
    site.master.want(want(Stay::default()), 2).await;
    worker.until_on(&[]).await;
    let left = time::Instant::now();
    worker.until_on(&[network]).await;
    let away = left.elapsed();
    assert!(
        away >= PATIENCE - Duration::from_secs(1) && away <= PATIENCE + Duration::from_secs(10),
        "{away:?}"
    );
    let outcome = until_outcome(&site, 2, OutcomeStatus::Failed).await;
    let said = |outcome: &Outcome, what: &str| {
        let told = outcome.problems.iter().any(|one| one.message.contains(what));
        assert!(told, "{what:?} not in {:?}", outcome.problems);
    };
    said(&outcome, "it cut the session's own path before");
    time::sleep(Duration::from_secs(300)).await;
    node.network(network).await.expect("it is still there");

    // Other wishes of its networks are worth another try; whom to witness is none.
    let witnessing = Stay {
        witnessed: [Witnessed {
            network,
            node: worker.node,
            address: [10, 0, 0, 1].into(),
            killed: false,
        }]
        .into(),
        ..Stay::default()
    };
    site.master.want(want(witnessing), 3).await;
    let outcome = until_outcome(&site, 3, OutcomeStatus::Failed).await;
    said(&outcome, "wish something else of its networks first");
    node.network(network).await.expect("it was not left for that");
    site.master.want(want(Stay::on([network])), 4).await;
    until_outcome(&site, 4, OutcomeStatus::Done).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_between_undoes_it_all_the_same() {
    let site = Site::new();
    let (mut worker, network) = over(&site, async |node| network(&site, &[node]).await).await;
    site.master.want(want(Stay::default()), 2).await;
    worker.until_on(&[]).await;
    worker.kill().await;
    time::sleep(Duration::from_secs(3600)).await;
    assert!(worker.networks().await.is_empty());
    worker.start();
    worker.until_on(&[network]).await;
    until_outcome(&site, 2, OutcomeStatus::Failed).await;
}

#[tokio::test(start_paused = true)]
async fn taking_its_addresses_away_is_undone_as_well_and_with_another_way_it_stands() {
    let site = Site::new();
    let (worker, network) = over(&site, async |node| network(&site, &[node]).await).await;
    let bare = Join {
        managed: false,
        ..Join::default()
    };
    let stay = Stay {
        networks: [(network, bare)].into(),
        ..Stay::default()
    };
    // The simulated way needs no address, so that the session goes on.
    site.master.want(want(stay), 2).await;
    until_outcome(&site, 2, OutcomeStatus::Done).await;
    time::sleep(PATIENCE * 2).await;
    assert!(!settings(&worker, network).await.managed);
}

#[tokio::test(start_paused = true)]
async fn a_kill_goes_ahead_though_it_cuts_the_session_and_rejoin_is_the_local_remedy() {
    let site = Site::new();
    let (mut worker, network) = over(&site, async |node| network(&site, &[node]).await).await;
    let killed = Stay {
        killed: [network].into(),
        ..Stay::default()
    };
    site.master.want(want(killed), 2).await;
    worker.until_on(&[]).await;
    time::sleep(Duration::from_secs(600)).await;
    assert!(worker.networks().await.is_empty(), "a kill is not undone");

    let reach = || Some(Reach::Service(worker.zerotier.clone()));
    let rejoined = rejoin(&worker.config(), reach(), None).await.unwrap();
    assert_eq!((rejoined.network, rejoined.remembered), (network, true));
    assert_eq!(rejoined.status, "OK");
    let outcome = until_outcome(&site, 2, OutcomeStatus::Failed).await;
    assert!(
        outcome.problems[0].message.contains("joined by hand"),
        "{:?}",
        outcome.problems
    );
    time::sleep(Duration::from_secs(300)).await;
    assert_eq!(worker.networks().await, [network]);
    let problems = site.master.host().unwrap().problems;
    assert!(
        problems
            .iter()
            .any(|one| one.message.contains("though the session went over it")),
        "{problems:?}"
    );

    // Without an agent, too, and a machine that is on it already is told so.
    worker.stop().await.unwrap();
    worker.zerotier.node().leave(network).await.unwrap();
    let reach = || Some(Reach::Service(worker.zerotier.clone()));
    rejoin(&worker.config(), reach(), None).await.unwrap();
    assert!(rejoin(&worker.config(), reach(), None).await.unwrap().before);
    worker.start();
    until_outcome(&site, 2, OutcomeStatus::Failed).await;
    assert_eq!(worker.networks().await, [network]);
}

#[tokio::test(start_paused = true)]
async fn the_root_of_a_moon_signs_it_once_and_others_orbit_it_until_it_is_no_longer_wanted() {
    let site = Site::new();
    let mut root = site.machine("root");
    let home = root.home();
    root.enroll().await.unwrap();
    root.start();
    site.lab.found_moon(root.node);
    until_beats(&site, 1).await;
    let endpoints: BTreeSet<_> = ["192.0.2.1:9993".parse().unwrap()].into();
    let rooted = Stay {
        root_of_moon: Some(endpoints),
        ..Stay::default()
    };
    site.master.want(want(rooted.clone()), 1).await;
    let definition = until("the moon in the section", async || {
        let own = site.master.zerotier()?.own_moon;
        (!own.is_empty()).then_some(own)
    })
    .await;
    let world = World::parse(&definition).unwrap();
    world.check().unwrap();
    assert_eq!(world.id(), WorldId::Moon(root.node));
    let file = home.join("moons.d").join(world.file_name());
    assert_eq!(fs::read(&file).unwrap(), definition);
    root.stop().await.unwrap();
    root.start();
    time::sleep(Duration::from_secs(120)).await;
    assert_eq!(site.master.zerotier().unwrap().own_moon, definition);
    root.stop().await.unwrap();

    let mut edge = site.machine("edge-07");
    let home = edge.home();
    edge.enroll().await.unwrap();
    edge.start();
    let moon = Moon { definition };
    let orbits = Stay {
        moons: [(root.node.to_u64(), moon)].into(),
        ..Stay::default()
    };
    site.master.want(want(orbits), 2).await;
    let orbited = async |waiting| {
        until(&format!("the moon, waiting: {waiting}"), async || {
            let moons = site.master.zerotier()?.moons;
            let moon = moons.iter().find(|moon| moon.id == root.node.to_u64())?;
            (moon.waiting == waiting).then_some(())
        })
        .await;
    };
    let file = home.join("moons.d").join(world.file_name());
    until("the definition in the home", async || file.exists().then_some(())).await;
    until("the moon to be waited for, and to be there", async || {
        (edge.zerotier.node().moons().await.unwrap().len() == 1).then_some(())
    })
    .await;
    orbited(false).await;
    site.master.want(want(Stay::default()), 3).await;
    until("no moon", async || {
        site.master.zerotier()?.moons.is_empty().then_some(())
    })
    .await;
    assert!(!file.exists());
    assert!(edge.zerotier.node().moons().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_moon_orbited_by_hand_is_left_alone_and_one_that_makes_no_sense_is_refused() {
    let site = Site::new();
    let worker = site.worker("edge-07").await;
    let root = site.lab.grow();
    site.lab.found_moon(root);
    let node = worker.zerotier.node();
    node.orbit(root, root).await.unwrap();
    until_beats(&site, 1).await;
    let nonsense = Moon {
        definition: b"nonsense".as_slice().into(),
    };
    let stay = Stay {
        moons: [(root.to_u64(), nonsense)].into(),
        ..Stay::default()
    };
    site.master.want(want(stay), 1).await;
    let outcome = until_outcome(&site, 1, OutcomeStatus::Failed).await;
    assert!(outcome.problems[0].subject.contains(&root.to_string()));
    site.master.want(want(Stay::default()), 2).await;
    until_outcome(&site, 2, OutcomeStatus::Done).await;
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(node.moons().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_answered_and_is_killed_is_witnessed_as_silent_three_probes_later() {
    let site = Site::new();
    let worker = site.worker("edge-07").await;
    let other = site.lab.grow();
    let network = network(&site, &[worker.node, other]).await;
    let address = IpAddr::from(address::rfc4193(network, other));
    worker.prober.appear(address);
    until_beats(&site, 1).await;
    let witnessed = |killed| Witnessed {
        network,
        node: other,
        address,
        killed,
    };
    let stay = |killed| Stay {
        witnessed: [witnessed(killed)].into(),
        ..Stay::on([network])
    };
    let answers = async |wanted| {
        until(&format!("{wanted:?}"), async || {
            let witnesses = site.master.zerotier()?.witnesses;
            let one = witnesses.iter().find(|witness| witness.node == other)?;
            (one.answer == wanted).then_some(())
        })
        .await;
    };
    site.master.want(want(stay(false)), 1).await;
    answers(Answer::Answers).await;
    site.master.want(want(stay(true)), 2).await;
    time::sleep(Duration::from_secs(10)).await;
    answers(Answer::Answers).await;
    worker.prober.vanish(address);
    let gone = time::Instant::now();
    answers(Answer::Silent).await;
    assert!(gone.elapsed() <= Duration::from_secs(6), "{:?}", gone.elapsed());
    site.master.want(want(Stay::on([network])), 3).await;
    until("no witness", async || {
        site.master.zerotier()?.witnesses.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_not_admitted_itself_bears_no_witness_of_silence() {
    let site = Site::new();
    let worker = site.worker("edge-07").await;
    let other = site.lab.grow();
    let network = network(&site, &[other]).await;
    let address = IpAddr::from(address::rfc4193(network, other));
    until_beats(&site, 1).await;
    let stay = Stay {
        witnessed: [Witnessed {
            network,
            node: other,
            address,
            killed: true,
        }]
        .into(),
        ..Stay::on([network])
    };
    worker.prober.appear(address);
    site.master.want(want(stay), 1).await;
    until("the witness", async || {
        (!site.master.zerotier()?.witnesses.is_empty()).then_some(())
    })
    .await;
    time::sleep(Duration::from_secs(30)).await;
    assert_eq!(site.master.zerotier().unwrap().witnesses[0].answer, Answer::Never);
}

#[tokio::test(start_paused = true)]
async fn an_identity_made_before_the_service_ever_ran_is_proven_in_the_first_session() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    let home = worker.home();
    let NodeIdentity::Made(node) = node::provide(&Home::new(&home), None).unwrap() else {
        panic!("there was one")
    };
    worker.reach = Some(Reach::home(home, None));
    worker.enroll().await.unwrap();
    worker.start();
    until_beats(&site, 1).await;
    let hello = site.master.log().hellos.pop().unwrap();
    let proof = hello.node_proof.expect("the node is proven");
    assert!(
        proof.identity.starts_with(&node.to_string()),
        "{}",
        proof.identity
    );
    let problem = site.master.zerotier().unwrap().service;
    assert!(
        problem.problem().unwrap().contains("has not run here"),
        "{problem:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_tun_device_is_a_condition_until_it_has_one() {
    let site = Site::new();
    let worker = site.worker("edge-07").await;
    let network = network(&site, &[worker.node]).await;
    site.lab.set_tun(worker.node, false);
    until_beats(&site, 1).await;
    site.master.want(want(Stay::on([network])), 1).await;
    until_outcome(&site, 1, OutcomeStatus::Blocked).await;
    let conditions = async |wanted: bool| {
        until(&format!("the condition: {wanted}"), async || {
            let problems = site.master.host()?.problems;
            let told = problems.iter().any(|one| one.message.contains("modprobe tun"));
            (told == wanted).then_some(())
        })
        .await;
    };
    conditions(true).await;
    site.lab.set_tun(worker.node, true);
    worker.until_on(&[network]).await;
    conditions(false).await;
}
