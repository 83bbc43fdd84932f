//! A master that keeps its state in memory. What it answers follows from what it was asked before, and from time.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use picket_clock::{Clock, Instant};
use picket_link::Incoming;
use picket_pki::{Authority, Csr, Holder, Key, Keyless, lifetime};
use picket_proto::{
    site::Site,
    to_wire_time,
    wire::admin::{
        self as wire, audit_service_server as audit, clock_service_server as clock,
        decky_service_server as decky, deployment_service_server as deployment,
        device_service_server as device, event_service_server as event, host_service_server as host,
        kill_service_server as kill, member_service_server as member, moon_service_server as moon,
        network_service_server as network, operator_service_server as operator,
    },
};
use rustls::ServerConfig;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, transport::Server};
use uuid::Uuid;

use crate::office::MASTER;

mod auditing;
mod deploying;
mod devices;
mod hosts;
mod keeping_time;
mod kills;
mod members;
mod moons;
mod networks;
mod operating;

use self::{kills::Case, members::Seat, moons::Wanted};

/// How many hosts are on a page.
const PAGE: usize = 2;

type Answer<T> = Result<Response<T>, Status>;

#[derive(Clone)]
pub(crate) struct FakeMaster {
    state: Arc<Mutex<State>>,
    authority: Arc<Authority>,
    clock: Clock,
}

/// What the master knows, and how it is told to behave.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) hosts: BTreeMap<String, wire::Host>,
    pub(crate) networks: BTreeMap<String, wire::Network>,
    pub(crate) members: BTreeMap<(String, String), Seat>,
    /// Devices of persons, by node.
    pub(crate) devices: BTreeMap<String, wire::Device>,
    /// In the order in which they were made.
    pub(crate) kills: Vec<Case>,
    pub(crate) moons: BTreeMap<String, Wanted>,
    pub(crate) deployments: BTreeMap<String, Applied>,
    pub(crate) operators: BTreeMap<String, wire::Operator>,
    pub(crate) events: Vec<wire::Event>,
    /// The audit trail, oldest first.
    pub(crate) trail: Vec<picket_proto::audit::Entry>,
    /// By how many seconds its machine's clock jumped.
    pub(crate) jumped: i64,
    /// How long the controller takes; never when absent.
    pub(crate) controller_takes: Option<Duration>,
    /// Whose calls these are; `admin` when empty.
    pub(crate) caller: String,
    /// Other members listen whether a killed one is silent.
    pub(crate) witnesses: bool,
    /// By network, the hosts that reach the master through it.
    pub(crate) own_path: BTreeMap<String, Vec<String>>,
    /// Why a settings file takes an admin.
    pub(crate) needs_admin: String,
    /// What is told beside the counts of a comparison.
    pub(crate) cautions: Vec<String>,
    /// Deckies that will not start.
    pub(crate) broken: BTreeSet<String>,
    /// What hosts say they cannot do.
    pub(crate) problems: Vec<String>,
    /// No host gets anywhere with its deckies.
    pub(crate) is_blocked: bool,
    /// Answers nothing any more.
    pub(crate) is_stuck: bool,
    /// Answers everything with this.
    pub(crate) refuses_with: Option<(tonic::Code, String)>,
    /// After how many events a watcher is told that it cannot keep up.
    pub(crate) watchers_lag_after: Option<usize>,
}

pub(crate) struct Applied {
    site: Site,
    deployment: wire::Deployment,
    at: Instant,
    removed: Option<Instant>,
}

/// Serves until the test ends.
pub(crate) async fn serve(master: FakeMaster, mut incoming: Incoming, config: Arc<ServerConfig>) {
    let (accepted, connections) = tokio::sync::mpsc::channel(8);
    let accepting = async move {
        while let Some((io, from)) = incoming.accept().await {
            let deadline = Duration::from_secs(10);
            if let Ok(io) = picket_link::accept(io, from, config.clone(), deadline).await {
                accepted.send(Ok::<_, std::io::Error>(io)).await.unwrap();
            }
        }
    };
    let serving = Server::builder()
        .add_service(host::HostServiceServer::new(master.clone()))
        .add_service(network::NetworkServiceServer::new(master.clone()))
        .add_service(member::MemberServiceServer::new(master.clone()))
        .add_service(device::DeviceServiceServer::new(master.clone()))
        .add_service(kill::KillServiceServer::new(master.clone()))
        .add_service(moon::MoonServiceServer::new(master.clone()))
        .add_service(deployment::DeploymentServiceServer::new(master.clone()))
        .add_service(decky::DeckyServiceServer::new(master.clone()))
        .add_service(operator::OperatorServiceServer::new(master.clone()))
        .add_service(event::EventServiceServer::new(master.clone()))
        .add_service(audit::AuditServiceServer::new(master.clone()))
        .add_service(clock::ClockServiceServer::new(master))
        .serve_with_incoming(tokio_stream::wrappers::ReceiverStream::new(connections));
    let ((), served) = tokio::join!(accepting, serving);
    served.unwrap();
}

/// What is said of a network in Central.
fn caution(is_central: bool) -> String {
    let caution = "ZeroTier Central governs this network: the activation cannot end while the master is away";
    if is_central {
        caution.to_owned()
    } else {
        String::new()
    }
}

fn reason(reason: &str) -> Result<(), Status> {
    if reason.is_empty() {
        Err(Status::invalid_argument("reason: is empty, say why"))
    } else {
        Ok(())
    }
}

impl FakeMaster {
    pub(crate) fn new(authority: Arc<Authority>, clock: Clock) -> Self {
        let state = State {
            controller_takes: Some(Duration::from_secs(3)),
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            authority,
            clock,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn tell(&self, kind: &str, subject: &str, message: &str, severity: wire::EventSeverity) {
        let mut state = self.state();
        let id = state.events.len() as u64 + 1;
        state.events.push(wire::Event {
            id,
            time: Some(to_wire_time(self.clock.now())),
            severity: severity.into(),
            kind: kind.into(),
            subject: subject.into(),
            message: message.into(),
        });
    }

    /// Every call goes through here.
    async fn open(&self) -> Result<MutexGuard<'_, State>, Status> {
        if self.state().is_stuck {
            std::future::pending::<()>().await;
        }
        let state = self.state();
        match &state.refuses_with {
            Some((code, message)) => Err(Status::new(*code, message.clone())),
            None => Ok(state),
        }
    }
}

impl State {
    fn host(&mut self, name: &str) -> Result<&mut wire::Host, Status> {
        self.hosts
            .get_mut(name)
            .ok_or_else(|| Status::not_found(format!("there is no host `{name}`")))
    }

    fn network(&mut self, id: &str) -> Result<&mut wire::Network, Status> {
        if id.len() != 16 || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Status::invalid_argument(format!(
                "{id:?} is no network id; want 16 digits of 0-9, a-f"
            )));
        }
        self.networks
            .get_mut(id)
            .ok_or_else(|| Status::not_found(format!("the network {id} is not adopted")))
    }

    fn deckies(&self, of: &Applied) -> Vec<wire::Decky> {
        let decky = |placed: &picket_proto::site::Placed| {
            let name = placed.decky.name.to_string();
            let state = match of.removed {
                Some(removed) if removed.elapsed() > Duration::from_secs(4) => return None,
                Some(_) => wire::DeckyState::Stopping,
                None if self.is_blocked => wire::DeckyState::Pending,
                None => match of.at.elapsed().as_secs() {
                    0..2 => wire::DeckyState::Pending,
                    2..4 => wire::DeckyState::Pulling,
                    4..6 => wire::DeckyState::Starting,
                    _ if self.broken.contains(&name) => wire::DeckyState::Failed,
                    _ => wire::DeckyState::Running,
                },
            };
            let failed = state == wire::DeckyState::Failed;
            Some(wire::Decky {
                host: placed.host.to_string(),
                deployment: of.deployment.name.clone(),
                state: state.into(),
                problem: if failed {
                    "port 22 does not answer".into()
                } else {
                    String::new()
                },
                address: placed.decky.address.to_string(),
                container_id: "0123456789abcdef0123".into(),
                services: placed
                    .decky
                    .services
                    .iter()
                    .map(|service| wire::DeckyServiceInfo {
                        name: service.name.to_string(),
                        state: state.into(),
                        image: service.image.clone(),
                        ports: service.ports.iter().map(|port| u32::from(*port)).collect(),
                        container_id: "fedcba98765432100123".into(),
                        problem: String::new(),
                    })
                    .collect(),
                name,
            })
        };
        of.site.deckies.iter().filter_map(decky).collect()
    }

    fn plan(&self, site: Option<wire::Site>) -> Result<(Site, Vec<wire::Change>), Status> {
        let site = Site::try_from(site.unwrap_or_default())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        for placed in &site.deckies {
            if !self.hosts.contains_key(&placed.host.to_string()) {
                let message = format!("decky {}: there is no host `{}`", placed.decky.name, placed.host);
                return Err(Status::invalid_argument(message));
            }
        }
        let have = self
            .deployments
            .get(&site.name.to_string())
            .filter(|applied| applied.removed.is_none());
        let have = have
            .map(|applied| applied.site.deckies.as_slice())
            .unwrap_or_default();
        let change =
            |action: wire::ChangeAction, placed: &picket_proto::site::Placed, detail: &str| wire::Change {
                action: action.into(),
                host: placed.host.to_string(),
                decky: placed.decky.name.to_string(),
                detail: detail.into(),
            };
        let mut changes = Vec::new();
        for placed in &site.deckies {
            match have.iter().find(|had| had.decky.name == placed.decky.name) {
                None => changes.push(change(wire::ChangeAction::Add, placed, "")),
                Some(had) if had != placed => {
                    changes.push(change(
                        wire::ChangeAction::Replace,
                        placed,
                        "address or services differ",
                    ));
                }
                Some(_) => {}
            }
        }
        for had in have {
            if !site
                .deckies
                .iter()
                .any(|placed| placed.decky.name == had.decky.name)
            {
                changes.push(change(wire::ChangeAction::Remove, had, ""));
            }
        }
        Ok((site, changes))
    }

    fn summary(&self, applied: &Applied) -> wire::Deployment {
        let running = |decky: &wire::Decky| decky.state() == wire::DeckyState::Running;
        let running = self
            .deckies(applied)
            .iter()
            .filter(|decky| running(decky))
            .count();
        wire::Deployment {
            running: u32::try_from(running).unwrap(),
            ..applied.deployment.clone()
        }
    }
}
