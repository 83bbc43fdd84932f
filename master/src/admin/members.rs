//! Members: who may be on a network, asked for, approved, activated, ended and taken away, and why it stands as it does.

pub(super) mod decisions;
pub(super) mod pair;

use std::{sync::Arc, time::Duration};

use picket_proto::wire::admin::{
    self as wire, ActivateMemberRequest, ActivateMemberResponse, AdmitMemberRequest, AdmitMemberResponse,
    ApproveMemberRequest, ApproveMemberResponse, CancelMemberRequest, CancelMemberResponse,
    DenyMemberRequest, DenyMemberResponse, EndMemberRequest, EndMemberResponse, ExtendMemberRequest,
    ExtendMemberResponse, GetMemberRequest, GetMemberResponse, ListMembersRequest, ListMembersResponse,
    RequestMemberRequest, RequestMemberResponse, RevokeMemberRequest, RevokeMemberResponse,
    member_service_server::MemberService,
};
use picket_zerotier::ids::{NetworkId, NodeId};
use tonic::{Request, Response, Status};

use self::pair::{Change, Pair, change};
use super::{
    member_view::{self, Seen},
    naming::{node_on, own_node_on, settled_node_on},
    network_id,
    networks::{self, Wanted},
    page, reason, remark,
};
use crate::{
    caller::operator,
    central,
    desk::{Actor, Desk},
    gate,
    owner::Caller,
    refused::Refused,
    request::Permission,
    status::not_any_more,
};

/// The service, over the desk.
#[derive(Debug)]
pub struct Members(pub Arc<Desk>);

/// Whose nodes a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Those that the caller may see.
    Seen,
    /// Those that the caller may act for.
    Own,
    /// Everybody's, and of a host only the node that is settled.
    Settled,
    /// Everybody's.
    All,
}

/// Who calls, and which node on which network it is about.
#[derive(Debug)]
struct Call {
    actor: Actor,
    caller: Caller,
    network: NetworkId,
    node: NodeId,
}

/// The operator at the other end of a call, with the role it has.
pub(super) fn calling<T>(desk: &Arc<Desk>, request: &Request<T>) -> Result<(Actor, Caller), Status> {
    let actor = operator(desk, request)?;
    let caller = Caller {
        role: gate::role(desk, actor.name()).ok_or_else(not_any_more)?,
        name: actor.name().to_owned(),
    };
    Ok((actor, caller))
}

#[tonic::async_trait]
impl MemberService for Members {
    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let (_, caller) = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let network = (!asked.network_id.is_empty()).then(|| network_id(&asked.network_id));
        let wanted = Wanted {
            network: network.transpose()?,
            requested: asked.requested,
            of: (!caller.sees_all()).then_some(caller.name.as_str()),
            after: networks::place(&asked.page_token)?,
            size: page::size(asked.page_size),
        };
        let members = networks::members(&self.0, wanted)?;
        Ok(Response::new(ListMembersResponse {
            next_page_token: members.token(),
            members: members.members,
        }))
    }

    async fn get_member(
        &self,
        request: Request<GetMemberRequest>,
    ) -> Result<Response<GetMemberResponse>, Status> {
        let by = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let call = self.about(by, &asked.network_id, &asked.node, Reach::Seen)?;
        Ok(Response::new(GetMemberResponse {
            member: Some(self.shown(&call)?),
        }))
    }

    async fn admit_member(
        &self,
        request: Request<AdmitMemberRequest>,
    ) -> Result<Response<AdmitMemberResponse>, Status> {
        let by = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let call = self.about(by, &asked.network_id, &asked.node, Reach::Settled)?;
        let (reason, lasts) = (reason(&asked.reason)?, span(asked.lasts)?);
        self.0.may_approve()?;
        let decide = |pair: &Pair| decisions::admit(pair, &call.caller, &reason, lasts);
        let (changed, member) = self.tried(&call, decide).await?;
        let (caution, remark) = match lasts {
            Some(_) if changed => (self.caution(call.network), String::new()),
            Some(_) => (self.caution(call.network), self.goes_on(&call)),
            None => Default::default(),
        };
        Ok(Response::new(AdmitMemberResponse {
            member: Some(member),
            caution,
            remark,
        }))
    }

    async fn request_member(
        &self,
        request: Request<RequestMemberRequest>,
    ) -> Result<Response<RequestMemberResponse>, Status> {
        let by = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let call = self.about(by, &asked.network_id, &asked.node, Reach::Own)?;
        let reason = reason(&asked.reason)?;
        let decide = |pair: &Pair| decisions::ask(pair, &call.caller, &reason);
        let (changed, member) = self.tried(&call, decide).await?;
        let before = member.request.as_ref().map(|request| request.reason.as_str());
        let remark = match before {
            Some(before) if !changed && before != reason => format!(
                "{} asked for it before, and that waits as it was made, with its reason: {before}; `picketctl member cancel {} \
                 --network {}` takes it back",
                call.caller.name, call.node, call.network
            ),
            Some(_) | None => String::new(),
        };
        Ok(Response::new(RequestMemberResponse {
            member: Some(member),
            remark,
        }))
    }

    async fn approve_member(
        &self,
        request: Request<ApproveMemberRequest>,
    ) -> Result<Response<ApproveMemberResponse>, Status> {
        let by = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let call = self.about(by, &asked.network_id, &asked.node, Reach::Settled)?;
        let (permission, reason) = (permission(asked.grant())?, remark(&asked.reason)?);
        self.0.may_approve()?;
        let decide = |pair: &Pair| decisions::approve(pair, &call.caller, &reason, permission);
        Ok(Response::new(ApproveMemberResponse {
            member: Some(self.decided(&call, decide).await?),
        }))
    }

    async fn deny_member(
        &self,
        request: Request<DenyMemberRequest>,
    ) -> Result<Response<DenyMemberResponse>, Status> {
        let by = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let call = self.about(by, &asked.network_id, &asked.node, Reach::All)?;
        let reason = reason(&asked.reason)?;
        let decide = |pair: &Pair| decisions::deny(pair, &call.caller, &reason);
        Ok(Response::new(DenyMemberResponse {
            member: Some(self.decided(&call, decide).await?),
        }))
    }

    async fn cancel_member(
        &self,
        request: Request<CancelMemberRequest>,
    ) -> Result<Response<CancelMemberResponse>, Status> {
        let by = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let call = self.about(by, &asked.network_id, &asked.node, Reach::Own)?;
        let reason = remark(&asked.reason)?;
        let decide = |pair: &Pair| decisions::cancel(pair, &call.caller, &reason);
        Ok(Response::new(CancelMemberResponse {
            member: Some(self.decided(&call, decide).await?),
        }))
    }

    async fn revoke_member(
        &self,
        request: Request<RevokeMemberRequest>,
    ) -> Result<Response<RevokeMemberResponse>, Status> {
        let by = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let call = self.about(by, &asked.network_id, &asked.node, Reach::All)?;
        let reason = reason(&asked.reason)?;
        let decide = |pair: &Pair| decisions::revoke(pair, &call.caller, &reason);
        Ok(Response::new(RevokeMemberResponse {
            member: Some(self.decided(&call, decide).await?),
        }))
    }

    async fn activate_member(
        &self,
        request: Request<ActivateMemberRequest>,
    ) -> Result<Response<ActivateMemberResponse>, Status> {
        let by = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let call = self.about(by, &asked.network_id, &asked.node, Reach::Own)?;
        let (reason, lasts) = (reason(&asked.reason)?, span(asked.lasts)?);
        self.0.may_approve()?;
        let decide = |pair: &Pair| decisions::activate(pair, &call.caller, &reason, lasts);
        let (changed, member) = self.tried(&call, decide).await?;
        Ok(Response::new(ActivateMemberResponse {
            member: Some(member),
            caution: self.caution(call.network),
            remark: match changed {
                true => String::new(),
                false => self.goes_on(&call),
            },
        }))
    }

    async fn extend_member(
        &self,
        request: Request<ExtendMemberRequest>,
    ) -> Result<Response<ExtendMemberResponse>, Status> {
        let by = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let call = self.about(by, &asked.network_id, &asked.node, Reach::All)?;
        let (reason, lasts) = (reason(&asked.reason)?, span(asked.lasts)?);
        self.0.may_approve()?;
        let decide = |pair: &Pair| decisions::extend(pair, &call.caller, &reason, lasts);
        Ok(Response::new(ExtendMemberResponse {
            member: Some(self.decided(&call, decide).await?),
            caution: self.caution(call.network),
        }))
    }

    async fn end_member(
        &self,
        request: Request<EndMemberRequest>,
    ) -> Result<Response<EndMemberResponse>, Status> {
        let by = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let call = self.about(by, &asked.network_id, &asked.node, Reach::Own)?;
        let reason = remark(&asked.reason)?;
        let decide = |pair: &Pair| decisions::end(pair, &call.caller, &reason);
        Ok(Response::new(EndMemberResponse {
            member: Some(self.decided(&call, decide).await?),
        }))
    }
}

impl Members {
    /// Reads what a call is about, as far as it is the caller's to name.
    fn about(
        &self,
        (actor, caller): (Actor, Caller),
        network: &str,
        node: &str,
        reach: Reach,
    ) -> Result<Call, Refused> {
        let desk = &self.0;
        let network = network_id(network)?;
        let own_only = match reach {
            Reach::Seen => !caller.sees_all(),
            Reach::Own => !caller.acts_for_all(),
            Reach::Settled | Reach::All => false,
        };
        let node = match reach {
            Reach::Seen | Reach::Own if own_only => own_node_on(desk, network, node, &caller)?,
            Reach::Seen | Reach::Own | Reach::All => node_on(desk, network, node)?,
            Reach::Settled => settled_node_on(desk, network, node)?,
        };
        Ok(Call {
            actor,
            caller,
            network,
            node,
        })
    }

    /// Decides, writes what changes, and shows how the node stands then.
    async fn decided(
        &self,
        call: &Call,
        decide: impl Fn(&Pair) -> Result<Option<Change>, Refused> + Send,
    ) -> Result<wire::Member, Refused> {
        let (_, member) = self.tried(call, decide).await?;
        Ok(member)
    }

    /// As [`Members::decided`], and whether something changed.
    async fn tried(
        &self,
        call: &Call,
        decide: impl Fn(&Pair) -> Result<Option<Change>, Refused> + Send,
    ) -> Result<(bool, wire::Member), Refused> {
        let changed = change(&self.0, &call.actor, (call.network, call.node), decide).await?;
        Ok((changed, self.shown(call)?))
    }

    /// That an activation goes on that was not started by this call.
    fn goes_on(&self, call: &Call) -> String {
        let (network, node) = (call.network, call.node);
        let views = self.0.views.read();
        let Some(kept) = views.networks.activation(network, node) else {
            return String::new();
        };
        format!(
            "an activation by {} goes on until {:.0} and is left as it is; `picketctl member extend {node} --network {network} \
             --for ... --reason ...`, by an approver, prolongs it",
            kept.record.by, kept.record.until
        )
    }

    fn shown(&self, call: &Call) -> Result<wire::Member, Refused> {
        let desk = &self.0;
        let (id, node) = (call.network, call.node);
        let record = {
            let views = desk.views.read();
            let kept = views.networks.network(id);
            kept.map(|kept| kept.record.clone())
                .ok_or_else(|| Refused::no_network(id))?
        };
        let observed = desk.controlled(record.controller, id).ok();
        let member = observed
            .as_ref()
            .and_then(|network| network.members.iter().find(|member| member.node == node));
        let seen = match (member, &observed) {
            (Some(member), _) => Seen::Record(member),
            (None, Some(_)) => Seen::Absent,
            (None, None) => Seen::Nothing,
        };
        let views = desk.views.read();
        Ok(member_view::member(&views, &record, node, seen, desk.now()))
    }

    /// What does not hold of activations on this network.
    fn caution(&self, network: NetworkId) -> String {
        let views = self.0.views.read();
        let governor = views.networks.network(network).map(|kept| kept.record.controller);
        governor.and_then(central::caution).unwrap_or_default().to_owned()
    }
}

/// What an approval is to grant.
fn permission(grant: wire::GrantKind) -> Result<Permission, Refused> {
    match grant {
        wire::GrantKind::Stands => Ok(Permission::Stands),
        wire::GrantKind::MayActivate => Ok(Permission::MayActivate),
        wire::GrantKind::Unspecified | wire::GrantKind::Revoked => Err(Refused::invalid(
            "grant",
            "say what the approval grants: that the node stands, or that it may be activated",
        )),
    }
}

fn span(lasts: Option<prost_types::Duration>) -> Result<Option<Duration>, Refused> {
    let read = lasts.map(Duration::try_from).transpose();
    read.map_err(|_| Refused::invalid("lasts", "is not a positive span of time"))
}
