//! The networks that this agent has joined and may leave again. A network joined by hand is never among them.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc};

use picket_durable::FileError;
use picket_zerotier::NetworkId;
use tokio::sync::watch;

const LONGEST: u64 = 1 << 20;

/// The list, on disk and in memory. Clones share it; one task changes it.
#[derive(Debug, Clone)]
pub(crate) struct Managed {
    path: Arc<PathBuf>,
    networks: watch::Sender<BTreeSet<NetworkId>>,
}

impl Managed {
    /// Reads the list; without a file it is empty.
    ///
    /// # Errors
    /// When the file is there and cannot be read: going on would take our own networks for ones joined by hand.
    pub(crate) fn open(path: PathBuf) -> Result<Self, FileError> {
        let networks = match picket_durable::read_private(&path, LONGEST) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| FileError::Read {
                path: path.clone(),
                cause: io::Error::new(io::ErrorKind::InvalidData, error),
            })?,
            Err(FileError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: Arc::new(path),
            networks: watch::Sender::new(networks),
        })
    }

    pub(crate) fn current(&self) -> BTreeSet<NetworkId> {
        self.networks.borrow().clone()
    }

    /// Adds a network, on disk before it is in force.
    pub(crate) async fn add(&self, network: NetworkId) -> Result<(), FileError> {
        let mut networks = self.current();
        if networks.insert(network) {
            self.replace(networks).await
        } else {
            Ok(())
        }
    }

    /// Takes a network off the list.
    pub(crate) async fn remove(&self, network: NetworkId) -> Result<(), FileError> {
        let mut networks = self.current();
        if networks.remove(&network) {
            self.replace(networks).await
        } else {
            Ok(())
        }
    }

    async fn replace(&self, networks: BTreeSet<NetworkId>) -> Result<(), FileError> {
        let path = self.path.clone();
        let bytes = serde_json::to_vec(&networks).expect("a list of texts always becomes JSON");
        let write = move || picket_durable::write_private(&*path, &bytes);
        tokio::task::spawn_blocking(write)
            .await
            .expect("writing a file does not panic")?;
        self.networks.send_replace(networks);
        Ok(())
    }
}
