//! The Docker Engine behind a Unix socket.
//!
//! Every call has a deadline, and every answer is told apart by whether asking again may help. How objects are asked
//! for is in `request.rs`.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as BollardError,
    models::{ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary},
    query_parameters::{
        CreateContainerOptions, CreateImageOptions, EventsOptions, ListContainersOptions,
        ListNetworksOptions, RemoveContainerOptions, StopContainerOptions,
    },
};
use futures::{
    FutureExt as _, StreamExt as _, TryStreamExt as _,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use picket_clock::Clock;
use tokio::time;

use super::{
    Owner,
    answer::{BOLLARD_DEADLINE, translate},
    engine::{Engine, EngineError, Image},
    form::{ContainerForm, NetworkForm, label},
    inventory::{
        Container, ContainerId, EngineNetworkId, Inventory, Network, Run, container_labels, network_labels,
    },
    request::{container_body, network_request},
};

/// An ordinary call. Creating and starting containers takes a loaded engine seconds.
const CALL: Duration = Duration::from_secs(30);
/// A pull: some hundred megabytes over a slow line.
const PULL: Duration = Duration::from_secs(600);
/// What a container has between SIGTERM and SIGKILL.
const STOP_GRACE_SECONDS: i32 = 3;
/// Containers looked at at the same time.
const LOOKS_AT_ONCE: usize = 8;

/// Container and network events after which a decky may be otherwise than before.
const CONTAINER_EVENTS: [&str; 10] = [
    "create", "destroy", "die", "kill", "oom", "pause", "rename", "restart", "start", "unpause",
];
const NETWORK_EVENTS: [&str; 4] = ["connect", "create", "destroy", "disconnect"];

/// A Docker Engine. It need not be up: each call says whether it was.
pub struct DockerEngine {
    socket: PathBuf,
    clock: Clock,
    /// The client once it knows the engine's version; forgotten when the engine goes away, since another may come.
    client: Mutex<Option<Docker>>,
}

impl DockerEngine {
    /// The engine behind a socket, such as `/var/run/docker.sock`.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, clock: Clock) -> Self {
        Self {
            socket: socket.into(),
            clock,
            client: Mutex::new(None),
        }
    }

    async fn client(&self) -> Result<Docker, EngineError> {
        let known = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let tried = "ask the Docker Engine's version";
        let connect = || {
            let socket = self.socket.to_string_lossy();
            Docker::connect_with_unix(&socket, BOLLARD_DEADLINE.as_secs(), API_DEFAULT_VERSION)
        };
        let client = connect().map_err(|error| self.error(tried, error))?;
        let client = match time::timeout(CALL, client.negotiate_version()).await {
            Ok(client) => client.map_err(|error| self.error(tried, error))?,
            Err(_) => {
                return Err(EngineError::TimedOut {
                    tried: tried.to_owned(),
                    after: CALL,
                });
            }
        };
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    /// Makes one call within a deadline.
    async fn call<T>(
        &self,
        tried: &str,
        within: Duration,
        call: impl AsyncFnOnce(Docker) -> Result<T, BollardError>,
    ) -> Result<T, EngineError> {
        let client = self.client().await?;
        match time::timeout(within, call(client)).await {
            Ok(result) => result.map_err(|error| self.error(tried, error)),
            Err(_) => Err(EngineError::TimedOut {
                tried: tried.to_owned(),
                after: within,
            }),
        }
    }

    fn error(&self, tried: &str, error: BollardError) -> EngineError {
        let error = translate(&self.socket, tried, error);
        if matches!(error, EngineError::Unreachable { .. }) {
            self.client.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        error
    }

    async fn read_inventory(&self, owner: &Owner) -> Result<Inventory, EngineError> {
        let filter = owner_filter(owner);
        let options = ListContainersOptions {
            all: true,
            filters: Some(filter.clone()),
            ..Default::default()
        };
        let list = "list the containers";
        let summaries = self
            .call(list, CALL, async |docker| {
                docker.list_containers(Some(options)).await
            })
            .await?;
        let options = ListNetworksOptions {
            filters: Some(filter),
        };
        let list = "list the networks";
        let networks = self
            .call(list, CALL, async |docker| {
                docker.list_networks(Some(options)).await
            })
            .await?;

        let mut inventory = Inventory::default();
        for network in networks {
            let name = network.name.unwrap_or_default();
            let labels = network.labels.unwrap_or_default().into_iter().collect();
            match (network_labels(&labels), network.id) {
                (Ok((owner, name, hash)), Some(id)) => {
                    inventory.networks.push(Network {
                        id: EngineNetworkId(id),
                        owner,
                        name,
                        hash,
                    });
                }
                (Ok(_), None) => inventory.skipped.push((name, "the network has no id".to_owned())),
                (Err(why), _) => inventory.skipped.push((name, why)),
            }
        }
        let looks: Vec<_> = stream::iter(summaries)
            .map(|summary| self.look(summary))
            .buffered(LOOKS_AT_ONCE)
            .try_collect()
            .await?;
        for look in looks {
            match look {
                Look::Seen(container) => inventory.containers.push(*container),
                Look::Nonsense(name, why) => inventory.skipped.push((name, why)),
                Look::Gone => {}
            }
        }
        Ok(inventory)
    }

    /// Completes what the list says of a container.
    async fn look(&self, summary: ContainerSummary) -> Result<Look, EngineError> {
        let id = summary.id.unwrap_or_default();
        let names = summary.names.unwrap_or_default();
        let docker_name = names
            .first()
            .map_or(id.as_str(), |name| name.trim_start_matches('/'))
            .to_owned();
        let labels: BTreeMap<_, _> = summary.labels.unwrap_or_default().into_iter().collect();
        let labels = match container_labels(&labels) {
            Ok(labels) => labels,
            Err(why) => return Ok(Look::Nonsense(docker_name, why)),
        };
        let tried = format!("look at {docker_name}");
        let details = match self
            .call(&tried, CALL, async |docker| {
                docker.inspect_container(&id, None).await
            })
            .await
        {
            Ok(details) => details,
            Err(EngineError::Changed { .. }) => return Ok(Look::Gone),
            Err(error) => return Err(error),
        };
        let Some(run) = run(&details) else {
            return Ok(Look::Nonsense(
                docker_name,
                "its state is none this version knows".to_owned(),
            ));
        };
        let state = details.state.unwrap_or_default();
        let started = state
            .started_at
            .as_deref()
            .and_then(|started| started.parse().ok());
        let namespace = match state.pid {
            Some(pid) if pid > 0 => namespace(pid, &id).await,
            Some(_) | None => None,
        };
        let mode = details
            .host_config
            .and_then(|config| config.network_mode)
            .unwrap_or_default();
        let joins = mode
            .strip_prefix("container:")
            .map(|id| ContainerId(id.to_owned()));
        let endpoint = details
            .network_settings
            .and_then(|settings| settings.networks)
            .and_then(|networks| networks.into_iter().find(|(name, _)| *name == mode))
            .map(|(_, endpoint)| endpoint);
        let fixed = endpoint
            .as_ref()
            .and_then(|endpoint| endpoint.ipam_config.clone());
        Ok(Look::Seen(Box::new(Container {
            id: ContainerId(id),
            docker_name,
            owner: labels.owner,
            deployment: labels.deployment,
            decky: labels.decky,
            role: labels.role,
            hash: labels.hash,
            base_started: labels.base_started,
            run,
            started,
            namespace,
            joins,
            // A container that was never started is on no network yet, and knows it by name only.
            network: endpoint
                .and_then(|endpoint| endpoint.network_id)
                .filter(|id| !id.is_empty())
                .map(EngineNetworkId),
            address: fixed
                .and_then(|fixed| fixed.ipv4_address)
                .and_then(|address| address.parse().ok()),
        })))
    }
}

enum Look {
    Seen(Box<Container>),
    /// Its labels make no sense.
    Nonsense(String, String),
    /// It was in the list and is not there any more.
    Gone,
}

impl Engine for DockerEngine {
    fn inventory<'a>(&'a self, owner: &'a Owner) -> BoxFuture<'a, Result<Inventory, EngineError>> {
        self.read_inventory(owner).boxed()
    }

    fn image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<Option<Image>, EngineError>> {
        async move {
            let tried = format!("look at the image {image}");
            let read = self
                .call(&tried, CALL, async |docker| docker.inspect_image(image).await)
                .await;
            match read {
                Ok(details) => {
                    let labels = details
                        .config
                        .and_then(|config| config.labels)
                        .unwrap_or_default();
                    let read_only = labels.get(label::READ_ONLY).is_some_and(|value| value == "true");
                    Ok(Some(Image { read_only }))
                }
                Err(EngineError::NoImage { .. } | EngineError::Changed { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn pull<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            // Without a tag the Engine would pull every tag there is.
            let tag = if has_tag(image) {
                None
            } else {
                Some("latest".to_owned())
            };
            let options = CreateImageOptions {
                from_image: Some(image.to_owned()),
                tag,
                ..Default::default()
            };
            let pull = async |docker: Docker| {
                let progress = docker.create_image(Some(options), None, None);
                progress.try_for_each(|_| ready(Ok(()))).await
            };
            match self.call(&format!("pull {image}"), PULL, pull).await {
                // A registry that does not know the image, refuses it or is no registry: each comes as a 4xx, a 500
                // or within the stream, in words only.
                Err(EngineError::Refused { message, .. } | EngineError::Changed { message, .. }) => {
                    Err(EngineError::NoImage {
                        image: image.to_owned(),
                        message,
                    })
                }
                result => result,
            }
        }
        .boxed()
    }

    fn create_network<'a>(&'a self, form: &'a NetworkForm) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            let tried = format!("create the network {}", form.docker_name);
            let request = network_request(form);
            self.call(&tried, CALL, async |docker| docker.create_network(request).await)
                .await
                .map(drop)
        }
        .boxed()
    }

    fn remove_network<'a>(&'a self, id: &'a EngineNetworkId) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            let removed = self
                .call("remove a network", CALL, async |docker| {
                    docker.remove_network(&id.0).await
                })
                .await;
            match removed {
                // Only "has active endpoints" is refused here, and endpoints go.
                Err(EngineError::Refused { tried, message }) => Err(EngineError::Changed { tried, message }),
                removed => gone_is_done(removed),
            }
        }
        .boxed()
    }

    fn create<'a>(
        &'a self,
        form: &'a ContainerForm,
        base: Option<&'a ContainerId>,
        image: Image,
    ) -> BoxFuture<'a, Result<ContainerId, EngineError>> {
        async move {
            let tried = format!("create {}", form.docker_name);
            let options = CreateContainerOptions {
                name: Some(form.docker_name.clone()),
                ..Default::default()
            };
            let body = container_body(form, base, image);
            let create = async |docker: Docker| docker.create_container(Some(options), body).await;
            match self.call(&tried, CALL, create).await {
                Ok(created) => Ok(ContainerId(created.id)),
                Err(EngineError::NoImage { message, .. }) => Err(EngineError::NoImage {
                    image: form.image.clone(),
                    message,
                }),
                // Here a conflict is a name that someone else's container has, and that stays so.
                Err(EngineError::Changed { tried, message }) if message.contains("already in use") => {
                    Err(EngineError::Refused { tried, message })
                }
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn start<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            let tried = format!("start {id}");
            self.call(&tried, CALL, async |docker| {
                docker.start_container(&id.0, None).await
            })
            .await
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            let tried = format!("stop {id}");
            let options = StopContainerOptions {
                t: Some(STOP_GRACE_SECONDS),
                ..Default::default()
            };
            let stop = async |docker: Docker| docker.stop_container(&id.0, Some(options)).await;
            gone_is_done(self.call(&tried, CALL, stop).await)
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            let tried = format!("remove {id}");
            let options = RemoveContainerOptions {
                force: true,
                v: true,
                ..Default::default()
            };
            let remove = async |docker: Docker| docker.remove_container(&id.0, Some(options)).await;
            gone_is_done(self.call(&tried, CALL, remove).await)
        }
        .boxed()
    }

    fn events(&self, owner: &Owner) -> BoxStream<'static, Result<(), EngineError>> {
        let engine = Self::new(self.socket.clone(), self.clock.clone());
        let mut filters = owner_filter(owner);
        filters.insert(
            "type".to_owned(),
            vec!["container".to_owned(), "network".to_owned()],
        );
        let actions = CONTAINER_EVENTS.iter().chain(&NETWORK_EVENTS);
        filters.insert(
            "event".to_owned(),
            actions.map(|&action| action.to_owned()).collect(),
        );
        // From before the first answer on, so that nothing falls between that answer and the stream.
        let since = self.clock.now().as_second().to_string();
        async move {
            let socket = engine.socket.clone();
            match engine.client().await {
                Err(error) => stream::once(ready(Err(error))).boxed(),
                Ok(client) => {
                    let options = EventsOptions {
                        since: Some(since),
                        filters: Some(filters),
                        ..Default::default()
                    };
                    let changes = client.events(Some(options)).map(move |event| match event {
                        Ok(_) => Ok(()),
                        Err(error) => Err(translate(&socket, "follow the events", error)),
                    });
                    // That the engine answers is news to whoever asks.
                    stream::once(ready(Ok(()))).chain(changes).boxed()
                }
            }
        }
        .flatten_stream()
        .boxed()
    }
}

fn owner_filter(owner: &Owner) -> HashMap<String, Vec<String>> {
    HashMap::from([(
        "label".to_owned(),
        vec![format!("{}={}", label::OWNER, owner.label())],
    )])
}

fn has_tag(image: &str) -> bool {
    image.contains('@') || image.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// Something that is not there need not go, and one that is going is gone at the next look.
fn gone_is_done(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::Changed { message, .. }) if message.to_ascii_lowercase().contains("no such") => {
            Ok(())
        }
        Err(EngineError::Changed { message, .. }) if message.contains("not found") => Ok(()),
        result => result,
    }
}

fn run(details: &ContainerInspectResponse) -> Option<Run> {
    let state = details.state.as_ref()?;
    Some(match state.status? {
        ContainerStateStatusEnum::CREATED => Run::Created,
        ContainerStateStatusEnum::RUNNING => Run::Running,
        ContainerStateStatusEnum::PAUSED => Run::Paused,
        ContainerStateStatusEnum::RESTARTING => Run::Restarting,
        ContainerStateStatusEnum::REMOVING => Run::Removing,
        ContainerStateStatusEnum::EXITED => Run::Exited {
            code: state.exit_code.unwrap_or(-1),
            error: state.error.clone().unwrap_or_default(),
        },
        ContainerStateStatusEnum::DEAD => Run::Dead,
        ContainerStateStatusEnum::EMPTY => return None,
    })
}

/// The network namespace of a container's process, where this agent may look.
///
/// The engine may run its containers elsewhere (in a machine of its own, in another PID namespace), where the number
/// is another process's. That process is in no control group with the container's id in its name.
async fn namespace(pid: i64, id: &str) -> Option<String> {
    let process = Path::new("/proc").join(pid.to_string());
    let link = tokio::fs::read_link(process.join("ns/net")).await.ok()?;
    let groups = tokio::fs::read_to_string(process.join("cgroup")).await.ok()?;
    groups.contains(id).then(|| link.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deckies::plan::tests::owner;

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_an_engine_that_is_unreachable() {
        let folder = tempfile::tempdir().unwrap();
        let engine = DockerEngine::new(folder.path().join("docker.sock"), Clock::system());
        let error = engine.inventory(&owner()).await.unwrap_err();
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("systemctl start docker"));
    }

    #[tokio::test]
    async fn a_socket_nobody_listens_on_is_an_engine_that_is_unreachable() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        drop(tokio::net::UnixListener::bind(&socket).unwrap());
        let engine = DockerEngine::new(socket, Clock::system());
        let error = engine.inventory(&owner()).await.unwrap_err();
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_never_answers_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let engine = DockerEngine::new(socket, Clock::system());
        let error = engine.inventory(&owner()).await.unwrap_err();
        assert!(matches!(error, EngineError::TimedOut { .. }), "{error:?}");
    }

    #[test]
    fn an_image_without_a_tag_is_recognised_behind_a_registry_with_a_port() {
        assert!(!has_tag("registry.example.org:5000/decoy"));
        assert!(has_tag("registry.example.org:5000/decoy:1") && has_tag("decoy@sha256:00"));
    }
}
