//! The Docker Engine behind a Unix socket.
//!
//! What every container of ours is subject to stands here in one place: no capabilities, no new privileges, limits on
//! memory, processors, processes and logs. Ports under 1024 need no capability: the base opens them to every user of
//! its own network namespace (`net.ipv4.ip_unprivileged_port_start=0`), in which nothing but decoys lives, so that no
//! container holds a capability, whatever its user.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error as _,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as BollardError,
    models::{
        ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
        EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, Ipam, IpamConfig,
        NetworkCreateRequest, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
    },
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
use picket_proto::shard::Driver;
use tokio::time;

use super::{
    Owner,
    engine::{Engine, EngineError, Image},
    form::{ContainerForm, NetworkForm, Place, Role, label},
    inventory::{
        Container, ContainerId, EngineNetworkId, Inventory, Network, Run, container_labels, network_labels,
    },
};

/// An ordinary call. Creating and starting containers takes a loaded engine seconds.
const CALL: Duration = Duration::from_secs(30);
/// A pull: some hundred megabytes over a slow line.
const PULL: Duration = Duration::from_mins(10);
/// What a container has between SIGTERM and SIGKILL.
const STOP_GRACE_SECONDS: i32 = 3;
/// Containers looked at at the same time.
const LOOKS_AT_ONCE: usize = 8;

const MEBIBYTE: i64 = 1024 * 1024;
/// A process that does nothing needs less than 4 MiB; a busy engine's own overhead is counted in.
const BASE_MEMORY: i64 = 32 * MEBIBYTE;
const BASE_PIDS: i64 = 16;
const BASE_NANO_CPUS: i64 = 100_000_000;
/// Enough for interpreted honeypots, too little to serve somebody else's purposes.
const SERVICE_MEMORY: i64 = 256 * MEBIBYTE;
const SERVICE_PIDS: i64 = 128;
const SERVICE_NANO_CPUS: i64 = 500_000_000;
const LOG_SIZE: &str = "10m";
const LOG_FILES: &str = "3";

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
            Docker::connect_with_unix(&socket, PULL.as_secs(), API_DEFAULT_VERSION)
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

fn network_request(form: &NetworkForm) -> NetworkCreateRequest {
    let network = &form.network;
    let mut options = HashMap::new();
    if let Some(parent) = &network.parent {
        options.insert("parent".to_owned(), parent.clone());
    }
    if network.driver == Driver::Ipvlan {
        options.insert("ipvlan_mode".to_owned(), "l2".to_owned());
    }
    NetworkCreateRequest {
        name: form.docker_name.clone(),
        driver: Some(network.driver.to_string()),
        // A bridge without a way out: this machine reaches the deckies, and they reach nothing.
        internal: Some(network.driver == Driver::Bridge && network.gateway.is_none()),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(vec![IpamConfig {
                subnet: Some(network.subnet.to_string()),
                gateway: network.gateway.map(|gateway| gateway.to_string()),
                ..Default::default()
            }]),
            options: None,
        }),
        options: Some(options),
        labels: Some(form.labels.clone().into_iter().collect()),
        ..Default::default()
    }
}

fn container_body(form: &ContainerForm, base: Option<&ContainerId>, image: Image) -> ContainerCreateBody {
    let is_base = form.role == Role::Base;
    let (memory, pids, nano_cpus) = if is_base {
        (BASE_MEMORY, BASE_PIDS, BASE_NANO_CPUS)
    } else {
        (SERVICE_MEMORY, SERVICE_PIDS, SERVICE_NANO_CPUS)
    };
    let mut host = HostConfig {
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        readonly_rootfs: Some(image.read_only),
        ipc_mode: Some("private".to_owned()),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_SIZE.to_owned()),
                ("max-file".to_owned(), LOG_FILES.to_owned()),
            ])),
        }),
        memory: Some(memory),
        // The same as memory: no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus),
        pids_limit: Some(pids),
        ..Default::default()
    };
    let mut body = ContainerCreateBody {
        image: Some(form.image.clone()),
        cmd: (!form.command.is_empty()).then(|| form.command.clone()),
        env: Some(
            form.environment
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
        ),
        labels: Some(form.labels.clone().into_iter().collect()),
        ..Default::default()
    };
    match &form.place {
        Place::Network {
            network,
            address,
            hostname,
        } => {
            host.network_mode = Some(network.clone());
            host.sysctls = Some(HashMap::from([(
                "net.ipv4.ip_unprivileged_port_start".to_owned(),
                "0".to_owned(),
            )]));
            body.hostname = Some(hostname.to_string());
            let endpoint = EndpointSettings {
                ipam_config: Some(EndpointIpamConfig {
                    ipv4_address: Some(address.to_string()),
                    ..Default::default()
                }),
                ..Default::default()
            };
            body.networking_config = Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network.clone(), endpoint)])),
            });
        }
        // The Engine refuses Hostname, ExposedPorts, MacAddress and NetworkingConfig beside this.
        Place::Base => {
            host.network_mode = base.map(|base| format!("container:{}", base.0));
        }
    }
    body.host_config = Some(host);
    body
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

/// The Engine's answer in our words: what is no use to ask again, and what is.
fn translate(socket: &Path, tried: &str, error: BollardError) -> EngineError {
    let tried = tried.to_owned();
    let (status, message) = match error {
        BollardError::DockerResponseServerError { status_code, message } => (status_code, message),
        // A pull that failed after it began; the registry's words.
        BollardError::DockerStreamError { error } => (400, error),
        BollardError::RequestTimeoutError => return EngineError::TimedOut { tried, after: PULL },
        BollardError::SocketNotFoundError(_) => {
            return EngineError::Unreachable {
                socket: socket.to_owned(),
                cause: io::ErrorKind::NotFound.into(),
            };
        }
        other => return transport(socket, tried, &other),
    };
    match status {
        404 if message.to_ascii_lowercase().contains("no such image") => EngineError::NoImage {
            image: String::new(),
            message,
        },
        404 | 409 => EngineError::Changed { tried, message },
        400..=499 => EngineError::Refused { tried, message },
        _ => EngineError::Broken { tried, message },
    }
}

/// Errors below HTTP: nobody there, not for us, or gone in the middle.
fn transport(socket: &Path, tried: String, error: &BollardError) -> EngineError {
    let mut cause = error.source();
    let mut kind = match error {
        BollardError::IOError { err } => Some(err.kind()),
        _ => None,
    };
    let through_http = matches!(
        error,
        BollardError::HyperResponseError { .. } | BollardError::HyperLegacyError { .. }
    );
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            kind = Some(io.kind());
        }
        cause = error.source();
    }
    match kind {
        Some(io::ErrorKind::PermissionDenied) => EngineError::Denied {
            socket: socket.to_owned(),
        },
        Some(kind) => EngineError::Unreachable {
            socket: socket.to_owned(),
            cause: kind.into(),
        },
        // The connection ended in the middle of an answer: the engine is stopping.
        None if through_http => EngineError::Unreachable {
            socket: socket.to_owned(),
            cause: io::ErrorKind::ConnectionReset.into(),
        },
        None => EngineError::Broken {
            tried,
            message: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deckies::{
        form::{BaseImage, forms},
        plan::tests::{owner, shard},
    };

    fn bodies() -> Vec<ContainerCreateBody> {
        let forms = forms(&shard(1), &owner(), &BaseImage::default());
        let base = ContainerId("abc".to_owned());
        let decky = forms.deckies.values().next().unwrap();
        decky
            .containers()
            .map(|form| container_body(form, Some(&base), Image { read_only: true }))
            .collect()
    }

    #[test]
    fn no_container_has_a_capability_or_a_way_to_the_host() {
        for body in bodies() {
            let host = body.host_config.unwrap();
            assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
            assert_eq!(host.cap_add, None);
            assert_eq!(host.privileged, Some(false));
            assert_eq!(host.security_opt, Some(vec!["no-new-privileges:true".to_owned()]));
            assert_eq!((host.binds, host.mounts, host.devices), (None, None, None));
            assert_eq!(
                (host.pid_mode, host.uts_mode, host.userns_mode),
                (None, None, None)
            );
            assert!(host.memory.is_some_and(|bytes| bytes > 0) && host.memory == host.memory_swap);
            assert!(host.pids_limit.is_some_and(|pids| pids > 0));
            assert!(host.network_mode.is_some_and(|mode| mode != "host"));
        }
    }

    #[test]
    fn a_service_sets_nothing_that_the_engine_refuses_in_a_joined_namespace() {
        for body in &bodies()[1..] {
            assert_eq!(
                (&body.hostname, &body.exposed_ports, &body.networking_config),
                (&None, &None, &None)
            );
            assert_eq!(
                body.host_config.as_ref().unwrap().network_mode.as_deref(),
                Some("container:abc")
            );
        }
    }

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
    fn answers_are_told_apart_by_whether_asking_again_may_help() {
        let answer = |status_code, message: &str| {
            let error = BollardError::DockerResponseServerError {
                status_code,
                message: message.to_owned(),
            };
            translate(Path::new("/s"), "start x", error).may_pass()
        };
        assert!(!answer(400, "executable file not found in $PATH"));
        assert!(!answer(403, "Address already in use"));
        assert!(!answer(404, "No such image: x:latest"));
        assert!(answer(404, "No such container: x"));
        assert!(answer(409, "cannot join network of a non running container: x"));
        assert!(answer(500, "driver failed"));
    }

    #[test]
    fn an_image_without_a_tag_is_recognised_behind_a_registry_with_a_port() {
        assert!(!has_tag("registry.example.org:5000/decoy"));
        assert!(has_tag("registry.example.org:5000/decoy:1") && has_tag("decoy@sha256:00"));
    }
}
