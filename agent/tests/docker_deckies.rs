//! Deckies on a real Docker Engine: the one that `DOCKER_HOST` names, or the machine's own.
//!
//! Needs the image `picket-decoy:latest`. Each test has a host id and a subnet of its own, and leaves nothing behind.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::{ContainerCreateBody, ContainerInspectResponse},
    query_parameters::{
        CreateContainerOptions, KillContainerOptions, ListContainersOptions, ListNetworksOptions,
        LogsOptions, RemoveContainerOptions, RestartContainerOptions,
    },
};
use futures::{FutureExt as _, StreamExt as _};
use picket_agent::deckies::{
    Owner,
    allow::{Allowed, GatewayRule, NetworkRule},
    docker::DockerEngine,
    form::BaseImage,
    pass::{Deckies, Report},
};
use picket_clock::Clock;
use picket_proto::{
    document::OutcomeStatus,
    host::{HostId, Name},
    shard::{Decky, DeckyNetwork, DeckyService, Driver, Shard},
    status::DeckyState,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time,
};

const IMAGE: &str = "picket-decoy:latest";
/// How long a state may take to come about on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn six_deckies_come_up_and_answer_and_a_seventh_restarts_none() {
    on_docker(1, async |site: &mut Site| {
        let report = site.pass(6).await;
        assert_eq!(states(&report), [DeckyState::Running; 6], "{:?}", report.problems);
        for number in 0..6 {
            assert!(
                site.greeting(number, 22)
                    .await
                    .starts_with("SSH-2.0-OpenSSH_9.2p1")
            );
        }
        let before = site.started().await;
        assert_eq!(before.len(), 6 * 3);

        let report = site.pass(7).await;
        assert_eq!(states(&report), [DeckyState::Running; 7], "{:?}", report.problems);
        let after = site.started().await;
        assert_eq!(after.len(), 7 * 3);
        assert!(
            before.iter().all(|(name, id)| after.get(name) == Some(id)),
            "{before:?} {after:?}"
        );
        assert!(
            site.pass(7).await.steps.is_empty(),
            "a second pass has nothing to do"
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_removed_comes_back_with_the_next_pass() {
    on_docker(2, async |site: &mut Site| {
        site.pass(2).await;
        let before = site.started().await;
        site.remove("decky-00_ssh").await;
        site.remove("decky-01").await;
        assert_eq!(states(&site.pass(2).await), [DeckyState::Running; 2]);
        let after = site.started().await;
        assert_eq!(
            after.keys().collect::<Vec<_>>(),
            before.keys().collect::<Vec<_>>()
        );
        assert_eq!(
            after[&site.docker_name("decky-00")],
            before[&site.docker_name("decky-00")]
        );
        for number in 0..2 {
            site.greeting(number, 22).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_base_that_was_restarted_is_noticed_and_its_services_are_made_anew() {
    on_docker(3, async |site: &mut Site| {
        site.pass(2).await;
        let before = site.started().await;
        let base = site.docker_name("decky-00");
        let options = RestartContainerOptions {
            t: Some(1),
            ..Default::default()
        };
        site.docker
            .restart_container(&base, Some(options))
            .await
            .expect("restart the base");
        let service = site.inspect("decky-00_ssh").await;
        assert_eq!(
            service.state.and_then(|state| state.running),
            Some(true),
            "Docker sees nothing wrong"
        );
        let seen = site.deckies.observe(&site.shard(2)).await;
        assert_eq!(seen.deckies[0].state, DeckyState::Degraded);
        assert_eq!(seen.deckies[1].state, DeckyState::Running);

        assert_eq!(states(&site.pass(2).await), [DeckyState::Running; 2]);
        site.greeting(0, 22).await;
        let after = site.started().await;
        assert_eq!(after[&base].0, before[&base].0, "the base itself stays");
        let ssh = site.docker_name("decky-00_ssh");
        assert_ne!(after[&ssh].0, before[&ssh].0);
        let other = site.docker_name("decky-01_ssh");
        assert_eq!(after[&other], before[&other]);
    })
    .await;
}

#[tokio::test]
async fn removal_leaves_nothing_of_ours_and_a_foreign_container_alone() {
    on_docker(4, async |site: &mut Site| {
        let foreign = format!("foreign-{}", uuid::Uuid::new_v4().simple());
        site.run_foreign(&foreign).await;
        site.pass(2).await;
        assert_eq!(site.network_count().await, 1);

        let report = site.pass(0).await;
        assert_eq!(report.outcome, OutcomeStatus::Done, "{:?}", report.problems);
        let left = (site.started().await.len(), site.network_count().await);
        let theirs = site
            .docker
            .inspect_container(&foreign, None)
            .await
            .expect("it is there");
        site.remove_foreign(&foreign).await;
        assert_eq!(left, (0, 0));
        assert_eq!(theirs.state.and_then(|state| state.running), Some(true));
    })
    .await;
}

#[tokio::test]
async fn a_touch_is_logged_as_one_line_by_a_container_without_rights() {
    on_docker(5, async |site: &mut Site| {
        site.pass(1).await;
        let mut peer = site.connect(0, 23).await;
        peer.write_all(b"root\r\nhunter2\r\n").await.expect("type");
        let line = time::timeout(PATIENCE, site.log_line("decky-00_telnet", "\"login\"")).await;
        let line: serde_json::Value = serde_json::from_str(&line.expect("a line in time")).expect("JSON");
        assert_eq!(
            (line["user"].as_str(), line["password"].as_str()),
            (Some("root"), Some("hunter2"))
        );

        for container in ["decky-00", "decky-00_telnet"] {
            let details = site.inspect(container).await;
            let host = details.host_config.expect("a host config");
            assert_eq!(host.cap_add.unwrap_or_default(), Vec::<String>::new());
            assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
            assert_eq!((host.privileged, host.readonly_rootfs), (Some(false), Some(true)));
            assert_eq!(
                details.config.and_then(|config| config.user).as_deref(),
                Some("65534:65534")
            );
            let pid = details.state.and_then(|state| state.pid).expect("a process");
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
            assert!(status.contains("CapEff:\t0000000000000000\n"), "{status}");
            assert!(status.contains("CapBnd:\t0000000000000000\n") && status.contains("NoNewPrivs:\t1\n"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_change_behind_our_back_is_told_within_a_second() {
    on_docker(6, async |site: &mut Site| {
        site.pass(1).await;
        let mut changes = site.deckies.changes();
        time::timeout(PATIENCE, changes.changed())
            .await
            .expect("that the engine answers is the first change");
        // Whatever our own pass caused within the second that the stream starts from.
        for _ in 0..100 {
            if time::timeout(Duration::from_secs(2), changes.changed())
                .await
                .is_err()
            {
                break;
            }
        }
        let options = KillContainerOptions {
            signal: "SIGKILL".to_owned(),
        };
        let name = site.docker_name("decky-00_ssh");
        site.docker
            .kill_container(&name, Some(options))
            .await
            .expect("kill a service");
        time::timeout(Duration::from_secs(1), changes.changed())
            .await
            .expect("a change within a second");
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_is_down_blocks_that_decky_only() {
    on_docker(7, async |site: &mut Site| {
        let mut want = site.shard(2);
        let first = want.deckies.get_mut(&name("decky-00")).expect("a decky");
        // Nothing listens on port 1.
        first.services[0].image = "127.0.0.1:1/missing:1".to_owned();
        let report = site.deckies.pass(&want).await;
        assert_eq!(report.outcome, OutcomeStatus::Blocked, "{:?}", report.problems);
        assert_eq!(states(&report), [DeckyState::Failed, DeckyState::Running]);
        assert!(
            report.problems[0].message.contains("127.0.0.1:1/missing:1"),
            "{:?}",
            report.problems
        );
    })
    .await;
}

#[tokio::test]
async fn a_service_that_ends_again_and_again_makes_its_decky_degraded() {
    on_docker(8, async |site: &mut Site| {
        let mut want = site.shard(2);
        let first = want.deckies.get_mut(&name("decky-00")).expect("a decky");
        first.services[0].command = vec!["no-such-service".to_owned()];
        site.deckies.pass(&want).await;
        let degraded = time::timeout(PATIENCE, async {
            loop {
                let seen = site.deckies.observe(&want).await.deckies.remove(0);
                if seen.state == DeckyState::Degraded {
                    return seen.problem;
                }
                time::sleep(Duration::from_millis(20)).await;
            }
        });
        let problem = degraded.await.expect("the decky is degraded in time");
        assert!(
            problem.starts_with("service ssh: it ended with exit code 2") || problem.contains("again"),
            "{problem}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_name_that_a_foreign_container_has_is_a_refusal_and_not_tried_again() {
    on_docker(9, async |site: &mut Site| {
        let taken = site.docker_name("decky-00");
        site.run_foreign(&taken).await;
        let first = site.pass(2).await;
        let second = site.pass(2).await;
        site.remove_foreign(&taken).await;
        assert_eq!(first.outcome, OutcomeStatus::Failed, "{:?}", first.problems);
        assert_eq!(states(&first), [DeckyState::Failed, DeckyState::Running]);
        assert_eq!((second.outcome, second.steps), (OutcomeStatus::Failed, vec![]));
    })
    .await;
}

/// One host's deckies on the engine.
struct Site {
    docker: Docker,
    deckies: Deckies,
    owner: Owner,
    /// The third byte of its subnet.
    subnet: u8,
}

/// Runs a test on a site of its own, and removes the site whether the test passed or not.
async fn on_docker(subnet: u8, test: impl AsyncFnOnce(&mut Site)) {
    let mut site = Site::new(subnet).await;
    let result = AssertUnwindSafe(test(&mut site)).catch_unwind().await;
    site.pass(0).await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

fn name(name: &str) -> Name {
    name.parse().expect("a name")
}

fn states(report: &Report) -> Vec<DeckyState> {
    report.deckies.deckies.iter().map(|decky| decky.state).collect()
}

impl Site {
    async fn new(subnet: u8) -> Self {
        let socket = socket();
        let docker = match Docker::connect_with_unix(&socket, 60, API_DEFAULT_VERSION) {
            Ok(docker) => docker.negotiate_version().await,
            Err(error) => Err(error),
        };
        let Ok(docker) = docker else {
            panic!(
                "no Docker Engine answers at {socket}; start one: scripts/docker-engine start, then \
                 eval \"$(scripts/docker-engine env)\""
            );
        };
        assert!(
            docker.inspect_image(IMAGE).await.is_ok(),
            "the image {IMAGE} is not on the engine at {socket}; make it: scripts/decoy-image"
        );
        let owner = Owner {
            trust_domain: "test.example".to_owned(),
            host: HostId(uuid::Uuid::new_v4()),
        };
        let engine = Arc::new(DockerEngine::new(socket, Clock::system()));
        let allowed = Allowed {
            images: vec![
                IMAGE.parse().expect("a rule"),
                "127.0.0.1:1/*".parse().expect("a rule"),
            ],
            networks: vec![NetworkRule {
                driver: Driver::Bridge,
                parent: None,
                subnet: "10.213.0.0/16".parse().expect("a subnet"),
                gateway: GatewayRule::Never,
            }],
            ports: vec!["1-1023".parse().expect("a rule")],
            most: 64,
        };
        let deckies = Deckies::new(
            engine,
            owner.clone(),
            BaseImage::default(),
            allowed,
            Clock::system(),
        );
        Self {
            docker,
            deckies,
            owner,
            subnet,
        }
    }

    /// Deckies with an ssh and a telnet service each.
    fn shard(&self, count: u8) -> Shard {
        let service = |service: &str, port| DeckyService {
            name: name(service),
            image: IMAGE.to_owned(),
            command: vec![service.to_owned()],
            environment: BTreeMap::new(),
            ports: vec![port],
        };
        let decky = |number: u8| Decky {
            name: name(&format!("decky-{number:02}")),
            deployment: name("test"),
            network: name("lan"),
            address: self.address(number),
            hostname: name(&format!("web-{number:02}")),
            services: vec![service("ssh", 22), service("telnet", 23)],
        };
        let lan = DeckyNetwork {
            name: name("lan"),
            driver: Driver::Bridge,
            parent: None,
            subnet: format!("10.213.{}.0/24", self.subnet).parse().expect("a subnet"),
            gateway: None,
        };
        Shard {
            deckies: (0..count)
                .map(decky)
                .map(|decky| (decky.name.clone(), decky))
                .collect(),
            networks: BTreeMap::from([(lan.name.clone(), lan)]),
        }
    }

    async fn pass(&mut self, count: u8) -> Report {
        let want = self.shard(count);
        self.deckies.pass(&want).await
    }

    fn address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.subnet, 20 + number)
    }

    fn docker_name(&self, name: &str) -> String {
        format!("{}-{name}", self.owner.prefix())
    }

    fn filter(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([(
            "label".to_owned(),
            vec![format!("picket.owner={}", self.owner.label())],
        )])
    }

    /// The id and the time of start of every container of ours, by name.
    async fn started(&self) -> BTreeMap<String, (String, String)> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(self.filter()),
            ..Default::default()
        };
        let mut started = BTreeMap::new();
        for container in self
            .docker
            .list_containers(Some(options))
            .await
            .expect("list the containers")
        {
            let id = container.id.expect("an id");
            let details = self
                .docker
                .inspect_container(&id, None)
                .await
                .expect("look at one");
            let at = details
                .state
                .and_then(|state| state.started_at)
                .expect("a time of start");
            let name = details.name.expect("a name").trim_start_matches('/').to_owned();
            started.insert(name, (id, at));
        }
        started
    }

    async fn network_count(&self) -> usize {
        let options = ListNetworksOptions {
            filters: Some(self.filter()),
        };
        self.docker
            .list_networks(Some(options))
            .await
            .expect("list the networks")
            .len()
    }

    async fn inspect(&self, name: &str) -> ContainerInspectResponse {
        self.docker
            .inspect_container(&self.docker_name(name), None)
            .await
            .expect("look at a container")
    }

    async fn remove(&self, name: &str) {
        self.remove_foreign(&self.docker_name(name)).await;
    }

    /// Runs a container that is nobody's.
    async fn run_foreign(&self, docker_name: &str) {
        let options = CreateContainerOptions {
            name: Some(docker_name.to_owned()),
            ..Default::default()
        };
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            cmd: Some(vec!["base".to_owned()]),
            ..Default::default()
        };
        self.docker
            .create_container(Some(options), body)
            .await
            .expect("create a foreign container");
        self.docker
            .start_container(docker_name, None)
            .await
            .expect("start a foreign container");
    }

    async fn remove_foreign(&self, docker_name: &str) {
        let options = RemoveContainerOptions {
            force: true,
            ..Default::default()
        };
        self.docker
            .remove_container(docker_name, Some(options))
            .await
            .expect("remove a container");
    }

    /// Connects to a decky as soon as it listens.
    async fn connect(&self, number: u8, port: u16) -> TcpStream {
        let address = (self.address(number), port);
        let connected = time::timeout(PATIENCE, async {
            loop {
                match TcpStream::connect(address).await {
                    Ok(stream) => return stream,
                    Err(_) => time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        connected
            .await
            .unwrap_or_else(|_| panic!("nobody answers at {address:?}"))
    }

    /// The first bytes a decky says.
    async fn greeting(&self, number: u8, port: u16) -> String {
        let mut stream = self.connect(number, port).await;
        let mut bytes = [0; 64];
        let read = time::timeout(PATIENCE, stream.read(&mut bytes)).await;
        let count = read.expect("a greeting in time").expect("a greeting");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    /// The first line of a container's log that contains a text.
    async fn log_line(&self, name: &str, text: &str) -> String {
        let options = LogsOptions {
            follow: true,
            stdout: true,
            ..Default::default()
        };
        let mut lines = self.docker.logs(&self.docker_name(name), Some(options));
        while let Some(line) = lines.next().await {
            let line = line.expect("a log").to_string();
            if line.contains(text) {
                return line;
            }
        }
        panic!("the log of {name} ended without {text}");
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is the shell of the tests, as `config.rs` is the agent's"
)]
fn socket() -> String {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    host.strip_prefix("unix://")
        .expect("DOCKER_HOST names a Unix socket")
        .to_owned()
}
