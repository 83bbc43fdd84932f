//! Networks: making and adopting them, their settings, their repairs, their end, looking.

mod adopt;
mod apply;
mod create;
mod end;
mod members;
mod repair;
mod shown;

use std::sync::Arc;

use picket_proto::wire::admin::{
    AdoptNetworkRequest, AdoptNetworkResponse, ApplyNetworkRequest, ApplyNetworkResponse,
    CreateNetworkRequest, CreateNetworkResponse, DeleteNetworkRequest, DeleteNetworkResponse,
    EnforceNetworkRequest, EnforceNetworkResponse, GetNetworkRequest, GetNetworkResponse,
    ListNetworksRequest, ListNetworksResponse, PlanNetworkRequest, PlanNetworkResponse,
    ReconcileNetworkRequest, ReconcileNetworkResponse, ResumeNetworkRequest, ResumeNetworkResponse,
    network_service_server::NetworkService,
};
use picket_zerotier::ids::NetworkId;
use tonic::{Request, Response, Status};

pub(super) use self::members::{Wanted, members, place};
use self::{
    end::There,
    shown::{glance, listed, record, shown},
};
use super::{network_id, page, reason};
use crate::{
    caller::operator,
    desk::{Actor, Desk},
    event::Severity,
    gate,
    record::{
        OperatorRole, Record as _, key,
        network::{NetworkMode, NetworkRecord},
    },
    refused::Refused,
    store::Guard,
};

/// The service, over the desk.
#[derive(Debug)]
pub struct Networks(pub Arc<Desk>);

#[tonic::async_trait]
impl NetworkService for Networks {
    async fn create_network(
        &self,
        request: Request<CreateNetworkRequest>,
    ) -> Result<Response<CreateNetworkResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let created = create::create(&self.0, &actor, request.into_inner()).await?;
        Ok(Response::new(created))
    }

    async fn adopt_network(
        &self,
        request: Request<AdoptNetworkRequest>,
    ) -> Result<Response<AdoptNetworkResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let adopted = adopt::adopt(&self.0, &actor, request.into_inner()).await?;
        Ok(Response::new(adopted))
    }

    async fn enforce_network(
        &self,
        request: Request<EnforceNetworkRequest>,
    ) -> Result<Response<EnforceNetworkResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let id = network_id(&request.into_inner().id)?;
        enforce(&self.0, &actor, id).await?;
        Ok(Response::new(EnforceNetworkResponse {
            network: Some(shown(&self.0, id)?),
        }))
    }

    async fn plan_network(
        &self,
        request: Request<PlanNetworkRequest>,
    ) -> Result<Response<PlanNetworkResponse>, Status> {
        operator(&self.0, &request)?;
        let asked = request.into_inner();
        let id = network_id(&asked.id)?;
        Ok(Response::new(apply::plan(&self.0, id, asked.form)?))
    }

    async fn apply_network(
        &self,
        request: Request<ApplyNetworkRequest>,
    ) -> Result<Response<ApplyNetworkResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let id = network_id(&asked.id)?;
        Ok(Response::new(
            apply::apply(&self.0, &actor, id, asked.form).await?,
        ))
    }

    async fn reconcile_network(
        &self,
        request: Request<ReconcileNetworkRequest>,
    ) -> Result<Response<ReconcileNetworkResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let id = network_id(&asked.id)?;
        let answer = if asked.dry_run {
            repair::differs(&self.0, id).await?
        } else {
            repair::reconcile(&self.0, &actor, id).await?
        };
        Ok(Response::new(answer))
    }

    async fn resume_network(
        &self,
        request: Request<ResumeNetworkRequest>,
    ) -> Result<Response<ResumeNetworkResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let (id, reason) = (network_id(&asked.id)?, reason(&asked.reason)?);
        Ok(Response::new(repair::resume(&self.0, &actor, id, &reason).await?))
    }

    async fn delete_network(
        &self,
        request: Request<DeleteNetworkRequest>,
    ) -> Result<Response<DeleteNetworkResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let (id, reason) = (network_id(&asked.id)?, reason(&asked.reason)?);
        let there = if asked.forget { There::Kept } else { There::Deleted };
        end::end(&self.0, &actor, id, there, &reason).await?;
        Ok(Response::new(DeleteNetworkResponse {}))
    }

    async fn list_networks(
        &self,
        request: Request<ListNetworksRequest>,
    ) -> Result<Response<ListNetworksResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let records: Vec<NetworkRecord> = {
            let views = self.0.views.read();
            let networks = views.networks.networks();
            networks.map(|network| network.record.clone()).collect()
        };
        // Whoever only asks for permissions need not know who has them.
        let requester = gate::role(&self.0, actor.name()) == Some(OperatorRole::Requester);
        let mut controllers = self.0.controllers();
        let networks = records
            .iter()
            .map(|record| match requester {
                true => Ok(glance(&mut controllers, record)),
                false => listed(&self.0, &mut controllers, record.id),
            })
            // One that ended meanwhile is not in the list.
            .filter(|network| !matches!(network, Err(Refused::Unknown { .. })))
            .collect::<Result<_, _>>()?;
        Ok(Response::new(ListNetworksResponse { networks }))
    }

    async fn get_network(
        &self,
        request: Request<GetNetworkRequest>,
    ) -> Result<Response<GetNetworkResponse>, Status> {
        operator(&self.0, &request)?;
        let id = network_id(&request.into_inner().id)?;
        let wanted = Wanted {
            network: Some(id),
            requested: false,
            of: None,
            after: None,
            size: page::size(0),
        };
        let network = shown(&self.0, id)?;
        let members = members(&self.0, wanted)?;
        Ok(Response::new(GetNetworkResponse {
            network: Some(network),
            next_page_token: members.token(),
            members: members.members,
        }))
    }
}

async fn enforce(desk: &Desk, actor: &Actor, id: NetworkId) -> Result<(), Refused> {
    let kept = record(desk, id)?;
    match kept.record.mode {
        NetworkMode::Enforce => return Ok(()),
        // Whom the grants, labels and settings let on is let on by this.
        NetworkMode::Observe => desk.may_approve()?,
        NetworkMode::Deleting | NetworkMode::Gone => {
            return Err(Refused::NotNow(format!("network {id} is being deleted")));
        }
    }
    let record = NetworkRecord {
        mode: NetworkMode::Enforce,
        ..kept.record
    };
    let guards = vec![Guard::At(key::network(id), kept.revision)];
    let audit = actor.does("network.enforce", id, "");
    desk.commit(guards, vec![record.put()], audit).await?;
    let message = format!("enforced by {}; members are what the grants say", actor.name());
    desk.say(Severity::Notice, "network.enforced", &id.to_string(), &message);
    Ok(())
}
