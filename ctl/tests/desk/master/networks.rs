//! Networks, as the admin API asks for them.

use std::collections::BTreeMap;

use picket_proto::form::Form;

use super::*;

/// The host whose controller runs a network that nobody said more of.
const CONTROLLER: &str = "hub-01";

#[tonic::async_trait]
impl network::NetworkService for FakeMaster {
    async fn create_network(
        &self,
        request: Request<wire::CreateNetworkRequest>,
    ) -> Answer<wire::CreateNetworkResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        if !request.central {
            state.host(&request.controller_host)?;
        }
        let form = checked(request.form)?;
        let id = if request.id.is_empty() {
            format!("8056c2e21c{:06x}", state.networks.len() + 0xa1)
        } else {
            request.id
        };
        let made = wire::Network {
            name: name_of(&form),
            id: id.clone(),
            mode: wire::NetworkMode::Enforce.into(),
            controller_host: request.controller_host,
            central: request.central,
            approvals: form.approvals,
            form: Some(form),
            ..wire::Network::default()
        };
        let existed = state.networks.contains_key(&id);
        let network = state.networks.entry(id).or_insert(made).clone();
        let away = state.hosts.get(&network.controller_host);
        let away = away.filter(|host| host.state() == wire::HostState::Offline && !existed);
        Ok(Response::new(wire::CreateNetworkResponse {
            waits: away
                .map(|host| format!("{} is not connected", host.name))
                .unwrap_or_default(),
            existed,
            caution: caution(network.central),
            network: Some(network),
        }))
    }

    async fn adopt_network(
        &self,
        request: Request<wire::AdoptNetworkRequest>,
    ) -> Answer<wire::AdoptNetworkResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        if request.approvals > 2 {
            return Err(Status::invalid_argument("approvals: want 0, 1 or 2"));
        }
        if let Err(status) = state.network(&request.id)
            && status.code() == tonic::Code::InvalidArgument
        {
            return Err(status);
        }
        let controller_host = match request.controller_host {
            _ if request.central => String::new(),
            host if host.is_empty() => CONTROLLER.into(),
            host => host,
        };
        let form = Form {
            approvals: u8::try_from(request.approvals).unwrap(),
            ..Form::default()
        };
        let fallback = wire::Network {
            id: request.id.clone(),
            name: "decoys".into(),
            mode: wire::NetworkMode::Observe.into(),
            controller_host,
            central: request.central,
            approvals: request.approvals,
            members_authorized: 1,
            members_unknown: 1,
            drift: 1,
            form: Some(form.to_wire()),
            ..wire::Network::default()
        };
        let network = state
            .networks
            .entry(request.id.clone())
            .or_insert(fallback)
            .clone();
        for (node_id, decision, because) in [
            (
                "aaaaaaaaaa",
                wire::MemberDecision::Authorized,
                "it was a member when the network was adopted",
            ),
            (
                "bbbbbbbbbb",
                wire::MemberDecision::Unknown,
                "nobody registered it",
            ),
        ] {
            let member = wire::Member {
                network_id: request.id.clone(),
                node_id: node_id.into(),
                decision: decision.into(),
                observed: wire::MemberObservation::Authorized.into(),
                because: because.into(),
                addresses: vec!["10.147.17.20".into()],
                ..wire::Member::default()
            };
            let at = (request.id.clone(), node_id.to_owned());
            state.members.entry(at).or_insert(member.into());
        }
        Ok(Response::new(wire::AdoptNetworkResponse {
            caution: caution(network.central),
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

    async fn plan_network(
        &self,
        request: Request<wire::PlanNetworkRequest>,
    ) -> Answer<wire::PlanNetworkResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        let wanted = checked(request.form)?;
        let cuts_own_path = state.own_path.get(&request.id).cloned().unwrap_or_default();
        let changes = changes(&state.network(&request.id)?.form(), &wanted);
        let cuts = changes.iter().any(|change| change.what == "members.labels");
        Ok(Response::new(wire::PlanNetworkResponse {
            changes,
            cuts_own_path: if cuts { cuts_own_path } else { Vec::new() },
            needs_admin: state.needs_admin.clone(),
            cautions: Vec::new(),
        }))
    }

    async fn apply_network(
        &self,
        request: Request<wire::ApplyNetworkRequest>,
    ) -> Answer<wire::ApplyNetworkResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        let wanted = checked(request.form)?;
        let network = state.network(&request.id)?;
        let changes = changes(&network.form(), &wanted);
        network.approvals = wanted.approvals;
        network.name = name_of(&wanted);
        network.form = Some(wanted);
        Ok(Response::new(wire::ApplyNetworkResponse {
            network: Some(network.clone()),
            changes,
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
        // One member, so that whoever asks goes on with the list of members.
        let mut members = state.members_of(&id);
        let more = members.len() > 1;
        members.truncate(1);
        let last = members.last().filter(|_| more);
        Ok(Response::new(wire::GetNetworkResponse {
            network: Some(network),
            next_page_token: last
                .map(|member| format!("{id}/{}", member.node_id))
                .unwrap_or_default(),
            members,
        }))
    }

    async fn reconcile_network(
        &self,
        request: Request<wire::ReconcileNetworkRequest>,
    ) -> Answer<wire::ReconcileNetworkResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        let cautions = state.cautions.clone();
        let unchanged = u32::try_from(state.members_of(&request.id).len()).unwrap();
        let network = state.network(&request.id)?;
        let drift = network.drift;
        let repaired = drift.min(1);
        let answer = wire::ReconcileNetworkResponse {
            network: Some(network.clone()),
            authorize: 0,
            deauthorize: repaired,
            correct: 0,
            held_back: network.held_back,
            unknown: network.members_unknown,
            unchanged: unchanged - repaired,
            cautions,
            changes: (drift > 0)
                .then(|| change("member cccccccccc", "authorized", "deauthorized"))
                .into_iter()
                .collect(),
        };
        if !request.dry_run {
            network.drift = 0;
        }
        Ok(Response::new(answer))
    }

    async fn resume_network(
        &self,
        request: Request<wire::ResumeNetworkRequest>,
    ) -> Answer<wire::ResumeNetworkResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        let network = state.network(&request.id)?;
        let before = network.clone();
        network.held_back = 0;
        Ok(Response::new(wire::ResumeNetworkResponse {
            network: Some(before),
        }))
    }

    async fn delete_network(
        &self,
        request: Request<wire::DeleteNetworkRequest>,
    ) -> Answer<wire::DeleteNetworkResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        state.network(&request.id)?;
        state.networks.remove(&request.id);
        state.members.retain(|(network, _), _| *network != request.id);
        Ok(Response::new(wire::DeleteNetworkResponse {}))
    }
}

trait Formed {
    fn form(&self) -> wire::NetworkForm;
}

impl Formed for wire::Network {
    fn form(&self) -> wire::NetworkForm {
        self.form.clone().unwrap_or_default()
    }
}

/// A form as the master keeps it.
fn checked(form: Option<wire::NetworkForm>) -> Result<wire::NetworkForm, Status> {
    let form = Form::from_wire(form.unwrap_or_default())
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(form.to_wire())
}

fn name_of(form: &wire::NetworkForm) -> String {
    let settings = form.settings.as_ref();
    settings
        .and_then(|settings| settings.name.clone())
        .unwrap_or_default()
}

fn change(what: &str, before: &str, after: &str) -> wire::NetworkChange {
    wire::NetworkChange {
        what: what.into(),
        before: before.into(),
        after: after.into(),
    }
}

/// What differs between two forms, as far as a desk needs it.
fn changes(have: &wire::NetworkForm, want: &wire::NetworkForm) -> Vec<wire::NetworkChange> {
    let settings = |form: &wire::NetworkForm| form.settings.clone().unwrap_or_default();
    let mtu = |form: &wire::NetworkForm| settings(form).mtu.map_or_else(String::new, |mtu| mtu.to_string());
    let labels = |form: &wire::NetworkForm| {
        let pairs = form.member_labels.iter();
        let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    };
    let texts = [
        ("name", name_of(have), name_of(want)),
        ("mtu", mtu(have), mtu(want)),
        ("members.labels", labels(have), labels(want)),
        (
            "approvals",
            have.approvals.to_string(),
            want.approvals.to_string(),
        ),
        ("approvers", have.approvers.join(","), want.approvers.join(",")),
    ];
    let mut all: Vec<wire::NetworkChange> = texts
        .iter()
        .filter(|(_, before, after)| before != after)
        .map(|(what, before, after)| change(what, before, after))
        .collect();
    let allowed = |form: &wire::NetworkForm| -> BTreeMap<String, String> {
        let each = form.allow.iter();
        each.map(|allowed| (allowed.node.clone(), format!("allowed as {}", allowed.name)))
            .collect()
    };
    let (before, after) = (allowed(have), allowed(want));
    for (node, name) in &after {
        if !before.contains_key(node) {
            all.push(change(&format!("member {node}"), "", name));
        }
    }
    for (node, name) in &before {
        if !after.contains_key(node) {
            all.push(change(&format!("member {node}"), name, ""));
        }
    }
    all
}
