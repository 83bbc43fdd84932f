//! Moons: roots of our own.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use picket_proto::{
    host::HostId,
    stay::{endpoint_text, endpoints},
    to_wire_time,
    wire::admin::{
        self as wire, CreateMoonRequest, CreateMoonResponse, ListMoonsRequest, ListMoonsResponse,
        RemoveMoonRequest, RemoveMoonResponse, moon_service_server::MoonService,
    },
};
use tonic::{Request, Response, Status};

use super::{name, reason};
use crate::{
    caller::operator,
    desk::{Actor, Desk},
    event::Severity,
    moon,
    networks::Kept,
    node::NodeStanding,
    record::{HostStanding, Record as _, Revocation, key, network::MoonRecord},
    refused::Refused,
    status::chain,
    store::{CommitError, Guard},
};

/// The service, over the desk.
#[derive(Debug)]
pub struct Moons(pub Arc<Desk>);

#[tonic::async_trait]
impl MoonService for Moons {
    async fn create_moon(
        &self,
        request: Request<CreateMoonRequest>,
    ) -> Result<Response<CreateMoonResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let host = self.0.host_named(&name("host", &asked.host)?)?;
        let endpoints = endpoints(&asked.endpoints).map_err(Refused::Invalid)?;
        reachable(&endpoints)?;
        let moon = self.create(&actor, host, endpoints).await?;
        Ok(Response::new(CreateMoonResponse {
            moon: Some(shown(&self.0, &moon)),
        }))
    }

    async fn list_moons(
        &self,
        request: Request<ListMoonsRequest>,
    ) -> Result<Response<ListMoonsResponse>, Status> {
        operator(&self.0, &request)?;
        let moons = standing(&self.0);
        Ok(Response::new(ListMoonsResponse {
            moons: moons.iter().map(|kept| shown(&self.0, &kept.record)).collect(),
        }))
    }

    async fn remove_moon(
        &self,
        request: Request<RemoveMoonRequest>,
    ) -> Result<Response<RemoveMoonResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let why = reason(&asked.reason)?;
        let desk = &self.0;
        // By the name of a host that is gone since, too.
        let its = |kept: &Kept<MoonRecord>| {
            desk.name_of(kept.record.host) == asked.host || kept.record.host.to_string() == asked.host
        };
        let kept = standing(desk).into_iter().find(its);
        let Kept { record, revision } = kept.ok_or_else(|| Refused::Unknown {
            what: "moon with its root on host",
            name: asked.host.clone(),
            list: "picketctl moon list",
        })?;
        let record = MoonRecord {
            removed: Some(Revocation {
                at: desk.now(),
                by: actor.name().to_owned(),
                reason: why.clone(),
            }),
            ..record
        };
        let id = world_id(&record);
        let guards = vec![Guard::At(key::moon(record.node), revision)];
        desk.commit(guards, vec![record.put()], actor.does("moon.remove", &id, &why))
            .await
            .map_err(Refused::Commit)?;
        let message = format!("moon {id} removed by {}: {why}", actor.name());
        desk.say(
            Severity::Notice,
            "moon.removed",
            &desk.name_of(record.host),
            &message,
        );
        Ok(Response::new(RemoveMoonResponse {}))
    }
}

impl Moons {
    /// Makes a moon, or changes where its root is reached.
    async fn create(
        &self,
        actor: &Actor,
        id: HostId,
        endpoints: BTreeSet<SocketAddr>,
    ) -> Result<MoonRecord, Refused> {
        let desk = &self.0;
        let (node, before) = {
            let views = desk.views.read();
            let host = views.roster.host(id).ok_or_else(|| Refused::no_host(id))?;
            let (host, name) = (&host.record, &host.record.name);
            if host.standing != HostStanding::Active {
                return Err(Refused::NotNow(format!(
                    "host {name} is banned; `picketctl host unban {name}` first"
                )));
            }
            let node = host
                .node
                .filter(|_| host.node_standing == NodeStanding::Proven && host.node_identity.is_some());
            let node = node.ok_or_else(|| {
                Refused::NotNow(format!(
                    "host {name} has not proven which ZeroTier node it is, and a moon's root must be known; see \
                     `picketctl host show {name}`"
                ))
            })?;
            let others = views
                .networks
                .moons()
                .filter(|moon| moon.record.removed.is_none());
            let mut others = others.filter(|moon| moon.record.host == id && moon.record.node != node);
            if let Some(other) = others.next() {
                return Err(Refused::NotNow(format!(
                    "the moon of host {name} is of node {}, which is not its node any more; `picketctl moon remove {name}` \
                     first",
                    other.record.node
                )));
            }
            let mut moons = views.networks.moons();
            (node, moons.find(|moon| moon.record.node == node).cloned())
        };
        let at = key::moon(node);
        let guard = match &before {
            Some(moon) => Guard::At(at, moon.revision),
            None => Guard::Absent(at),
        };
        let before = before
            .map(|moon| moon.record)
            .filter(|moon| moon.removed.is_none() && moon.host == id);
        let record = match before {
            Some(moon) if moon.endpoints == endpoints => return Ok(moon),
            Some(moon) => MoonRecord { endpoints, ..moon },
            None => MoonRecord {
                host: id,
                node,
                endpoints,
                at: desk.now(),
                by: actor.name().to_owned(),
                definition: String::new(),
                signed_at: None,
                removed: None,
            },
        };
        let text: Vec<_> = record.endpoints.iter().map(endpoint_text).collect();
        let (world, text) = (world_id(&record), text.join(", "));
        let audit = actor.does("moon.create", &world, &text);
        match desk.commit(vec![guard], vec![record.put()], audit).await {
            Ok(_) => {}
            Err(CommitError::Conflict { .. }) => {
                return Err(Refused::NotNow(
                    "the moon is being changed by somebody else; look at it and try again".to_owned(),
                ));
            }
            Err(error) => return Err(error.into()),
        }
        let message = format!(
            "moon {world} at {text} made by {}; its root signs it",
            actor.name()
        );
        desk.say(Severity::Notice, "moon.created", &desk.name_of(id), &message);
        Ok(record)
    }
}

/// Refuses endpoints that nobody else could use.
fn reachable(endpoints: &BTreeSet<SocketAddr>) -> Result<(), Refused> {
    let useless = endpoints.iter().find(|endpoint| {
        let address = endpoint.ip();
        address.is_unspecified() || address.is_loopback() || address.is_multicast()
    });
    useless.map_or(Ok(()), |endpoint| {
        let problem = format_args!(
            "{}: no other machine reaches that; give the address that others send to",
            endpoint_text(endpoint)
        );
        Err(Refused::invalid("endpoints", problem))
    })
}

fn standing(desk: &Desk) -> Vec<Kept<MoonRecord>> {
    let views = desk.views.read();
    let moons = views.networks.moons();
    moons
        .filter(|moon| moon.record.removed.is_none())
        .cloned()
        .collect()
}

fn world_id(moon: &MoonRecord) -> String {
    format!("{:016x}", moon.node.to_u64())
}

fn shown(desk: &Desk, record: &MoonRecord) -> wire::Moon {
    let (others, proven) = {
        let views = desk.views.read();
        let hosts = views.roster.hosts().map(|host| &host.record);
        let others: Vec<_> = hosts
            .filter(|host| host.id != record.host && host.node.is_some())
            .filter(|host| host.standing == HostStanding::Active)
            .map(|host| host.id)
            .collect();
        let root = views.roster.host(record.host).map(|host| &host.record);
        (others, moon::root_of(record, root).is_some())
    };
    let world = record.node.to_u64();
    let orbits = |host: &HostId| {
        let status = desk.observed.get(*host).and_then(|seen| seen.zerotier());
        let moons = status.map(|status| status.moons).unwrap_or_default();
        moons.iter().any(|moon| moon.id == world && !moon.waiting)
    };
    let orbiting = others.iter().filter(|host| orbits(host)).count();
    let signed = moon::is_signed(record);
    wire::Moon {
        world_id: world_id(record),
        host: desk.name_of(record.host),
        endpoints: record.endpoints.iter().map(endpoint_text).collect(),
        signed,
        signed_at: record.signed_at.map(to_wire_time),
        orbiting: u32::try_from(orbiting).unwrap_or(u32::MAX),
        waiting: u32::try_from(others.len() - orbiting).unwrap_or(u32::MAX),
        problem: problem(desk, record, proven, signed),
    }
}

fn problem(desk: &Desk, record: &MoonRecord, proven: bool, signed: bool) -> String {
    let name = desk.name_of(record.host);
    if !proven {
        return format!(
            "host {name} is not the node {} that it proved to be any more, or may not come in; `picketctl host show {name}`",
            record.node
        );
    }
    if let Some(refusal) = moon::refusal(desk, record) {
        return format!("what {name} signed is not taken over: {}", chain(&refusal));
    }
    if signed {
        return String::new();
    }
    if desk.sessions.has(record.host) {
        format!("{name} has not signed it yet")
    } else {
        format!("{name} is not connected; it signs when it is back")
    }
}
