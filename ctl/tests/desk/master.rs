//! A master that keeps its state in memory. What it answers follows from what it was asked before, and from time.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use picket_clock::{Clock, Instant};
use picket_link::Incoming;
use picket_pki::{Authority, Bundle, Holder, Key, lifetime};
use picket_proto::{
    site::Site,
    to_wire_time,
    wire::admin::{
        self as wire, decky_service_server as decky, deployment_service_server as deployment,
        event_service_server as event, host_service_server as host, member_service_server as member,
        network_service_server as network,
    },
};
use rustls::ServerConfig;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, transport::Server};
use uuid::Uuid;

use crate::office::MASTER;

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
    pub(crate) deployments: BTreeMap<String, Applied>,
    pub(crate) events: Vec<wire::Event>,
    /// How long the controller takes; never when absent.
    pub(crate) controller_takes: Option<Duration>,
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

pub(crate) struct Seat {
    pub(crate) member: wire::Member,
    decided: Option<Instant>,
    before: i32,
}

impl From<wire::Member> for Seat {
    fn from(member: wire::Member) -> Self {
        Self {
            before: member.observed,
            member,
            decided: None,
        }
    }
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
        .add_service(deployment::DeploymentServiceServer::new(master.clone()))
        .add_service(decky::DeckyServiceServer::new(master.clone()))
        .add_service(event::EventServiceServer::new(master))
        .serve_with_incoming(tokio_stream::wrappers::ReceiverStream::new(connections));
    let ((), served) = tokio::join!(accepting, serving);
    served.unwrap();
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

    fn member(&self, network: &str, node: &str) -> Result<wire::Member, Status> {
        let seat = self
            .members
            .get(&(network.to_owned(), self.node(node)))
            .ok_or_else(|| Status::not_found(format!("there is no node `{node}` on {network}")))?;
        let mut member = seat.member.clone();
        if let Some(decided) = seat.decided
            && self
                .controller_takes
                .is_none_or(|takes| decided.elapsed() < takes)
        {
            member.observed = seat.before;
        }
        Ok(member)
    }

    fn node(&self, node: &str) -> String {
        self.hosts
            .get(node)
            .map_or_else(|| node.to_owned(), |host| host.node_id.clone())
    }

    fn decide(
        &mut self,
        network: &str,
        node: &str,
        authorized: bool,
        because: String,
    ) -> Result<wire::Member, Status> {
        if self.network(network)?.mode() != wire::NetworkMode::Enforce {
            return Err(Status::failed_precondition(format!(
                "the network {network} is only observed; run `picketctl network enforce {network}` first"
            )));
        }
        let node_id = self.node(node);
        let host = if node_id == node {
            String::new()
        } else {
            node.to_owned()
        };
        let (decision, observed) = if authorized {
            (
                wire::MemberDecision::Authorized,
                wire::MemberObservation::Authorized,
            )
        } else {
            (
                wire::MemberDecision::Denied,
                wire::MemberObservation::Deauthorized,
            )
        };
        let before = self
            .member(network, node)
            .map_or(wire::MemberObservation::Absent.into(), |member| member.observed);
        let member = wire::Member {
            network_id: network.to_owned(),
            node_id: node_id.clone(),
            host,
            decision: decision.into(),
            because,
            observed: observed.into(),
            addresses: vec![],
        };
        let seat = Seat {
            member,
            decided: Some(Instant::now()),
            before,
        };
        self.members.insert((network.to_owned(), node_id), seat);
        self.member(network, node)
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

fn reason(reason: &str) -> Result<(), Status> {
    if reason.is_empty() {
        Err(Status::invalid_argument("reason: is empty, say why"))
    } else {
        Ok(())
    }
}

#[tonic::async_trait]
impl host::HostService for FakeMaster {
    async fn enroll_host(
        &self,
        request: Request<wire::EnrollHostRequest>,
    ) -> Answer<wire::EnrollHostResponse> {
        let wire::EnrollHostRequest { name, labels } = request.into_inner();
        let mut state = self.open().await?;
        if state.hosts.contains_key(&name) {
            return Err(Status::already_exists(format!(
                "there is a host `{name}` already"
            )));
        }
        name.parse::<picket_proto::host::Name>()
            .map_err(|error| Status::invalid_argument(format!("name: {error}")))?;
        let now = self.clock.now();
        let host = wire::Host {
            id: Uuid::from_u128(state.hosts.len() as u128 + 1).to_string(),
            name: name.clone(),
            labels,
            state: wire::HostState::NeverSeen.into(),
            enrolled_at: Some(to_wire_time(now)),
            ..wire::Host::default()
        };
        state.hosts.insert(name.clone(), host.clone());
        let key = Key::generate().unwrap();
        let holder = Holder::Host {
            id: host.id.parse().unwrap(),
            name,
        };
        let issued = self
            .authority
            .issue(key.public(), &holder.identity(), lifetime::BUNDLE, now)
            .unwrap();
        let bundle = Bundle {
            holder,
            trust_domain: self.authority.trust_domain().clone(),
            masters: vec![MASTER.replace("7444", "7443")],
            authorities: vec![self.authority.certificate().to_vec()],
            certificate: issued.der,
            key,
        };
        Ok(Response::new(wire::EnrollHostResponse {
            host: Some(host),
            bundle: bundle.encode().unwrap().as_bytes().to_vec().into(),
            authority_fingerprint: self.authority.fingerprint().to_string(),
            bundle_expires_at: Some(to_wire_time(issued.not_after)),
        }))
    }

    async fn list_hosts(&self, request: Request<wire::ListHostsRequest>) -> Answer<wire::ListHostsResponse> {
        let request = request.into_inner();
        let state = self.open().await?;
        let mut hosts = state
            .hosts
            .values()
            .filter(|host| {
                request
                    .labels
                    .iter()
                    .all(|(key, value)| host.labels.get(key) == Some(value))
            })
            .filter(|host| host.name > request.page_token)
            .cloned();
        let page: Vec<_> = hosts.by_ref().take(PAGE).collect();
        let more = hosts.next().is_some();
        let next_page_token = page
            .last()
            .filter(|_| more)
            .map(|host| host.name.clone())
            .unwrap_or_default();
        Ok(Response::new(wire::ListHostsResponse {
            hosts: page,
            next_page_token,
        }))
    }

    async fn get_host(&self, request: Request<wire::GetHostRequest>) -> Answer<wire::GetHostResponse> {
        let host = self.open().await?.host(&request.into_inner().name)?.clone();
        let is_seen = host.last_seen_at.is_some();
        let expires_at = Some(to_wire_time(self.clock.now() + lifetime::HOST));
        Ok(Response::new(wire::GetHostResponse {
            pins: vec![wire::Pin {
                kind: if is_seen { "current" } else { "bundle" }.into(),
                fingerprint: "ab".repeat(32),
                expires_at,
            }],
            documents: vec![wire::HostDocument {
                kind: "shard".into(),
                wanted_generation: 4,
                attempted_generation: 4,
                outcome: "failed".into(),
                problems: vec!["image `picket-decoy:9` is not allowed by agent.toml".into()],
            }],
            networks: vec![wire::HostNetwork {
                network_id: "8056c2e21c000001".into(),
                status: "OK".into(),
                addresses: vec!["10.147.17.7/24".into()],
                managed: true,
            }],
            hostname: "edge-07.oslo".into(),
            os: "Debian GNU/Linux 13".into(),
            kernel: "6.12.1".into(),
            machine_id: "0f0f".into(),
            host: Some(host),
        }))
    }

    async fn label_host(&self, request: Request<wire::LabelHostRequest>) -> Answer<wire::LabelHostResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        let host = state.host(&request.name)?;
        host.labels.extend(request.set);
        host.labels.retain(|key, _| !request.remove.contains(key));
        Ok(Response::new(wire::LabelHostResponse {
            host: Some(host.clone()),
        }))
    }

    async fn note_host(&self, request: Request<wire::NoteHostRequest>) -> Answer<wire::NoteHostResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        let host = state.host(&request.name)?;
        host.note = request.note;
        Ok(Response::new(wire::NoteHostResponse {
            host: Some(host.clone()),
        }))
    }

    async fn ban_host(&self, request: Request<wire::BanHostRequest>) -> Answer<wire::BanHostResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        let host = state.host(&request.name)?;
        let session_cut = host.state() == wire::HostState::Online;
        host.set_state(wire::HostState::Banned);
        Ok(Response::new(wire::BanHostResponse {
            host: Some(host.clone()),
            session_cut,
        }))
    }

    async fn retire_host(
        &self,
        request: Request<wire::RetireHostRequest>,
    ) -> Answer<wire::RetireHostResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        let host = state.host(&request.name)?;
        let told = host.state() == wire::HostState::Online;
        host.set_state(wire::HostState::Retired);
        let host = state.hosts.remove(&request.name);
        Ok(Response::new(wire::RetireHostResponse { host, told }))
    }
}

#[tonic::async_trait]
impl network::NetworkService for FakeMaster {
    async fn adopt_network(
        &self,
        request: Request<wire::AdoptNetworkRequest>,
    ) -> Answer<wire::AdoptNetworkResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        if request.approvals != 0 {
            return Err(Status::invalid_argument("approvals: this version takes 0 alone"));
        }
        if let Err(status) = state.network(&request.id)
            && status.code() == tonic::Code::InvalidArgument
        {
            return Err(status);
        }
        let fallback = wire::Network {
            id: request.id.clone(),
            name: "decoys".into(),
            mode: wire::NetworkMode::Observe.into(),
            controller_host: if request.controller_host.is_empty() {
                "hub-01".into()
            } else {
                request.controller_host
            },
            members_authorized: 1,
            members_unknown: 1,
            drift: 1,
            ..wire::Network::default()
        };
        let network = state
            .networks
            .entry(request.id.clone())
            .or_insert(fallback)
            .clone();
        let member =
            |node_id: &str, decision: wire::MemberDecision, observed: wire::MemberObservation| wire::Member {
                network_id: request.id.clone(),
                node_id: node_id.into(),
                decision: decision.into(),
                observed: observed.into(),
                because: match decision {
                    wire::MemberDecision::Authorized => "it was a member when the network was adopted".into(),
                    wire::MemberDecision::Unspecified
                    | wire::MemberDecision::Denied
                    | wire::MemberDecision::Unknown => "nobody registered it".into(),
                },
                addresses: vec!["10.147.17.20".into()],
                ..wire::Member::default()
            };
        for member in [
            member(
                "aaaaaaaaaa",
                wire::MemberDecision::Authorized,
                wire::MemberObservation::Authorized,
            ),
            member(
                "bbbbbbbbbb",
                wire::MemberDecision::Unknown,
                wire::MemberObservation::Authorized,
            ),
        ] {
            state
                .members
                .entry((request.id.clone(), member.node_id.clone()))
                .or_insert(member.into());
        }
        Ok(Response::new(wire::AdoptNetworkResponse {
            network: Some(network),
            imported: 1,
        }))
    }

    async fn enforce_network(
        &self,
        request: Request<wire::EnforceNetworkRequest>,
    ) -> Answer<wire::EnforceNetworkResponse> {
        let mut state = self.open().await?;
        let network = state.network(&request.into_inner().id)?;
        network.set_mode(wire::NetworkMode::Enforce);
        Ok(Response::new(wire::EnforceNetworkResponse {
            network: Some(network.clone()),
        }))
    }

    async fn list_networks(
        &self,
        _: Request<wire::ListNetworksRequest>,
    ) -> Answer<wire::ListNetworksResponse> {
        let networks = self.open().await?.networks.values().cloned().collect();
        Ok(Response::new(wire::ListNetworksResponse { networks }))
    }

    async fn get_network(
        &self,
        request: Request<wire::GetNetworkRequest>,
    ) -> Answer<wire::GetNetworkResponse> {
        let id = request.into_inner().id;
        let mut state = self.open().await?;
        let network = state.network(&id)?.clone();
        let members = state.members.keys().filter(|(network, _)| *network == id);
        let members = members
            .map(|(network, node)| state.member(network, node).unwrap())
            .collect();
        Ok(Response::new(wire::GetNetworkResponse {
            network: Some(network),
            members,
        }))
    }
}

#[tonic::async_trait]
impl member::MemberService for FakeMaster {
    async fn list_members(
        &self,
        request: Request<wire::ListMembersRequest>,
    ) -> Answer<wire::ListMembersResponse> {
        let id = request.into_inner().network_id;
        let mut state = self.open().await?;
        state.network(&id)?;
        let members = state.members.keys().filter(|(network, _)| *network == id);
        let members = members
            .map(|(network, node)| state.member(network, node).unwrap())
            .collect();
        Ok(Response::new(wire::ListMembersResponse { members }))
    }

    async fn get_member(&self, request: Request<wire::GetMemberRequest>) -> Answer<wire::GetMemberResponse> {
        let request = request.into_inner();
        let member = self.open().await?.member(&request.network_id, &request.node)?;
        Ok(Response::new(wire::GetMemberResponse { member: Some(member) }))
    }

    async fn admit_member(
        &self,
        request: Request<wire::AdmitMemberRequest>,
    ) -> Answer<wire::AdmitMemberResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let because = format!("granted: {}", request.reason);
        let member = self
            .open()
            .await?
            .decide(&request.network_id, &request.node, true, because)?;
        Ok(Response::new(wire::AdmitMemberResponse { member: Some(member) }))
    }

    async fn revoke_member(
        &self,
        request: Request<wire::RevokeMemberRequest>,
    ) -> Answer<wire::RevokeMemberResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let because = format!("revoked: {}", request.reason);
        let member = self
            .open()
            .await?
            .decide(&request.network_id, &request.node, false, because)?;
        Ok(Response::new(wire::RevokeMemberResponse { member: Some(member) }))
    }
}

#[tonic::async_trait]
impl deployment::DeploymentService for FakeMaster {
    async fn plan_deployment(
        &self,
        request: Request<wire::PlanDeploymentRequest>,
    ) -> Answer<wire::PlanDeploymentResponse> {
        let (_, changes) = self.open().await?.plan(request.into_inner().site)?;
        Ok(Response::new(wire::PlanDeploymentResponse { changes }))
    }

    async fn apply_deployment(
        &self,
        request: Request<wire::ApplyDeploymentRequest>,
    ) -> Answer<wire::ApplyDeploymentResponse> {
        let mut state = self.open().await?;
        let (site, changes) = state.plan(request.into_inner().site)?;
        let name = site.name.to_string();
        let had = state.deployments.get(&name);
        let revision = had.map_or(0, |had| had.deployment.revision) + u64::from(!changes.is_empty());
        let at = had
            .filter(|_| changes.is_empty())
            .map_or_else(Instant::now, |had| had.at);
        let hosts: BTreeSet<String> = site
            .deckies
            .iter()
            .map(|placed| placed.host.to_string())
            .collect();
        let deployment = wire::Deployment {
            name: name.clone(),
            revision,
            deckies: u32::try_from(site.deckies.len()).unwrap(),
            running: 0,
            hosts: hosts.into_iter().collect(),
            applied_at: Some(to_wire_time(self.clock.now())),
            applied_by: "admin".into(),
        };
        state.deployments.insert(
            name,
            Applied {
                site,
                deployment: deployment.clone(),
                at,
                removed: None,
            },
        );
        Ok(Response::new(wire::ApplyDeploymentResponse {
            deployment: Some(deployment),
            changes,
        }))
    }

    async fn list_deployments(
        &self,
        _: Request<wire::ListDeploymentsRequest>,
    ) -> Answer<wire::ListDeploymentsResponse> {
        let state = self.open().await?;
        let kept = state
            .deployments
            .values()
            .filter(|applied| applied.removed.is_none());
        let deployments = kept.map(|applied| state.summary(applied)).collect();
        Ok(Response::new(wire::ListDeploymentsResponse { deployments }))
    }

    async fn get_deployment(
        &self,
        request: Request<wire::GetDeploymentRequest>,
    ) -> Answer<wire::GetDeploymentResponse> {
        let name = request.into_inner().name;
        let state = self.open().await?;
        let applied = state
            .deployments
            .get(&name)
            .filter(|applied| applied.removed.is_none());
        let applied = applied.ok_or_else(|| Status::not_found(format!("there is no deployment `{name}`")))?;
        Ok(Response::new(wire::GetDeploymentResponse {
            deployment: Some(state.summary(applied)),
            site: Some((&applied.site).into()),
            deckies: state.deckies(applied),
            problems: state.problems.clone(),
        }))
    }

    async fn remove_deployment(
        &self,
        request: Request<wire::RemoveDeploymentRequest>,
    ) -> Answer<wire::RemoveDeploymentResponse> {
        let name = request.into_inner().name;
        let mut state = self.open().await?;
        let applied = state
            .deployments
            .get_mut(&name)
            .filter(|applied| applied.removed.is_none());
        let applied = applied.ok_or_else(|| Status::not_found(format!("there is no deployment `{name}`")))?;
        applied.removed = Some(Instant::now());
        let change = |placed: &picket_proto::site::Placed| wire::Change {
            action: wire::ChangeAction::Remove.into(),
            host: placed.host.to_string(),
            decky: placed.decky.name.to_string(),
            detail: String::new(),
        };
        let changes = applied.site.deckies.iter().map(change).collect();
        Ok(Response::new(wire::RemoveDeploymentResponse { changes }))
    }
}

#[tonic::async_trait]
impl decky::DeckyService for FakeMaster {
    async fn list_deckies(
        &self,
        request: Request<wire::ListDeckiesRequest>,
    ) -> Answer<wire::ListDeckiesResponse> {
        let request = request.into_inner();
        let state = self.open().await?;
        let deckies = state
            .deployments
            .values()
            .flat_map(|applied| state.deckies(applied));
        let wanted = |decky: &wire::Decky| {
            [
                (&request.host, &decky.host),
                (&request.deployment, &decky.deployment),
            ]
            .iter()
            .all(|(wanted, seen)| wanted.is_empty() || wanted == seen)
        };
        Ok(Response::new(wire::ListDeckiesResponse {
            deckies: deckies.filter(wanted).collect(),
        }))
    }

    async fn get_decky(&self, request: Request<wire::GetDeckyRequest>) -> Answer<wire::GetDeckyResponse> {
        let request = request.into_inner();
        let state = self.open().await?;
        let mut deckies = state
            .deployments
            .values()
            .flat_map(|applied| state.deckies(applied));
        let decky = deckies.find(|decky| {
            decky.name == request.name && (request.host.is_empty() || decky.host == request.host)
        });
        match decky {
            Some(decky) => Ok(Response::new(wire::GetDeckyResponse { decky: Some(decky) })),
            None => Err(Status::not_found(format!("there is no decky `{}`", request.name))),
        }
    }
}

#[tonic::async_trait]
impl event::EventService for FakeMaster {
    async fn list_events(
        &self,
        request: Request<wire::ListEventsRequest>,
    ) -> Answer<wire::ListEventsResponse> {
        let request = request.into_inner();
        let state = self.open().await?;
        let wanted = |event: &&wire::Event| {
            event.id > request.after
                && (request.subject.is_empty() || event.subject == request.subject)
                && event.kind.starts_with(&request.kind)
        };
        let events: Vec<_> = state.events.iter().filter(wanted).cloned().collect();
        let skip = events.len().saturating_sub(request.limit as usize);
        Ok(Response::new(wire::ListEventsResponse {
            events: events[skip..].to_vec(),
        }))
    }

    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<wire::WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<wire::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let state = self.open().await?;
        let last = state.events.len() as u64;
        let mut next = request.into_inner().after.unwrap_or(last);
        let mut left = state.watchers_lag_after;
        drop(state);
        let state = self.state.clone();
        let tick =
            tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(Duration::from_millis(100)));
        let stream = tick.filter_map(move |_| {
            if left == Some(0) {
                return Some(Err(Status::data_loss("the watcher cannot keep up")));
            }
            let event = state
                .lock()
                .unwrap()
                .events
                .iter()
                .find(|event| event.id > next)
                .cloned()?;
            next = event.id;
            left = left.map(|left| left - 1);
            Some(Ok(wire::WatchEventsResponse { event: Some(event) }))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
