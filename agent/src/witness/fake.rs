//! A prober without a network: it knows who is there.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;

use super::{Echo, Prober};

/// Who answers. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct FakeProber(Arc<Mutex<BTreeSet<IpAddr>>>);

impl FakeProber {
    /// Somebody is at `address` from here on.
    pub fn appear(&self, address: IpAddr) {
        self.lock().insert(address);
    }

    /// Nobody is at `address` any more.
    pub fn vanish(&self, address: IpAddr) {
        self.lock().remove(&address);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<IpAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prober for FakeProber {
    fn probe(&self, address: IpAddr) -> BoxFuture<'_, Echo> {
        let there = self.lock().contains(&address);
        Box::pin(std::future::ready(if there {
            Echo::Answered
        } else {
            Echo::Silence
        }))
    }
}
