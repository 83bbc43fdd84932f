//! How far the kills that hold have come: their members, what was proven of each and when.
//!
//! Looked at again whenever a host says something, a session opens or ends, a record changes, and now and then for what
//! time alone ends. Times are soft state: they are in the checkpoint, and what is missing there is proven again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use picket_zerotier::ids::{NetworkId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::{
    HostStanding, HostTimes, Standing, Times,
    cover::{self, Pair},
    report::Reports,
    say::{self, News, Said},
    sight::{Eyes, name_of},
    weigh, weigh_host,
};
use crate::{
    desk::Desk,
    record::network::{KillRecord, KillScope},
    views::State,
};

/// Looks follow each other no faster while something is waited for; sections of a fleet come in by the hundred.
const BUSY: Duration = Duration::from_millis(200);
/// Nor when all is proven: what is left to see is somebody who undoes it.
const CALM: Duration = Duration::from_secs(2);
/// Somebody looks this often though nothing happens: credentials end by themselves.
const IDLE: Duration = Duration::from_secs(5);

/// How far every kill that holds has come.
#[derive(Debug)]
pub struct Kills {
    inner: Mutex<Inner>,
    /// Counts the looks that found something new.
    changed: watch::Sender<u64>,
    /// Held while a kill is made or lifted: no guard names a kill by its scope. It is not the turn of other decisions, some
    /// of which wait for whoever has the CA's key: no kill waits for that.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Default for Kills {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
            turn: tokio::sync::Mutex::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    kills: BTreeMap<String, Tracked>,
    reports: Reports,
}

#[derive(Debug, Default)]
struct Tracked {
    members: BTreeMap<Pair, Times>,
    host: HostTimes,
    said: Said,
    view: Arc<View>,
}

/// How far one kill has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) members: Vec<Member>,
    /// Of the host itself, when a host is killed.
    pub(crate) host: Option<HostStanding>,
    pub(crate) cautions: Vec<String>,
    /// Nothing more is to be waited for.
    pub(crate) done: bool,
}

/// One member of one network that a kill is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) network: NetworkId,
    pub(crate) node: NodeId,
    /// What it is called.
    pub(crate) name: String,
    pub(crate) standing: Standing,
}

/// What the checkpoint keeps of a kill.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    id: String,
    members: Vec<(NetworkId, NodeId, Times)>,
    #[serde(default)]
    host: HostTimes,
    #[serde(default)]
    said: Said,
}

impl Kills {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whom a kill is about that was just made: those who were on a network before it.
    pub(crate) fn begin(&self, id: &str, members: impl IntoIterator<Item = Pair>) {
        let mut inner = self.inner();
        let tracked = inner.kills.entry(id.to_owned()).or_default();
        for pair in members {
            tracked.members.entry(pair).or_default();
        }
    }

    /// How far a kill had come at the last look; none when it does not hold.
    pub(crate) fn view(&self, id: &str) -> Option<Arc<View>> {
        self.inner()
            .kills
            .get(id)
            .map(|tracked| Arc::clone(&tracked.view))
    }

    /// Wakes at every look that found something new.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// For the checkpoint.
    pub(crate) fn save(&self) -> Vec<Saved> {
        let inner = self.inner();
        let saved = inner.kills.iter().map(|(id, tracked)| Saved {
            id: id.clone(),
            members: tracked
                .members
                .iter()
                .map(|((network, node), times)| (*network, *node, *times))
                .collect(),
            host: tracked.host,
            said: tracked.said,
        });
        saved.collect()
    }

    /// Takes up what the checkpoint kept.
    pub(crate) fn restore(&self, saved: Vec<Saved>) {
        let mut inner = self.inner();
        for one in saved {
            let tracked = Tracked {
                members: one
                    .members
                    .into_iter()
                    .map(|(network, node, times)| ((network, node), times))
                    .collect(),
                host: one.host,
                said: one.said,
                view: Arc::default(),
            };
            inner.kills.insert(one.id, tracked);
        }
    }
}

/// Says what a kill of this scope would be about, and how far it could be proven as things stand. Changes nothing.
pub(crate) fn drill(desk: &Desk, scope: &KillScope) -> (BTreeSet<Pair>, View) {
    let mut inner = desk.kills.inner();
    inner.reports.refresh(desk);
    let state = desk.views.read();
    let now = desk.now();
    let members = cover::members(&state, &inner.reports, scope, false, now);
    let mut tracked = Tracked::default();
    tracked
        .members
        .extend(members.iter().map(|pair| (*pair, Times::default())));
    let mut eyes = Eyes::new(&state, &inner.reports, scope, false, now);
    let view = tracked.look(&mut eyes);
    (members, view)
}

/// Looks at every kill that holds. Returns whether all of them are done.
pub(crate) fn look(desk: &Desk) -> bool {
    let now = desk.now();
    let (mut news, mut all_done, mut changed) = (Vec::new(), true, false);
    {
        let mut inner = desk.kills.inner();
        let holding = holding(&desk.views.read());
        if holding.is_empty() && inner.kills.is_empty() {
            return true;
        }
        inner.reports.refresh(desk);
        let Inner { kills, reports } = &mut *inner;
        let state = desk.views.read();
        let before = kills.len();
        kills.retain(|id, _| holding.iter().any(|kill| kill.id == *id));
        changed |= kills.len() < before;
        for kill in &holding {
            let tracked = kills.entry(kill.id.clone()).or_insert_with(|| {
                // After a crash: those who were on by what was decided then.
                let members = cover::members(&state, reports, &kill.scope, kill.banned, kill.at);
                Tracked {
                    members: members.into_iter().map(|pair| (pair, Times::default())).collect(),
                    ..Tracked::default()
                }
            });
            for pair in cover::seen(&state, reports, &kill.scope) {
                tracked.members.entry(pair).or_default();
            }
            let before = tracked.members.clone();
            let view = tracked.look(&mut Eyes::new(&state, reports, &kill.scope, true, now));
            news.extend(say::news(
                kill,
                &mut tracked.said,
                (&before, &tracked.members),
                &view,
                now,
            ));
            all_done &= view.done;
            if view != *tracked.view {
                changed = true;
                tracked.view = Arc::new(view);
            }
        }
    }
    for News {
        severity,
        kind,
        subject,
        message,
    } in news
    {
        desk.say(severity, kind, &subject, &message);
    }
    if changed {
        desk.kills.changed.send_modify(|looks| *looks += 1);
    }
    all_done
}

fn holding(state: &State) -> Vec<KillRecord> {
    let kills = state.networks.kills();
    let holding = kills.filter(|kill| kill.record.lifted.is_none());
    holding.map(|kill| kill.record.clone()).collect()
}

impl Tracked {
    /// Takes in how every member stands, and says how far the kill has come.
    fn look(&mut self, eyes: &mut Eyes<'_>) -> View {
        let now = eyes.now;
        let mut members = Vec::with_capacity(self.members.len());
        let mut networks = BTreeSet::new();
        for (pair, times) in &mut self.members {
            let (network, node) = *pair;
            let sight = eyes.look(*pair);
            let (after, standing) = weigh(*times, &sight, now);
            *times = after;
            networks.insert(network);
            members.push(Member {
                network,
                node,
                name: name_of(eyes.state, node),
                standing,
            });
        }
        let mut cautions = self.own_paths(&members);
        let mut host = None;
        if let KillScope::Host(id) = eyes.scope
            && let Some(record) = eyes.state.roster.host(*id).map(|host| &host.record)
        {
            let name = record.name.as_str();
            let (times, standing) = weigh_host(self.host, eyes.host(record), name, now);
            self.host = times;
            cautions.extend(standing.cautions.iter().cloned());
            let governed = eyes.state.networks.networks();
            let governed = governed.filter(|network| network.record.controller.host() == Some(*id));
            cautions.extend(governed.map(|network| {
                let network = network.record.id;
                format!(
                    "{name} runs the controller of network {network}: while it is banned, nobody is admitted to that \
                     network or taken off it"
                )
            }));
            host = Some(standing);
        }
        cautions.extend(eyes.cautions(networks));
        let gone = host.as_ref().is_none_or(HostStanding::is_done);
        View {
            done: gone && members.iter().all(|member| member.standing.done),
            members,
            host,
            cautions,
        }
    }

    /// One sentence for each host whose path to this master is cut.
    fn own_paths(&self, members: &[Member]) -> Vec<String> {
        let cut = members.iter().filter(|member| {
            let times = self.members.get(&(member.network, member.node));
            times.is_some_and(|times| times.own_path)
        });
        let sentence = |member: &Member| {
            format!(
                "the path of {} to this master goes over network {}: this cuts our own path, and what it does then is seen \
                 when it finds another",
                member.name, member.network
            )
        };
        cut.map(sentence).collect()
    }
}

/// Looks whenever something happened, until `stop`.
pub(crate) async fn follow(desk: Arc<Desk>, stop: CancellationToken) {
    let mut news = desk.news.subscribe();
    loop {
        let pause = if look(&desk) { CALM } else { BUSY };
        if slept(pause, &stop).await {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            seen = news.changed() => if seen.is_err() { return },
            () = time::sleep(IDLE) => {}
        }
        news.mark_unchanged();
    }
}

async fn slept(span: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = time::sleep(span) => false,
    }
}

/// For tests of what is decided here: how a kill stands by what these hosts said.
#[cfg(test)]
pub(crate) fn standing(state: &State, reports: &Reports, kill: &KillRecord, now: jiff::Timestamp) -> View {
    let members = cover::members(state, reports, &kill.scope, kill.banned, kill.at);
    let mut tracked = Tracked::default();
    tracked
        .members
        .extend(members.into_iter().map(|pair| (pair, Times::default())));
    tracked.look(&mut Eyes::new(state, reports, &kill.scope, true, now))
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
