//! What hosts say of themselves: soft state, by host.
//!
//! Bodies are kept as they came, under their digests; a small summary of each is made when it changes, so that a beat
//! that changes nothing costs four comparisons. What is here may be lost: a host says it again.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use jiff::{SignedDuration, Timestamp};
use picket_clock::Instant;
use picket_proto::{
    WireError,
    beat::{Digest, MOST_SECTION_BYTES, Section, SectionKind},
    document::{Kind, Outcome, Stamp},
    host::HostId,
    status::{ControllerStatus, DeckiesStatus, DeckyState, HostStatus, Read, ServiceState, ZeroTierStatus},
};
use picket_zerotier::ids::NodeId;

use crate::network_watch::Told;

/// A host's clock may differ this much from the master's before that is a condition.
pub const MOST_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// Everything hosts said.
#[derive(Debug, Default)]
pub struct Observed {
    hosts: RwLock<HashMap<HostId, Arc<Seen>>>,
}

/// What one host said.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    sections: [Option<(Digest, Bytes)>; SectionKind::ALL.len()],
    partial: Option<Partial>,
    summary: Summary,
    documents: [Tried; Kind::ALL.len()],
    address: Option<SocketAddr>,
    skew: SignedDuration,
    machine_id: Box<str>,
    /// Bodies that made no sense, by section: the same one is not asked for again.
    refused: [Option<Digest>; SectionKind::ALL.len()],
    voice: Voice,
    /// The same of events about its networks, which come in crowds.
    news: Voice,
    /// When it named its controller's section last.
    controller_said: Option<Timestamp>,
    /// What was told of its controller; of most hosts nothing ever is.
    told: Option<Box<Told>>,
}

/// How many events an agent may cause at once, about its networks and about everything else: a list of repairs has up to 256
/// of drift and 64 others, and each is an event.
const NEWS_BURST: u32 = 320;
const BURST: u32 = 32;
/// One more may be told each time this has passed. A day of that is less than the list has room for.
const EVERY: Duration = Duration::from_secs(10);

/// How many events an agent may cause: a burst, then one every few seconds. A host that somebody broke into cannot push
/// everybody else's events off the list.
#[derive(Debug, Default)]
struct Voice {
    left: u32,
    refilled: Option<Instant>,
}

impl Voice {
    /// Whether one more may be told at `now`, of `burst` at once.
    fn may(&mut self, now: Instant, burst: u32) -> bool {
        let Some(refilled) = self.refilled else {
            *self = Self {
                left: burst - 1,
                refilled: Some(now),
            };
            return true;
        };
        let due = now.saturating_duration_since(refilled).as_secs() / EVERY.as_secs();
        if due > 0 {
            self.left = self
                .left
                .saturating_add(u32::try_from(due).unwrap_or(u32::MAX))
                .min(burst);
            self.refilled = Some(now);
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// A body that is on its way in chunks.
#[derive(Debug)]
struct Partial {
    kind: SectionKind,
    digest: Digest,
    size: usize,
    held: BytesMut,
}

/// What lists show of a host, from its sections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The local node, as it says.
    pub node: Option<NodeId>,
    /// How many deckies are in each state, in the order of [`DeckyState::ALL`].
    pub deckies: [u16; DeckyState::ALL.len()],
    /// The agent's version.
    pub agent_version: Box<str>,
    /// What is wrong, by section.
    conditions: [Vec<Box<str>>; SectionKind::ALL.len()],
}

impl Summary {
    /// Whether its ZeroTier service was looked for, and does not say which node it is.
    #[must_use]
    pub fn is_without_zerotier(&self) -> bool {
        self.node.is_none() && !self.conditions[slot(SectionKind::ZeroTier)].is_empty()
    }

    /// How many deckies there are, and how many of them run.
    #[must_use]
    pub fn decky_counts(&self) -> (u32, u32) {
        let running = DeckyState::ALL
            .iter()
            .position(|state| *state == DeckyState::Running)
            .unwrap_or_default();
        (
            self.deckies.iter().map(|n| u32::from(*n)).sum(),
            u32::from(self.deckies[running]),
        )
    }
}

/// How one document of a host fared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// What was announced last.
    pub wanted: Option<Wanted>,
    /// What became of the one that was tried last.
    pub outcome: Option<Outcome>,
}

/// A document as it was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its number.
    pub stamp: Stamp,
    /// The generation its body begins after; 0 when it is whole.
    pub since: u64,
    /// Of its body.
    pub digest: Digest,
}

/// What taking a section in led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is what was known.
    Same,
    /// It is new and was taken in.
    Changed {
        /// The entries that make no sense and were skipped.
        skipped: Skips,
    },
    /// Its body is not known; the host is asked for it.
    Unknown,
    /// Its body makes no sense at all; what was known stays.
    Nonsense(WireError),
}

/// How many of them are named.
const MOST_NAMED: usize = 3;

/// The entries of one section that make no sense.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skips {
    /// How many.
    pub count: usize,
    /// The first of them by name, with what is wrong; empty when there is none.
    pub told: String,
}

fn slot(kind: SectionKind) -> usize {
    match kind {
        SectionKind::ZeroTier => 0,
        SectionKind::Controller => 1,
        SectionKind::Deckies => 2,
        SectionKind::Host => 3,
    }
}

fn document_slot(kind: Kind) -> usize {
    match kind {
        Kind::Networks => 0,
        Kind::Members => 1,
        Kind::Shard => 2,
    }
}

impl Observed {
    /// What a host said; an empty one is made for a host that was not heard before.
    pub fn of(&self, host: HostId) -> Arc<Seen> {
        if let Some(seen) = self.get(host) {
            return seen;
        }
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(host).or_default())
    }

    /// What a host said, if it was heard at all.
    #[must_use]
    pub fn get(&self, host: HostId) -> Option<Arc<Seen>> {
        self.hosts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&host)
            .cloned()
    }

    /// Forgets a host.
    pub fn forget(&self, host: HostId) {
        self.hosts
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&host);
    }

    /// Everybody who was heard.
    #[must_use]
    pub fn all(&self) -> Vec<(HostId, Arc<Seen>)> {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        hosts.iter().map(|(id, seen)| (*id, Arc::clone(seen))).collect()
    }
}

impl Seen {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in where a session comes from and the machine it says it is.
    pub fn connected(&self, address: SocketAddr, machine_id: &str) {
        let mut inner = self.inner();
        inner.address = Some(address);
        inner.machine_id = machine_id.into();
    }

    /// Whether one more event that the host causes may be told at `now`.
    pub fn may_tell(&self, now: Instant) -> bool {
        self.inner().voice.may(now, BURST)
    }

    /// Whether one more event about the networks of its controller may be told at `now`.
    pub fn may_tell_of_networks(&self, now: Instant) -> bool {
        self.inner().news.may(now, NEWS_BURST)
    }

    /// Notes that a beat named its controller's section.
    pub fn controller_says(&self, now: Timestamp) {
        self.inner().controller_said = Some(now);
    }

    /// When it did so last.
    #[must_use]
    pub fn controller_said(&self) -> Option<Timestamp> {
        self.inner().controller_said
    }

    /// How far its clock is ahead of the master's.
    #[must_use]
    pub fn skew(&self) -> SignedDuration {
        self.inner().skew
    }

    /// What was told of its controller.
    #[must_use]
    pub fn told(&self) -> Told {
        self.inner().told.as_deref().cloned().unwrap_or_default()
    }

    /// Notes what was told of its controller.
    pub fn remember(&self, told: Told) {
        self.inner().told = (told != Told::default()).then(|| Box::new(told));
    }

    /// Takes in how far the host's clock is from the master's.
    pub fn skewed(&self, skew: SignedDuration) {
        self.inner().skew = skew;
    }

    /// Takes in one section of a beat.
    pub fn take(&self, kind: SectionKind, section: Section) -> Taken {
        let mut inner = self.inner();
        if inner.sections[slot(kind)]
            .as_ref()
            .is_some_and(|(known, _)| *known == section.digest)
        {
            return Taken::Same;
        }
        if inner.refused[slot(kind)] == Some(section.digest) {
            return Taken::Same;
        }
        let body = section.body.or_else(|| inner.complete(kind, section.digest));
        let Some(body) = body else { return Taken::Unknown };
        match inner.summary.take(kind, &body) {
            Ok(skipped) => {
                // A body from the wire is a slice of the stream's buffer, and would keep all 8 KiB of it.
                let body = Bytes::copy_from_slice(&body);
                inner.sections[slot(kind)] = Some((section.digest, body));
                Taken::Changed { skipped }
            }
            Err(error) => {
                inner.refused[slot(kind)] = Some(section.digest);
                Taken::Nonsense(error)
            }
        }
    }

    /// Takes in that a section is not there any more. Returns whether it was.
    pub fn absent(&self, kind: SectionKind) -> bool {
        let mut inner = self.inner();
        let was = inner.sections[slot(kind)].take().is_some();
        if was {
            inner.summary.clear(kind);
        }
        was
    }

    /// Takes in a chunk of a long body. Returns how many bytes of it are held; a chunk that does not continue them is
    /// passed over, so that the caller goes on from there.
    ///
    /// # Errors
    /// When the body is longer than it says or than any may be.
    pub fn chunk(
        &self,
        (kind, digest, size): (SectionKind, Digest, usize),
        offset: usize,
        chunk: &[u8],
    ) -> Result<usize, WireError> {
        if size > MOST_SECTION_BYTES {
            return Err(WireError::new(
                "report.size",
                format_args!("{size} bytes, at most {MOST_SECTION_BYTES}"),
            ));
        }
        let mut inner = self.inner();
        if inner.sections[slot(kind)]
            .as_ref()
            .is_some_and(|(known, _)| *known == digest)
        {
            return Ok(size);
        }
        let same = inner
            .partial
            .as_ref()
            .is_some_and(|p| p.kind == kind && p.digest == digest && p.size == size);
        if !same {
            inner.partial = Some(Partial {
                kind,
                digest,
                size,
                held: BytesMut::new(),
            });
        }
        let Some(partial) = inner.partial.as_mut() else {
            return Ok(0);
        };
        if offset == partial.held.len() {
            if partial.held.len() + chunk.len() > size {
                inner.partial = None;
                return Err(WireError::new(
                    "report.chunk",
                    "goes beyond the size it came with",
                ));
            }
            partial.held.extend_from_slice(chunk);
        }
        Ok(partial.held.len())
    }

    /// Takes in that a document was announced.
    pub fn wanted(&self, kind: Kind, wanted: Wanted) {
        self.inner().documents[document_slot(kind)].wanted = Some(wanted);
    }

    /// Takes in an outcome. Returns whether it differs from the one before.
    pub fn outcome(&self, outcome: Outcome) -> bool {
        let mut inner = self.inner();
        let tried = &mut inner.documents[document_slot(outcome.kind)];
        let differs = tried.outcome.as_ref() != Some(&outcome);
        tried.outcome = Some(outcome);
        differs
    }

    /// How a document fared.
    #[must_use]
    pub fn tried(&self, kind: Kind) -> Tried {
        self.inner().documents[document_slot(kind)].clone()
    }

    /// What lists show.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.inner().summary.clone()
    }

    /// The node and how many deckies are in each state; without a copy of the rest.
    pub fn glance<T>(&self, look: impl FnOnce(&Summary) -> T) -> T {
        look(&self.inner().summary)
    }

    /// Where its last session came from, and the machine it said it is.
    #[must_use]
    pub fn connection(&self) -> (Option<SocketAddr>, String) {
        let inner = self.inner();
        (inner.address, inner.machine_id.to_string())
    }

    /// What is wrong on the host, in sentences.
    #[must_use]
    pub fn conditions(&self) -> Vec<String> {
        let inner = self.inner();
        let mut found: Vec<String> = inner
            .summary
            .conditions
            .iter()
            .flatten()
            .map(|condition| condition.to_string())
            .collect();
        if inner.skew.abs() > MOST_SKEW {
            let direction = if inner.skew.is_positive() {
                "ahead of"
            } else {
                "behind"
            };
            found.push(format!(
                "clock: {} s {direction} the master's; set it",
                inner.skew.abs().as_secs()
            ));
        }
        for tried in &inner.documents {
            if let Some(outcome) = &tried.outcome {
                let problems = outcome.problems.iter().take(4);
                found.extend(
                    problems.map(|problem| format!("{} {}: {problem}", outcome.kind, outcome.status)),
                );
            }
        }
        found
    }

    /// What was said of the local ZeroTier service.
    #[must_use]
    pub fn zerotier(&self) -> Option<ZeroTierStatus> {
        ZeroTierStatus::decode(&self.body(SectionKind::ZeroTier)?)
            .ok()
            .map(|read| read.status)
    }

    /// What was said of the local controller.
    #[must_use]
    pub fn controller(&self) -> Option<ControllerStatus> {
        ControllerStatus::decode(&self.body(SectionKind::Controller)?)
            .ok()
            .map(|read| read.status)
    }

    /// What was said of the deckies.
    #[must_use]
    pub fn deckies(&self) -> Option<DeckiesStatus> {
        DeckiesStatus::decode(&self.body(SectionKind::Deckies)?)
            .ok()
            .map(|read| read.status)
    }

    /// What was said of the machine.
    #[must_use]
    pub fn host(&self) -> Option<HostStatus> {
        HostStatus::decode(&self.body(SectionKind::Host)?)
            .ok()
            .map(|read| read.status)
    }

    /// The digest of a section's body; what is read of one need not be read again while it is the same.
    #[must_use]
    pub fn digest(&self, kind: SectionKind) -> Option<Digest> {
        self.inner().sections[slot(kind)]
            .as_ref()
            .map(|(digest, _)| *digest)
    }

    /// A section's body.
    #[must_use]
    pub fn body(&self, kind: SectionKind) -> Option<Bytes> {
        self.inner().sections[slot(kind)]
            .as_ref()
            .map(|(_, body)| body.clone())
    }
}

impl Inner {
    /// The body that came in chunks, when it is whole and is what it said.
    fn complete(&mut self, kind: SectionKind, digest: Digest) -> Option<Bytes> {
        let fits = |p: &Partial| p.kind == kind && p.digest == digest && p.held.len() == p.size;
        if !self.partial.as_ref().is_some_and(fits) {
            return None;
        }
        let body = self.partial.take()?.held.freeze();
        (Digest::of(&body) == digest).then_some(body)
    }
}

impl Summary {
    /// Reads a body. Returns which of its entries were skipped.
    fn take(&mut self, kind: SectionKind, body: &[u8]) -> Result<Skips, WireError> {
        let (mut conditions, skipped) = match kind {
            SectionKind::ZeroTier => {
                let read = ZeroTierStatus::decode(body)?;
                self.node = read.status.node;
                complaints(kind, Some(&read.status.service), &read)
            }
            SectionKind::Controller => {
                let read = ControllerStatus::decode(body)?;
                complaints(kind, Some(&read.status.service), &read)
            }
            SectionKind::Deckies => {
                let read = DeckiesStatus::decode(body)?;
                self.deckies = DeckyState::ALL.map(|state| {
                    let count = read
                        .status
                        .deckies
                        .iter()
                        .filter(|decky| decky.state == state)
                        .count();
                    u16::try_from(count).unwrap_or(u16::MAX)
                });
                complaints(kind, Some(&read.status.service), &read)
            }
            SectionKind::Host => {
                let read = HostStatus::decode(body)?;
                self.agent_version = read.status.agent_version.as_str().into();
                let (mut conditions, skipped) = complaints(kind, None, &read);
                conditions.extend(
                    read.status
                        .problems
                        .iter()
                        .take(8)
                        .map(|problem| problem.to_string().into()),
                );
                (conditions, skipped)
            }
        };
        conditions.shrink_to_fit();
        self.conditions[slot(kind)] = conditions;
        Ok(skipped)
    }

    fn clear(&mut self, kind: SectionKind) {
        self.conditions[slot(kind)].clear();
        match kind {
            SectionKind::ZeroTier => self.node = None,
            SectionKind::Deckies => self.deckies = Default::default(),
            SectionKind::Controller | SectionKind::Host => {}
        }
    }
}

fn complaints<T>(
    kind: SectionKind,
    service: Option<&ServiceState>,
    read: &Read<T>,
) -> (Vec<Box<str>>, Skips) {
    let mut found: Vec<Box<str>> = Vec::new();
    if let Some(problem) = service.and_then(ServiceState::problem) {
        found.push(format!("{kind}: {problem}").into());
    }
    let skips = skips(read);
    if skips.count > 0 {
        found.push(format!("{kind}: {}", skips.told).into());
    }
    (found, skips)
}

fn skips<T>(read: &Read<T>) -> Skips {
    let count = read.skipped_count;
    let named: Vec<_> = read
        .skipped
        .iter()
        .take(MOST_NAMED)
        .map(|(name, error)| format!("{} ({error})", name.escape_debug()))
        .collect();
    let more = match count - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let told = match count {
        0 => String::new(),
        1 => format!("1 entry makes no sense and was skipped: {}", named.join(", ")),
        count => format!(
            "{count} entries make no sense and were skipped: {}{more}",
            named.join(", ")
        ),
    };
    Skips { count, told }
}

#[cfg(test)]
mod tests {
    use picket_proto::status::DeckyStatus;

    use super::*;

    fn section(body: &Bytes) -> Section {
        Section {
            digest: Digest::of(body),
            body: Some(body.clone()),
        }
    }

    fn deckies(names: &[&str]) -> Bytes {
        let decky = |name: &&str| DeckyStatus {
            name: name.parse().unwrap(),
            deployment: "oslo".parse().unwrap(),
            state: DeckyState::Running,
            problem: String::new(),
            address: None,
            container: String::new(),
            services: Vec::new(),
        };
        DeckiesStatus {
            deckies: names.iter().map(decky).collect(),
            ..DeckiesStatus::default()
        }
        .encode()
    }

    #[test]
    fn a_digest_the_master_does_not_have_makes_it_ask() {
        let seen = Seen::default();
        let body = deckies(&["web-01"]);
        assert_eq!(
            seen.take(
                SectionKind::Deckies,
                Section {
                    digest: Digest::of(&body),
                    body: None
                }
            ),
            Taken::Unknown
        );
        assert_eq!(
            seen.take(SectionKind::Deckies, section(&body)),
            Taken::Changed {
                skipped: Skips::default()
            }
        );
        assert_eq!(
            seen.take(
                SectionKind::Deckies,
                Section {
                    digest: Digest::of(&body),
                    body: None
                }
            ),
            Taken::Same
        );
        assert_eq!(seen.summary().decky_counts(), (1, 1));
    }

    #[test]
    fn a_body_of_nonsense_leaves_what_was_known() {
        let seen = Seen::default();
        seen.take(SectionKind::Deckies, section(&deckies(&["web-01"])));
        let nonsense = Bytes::from_static(&[0xff; 7]);
        assert!(matches!(
            seen.take(SectionKind::Deckies, section(&nonsense)),
            Taken::Nonsense(_)
        ));
        assert_eq!(seen.deckies().unwrap().deckies.len(), 1);
    }

    #[test]
    fn a_long_body_arrives_in_chunks_and_goes_on_where_it_broke_off() {
        let seen = Seen::default();
        let body = deckies(&["web-01", "web-02"]);
        let what = (SectionKind::Deckies, Digest::of(&body), body.len());
        assert_eq!(seen.chunk(what, 0, &body[..10]), Ok(10));
        assert_eq!(
            seen.chunk(what, 0, &body[..10]),
            Ok(10),
            "a repeated chunk is passed over"
        );
        assert_eq!(seen.chunk(what, 10, &body[10..]), Ok(body.len()));
        let named = Section {
            digest: what.1,
            body: None,
        };
        assert_eq!(
            seen.take(SectionKind::Deckies, named),
            Taken::Changed {
                skipped: Skips::default()
            }
        );
    }

    #[test]
    fn a_body_may_not_be_longer_than_it_said_or_than_any_may_be() {
        let seen = Seen::default();
        let what = |size| (SectionKind::Deckies, Digest::of(b""), size);
        assert_eq!(
            seen.chunk(what(MOST_SECTION_BYTES + 1), 0, b"")
                .unwrap_err()
                .field,
            "report.size"
        );
        assert_eq!(
            seen.chunk(what(4), 0, b"12345").unwrap_err().field,
            "report.chunk"
        );
    }

    #[test]
    fn an_agent_may_cause_a_burst_of_events_and_then_one_every_ten_seconds() {
        let now = picket_clock::Clock::system().monotonic();
        let seen = Seen::default();
        let heard = (0..1000).filter(|_| seen.may_tell(now)).count();
        assert_eq!(heard, 32);
        let of_networks = (0..1000).filter(|_| seen.may_tell_of_networks(now)).count();
        assert_eq!(
            of_networks, 320,
            "whoever spent the one has the other, and a whole list of repairs fits"
        );
        for may in [Seen::may_tell, Seen::may_tell_of_networks] {
            let later = (1..=600).filter(|second| may(&seen, now + Duration::from_secs(*second)));
            assert_eq!(later.count(), 60);
        }
        let day = 320 + 24 * 3600 / EVERY.as_secs();
        assert!(day < u64::try_from(crate::event::MOST_KEPT).unwrap());
    }

    #[test]
    fn a_body_of_nonsense_is_not_asked_for_again() {
        let seen = Seen::default();
        let nonsense = Bytes::from_static(&[0xff; 7]);
        seen.take(SectionKind::Host, section(&nonsense));
        let again = Section {
            digest: Digest::of(&nonsense),
            body: None,
        };
        assert_eq!(seen.take(SectionKind::Host, again), Taken::Same);
    }

    #[test]
    fn a_clock_that_is_off_by_minutes_is_a_condition_with_its_direction() {
        let seen = Seen::default();
        seen.skewed(SignedDuration::from_mins(-10));
        assert_eq!(seen.conditions(), ["clock: 600 s behind the master's; set it"]);
    }
}
