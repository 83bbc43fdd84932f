//! The desk everybody in the master works at: the store and its views, who is there, what was said.
//!
//! Whoever changes something commits it and waits for the views; the views' follower tells the sessions. No service
//! tells another one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use picket_clock::Clock;
use picket_pki::Identity;
use picket_proto::{
    document::Lineage,
    host::{HostId, Name},
    session::{Leave, LeaveReason},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{self, head::Heads, refusal::Refusals},
    ca::work::Work,
    central::Central,
    event::{Events, Severity},
    gate::{self, Calls},
    kill::progress::Kills,
    liveness::{Liveness, Presence, Transition},
    metrics::Metrics,
    network_watch::Watchers,
    node::Nodes,
    observed::Observed,
    record::{HostRecord, HostStanding, Record, key, network::Governor},
    refused::Refused,
    renewal::Pace,
    sessions::Sessions,
    signer::Signer,
    store::{Audit, Commit, CommitError, Guard, Revision, Store, Write},
    time::Time,
    views::{Affected, Views},
};

/// How often a change is tried again when someone else changed the same record meanwhile.
const MOST_TRIES: usize = 16;

/// What the services share.
#[derive(Debug)]
pub struct Desk {
    /// Monotonic time, and wall time as [`Time`] tells it.
    pub clock: Clock,
    /// What time it is, and whether the machine's clock is believed.
    pub time: Time,
    /// What must not be lost.
    pub store: Store,
    /// The store, in memory.
    pub views: Arc<Views>,
    /// The CA that signs.
    pub signer: Arc<Signer>,
    /// The succession of CAs, as it is in force.
    pub ca: Work,
    /// How fast hosts get certificates.
    pub pace: Pace,
    /// How fast operators do, by name and device.
    pub device_pace: Pace<(String, Name)>,
    /// What hosts said.
    pub observed: Observed,
    /// Who is connected.
    pub sessions: Arc<Sessions>,
    /// Which calls of operators are open.
    pub calls: Arc<Calls>,
    /// What happened.
    pub events: Events,
    /// Refused changes, for the audit trail.
    pub refusals: Refusals,
    /// What signs how far the journal has come.
    pub heads: Heads,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// Where agents dial, as bundles say it.
    pub addresses: Vec<String>,
    /// How often agents beat.
    pub beat_interval: std::time::Duration,
    /// Nodes that wait for an operator.
    pub nodes: Nodes,
    /// What is known of networks in ZeroTier Central.
    pub central: Central,
    /// Controllers that are to be looked at.
    pub watchers: Watchers,
    /// How far kills have come.
    pub kills: Kills,
    /// Wakes whoever looks at everything that hosts said and that was decided: something of it changed.
    pub news: watch::Sender<()>,
    pub(crate) liveness: Mutex<Liveness>,
    /// Held over a decision that depends on more records than a commit's guards name, from the look to the commit.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

/// Who asked for a change, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// `operator/ada`, `host/<uuid>`, `master`.
    pub who: String,
    /// Address and port.
    pub from: String,
}

impl Actor {
    /// The master itself.
    #[must_use]
    pub fn master() -> Self {
        Self {
            who: "master".to_owned(),
            from: "local".to_owned(),
        }
    }

    /// The audit entry of a change.
    #[must_use]
    pub fn does(&self, what: &str, subject: impl ToString, why: &str) -> Audit {
        Audit {
            who: self.who.clone(),
            from: self.from.clone(),
            what: what.to_owned(),
            subject: subject.to_string(),
            why: why.to_owned(),
            ..Audit::default()
        }
    }

    /// The name without what it is: `ada` of `operator/ada`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.who.rsplit('/').next().unwrap_or(&self.who)
    }
}

impl Desk {
    /// The lineage of the documents.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        Lineage(self.store.lineage().0)
    }

    /// Wall time, which never goes back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Commits, and waits until the views have it. The audit entry is completed with what the writes change.
    ///
    /// # Errors
    /// As the store.
    pub async fn commit(
        &self,
        guards: Vec<Guard>,
        writes: Vec<Write>,
        audit: Audit,
    ) -> Result<Revision, CommitError> {
        let audit = audit::changing(&self.store, &writes, audit);
        let revision = self
            .store
            .commit(Commit {
                guards,
                writes,
                audit,
            })
            .await?;
        self.metrics.commits.increment(1);
        self.views.reached(revision).await;
        Ok(revision)
    }

    /// Changes a host's record. `change` may be called again when someone else was faster; when it returns false,
    /// nothing is written. Returns the record as it stands afterwards, and whether it was changed.
    ///
    /// # Errors
    /// What `change` refuses, and what the store refuses.
    pub async fn change_host(
        &self,
        id: HostId,
        audit: Audit,
        mut change: impl FnMut(&mut HostRecord) -> Result<bool, Refused> + Send,
    ) -> Result<(HostRecord, bool), Refused> {
        let at = key::host(id);
        for _ in 0..MOST_TRIES {
            let entry = self.store.get(&at)?.ok_or_else(|| Refused::no_host(id))?;
            let mut record = HostRecord::of(&entry)?;
            let stood = !matches!(record.standing, HostStanding::Retired { .. });
            if !change(&mut record)? {
                return Ok((record, false));
            }
            let mut writes = vec![record.put()];
            // A retired host's name is free in the same commit.
            if stood && matches!(record.standing, HostStanding::Retired { .. }) {
                writes.push(Write::Delete(key::name(&record.name)));
            }
            match self
                .commit(vec![Guard::At(at.clone(), entry.revision)], writes, audit.clone())
                .await
            {
                Ok(_) => return Ok((record, true)),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refused::NotNow(format!(
            "host {id} is being changed by many at once; try again"
        )))
    }

    /// The id of a host by its name.
    ///
    /// # Errors
    /// When there is none.
    pub fn host_named(&self, name: &Name) -> Result<HostId, Refused> {
        let host = self.views.read().roster.named(name).map(|host| host.record.id);
        host.ok_or_else(|| Refused::no_host(name))
    }

    /// What a host is called; its id when it is not known.
    #[must_use]
    pub fn name_of(&self, host: HostId) -> String {
        let name = self
            .views
            .read()
            .roster
            .host(host)
            .map(|host| host.record.name.to_string());
        name.unwrap_or_else(|| host.to_string())
    }

    /// Says that something happened.
    pub fn say(&self, severity: Severity, kind: &str, subject: &str, message: &str) {
        self.events.say(self.now(), severity, kind, subject, message);
    }

    /// Presence of every host.
    pub fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a host's presence changed.
    pub fn say_transition(&self, transition: Transition, planned: bool) {
        let Transition { host, from, to } = transition;
        let active = {
            let views = self.views.read();
            views
                .roster
                .host(host)
                .is_some_and(|host| host.record.standing == HostStanding::Active)
        };
        // The last beat of a host that is being cut off is no news.
        if !active {
            return;
        }
        let name = self.name_of(host);
        let (severity, kind, message) = match (to, planned) {
            (Presence::Online, _) => (Severity::Info, "host.online", format!("is online (was {from})")),
            (Presence::Late, _) => (Severity::Notice, "host.late", "missed a beat".to_owned()),
            (Presence::Offline, true) => (
                Severity::Info,
                "host.stopped",
                "its agent said goodbye".to_owned(),
            ),
            (Presence::Offline, false) => (
                Severity::Warning,
                "host.offline",
                "is silent; see whether the machine and its network are up".to_owned(),
            ),
            (Presence::NeverSeen, _) => return,
        };
        self.say(severity, kind, &name, &message);
    }

    /// Passes on what a change of the views means for those who are connected. Returns the connections that are to
    /// close, after their last message had [`LAST_WORD`](crate::sessions::LAST_WORD).
    #[must_use]
    pub fn pass_on(&self, affected: &Affected) -> Vec<CancellationToken> {
        if affected.ca {
            self.ca.changed();
        }
        for host in &affected.cut {
            self.sessions.end(*host, self.last_message(*host));
            let retired = {
                let views = self.views.read();
                let standing = views.roster.host(*host).map(|host| &host.record.standing);
                !matches!(standing, Some(HostStanding::Banned { .. }))
            };
            if retired {
                self.liveness().forget(*host);
                self.observed.forget(*host);
                self.nodes.settle(*host);
            } else {
                self.liveness().goodbye(*host);
            }
        }
        self.sessions.nudge(&affected.hosts);
        for governor in &affected.governors {
            self.watchers.note(*governor);
            if *governor == Governor::CENTRAL {
                self.central.nudge();
            }
        }
        self.news.send_replace(());
        for operator in &affected.operators {
            self.calls.hold_to(operator, gate::role(self, operator));
        }
        let hosts = affected.hosts.iter().map(|host| Identity::Host(host.0));
        let operators = affected
            .operators
            .iter()
            .filter_map(|name| name.parse().ok().map(Identity::Operator));
        let views = self.views.read();
        let spent = hosts.chain(operators).flat_map(|who| {
            self.sessions.to_close(&who, |fingerprint| {
                views.roster.admits(&who, fingerprint).is_some()
            })
        });
        spent.collect()
    }

    fn last_message(&self, host: HostId) -> Leave {
        let views = self.views.read();
        let standing = views.roster.host(host).map(|host| &host.record.standing);
        match standing {
            Some(HostStanding::Retired { reason, .. }) => Leave {
                reason: LeaveReason::Retired,
                message: format!("this host is retired: {reason}"),
                retry_after: None,
            },
            Some(HostStanding::Banned { reason, .. }) => Leave {
                reason: LeaveReason::Banned,
                message: format!("this host is banned: {reason}"),
                retry_after: None,
            },
            Some(HostStanding::Active) | None => Leave {
                reason: LeaveReason::Protocol,
                message: "the master does not know this host any more".to_owned(),
                retry_after: None,
            },
        }
    }
}
