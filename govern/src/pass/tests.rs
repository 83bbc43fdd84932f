use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::SignedDuration;
use picket_proto::rules::{Governed, Rule};
use picket_zerotier::{
    controller::{self, LocalController, Member, Network, NewNetwork},
    dial::{Dial, Dialing},
    fake::{self, Lab},
    ids::NodeId,
    node::Settings,
    service::Service,
    settings::NetworkSettings,
};

use super::*;
use crate::{Sighting, Watched};

const NOON: Timestamp = Timestamp::constant(1_795_000_000, 0);

/// Counts connections: there is one for each request.
struct Counting {
    inner: Arc<dyn Dial>,
    count: Arc<AtomicUsize>,
}

impl Dial for Counting {
    fn dial(&self) -> Dialing<'_> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.inner.dial()
    }
}

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

/// A controller that can be read, and answers 500 to every change.
struct Failing(LocalController);

impl Failing {
    fn failed<T>(&self) -> Result<T, Error> {
        Err(Error::Failed {
            request: "POST".into(),
            place: "a controller".into(),
            status: 500,
        })
    }
}

impl Controller for Failing {
    async fn networks(&self) -> Result<Vec<NetworkId>, Error> {
        self.0.networks().await
    }

    async fn network(&self, network: NetworkId) -> Result<Network, Error> {
        self.0.network(network).await
    }

    async fn members(&self, network: NetworkId) -> Result<controller::Members, Error> {
        self.0.members(network).await
    }

    async fn member(&self, network: NetworkId, node: NodeId) -> Result<Member, Error> {
        self.0.member(network, node).await
    }

    async fn create_network(&self, _: &NewNetwork) -> Result<Network, Error> {
        self.failed()
    }

    async fn put_network(&self, _: NetworkId, _: &NetworkSettings) -> Result<Network, Error> {
        self.failed()
    }

    async fn delete_network(&self, _: NetworkId) -> Result<(), Error> {
        self.failed()
    }

    async fn change_member(&self, _: NetworkId, _: NodeId, _: &MemberChange) -> Result<Member, Error> {
        self.failed()
    }

    async fn delete_member(&self, _: NetworkId, _: NodeId) -> Result<(), Error> {
        self.failed()
    }
}

/// A simulated controller with one governed network.
struct Site {
    lab: Lab,
    node: NodeId,
    controller: LocalController,
    network: NetworkId,
    want: Members,
    memory: Memory,
    requests: Arc<AtomicUsize>,
    began: time::Instant,
}

impl Site {
    async fn new() -> Self {
        let lab = Lab::new();
        let node = lab.grow();
        let requests = Arc::<AtomicUsize>::default();
        let dial = Counting {
            inner: lab.dial(node),
            count: requests.clone(),
        };
        let controller = Service::new(Arc::new(dial), lab.token(node)).controller(node);
        let network = controller
            .create_network(&NewNetwork::default())
            .await
            .unwrap()
            .id;
        Self {
            lab,
            node,
            controller,
            network,
            want: Members {
                networks: [(network, Governed::default())].into(),
                ..Members::default()
            },
            memory: Memory::new(NOON),
            requests,
            began: time::Instant::now(),
        }
    }

    fn rule(&mut self, node: NodeId, authorized: bool) {
        self.want
            .rules
            .insert((self.network, node), Rule::plain(authorized));
    }

    fn now(&self) -> Timestamp {
        NOON + SignedDuration::try_from(self.began.elapsed()).unwrap()
    }

    async fn pass(&mut self) -> Report {
        let now = self.now();
        let moment = Moment { now, here: now };
        pass(&self.controller, &self.want, &mut self.memory, moment).await
    }

    fn saw(&mut self, watched: Watched) {
        let mark = None;
        self.memory.saw(&Sighting { mark, watched }, self.now());
    }

    fn requests(&self) -> usize {
        self.requests.swap(0, Ordering::Relaxed)
    }

    /// A running node that is on the network.
    async fn guest(&mut self) -> NodeId {
        let node = self.lab.grow();
        self.rule(node, true);
        let joined = self.lab.service(node).node();
        joined.join(self.network, Settings::default()).await.unwrap();
        node
    }
}

#[tokio::test(start_paused = true)]
async fn a_pass_with_nothing_to_do_reads_a_network_and_its_list_and_sends_nothing() {
    let mut site = Site::new().await;
    for number in 1..=300 {
        site.rule(NodeId::new(number).unwrap(), number % 2 == 0);
    }
    assert_eq!(site.pass().await.taken, 150);
    site.requests();
    let report = site.pass().await;
    assert_eq!((report.taken, report.left), (0, Left::Nothing));
    assert_eq!(site.requests(), 2);
    let read = &report.untouched[&site.network];
    assert_eq!(
        read.members.by_node.len(),
        150,
        "it can be shown without another list"
    );
}

#[tokio::test(start_paused = true)]
async fn a_network_that_was_changed_has_to_be_read_again_to_be_shown() {
    let mut site = Site::new().await;
    site.rule(NodeId::new(1).unwrap(), true);
    assert!(site.pass().await.untouched.is_empty());
    assert_eq!(site.pass().await.untouched.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn more_than_a_thousand_changes_take_another_pass_so_that_a_kill_gets_between() {
    let mut site = Site::new().await;
    for number in 1..=1500 {
        site.rule(NodeId::new(number).unwrap(), true);
    }
    let report = site.pass().await;
    assert_eq!((report.taken, report.left), (MOST_STEPS, Left::More));
    let report = site.pass().await;
    assert_eq!((report.taken, report.left), (500, Left::Nothing));
}

#[tokio::test(start_paused = true)]
async fn a_pass_makes_way_for_what_is_more_urgent_and_cuts_off_first_whoever_has_to_go() {
    let mut site = Site::new().await;
    for number in 1..=40 {
        site.rule(NodeId::new(number).unwrap(), true);
    }
    assert_eq!(site.pass().await.taken, 40);
    for number in 1..=200 {
        site.rule(NodeId::new(number).unwrap(), number > 40);
    }
    let now = site.now();
    let moment = Moment { now, here: now };
    let report = pass_until(&site.controller, &site.want, &mut site.memory, moment, &|| true).await;
    assert_eq!(
        (report.taken, report.left),
        (40, Left::More),
        "all 40 are cut off, and nobody is let on"
    );
    let report = pass_until(&site.controller, &site.want, &mut site.memory, moment, &|| true).await;
    assert_eq!(
        (report.taken, report.left),
        (FEWEST_STEPS, Left::More),
        "it gets on, however often it makes way"
    );
    assert_eq!(site.pass().await.left, Left::Nothing);
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_not_ours_or_does_not_answer_freezes_alone() {
    for trouble in [fake::Trouble::Status(403), fake::Trouble::Silence] {
        let central = fake::FakeCentral::new();
        let client = central.client();
        let mut networks = Vec::new();
        for _ in 0..2 {
            networks.push(client.create_network(&NewNetwork::default()).await.unwrap().id);
        }
        let node = NodeId::new(7).unwrap();
        let governed = networks.iter().map(|id| (*id, Governed::default()));
        let rule = |authorized| {
            networks
                .iter()
                .map(move |id| ((*id, node), Rule::plain(authorized)))
        };
        let mut want = Members {
            networks: governed.collect(),
            rules: rule(true).collect(),
            ..Members::default()
        };
        let (moment, mut memory) = (
            Moment {
                now: NOON,
                here: NOON,
            },
            Memory::new(NOON),
        );
        pass(&client, &want, &mut memory, moment).await;
        central.afflict(networks[0], Some(trouble));
        want.rules = rule(false).collect();
        let report = pass(&client, &want, &mut memory, moment).await;
        assert_eq!(report.left, Left::Departures, "the first one is tried again");
        let states = networks.iter().map(|id| report.networks[id].state == State::Read);
        assert_eq!(states.collect::<Vec<_>>(), [false, true], "{trouble:?}");
        let other = client.member(networks[1], node).await.unwrap();
        assert!(!other.authorized, "{trouble:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_to_go_and_cannot_be_reached_is_left_for_soon_and_then_cut_off() {
    let mut site = Site::new().await;
    let guest = site.guest().await;
    site.pass().await;
    site.rule(guest, false);
    site.lab.stop(site.node);
    let report = site.pass().await;
    assert_eq!(report.left, Left::Departures);
    assert!(
        report
            .troubles
            .iter()
            .any(|trouble| trouble.sentence.contains("zerotier-one is running")),
        "{:?}",
        report.troubles
    );
    site.lab.start(site.node);
    assert_eq!(site.pass().await.left, Left::Nothing);
    assert!(
        !site
            .controller
            .member(site.network, guest)
            .await
            .unwrap()
            .authorized
    );
}

#[tokio::test(start_paused = true)]
async fn a_deauthorization_that_a_restarted_controller_lost_becomes_true_on_the_wire() {
    let mut site = Site::new().await;
    let (one, other) = (site.guest().await, site.guest().await);
    site.saw(Watched::Unwatched);
    site.pass().await;
    time::sleep(Duration::from_secs(130)).await;
    assert!(site.lab.connected(site.network, one, other));

    site.lab.restart(site.node);
    site.saw(Watched::Missed);
    site.rule(one, false);
    assert_eq!(site.pass().await.taken, 1);
    assert!(
        site.lab.connected(site.network, one, other),
        "nobody was told of it"
    );
    let due = crate::next(&site.want, &site.memory, site.now()).unwrap();
    time::sleep(due.duration_since(site.now()).unsigned_abs()).await;
    assert_eq!(site.pass().await.left, Left::More);
    assert_eq!(site.pass().await.taken, 1);
    assert!(!site.lab.connected(site.network, one, other));
    let last = site.memory.repairs().pop().unwrap();
    assert_eq!((last.why, last.node), (Why::Repeated, Some(one)));
    assert_eq!(site.pass().await.taken, 0);
}

#[tokio::test(start_paused = true)]
async fn a_network_of_another_controller_is_refused_and_the_others_go_on() {
    let mut site = Site::new().await;
    let foreign = NetworkId::at(NodeId::new(77).unwrap(), 1);
    site.want.networks.insert(foreign, Governed::default());
    site.want
        .rules
        .insert((foreign, NodeId::new(5).unwrap()), Rule::plain(true));
    site.rule(NodeId::new(6).unwrap(), true);
    let report = site.pass().await;
    assert_eq!((report.taken, report.left), (1, Left::Nothing));
    assert_eq!(report.troubles[0].lasts, Lasts::UntilChanged);
    assert!(matches!(report.networks[&foreign].state, State::Foreign(_)));
}

#[tokio::test(start_paused = true)]
async fn a_release_of_the_brake_is_not_used_up_by_repairs_that_failed() {
    let mut site = Site::new().await;
    for number in 1..=20 {
        site.rule(NodeId::new(number).unwrap(), true);
    }
    site.pass().await;
    for number in 1..=10 {
        let node = NodeId::new(number).unwrap();
        site.controller
            .authorize(site.network, node, false)
            .await
            .unwrap();
    }
    let held = site.pass().await;
    assert_eq!((held.taken, held.networks[&site.network].held_back), (0, 10));
    site.want.networks.get_mut(&site.network).unwrap().resumed += 1;
    let now = site.now();
    let failing = Failing(site.controller.clone());
    let report = pass(&failing, &site.want, &mut site.memory, Moment { now, here: now }).await;
    assert_eq!((report.taken, report.left), (0, Left::Failed));
    assert_eq!(
        site.pass().await.taken,
        10,
        "it was released and not repaired so far"
    );
    assert_eq!(site.pass().await.taken, 0);
}
