//! What the reconciler of members and the reader of the service know of each other: what the controller's section says of
//! repairs, and whether the service answered all the time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use picket_clock::Clock;
use picket_govern::{Standing, State, There, Watched, shown, unseen};
use picket_proto::{
    document::MOST_PROBLEM_TEXT,
    plain,
    repair::Repair,
    status::{ControlledNetwork, ControllerStatus},
};
use picket_zerotier::NetworkId;

/// Nobody asked for so long: the machine slept.
const SLEPT: Duration = Duration::from_secs(120);
/// A network that a pass read so recently, by the boot clock, is not read again to be shown. A pass comes every 30 s.
const RECENT: Duration = Duration::from_secs(40);
/// The most differences of a network that are told, and the longest of them.
const MOST_DIFFERENCES: usize = 64;
const LONGEST_DIFFERENCE: usize = 256;

/// Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Governance {
    clock: Clock,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    shown: Shown,
    /// The networks that the last pass read and did not touch, and when that was, by the boot clock.
    found: (Duration, BTreeMap<NetworkId, Found>),
    /// By the boot clock.
    asked: Option<Duration>,
    watched: Watched,
}

/// What the controller's section says of repairs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) repairs: Vec<Repair>,
    pub(crate) forgotten: u64,
    pub(crate) networks: BTreeMap<NetworkId, ShownNetwork>,
}

/// The same of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShownNetwork {
    held_back: u32,
    frozen: String,
    differences: Vec<String>,
}

/// A network as a pass read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) network: ControlledNetwork,
    /// One sentence for each record that makes no sense.
    pub(crate) skipped: Vec<String>,
}

impl From<There> for Found {
    fn from(there: There) -> Self {
        Self {
            network: shown(&there.network, &there.members),
            skipped: there.members.skipped,
        }
    }
}

impl From<&Standing> for ShownNetwork {
    fn from(standing: &Standing) -> Self {
        let frozen = match &standing.state {
            State::Read => "",
            State::Frozen(sentence) | State::Foreign(sentence) => sentence,
        };
        let differences = standing.differences.iter().take(MOST_DIFFERENCES);
        Self {
            held_back: u32::try_from(standing.held_back).unwrap_or(u32::MAX),
            frozen: plain(frozen, MOST_PROBLEM_TEXT),
            differences: differences
                .map(|difference| plain(difference, LONGEST_DIFFERENCE))
                .collect(),
        }
    }
}

impl Governance {
    pub(crate) fn new(clock: Clock) -> Self {
        let inner = Inner {
            shown: Shown::default(),
            found: Default::default(),
            asked: None,
            watched: Watched::Unwatched,
        };
        Self {
            clock,
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Replaces what is shown, and tells whether that is news.
    pub(crate) fn show(&self, shown: Shown) -> bool {
        let mut inner = self.inner();
        let news = inner.shown != shown;
        inner.shown = shown;
        news
    }

    /// Keeps what a pass read and did not touch, and tells whether that is news.
    pub(crate) fn found(&self, networks: BTreeMap<NetworkId, Found>) -> bool {
        let now = self.clock.boot();
        let mut inner = self.inner();
        let news = inner.found.1 != networks;
        inner.found = (now, networks);
        news
    }

    /// A network as the last pass read it, if that was not long ago.
    pub(crate) fn recent(&self, id: NetworkId) -> Option<Found> {
        let now = self.clock.boot();
        let inner = self.inner();
        let (at, networks) = &inner.found;
        (now.saturating_sub(*at) < RECENT)
            .then(|| networks.get(&id).cloned())
            .flatten()
    }

    /// Puts what is known of repairs into the controller's section. A network that is governed and not there is shown
    /// with what is wrong with it.
    pub(crate) fn fill(&self, status: &mut ControllerStatus) {
        let shown = self.inner().shown.clone();
        for (
            id,
            ShownNetwork {
                held_back,
                frozen,
                differences,
            },
        ) in shown.networks
        {
            match status.networks.iter_mut().find(|network| network.id == id) {
                Some(network) => {
                    network.held_back = held_back;
                    network.differences = differences;
                    if network.frozen.is_empty() {
                        network.frozen = frozen;
                    }
                }
                None if !frozen.is_empty() => status.networks.push(ControlledNetwork {
                    held_back,
                    differences,
                    ..unseen(id, frozen)
                }),
                None => {}
            }
        }
        status.networks.sort_by_key(|network| network.id);
        status.repairs = shown.repairs;
        status.repairs_forgotten = shown.forgotten;
    }

    /// The service answered.
    pub(crate) fn answered(&self) {
        self.asked(Watched::Answered);
    }

    /// The service did not answer.
    pub(crate) fn missed(&self) {
        self.asked(Watched::Missed);
    }

    /// What was seen since this was last asked.
    pub(crate) fn watched(&self) -> Watched {
        std::mem::replace(&mut self.inner().watched, Watched::Answered)
    }

    fn asked(&self, seen: Watched) {
        let now = self.clock.boot();
        let mut inner = self.inner();
        let slept = inner
            .asked
            .is_some_and(|asked| now.saturating_sub(asked) >= SLEPT);
        let seen = if slept { Watched::Slept } else { seen };
        inner.watched = inner.watched.max(seen);
        inner.asked = Some(now);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_worst_that_was_seen_counts_and_is_told_once() {
        let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
        let governance = Governance::new(clock.clone());
        governance.answered();
        assert_eq!(governance.watched(), Watched::Unwatched, "it began only just now");
        governance.answered();
        assert_eq!(governance.watched(), Watched::Answered);
        governance.missed();
        governance.answered();
        assert_eq!(governance.watched(), Watched::Missed);
        time::advance(Duration::from_secs(119)).await;
        governance.answered();
        assert_eq!(governance.watched(), Watched::Answered);
        clock.sleep(Duration::from_secs(120));
        governance.answered();
        assert_eq!(governance.watched(), Watched::Slept);
    }
}
