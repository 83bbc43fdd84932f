//! Deployments: planning, applying, looking, removing.

use std::{collections::BTreeMap, sync::Arc};

use picket_proto::{
    WireError,
    document::{Kind, OutcomeStatus},
    host::{HostId, Name},
    site::{Site, SiteError},
    to_wire_time,
    wire::admin::{
        self as wire, ApplyDeploymentRequest, ApplyDeploymentResponse, GetDeploymentRequest,
        GetDeploymentResponse, ListDeploymentsRequest, ListDeploymentsResponse, PlanDeploymentRequest,
        PlanDeploymentResponse, RemoveDeploymentRequest, RemoveDeploymentResponse,
        deployment_service_server::DeploymentService,
    },
};
use tonic::{Request, Response, Status};

use super::{deckies, name};
use crate::{
    caller::operator,
    deployments::{Action, Change, plan},
    desired,
    desk::{Actor, Desk},
    event::Severity,
    record::{DeploymentRecord, HostStanding, Record as _, key},
    refused::Refused,
    store::{Guard, Revision},
    views::State,
};

/// The service, over the desk.
#[derive(Debug)]
pub struct Deployments(pub Arc<Desk>);

/// A site that was held against the hosts and the other deployments.
struct Checked {
    site: Site,
    hosts: BTreeMap<Name, HostId>,
    before: Option<(DeploymentRecord, Revision)>,
}

impl Checked {
    fn changes(&self) -> Vec<Change> {
        plan(
            self.before.as_ref().and_then(|(before, _)| before.site.as_ref()),
            Some(&self.site),
        )
    }
}

#[tonic::async_trait]
impl DeploymentService for Deployments {
    async fn plan_deployment(
        &self,
        request: Request<PlanDeploymentRequest>,
    ) -> Result<Response<PlanDeploymentResponse>, Status> {
        operator(&self.0, &request)?;
        let checked = check(&self.0, request.into_inner().site)?;
        Ok(Response::new(PlanDeploymentResponse {
            changes: shown_changes(&checked.changes()),
        }))
    }

    async fn apply_deployment(
        &self,
        request: Request<ApplyDeploymentRequest>,
    ) -> Result<Response<ApplyDeploymentResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        // What other deployments have on the same hosts must not change between the look and the commit.
        let turn = self.0.turn.lock().await;
        let checked = check(&self.0, request.into_inner().site)?;
        let changes = checked.changes();
        let name = checked.site.name.clone();
        let same_hosts = checked
            .before
            .as_ref()
            .is_some_and(|(before, _)| before.hosts == checked.hosts);
        let same_site = checked
            .before
            .as_ref()
            .is_some_and(|(before, _)| before.site.as_ref() == Some(&checked.site));
        if !(same_site && same_hosts) {
            let (revision, guard) = following(&name, checked.before.as_ref());
            let record = DeploymentRecord {
                name: name.clone(),
                revision,
                site: Some(checked.site),
                hosts: checked.hosts,
                at: self.0.now(),
                by: actor.name().to_owned(),
            };
            self.write(&actor, "deployment.apply", record, guard).await?;
            let message = format!(
                "revision {revision} applied by {}: {}",
                actor.name(),
                counted(&changes)
            );
            self.0
                .say(Severity::Notice, "deployment.applied", name.as_str(), &message);
        }
        drop(turn);
        let deployment = Some(shown(&self.0, &name)?);
        Ok(Response::new(ApplyDeploymentResponse {
            deployment,
            changes: shown_changes(&changes),
        }))
    }

    async fn list_deployments(
        &self,
        request: Request<ListDeploymentsRequest>,
    ) -> Result<Response<ListDeploymentsResponse>, Status> {
        operator(&self.0, &request)?;
        let names: Vec<_> = self
            .0
            .views
            .read()
            .deployments
            .all()
            .map(|(one, _)| one.record.name.clone())
            .collect();
        let deployments = names
            .iter()
            .map(|name| shown(&self.0, name))
            .collect::<Result<_, _>>()?;
        Ok(Response::new(ListDeploymentsResponse { deployments }))
    }

    async fn get_deployment(
        &self,
        request: Request<GetDeploymentRequest>,
    ) -> Result<Response<GetDeploymentResponse>, Status> {
        operator(&self.0, &request)?;
        let name = name("name", &request.into_inner().name)?;
        let deployment = shown(&self.0, &name)?;
        let (site, hosts) = {
            let views = self.0.views.read();
            let (kept, site) = views
                .deployments
                .standing(&name)
                .ok_or_else(|| Refused::no_deployment(&name))?;
            (wire::Site::from(site), kept.record.hosts.clone())
        };
        let mut deckies = deckies::list(&self.0, None, Some(&name));
        let unsettled: Vec<_> = hosts
            .iter()
            .filter(|(_, id)| !settled(&self.0, **id))
            .map(|(name, _)| name.to_string())
            .collect();
        for decky in &mut deckies {
            // What runs there may be the form before this revision.
            if decky.state() == wire::DeckyState::Running && unsettled.contains(&decky.host) {
                decky.set_state(wire::DeckyState::Pending);
            }
        }
        Ok(Response::new(GetDeploymentResponse {
            deployment: Some(deployment),
            site: Some(site),
            deckies,
            problems: problems(&self.0, &hosts),
        }))
    }

    async fn remove_deployment(
        &self,
        request: Request<RemoveDeploymentRequest>,
    ) -> Result<Response<RemoveDeploymentResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let name = name("name", &request.into_inner().name)?;
        let before = {
            let views = self.0.views.read();
            let (kept, _) = views
                .deployments
                .standing(&name)
                .ok_or_else(|| Refused::no_deployment(&name))?;
            (kept.record.clone(), kept.revision)
        };
        let changes = plan(before.0.site.as_ref(), None);
        let (revision, guard) = following(&name, Some(&before));
        let record = DeploymentRecord {
            name: name.clone(),
            revision,
            site: None,
            hosts: BTreeMap::new(),
            at: self.0.now(),
            by: actor.name().to_owned(),
        };
        self.write(&actor, "deployment.remove", record, guard).await?;
        let message = format!("removed by {}: {}", actor.name(), counted(&changes));
        self.0
            .say(Severity::Notice, "deployment.removed", name.as_str(), &message);
        Ok(Response::new(RemoveDeploymentResponse {
            changes: shown_changes(&changes),
        }))
    }
}

impl Deployments {
    async fn write(
        &self,
        actor: &Actor,
        what: &str,
        record: DeploymentRecord,
        guard: Guard,
    ) -> Result<(), Refused> {
        let audit = actor.does(what, &record.name, &format!("revision {}", record.revision));
        self.0.commit(vec![guard], vec![record.put()], audit).await?;
        Ok(())
    }
}

/// The next revision of a deployment, and the guard that nobody else made it.
fn following(name: &Name, before: Option<&(DeploymentRecord, Revision)>) -> (u64, Guard) {
    let at = key::deployment(name);
    match before {
        Some((record, revision)) => (record.revision + 1, Guard::At(at, *revision)),
        None => (1, Guard::Absent(at)),
    }
}

/// Holds a site against what is known. Every problem is named at once.
fn check(desk: &Desk, site: Option<wire::Site>) -> Result<Checked, Refused> {
    let site = site.ok_or_else(|| Refused::invalid("site", "is missing"))?;
    let site = Site::try_from(site)?;
    let views = desk.views.read();
    let (hosts, mut wrong) = find_hosts(&views, &site);
    wrong.extend(
        views
            .deployments
            .conflicts(&site, &hosts)
            .into_iter()
            .map(|problem| {
                let (field, problem) = problem.split_once(": ").unwrap_or(("site", &problem));
                WireError::new(field, problem)
            }),
    );
    if !wrong.is_empty() {
        return Err(SiteError(wrong).into());
    }
    let before = views
        .deployments
        .any(&site.name)
        .map(|kept| (kept.record.clone(), kept.revision));
    Ok(Checked { hosts, before, site })
}

fn find_hosts(views: &State, site: &Site) -> (BTreeMap<Name, HostId>, Vec<WireError>) {
    let (mut hosts, mut wrong) = (BTreeMap::new(), Vec::new());
    for placed in &site.deckies {
        let field = format!("decky {}.host", placed.decky.name);
        match views.roster.named(&placed.host) {
            None => wrong.push(WireError::new(
                field,
                format_args!("there is no host {}; see `picketctl host list`", placed.host),
            )),
            Some(host) if host.record.standing != HostStanding::Active => {
                wrong.push(WireError::new(
                    field,
                    format_args!("host {} is banned", placed.host),
                ));
            }
            Some(host) => drop(hosts.insert(placed.host.clone(), host.record.id)),
        }
    }
    (hosts, wrong)
}

fn shown(desk: &Desk, name: &Name) -> Result<wire::Deployment, Refused> {
    let deckies = deckies::list(desk, None, Some(name));
    let running = deckies
        .iter()
        .filter(|decky| decky.state() == wire::DeckyState::Running)
        .count();
    let views = desk.views.read();
    let (kept, site) = views
        .deployments
        .standing(name)
        .ok_or_else(|| Refused::no_deployment(name))?;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(wire::Deployment {
        name: name.to_string(),
        revision: kept.record.revision,
        deckies: count(site.deckies.len()),
        running: count(running),
        hosts: kept.record.hosts.keys().map(ToString::to_string).collect(),
        applied_at: Some(to_wire_time(kept.record.at)),
        applied_by: kept.record.by.clone(),
    })
}

/// Whether a host has tried the shard that is wanted of it now. One that was offered nothing since the master's start
/// is believed as it reports.
fn settled(desk: &Desk, host: HostId) -> bool {
    let Some(tried) = desk.observed.get(host).map(|seen| seen.tried(Kind::Shard)) else {
        return true;
    };
    let Some(wanted) = tried.wanted else { return true };
    let current = desired::document(&desk.views.read(), host, Kind::Shard, 0, desk.now()).digest;
    wanted.digest == current && tried.outcome.is_some_and(|outcome| outcome.stamp == wanted.stamp)
}

/// What the hosts of a deployment could not carry out.
fn problems(desk: &Desk, hosts: &BTreeMap<Name, HostId>) -> Vec<String> {
    let of = |(name, id): (&Name, &HostId)| {
        let outcome = desk
            .observed
            .get(*id)
            .and_then(|seen| seen.tried(Kind::Shard).outcome)?;
        (outcome.status != OutcomeStatus::Done).then(|| {
            outcome
                .problems
                .into_iter()
                .map(|problem| format!("{name}: {problem}"))
                .collect::<Vec<_>>()
        })
    };
    hosts.iter().filter_map(of).flatten().collect()
}

fn shown_changes(changes: &[Change]) -> Vec<wire::Change> {
    let shown = |change: &Change| wire::Change {
        action: match change.action {
            Action::Add => wire::ChangeAction::Add,
            Action::Replace => wire::ChangeAction::Replace,
            Action::Remove => wire::ChangeAction::Remove,
        }
        .into(),
        host: change.host.to_string(),
        decky: change.decky.to_string(),
        detail: change.detail.clone(),
    };
    changes.iter().map(shown).collect()
}

fn counted(changes: &[Change]) -> String {
    let count = |action| changes.iter().filter(|change| change.action == action).count();
    let (add, replace, remove) = (count(Action::Add), count(Action::Replace), count(Action::Remove));
    format!("{add} added, {replace} replaced, {remove} removed")
}
