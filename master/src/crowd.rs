//! The crowd before a door: connections that have not shown who they are.
//!
//! A place in it is shared fairly among addresses. When an address has its share, or when there is no place left, a newcomer
//! displaces the oldest of the address with the most: whoever opens connection after connection keeps nobody out, not even
//! those who come from the same address and say who they are at once. An address of version 6 counts with its /64, which
//! one machine has to itself.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// Everybody whose handshake is not done, by address.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By number, so that the oldest is first.
    by: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
    total: usize,
    next: u64,
}

/// A place in the crowd. Dropping it makes room.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    block: IpAddr,
    id: u64,
    /// Fires when somebody else needs the place more.
    pub displaced: CancellationToken,
}

impl Crowd {
    /// A crowd of at most `most`, half of them from one address.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(2),
            inner: Mutex::default(),
        }
    }

    /// Takes a place for a connection from `address`. None when no other address has more of them.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let block = block(address);
        let mut inner = self.inner();
        let theirs = inner.by.get(&block).map_or(0, BTreeMap::len);
        if theirs >= self.most / 2 {
            inner.displace_oldest(block);
        } else if inner.total >= self.most {
            inner.displace(theirs)?;
        }
        let id = inner.next;
        inner.next += 1;
        inner.total += 1;
        let displaced = CancellationToken::new();
        inner.by.entry(block).or_default().insert(id, displaced.clone());
        Some(Place {
            crowd: Arc::clone(self),
            block,
            id,
            displaced,
        })
    }

    /// How many are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner().total
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Displaces the oldest of the address with the most, when that has more than `theirs`.
    fn displace(&mut self, theirs: usize) -> Option<()> {
        let (block, most) = self
            .by
            .iter()
            .map(|(block, places)| (*block, places.len()))
            .max_by_key(|(_, many)| *many)?;
        if most <= theirs {
            return None;
        }
        self.displace_oldest(block);
        Some(())
    }

    fn displace_oldest(&mut self, block: IpAddr) {
        let oldest = self.by.get(&block).and_then(BTreeMap::first_key_value);
        if let Some((id, oldest)) = oldest.map(|(id, oldest)| (*id, oldest.clone())) {
            oldest.cancel();
            self.leave(block, id);
        }
    }

    fn leave(&mut self, block: IpAddr, id: u64) {
        let Some(places) = self.by.get_mut(&block) else {
            return;
        };
        // Whoever was displaced is out already.
        if places.remove(&id).is_some() {
            self.total -= 1;
        }
        if places.is_empty() {
            self.by.remove(&block);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.inner().leave(self.block, self.id);
    }
}

/// What counts as one address.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[test]
    fn one_address_has_half_the_places_and_its_newest_are_in_them() {
        let crowd = Arc::new(Crowd::new(8));
        let places: Vec<_> = (0..8).filter_map(|_| crowd.enter(v4(1))).collect();
        let displaced: Vec<_> = places
            .iter()
            .map(|place| place.displaced.is_cancelled())
            .collect();
        assert_eq!(displaced, [true, true, true, true, false, false, false, false]);
        assert_eq!(crowd.len(), 4);
        assert!(crowd.enter(v4(2)).is_some());
    }

    #[test]
    fn a_newcomer_displaces_the_oldest_of_whoever_has_the_most() {
        let crowd = Arc::new(Crowd::new(8));
        let greedy: Vec<_> = (0..8)
            .filter_map(|n| crowd.enter(v4(if n < 4 { 1 } else { 2 })))
            .collect();
        assert_eq!(crowd.len(), 8);
        let honest = crowd.enter(v4(9)).unwrap();
        let displaced = greedy.iter().filter(|place| place.displaced.is_cancelled());
        assert_eq!(displaced.count(), 1);
        assert!(greedy[0].displaced.is_cancelled() || greedy[4].displaced.is_cancelled());
        assert!(!honest.displaced.is_cancelled());
        assert_eq!(crowd.len(), 8);
        drop(greedy);
        assert_eq!(
            crowd.len(),
            1,
            "a place that was displaced is not given back twice"
        );
    }

    #[test]
    fn a_64_of_version_6_is_one_address_and_a_mapped_address_is_the_one_of_version_4() {
        let v6 = |text: &str| block(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff:1:2:3"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
        assert_eq!(v6("::ffff:192.0.2.1"), v4(1));
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_may_be_and_an_address_without_a_place_always_gets_one(
            comings in prop::collection::vec((0_u8..6, any::<bool>()), 1..200)
        ) {
            let crowd = Arc::new(Crowd::new(8));
            let mut places: Vec<Place> = Vec::new();
            for (from, goes) in comings {
                if goes && !places.is_empty() {
                    places.remove(0);
                }
                // Six addresses share eight places, so that one without a place finds another with two.
                let has = places.iter().any(|place| place.block == v4(from) && !place.displaced.is_cancelled());
                let entered = crowd.enter(v4(from));
                prop_assert!(has || entered.is_some());
                places.extend(entered);
                prop_assert!(crowd.len() <= 8);
                let there = places.iter().filter(|place| !place.displaced.is_cancelled()).count();
                prop_assert_eq!(there, crowd.len());
            }
        }
    }
}
