//! A master's door in memory: a CA, its listeners for both roles, and callers with every kind of certificate.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use picket_clock::Clock;
use picket_link::{AcceptError, Connected, LinkError, Options, Pipes, TlsServerIo, accept, connect};
use picket_pki::{
    Authorities, Authority, Fingerprint, Identity, Key, PinKind, Pins, Presented, Role, Standing, Time,
    TrustDomain, client_config, lifetime, server_config,
};
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use uuid::Uuid;

pub(crate) const MASTER: &str = "master:7443";
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A key and the certificate for it.
#[derive(Clone)]
pub(crate) struct Card {
    pub(crate) key: Key,
    pub(crate) der: Vec<u8>,
}

impl Card {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }
}

/// The pins, as a plain table.
#[derive(Debug, Default)]
pub(crate) struct Table(Mutex<BTreeMap<Fingerprint, Standing>>);

impl Pins for Table {
    fn standing(&self, fingerprint: &Fingerprint) -> Standing {
        self.0
            .lock()
            .unwrap()
            .get(fingerprint)
            .copied()
            .unwrap_or(Standing::Unknown)
    }
}

pub(crate) struct Site {
    pub(crate) authority: Authority,
    /// The key of the CA.
    pub(crate) key: Key,
    pub(crate) clock: Clock,
    pub(crate) pins: Arc<Table>,
    pub(crate) pipes: Pipes,
}

impl Site {
    pub(crate) fn new() -> Self {
        let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        let key = Key::generate().unwrap();
        Self {
            authority: Authority::create_with(Arc::new(key.clone()), &domain(), clock.now()).unwrap(),
            key,
            clock,
            pins: Arc::default(),
            pipes: Pipes::new(),
        }
    }

    pub(crate) fn host(&self) -> Card {
        self.card(&Identity::Host(Uuid::from_u128(7)), self.clock.now())
    }

    pub(crate) fn operator(&self) -> Card {
        self.card(&Identity::Operator("ana".parse().unwrap()), self.clock.now())
    }

    pub(crate) fn master(&self) -> Card {
        self.card(&Identity::Master, self.clock.now())
    }

    pub(crate) fn card(&self, identity: &Identity, now: Timestamp) -> Card {
        let key = Key::generate().unwrap();
        let der = self
            .authority
            .issue(key.public(), identity, lifetime::HOST, now)
            .unwrap()
            .der;
        Card { key, der }
    }

    pub(crate) fn pin(&self, card: &Card, kind: PinKind) {
        self.stand(card, Standing::Pinned(kind));
    }

    pub(crate) fn stand(&self, card: &Card, standing: Standing) {
        self.pins.0.lock().unwrap().insert(card.fingerprint(), standing);
    }

    pub(crate) fn authorities(&self) -> Arc<Authorities> {
        Arc::new(Authorities::new(domain(), vec![self.authority.certificate().to_vec()]).unwrap())
    }

    /// A listener of this site that shows `shown`.
    pub(crate) fn door(&self, role: Role, shown: &Card) -> Arc<ServerConfig> {
        let presented = Arc::new(Presented::new(&shown.der, &shown.key).unwrap());
        let config = server_config(
            presented,
            self.authorities(),
            role,
            self.pins.clone(),
            time(&self.clock),
        );
        Arc::new(config.unwrap())
    }

    /// What a caller of this site dials with.
    pub(crate) fn caller(&self, card: &Card) -> Arc<ClientConfig> {
        self.caller_at(card, &self.clock)
    }

    pub(crate) fn caller_at(&self, card: &Card, clock: &Clock) -> Arc<ClientConfig> {
        Arc::new(client_config(self.authorities(), &card.der, &card.key, time(clock)).unwrap())
    }

    /// Serves gRPC behind a door, and tells what came of each handshake.
    pub(crate) fn serve(&self, door: Arc<ServerConfig>) -> Served {
        let mut incoming = self.pipes.listen(MASTER);
        let (outcomes, told) = mpsc::channel(64);
        let (accepted, connections) = mpsc::channel::<TlsServerIo>(64);
        let tracker = TaskTracker::new();
        let doorman = tracker.spawn(async move {
            while let Some((io, address)) = incoming.next().await {
                let outcome = match accept(io, address, door.clone(), PATIENCE).await {
                    Ok(stream) => {
                        let peer = stream.peer().clone();
                        accepted.send(stream).await.unwrap();
                        Ok(peer)
                    }
                    Err(error) => Err(error),
                };
                outcomes.send(outcome).await.unwrap();
            }
        });
        let grpc = tracker.spawn(async move {
            let (_, health) = tonic_health::server::health_reporter();
            let connections = ReceiverStream::new(connections).map(Ok::<_, std::io::Error>);
            let server = tonic::transport::Server::builder().add_service(health);
            server.serve_with_incoming(connections).await.unwrap();
        });
        Served {
            told,
            _tasks: [AbortOnDropHandle::new(doorman), AbortOnDropHandle::new(grpc)],
        }
    }

    pub(crate) async fn dial(&self, caller: Arc<ClientConfig>) -> Result<Connected, LinkError> {
        let wire = self.pipes.wire(address());
        connect(&wire, &[MASTER.to_owned()], caller, Options::default()).await
    }
}

pub(crate) struct Served {
    told: mpsc::Receiver<Result<picket_link::Peer, AcceptError>>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Served {
    /// What came of the next handshake.
    pub(crate) async fn outcome(&mut self) -> Result<picket_link::Peer, AcceptError> {
        tokio::time::timeout(PATIENCE, self.told.recv())
            .await
            .expect("a handshake ends")
            .unwrap()
    }
}

pub(crate) fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

pub(crate) fn address() -> SocketAddr {
    "192.0.2.7:40000".parse().unwrap()
}

pub(crate) fn time(clock: &Clock) -> Time {
    let clock = clock.clone();
    Arc::new(move || clock.unix())
}

/// Asks the health service over an accepted connection.
pub(crate) async fn healthy(connected: &Connected) -> Result<(), tonic::Status> {
    let mut client = tonic_health::pb::health_client::HealthClient::new(connected.channel.clone());
    let request = tonic_health::pb::HealthCheckRequest {
        service: String::new(),
    };
    client.check(request).await.map(drop)
}
