//! Reads the local ZeroTier service: the node, its networks and peers, and the controller where it hosts networks.
//!
//! In: the service, and pokes after the agent's own actions. Out: two sections of the beat. The service reports no
//! changes by itself. Its list of networks is asked for every second, since that is where changes matter, and all of it
//! every 30 s and after each action of ours; members that someone else changed are seen within those 30 s.

pub(crate) mod condition;
mod controller;
pub(crate) mod governance;

use std::{collections::BTreeMap, fs, io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use picket_proto::{
    status::{JoinedNetwork, OrbitedMoon, Peer, ServiceState, ZeroTierStatus},
    witness::Witness,
};
use picket_zerotier::{
    NodeId,
    home::{Home, HomeError},
    node::{Joined, Node},
    service::{Error, Service},
    world::World,
};
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use self::{controller::LastSeen, governance::Governance};
use crate::{
    managed::Managed,
    observed::Observed,
    path::Path,
    question::{Answer, Question},
    sentence,
};

/// How often the list of networks is looked at.
const GLANCE: Duration = Duration::from_secs(1);
/// How often everything is read, before jitter.
const READ: Duration = Duration::from_secs(30);
/// What a service writes when it starts, and how much of it there can be.
const PID: &str = "zerotier-one.pid";
const LONGEST_PID: u64 = 32;

/// Where the local service is.
#[derive(Debug, Clone)]
pub enum Reach {
    /// It runs in this home; token and port are read anew for each use, since both may change.
    Home(Home),
    /// It is reached in some other way.
    Service(Service),
}

/// Why the local service cannot be asked, or has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ZeroTierError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Service(#[from] Error),
}

impl Reach {
    /// The service in `home`, at `address` when that is not loopback.
    #[must_use]
    pub fn home(home: PathBuf, address: Option<IpAddr>) -> Self {
        let home = Home::new(home);
        Self::Home(match address {
            Some(address) => home.reached_at(address),
            None => home,
        })
    }

    pub(crate) fn service(&self) -> Result<Service, ZeroTierError> {
        match self {
            Self::Home(home) => Ok(home.service()?),
            Self::Service(service) => Ok(service.clone()),
        }
    }

    /// What tells one start of the service from another: its process id, and when it wrote that down.
    pub(crate) fn mark(&self) -> Option<String> {
        let path = match self {
            Self::Home(home) => home.directory().join(PID),
            Self::Service(_) => return None,
        };
        let text = picket_durable::read_bounded(&path, LONGEST_PID).ok()?;
        let written = fs::metadata(&path).and_then(|about| about.modified()).ok()?;
        let written = written.duration_since(std::time::UNIX_EPOCH).ok()?;
        let pid = String::from_utf8_lossy(&text).trim().to_owned();
        Some(format!(
            "{pid} {}.{:09}",
            written.as_secs(),
            written.subsec_nanos()
        ))
    }
}

/// Whether nobody can be asked anything at present: the next question would wait for the same answer.
pub(crate) fn is_away(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::TimedOut { .. } | Error::Refused { .. } => true,
        Error::Broken { .. }
        | Error::Failed { .. }
        | Error::NotFound { .. }
        | Error::NoTun { .. }
        | Error::Disagrees { .. }
        | Error::Foreign { .. }
        | Error::TooMany { .. }
        | Error::Unsupported { .. } => false,
    }
}

impl ZeroTierError {
    /// Whether nobody can be asked anything at present.
    pub(crate) fn is_away(&self) -> bool {
        match self {
            Self::Home(_) => true,
            Self::Service(error) => is_away(error),
        }
    }

    /// Whether a join that failed so surely was none: the service did not hear of it, or could not do it.
    pub(crate) fn changed_nothing(&self) -> bool {
        match self {
            Self::Home(_) | Self::Service(Error::Refused { .. } | Error::NoTun { .. }) => true,
            // A connection that broke after the request was sent says nothing about what became of it.
            Self::Service(Error::Unreachable { cause, .. }) => {
                matches!(
                    cause.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                )
            }
            Self::Service(
                Error::Broken { .. }
                | Error::Failed { .. }
                | Error::NotFound { .. }
                | Error::TimedOut { .. }
                | Error::Disagrees { .. }
                | Error::Foreign { .. }
                | Error::TooMany { .. }
                | Error::Unsupported { .. },
            ) => false,
        }
    }

    /// What a beat says of a service that cannot be asked.
    fn state(&self) -> ServiceState {
        condition::state(self)
    }
}

/// What other tasks tell for the section, and a poke that makes the service be read at once. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    words: watch::Sender<Words>,
    poke: Arc<Notify>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Words {
    own_moon: Bytes,
    witnesses: Vec<Witness>,
}

impl Told {
    pub(crate) fn new(poke: Arc<Notify>) -> Self {
        Self {
            words: watch::Sender::new(Words::default()),
            poke,
        }
    }

    /// The moon that this host is the root of, as it signed it.
    pub(crate) fn own_moon(&self, own: Option<&(NodeId, World)>) {
        let own_moon = own.map(|(_, world)| world.to_bytes()).unwrap_or_default();
        self.tell(|words| words.own_moon = own_moon.into());
    }

    /// What became of the members this host witnesses.
    pub(crate) fn witnesses(&self, witnesses: Vec<Witness>) {
        self.tell(|words| words.witnesses = witnesses);
    }

    pub(crate) fn poke(&self) {
        self.poke.notify_one();
    }

    fn tell(&self, change: impl FnOnce(&mut Words)) {
        let news = self.words.send_if_modified(|words| {
            let before = words.clone();
            change(words);
            *words != before
        });
        if news {
            self.poke();
        }
    }
}

/// What the agent itself knows of the service's networks and moons.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// The networks that it joined.
    pub(crate) networks: Managed,
    /// The moons that it told the node to orbit.
    pub(crate) moons: Managed<NodeId>,
    /// Where the session goes.
    pub(crate) path: Path,
    pub(crate) told: Told,
    /// What the reconciler of members knows.
    pub(crate) governance: Governance,
    /// Somebody wants everything read now.
    pub(crate) asked: Question,
}

/// Reads until `stop`.
pub(crate) async fn watch(reach: Reach, known: Known, observed: Observed, stop: CancellationToken) {
    let mut seen = Vec::new();
    let mut last = LastSeen::new();
    let mut due = Instant::now();
    loop {
        if Instant::now() >= due {
            let asked = known.asked.take();
            tokio::select! {
                (networks, answer) = read(&reach, &known, &observed, &mut last) => {
                    seen = networks;
                    asked.answer(&answer);
                }
                () = stop.cancelled() => return,
            }
            due = Instant::now() + READ.mul_f64(0.9 + 0.2 * fastrand::f64());
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = known.told.poke.notified() => due = Instant::now(),
            () = known.asked.asked() => due = Instant::now(),
            () = time::sleep(GLANCE.min(due.saturating_duration_since(Instant::now()))) => {
                // A service that is gone shows at the next whole reading; so does its return.
                let asked = async { Ok(reach.service()?.node().networks().await?) };
                match time::timeout(READ, asked).await {
                    Ok(Ok::<_, ZeroTierError>(networks)) => {
                        known.governance.answered();
                        if joined(networks, &known) != seen {
                            due = Instant::now();
                        }
                    }
                    Ok(Err(error)) if !error.is_away() => known.governance.answered(),
                    Ok(Err(_)) | Err(_) => known.governance.missed(),
                }
            }
        }
    }
}

/// Reads everything into its sections, and returns the networks as they were seen, and whether the service could be asked.
async fn read(
    reach: &Reach,
    known: &Known,
    observed: &Observed,
    last: &mut LastSeen,
) -> (Vec<JoinedNetwork>, Answer) {
    let governance = &known.governance;
    let mut answer = Ok(());
    let status = match node(reach, known).await {
        Ok((status, service)) => {
            governance.answered();
            let controller = match status.node {
                Some(id) => controller::read(&service.controller(id), governance, last, observed).await,
                None => None,
            };
            observed.put_controller(controller.as_ref());
            let settings = match reach {
                Reach::Home(home) if controller.is_some() => condition::of_controller(home),
                Reach::Home(_) | Reach::Service(_) => None,
            };
            observed.complain("local.conf", settings.into_iter().collect());
            status
        }
        Err(error) => {
            if error.is_away() {
                governance.missed();
            }
            answer = Err(sentence(&error));
            // What the controller last said is left in place: nobody was authorized or cut off by its silence.
            ZeroTierStatus {
                service: error.state(),
                ..ZeroTierStatus::default()
            }
        }
    };
    let words = known.told.words.borrow().clone();
    let status = ZeroTierStatus {
        own_moon: words.own_moon,
        witnesses: words.witnesses,
        ..status
    };
    observed.put_zerotier(&status);
    (status.networks, answer)
}

async fn node(reach: &Reach, known: &Known) -> Result<(ZeroTierStatus, Service), ZeroTierError> {
    let service = reach.service()?;
    let node: Node = service.node();
    let about = node.status().await?;
    let status = ZeroTierStatus {
        service: ServiceState::Answers,
        node: Some(about.address),
        version: about.version,
        online: about.online,
        networks: joined(node.networks().await?, known),
        peers: peers(node.peers().await?),
        moons: moons(&node.moons().await?, known),
        ..ZeroTierStatus::default()
    };
    Ok((status, service))
}

fn joined(networks: Vec<Joined>, known: &Known) -> Vec<JoinedNetwork> {
    let managed = known.networks.current();
    let carrier = known.path.carrier(&networks).network();
    let mut joined: Vec<_> = networks
        .into_iter()
        .map(|network| JoinedNetwork {
            id: network.id,
            status: network.status.word().to_owned(),
            managed: managed.contains(&network.id),
            name: network.name,
            addresses: network.addresses,
            interface: network.device,
            carries_session: carrier == Some(network.id),
        })
        .collect();
    joined.sort_by_key(|network| network.id);
    joined
}

/// The moons the node has definitions of, and those that we told it to orbit and it waits for.
fn moons(listed: &[picket_zerotier::moon::Moon], known: &Known) -> Vec<OrbitedMoon> {
    let mut moons: BTreeMap<NodeId, bool> = known.moons.current().into_iter().map(|id| (id, true)).collect();
    moons.extend(listed.iter().map(|moon| (moon.id, moon.waiting)));
    let orbited = |(id, waiting): (NodeId, bool)| OrbitedMoon {
        id: id.to_u64(),
        waiting,
    };
    moons.into_iter().map(orbited).collect()
}

fn peers(peers: Vec<picket_zerotier::node::Peer>) -> Vec<Peer> {
    let mut peers: Vec<_> = peers
        .into_iter()
        .map(|peer| Peer {
            node: peer.address,
            direct: peer.paths.iter().any(|path| path.active && !path.expired),
            role: peer.role,
        })
        .collect();
    peers.sort_by_key(|peer| peer.node);
    peers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable(kind: io::ErrorKind) -> Error {
        Error::Unreachable {
            request: "POST /network".into(),
            place: "127.0.0.1:9993".into(),
            cause: kind.into(),
        }
    }

    #[test]
    fn a_service_that_nobody_reaches_ends_a_pass_and_one_that_answers_does_not() {
        assert!(is_away(&unreachable(io::ErrorKind::ConnectionReset)));
        assert!(!is_away(&Error::Failed {
            request: "POST /network".into(),
            place: "127.0.0.1:9993".into(),
            status: 500,
        }));
    }

    #[test]
    fn a_join_that_was_cut_off_half_way_may_have_been_done() {
        let nothing = |kind| ZeroTierError::from(unreachable(kind)).changed_nothing();
        assert!(nothing(io::ErrorKind::ConnectionRefused));
        assert!(!nothing(io::ErrorKind::ConnectionReset) && !nothing(io::ErrorKind::UnexpectedEof));
    }
}
