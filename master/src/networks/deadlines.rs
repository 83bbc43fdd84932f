//! What comes to an end by itself, in the order of time: one set, and no timer for each.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound::{Excluded, Unbounded},
};

use jiff::Timestamp;
use picket_zerotier::ids::{NetworkId, NodeId};

/// A node on a network.
pub type Pair = (NetworkId, NodeId);

/// The ends of things, one for each node on a network at most.
#[derive(Debug, Default)]
pub struct Deadlines {
    order: BTreeMap<Timestamp, BTreeSet<Pair>>,
    of: HashMap<Pair, Timestamp>,
}

impl Deadlines {
    /// Notes when the thing of a pair ends; without a time it has no end.
    pub(super) fn set(&mut self, pair: Pair, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.of.insert(pair, at),
            None => self.of.remove(&pair),
        };
        if let Some(before) = before
            && let Some(there) = self.order.get_mut(&before)
        {
            there.remove(&pair);
            if there.is_empty() {
                self.order.remove(&before);
            }
        }
        if let Some(at) = at {
            self.order.entry(at).or_default().insert(pair);
        }
    }

    /// What has come to its end, the oldest first.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = Pair> {
        let reached = self.order.range(..=now);
        reached.flat_map(|(_, pairs)| pairs.iter().copied())
    }

    /// What ends after one moment, and at another one or before it.
    pub fn between(&self, after: Timestamp, last: Timestamp) -> impl Iterator<Item = (Timestamp, Pair)> {
        let later = self.order.range((Excluded(after), Unbounded));
        let these = later.take_while(move |(at, _)| **at <= last);
        these.flat_map(|(at, pairs)| pairs.iter().map(|pair| (*at, *pair)))
    }

    /// The next end after a moment.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let later = self.order.range((Excluded(after), Unbounded));
        later.map(|(at, _)| *at).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pair(node: u64) -> Pair {
        ("5350d87547c880cb".parse().unwrap(), NodeId::new(node).unwrap())
    }

    #[test]
    fn what_is_moved_ends_once_and_what_is_over_never() {
        let mut ends = Deadlines::default();
        for (node, second) in [(0x10_0000_0001, 30), (0x10_0000_0002, 20), (0x10_0000_0003, 10)] {
            ends.set(pair(node), Some(at(second)));
        }
        ends.set(pair(0x10_0000_0003), Some(at(40)));
        ends.set(pair(0x10_0000_0002), None);
        assert_eq!(ends.due(at(29)).count(), 0);
        assert_eq!(ends.due(at(30)).collect::<Vec<_>>(), [pair(0x10_0000_0001)]);
        assert_eq!(ends.next(at(30)), Some(at(40)));
        assert_eq!(ends.due(at(40)).count(), 2);
    }

    #[test]
    fn a_moment_is_between_others_once() {
        let mut ends = Deadlines::default();
        ends.set(pair(0x10_0000_0001), Some(at(20)));
        let found = |from, to| ends.between(at(from), at(to)).count();
        assert_eq!(
            [found(10, 19), found(10, 20), found(20, 30), found(30, 10)],
            [0, 1, 0, 0]
        );
    }
}
