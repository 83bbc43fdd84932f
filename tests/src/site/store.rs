//! What is done to the master's store past its services.

use std::path::{Path, PathBuf};

use picket_master::store::{Store, accept, restore};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::Site;
use crate::sentence;

impl Site {
    /// A second handle on the running master's store.
    #[must_use]
    pub fn store(&self) -> Store {
        self.master().as_ref().expect("the master runs").store.clone()
    }

    /// Does something at the `count`th commit from here on to a key that begins so, before anybody is answered.
    ///
    /// That takes a task: what a story itself awaits has its turn only when many tasks had theirs, and by then an answer
    /// has arrived.
    pub fn at_commit(&self, count: u32, prefix: &str, act: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        let store = self.store();
        let watch = store.watch(prefix, store.revision());
        let mut watch = watch.expect("the present is in memory");
        TaskTracker::new().spawn(async move {
            for _ in 0..count {
                let change = watch.next().await.expect("a watch of the present is whole");
                assert!(change.is_some(), "the store ended before the commit");
            }
            act();
        })
    }

    /// Takes a snapshot, as `picket-master snapshot` does.
    pub async fn snapshot(&self) -> PathBuf {
        let taken = self.store().snapshot(&self.root.path().join("snapshots")).await;
        taken
            .unwrap_or_else(|error| panic!("snapshot: {}", sentence(&error)))
            .file
    }

    /// Loses the stopped master's store with its journal, and restores what a snapshot has.
    pub fn lose_journal_and_restore(&self, snapshot: &Path) {
        std::fs::remove_dir_all(self.data_dir().join("store")).expect("the master has a store");
        let restored = restore(&self.data_dir(), Some(snapshot), &self.clock);
        let restored = restored.unwrap_or_else(|error| panic!("restore: {}", sentence(&error)));
        assert!(
            restored.missing.is_some(),
            "a journal that is gone may have had anything in it"
        );
    }

    /// Accepts the stopped master's restored store, as `picket-master restore --accept` does.
    pub fn accept_restored(&self) {
        accept(&self.data_dir()).unwrap_or_else(|error| panic!("accept: {}", sentence(&error)));
    }
}
