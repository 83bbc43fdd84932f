//! Stories of a session: beats, documents, farewells, and a master that is away.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail at any line; its tasks end with its runtime"
)]

mod site;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use picket_agent::{Farewell, deckies::fake::FakeEngine, identity::IdentityStore, status::State};
use picket_pki::{Authority, Standing};
use picket_proto::{
    document::{Contents, Kind, OutcomeStatus},
    rules::{Governed, Members, Rule},
    session::LeaveReason,
    shard::{Decky, DeckyNetwork, DeckyService, Driver, Shard},
    status::DeckyState,
    stay::Stay,
};
use picket_zerotier::{
    NetworkId, NodeId,
    controller::{Controller as _, NewNetwork},
    node::Settings,
};
use site::{Site, Worker, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time,
};

fn on(networks: &[NetworkId]) -> Contents {
    Contents::Networks(Stay::on(networks.iter().copied()))
}

/// Rules of networks whose repairs have begun.
fn governed(rules: impl IntoIterator<Item = ((NetworkId, NodeId), bool)>) -> Contents {
    let rules = rules
        .into_iter()
        .map(|(at, authorized)| (at, Rule::plain(authorized)));
    let rules: BTreeMap<_, _> = rules.collect();
    let networks = rules.keys().map(|(network, _)| (*network, Governed::default()));
    Contents::Members(Members {
        networks: networks.collect(),
        rules,
        ..Members::default()
    })
}

/// Two networks on a controller of their own.
async fn networks(site: &Site) -> [NetworkId; 2] {
    let node = site.lab.grow();
    let controller = site.lab.service(node).controller(node);
    let mut ids = Vec::new();
    for name in ["lab", "office"] {
        let new = NewNetwork {
            name: name.into(),
            ..NewNetwork::default()
        };
        ids.push(controller.create_network(&new).await.unwrap().id);
    }
    ids.sort_unstable();
    ids.try_into().unwrap()
}

async fn until_outcome(site: &Site, kind: Kind, generation: u64, status: OutcomeStatus) {
    until(&format!("{kind} {generation} to be {status}"), async || {
        let outcomes = site.master.log().outcomes;
        let last = outcomes.into_iter().rfind(|outcome| outcome.kind == kind)?;
        (last.stamp.generation == generation && last.status == status).then_some(())
    })
    .await;
}

async fn until_beats(site: &Site, at_least: usize) {
    until(&format!("{at_least} beats"), async || {
        (site.master.log().beats.len() >= at_least).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_first_beat_is_full_and_the_next_ones_are_digests_every_30_seconds() {
    let site = Site::new();
    let worker = site.worker("edge-07").await;
    until_beats(&site, 1).await;
    let began = time::Instant::now();
    until_beats(&site, 4).await;
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(81) && took <= Duration::from_secs(100),
        "{took:?}"
    );
    let beats = site.master.log().beats;
    assert!(
        beats[0]
            .sections
            .iter()
            .all(|(_, section)| section.body.is_some())
    );
    assert_eq!(
        beats[0].sections.len(),
        2,
        "ZeroTier and the host; no controller, no Docker"
    );
    assert!(
        beats[3]
            .sections
            .iter()
            .all(|(_, section)| section.body.is_none())
    );
    assert_eq!(site.master.zerotier().unwrap().node, Some(worker.node));
}

#[tokio::test(start_paused = true)]
async fn a_wanted_network_is_joined_reported_within_seconds_and_kept_without_a_master() {
    let site = Site::new();
    let [lab, office] = networks(&site).await;
    let mut worker = site.worker("edge-07").await;
    until_beats(&site, 1).await;
    site.master.want(on(&[lab]), 1).await;
    worker.until_on(&[lab]).await;
    until_outcome(&site, Kind::Networks, 1, OutcomeStatus::Done).await;
    let changed = time::Instant::now();
    until("the beat that shows it", async || {
        let joined = site.master.zerotier()?.networks;
        joined
            .iter()
            .any(|network| network.id == lab && network.managed)
            .then_some(())
    })
    .await;
    assert!(
        changed.elapsed() <= Duration::from_secs(3),
        "{:?}",
        changed.elapsed()
    );

    // Without a master and after a reboot, what drifts is repaired, and what was joined by hand stays.
    worker.wire.cut();
    worker.kill().await;
    worker.start();
    worker.zerotier.node().leave(lab).await.unwrap();
    worker
        .zerotier
        .node()
        .join(office, Settings::default())
        .await
        .unwrap();
    worker.until_on(&[lab, office]).await;

    // Back again, the master is told what is held and sends nothing anew.
    worker.wire.mend();
    until("the second session", async || {
        (site.master.log().hellos.len() >= 3).then_some(())
    })
    .await;
    assert_eq!(site.master.log().hellos.last().unwrap().held[0].1.generation, 1);
    site.master.want(on(&[]), 2).await;
    worker.until_on(&[office]).await;
}

#[tokio::test(start_paused = true)]
async fn a_network_that_the_configuration_does_not_allow_is_refused_with_what_to_do() {
    let site = Site::new();
    let [lab, office] = networks(&site).await;
    let mut worker = site.machine("edge-07");
    worker.settings = format!("networks.allow = [\"{lab}\"]");
    worker.enroll().await.unwrap();
    worker.start();
    until_beats(&site, 1).await;
    site.master.want(on(&[lab, office]), 1).await;
    until_outcome(&site, Kind::Networks, 1, OutcomeStatus::Failed).await;
    worker.until_on(&[lab]).await;
    let outcome = site.master.log().outcomes.pop().unwrap();
    assert!(
        outcome.problems[0]
            .message
            .contains(&format!("add \"{office}\" to networks.allow")),
        "{:?}",
        outcome.problems
    );
}

#[tokio::test(start_paused = true)]
async fn members_are_authorized_and_cut_off_on_the_controller_and_strangers_left_alone() {
    let site = Site::new();
    let worker = site.worker("edge-07").await;
    let controller = worker.zerotier.controller(worker.node);
    let network = controller
        .create_network(&NewNetwork::default())
        .await
        .unwrap()
        .id;
    let [guest, stranger]: [NodeId; 2] = [site.lab.grow(), site.lab.grow()];
    controller.authorize(network, stranger, true).await.unwrap();
    until_beats(&site, 1).await;
    let rules = |authorized| governed([((network, guest), authorized)]);
    let mut generation = 0;
    for authorized in [true, false] {
        generation += 1;
        site.master.want(rules(authorized), generation).await;
        until_outcome(&site, Kind::Members, generation, OutcomeStatus::Done).await;
        assert_eq!(
            controller.member(network, guest).await.unwrap().authorized,
            authorized
        );
    }
    assert!(controller.member(network, stranger).await.unwrap().authorized);
    // Drift is repaired.
    controller.authorize(network, guest, true).await.unwrap();
    until("the repair", async || {
        let member = controller.member(network, guest).await.unwrap();
        (!member.authorized).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_down_blocks_its_document_and_delays_no_beat() {
    let site = Site::new();
    let [lab, _] = networks(&site).await;
    let worker = site.worker("edge-07").await;
    until_beats(&site, 1).await;
    site.lab.stop(worker.node);
    site.master.want(on(&[lab]), 1).await;
    until_outcome(&site, Kind::Networks, 1, OutcomeStatus::Blocked).await;
    let before = site.master.log().beats.len();
    until_beats(&site, before + 3).await;
    assert!(site.master.zerotier().unwrap().service.problem().is_some());
    site.lab.start(worker.node);
    until_outcome(&site, Kind::Networks, 1, OutcomeStatus::Done).await;
    worker.until_on(&[lab]).await;
}

#[tokio::test(start_paused = true)]
async fn a_banned_host_leaves_what_it_joined_stays_where_it_was_by_hand_and_comes_back_when_unbanned() {
    let site = Site::new();
    let [lab, office] = networks(&site).await;
    let mut worker = site.worker("edge-07").await;
    worker
        .zerotier
        .node()
        .join(office, Settings::default())
        .await
        .unwrap();
    until_beats(&site, 1).await;
    site.master.want(on(&[lab]), 1).await;
    worker.until_on(&[lab, office]).await;

    site.master.judge("edge-07", Standing::Banned);
    site.master.leave(LeaveReason::Banned).await;
    worker.until_on(&[office]).await;
    worker.kill().await;
    worker.start();
    time::sleep(Duration::from_secs(120)).await;
    assert_eq!(
        worker.networks().await,
        [office],
        "a restart does not forget the ban"
    );
}

#[tokio::test(start_paused = true)]
async fn a_retired_host_cleans_up_forgets_its_keys_and_ends() {
    let site = Site::new();
    let [lab, _] = networks(&site).await;
    let mut worker = site.worker("edge-07").await;
    until_beats(&site, 1).await;
    site.master.want(on(&[lab]), 1).await;
    worker.until_on(&[lab]).await;
    site.master.leave(LeaveReason::Retired).await;
    assert_eq!(worker.ends().await.unwrap(), Farewell::Retired);
    assert!(worker.networks().await.is_empty());
    assert_eq!(
        std::fs::read_dir(worker.state.join("identity")).unwrap().count(),
        0
    );
    assert_eq!(
        std::fs::read_dir(worker.state.join("desired")).unwrap().count(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_master_that_acknowledges_nothing_is_left_within_25_seconds_and_dialled_again() {
    let site = Site::new();
    let _worker = site.worker("edge-07").await;
    until_beats(&site, 1).await;
    let sessions = site.master.log().hellos.len();
    site.master.be_silent(true);
    let beats = site.master.log().beats.len();
    until_beats(&site, beats + 1).await;
    let asked = time::Instant::now();
    until("another session", async || {
        (site.master.log().hellos.len() > sessions).then_some(())
    })
    .await;
    assert!(
        asked.elapsed() <= Duration::from_secs(30),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn past_half_life_the_certificate_is_renewed_once_however_wrong_the_clock_is() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    worker.enroll().await.unwrap();
    // To this machine every certificate of seven days is past its half life when it comes.
    worker.clock = site.clock.skewed(5 * 24 * 3600);
    worker.start();
    until("the renewal", async || {
        (site.master.keys_signed() == 2).then_some(())
    })
    .await;
    let beats = site.master.log().beats.len();
    until_beats(&site, beats + 5).await;
    assert_eq!(site.master.keys_signed(), 2);
    assert!(
        site.master
            .log()
            .goodbyes
            .iter()
            .any(|reason| reason.contains("new certificate"))
    );
    let files: BTreeSet<_> = std::fs::read_dir(worker.state.join("identity"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        files,
        BTreeSet::from(["bundle", "current.json", "previous.json"].map(ToOwned::to_owned))
    );
    assert_eq!(worker.stop().await.unwrap(), Farewell::Stopped);
    assert_eq!(site.master.log().goodbyes.last().unwrap(), "the agent stops");
}

#[tokio::test(start_paused = true)]
async fn a_master_that_forgot_a_section_gets_it_again() {
    let site = Site::new();
    let _worker = site.worker("edge-07").await;
    until_beats(&site, 2).await;
    site.master.forget_bodies();
    let beats = site.master.log().beats.len();
    until_beats(&site, beats + 1).await;
    until("the bodies", async || site.master.has_all_bodies().then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn long_bodies_travel_beside_the_session_in_both_directions() {
    let site = Site::new();
    let worker = site.worker("edge-07").await;
    let controller = worker.zerotier.controller(worker.node);
    let network = controller
        .create_network(&NewNetwork::default())
        .await
        .unwrap()
        .id;
    until_beats(&site, 1).await;
    let rules = (1..4000).map(|number| ((network, NodeId::new(number).unwrap()), number % 2 == 0));
    site.master.want(governed(rules), 1).await;
    until_outcome(&site, Kind::Members, 1, OutcomeStatus::Done).await;
    assert!(site.master.log().fetches >= 2, "the first one broke off");
    until("the report", async || {
        (site.master.log().reports > 0 && site.master.has_all_bodies()).then_some(())
    })
    .await;
}

fn shard() -> Contents {
    let network = DeckyNetwork {
        name: "lan".parse().unwrap(),
        driver: Driver::Bridge,
        parent: None,
        subnet: "10.77.0.0/24".parse().unwrap(),
        gateway: None,
    };
    let service = DeckyService {
        name: "ssh".parse().unwrap(),
        image: "picket-decoy:latest".into(),
        command: vec!["ssh".into()],
        environment: BTreeMap::new(),
        ports: vec![22],
    };
    let decky = Decky {
        name: "web-01".parse().unwrap(),
        deployment: "site".parse().unwrap(),
        network: network.name.clone(),
        address: "10.77.0.20".parse().unwrap(),
        hostname: "intranet".parse().unwrap(),
        services: vec![service],
    };
    Contents::Shard(Shard {
        deckies: BTreeMap::from([(decky.name.clone(), decky)]),
        networks: BTreeMap::from([(network.name.clone(), network)]),
    })
}

#[tokio::test(start_paused = true)]
async fn a_shard_runs_is_reported_repaired_at_once_and_removed_with_the_host() {
    let site = Site::new();
    let docker = Arc::new(FakeEngine::new());
    docker.load_image("picket-decoy:latest");
    let mut worker = site.machine("edge-07");
    worker.docker = Some(docker.clone());
    worker.settings = "[[deckies.networks]]\ndriver = \"bridge\"\nsubnet = \"10.77.0.0/16\"".to_owned();
    worker.enroll().await.unwrap();
    worker.start();
    until_beats(&site, 1).await;
    assert_eq!(
        site.master.log().beats[0].sections.len(),
        3,
        "Docker is read before the first beat"
    );
    site.master.want(shard(), 1).await;
    until_outcome(&site, Kind::Shard, 1, OutcomeStatus::Done).await;
    let running = docker.container_names();
    assert_eq!(running.len(), 2, "a base and a service: {running:?}");
    let state = async || site.master.deckies()?.deckies.first().map(|decky| decky.state);
    until("the beat that shows it", async || {
        (state().await == Some(DeckyState::Running)).then_some(())
    })
    .await;

    // The master away, a container is lost: Docker says so, and nobody waits for the next round.
    worker.wire.cut();
    docker.lose(&running[0]);
    let lost = time::Instant::now();
    until("the repair", async || {
        (docker.container_names().len() == 2).then_some(())
    })
    .await;
    assert!(lost.elapsed() <= Duration::from_secs(5), "{:?}", lost.elapsed());
    worker.wire.mend();

    let sessions = site.master.log().hellos.len();
    until("the session", async || {
        (site.master.log().hellos.len() > sessions).then_some(())
    })
    .await;
    site.master.leave(LeaveReason::Retired).await;
    assert_eq!(worker.ends().await.unwrap(), Farewell::Retired);
    assert!(docker.container_names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_shard_with_a_network_that_is_not_allowed_is_refused() {
    let site = Site::new();
    let docker = Arc::new(FakeEngine::new());
    docker.load_image("picket-decoy:latest");
    let mut worker = site.machine("edge-07");
    worker.docker = Some(docker.clone());
    worker.enroll().await.unwrap();
    worker.start();
    until_beats(&site, 1).await;
    site.master.want(shard(), 1).await;
    until_outcome(&site, Kind::Shard, 1, OutcomeStatus::Failed).await;
    assert!(docker.container_names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_master_of_a_distant_version_is_named_in_the_status_and_dialled_again_later() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    worker.enroll().await.unwrap();
    site.master.claim_version("0.9.0");
    worker.start();
    let problem = until("the problem", async || status(&worker)?.master.problem).await;
    assert!(problem.ends_with("update this agent"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn every_refusal_is_in_the_status_with_what_to_do() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    worker.enroll().await.unwrap();
    site.master.judge("edge-07", Standing::Spent);
    worker.start();
    let problem = until("the problem", async || status(&worker)?.master.problem).await;
    assert!(problem.contains("picketctl host bundle"), "{problem}");
    assert_eq!(worker.stop().await.unwrap(), Farewell::Stopped);
}

#[tokio::test(start_paused = true)]
async fn somebody_on_the_path_who_says_revoked_takes_nothing_from_this_machine() {
    let site = Site::new();
    let [lab, _] = networks(&site).await;
    let worker = site.worker("edge-07").await;
    until_beats(&site, 1).await;
    site.master.want(on(&[lab]), 1).await;
    worker.until_on(&[lab]).await;

    let mut impostor = site.pipes.listen(site::master::ADDRESS);
    worker.wire.cut();
    worker.wire.mend();
    for _ in 0..3 {
        let (mut io, _) = impostor.accept().await.unwrap();
        let mut header = [0; 5];
        io.read_exact(&mut header).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        io.read_exact(&mut hello).await.unwrap();
        // A fatal alert in the clear: certificate_revoked.
        io.write_all(&[21, 3, 3, 0, 2, 2, 44]).await.unwrap();
    }
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(worker.networks().await, [lab]);
    assert_eq!(status(&worker).unwrap().master.state, State::Disconnected);
}

#[tokio::test(start_paused = true)]
async fn a_leave_in_answer_to_hello_is_heeded_like_any_other() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    worker.enroll().await.unwrap();
    site.master.turn_away(LeaveReason::Retired);
    worker.start();
    assert_eq!(worker.ends().await.unwrap(), Farewell::Retired);
}

#[tokio::test(start_paused = true)]
async fn a_document_that_cannot_be_kept_is_never_said_to_be_held() {
    let site = Site::new();
    let worker = site.worker("edge-07").await;
    until_beats(&site, 1).await;
    let sessions = site.master.log().hellos.len();
    // No file can take the place of a directory that is not empty.
    let blocker = worker.state.join("desired/members.json");
    std::fs::create_dir_all(blocker.join("x")).unwrap();
    site.master.want(Contents::Members(Members::default()), 1).await;
    until("two more sessions", async || {
        (site.master.log().hellos.len() >= sessions + 2).then_some(())
    })
    .await;
    let log = site.master.log();
    assert!(log.outcomes.is_empty(), "{:?}", log.outcomes);
    assert!(log.hellos.last().unwrap().held.is_empty());
    std::fs::remove_dir_all(blocker).unwrap();
    until_outcome(&site, Kind::Members, 1, OutcomeStatus::Done).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_next_identity_is_moved_aside_and_the_agent_runs_under_the_present_one() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    worker.enroll().await.unwrap();
    let next = worker.state.join("identity/next.json");
    picket_durable::write_private(&next, b"{").unwrap();
    worker.start();
    until_beats(&site, 1).await;
    assert!(!next.exists() && next.with_extension("json.damaged").exists());
}

#[tokio::test(start_paused = true)]
async fn a_retired_host_that_cannot_clean_up_yet_keeps_its_keys_and_goes_on_at_the_next_start() {
    let site = Site::new();
    let [lab, _] = networks(&site).await;
    let mut worker = site.worker("edge-07").await;
    until_beats(&site, 1).await;
    site.master.want(on(&[lab]), 1).await;
    worker.until_on(&[lab]).await;
    site.lab.stop(worker.node);
    site.master.leave(LeaveReason::Retired).await;
    time::sleep(Duration::from_secs(120)).await;
    assert!(
        worker.state.join("identity/current.json").exists(),
        "nothing is forgotten yet"
    );
    assert_eq!(worker.stop().await.unwrap(), Farewell::Stopped);
    worker.wire.cut();
    worker.start();
    site.lab.start(worker.node);
    assert_eq!(worker.ends().await.unwrap(), Farewell::Retired);
    assert!(worker.networks().await.is_empty());
    assert_eq!(
        std::fs::read_dir(worker.state.join("identity")).unwrap().count(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_network_that_surely_was_not_joined_is_not_ours_to_leave() {
    let site = Site::new();
    let [lab, _] = networks(&site).await;
    let worker = site.worker("edge-07").await;
    until_beats(&site, 1).await;
    site.lab.set_tun(worker.node, false);
    site.master.want(on(&[lab]), 1).await;
    until_outcome(&site, Kind::Networks, 1, OutcomeStatus::Blocked).await;
    site.master.want(on(&[]), 2).await;
    until_outcome(&site, Kind::Networks, 2, OutcomeStatus::Done).await;
    site.lab.set_tun(worker.node, true);
    worker
        .zerotier
        .node()
        .join(lab, Settings::default())
        .await
        .unwrap();
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(worker.networks().await, [lab], "somebody joined it by hand");
}

#[tokio::test(start_paused = true)]
async fn without_a_word_in_the_configuration_no_network_is_joined() {
    let site = Site::new();
    let [lab, _] = networks(&site).await;
    let mut worker = site.machine("edge-07");
    worker.settings = String::new();
    worker.enroll().await.unwrap();
    worker.start();
    until_beats(&site, 1).await;
    site.master.want(on(&[lab]), 1).await;
    until_outcome(&site, Kind::Networks, 1, OutcomeStatus::Failed).await;
    assert!(worker.networks().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_next_certificate_is_kept_until_the_present_one_was_accepted() {
    let site = Site::new();
    let mut worker = site.worker("edge-07").await;
    until_beats(&site, 1).await;
    worker.stop().await.unwrap();
    let identity = worker.state.join("identity");
    std::fs::copy(identity.join("current.json"), identity.join("next.json")).unwrap();
    site.master.judge("edge-07", Standing::Spent);
    worker.start();
    until("the refusal", async || status(&worker)?.master.problem).await;
    worker.stop().await.unwrap();
    assert!(identity.join("next.json").exists(), "neither was accepted");
}

fn status(worker: &Worker) -> Option<picket_agent::status::Status> {
    picket_agent::status::Status::read(&picket_agent::state::status_file(&worker.state))
}

#[tokio::test(start_paused = true)]
async fn a_ca_is_trusted_on_the_word_of_the_trusted_one_and_never_on_the_masters_alone() {
    let site = Site::new();
    let mut worker = site.worker("edge-07").await;
    until_beats(&site, 1).await;
    let kept = || {
        let store = IdentityStore::open(worker.state.join("identity")).unwrap();
        store.load().unwrap().current.unwrap().authorities
    };
    let before = kept();
    let now = site.clock.now();
    let ca = || Authority::create(&"example.org".parse().unwrap(), now).unwrap();
    // Whoever stole the master's own key has a session, and a CA that can sign whatever it likes.
    let attackers = ca();
    let own_word = ca().cross_sign(attackers.certificate(), now).unwrap();
    site.master.name_another_ca(&attackers, own_word).await;
    until("the agent to say so", async || {
        let said = format!("{:?}", site.master.host()?.problems);
        said.contains("vouches for it").then_some(())
    })
    .await;
    assert_eq!((site.master.log().trusted.len(), kept()), (0, before.clone()));

    let successor = ca();
    let vouched = site.master.vouch_for(&successor);
    site.master.name_another_ca(&successor, vouched).await;
    until("the agent to acknowledge", async || {
        site.master.log().trusted.pop()
    })
    .await;
    assert_eq!(kept(), [before, vec![successor.certificate().to_vec()]].concat());
    worker.kill().await;
    worker.start();
    until("another hello", async || {
        let hello = site.master.log().hellos.pop()?;
        (hello.authorities.len() == 2).then_some(())
    })
    .await;
}
