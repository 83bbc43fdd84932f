//! What ends by itself: activations and requests, and the warnings before that.
//!
//! One task looks every second, and on the moment when something ends. In: the deadlines in the views, the master's time.
//! Out: commits by the master, and events. What is overdue when the master starts ends at its first look. While the
//! machine's clock is not believed activations end by the time since it started, and requests wait.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use picket_zerotier::ids::NetworkId;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    activation::{self, Warning, warnings},
    desk::{Actor, Desk},
    event::Severity,
    networks::deadlines::Pair,
    record::{Record as _, key, network::RequestState},
    request,
    store::{CommitError, Guard, Write},
    views::State,
};

/// How often it is looked when nothing is known to end earlier.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many ends are written at once; the store flushes those that wait together.
const AT_ONCE: usize = 64;
/// How many ends one look takes up.
const MOST_ENDS: usize = 1024;

/// Ends what is due until `stop`.
pub async fn tend(desk: Arc<Desk>, stop: CancellationToken) {
    // What was restored without its latest changes may lack an extension.
    if desk.store.frozen() {
        stop.cancelled().await;
        return;
    }
    let mut warned = None;
    loop {
        let look = look(&desk, &mut warned).await;
        let span = match look {
            Look::Again => continue,
            Look::Next(at) => {
                let left = Duration::try_from(at.duration_since(desk.now())).unwrap_or_default();
                left.min(LOOK_EVERY)
            }
            Look::Nothing | Look::Failed => LOOK_EVERY,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = time::sleep(span) => {}
        }
    }
}

/// When to look again.
enum Look {
    /// At once: there is more to end.
    Again,
    /// When the next activation ends.
    Next(Timestamp),
    /// After a while.
    Nothing,
    /// After a while: something could not be written.
    Failed,
}

/// One look. `warned` is the time up to which warnings were given; none at the first look.
async fn look(desk: &Desk, warned: &mut Option<Timestamp>) -> Look {
    let now = desk.now();
    let believed = desk.time.look().jumped.is_none();
    let (ends, lapses, warnings, next) = {
        let views = desk.views.read();
        let networks = &views.networks;
        let ends: Vec<Pair> = networks.ends().due(now).take(MOST_ENDS).collect();
        let lapses = networks.lapses().due(now).take(MOST_ENDS);
        let lapses: Vec<Pair> = lapses.filter(|_| believed).collect();
        let warnings = warnings(networks.ends(), warned.unwrap_or(Timestamp::MIN), now);
        (ends, lapses, warnings, networks.ends().next(now))
    };
    warn(desk, warnings, warned.is_none(), now);
    *warned = (*warned).max(Some(now));
    let more = ends.len() == MOST_ENDS || lapses.len() == MOST_ENDS;
    let ends = stream::iter(ends.into_iter().map(|pair| end(desk, pair)));
    let ended = ends
        .buffer_unordered(AT_ONCE)
        .fold(true, async |all, written| all && written);
    let lapses = stream::iter(lapses.into_iter().map(|pair| lapse(desk, pair)));
    let lapsed = lapses
        .buffer_unordered(AT_ONCE)
        .fold(true, async |all, written| all && written);
    match (ended.await & lapsed.await, more, next) {
        (false, _, _) => Look::Failed,
        (true, true, _) => Look::Again,
        (true, false, Some(next)) => Look::Next(next),
        (true, false, None) => Look::Nothing,
    }
}

/// Ends an activation that has come to its end. Returns whether that is settled.
async fn end(desk: &Desk, (network, node): Pair) -> bool {
    let (record, revision) = {
        let views = desk.views.read();
        let Some(kept) = views.networks.activation(network, node) else {
            return true;
        };
        let Some(record) = activation::over(&kept.record, desk.now()) else {
            return true;
        };
        (record, kept.revision)
    };
    let guard = Guard::At(key::activation(network, node), revision);
    let message = format!(
        "{}, {:.0}; activated by {}: {}",
        activation::OVER,
        record.until,
        record.by,
        record.reason
    );
    let change = Change {
        what: "member.end",
        why: activation::OVER,
        kind: "member.ended",
        message: is_of(&desk.views.read(), network, record.at).then_some(message),
    };
    write(desk, (network, node), guard, record.put(), change).await
}

/// Marks a request that nobody decided in time. Returns whether that is settled.
async fn lapse(desk: &Desk, (network, node): Pair) -> bool {
    const WHY: &str = "nobody decided in time";
    let (record, revision) = {
        let views = desk.views.read();
        let Some(kept) = views.networks.request(network, node) else {
            return true;
        };
        let Some(record) = request::expired(&kept.record, desk.now()) else {
            return true;
        };
        (record, kept.revision)
    };
    debug_assert_eq!(record.state, RequestState::Expired);
    let guard = Guard::At(key::request(network, node), revision);
    let message = format!("the request of {} expired, {WHY}: {}", record.by, record.reason);
    let change = Change {
        what: "member.expire",
        why: WHY,
        kind: "member.request-expired",
        message: is_of(&desk.views.read(), network, record.at).then_some(message),
    };
    write(desk, (network, node), guard, record.put(), change).await
}

/// What is written and said of an end.
struct Change {
    what: &'static str,
    why: &'static str,
    kind: &'static str,
    /// Nothing where it is no news.
    message: Option<String>,
}

/// Whether what was decided then is of a network as it is watched. What was decided of one that was forgotten or deleted ends
/// without a word, also when somebody watches it again.
fn is_of(state: &State, network: NetworkId, decided: Timestamp) -> bool {
    let kept = state.networks.network(network);
    kept.is_some_and(|kept| kept.record.knows(decided))
}

async fn write(desk: &Desk, (network, node): Pair, guard: Guard, write: Write, change: Change) -> bool {
    let subject = format!("{network}/{node}");
    let audit = Actor::master().does(change.what, &subject, change.why);
    match desk.commit(vec![guard], vec![write], audit).await {
        Ok(_) => {
            if let Some(message) = change.message {
                desk.say(Severity::Notice, change.kind, &subject, &message);
            }
            true
        }
        // Somebody changed it just now; the next look sees how.
        Err(CommitError::Conflict { .. }) => false,
        Err(error) => {
            tracing::error!(%error, subject, "the end of what is over could not be written; tried again");
            false
        }
    }
}

/// Gives warnings. At the first look, those that were given before the master stopped are passed over.
fn warn(desk: &Desk, warnings: BTreeMap<Pair, Warning>, first: bool, now: Timestamp) {
    const KIND: &str = "member.ending";
    for ((network, node), warning) in warnings {
        let subject = format!("{network}/{node}");
        let said = {
            let views = desk.views.read();
            let kept = views.networks.activation(network, node);
            let kept = kept
                .filter(|kept| warning.concerns(&kept.record))
                .filter(|kept| is_of(&views, network, kept.record.at));
            kept.map(|kept| {
                format!(
                    "its activation by {} ends in {}, {:.0}; an approver can move that: `picketctl member extend {node} \
                     --network {network}`",
                    kept.record.by,
                    warning.left(now),
                    warning.until
                )
            })
        };
        let given = || {
            let since = warning.at();
            let same = |event: &crate::event::Event| {
                event.kind == KIND && event.subject == subject && event.time >= since
            };
            !desk.events.list(0, 1, same).is_empty()
        };
        let Some(said) = said else { continue };
        if first && given() {
            continue;
        }
        let severity = if warning.lead == activation::LEADS[0] {
            Severity::Notice
        } else {
            Severity::Warning
        };
        desk.say(severity, KIND, &subject, &said);
    }
}
