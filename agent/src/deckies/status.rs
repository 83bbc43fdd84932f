//! What the beat says about deckies, from what is wanted and what Docker has. Pure.

use std::collections::{BTreeMap, BTreeSet};

use picket_proto::{
    host::Name,
    shard::{Decky, Shard},
    status::{DeckiesStatus, DeckyServiceStatus, DeckyState, DeckyStatus, ServiceState},
};

use super::{
    Owner,
    engine::EngineError,
    form::Role,
    inventory::{Container, Inventory, Run, in_live_namespace},
};

/// What is being done to deckies while a pass runs, by decky.
pub type Progress = BTreeMap<Name, DeckyState>;

/// The status of every decky that is wanted or there, by name. `troubles` says what the last pass could not do.
#[must_use]
pub fn status(
    want: &Shard,
    have: &Inventory,
    owner: &Owner,
    troubles: &BTreeMap<Name, String>,
    progress: &Progress,
) -> DeckiesStatus {
    let owner = owner.label();
    let mut held: BTreeMap<&Name, Vec<&Container>> = BTreeMap::new();
    for container in have
        .containers
        .iter()
        .filter(|container| container.owner == owner)
    {
        held.entry(&container.decky).or_default().push(container);
    }
    let names: BTreeSet<&Name> = held.keys().copied().chain(want.deckies.keys()).collect();
    let deckies = names
        .into_iter()
        .map(|name| {
            let containers = held.get(name).map_or(&[][..], Vec::as_slice);
            match want.deckies.get(name) {
                Some(decky) => wanted(decky, containers, troubles.get(name), progress.get(name).copied()),
                None => leaving(name, containers, troubles.get(name)),
            }
        })
        .collect();
    DeckiesStatus {
        service: ServiceState::Answers,
        deckies,
    }
}

/// The status when Docker does not answer: nothing is known, and that is not the same as down.
#[must_use]
pub fn blind(want: &Shard, error: &EngineError) -> DeckiesStatus {
    let problem = with_causes(error);
    let service = match error {
        EngineError::Denied { .. } => ServiceState::Refuses(problem.clone()),
        EngineError::Unreachable { .. } | EngineError::TimedOut { .. } => {
            ServiceState::Unreachable(problem.clone())
        }
        EngineError::Refused { .. }
        | EngineError::NoImage { .. }
        | EngineError::Changed { .. }
        | EngineError::Broken { .. } => ServiceState::Broken(problem.clone()),
    };
    let unknown = |decky: &Decky| DeckyStatus {
        name: decky.name.clone(),
        deployment: decky.deployment.clone(),
        state: DeckyState::Unknown,
        problem: problem.clone(),
        address: Some(decky.address),
        container: String::new(),
        services: decky
            .services
            .iter()
            .map(|service| DeckyServiceStatus {
                name: service.name.clone(),
                state: DeckyState::Unknown,
                container: String::new(),
                problem: String::new(),
            })
            .collect(),
    };
    DeckiesStatus {
        service,
        deckies: want.deckies.values().map(unknown).collect(),
    }
}

/// An error with its causes, for the one line that travels.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn wanted(
    decky: &Decky,
    containers: &[&Container],
    trouble: Option<&String>,
    progress: Option<DeckyState>,
) -> DeckyStatus {
    let base = find(containers, &Role::Base);
    let services: Vec<DeckyServiceStatus> = decky
        .services
        .iter()
        .map(|service| {
            let container = find(containers, &Role::Service(service.name.clone()));
            let (state, problem) = service_state(base, container);
            DeckyServiceStatus {
                name: service.name.clone(),
                state,
                container: container
                    .map(|container| container.id.0.clone())
                    .unwrap_or_default(),
                problem,
            }
        })
        .collect();
    let ailing = services
        .iter()
        .find(|service| service.state != DeckyState::Running);
    let (mut state, mut problem) = match base.map(|base| &base.run) {
        None => (DeckyState::Pending, String::new()),
        Some(Run::Created) => (DeckyState::Starting, String::new()),
        Some(Run::Running) => match ailing {
            None => (DeckyState::Running, String::new()),
            Some(service) => (DeckyState::Degraded, describe(service)),
        },
        Some(run) => (DeckyState::Failed, format!("its base {}", run_words(run))),
    };
    if let Some(trouble) = trouble {
        problem.clone_from(trouble);
        state = match state {
            DeckyState::Running | DeckyState::Degraded => DeckyState::Degraded,
            DeckyState::Pending
            | DeckyState::Pulling
            | DeckyState::Starting
            | DeckyState::Failed
            | DeckyState::Stopping
            | DeckyState::Unknown => DeckyState::Failed,
        };
    } else if let Some(progress) = progress
        && state != DeckyState::Running
    {
        state = progress;
        problem.clear();
    }
    DeckyStatus {
        name: decky.name.clone(),
        deployment: decky.deployment.clone(),
        state,
        problem,
        address: Some(decky.address),
        container: base.map(|base| base.id.0.clone()).unwrap_or_default(),
        services,
    }
}

/// A decky that is there and not wanted.
fn leaving(name: &Name, containers: &[&Container], trouble: Option<&String>) -> DeckyStatus {
    let base = find(containers, &Role::Base);
    let services = containers
        .iter()
        .filter_map(|container| match &container.role {
            Role::Base => None,
            Role::Service(service) => Some(DeckyServiceStatus {
                name: service.clone(),
                state: DeckyState::Stopping,
                container: container.id.0.clone(),
                problem: String::new(),
            }),
        })
        .take(picket_proto::shard::MOST_SERVICES)
        .collect();
    let deployment = containers.first().map_or(name, |container| &container.deployment);
    DeckyStatus {
        name: name.clone(),
        deployment: deployment.clone(),
        state: DeckyState::Stopping,
        problem: trouble.cloned().unwrap_or_default(),
        address: base.and_then(|base| base.address),
        container: base.map(|base| base.id.0.clone()).unwrap_or_default(),
        services,
    }
}

/// The container in a role; when there are two, the one that runs.
fn find<'a>(containers: &[&'a Container], role: &Role) -> Option<&'a Container> {
    let in_role = || {
        containers
            .iter()
            .copied()
            .filter(|container| container.role == *role)
    };
    in_role()
        .find(|container| container.run == Run::Running)
        .or_else(|| in_role().next())
}

fn service_state(base: Option<&Container>, service: Option<&Container>) -> (DeckyState, String) {
    let Some(service) = service else {
        return (DeckyState::Pending, String::new());
    };
    match &service.run {
        Run::Created => (DeckyState::Starting, String::new()),
        Run::Running if base.is_some_and(|base| in_live_namespace(base, service)) => {
            (DeckyState::Running, String::new())
        }
        Run::Running => (
            DeckyState::Failed,
            "it runs in a network namespace that is gone; the next pass makes it anew".to_owned(),
        ),
        run @ (Run::Restarting | Run::Paused | Run::Exited { .. } | Run::Removing | Run::Dead) => {
            (DeckyState::Failed, format!("it {}", run_words(run)))
        }
    }
}

fn describe(service: &DeckyServiceStatus) -> String {
    let problem = if service.problem.is_empty() {
        "it is not up"
    } else {
        &service.problem
    };
    format!("service {}: {problem}", service.name)
}

fn run_words(run: &Run) -> String {
    match run {
        Run::Created => "was never started".to_owned(),
        Run::Running => "runs".to_owned(),
        Run::Restarting => "ends again and again; see its log with `docker logs`".to_owned(),
        Run::Paused => "is paused".to_owned(),
        Run::Exited { code, error } if error.is_empty() => format!("ended with exit code {code}"),
        Run::Exited { code, error } => format!("ended with exit code {code}: {error}"),
        Run::Removing => "is being removed".to_owned(),
        Run::Dead => "could not be removed by Docker".to_owned(),
    }
}
