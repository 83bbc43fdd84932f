//! What to change at a controller, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use jiff::Timestamp;
use picket_proto::{
    repair::Why,
    rules::{Governed, Members, Presence, Rule, Rules, Unknown},
};
use picket_zerotier::{
    controller::{self, Member, MemberChange, Network},
    ids::{NetworkId, NodeId},
    settings::NetworkSettings,
};

use crate::{
    Memory,
    again::Cut,
    brake,
    gap::{Part, Target, together, words},
    memory::{Remembered, Seen},
};

/// A network as its controller has it.
#[derive(Debug, Clone)]
pub enum Have {
    /// It was read.
    There(Box<There>),
    /// There is none.
    Missing,
    /// It could not be read; why, in a sentence.
    Unreadable(String),
    /// Another controller governs it; which, in a sentence.
    Foreign(String),
}

/// A network that was read, with all its records.
#[derive(Debug, Clone)]
pub struct There {
    /// The network.
    pub network: Network,
    /// Its members.
    pub members: controller::Members,
}

/// What follows from what is wanted and what there is.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What to change, in the order in which to change it: nobody is let on before those are off who have to go.
    pub steps: Vec<Step>,
    /// How each governed network is.
    pub networks: BTreeMap<NetworkId, Standing>,
    pub(crate) seen: BTreeMap<NetworkId, Seen>,
}

/// How one governed network is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether it can be repaired.
    pub state: State,
    /// How many members' repairs the brake holds back.
    pub held_back: usize,
    /// The nodes that have a record and no rule.
    pub unknown: BTreeSet<NodeId>,
    /// What is unlike the settings that are managed, a sentence each.
    pub differences: Vec<String>,
}

/// Whether a network can be repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It was read.
    Read,
    /// Its repairs wait until it can be read; why, in a sentence.
    Frozen(String),
    /// It is not this controller's, and never will be; a sentence.
    Foreign(String),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where.
    pub network: NetworkId,
    /// What.
    pub act: Act,
    /// What to tell of it when it is done.
    pub told: Vec<Told>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Makes the network.
    Make(NetworkSettings),
    /// Makes the network follow its settings.
    Settings(NetworkSettings),
    /// Deletes the network.
    Delete,
    /// Changes a member.
    Member {
        /// Whose record.
        node: NodeId,
        /// What about it.
        change: MemberChange,
        /// What it is to be by its rule; none for a node without one.
        target: Option<Box<TargetOf>>,
    },
    /// Authorizes a member and takes that away again, for those who did not hear of it.
    Again(NodeId),
}

/// What a record is to be, for the memory alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetOf(pub(crate) Target);

/// A part of a step, and why it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Why.
    pub why: Why,
    /// What was there.
    pub before: String,
    /// What is there instead.
    pub after: String,
}

impl Plan {
    /// Whether a network could be read, or was seen not to be there.
    pub(crate) fn has_read(&self, network: NetworkId) -> bool {
        self.networks
            .get(&network)
            .is_some_and(|standing| standing.state == State::Read)
    }
}

impl Step {
    /// When a step comes: lower ones first.
    pub(crate) fn rank(&self) -> Rank {
        match &self.act {
            Act::Settings(_) if self.told.iter().any(|told| told.before.contains(PUBLIC)) => Rank::Close,
            Act::Member { change, .. } if change.authorized == Some(false) => Rank::Depart,
            Act::Delete => Rank::Delete,
            Act::Make(_) | Act::Settings(_) => Rank::Settle,
            Act::Member { .. } => Rank::Arrive,
            Act::Again(_) => Rank::Again,
        }
    }

    /// Whether a member's record is changed back that somebody else changed.
    pub(crate) fn is_drift(&self) -> bool {
        let member = match self.act {
            Act::Member { .. } => true,
            Act::Make(_) | Act::Settings(_) | Act::Delete | Act::Again(_) => false,
        };
        member && self.told.iter().any(|told| told.why == Why::Drift)
    }
}

/// The order of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// A public network lets back on whoever is cut off, as soon as it asks.
    Close,
    Depart,
    Delete,
    Settle,
    Arrive,
    Again,
}

/// How a public network shows among the differences of settings.
const PUBLIC: &str = "private=false";

/// Returns what makes the governed networks follow the rules at `now`.
///
/// A node without a rule is reported, and left alone unless the network's policy or a kill says otherwise. A network that
/// cannot be read is left alone too, but for members who were let on and are to be so no longer: they are cut off blind.
#[must_use]
pub fn plan(want: &Members, have: &BTreeMap<NetworkId, Have>, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for (id, governed) in &want.networks {
        let Some(have) = have.get(id) else { continue };
        let asked = Asked {
            id: *id,
            governed,
            rules: &want.rules,
            remembered: memory.network(*id),
            since: memory.since(),
            now,
        };
        asked.look(have, &mut plan);
    }
    // Stable: urgent ones were put before the others. A network that cannot be read keeps no other one waiting.
    let mut steps = std::mem::take(&mut plan.steps);
    steps.sort_by_key(|step| (step.rank(), !plan.has_read(step.network)));
    plan.steps = steps;
    plan
}

/// When something is to be done by itself next: an authorization ends, or a deauthorization has to be made again.
#[must_use]
pub fn next(want: &Members, memory: &Memory, now: Timestamp) -> Option<Timestamp> {
    let governed = |network: &NetworkId| want.networks.contains_key(network);
    let ends = want
        .rules
        .iter()
        .filter(|((network, _), rule)| governed(network) && rule.holds(now))
        .filter_map(|(_, rule)| rule.until);
    let again = memory.since().into_iter().flat_map(|since| {
        want.networks
            .keys()
            .filter_map(|network| memory.network(*network))
            .flat_map(|remembered| remembered.cuts.values())
            .filter_map(move |cut| cut.again_at(since))
    });
    ends.chain(again.filter(|at| *at > now)).min()
}

/// One network, and all that is known of what it is to be.
struct Asked<'a> {
    id: NetworkId,
    governed: &'a Governed,
    rules: &'a Rules,
    remembered: Option<&'a Remembered>,
    since: Option<Timestamp>,
    now: Timestamp,
}

/// A member's record that is not as it is to be.
struct Gap<'a> {
    node: NodeId,
    have: Option<&'a Member>,
    target: Option<Target>,
    parts: Vec<Part>,
    brake: Brake,
}

/// Whether the brake is about a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Brake {
    /// A kill, a revocation, an end, or the repair of one.
    Passes,
    /// It holds drift back.
    Heeds,
}

impl Asked<'_> {
    fn look(&self, have: &Have, plan: &mut Plan) {
        let mut standing = Standing {
            state: State::Read,
            held_back: 0,
            unknown: BTreeSet::new(),
            differences: Vec::new(),
        };
        let mut seen = Seen::default();
        let deleted = self.governed.presence == Presence::Deleted;
        match have {
            Have::Foreign(sentence) => standing.state = State::Foreign(sentence.clone()),
            Have::Unreadable(sentence) => self.freeze(sentence.clone(), &mut standing, plan),
            Have::Missing if deleted => seen.gone = true,
            Have::There(_) if deleted => plan.steps.push(self.delete()),
            Have::Missing if self.governed.presence == Presence::Made => {
                plan.steps.push(self.make());
                self.members(&BTreeMap::new(), &mut standing, &mut seen, plan);
            }
            Have::Missing => {
                standing.state = State::Frozen(format!(
                    "its controller has no network {}; restore the controller's records, or create it there",
                    self.id
                ));
            }
            Have::There(there) => match self.unread(&there.members.skipped) {
                Some(sentence) => self.freeze(sentence, &mut standing, plan),
                None => {
                    if self.is_managed(&there.members.by_node) {
                        self.settings(&there.network, &mut standing, &mut seen, plan);
                    }
                    self.members(&there.members.by_node, &mut standing, &mut seen, plan);
                }
            },
        }
        plan.networks.insert(self.id, standing);
        plan.seen.insert(self.id, seen);
    }

    /// Whether its settings are anybody's business here. Of a network that is watched they are when it is public and has
    /// somebody who has to go: it would let them on again.
    fn is_managed(&self, have: &BTreeMap<NodeId, Member>) -> bool {
        !self.governed.watched
            || self.governed.closed
            || self.rules().any(|(node, _)| have.contains_key(&node))
    }

    fn rules(&self) -> impl Iterator<Item = (NodeId, &Rule)> {
        let lowest = NodeId::new(1).expect("1 is a node id");
        self.rules
            .range((Bound::Included((self.id, lowest)), Bound::Unbounded))
            .take_while(|((network, _), _)| *network == self.id)
            .map(|((_, node), rule)| (*node, rule))
    }

    fn target(&self, rule: &Rule) -> Target {
        Target::of(rule, self.governed.closed, self.now)
    }

    fn confirmed(&self, node: NodeId) -> Option<&Target> {
        self.remembered?.members.get(&node)
    }

    fn cut(&self, node: NodeId) -> Option<&Cut> {
        let cut = self.remembered?.cuts.get(&node)?;
        cut.is_recent(self.now).then_some(cut)
    }

    /// Names the record of a node with a rule that makes no sense.
    fn unread(&self, skipped: &[String]) -> Option<String> {
        let ruled = |sentence: &&String| {
            let node = sentence.split('"').nth(1).and_then(|id| id.parse().ok());
            node.is_some_and(|node: NodeId| self.rules.contains_key(&(self.id, node)))
        };
        let sentence = skipped.iter().find(ruled)?;
        Some(format!(
            "the controller's record of a member makes no sense ({sentence}); delete that record at the controller"
        ))
    }

    /// Leaves the network alone, but for those who were let on and are to be so no longer.
    fn freeze(&self, sentence: String, standing: &mut Standing, plan: &mut Plan) {
        standing.state = State::Frozen(sentence);
        for (node, rule) in self.rules() {
            let target = self.target(rule);
            let on = self.confirmed(node).is_some_and(|before| before.authorized);
            if on && !target.authorized {
                let part = Part {
                    why: self.cut_off(rule),
                    change: MemberChange::authorized(false),
                };
                plan.steps.push(Step {
                    network: self.id,
                    told: vec![Told {
                        why: part.why,
                        before: words(&MemberChange::authorized(true)),
                        after: words(&part.change),
                    }],
                    act: Act::Member {
                        node,
                        change: part.change,
                        target: Some(Box::new(TargetOf(target))),
                    },
                });
            }
        }
    }

    fn cut_off(&self, rule: &Rule) -> Why {
        if rule.is_over(self.now) && !self.governed.closed {
            Why::Ended
        } else {
            Why::Decided
        }
    }

    fn delete(&self) -> Step {
        let gone = self.remembered.is_some_and(|remembered| remembered.gone);
        self.of_network(Act::Delete, gone, "there", "deleted")
    }

    fn make(&self) -> Step {
        let there = self
            .remembered
            .is_some_and(|remembered| remembered.settings.is_some());
        let act = Act::Make(self.governed.settings.clone());
        self.of_network(act, there, "missing", "made")
    }

    fn of_network(&self, act: Act, was_so: bool, before: &str, after: &str) -> Step {
        Step {
            network: self.id,
            act,
            told: vec![Told {
                why: if was_so { Why::Drift } else { Why::Decided },
                before: before.to_owned(),
                after: after.to_owned(),
            }],
        }
    }

    fn settings(&self, have: &Network, standing: &mut Standing, seen: &mut Seen, plan: &mut Plan) {
        let settings = &self.governed.settings;
        let differences = settings.differences(have);
        if differences.is_empty() {
            seen.settings = true;
            return;
        }
        let confirmed = self
            .remembered
            .and_then(|remembered| remembered.settings.as_ref());
        let list = |pick: fn(&picket_zerotier::settings::Difference) -> &str| {
            let parts = differences
                .iter()
                .map(|difference| format!("{}={}", difference.field, pick(difference)));
            parts.collect::<Vec<_>>().join(", ")
        };
        plan.steps.push(self.of_network(
            Act::Settings(settings.clone()),
            confirmed == Some(settings),
            &list(|difference| &difference.have),
            &list(|difference| &difference.want),
        ));
        standing.differences = differences.iter().map(ToString::to_string).collect();
    }

    fn members(
        &self,
        have: &BTreeMap<NodeId, Member>,
        standing: &mut Standing,
        seen: &mut Seen,
        plan: &mut Plan,
    ) {
        let (mut gaps, mut members) = (Vec::new(), 0);
        for (node, rule) in self.rules() {
            let record = have.get(&node);
            let target = self.target(rule);
            let on = target.authorized || record.is_some_and(|member| member.authorized);
            members += usize::from(on);
            let parts = target.lacks(self.confirmed(node), record, self.cut_off(rule));
            if parts.is_empty() {
                if self.confirmed(node) != Some(&target) {
                    seen.members.push((node, target));
                }
                continue;
            }
            let passes = rule.urgent || rule.is_over(self.now) || self.governed.closed;
            gaps.push(self.gap(node, record, Some(target), parts, passes));
        }
        for (node, member) in have {
            if self.rules.contains_key(&(self.id, *node)) {
                continue;
            }
            standing.unknown.insert(*node);
            members += usize::from(member.authorized);
            let closed = self.governed.closed;
            if member.authorized && (closed || self.governed.unknown == Unknown::Deauthorize) {
                let known_closed = self.remembered.is_some_and(|remembered| remembered.closed);
                let why = if closed && !known_closed {
                    Why::Decided
                } else {
                    Why::Drift
                };
                let change = MemberChange::authorized(false);
                gaps.push(self.gap(*node, Some(member), None, vec![Part { why, change }], closed));
            }
        }
        self.cuts(have, seen, plan);
        if let Some(remembered) = self.remembered {
            let lifted = remembered.members.keys().copied();
            seen.lifted
                .extend(lifted.filter(|node| !self.rules.contains_key(&(self.id, *node))));
        }

        let drifted = gaps
            .iter()
            .filter(|gap| gap.brake == Brake::Heeds && gap.parts.iter().any(|part| part.why == Why::Drift))
            .count();
        let released = self
            .remembered
            .is_some_and(|remembered| self.governed.resumed > remembered.resumed);
        let held = !released && brake::holds(drifted, members);
        if held {
            standing.held_back = drifted;
        }
        gaps.sort_by_key(|gap| gap.brake);
        plan.steps
            .extend(gaps.into_iter().filter_map(|gap| self.step(gap, held)));
    }

    fn gap<'a>(
        &self,
        node: NodeId,
        have: Option<&'a Member>,
        target: Option<Target>,
        mut parts: Vec<Part>,
        passes: bool,
    ) -> Gap<'a> {
        let mut brake = if passes { Brake::Passes } else { Brake::Heeds };
        if let Some(cut) = self.cut(node) {
            for part in &mut parts {
                if part.change.authorized == Some(false) {
                    // Whom we cut off lately is let on by nobody else while an operator thinks about it.
                    brake = Brake::Passes;
                    if cut.reopened {
                        part.why = Why::Repeated;
                    }
                }
            }
        }
        Gap {
            node,
            have,
            target,
            parts,
            brake,
        }
    }

    fn step(&self, gap: Gap<'_>, held: bool) -> Option<Step> {
        let waits = held && gap.brake == Brake::Heeds;
        let parts: Vec<_> = gap
            .parts
            .into_iter()
            .filter(|part| !(waits && part.why == Why::Drift))
            .collect();
        if parts.is_empty() {
            return None;
        }
        let told = |part: &Part| Told {
            why: part.why,
            before: gap
                .have
                .map_or_else(|| "no record".to_owned(), |have| words(&part.change.of(have))),
            after: words(&part.change),
        };
        Some(Step {
            network: self.id,
            told: parts.iter().map(told).collect(),
            act: Act::Member {
                node: gap.node,
                change: together(&parts),
                target: gap.target.map(|target| Box::new(TargetOf(target))),
            },
        })
    }

    /// Deauthorizations that have to be made again, and those that need not be remembered.
    fn cuts(&self, have: &BTreeMap<NodeId, Member>, seen: &mut Seen, plan: &mut Plan) {
        let cuts = self
            .remembered
            .into_iter()
            .flat_map(|remembered| &remembered.cuts);
        for (node, cut) in cuts {
            let rule = self.rules.get(&(self.id, *node));
            let is_let_on = rule.is_some_and(|rule| self.target(rule).authorized);
            if is_let_on || !cut.is_recent(self.now) {
                seen.over.push(*node);
                continue;
            }
            let off = have.get(node).is_some_and(|member| !member.authorized);
            let due = self
                .since
                .and_then(|since| cut.again_at(since))
                .is_some_and(|at| at <= self.now);
            if !off || !due {
                continue;
            }
            if cut.reopened {
                plan.steps.push(Step {
                    network: self.id,
                    act: Act::Again(*node),
                    told: vec![Told {
                        why: Why::Repeated,
                        before: "deauthorized".to_owned(),
                        after: "deauthorized again".to_owned(),
                    }],
                });
            } else {
                seen.reopen.push(*node);
            }
        }
    }
}

#[cfg(test)]
mod tests;
