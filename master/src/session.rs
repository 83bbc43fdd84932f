//! One session: Hello and Welcome, beats and their acknowledgements, desired documents and their outcomes.
//!
//! In: what the agent sends, a nudge when its documents may differ, the order to end. Out: messages into a bounded
//! channel; an agent that does not read them is let go.

mod claim;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use picket_clock::Instant;
use picket_failpoint::{Point, pass, pending};
use picket_pki::PinKind;
use picket_proto::{
    VERSION, WireError,
    beat::{Beat, Digest, SectionKind},
    document::{Kind, Outcome, OutcomeStatus, Stamp},
    host::HostId,
    session::{BeatAck, FromAgent, FromMaster, Hello, LOOK, Leave, LeaveReason, Limits, PING, Welcome},
    wire::agent as wire,
};
use prost::Message as _;
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::{
    ca::{self, Told},
    caller::HostCaller,
    clones::{self, Answer, Machine, Verdict, Why, decide},
    desired,
    desk::Desk,
    event::Severity,
    observed::{Seen, Taken, Wanted},
    record::{HostRecord, HostStanding, network::Governor},
    refused::Refused,
    renewal,
    session::claim::Claims,
    sessions::{Heard, LAST_WORD, Newcomer, Post, Seat, Seated},
};

/// How many messages may wait for an agent: a welcome, a document of each kind, acknowledgements.
pub const OUT: usize = 16;
/// An agent that says nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// How long an agent has for its Hello.
const HELLO: Duration = Duration::from_secs(10);
/// Beats that come faster than this are taken up no faster; an agent that floods waits for itself.
const BEAT_SPACING: Duration = Duration::from_millis(20);
/// An agent that does not take a message for this long is gone.
const STUCK: Duration = Duration::from_secs(10);
/// When the master stops, agents come back after about this long.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How often a newcomer looks again when the seat it wanted went to somebody else meanwhile.
const MOST_ROUNDS: usize = 4;

/// The outgoing half of a session. Boxed, since a channel keeps room for 32 messages, however few may wait in it.
pub type Out = mpsc::Sender<Box<wire::SessionResponse>>;

/// Why a session ended.
#[derive(Debug)]
enum End {
    /// The agent went, or its connection broke.
    Gone,
    /// The agent said goodbye.
    Goodbye,
    /// We end it, with this as the last message.
    Leave(Leave),
}

struct Session {
    desk: Arc<Desk>,
    host: HostId,
    seen: Arc<Seen>,
    out: Out,
    /// What the agent holds of the members: the generation of our lineage that it confirmed; none when it has none at
    /// all. Changes are announced from there on, so that one that got lost on the way is in the next.
    members: Held,
    /// The digest and generation last announced of each kind.
    announced: [Option<(Digest, u64)>; Kind::ALL.len()],
    /// When the agent beat last.
    beat_at: Instant,
    claims: Claims,
    /// The question that was sent last.
    pinged: u64,
    /// The same of its controller.
    looked: u64,
    /// What the agent holds and was told of the CAs.
    told_cas: Told,
}

/// What an agent holds of a document that travels as changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// It never had one.
    Nothing,
    /// One of another lineage: it counts for nothing and must be replaced.
    Foreign,
    /// One of ours, up to this generation.
    Upto(u64),
}

impl Held {
    fn since(self) -> u64 {
        match self {
            Self::Nothing | Self::Foreign => 0,
            Self::Upto(generation) => generation,
        }
    }
}

/// Serves a session to its end.
pub async fn serve(
    desk: Arc<Desk>,
    caller: HostCaller,
    mut inbound: Streaming<wire::SessionRequest>,
    out: Out,
    stop: CancellationToken,
) {
    let host = caller.id;
    let hello = match greet(&mut inbound).await {
        Ok(hello) => hello,
        // Its connection broke, or made room for a newer one.
        Err(None) => return,
        Err(Some(leave)) => {
            let seen = desk.observed.of(host);
            if leave.reason == LeaveReason::Protocol && seen.may_tell(desk.clock.monotonic()) {
                desk.say(
                    Severity::Warning,
                    "session.refused",
                    &desk.name_of(host),
                    &leave.message,
                );
            }
            say_leave(&out, leave).await;
            return;
        }
    };
    let mut seat = match take_seat(&desk, &caller, &hello).await {
        Ok(seat) => seat,
        Err(leave) => {
            say_leave(&out, leave).await;
            return;
        }
    };
    // Not before it has the seat: whoever copied a certificate and renewed first spends nobody's pin with it.
    if let Err(leave) = promote(&desk, &caller).await {
        drop(seat);
        say_leave(&out, leave).await;
        return;
    }
    desk.metrics.sessions.increment(1);
    desk.news.send_replace(());
    let seen = desk.observed.of(host);
    seen.connected(caller.peer.address, &hello.machine_id);
    seen.skewed(hello.time.duration_since(desk.now()));
    let now = desk.clock.monotonic();
    let mut session = Session {
        members: Held::Nothing,
        announced: [None; Kind::ALL.len()],
        beat_at: now,
        claims: Claims::new(&desk, &caller, &hello),
        pinged: 0,
        looked: 0,
        told_cas: Told::new(&hello.authorities),
        host,
        seen,
        out,
        desk: Arc::clone(&desk),
    };
    desk.hold(host, ca::fingerprints(&hello.authorities));
    let end = match session.open(&hello).await {
        Some(end) => end,
        None => {
            session
                .run(&mut inbound, &mut seat, caller.peer.not_after, &stop)
                .await
        }
    };
    // The seat is free before the last message is out, so that a newcomer is not taken for a second machine.
    drop(seat);
    desk.news.send_replace(());
    desk.metrics.sessions.decrement(1);
    match end {
        End::Gone => {}
        End::Goodbye => {
            let gone = desk.liveness().goodbye(host);
            if let Some(transition) = gone {
                desk.say_transition(transition, true);
            }
        }
        End::Leave(leave) => say_leave(&session.out, leave).await,
    }
}

/// Takes the host's seat. When another session has it, the two are told apart first (see [`clones`]).
async fn take_seat(desk: &Desk, caller: &HostCaller, hello: &Hello) -> Result<Seat, Leave> {
    let host = caller.id;
    let newcomer = Newcomer {
        machine: Machine::of(hello),
        answers: hello.capabilities.iter().any(|capability| capability == PING),
        looks: hello.capabilities.iter().any(|capability| capability == LOOK),
        address: caller.peer.address,
        connection: caller.peer.connection,
    };
    for _ in 0..MOST_ROUNDS {
        let Some(older) = desk.sessions.seated(host) else {
            match desk.sessions.sit(host, newcomer, None) {
                Some(seat) => return Ok(seat),
                None => continue,
            }
        };
        let often = desk.sessions.clones.often(host, desk.clock.monotonic());
        let mut verdict = decide(&older.who.machine, &newcomer.machine, often, Answer::Unasked);
        if verdict == Verdict::Ask {
            let answer = match ask(&older).await {
                Some(answer) => answer,
                // Its seat is free.
                None => continue,
            };
            verdict = decide(&older.who.machine, &newcomer.machine, often, answer);
        }
        match verdict {
            Verdict::Quarantine => return Err(send_away(desk, host, &newcomer, &older)),
            Verdict::TakeOver(why) => {
                if let Some(seat) = desk.sessions.sit(host, newcomer, Some(older.id)) {
                    tell_of_takeover(desk, host, why, &newcomer, &older);
                    return Ok(seat);
                }
            }
            Verdict::Ask => {}
        }
    }
    Err(stops("sessions of this host come and go too fast"))
}

/// Asks a session whether its agent is there. None when it ended meanwhile.
async fn ask(older: &Seated) -> Option<Answer> {
    if !older.who.answers {
        return Some(Answer::Impossible);
    }
    match older.post.ask(clones::ANSWER).await {
        Heard::Pong => Some(Answer::Given),
        Heard::Silence => Some(Answer::Missing),
        Heard::End => None,
    }
}

/// Sends a machine away for a while: another one has the seat and is alive.
fn send_away(desk: &Desk, host: HostId, newcomer: &Newcomer, older: &Seated) -> Leave {
    desk.metrics.quarantined.increment(1);
    let (from, seated) = (newcomer.address, older.who.address);
    let name = desk.name_of(host);
    let message = format!(
        "another machine uses this identity: its session is from {seated} and answers, this one is from {from}"
    );
    let clones = &desk.sessions.clones;
    if clones.sent_away(host, &newcomer.machine, from, seated, desk.clock.monotonic()) {
        let message = format!(
            "{message}. It is told nothing and waits; stop the wrong one, or `picketctl host bundle {name} --cut` ends both"
        );
        desk.say(Severity::Alert, "session.quarantined", &name, &message);
    }
    Leave {
        // An agent that answers no pings does not know the other reason.
        reason: if newcomer.answers {
            LeaveReason::Quarantined
        } else {
            LeaveReason::Replaced
        },
        message,
        retry_after: Some(clones::RETRY),
    }
}

fn tell_of_takeover(desk: &Desk, host: HostId, why: Why, newcomer: &Newcomer, older: &Seated) {
    desk.metrics.takeover(why.label());
    let name = desk.name_of(host);
    let (from, before) = (newcomer.address, older.who.address);
    tracing::info!(host = %name, %from, %before, why = why.label(), "a session took over");
    if desk.sessions.clones.took_over(host, desk.clock.monotonic()) {
        let message = format!(
            "three sessions took each other's place within ten minutes, the last from {from} in place of {before}: two agents              have this identity, or its line breaks again and again; `picketctl host bundle {name} --cut` ends both"
        );
        desk.say(Severity::Alert, "session.takeovers", &name, &message);
    }
}

/// Takes the Hello in. The error is what to say to an agent that is still there.
async fn greet(inbound: &mut Streaming<wire::SessionRequest>) -> Result<Hello, Option<Leave>> {
    let first = time::timeout(HELLO, inbound.message()).await;
    let message = match first {
        Ok(Ok(Some(message))) => message,
        Ok(Ok(None)) | Err(_) => return Err(Some(protocol("a session begins with a hello"))),
        Ok(Err(status)) if status.code() == Code::OutOfRange => return Err(Some(too_long_or(&status))),
        Ok(Err(_)) => return Err(None),
    };
    let hello = match FromAgent::try_from(message) {
        Ok(FromAgent::Hello(hello)) => hello,
        Ok(
            FromAgent::Beat(_)
            | FromAgent::Outcome(_)
            | FromAgent::Goodbye(_)
            | FromAgent::Pong(_)
            | FromAgent::TrustAck(_)
            | FromAgent::Looked { .. },
        ) => {
            return Err(Some(protocol("a session begins with a hello")));
        }
        Err(error) => return Err(Some(protocol(&error.to_string()))),
    };
    compatible(VERSION, &hello.version).map_err(|problem| protocol(&problem))?;
    Ok(hello)
}

/// Makes the pin current that the agent came with.
async fn promote(desk: &Desk, caller: &HostCaller) -> Result<(), Leave> {
    if caller.pin == PinKind::Pending {
        let audit = caller.actor().does(
            "host.promote",
            caller.id,
            "first session under the new certificate",
        );
        let promoted = |record: &mut HostRecord| {
            Ok(record.standing == HostStanding::Active && renewal::promote(record, &caller.fingerprint))
        };
        pass(Point::MasterBeforePromotion);
        let promotion = desk.change_host(caller.id, audit, promoted);
        match pending(Point::MasterPromotionWaits, promotion).await {
            Ok(_) => pass(Point::MasterAfterPromotion),
            Err(error) => {
                tracing::error!(host = %caller.id, %error, "could not make a pending pin current");
                return Err(stops("the master cannot save its state just now"));
            }
        }
    }
    Ok(())
}

/// A master serves agents of its own minor version, one older and one newer.
fn compatible(ours: &str, theirs: &str) -> Result<(), String> {
    let minor = |version: &str| {
        let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    };
    match (minor(ours), minor(theirs)) {
        (Some((major, a)), Some((other, b))) if major == other && a.abs_diff(b) <= 1 => Ok(()),
        (Some(a), Some(b)) if b < a => Err(format!(
            "the agent has version {theirs} and the master {ours}: update the agent"
        )),
        (Some(_), Some(_)) => Err(format!(
            "the agent has version {theirs} and the master {ours}: update the master first"
        )),
        (None, _) | (_, None) => Err(format!("`{}` is no version", theirs.escape_debug())),
    }
}

/// The moment the session ends because the certificate it came with does.
fn expiry(desk: &Desk, not_after: Timestamp) -> Instant {
    let left = not_after.duration_since(desk.now());
    desk.clock.monotonic() + Duration::try_from(left).unwrap_or_default()
}

impl Session {
    /// Welcomes the agent and announces what it is to do. Returns why the session ended, if it did.
    async fn open(&mut self, hello: &Hello) -> Option<End> {
        let lineage = self.desk.lineage();
        let welcome = Welcome {
            version: VERSION.to_owned(),
            capabilities: Vec::new(),
            limits: Limits::OURS,
            beat_interval: self.desk.beat_interval,
            time: self.desk.now(),
            lineage,
        };
        let newest = self.desk.store.revision().0;
        self.members = match hello.held.iter().find(|(kind, _)| *kind == Kind::Members) {
            None => Held::Nothing,
            Some((_, stamp)) if stamp.lineage == lineage => Held::Upto(stamp.generation.min(newest)),
            Some(_) => Held::Foreign,
        };
        if let Err(end) = self.send(FromMaster::Welcome(welcome)).await {
            return Some(end);
        }
        self.announce().await.err()
    }

    async fn run(
        &mut self,
        inbound: &mut Streaming<wire::SessionRequest>,
        seat: &mut Seat,
        not_after: Timestamp,
        stop: &CancellationToken,
    ) -> End {
        let ends = expiry(&self.desk, not_after);
        let silence = SILENCE.max(self.desk.beat_interval * 2);
        let mut silent_at = self.desk.clock.monotonic() + silence;
        loop {
            let step = tokio::select! {
                biased;
                _ = seat.end.changed() => {
                    let leave = seat.end.borrow_and_update().clone();
                    return leave.map_or(End::Gone, End::Leave);
                }
                () = stop.cancelled() => {
                    return End::Leave(stops("the master stops; it will be back"));
                }
                () = time::sleep_until(ends) => {
                    return End::Leave(ended());
                }
                () = time::sleep_until(silent_at) => {
                    return End::Leave(protocol("no beat for longer than two intervals"));
                }
                () = seat.post.nudge.notified() => Step::Nudged,
                () = self.claims.check(), if self.claims.is_checking() => Step::Checked,
                message = inbound.message() => Step::Message(message),
            };
            let result = match step {
                Step::Nudged => self.nudged(&seat.post).await,
                Step::Checked => {
                    self.claims.weigh(&self.seen).await;
                    Ok(())
                }
                Step::Message(Ok(Some(message))) if message.encoded_len() > Limits::OURS.beat => {
                    Err(End::Leave(too_long()))
                }
                // On a machine that slept, the wall clock is past an end that the other clock has not come to.
                Step::Message(Ok(Some(_))) if self.desk.now() > not_after => Err(End::Leave(ended())),
                Step::Message(Ok(Some(message))) => {
                    silent_at = self.desk.clock.monotonic() + silence;
                    self.take(message, seat).await
                }
                Step::Message(Ok(None)) => Err(End::Gone),
                Step::Message(Err(status)) if status.code() == Code::OutOfRange => {
                    Err(End::Leave(too_long_or(&status)))
                }
                Step::Message(Err(_)) => Err(End::Gone),
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    /// Passes on what was put down for the agent. What it is to do comes before the question how things are.
    async fn nudged(&mut self, post: &Post) -> Result<(), End> {
        self.ping(post.question()).await?;
        self.announce().await?;
        match post.looks.question() {
            Some(question) if question > self.looked => {
                self.looked = question;
                self.send(FromMaster::Look(question)).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Passes a question on that was not sent yet.
    async fn ping(&mut self, question: Option<u64>) -> Result<(), End> {
        match question {
            Some(question) if question > self.pinged => {
                self.pinged = question;
                self.send(FromMaster::Ping(question)).await
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn take(&mut self, message: wire::SessionRequest, seat: &Seat) -> Result<(), End> {
        let message =
            FromAgent::try_from(message).map_err(|error| End::Leave(protocol(&error.to_string())))?;
        match message {
            FromAgent::Beat(beat) => self.beat(beat).await,
            FromAgent::Outcome(outcome) => {
                self.outcome(outcome);
                Ok(())
            }
            FromAgent::Goodbye(_) => Err(End::Goodbye),
            FromAgent::Pong(question) => {
                seat.post.answer(question);
                Ok(())
            }
            FromAgent::Looked { nonce, problem } => {
                seat.post.looks.answer(nonce, problem);
                Ok(())
            }
            FromAgent::TrustAck(holds) => {
                self.desk.hold(self.host, ca::fingerprints(&holds));
                Ok(())
            }
            FromAgent::Hello(_) => Err(End::Leave(protocol("a second hello in one session"))),
        }
    }

    async fn beat(&mut self, beat: Beat) -> Result<(), End> {
        let desk = Arc::clone(&self.desk);
        let due = self.beat_at + BEAT_SPACING;
        if desk.clock.monotonic() < due {
            time::sleep_until(due).await;
        }
        self.beat_at = desk.clock.monotonic();
        let now = desk.now();
        let transition = desk.liveness().beat(self.host, desk.clock.monotonic(), now);
        if let Some(transition) = transition {
            desk.say_transition(transition, false);
        }
        self.seen.skewed(beat.time.duration_since(now));
        let mut unknown = Vec::new();
        // Whoever it waits for may have said something since.
        let mut claims = self.claims.waits();
        let sequence = beat.sequence;
        let mut sections = beat.sections.into_iter().peekable();
        for kind in SectionKind::ALL {
            let Some((_, section)) = sections.next_if(|(have, _)| *have == kind) else {
                self.seen.absent(kind);
                continue;
            };
            let taken = self.seen.take(kind, section);
            if kind == SectionKind::Controller && matches!(taken, Taken::Same | Taken::Changed { .. }) {
                self.seen.controller_says(now);
            }
            match taken {
                Taken::Same => {}
                Taken::Unknown => unknown.push(kind),
                Taken::Changed { skipped } => {
                    desk.metrics.sections.increment(1);
                    if skipped.count > 0 {
                        desk.metrics
                            .skipped
                            .increment(u64::try_from(skipped.count).unwrap_or(u64::MAX));
                        self.complain(kind, &skipped.told);
                    }
                    claims |= kind == SectionKind::ZeroTier;
                    if kind == SectionKind::Controller {
                        desk.watchers.note(Governor::Host(self.host));
                    }
                    desk.news.send_replace(());
                }
                Taken::Nonsense(error) => {
                    desk.metrics.skipped.increment(1);
                    self.complain(
                        kind,
                        &format!("the section makes no sense and was skipped: {error}"),
                    );
                }
            }
        }
        if claims {
            self.claims.weigh(&self.seen).await;
        }
        desk.metrics.beats.increment(1);
        self.send(FromMaster::BeatAck(BeatAck {
            sequence,
            beat_interval: None,
            unknown,
            time: Some(desk.now()),
        }))
        .await
    }

    fn complain(&mut self, kind: SectionKind, message: &str) {
        if !self.seen.may_tell(self.desk.clock.monotonic()) {
            return;
        }
        let name = self.desk.name_of(self.host);
        self.desk.say(
            Severity::Warning,
            "beat.skipped",
            &name,
            &format!("{kind}: {message}"),
        );
    }

    fn outcome(&mut self, outcome: Outcome) {
        let desk = Arc::clone(&self.desk);
        if outcome.stamp.lineage != desk.lineage() {
            return;
        }
        let (kind, status) = (outcome.kind, outcome.status);
        desk.metrics.outcome(&kind.to_string(), status);
        if kind == Kind::Members {
            // Whatever became of it: an agent keeps a document before it tries it.
            let confirmed = outcome.stamp.generation.min(desk.store.revision().0);
            self.members = Held::Upto(self.members.since().max(confirmed));
        }
        let summary = outcome
            .problems
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        let differs = self.seen.outcome(outcome);
        if differs && kind == Kind::Members {
            desk.watchers.note(Governor::Host(self.host));
        }
        if differs {
            desk.news.send_replace(());
        }
        if !differs || !self.seen.may_tell(desk.clock.monotonic()) {
            return;
        }
        let name = desk.name_of(self.host);
        match status {
            OutcomeStatus::Done => {
                desk.say(
                    Severity::Info,
                    &format!("{kind}.done"),
                    &name,
                    &format!("what is wanted of its {kind} is in effect"),
                );
            }
            OutcomeStatus::Failed => {
                desk.say(
                    Severity::Warning,
                    &format!("{kind}.failed"),
                    &name,
                    &format!("refused: {summary}"),
                );
            }
            OutcomeStatus::Blocked => {
                let message = format!("cannot be done just now, tried again: {summary}");
                desk.say(Severity::Warning, &format!("{kind}.blocked"), &name, &message);
            }
        }
    }

    /// Announces every document that differs from what was announced before.
    async fn announce(&mut self) -> Result<(), End> {
        // A store that was restored without its latest changes is not told to anybody before it is accepted.
        if self.desk.store.frozen() {
            return Ok(());
        }
        if self.told_cas.is_due(&self.desk.ca.wanted()) {
            self.send(FromMaster::Trust(self.desk.ca.trust())).await?;
        }
        for (kind, slot) in Kind::ALL.into_iter().zip(0..) {
            let since = if kind == Kind::Members {
                self.members.since()
            } else {
                0
            };
            let made = desired::document(&self.desk.views.read(), self.host, kind, since, self.desk.now());
            let same = match (kind, self.announced[slot]) {
                // The same digest can stand for other changes.
                (Kind::Members, Some((_, generation))) => generation == made.generation,
                // Nothing changed since, or there is no controller and never was one.
                (Kind::Members, None) => made.generation == since && self.members != Held::Foreign,
                (Kind::Networks | Kind::Shard, announced) => {
                    announced.is_some_and(|(digest, _)| digest == made.digest)
                }
            };
            if same {
                continue;
            }
            self.announced[slot] = Some((made.digest, made.generation));
            let lineage = self.desk.lineage();
            let stamp = Stamp {
                lineage,
                generation: made.generation,
            };
            self.seen.wanted(
                kind,
                Wanted {
                    stamp,
                    since: made.since,
                    digest: made.digest,
                },
            );
            self.send(FromMaster::Document(made.announced(lineage))).await?;
        }
        Ok(())
    }

    async fn send(&self, message: FromMaster) -> Result<(), End> {
        let message = wire::SessionResponse::from(&message);
        match time::timeout(STUCK, self.out.send(Box::new(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }
}

#[allow(
    clippy::large_enum_variant,
    reason = "it lives on the stack for one turn of the loop; a box is a heap visit a beat"
)]
enum Step {
    Nudged,
    Checked,
    Message(Result<Option<wire::SessionRequest>, Status>),
}

async fn say_leave(out: &Out, leave: Leave) {
    let message = wire::SessionResponse::from(&FromMaster::Leave(leave));
    // Whoever is gone does not hear it.
    drop(time::timeout(LAST_WORD, out.send(Box::new(message))).await);
}

fn protocol(problem: &str) -> Leave {
    Leave {
        reason: LeaveReason::Protocol,
        message: problem.chars().take(1000).collect(),
        retry_after: Some(Duration::from_secs(5)),
    }
}

fn ended() -> Leave {
    protocol("the certificate of this session has ended; renew it and come back")
}

fn stops(message: &str) -> Leave {
    Leave {
        reason: LeaveReason::MasterStops,
        message: message.to_owned(),
        retry_after: Some(RETRY_AFTER),
    }
}

fn too_long() -> Leave {
    protocol(&format!(
        "a message is over {} KiB; long sections travel by Report",
        Limits::OURS.beat / 1024
    ))
}

fn too_long_or(status: &Status) -> Leave {
    if status.code() == Code::OutOfRange {
        too_long()
    } else {
        protocol(status.message())
    }
}

/// A call that is for the connection of the host's open session only: a machine that was sent away reports nothing.
pub(crate) fn needs_session(desk: &Desk, caller: &HostCaller) -> Result<(), Refused> {
    match desk.sessions.seated(caller.id) {
        Some(seated) if seated.who.connection == caller.peer.connection => Ok(()),
        Some(_) | None => Err(Refused::NotNow("open a session first".to_owned())),
    }
}

/// A digest in a call.
pub(crate) fn digest(field: &str, bytes: &[u8]) -> Result<Digest, Refused> {
    let array = <[u8; 32]>::try_from(bytes);
    array
        .map(Digest)
        .map_err(|_| WireError::new(field, format_args!("{} bytes, want 32", bytes.len())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_one_minor_version_older_or_newer_are_served_and_others_are_told_who_updates() {
        for served in ["1.4.0", "1.5.9", "1.6.2"] {
            assert_eq!(compatible("1.5.0", served), Ok(()), "{served}");
        }
        assert!(
            compatible("1.5.0", "1.3.0")
                .unwrap_err()
                .contains("update the agent")
        );
        assert!(
            compatible("1.5.0", "1.7.0")
                .unwrap_err()
                .contains("update the master")
        );
        assert!(
            compatible("1.5.0", "banana")
                .unwrap_err()
                .contains("is no version")
        );
    }
}
