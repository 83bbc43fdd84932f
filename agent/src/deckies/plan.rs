//! The steps from what Docker has to what the shard wants. Pure; cannot fail.
//!
//! Only what differs is touched, in this order: images, then departures (services before their base), then networks
//! (old ones go before new ones come, since their subnets may overlap), then arrivals (the base before its services).
//! An object of another owner never appears.

use std::collections::{BTreeMap, BTreeSet};

use picket_proto::host::Name;

use super::{
    Owner,
    form::{ContainerForm, DeckyForm, Forms, NetworkForm, Role, label},
    inventory::{Container, ContainerId, EngineNetworkId, Inventory, Network, Run, in_live_namespace},
};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Have an image here.
    Image(String),
    /// Stop a container.
    Stop {
        /// Its decky.
        decky: Name,
        /// What it is to the decky.
        role: Role,
        /// Which.
        id: ContainerId,
    },
    /// Remove a container.
    Remove {
        /// Its decky.
        decky: Name,
        /// What it is to the decky.
        role: Role,
        /// Which.
        id: ContainerId,
    },
    /// Remove a network.
    RemoveNetwork {
        /// Its name in the shard.
        name: Name,
        /// Which.
        id: EngineNetworkId,
    },
    /// Make a network.
    CreateNetwork(NetworkForm),
    /// Make a container. A service joins `base`, or the base that was made in an earlier step.
    Create {
        /// How it is to look.
        form: Box<ContainerForm>,
        /// The base that is there already.
        base: Option<ContainerId>,
    },
    /// Start a container: one that is there, or the one that was made in an earlier step.
    Start {
        /// Its decky.
        decky: Name,
        /// What it is to the decky.
        role: Role,
        /// The one that is there already.
        id: Option<ContainerId>,
    },
}

impl Step {
    /// The decky whose queue this step is in.
    #[must_use]
    pub fn decky(&self) -> Option<&Name> {
        match self {
            Self::Stop { decky, .. } | Self::Remove { decky, .. } | Self::Start { decky, .. } => Some(decky),
            Self::Create { form, .. } => Some(&form.decky),
            Self::Image(_) | Self::RemoveNetwork { .. } | Self::CreateNetwork(_) => None,
        }
    }

    /// When it is done. Steps of a later phase wait for all of an earlier one.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Self::Image(_) => Phase::Images,
            Self::Stop { .. } | Self::Remove { .. } => Phase::Departures,
            Self::RemoveNetwork { .. } | Self::CreateNetwork(_) => Phase::Networks,
            Self::Create { .. } | Self::Start { .. } => Phase::Arrivals,
        }
    }
}

/// The parts of a plan, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Whatever images are needed and may be missing.
    Images,
    /// Whatever goes.
    Departures,
    /// Networks go and come.
    Networks,
    /// Whatever comes.
    Arrivals,
}

/// What to do, and what cannot be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Deckies that wait for their network to change, which a decky that is left alone still uses.
    pub stuck: BTreeMap<Name, Name>,
}

/// Plans. Deckies in `alone` are left as they are, whatever is wanted of them, and so are the networks they are on.
#[must_use]
pub fn plan(want: &Forms, have: &Inventory, owner: &Owner, alone: &BTreeSet<Name>) -> Plan {
    let owner = owner.label();
    let mut held: BTreeMap<&Name, Vec<&Container>> = BTreeMap::new();
    for container in have
        .containers
        .iter()
        .filter(|container| container.owner == owner)
    {
        held.entry(&container.decky).or_default().push(container);
    }
    let in_use: BTreeSet<&EngineNetworkId> = held
        .iter()
        .filter(|(name, _)| alone.contains(**name))
        .flat_map(|(_, containers)| {
            containers
                .iter()
                .filter_map(|container| container.network.as_ref())
        })
        .collect();
    let networks = networks(
        want,
        have.networks.iter().filter(|network| network.owner == owner),
        &in_use,
        alone,
    );

    let mut plan = Plan::default();
    let mut departures = Vec::new();
    let mut arrivals = Vec::new();
    let names: BTreeSet<&Name> = held.keys().copied().chain(want.deckies.keys()).collect();
    for name in names {
        if alone.contains(name) {
            continue;
        }
        let containers = held.remove(name).unwrap_or_default();
        let form = want.deckies.get(name);
        if let Some(form) = form
            && networks.stuck.contains(&form.network)
        {
            plan.stuck.insert(name.clone(), form.network.clone());
            continue;
        }
        decky(form, containers, &networks, &mut departures, &mut arrivals);
    }

    let mut images = BTreeSet::new();
    for step in &arrivals {
        if let Step::Create { form, .. } = step {
            images.insert(form.image.clone());
        }
    }
    plan.steps.extend(images.into_iter().map(Step::Image));
    plan.steps.extend(departures);
    plan.steps.extend(networks.steps);
    plan.steps.extend(arrivals);
    plan
}

struct Networks {
    steps: Vec<Step>,
    /// The networks that stay, by name.
    stay: BTreeMap<Name, EngineNetworkId>,
    /// The networks that should be replaced and are in use.
    stuck: BTreeSet<Name>,
}

fn networks<'a>(
    want: &Forms,
    have: impl Iterator<Item = &'a Network>,
    in_use: &BTreeSet<&EngineNetworkId>,
    alone: &BTreeSet<Name>,
) -> Networks {
    let mut networks = Networks {
        steps: Vec::new(),
        stay: BTreeMap::new(),
        stuck: BTreeSet::new(),
    };
    for network in have {
        let wanted = want.networks.get(&network.name);
        let right = wanted.is_some_and(|form| form.hash() == network.hash);
        if right && !networks.stay.contains_key(&network.name) {
            networks.stay.insert(network.name.clone(), network.id.clone());
        } else if in_use.contains(&network.id) {
            if wanted.is_some() {
                networks.stuck.insert(network.name.clone());
            }
        } else {
            networks.steps.push(Step::RemoveNetwork {
                name: network.name.clone(),
                id: network.id.clone(),
            });
        }
    }
    // A network that only those need that are left alone is not tried again either.
    let needed: BTreeSet<&Name> = want
        .deckies
        .iter()
        .filter(|(name, _)| !alone.contains(*name))
        .map(|(_, form)| &form.network)
        .collect();
    for (name, form) in want.networks.iter().filter(|(name, _)| needed.contains(name)) {
        if !networks.stay.contains_key(name) && !networks.stuck.contains(name) {
            networks.steps.push(Step::CreateNetwork(form.clone()));
        }
    }
    networks
}

/// The steps of one decky. `form` is nothing when it goes away.
fn decky(
    form: Option<&DeckyForm>,
    mut containers: Vec<&Container>,
    networks: &Networks,
    departures: &mut Vec<Step>,
    arrivals: &mut Vec<Step>,
) {
    let mut stay: Vec<&Container> = Vec::new();
    if let Some(form) = form {
        // When there are two, the one that runs is the one to keep.
        containers.sort_by_key(|container| (container.run != Run::Running, container.id.clone()));
        let base = containers.iter().copied().find(|container| {
            container.role == Role::Base
                && container.hash == form.base.hash()
                && may_stay(container)
                && container
                    .network
                    .as_ref()
                    .is_none_or(|on| networks.stay.get(&form.network) == Some(on))
                && networks.stay.contains_key(&form.network)
        });
        match base {
            None => come(&form.base, None, arrivals),
            Some(base) => {
                stay.push(base);
                if idle(base) {
                    start(base, arrivals);
                }
            }
        }
        for (name, form) in &form.services {
            let service = base.and_then(|base| {
                containers.iter().copied().find(|container| {
                    container.role == Role::Service(name.clone())
                        && container.hash == form.hash()
                        && may_stay(container)
                        && may_join(base, container)
                })
            });
            match service {
                // While Docker restarts the base there is nothing to join; the next pass sees where that ended.
                None if base.is_some_and(|base| base.run == Run::Restarting) => {}
                None => come(form, base, arrivals),
                Some(service) => {
                    stay.push(service);
                    if idle(service) && base.is_some_and(|base| base.run != Run::Restarting) {
                        start(service, arrivals);
                    }
                }
            }
        }
    }
    let mut leave: Vec<&Container> = containers
        .into_iter()
        .filter(|container| !stay.contains(container))
        .collect();
    leave.sort_by_key(|container| (container.role == Role::Base, container.id.clone()));
    for container in &leave {
        if container.run.has_process() {
            departures.push(Step::Stop {
                decky: container.decky.clone(),
                role: container.role.clone(),
                id: container.id.clone(),
            });
        }
    }
    departures.extend(leave.into_iter().map(|container| Step::Remove {
        decky: container.decky.clone(),
        role: container.role.clone(),
        id: container.id.clone(),
    }));
}

/// Whether a container in this state can be kept and started; a frozen or half-removed one is replaced.
fn may_stay(container: &Container) -> bool {
    match container.run {
        Run::Created | Run::Running | Run::Restarting | Run::Exited { .. } => true,
        Run::Paused | Run::Removing | Run::Dead => false,
    }
}

fn idle(container: &Container) -> bool {
    matches!(container.run, Run::Created | Run::Exited { .. })
}

/// Whether a service may stay with its base: it joins it, and if it runs, it runs in the base's present namespace.
/// A service that does not run joins whatever namespace the base has when it is started.
fn may_join(base: &Container, service: &Container) -> bool {
    if service.joins.as_ref() != Some(&base.id) {
        return false;
    }
    match base.run {
        Run::Running => !service.run.has_process() || in_live_namespace(base, service),
        // Docker is bringing the base back; what becomes of the services shows when it is there.
        Run::Restarting => true,
        Run::Created | Run::Paused | Run::Exited { .. } | Run::Removing | Run::Dead => {
            !service.run.has_process()
        }
    }
}

fn come(form: &ContainerForm, base: Option<&Container>, arrivals: &mut Vec<Step>) {
    let mut form = Box::new(form.clone());
    // Which start of the base it joins: whatever the clock does, it is made anew at most once for each.
    if let Some(base) = base
        && base.run == Run::Running
        && let Some(started) = base.started
    {
        form.labels
            .insert(label::BASE_STARTED.to_owned(), started.to_string());
    }
    let (decky, role) = (form.decky.clone(), form.role.clone());
    arrivals.push(Step::Create {
        form,
        base: base.map(|base| base.id.clone()),
    });
    arrivals.push(Step::Start {
        decky,
        role,
        id: None,
    });
}

fn start(container: &Container, arrivals: &mut Vec<Step>) {
    arrivals.push(Step::Start {
        decky: container.decky.clone(),
        role: container.role.clone(),
        id: Some(container.id.clone()),
    });
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(crate) mod tests;
