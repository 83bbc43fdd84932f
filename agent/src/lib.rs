//! The Picket agent: reports what a worker machine sees, and makes true on it what its master wants.
//!
//! It dials its master and listens on no port. [`run`] is the house; a test calls the same [`run`] with a network, a
//! clock and services of its own.
//!
//! | task | reads | gives |
//! | --- | --- | --- |
//! | session | sections, reports | documents, the state of the connection |
//! | ZeroTier reader | the local service | two sections |
//! | witnesses | the members to ask | what became of them, in a section |
//! | a reconciler for each document | the document | its report; that of the shard also the deckies' section |
//! | decky watcher | Docker's events, the progress of a pass | calls for a pass, the deckies' section |
//! | status writer | all of that | `status.json` |

pub mod config;
pub mod deckies;
pub mod enroll;
pub mod identity;
pub mod machine;
pub mod rejoin;
pub mod request;
pub mod state;
pub mod status;
pub mod witness;
pub mod zerotier;

mod beat;
mod desired;
mod managed;
mod master;
mod master_time;
mod moon;
mod node;
mod observed;
mod path;
mod question;
mod reconcile;
mod session;
mod supervisor;
mod trust;
mod version;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt, fs, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use picket_clock::Clock;
use picket_durable::FileError;
use picket_link::Dial;
use picket_proto::{beat::SectionKind, document::Kind};
use picket_zerotier::home::Home;
use tokio::{
    sync::{Notify, watch},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    deckies::{Owner, engine::Engine, form::BaseImage, pass::Deckies},
    desired::{Desired, Reports},
    identity::{IdentityError, IdentityStore},
    machine::Machine,
    managed::Managed,
    master_time::MasterTime,
    moon::OwnMoon,
    node::LocalNode,
    observed::Observed,
    path::Path,
    question::Question,
    reconcile::{
        members::{Due, Kept, Looked, MemberReconciler},
        networks::{NetworkReconciler, guard::Guard, moons::Moons},
        shard,
    },
    session::{Looks, Session, Which},
    state::{StateDir, StateError},
    status::{Connection, State},
    witness::{Prober, Witnesses},
    zerotier::{Known, Reach, Told, governance::Governance},
};
pub use crate::{master::MasterError, session::Farewell, version::VersionError};

/// How long the first session waits for the first reading of the local services, so that its first beat is whole.
const FIRST_READING: Duration = Duration::from_secs(5);
/// How long tasks may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// What an agent works with: its clock, the ways out of it, and the machine.
pub struct Parts {
    /// The clock.
    pub clock: Clock,
    /// The way to the master.
    pub dial: Arc<dyn Dial>,
    /// The local ZeroTier service, unless it is switched off.
    pub zerotier: Option<Reach>,
    /// The Docker Engine, unless it is switched off.
    pub engine: Option<Arc<dyn Engine>>,
    /// How other members are asked whether they are there.
    pub prober: Arc<dyn Prober>,
    /// The machine.
    pub machine: Arc<Machine>,
}

/// Why an agent cannot run, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A part of the agent ended.
    #[error("the agent's {0} ended by itself, which is an error in the agent; its log says more")]
    Ended(&'static str),
}

impl RunError {
    /// Whether starting again is no use before the machine is enrolled, or enrolled anew.
    #[must_use]
    pub fn needs_enrolment(&self) -> bool {
        matches!(
            self,
            Self::Identity(
                IdentityError::NotEnrolled | IdentityError::HalfEnrolled | IdentityError::Damaged { .. }
            )
        )
    }
}

/// Runs an agent until `stop`, or until its host is retired.
///
/// # Errors
/// [`RunError`].
pub async fn run(config: Config, parts: Parts, stop: CancellationToken) -> Result<Farewell, RunError> {
    // A machine that was never enrolled stays as it is.
    if !picket_durable::is_there(config.state_dir.join("identity"))? {
        return Err(IdentityError::NotEnrolled.into());
    }
    let state = StateDir::open(&config.state_dir)?;
    let identities = IdentityStore::open(state.identity())?;
    let found = identities.load()?;
    let Some(identity) = found.current else {
        return Err(match found.next {
            Some(_) => IdentityError::HalfEnrolled.into(),
            None => IdentityError::NotEnrolled.into(),
        });
    };
    tracing::info!(host = %identity.name, id = %identity.host, version = picket_proto::VERSION, "starts");

    let (desired, problems) = Desired::open(state.desired())?;
    let desired = Arc::new(desired);
    let managed: Managed = Managed::open(state.managed())?;
    let path = Path::default();
    let guard = Guard::open(state.guard(), parts.clock.monotonic())?;
    let observed = Observed::new(parts.machine.clone());
    observed.complain("kept documents", problems);
    let (time, problems) = MasterTime::open(state.time(), parts.clock.clone());
    observed.complain("kept time", problems);
    let (kept, problems) = Kept::open(state.governed(), parts.clock.now());
    observed.complain("kept members", problems);
    let governance = Governance::new(parts.clock.clone());
    let looks = Looks {
        members: Question::default(),
        reader: parts.zerotier.as_ref().map(|_| Question::default()),
    };
    let reports = watch::Sender::new(Reports::new());
    let connection = watch::Sender::new(Connection {
        state: State::Connecting,
        since: parts.clock.now(),
        address: None,
        last_ack: None,
        problem: None,
    });

    let house = House::new(stop.child_token());
    let changed = Arc::new(Notify::new());
    let told = Told::new(changed.clone());
    let moons = Moons {
        home: config.zerotier.as_ref().map(|service| Home::new(&service.home)),
        managed: Managed::open(state.moons())?,
        own: OwnMoon {
            key: state.moon_key(),
            definition: state.own_moon(),
        },
        told: told.clone(),
        clock: parts.clock.clone(),
    };
    if let Some(reach) = parts.zerotier.clone() {
        let known = Known {
            networks: managed.clone(),
            moons: moons.managed.clone(),
            path: path.clone(),
            told: told.clone(),
            governance: governance.clone(),
            asked: looks.reader.clone().unwrap_or_default(),
        };
        let reading = zerotier::watch(reach, known, observed.clone(), house.stop.clone());
        house.spawn("ZeroTier reader", reading);
        let witnesses = Witnesses {
            prober: parts.prober,
            wanted: desired.watch(Kind::Networks),
            observed: observed.clone(),
            told,
        };
        house.spawn("witness", witnesses.run(house.stop.clone()));
    }
    let networks = NetworkReconciler {
        reach: parts.zerotier.clone(),
        managed,
        allowed: config.networks.clone(),
        take: config.take.clone(),
        guard,
        path: path.clone(),
        moons,
        observed: observed.clone(),
        changed: changed.clone(),
        made: BTreeMap::new(),
        cut_off: BTreeSet::new(),
    };
    let reconcile = |kind| (desired.watch(kind), reports.clone(), house.stop.clone());
    let (wanted, out, end) = reconcile(Kind::Networks);
    house.spawn(
        "reconciler of networks",
        reconcile::run(networks, wanted, out, end),
    );
    let members = MemberReconciler {
        reach: parts.zerotier.clone(),
        clock: parts.clock.clone(),
        time: time.clone(),
        governance,
        kept,
        changed,
        due: Due::Never,
        looked: Looked::default(),
        asked: looks.members.clone(),
    };
    let (wanted, out, end) = reconcile(Kind::Members);
    house.spawn("reconciler of members", reconcile::run(members, wanted, out, end));
    let reads_docker = parts.engine.is_some();
    let (wanted, out, end) = reconcile(Kind::Shard);
    match parts.engine {
        Some(engine) => {
            let owner = Owner {
                trust_domain: identity.trust_domain.to_string(),
                host: identity.host,
            };
            let base = BaseImage {
                image: config.base_image.clone(),
                ..BaseImage::default()
            };
            let deckies = Deckies::new(
                engine.clone(),
                owner.clone(),
                base,
                config.deckies.clone(),
                parts.clock.clone(),
            );
            let woken = Arc::new(Notify::new());
            house.spawn(
                "listener to Docker",
                shard::listen(deckies.changes(), woken.clone(), house.stop.clone()),
            );
            let follower = shard::Follower {
                engine,
                owner,
                progress: deckies.progress(),
                wanted: wanted.clone(),
                observed: observed.clone(),
            };
            house.spawn("follower of a pass", follower.run(house.stop.clone()));
            let reconciler = shard::ShardReconciler {
                deckies,
                observed: observed.clone(),
                woken,
            };
            house.spawn(
                "reconciler of the shard",
                reconcile::run(reconciler, wanted, out, end),
            );
        }
        None => house.spawn(
            "reconciler of the shard",
            reconcile::run(shard::NoDocker, wanted, out, end),
        ),
    }
    let writer = status::Writer {
        path: state.status(),
        clock: parts.clock.clone(),
        host: identity.host,
        name: identity.name.clone(),
        connection: connection.subscribe(),
        reports: reports.subscribe(),
        observed: observed.clone(),
    };
    house.spawn("status writer", writer.run(house.stop.clone()));
    house.spawn(
        "report to the service manager",
        supervisor::inform(connection.subscribe(), house.stop.clone()),
    );

    let expected = [
        parts.zerotier.as_ref().map(|_| SectionKind::ZeroTier),
        reads_docker.then_some(SectionKind::Deckies),
    ];
    let session = Session {
        reach: master::Reach {
            clock: parts.clock,
            dial: parts.dial,
            addresses: config.masters,
        },
        identities,
        node: LocalNode::new(
            config.zerotier.map(|service| Home::new(service.home)),
            observed.clone(),
        ),
        machine: parts.machine,
        observed: observed.clone(),
        time,
        desired,
        reports: reports.subscribe(),
        connection,
        path,
        looks,
        renewed: None,
        which: Which::Current,
        stop: house.stop.clone(),
    };
    let sessions = async {
        let mut sections = observed.watch();
        let whole =
            sections.wait_for(|sections| expected.iter().flatten().all(|kind| sections.contains_key(kind)));
        // Without them the first beat says less, and the next one all of it.
        drop(time::timeout(FIRST_READING, whole).await);
        session.run().await
    };
    let result = sessions.await;
    house.end().await?;
    let farewell = result?;
    if farewell == Farewell::Retired {
        // Another master's rules, and its time, have nothing to do with these.
        for path in [state.governed(), state.time()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "could not be removed");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(farewell)
}

/// The tasks of an agent. One that ends before it is told to ends them all.
struct House {
    stop: CancellationToken,
    tracker: TaskTracker,
    ended: Arc<Mutex<Option<&'static str>>>,
}

impl House {
    fn new(stop: CancellationToken) -> Self {
        Self {
            stop,
            tracker: TaskTracker::new(),
            ended: Arc::default(),
        }
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let leaving = Leaving {
            name,
            stop: self.stop.clone(),
            ended: self.ended.clone(),
        };
        self.tracker.spawn(async move {
            let _leaving = leaving;
            task.await;
        });
    }

    /// Tells all tasks to end and waits for them.
    async fn end(self) -> Result<(), RunError> {
        self.stop.cancel();
        self.tracker.close();
        if time::timeout(GRACE, self.tracker.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        let ended = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.map_or(Ok(()), |name| Err(RunError::Ended(name)))
    }
}

/// Dropped when a task ends, however it does.
struct Leaving {
    name: &'static str,
    stop: CancellationToken,
    ended: Arc<Mutex<Option<&'static str>>>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.ended
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(self.name);
            self.stop.cancel();
        }
    }
}

/// An error and its causes in one line.
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        use fmt::Write as _;
        write!(text, ": {error}").expect("a String takes every write");
        cause = error.source();
    }
    text
}
