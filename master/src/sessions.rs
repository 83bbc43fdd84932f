//! The open sessions and connections: who is to be nudged, who is to be asked, and who is to be cut.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use picket_clock::Instant;
use picket_link::Peer;
use picket_pki::{Fingerprint, Identity};
use picket_proto::{
    host::HostId,
    session::{Leave, LeaveReason},
};
use tokio::{
    sync::{Notify, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clones::{Clones, Machine},
    look::{Looked, Looks},
};

/// How long a host has for its last message before its connection is closed.
pub const LAST_WORD: Duration = Duration::from_millis(500);

/// How many connections a host has open at once: the one of its session, one under a new certificate, and what is left of
/// those that broke. One more closes the oldest, but never the one of the session: whoever copied the identity of a host
/// does not push it out by dialling.
const MOST_LINKS: usize = 4;
/// How many connections an operator has open at once: windows that watch, scripts. One more closes the oldest that has no
/// call open.
const MOST_OPERATOR_LINKS: usize = 64;
/// A host's connection without a call for this long is closed. An agent opens its session at once.
const IDLE: Duration = Duration::from_secs(60);
/// An operator's. Clients dial again when they need to.
const OPERATOR_IDLE: Duration = Duration::from_secs(300);

/// The open sessions, one for each host at most, and the connections under them.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Hosts of which there were two at once.
    pub clones: Clones,
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
    /// How many calls are open.
    calls: u32,
    /// Since when none is.
    idle: Instant,
}

#[derive(Debug)]
struct Handle {
    id: u64,
    who: Newcomer,
    post: Arc<Post>,
    end: watch::Sender<Option<Leave>>,
}

/// Who wants a seat.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer {
    /// What its agent says it runs on.
    pub machine: Machine,
    /// Whether its agent answers pings.
    pub answers: bool,
    /// Whether it looks at its controller when it is asked.
    pub looks: bool,
    /// Where it comes from.
    pub address: SocketAddr,
    /// The number of its connection.
    pub connection: u64,
}

/// What is put down for a session to take up.
#[derive(Debug, Default)]
pub struct Post {
    /// The host's desired documents may differ, or somebody asks.
    pub nudge: Notify,
    /// How many questions were asked, and up to which one the agent answered.
    asked: AtomicU64,
    answered: AtomicU64,
    /// What is asked of its controller.
    pub looks: Looks,
    /// The agent answered, or the session ended.
    heard: Notify,
}

/// What came of asking a session whether its agent is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The agent answered.
    Pong,
    /// It did not.
    Silence,
    /// The session ended meanwhile.
    End,
}

/// Its answered count when a session has ended.
const ENDED: u64 = u64::MAX;

impl Post {
    /// Has the session ping its agent, and waits for the answer. Whoever asks while a question is open waits for the answer
    /// to that one: two hundred who ask at once are one ping.
    pub async fn ask(&self, patience: Duration) -> Heard {
        let open = self.asked.load(Ordering::Acquire);
        let question = if open > self.answered.load(Ordering::Acquire) {
            open
        } else {
            self.asked.fetch_add(1, Ordering::AcqRel) + 1
        };
        self.nudge.notify_one();
        let answer = async {
            loop {
                let heard = self.heard.notified();
                match self.answered.load(Ordering::Acquire) {
                    ENDED => return Heard::End,
                    answered if answered >= question => return Heard::Pong,
                    _ => heard.await,
                }
            }
        };
        time::timeout(patience, answer).await.unwrap_or(Heard::Silence)
    }

    /// The question that waits for an answer, if one does.
    #[must_use]
    pub fn question(&self) -> Option<u64> {
        let asked = self.asked.load(Ordering::Acquire);
        (asked > self.answered.load(Ordering::Acquire)).then_some(asked)
    }

    /// Takes an answer in. One to a question that nobody asked counts for nothing.
    pub fn answer(&self, question: u64) {
        if question <= self.asked.load(Ordering::Acquire) {
            self.answered.fetch_max(question, Ordering::AcqRel);
            self.heard.notify_waiters();
        }
    }

    /// Has the agent look at its controller.
    pub async fn look(&self, patience: Duration) -> Looked {
        self.looks.ask(|| self.nudge.notify_one(), patience).await
    }

    fn end(&self) {
        self.answered.store(ENDED, Ordering::Release);
        self.heard.notify_waiters();
        self.looks.end();
    }
}

/// A session that has its host's seat, as another one sees it.
#[derive(Debug, Clone)]
pub struct Seated {
    /// Which.
    pub id: u64,
    /// Whose.
    pub who: Newcomer,
    /// Where to ask.
    pub post: Arc<Post>,
}

/// A session's own end of its handle. Dropping it takes the session off the list.
#[derive(Debug)]
pub struct Seat {
    sessions: Arc<Sessions>,
    host: HostId,
    id: u64,
    /// What is put down for it.
    pub post: Arc<Post>,
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

/// A call that is open on a connection. Dropping it ends it.
#[derive(Debug)]
pub struct Call {
    sessions: Arc<Sessions>,
    owner: Identity,
    connection: u64,
}

impl Sessions {
    /// The session that has a host's seat.
    #[must_use]
    pub fn seated(&self, host: HostId) -> Option<Seated> {
        self.open().get(&host).map(|handle| Seated {
            id: handle.id,
            who: handle.who,
            post: Arc::clone(&handle.post),
        })
    }

    /// Takes a seat for a host over the session `over`, which is told that it was replaced. None when another one has the
    /// seat than that, or one has it and none was named.
    pub fn sit(self: &Arc<Self>, host: HostId, who: Newcomer, over: Option<u64>) -> Option<Seat> {
        let mut open = self.open();
        if open.get(&host).map(|handle| handle.id) != over {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (end, end_seen) = watch::channel(None);
        let post = Arc::new(Post::default());
        let handle = Handle {
            id,
            who,
            post: Arc::clone(&post),
            end,
        };
        let replaced = open.insert(host, handle);
        drop(open);
        if let Some(old) = replaced {
            old.end.send_replace(Some(Leave {
                reason: LeaveReason::Replaced,
                message: format!(
                    "a session from {} took over; if no agent was restarted, a second machine uses this identity",
                    who.address
                ),
                retry_after: Some(Duration::from_secs(60)),
            }));
        }
        Some(Seat {
            sessions: Arc::clone(self),
            host,
            id,
            post,
            end: end_seen,
        })
    }

    /// Nudges the hosts that have a session: their desired documents may differ.
    pub fn nudge<'a>(&self, hosts: impl IntoIterator<Item = &'a HostId>) {
        let open = self.open();
        for host in hosts {
            if let Some(handle) = open.get(host) {
                handle.post.nudge.notify_one();
            }
        }
    }

    /// Nudges every session: what all are told may differ.
    pub fn nudge_all(&self) {
        for handle in self.open().values() {
            handle.post.nudge.notify_one();
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
    pub fn link(self: &Arc<Self>, peer: &Peer, now: Instant) -> Link {
        let (owner, id) = (&peer.identity, peer.connection);
        let closed = CancellationToken::new();
        let seat = match owner {
            Identity::Host(host) => self
                .open()
                .get(&HostId(*host))
                .map(|handle| handle.who.connection),
            Identity::Operator(_) | Identity::Master => None,
        };
        let most = if matches!(owner, Identity::Host(_)) {
            MOST_LINKS
        } else {
            MOST_OPERATOR_LINKS
        };
        let mut links = self.links();
        let theirs = links.entry(owner.clone()).or_default();
        // Those that were told to close are off the list when they are gone, which takes a moment.
        let there = || theirs.iter().filter(|open| !open.closed.is_cancelled());
        if there().count() >= most {
            let others = || there().filter(|open| Some(open.id) != seat);
            let idle = others().find(|open| open.calls == 0);
            if let Some(least) = idle.or_else(|| others().next()) {
                least.closed.cancel();
            }
        }
        theirs.push(Open {
            id,
            fingerprint: peer.fingerprint,
            closed: closed.clone(),
            calls: 0,
            idle: now,
        });
        drop(links);
        Link {
            sessions: Arc::clone(self),
            owner: owner.clone(),
            id,
            closed,
        }
    }

    /// Takes in that a call was opened on a connection.
    pub fn call(self: &Arc<Self>, owner: &Identity, connection: u64) -> Call {
        self.with_link(owner, connection, |open| open.calls += 1);
        Call {
            sessions: Arc::clone(self),
            owner: owner.clone(),
            connection,
        }
    }

    /// Closes the connections that have had no call for too long. Pings are none. Returns how many there were.
    pub fn close_idle(&self, now: Instant) -> usize {
        let links = self.links();
        let mut closed = 0;
        for (owner, theirs) in links.iter() {
            let patience = if matches!(owner, Identity::Host(_)) {
                IDLE
            } else {
                OPERATOR_IDLE
            };
            let idle = |open: &&Open| {
                open.calls == 0
                    && now.saturating_duration_since(open.idle) >= patience
                    && !open.closed.is_cancelled()
            };
            for open in theirs.iter().filter(idle) {
                open.closed.cancel();
                closed += 1;
            }
        }
        closed
    }

    fn with_link(&self, owner: &Identity, connection: u64, change: impl FnOnce(&mut Open)) {
        let mut links = self.links();
        let theirs = links.get_mut(owner).into_iter().flatten();
        if let Some(open) = theirs.into_iter().find(|open| open.id == connection) {
            change(open);
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
        drop(open);
        self.post.end();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let now = Instant::now();
        self.sessions.with_link(&self.owner, self.connection, |open| {
            open.calls = open.calls.saturating_sub(1);
            open.idle = now;
        });
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
    use jiff::Timestamp;
    use picket_pki::Issuer;
    use uuid::Uuid;

    use super::*;

    const OSLO: HostId = HostId(Uuid::from_u128(1));

    fn newcomer(connection: u64) -> Newcomer {
        let hello = picket_proto::session::Hello {
            version: String::new(),
            capabilities: Vec::new(),
            machine_id: "one".to_owned(),
            boot_id: "one".to_owned(),
            instance_id: [1; 16],
            time: Timestamp::UNIX_EPOCH,
            held: Vec::new(),
            node_proof: None,
            authorities: Vec::new(),
        };
        Newcomer {
            machine: Machine::of(&hello),
            answers: true,
            looks: true,
            address: ([192, 0, 2, 1], 1).into(),
            connection,
        }
    }

    fn peer(identity: &Identity, pin: &[u8], connection: u64) -> Peer {
        Peer {
            identity: identity.clone(),
            fingerprint: Fingerprint::of(pin),
            not_after: Timestamp::MAX,
            address: ([192, 0, 2, 1], 1).into(),
            binding: [0; 32].into(),
            issuer: Issuer(Fingerprint::of(b"a CA")),
            connection,
        }
    }

    #[tokio::test]
    async fn the_newer_session_has_the_seat_and_the_older_is_told() {
        let sessions = Arc::new(Sessions::default());
        let older = sessions.sit(OSLO, newcomer(1), None).unwrap();
        assert!(
            sessions.sit(OSLO, newcomer(2), None).is_none(),
            "a seat that is taken is taken from somebody"
        );
        let newer = sessions.sit(OSLO, newcomer(2), Some(older.id)).unwrap();
        assert_eq!(
            older.end.borrow().as_ref().map(|leave| leave.reason),
            Some(LeaveReason::Replaced)
        );
        assert!(
            sessions.sit(OSLO, newcomer(3), Some(older.id)).is_none(),
            "who was asked is not who sits there"
        );
        drop(older);
        assert!(
            sessions.has(OSLO),
            "the older one's end does not take the newer one's seat"
        );
        drop(newer);
        assert!(sessions.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn two_hundred_who_ask_at_once_are_one_question() {
        let sessions = Arc::new(Sessions::default());
        let seat = sessions.sit(OSLO, newcomer(1), None).unwrap();
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let post = sessions.seated(OSLO).unwrap().post;
            asking.spawn(async move { post.ask(Duration::from_secs(3)).await });
        }
        seat.post.nudge.notified().await;
        // The clock stands still until all of them wait.
        time::sleep(Duration::from_secs(1)).await;
        assert_eq!(seat.post.question(), Some(1));
        seat.post.answer(7);
        assert_eq!(seat.post.question(), Some(1), "nobody asked that");
        seat.post.answer(1);
        let heard = asking.join_all().await;
        assert!(heard.len() == 200 && heard.iter().all(|heard| *heard == Heard::Pong));
        let post = sessions.seated(OSLO).unwrap().post;
        assert_eq!(post.ask(Duration::from_secs(3)).await, Heard::Silence);
        assert_eq!(seat.post.question(), Some(2));
        drop(seat);
        assert_eq!(post.ask(Duration::from_secs(3)).await, Heard::End);
    }

    #[tokio::test]
    async fn a_host_with_connection_after_connection_loses_the_oldest_but_never_that_of_its_session() {
        let sessions = Arc::new(Sessions::default());
        let oslo = Identity::Host(Uuid::from_u128(1));
        let now = Instant::now();
        let first = sessions.link(&peer(&oslo, b"current", 0), now);
        let _seat = sessions.sit(OSLO, newcomer(0), None).unwrap();
        let links: Vec<_> = (1..200)
            .map(|n| sessions.link(&peer(&oslo, b"current", n), now))
            .collect();
        assert!(!first.closed.is_cancelled());
        let left = links.iter().filter(|link| !link.closed.is_cancelled());
        assert_eq!(left.count(), MOST_LINKS - 1);
        assert!(!links.last().unwrap().closed.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_call_is_closed_after_a_minute_and_one_with_a_call_never() {
        let sessions = Arc::new(Sessions::default());
        let (oslo, ada) = (
            Identity::Host(Uuid::from_u128(1)),
            Identity::Operator("ada".parse().unwrap()),
        );
        let now = Instant::now();
        let (idle, busy) = (
            sessions.link(&peer(&oslo, b"current", 1), now),
            sessions.link(&peer(&oslo, b"current", 2), now),
        );
        let operator = sessions.link(&peer(&ada, b"ada", 3), now);
        let call = sessions.call(&oslo, 2);
        assert_eq!(sessions.close_idle(now + IDLE - Duration::from_secs(1)), 0);
        assert_eq!(sessions.close_idle(now + IDLE), 1);
        assert!(idle.closed.is_cancelled() && !busy.closed.is_cancelled() && !operator.closed.is_cancelled());
        time::advance(2 * IDLE).await;
        drop(call);
        assert_eq!(
            sessions.close_idle(now + 2 * IDLE),
            0,
            "its minute begins with the end of its last call"
        );
        assert_eq!(sessions.close_idle(now + 3 * IDLE), 1);
        assert!(busy.closed.is_cancelled());
        assert_eq!(sessions.close_idle(now + OPERATOR_IDLE), 1);
    }

    #[tokio::test]
    async fn a_pin_that_is_gone_closes_its_connections_and_no_other() {
        let sessions = Arc::new(Sessions::default());
        let (oslo, bergen) = (
            Identity::Host(Uuid::from_u128(1)),
            Identity::Host(Uuid::from_u128(2)),
        );
        let (spent, current): (&[u8], &[u8]) = (b"spent", b"current");
        let now = Instant::now();
        let links = [(&oslo, spent, 1), (&oslo, current, 2), (&bergen, spent, 3)]
            .map(|(who, pin, n)| sessions.link(&peer(who, pin, n), now));
        for closed in sessions.to_close(&oslo, |pin| *pin == Fingerprint::of(current)) {
            closed.cancel();
        }
        assert_eq!(links.map(|link| link.closed.is_cancelled()), [true, false, false]);
    }
}
