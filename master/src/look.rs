//! Having a controller looked at now, and saying from when what is known of it is where it cannot be.
//!
//! In: who wants to know, a session's agent and what it answers. Out: the question, and what was seen since it was asked.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use jiff::Timestamp;
use picket_proto::{host::HostId, status::ControlledNetwork};
use picket_zerotier::ids::NetworkId;
use tokio::{sync::watch, time};

use crate::{central, desk::Desk, record::network::Governor, refused::Refused};

/// The questions of one session. Each is a new one: an answer to one that was asked before may be from before. The agent
/// answers many at once.
#[derive(Debug)]
pub struct Looks {
    asked: AtomicU64,
    heard: watch::Sender<Heard>,
}

/// Up to which question the agent answered, and how.
#[derive(Debug, Default)]
struct Heard {
    upto: u64,
    problem: String,
    ended: bool,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// What the host says of its controller was read since.
    Fresh,
    /// Its agent could not read it; why.
    Blind(String),
    /// It did not answer in time.
    Silence,
    /// Its session ended.
    End,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            asked: AtomicU64::new(0),
            heard: watch::Sender::default(),
        }
    }
}

impl Looks {
    /// Asks, has the session told by `nudge`, and waits for the answer.
    pub async fn ask(&self, nudge: impl FnOnce(), patience: Duration) -> Looked {
        let mut heard = self.heard.subscribe();
        let question = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        nudge();
        let answered = heard.wait_for(|heard| heard.ended || heard.upto >= question);
        match time::timeout(patience, answered).await {
            Err(_) => Looked::Silence,
            Ok(Err(_)) => Looked::End,
            Ok(Ok(heard)) if heard.upto < question => Looked::End,
            Ok(Ok(heard)) if heard.problem.is_empty() => Looked::Fresh,
            Ok(Ok(heard)) => Looked::Blind(heard.problem.clone()),
        }
    }

    /// The newest question, if it waits for an answer.
    #[must_use]
    pub fn question(&self) -> Option<u64> {
        let asked = self.asked.load(Ordering::Acquire);
        (asked > self.heard.borrow().upto).then_some(asked)
    }

    /// Takes an answer in. One to a question that nobody asked counts for nothing.
    pub fn answer(&self, question: u64, problem: String) {
        let asked = self.asked.load(Ordering::Acquire);
        self.heard.send_if_modified(|heard| {
            let news = question <= asked && question > heard.upto;
            if news {
                (heard.upto, heard.problem) = (question, problem);
            }
            news
        });
    }

    /// The session ended.
    pub fn end(&self) {
        self.heard.send_modify(|heard| heard.ended = true);
    }
}

/// A network as its controller has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// As it is, or as it was last reported.
    pub network: ControlledNetwork,
    /// Why it is not from now, and from when it is.
    pub caution: Option<String>,
}

/// Has a controller read a network now, within `patience`. Where its host does not do that, what it reported last will do.
///
/// # Errors
/// When nothing is known of the network at its controller.
pub async fn look(
    desk: &Desk,
    governor: Governor,
    id: NetworkId,
    patience: Duration,
) -> Result<Sight, Refused> {
    let host = match governor {
        Governor::Host(host) => host,
        Governor::Central(_) => {
            let network = central::look(desk, id, patience).await?;
            return Ok(Sight {
                network,
                caution: None,
            });
        }
    };
    let why = ask(desk, host, patience).await;
    let network = desk.controlled(governor, id).map_err(Refused::NotNow)?;
    let said = desk.observed.get(host).and_then(|seen| seen.controller_said());
    let caution = why.map(|why| aged(&why, said, desk.now()));
    Ok(Sight { network, caution })
}

/// Has a host look. Returns why it did not.
async fn ask(desk: &Desk, host: HostId, patience: Duration) -> Option<String> {
    let name = desk.name_of(host);
    let Some(seated) = desk.sessions.seated(host) else {
        return Some(format!("{name} is not connected"));
    };
    if !seated.who.looks {
        return Some(format!(
            "the agent on {name} is older than this and reads its controller every 30 s alone; update it"
        ));
    }
    match seated.post.look(patience).await {
        Looked::Fresh => None,
        Looked::Blind(problem) => Some(format!("{name} cannot read its controller: {problem}")),
        Looked::Silence => Some(format!("{name} did not answer")),
        Looked::End => Some(format!("the session of {name} ended")),
    }
}

/// Says from when something is.
fn aged(why: &str, said: Option<Timestamp>, now: Timestamp) -> String {
    let Some(said) = said else {
        return format!("{why}; this is what was known before");
    };
    let ago = now.duration_since(said).as_secs().max(0);
    format!(
        "{why}; this is as of {}, {ago} s ago, when it reported last",
        said.strftime("%Y-%m-%dT%H:%M:%SZ")
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_util::task::TaskTracker;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(4);

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_an_earlier_question_is_none_to_a_later_one_and_one_to_the_later_is_for_both() {
        let (looks, tasks) = (Arc::new(Looks::default()), TaskTracker::new());
        let ask = || {
            let looks = Arc::clone(&looks);
            tasks.spawn(async move { looks.ask(|| {}, PATIENCE).await })
        };
        let first = ask();
        tokio::task::yield_now().await;
        let second = ask();
        tokio::task::yield_now().await;
        assert_eq!(looks.question(), Some(2));
        looks.answer(1, String::new());
        assert_eq!(first.await.unwrap(), Looked::Fresh);
        assert_eq!(looks.question(), Some(2));
        let third = ask();
        tokio::task::yield_now().await;
        looks.answer(3, "it is off".into());
        assert_eq!(second.await.unwrap(), Looked::Blind("it is off".into()));
        assert_eq!(third.await.unwrap(), Looked::Blind("it is off".into()));
        assert_eq!(looks.question(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_does_not_answer_or_goes_is_waited_for_no_longer_than_that() {
        let looks = Looks::default();
        let answer = looks.ask(|| looks.answer(7, String::new()), PATIENCE).await;
        assert_eq!(answer, Looked::Silence, "nobody asked a seventh");
        assert_eq!(looks.ask(|| looks.end(), PATIENCE).await, Looked::End);
    }

    #[test]
    fn what_is_not_from_now_says_from_when_it_is() {
        let said: Timestamp = "2026-11-22T08:12:03.5Z".parse().unwrap();
        let now = "2026-11-22T08:12:31Z".parse().unwrap();
        assert_eq!(
            aged("oslo did not answer", Some(said), now),
            "oslo did not answer; this is as of 2026-11-22T08:12:03Z, 27 s ago, when it reported last"
        );
    }
}
