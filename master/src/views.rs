//! What the master knows, in memory: views of the store that change through its watch alone.
//!
//! A mutating call commits and then waits until the views have taken its revision in; a commit by anyone else, through
//! whatever handle, arrives the same way.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use picket_pki::{Fingerprint, Pins, Standing};
use picket_proto::host::HostId;
use picket_zerotier::ids::NetworkId;
use tokio::sync::watch;

use crate::{
    ca,
    deployments::Deployments,
    networks::{Networks, Touched},
    record::{
        DeploymentRecord, HostRecord, HostStanding, OperatorRecord, Record, RecordError, key,
        network::{
            ActivationRecord, Governor, GrantRecord, KillRecord, MoonRecord, NetworkRecord, RegisteredRecord,
            RequestRecord,
        },
    },
    roster::Roster,
    spent,
    store::{Entry, Key, Revision, Write},
};

/// Everything the services decide from.
#[derive(Debug, Default)]
pub struct State {
    /// Hosts and operators.
    pub roster: Roster,
    /// Networks and grants.
    pub networks: Networks,
    /// Deployments.
    pub deployments: Deployments,
    /// The succession of CAs, and who has heard of it.
    pub ca: ca::View,
}

/// Whom a change concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Their desired documents may differ.
    pub hosts: BTreeSet<HostId>,
    /// Their open sessions and connections are to end.
    pub cut: BTreeSet<HostId>,
    /// An operator's pins changed: connections under the others are to end.
    pub operators: BTreeSet<String>,
    /// What is said of members of networks that these govern may differ.
    pub governors: BTreeSet<Governor>,
    /// The succession of CAs changed: other ones sign or are trusted.
    pub ca: bool,
}

impl State {
    /// Takes one write in.
    ///
    /// # Errors
    /// When the value is no record of its key.
    fn apply(
        &mut self,
        write: &Write,
        revision: Revision,
        affected: &mut Affected,
    ) -> Result<(), RecordError> {
        match write {
            Write::Put(key, value) => self.put(key, value, revision, affected),
            Write::Delete(key) => {
                if let Some(name) = key.as_str().strip_prefix(key::OPERATORS) {
                    self.roster.drop_operator(name);
                    affected.operators.insert(name.to_owned());
                }
                Ok(())
            }
        }
    }

    /// Notes whose documents may differ after a change. A member that witnesses others, or is witnessed, is told with its
    /// network.
    fn tell(&self, touched: Touched, affected: &mut Affected) {
        let governors = |id: NetworkId| {
            let record = self.networks.network_or_gone(id).map(|network| &network.record);
            record.into_iter().map(|record| record.controller)
        };
        let everybody = || self.roster.hosts().map(|host| host.record.id);
        match touched {
            Touched::Pair(id, node) => {
                affected.governors.extend(governors(id));
                affected
                    .hosts
                    .extend(self.roster.of_node(node).map(|host| host.record.id));
                if self
                    .networks
                    .network(id)
                    .is_some_and(|network| network.record.witnesses)
                {
                    affected.hosts.extend(everybody());
                }
            }
            Touched::Node(node) => {
                let watched = self.networks.networks();
                affected
                    .governors
                    .extend(watched.map(|network| network.record.controller));
                affected
                    .hosts
                    .extend(self.roster.of_node(node).map(|host| host.record.id));
                if self.networks.networks().any(|network| network.record.witnesses) {
                    affected.hosts.extend(everybody());
                }
            }
            Touched::Network(id) => {
                affected.governors.extend(governors(id));
                affected.hosts.extend(everybody());
            }
            Touched::All => {
                let watched = self.networks.networks();
                affected
                    .governors
                    .extend(watched.map(|network| network.record.controller));
                affected.hosts.extend(everybody());
            }
            Touched::Nothing => {}
        }
        let hosts = affected.governors.iter().filter_map(|governor| governor.host());
        affected.hosts.extend(hosts);
    }

    fn put(
        &mut self,
        key: &Key,
        value: &[u8],
        revision: Revision,
        affected: &mut Affected,
    ) -> Result<(), RecordError> {
        let text = key.as_str();
        if text.starts_with(key::HOSTS) {
            let host = HostRecord::read(key, value)?;
            let id = host.id;
            if host.standing != HostStanding::Active {
                affected.cut.insert(id);
            }
            affected.hosts.insert(id);
            for node in self.roster.put_host(host, revision) {
                let touched = self.networks.host_changed(node, revision);
                self.tell(touched, affected);
            }
        } else if text.starts_with(key::OPERATORS) {
            let operator = OperatorRecord::read(key, value)?;
            affected.operators.insert(operator.name.clone());
            self.roster.put_operator(operator, revision);
        } else if text.starts_with(key::NETWORKS) {
            let touched = self
                .networks
                .put_network(NetworkRecord::read(key, value)?, revision);
            self.tell(touched, affected);
        } else if text.starts_with(key::GRANTS) {
            let touched = self.networks.put_grant(GrantRecord::read(key, value)?, revision);
            self.tell(touched, affected);
        } else if text.starts_with(key::ACTIVATIONS) {
            let touched = self
                .networks
                .put_activation(ActivationRecord::read(key, value)?, revision);
            self.tell(touched, affected);
        } else if text.starts_with(key::REQUESTS) {
            let touched = self
                .networks
                .put_request(RequestRecord::read(key, value)?, revision);
            self.tell(touched, affected);
        } else if text.starts_with(key::REGISTERED) {
            let touched = self
                .networks
                .put_device(RegisteredRecord::read(key, value)?, revision);
            self.tell(touched, affected);
        } else if text.starts_with(key::KILLS) {
            let kill = KillRecord::read(key, value)?;
            for touched in self.networks.put_kill(kill, revision, &self.roster) {
                self.tell(touched, affected);
            }
        } else if text.starts_with(key::MOONS) {
            self.networks.put_moon(MoonRecord::read(key, value)?, revision);
            self.tell(Touched::All, affected);
        } else if text.starts_with(key::DEPLOYMENTS) {
            let deployment = DeploymentRecord::read(key, value)?;
            affected.hosts.extend(self.deployments.put(deployment, revision));
        } else if text.starts_with(ca::PREFIX) && self.ca.put(key, value, revision)? {
            affected.ca = true;
        }
        Ok(())
    }
}

/// The views, and how far they have come.
pub struct Views {
    state: RwLock<State>,
    applied: watch::Sender<Revision>,
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Views at {}", *self.applied.borrow())
    }
}

impl Views {
    /// Views of what the store holds at `revision`.
    ///
    /// # Errors
    /// When a value is no record of its key.
    pub fn load(entries: &[Entry], revision: Revision) -> Result<Self, RecordError> {
        let views = Self {
            state: RwLock::new(State::default()),
            applied: watch::Sender::new(Revision(0)),
        };
        views.reload(entries, revision)?;
        Ok(views)
    }

    /// Starts over from what the store holds at `revision`. Everybody is concerned.
    ///
    /// # Errors
    /// When a value is no record of its key; then nothing changes.
    pub fn reload(&self, entries: &[Entry], revision: Revision) -> Result<Affected, RecordError> {
        let (mut state, mut affected) = (State::default(), Affected::default());
        // In the order they were written, so that each finds what it depends on.
        let mut ordered: Vec<_> = entries.iter().collect();
        ordered.sort_by_key(|entry| entry.revision);
        for entry in ordered {
            state.put(&entry.key, &entry.value, entry.revision, &mut affected)?;
        }
        affected
            .hosts
            .extend(state.roster.hosts().map(|host| host.record.id));
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.applied.send_replace(revision);
        Ok(affected)
    }

    /// Takes a commit in, all of it at once.
    ///
    /// # Errors
    /// When a value is no record of its key.
    pub fn apply(&self, writes: &[Write], revision: Revision) -> Result<Affected, RecordError> {
        let mut affected = Affected::default();
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            for write in writes {
                state.apply(write, revision, &mut affected)?;
            }
        }
        self.applied.send_replace(revision);
        Ok(affected)
    }

    /// The views as they are. Held for as long as it takes to look, and never across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `revision` is taken in.
    pub async fn reached(&self, revision: Revision) {
        // The sender lives in `self`: it cannot be gone.
        drop(
            self.applied
                .subscribe()
                .wait_for(|applied| *applied >= revision)
                .await,
        );
    }
}

impl Pins for Views {
    fn standing(&self, fingerprint: &Fingerprint) -> Standing {
        let standing = self.read().roster.standing(fingerprint);
        spent::note(fingerprint, standing);
        standing
    }
}
