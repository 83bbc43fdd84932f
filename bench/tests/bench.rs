//! The bench does not rot: the whole of it against the bare server as a process, its agents against a real master.

use std::{process::Command, sync::Arc, time::Duration};

use picket_bench::{
    figures::{Kind, Measured},
    identity, load,
    site::Site,
};
use picket_clock::Clock;
use picket_master::{
    Doors,
    config::{Config, Log, LogFormat},
    listen,
    liveness::Grace,
    run,
    signer::CaKey,
    store::Store,
};
use tokio::{net::TcpListener, sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

const HOSTS: u32 = 5;
const BEATS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

fn bench(arguments: &[&str]) -> (bool, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_picket-bench"))
        .args(arguments)
        .output()
        .expect("picket-bench starts");
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    (done.status.success(), text(done.stdout), text(done.stderr))
}

#[test]
fn a_run_against_the_bare_server_is_one_line_of_json_with_every_beat_counted() {
    let (done, line, problem) = bench(&[
        "bare",
        "--hosts",
        "5",
        "--deckies",
        "10",
        "--beats",
        "3",
        "--json",
    ]);
    assert!(done, "{problem}");
    let run: Measured = serde_json::from_str(&line).unwrap();
    assert_eq!((run.server, run.hosts, run.deckies), (Kind::Bare, HOSTS, 10));
    assert_eq!(run.raw.beats, u64::from(HOSTS * (BEATS - 1)));
    assert!(
        run.raw.beats_kib >= run.raw.start_kib / 2 && run.raw.start_kib > 0,
        "{run:?}"
    );
    assert!(
        run.raw.ack_p50_us > 0 && run.raw.ack_p50_us <= run.raw.ack_most_us,
        "{run:?}"
    );
}

#[test]
fn more_hosts_than_descriptors_are_refused_before_anything_is_started() {
    let (done, _, problem) = bench(&["bare", "--hosts", "20000"]);
    assert!(!done && problem.contains("file descriptors"), "{problem}");
}

#[test]
fn a_master_program_that_is_not_there_is_named_with_what_to_do() {
    let (done, _, problem) = bench(&["master", "--hosts", "1", "--master", "no/such/picket-master"]);
    assert!(
        !done && problem.contains("cargo build --release -p picket-master"),
        "{problem}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_master_lets_the_fleet_in_and_keeps_what_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, clock) = (folder.path().join("master"), Clock::system());
    let site = Site::master(&dir, &clock).await.unwrap();
    let hosts = site.hosts(HOSTS).unwrap();
    site.enroll(&hosts).await.unwrap();

    let listen_at = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let (agents, admin, monitor) = (listen_at().await, listen_at().await, listen_at().await);
    let (address, stop) = (agents.local_addr().unwrap(), CancellationToken::new());
    let config = Config {
        name: "master".to_owned(),
        data_dir: dir,
        ca: CaKey::Plain,
        central: None,
        advertise: Vec::new(),
        beat_interval: Duration::from_secs(30),
        agents: address,
        most_connections: 20_000,
        admin: admin.local_addr().unwrap(),
        metrics: monitor.local_addr().unwrap(),
        grace: Grace::default(),
        log: Log {
            level: "info".parse().unwrap(),
            format: LogFormat::Text,
        },
    };
    let doors = Doors {
        agents: listen::tcp(agents),
        admin: listen::tcp(admin),
        monitor: listen::tcp(monitor),
        central: None,
        local: false,
    };
    let (data_dir, operators) = (config.data_dir.clone(), config.admin.to_string());
    let store = Store::open(&config.data_dir, clock.clone()).await.unwrap();
    let (ready, is_ready) = oneshot::channel();
    let say_ready = move || ready.send(()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(run(config, store, doors, clock, say_ready, stop.clone()));
    timeout(PATIENCE, is_ready).await.unwrap().unwrap();

    let loaded = async {
        let fleet = load::open(&address.to_string(), &Arc::new(site), hosts, 10)
            .await
            .unwrap();
        // A beat of digests alone fails when the master lacks a body.
        let (fleet, waits) = fleet
            .report()
            .await
            .unwrap()
            .beat(BEATS, Duration::from_millis(10))
            .await
            .unwrap();
        assert_eq!(waits.len(), usize::try_from(HOSTS * BEATS).unwrap());
        let (agents, renewals) = identity::renewals(fleet.into_agents()).await.unwrap();
        assert!(renewals > 0.0);
        // Every session ends, or this does not.
        let operator = identity::operator(&data_dir, &operators, &Clock::system())
            .await
            .unwrap();
        let bans = identity::bans(operator, agents).await.unwrap();
        assert!(bans.p50_us > 0 && bans.most_us <= bans.wall_us, "{bans:?}");
    };
    timeout(PATIENCE, loaded).await.unwrap();
    stop.cancel();
    timeout(PATIENCE, tasks.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .unwrap();
}
