//! Waiting for a deployment: what is told meanwhile, and when waiting ends.

use std::time::Duration;

use picket_clock::Instant;
use tokio::time;

use super::{DeploymentDetail, show};
use crate::{
    decky::{self, State},
    desk::Desk,
    fault::Fault,
    print::Named as _,
    progress::Progress,
};

/// How often the master is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// When a host has said what it cannot do and nothing has changed for this long, nothing more is expected. Longer than
/// one beat with its jitter, so that a problem that a host is just getting over does not count.
const STUCK: Duration = Duration::from_secs(40);

/// How waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Every decky runs.
    Running,
    /// These do not, and will not by themselves.
    Failed(Vec<String>),
    /// These do not yet.
    OutOfTime(Duration, Vec<String>),
}

impl End {
    pub(super) fn into_result(self, name: &str) -> Result<(), Fault> {
        let listed = |lines: Vec<String>| {
            lines
                .iter()
                .map(|line| format!("  {line}"))
                .collect::<Vec<_>>()
                .join("\n")
        };
        match self {
            Self::Running => Ok(()),
            Self::Failed(lines) => Err(Fault::Failed(format!(
                "deployment {name} is applied, and not all of it runs; see `picketctl deploy show {name}`:\n{}",
                listed(lines)
            ))),
            Self::OutOfTime(after, lines) => Err(Fault::NotYet(format!(
                "deployment {name} is applied, and after {after:?} not all of it runs; the master goes on by itself, look with `picketctl deploy show {name}`:\n{}",
                listed(lines)
            ))),
        }
    }
}

/// Whether it is over, from what is seen and how long nothing has changed.
fn end(detail: &DeploymentDetail, still_for: Duration) -> Option<End> {
    let moving = detail.deckies.iter().any(|decky| match decky.state() {
        State::Pending | State::Pulling | State::Starting | State::Stopping | State::Unknown => true,
        State::Running | State::Degraded | State::Failed => false,
    });
    let complete = detail.deckies.len() >= usize::try_from(detail.deployment.deckies).unwrap_or(usize::MAX);
    let not_running = not_running(detail);
    if !moving && complete {
        return Some(if not_running.is_empty() {
            End::Running
        } else {
            End::Failed(not_running)
        });
    }
    (!detail.problems.is_empty() && still_for >= STUCK).then_some(End::Failed(not_running))
}

/// The deckies that do not run and what hosts say, a line each.
fn not_running(detail: &DeploymentDetail) -> Vec<String> {
    let deckies = detail
        .deckies
        .iter()
        .filter(|decky| decky.state() != State::Running);
    let lines = deckies.map(|decky| format!("{}: {}", decky.name(), decky.told()));
    lines.chain(detail.problems.iter().cloned()).collect()
}

/// Waits until every decky runs or has failed, and tells how each is doing.
pub(super) async fn until_settled(
    desk: &mut Desk,
    name: &str,
    within: Duration,
) -> Result<(DeploymentDetail, End), Fault> {
    let mut progress = Progress::begin(&desk.clock, &desk.print);
    let mut changed: (Instant, Vec<String>) = (desk.clock.monotonic(), Vec::new());
    let ended = loop {
        let detail = match show(desk, name).await {
            Ok(detail) => detail,
            Err(fault) => break Err(fault),
        };
        let states: Vec<(String, String)> = detail
            .deckies
            .iter()
            .map(|decky| (decky.name(), decky.told()))
            .collect();
        let told: Vec<String> = states
            .iter()
            .map(|(name, state)| format!("{name} {state}"))
            .collect();
        if told != changed.1 {
            changed = (desk.clock.monotonic(), told);
        }
        let still_for = desk.clock.monotonic().duration_since(changed.0);
        if let Some(end) = end(&detail, still_for) {
            break Ok((detail, end));
        }
        if progress.elapsed(&desk.clock) >= within {
            let lines = not_running(&detail);
            break Ok((detail, End::OutOfTime(within, lines)));
        }
        let numbered: Vec<String> = (1..=detail.problems.len())
            .map(|number| format!("problem {number}"))
            .collect();
        let problems = numbered
            .iter()
            .map(String::as_str)
            .zip(detail.problems.iter().map(String::as_str));
        let states = states.iter().map(|(name, state)| (name.as_str(), state.as_str()));
        progress.tell(&desk.clock, &mut desk.print, states.chain(problems));
        time::sleep(ASK_EVERY).await;
    };
    progress.end();
    ended
}

/// Waits until no host reports a decky of a deployment.
pub(super) async fn until_gone(desk: &mut Desk, name: &str, within: Duration) -> Result<(), Fault> {
    let mut progress = Progress::begin(&desk.clock, &desk.print);
    let ended = loop {
        let left = match decky::list(desk, "", name).await {
            Ok(left) if left.is_empty() => break Ok(()),
            Ok(left) => left,
            Err(fault) => break Err(fault),
        };
        let states: Vec<(String, &str)> = left
            .iter()
            .map(|decky| (decky.name(), decky.state().word()))
            .collect();
        if progress.elapsed(&desk.clock) >= within {
            let lines: Vec<String> = states
                .iter()
                .map(|(name, state)| format!("  {name}: {state}"))
                .collect();
            break Err(Fault::NotYet(format!(
                "deployment {name} is removed, and after {within:?} hosts still report deckies of it; they are stopped when their agents can be reached, look with `picketctl decky list --deployment {name}`:\n{}",
                lines.join("\n")
            )));
        }
        progress.tell(
            &desk.clock,
            &mut desk.print,
            states.iter().map(|(name, state)| (name.as_str(), *state)),
        );
        time::sleep(ASK_EVERY).await;
    };
    progress.end();
    ended
}
