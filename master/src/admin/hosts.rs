//! Hosts: enrolling, looking, labelling, banning, retiring.

use std::sync::Arc;

use picket_proto::{
    document::Kind,
    host::{HostId, Labels},
    status::JoinedNetwork,
    to_wire_time,
    wire::admin::{
        self as wire, AcceptHostNodeRequest, AcceptHostNodeResponse, BanHostRequest, BanHostResponse,
        BundleHostRequest, BundleHostResponse, EnrollHostRequest, EnrollHostResponse, GetHostRequest,
        GetHostResponse, LabelHostRequest, LabelHostResponse, ListHostsRequest, ListHostsResponse,
        NoteHostRequest, NoteHostResponse, RetireHostRequest, RetireHostResponse, UnbanHostRequest,
        UnbanHostResponse, host_service_server::HostService,
    },
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    bundle::{self, Made},
    host_nodes, name, page, reason,
};
use crate::{
    ban,
    caller::operator,
    desk::Desk,
    event::Severity,
    expired,
    liveness::Presence,
    observed::Tried,
    record::{HostRecord, HostStanding, Pin, Pins, Record as _, key, network::KillScope},
    refused::Refused,
    renewal,
    store::{CommitError, Guard, Write},
};

/// The longest note.
const MOST_NOTE: usize = 1024;

/// The service, over the desk.
#[derive(Debug)]
pub struct Hosts(pub Arc<Desk>);

#[tonic::async_trait]
impl HostService for Hosts {
    async fn enroll_host(
        &self,
        request: Request<EnrollHostRequest>,
    ) -> Result<Response<EnrollHostResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let name = name("name", &asked.name)?;
        let labels = Labels::new(asked.labels).map_err(Refused::Invalid)?;
        let desk = &self.0;
        desk.may_approve()?;
        let (id, now) = (HostId(Uuid::new_v4()), desk.now());
        let Made { file, pin } = bundle::make(desk, id, &name, &asked.csr).await?;
        let _turn = bundle::turn(desk, id, &asked.csr).await?;
        let expires = pin.not_after;
        let record = HostRecord {
            id,
            name: name.clone(),
            labels,
            note: String::new(),
            enrolled_at: now,
            standing: HostStanding::Active,
            pins: Pins {
                bundle: Some(pin),
                ..Pins::default()
            },
            node: None,
            node_standing: Default::default(),
            node_identity: None,
            former_nodes: Vec::new(),
        };
        let claim = Write::Put(key::name(&name), id.to_string().into_bytes());
        let audit = actor.does("host.enroll", &name, "");
        match desk
            .commit(
                vec![Guard::Absent(key::name(&name))],
                vec![record.put(), claim],
                audit,
            )
            .await
        {
            Ok(_) => {}
            Err(CommitError::Conflict { .. }) => {
                let exists = format!(
                    "host {name} exists already; choose another name, make another bundle for it with `picketctl host bundle {name}`, or retire it first"
                );
                return Err(Refused::Exists(exists).into());
            }
            Err(error) => return Err(Refused::Commit(error).into()),
        }
        // The bundle names them.
        desk.hold(id, desk.ca.wanted());
        desk.say(
            Severity::Notice,
            "host.enrolled",
            name.as_str(),
            &format!("enrolled by {}", actor.name()),
        );
        Ok(Response::new(EnrollHostResponse {
            host: Some(shown(desk, id)?),
            bundle: file,
            authority_fingerprint: desk.signer.fingerprint().to_string(),
            bundle_expires_at: Some(to_wire_time(expires)),
        }))
    }

    async fn list_hosts(
        &self,
        request: Request<ListHostsRequest>,
    ) -> Result<Response<ListHostsResponse>, Status> {
        operator(&self.0, &request)?;
        let asked = request.into_inner();
        let wanted = Labels::new(asked.labels).map_err(Refused::Invalid)?;
        let after = match asked.page_token.as_str() {
            "" => None,
            token => Some(name("page_token", token)?),
        };
        let size = page::size(asked.page_size);
        let (page, more): (Vec<_>, bool) = {
            let views = self.0.views.read();
            let mut hosts = views
                .roster
                .hosts_after(after.as_ref())
                .filter(|host| host.record.labels.include(&wanted));
            let page = hosts
                .by_ref()
                .take(size)
                .map(|host| (host.record.id, host.record.name.clone()))
                .collect();
            (page, hosts.next().is_some())
        };
        let next_page_token = page
            .last()
            .filter(|_| more)
            .map(|(_, name)| name.to_string())
            .unwrap_or_default();
        // One that was retired since is left out.
        let hosts = page
            .iter()
            .filter_map(|(id, _)| shown(&self.0, *id).ok())
            .collect();
        Ok(Response::new(ListHostsResponse {
            hosts,
            next_page_token,
        }))
    }

    async fn get_host(&self, request: Request<GetHostRequest>) -> Result<Response<GetHostResponse>, Status> {
        operator(&self.0, &request)?;
        let id = self.0.host_named(&name("name", &request.into_inner().name)?)?;
        Ok(Response::new(detailed(&self.0, id)?))
    }

    async fn label_host(
        &self,
        request: Request<LabelHostRequest>,
    ) -> Result<Response<LabelHostResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let name = name("name", &asked.name)?;
        let set = Labels::new(asked.set).map_err(Refused::Invalid)?;
        let id = self.0.host_named(&name)?;
        let change = |host: &mut HostRecord| {
            let labels = host.labels.changed(&set, &asked.remove)?;
            let differs = labels != host.labels;
            let before = std::mem::replace(&mut host.labels, labels);
            if self.0.lets_on(host, &before) {
                self.0.may_approve()?;
            }
            if !asked.force
                && let Some(network) = self.0.takes_its_path(host, &before)
            {
                return Err(Refused::NotNow(format!(
                    "this cuts our own path: the session of {name} goes over network {network}, which its labels make it a member \
                     of no more; give it a grant there first (`picketctl member admit {name} --network {network} --reason ...`), or \
                     another way to the master, and then say `--force`"
                )));
            }
            Ok(differs)
        };
        self.0
            .change_host(id, actor.does("host.label", &name, ""), change)
            .await?;
        Ok(Response::new(LabelHostResponse {
            host: Some(shown(&self.0, id)?),
        }))
    }

    async fn note_host(
        &self,
        request: Request<NoteHostRequest>,
    ) -> Result<Response<NoteHostResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let name = name("name", &asked.name)?;
        if asked.note.chars().count() > MOST_NOTE
            || asked.note.contains(|c: char| c.is_control() && c != '\n')
        {
            return Err(Refused::invalid(
                "note",
                format_args!("use plain text of at most {MOST_NOTE} characters"),
            )
            .into());
        }
        let id = self.0.host_named(&name)?;
        let change = |host: &mut HostRecord| {
            let differs = host.note != asked.note;
            host.note.clone_from(&asked.note);
            Ok(differs)
        };
        self.0
            .change_host(id, actor.does("host.note", &name, ""), change)
            .await?;
        Ok(Response::new(NoteHostResponse {
            host: Some(shown(&self.0, id)?),
        }))
    }

    async fn ban_host(&self, request: Request<BanHostRequest>) -> Result<Response<BanHostResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let (name, reason) = (name("name", &asked.name)?, reason(&asked.reason)?);
        let id = self.0.host_named(&name)?;
        let had_session = self.0.sessions.has(id);
        let at = self.0.now();
        let change = |host: &mut HostRecord| {
            let by_kill = {
                let views = self.0.views.read();
                let kill = views.networks.kill_of(&KillScope::Host(id));
                let banned = kill.filter(|kill| kill.record.banned);
                banned.map(|kill| kill.record.at)
            };
            Ok(ban::ban_apart(host, by_kill, at, &reason))
        };
        let (_, changed) = self
            .0
            .change_host(id, actor.does("host.ban", &name, &reason), change)
            .await?;
        if changed {
            ban::say_banned(&self.0, name.as_str(), actor.name(), &reason);
        }
        Ok(Response::new(BanHostResponse {
            host: Some(shown(&self.0, id)?),
            session_cut: had_session && changed,
        }))
    }

    async fn unban_host(
        &self,
        request: Request<UnbanHostRequest>,
    ) -> Result<Response<UnbanHostResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let (name, reason) = (name("name", &asked.name)?, reason(&asked.reason)?);
        let id = self.0.host_named(&name)?;
        self.0.may_approve()?;
        let change = |host: &mut HostRecord| Ok(ban::unban(host));
        let (_, changed) = self
            .0
            .change_host(id, actor.does("host.unban", &name, &reason), change)
            .await?;
        if changed {
            ban::say_unbanned(&self.0, name.as_str(), actor.name(), &reason);
        }
        Ok(Response::new(UnbanHostResponse {
            host: Some(shown(&self.0, id)?),
        }))
    }

    async fn bundle_host(
        &self,
        request: Request<BundleHostRequest>,
    ) -> Result<Response<BundleHostResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let name = name("name", &asked.name)?;
        let desk = &self.0;
        desk.may_approve()?;
        let id = desk.host_named(&name)?;
        let Made { file, pin } = bundle::make(desk, id, &name, &asked.csr).await?;
        let _turn = bundle::turn(desk, id, &asked.csr).await?;
        let expires = pin.not_after;
        let why = if asked.cut { "cut" } else { "" };
        let another = |host: &mut HostRecord| {
            if host.standing != HostStanding::Active {
                let banned = format!("host {name} is banned; `picketctl host unban {name}` first");
                return Err(Refused::NotNow(banned));
            }
            renewal::rebundle(host, pin.clone(), asked.cut);
            Ok(true)
        };
        let (host, _) = desk
            .change_host(id, actor.does("host.bundle", &name, why), another)
            .await?;
        if host.pins.current.is_none() {
            desk.hold(id, desk.ca.wanted());
        }
        let effect = if asked.cut {
            "; the certificate in use is cut"
        } else {
            ""
        };
        let message = format!("another bundle was made by {}{effect}", actor.name());
        desk.say(Severity::Alert, "host.bundled", name.as_str(), &message);
        Ok(Response::new(BundleHostResponse {
            host: Some(shown(desk, id)?),
            bundle: file,
            authority_fingerprint: desk.signer.fingerprint().to_string(),
            bundle_expires_at: Some(to_wire_time(expires)),
        }))
    }

    async fn accept_host_node(
        &self,
        request: Request<AcceptHostNodeRequest>,
    ) -> Result<Response<AcceptHostNodeResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let (name, reason) = (name("name", &asked.name)?, reason(&asked.reason)?);
        let decision = host_nodes::Decision::of(&asked.node_id)?;
        let id = self.0.host_named(&name)?;
        let remarks = host_nodes::decide(&self.0, &actor, (&name, id), decision, &reason).await?;
        let detail = detailed(&self.0, id)?;
        Ok(Response::new(AcceptHostNodeResponse {
            host: detail.host,
            node: detail.node,
            remarks,
        }))
    }

    async fn retire_host(
        &self,
        request: Request<RetireHostRequest>,
    ) -> Result<Response<RetireHostResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let (name, reason) = (name("name", &asked.name)?, reason(&asked.reason)?);
        let id = self.0.host_named(&name)?;
        let told = self.0.sessions.has(id);
        let at = self.0.now();
        let retire = |host: &mut HostRecord| {
            let standing = !matches!(host.standing, HostStanding::Retired { .. });
            if standing {
                host.standing = HostStanding::Retired {
                    at,
                    reason: reason.clone(),
                };
            }
            Ok(standing)
        };
        let (_, changed) = self
            .0
            .change_host(id, actor.does("host.retire", &name, &reason), retire)
            .await?;
        if changed {
            let message = format!("retired by {}: {reason}", actor.name());
            self.0
                .say(Severity::Notice, "host.retired", name.as_str(), &message);
        }
        Ok(Response::new(RetireHostResponse {
            host: Some(shown(&self.0, id)?),
            told,
        }))
    }
}

/// A host as lists show it.
/// A bundle for a host, signed before anything is committed: what signs may be far away.
fn shown(desk: &Desk, id: HostId) -> Result<wire::Host, Refused> {
    let record = {
        let views = desk.views.read();
        views
            .roster
            .host(id)
            .map(|host| host.record.clone())
            .ok_or_else(|| Refused::no_host(id))?
    };
    let (presence, last_seen) = desk.liveness().of(id);
    let mut host = wire::Host {
        id: id.to_string(),
        name: record.name.to_string(),
        labels: record
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        note: record.note.clone(),
        state: state(&record.standing, presence).into(),
        enrolled_at: Some(to_wire_time(record.enrolled_at)),
        last_seen_at: last_seen.map(to_wire_time),
        node_id: record.node.map(|node| node.to_string()).unwrap_or_default(),
        ..wire::Host::default()
    };
    let expired = expired::condition(&record, desk.now());
    let clones = &desk.sessions.clones;
    let twice = clones.condition(id, &host.name, desk.clock.monotonic());
    if let Some(seen) = desk.observed.get(id) {
        let summary = seen.summary();
        (host.deckies, host.deckies_running) = summary.decky_counts();
        host.agent_version = summary.agent_version.to_string();
        host.address = seen
            .connection()
            .0
            .map(|address| address.to_string())
            .unwrap_or_default();
        host.conditions = seen.conditions();
    }
    host.conditions.extend(expired);
    host.conditions.extend(host_nodes::conditions(desk, &record));
    host.conditions.extend(twice);
    Ok(host)
}

fn state(standing: &HostStanding, presence: Presence) -> wire::HostState {
    match (standing, presence) {
        (HostStanding::Banned { .. }, _) => wire::HostState::Banned,
        (HostStanding::Retired { .. }, _) => wire::HostState::Retired,
        (HostStanding::Active, Presence::NeverSeen) => wire::HostState::NeverSeen,
        (HostStanding::Active, Presence::Online) => wire::HostState::Online,
        (HostStanding::Active, Presence::Late) => wire::HostState::Late,
        (HostStanding::Active, Presence::Offline) => wire::HostState::Offline,
    }
}

fn detailed(desk: &Desk, id: HostId) -> Result<GetHostResponse, Refused> {
    let host = shown(desk, id)?;
    let record = {
        let views = desk.views.read();
        let host = views.roster.host(id).ok_or_else(|| Refused::no_host(id))?;
        host.record.clone()
    };
    let pins = &record.pins;
    let pin = |kind: &str, pin: &Option<Pin>| {
        pin.as_ref().map(|pin| wire::Pin {
            kind: kind.to_owned(),
            fingerprint: pin.fingerprint.to_string(),
            expires_at: Some(to_wire_time(pin.not_after)),
        })
    };
    let kept = [
        pin("current", &pins.current),
        pin("pending", &pins.pending),
        pin("bundle", &pins.bundle),
    ];
    let spent = pins.spent.iter().map(|fingerprint| wire::Pin {
        kind: "spent".to_owned(),
        fingerprint: fingerprint.to_string(),
        expires_at: None,
    });
    let mut answer = GetHostResponse {
        host: Some(host),
        pins: kept.into_iter().flatten().chain(spent).collect(),
        node: Some(host_nodes::shown(desk, &record)),
        ..GetHostResponse::default()
    };
    let Some(seen) = desk.observed.get(id) else {
        return Ok(answer);
    };
    answer.machine_id = seen.connection().1;
    answer.documents = Kind::ALL.map(|kind| document(kind, &seen.tried(kind))).to_vec();
    let network = |network: JoinedNetwork| wire::HostNetwork {
        network_id: network.id.to_string(),
        status: network.status,
        addresses: network.addresses,
        managed: network.managed,
    };
    answer.networks = seen
        .zerotier()
        .into_iter()
        .flat_map(|status| status.networks)
        .map(network)
        .collect();
    if let Some(machine) = seen.host() {
        (answer.hostname, answer.os, answer.kernel) = (machine.hostname, machine.os, machine.kernel);
    }
    Ok(answer)
}

fn document(kind: Kind, tried: &Tried) -> wire::HostDocument {
    wire::HostDocument {
        kind: kind.to_string(),
        wanted_generation: tried.wanted.map_or(0, |wanted| wanted.stamp.generation),
        attempted_generation: tried
            .outcome
            .as_ref()
            .map_or(0, |outcome| outcome.stamp.generation),
        outcome: tried
            .outcome
            .as_ref()
            .map(|outcome| outcome.status.to_string())
            .unwrap_or_default(),
        problems: tried
            .outcome
            .iter()
            .flat_map(|outcome| &outcome.problems)
            .map(ToString::to_string)
            .collect(),
    }
}
