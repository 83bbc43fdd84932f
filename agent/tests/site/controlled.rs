//! A worker that runs a controller, and what lies between the two.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use picket_proto::{
    document::{Contents, Kind, OutcomeStatus},
    repair::Repair,
    rules::{Governed, Members, Rule},
    status::ControlledNetwork,
};
use picket_zerotier::{
    NetworkId, NodeId,
    controller::{Controller as _, LocalController, NewNetwork},
    dial::{Dial, Dialing, Wire},
    node::Settings,
    service::Service,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, copy_bidirectional, split};

use super::{Site, Worker, until};

/// A worker that runs a controller with one network, and what is wanted of it.
pub struct Story {
    pub site: Site,
    pub worker: Worker,
    pub controller: LocalController,
    pub network: NetworkId,
    pub want: Members,
    pub generation: u64,
    pub wire: Tampering,
}

impl Story {
    pub async fn new() -> Self {
        let site = Site::new();
        let mut worker = site.machine("edge-07");
        // A wall clock of its own.
        worker.clock = site.clock.skewed(0);
        let wire = Tampering {
            inner: site.lab.dial(worker.node),
            mood: Arc::default(),
        };
        worker.zerotier = Service::new(Arc::new(wire.clone()), site.lab.token(worker.node));
        worker.enroll().await.unwrap();
        worker.start();
        let controller = site.lab.service(worker.node).controller(worker.node);
        let network = controller
            .create_network(&NewNetwork::default())
            .await
            .unwrap()
            .id;
        until("the first beat", async || {
            site.master.log().beats.first().map(drop)
        })
        .await;
        Self {
            want: Members {
                networks: [(network, Governed::default())].into(),
                ..Members::default()
            },
            site,
            worker,
            controller,
            network,
            generation: 0,
            wire,
        }
    }

    pub fn rule(&mut self, node: NodeId, rule: Rule) {
        self.want.rules.insert((self.network, node), rule);
    }

    pub fn governed(&mut self) -> &mut Governed {
        self.want.networks.get_mut(&self.network).unwrap()
    }

    /// Lets so many nodes on that do not run.
    pub fn let_on(&mut self, count: u64) -> Vec<NodeId> {
        let nodes: Vec<_> = (1..=count).map(|number| NodeId::new(number).unwrap()).collect();
        for node in &nodes {
            self.rule(*node, Rule::plain(true));
        }
        nodes
    }

    /// A running node that asks to be on the network.
    pub async fn guest(&self) -> NodeId {
        let node = self.site.lab.grow();
        let joined = self.site.lab.service(node).node();
        joined.join(self.network, Settings::default()).await.unwrap();
        node
    }

    /// Sends the document.
    pub async fn send(&mut self) {
        self.generation += 1;
        let contents = Contents::Members(self.want.clone());
        self.site.master.want(contents, self.generation).await;
    }

    /// Sends the document and waits until it is done.
    pub async fn done(&mut self) {
        self.send().await;
        self.until_outcome(OutcomeStatus::Done).await;
    }

    pub async fn until_outcome(&self, status: OutcomeStatus) {
        let generation = self.generation;
        until(&format!("members {generation} to be {status}"), async || {
            let outcomes = self.site.master.log().outcomes;
            let last = outcomes
                .into_iter()
                .rfind(|outcome| outcome.kind == Kind::Members)?;
            (last.stamp.generation == generation && last.status == status).then_some(())
        })
        .await;
    }

    pub async fn is_on(&self, node: NodeId) -> bool {
        let member = self.controller.member(self.network, node).await;
        member.is_ok_and(|member| member.authorized)
    }

    pub async fn until_on(&self, node: NodeId, on: bool) {
        until(&format!("{node} to be on, or off"), async || {
            (self.is_on(node).await == on).then_some(())
        })
        .await;
    }

    /// Waits for a repair to be reported.
    pub async fn repair(&self, pick: impl Fn(&Repair) -> bool) -> Repair {
        until("a repair", async || {
            let repairs = self.site.master.controller()?.repairs;
            repairs.into_iter().rfind(&pick)
        })
        .await
    }

    pub async fn until_shown(&self, network: NetworkId, shown: impl Fn(&ControlledNetwork) -> bool) {
        until("the controller's section to show it", async || {
            let networks = self.site.master.controller()?.networks;
            networks
                .iter()
                .any(|seen| seen.id == network && shown(seen))
                .then_some(())
        })
        .await;
    }

    pub fn in_seconds(&self, seconds: i64) -> Timestamp {
        self.site.clock.now() + SignedDuration::from_secs(seconds)
    }
}

pub fn until_then(until: Timestamp) -> Rule {
    Rule {
        until: Some(until),
        ..Rule::plain(true)
    }
}

/// What lies between the agent and its service, and what it does to requests.
#[derive(Clone)]
pub struct Tampering {
    inner: Arc<dyn Dial>,
    mood: Arc<Mutex<Mood>>,
}

#[derive(Default, Clone)]
pub struct Mood {
    /// Paths with this are answered with nonsense.
    pub nonsense: Option<String>,
    /// Changes are passed on, and their answers lost.
    pub loses_answers: bool,
}

impl Tampering {
    pub fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

impl Dial for Tampering {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let inner = self.inner.dial().await?;
            let (near, far) = tokio::io::duplex(64 * 1024);
            let mood = self.mood.lock().unwrap().clone();
            tokio::task::spawn(tamper(far, inner, mood));
            Ok(Box::new(near) as Box<dyn Wire>)
        })
    }
}

async fn tamper(mut far: DuplexStream, mut inner: Box<dyn Wire>, mood: Mood) {
    let mut head = Vec::new();
    while !head.windows(2).any(|two| two == b"\r\n") {
        match far.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let line = String::from_utf8_lossy(&head).into_owned();
    if mood.nonsense.is_some_and(|path| line.contains(&path)) {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n\"perhaps\"";
        drop(far.write_all(answer).await);
        return;
    }
    if inner.write_all(&head).await.is_err() {
        return;
    }
    if mood.loses_answers && line.starts_with("POST") {
        let (mut from, _keep) = split(far);
        let (mut answer, mut to) = split(inner);
        let mut lost = Vec::new();
        tokio::select! {
            _ = answer.read_to_end(&mut lost) => {}
            _ = copy(&mut from, &mut to) => {}
        }
        return;
    }
    drop(copy_bidirectional(&mut far, &mut inner).await);
}

impl fmt::Debug for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}
