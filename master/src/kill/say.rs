//! What is said of a kill as it goes on: each proof, that it is done, or what is missing after a while.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Proof, Times, counted,
    cover::Pair,
    progress::{Member, View},
};
use crate::{
    event::Severity,
    record::network::{KillRecord, KillScope},
};

/// When a kill that is not done is said to be incomplete: a beat and a half, and the service's own time.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most proofs that are told of one look; more are told as one.
const MOST_AT_ONCE: usize = 32;
/// The most that are told of one kill: a host that joins and leaves for ever fills no list.
const MOST_TOLD: u32 = 512;
/// How many members that are missing are named.
const MOST_NAMED: usize = 3;

/// What was said of a kill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    #[serde(default)]
    done: bool,
    #[serde(default)]
    incomplete: bool,
    /// How many proofs were told.
    #[serde(default)]
    told: u32,
}

/// Something to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) severity: Severity,
    pub(crate) kind: &'static str,
    pub(crate) subject: String,
    pub(crate) message: String,
}

/// What a look found that is to be said.
pub(crate) fn news(
    kill: &KillRecord,
    said: &mut Said,
    (before, after): (&BTreeMap<Pair, Times>, &BTreeMap<Pair, Times>),
    view: &View,
    now: Timestamp,
) -> Vec<News> {
    let mut news = proofs(kill, said, (before, after), view);
    let say = |severity, kind, message| News {
        severity,
        kind,
        subject: kill.id.clone(),
        message,
    };
    if view.done {
        if !said.done {
            let count = counted(view.members.len(), "member is", "members are");
            let message = format!("{count} cut off: nothing more is to be waited for");
            news.push(say(Severity::Info, "kill.done", message));
        }
        (said.done, said.incomplete) = (true, false);
        return news;
    }
    let undone = std::mem::take(&mut said.done);
    let late = kill.at.saturating_add(PATIENCE).is_ok_and(|late| late <= now);
    if (undone || late) && !said.incomplete {
        said.incomplete = true;
        news.push(say(Severity::Warning, "kill.incomplete", missing(view)));
    }
    news
}

fn proofs(
    kill: &KillRecord,
    said: &mut Said,
    (before, after): (&BTreeMap<Pair, Times>, &BTreeMap<Pair, Times>),
    view: &View,
) -> Vec<News> {
    type Of = fn(&Times) -> Option<Timestamp>;
    let kinds: [(&str, Of); 3] = [
        ("is deauthorized", |times| times.deauthorized),
        ("left", |times| times.left),
        ("is silent", |times| times.silent),
    ];
    let mut found = Vec::new();
    for member in &view.members {
        let pair = (member.network, member.node);
        let Some(now) = after.get(&pair) else { continue };
        let then = before.get(&pair).copied().unwrap_or_default();
        for (what, of) in kinds {
            if of(now).is_some() && of(now) != of(&then) {
                found.push((member, what));
            }
        }
    }
    let left = MOST_TOLD.saturating_sub(said.told);
    if found.is_empty() || left == 0 {
        return Vec::new();
    }
    let news = |subject, message| News {
        severity: Severity::Info,
        kind: "kill.member",
        subject,
        message,
    };
    if found.len() > MOST_AT_ONCE {
        said.told += 1;
        let message = format!("{} more proofs that members are cut off", found.len());
        return vec![news(kill.id.clone(), message)];
    }
    let told: Vec<_> = found
        .into_iter()
        .take(usize::try_from(left).unwrap_or(usize::MAX))
        .map(|(member, what)| {
            let subject = format!("{}/{}", member.network, member.node);
            news(subject, format!("{} {what} (kill {})", called(member), kill.id))
        })
        .collect();
    said.told = said
        .told
        .saturating_add(u32::try_from(told.len()).unwrap_or(u32::MAX));
    told
}

/// The name of a member, or its node id.
fn called(member: &Member) -> String {
    if member.name.is_empty() {
        member.node.to_string()
    } else {
        member.name.clone()
    }
}

fn missing(view: &View) -> String {
    let open: Vec<_> = view
        .members
        .iter()
        .filter(|member| !member.standing.done)
        .collect();
    let named = open.iter().take(MOST_NAMED).map(|member| {
        let standing = &member.standing;
        let why = match (
            &standing.problem,
            standing.deauthorized,
            standing.unconfirmed_until,
        ) {
            (problem, _, _) if !problem.is_empty() => problem.clone(),
            (_, Proof::Confirmed(_), Some(until)) => {
                format!("deauthorized; nothing shows that it is silent, unconfirmed until {until:.0}")
            }
            (_, Proof::Confirmed(_), None) => "its agent has not left yet".to_owned(),
            (_, Proof::None | Proof::Waiting | Proof::Unreachable, _) => {
                "its controller has not confirmed it yet".to_owned()
            }
        };
        format!("{} on {}: {why}", called(member), member.network)
    });
    let named: Vec<_> = named.collect();
    let more = open.len().saturating_sub(named.len());
    let more = if more == 0 {
        String::new()
    } else {
        format!("; and {more} more")
    };
    let mut missing = Vec::new();
    if let Some(host) = &view.host {
        match host.banned {
            Proof::Waiting | Proof::Unreachable => {
                missing.push("the session of the host is not cut yet".to_owned());
            }
            Proof::None | Proof::Confirmed(_) => {}
        }
        match host.shard_removed {
            Proof::Waiting => missing.push("the deckies of the host are not gone yet".to_owned()),
            Proof::Unreachable => {
                missing.push("nothing shows that the deckies of the host are gone".to_owned());
            }
            Proof::None | Proof::Confirmed(_) => {}
        }
    }
    if !open.is_empty() {
        missing.push(format!(
            "{} of {} not proven to be cut off: {}{more}",
            open.len(),
            counted(view.members.len(), "member is", "members are"),
            named.join("; ")
        ));
    }
    missing.join("; ")
}

/// What a kill is of, in words.
pub(crate) fn scope_word(scope: &KillScope) -> &'static str {
    match scope {
        KillScope::Node(_) => "node",
        KillScope::Host(_) => "host",
        KillScope::Network(_) => "network",
        KillScope::Owner(_) => "owner",
        KillScope::All => "all",
    }
}
