//! Makes the shard true through Docker, and says how the deckies are.
//!
//! The decisions are in [`deckies`](crate::deckies). Here a pass is called for when Docker says that something of ours
//! changed, and what is seen goes into the beat: after each pass, and while one runs, so that a long pull shows.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use picket_proto::{
    document::{Contents, Kind, OutcomeStatus, Problem},
    shard::Shard,
};
use tokio::{
    sync::{Notify, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{Newer, Reconciler, Trouble};
use crate::{
    deckies::{
        Owner,
        changes::Changes,
        engine::Engine,
        pass::Deckies,
        status::{Progress, status},
    },
    desired::Wanted,
    machine::own_addresses,
    observed::Observed,
};

/// The least time between two looks at a pass that runs.
const COALESCE: Duration = Duration::from_secs(1);

/// Makes the shard document true.
pub(crate) struct ShardReconciler {
    pub(crate) deckies: Deckies,
    pub(crate) observed: Observed,
    pub(crate) woken: Arc<Notify>,
}

impl Reconciler for ShardReconciler {
    fn kind(&self) -> Kind {
        Kind::Shard
    }

    async fn pass(&mut self, wanted: &Wanted, newer: Newer) -> Vec<Trouble> {
        let Contents::Shard(want) = &wanted.contents else {
            return Vec::new();
        };
        self.deckies.reserve(own_addresses());
        let report = self.deckies.pass_unless(want, newer.comes()).await;
        self.observed.put_deckies(&report.deckies);
        self.observed.complain("deckies", report.skipped);
        // A report that is blocked is tried again whatever else it says.
        let trouble = |problem| match report.outcome {
            OutcomeStatus::Blocked => Trouble::InTheWay(problem),
            OutcomeStatus::Failed | OutcomeStatus::Done => Trouble::Refused(problem),
        };
        report.problems.into_iter().map(trouble).collect()
    }

    async fn look(&mut self) {
        let seen = self.deckies.observe(&Shard::default()).await;
        self.observed.put_deckies(&seen);
    }

    async fn woken(&self) {
        self.woken.notified().await;
    }
}

/// Refuses deckies on a machine where Docker is switched off.
pub(crate) struct NoDocker;

impl Reconciler for NoDocker {
    fn kind(&self) -> Kind {
        Kind::Shard
    }

    async fn pass(&mut self, wanted: &Wanted, _newer: Newer) -> Vec<Trouble> {
        let Contents::Shard(want) = &wanted.contents else {
            return Vec::new();
        };
        let off = |name| {
            Trouble::Refused(Problem::new(
                name,
                "Docker is switched off here (docker.enabled in agent.toml)",
            ))
        };
        want.deckies.keys().map(off).collect()
    }
}

/// Calls for a pass whenever Docker says that something of ours changed.
pub(crate) async fn listen(mut changes: Changes, woken: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = changes.changed() => woken.notify_one(),
        }
    }
}

/// Says how deckies are while a pass is under way.
pub(crate) struct Follower {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) owner: Owner,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) wanted: watch::Receiver<Option<Arc<Wanted>>>,
    pub(crate) observed: Observed,
}

impl Follower {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                seen = self.progress.changed() => if seen.is_err() {
                    // The reconciler is gone, and with it the daemon.
                    stop.cancelled().await;
                    return;
                },
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = time::sleep(COALESCE) => {}
            }
        }
    }

    async fn look(&mut self) {
        let progress = self.progress.borrow_and_update().clone();
        let wanted = self.wanted.borrow().clone();
        let Some(Contents::Shard(want)) = wanted.as_ref().map(|wanted| &wanted.contents) else {
            return;
        };
        // The end of a pass has a report of its own, which knows what went wrong.
        if progress.is_empty() {
            return;
        }
        if let Ok(have) = self.engine.inventory(&self.owner).await
            && !self.progress.borrow().is_empty()
        {
            let seen = status(want, &have, &self.owner, &BTreeMap::new(), &progress);
            self.observed.put_deckies(&seen);
        }
    }
}
