//! The behaviours of ZeroTier that Picket relies on, each a story over a site of three nodes: node 0 controls, 1 and 2
//! are members.
//!
//! The stories run on the fake with paused time. When `PICKET_ZEROTIER_ONE` names a `zerotier-one` binary they run on
//! real processes as well, in namespaces of their own; that needs root and `/dev/net/tun`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, env, io::Write, path::Path, sync::Arc, time::Duration};

use picket_zerotier::{
    NetworkId, NodeId,
    controller::{Controller as _, LocalController, NewNetwork, Readiness},
    dial::{Dial, Tcp},
    fake::Lab,
    home::Token,
    node::{Admission, Node, Settings},
    real,
    service::{Error, Service},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{self, Instant},
};

/// A member's tick is 5 s; twice that on a busy machine.
const TICK: Duration = Duration::from_secs(10);
/// A member asks again 60 s after its configuration, at its next tick.
const POLL: Duration = Duration::from_secs(75);
/// What is pushed is there in milliseconds.
const PUSH: Duration = Duration::from_secs(4);

macro_rules! on_the_fake {
    ($($story:ident)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $story() {
            stories::$story(&mut World::fake()).await;
        }
    )*};
}

on_the_fake! {
    a_node_that_joins_is_denied_until_it_is_authorized
    a_node_that_was_authorized_ahead_is_never_denied
    a_deauthorized_node_is_cut_off_at_once_and_learns_of_it_late
    a_deleted_member_that_still_asks_comes_back_unauthorized
    a_deauthorization_right_after_a_controller_start_reaches_nobody
    members_that_are_only_pushed_to_fall_out_of_reach
    an_unknown_network_is_not_found_and_an_unknown_controller_says_nothing
    a_network_that_is_not_joined_is_left_already
    the_api_takes_only_its_token_and_any_case_of_an_id
    a_controller_reads_wrong_types_as_it_likes
    a_connection_carries_five_requests
}

#[tokio::test]
async fn real_nodes_behave_as_the_fake_does() {
    let Some(binary) = env::var_os("PICKET_ZEROTIER_ONE") else {
        // Not `eprintln!`, which the test harness would keep to itself.
        writeln!(
            std::io::stderr(),
            "NOT RUN: real ZeroTier; PICKET_ZEROTIER_ONE names no zerotier-one"
        )
        .unwrap();
        return;
    };
    let homes = tempfile::tempdir().unwrap();
    let site = real::Site::start(Path::new(&binary), homes.path(), 3)
        .await
        .unwrap();
    let mut world = World::Real(site);
    macro_rules! tell {
        ($($story:ident)*) => {$(
            let begun = Instant::now();
            stories::$story(&mut world).await;
            writeln!(std::io::stderr(), "real: {} ({:.1?})", stringify!($story), begun.elapsed()).unwrap();
        )*};
    }
    tell! {
        a_node_that_joins_is_denied_until_it_is_authorized
        a_node_that_was_authorized_ahead_is_never_denied
        an_unknown_network_is_not_found_and_an_unknown_controller_says_nothing
        a_network_that_is_not_joined_is_left_already
        the_api_takes_only_its_token_and_any_case_of_an_id
        a_controller_reads_wrong_types_as_it_likes
        a_connection_carries_five_requests
        a_deauthorized_node_is_cut_off_at_once_and_learns_of_it_late
        a_deleted_member_that_still_asks_comes_back_unauthorized
        members_that_are_only_pushed_to_fall_out_of_reach
        a_deauthorization_right_after_a_controller_start_reaches_nobody
    }
}

#[allow(
    clippy::too_many_lines,
    reason = "each story is short; together they are the suite"
)]
mod stories {
    use super::*;

    pub(super) async fn a_node_that_joins_is_denied_until_it_is_authorized(world: &mut World) {
        let network = world.network("denied").await;
        let (member, controller) = (world.node(1), world.controller());
        let joined = member.join(network, Settings::default()).await.unwrap();
        assert_eq!((joined.id, joined.status), (network, Admission::Requesting));
        world.becomes(1, network, &Admission::Denied, TICK).await;

        let members = controller.members(network).await.unwrap();
        let record = &members.by_node[&world.id(1)];
        assert!(!record.authorized && record.identity.is_some() && record.addresses.is_empty());
        assert_eq!(record.revision, 1);
        assert!(members.skipped.is_empty());

        let record = controller.authorize(network, world.id(1), true).await.unwrap();
        assert!(record.authorized);
        world.becomes(1, network, &Admission::Ok, TICK).await;
        let record = controller.member(network, world.id(1)).await.unwrap();
        assert_eq!(record.addresses.len(), 1);
        let joined = member.network(network).await.unwrap();
        assert!(
            joined
                .addresses
                .iter()
                .any(|address| address.starts_with(&record.addresses[0]))
        );
        assert_eq!(joined.name, "denied");
        member.leave(network).await.unwrap();
    }

    pub(super) async fn a_node_that_was_authorized_ahead_is_never_denied(world: &mut World) {
        let network = world.network("ahead").await;
        let controller = world.controller();
        let record = controller.authorize(network, world.id(1), true).await.unwrap();
        assert!(record.authorized && record.identity.is_none());
        let member = world.node(1);
        member.join(network, Settings::default()).await.unwrap();
        let mut seen = Vec::new();
        until("it is OK", TICK, async || {
            let status = member.network(network).await.unwrap().status;
            seen.push(status.clone());
            (status == Admission::Ok).then_some(())
        })
        .await;
        assert!(!seen.contains(&Admission::Denied));
        let record = controller.member(network, world.id(1)).await.unwrap();
        assert!(
            record
                .identity
                .is_some_and(|identity| identity.starts_with(&world.id(1).to_string()))
        );
        member.leave(network).await.unwrap();
    }

    pub(super) async fn a_deauthorized_node_is_cut_off_at_once_and_learns_of_it_late(world: &mut World) {
        let network = world.network("cut").await;
        let controller = world.controller();
        world.connect(network).await;
        let member = world.node(1);
        let addresses = member.network(network).await.unwrap().addresses;
        assert!(!addresses.is_empty());

        controller.authorize(network, world.id(1), false).await.unwrap();
        until("traffic stops", PUSH, async || {
            (!world.connected(network).await).then_some(())
        })
        .await;
        assert_eq!(member.network(network).await.unwrap().status, Admission::Ok);

        // It was served since the controller started, so this is pushed to it.
        controller.authorize(network, world.id(1), true).await.unwrap();
        until("traffic flows again", PUSH * 2, async || {
            world.connected(network).await.then_some(())
        })
        .await;

        controller.authorize(network, world.id(1), false).await.unwrap();
        world.becomes(1, network, &Admission::Denied, POLL).await;
        assert_eq!(member.network(network).await.unwrap().addresses, addresses);
        assert!(!world.connected(network).await);
        world.leave(network).await;
    }

    pub(super) async fn a_deleted_member_that_still_asks_comes_back_unauthorized(world: &mut World) {
        let network = world.network("deleted").await;
        let controller = world.controller();
        world.connect(network).await;
        controller.delete_member(network, world.id(1)).await.unwrap();
        until("traffic stops", PUSH, async || {
            (!world.connected(network).await).then_some(())
        })
        .await;
        let record = until("it asks again", POLL, async || {
            match controller.member(network, world.id(1)).await {
                Ok(record) => Some(record),
                Err(Error::NotFound { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await;
        assert!(!record.authorized && record.addresses.is_empty());
        assert_eq!(record.revision, 1);
        // Once more, of one that is gone: no error.
        world.leave(network).await;
        controller.delete_member(network, world.id(1)).await.unwrap();
        controller.delete_member(network, world.id(1)).await.unwrap();
    }

    pub(super) async fn a_deauthorization_right_after_a_controller_start_reaches_nobody(world: &mut World) {
        let network = world.network("restart").await;
        let controller = world.controller();
        world.connect(network).await;
        world.restart(0).await;
        controller.authorize(network, world.id(1), false).await.unwrap();
        // The record says no and the packets still pass, until both have asked again and after.
        for _ in 0..5 {
            assert!(world.connected(network).await);
        }
        world.becomes(1, network, &Admission::Denied, POLL).await;
        assert!(world.connected(network).await);
        controller.authorize(network, world.id(1), false).await.unwrap();
        assert!(
            world.connected(network).await,
            "saying it again changes no record and reaches nobody"
        );
        // What helps: on and off again, once somebody has asked who can pass it on.
        controller.authorize(network, world.id(1), true).await.unwrap();
        time::sleep(Duration::from_secs(1)).await;
        controller.authorize(network, world.id(1), false).await.unwrap();
        until("traffic stops", PUSH, async || {
            (!world.connected(network).await).then_some(())
        })
        .await;
        world.leave(network).await;
    }

    pub(super) async fn members_that_are_only_pushed_to_fall_out_of_reach(world: &mut World) {
        let network = world.network("pushed").await;
        let controller = world.controller();
        world.connect(network).await;
        // Each push puts off the members' next question by a minute, so that after two nobody has asked lately.
        for limit in [64, 65, 66] {
            time::sleep(Duration::from_secs(45)).await;
            let path = format!("/controller/network/{network}");
            let answer = world
                .ask(0, "POST", &path, &format!("{{\"multicastLimit\": {limit}}}"))
                .await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        controller.authorize(network, world.id(1), false).await.unwrap();
        for _ in 0..5 {
            assert!(world.connected(network).await);
        }
        world.leave(network).await;
    }

    pub(super) async fn an_unknown_network_is_not_found_and_an_unknown_controller_says_nothing(
        world: &mut World,
    ) {
        let member = world.node(1);
        let unknown = NetworkId::at(world.id(0), 0x00_00ff);
        let nobody = NetworkId::at("0123456789".parse().unwrap(), 1);
        assert!(matches!(
            member.network(unknown).await,
            Err(Error::NotFound { .. })
        ));
        member.join(unknown, Settings::default()).await.unwrap();
        member.join(nobody, Settings::default()).await.unwrap();
        world.becomes(1, unknown, &Admission::NotFound, TICK).await;
        assert_eq!(
            member.network(nobody).await.unwrap().status,
            Admission::Requesting
        );
        let joined: BTreeSet<_> = member
            .networks()
            .await
            .unwrap()
            .into_iter()
            .map(|joined| joined.id)
            .collect();
        assert!(joined.is_superset(&[unknown, nobody].into()));
        member.leave(unknown).await.unwrap();
        member.leave(nobody).await.unwrap();

        let controller = world.controller();
        assert_eq!(controller.ready().await.unwrap(), Readiness::Ready);
        for error in [
            controller.network(unknown).await.map(drop).unwrap_err(),
            controller.members(unknown).await.map(drop).unwrap_err(),
            controller
                .authorize(unknown, world.id(1), true)
                .await
                .map(drop)
                .unwrap_err(),
        ] {
            assert!(matches!(error, Error::NotFound { .. }), "{error}");
        }
    }

    pub(super) async fn a_network_that_is_not_joined_is_left_already(world: &mut World) {
        let network = NetworkId::at(world.id(0), 0x00_00fe);
        let member = world.node(2);
        member.leave(network).await.unwrap();
        let settings = Settings {
            managed: true,
            global: true,
            default_route: false,
            dns: false,
        };
        let joined = member.join(network, settings).await.unwrap();
        assert_eq!(joined.settings, settings);
        assert_eq!(
            member.join(network, Settings::default()).await.unwrap().settings,
            Settings::default()
        );
        member.leave(network).await.unwrap();
        assert!(matches!(
            member.network(network).await,
            Err(Error::NotFound { .. })
        ));
        member.leave(network).await.unwrap();
    }

    pub(super) async fn the_api_takes_only_its_token_and_any_case_of_an_id(world: &mut World) {
        let network = world.network("case").await;
        let stranger = Service::new(world.dial(0), Token::new("wrong").unwrap());
        assert!(matches!(
            stranger.node().status().await,
            Err(Error::Refused { .. })
        ));
        let bare = world
            .raw(
                0,
                &["GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned()],
            )
            .await;
        assert!(
            bare[0].starts_with("HTTP/1.1 401") && bare[0].ends_with("\r\n\r\n{}"),
            "{}",
            bare[0]
        );

        let upper = network.to_string().to_uppercase();
        let answer = world
            .ask(0, "GET", &format!("/controller/network/{upper}"), "")
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        // Written in upper case, a member is listed in upper case; the client reads it as the node it is.
        let path = format!("/controller/network/{network}/member/ABCDEF0123");
        let answer = world.ask(0, "POST", &path, r#"{"authorized": true}"#).await;
        assert!(answer.contains(r#""id":"ABCDEF0123""#), "{answer}");
        let members = world.controller().members(network).await.unwrap();
        assert!(members.by_node[&"abcdef0123".parse().unwrap()].authorized);
        world
            .controller()
            .delete_member(network, "abcdef0123".parse().unwrap())
            .await
            .unwrap();

        for path in [
            format!("/controller/network/{network}/"),
            format!("/controller/network/{network}/member/0123"),
        ] {
            let answer = world.ask(0, "GET", &path, "").await;
            assert!(
                answer.starts_with("HTTP/1.1 404") && answer.ends_with("\r\n\r\n"),
                "{answer}"
            );
        }
    }

    pub(super) async fn a_controller_reads_wrong_types_as_it_likes(world: &mut World) {
        let network = world.network("types").await;
        let member: NodeId = "39966434ba".parse().unwrap();
        let path = format!("/controller/network/{network}/member/{member}");
        world.controller().authorize(network, member, true).await.unwrap();
        for (body, status, authorized) in [
            (r#"{"authorized": "yes"}"#, 200, false),
            (r#"{"authorized": "true"}"#, 200, true),
            (r#"{"authorized": 0}"#, 200, false),
            (r#"{"authorized": 1}"#, 200, true),
            ("[1, 2]", 200, true),
            (r#"{"authorized": fals"#, 500, true),
            ("", 500, true),
            (r#"{"ipAssignments": [5]}"#, 500, true),
            (r#"{"ipAssignments": ["nonsense"]}"#, 200, true),
        ] {
            let answer = world.ask(0, "POST", &path, body).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{body}: {answer}"
            );
            let record = world.controller().member(network, member).await.unwrap();
            assert_eq!(record.authorized, authorized, "{body}");
        }
        let before = world.controller().member(network, member).await.unwrap().revision;
        world.controller().authorize(network, member, true).await.unwrap();
        let after = world.controller().member(network, member).await.unwrap().revision;
        assert_eq!(before, after, "a write that changes nothing is not saved");

        let listed = world
            .ask(0, "GET", &format!("/controller/network/{network}/member"), "")
            .await;
        let listed: Value = serde_json::from_str(listed.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(listed, serde_json::json!({ member.to_string(): after }));
    }

    pub(super) async fn a_connection_carries_five_requests(world: &mut World) {
        let request = world.request(0, "GET", "/status", "", false);
        let answers = world.raw(0, &vec![request; 5]).await;
        assert_eq!(answers.len(), 5);
        for (index, answer) in answers.iter().enumerate() {
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert_eq!(answer.contains("Connection: close"), index == 4, "{answer}");
            assert!(!answer.contains("\r\nDate:"));
        }
    }
}

/// A site of three nodes, simulated or real.
enum World {
    Fake(Lab, Vec<NodeId>),
    Real(real::Site),
}

impl World {
    fn fake() -> Self {
        let lab = Lab::new();
        let nodes = (0..3).map(|_| lab.grow()).collect();
        Self::Fake(lab, nodes)
    }

    fn id(&self, index: usize) -> NodeId {
        match self {
            Self::Fake(_, nodes) => nodes[index],
            Self::Real(site) => site.id(index),
        }
    }

    fn token(&self, index: usize) -> Token {
        match self {
            Self::Fake(lab, nodes) => lab.token(nodes[index]),
            Self::Real(site) => site.home(index).token().unwrap(),
        }
    }

    fn dial(&self, index: usize) -> Arc<dyn Dial> {
        match self {
            Self::Fake(lab, nodes) => lab.dial(nodes[index]),
            Self::Real(site) => Arc::new(Tcp::new(site.home(index).place().unwrap())),
        }
    }

    fn node(&self, index: usize) -> Node {
        Service::new(self.dial(index), self.token(index)).node()
    }

    fn controller(&self) -> LocalController {
        Service::new(self.dial(0), self.token(0)).controller(self.id(0))
    }

    /// Creates a network.
    async fn network(&self, name: &str) -> NetworkId {
        let new = NewNetwork {
            name: name.to_owned(),
            v4: Some("10.147.20.0/24".parse().unwrap()),
            ..NewNetwork::default()
        };
        let network = self.controller().create_network(&new).await.unwrap();
        assert_eq!(network.id.controller(), self.id(0));
        assert!(self.controller().networks().await.unwrap().contains(&network.id));
        network.id
    }

    /// Has both members on a network, exchanging packets.
    async fn connect(&self, network: NetworkId) {
        for index in [1, 2] {
            self.controller()
                .authorize(network, self.id(index), true)
                .await
                .unwrap();
            self.node(index).join(network, Settings::default()).await.unwrap();
        }
        for index in [1, 2] {
            self.becomes(index, network, &Admission::Ok, TICK).await;
        }
        until("traffic flows", TICK, async || {
            self.connected(network).await.then_some(())
        })
        .await;
    }

    async fn leave(&self, network: NetworkId) {
        for index in [1, 2] {
            self.node(index).leave(network).await.unwrap();
        }
    }

    /// Returns whether packets pass between both members.
    async fn connected(&self, network: NetworkId) -> bool {
        match self {
            Self::Fake(lab, nodes) => lab.connected(network, nodes[1], nodes[2]),
            Self::Real(site) => {
                let address = site.address(2, network).await.unwrap();
                site.reaches(1, address).unwrap()
            }
        }
    }

    async fn restart(&mut self, index: usize) {
        match self {
            Self::Fake(lab, nodes) => lab.restart(nodes[index]),
            Self::Real(site) => {
                site.stop(index);
                site.start_again(index).await.unwrap();
            }
        }
    }

    async fn becomes(&self, index: usize, network: NetworkId, want: &Admission, bound: Duration) {
        let node = self.node(index);
        let what = format!("node {index} is {} on {network}", want.word());
        until(&what, bound, async || {
            (node.network(network).await.unwrap().status == *want).then_some(())
        })
        .await;
    }

    /// Writes a request as text.
    fn request(&self, index: usize, method: &str, path: &str, body: &str, close: bool) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nX-ZT1-Auth: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{}\r\n{body}",
            self.token(index).expose(),
            body.len(),
            if close { "Connection: close\r\n" } else { "" },
        )
    }

    async fn ask(&self, index: usize, method: &str, path: &str, body: &str) -> String {
        let request = self.request(index, method, path, body, true);
        self.raw(index, &[request]).await.remove(0)
    }

    /// Sends requests over one connection, each after the answer to the one before.
    async fn raw(&self, index: usize, requests: &[String]) -> Vec<String> {
        let mut wire = self.dial(index).dial().await.unwrap();
        let mut answers = Vec::new();
        for request in requests {
            wire.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !is_whole(&answer) {
                let mut part = [0; 4096];
                let read = time::timeout(TICK, wire.read(&mut part)).await.unwrap().unwrap();
                assert!(
                    read > 0,
                    "the connection ended in an answer: {}",
                    String::from_utf8_lossy(&answer)
                );
                answer.extend_from_slice(&part[..read]);
            }
            answers.push(String::from_utf8(answer).unwrap());
        }
        answers
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .unwrap();
    body.len() >= length.parse().unwrap()
}

/// Looks again and again until there is something, and gives up after `bound`.
async fn until<T>(what: &str, bound: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < bound, "after {bound:?} still not: {what}");
        time::sleep(Duration::from_millis(100)).await;
    }
}
