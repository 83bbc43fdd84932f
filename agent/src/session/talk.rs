//! One session, from Hello to its end.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use picket_clock::Instant;
use picket_failpoint::{Point, pending};
use picket_link::Connected;
use picket_proto::{
    beat::{Digest, SectionKind},
    document::{Document, Kind, MOST_PROBLEM_TEXT, Outcome, OutcomeStatus, Problem},
    plain,
    session::{BeatAck, FromAgent, FromMaster, Hello, Trust},
};
use picket_zerotier::NodeId;
use tokio::{sync::watch, task::JoinSet, time};
use tonic::transport::Channel;

use super::{
    End, Session, blocking,
    looking::Looking,
    renew::{self, Due},
    skew::Skew,
    streams::{Streams, hello},
    transfer,
    turn::Turn,
};
use crate::{
    beat::Beats,
    desired::{AcceptError, Reports},
    identity::{Identity, IdentityError},
    master::MasterError,
    node,
    observed::Sections,
    question::Answer,
    sentence,
    status::{Connection, State},
};

/// How long the master may take to answer Hello, and a beat.
pub(super) const ANSWER: Duration = Duration::from_secs(25);
/// The least time between two beats.
const COALESCE: Duration = Duration::from_secs(1);
/// How long the first beat waits for reports that it is to name.
const REPORT_FIRST: Duration = Duration::from_secs(5);
/// Documents of one kind that wait to be kept. A master that sends more is better asked for the whole.
const MOST_WAITING: usize = 16;
/// How often to look whether the local node's identity can be read, or is the service's, by now.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What runs beside a session, on the same connection.
enum Aside {
    Reported(SectionKind, Digest, Result<(), MasterError>),
    Accepted(Box<Document>, Result<Result<(), AcceptError>, MasterError>),
    Renewed(Result<(), MasterError>),
    /// The local node whose identity can be read.
    Looked(Option<NodeId>),
    Trusted(Result<Identity, IdentityError>),
    /// The master's time is kept.
    Timed,
    /// The controller was looked at, as the master asked.
    Seen(Answer),
}

/// One open session.
pub(crate) struct Talk {
    streams: Streams,
    beats: Beats,
    interval: Duration,
    due: Instant,
    last_beat: Option<Instant>,
    sections: watch::Receiver<Sections>,
    reports: watch::Receiver<Reports>,
    sent: BTreeMap<Kind, Outcome>,
    channel: Channel,
    asides: JoinSet<Aside>,
    reporting: BTreeMap<SectionKind, Digest>,
    /// Announced documents by kind: the first of each is being fetched and kept.
    documents: BTreeMap<Kind, VecDeque<Document>>,
    limits: picket_proto::session::Limits,
    /// The local node that was proven in Hello.
    proven: Option<NodeId>,
    /// What the local service said it was when its identity was last looked at.
    said: Option<NodeId>,
    /// When to look at the identity again.
    look_at: Instant,
    skew: Skew,
    /// The CAs to trust that are being kept, and those that follow.
    trusting: Turn,
    looking: Looking,
}

impl Talk {
    pub(crate) async fn open(
        session: &Session,
        identity: &Identity,
        connected: &Connected,
    ) -> Result<Self, MasterError> {
        let clock = &session.reach.clock;
        let said = session.node.says();
        let node = session.node.identity().await;
        let proof = node
            .as_ref()
            .map(|node| node::prove(node, identity, &connected.binding));
        let proven = node.map(|node| node.public().node());
        let hello = Hello {
            node_proof: proof,
            authorities: identity.authority_digests(),
            ..hello(&session.machine, clock.now(), session.desired.held())
        };
        let (begun, asked) = (Instant::now(), clock.boot());
        let (streams, welcome) = Streams::open(connected.channel.clone(), hello).await?;
        session
            .path
            .opened(connected.local.map(|local| local.ip()), begun);
        session.time.said(welcome.time, asked).await;
        tracing::info!(host = %identity.name, address = %connected.address, master = %welcome.version, "session open");
        let mut skew = Skew::new(welcome.time, clock);
        // What an earlier session complained of is withdrawn when there is nothing.
        let problems = skew.look(clock).unwrap_or_default();
        session.observed.complain("clock", problems);
        session.connection.send_modify(|connection| {
            *connection = Connection {
                state: State::Connected,
                since: clock.now(),
                address: Some(connected.address.clone()),
                problem: None,
                ..connection.clone()
            };
        });
        Ok(Self {
            streams,
            beats: Beats::new(welcome.limits),
            interval: welcome.beat_interval,
            due: Instant::now(),
            last_beat: None,
            sections: session.observed.watch(),
            reports: session.reports.clone(),
            sent: BTreeMap::new(),
            channel: connected.channel.clone(),
            asides: JoinSet::new(),
            reporting: BTreeMap::new(),
            documents: BTreeMap::new(),
            limits: welcome.limits,
            proven,
            said,
            look_at: next_look(proven, said),
            skew,
            trusting: Turn::default(),
            looking: Looking::default(),
        })
    }

    /// Speaks until the session ends.
    pub(crate) async fn run(
        mut self,
        session: &Session,
        identity: &Identity,
        _connected: Connected,
    ) -> Result<End, MasterError> {
        let mut renewal = Due::new(session, identity);
        self.start_reports();
        if !self.reporting.is_empty() {
            self.due = Instant::now() + REPORT_FIRST;
        }
        self.send_outcomes()?;
        loop {
            let answer_by = self
                .beats
                .waiting_since()
                .map_or(self.due + ANSWER, |since| since + ANSWER);
            tokio::select! {
                biased;
                () = session.stop.cancelled() => {
                    self.streams.goodbye("the agent stops").await;
                    return Ok(End::Stopped);
                }
                message = self.streams.receive() => match message? {
                    FromMaster::Welcome(_) => return Err(MasterError::Ended("it said Welcome twice".into())),
                    FromMaster::BeatAck(ack) => self.acknowledged(session, &ack)?,
                    FromMaster::Document(document) => self.announced(session, document)?,
                    FromMaster::Leave(leave) => return Ok(End::Left(leave)),
                    // Another session wants this one's place: whoever does not answer within 3 s loses it.
                    FromMaster::Ping(nonce) => self.streams.send(&FromAgent::Pong(nonce))?,
                    FromMaster::Look(nonce) => {
                        self.looking.asked(nonce);
                        self.start_looking(session);
                    }
                    FromMaster::Trust(trust) => {
                        if let Some(trust) = self.trusting.named(trust) {
                            self.start_trust(session, trust);
                        }
                    }
                },
                Some(done) = self.asides.join_next() => {
                    let aside = done.map_err(|error| MasterError::Ended(format!("a transfer broke off: {error}")))?;
                    if let Some(end) = self.aside(session, aside, &mut renewal)? {
                        self.streams.goodbye("comes back under a new certificate, or with a new proof").await;
                        return Ok(end);
                    }
                }
                changed = self.sections.changed() => {
                    changed.map_err(|_| MasterError::Ended("the agent stops".into()))?;
                    self.start_reports();
                    self.soon();
                    if session.node.says() != self.said {
                        self.look_at = Instant::now();
                    }
                }
                changed = self.reports.changed() => {
                    changed.map_err(|_| MasterError::Ended("the agent stops".into()))?;
                    self.send_outcomes()?;
                }
                () = time::sleep_until(self.due) => {
                    self.beat(session)?;
                    renewal.look(session.reach.clock.now());
                }
                () = time::sleep_until(answer_by) => return Err(MasterError::Silent { what: "acknowledge a beat" }),
                () = time::sleep_until(renewal.at()) => {
                    renewal.begin();
                    self.start_renewal(session, identity);
                }
                () = time::sleep_until(self.look_at) => self.start_look(session),
            }
        }
    }

    fn beat(&mut self, session: &Session) -> Result<(), MasterError> {
        let now = Instant::now();
        if let Some(problems) = self.skew.look(&session.reach.clock) {
            session.observed.complain("clock", problems);
        }
        let sections = self.sections.borrow_and_update().clone();
        let beat = self.beats.compose(session.reach.clock.reading(), now, &sections);
        self.looking.beat(&beat, &sections);
        self.streams.send(&FromAgent::Beat(beat))?;
        self.last_beat = Some(now);
        self.due = now + self.interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        Ok(())
    }

    /// Brings the next beat forward, to a second after the last one.
    fn soon(&mut self) {
        let Some(last) = self.last_beat else { return };
        self.due = self.due.min(last + COALESCE);
    }

    fn acknowledged(&mut self, session: &Session, ack: &BeatAck) -> Result<(), MasterError> {
        if let Some(interval) = ack.beat_interval
            && interval != self.interval
        {
            self.interval = interval;
            self.due = Instant::now() + interval;
        }
        if let Some((said, asked)) = self.beats.sent_at(ack.sequence) {
            session.path.answered(said);
            if let Some(at) = ack.time {
                let time = session.time.clone();
                // It is in force at once, and the disk may take its time.
                self.asides.spawn(async move {
                    time.said(at, asked).await;
                    Aside::Timed
                });
            }
        }
        if self.beats.acknowledged(ack) {
            self.soon();
        }
        self.start_reports();
        let now = session.reach.clock.now();
        session
            .connection
            .send_modify(|connection| connection.last_ack = Some(now));
        if let Some(answer) = self.looking.acknowledged(ack) {
            self.streams.send(&answer)?;
            self.start_looking(session);
        }
        Ok(())
    }

    /// Sends what the master was not told yet.
    fn send_outcomes(&mut self) -> Result<(), MasterError> {
        let reports = self.reports.borrow_and_update().clone();
        for (kind, report) in reports {
            if let Some(outcome) = report.outcome(kind)
                && self.sent.get(&kind) != Some(&outcome)
            {
                self.streams.send(&FromAgent::Outcome(outcome.clone()))?;
                self.sent.insert(kind, outcome);
            }
        }
        Ok(())
    }

    fn start_reports(&mut self) {
        let lacking = self.beats.to_report(&self.sections.borrow());
        for (kind, body) in lacking {
            if self.reporting.contains_key(&kind) {
                continue;
            }
            self.reporting.insert(kind, body.digest);
            let (channel, limits) = (self.channel.clone(), self.limits);
            self.asides.spawn(async move {
                let result = transfer::report(channel, kind, &body, limits.chunk).await;
                Aside::Reported(kind, body.digest, result)
            });
        }
    }

    fn announced(&mut self, session: &Session, document: Document) -> Result<(), MasterError> {
        tracing::info!(kind = %document.kind, generation = document.stamp.generation, since = document.since, "a document");
        let kind = document.kind;
        let waiting = self.documents.entry(kind).or_default();
        if document.since == 0 {
            // A whole document makes those before it pointless, except the one that is being kept.
            waiting.truncate(1);
        }
        if waiting.len() >= MOST_WAITING {
            let message = format!(
                "it sent more than {MOST_WAITING} changes to the {kind} before one could be kept; comes back for the whole"
            );
            return Err(MasterError::Broken(message));
        }
        waiting.push_back(document);
        if waiting.len() == 1 {
            self.start_document(session, kind);
        }
        Ok(())
    }

    /// Fetches and keeps the first of the documents of a kind that wait.
    fn start_document(&mut self, session: &Session, kind: Kind) {
        let Some(document) = self.documents.get(&kind).and_then(VecDeque::front).cloned() else {
            return;
        };
        let (channel, desired) = (self.channel.clone(), session.desired.clone());
        self.asides.spawn(async move {
            let result = async {
                let body = match document.body.clone() {
                    Some(body) => body,
                    None => transfer::fetch(channel, &document).await?,
                };
                let announced = document.clone();
                let keep = move || desired.accept(&announced, &body);
                Ok(tokio::task::spawn_blocking(keep)
                    .await
                    .expect("keeping a document does not panic"))
            };
            let result = result.await;
            Aside::Accepted(Box::new(document), result)
        });
    }

    /// Looks whether the local node's identity can be read, and is another one than was proven.
    fn start_look(&mut self, session: &Session) {
        self.look_at = far();
        self.said = session.node.says();
        let node = session.node.clone();
        self.asides.spawn(async move {
            let identity = node.identity().await;
            Aside::Looked(identity.map(|identity| identity.public().node()))
        });
    }

    /// Looks at the controller for the master, one question at a time.
    fn start_looking(&mut self, session: &Session) {
        if self.looking.begins() {
            let looks = session.looks.clone();
            self.asides.spawn(async move { Aside::Seen(looks.look().await) });
        }
    }

    /// Says how looking went, or beats so that the master has what was seen.
    fn seen(&mut self, session: &Session, answer: Answer) -> Result<(), MasterError> {
        let answer = answer.map_err(|problem| plain(&problem, MOST_PROBLEM_TEXT));
        if let Some(answer) = self.looking.looked(answer) {
            self.streams.send(&answer)?;
            self.start_looking(session);
        }
        self.start_reports();
        self.hurry();
        Ok(())
    }

    /// Beats at once when the master waits for what was seen, unless that travels by Report and is still on its way.
    fn hurry(&mut self) {
        if self.looking.is_untold() && !self.reporting.contains_key(&SectionKind::Controller) {
            self.due = Instant::now();
        }
    }

    fn start_renewal(&mut self, session: &Session, identity: &Identity) {
        let (channel, store, base) = (self.channel.clone(), session.identities.clone(), identity.clone());
        self.asides.spawn(async move {
            let renewed = renew::renew(channel, store, base);
            Aside::Renewed(pending(Point::AgentRenewalWaits, renewed).await)
        });
    }

    /// Keeps the CAs to trust.
    fn start_trust(&mut self, session: &Session, trust: Trust) {
        let store = session.identities.clone();
        self.asides
            .spawn(async move { Aside::Trusted(blocking(move || store.trust(&trust)).await) });
    }

    /// Says which CAs are trusted from here on, and brings the renewal forward that another one of them asks for.
    fn trusted(
        &mut self,
        session: &Session,
        kept: Result<Identity, IdentityError>,
        renewal: &mut Due,
    ) -> Result<(), MasterError> {
        if let Some(next) = self.trusting.over() {
            self.start_trust(session, next);
        }
        const WHAT: &str = "trusted CAs";
        let identity = match kept {
            Ok(identity) => identity,
            Err(error) => {
                let message = sentence(&error);
                tracing::error!(problem = message, "does not trust the CAs that the master names");
                session.observed.complain(WHAT, vec![Problem::new("CA", message)]);
                return Ok(());
            }
        };
        session.observed.complain(WHAT, Vec::new());
        tracing::info!(count = identity.authorities.len(), "the CAs to trust are kept");
        self.streams
            .send(&FromAgent::TrustAck(identity.authority_digests()))?;
        if let Some(within) = identity.moves_within() {
            renewal.hurry(within);
        }
        Ok(())
    }

    fn aside(
        &mut self,
        session: &Session,
        aside: Aside,
        renewal: &mut Due,
    ) -> Result<Option<End>, MasterError> {
        match aside {
            Aside::Reported(kind, digest, result) => {
                self.reporting.remove(&kind);
                let arrived = result.is_ok();
                match result {
                    Ok(()) => self.beats.reported(kind, digest),
                    // The next beat's acknowledgement tries again.
                    Err(error) => {
                        tracing::warn!(%kind, error = %sentence(&error), "could not report a section")
                    }
                }
                if self.last_beat.is_none() {
                    self.due = Instant::now();
                } else {
                    self.soon();
                }
                if arrived {
                    self.hurry();
                }
                Ok(None)
            }
            Aside::Accepted(document, result) => {
                let kind = document.kind;
                self.documents.entry(kind).or_default().pop_front();
                match result? {
                    Ok(()) => session.observed.complain(&unreadable(kind), Vec::new()),
                    Err(error @ AcceptError::Gap(_)) => {
                        session.desired.forget_stamp(kind);
                        return Err(MasterError::Broken(sentence(&error)));
                    }
                    Err(error @ AcceptError::Nonsense(..)) => self.not_read(session, &document, &error)?,
                    // An outcome would say that the document is held. The next Hello says that it is not.
                    Err(error @ (AcceptError::Keep(..) | AcceptError::OtherBody(_))) => {
                        return Err(MasterError::Broken(sentence(&error)));
                    }
                }
                self.start_document(session, kind);
                Ok(None)
            }
            // A node is proven where a session begins.
            Aside::Looked(node) if node.is_some() && node != self.proven => Ok(Some(End::Node)),
            Aside::Looked(_) => {
                self.look_at = next_look(self.proven, self.said);
                Ok(None)
            }
            Aside::Timed => Ok(None),
            Aside::Seen(answer) => self.seen(session, answer).map(|()| None),
            Aside::Trusted(kept) => self.trusted(session, kept, renewal).map(|()| None),
            Aside::Renewed(Ok(())) => Ok(Some(End::Renewed)),
            Aside::Renewed(Err(error)) => {
                tracing::warn!(error = %sentence(&error), "could not renew the certificate; tries again");
                renewal.fail();
                Ok(None)
            }
        }
    }

    /// Says of a document that nobody can read that it is not taken, without touching what is in force. Coming back for
    /// it would bring the same again.
    fn not_read(
        &mut self,
        session: &Session,
        document: &Document,
        error: &AcceptError,
    ) -> Result<(), MasterError> {
        let (kind, message) = (document.kind, sentence(error));
        tracing::error!(%kind, problem = message, "does not take a document");
        let problems = vec![Problem::new(kind, message)];
        match kind {
            // Members travel as changes: any outcome of theirs says that everything up to it is here.
            Kind::Members => {
                session.observed.complain(&unreadable(kind), problems);
                Ok(())
            }
            Kind::Networks | Kind::Shard => self.streams.send(&FromAgent::Outcome(Outcome {
                kind,
                stamp: document.stamp,
                status: OutcomeStatus::Failed,
                problems,
            })),
        }
    }
}

/// When to look at the local node's identity again: no more once it is the service's and proven.
fn next_look(proven: Option<NodeId>, said: Option<NodeId>) -> Instant {
    if proven.is_some() && (said.is_none() || proven == said) {
        far()
    } else {
        Instant::now() + LOOK_AGAIN
    }
}

/// Under what name a document that nobody can read is complained of.
fn unreadable(kind: Kind) -> String {
    format!("{kind} document")
}

/// Later than any session lasts.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(10 * 365 * 24 * 3600)
}
