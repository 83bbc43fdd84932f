//! One pass over the governed networks of a controller: reads, plans, acts, remembers.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    error,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use picket_proto::{repair::Why, rules::Members};
use picket_zerotier::{
    controller::{Controller, MemberChange},
    ids::{NetworkId, NodeId},
    service::{self, Error},
};
use tokio::time;

use crate::{
    Memory,
    again::{self, BETWEEN},
    plan::{Act, Have, Plan, Rank, Standing, State, Step, There, plan},
};

/// Networks that are read at once: their lists are long.
const READ_AT_ONCE: usize = 2;
/// Changes in one pass. A kill that comes meanwhile waits for no more of them.
const MOST_STEPS: usize = 1000;
/// Members that are changed in one go. What is more urgent, and a controller that stops answering, are noticed in between.
const BATCH: usize = 40;
/// Changes that a pass makes before it makes way, so that it gets on however often something is more urgent.
const FEWEST_STEPS: usize = BATCH;
/// Networks whose changes may be waited for in vain. When there is another one, nobody answers.
const MOST_SLOW: usize = 1;
/// The most troubles that are told of one pass.
const MOST_TROUBLES: usize = 64;

/// The time of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the clock that the rules go by.
    pub now: Timestamp,
    /// By the clock of whoever makes the pass.
    pub here: Timestamp,
}

/// How a pass went.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How each governed network is.
    pub networks: BTreeMap<NetworkId, Standing>,
    /// What is not as it is to be, and why.
    pub troubles: Vec<Trouble>,
    /// How many steps were taken.
    pub taken: usize,
    /// How many authorizations came to their end.
    pub ended: usize,
    /// Whether something is left to do.
    pub left: Left,
    /// The networks that were read and not touched: they need not be read again to be shown.
    pub untouched: BTreeMap<NetworkId, There>,
}

/// Whether something is left to do after a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Left {
    /// Nothing.
    #[default]
    Nothing,
    /// More than is done in one pass; the next one goes on.
    More,
    /// Something could not be done; the next one tries again.
    Failed,
    /// Somebody who has to go could not be cut off. That is tried again soon.
    Departures,
}

/// Something that is not as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The network, or the network and the node.
    pub subject: String,
    /// What is wrong, and what to do.
    pub sentence: String,
    /// Whether trying again may help.
    pub lasts: Lasts,
}

/// How long a trouble lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// Until something else is wanted.
    UntilChanged,
    /// Until whatever was in the way is gone.
    ForNow,
}

/// Makes the controller follow the rules, once, and remembers what was found and done.
///
/// What is in order costs one reading of each network and its list of members. A network that fails freezes by itself; a
/// service that cannot be asked anything ends the pass.
pub async fn pass(
    controller: &impl Controller,
    want: &Members,
    memory: &mut Memory,
    moment: Moment,
) -> Report {
    pass_until(controller, want, memory, moment, &|| false).await
}

/// A pass that makes way: when there is a `hurry`, because something was decided meanwhile or is due, whoever has to go is
/// still cut off, and the rest is left for a pass that knows of it.
pub async fn pass_until(
    controller: &impl Controller,
    want: &Members,
    memory: &mut Memory,
    moment: Moment,
    hurry: &(dyn Fn() -> bool + Sync),
) -> Report {
    let have = observe(controller, want).await;
    let plan = plan(want, &have, memory, moment.now);
    let untouched = untouched(have, &plan);
    memory.settle(want, &plan);
    let mut acting = Acting {
        controller,
        memory,
        moment,
        failed: BTreeSet::new(),
        slow: BTreeSet::new(),
        waits: BTreeSet::new(),
        away: Away::Here,
        hurry,
        begun: 0,
        report: Report {
            networks: plan.networks.clone(),
            untouched,
            ..Report::default()
        },
    };
    acting.complain(&plan);
    acting.act(&plan.steps).await;
    let Acting {
        waits, mut report, ..
    } = acting;
    if plan.seen.values().any(|seen| !seen.reopen.is_empty()) {
        report.left = report.left.max(Left::More);
    }
    memory.use_releases(want, &plan, &waits);
    report
}

/// What looking at the governed networks showed.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// How each governed network is.
    pub networks: BTreeMap<NetworkId, Standing>,
    /// Those that could be read, as they were.
    pub there: BTreeMap<NetworkId, There>,
}

/// Reads the governed networks and says how they are. Nothing is changed by it, and nothing remembered.
pub async fn look(controller: &impl Controller, want: &Members, memory: &Memory, now: Timestamp) -> Look {
    let have = observe(controller, want).await;
    let networks = plan(want, &have, memory, now).networks;
    let there = have.into_iter().filter_map(|(id, have)| match have {
        Have::There(there) => Some((id, *there)),
        Have::Missing | Have::Unreadable(_) | Have::Foreign(_) => None,
    });
    Look {
        networks,
        there: there.collect(),
    }
}

/// The networks that stay as they were read; those that are changed now are dropped before that.
fn untouched(have: BTreeMap<NetworkId, Have>, plan: &Plan) -> BTreeMap<NetworkId, There> {
    let touched: BTreeSet<_> = plan.steps.iter().map(|step| step.network).collect();
    have.into_iter()
        .filter_map(|(id, have)| match have {
            Have::There(there) if !touched.contains(&id) => Some((id, *there)),
            Have::There(_) | Have::Missing | Have::Unreadable(_) | Have::Foreign(_) => None,
        })
        .collect()
}

/// Reads every governed network.
async fn observe(controller: &impl Controller, want: &Members) -> BTreeMap<NetworkId, Have> {
    let mut queue: VecDeque<_> = want.networks.keys().copied().collect();
    let mut have = BTreeMap::new();
    let mut reading = FuturesUnordered::new();
    let mut away: Option<String> = None;
    loop {
        while reading.len() < READ_AT_ONCE
            && away.is_none()
            && let Some(network) = queue.pop_front()
        {
            reading.push(async move { (network, read(controller, network).await) });
        }
        let Some((network, read)) = reading.next().await else {
            break;
        };
        let read = read.unwrap_or_else(|error| {
            let sentence = sentence(&error);
            if is_away(&error) {
                away = Some(sentence.clone());
            }
            if matches!(error, Error::Foreign { .. }) {
                Have::Foreign(sentence)
            } else {
                Have::Unreadable(sentence)
            }
        });
        have.insert(network, read);
    }
    // Nobody answers: the others would be waited for just as long.
    for network in queue {
        have.insert(network, Have::Unreadable(away.clone().unwrap_or_default()));
    }
    have
}

async fn read(controller: &impl Controller, id: NetworkId) -> Result<Have, Error> {
    let network = match controller.network(id).await {
        Ok(network) => network,
        Err(Error::NotFound { .. }) => return Ok(Have::Missing),
        Err(error) => return Err(error),
    };
    let members = controller.members(id).await?;
    Ok(Have::There(Box::new(There { network, members })))
}

/// Whether anybody can be asked anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Here,
    Gone,
}

/// A pass that acts.
struct Acting<'a, C> {
    controller: &'a C,
    memory: &'a mut Memory,
    moment: Moment,
    /// Networks that could not be made.
    failed: BTreeSet<NetworkId>,
    /// Networks of which nobody answered in time.
    slow: BTreeSet<NetworkId>,
    /// Networks whose drift is still to be repaired.
    waits: BTreeSet<NetworkId>,
    away: Away,
    /// Whether something else is more urgent.
    hurry: &'a (dyn Fn() -> bool + Sync),
    /// How many steps were begun.
    begun: usize,
    report: Report,
}

impl<C: Controller> Acting<'_, C> {
    /// Tells of the networks that cannot be repaired.
    fn complain(&mut self, plan: &Plan) {
        for (id, standing) in &plan.networks {
            match &standing.state {
                State::Read => {}
                State::Frozen(sentence) => {
                    self.trouble(id.to_string(), sentence.clone(), Lasts::ForNow);
                    self.left(Left::Failed);
                }
                State::Foreign(sentence) => {
                    self.trouble(id.to_string(), sentence.clone(), Lasts::UntilChanged);
                }
            }
        }
    }

    async fn act(&mut self, steps: &[Step]) {
        let (steps, later) = steps.split_at(steps.len().min(MOST_STEPS));
        for step in later {
            self.wait(step, Left::More);
        }
        for group in steps.chunk_by(|a, b| a.rank() == b.rank()) {
            match group.first().map(Step::rank) {
                Some(Rank::Again) => self.again(group).await,
                Some(Rank::Close | Rank::Depart | Rank::Delete | Rank::Settle | Rank::Arrive) => {
                    self.take(group).await;
                }
                None => {}
            }
        }
    }

    /// Takes steps of one rank: those of members as many at once as the controller takes.
    async fn take(&mut self, steps: &[Step]) {
        let mut members = BTreeMap::<_, Vec<_>>::new();
        let mut others = Vec::new();
        for step in steps {
            match &step.act {
                Act::Member { node, change, .. } => {
                    members
                        .entry(step.network)
                        .or_default()
                        .push((step, *node, change));
                }
                Act::Make(_) | Act::Settings(_) | Act::Delete | Act::Again(_) => others.push(step),
            }
        }
        self.one_by_one(others).await;
        for (network, steps) in members {
            for batch in steps.chunks(BATCH) {
                self.together(network, batch).await;
            }
        }
    }

    /// Changes members of one network.
    async fn together(&mut self, network: NetworkId, steps: &[(&Step, NodeId, &MemberChange)]) {
        let mut answers = BTreeMap::new();
        let broken = self.failed.contains(&network) || self.slow.contains(&network);
        let makes_way = steps.first().is_some_and(|(step, ..)| self.makes_way(step));
        let left = if makes_way { Left::More } else { Left::Failed };
        if self.away == Away::Here && !broken && !makes_way {
            self.begun += steps.len();
            let changes = steps.iter().map(|(_, node, change)| (*node, (*change).clone()));
            answers = self.controller.change_members(network, &changes.collect()).await;
        }
        for (step, node, _) in steps {
            match answers.remove(node) {
                Some(Ok(_)) => self.took(step),
                Some(Err(error)) => self.failed(step, &error),
                None => self.wait(step, left),
            }
        }
    }

    /// Takes steps, some at once.
    async fn one_by_one(&mut self, steps: Vec<&Step>) {
        let controller = self.controller;
        let mut queue = steps.into_iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < service::AT_ONCE
                && let Some(step) = queue.next()
            {
                let broken = self.failed.contains(&step.network) || self.slow.contains(&step.network);
                if self.away == Away::Gone || broken {
                    self.wait(step, Left::Failed);
                    continue;
                }
                if self.makes_way(step) {
                    self.wait(step, Left::More);
                    continue;
                }
                self.begun += 1;
                under_way.push(async move { (step, take(controller, step).await) });
            }
            let Some((step, taken)) = under_way.next().await else {
                break;
            };
            match taken {
                Ok(()) => self.took(step),
                Err(error) => self.failed(step, &error),
            }
        }
    }

    /// Whether a step waits since something else is more urgent. Whoever has to go does not.
    fn makes_way(&self, step: &Step) -> bool {
        match step.rank() {
            Rank::Close | Rank::Depart => false,
            Rank::Delete | Rank::Settle | Rank::Arrive | Rank::Again => {
                self.begun >= FEWEST_STEPS && (self.hurry)()
            }
        }
    }

    /// Authorizes members whose deauthorization may not have reached anybody, and takes that away again.
    async fn again(&mut self, steps: &[Step]) {
        let most = match steps.first() {
            Some(first) if self.makes_way(first) => 0,
            Some(_) | None => again::AT_ONCE,
        };
        let (steps, later) = steps.split_at(steps.len().min(most));
        for step in later {
            self.wait(step, Left::More);
        }
        let there = self.toggle(steps, true).await;
        if there.is_empty() {
            return;
        }
        time::sleep(BETWEEN).await;
        for step in self.toggle(&there, false).await {
            self.took(&step);
        }
    }

    /// Returns the steps whose member may have been changed.
    async fn toggle(&mut self, steps: &[Step], authorized: bool) -> Vec<Step> {
        let controller = self.controller;
        let mut queue = steps.iter();
        let mut under_way = FuturesUnordered::new();
        let mut done = Vec::new();
        loop {
            while under_way.len() < service::AT_ONCE
                && let Some(step) = queue.next()
            {
                let Act::Again(node) = step.act else { continue };
                under_way
                    .push(async move { (step, controller.authorize(step.network, node, authorized).await) });
            }
            let Some((step, answer)) = under_way.next().await else {
                break;
            };
            match answer {
                Ok(_) => done.push(step.clone()),
                // It may have been done all the same: what is there is then taken away.
                Err(error) if authorized && !is_away(&error) => {
                    self.failed(step, &error);
                    done.push(step.clone());
                }
                Err(error) => self.failed(step, &error),
            }
        }
        done
    }

    fn took(&mut self, step: &Step) {
        self.report.taken += 1;
        self.report.ended += usize::from(step.told.iter().any(|told| told.why == Why::Ended));
        self.memory.took(step, self.moment.now, self.moment.here);
        match step.act {
            Act::Make(_) | Act::Settings(_) => {
                if let Some(standing) = self.report.networks.get_mut(&step.network) {
                    standing.differences.clear();
                }
            }
            Act::Delete | Act::Member { .. } | Act::Again(_) => {}
        }
    }

    fn failed(&mut self, step: &Step, error: &Error) {
        if step.is_drift() {
            self.waits.insert(step.network);
        }
        if matches!(error, Error::TimedOut { .. }) {
            self.slow.insert(step.network);
        }
        if is_away(error) || self.slow.len() > MOST_SLOW {
            self.away = Away::Gone;
        }
        let mut subject = step.network.to_string();
        let left = match &step.act {
            Act::Make(_) => {
                self.failed.insert(step.network);
                Left::Failed
            }
            Act::Member { node, change, .. } => {
                subject = format!("{subject}/{node}");
                match change.authorized {
                    Some(false) => Left::Departures,
                    Some(true) | None => Left::Failed,
                }
            }
            Act::Again(node) => {
                subject = format!("{subject}/{node}");
                Left::Departures
            }
            Act::Settings(_) | Act::Delete => Left::Failed,
        };
        self.left(left);
        let lasts = if matches!(error, Error::Foreign { .. } | Error::Unsupported { .. }) {
            Lasts::UntilChanged
        } else {
            Lasts::ForNow
        };
        self.trouble(subject, sentence(error), lasts);
    }

    /// Notes a step that is not taken in this pass.
    fn wait(&mut self, step: &Step, left: Left) {
        if step.is_drift() {
            self.waits.insert(step.network);
        }
        let departs = left == Left::Failed && step.rank() == Rank::Depart;
        self.left(if departs { Left::Departures } else { left });
    }

    fn left(&mut self, left: Left) {
        self.report.left = self.report.left.max(left);
    }

    fn trouble(&mut self, subject: String, sentence: String, lasts: Lasts) {
        if self.report.troubles.len() < MOST_TROUBLES {
            self.report.troubles.push(Trouble {
                subject,
                sentence,
                lasts,
            });
        }
    }
}

async fn take(controller: &impl Controller, step: &Step) -> Result<(), Error> {
    let network = step.network;
    match &step.act {
        Act::Make(settings) | Act::Settings(settings) => {
            controller.put_network(network, settings).await.map(drop)
        }
        Act::Delete => controller.delete_network(network).await,
        Act::Member { node, change, .. } => controller.change_member(network, *node, change).await.map(drop),
        Act::Again(node) => {
            let off = MemberChange::authorized(false);
            controller.change_member(network, *node, &off).await.map(drop)
        }
    }
}

/// Whether nobody can be asked anything at present.
fn is_away(error: &Error) -> bool {
    matches!(
        error,
        Error::Unreachable { .. } | Error::Refused { .. } | Error::TooMany { .. }
    )
}

/// An error and its causes in one line.
fn sentence(error: &(dyn error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
