//! The fake over time: what its nodes do by themselves, what its connections do when they are idle, and who can reach
//! whom.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use picket_zerotier::{
    NetworkId, NodeId,
    controller::{Controller as _, LocalController, NewNetwork},
    fake::Lab,
    node::{Admission, Joined, Settings},
    service::Error,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{self, Instant},
};

#[tokio::test(start_paused = true)]
async fn a_status_lags_by_a_minute_and_not_by_more() {
    let site = Site::with_network().await;
    site.connect().await;
    site.pass(30).await;
    site.controller()
        .authorize(site.network, site.b, false)
        .await
        .unwrap();
    assert_eq!(site.joined(site.b).await.status, Admission::Ok);
    assert!(!site.lab.connected(site.network, site.a, site.b));
    // 60 s after the last configuration, at the next tick of 5 s.
    site.pass(25).await;
    assert_eq!(site.joined(site.b).await.status, Admission::Ok);
    site.pass(10).await;
    assert_eq!(site.joined(site.b).await.status, Admission::Denied);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_member_shows_ok_from_its_cache_with_no_controller_there() {
    let site = Site::with_network().await;
    site.connect().await;
    site.lab.stop(site.controller);
    site.lab.restart(site.b);
    site.pass(300).await;
    let joined = site.joined(site.b).await;
    assert_eq!(joined.status, Admission::Ok);
    assert!(!joined.addresses.is_empty());
    assert!(site.lab.connected(site.network, site.a, site.b));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_cut_off_cannot_outlive_its_credentials() {
    let site = Site::with_network().await;
    site.connect().await;
    // Nobody is online at a controller that has just started, so no revocation is sent.
    site.lab.restart(site.controller);
    site.controller()
        .authorize(site.network, site.b, false)
        .await
        .unwrap();
    site.pass(20 * 60).await;
    assert!(site.lab.connected(site.network, site.a, site.b));
    site.pass(15 * 60).await;
    assert!(
        !site.lab.connected(site.network, site.a, site.b),
        "the others' credentials are half an hour newer"
    );
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_a_member_itself_passes_on_an_early_revocation() {
    let site = Site::with_network().await;
    site.connect().await;
    site.controller()
        .authorize(site.network, site.controller, true)
        .await
        .unwrap();
    site.lab
        .service(site.controller)
        .node()
        .join(site.network, Settings::default())
        .await
        .unwrap();
    site.pass(10).await;
    site.lab.restart(site.controller);
    site.pass(1).await;
    site.controller()
        .authorize(site.network, site.b, false)
        .await
        .unwrap();
    assert!(!site.lab.connected(site.network, site.a, site.b));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_network_is_cut_at_once_and_not_found_within_the_minute() {
    let site = Site::with_network().await;
    site.connect().await;
    let path = format!("/controller/network/{}", site.network);
    assert!(site.ask("DELETE", &path).await.starts_with("HTTP/1.1 200"));
    assert!(!site.lab.connected(site.network, site.a, site.b));
    assert_eq!(site.joined(site.b).await.status, Admission::Ok);
    site.pass(70).await;
    assert_eq!(site.joined(site.b).await.status, Admission::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_or_has_left_reaches_nobody() {
    let site = Site::with_network().await;
    site.connect().await;
    site.lab.stop(site.a);
    assert!(!site.lab.connected(site.network, site.a, site.b));
    site.lab.start(site.a);
    assert!(site.lab.connected(site.network, site.a, site.b));
    site.lab.service(site.b).node().leave(site.network).await.unwrap();
    assert!(!site.lab.connected(site.network, site.a, site.b));
}

#[tokio::test(start_paused = true)]
async fn everybody_is_admitted_to_an_ad_hoc_network_without_a_controller() {
    let site = Site::with_network().await;
    let network = "ff0001ffff000000".parse().unwrap();
    for node in [site.a, site.b] {
        let joined = site
            .lab
            .service(node)
            .node()
            .join(network, Settings::default())
            .await
            .unwrap();
        assert_eq!((joined.status, joined.addresses.len()), (Admission::Ok, 1));
    }
    assert!(site.lab.connected(network, site.a, site.b));
}

#[tokio::test(start_paused = true)]
async fn each_node_knows_whom_it_talks_to() {
    let site = Site::with_network().await;
    let peers = async || {
        let peers = site.lab.service(site.a).node().peers().await.unwrap();
        peers
            .into_iter()
            .map(|peer| (peer.address, peer.role))
            .collect::<Vec<_>>()
    };
    assert_eq!(peers().await.len(), 1, "the root");
    site.connect().await;
    let known = peers().await;
    for node in [site.b, site.controller] {
        assert!(known.contains(&(node, "LEAF".to_owned())));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_five_seconds() {
    let site = Site::with_network().await;
    let mut wire = site.lab.dial(site.a).dial().await.unwrap();
    let before = Instant::now();
    let mut rest = Vec::new();
    wire.read_to_end(&mut rest).await.unwrap();
    assert_eq!(before.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn eight_idle_connections_hold_up_the_next_request() {
    let site = Site::with_network().await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(site.lab.dial(site.a).dial().await.unwrap());
    }
    time::sleep(Duration::from_millis(1)).await;
    let before = Instant::now();
    site.lab.service(site.a).node().status().await.unwrap();
    assert!(
        before.elapsed() >= Duration::from_secs(4),
        "{:?}",
        before.elapsed()
    );
}

#[test]
fn every_identity_in_stock_is_a_real_one() {
    let lab = Lab::new();
    for _ in 0..48 {
        let identity = lab.secret(lab.grow()).unwrap();
        assert_eq!(identity.public().check(), Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_comes_home_with_the_identity_it_had() {
    let root = tempfile::tempdir().unwrap();
    let (before, after) = (Lab::new(), Lab::seeded(1, 0));
    let node = before.grow();
    before.settle(node, root.path()).await.unwrap();
    assert_eq!(after.readmit(root.path()), Some(node));
    assert_eq!(after.identity(node), before.identity(node));
    assert!(after.secret(node).is_some());
}

#[tokio::test(start_paused = true)]
async fn two_labs_of_different_seeds_share_no_secret() {
    let (one, other) = (Lab::seeded(1, 0), Lab::seeded(2, 0));
    let node: NodeId = "39966434ba".parse().unwrap();
    one.add(node);
    other.add(node);
    assert_ne!(one.token(node).expose(), other.token(node).expose());
    assert_ne!(one.grow(), other.grow());
    assert!(matches!(
        picket_zerotier::service::Service::new(one.dial(node), one.metrics_token(node))
            .node()
            .status()
            .await,
        Err(Error::Refused { .. })
    ));
}

/// A controller with one network, and two nodes that are not on it.
struct Site {
    lab: Lab,
    controller: NodeId,
    a: NodeId,
    b: NodeId,
    network: NetworkId,
}

impl Site {
    async fn with_network() -> Self {
        let lab = Lab::new();
        let (controller, a, b) = (lab.grow(), lab.grow(), lab.grow());
        let new = NewNetwork {
            name: "lab".into(),
            v4: Some("10.1.2.0/24".parse().unwrap()),
            ..NewNetwork::default()
        };
        let network = lab
            .service(controller)
            .controller(controller)
            .create_network(&new)
            .await
            .unwrap()
            .id;
        Self {
            lab,
            controller,
            a,
            b,
            network,
        }
    }

    fn controller(&self) -> LocalController {
        self.lab.service(self.controller).controller(self.controller)
    }

    /// Authorizes both nodes ahead and has them join.
    async fn connect(&self) {
        for node in [self.a, self.b] {
            self.controller()
                .authorize(self.network, node, true)
                .await
                .unwrap();
            self.lab
                .service(node)
                .node()
                .join(self.network, Settings::default())
                .await
                .unwrap();
        }
        self.pass(5).await;
        assert!(self.lab.connected(self.network, self.a, self.b));
    }

    async fn joined(&self, node: NodeId) -> Joined {
        self.lab.service(node).node().network(self.network).await.unwrap()
    }

    async fn pass(&self, seconds: u64) {
        time::advance(Duration::from_secs(seconds)).await;
    }

    async fn ask(&self, method: &str, path: &str) -> String {
        let token = self.lab.token(self.controller);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nX-ZT1-Auth: {}\r\nConnection: close\r\n\r\n",
            token.expose(),
        );
        let mut wire = self.lab.dial(self.controller).dial().await.unwrap();
        wire.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        wire.read_to_string(&mut answer).await.unwrap();
        answer
    }
}
