//! Waiting until a kill is true on the wire: what is told meanwhile, and when waiting ends.

use std::time::Duration;

use picket_clock::Instant;
use picket_proto::wire::admin as wire;

use super::view::Kill;
use crate::{
    desk::{Desk, Heard},
    fault::{About, Fault},
    progress::Progress,
};

/// When nothing that is waited for is left, and nothing has changed for this long, nothing more is expected soon.
const STILL: Duration = Duration::from_secs(5);

/// How long to listen, from how far the kill is and how long it stood still; nothing when waiting is over.
fn listen(kill: &Kill, still_for: Duration, left: Duration) -> Option<Duration> {
    if kill.done || kill.lifted_by().is_some() || left.is_zero() {
        return None;
    }
    if kill.is_moving() {
        return Some(left);
    }
    STILL
        .checked_sub(still_for)
        .filter(|rest| !rest.is_zero())
        .map(|rest| rest.min(left))
}

/// Follows a kill until it is done, until nothing more is expected soon, or until time is over. Returns it as it is then,
/// and what of it is not confirmed.
pub(super) async fn until_proven(
    desk: &mut Desk,
    mut kill: Kill,
    within: Duration,
) -> Result<(Kill, Vec<String>), Fault> {
    let see = kill.see();
    // The kill is recorded: whatever breaks from here on only hides how it goes.
    let about = About::reading(
        format!("follow the kill, which holds: `{see}` shows it"),
        see.clone(),
    );
    let mut kills = desk.kills().await?;
    let watching = kills.watch_kill(wire::WatchKillRequest {
        id: kill.id().to_owned(),
    });
    let mut stream = desk.call(&about, watching).await?;
    let mut progress = Progress::begin(&desk.clock, &desk.print);
    let mut changed: Instant = desk.clock.monotonic();
    let mut told = kill.states();
    let ended = loop {
        let states = kill.states();
        if states != told {
            changed = desk.clock.monotonic();
        }
        told = states;
        let each = told.iter().map(|(name, state)| (name.as_str(), state.as_str()));
        progress.tell(&desk.clock, &mut desk.print, each);
        let still_for = desk.clock.monotonic().duration_since(changed);
        let left = within.saturating_sub(progress.elapsed(&desk.clock));
        let Some(listen) = listen(&kill, still_for, left) else {
            break Ok(());
        };
        match desk.next_within(&about, &mut stream, listen).await {
            Ok(Heard::Message(message)) => kill = Kill::from(message.kill.unwrap_or_default()),
            Ok(Heard::Nothing) => {}
            Ok(Heard::End) => {
                break Err(Fault::Ended(format!(
                    "the master stopped telling how the kill goes; it holds, look with `{see}`"
                )));
            }
            Err(fault) => break Err(fault),
        }
    };
    progress.end();
    ended?;
    let open = kill.open(desk.clock.now());
    Ok((kill, open))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(states: &[wire::ProofState], done: bool) -> Kill {
        let member = |state: &wire::ProofState| wire::KilledMember {
            deauthorized: Some(wire::Proof {
                state: (*state).into(),
                at: None,
            }),
            ..wire::KilledMember::default()
        };
        Kill::from(wire::Kill {
            members: states.iter().map(member).collect(),
            done,
            ..wire::Kill::default()
        })
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_waited_for_is_listened_for_until_time_is_over() {
        use wire::ProofState::{Unreachable, Waiting};
        let moving = kill(&[Waiting, Unreachable], false);
        assert_eq!(listen(&moving, MINUTE, MINUTE), Some(MINUTE));
        assert_eq!(listen(&moving, MINUTE, Duration::ZERO), None);
    }

    #[test]
    fn what_cannot_be_had_is_not_waited_for_longer_than_a_moment() {
        use wire::ProofState::{Confirmed, Unreachable};
        let stuck = kill(&[Confirmed, Unreachable], false);
        assert_eq!(listen(&stuck, Duration::ZERO, MINUTE), Some(STILL));
        assert_eq!(listen(&stuck, STILL, MINUTE), None);
        assert_eq!(listen(&kill(&[Confirmed], true), Duration::ZERO, MINUTE), None);
    }
}
