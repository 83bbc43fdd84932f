//! The running master: its doors, its tasks, its clean stop.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use picket_clock::Clock;
use picket_durable::FileError;
use picket_pki::{Role, Time, TlsError, server_config};
use picket_proto::{
    DESCRIPTORS,
    beat::MOST_CHUNK_BYTES,
    wire::{
        admin::{
            audit_service_server::AuditServiceServer, ca_service_server::CaServiceServer,
            clock_service_server::ClockServiceServer, decky_service_server::DeckyServiceServer,
            deployment_service_server::DeploymentServiceServer, device_service_server::DeviceServiceServer,
            event_service_server::EventServiceServer, host_service_server::HostServiceServer,
            kill_service_server::KillServiceServer, member_service_server::MemberServiceServer,
            moon_service_server::MoonServiceServer, network_service_server::NetworkServiceServer,
            operator_service_server::OperatorServiceServer,
        },
        agent::agent_service_server::AgentServiceServer,
    },
};
use picket_zerotier::dial::Dial;
use rustls::ServerConfig;
use tokio::{sync::watch, task::JoinSet, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Server};

use crate::{
    admin::{
        audit::AuditTrail, ca::Cas, clock::Clocks, deckies::Deckies, deployments::Deployments,
        devices::Devices, events::EventStreams, hosts::Hosts, kills::KillSwitch, members::Members,
        moons::Moons, networks::Networks, operators::Operators,
    },
    agents::Agents,
    audit,
    ca::work::{self, Work, WorkError},
    caller,
    calls::CallLayer,
    central::{self, Central},
    checkpoint,
    config::Config,
    descriptors,
    desk::Desk,
    event::{EventError, Events, Severity},
    expiry,
    gate::{Calls, GateLayer},
    kill::progress::{self, Kills},
    listen::{Door, Name, Refusals, admit},
    liveness::{Liveness, SCAN_EVERY},
    local,
    metrics::Metrics,
    monitor, moon,
    network_watch::{self, Watchers},
    node::Nodes,
    observed::Observed,
    record::{MasterRecord, Record as _, RecordError, key},
    renewal::Pace,
    sessions::{LAST_WORD, Sessions},
    signer::{Signer, SignerError},
    signing::watch_signer,
    store::{Compacted, End, ReadError, Revision, Store, Watch},
    time::{self as master_time, Time as MasterTime},
    views::Views,
};

/// A chunk of a body, and what is around it.
const MOST_MESSAGE: usize = MOST_CHUNK_BYTES + 1024;
/// The longest request of an operator: a site of 1,000 deckies has about 300 KiB.
const MOST_ADMIN_MESSAGE: usize = 4 * 1024 * 1024;
/// How many calls one agent's connection has open at once: its session, and a renewal or a body beside it.
const AGENT_STREAMS: u32 = 16;
/// How many calls one operator's connection has open at once: some that watch, and one that asks.
const ADMIN_STREAMS: u32 = 64;
/// How many connections operators have open at once, handshakes among them. Agents have theirs beside these.
const ADMIN_CONNECTIONS: usize = 256;
/// The longest request to the health service, or to reflection: a name.
const MOST_NAME: usize = 4 * 1024;
/// What a client may send of one call, and of all on its connection, before it is read: a chunk or the longest beat, twice.
const CALL_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// The longest frame a client may send, the shortest limit that HTTP/2 knows.
const MOST_FRAME: u32 = 16 * 1024;
/// The most bytes of a call's headers. Ours have 200.
const MOST_HEADERS: u32 = 8 * 1024;
/// So many calls that a client opens and takes back may wait to be noticed; with one more the connection is closed.
const MOST_TAKEN_BACK: usize = 20;
/// How often connections without a call are looked for.
const IDLE_LOOK: Duration = Duration::from_secs(5);
/// Operators' connections are tried with a ping this often.
const ADMIN_PING: Duration = Duration::from_secs(30);
/// How long open connections have after a stop was asked for. Together with the checkpoint it stays under 10 s.
const GOODBYE: Duration = Duration::from_secs(3);
/// Then tasks have this long, and the last two of them once more.
const LAST: Duration = Duration::from_millis(1500);
/// The views and the event file.
const LATE_TASKS: usize = 2;

/// Where connections come from.
pub struct Doors {
    /// Agents'.
    pub agents: Door,
    /// Operators'.
    pub admin: Door,
    /// Of metrics and health.
    pub monitor: Door,
    /// The way to ZeroTier Central; the one that the settings say when there is none.
    pub central: Option<Arc<dyn Dial>>,
    /// Whether `picket-master admin-bundle` may ask over a socket in the data directory.
    pub local: bool,
}

/// Why a master does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record in it cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The data directory was never set up.
    #[error("{} holds no master; run `picket-master init` first", .0.display())]
    NotInitialised(PathBuf),
    /// The store is of a master with another CA.
    #[error("the store in {} is of a master with another CA than ca.pem there; was it restored from another master's snapshot? What was there before is kept beside it", .0.display())]
    OtherAuthority(PathBuf),
    /// The CA cannot be used.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// Nor the one that took its place.
    #[error(transparent)]
    Succession(#[from] WorkError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// Events cannot be kept.
    #[error(transparent)]
    Events(#[from] EventError),
    /// A descriptor of this program is broken.
    #[error("server reflection cannot be set up; this is a fault of picket-master")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// What the time is cannot be kept.
    #[error("what the time is cannot be kept for the next start; look at the data directory")]
    Time(#[source] FileError),
    /// The checkpoint could not be written at the end.
    #[error("the state hosts reported could not be kept; they report it again")]
    Checkpoint(#[source] FileError),
    /// The store failed while the master ran.
    #[error("the store failed: {0}; look at the disk, then start again")]
    Store(Arc<str>),
    /// A task ended that must not.
    #[error("the {0} task ended; this is a fault of picket-master")]
    Task(&'static str),
}

/// Runs a master on the `store` of its data directory until `stop`, or until something fails that it cannot go on
/// without; then the store is closed. `ready` is called when its doors are open.
///
/// The store is opened by the caller, who may keep a handle: what is committed through that one takes the same way.
///
/// # Errors
/// When the data directory cannot be used, or the store fails.
pub async fn run(
    config: Config,
    store: Store,
    doors: Doors,
    clock: Clock,
    ready: impl FnOnce() + Send,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let result = serve(&config, doors, clock, ready, stop, store.clone()).await;
    store.close().await;
    result
}

async fn serve(
    config: &Config,
    doors: Doors,
    clock: Clock,
    ready: impl FnOnce() + Send,
    stop: CancellationToken,
    store: Store,
) -> Result<(), RunError> {
    let data_dir = config.data_dir.as_path();
    if let Some(why) = store.healed() {
        tracing::warn!(why, "the index was made anew from the journal");
    }
    if store.frozen() {
        tracing::warn!(
            "the store was restored without its latest changes and is frozen: nothing is changed or pushed"
        );
    }
    let entry = store
        .get(&key::master())?
        .ok_or_else(|| RunError::NotInitialised(data_dir.to_owned()))?;
    let record = MasterRecord::of(&entry)?;
    let signer = Arc::new(Signer::load(data_dir, &config.ca, &clock).await?);
    if record.authority.is_some_and(|of| of != signer.fingerprint()) {
        return Err(RunError::OtherAuthority(data_dir.to_owned()));
    }
    let time = MasterTime::open(data_dir, clock, store.opened_at()).map_err(RunError::Time)?;
    let clock = time.clock();
    store.date_by(clock.clone());
    let (entries, watch) = store.follow("")?;
    let views = Arc::new(Views::load(&entries, watch.revision())?);
    drop(entries);
    let (events, event_file) = Events::open(data_dir)?;
    let addresses = if config.advertise.is_empty() {
        &record.addresses
    } else {
        &config.advertise
    };
    let succession = views.read().ca.record().map(|(record, _)| record.clone());
    let (dir, names, opener) = (data_dir.to_owned(), record.names.clone(), Arc::clone(&signer));
    let times = (record.created_at, clock.now());
    let opened =
        tokio::task::spawn_blocking(move || Work::open(dir, names, &opener, succession.as_ref(), times));
    let ca = opened
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let desk = Arc::new(Desk {
        liveness: Mutex::new(Liveness::new(config.grace, clock.monotonic())),
        turn: tokio::sync::Mutex::new(()),
        addresses: addresses.clone(),
        beat_interval: config.beat_interval,
        observed: Observed::default(),
        nodes: Nodes::default(),
        central: Central::new(config.central.clone(), doors.central.clone()),
        watchers: Watchers::default(),
        kills: Kills::default(),
        news: watch::Sender::new(()),
        pace: Pace::default(),
        device_pace: Pace::default(),
        sessions: Arc::new(Sessions::default()),
        calls: Arc::new(Calls::default()),
        metrics: Metrics::new(),
        refusals: audit::refusal::Refusals::default(),
        heads: audit::head::Heads::default(),
        clock,
        time,
        store,
        views,
        signer,
        ca,
        events,
    });
    checkpoint::read(&desk, data_dir);
    if desk.store.healed().is_some() {
        desk.say(
            Severity::Warning,
            "store.healed",
            "store",
            "the index was made anew from the journal",
        );
    }

    let last = CancellationToken::new();
    let mut house = House {
        desk: Arc::clone(&desk),
        tasks: JoinSet::new(),
        stop: CancellationToken::new(),
    };
    let admin_addresses = record.admin_addresses.clone();
    let sessions = TaskTracker::new();
    let tls = Listeners::new(&desk)?;
    let refusals = Arc::new(Refusals::default());
    house.keep("views", follow(Arc::clone(&desk), watch, last.clone()));
    house.keep("events", event_file.run(last.clone()));
    house.keep("clock", master_time::watch(Arc::clone(&desk), house.stop.clone()));
    house.keep("liveness", watch_silence(Arc::clone(&desk), house.stop.clone()));
    house.keep(
        "checkpoints",
        write_checkpoints(Arc::clone(&desk), data_dir.to_owned(), house.stop.clone()),
    );
    house.keep(
        "refusals",
        report_refusals(Arc::clone(&desk), Arc::clone(&refusals), house.stop.clone()),
    );
    house.keep("expiry", expiry::tend(Arc::clone(&desk), house.stop.clone()));
    house.keep("audit", audit::keep(Arc::clone(&desk), house.stop.clone()));
    house.keep("central", central::tend(Arc::clone(&desk), house.stop.clone()));
    house.keep(
        "networks",
        network_watch::tend(Arc::clone(&desk), house.stop.clone()),
    );
    house.keep("signer", watch_signer(Arc::clone(&desk), house.stop.clone()));
    house.keep("kills", progress::follow(Arc::clone(&desk), house.stop.clone()));
    house.keep("moons", moon::follow(Arc::clone(&desk), house.stop.clone()));
    house.keep("ca", work::tend(Arc::clone(&desk), house.stop.clone()));
    house.keep(
        "monitor",
        monitor::serve(Arc::clone(&desk), doors.monitor, house.stop.clone()),
    );
    if doors.local {
        match local::listen(data_dir) {
            Ok(listener) => {
                house.keep(
                    "local",
                    local::serve(Arc::clone(&desk), listener, record, house.stop.clone()),
                );
            }
            // A socket's path has at most 107 bytes.
            Err(error) => tracing::warn!(
                %error,
                "no socket for `picket-master admin-bundle`; stop the master to run it, or give it a shorter data directory"
            ),
        }
    }
    house.keep("idle", close_idle(Arc::clone(&desk), house.stop.clone()));
    let agents = admit(
        Name {
            listener: "agents",
            most: descriptors::connections(config.most_connections),
        },
        doors.agents,
        tls.agents,
        Arc::clone(&desk),
        Arc::clone(&refusals),
        house.stop.clone(),
        &sessions,
    );
    house.keep(
        "agents",
        serve_agents(Arc::clone(&desk), agents, sessions.clone(), house.stop.clone()),
    );
    let admin = admit(
        Name {
            listener: "admin",
            most: ADMIN_CONNECTIONS,
        },
        doors.admin,
        tls.admin,
        Arc::clone(&desk),
        refusals,
        house.stop.clone(),
        &sessions,
    );
    house.keep(
        "admin",
        serve_admin(Arc::clone(&desk), admin_addresses, admin, house.stop.clone())?,
    );
    ready();
    let result = house.until(stop).await;
    house.close(&sessions, &last).await;
    let kept = checkpoint::write(&desk, data_dir)
        .await
        .map_err(RunError::Checkpoint);
    // What the master stopped for comes before what it could not do at the end.
    result.and(kept)
}

struct House {
    desk: Arc<Desk>,
    tasks: JoinSet<&'static str>,
    /// Fires when the master stops.
    stop: CancellationToken,
}

impl House {
    /// Runs a task that must not end before the stop.
    fn keep(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits for the stop, or for what the master cannot go on without.
    async fn until(&mut self, stop: CancellationToken) -> Result<(), RunError> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            end = self.desk.store.ended() => Err(match end {
                End::Failed(why) => RunError::Store(why),
                End::Closed => RunError::Task("store"),
            }),
            ended = self.tasks.join_next() => Err(match ended {
                Some(Ok(name)) => RunError::Task(name),
                Some(Err(panic)) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
                Some(Err(_)) | None => RunError::Task("unknown"),
            }),
        }
    }

    /// Says goodbye to sessions, then closes what is still open. The views and the event file go last: what the others do
    /// while they end passes through them.
    async fn close(mut self, sessions: &TaskTracker, last: &CancellationToken) {
        self.stop.cancel();
        sessions.close();
        drop(time::timeout(GOODBYE, sessions.wait()).await);
        self.desk.sessions.close_all();
        let others =
            async { while self.tasks.len() > LATE_TASKS && self.tasks.join_next().await.is_some() {} };
        drop(time::timeout(LAST, others).await);
        // After the last change, and while the event file still takes something.
        if time::timeout(LAST, audit::settle(&self.desk)).await.is_err() {
            tracing::warn!("the last refusals are not in the audit trail");
        }
        last.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if time::timeout(LAST, all).await.is_err() {
            tracing::warn!("some tasks did not end in time and are dropped");
            self.tasks.abort_all();
        }
    }
}

/// The TLS of the two doors.
struct Listeners {
    agents: Arc<ServerConfig>,
    admin: Arc<ServerConfig>,
}

impl Listeners {
    fn new(desk: &Arc<Desk>) -> Result<Self, RunError> {
        let clock = desk.clock.clone();
        let time: Time = Arc::new(move || clock.unix());
        let door = |role| {
            let pins = Arc::clone(&desk.views);
            server_config(
                desk.ca.presented(),
                desk.ca.authorities(),
                role,
                pins,
                Arc::clone(&time),
            )
            .map(Arc::new)
        };
        Ok(Self {
            agents: door(Role::Host)?,
            admin: door(Role::Operator)?,
        })
    }
}

/// Takes every commit into the views, and tells those whom it concerns.
async fn follow(desk: Arc<Desk>, mut watch: Watch, stop: CancellationToken) {
    let mut closing = JoinSet::new();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = closing.join_next() => continue,
            next = watch.next() => next,
        };
        let taken = match next {
            Ok(Some(change)) => desk.views.apply(&change.writes, change.revision),
            Ok(None) => return,
            Err(Compacted { .. }) => match desk.store.follow("") {
                Ok((entries, again)) => {
                    let revision: Revision = again.revision();
                    watch = again;
                    desk.views.reload(&entries, revision)
                }
                Err(error) => {
                    tracing::error!(%error, "the views cannot be loaded again");
                    return;
                }
            },
        };
        let affected = match taken {
            Ok(affected) => affected,
            Err(error) => {
                tracing::error!(%error, "the views cannot take a commit in");
                return;
            }
        };
        let spent = desk.pass_on(&affected);
        if !spent.is_empty() {
            closing.spawn(async move {
                time::sleep(LAST_WORD).await;
                spent.iter().for_each(CancellationToken::cancel);
            });
        }
    }
}

async fn watch_silence(desk: Arc<Desk>, stop: CancellationToken) {
    while !slept(SCAN_EVERY, &stop).await {
        let scan = desk.liveness().expire(desk.clock.monotonic());
        for transition in scan.transitions {
            desk.say_transition(transition, false);
        }
        if let Some((silent, of)) = scan.mass_silence {
            let message =
                format!("{silent} of {of} hosts fell silent together; look at this master's network first");
            desk.say(Severity::Alert, "hosts.mass-silence", "hosts", &message);
        }
    }
}

async fn write_checkpoints(desk: Arc<Desk>, data_dir: PathBuf, stop: CancellationToken) {
    while !slept(checkpoint::EVERY, &stop).await {
        if let Err(error) = checkpoint::write(&desk, &data_dir).await {
            tracing::warn!(%error, "the state hosts reported could not be kept; tried again in a minute");
        }
    }
}

async fn report_refusals(desk: Arc<Desk>, refusals: Arc<Refusals>, stop: CancellationToken) {
    while !slept(Refusals::EVERY, &stop).await {
        refusals.report(&desk);
    }
    refusals.report(&desk);
}

async fn close_idle(desk: Arc<Desk>, stop: CancellationToken) {
    while !slept(IDLE_LOOK, &stop).await {
        let closed = desk.sessions.close_idle(desk.clock.monotonic());
        desk.metrics
            .idle
            .increment(u64::try_from(closed).unwrap_or(u64::MAX));
    }
}

async fn slept(span: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = time::sleep(span) => false,
    }
}

type Connections = tokio_stream::wrappers::ReceiverStream<Result<crate::listen::Guarded, std::io::Error>>;

async fn serve_agents(
    desk: Arc<Desk>,
    connections: Connections,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let agents = Agents {
        desk: Arc::clone(&desk),
        tasks,
        stop: stop.clone(),
    };
    let service = AgentServiceServer::new(agents).max_decoding_message_size(MOST_MESSAGE);
    health.set_serving::<AgentServiceServer<Agents>>().await;
    let health_service = health_service.max_decoding_message_size(MOST_NAME);
    let served = bounded(AGENT_STREAMS)
        .layer(CallLayer(Arc::clone(&desk.sessions)))
        .layer(GateLayer(Arc::clone(&desk)))
        .add_service(service)
        .add_service(InterceptedService::new(health_service, working_gate(desk)))
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the agents' listener failed");
    }
}

fn serve_admin(
    desk: Arc<Desk>,
    addresses: Vec<String>,
    connections: Connections,
    stop: CancellationToken,
) -> Result<BoxFuture<'static, ()>, RunError> {
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = described()
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(RunError::Reflection)?;
    // What most clients speak, Python's among them.
    let older_reflection = described()
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .build_v1alpha()
        .map_err(RunError::Reflection)?;
    Ok(Box::pin(async move {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<HostServiceServer<Hosts>>().await;
        let events = EventStreams {
            desk: Arc::clone(&desk),
            stop: stop.clone(),
        };
        let kills = KillSwitch {
            desk: Arc::clone(&desk),
            stop: stop.clone(),
        };
        let trail = AuditTrail::new(Arc::clone(&desk), stop.clone());
        let deployments = DeploymentServiceServer::new(Deployments(Arc::clone(&desk)));
        let served = bounded(ADMIN_STREAMS)
            .http2_keepalive_interval(Some(ADMIN_PING))
            .layer(CallLayer(Arc::clone(&desk.sessions)))
            .layer(audit::asked::Refused(Arc::clone(&desk)))
            .layer(GateLayer(Arc::clone(&desk)))
            .add_service(HostServiceServer::new(Hosts(Arc::clone(&desk))))
            .add_service(NetworkServiceServer::new(Networks(Arc::clone(&desk))))
            .add_service(MemberServiceServer::new(Members(Arc::clone(&desk))))
            .add_service(DeviceServiceServer::new(Devices(Arc::clone(&desk))))
            .add_service(KillServiceServer::new(kills))
            .add_service(MoonServiceServer::new(Moons(Arc::clone(&desk))))
            .add_service(deployments.max_decoding_message_size(MOST_ADMIN_MESSAGE))
            .add_service(CaServiceServer::new(Cas(Arc::clone(&desk))))
            .add_service(ClockServiceServer::new(Clocks(Arc::clone(&desk))))
            .add_service(DeckyServiceServer::new(Deckies(Arc::clone(&desk))))
            .add_service(OperatorServiceServer::new(Operators { desk, addresses }))
            .add_service(EventServiceServer::new(events))
            .add_service(AuditServiceServer::new(trail))
            .add_service(health_service.max_decoding_message_size(MOST_NAME))
            .add_service(reflection.max_decoding_message_size(MOST_NAME))
            .add_service(older_reflection.max_decoding_message_size(MOST_NAME))
            .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin listener failed");
        }
    }))
}

/// A server that takes no more of a connection than it must: what a client sends is bounded before it is looked at.
fn bounded(streams: u32) -> Server {
    Server::builder()
        .max_concurrent_streams(streams)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MOST_FRAME)
        .http2_max_header_list_size(MOST_HEADERS)
        .http2_max_pending_accept_reset_streams(Some(MOST_TAKEN_BACK))
        .http2_max_local_error_reset_streams(Some(MOST_TAKEN_BACK))
}

/// Beside the gate, for what only hosts at work may call: whoever may renew may do nothing else.
fn working_gate(desk: Arc<Desk>) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |request| {
        caller::working(caller::host(&desk, &request)?)?;
        Ok(request)
    }
}
