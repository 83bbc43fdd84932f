//! The site as a test or a demonstration handles it: add nodes, connect, stop, look.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::Method;
use tokio::{task::JoinSet, time::Instant};

use super::{
    air::State,
    http::{Asked, Origin},
    machine::{self, Machine, Resident},
    moon::World,
    routes,
};
use crate::{
    dial::{Dial, Dialing, Wire},
    home::Token,
    identity::Identity,
    ids::{NetworkId, NodeId},
    service::Service,
};

/// The wall time a lab starts at unless told: an arbitrary day of 2026, in milliseconds since 1970.
const EPOCH: u64 = 1_795_364_728_000;
/// The bytes an in-memory connection holds before the writer waits: a socket's usual buffer.
const PIPE: usize = 64 * 1024;

/// Identities that anybody may have.
const STOCK: &str = include_str!("worthless-identities.txt");

/// A simulated site. Clones are the same site.
#[derive(Clone)]
pub struct Lab(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    started: Instant,
    /// Connections and listeners. A listener does not keep the lab alive; dropping the last owner ends it.
    tasks: Mutex<JoinSet<()>>,
}

/// How a node's service treats whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As recorded.
    Well,
    /// Takes a connection and closes it.
    Closing,
    /// Takes a request and never answers.
    Hanging,
    /// Answers with bytes that are not HTTP.
    Babbling,
    /// Answers every call with JSON that has nothing to do with it.
    Confused,
    /// Knows who it is, and answers every call of its controller with JSON that has nothing to do with it.
    Muddled,
    /// Does what its controller is asked to change, and never says so.
    Mute,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// Returns a site without nodes that starts at a fixed wall time: everything in it is the same in every run.
    #[must_use]
    pub fn new() -> Self {
        Self::seeded(0, EPOCH)
    }

    /// Returns a site without nodes whose secrets and chosen numbers follow from `seed`, and whose wall clock starts at
    /// `epoch` milliseconds since 1970.
    #[must_use]
    pub fn seeded(seed: u64, epoch: u64) -> Self {
        let state = State::new(seed, epoch);
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            started: Instant::now(),
            tasks: Mutex::default(),
        }))
    }

    /// Adds a running node with this id and no private keys. A node that is there stays as it is.
    pub fn add(&self, id: NodeId) {
        self.state().add(Resident::Chosen(id));
    }

    /// Adds a running node with this identity. A node that is there stays as it is.
    pub fn add_identity(&self, identity: Identity) -> NodeId {
        let id = identity.public().node();
        self.state().add(Resident::Identified(identity));
        id
    }

    /// Adds a running node with an identity that follows from the seed, and returns its id.
    ///
    /// To find an identity takes some hundred milliseconds. A lab that was given no seed has a stock of them.
    pub fn grow(&self) -> NodeId {
        let (seed, stocked, count) = {
            let state = self.state();
            let free = |line: &&str| {
                let id = line.split(':').next().and_then(|id| id.parse().ok());
                id.is_some_and(|id| !state.machines.contains_key(&id))
            };
            let mut lines = STOCK.lines().filter(|line| !line.starts_with('#'));
            let stocked = (state.seed() == 0).then(|| lines.find(free)).flatten();
            (state.seed(), stocked, state.machines.len())
        };
        self.add_identity(match stocked {
            Some(line) => line.parse().expect("the stock is of identities"),
            None => Identity::grow(machine::bytes(seed, &format!("node {count}"))),
        })
    }

    /// Chooses the last six digits of the networks that are created next, instead of random ones.
    pub fn number_networks(&self, numbers: impl IntoIterator<Item = u32>) {
        self.state().number(numbers);
    }

    /// Returns the token of a node's API.
    #[must_use]
    pub fn token(&self, node: NodeId) -> Token {
        self.with(node, |machine| Token::new(&machine.token))
            .expect("a derived token is plain")
    }

    /// Returns the token that opens a node's metrics and nothing else.
    #[must_use]
    pub fn metrics_token(&self, node: NodeId) -> Token {
        self.with(node, |machine| Token::new(&machine.metrics_token))
            .expect("a derived token is plain")
    }

    /// Gives a node's API this token.
    pub fn set_token(&self, node: NodeId, token: &Token) {
        self.with(node, |machine| token.expose().clone_into(&mut machine.token));
    }

    /// Returns the public identity of a node.
    #[must_use]
    pub fn identity(&self, node: NodeId) -> String {
        self.with(node, |machine| machine.identity.clone())
    }

    /// Returns a node's identity with its private keys, unless its id was chosen.
    #[must_use]
    pub fn secret(&self, node: NodeId) -> Option<Identity> {
        self.with(node, |machine| machine.secret.clone())
    }

    /// Returns a client of a node's service, over in-memory connections.
    #[must_use]
    pub fn service(&self, node: NodeId) -> Service {
        Service::new(self.dial(node), self.token(node))
    }

    /// Returns a way to connect to a node's service in memory, as if from loopback.
    #[must_use]
    pub fn dial(&self, node: NodeId) -> Arc<dyn Dial> {
        Arc::new(InMemory {
            lab: self.clone(),
            node,
        })
    }

    /// Ends a node's process: nothing of it answers until it is started.
    pub fn stop(&self, node: NodeId) {
        self.with(node, |machine| machine.running = false);
    }

    /// Starts a node's process. It knows what is on disk: joined networks with their last configuration, and its
    /// controller's records. Who was online and which credentials were revoked is forgotten.
    pub fn start(&self, node: NodeId) {
        let mut state = self.state();
        let now = state.now;
        let Some(machine) = state.machines.get_mut(&node).filter(|machine| !machine.running) else {
            return;
        };
        machine.running = true;
        machine.next_tick = now;
        for hosted in machine.hosted.values_mut() {
            hosted.seen.clear();
        }
        for (network, joined) in &mut machine.joined {
            joined.restart(*network);
        }
    }

    /// Ends and starts a node's process.
    pub fn restart(&self, node: NodeId) {
        self.stop(node);
        self.start(node);
    }

    /// Sets how a node's service treats whoever connects.
    pub fn set_mood(&self, node: NodeId, mood: Mood) {
        self.with(node, |machine| machine.mood = mood);
    }

    /// Returns whether a network's controller has it that a node is let on, whatever mood its service is in.
    #[must_use]
    pub fn lets_on(&self, network: NetworkId, node: NodeId) -> bool {
        let record = self.past_the_service(Method::GET, network, node, "");
        record.contains("\"authorized\":true")
    }

    /// Has a network's controller let a node on, or put it off, whatever mood its service is in.
    pub fn let_on(&self, network: NetworkId, node: NodeId, on: bool) {
        let body = format!("{{\"authorized\":{on}}}");
        self.past_the_service(Method::POST, network, node, &body);
    }

    /// Does what a request about a member does, and returns the answer.
    fn past_the_service(&self, method: Method, network: NetworkId, node: NodeId, body: &str) -> String {
        let asked = Asked {
            method,
            path: format!("/controller/network/{network}/member/{node}"),
            body: body.to_owned(),
            origin: Origin::Loopback,
        };
        routes::answer(&mut self.state(), network.controller(), &asked).body
    }

    /// Returns how often a node's service was asked for this method and path (`GET /status`) and read it.
    #[must_use]
    pub fn asked(&self, node: NodeId, what: &str) -> usize {
        self.with(node, |machine| {
            machine.asked.get(what).copied().unwrap_or_default()
        })
    }

    /// Takes a node's TUN device away, or gives it back: without one it takes joins and does not do them.
    pub fn set_tun(&self, node: NodeId, present: bool) {
        self.with(node, |machine| machine.tun = present);
    }

    /// Makes a moon whose one root is this node; others may orbit it with the node as seed.
    pub fn found_moon(&self, node: NodeId) {
        let mut state = self.state();
        let (made, seed) = (state.wall(), state.seed());
        let Some(machine) = state.machines.get_mut(&node) else {
            return;
        };
        machine.moon = Some(World {
            identity: machine.identity.clone(),
            endpoint: format!("{}/9993", machine.address()),
            made,
            key: machine::hex(seed, &format!("moon {node}"), 64),
        });
    }

    /// Returns whether a node has joined a network, admitted or not.
    #[must_use]
    pub fn is_on(&self, network: NetworkId, node: NodeId) -> bool {
        self.with(node, |machine| machine.networks().any(|(id, _)| id == network))
    }

    /// Returns whether a packet that `a` sends to `b` on a network would arrive, and one back.
    ///
    /// Both must run, be joined and hold credentials that the other has not seen revoked. That follows the credentials
    /// and not the status: a node that was cut off believes itself `OK` for up to a minute, and one that was
    /// deauthorized right after its controller started is not cut off at all.
    #[must_use]
    pub fn connected(&self, network: NetworkId, a: NodeId, b: NodeId) -> bool {
        let state = self.state();
        let (Some(one), Some(other)) = (state.on(network, a), state.on(network, b)) else {
            return false;
        };
        one.admits(b, other) && other.admits(a, one)
    }

    /// Returns the site for a task that must not keep it alive.
    pub(super) fn watch(&self) -> impl Fn() -> Option<Lab> + Send + 'static {
        let inner = Arc::downgrade(&self.0);
        move || inner.upgrade().map(Lab)
    }

    /// Runs a task that lives as long as the lab.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Finished connections would pile up otherwise.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Locks the state, brought up to the present.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.advance(self.0.started.elapsed());
        state
    }

    /// Looks at, or changes, one node.
    ///
    /// # Panics
    /// When there is no such node: a lab is told about all its nodes first.
    pub(super) fn with<T>(&self, node: NodeId, look: impl FnOnce(&mut Machine) -> T) -> T {
        let mut state = self.state();
        look(
            state
                .machines
                .get_mut(&node)
                .unwrap_or_else(|| panic!("the lab has no node {node}")),
        )
    }
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lab")
            .field(&self.state().machines.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// In-memory connections to one node of a lab.
struct InMemory {
    lab: Lab,
    node: NodeId,
}

impl Dial for InMemory {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            if !self.lab.with(self.node, |machine| machine.running) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(PIPE);
            let (lab, node) = (self.lab.clone(), self.node);
            self.lab
                .spawn(async move { lab.serve(node, Origin::Loopback, far).await });
            Ok(Box::new(near) as Box<dyn Wire>)
        })
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated node {}", self.node)
    }
}
