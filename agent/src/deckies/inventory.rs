//! What Docker has of ours.
//!
//! Whose an object is stands in its labels; an object with our owner label and nonsense in the others is skipped and
//! named, never touched.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use jiff::Timestamp;
use picket_proto::host::Name;

use super::form::{Role, label};

/// A container's id as Docker gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub String);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get(..12).unwrap_or(&self.0))
    }
}

/// A Docker network's id as Docker gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineNetworkId(pub String);

/// Everything with our owner label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Running or not.
    pub containers: Vec<Container>,
    /// Used or not.
    pub networks: Vec<Network>,
    /// Objects whose labels make no sense, and why.
    pub skipped: Vec<(String, String)>,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// As Docker calls it.
    pub docker_name: String,
    /// The value of its owner label.
    pub owner: String,
    /// The deployment it was made for.
    pub deployment: Name,
    /// The decky it belongs to.
    pub decky: Name,
    /// What it is to the decky.
    pub role: Role,
    /// The hash of the form it was made from.
    pub hash: String,
    /// How it is.
    pub run: Run,
    /// When it was started last.
    pub started: Option<Timestamp>,
    /// The network namespace its process is in, where the agent may look.
    pub namespace: Option<String>,
    /// The container whose namespace it was made to join.
    pub joins: Option<ContainerId>,
    /// When that container had been started when this one was made.
    pub base_started: Option<Timestamp>,
    /// The network its address is on.
    pub network: Option<EngineNetworkId>,
    /// Its address.
    pub address: Option<Ipv4Addr>,
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// Made, never started.
    Created,
    /// Its process runs.
    Running,
    /// It ended, and Docker is about to start it again.
    Restarting,
    /// Its process is frozen.
    Paused,
    /// Its process ended.
    Exited {
        /// The exit code.
        code: i64,
        /// Docker's words on it; often empty.
        error: String,
    },
    /// It is going away.
    Removing,
    /// Docker could not remove it.
    Dead,
}

impl Run {
    /// Whether there is a process to be stopped.
    #[must_use]
    pub fn has_process(&self) -> bool {
        match self {
            Self::Running | Self::Restarting | Self::Paused => true,
            Self::Created | Self::Exited { .. } | Self::Removing | Self::Dead => false,
        }
    }
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub id: EngineNetworkId,
    /// The value of its owner label.
    pub owner: String,
    /// Its name in the shard.
    pub name: Name,
    /// The hash of the form it was made from.
    pub hash: String,
}

/// What a container's labels say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLabels {
    /// Of the owner.
    pub owner: String,
    /// The deployment.
    pub deployment: Name,
    /// The decky.
    pub decky: Name,
    /// What it is to the decky.
    pub role: Role,
    /// The hash of its form.
    pub hash: String,
    /// When the base had been started that a service was made to join.
    pub base_started: Option<Timestamp>,
}

/// Reads a container's labels.
///
/// # Errors
/// Names the label that is missing or makes no sense.
pub fn container_labels(labels: &BTreeMap<String, String>) -> Result<ContainerLabels, String> {
    let role = match text(labels, label::ROLE)? {
        "base" => Role::Base,
        "service" => Role::Service(name(labels, label::SERVICE)?),
        other => return Err(format!("label {} is `{}`", label::ROLE, other.escape_debug())),
    };
    Ok(ContainerLabels {
        owner: text(labels, label::OWNER)?.to_owned(),
        deployment: name(labels, label::DEPLOYMENT)?,
        decky: name(labels, label::DECKY)?,
        role,
        hash: text(labels, label::FORM)?.to_owned(),
        base_started: labels.get(label::BASE_STARTED).and_then(|at| at.parse().ok()),
    })
}

/// Reads a network's labels: the owner, the name, the hash of its form.
///
/// # Errors
/// Names the label that is missing or makes no sense.
pub fn network_labels(labels: &BTreeMap<String, String>) -> Result<(String, Name, String), String> {
    let owner = text(labels, label::OWNER)?.to_owned();
    Ok((
        owner,
        name(labels, label::NETWORK)?,
        text(labels, label::FORM)?.to_owned(),
    ))
}

fn text<'a>(labels: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str, String> {
    labels
        .get(key)
        .map(String::as_str)
        .ok_or_else(|| format!("label {key} is missing"))
}

fn name(labels: &BTreeMap<String, String>, key: &str) -> Result<Name, String> {
    text(labels, key)?
        .parse()
        .map_err(|error| format!("label {key}: {error}"))
}

/// Whether a running service is in the namespace its base has at present.
///
/// A base that was started again has a new namespace, and Docker still calls services in the old one running. Where
/// the agent may look at the processes, their namespaces are compared. Elsewhere the starts tell: a service joins the
/// namespace that its base has at that moment. One that was made for the present start of its base is in it, whatever
/// the clock did since; so is one that was started after it, and any other counts as left behind.
#[must_use]
pub fn in_live_namespace(base: &Container, service: &Container) -> bool {
    if service.joins.as_ref() != Some(&base.id) {
        return false;
    }
    match (&base.namespace, &service.namespace) {
        (Some(base), Some(service)) => base == service,
        (Some(_) | None, None) | (None, Some(_)) => match (base.started, service.started) {
            (Some(base), Some(started)) => service.base_started == Some(base) || base <= started,
            (Some(_) | None, None) | (None, Some(_)) => false,
        },
    }
}
