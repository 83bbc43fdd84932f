//! Reconcilers: each makes one desired document true, again and again.
//!
//! In: the document, by `watch`. Out: a report after each pass. One loop for all of them, each in a task of its own,
//! so that a service that hangs delays nobody else.

pub(crate) mod members;
pub(crate) mod networks;
pub(crate) mod shard;

use std::{future::Future, sync::Arc, time::Duration};

use picket_backoff::Backoff;
use picket_proto::document::{Kind, MOST_PROBLEMS, OutcomeStatus, Problem};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    desired::{Report, Reports, Wanted},
    observed::shown,
};

/// How often a pass is made while nobody calls: the world drifts.
const RECHECK: Duration = Duration::from_secs(30);
/// The first wait after a pass that a service did not let through.
const RETRY: Duration = Duration::from_secs(1);

/// The least time between two passes that something woke, and after one that a service did not let through.
const FLOOR: Duration = Duration::from_secs(1);
const BLOCKED_FLOOR: Duration = Duration::from_secs(5);

/// One thing that is not true yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Refused for what it is; nothing but another document helps.
    Refused(Problem),
    /// A service was in the way; the next pass tries again.
    InTheWay(Problem),
    /// It is true, and there is something to say of how.
    Remark(Problem),
}

/// Tells when another document has come.
pub(crate) struct Newer(watch::Receiver<Option<Arc<Wanted>>>);

impl Newer {
    /// Whether it has.
    pub(crate) fn has_come(&self) -> bool {
        self.0.has_changed().unwrap_or(false)
    }

    /// Returns when it has.
    pub(crate) async fn comes(mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Makes one kind of document true.
pub(crate) trait Reconciler: Send {
    /// Which document.
    fn kind(&self) -> Kind;

    /// Compares and acts once. What is true already is left alone. A step that fails is part of the answer and does
    /// not keep the others from being taken; a service that does not answer ends the pass. What takes long and changes
    /// nothing yet may be broken off when another document comes.
    fn pass(&mut self, wanted: &Wanted, newer: Newer) -> impl Future<Output = Vec<Trouble>> + Send;

    /// Looks, while nothing is wanted.
    fn look(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// How long a pass that is under way when the agent is stopped has to come to its end.
    fn finishes(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns when something has to be done at this very time, however short ago the last pass was.
    fn due(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Returns when somebody asks for [`answer`](Self::answer).
    fn asked(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Looks how things are by what is wanted, changes nothing, and tells whoever asked.
    fn answer(&mut self, _wanted: Option<&Wanted>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Returns when the world has changed and a pass is due before its time.
    fn woken(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Runs passes until `stop`.
pub(crate) async fn run(
    mut reconciler: impl Reconciler,
    mut wanted: watch::Receiver<Option<Arc<Wanted>>>,
    reports: watch::Sender<Reports>,
    stop: CancellationToken,
) {
    let kind = reconciler.kind();
    let mut backoff = Backoff::new(RETRY, RECHECK);
    loop {
        let want = wanted.borrow_and_update().clone();
        let (mut wait, mut floor) = (RECHECK, FLOOR);
        if let Some(want) = want {
            // Not dropped when another document comes: a step half taken is worse than one taken late.
            let newer = Newer(wanted.clone());
            let finishes = reconciler.finishes();
            let stopped = async {
                stop.cancelled().await;
                time::sleep(finishes).await;
            };
            let report = tokio::select! {
                troubles = reconciler.pass(&want, newer) => report(&want, troubles),
                () = stopped => return,
            };
            if report.status != OutcomeStatus::Done && wanted.has_changed().unwrap_or(false) {
                // What is not done of it is wanted no more.
                continue;
            }
            if report.status == OutcomeStatus::Blocked {
                wait = backoff.next_wait();
                floor = BLOCKED_FLOOR;
            } else {
                backoff.reset();
            }
            reports.send_if_modified(|reports| {
                if reports.get(&kind) == Some(&report) {
                    return false;
                }
                for problem in &report.problems {
                    tracing::warn!(%kind, subject = %problem.subject, "{}", problem.message);
                }
                if report.status == OutcomeStatus::Done {
                    tracing::info!(%kind, generation = ?report.stamp.map(|stamp| stamp.generation), "done");
                }
                reports.insert(kind, report);
                true
            });
        } else {
            tokio::select! {
                () = reconciler.look() => {}
                () = stop.cancelled() => return,
            }
        }
        let (again, floor) = (Instant::now() + wait, Instant::now() + floor);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                seen = wanted.changed() => if seen.is_err() { return } else { break },
                () = time::sleep_until(again) => break,
                () = reconciler.due() => break,
                () = woken(&reconciler, floor) => break,
                () = reconciler.asked() => {}
            }
            let want = wanted.borrow().clone();
            tokio::select! {
                () = reconciler.answer(want.as_deref()) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Waits to be woken, and at least until `floor`: what fails and is told of at once must not keep a core busy.
async fn woken(reconciler: &impl Reconciler, floor: Instant) {
    time::sleep_until(floor).await;
    reconciler.woken().await;
}

fn report(wanted: &Wanted, troubles: Vec<Trouble>) -> Report {
    let mut status = OutcomeStatus::Done;
    if !wanted.skipped.is_empty() {
        status = OutcomeStatus::Failed;
    }
    let mut problems = wanted.skipped.clone();
    for trouble in troubles {
        let (worse, problem) = match trouble {
            Trouble::Refused(problem) => (OutcomeStatus::Failed, problem),
            Trouble::InTheWay(problem) => (OutcomeStatus::Blocked, problem),
            Trouble::Remark(problem) => (OutcomeStatus::Done, problem),
        };
        status = status.max(worse);
        problems.push(problem);
    }
    problems.truncate(MOST_PROBLEMS);
    let problems = problems.iter().map(shown).collect();
    Report {
        stamp: wanted.stamp,
        ticket: wanted.ticket,
        status,
        problems,
    }
}

#[cfg(test)]
mod tests {
    use picket_proto::{document::Contents, rules::Members};

    use super::*;

    fn wanted(skipped: usize) -> Wanted {
        Wanted {
            stamp: None,
            ticket: 1,
            contents: Contents::Members(Members::default()),
            skipped: vec![Problem::new("x", "makes no sense"); skipped],
        }
    }

    #[test]
    fn a_service_in_the_way_outweighs_what_was_refused_so_that_it_is_tried_again() {
        let problem = || Problem::new("a", "b");
        let status = |skipped, troubles| report(&wanted(skipped), troubles).status;
        assert_eq!(status(0, vec![]), OutcomeStatus::Done);
        assert_eq!(status(1, vec![]), OutcomeStatus::Failed);
        assert_eq!(
            status(0, vec![Trouble::Refused(problem())]),
            OutcomeStatus::Failed
        );
        assert_eq!(status(0, vec![Trouble::Remark(problem())]), OutcomeStatus::Done);
        let both = vec![Trouble::InTheWay(problem()), Trouble::Refused(problem())];
        assert_eq!(status(0, both), OutcomeStatus::Blocked);
    }

    #[test]
    fn a_report_holds_nothing_that_a_terminal_would_act_on() {
        let problem = Problem::new("lan\u{1b}[2J", "line\nforged");
        let told = report(&wanted(0), vec![Trouble::Refused(problem)])
            .problems
            .remove(0);
        assert_eq!(told.to_string(), "lan\u{fffd}[2J: line\u{fffd}forged");
    }

    #[test]
    fn a_report_names_at_most_as_many_problems_as_an_outcome_carries() {
        assert_eq!(report(&wanted(500), Vec::new()).problems.len(), MOST_PROBLEMS);
    }
}
