//! The open sessions and connections: who is to be nudged, and who is to be cut.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use picket_pki::{Fingerprint, Identity};
use picket_proto::{
    host::HostId,
    session::{Leave, LeaveReason},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How long a host has for its last message before its connection is closed.
pub const LAST_WORD: Duration = Duration::from_millis(500);

/// How many connections a host has open at once: the one of its session, one under a new certificate, and what is left of
/// those that broke. One more closes the oldest.
const MOST_LINKS: usize = 4;

/// The open sessions, one for each host at most, and the connections under them.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<HostId, Handle>>,
    links: Mutex<HashMap<Identity, Vec<Open>>>,
    next: AtomicU64,
}

/// A connection on the list.
#[derive(Debug)]
struct Open {
    id: u64,
    fingerprint: Fingerprint,
    closed: CancellationToken,
}

#[derive(Debug)]
struct Handle {
    id: u64,
    nudge: Arc<Notify>,
    end: watch::Sender<Option<Leave>>,
}

/// A session's own end of its handle. Dropping it takes the session off the list.
#[derive(Debug)]
pub struct Seat {
    sessions: Arc<Sessions>,
    host: HostId,
    id: u64,
    /// The host's desired documents may differ.
    pub nudge: Arc<Notify>,
    /// The session is to end, with this as its last message.
    pub end: watch::Receiver<Option<Leave>>,
}

/// A connection's place on the list. Dropping it takes the connection off.
#[derive(Debug)]
pub struct Link {
    sessions: Arc<Sessions>,
    owner: Identity,
    id: u64,
    /// Fires when the connection is to close.
    pub closed: CancellationToken,
}

impl Sessions {
    /// Takes a seat for a host. A session that has it already is told that it was replaced.
    pub fn sit(self: &Arc<Self>, host: HostId) -> Seat {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (end, end_seen) = watch::channel(None);
        let nudge = Arc::new(Notify::new());
        let replaced = self.open().insert(
            host,
            Handle {
                id,
                nudge: Arc::clone(&nudge),
                end,
            },
        );
        if let Some(old) = replaced {
            old.end.send_replace(Some(Leave {
                reason: LeaveReason::Replaced,
                message: "another session of this host took over; if no agent was restarted, a second machine uses \
                          this identity"
                    .to_owned(),
                retry_after: Some(Duration::from_secs(60)),
            }));
        }
        Seat {
            sessions: Arc::clone(self),
            host,
            id,
            nudge,
            end: end_seen,
        }
    }

    /// Nudges the hosts that have a session: their desired documents may differ.
    pub fn nudge<'a>(&self, hosts: impl IntoIterator<Item = &'a HostId>) {
        let open = self.open();
        for host in hosts {
            if let Some(handle) = open.get(host) {
                handle.nudge.notify_one();
            }
        }
    }

    /// Ends a host's session with a last message. Returns whether it had one.
    pub fn end(&self, host: HostId, leave: Leave) -> bool {
        self.open().get(&host).is_some_and(|handle| {
            handle.end.send_replace(Some(leave));
            true
        })
    }

    /// Whether a host has a session.
    #[must_use]
    pub fn has(&self, host: HostId) -> bool {
        self.open().contains_key(&host)
    }

    /// How many sessions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open().len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open().is_empty()
    }

    /// Puts a connection on the list.
    pub fn link(self: &Arc<Self>, owner: &Identity, fingerprint: Fingerprint) -> Link {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let closed = CancellationToken::new();
        let mut links = self.links();
        let theirs = links.entry(owner.clone()).or_default();
        if matches!(owner, Identity::Host(_))
            && theirs.len() >= MOST_LINKS
            && let Some(oldest) = theirs.first()
        {
            oldest.closed.cancel();
        }
        theirs.push(Open {
            id,
            fingerprint,
            closed: closed.clone(),
        });
        drop(links);
        Link {
            sessions: Arc::clone(self),
            owner: owner.clone(),
            id,
            closed,
        }
    }

    /// The connections of `owner` whose certificate `admits` does not take any more. Cancelling one closes it.
    #[must_use]
    pub fn to_close(
        &self,
        owner: &Identity,
        admits: impl Fn(&Fingerprint) -> bool,
    ) -> Vec<CancellationToken> {
        let links = self.links();
        let theirs = links.get(owner).into_iter().flatten();
        theirs
            .filter(|open| !admits(&open.fingerprint))
            .map(|open| open.closed.clone())
            .collect()
    }

    /// Ends every session with a last message.
    pub fn end_all(&self, leave: &Leave) {
        for handle in self.open().values() {
            handle.end.send_replace(Some(leave.clone()));
        }
    }

    /// Every connection. Cancelling one closes it.
    #[must_use]
    pub fn everybody(&self) -> Vec<CancellationToken> {
        let links = self.links();
        links.values().flatten().map(|open| open.closed.clone()).collect()
    }

    /// Closes every connection.
    pub fn close_all(&self) {
        for open in self.links().values().flatten() {
            open.closed.cancel();
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<HostId, Handle>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<Identity, Vec<Open>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.sessions.open();
        if open.get(&self.host).is_some_and(|handle| handle.id == self.id) {
            open.remove(&self.host);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut links = self.sessions.links();
        if let Some(list) = links.get_mut(&self.owner) {
            list.retain(|open| open.id != self.id);
            if list.is_empty() {
                links.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const OSLO: HostId = HostId(Uuid::from_u128(1));

    #[test]
    fn the_newer_session_has_the_seat_and_the_older_is_told() {
        let sessions = Arc::new(Sessions::default());
        let older = sessions.sit(OSLO);
        let newer = sessions.sit(OSLO);
        assert_eq!(
            older.end.borrow().as_ref().map(|leave| leave.reason),
            Some(LeaveReason::Replaced)
        );
        drop(older);
        assert!(
            sessions.has(OSLO),
            "the older one's end does not take the newer one's seat"
        );
        drop(newer);
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_host_with_connection_after_connection_loses_the_oldest() {
        let sessions = Arc::new(Sessions::default());
        let oslo = Identity::Host(Uuid::from_u128(1));
        let links: Vec<_> = (0..6)
            .map(|_| sessions.link(&oslo, Fingerprint::of(b"current")))
            .collect();
        assert!(links[0].closed.is_cancelled() && !links[5].closed.is_cancelled());
    }

    #[test]
    fn a_pin_that_is_gone_closes_its_connections_and_no_other() {
        let sessions = Arc::new(Sessions::default());
        let (oslo, bergen) = (
            Identity::Host(Uuid::from_u128(1)),
            Identity::Host(Uuid::from_u128(2)),
        );
        let (spent, current) = (Fingerprint::of(b"spent"), Fingerprint::of(b"current"));
        let links =
            [(&oslo, spent), (&oslo, current), (&bergen, spent)].map(|(who, pin)| sessions.link(who, pin));
        for closed in sessions.to_close(&oslo, |pin| *pin == current) {
            closed.cancel();
        }
        assert_eq!(links.map(|link| link.closed.is_cancelled()), [true, false, false]);
    }
}
