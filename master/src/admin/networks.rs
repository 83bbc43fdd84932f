//! Networks: adopting, enforcing, looking.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use picket_proto::{
    host::HostId,
    status::{ControlledNetwork, ServiceState},
    wire::admin::{
        self as wire, AdoptNetworkRequest, AdoptNetworkResponse, EnforceNetworkRequest,
        EnforceNetworkResponse, GetNetworkRequest, GetNetworkResponse, ListNetworksRequest,
        ListNetworksResponse, network_service_server::NetworkService,
    },
};
use picket_zerotier::ids::{NetworkId, NodeId};
use tonic::{Request, Response, Status};

use super::{
    member_view::{self, Seen},
    name, network_id,
};
use crate::{
    caller::operator,
    desk::Desk,
    event::Severity,
    membership::{Because, Decision},
    record::{
        Record as _, key,
        network::{Governor, GrantRecord, NetworkMode, NetworkRecord},
    },
    refused::Refused,
    store::{CommitError, Guard, WRITES_MAX},
};

/// The service, over the desk.
#[derive(Debug)]
pub struct Networks(pub Arc<Desk>);

#[tonic::async_trait]
impl NetworkService for Networks {
    async fn adopt_network(
        &self,
        request: Request<AdoptNetworkRequest>,
    ) -> Result<Response<AdoptNetworkResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let id = network_id(&asked.id)?;
        if asked.approvals != 0 {
            return Err(Refused::invalid("approvals", "0 is the only value this version takes").into());
        }
        let desk = &self.0;
        if desk.views.read().networks.network(id).is_some() {
            return Ok(Response::new(AdoptNetworkResponse {
                network: Some(shown(desk, id)?),
                imported: 0,
            }));
        }
        let (controller, controlled) = find_controller(desk, id, &asked.controller_host)?;
        if !desk.sessions.has(controller) {
            let host = desk.name_of(controller);
            return Err(Refused::NotNow(format!(
                "{host}, whose controller runs {id}, is not connected, so what is known of its members may be old; try again \
                 when it is online"
            ))
            .into());
        }
        let now = desk.now();
        let authorized = controlled.members.iter().filter(|member| member.authorized);
        let grants: Vec<_> = authorized
            .map(|member| GrantRecord {
                network: id,
                node: member.node,
                admitted: true,
                for_activation: false,
                by: actor.name().to_owned(),
                reason: "adopted".to_owned(),
                at: now,
            })
            .collect();
        // The network's own record comes last: until it is there nothing is watched, and adopting again starts over.
        let audit = actor.does("network.adopt", id, "");
        for batch in grants.chunks(WRITES_MAX - 1) {
            let writes = batch.iter().map(GrantRecord::put).collect();
            desk.commit(vec![Guard::Absent(key::network(id))], writes, audit.clone())
                .await
                .map_err(Refused::Commit)?;
        }
        let record = NetworkRecord::watched(id, Governor::Host(controller), now);
        match desk
            .commit(vec![Guard::Absent(key::network(id))], vec![record.put()], audit)
            .await
        {
            // Somebody else adopted it meanwhile: that is what was asked for.
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(Refused::Commit(error).into()),
        }
        let imported = u32::try_from(grants.len()).unwrap_or(u32::MAX);
        let message = format!(
            "adopted by {}, {imported} members imported; nothing is changed yet",
            actor.name()
        );
        desk.say(Severity::Notice, "network.adopted", &id.to_string(), &message);
        Ok(Response::new(AdoptNetworkResponse {
            network: Some(shown(desk, id)?),
            imported,
        }))
    }

    async fn enforce_network(
        &self,
        request: Request<EnforceNetworkRequest>,
    ) -> Result<Response<EnforceNetworkResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let id = network_id(&request.into_inner().id)?;
        let desk = &self.0;
        let kept = {
            let views = desk.views.read();
            views
                .networks
                .network(id)
                .cloned()
                .ok_or_else(|| Refused::no_network(id))?
        };
        if kept.record.mode != NetworkMode::Enforce {
            let record = NetworkRecord {
                mode: NetworkMode::Enforce,
                ..kept.record
            };
            let guards = vec![Guard::At(key::network(id), kept.revision)];
            let audit = actor.does("network.enforce", id, "");
            desk.commit(guards, vec![record.put()], audit)
                .await
                .map_err(Refused::Commit)?;
            let message = format!("enforced by {}; members are what the grants say", actor.name());
            desk.say(Severity::Notice, "network.enforced", &id.to_string(), &message);
        }
        Ok(Response::new(EnforceNetworkResponse {
            network: Some(shown(desk, id)?),
        }))
    }

    async fn create_network(
        &self,
        _: Request<wire::CreateNetworkRequest>,
    ) -> Result<Response<wire::CreateNetworkResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn plan_network(
        &self,
        _: Request<wire::PlanNetworkRequest>,
    ) -> Result<Response<wire::PlanNetworkResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn apply_network(
        &self,
        _: Request<wire::ApplyNetworkRequest>,
    ) -> Result<Response<wire::ApplyNetworkResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn reconcile_network(
        &self,
        _: Request<wire::ReconcileNetworkRequest>,
    ) -> Result<Response<wire::ReconcileNetworkResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn resume_network(
        &self,
        _: Request<wire::ResumeNetworkRequest>,
    ) -> Result<Response<wire::ResumeNetworkResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn delete_network(
        &self,
        _: Request<wire::DeleteNetworkRequest>,
    ) -> Result<Response<wire::DeleteNetworkResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn list_networks(
        &self,
        request: Request<ListNetworksRequest>,
    ) -> Result<Response<ListNetworksResponse>, Status> {
        operator(&self.0, &request)?;
        let ids: Vec<_> = self
            .0
            .views
            .read()
            .networks
            .networks()
            .map(|network| network.record.id)
            .collect();
        let networks = ids
            .into_iter()
            .map(|id| shown(&self.0, id))
            .collect::<Result<_, _>>()?;
        Ok(Response::new(ListNetworksResponse { networks }))
    }

    async fn get_network(
        &self,
        request: Request<GetNetworkRequest>,
    ) -> Result<Response<GetNetworkResponse>, Status> {
        operator(&self.0, &request)?;
        let id = network_id(&request.into_inner().id)?;
        Ok(Response::new(GetNetworkResponse {
            network: Some(shown(&self.0, id)?),
            members: members(&self.0, id)?,
        }))
    }
}

/// The host whose controller runs a network, and what it said of it.
fn find_controller(desk: &Desk, id: NetworkId, host: &str) -> Result<(HostId, ControlledNetwork), Refused> {
    let candidates: Vec<HostId> = if host.is_empty() {
        desk.views
            .read()
            .roster
            .hosts()
            .map(|host| host.record.id)
            .collect()
    } else {
        vec![desk.host_named(&name("controller_host", host)?)?]
    };
    for candidate in candidates {
        // A controller's word counts for networks under its own node id, and that must be the host's own.
        let own = desk
            .views
            .read()
            .roster
            .host(candidate)
            .and_then(|host| host.record.node);
        if own != Some(id.controller()) {
            continue;
        }
        let status = desk.observed.get(candidate).and_then(|seen| seen.controller());
        let network = status.and_then(|status| status.networks.into_iter().find(|network| network.id == id));
        if let Some(network) = network {
            return Ok((candidate, network));
        }
    }
    let who = if host.is_empty() {
        "no enrolled host reports".to_owned()
    } else {
        format!("{host} does not report")
    };
    Err(Refused::NotNow(format!(
        "{who} a controller that runs network {id}; enroll the machine of node {} first, and see with \
         `picketctl host show` that its agent reaches the ZeroTier service",
        id.controller()
    )))
}

/// What the controller said of a network last; or why it is not known.
pub(super) fn observed(
    desk: &Desk,
    controller: Governor,
    id: NetworkId,
) -> Result<ControlledNetwork, String> {
    let Governor::Host(controller) = controller else {
        return Err("ZeroTier Central is not asked yet".to_owned());
    };
    let host = desk.name_of(controller);
    let Some(status) = desk.observed.get(controller).and_then(|seen| seen.controller()) else {
        return Err(format!(
            "{host} has not reported its controller; is its agent running?"
        ));
    };
    if let Some(problem) = status.service.problem() {
        return Err(format!("the controller on {host}: {problem}"));
    }
    debug_assert_eq!(status.service, ServiceState::Answers);
    let network = status.networks.into_iter().find(|network| network.id == id);
    network.ok_or_else(|| format!("the controller on {host} does not run it any more"))
}

/// A network as lists show it.
fn shown(desk: &Desk, id: NetworkId) -> Result<wire::Network, Refused> {
    let record = {
        let views = desk.views.read();
        views
            .networks
            .network(id)
            .map(|network| network.record.clone())
            .ok_or_else(|| Refused::no_network(id))?
    };
    let (name, problem) = match observed(desk, record.controller, id) {
        Ok(network) => (network.name, String::new()),
        Err(problem) => (String::new(), problem),
    };
    let members = members(desk, id)?;
    let count = |wanted: fn(&wire::Member) -> bool| {
        u32::try_from(members.iter().filter(|member| wanted(member)).count()).unwrap_or(u32::MAX)
    };
    Ok(wire::Network {
        id: id.to_string(),
        name,
        mode: match record.mode {
            NetworkMode::Observe => wire::NetworkMode::Observe,
            NetworkMode::Enforce => wire::NetworkMode::Enforce,
            NetworkMode::Deleting | NetworkMode::Gone => wire::NetworkMode::Deleting,
        }
        .into(),
        controller_host: record
            .controller
            .host()
            .map(|host| desk.name_of(host))
            .unwrap_or_default(),
        approvals: record.approvals.into(),
        members_authorized: count(|member| member.decision() == wire::MemberDecision::Authorized),
        members_unknown: count(|member| member.decision() == wire::MemberDecision::Unknown),
        drift: count(drifted),
        problem,
        ..Default::default()
    })
}

fn drifted(member: &wire::Member) -> bool {
    use wire::{MemberDecision as Decision, MemberObservation as Observation};
    match member.decision() {
        Decision::Authorized => matches!(member.observed(), Observation::Deauthorized | Observation::Absent),
        Decision::Denied => member.observed() == Observation::Authorized,
        Decision::Unknown | Decision::Unspecified => false,
    }
}

/// Every node that has a grant on a network, or a record at its controller.
pub(super) fn members(desk: &Desk, id: NetworkId) -> Result<Vec<wire::Member>, Refused> {
    let controller = {
        let views = desk.views.read();
        views
            .networks
            .network(id)
            .map(|network| network.record.controller)
            .ok_or_else(|| Refused::no_network(id))?
    };
    let observed = observed(desk, controller, id).ok();
    let reports = observed.is_some();
    let records: BTreeMap<_, _> = observed
        .into_iter()
        .flat_map(|network| network.members)
        .map(|member| (member.node, member))
        .collect();
    let views = desk.views.read();
    let now = desk.now();
    let mut nodes: BTreeSet<NodeId> = records.keys().copied().collect();
    // Everybody who is registered is denied; those of whom nothing else is to be said here are left out.
    nodes.extend(
        views
            .networks
            .known_on(&views.roster, id)
            .into_iter()
            .filter(|node| {
                views.networks.decide(&views.roster, id, *node, now) != Decision::Denied(Because::NotAdmitted)
            }),
    );
    nodes.extend(views.networks.waiting_on(id).map(|request| request.node));
    let Some(network) = views.networks.network(id) else {
        return Err(Refused::no_network(id));
    };
    let member = |node: NodeId| {
        let seen = match records.get(&node) {
            Some(record) => Seen::Record(record),
            None if reports => Seen::Absent,
            None => Seen::Nothing,
        };
        member_view::member(&views, &network.record, node, seen, now)
    };
    Ok(nodes.into_iter().map(member).collect())
}
