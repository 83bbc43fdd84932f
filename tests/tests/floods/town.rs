//! A running master with its listeners on loopback, and who comes to them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use picket_agent::identity::Identity;
use picket_clock::Clock;
use picket_link::{Connected, Options, Tcp, connect};
use picket_master::{
    Doors,
    config::Config,
    descriptors,
    init::{Plan, init},
    listen,
    signer::CaKey,
    store::Store,
};
use picket_pki::{Authorities, Bundle, Key, client_config};
use picket_proto::wire::{
    admin::{EnrollHostRequest, ListHostsRequest, host_service_client::HostServiceClient},
    agent::{DeckiesStatus, RenewRequest, agent_service_client::AgentServiceClient},
};
use picket_settings::Settings;
use picket_tests::conversation::Conversation;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
    time::{self, Instant},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::frames::PREFACE;

/// How long anything may take on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// A master.
pub(crate) struct Town {
    pub(crate) agents: SocketAddr,
    pub(crate) admin: SocketAddr,
    monitor: SocketAddr,
    operator: Arc<ClientConfig>,
    clock: Clock,
    stop: CancellationToken,
    _root: tempfile::TempDir,
}

impl Drop for Town {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The memory this process has, in bytes.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

impl Town {
    pub(crate) async fn new() -> Self {
        descriptors::raise();
        let root = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let plan = Plan {
            data_dir: root.path().join("master"),
            trust_domain: "example.org".parse().unwrap(),
            names: vec!["localhost".to_owned()],
            addresses: vec!["127.0.0.1:7443".to_owned()],
            admin_addresses: vec!["127.0.0.1:7444".to_owned()],
            ca: CaKey::Plain,
        };
        init(&plan, &clock).await.unwrap();
        let text = format!("data_dir = {:?}\nca.key = \"plain\"\n", plan.data_dir);
        let config = Config::resolve(Settings::from_text(&text, "master.toml".as_ref()).unwrap()).unwrap();
        let store = Store::open(&plan.data_dir, clock.clone()).await.unwrap();
        let bind = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
        let (agents, admin, monitor) = (bind().await, bind().await, bind().await);
        let bundle = std::fs::read(plan.data_dir.join("admin.bundle")).unwrap();
        let town = Self {
            agents: agents.local_addr().unwrap(),
            admin: admin.local_addr().unwrap(),
            monitor: monitor.local_addr().unwrap(),
            operator: tls(&Bundle::parse(&bundle).unwrap(), &clock),
            clock: clock.clone(),
            stop: CancellationToken::new(),
            _root: root,
        };
        let doors = Doors {
            agents: listen::tcp(agents),
            admin: listen::tcp(admin),
            monitor: listen::tcp(monitor),
            central: None,
            local: false,
        };
        let (open, opened) = oneshot::channel();
        let run = picket_master::run(
            config,
            store,
            doors,
            clock,
            move || open.send(()).unwrap(),
            town.stop.clone(),
        );
        drop(TaskTracker::new().spawn(run));
        opened.await.unwrap();
        town
    }

    /// A host that has a certificate for a key of its own.
    pub(crate) async fn enroll(&self, name: &str) -> Identity {
        let connected = dial(self.admin, Arc::clone(&self.operator)).await;
        let asked = EnrollHostRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let enrolled = HostServiceClient::new(connected.channel).enroll_host(asked).await;
        let bundle = Bundle::parse(&enrolled.unwrap().into_inner().bundle).unwrap();
        let base = Identity::from_bundle(&bundle).unwrap().unwrap();
        let connected = dial(self.agents, base.tls(&self.clock).unwrap()).await;
        let mut client = AgentServiceClient::new(connected.channel);
        let key = Key::generate().unwrap();
        let csr = key.csr().unwrap().into();
        let answer = client.renew(RenewRequest { csr }).await.unwrap().into_inner();
        let authorities = answer.authorities.iter().map(|der| der.to_vec()).collect();
        base.renewed(key, answer.certificate.to_vec(), authorities)
            .unwrap()
    }

    /// Whether a host opens a session and its beat is acknowledged, and an operator is answered.
    pub(crate) async fn is_well(&self, host: &Identity) {
        let agent = async {
            let connected = dial(self.agents, host.tls(&self.clock).unwrap()).await;
            let mut talk = Conversation::open(&connected).await.unwrap();
            let deckies = DeckiesStatus {
                service: 1,
                ..Default::default()
            };
            talk.beat(1, &deckies).await;
            assert_eq!(talk.acknowledged().await, 1);
        };
        time::timeout(PATIENCE, agent)
            .await
            .expect("an honest agent beats");
        let operator = async {
            let connected = dial(self.admin, Arc::clone(&self.operator)).await;
            let mut hosts = HostServiceClient::new(connected.channel);
            hosts.list_hosts(ListHostsRequest::default()).await.unwrap();
        };
        time::timeout(PATIENCE, operator)
            .await
            .expect("an operator is answered");
    }

    /// A session under a host's identity from a machine, by an agent that answers pings.
    pub(crate) async fn converse(&self, host: &Identity, machine: &str) -> (Conversation, Connected) {
        let connected = dial(self.agents, host.tls(&self.clock).unwrap()).await;
        let talk = Conversation::open_on(&connected, machine, true).await;
        (talk.unwrap(), connected)
    }

    /// A connection from the address 127.0.0.`n` that says nothing by itself.
    pub(crate) async fn dial_from(&self, n: u8, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, n], 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    }

    /// A connection under a host's identity over which anything can be said.
    pub(crate) async fn speak_as(&self, host: &Identity) -> TlsStream<TcpStream> {
        let stream = self.dial_from(2, self.agents).await;
        let name = ServerName::try_from("master").unwrap();
        let connector = TlsConnector::from(host.tls(&self.clock).unwrap());
        let mut line = connector.connect(name, stream).await.unwrap();
        // The first bytes of the server: it was let in.
        line.read_exact(&mut [0; 9]).await.unwrap();
        line
    }

    /// Says something `times` over after the preface, and waits for the end of the connection.
    pub(crate) async fn is_cut_off(&self, host: &Identity, flood: &[u8], times: usize) {
        let mut line = self.speak_as(host).await;
        line.write_all(PREFACE).await.unwrap();
        let (mut heard, mut said) = tokio::io::split(line);
        let saying = async {
            for _ in 0..times {
                if said.write_all(flood).await.is_err() || said.flush().await.is_err() {
                    break;
                }
            }
        };
        let ended = async {
            let mut all = Vec::new();
            // The end is an end whether it says so or is a reset.
            drop(heard.read_to_end(&mut all).await);
        };
        let both = async { tokio::join!(saying, ended) };
        time::timeout(PATIENCE, both).await.expect("the connection ends");
    }

    /// The sum of the series of the metrics page that begin so.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let mut io = TcpStream::connect(self.monitor).await.unwrap();
        io.write_all(b"GET /metrics HTTP/1.1\r\nHost: master\r\n\r\n")
            .await
            .unwrap();
        let mut page = String::new();
        io.read_to_string(&mut page).await.unwrap();
        let values = page.lines().filter(|line| line.starts_with(series));
        values
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Waits until a metric is at least this.
    pub(crate) async fn until_metric(&self, series: &str, least: u64) {
        self.until(series, |value| value >= least).await;
    }

    /// Waits until a metric is at most this.
    pub(crate) async fn until_metric_is_at_most(&self, series: &str, most: u64) {
        self.until(series, |value| value <= most).await;
    }

    async fn until(&self, series: &str, good: impl Fn(u64) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let value = self.metric(series).await;
            if good(value) {
                return;
            }
            assert!(Instant::now() < give_up, "{series} is {value}");
            time::sleep(LOOK).await;
        }
    }
}

async fn dial(to: SocketAddr, tls: Arc<ClientConfig>) -> Connected {
    let connected = connect(&Tcp::default(), &[to.to_string()], tls, Options::default()).await;
    connected.unwrap()
}

fn tls(bundle: &Bundle, clock: &Clock) -> Arc<ClientConfig> {
    let authorities = Authorities::new(bundle.trust_domain.clone(), bundle.authorities.clone()).unwrap();
    let clock = clock.clone();
    let time: picket_pki::Time = Arc::new(move || clock.unix());
    Arc::new(client_config(Arc::new(authorities), &bundle.certificate, &bundle.key, time).unwrap())
}
