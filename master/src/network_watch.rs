//! What controllers tell, as events: what was changed outside Picket, who turned up that nobody registered, what the brake
//! holds back, what cannot be read. And the end of networks that are being deleted.
//!
//! In: that a controller said something, or that something was decided of its networks. Out: events, and the last commit
//! of a network that its controller has forgotten. What was told is remembered by controller, across restarts.

mod news;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::SignedDuration;
use picket_proto::document::Kind;
use picket_zerotier::ids::NetworkId;
use tokio::{
    sync::{Notify, watch},
    time,
};
use tokio_util::sync::CancellationToken;

pub use self::news::{Mark, News, Told, brought, news};
use crate::{
    desk::{Actor, Desk},
    event::Severity,
    networks::Network,
    record::{
        Record as _, key,
        network::{Governor, NetworkMode, NetworkRecord},
    },
    store::{CommitError, Guard},
};

/// How often every controller is looked at, whatever it said: what did not get through then is told by now.
const EVERY: Duration = Duration::from_secs(30);
/// What comes at once is looked at once.
const GATHER: Duration = Duration::from_millis(200);

/// Which controllers are to be looked at.
#[derive(Debug)]
pub struct Watchers {
    due: Mutex<BTreeSet<Governor>>,
    nudge: Notify,
    looked: watch::Sender<u64>,
}

impl Default for Watchers {
    fn default() -> Self {
        Self {
            due: Mutex::default(),
            nudge: Notify::new(),
            looked: watch::Sender::new(0),
        }
    }
}

impl Watchers {
    /// Notes that a controller said something, or that something was decided of its networks.
    pub fn note(&self, governor: Governor) {
        let news = self
            .due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(governor);
        if news {
            self.nudge.notify_one();
        }
    }

    /// Counts up after every look.
    #[must_use]
    pub fn looked(&self) -> watch::Receiver<u64> {
        self.looked.subscribe()
    }

    fn take(&self) -> BTreeSet<Governor> {
        std::mem::take(&mut *self.due.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks at whatever controllers said, until `stop`.
pub async fn tend(desk: Arc<Desk>, stop: CancellationToken) {
    let mut all_at = time::Instant::now();
    loop {
        let all = tokio::select! {
            () = stop.cancelled() => return,
            () = desk.watchers.nudge.notified() => false,
            () = time::sleep_until(all_at) => true,
        };
        let mut governors = if all {
            all_at = time::Instant::now() + EVERY;
            every(&desk)
        } else {
            tokio::select! {
                () = stop.cancelled() => return,
                () = time::sleep(GATHER) => {}
            }
            BTreeSet::new()
        };
        governors.append(&mut desk.watchers.take());
        for governor in governors {
            look(&desk, governor).await;
        }
        desk.watchers.looked.send_modify(|looks| *looks += 1);
    }
}

/// Every controller with a network that is watched.
fn every(desk: &Desk) -> BTreeSet<Governor> {
    let views = desk.views.read();
    views
        .networks
        .networks()
        .map(|network| network.record.controller)
        .collect()
}

async fn look(desk: &Desk, governor: Governor) {
    let Some(status) = desk.controller(governor) else {
        return;
    };
    let watched: Vec<Network> = {
        let views = desk.views.read();
        let networks = views.networks.networks();
        networks
            .filter(|network| network.record.controller == governor)
            .cloned()
            .collect()
    };
    let ids: BTreeSet<NetworkId> = watched.iter().map(|network| network.record.id).collect();
    let mut told = told(desk, governor);
    let news = {
        let (views, now) = (desk.views.read(), desk.now());
        let ahead = ahead(desk, governor);
        let decide = |network, node| views.networks.decide(&views.roster, network, node, now);
        news(&mut told, &status, &ids, decide, |at| brought(at, ahead, now))
    };
    for one in news {
        // What is not told is told at a later look.
        if !may_tell(desk, governor) {
            break;
        }
        desk.say(one.severity, one.kind, &one.subject, &one.message);
        told.mark(one.mark);
    }
    remember(desk, governor, told);
    if status.service.problem().is_some() {
        return;
    }
    for network in watched {
        let there = status.networks.iter().any(|seen| seen.id == network.record.id);
        if network.record.mode == NetworkMode::Deleting && !there && heard_of(desk, governor, &network) {
            bury(desk, network).await;
        }
    }
}

/// Whether a controller's word is younger than the decision to delete: one from before may be of a network that was not
/// made yet.
fn heard_of(desk: &Desk, governor: Governor, network: &Network) -> bool {
    let Governor::Host(host) = governor else {
        return desk.central.has_followed(network.revision);
    };
    let tried = desk.observed.get(host).map(|seen| seen.tried(Kind::Members));
    let outcome = tried.and_then(|tried| tried.outcome);
    outcome.is_some_and(|outcome| {
        outcome.stamp.lineage == desk.lineage() && outcome.stamp.generation >= network.revision.0
    })
}

async fn bury(desk: &Desk, network: Network) {
    let id = network.record.id;
    let whose = desk.whose(network.record.controller);
    let record = NetworkRecord {
        mode: NetworkMode::Gone,
        deleted: true,
        ..network.record
    };
    let audit = Actor::master().does("network.gone", id, &format!("{whose} has it no more"));
    let guards = vec![Guard::At(key::network(id), network.revision)];
    match desk.commit(guards, vec![record.put()], audit).await {
        Ok(_) => {
            let message = format!("it is deleted: {whose} has it no more");
            desk.say(Severity::Notice, "network.deleted", &id.to_string(), &message);
        }
        // Somebody else ended it meanwhile.
        Err(CommitError::Conflict { .. }) => {}
        Err(error) => tracing::warn!(%error, %id, "could not keep that a network is gone; tried again"),
    }
}

fn told(desk: &Desk, governor: Governor) -> Told {
    match governor {
        Governor::Host(host) => desk.observed.of(host).told(),
        Governor::Central(_) => desk.central.told(),
    }
}

fn remember(desk: &Desk, governor: Governor, told: Told) {
    match governor {
        Governor::Host(host) => desk.observed.of(host).remember(told),
        Governor::Central(_) => desk.central.remember(told),
    }
}

/// How far the clock of whoever repairs there is ahead.
fn ahead(desk: &Desk, governor: Governor) -> SignedDuration {
    match governor {
        Governor::Host(host) => desk.observed.of(host).skew(),
        Governor::Central(_) => SignedDuration::ZERO,
    }
}

fn may_tell(desk: &Desk, governor: Governor) -> bool {
    match governor {
        Governor::Host(host) => desk
            .observed
            .of(host)
            .may_tell_of_networks(desk.clock.monotonic()),
        // Nobody can make Central push other events off the list but its owner.
        Governor::Central(_) => true,
    }
}
