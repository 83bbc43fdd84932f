//! Deckies: what is wanted beside what is seen.

use std::{collections::BTreeMap, sync::Arc};

use picket_proto::{
    host::{HostId, Name},
    shard::Decky,
    status::{DeckyServiceStatus, DeckyState, DeckyStatus},
    wire::admin::{
        self as wire, GetDeckyRequest, GetDeckyResponse, ListDeckiesRequest, ListDeckiesResponse,
        decky_service_server::DeckyService,
    },
};
use tonic::{Request, Response, Status};

use super::name;
use crate::{caller::operator, desk::Desk, refused::Refused};

/// The service, over the desk.
#[derive(Debug)]
pub struct Deckies(pub Arc<Desk>);

#[tonic::async_trait]
impl DeckyService for Deckies {
    async fn list_deckies(
        &self,
        request: Request<ListDeckiesRequest>,
    ) -> Result<Response<ListDeckiesResponse>, Status> {
        operator(&self.0, &request)?;
        let asked = request.into_inner();
        let host = optional("host", &asked.host)?
            .map(|host| self.0.host_named(&host))
            .transpose()?;
        let deployment = optional("deployment", &asked.deployment)?;
        Ok(Response::new(ListDeckiesResponse {
            deckies: list(&self.0, host, deployment.as_ref()),
        }))
    }

    async fn get_decky(
        &self,
        request: Request<GetDeckyRequest>,
    ) -> Result<Response<GetDeckyResponse>, Status> {
        operator(&self.0, &request)?;
        let asked = request.into_inner();
        let wanted = name("name", &asked.name)?;
        let host = optional("host", &asked.host)?
            .map(|host| self.0.host_named(&host))
            .transpose()?;
        let mut found = list(&self.0, host, None);
        found.retain(|decky| decky.name == wanted.as_str());
        match found.len() {
            0 => Err(Refused::Unknown {
                what: "decky",
                name: wanted.to_string(),
                list: "picketctl decky list",
            }
            .into()),
            1 => Ok(Response::new(GetDeckyResponse { decky: found.pop() })),
            _ => {
                let hosts: Vec<_> = found.iter().map(|decky| decky.host.as_str()).collect();
                let problem = format!(
                    "{} hosts have a decky of this name: {}",
                    found.len(),
                    hosts.join(", ")
                );
                Err(Refused::invalid("host", format_args!("{problem}; say which with --host")).into())
            }
        }
    }
}

fn optional(field: &str, text: &str) -> Result<Option<Name>, Refused> {
    if text.is_empty() {
        Ok(None)
    } else {
        name(field, text).map(Some)
    }
}

/// Deckies that are wanted or seen, by host and name.
pub(super) fn list(desk: &Desk, host: Option<HostId>, deployment: Option<&Name>) -> Vec<wire::Decky> {
    let hosts: Vec<(HostId, Name, Vec<Decky>)> = {
        let views = desk.views.read();
        let wanted = views
            .roster
            .hosts()
            .filter(|one| host.is_none_or(|host| one.record.id == host));
        wanted
            .map(|one| {
                let id = one.record.id;
                let deckies = views
                    .deployments
                    .of_host(id)
                    .map(|(decky, _)| decky.clone())
                    .collect();
                (id, one.record.name.clone(), deckies)
            })
            .collect()
    };
    let mut found = Vec::new();
    for (id, host, wanted) in hosts {
        let status = desk
            .observed
            .get(id)
            .and_then(|seen| seen.deckies())
            .unwrap_or_default();
        let mut seen: BTreeMap<Name, DeckyStatus> = status
            .deckies
            .into_iter()
            .map(|decky| (decky.name.clone(), decky))
            .collect();
        for decky in &wanted {
            found.push(shown(&host, Some(decky), seen.remove(&decky.name).as_ref()));
        }
        found.extend(seen.values().map(|status| shown(&host, None, Some(status))));
    }
    found.retain(|decky| deployment.is_none_or(|name| decky.deployment == name.as_str()));
    found.sort_by(|a, b| (&a.host, &a.name).cmp(&(&b.host, &b.name)));
    found
}

fn shown(host: &Name, wanted: Option<&Decky>, seen: Option<&DeckyStatus>) -> wire::Decky {
    let name = wanted
        .map(|decky| &decky.name)
        .or(seen.map(|status| &status.name));
    let deployment = wanted
        .map(|decky| &decky.deployment)
        .or(seen.map(|status| &status.deployment));
    let address = seen
        .and_then(|status| status.address)
        .or(wanted.map(|decky| decky.address));
    let mut services: Vec<_> = wanted
        .iter()
        .flat_map(|decky| &decky.services)
        .map(service)
        .collect();
    for status in seen.iter().flat_map(|status| &status.services) {
        match services
            .iter_mut()
            .find(|service| service.name == status.name.as_str())
        {
            Some(service) => fill(service, status),
            None => {
                let mut service = wire::DeckyServiceInfo {
                    name: status.name.to_string(),
                    ..Default::default()
                };
                fill(&mut service, status);
                services.push(service);
            }
        }
    }
    wire::Decky {
        host: host.to_string(),
        name: name.map(ToString::to_string).unwrap_or_default(),
        deployment: deployment.map(ToString::to_string).unwrap_or_default(),
        state: seen
            .map_or(wire::DeckyState::Pending, |status| state(status.state))
            .into(),
        problem: seen.map(|status| status.problem.clone()).unwrap_or_default(),
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        container_id: seen.map(|status| status.container.clone()).unwrap_or_default(),
        services,
    }
}

fn service(wanted: &picket_proto::shard::DeckyService) -> wire::DeckyServiceInfo {
    wire::DeckyServiceInfo {
        name: wanted.name.to_string(),
        state: wire::DeckyState::Pending.into(),
        image: wanted.image.clone(),
        ports: wanted.ports.iter().map(|port| u32::from(*port)).collect(),
        ..wire::DeckyServiceInfo::default()
    }
}

fn fill(service: &mut wire::DeckyServiceInfo, status: &DeckyServiceStatus) {
    service.state = state(status.state).into();
    service.container_id.clone_from(&status.container);
    service.problem.clone_from(&status.problem);
}

fn state(state: DeckyState) -> wire::DeckyState {
    match state {
        DeckyState::Pending => wire::DeckyState::Pending,
        DeckyState::Pulling => wire::DeckyState::Pulling,
        DeckyState::Starting => wire::DeckyState::Starting,
        DeckyState::Running => wire::DeckyState::Running,
        DeckyState::Degraded => wire::DeckyState::Degraded,
        DeckyState::Failed => wire::DeckyState::Failed,
        DeckyState::Stopping => wire::DeckyState::Stopping,
        DeckyState::Unknown => wire::DeckyState::Unknown,
    }
}
