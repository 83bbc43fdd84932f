//! Somebody with a certificate and a key who dials a master, or plays one, with none of our daemons' manners.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use picket_clock::Clock;
use picket_link::{AcceptError, Connected, LinkError, Options, Tcp, accept, connect};
use picket_pki::{
    Authorities, Authority, Bundle, Fingerprint, Identity, Key, PinKind, Pins, Presented, Role, Standing,
    Time, TrustDomain, client_config, server_config,
};
use picket_proto::{
    VERSION,
    session::Hello,
    wire::{
        admin::{BanHostRequest, host_service_client::HostServiceClient},
        agent::{self as wire, agent_service_client::AgentServiceClient},
    },
};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

/// How long any one step may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A certificate, its key, and the CA that its holder trusts.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The trust domain its holder belongs to.
    pub trust_domain: TrustDomain,
    /// The CA certificates its holder trusts (DER).
    pub authorities: Vec<Vec<u8>>,
    /// What it shows (DER).
    pub certificate: Vec<u8>,
    /// The key to that.
    pub key: Key,
}

impl From<picket_agent::identity::Identity> for Caller {
    /// The agent that has this identity.
    fn from(identity: picket_agent::identity::Identity) -> Self {
        let picket_agent::identity::Identity {
            trust_domain,
            authorities,
            certificate,
            key,
            ..
        } = identity;
        Self {
            trust_domain,
            authorities,
            certificate,
            key,
        }
    }
}

impl Caller {
    /// Whoever holds this bundle.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn of(bundle: &[u8]) -> Self {
        let Bundle {
            trust_domain,
            authorities,
            certificate,
            key,
            ..
        } = Bundle::parse(bundle).expect("a bundle");
        Self {
            trust_domain,
            authorities,
            certificate,
            key,
        }
    }

    /// Somebody whose certificate `authority` signed just now, and whom no master knows.
    ///
    /// # Panics
    /// When it cannot be signed.
    #[must_use]
    #[track_caller]
    pub fn signed_by(authority: &Authority, identity: &Identity) -> Self {
        let key = Key::generate().expect("the system has randomness");
        let now = Clock::system().now();
        let issued = authority.issue(key.public(), identity, picket_pki::lifetime::HOST, now);
        Self {
            trust_domain: authority.trust_domain().clone(),
            authorities: vec![authority.certificate().to_vec()],
            certificate: issued.expect("the CA signs").der,
            key,
        }
    }

    /// The same, showing another certificate.
    #[must_use]
    pub fn showing(&self, certificate: Vec<u8>, key: Key) -> Self {
        Self {
            certificate,
            key,
            ..self.clone()
        }
    }

    /// Shakes hands with the master at `address`, up to the first byte it says.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn knock(&self, address: SocketAddr) -> Result<(), LinkError> {
        runtime().block_on(self.connect(address)).map(drop)
    }

    async fn connect(&self, address: SocketAddr) -> Result<Connected, LinkError> {
        let authorities =
            Authorities::new(self.trust_domain.clone(), self.authorities.clone()).expect("CA certificates");
        let tls = client_config(Arc::new(authorities), &self.certificate, &self.key, now())
            .expect("a certificate and its key");
        let options = Options {
            deadline: PATIENCE,
            ..Options::default()
        };
        connect(&Tcp::default(), &[address.to_string()], Arc::new(tls), options).await
    }

    /// Plays a master at a free port of `at`, for whoever calls and whatever they show.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    #[track_caller]
    pub fn play_master(&self, at: Ipv4Addr) -> Impostor {
        let presented = Presented::new(&self.certificate, &self.key).expect("a certificate and its key");
        let authorities =
            Authorities::new(self.trust_domain.clone(), self.authorities.clone()).expect("CA certificates");
        let door = server_config(
            Arc::new(presented),
            Arc::new(authorities),
            Role::Host,
            Arc::new(Everybody),
            now(),
        );
        let door = Arc::new(door.expect("the library can serve"));
        let runtime = runtime();
        let listener = runtime
            .block_on(TcpListener::bind((at, 0)))
            .expect("loopback has free ports");
        let address = listener.local_addr().expect("a listener has an address");
        let (caught, outcomes) = mpsc::channel(64);
        drop(runtime.spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let outcome = accept(Box::new(stream), from, Arc::clone(&door), PATIENCE).await;
                if caught
                    .send(outcome.map(|stream| stream.peer().identity.clone()))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }));
        Impostor {
            address,
            outcomes,
            runtime,
        }
    }

    /// Opens the admin API, and keeps the connection.
    ///
    /// # Panics
    /// When the master does not let it in.
    #[must_use]
    #[track_caller]
    pub fn operator(&self, address: SocketAddr) -> Operator {
        let runtime = runtime();
        let connected = runtime
            .block_on(self.connect(address))
            .expect("the master lets it in");
        let hosts = HostServiceClient::new(connected.channel.clone());
        Operator {
            runtime,
            _connected: connected,
            hosts,
        }
    }

    /// Opens a session as an agent does, and then says what it is told to say.
    ///
    /// # Panics
    /// When the master does not welcome it.
    #[must_use]
    #[track_caller]
    pub fn session(&self, address: SocketAddr) -> RawSession {
        let runtime = runtime();
        let (connected, outbound, inbound) = runtime.block_on(async {
            let connected = self.connect(address).await.expect("the master lets it in");
            let (outbound, requests) = mpsc::channel(4);
            let hello = wire::Hello::from(&Hello {
                version: VERSION.to_owned(),
                capabilities: Vec::new(),
                machine_id: "a machine of its own".into(),
                boot_id: "one boot".into(),
                instance_id: [7; 16],
                time: Clock::system().now(),
                held: Vec::new(),
                node_proof: None,
                authorities: Vec::new(),
            });
            let hello = wire::SessionRequest {
                message: Some(wire::session_request::Message::Hello(hello)),
            };
            outbound.send(hello).await.expect("the channel is new");
            let mut client = AgentServiceClient::new(connected.channel.clone());
            let answer = client
                .session(ReceiverStream::new(requests))
                .await
                .expect("the master opens a session");
            (connected, outbound, answer.into_inner())
        });
        let mut session = RawSession {
            runtime,
            _connected: connected,
            outbound,
            inbound,
        };
        let first = session.hear();
        assert!(
            matches!(first, Some(wire::session_response::Message::Welcome(_))),
            "{first:?}"
        );
        session
    }
}

/// Somebody who plays a master. It ends when this is dropped.
#[derive(Debug)]
pub struct Impostor {
    /// Where it listens.
    pub address: SocketAddr,
    outcomes: mpsc::Receiver<Result<Identity, AcceptError>>,
    runtime: Runtime,
}

impl Impostor {
    /// What came of the next handshake: whom it caught, or why it did not.
    ///
    /// # Errors
    /// Why nobody was caught.
    ///
    /// # Panics
    /// When nobody calls.
    #[track_caller]
    pub fn caught(&mut self) -> Result<Identity, AcceptError> {
        let next = self
            .runtime
            .block_on(async { time::timeout(PATIENCE, self.outcomes.recv()).await });
        next.expect("nobody called")
            .expect("it listens as long as it is there")
    }
}

/// An operator with a connection at hand.
#[derive(Debug)]
pub struct Operator {
    runtime: Runtime,
    _connected: Connected,
    hosts: HostServiceClient<Channel>,
}

impl Operator {
    /// Bans a host.
    ///
    /// # Panics
    /// When the master refuses.
    #[track_caller]
    pub fn ban(&mut self, name: &str, reason: &str) {
        let request = BanHostRequest {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let answer = self.runtime.block_on(self.hosts.ban_host(request));
        drop(answer.expect("the master bans the host"));
    }
}

/// An open session whose agent says whatever it is told to say.
#[derive(Debug)]
pub struct RawSession {
    runtime: Runtime,
    _connected: Connected,
    outbound: mpsc::Sender<wire::SessionRequest>,
    inbound: Streaming<wire::SessionResponse>,
}

impl RawSession {
    /// Says something.
    ///
    /// # Panics
    /// When the connection takes nothing any more.
    #[track_caller]
    pub fn say(&self, beat: wire::Beat) {
        let message = wire::SessionRequest {
            message: Some(wire::session_request::Message::Beat(beat)),
        };
        self.runtime
            .block_on(self.outbound.send(message))
            .expect("the session is open");
    }

    /// What the master says next; none when it has hung up.
    ///
    /// # Panics
    /// When it is silent.
    #[track_caller]
    pub fn hear(&mut self) -> Option<wire::session_response::Message> {
        let next = self
            .runtime
            .block_on(async { time::timeout(PATIENCE, self.inbound.message()).await });
        next.expect("the master is silent")
            .ok()
            .flatten()
            .and_then(|said| said.message)
    }
}

/// Takes everybody for a host in good standing: what a fake master would do.
#[derive(Debug)]
struct Everybody;

impl Pins for Everybody {
    fn standing(&self, _: &Fingerprint) -> Standing {
        Standing::Pinned(PinKind::Current)
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("the system gives a runtime")
}

fn now() -> Time {
    let clock = Clock::system();
    Arc::new(move || clock.unix())
}
