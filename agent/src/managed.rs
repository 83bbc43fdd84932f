//! What this agent has set up in the local service and may take away again: networks that it joined, moons that it
//! orbits. What somebody set up by hand is never among it.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc};

use picket_durable::FileError;
use picket_zerotier::NetworkId;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

const LONGEST: u64 = 1 << 20;

/// The list, on disk and in memory. Clones share it; one task changes it.
#[derive(Debug, Clone)]
pub(crate) struct Managed<Id = NetworkId> {
    path: Arc<PathBuf>,
    ids: watch::Sender<BTreeSet<Id>>,
}

impl<Id: Copy + Ord + Serialize + DeserializeOwned> Managed<Id> {
    /// Reads the list; without a file it is empty.
    ///
    /// # Errors
    /// When the file is there and cannot be read: going on would take what is ours for what was set up by hand.
    pub(crate) fn open(path: PathBuf) -> Result<Self, FileError> {
        let ids = match picket_durable::read_private(&path, LONGEST) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| FileError::Read {
                path: path.clone(),
                cause: io::Error::new(io::ErrorKind::InvalidData, error),
            })?,
            Err(FileError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: Arc::new(path),
            ids: watch::Sender::new(ids),
        })
    }

    pub(crate) fn current(&self) -> BTreeSet<Id> {
        self.ids.borrow().clone()
    }

    /// Adds one, on disk before it is in force.
    pub(crate) async fn add(&self, id: Id) -> Result<(), FileError> {
        let mut ids = self.current();
        if ids.insert(id) {
            self.replace(ids).await
        } else {
            Ok(())
        }
    }

    /// Takes one off the list.
    pub(crate) async fn remove(&self, id: Id) -> Result<(), FileError> {
        let mut ids = self.current();
        if ids.remove(&id) {
            self.replace(ids).await
        } else {
            Ok(())
        }
    }

    async fn replace(&self, ids: BTreeSet<Id>) -> Result<(), FileError> {
        let path = self.path.clone();
        let bytes = serde_json::to_vec(&ids).expect("a list of texts always becomes JSON");
        let write = move || picket_durable::write_private(&*path, &bytes);
        tokio::task::spawn_blocking(write)
            .await
            .expect("writing a file does not panic")?;
        self.ids.send_replace(ids);
        Ok(())
    }
}
