//! A Docker Engine in memory, as far as deckies go.
//!
//! It keeps containers, networks, images and network namespaces, refuses what the real one refuses, and can be told to
//! go away, to lose or kill what it has, and to hold calls back. Its containers' processes do nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, ready},
    stream::BoxStream,
};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use super::{
    Owner,
    engine::{Engine, EngineError, Image},
    form::{ContainerForm, NetworkForm, Place, label},
    inventory::{self, Container, ContainerId, EngineNetworkId, Inventory, Network, Run},
};

/// Change events a slow listener may fall behind by; it then hears that it did, which is a change too.
const EVENTS: usize = 64;

/// A stateful fake.
pub struct FakeEngine {
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
}

#[derive(Clone)]
enum Event {
    /// Something with this owner label changed.
    Changed(String),
    Gone,
}

#[derive(Default)]
struct State {
    unreachable: bool,
    held_pulls: bool,
    hangs_up: bool,
    refused_starts: BTreeSet<String>,
    images: BTreeSet<String>,
    registry: BTreeSet<String>,
    pulls: BTreeMap<String, u32>,
    containers: BTreeMap<ContainerId, Held>,
    networks: BTreeMap<EngineNetworkId, NetworkForm>,
    counter: u64,
}

struct Held {
    docker_name: String,
    image: String,
    labels: BTreeMap<String, String>,
    network: Option<(EngineNetworkId, Ipv4Addr)>,
    joins: Option<ContainerId>,
    run: Run,
    started: Option<Timestamp>,
    namespace: Option<u64>,
}

impl Default for FakeEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeEngine {
    /// An engine that has nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Mutex::default(),
            events: broadcast::channel(EVENTS).0,
        }
    }

    /// Puts an image here.
    pub fn load_image(&self, image: &str) {
        self.state().images.insert(image.to_owned());
    }

    /// Puts an image at its registry, from where it can be pulled.
    pub fn publish_image(&self, image: &str) {
        self.state().registry.insert(image.to_owned());
    }

    /// How often an image was pulled, or tried to be.
    #[must_use]
    pub fn pulls(&self, image: &str) -> u32 {
        self.state().pulls.get(image).copied().unwrap_or(0)
    }

    /// Answers nobody until [`FakeEngine::come_back`]; containers go on.
    pub fn go_away(&self) {
        self.state().unreachable = true;
        self.tell(Event::Gone);
    }

    /// Greets every listener and hangs up at once.
    pub fn hang_up(&self) {
        self.state().hangs_up = true;
        self.tell(Event::Gone);
    }

    /// Answers no pull any more.
    pub fn hold_pulls(&self) {
        self.state().held_pulls = true;
    }

    /// Answers again.
    pub fn come_back(&self) {
        self.state().unreachable = false;
    }

    /// Refuses to start containers of an image, as the real one does when its program is missing.
    pub fn refuse_to_start(&self, image: &str) {
        self.state().refused_starts.insert(image.to_owned());
    }

    /// Starts containers of the image again.
    pub fn start_again(&self, image: &str) {
        self.state().refused_starts.remove(image);
    }

    /// Runs a container that is nobody's.
    pub fn run_foreign(&self, docker_name: &str) {
        let mut state = self.state();
        let id = state.new_id();
        let namespace = Some(state.next());
        let started = Some(state.now());
        state.containers.insert(
            ContainerId(id),
            Held {
                docker_name: docker_name.to_owned(),
                image: "foreign:latest".to_owned(),
                labels: BTreeMap::new(),
                network: None,
                joins: None,
                run: Run::Running,
                started,
                namespace,
            },
        );
    }

    /// Gives a container a label, as somebody at the machine might.
    pub fn relabel(&self, docker_name: &str, key: &str, value: &str) {
        self.change(docker_name, |held| {
            drop(held.labels.insert(key.to_owned(), value.to_owned()))
        });
    }

    /// Ends a container's process, so that it stays down.
    pub fn kill(&self, docker_name: &str) {
        self.change(docker_name, |held| {
            if held.run.has_process() {
                held.run = Run::Exited {
                    code: 137,
                    error: String::new(),
                };
                held.namespace = None;
            }
        });
    }

    /// Freezes a container's process.
    pub fn pause(&self, docker_name: &str) {
        self.change(docker_name, |held| {
            if held.run == Run::Running {
                held.run = Run::Paused;
            }
        });
    }

    /// Removes a container behind everybody's back.
    pub fn lose(&self, docker_name: &str) {
        let mut state = self.state();
        let Some(id) = state.id_of(docker_name) else {
            return;
        };
        let owner = state
            .containers
            .remove(&id)
            .and_then(|held| held.labels.get(label::OWNER).cloned());
        drop(state);
        self.tell(Event::Changed(owner.unwrap_or_default()));
    }

    /// Removes every network that no running container is on.
    pub fn lose_networks(&self) {
        let mut state = self.state();
        let used: BTreeSet<EngineNetworkId> = state
            .containers
            .values()
            .filter(|held| held.run.has_process())
            .filter_map(|held| held.network.as_ref().map(|(id, _)| id.clone()))
            .collect();
        state.networks.retain(|id, _| used.contains(id));
    }

    /// Stops and starts a container: a base gets a new namespace, and whoever joined the old one stays in it.
    pub fn restart(&self, docker_name: &str) {
        let mut state = self.state();
        let Some(id) = state.id_of(docker_name) else {
            return;
        };
        let result = state.start(&id);
        let owner = state.containers[&id].labels.get(label::OWNER).cloned();
        if result.is_err()
            && let Some(held) = state.containers.get_mut(&id)
        {
            held.run = Run::Exited {
                code: 128,
                error: "could not be started again".to_owned(),
            };
            held.namespace = None;
        }
        drop(state);
        self.tell(Event::Changed(owner.unwrap_or_default()));
    }

    /// The names of all containers, whoever's they are.
    #[must_use]
    pub fn container_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .state()
            .containers
            .values()
            .map(|held| held.docker_name.clone())
            .collect();
        names.sort();
        names
    }

    /// The names of all networks, whoever's they are.
    #[must_use]
    pub fn network_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .state()
            .networks
            .values()
            .map(|network| network.docker_name.clone())
            .collect();
        names.sort();
        names
    }

    fn change(&self, docker_name: &str, change: impl FnOnce(&mut Held)) {
        let mut state = self.state();
        let Some(id) = state.id_of(docker_name) else {
            return;
        };
        let Some(held) = state.containers.get_mut(&id) else {
            return;
        };
        change(held);
        let owner = held.labels.get(label::OWNER).cloned().unwrap_or_default();
        drop(state);
        self.tell(Event::Changed(owner));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        // Nobody listening is fine.
        drop(self.events.send(event));
    }

    /// Answers a call from the state, unless nobody is to be answered.
    fn answer<'a, T: Send + 'a>(
        &self,
        owner: Option<&str>,
        answer: impl FnOnce(&mut State) -> Result<T, EngineError>,
    ) -> BoxFuture<'a, Result<T, EngineError>> {
        let mut state = self.state();
        let result = if state.unreachable {
            Err(EngineError::Unreachable {
                socket: PathBuf::from("/run/fake.sock"),
                cause: io::ErrorKind::ConnectionRefused.into(),
            })
        } else {
            answer(&mut state)
        };
        drop(state);
        if result.is_ok()
            && let Some(owner) = owner
        {
            self.tell(Event::Changed(owner.to_owned()));
        }
        ready(result).boxed()
    }

    fn owner_of(&self, id: &ContainerId) -> String {
        let state = self.state();
        let held = state.containers.get(id);
        held.and_then(|held| held.labels.get(label::OWNER).cloned())
            .unwrap_or_default()
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn new_id(&mut self) -> String {
        format!("{:064x}", self.next())
    }

    /// A second later every time it is looked at.
    fn now(&mut self) -> Timestamp {
        let seconds = i64::try_from(self.next()).unwrap_or(0);
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn id_of(&self, docker_name: &str) -> Option<ContainerId> {
        self.containers
            .iter()
            .find(|(_, held)| held.docker_name == docker_name)
            .map(|(id, _)| id.clone())
    }

    fn create(
        &mut self,
        form: &ContainerForm,
        base: Option<&ContainerId>,
    ) -> Result<ContainerId, EngineError> {
        let tried = format!("create {}", form.docker_name);
        let refused = |message: &str| EngineError::Refused {
            tried: tried.clone(),
            message: message.to_owned(),
        };
        if self.id_of(&form.docker_name).is_some() {
            return Err(refused("the name is already in use"));
        }
        if !self.images.contains(&form.image) {
            return Err(EngineError::NoImage {
                image: form.image.clone(),
                message: "no such image".to_owned(),
            });
        }
        let network = match &form.place {
            Place::Base => None,
            Place::Network { network, address, .. } => {
                let found = self
                    .networks
                    .iter()
                    .find(|(_, held)| held.docker_name == *network);
                let (id, _) = found.ok_or_else(|| EngineError::Changed {
                    tried: tried.clone(),
                    message: format!("network {network} not found"),
                })?;
                Some((id.clone(), *address))
            }
        };
        let joins = match (&form.place, base) {
            (Place::Base, Some(base)) => Some(base.clone()),
            (Place::Base, None) => return Err(refused("there is no container to join")),
            (Place::Network { .. }, _) => None,
        };
        let id = ContainerId(self.new_id());
        self.containers.insert(
            id.clone(),
            Held {
                docker_name: form.docker_name.clone(),
                image: form.image.clone(),
                labels: form.labels.clone(),
                network,
                joins,
                run: Run::Created,
                started: None,
                namespace: None,
            },
        );
        Ok(id)
    }

    fn start(&mut self, id: &ContainerId) -> Result<(), EngineError> {
        let started = self.now();
        let own_namespace = self.next();
        let missing = || EngineError::Changed {
            tried: format!("start {id}"),
            message: "no such container".to_owned(),
        };
        let held = self.containers.get(id).ok_or_else(missing)?;
        let tried = format!("start {}", held.docker_name);
        if self.refused_starts.contains(&held.image) {
            return Err(EngineError::Refused {
                tried,
                message: "executable file not found".to_owned(),
            });
        }
        let namespace = match &held.joins {
            None => own_namespace,
            Some(base) => {
                let base = self.containers.get(base).filter(|base| base.run == Run::Running);
                base.and_then(|base| base.namespace)
                    .ok_or_else(|| EngineError::Changed {
                        tried: tried.clone(),
                        message: "cannot join network of a non running container".to_owned(),
                    })?
            }
        };
        if let Some((network, address)) = &held.network {
            if !self.networks.contains_key(network) {
                return Err(EngineError::Changed {
                    tried,
                    message: "network not found".to_owned(),
                });
            }
            let taken = self.containers.iter().any(|(other, held)| {
                other != id
                    && held.run.has_process()
                    && held.network.as_ref() == Some(&(network.clone(), *address))
            });
            if taken {
                return Err(EngineError::Refused {
                    tried,
                    message: "Address already in use".to_owned(),
                });
            }
        }
        let held = self.containers.get_mut(id).ok_or_else(missing)?;
        held.run = Run::Running;
        held.started = Some(started);
        held.namespace = Some(namespace);
        Ok(())
    }

    fn inventory(&self, owner: &str) -> Inventory {
        let mut inventory = Inventory::default();
        for (id, held) in &self.containers {
            if held.labels.get(label::OWNER).map(String::as_str) != Some(owner) {
                continue;
            }
            match inventory::container_labels(&held.labels) {
                Err(why) => inventory.skipped.push((held.docker_name.clone(), why)),
                Ok(labels) => inventory.containers.push(Container {
                    id: id.clone(),
                    docker_name: held.docker_name.clone(),
                    owner: labels.owner,
                    deployment: labels.deployment,
                    decky: labels.decky,
                    role: labels.role,
                    hash: labels.hash,
                    base_started: labels.base_started,
                    run: held.run.clone(),
                    started: held.started,
                    namespace: held.namespace.map(|number| format!("net:[{number}]")),
                    joins: held.joins.clone(),
                    network: held.network.as_ref().map(|(network, _)| network.clone()),
                    address: held.network.as_ref().map(|(_, address)| *address),
                }),
            }
        }
        for (id, form) in &self.networks {
            if let Ok((of, name, hash)) = inventory::network_labels(&form.labels)
                && of == owner
            {
                inventory.networks.push(Network {
                    id: id.clone(),
                    owner: of,
                    name,
                    hash,
                });
            }
        }
        inventory
    }
}

impl Engine for FakeEngine {
    fn inventory<'a>(&'a self, owner: &'a Owner) -> BoxFuture<'a, Result<Inventory, EngineError>> {
        self.answer(None, |state| Ok(state.inventory(&owner.label())))
    }

    fn image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<Option<Image>, EngineError>> {
        self.answer(None, |state| {
            Ok(state.images.contains(image).then_some(Image { read_only: true }))
        })
    }

    fn pull<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<(), EngineError>> {
        if self.state().held_pulls {
            return std::future::pending().boxed();
        }
        self.answer(None, |state| {
            *state.pulls.entry(image.to_owned()).or_default() += 1;
            if !state.registry.contains(image) {
                return Err(EngineError::NoImage {
                    image: image.to_owned(),
                    message: "manifest unknown".to_owned(),
                });
            }
            state.images.insert(image.to_owned());
            Ok(())
        })
    }

    fn create_network<'a>(&'a self, form: &'a NetworkForm) -> BoxFuture<'a, Result<(), EngineError>> {
        let owner = form.labels.get(label::OWNER).cloned();
        self.answer(owner.as_deref(), |state| {
            let overlaps = |other: &NetworkForm| {
                let (one, two) = (other.network.subnet, form.network.subnet);
                one.contains(&two) || two.contains(&one)
            };
            if state
                .networks
                .values()
                .any(|held| held.docker_name == form.docker_name || overlaps(held))
            {
                return Err(EngineError::Refused {
                    tried: format!("create network {}", form.docker_name),
                    message: "Pool overlaps with other one on this address space".to_owned(),
                });
            }
            let id = EngineNetworkId(state.new_id());
            state.networks.insert(id, form.clone());
            Ok(())
        })
    }

    fn remove_network<'a>(&'a self, id: &'a EngineNetworkId) -> BoxFuture<'a, Result<(), EngineError>> {
        self.answer(None, |state| {
            let used = |held: &Held| {
                held.run.has_process() && held.network.as_ref().is_some_and(|(network, _)| network == id)
            };
            if state.containers.values().any(used) {
                return Err(EngineError::Changed {
                    tried: "remove a network".to_owned(),
                    message: "network has active endpoints".to_owned(),
                });
            }
            state.networks.remove(id);
            Ok(())
        })
    }

    fn create<'a>(
        &'a self,
        form: &'a ContainerForm,
        base: Option<&'a ContainerId>,
        _image: Image,
    ) -> BoxFuture<'a, Result<ContainerId, EngineError>> {
        let owner = form.labels.get(label::OWNER).cloned();
        self.answer(owner.as_deref(), |state| state.create(form, base))
    }

    fn start<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), EngineError>> {
        let owner = self.owner_of(id);
        self.answer(Some(&owner), |state| {
            if state
                .containers
                .get(id)
                .is_some_and(|held| held.run == Run::Running)
            {
                return Ok(());
            }
            state.start(id)
        })
    }

    fn stop<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), EngineError>> {
        let owner = self.owner_of(id);
        self.answer(Some(&owner), |state| {
            if let Some(held) = state.containers.get_mut(id).filter(|held| held.run.has_process()) {
                held.run = Run::Exited {
                    code: 0,
                    error: String::new(),
                };
                held.namespace = None;
            }
            Ok(())
        })
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), EngineError>> {
        let owner = self.owner_of(id);
        self.answer(Some(&owner), |state| {
            state.containers.remove(id);
            Ok(())
        })
    }

    fn events(&self, owner: &Owner) -> BoxStream<'static, Result<(), EngineError>> {
        let owner = owner.label();
        let gone = || EngineError::Unreachable {
            socket: PathBuf::from("/run/fake.sock"),
            cause: io::ErrorKind::ConnectionReset.into(),
        };
        if self.state().unreachable {
            return futures::stream::once(ready(Err(gone()))).boxed();
        }
        if self.state().hangs_up {
            return futures::stream::iter([Ok(()), Err(gone())]).boxed();
        }
        BroadcastStream::new(self.events.subscribe())
            .filter_map(move |event| {
                ready(match event {
                    Ok(Event::Changed(of)) => (of == owner).then_some(Ok(())),
                    Ok(Event::Gone) => Some(Err(gone())),
                    Err(BroadcastStreamRecvError::Lagged(_)) => Some(Ok(())),
                })
            })
            .boxed()
    }
}
