//! What was true of a controller when it was last looked at, and what was changed there.
//!
//! Whoever calls keeps it across restarts. One that is lost is begun anew: then nothing is said to have been changed by
//! somebody else, since nobody knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use picket_proto::{
    repair::{MOST_DRIFT, MOST_OTHERS, Repair, Why},
    rules::{Governed, Members, Presence},
};
use picket_zerotier::{
    ids::{NetworkId, NodeId},
    settings::NetworkSettings,
};
use serde::{Deserialize, Serialize};

use crate::{
    again::Cut,
    gap::Target,
    plan::{Act, Plan, Step},
    process::{Process, Sighting},
};

/// What is remembered of one controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    networks: BTreeMap<NetworkId, Remembered>,
    repairs: VecDeque<Repair>,
    /// How many repairs of drift fell off.
    #[serde(default)]
    forgotten: u64,
    /// The number of the next repair.
    next: u64,
    process: Option<Process>,
    /// Something in it changed since it was last taken to be kept.
    #[serde(skip)]
    changed: bool,
}

/// What is remembered of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// The times that the brake was released, as far as they were made use of.
    pub(crate) resumed: u64,
    /// It was killed when it was last in order.
    #[serde(default)]
    pub(crate) closed: bool,
    /// It was seen to be gone, as it is to be.
    #[serde(default)]
    pub(crate) gone: bool,
    /// The settings that it was seen to follow; none while it was not seen.
    #[serde(default)]
    pub(crate) settings: Option<NetworkSettings>,
    /// What records were seen to be.
    #[serde(default)]
    pub(crate) members: BTreeMap<NodeId, Target>,
    /// The members that were deauthorized lately.
    #[serde(default)]
    pub(crate) cuts: BTreeMap<NodeId, Cut>,
}

impl Memory {
    /// Nothing is remembered. `now` is any time that is not before repairs were last numbered: their numbers count up
    /// across a memory that was lost too.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            networks: BTreeMap::new(),
            repairs: VecDeque::new(),
            forgotten: 0,
            next: u64::try_from(now.as_millisecond()).unwrap_or(1),
            process: None,
            changed: false,
        }
    }

    /// What was changed, newest last.
    #[must_use]
    pub fn repairs(&self) -> Vec<Repair> {
        self.repairs.iter().cloned().collect()
    }

    /// How many repairs of drift fell off, ever.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Whether anything in it changed since this was last asked: then it has to be kept.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Notes that the controller's process answers.
    pub fn saw(&mut self, sighting: &Sighting, now: Timestamp) {
        let process = Some(Process::seen(self.process.as_ref(), sighting, now));
        self.changed |= self.process != process;
        self.process = process;
    }

    pub(crate) fn network(&self, network: NetworkId) -> Option<&Remembered> {
        self.networks.get(&network)
    }

    /// Since when the controller's process has certainly run; none where nothing is lost with it.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.process.as_ref().map(|process| process.since)
    }

    /// Notes what a plan found to be in order, and forgets what nobody asks for any more.
    pub(crate) fn settle(&mut self, want: &Members, plan: &Plan) {
        let count = self.networks.len();
        self.networks
            .retain(|network, _| want.networks.contains_key(network));
        self.changed |= self.networks.len() != count;
        for (id, governed) in want.networks.iter().filter(|(id, _)| plan.has_read(**id)) {
            let first = !self.networks.contains_key(id);
            let remembered = self.networks.entry(*id).or_default();
            let mut changed = first;
            // A count that is lower is that of a master that was restored from before.
            if first || governed.resumed < remembered.resumed {
                remembered.resumed = governed.resumed;
                changed = true;
            }
            changed |= put(&mut remembered.closed, governed.closed);
            if let Some(seen) = plan.seen.get(id) {
                changed |= remembered.learn(governed, seen);
            }
            self.changed |= changed;
        }
    }

    /// Notes that the releases of the brake were made use of, except where drift still waits for its turn.
    pub(crate) fn use_releases(&mut self, want: &Members, plan: &Plan, waits: &BTreeSet<NetworkId>) {
        for (id, governed) in &want.networks {
            if plan.has_read(*id)
                && !waits.contains(id)
                && let Some(remembered) = self.networks.get_mut(id)
            {
                self.changed |= put(&mut remembered.resumed, governed.resumed);
            }
        }
    }

    /// Notes that a step was taken.
    pub(crate) fn took(&mut self, step: &Step, now: Timestamp, here: Timestamp) {
        self.changed = true;
        let remembered = self.networks.entry(step.network).or_default();
        match &step.act {
            Act::Make(settings) | Act::Settings(settings) => {
                remembered.gone = false;
                remembered.settings = Some(settings.clone());
            }
            Act::Delete => {
                *remembered = Remembered {
                    resumed: remembered.resumed,
                    gone: true,
                    ..Remembered::default()
                };
            }
            Act::Member { node, change, target } => {
                match target {
                    Some(target) => drop(remembered.members.insert(*node, target.0.clone())),
                    None => drop(remembered.members.remove(node)),
                }
                match change.authorized {
                    Some(true) => drop(remembered.cuts.remove(node)),
                    Some(false) => drop(remembered.cuts.insert(*node, Cut::new(now))),
                    None => {}
                }
            }
            Act::Again(node) => drop(remembered.cuts.insert(*node, Cut::new(now))),
        }
        let node = match step.act {
            Act::Make(_) | Act::Settings(_) | Act::Delete => None,
            Act::Member { node, .. } | Act::Again(node) => Some(node),
        };
        for told in &step.told {
            self.tell(Repair {
                sequence: 0,
                at: here,
                why: told.why,
                network: step.network,
                node,
                before: told.before.clone(),
                after: told.after.clone(),
            });
        }
    }

    fn tell(&mut self, repair: Repair) {
        let sequence = self.next;
        self.next += 1;
        if repair.why == Why::Drift {
            tracing::warn!(network = %repair.network, node = ?repair.node, before = repair.before, after = repair.after,
                "repairs what was changed outside Picket");
        } else {
            tracing::info!(network = %repair.network, node = ?repair.node, why = ?repair.why, before = repair.before,
                after = repair.after, "changes a controller's record");
        }
        let is_drift = repair.why == Why::Drift;
        self.repairs.push_back(Repair { sequence, ..repair });
        // What was decided is known without this, and pushes out nothing that somebody else did.
        let most = if is_drift { MOST_DRIFT } else { MOST_OTHERS };
        let alike = |repair: &&Repair| (repair.why == Why::Drift) == is_drift;
        if self.repairs.iter().filter(alike).count() > most
            && let Some(oldest) = self.repairs.iter().position(|repair| alike(&repair))
        {
            self.repairs.remove(oldest);
            self.forgotten += u64::from(is_drift);
        }
    }
}

/// What a plan found true that was not remembered so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The network is there and follows its settings.
    pub(crate) settings: bool,
    /// It is not there, as it is to be.
    pub(crate) gone: bool,
    /// Records that are as they are to be.
    pub(crate) members: Vec<(NodeId, Target)>,
    /// Nodes that nobody says anything of any more.
    pub(crate) lifted: Vec<NodeId>,
    /// Deauthorizations that nobody has to remember any more.
    pub(crate) over: Vec<NodeId>,
    /// Deauthorizations to be made again next.
    pub(crate) reopen: Vec<NodeId>,
}

impl Remembered {
    fn learn(&mut self, governed: &Governed, seen: &Seen) -> bool {
        let mut changed = false;
        if seen.settings && self.settings.as_ref() != Some(&governed.settings) {
            self.settings = Some(governed.settings.clone());
            changed = true;
        }
        let gone = governed.presence == Presence::Deleted && (self.gone || seen.gone);
        changed |= put(&mut self.gone, gone);
        for (node, target) in &seen.members {
            changed |= self.members.insert(*node, target.clone()).as_ref() != Some(target);
        }
        for node in &seen.lifted {
            changed |= self.members.remove(node).is_some();
        }
        for node in &seen.over {
            changed |= self.cuts.remove(node).is_some();
        }
        for node in &seen.reopen {
            if let Some(cut) = self.cuts.get_mut(node) {
                changed |= put(&mut cut.reopened, true);
            }
        }
        changed
    }
}

fn put<T: PartialEq>(place: &mut T, value: T) -> bool {
    let changed = *place != value;
    *place = value;
    changed
}
