//! Stories of a controller that is made to follow the rules, with and without a master.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail at any line; its tasks end with its runtime"
)]

mod site;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use picket_proto::{
    document::{Contents, Kind, OutcomeStatus},
    repair::{Repair, Why},
    rules::{Governed, Members, Presence, Rule},
    status::ControlledNetwork,
};
use picket_zerotier::{
    NetworkId, NodeId,
    controller::{Controller as _, LocalController, MemberChange, NewNetwork},
    dial::{Dial, Dialing, Wire},
    node::Settings,
    service::Service,
    settings::NetworkSettings,
};
use serde_json::json;
use site::{Site, Worker, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, copy_bidirectional, split},
    time,
};

/// A worker that runs a controller with one network, and what is wanted of it.
struct Story {
    site: Site,
    worker: Worker,
    controller: LocalController,
    network: NetworkId,
    want: Members,
    generation: u64,
    wire: Tampering,
}

impl Story {
    async fn new() -> Self {
        let site = Site::new();
        let mut worker = site.machine("edge-07");
        // A wall clock of its own.
        worker.clock = site.clock.skewed(0);
        let wire = Tampering {
            inner: site.lab.dial(worker.node),
            mood: Arc::default(),
        };
        worker.zerotier = Service::new(Arc::new(wire.clone()), site.lab.token(worker.node));
        worker.enroll().await.unwrap();
        worker.start();
        let controller = site.lab.service(worker.node).controller(worker.node);
        let network = controller
            .create_network(&NewNetwork::default())
            .await
            .unwrap()
            .id;
        until("the first beat", async || {
            site.master.log().beats.first().map(drop)
        })
        .await;
        Self {
            want: Members {
                networks: [(network, Governed::default())].into(),
                ..Members::default()
            },
            site,
            worker,
            controller,
            network,
            generation: 0,
            wire,
        }
    }

    fn rule(&mut self, node: NodeId, rule: Rule) {
        self.want.rules.insert((self.network, node), rule);
    }

    fn governed(&mut self) -> &mut Governed {
        self.want.networks.get_mut(&self.network).unwrap()
    }

    /// Lets so many nodes on that do not run.
    fn let_on(&mut self, count: u64) -> Vec<NodeId> {
        let nodes: Vec<_> = (1..=count).map(|number| NodeId::new(number).unwrap()).collect();
        for node in &nodes {
            self.rule(*node, Rule::plain(true));
        }
        nodes
    }

    /// A running node that asks to be on the network.
    async fn guest(&self) -> NodeId {
        let node = self.site.lab.grow();
        let joined = self.site.lab.service(node).node();
        joined.join(self.network, Settings::default()).await.unwrap();
        node
    }

    /// Sends the document.
    async fn send(&mut self) {
        self.generation += 1;
        let contents = Contents::Members(self.want.clone());
        self.site.master.want(contents, self.generation).await;
    }

    /// Sends the document and waits until it is done.
    async fn done(&mut self) {
        self.send().await;
        self.until_outcome(OutcomeStatus::Done).await;
    }

    async fn until_outcome(&self, status: OutcomeStatus) {
        let generation = self.generation;
        until(&format!("members {generation} to be {status}"), async || {
            let outcomes = self.site.master.log().outcomes;
            let last = outcomes
                .into_iter()
                .rfind(|outcome| outcome.kind == Kind::Members)?;
            (last.stamp.generation == generation && last.status == status).then_some(())
        })
        .await;
    }

    async fn is_on(&self, node: NodeId) -> bool {
        let member = self.controller.member(self.network, node).await;
        member.is_ok_and(|member| member.authorized)
    }

    async fn until_on(&self, node: NodeId, on: bool) {
        until(&format!("{node} to be on, or off"), async || {
            (self.is_on(node).await == on).then_some(())
        })
        .await;
    }

    /// Waits for a repair to be reported.
    async fn repair(&self, pick: impl Fn(&Repair) -> bool) -> Repair {
        until("a repair", async || {
            let repairs = self.site.master.controller()?.repairs;
            repairs.into_iter().rfind(&pick)
        })
        .await
    }

    async fn until_shown(&self, network: NetworkId, shown: impl Fn(&ControlledNetwork) -> bool) {
        until("the controller's section to show it", async || {
            let networks = self.site.master.controller()?.networks;
            networks
                .iter()
                .any(|seen| seen.id == network && shown(seen))
                .then_some(())
        })
        .await;
    }

    fn in_seconds(&self, seconds: i64) -> Timestamp {
        self.site.clock.now() + SignedDuration::from_secs(seconds)
    }
}

fn until_then(until: Timestamp) -> Rule {
    Rule {
        until: Some(until),
        ..Rule::plain(true)
    }
}

/// What lies between the agent and its service, and what it does to requests.
#[derive(Clone)]
struct Tampering {
    inner: Arc<dyn Dial>,
    mood: Arc<Mutex<Mood>>,
}

#[derive(Default, Clone)]
struct Mood {
    /// Paths with this are answered with nonsense.
    nonsense: Option<String>,
    /// Changes are passed on, and their answers lost.
    loses_answers: bool,
}

impl Tampering {
    fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

impl Dial for Tampering {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let inner = self.inner.dial().await?;
            let (near, far) = tokio::io::duplex(64 * 1024);
            let mood = self.mood.lock().unwrap().clone();
            tokio::task::spawn(tamper(far, inner, mood));
            Ok(Box::new(near) as Box<dyn Wire>)
        })
    }
}

async fn tamper(mut far: DuplexStream, mut inner: Box<dyn Wire>, mood: Mood) {
    let mut head = Vec::new();
    while !head.windows(2).any(|two| two == b"\r\n") {
        match far.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let line = String::from_utf8_lossy(&head).into_owned();
    if mood.nonsense.is_some_and(|path| line.contains(&path)) {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n\"perhaps\"";
        drop(far.write_all(answer).await);
        return;
    }
    if inner.write_all(&head).await.is_err() {
        return;
    }
    if mood.loses_answers && line.starts_with("POST") {
        let (mut from, _keep) = split(far);
        let (mut answer, mut to) = split(inner);
        let mut lost = Vec::new();
        tokio::select! {
            _ = answer.read_to_end(&mut lost) => {}
            _ = copy(&mut from, &mut to) => {}
        }
        return;
    }
    drop(copy_bidirectional(&mut far, &mut inner).await);
}

impl fmt::Debug for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_master_an_activation_ends_on_time_whatever_is_done_to_the_clock_here() {
    for jump in [-7200, 7200] {
        let mut story = Story::new().await;
        let guest = story.let_on(1)[0];
        let end = story.in_seconds(600);
        story.rule(guest, until_then(end));
        story.done().await;
        story.worker.wire.cut();
        story.worker.clock.jump(jump);
        time::sleep(Duration::from_secs(590)).await;
        assert!(story.site.clock.now() < end && story.is_on(guest).await);
        story.until_on(guest, false).await;
        let late = story.site.clock.now().duration_since(end).as_secs();
        assert!((-2..=5).contains(&late), "{late} s late");
        // By a clock that is hours off no certificate is good.
        story.worker.clock.jump(-jump);
        story.worker.wire.mend();
        let told = story.repair(|repair| repair.node == Some(guest)).await;
        assert_eq!((told.why, told.after.as_str()), (Why::Ended, "deauthorized"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_activation_that_is_overdue_when_the_agent_starts_again_ends_at_once_after_a_reboot_too() {
    for reboot in [false, true] {
        let mut story = Story::new().await;
        let guest = story.let_on(1)[0];
        let end = story.in_seconds(60);
        story.rule(guest, until_then(end));
        story.done().await;
        story.worker.wire.cut();
        story.worker.kill().await;
        time::sleep(Duration::from_secs(600)).await;
        assert!(story.is_on(guest).await);
        if reboot {
            story.worker.clock.reboot();
        }
        story.worker.start();
        let started = time::Instant::now();
        story.until_on(guest, false).await;
        assert!(
            started.elapsed() <= Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_changed_is_changed_back_and_told_with_before_and_after_across_a_restart_too() {
    let mut story = Story::new().await;
    let guest = story.let_on(1)[0];
    let rule = Rule {
        name: "oslo".into(),
        addresses: ["10.147.20.5".parse().unwrap()].into(),
        ..Rule::plain(true)
    };
    story.rule(guest, rule);
    story.done().await;
    let decided = story.repair(|repair| repair.why == Why::Decided).await;
    assert_eq!(decided.after, "authorized, name=oslo, addresses=10.147.20.5");

    story.worker.kill().await;
    let change = MemberChange {
        authorized: Some(false),
        name: Some("bern".into()),
        addresses: Some(vec!["10.147.20.9".into()]),
    };
    story
        .controller
        .change_member(story.network, guest, &change)
        .await
        .unwrap();
    story.worker.start();
    let drift = story
        .repair(|repair| repair.why == Why::Drift && repair.after.starts_with("addresses"))
        .await;
    assert_eq!(
        (drift.before.as_str(), drift.after.as_str()),
        ("addresses=10.147.20.9", "addresses=10.147.20.5")
    );
    assert!(drift.sequence > decided.sequence);
    let member = story.controller.member(story.network, guest).await.unwrap();
    assert!(
        member.authorized && member.name.as_deref() == Some("oslo"),
        "{member:?}"
    );

    // While the agent runs, too, and the beat that shows it comes at once.
    story
        .controller
        .authorize(story.network, guest, false)
        .await
        .unwrap();
    story.until_on(guest, true).await;
    let repaired = time::Instant::now();
    story.repair(|repair| repair.sequence > drift.sequence).await;
    assert!(
        repaired.elapsed() <= Duration::from_secs(3),
        "{:?}",
        repaired.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_network_turned_upside_down_waits_for_an_operator_and_a_kill_on_it_does_not() {
    let mut story = Story::new().await;
    let nodes = story.let_on(10);
    story.done().await;
    for node in &nodes[..6] {
        story
            .controller
            .authorize(story.network, *node, false)
            .await
            .unwrap();
    }
    let network = story.network;
    story.until_shown(network, |seen| seen.held_back == 6).await;
    assert!(!story.is_on(nodes[0]).await);
    let killed = Rule {
        urgent: true,
        ..Rule::plain(false)
    };
    story.rule(nodes[9], killed);
    story.done().await;
    assert!(!story.is_on(nodes[9]).await && !story.is_on(nodes[0]).await);
    story.governed().resumed += 1;
    story.done().await;
    assert!(story.is_on(nodes[0]).await && story.is_on(nodes[5]).await);
    story.until_shown(network, |seen| seen.held_back == 0).await;
}

#[tokio::test(start_paused = true)]
async fn nonsense_about_one_network_freezes_that_one_and_no_other() {
    let mut story = Story::new().await;
    let other = story
        .controller
        .create_network(&NewNetwork::default())
        .await
        .unwrap()
        .id;
    let guest = story.let_on(1)[0];
    story.want.networks.insert(other, Governed::default());
    story.want.rules.insert((other, guest), Rule::plain(true));
    story.done().await;
    let network = story.network;
    story.until_shown(network, |seen| seen.members.len() == 1).await;

    story.wire.be(Mood {
        nonsense: Some(format!("/network/{network}/member")),
        ..Mood::default()
    });
    for id in [network, other] {
        story.controller.authorize(id, guest, false).await.unwrap();
    }
    story
        .until_shown(network, |seen| {
            seen.frozen.contains("makes no sense") && seen.members.len() == 1
        })
        .await;
    until("the other network's repair", async || {
        let member = story.controller.member(other, guest).await.unwrap();
        member.authorized.then_some(())
    })
    .await;
    story.until_outcome(OutcomeStatus::Blocked).await;
    assert!(!story.is_on(guest).await);

    story.wire.be(Mood::default());
    story.until_outcome(OutcomeStatus::Done).await;
    assert!(story.is_on(guest).await);
    story.until_shown(network, |seen| seen.frozen.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_dies_between_a_change_and_its_confirmation_is_looked_at_again_and_not_accused() {
    let mut story = Story::new().await;
    let guest = story.let_on(1)[0];
    story.wire.be(Mood {
        loses_answers: true,
        ..Mood::default()
    });
    story.send().await;
    story.until_outcome(OutcomeStatus::Blocked).await;
    assert!(story.is_on(guest).await, "it was done");
    story.site.lab.restart(story.worker.node);
    story.wire.be(Mood::default());
    story.until_outcome(OutcomeStatus::Done).await;
    let repairs = story
        .site
        .master
        .controller()
        .map(|controller| controller.repairs);
    assert!(
        repairs
            .into_iter()
            .flatten()
            .all(|repair| repair.why == Why::Decided)
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_cut_off_right_after_the_controller_started_is_cut_off_on_the_wire_too() {
    let mut story = Story::new().await;
    let (one, other) = (story.guest().await, story.guest().await);
    story.rule(one, Rule::plain(true));
    story.rule(other, Rule::plain(true));
    story.done().await;
    let network = story.network;
    let lab = story.site.lab.clone();
    until("the two to talk", async || {
        lab.connected(network, one, other).then_some(())
    })
    .await;
    lab.stop(story.worker.node);
    time::sleep(Duration::from_secs(3)).await;
    lab.start(story.worker.node);
    story.rule(
        one,
        Rule {
            urgent: true,
            ..Rule::plain(false)
        },
    );
    story.done().await;
    assert!(lab.connected(network, one, other), "nobody was told of it");
    until("the two to be silent", async || {
        (!lab.connected(network, one, other)).then_some(())
    })
    .await;
    story
        .repair(|repair| repair.why == Why::Repeated && repair.node == Some(one))
        .await;
    story.until_on(one, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_record_was_deleted_and_that_asks_again_is_let_on_again_and_a_removed_one_is_not() {
    let mut story = Story::new().await;
    let (friend, removed) = (story.guest().await, story.guest().await);
    story.rule(friend, Rule::plain(true));
    story.rule(removed, Rule::plain(false));
    story.done().await;
    for node in [friend, removed] {
        story.controller.delete_member(story.network, node).await.unwrap();
    }
    story
        .repair(|repair| repair.why == Why::Drift && repair.node == Some(friend))
        .await;
    assert!(story.is_on(friend).await);
    // The removed one asks until somebody lets it on.
    until("its record", async || {
        story.controller.member(story.network, removed).await.ok()
    })
    .await;
    story
        .controller
        .authorize(story.network, removed, true)
        .await
        .unwrap();
    story.until_on(removed, false).await;
}

#[tokio::test(start_paused = true)]
async fn settings_are_repaired_and_what_is_not_managed_stays_as_somebody_made_it() {
    let mut story = Story::new().await;
    story.governed().settings.mtu = Some(1400);
    story.done().await;
    let by_hand = NetworkSettings {
        mtu: Some(2000),
        rules: Some(vec![json!({"type": "ACTION_ACCEPT"})]),
        ..NetworkSettings::default()
    };
    story
        .controller
        .put_network(story.network, &by_hand)
        .await
        .unwrap();
    let repair = story
        .repair(|repair| repair.why == Why::Drift && repair.node.is_none())
        .await;
    assert_eq!(
        (repair.before.as_str(), repair.after.as_str()),
        ("mtu=2000", "mtu=1400")
    );
    let network = story.controller.network(story.network).await.unwrap();
    assert_eq!(network.mtu, 1400);
    assert_eq!(network.rules, by_hand.rules.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_network_is_made_where_it_is_missing_and_again_when_it_is_lost_and_deleted_when_told() {
    let mut story = Story::new().await;
    let made = NetworkId::at(story.worker.node, 0x00ab_cdef);
    let guest = story.let_on(1)[0];
    let settings = NetworkSettings {
        name: Some("office".into()),
        ..NetworkSettings::default()
    };
    let governed = Governed {
        presence: Presence::Made,
        settings,
        ..Governed::default()
    };
    story.want.networks.insert(made, governed);
    story.want.rules.insert((made, guest), Rule::plain(true));
    story.done().await;
    assert_eq!(story.controller.network(made).await.unwrap().name, "office");
    assert!(story.controller.member(made, guest).await.unwrap().authorized);

    story.controller.delete_network(made).await.unwrap();
    story
        .repair(|repair| repair.network == made && repair.why == Why::Drift)
        .await;
    until("its member", async || {
        story.controller.member(made, guest).await.ok()
    })
    .await;

    story.want.networks.get_mut(&made).unwrap().presence = Presence::Deleted;
    story.done().await;
    assert!(story.controller.network(made).await.is_err());
    assert!(story.controller.network(story.network).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_same_document_twice_changes_nothing() {
    let mut story = Story::new().await;
    let nodes = story.let_on(3);
    story.done().await;
    let before = story.controller.members(story.network).await.unwrap();
    story.done().await;
    story.done().await;
    assert_eq!(story.controller.members(story.network).await.unwrap(), before);
    assert!(story.is_on(nodes[0]).await);
}
