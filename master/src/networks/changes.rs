//! When what concerns a thing changed last, and which things changed since.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

use crate::store::Revision;

/// The newest revision of each thing, and the things in the order of it.
#[derive(Debug)]
pub(super) struct Changes<K> {
    newest: HashMap<K, Revision>,
    order: BTreeMap<Revision, BTreeSet<K>>,
}

impl<K> Default for Changes<K> {
    fn default() -> Self {
        Self {
            newest: HashMap::new(),
            order: BTreeMap::new(),
        }
    }
}

impl<K: Copy + Ord + Hash> Changes<K> {
    /// Notes that a thing changed. An older revision than the one that is known says nothing.
    pub(super) fn touch(&mut self, thing: K, revision: Revision) {
        let before = self.newest.get(&thing).copied();
        if before.is_some_and(|before| before >= revision) {
            return;
        }
        if let Some(before) = before
            && let Some(there) = self.order.get_mut(&before)
        {
            there.remove(&thing);
            if there.is_empty() {
                self.order.remove(&before);
            }
        }
        self.newest.insert(thing, revision);
        self.order.entry(revision).or_default().insert(thing);
    }

    /// When a thing changed last; 0 when it never did.
    pub(super) fn of(&self, thing: K) -> Revision {
        self.newest.get(&thing).copied().unwrap_or(Revision(0))
    }

    /// The things that changed after `since`, with when, oldest first.
    pub(super) fn since(&self, since: Revision) -> impl Iterator<Item = (Revision, K)> {
        let changed = self.order.range(since.next()..);
        changed.flat_map(|(at, things)| things.iter().map(move |thing| (*at, *thing)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_that_changed_twice_is_told_once_at_its_newest() {
        let mut changes = Changes::default();
        for (thing, at) in [('a', 1), ('b', 2), ('a', 3), ('a', 2)] {
            changes.touch(thing, Revision(at));
        }
        let since = |at| changes.since(Revision(at)).collect::<Vec<_>>();
        assert_eq!(since(0), [(Revision(2), 'b'), (Revision(3), 'a')]);
        assert_eq!(since(2), [(Revision(3), 'a')]);
        assert_eq!((changes.of('a'), changes.of('c')), (Revision(3), Revision(0)));
    }
}
