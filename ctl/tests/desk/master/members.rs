//! Members, requests and activations, as the admin API asks for them.

use picket_proto::from_wire_time;

use super::*;

/// How long an activation lasts, and at most.
const ACTIVATION: Duration = Duration::from_secs(3600);
const MOST_ACTIVATION: Duration = Duration::from_secs(24 * 3600);

/// One node on one network, and when what was decided of it comes true.
pub(crate) struct Seat {
    pub(crate) member: wire::Member,
    decided: Option<Instant>,
    before: i32,
    ends: Option<Instant>,
    /// An approval said that it may only be activated.
    narrow: bool,
}

impl From<wire::Member> for Seat {
    fn from(member: wire::Member) -> Self {
        Self {
            before: member.observed,
            member,
            decided: None,
            ends: None,
            narrow: false,
        }
    }
}

impl State {
    pub(super) fn members_of(&self, network: &str) -> Vec<wire::Member> {
        let seats = self.members.keys().filter(|(id, _)| id == network);
        seats
            .map(|(network, node)| self.member(network, node).unwrap())
            .collect()
    }

    pub(super) fn member(&self, network: &str, node: &str) -> Result<wire::Member, Status> {
        let seat = self
            .members
            .get(&(network.to_owned(), self.node(node)))
            .ok_or_else(|| Status::not_found(format!("there is no node `{node}` on {network}")))?;
        let mut member = seat.member.clone();
        if seat.ends.is_some_and(|ends| ends <= Instant::now()) {
            member.set_decision(wire::MemberDecision::Denied);
            member.set_observed(wire::MemberObservation::Deauthorized);
            member.because = "its activation came to its end".into();
            if let Some(activation) = &mut member.activation {
                activation.ended_at = activation.until;
                activation.ended_because = "it came to its end".into();
            }
            member.until = None;
            return Ok(member);
        }
        if let Some(decided) = seat.decided
            && self
                .controller_takes
                .is_none_or(|takes| decided.elapsed() < takes)
        {
            member.observed = seat.before;
        }
        Ok(member)
    }

    /// The node that somebody names by its id, its host or its device.
    pub(super) fn node(&self, node: &str) -> String {
        let host = self.hosts.get(node).map(|host| host.node_id.clone());
        let device = self.devices.values().find(|device| device.name == node);
        host.or_else(|| device.map(|device| device.node_id.clone()))
            .unwrap_or_else(|| node.to_owned())
    }

    /// A member as it is, or as it is before anybody says anything of it.
    fn known(&self, network: &str, node: &str) -> wire::Member {
        let node_id = self.node(node);
        self.member(network, &node_id).unwrap_or_else(|_| {
            let host = self.hosts.values().find(|host| host.node_id == node_id);
            let device = self.devices.get(&node_id);
            let owner = match (host, device) {
                (Some(host), _) => format!("host/{}", host.name),
                (None, Some(device)) => device.owner.clone(),
                (None, None) => String::new(),
            };
            wire::Member {
                network_id: network.to_owned(),
                host: host.map(|host| host.name.clone()).unwrap_or_default(),
                device: device.map(|device| device.name.clone()).unwrap_or_default(),
                owner,
                decision: wire::MemberDecision::Unknown.into(),
                observed: wire::MemberObservation::Absent.into(),
                because: "nobody registered it".into(),
                node_id,
                ..wire::Member::default()
            }
        })
    }

    fn keep(&mut self, member: wire::Member) -> wire::Member {
        let at = (member.network_id.clone(), member.node_id.clone());
        match self.members.get_mut(&at) {
            Some(seat) => seat.member = member.clone(),
            None => drop(self.members.insert(at, member.clone().into())),
        }
        member
    }

    fn decide(
        &mut self,
        network: &str,
        member: wire::Member,
        authorized: bool,
        because: String,
    ) -> Result<wire::Member, Status> {
        if self.network(network)?.mode() != wire::NetworkMode::Enforce {
            return Err(Status::failed_precondition(format!(
                "the network {network} is only observed; run `picketctl network enforce {network}` first"
            )));
        }
        let before = member.observed;
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
        let member = wire::Member {
            decision: decision.into(),
            observed: observed.into(),
            because,
            ..member
        };
        let node = member.node_id.clone();
        let seat = Seat {
            member,
            decided: Some(Instant::now()),
            before,
            ends: None,
            narrow: false,
        };
        self.members.insert((network.to_owned(), node.clone()), seat);
        self.member(network, &node)
    }

    /// Lets a member on for a time.
    fn activate(
        &mut self,
        network: &str,
        mut member: wire::Member,
        why: &str,
        lasts: Option<prost_types::Duration>,
        now: jiff::Timestamp,
    ) -> Result<wire::Member, Status> {
        let lasts = lasts.map_or(ACTIVATION, |lasts| lasts.try_into().unwrap());
        if lasts > MOST_ACTIVATION {
            return Err(Status::invalid_argument(
                "lasts: an activation on this network lasts at most 24 h",
            ));
        }
        let until = Some(to_wire_time(now + jiff::SignedDuration::try_from(lasts).unwrap()));
        member.activation = Some(wire::Activation {
            by: self.caller(),
            reason: why.into(),
            started_at: Some(to_wire_time(now)),
            until,
            ..wire::Activation::default()
        });
        member.until = until;
        let node = member.node_id.clone();
        let because = format!("activated by {}: {why}", self.caller());
        self.decide(network, member, true, because)?;
        let at = (network.to_owned(), node.clone());
        self.members.get_mut(&at).unwrap().ends = Some(Instant::now() + lasts);
        self.member(network, &node)
    }

    pub(super) fn caller(&self) -> String {
        if self.caller.is_empty() {
            "admin".into()
        } else {
            self.caller.clone()
        }
    }

    fn pending(&mut self, network: &str, node: &str) -> Result<wire::Member, Status> {
        self.network(network)?;
        let member = self.known(network, node);
        let is_pending = member
            .request
            .as_ref()
            .is_some_and(|request| request.state() == wire::RequestState::Pending);
        if is_pending {
            Ok(member)
        } else {
            Err(Status::failed_precondition(format!(
                "there is no pending request for {} on {network}",
                member.node_id
            )))
        }
    }

    fn turned_down(
        &mut self,
        network: &str,
        node: &str,
        to: wire::RequestState,
        why: String,
    ) -> Result<wire::Member, Status> {
        let mut member = self.pending(network, node)?;
        let by = self.caller();
        let request = member.request.as_mut().unwrap();
        request.set_state(to);
        request.ended_by = by;
        request.ended_because = why;
        member.because = "nothing admits it".into();
        Ok(self.keep(member))
    }
}

#[tonic::async_trait]
impl member::MemberService for FakeMaster {
    async fn list_members(
        &self,
        request: Request<wire::ListMembersRequest>,
    ) -> Answer<wire::ListMembersResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        let ids: Vec<String> = match request.network_id.as_str() {
            "" => state.networks.keys().cloned().collect(),
            id => vec![state.network(id)?.id.clone()],
        };
        let all = ids.iter().flat_map(|id| state.members_of(id));
        let waits = |member: &wire::Member| {
            let request = member.request.as_ref();
            request.is_some_and(|request| request.state() == wire::RequestState::Pending)
        };
        let place = |member: &wire::Member| format!("{}/{}", member.network_id, member.node_id);
        let mut after: Vec<_> = all
            .filter(|member| !request.requested || waits(member))
            .filter(|member| place(member) > request.page_token)
            .collect();
        // One a page, so that whoever asks follows pages.
        let more = after.len() > 1;
        after.truncate(1);
        Ok(Response::new(wire::ListMembersResponse {
            next_page_token: after.last().filter(|_| more).map(place).unwrap_or_default(),
            members: after,
        }))
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
        let now = self.clock.now();
        let mut state = self.open().await?;
        let network = &request.network_id;
        let (approvals, is_central) = {
            let network = state.network(network)?;
            (network.approvals, network.central)
        };
        if approvals > 0 {
            return Err(Status::failed_precondition(format!(
                "a request needs {approvals} approvals on {network}; ask with `picketctl member request {} --network {network} --reason ...`",
                request.node
            )));
        }
        let mut member = state.known(network, &request.node);
        let member = if request.lasts.is_some() {
            member.set_grant(wire::GrantKind::MayActivate);
            state.activate(network, member, &request.reason, request.lasts, now)?
        } else {
            member.set_grant(wire::GrantKind::Stands);
            state.decide(network, member, true, format!("granted: {}", request.reason))?
        };
        Ok(Response::new(wire::AdmitMemberResponse {
            member: Some(member),
            caution: caution(is_central && request.lasts.is_some()),
            ..wire::AdmitMemberResponse::default()
        }))
    }

    async fn request_member(
        &self,
        request: Request<wire::RequestMemberRequest>,
    ) -> Answer<wire::RequestMemberResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let now = self.clock.now();
        let mut state = self.open().await?;
        let missing = state.network(&request.network_id)?.approvals.max(1);
        let mut member = state.known(&request.network_id, &request.node);
        let week = jiff::SignedDuration::from_hours(7 * 24);
        member.request = Some(wire::MemberRequest {
            state: wire::RequestState::Pending.into(),
            by: state.caller(),
            reason: request.reason,
            at: Some(to_wire_time(now)),
            expires_at: Some(to_wire_time(now + week)),
            missing,
            missing_from: "any operator or admin but ana".into(),
            ..wire::MemberRequest::default()
        });
        member.set_decision(wire::MemberDecision::Denied);
        member.because = "its request waits for an approval".into();
        let member = state.keep(member);
        state.network(&request.network_id)?.requests += 1;
        Ok(Response::new(wire::RequestMemberResponse {
            member: Some(member),
            remark: String::new(),
        }))
    }

    async fn approve_member(
        &self,
        request: Request<wire::ApproveMemberRequest>,
    ) -> Answer<wire::ApproveMemberResponse> {
        let request = request.into_inner();
        let now = self.clock.now();
        let mut state = self.open().await?;
        let mut member = state.pending(&request.network_id, &request.node)?;
        let by = state.caller();
        let asked = member.request.as_mut().unwrap();
        if asked.by == by {
            return Err(Status::permission_denied(format!(
                "{by} asked for it, and somebody else has to approve: {}; `picketctl member cancel` takes it back",
                asked.missing_from
            )));
        }
        let at = (request.network_id.clone(), member.node_id.clone());
        let seat = state.members.get_mut(&at).expect("what waits has a seat");
        seat.narrow |= request.grant() == wire::GrantKind::MayActivate;
        let narrow = seat.narrow;
        asked.approvals.push(wire::Approval {
            by: by.clone(),
            at: Some(to_wire_time(now)),
            reason: request.reason.clone(),
            lapsed: false,
        });
        asked.missing -= 1;
        if asked.missing > 0 {
            let member = state.keep(member);
            return Ok(Response::new(wire::ApproveMemberResponse {
                member: Some(member),
            }));
        }
        asked.set_state(wire::RequestState::Approved);
        asked.missing_from.clear();
        let grant = match narrow {
            true => wire::GrantKind::MayActivate,
            false => request.grant(),
        };
        member.set_grant(grant);
        state.network(&request.network_id)?.requests -= 1;
        let member = if grant == wire::GrantKind::Stands {
            state.decide(
                &request.network_id,
                member,
                true,
                format!("granted: approved by {by}"),
            )?
        } else {
            member.because = "it may be activated, and is not".into();
            state.keep(member)
        };
        Ok(Response::new(wire::ApproveMemberResponse {
            member: Some(member),
        }))
    }

    async fn deny_member(
        &self,
        request: Request<wire::DenyMemberRequest>,
    ) -> Answer<wire::DenyMemberResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        let to = wire::RequestState::Denied;
        let member = state.turned_down(&request.network_id, &request.node, to, request.reason)?;
        Ok(Response::new(wire::DenyMemberResponse { member: Some(member) }))
    }

    async fn cancel_member(
        &self,
        request: Request<wire::CancelMemberRequest>,
    ) -> Answer<wire::CancelMemberResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        let to = wire::RequestState::Cancelled;
        let member = state.turned_down(&request.network_id, &request.node, to, request.reason)?;
        Ok(Response::new(wire::CancelMemberResponse { member: Some(member) }))
    }

    async fn revoke_member(
        &self,
        request: Request<wire::RevokeMemberRequest>,
    ) -> Answer<wire::RevokeMemberResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        let mut member = state.known(&request.network_id, &request.node);
        member.set_grant(wire::GrantKind::Revoked);
        let because = format!("revoked: {}", request.reason);
        let member = state.decide(&request.network_id, member, false, because)?;
        Ok(Response::new(wire::RevokeMemberResponse { member: Some(member) }))
    }

    async fn activate_member(
        &self,
        request: Request<wire::ActivateMemberRequest>,
    ) -> Answer<wire::ActivateMemberResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let now = self.clock.now();
        let mut state = self.open().await?;
        let is_central = state.network(&request.network_id)?.central;
        let member = state.known(&request.network_id, &request.node);
        if member.grant() != wire::GrantKind::MayActivate {
            return Err(Status::failed_precondition(format!(
                "{} may not be activated on {}; ask with `picketctl member request`",
                member.node_id, request.network_id
            )));
        }
        let goes_on = member.until.is_some();
        let member = match goes_on {
            true => member,
            false => state.activate(&request.network_id, member, &request.reason, request.lasts, now)?,
        };
        Ok(Response::new(wire::ActivateMemberResponse {
            member: Some(member),
            caution: caution(is_central),
            remark: match goes_on {
                true => "an activation goes on and is left as it is".into(),
                false => String::new(),
            },
        }))
    }

    async fn extend_member(
        &self,
        request: Request<wire::ExtendMemberRequest>,
    ) -> Answer<wire::ExtendMemberResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let now = self.clock.now();
        let mut state = self.open().await?;
        let member = state.member(&request.network_id, &request.node)?;
        let goes_on = member.activation.as_ref().and_then(|activation| {
            let until = from_wire_time(activation.until.as_ref()?)?;
            (activation.ended_at.is_none() && until > now).then_some(())
        });
        if goes_on.is_none() {
            return Err(Status::failed_precondition(format!(
                "no activation of {} goes on; start one with `picketctl member activate`",
                member.node_id
            )));
        }
        let member = state.activate(&request.network_id, member, &request.reason, request.lasts, now)?;
        Ok(Response::new(wire::ExtendMemberResponse {
            member: Some(member),
            caution: caution(state.network(&request.network_id)?.central),
        }))
    }

    async fn end_member(&self, request: Request<wire::EndMemberRequest>) -> Answer<wire::EndMemberResponse> {
        let request = request.into_inner();
        let now = self.clock.now();
        let mut state = self.open().await?;
        let mut member = state.member(&request.network_id, &request.node)?;
        let by = state.caller();
        if let Some(activation) = &mut member.activation {
            activation.ended_at = Some(to_wire_time(now));
            activation.ended_because = format!("ended by {by}: {}", request.reason);
        }
        member.until = None;
        let stands = member.grant() == wire::GrantKind::Stands;
        let because = if stands {
            "granted"
        } else {
            "its activation was ended"
        };
        let member = state.decide(&request.network_id, member, stands, because.into())?;
        Ok(Response::new(wire::EndMemberResponse { member: Some(member) }))
    }
}
