//! Kills, as the admin API asks for them: proofs come with time, where something can give them.

use tokio_stream::wrappers::IntervalStream;

use super::*;

/// How long an agent takes to leave, and a witness to be sure.
const LEAVING: Duration = Duration::from_millis(800);
const SILENCE: Duration = Duration::from_secs(5);
/// How long a credential is good.
const CREDENTIAL: Duration = Duration::from_secs(30 * 60);
/// How often a watcher looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A kill, and since when it holds.
pub(crate) struct Case {
    kill: wire::Kill,
    since: Instant,
}

impl State {
    /// The members that a kill is about.
    fn targets(&mut self, scope: wire::KillScope, subject: &str) -> Result<Vec<wire::KilledMember>, Status> {
        let nodes = match scope {
            wire::KillScope::Unspecified => return Err(Status::invalid_argument("scope: is missing")),
            wire::KillScope::Node => vec![self.node(subject)],
            wire::KillScope::Host => vec![self.host(subject)?.node_id.clone()],
            wire::KillScope::Network => {
                self.network(subject)?;
                Vec::new()
            }
            wire::KillScope::Owner => {
                let owners = [subject.to_owned(), format!("person/{subject}")];
                let devices = self.devices.values();
                let owned = devices.filter(|device| owners.contains(&device.owner));
                owned.map(|device| device.node_id.clone()).collect()
            }
            wire::KillScope::All => Vec::new(),
        };
        let wanted = |(network, node): &&(String, String)| match scope {
            wire::KillScope::Network => network == subject,
            wire::KillScope::All => true,
            wire::KillScope::Unspecified
            | wire::KillScope::Node
            | wire::KillScope::Host
            | wire::KillScope::Owner => nodes.contains(node),
        };
        let pairs = self.members.keys().filter(wanted);
        Ok(pairs
            .map(|(network, node)| {
                let host = self.hosts.values().find(|host| host.node_id == *node);
                let device = self.devices.get(node).map(|device| device.name.clone());
                wire::KilledMember {
                    network_id: network.clone(),
                    node_id: node.clone(),
                    name: host.map(|host| host.name.clone()).or(device).unwrap_or_default(),
                    ..wire::KilledMember::default()
                }
            })
            .collect())
    }

    /// A kill as it is by now.
    fn kill(&self, case: &Case) -> wire::Kill {
        let mut kill = case.kill.clone();
        let at = picket_proto::from_wire_time(&kill.at.unwrap()).unwrap();
        let moment =
            |after: Duration| Some(to_wire_time(at + jiff::SignedDuration::try_from(after).unwrap()));
        let proof = |takes: Option<Duration>| match takes {
            None => (wire::ProofState::Unreachable, None),
            Some(takes) if case.since.elapsed() < takes => (wire::ProofState::Waiting, None),
            Some(takes) => (wire::ProofState::Confirmed, moment(takes)),
        };
        let as_proof = |(state, at): (wire::ProofState, _)| {
            Some(wire::Proof {
                state: state.into(),
                at,
            })
        };
        let none = (wire::ProofState::None, None);
        let (mut done, is_cut) = (true, kill.scope() == wire::KillScope::Host);
        for member in &mut kill.members {
            let host = self.hosts.get(&member.name);
            let online = host.map(|host| host.state() == wire::HostState::Online);
            let deauthorized = proof(self.controller_takes);
            let left = match online {
                // A host that is cut off cannot say from outside that it left.
                Some(_) if is_cut => proof(None),
                Some(true) => proof(Some(LEAVING)),
                Some(false) => proof(None),
                None => none,
            };
            let silent = if self.witnesses {
                proof(Some(SILENCE))
            } else {
                none
            };
            let confirmed = wire::ProofState::Confirmed;
            if silent.0 != confirmed {
                member.unconfirmed_until = moment(CREDENTIAL);
            }
            let is_over = silent.0 == confirmed || case.since.elapsed() >= CREDENTIAL;
            let departed = is_cut || [confirmed, wire::ProofState::None].contains(&left.0);
            done &= deauthorized.0 == confirmed && departed && is_over;
            member.problem = match (deauthorized.0, left.0) {
                (wire::ProofState::Unreachable, _) => {
                    "host hub-01, which has the controller, is offline; it deauthorizes when it is back"
                        .into()
                }
                (_, wire::ProofState::Unreachable) if is_cut => format!(
                    "{} is banned: its agent leaves when it hears so, and cannot say from outside that it did",
                    member.name
                ),
                (_, wire::ProofState::Unreachable) => {
                    format!("host {} is offline; it leaves when it is back", member.name)
                }
                (_, _) => String::new(),
            };
            member.deauthorized = as_proof(deauthorized);
            member.left = as_proof(left);
            member.silent = as_proof(silent);
        }
        if kill.scope() == wire::KillScope::Host {
            let online = self.hosts.get(&kill.subject).map(wire::Host::state);
            let online = online == Some(wire::HostState::Online);
            kill.banned = as_proof(proof(Some(Duration::ZERO)));
            let gone = proof(online.then_some(Duration::from_secs(2)));
            kill.shard_removed = as_proof(gone);
            done &= gone.0 == wire::ProofState::Confirmed;
        }
        kill.done = done;
        kill
    }

    fn open_case(&mut self, scope: wire::KillScope, subject: &str) -> Option<&mut Case> {
        self.kills.iter_mut().find(|case| {
            case.kill.lifted_at.is_none() && case.kill.scope() == scope && case.kill.subject == subject
        })
    }
}

#[tonic::async_trait]
impl kill::KillService for FakeMaster {
    type WatchKillStream = Pin<Box<dyn Stream<Item = Result<wire::WatchKillResponse, Status>> + Send>>;

    async fn kill(&self, request: Request<wire::KillRequest>) -> Answer<wire::KillResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let now = self.clock.now();
        let mut state = self.open().await?;
        let scope = request.scope();
        let members = state.targets(scope, &request.subject)?;
        let mut cautions = Vec::new();
        for member in &members {
            let paths = state.own_path.get(&member.network_id);
            if paths.is_some_and(|hosts| hosts.contains(&member.name)) {
                cautions.push(format!(
                    "host {} reaches the master through {}: this cuts our own path",
                    member.name, member.network_id
                ));
            }
        }
        let kill = wire::Kill {
            id: format!("{:08x}", 0x7a31_0001 + state.kills.len()),
            scope: request.scope,
            subject: request.subject.clone(),
            by: state.caller(),
            reason: request.reason,
            at: Some(to_wire_time(now)),
            members,
            cautions,
            ..wire::Kill::default()
        };
        if request.drill && state.open_case(scope, &request.subject).is_none() {
            let kill = Some(wire::Kill {
                id: String::new(),
                ..kill
            });
            return Ok(Response::new(wire::KillResponse { kill }));
        }
        if !request.drill && state.open_case(scope, &request.subject).is_none() {
            state.kills.push(Case {
                kill,
                since: Instant::now(),
            });
        }
        if let (wire::KillScope::Network, Ok(network)) = (scope, state.network(&request.subject)) {
            network.killed = "7a310001".into();
        }
        let found = state
            .kills
            .iter()
            .rev()
            .find(|case| case.kill.scope() == scope && case.kill.subject == request.subject);
        let kill = found.map(|case| state.kill(case));
        Ok(Response::new(wire::KillResponse { kill }))
    }

    async fn watch_kill(&self, request: Request<wire::WatchKillRequest>) -> Answer<Self::WatchKillStream> {
        let id = request.into_inner().id;
        if !self.open().await?.kills.iter().any(|case| case.kill.id == id) {
            return Err(Status::not_found(format!("there is no kill `{id}`")));
        }
        let master = self.clone();
        let (mut last, mut is_over) = (None, false);
        let looks = IntervalStream::new(tokio::time::interval(LOOK_EVERY));
        let changes = looks.map_while(move |_| {
            if is_over {
                return None;
            }
            let state = master.state();
            let case = state.kills.iter().find(|case| case.kill.id == id);
            let kill = case.map(|case| state.kill(case));
            is_over = kill
                .as_ref()
                .is_none_or(|kill| kill.done || kill.lifted_at.is_some());
            let changed = kill != last;
            last.clone_from(&kill);
            Some(changed.then_some(Ok(wire::WatchKillResponse { kill })))
        });
        let stream = changes.filter_map(|change| change);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_kills(&self, request: Request<wire::ListKillsRequest>) -> Answer<wire::ListKillsResponse> {
        let lifted = request.into_inner().lifted;
        let state = self.open().await?;
        let cases = state
            .kills
            .iter()
            .filter(|case| lifted || case.kill.lifted_at.is_none());
        let kills = cases.map(|case| state.kill(case)).collect();
        Ok(Response::new(wire::ListKillsResponse { kills }))
    }

    async fn unkill(&self, request: Request<wire::UnkillRequest>) -> Answer<wire::UnkillResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let now = self.clock.now();
        let mut state = self.open().await?;
        let by = state.caller();
        let case = state
            .open_case(request.scope(), &request.subject)
            .ok_or_else(|| Status::not_found("nothing of that is killed"))?;
        case.kill.lifted_at = Some(to_wire_time(now));
        case.kill.lifted_by = by;
        case.kill.lifted_because = request.reason;
        let mut kill = case.kill.clone();
        let others = state.kills.iter().filter(|other| other.kill.lifted_at.is_none());
        for other in others {
            let stay = other.kill.members.iter();
            let stay = stay.filter(|member| kill.members.contains(member)).count();
            if stay > 0 {
                let word = if stay == 1 { "member stays" } else { "members stay" };
                kill.cautions
                    .push(format!("{stay} {word} killed by kill {}", other.kill.id));
            }
        }
        Ok(Response::new(wire::UnkillResponse { kill: Some(kill) }))
    }
}
