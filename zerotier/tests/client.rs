//! What a client of a service does when things go wrong, and what it keeps to when they go well.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use picket_zerotier::{
    NetworkId, NodeId,
    controller::{Controller as _, MemberChange, NewNetwork, Readiness},
    dial::{Dial, Dialing, Wire},
    fake::{Lab, Mood},
    home::{Home, Token},
    node::{Admission, Settings},
    service::{AT_ONCE, Error, Service},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{self, Instant},
};

#[tokio::test(start_paused = true)]
async fn each_way_to_fail_is_its_own_error() {
    let (lab, node) = lab();
    let calls = lab.service(node).within(Duration::from_secs(3)).node();
    assert_eq!(calls.status().await.unwrap().address, node);

    lab.set_mood(node, Mood::Babbling);
    assert!(matches!(calls.status().await, Err(Error::Broken { .. })));
    lab.set_mood(node, Mood::Confused);
    assert!(matches!(calls.status().await, Err(Error::Broken { .. })));
    lab.set_mood(node, Mood::Closing);
    assert!(matches!(calls.status().await, Err(Error::Unreachable { .. })));
    lab.set_mood(node, Mood::Hanging);
    let before = Instant::now();
    assert!(matches!(calls.status().await, Err(Error::TimedOut { .. })));
    assert_eq!(before.elapsed(), Duration::from_secs(3));
    lab.set_mood(node, Mood::Well);

    lab.stop(node);
    assert!(matches!(calls.status().await, Err(Error::Unreachable { .. })));
    lab.start(node);

    lab.set_token(node, &Token::new("another").unwrap());
    assert!(matches!(calls.status().await, Err(Error::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_join_without_a_tun_device_is_a_failure_though_the_service_says_200() {
    let (lab, node) = lab();
    lab.set_tun(node, false);
    let network = NetworkId::at(node, 1);
    let calls = lab.service(node).node();
    assert!(matches!(
        calls.join(network, Settings::default()).await,
        Err(Error::NoTun { .. })
    ));
    assert!(matches!(
        calls.network(network).await,
        Err(Error::NotFound { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_network_of_another_controller_is_not_sent_anything() {
    let (lab, node) = lab();
    let stranger = NetworkId::at("deadbeef12".parse().unwrap(), 1);
    let controller = lab.service(node).controller(node);
    for error in [
        controller.authorize(stranger, node, true).await.unwrap_err(),
        controller.members(stranger).await.unwrap_err(),
        controller.delete_member(stranger, node).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
    }
    assert!(controller.networks().await.unwrap().is_empty());
    assert_eq!(controller.ready().await.unwrap(), Readiness::Ready);
}

#[tokio::test(start_paused = true)]
async fn members_come_from_a_service_without_the_bulk_list_too() {
    let (lab, node) = lab();
    let controller = lab.service(node).controller(node);
    let new = NewNetwork {
        name: "lab".into(),
        ..NewNetwork::default()
    };
    let network = controller.create_network(&new).await.unwrap().id;
    for (member, yes) in [("39966434ba", true), ("68c19b4c83", false)] {
        controller
            .authorize(network, member.parse().unwrap(), yes)
            .await
            .unwrap();
    }
    let older = Service::new(Arc::new(Older(lab.dial(node))), lab.token(node)).controller(node);
    let members = older.members(network).await.unwrap();
    assert_eq!(members, controller.members(network).await.unwrap());
    assert_eq!(members.by_node.len(), 2);
    let gone = NetworkId::at(node, 0xdead);
    assert!(matches!(older.members(gone).await, Err(Error::NotFound { .. })));
    assert!(matches!(
        controller.members(gone).await,
        Err(Error::NotFound { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_otherwise_than_asked_is_noticed() {
    let network: NetworkId = "5350d87547c880cb".parse().unwrap();
    let node: NodeId = "39966434ba".parse().unwrap();
    for body in [
        r#"{"id":"39966434ba","nwid":"5350d87547c880cb","authorized":false}"#,
        r#"{"id":"68c19b4c83","nwid":"5350d87547c880cb","authorized":true}"#,
        r#"{"id":"39966434ba","nwid":"5350d87547000001","authorized":true}"#,
    ] {
        let service = canned(&ok(body));
        let answer = service
            .controller(network.controller())
            .authorize(network, node, true)
            .await;
        assert!(matches!(answer, Err(Error::Disagrees { .. })), "{answer:?}");
    }
    let body = r#"{"id":"39966434ba","nwid":"5350d87547c880cb","authorized":"true"}"#;
    let answer = canned(&ok(body))
        .controller(network.controller())
        .authorize(network, node, true)
        .await;
    assert!(matches!(answer, Err(Error::Broken { .. })), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn the_body_of_anything_but_a_200_is_not_read() {
    // A body that never ends would hang a client that reads it.
    let endless = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1000\r\n\r\n{\"error\": \"";
    assert!(matches!(
        canned(endless).node().status().await,
        Err(Error::Failed { status: 500, .. })
    ));
    let endless = "HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n{";
    assert!(matches!(
        canned(endless).node().status().await,
        Err(Error::NotFound { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn an_answer_over_the_limit_is_not_taken_in() {
    let huge = "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{";
    let error = canned(huge).node().status().await.unwrap_err();
    assert!(
        matches!(&error, Error::Broken { why, .. } if why.contains("longer than")),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_many_pieces_is_read_whole() {
    let (lab, node) = lab();
    // What a real service was seen to store: 4 MiB.
    let new = NewNetwork {
        name: "x".repeat(4 << 20),
        ..NewNetwork::default()
    };
    let controller = lab.service(node).controller(node);
    let network = controller.create_network(&new).await.unwrap();
    assert!(controller.network(network.id).await.unwrap().name == new.name);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_ends_is_given_up_in_time() {
    let slow = "HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{\"address\":";
    let before = Instant::now();
    let service = canned(slow).within(Duration::from_secs(3));
    assert!(matches!(
        service.node().status().await,
        Err(Error::TimedOut { .. })
    ));
    assert_eq!(before.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let half =
        "HTTP/1.1 200 OK\r\nContent-Length: 400\r\nConnection: close\r\n\r\n{\"address\":\"39966434ba\",";
    let service = Service::new(Arc::new(Canned::closing(half)), token());
    assert!(matches!(
        service.node().status().await,
        Err(Error::Unreachable { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_cannot_be_opened_is_tried_again() {
    let (lab, node) = lab();
    let dial = Arc::new(Counting::new(lab.dial(node), 2));
    let service = Service::new(dial.clone(), lab.token(node));
    service.node().status().await.unwrap();
    assert_eq!(dial.dialled(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_is_not_sent_twice() {
    let (lab, node) = lab();
    lab.set_mood(node, Mood::Closing);
    let dial = Arc::new(Counting::new(lab.dial(node), 0));
    let service = Service::new(dial.clone(), lab.token(node));
    let network = NetworkId::at(node, 1);
    assert!(
        service
            .controller(node)
            .authorize(network, node, true)
            .await
            .is_err()
    );
    assert_eq!(dial.dialled(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_a_few_requests_are_under_way_at_once_each_on_its_own_connection() {
    let (lab, node) = lab();
    let dial = Arc::new(Counting::new(lab.dial(node), 0));
    let service = Service::new(dial.clone(), lab.token(node));
    lab.set_mood(node, Mood::Hanging);
    let mut calls = JoinSet::new();
    for _ in 0..3 * AT_ONCE {
        let calls_of_node = service.clone().within(Duration::from_secs(60)).node();
        calls.spawn(async move { calls_of_node.status().await });
    }
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(dial.dialled(), AT_ONCE);
    calls.shutdown().await;

    lab.set_mood(node, Mood::Well);
    for _ in 0..7 {
        service.node().status().await.unwrap();
    }
    assert_eq!(dial.dialled(), AT_ONCE + 7);
}

#[tokio::test(start_paused = true)]
async fn a_batch_takes_few_connections_at_a_time_and_loses_nothing() {
    let (lab, node) = lab();
    let network = lab
        .service(node)
        .controller(node)
        .create_network(&NewNetwork::default())
        .await
        .unwrap()
        .id;
    let dial = Arc::new(Counting::new(lab.dial(node), 0));
    let service = Service::new(dial.clone(), lab.token(node));
    let changes = |count| many(count, true);
    let answers = service
        .controller(node)
        .change_members(network, &changes(5 * AT_ONCE as u64 * 3))
        .await;
    assert!(answers.len() == 60 && answers.values().all(Result::is_ok));
    assert_eq!(dial.dialled(), 12, "five requests on each");

    // Nobody answers any more: of all those that wait no more are sent than were under way.
    lab.set_mood(node, Mood::Hanging);
    let service = service.within(Duration::from_secs(3));
    let before = Instant::now();
    let answers = service
        .controller(node)
        .change_members(network, &changes(1000))
        .await;
    assert_eq!(
        (answers.len(), before.elapsed()),
        (AT_ONCE, Duration::from_secs(3))
    );
    assert!(
        answers
            .values()
            .all(|answer| matches!(answer, Err(Error::TimedOut { .. })))
    );
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_a_batch_takes_nothing_else_with_it() {
    let (lab, node) = lab();
    let controller = lab.service(node).controller(node);
    let absent = NetworkId::at(node, 0xdead);
    let answers = controller.change_members(absent, &many(23, true)).await;
    assert_eq!(answers.len(), 23);
    assert!(
        answers
            .values()
            .all(|answer| matches!(answer, Err(Error::NotFound { .. })))
    );
}

#[tokio::test(start_paused = true)]
async fn a_moon_is_waited_for_listed_when_it_is_there_and_left() {
    let (lab, node) = lab();
    let root = lab.grow();
    lab.found_moon(root);
    let calls = lab.service(node).node();
    let moon = calls.orbit(root, root).await.unwrap();
    assert!(moon.waiting && moon.id == root && moon.roots.is_empty());
    assert!(calls.moons().await.unwrap().is_empty());

    time::sleep(Duration::from_secs(20)).await;
    let moons = calls.moons().await.unwrap();
    assert!(moons.len() == 1 && !moons[0].waiting);
    assert!(moons[0].roots[0].identity.starts_with(&root.to_string()));
    assert_eq!(calls.orbit(root, root).await.unwrap(), moons[0]);
    let peers = calls.peers().await.unwrap();
    assert!(
        peers
            .iter()
            .any(|peer| peer.address == root && peer.role == "MOON")
    );

    calls.deorbit(root).await.unwrap();
    calls.deorbit(root).await.unwrap();
    assert!(calls.moons().await.unwrap().is_empty());

    let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let over_v6 = canned(gone).node().deorbit(root).await;
    assert!(matches!(over_v6, Err(Error::Unsupported { .. })));
}

fn many(count: u64, authorized: bool) -> BTreeMap<NodeId, MemberChange> {
    let node = |number| NodeId::new(0x10_0000_0000 + number).unwrap();
    (1..=count)
        .map(|number| (node(number), MemberChange::authorized(authorized)))
        .collect()
}

#[tokio::test]
async fn a_home_directory_leads_to_its_node_over_tcp() {
    let (lab, node) = lab();
    let root = tempfile::tempdir().unwrap();
    lab.settle(node, root.path()).await.unwrap();
    let home = Home::new(root.path());
    let calls = home.service().unwrap().node();
    assert_eq!(calls.status().await.unwrap().address, node);
    assert!(calls.networks().await.unwrap().is_empty());

    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(root.path().join("authtoken.secret"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    lab.stop(node);
    assert!(matches!(calls.status().await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn a_lab_that_is_gone_listens_no_more() {
    let (lab, node) = lab();
    let address = lab.listen(node, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    drop(tokio::net::TcpStream::connect(address).await.unwrap());
    drop(lab);
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(10), "still listening");
        time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn settings_of_a_joined_network_are_what_was_asked_for() {
    let (lab, node) = lab();
    let calls = lab.service(node).node();
    let settings = Settings {
        managed: false,
        global: true,
        default_route: false,
        dns: true,
    };
    let network = "ff0001ffff000000".parse().unwrap();
    let joined = calls.join(network, settings).await.unwrap();
    assert_eq!((joined.settings, joined.status), (settings, Admission::Ok));
    calls.leave(network).await.unwrap();
    calls.leave(network).await.unwrap();
    assert!(calls.networks().await.unwrap().is_empty());
}

#[test]
fn messages_hold_no_token() {
    let service = canned("");
    assert!(!format!("{service:?}").contains("hush"));
}

fn lab() -> (Lab, NodeId) {
    let lab = Lab::new();
    let node = lab.grow();
    (lab, node)
}

fn token() -> Token {
    Token::new("hush24").unwrap()
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A service that says one thing to everybody.
fn canned(answer: &str) -> Service {
    Service::new(
        Arc::new(Canned {
            answer: answer.to_owned(),
            closes: false,
            tasks: Mutex::default(),
        }),
        token(),
    )
}

#[derive(Debug)]
struct Canned {
    answer: String,
    closes: bool,
    tasks: Mutex<JoinSet<()>>,
}

impl Canned {
    fn closing(answer: &str) -> Self {
        Self {
            answer: answer.to_owned(),
            closes: true,
            tasks: Mutex::default(),
        }
    }
}

impl Dial for Canned {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let (near, mut far) = tokio::io::duplex(64 * 1024);
            let (answer, closes) = (self.answer.clone(), self.closes);
            self.tasks.lock().unwrap().spawn(async move {
                let mut request = [0; 1024];
                if far.read(&mut request).await.is_ok()
                    && far.write_all(answer.as_bytes()).await.is_ok()
                    && !closes
                {
                    // Held open, so that an answer without an end stays one.
                    std::future::pending::<()>().await;
                }
            });
            Ok(Box::new(near) as Box<dyn Wire>)
        })
    }
}

impl fmt::Display for Canned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a canned service")
    }
}

/// Counts connections, and fails the first few.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn Dial>,
    fails: usize,
    dialled: AtomicUsize,
}

impl Counting {
    fn new(inner: Arc<dyn Dial>, fails: usize) -> Self {
        Self {
            inner,
            fails,
            dialled: AtomicUsize::new(0),
        }
    }

    fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }
}

impl Dial for Counting {
    fn dial(&self) -> Dialing<'_> {
        if self.dialled.fetch_add(1, Ordering::SeqCst) < self.fails {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        self.inner.dial()
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// A service of a version that has no `/unstable` paths.
#[derive(Debug)]
struct Older(Arc<dyn Dial>);

impl Dial for Older {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let mut real = self.0.dial().await?;
            let (near, mut far) = tokio::io::duplex(64 * 1024);
            let mut relay = JoinSet::new();
            relay.spawn(async move {
                let mut start = [0; 64];
                let read = far.read(&mut start).await.unwrap_or(0);
                if start[..read].starts_with(b"GET /unstable") {
                    drop(
                        far.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                            .await,
                    );
                    return;
                }
                if real.write_all(&start[..read]).await.is_ok() {
                    drop(tokio::io::copy_bidirectional(&mut far, &mut real).await);
                }
            });
            relay.detach_all();
            Ok(Box::new(near) as Box<dyn Wire>)
        })
    }
}

impl fmt::Display for Older {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
