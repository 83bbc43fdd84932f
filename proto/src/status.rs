//! What an agent sees: the bodies of a beat's sections.
//!
//! Bodies are opaque to the session; whoever needs one decodes it here. An entry that makes no sense is skipped,
//! named and counted, and the rest counts.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr};

use bytes::Bytes;
use picket_zerotier::ids::{NetworkId, NodeId};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::{
    WireError,
    document::{MOST_PROBLEM_TEXT, Problem},
    field::{parse, plain, text},
    host::Name,
    repair::Repair,
    stay,
    wire::agent as wire,
    witness::Witness,
};

/// The most entries of one list that are read; the rest is named and counted.
pub const MOST_ENTRIES: usize = 20_000;
/// The most fields of one body, at all its levels: a decoder makes dozens of bytes of memory from two on the wire, so
/// they are counted before it is let loose. A controller with 10,000 members has about 60,000.
const MOST_FIELDS: usize = 150_000;
/// The most complaints kept of one body.
pub const MOST_SKIPPED: usize = 16;
/// The longest text of a field.
pub const MOST_TEXT: usize = 256;
/// The most values of a field, such as addresses.
pub const MOST_VALUES: usize = 64;

/// Whether a local service answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ServiceState {
    /// It does.
    #[default]
    Answers,
    /// Nothing listens; with what to do.
    Unreachable(String),
    /// It refuses us; with what to do.
    Refuses(String),
    /// It answers nonsense; with what it was.
    Broken(String),
}

impl ServiceState {
    /// What is wrong, unless it answers.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Answers => None,
            Self::Unreachable(problem) | Self::Refuses(problem) | Self::Broken(problem) => Some(problem),
        }
    }
}

/// The local ZeroTier service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ZeroTierStatus {
    /// Whether it answers; when not, the rest is empty.
    pub service: ServiceState,
    /// The local node.
    pub node: Option<NodeId>,
    /// Of the service.
    pub version: String,
    /// It has heard from a root lately.
    pub online: bool,
    /// The networks it is on, by id.
    pub networks: Vec<JoinedNetwork>,
    /// The nodes it talks to, by id.
    pub peers: Vec<Peer>,
    /// The moons it orbits, by world id.
    pub moons: Vec<OrbitedMoon>,
    /// The moon it is the root of, as it signed it; empty when it is none.
    pub own_moon: Bytes,
    /// What became of the members it witnesses.
    pub witnesses: Vec<Witness>,
}

/// A moon the local node orbits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrbitedMoon {
    /// Its world id.
    pub id: u64,
    /// Its definition has not arrived.
    pub waiting: bool,
}

/// A network the local node is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedNetwork {
    /// Its id.
    pub id: NetworkId,
    /// As its controller calls it.
    pub name: String,
    /// ZeroTier's own word.
    pub status: String,
    /// With prefix length.
    pub addresses: Vec<String>,
    /// The local device.
    pub interface: String,
    /// Picket joined it and may leave it.
    pub managed: bool,
    /// The session's own path goes over it.
    pub carries_session: bool,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub node: NodeId,
    /// LEAF, MOON or PLANET.
    pub role: String,
    /// There is an active path to it.
    pub direct: bool,
}

/// The controller on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ControllerStatus {
    /// Whether it answers.
    pub service: ServiceState,
    /// Its node.
    pub node: Option<NodeId>,
    /// Its networks, by id.
    pub networks: Vec<ControlledNetwork>,
    /// What was changed to make them follow the rules, newest last.
    pub repairs: Vec<Repair>,
    /// How many repairs of what somebody else changed fell off that list, ever.
    pub repairs_forgotten: u64,
}

/// One network of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlledNetwork {
    /// Its id.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// Only authorized nodes may be on it.
    pub private: bool,
    /// Every record the controller has, by node.
    pub members: Vec<ControlledMember>,
    /// How many repairs of drift the brake holds back.
    pub held_back: u32,
    /// Why it cannot be observed or repaired just now; empty when it can.
    pub frozen: String,
    /// What is unlike the settings that are managed, a sentence each.
    pub differences: Vec<String>,
}

/// One member record of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlledMember {
    /// The node.
    pub node: NodeId,
    /// As the controller calls it.
    pub name: String,
    /// Whether the controller lets it on.
    pub authorized: bool,
    /// Its addresses on the network.
    pub addresses: Vec<String>,
}

/// The deckies on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeckiesStatus {
    /// Whether Docker answers. When not, every decky is [`DeckyState::Unknown`].
    pub service: ServiceState,
    /// By name.
    pub deckies: Vec<DeckyStatus>,
}

/// One decky as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeckyStatus {
    /// Its name.
    pub name: Name,
    /// The deployment it belongs to.
    pub deployment: Name,
    /// How it is.
    pub state: DeckyState,
    /// Why it is not running; empty when it is.
    pub problem: String,
    /// Its address, when it has one.
    pub address: Option<Ipv4Addr>,
    /// The base container's id, hex; empty when there is none.
    pub container: String,
    /// In the order they are started.
    pub services: Vec<DeckyServiceStatus>,
}

/// One service of a decky.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeckyServiceStatus {
    /// Its name.
    pub name: Name,
    /// How it is.
    pub state: DeckyState,
    /// The container's id, hex; empty when there is none.
    pub container: String,
    /// Why it is not running; empty when it is.
    pub problem: String,
}

/// How a decky is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeckyState {
    /// Wanted, nothing done yet.
    Pending,
    /// Its images are on their way.
    Pulling,
    /// Its containers are being started.
    Starting,
    /// All of it runs.
    Running,
    /// The base runs and some service does not.
    Degraded,
    /// It could not be brought up.
    Failed,
    /// It is being removed.
    Stopping,
    /// Docker does not answer.
    Unknown,
}

impl DeckyState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Pulling,
        Self::Starting,
        Self::Running,
        Self::Degraded,
        Self::Failed,
        Self::Stopping,
        Self::Unknown,
    ];
}

impl fmt::Display for DeckyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
            Self::Unknown => "unknown",
        })
    }
}

/// The machine and the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostStatus {
    /// The machine's own name.
    pub hostname: String,
    /// Such as `Debian GNU/Linux 12`.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
    /// The agent's.
    pub agent_version: String,
    /// What the agent complains of.
    pub problems: Vec<Problem>,
}

/// A decoded body, and what in it made no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// What made sense.
    pub status: T,
    /// The first complaints, by entry.
    pub skipped: Vec<(String, WireError)>,
    /// How many entries were skipped in all.
    pub skipped_count: usize,
}

struct Skipped {
    named: Vec<(String, WireError)>,
    count: usize,
}

impl Skipped {
    fn new() -> Self {
        Self {
            named: Vec::new(),
            count: 0,
        }
    }

    fn add(&mut self, name: &str, error: WireError) {
        self.count += 1;
        if self.named.len() < MOST_SKIPPED {
            self.named.push((plain(name, 80), error));
        }
    }

    /// Converts the entries that make sense and notes the others.
    fn keep<W, T>(
        &mut self,
        entries: Vec<W>,
        name: impl Fn(&W) -> String,
        convert: impl Fn(W) -> Result<T, WireError>,
    ) -> Vec<T> {
        let mut kept = Vec::with_capacity(entries.len().min(MOST_ENTRIES));
        for entry in entries {
            let name = name(&entry);
            if kept.len() >= MOST_ENTRIES {
                self.add(
                    &name,
                    WireError::new("entry", format_args!("over {MOST_ENTRIES} entries")),
                );
                continue;
            }
            match convert(entry) {
                Ok(entry) => kept.push(entry),
                Err(error) => self.add(&name, error),
            }
        }
        kept
    }

    fn read<T>(self, status: T) -> Read<T> {
        Read {
            status,
            skipped: self.named,
            skipped_count: self.count,
        }
    }
}

impl ZeroTierStatus {
    /// The body as it travels.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (service, problem) = service_to_wire(&self.service);
        wire::ZeroTierStatus {
            service: service.into(),
            problem,
            node_id: self.node.map(|node| node.to_string()).unwrap_or_default(),
            version: self.version.clone(),
            online: self.online,
            networks: self
                .networks
                .iter()
                .map(|network| wire::JoinedNetwork {
                    network_id: network.id.to_string(),
                    name: network.name.clone(),
                    status: network.status.clone(),
                    addresses: network.addresses.clone(),
                    interface: network.interface.clone(),
                    managed: network.managed,
                    carries_session: network.carries_session,
                })
                .collect(),
            peers: self
                .peers
                .iter()
                .map(|peer| wire::Peer {
                    node_id: peer.node.to_string(),
                    role: peer.role.clone(),
                    direct: peer.direct,
                })
                .collect(),
            moons: self
                .moons
                .iter()
                .map(|moon| wire::OrbitedMoon {
                    world_id: format!("{:016x}", moon.id),
                    waiting: moon.waiting,
                })
                .collect(),
            own_moon: self.own_moon.clone(),
            witnesses: self.witnesses.iter().map(Into::into).collect(),
        }
        .encode_to_vec()
        .into()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When the bytes are no such message.
    pub fn decode(body: &[u8]) -> Result<Read<Self>, WireError> {
        bounded(body, &[&[6, 7, 8, 10]])?;
        let message =
            wire::ZeroTierStatus::decode(body).map_err(|error| WireError::new("zerotier", error))?;
        let mut skipped = Skipped::new();
        let status = Self {
            service: service(message.service, message.problem)?,
            node: node("zerotier.node_id", &message.node_id)?,
            version: text("zerotier.version", message.version, MOST_TEXT)?,
            online: message.online,
            networks: skipped.keep(
                message.networks,
                |network| network.network_id.clone(),
                |network| {
                    Ok(JoinedNetwork {
                        id: parse("network_id", &network.network_id)?,
                        name: plain(&network.name, MOST_TEXT),
                        status: plain(&network.status, MOST_TEXT),
                        addresses: shown(&network.addresses),
                        interface: plain(&network.interface, MOST_TEXT),
                        managed: network.managed,
                        carries_session: network.carries_session,
                    })
                },
            ),
            peers: skipped.keep(
                message.peers,
                |peer| peer.node_id.clone(),
                |peer| {
                    Ok(Peer {
                        node: parse("node_id", &peer.node_id)?,
                        role: text("role", peer.role, MOST_TEXT)?,
                        direct: peer.direct,
                    })
                },
            ),
            moons: skipped.keep(
                message.moons,
                |moon| moon.world_id.clone(),
                |moon| {
                    Ok(OrbitedMoon {
                        id: stay::world_id(&moon.world_id)?,
                        waiting: moon.waiting,
                    })
                },
            ),
            own_moon: stay::definition("zerotier.own_moon", message.own_moon)?,
            witnesses: skipped.keep(
                message.witnesses,
                |witness| format!("{}/{}", witness.network_id, witness.node_id),
                Witness::try_from,
            ),
        };
        Ok(skipped.read(status))
    }
}

impl ControllerStatus {
    /// The body as it travels.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (service, problem) = service_to_wire(&self.service);
        let member = |member: &ControlledMember| wire::ControlledMember {
            node_id: member.node.to_string(),
            name: member.name.clone(),
            authorized: member.authorized,
            addresses: member.addresses.clone(),
        };
        wire::ControllerStatus {
            service: service.into(),
            problem,
            node_id: self.node.map(|node| node.to_string()).unwrap_or_default(),
            networks: self
                .networks
                .iter()
                .map(|network| wire::ControlledNetwork {
                    network_id: network.id.to_string(),
                    name: network.name.clone(),
                    private: network.private,
                    members: network.members.iter().map(member).collect(),
                    held_back: network.held_back,
                    frozen: network.frozen.clone(),
                    differences: network.differences.clone(),
                })
                .collect(),
            repairs: self.repairs.iter().map(Into::into).collect(),
            repairs_forgotten: self.repairs_forgotten,
        }
        .encode_to_vec()
        .into()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When the bytes are no such message.
    pub fn decode(body: &[u8]) -> Result<Read<Self>, WireError> {
        bounded(body, &[&[4, 5], &[4]])?;
        let message =
            wire::ControllerStatus::decode(body).map_err(|error| WireError::new("controller", error))?;
        let mut skipped = Skipped::new();
        let mut networks = Vec::new();
        for mut network in message.networks {
            let subject = network.network_id.clone();
            let members = skipped.keep(
                std::mem::take(&mut network.members),
                |member| format!("{subject}/{}", member.node_id),
                |member| {
                    // Whoever writes nonsense into a record hides nobody by that.
                    Ok(ControlledMember {
                        node: parse("node_id", &member.node_id)?,
                        name: plain(&member.name, MOST_TEXT),
                        authorized: member.authorized,
                        addresses: shown(&member.addresses),
                    })
                },
            );
            match controlled(network, members) {
                Ok(network) => networks.push(network),
                Err(error) => skipped.add(&subject, error),
            }
        }
        let repairs = skipped.keep(
            message.repairs,
            |repair| format!("repair {}", repair.sequence),
            Repair::try_from,
        );
        let status = Self {
            service: service(message.service, message.problem)?,
            node: node("controller.node_id", &message.node_id)?,
            networks,
            repairs,
            repairs_forgotten: message.repairs_forgotten,
        };
        Ok(skipped.read(status))
    }
}

fn controlled(
    network: wire::ControlledNetwork,
    members: Vec<ControlledMember>,
) -> Result<ControlledNetwork, WireError> {
    Ok(ControlledNetwork {
        id: parse("network_id", &network.network_id)?,
        name: plain(&network.name, MOST_TEXT),
        private: network.private,
        members,
        held_back: network.held_back,
        frozen: plain(&network.frozen, MOST_PROBLEM_TEXT),
        differences: shown(&network.differences),
    })
}

impl DeckiesStatus {
    /// The body as it travels.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (service, problem) = service_to_wire(&self.service);
        let decky = |decky: &DeckyStatus| wire::DeckyStatus {
            name: decky.name.to_string(),
            deployment: decky.deployment.to_string(),
            state: state_to_wire(decky.state).into(),
            problem: decky.problem.clone(),
            address: decky
                .address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            container_id: decky.container.clone(),
            services: decky
                .services
                .iter()
                .map(|service| wire::DeckyServiceStatus {
                    name: service.name.to_string(),
                    state: state_to_wire(service.state).into(),
                    container_id: service.container.clone(),
                    problem: service.problem.clone(),
                })
                .collect(),
        };
        wire::DeckiesStatus {
            service: service.into(),
            problem,
            deckies: self.deckies.iter().map(decky).collect(),
        }
        .encode_to_vec()
        .into()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When the bytes are no such message.
    pub fn decode(body: &[u8]) -> Result<Read<Self>, WireError> {
        bounded(body, &[&[3], &[7]])?;
        let message = wire::DeckiesStatus::decode(body).map_err(|error| WireError::new("deckies", error))?;
        let mut skipped = Skipped::new();
        let mut deckies = skipped.keep(message.deckies, |decky| decky.name.clone(), decky);
        let mut names = BTreeSet::new();
        deckies.retain(|decky| {
            let first = names.insert(decky.name.clone());
            if !first {
                skipped.add(
                    decky.name.as_str(),
                    WireError::new("name", "stands twice in one beat"),
                );
            }
            first
        });
        let status = Self {
            service: service(message.service, message.problem)?,
            deckies,
        };
        Ok(skipped.read(status))
    }
}

/// Refuses a body with too many fields, before anything is made of it. `levels` are the fields that hold messages.
fn bounded(body: &[u8], levels: &[&[u32]]) -> Result<(), WireError> {
    let mut left = MOST_FIELDS;
    count(body, levels, &mut left).then_some(()).ok_or_else(|| {
        WireError::new(
            "section",
            format_args!("has over {MOST_FIELDS} fields, or is cut off"),
        )
    })
}

/// Counts the fields of a message down from `left`; false when there are more, or when it is no message.
fn count(mut body: &[u8], levels: &[&[u32]], left: &mut usize) -> bool {
    use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
    while !body.is_empty() {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        let Ok((tag, kind)) = decode_key(&mut body) else {
            return false;
        };
        let nested =
            levels.first().is_some_and(|tags| tags.contains(&tag)) && kind == WireType::LengthDelimited;
        if !nested {
            if skip_field(kind, tag, &mut body, DecodeContext::default()).is_err() {
                return false;
            }
            continue;
        }
        let inner = decode_varint(&mut body)
            .ok()
            .and_then(|len| usize::try_from(len).ok());
        let Some((inner, rest)) = inner.and_then(|len| body.split_at_checked(len)) else {
            return false;
        };
        if !count(inner, &levels[1..], left) {
            return false;
        }
        body = rest;
    }
    true
}

fn decky(decky: wire::DeckyStatus) -> Result<DeckyStatus, WireError> {
    if decky.services.len() > crate::shard::MOST_SERVICES {
        return Err(WireError::new(
            "services",
            format_args!("{} of them", decky.services.len()),
        ));
    }
    Ok(DeckyStatus {
        name: parse("name", &decky.name)?,
        deployment: parse("deployment", &decky.deployment)?,
        state: state(decky.state)?,
        problem: text("problem", decky.problem, MOST_PROBLEM_TEXT)?,
        address: crate::shard::optional(decky.address)
            .map(|address| parse("address", &address))
            .transpose()?,
        container: container(decky.container_id)?,
        services: decky
            .services
            .into_iter()
            .map(|service| {
                Ok(DeckyServiceStatus {
                    name: parse("service.name", &service.name)?,
                    state: state(service.state)?,
                    container: container(service.container_id)?,
                    problem: text("service.problem", service.problem, MOST_PROBLEM_TEXT)?,
                })
            })
            .collect::<Result<_, WireError>>()?,
    })
}

fn container(id: String) -> Result<String, WireError> {
    if id.len() > 64 || !id.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(WireError::new("container_id", "is not at most 64 hex digits"));
    }
    Ok(id)
}

impl HostStatus {
    /// The body as it travels.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        use wire::host_status::Problem as WireProblem;
        let problem = |p: &Problem| WireProblem {
            subject: p.subject.clone(),
            message: p.message.clone(),
        };
        wire::HostStatus {
            hostname: self.hostname.clone(),
            os: self.os.clone(),
            kernel: self.kernel.clone(),
            agent_version: self.agent_version.clone(),
            problems: self.problems.iter().map(problem).collect(),
        }
        .encode_to_vec()
        .into()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When the bytes are no such message.
    pub fn decode(body: &[u8]) -> Result<Read<Self>, WireError> {
        bounded(body, &[&[5]])?;
        let message = wire::HostStatus::decode(body).map_err(|error| WireError::new("host", error))?;
        let mut skipped = Skipped::new();
        let status = Self {
            hostname: text("host.hostname", message.hostname, MOST_TEXT)?,
            os: text("host.os", message.os, MOST_TEXT)?,
            kernel: text("host.kernel", message.kernel, MOST_TEXT)?,
            agent_version: text("host.agent_version", message.agent_version, 32)?,
            problems: skipped.keep(
                message.problems,
                |problem| problem.subject.clone(),
                |problem| {
                    Ok(Problem {
                        subject: text("problem.subject", problem.subject, MOST_PROBLEM_TEXT)?,
                        message: text("problem.message", problem.message, MOST_PROBLEM_TEXT)?,
                    })
                },
            ),
        };
        Ok(skipped.read(status))
    }
}

fn node(field: &str, id: &str) -> Result<Option<NodeId>, WireError> {
    if id.is_empty() {
        Ok(None)
    } else {
        parse(field, id).map(Some)
    }
}

/// What somebody else may have written: shown, and no reason to leave out what it is about.
fn shown(values: &[String]) -> Vec<String> {
    let values = values.iter().take(MOST_VALUES);
    values.map(|value| plain(value, MOST_TEXT)).collect()
}

fn service_to_wire(state: &ServiceState) -> (wire::ServiceState, String) {
    let problem = state
        .problem()
        .unwrap_or_default()
        .chars()
        .take(MOST_PROBLEM_TEXT)
        .collect();
    let state = match state {
        ServiceState::Answers => wire::ServiceState::Answers,
        ServiceState::Unreachable(_) => wire::ServiceState::Unreachable,
        ServiceState::Refuses(_) => wire::ServiceState::Refuses,
        ServiceState::Broken(_) => wire::ServiceState::Broken,
    };
    (state, problem)
}

fn service(state: i32, problem: String) -> Result<ServiceState, WireError> {
    let problem = text("problem", problem, MOST_PROBLEM_TEXT)?;
    match wire::ServiceState::try_from(state) {
        Ok(wire::ServiceState::Answers) => Ok(ServiceState::Answers),
        Ok(wire::ServiceState::Unreachable) => Ok(ServiceState::Unreachable(problem)),
        Ok(wire::ServiceState::Refuses) => Ok(ServiceState::Refuses(problem)),
        Ok(wire::ServiceState::Broken) => Ok(ServiceState::Broken(problem)),
        Ok(wire::ServiceState::Unspecified) | Err(_) => Err(WireError::new(
            "service",
            format_args!("{state} is no service state this version knows"),
        )),
    }
}

fn state_to_wire(state: DeckyState) -> wire::DeckyState {
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

fn state(value: i32) -> Result<DeckyState, WireError> {
    match wire::DeckyState::try_from(value) {
        Ok(wire::DeckyState::Pending) => Ok(DeckyState::Pending),
        Ok(wire::DeckyState::Pulling) => Ok(DeckyState::Pulling),
        Ok(wire::DeckyState::Starting) => Ok(DeckyState::Starting),
        Ok(wire::DeckyState::Running) => Ok(DeckyState::Running),
        Ok(wire::DeckyState::Degraded) => Ok(DeckyState::Degraded),
        Ok(wire::DeckyState::Failed) => Ok(DeckyState::Failed),
        Ok(wire::DeckyState::Stopping) => Ok(DeckyState::Stopping),
        Ok(wire::DeckyState::Unknown) => Ok(DeckyState::Unknown),
        Ok(wire::DeckyState::Unspecified) | Err(_) => Err(WireError::new(
            "state",
            format_args!("{value} is no decky state this version knows"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repair::Why;

    fn one(name: &str) -> wire::DeckyStatus {
        wire::DeckyStatus {
            name: name.into(),
            deployment: "site".into(),
            state: wire::DeckyState::Running.into(),
            ..wire::DeckyStatus::default()
        }
    }

    #[test]
    fn a_member_with_a_name_that_steers_terminals_is_shown_all_the_same() {
        let body = wire::ControllerStatus {
            service: wire::ServiceState::Answers.into(),
            networks: vec![wire::ControlledNetwork {
                network_id: "5350d87547c880cb".into(),
                name: "lab\u{7}".into(),
                members: vec![wire::ControlledMember {
                    node_id: "cccccccc09".into(),
                    name: format!("\u{1b}[31m{}", "x".repeat(4000)),
                    authorized: true,
                    addresses: vec!["10.0.0.1\u{0}".into(); 500],
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let read = ControllerStatus::decode(&body.encode_to_vec()).unwrap();
        assert_eq!(read.skipped.len(), 0);
        let member = &read.status.networks[0].members[0];
        assert!(
            member.authorized && member.name.starts_with("\u{fffd}[31m"),
            "{}",
            member.name
        );
        assert_eq!(
            (member.name.chars().count(), member.addresses.len()),
            (MOST_TEXT, MOST_VALUES)
        );
    }

    #[test]
    fn a_decky_entry_that_makes_no_sense_is_skipped_named_and_counted() {
        let body = wire::DeckiesStatus {
            service: wire::ServiceState::Answers.into(),
            problem: String::new(),
            deckies: vec![
                one("web-01"),
                wire::DeckyStatus {
                    state: 99,
                    ..one("web-02")
                },
                one("Web 03"),
                one("web-01"),
                wire::DeckyStatus {
                    container_id: "not hex".into(),
                    ..one("web-04")
                },
            ],
        }
        .encode_to_vec();
        let read = DeckiesStatus::decode(&body).unwrap();
        assert_eq!(read.status.deckies.len(), 1);
        let names: Vec<_> = read.skipped.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            (names, read.skipped_count),
            (vec!["web-02", "Web 03", "web-04", "web-01"], 4)
        );
    }

    #[test]
    fn complaints_stay_few_however_many_entries_are_bad() {
        let deckies = vec![wire::DeckyStatus::default(); 5000];
        let body = wire::DeckiesStatus {
            service: 1,
            problem: String::new(),
            deckies,
        }
        .encode_to_vec();
        let read = DeckiesStatus::decode(&body).unwrap();
        assert_eq!((read.skipped.len(), read.skipped_count), (MOST_SKIPPED, 5000));
    }

    #[test]
    fn a_body_of_a_million_empty_entries_is_refused_before_anything_is_made_of_it() {
        for (tag, level) in [(3_u8, 1), (3, 2)] {
            let entries: Vec<u8> = std::iter::repeat_n([tag << 3 | 2, 0], 1_000_000)
                .flatten()
                .collect();
            let mut body = entries;
            if level == 2 {
                let inner: Vec<u8> = std::iter::repeat_n([7_u8 << 3 | 2, 0], 1_000_000)
                    .flatten()
                    .collect();
                body = vec![3 << 3 | 2];
                prost::encoding::encode_varint(inner.len() as u64, &mut body);
                body.extend(inner);
            }
            assert!(
                DeckiesStatus::decode(&body)
                    .unwrap_err()
                    .to_string()
                    .contains("fields")
            );
        }
    }

    #[test]
    fn what_a_peer_sent_is_cut_and_made_plain_before_it_is_told() {
        let long = format!("{}\n\u{1b}[2Jforged", "f".repeat(100_000));
        let status = wire::ZeroTierStatus {
            service: 1,
            peers: vec![wire::Peer {
                node_id: long,
                ..wire::Peer::default()
            }],
            ..wire::ZeroTierStatus::default()
        };
        let read = ZeroTierStatus::decode(&status.encode_to_vec()).unwrap();
        let told = format!("{} {}", read.skipped[0].0, read.skipped[0].1);
        assert!(told.len() < 1000 && !told.contains(['\n', '\u{1b}']), "{told}");
    }

    #[test]
    fn bodies_read_back_as_they_were_written() {
        let zerotier = ZeroTierStatus {
            service: ServiceState::Refuses("the token is wrong".into()),
            node: Some("39966434ba".parse().unwrap()),
            ..ZeroTierStatus::default()
        };
        assert_eq!(
            ZeroTierStatus::decode(&zerotier.encode()).unwrap().status,
            zerotier
        );
        let controller = ControllerStatus {
            networks: vec![ControlledNetwork {
                id: "5350d87547c880cb".parse().unwrap(),
                name: "lab".into(),
                private: true,
                members: vec![ControlledMember {
                    node: "39966434ba".parse().unwrap(),
                    name: String::new(),
                    authorized: true,
                    addresses: vec!["10.0.0.1".into()],
                }],
                held_back: 7,
                frozen: String::new(),
                differences: vec!["mtu is 2800, and is to be 1400".into()],
            }],
            repairs_forgotten: 3,
            repairs: vec![Repair {
                sequence: 3,
                at: jiff::Timestamp::UNIX_EPOCH,
                why: Why::Drift,
                network: "5350d87547c880cb".parse().unwrap(),
                node: Some("39966434ba".parse().unwrap()),
                before: "deauthorized".into(),
                after: "authorized".into(),
            }],
            ..ControllerStatus::default()
        };
        assert_eq!(
            ControllerStatus::decode(&controller.encode()).unwrap().status,
            controller
        );
    }
}
