//! Members: admitting and revoking nodes, and why they stand as they do.

use std::sync::Arc;

use picket_proto::wire::admin::{
    self as wire, AdmitMemberRequest, AdmitMemberResponse, GetMemberRequest, GetMemberResponse,
    ListMembersRequest, ListMembersResponse, RevokeMemberRequest, RevokeMemberResponse,
    member_service_server::MemberService,
};
use picket_zerotier::ids::{NetworkId, NodeId};
use tonic::{Request, Response, Status};

use super::{network_id, networks, node, reason, settled_node};
use crate::{
    caller::operator,
    desk::{Actor, Desk},
    event::Severity,
    membership::{Because, Decision},
    record::{
        Record as _, key,
        network::{GrantRecord, NetworkMode},
    },
    refused::Refused,
    store::Guard,
};

/// The service, over the desk.
#[derive(Debug)]
pub struct Members(pub Arc<Desk>);

#[tonic::async_trait]
impl MemberService for Members {
    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        operator(&self.0, &request)?;
        let id = network_id(&request.into_inner().network_id)?;
        Ok(Response::new(ListMembersResponse {
            members: networks::members(&self.0, id)?,
        }))
    }

    async fn get_member(
        &self,
        request: Request<GetMemberRequest>,
    ) -> Result<Response<GetMemberResponse>, Status> {
        operator(&self.0, &request)?;
        let asked = request.into_inner();
        let (network, node) = (network_id(&asked.network_id)?, node(&self.0, &asked.node)?);
        Ok(Response::new(GetMemberResponse {
            member: Some(shown(&self.0, network, node)?),
        }))
    }

    async fn admit_member(
        &self,
        request: Request<AdmitMemberRequest>,
    ) -> Result<Response<AdmitMemberResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let (network, node) = (
            network_id(&asked.network_id)?,
            settled_node(&self.0, &asked.node)?,
        );
        self.grant(&actor, (network, node), true, &reason(&asked.reason)?)
            .await?;
        Ok(Response::new(AdmitMemberResponse {
            member: Some(shown(&self.0, network, node)?),
        }))
    }

    async fn request_member(
        &self,
        _: Request<wire::RequestMemberRequest>,
    ) -> Result<Response<wire::RequestMemberResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn approve_member(
        &self,
        _: Request<wire::ApproveMemberRequest>,
    ) -> Result<Response<wire::ApproveMemberResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn deny_member(
        &self,
        _: Request<wire::DenyMemberRequest>,
    ) -> Result<Response<wire::DenyMemberResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn cancel_member(
        &self,
        _: Request<wire::CancelMemberRequest>,
    ) -> Result<Response<wire::CancelMemberResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn activate_member(
        &self,
        _: Request<wire::ActivateMemberRequest>,
    ) -> Result<Response<wire::ActivateMemberResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn extend_member(
        &self,
        _: Request<wire::ExtendMemberRequest>,
    ) -> Result<Response<wire::ExtendMemberResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn end_member(
        &self,
        _: Request<wire::EndMemberRequest>,
    ) -> Result<Response<wire::EndMemberResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn revoke_member(
        &self,
        request: Request<RevokeMemberRequest>,
    ) -> Result<Response<RevokeMemberResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let (network, node) = (network_id(&asked.network_id)?, node(&self.0, &asked.node)?);
        self.grant(&actor, (network, node), false, &reason(&asked.reason)?)
            .await?;
        Ok(Response::new(RevokeMemberResponse {
            member: Some(shown(&self.0, network, node)?),
        }))
    }
}

impl Members {
    /// Writes what an operator decided of a node. Deciding the same again changes nothing.
    async fn grant(
        &self,
        actor: &Actor,
        (network, node): (NetworkId, NodeId),
        admitted: bool,
        reason: &str,
    ) -> Result<(), Refused> {
        let desk = &self.0;
        if admitted {
            desk.may_approve()?;
        }
        let (mode, before, decision) = {
            let views = desk.views.read();
            let kept = views
                .networks
                .network(network)
                .ok_or_else(|| Refused::no_network(network))?;
            let decision = views.networks.decide(&views.roster, network, node, desk.now());
            (
                kept.record.mode,
                views.networks.grant(network, node).cloned(),
                decision,
            )
        };
        if mode != NetworkMode::Enforce {
            return Err(Refused::NotNow(format!(
                "network {network} is adopted and not enforced, so nothing would change on it; run \
                 `picketctl network enforce {network}` first"
            )));
        }
        let same = before
            .as_ref()
            .is_some_and(|grant| grant.record.admitted == admitted);
        // A grant that ended with a retired host is there and holds no more; only a newer one does.
        if same && !(admitted && matches!(decision, Decision::Denied(Because::HostRetired(_)))) {
            return Ok(());
        }
        let at = key::grant(network, node);
        let guard = before.map_or(Guard::Absent(at.clone()), |grant| Guard::At(at, grant.revision));
        let record = GrantRecord {
            network,
            node,
            admitted,
            for_activation: false,
            by: actor.name().to_owned(),
            reason: reason.to_owned(),
            at: desk.now(),
        };
        let (what, kind, verb) = if admitted {
            ("member.admit", "member.admitted", "admitted")
        } else {
            ("member.revoke", "member.revoked", "revoked")
        };
        let subject = format!("{network}/{node}");
        desk.commit(
            vec![guard],
            vec![record.put()],
            actor.does(what, &subject, reason),
        )
        .await?;
        desk.say(
            Severity::Notice,
            kind,
            &subject,
            &format!("{verb} by {}: {reason}", actor.name()),
        );
        Ok(())
    }
}

fn shown(desk: &Desk, network: NetworkId, node: NodeId) -> Result<wire::Member, Refused> {
    let text = node.to_string();
    let found = networks::members(desk, network)?
        .into_iter()
        .find(|member| member.node_id == text);
    found.ok_or(Refused::Unknown {
        what: "member",
        name: text,
        list: "picketctl member list",
    })
}
