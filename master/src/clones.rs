//! Two machines under one identity: who goes on, who waits, and what an operator is told of it.
//!
//! [`decide`] is a plain function of what the two say of themselves and of whether the older one answered a ping.
//! [`Clones`] keeps how often sessions took each other's place and which machines were sent away, for the few hosts that
//! this concerns. It sends nothing and waits for nobody; `session.rs` does.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use picket_clock::Instant;
use picket_proto::{host::HostId, session::Hello};
use sha2::{Digest as _, Sha256};

/// How long the older session has for its answer to a ping.
pub const ANSWER: Duration = Duration::from_secs(3);
/// When a machine that was sent away may come again. With two hundred of them that is a connection every second and a
/// half, each gone after one message.
pub const RETRY: Duration = Duration::from_secs(300);

/// So many takeovers ...
const OFTEN: usize = 3;
/// ... within this time are an alarm, and from then on everybody is asked.
const WINDOW: Duration = Duration::from_secs(600);
/// Whoever was sent away and still runs has come again by then: [`RETRY`], jitter, and a master that was away.
const FORGOTTEN: Duration = Duration::from_secs(900);
/// So many machines of one identity are told apart.
const MOST_MACHINES: usize = 16;
/// The list is swept when it is this long.
const SWEEP: usize = 1024;

/// What an agent says of its machine and of itself. Digests, since machine and boot ids may have any length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    machine: [u8; 16],
    /// None when the agent could not read it: nothing is known to be the same boot then.
    boot: Option<[u8; 16]>,
    instance: [u8; 16],
}

impl Machine {
    /// The machine a Hello comes from.
    #[must_use]
    pub fn of(hello: &Hello) -> Self {
        let print = |text: &str| {
            let digest: [u8; 32] = Sha256::digest(text).into();
            digest[..16].try_into().unwrap_or_default()
        };
        Self {
            machine: print(&hello.machine_id),
            boot: (!hello.boot_id.is_empty()).then(|| print(&hello.boot_id)),
            instance: hello.instance_id,
        }
    }

    /// The same run of the same machine's kernel.
    fn same_boot(&self, other: &Self) -> bool {
        self.boot.is_some() && self.boot == other.boot && self.machine == other.machine
    }
}

/// Whether the older session was asked, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was not asked yet.
    Unasked,
    /// Its agent is too old to be asked.
    Impossible,
    /// It did not answer in time.
    Missing,
    /// It answered.
    Given,
}

/// What becomes of a second session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has the older one's place.
    TakeOver(Why),
    /// The older one is to be asked first.
    Ask,
    /// It is sent away for a while.
    Quarantine,
}

/// Why a second session has the older one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The same run of the agent, over another connection.
    Reconnected,
    /// The same boot of the same machine, with another run of the agent.
    Restarted,
    /// The older one is silent, and the machine is the same.
    Rebooted,
    /// The older one is silent, and it was another machine.
    Moved,
    /// The older one cannot be asked.
    Unasked,
}

impl Why {
    /// As one word, for counting.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Reconnected => "reconnected",
            Self::Restarted => "restarted",
            Self::Rebooted => "rebooted",
            Self::Moved => "moved",
            Self::Unasked => "unasked",
        }
    }
}

/// Decides on a second session. `often`: sessions of this host took each other's place again and again, so that not even
/// the same boot is believed without a question: two runs of the agent on one machine have the same.
#[must_use]
pub fn decide(older: &Machine, newer: &Machine, often: bool, answer: Answer) -> Verdict {
    let same_boot = older.same_boot(newer);
    let same_run = same_boot && older.instance == newer.instance;
    match answer {
        Answer::Unasked if same_boot && !often => Verdict::TakeOver(if same_run {
            Why::Reconnected
        } else {
            Why::Restarted
        }),
        Answer::Unasked => Verdict::Ask,
        Answer::Given => Verdict::Quarantine,
        Answer::Impossible => Verdict::TakeOver(Why::Unasked),
        Answer::Missing if same_run => Verdict::TakeOver(Why::Reconnected),
        Answer::Missing if same_boot => Verdict::TakeOver(Why::Restarted),
        Answer::Missing if older.machine == newer.machine => Verdict::TakeOver(Why::Rebooted),
        Answer::Missing => Verdict::TakeOver(Why::Moved),
    }
}

/// What happened around hosts of which there were two at once. Every entry ends by itself.
#[derive(Debug, Default)]
pub struct Clones(Mutex<HashMap<HostId, Trouble>>);

#[derive(Debug, Default)]
struct Trouble {
    /// The last takeovers, newest first.
    takeovers: [Option<Instant>; OFTEN],
    alarmed: Option<Instant>,
    away: Option<Away>,
}

/// The machines that were sent away.
#[derive(Debug)]
struct Away {
    /// Where the session is that has the place.
    seated: SocketAddr,
    /// Where the last one came from.
    from: SocketAddr,
    at: Instant,
    machines: Vec<[u8; 16]>,
}

fn within(at: Option<Instant>, span: Duration, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < span)
}

impl Trouble {
    fn often(&self, now: Instant) -> bool {
        self.takeovers.iter().all(|at| within(*at, WINDOW, now))
    }

    fn away(&self, now: Instant) -> Option<&Away> {
        self.away
            .as_ref()
            .filter(|away| within(Some(away.at), FORGOTTEN, now))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.away(now).is_none() && !within(self.takeovers[0], WINDOW, now)
    }
}

impl Clones {
    /// Whether sessions of a host took each other's place again and again.
    #[must_use]
    pub fn often(&self, host: HostId, now: Instant) -> bool {
        self.inner().get(&host).is_some_and(|trouble| trouble.often(now))
    }

    /// Takes in that a session took another one's place. Returns whether that is an alarm: it is one at most in each
    /// ten minutes.
    pub fn took_over(&self, host: HostId, now: Instant) -> bool {
        let mut inner = self.inner();
        let trouble = entry(&mut inner, host, now);
        trouble.takeovers.rotate_right(1);
        trouble.takeovers[0] = Some(now);
        let alarm = trouble.often(now) && !within(trouble.alarmed, WINDOW, now);
        if alarm {
            trouble.alarmed = Some(now);
        }
        alarm
    }

    /// Takes in that a machine was sent away because the session from `seated` answered. Returns whether that is news:
    /// nobody was sent away from this host for a quarter of an hour.
    pub fn sent_away(
        &self,
        host: HostId,
        machine: &Machine,
        from: SocketAddr,
        seated: SocketAddr,
        now: Instant,
    ) -> bool {
        let mut inner = self.inner();
        let trouble = entry(&mut inner, host, now);
        let news = trouble.away(now).is_none();
        let before = trouble.away.take().filter(|_| !news);
        let mut machines = before.map(|away| away.machines).unwrap_or_default();
        let print = machine.boot.unwrap_or(machine.machine);
        if machines.len() < MOST_MACHINES && !machines.contains(&print) {
            machines.push(print);
        }
        trouble.away = Some(Away {
            seated,
            from,
            at: now,
            machines,
        });
        news
    }

    /// What is wrong with a host, in a sentence.
    #[must_use]
    pub fn condition(&self, host: HostId, name: &str, now: Instant) -> Option<String> {
        let inner = self.inner();
        let trouble = inner.get(&host)?;
        if let Some(away) = trouble.away(now) {
            let machines = match away.machines.len() {
                0 | 1 => "another machine uses".to_owned(),
                MOST_MACHINES.. => format!("{MOST_MACHINES} or more other machines use"),
                many => format!("{many} other machines use"),
            };
            return Some(format!(
                "identity: {machines} this host's identity and wait, the last at {}; the session is from {}. Stop the wrong \
                 one, or `picketctl host bundle {name} --cut` ends all",
                away.from, away.seated
            ));
        }
        trouble.often(now).then(|| {
            format!(
                "identity: its sessions take each other's place again and again; two agents have this identity, or its line \
                 breaks. `picketctl host bundle {name} --cut` ends all"
            )
        })
    }

    /// How many hosts are on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner().len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner().is_empty()
    }

    fn inner(&self) -> MutexGuard<'_, HashMap<HostId, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(inner: &mut HashMap<HostId, Trouble>, host: HostId, now: Instant) -> &mut Trouble {
    if inner.len() >= SWEEP {
        inner.retain(|_, trouble| !trouble.is_over(now));
    }
    inner.entry(host).or_default()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const OSLO: HostId = HostId(Uuid::from_u128(1));

    fn machine(machine: u8, boot: u8, instance: u8) -> Machine {
        Machine {
            machine: [machine; 16],
            boot: (boot > 0).then_some([boot; 16]),
            instance: [instance; 16],
        }
    }

    fn address(n: u8) -> SocketAddr {
        ([192, 0, 2, n], 40_000).into()
    }

    #[test]
    fn an_agent_that_was_restarted_takes_over_without_a_question() {
        let older = machine(1, 1, 1);
        let decided = |newer| decide(&older, &newer, false, Answer::Unasked);
        assert_eq!(decided(machine(1, 1, 2)), Verdict::TakeOver(Why::Restarted));
        assert_eq!(decided(machine(1, 1, 1)), Verdict::TakeOver(Why::Reconnected));
    }

    #[test]
    fn whoever_is_not_the_same_boot_of_the_same_machine_is_decided_by_a_ping() {
        let older = machine(1, 1, 1);
        for newer in [
            machine(1, 2, 2),
            machine(2, 1, 2),
            machine(2, 2, 2),
            machine(1, 0, 2),
        ] {
            assert_eq!(decide(&older, &newer, false, Answer::Unasked), Verdict::Ask);
            assert_eq!(decide(&older, &newer, false, Answer::Given), Verdict::Quarantine);
            assert!(matches!(
                decide(&older, &newer, false, Answer::Missing),
                Verdict::TakeOver(Why::Rebooted | Why::Moved)
            ));
        }
    }

    #[test]
    fn a_boot_that_nobody_could_read_is_never_the_same() {
        let unknown = machine(1, 0, 1);
        assert_eq!(decide(&unknown, &unknown, false, Answer::Unasked), Verdict::Ask);
    }

    #[test]
    fn two_agents_on_one_machine_are_told_apart_once_they_took_over_often() {
        let (older, newer) = (machine(1, 1, 1), machine(1, 1, 2));
        assert_eq!(decide(&older, &newer, true, Answer::Unasked), Verdict::Ask);
        assert_eq!(decide(&older, &newer, true, Answer::Given), Verdict::Quarantine);
        assert_eq!(
            decide(&older, &newer, true, Answer::Missing),
            Verdict::TakeOver(Why::Restarted)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_takeover_in_ten_minutes_is_one_alarm_and_one_an_hour_is_none() {
        let clones = Clones::default();
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let alarms = [0, 4, 9, 10, 11].map(|minute| clones.took_over(OSLO, at(minute)));
        assert_eq!(alarms, [false, false, true, false, false]);
        assert!(clones.often(OSLO, at(12)));
        assert!(!clones.often(OSLO, at(30)));
        assert!((1..20).all(|hour| !clones.took_over(OSLO, at(60 * hour))));
    }

    #[tokio::test(start_paused = true)]
    async fn two_hundred_machines_that_come_again_and_again_are_news_once_and_forgotten_when_they_are_gone() {
        let clones = Clones::default();
        let start = Instant::now();
        let mut news = 0;
        for round in 0..12 {
            for n in 1..=200 {
                let now = start + RETRY * round;
                let told = clones.sent_away(OSLO, &machine(n, n, n), address(n), address(0), now);
                news += u32::from(told);
            }
        }
        assert_eq!((news, clones.len()), (1, 1));
        let last = start + RETRY * 11;
        let condition = clones.condition(OSLO, "oslo", last).unwrap();
        assert!(
            condition.contains("16 or more") && condition.contains("192.0.2.200"),
            "{condition}"
        );
        assert_eq!(clones.condition(OSLO, "oslo", last + FORGOTTEN), None);
        assert!(clones.sent_away(OSLO, &machine(1, 1, 1), address(1), address(0), last + FORGOTTEN));
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_does_not_grow_with_hosts_whose_trouble_is_over() {
        let clones = Clones::default();
        let start = Instant::now();
        for n in 0..10_000_u32 {
            let host = HostId(Uuid::from_u128(n.into()));
            clones.took_over(host, start + Duration::from_secs(n.into()));
        }
        assert!(clones.len() <= SWEEP, "{}", clones.len());
    }
}
