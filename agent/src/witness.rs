//! Witnesses: whether other members answer this host, which is the last proof that a kill is true on the wire.
//!
//! In: the members a document names, and which networks this host is admitted to. Out: what became of each, for the
//! section of the beat.
//!
//! A probe opens TCP connections, for which no privileges are needed: a member that is there accepts one or refuses it,
//! and either is an answer. Port 9993 comes first, where every ZeroTier service listens; beside it one on which nothing
//! usually does, for a member whose firewall drops the first.

#[cfg(any(test, feature = "fake"))]
pub mod fake;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream};
use picket_clock::Instant;
use picket_proto::{
    beat::SectionKind,
    document::Contents,
    status::ZeroTierStatus,
    stay::{MOST_WITNESSED, Witnessed},
    witness::{Answer, Witness},
};
use picket_zerotier::{NetworkId, NodeId};
use tokio::{net::TcpStream, sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::{desired::Wanted, observed::Observed, zerotier::Told};

/// Where a member that is there accepts a connection, or refuses it.
const PORTS: [u16; 2] = [9993, 9];
/// How long a member may take to answer: a path between two members may have to be found first.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a member that is not killed is asked, before jitter.
const SLOW: Duration = Duration::from_secs(60);
/// How often one that is killed is asked, until it is silent.
const FAST: Duration = Duration::from_secs(1);
/// And after this many times in a row without that: as long as credentials hold, a kill may take half an hour.
const HURRIES: u32 = 120;
const PATIENT: Duration = Duration::from_secs(10);
/// This many times in a row without an answer are silence.
const SILENCES: u32 = 3;
/// Probes under way at once.
const AT_ONCE: usize = 16;

/// What became of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// Something came back.
    Answered,
    /// Nothing did.
    Silence,
    /// This host could not ask, so that it says nothing.
    Blind,
}

/// Asks an address whether somebody is there.
pub trait Prober: Send + Sync {
    /// Asks once.
    fn probe(&self, address: IpAddr) -> BoxFuture<'_, Echo>;
}

/// Asks over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpProber;

impl Prober for TcpProber {
    fn probe(&self, address: IpAddr) -> BoxFuture<'_, Echo> {
        Box::pin(async move {
            let mut best = Echo::Blind;
            let mut asked: stream::FuturesUnordered<_> = PORTS
                .into_iter()
                .map(|port| time::timeout(PATIENCE, TcpStream::connect(SocketAddr::new(address, port))))
                .collect();
            while let Some(connected) = asked.next().await {
                match connected.map_or(Echo::Silence, |connected| heard(connected.map(drop))) {
                    Echo::Answered => return Echo::Answered,
                    Echo::Silence => best = Echo::Silence,
                    Echo::Blind => {}
                }
            }
            best
        })
    }
}

/// What an attempt to connect says of the other end.
fn heard(connected: io::Result<()>) -> Echo {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, TimedOut};
    let Err(error) = connected else {
        return Echo::Answered;
    };
    let is_one_of = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
    if is_one_of(&[ConnectionRefused, ConnectionReset]) {
        Echo::Answered
    } else if is_one_of(&[TimedOut, HostUnreachable]) {
        Echo::Silence
    } else {
        // No route, no address, not permitted: it never left this machine.
        Echo::Blind
    }
}

/// What is known of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    killed: bool,
    answer: Answer,
    /// Times in a row without an answer.
    silences: u32,
    /// Times it was asked since it was killed.
    hurries: u32,
    due: Instant,
}

impl Sight {
    fn new(killed: bool, due: Instant) -> Self {
        Self {
            killed,
            answer: Answer::Never,
            silences: 0,
            hurries: 0,
            due,
        }
    }

    /// The member was killed, or the kill was lifted.
    fn judge(&mut self, killed: bool, now: Instant) {
        if self.killed == killed {
            return;
        }
        *self = Self {
            killed,
            silences: 0,
            hurries: 0,
            due: now,
            // What was silent because it was killed has to answer again first.
            answer: match (killed, self.answer) {
                (false, Answer::Silent) => Answer::Never,
                (true | false, answer) => answer,
            },
        };
    }

    /// Takes what a probe brought, and says when the next one is due; `jitter` is from 0 to 1.
    fn hear(&mut self, echo: Echo, now: Instant, jitter: f64) {
        match echo {
            Echo::Answered => {
                self.silences = 0;
                self.answer = Answer::Answers;
            }
            Echo::Silence => self.silences = self.silences.saturating_add(1),
            Echo::Blind => self.silences = 0,
        }
        if self.silences >= SILENCES && self.answer == Answer::Answers {
            // One that fell silent before it was killed proves nothing by being silent after.
            self.answer = if self.killed {
                Answer::Silent
            } else {
                Answer::Never
            };
        }
        self.hurries = self.hurries.saturating_add(1);
        let settled = self.silences >= SILENCES;
        let wait = match (self.killed, settled, self.hurries < HURRIES) {
            (false, _, _) | (true, true, _) => SLOW.mul_f64(0.75 + 0.5 * jitter),
            (true, false, true) => FAST,
            (true, false, false) => PATIENT,
        };
        self.due = now + wait;
    }
}

/// Who is asked, under which network and at which address.
type Subject = (NetworkId, NodeId, IpAddr);

/// Asks the members that the document names.
pub(crate) struct Witnesses {
    pub(crate) prober: Arc<dyn Prober>,
    pub(crate) wanted: watch::Receiver<Option<Arc<Wanted>>>,
    pub(crate) observed: Observed,
    pub(crate) told: Told,
}

impl Witnesses {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut sights: BTreeMap<Subject, Sight> = BTreeMap::new();
        loop {
            let subjects = subjects(self.wanted.borrow_and_update().as_deref());
            follow(&mut sights, &subjects, Instant::now());
            let asked = self.ask(&sights);
            tokio::select! {
                echoes = asked => {
                    for (subject, echo) in echoes {
                        if let Some(sight) = sights.get_mut(&subject) {
                            sight.hear(echo, Instant::now(), fastrand::f64());
                        }
                    }
                }
                () = stop.cancelled() => return,
            }
            self.told.witnesses(witnesses(&sights));
            let due = sights.values().map(|sight| sight.due).min();
            tokio::select! {
                () = stop.cancelled() => return,
                seen = self.wanted.changed() => if seen.is_err() { return },
                () = wait(due) => {}
            }
        }
    }

    /// Asks everybody who is due. A host that is not admitted to a network is blind there: what is silent may be its own
    /// end.
    async fn ask(&self, sights: &BTreeMap<Subject, Sight>) -> Vec<(Subject, Echo)> {
        let now = Instant::now();
        let due: Vec<_> = sights
            .iter()
            .filter(|(_, sight)| sight.due <= now)
            .map(|(subject, _)| *subject)
            .collect();
        if due.is_empty() {
            return Vec::new();
        }
        let admitted = self.admitted();
        let prober = &self.prober;
        let probes = due.into_iter().map(|subject| {
            let (network, _, address) = subject;
            let sees = admitted.contains(&network);
            async move {
                let echo = if sees {
                    prober.probe(address).await
                } else {
                    Echo::Blind
                };
                (subject, echo)
            }
        });
        stream::iter(probes).buffer_unordered(AT_ONCE).collect().await
    }

    fn admitted(&self) -> BTreeSet<NetworkId> {
        let sections = self.observed.watch();
        let body = sections.borrow().get(&SectionKind::ZeroTier).cloned();
        let read = body.and_then(|body| ZeroTierStatus::decode(&body.bytes).ok());
        let networks = read.map(|read| read.status.networks).unwrap_or_default();
        let ok = networks.into_iter().filter(|network| network.status == "OK");
        ok.map(|network| network.id).collect()
    }
}

async fn wait(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn subjects(wanted: Option<&Wanted>) -> BTreeSet<Witnessed> {
    match wanted.map(|wanted| &wanted.contents) {
        Some(Contents::Networks(stay)) => stay.witnessed.iter().take(MOST_WITNESSED).copied().collect(),
        Some(Contents::Members(_) | Contents::Shard(_)) | None => BTreeSet::new(),
    }
}

/// Takes in who is named, and forgets who is not.
fn follow(sights: &mut BTreeMap<Subject, Sight>, subjects: &BTreeSet<Witnessed>, now: Instant) {
    let named: BTreeMap<Subject, bool> = subjects
        .iter()
        .map(|one| ((one.network, one.node, one.address), one.killed))
        .collect();
    sights.retain(|subject, _| named.contains_key(subject));
    for (subject, killed) in named {
        sights
            .entry(subject)
            .or_insert_with(|| Sight::new(killed, now))
            .judge(killed, now);
    }
}

fn witnesses(sights: &BTreeMap<Subject, Sight>) -> Vec<Witness> {
    let witness = |(subject, sight): (&Subject, &Sight)| Witness {
        network: subject.0,
        node: subject.1,
        address: subject.2,
        answer: sight.answer,
    };
    sights.iter().map(witness).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(killed: bool) -> Sight {
        Sight::new(killed, Instant::now())
    }

    fn hears(sight: &mut Sight, echoes: &[Echo]) -> Answer {
        for echo in echoes {
            sight.hear(*echo, Instant::now(), 0.5);
        }
        sight.answer
    }

    #[test]
    fn three_silences_in_a_row_of_a_killed_member_that_answered_before_are_silence() {
        let mut sight = sight(false);
        assert_eq!(hears(&mut sight, &[Echo::Answered]), Answer::Answers);
        sight.judge(true, Instant::now());
        assert_eq!(hears(&mut sight, &[Echo::Silence; 2]), Answer::Answers);
        assert_eq!(
            hears(&mut sight, &[Echo::Answered, Echo::Silence, Echo::Silence]),
            Answer::Answers
        );
        assert_eq!(hears(&mut sight, &[Echo::Silence]), Answer::Silent);
        assert_eq!(
            hears(&mut sight, &[Echo::Answered]),
            Answer::Answers,
            "it is back"
        );
    }

    #[test]
    fn the_silence_of_one_that_never_answered_or_fell_silent_before_it_was_killed_says_nothing() {
        let mut never = sight(true);
        assert_eq!(hears(&mut never, &[Echo::Silence; 9]), Answer::Never);
        let mut off = sight(false);
        hears(&mut off, &[Echo::Answered]);
        assert_eq!(hears(&mut off, &[Echo::Silence; 3]), Answer::Never);
        off.judge(true, Instant::now());
        assert_eq!(hears(&mut off, &[Echo::Silence; 3]), Answer::Never);
    }

    #[test]
    fn a_host_that_cannot_ask_bears_no_witness() {
        let mut sight = sight(true);
        hears(&mut sight, &[Echo::Answered]);
        let echoes = [
            Echo::Silence,
            Echo::Silence,
            Echo::Blind,
            Echo::Silence,
            Echo::Silence,
        ];
        assert_eq!(hears(&mut sight, &echoes), Answer::Answers);
        assert_eq!(heard(Err(io::ErrorKind::NetworkUnreachable.into())), Echo::Blind);
        assert_eq!(
            heard(Err(io::ErrorKind::ConnectionRefused.into())),
            Echo::Answered
        );
        assert_eq!(heard(Err(io::ErrorKind::HostUnreachable.into())), Echo::Silence);
    }

    #[test]
    fn a_kill_that_is_lifted_makes_a_silent_member_one_that_has_to_answer_first() {
        let mut sight = sight(true);
        hears(&mut sight, &[Echo::Answered]);
        hears(&mut sight, &[Echo::Silence; 3]);
        sight.judge(false, Instant::now());
        assert_eq!(sight.answer, Answer::Never);
    }

    #[test]
    fn a_killed_member_is_asked_every_second_until_it_is_silent_and_the_others_once_a_minute() {
        let now = Instant::now();
        let mut calm = Sight::new(false, now);
        calm.hear(Echo::Answered, now, 0.5);
        assert_eq!(calm.due, now + SLOW);
        let mut killed = Sight::new(true, now);
        killed.hear(Echo::Answered, now, 0.5);
        assert_eq!(killed.due, now + FAST);
        for _ in 0..HURRIES {
            killed.hear(Echo::Answered, now, 0.5);
        }
        assert_eq!(killed.due, now + PATIENT);
        for _ in 0..SILENCES {
            killed.hear(Echo::Silence, now, 0.5);
        }
        assert_eq!((killed.answer, killed.due), (Answer::Silent, now + SLOW));
    }

    #[tokio::test]
    async fn a_closed_port_of_an_address_that_is_there_is_an_answer() {
        assert_eq!(TcpProber.probe([127, 0, 0, 1].into()).await, Echo::Answered);
    }
}
