//! Deployments, deckies and events, as the admin API asks for them.

use super::*;

#[tonic::async_trait]
impl deployment::DeploymentService for FakeMaster {
    async fn plan_deployment(
        &self,
        request: Request<wire::PlanDeploymentRequest>,
    ) -> Answer<wire::PlanDeploymentResponse> {
        let (_, changes) = self.open().await?.plan(request.into_inner().site)?;
        Ok(Response::new(wire::PlanDeploymentResponse { changes }))
    }

    async fn apply_deployment(
        &self,
        request: Request<wire::ApplyDeploymentRequest>,
    ) -> Answer<wire::ApplyDeploymentResponse> {
        let mut state = self.open().await?;
        let (site, changes) = state.plan(request.into_inner().site)?;
        let name = site.name.to_string();
        let had = state.deployments.get(&name);
        let revision = had.map_or(0, |had| had.deployment.revision) + u64::from(!changes.is_empty());
        let at = had
            .filter(|_| changes.is_empty())
            .map_or_else(Instant::now, |had| had.at);
        let hosts: BTreeSet<String> = site
            .deckies
            .iter()
            .map(|placed| placed.host.to_string())
            .collect();
        let deployment = wire::Deployment {
            name: name.clone(),
            revision,
            deckies: u32::try_from(site.deckies.len()).unwrap(),
            running: 0,
            hosts: hosts.into_iter().collect(),
            applied_at: Some(to_wire_time(self.clock.now())),
            applied_by: "admin".into(),
        };
        state.deployments.insert(
            name,
            Applied {
                site,
                deployment: deployment.clone(),
                at,
                removed: None,
            },
        );
        Ok(Response::new(wire::ApplyDeploymentResponse {
            deployment: Some(deployment),
            changes,
        }))
    }

    async fn list_deployments(
        &self,
        _: Request<wire::ListDeploymentsRequest>,
    ) -> Answer<wire::ListDeploymentsResponse> {
        let state = self.open().await?;
        let kept = state
            .deployments
            .values()
            .filter(|applied| applied.removed.is_none());
        let deployments = kept.map(|applied| state.summary(applied)).collect();
        Ok(Response::new(wire::ListDeploymentsResponse { deployments }))
    }

    async fn get_deployment(
        &self,
        request: Request<wire::GetDeploymentRequest>,
    ) -> Answer<wire::GetDeploymentResponse> {
        let name = request.into_inner().name;
        let state = self.open().await?;
        let applied = state
            .deployments
            .get(&name)
            .filter(|applied| applied.removed.is_none());
        let applied = applied.ok_or_else(|| Status::not_found(format!("there is no deployment `{name}`")))?;
        Ok(Response::new(wire::GetDeploymentResponse {
            deployment: Some(state.summary(applied)),
            site: Some((&applied.site).into()),
            deckies: state.deckies(applied),
            problems: state.problems.clone(),
        }))
    }

    async fn remove_deployment(
        &self,
        request: Request<wire::RemoveDeploymentRequest>,
    ) -> Answer<wire::RemoveDeploymentResponse> {
        let name = request.into_inner().name;
        let mut state = self.open().await?;
        let applied = state
            .deployments
            .get_mut(&name)
            .filter(|applied| applied.removed.is_none());
        let applied = applied.ok_or_else(|| Status::not_found(format!("there is no deployment `{name}`")))?;
        applied.removed = Some(Instant::now());
        let change = |placed: &picket_proto::site::Placed| wire::Change {
            action: wire::ChangeAction::Remove.into(),
            host: placed.host.to_string(),
            decky: placed.decky.name.to_string(),
            detail: String::new(),
        };
        let changes = applied.site.deckies.iter().map(change).collect();
        Ok(Response::new(wire::RemoveDeploymentResponse { changes }))
    }
}

#[tonic::async_trait]
impl decky::DeckyService for FakeMaster {
    async fn list_deckies(
        &self,
        request: Request<wire::ListDeckiesRequest>,
    ) -> Answer<wire::ListDeckiesResponse> {
        let request = request.into_inner();
        let state = self.open().await?;
        let deckies = state
            .deployments
            .values()
            .flat_map(|applied| state.deckies(applied));
        let wanted = |decky: &wire::Decky| {
            [
                (&request.host, &decky.host),
                (&request.deployment, &decky.deployment),
            ]
            .iter()
            .all(|(wanted, seen)| wanted.is_empty() || wanted == seen)
        };
        Ok(Response::new(wire::ListDeckiesResponse {
            deckies: deckies.filter(wanted).collect(),
        }))
    }

    async fn get_decky(&self, request: Request<wire::GetDeckyRequest>) -> Answer<wire::GetDeckyResponse> {
        let request = request.into_inner();
        let state = self.open().await?;
        let mut deckies = state
            .deployments
            .values()
            .flat_map(|applied| state.deckies(applied));
        let decky = deckies.find(|decky| {
            decky.name == request.name && (request.host.is_empty() || decky.host == request.host)
        });
        match decky {
            Some(decky) => Ok(Response::new(wire::GetDeckyResponse { decky: Some(decky) })),
            None => Err(Status::not_found(format!("there is no decky `{}`", request.name))),
        }
    }
}

#[tonic::async_trait]
impl event::EventService for FakeMaster {
    async fn list_events(
        &self,
        request: Request<wire::ListEventsRequest>,
    ) -> Answer<wire::ListEventsResponse> {
        let request = request.into_inner();
        let state = self.open().await?;
        let wanted = |event: &&wire::Event| {
            event.id > request.after
                && (request.subject.is_empty() || event.subject == request.subject)
                && event.kind.starts_with(&request.kind)
        };
        let events: Vec<_> = state.events.iter().filter(wanted).cloned().collect();
        let skip = events.len().saturating_sub(request.limit as usize);
        Ok(Response::new(wire::ListEventsResponse {
            events: events[skip..].to_vec(),
        }))
    }

    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<wire::WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<wire::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let state = self.open().await?;
        let last = state.events.len() as u64;
        let mut next = request.into_inner().after.unwrap_or(last);
        let mut left = state.watchers_lag_after;
        drop(state);
        let state = self.state.clone();
        let tick =
            tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(Duration::from_millis(100)));
        let stream = tick.filter_map(move |_| {
            if left == Some(0) {
                return Some(Err(Status::data_loss("the watcher cannot keep up")));
            }
            let event = state
                .lock()
                .unwrap()
                .events
                .iter()
                .find(|event| event.id > next)
                .cloned()?;
            next = event.id;
            left = left.map(|left| left - 1);
            Some(Ok(wire::WatchEventsResponse { event: Some(event) }))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
