//! Refused changes in the audit trail: the first at once, the same again once a minute with a count.
//!
//! Whoever asks for the same thing in a loop, or for ever another one, fills neither the journal nor the memory and costs
//! the disk no flush for each try.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use picket_proto::plain;

use crate::{
    desk::Desk,
    store::{Audit, Commit, CommitError, Outcome},
};

/// How many refusals are told apart at a time, of all callers.
const MOST: usize = 4096;
/// How many different refusals of one caller are told apart within a minute.
const MOST_EACH: usize = 24;
/// The longest text of a refusal that is kept.
const MOST_TEXT: usize = 512;

/// What was refused lately.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Lately>);

#[derive(Debug, Default)]
struct Lately {
    /// How often each was refused since it was written down.
    same: BTreeMap<Same, Counted>,
    /// How many of `same` are of one caller.
    callers: BTreeMap<String, usize>,
    /// What is in none of them.
    others: u32,
}

/// What makes two refusals the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Same {
    who: String,
    /// None for all that were too many to tell apart.
    what: Option<[String; 3]>,
}

#[derive(Debug)]
struct Counted {
    latest: Audit,
    times: u32,
}

impl Refusals {
    /// Takes a refusal; returns it when it is to be written down at once.
    fn take(&self, audit: Audit) -> Option<Audit> {
        let mut lately = self.lately();
        let what = [
            audit.what.clone(),
            audit.subject.clone(),
            audit.refusal().to_owned(),
        ];
        let mut same = Same {
            who: audit.who.clone(),
            what: Some(what),
        };
        if !lately.same.contains_key(&same) {
            let room = lately.same.len() < MOST;
            let own = lately.callers.get(&audit.who).copied().unwrap_or_default();
            if room && own < MOST_EACH {
                *lately.callers.entry(audit.who.clone()).or_default() += 1;
                let latest = audit.clone();
                lately.same.insert(same, Counted { latest, times: 0 });
                return Some(audit);
            }
            same.what = None;
            if !room && !lately.same.contains_key(&same) {
                lately.others = lately.others.saturating_add(1);
                return None;
            }
        }
        let counted = lately.same.entry(same).or_insert_with(|| Counted {
            latest: audit.clone(),
            times: 0,
        });
        counted.times = counted.times.saturating_add(1);
        counted.latest = audit;
        None
    }

    /// What was counted since the last time. What was not refused again is forgotten.
    fn settle(&self) -> Vec<Audit> {
        let mut lately = self.lately();
        lately.same.retain(|_, counted| counted.times > 0);
        let mut callers = BTreeMap::new();
        let mut entries = Vec::with_capacity(lately.same.len());
        for (same, counted) in &mut lately.same {
            let times = std::mem::take(&mut counted.times);
            let mut audit = Audit {
                times,
                ..counted.latest.clone()
            };
            if same.what.is_some() {
                *callers.entry(same.who.clone()).or_default() += 1;
            } else {
                audit.subject = "many".to_owned();
            }
            entries.push(audit);
        }
        lately.callers = callers;
        let others = std::mem::take(&mut lately.others);
        if others > 0 {
            entries.push(Audit {
                who: "many".to_owned(),
                what: "many".to_owned(),
                outcome: Outcome::Refused("too many callers were refused to name each".to_owned()),
                times: others,
                ..Audit::default()
            });
        }
        entries
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        // Every change of it is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes that a change was refused. Returns whether that is news, and then it is in the journal.
pub async fn note(desk: &Desk, audit: Audit, refusal: &str) -> bool {
    let cut = |text: &str| plain(text, MOST_TEXT);
    let audit = Audit {
        subject: cut(&audit.subject),
        why: cut(&audit.why),
        outcome: Outcome::Refused(cut(refusal)),
        ..audit
    };
    let Some(audit) = desk.refusals.take(audit) else {
        return false;
    };
    write(desk, audit).await;
    true
}

/// Writes down what was counted.
pub(super) async fn settle(desk: &Desk) {
    // Together, so that they share a flush.
    let entries = desk.refusals.settle();
    futures::future::join_all(entries.into_iter().map(|audit| write(desk, audit))).await;
}

async fn write(desk: &Desk, audit: Audit) {
    let (who, what) = (audit.who.clone(), audit.what.clone());
    let commit = Commit {
        audit,
        ..Commit::default()
    };
    match desk.store.commit(commit).await {
        Ok(_) => desk.metrics.commits.increment(1),
        // A frozen store takes nothing, and says so itself.
        Err(CommitError::Frozen { .. } | CommitError::Closed) => {}
        Err(error) => tracing::warn!(%error, who, what, "a refusal is not in the audit trail"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_written_at_once_and_the_same_again_once_with_a_count() {
        let refusals = Refusals::default();
        assert!(refusals.take(refused("ada", "oslo", "banned")).is_some());
        for _ in 0..9 {
            assert_eq!(refusals.take(refused("ada", "oslo", "banned")), None);
        }
        assert!(
            refusals.take(refused("ada", "bern", "banned")).is_some(),
            "about another thing is another refusal"
        );
        let settled = refusals.settle();
        assert_eq!(settled.iter().map(|audit| audit.times).collect::<Vec<_>>(), [9]);
        assert_eq!(
            refusals.take(refused("ada", "oslo", "banned")),
            None,
            "still the same loop"
        );
        assert_eq!(refusals.settle().len(), 1);
        assert_eq!(refusals.settle(), [], "a minute of quiet");
        assert!(
            refusals.take(refused("ada", "oslo", "banned")).is_some(),
            "and it is news again"
        );
    }

    #[test]
    fn a_caller_who_is_refused_for_ever_another_thing_has_a_bounded_number_of_entries() {
        let refusals = Refusals::default();
        let mut written = 0;
        for n in 0..10_000 {
            written += usize::from(
                refusals
                    .take(refused("mallory", &format!("host-{n}"), "no"))
                    .is_some(),
            );
        }
        assert_eq!(written, MOST_EACH);
        assert!(
            refusals.take(refused("ada", "oslo", "no")).is_some(),
            "others are not drowned out"
        );
        let settled = refusals.settle();
        let [one] = settled.as_slice() else {
            panic!("{settled:?}")
        };
        assert_eq!((one.who.as_str(), one.subject.as_str()), ("mallory", "many"));
        assert_eq!(one.times as usize, 10_000 - MOST_EACH);
    }

    #[test]
    fn ever_other_callers_do_not_fill_the_memory() {
        let refusals = Refusals::default();
        for n in 0..MOST + 1000 {
            refusals.take(refused(&format!("host/{n}"), "x", "no"));
        }
        assert_eq!(refusals.lately().same.len(), MOST);
        let settled = refusals.settle();
        assert_eq!(
            settled.iter().map(|audit| audit.times).collect::<Vec<_>>(),
            [1000]
        );
        assert!(refusals.lately().same.is_empty() && refusals.lately().callers.is_empty());
    }

    fn refused(who: &str, subject: &str, why: &str) -> Audit {
        Audit {
            who: who.to_owned(),
            what: "HostService/BanHost".to_owned(),
            subject: subject.to_owned(),
            outcome: Outcome::Refused(why.to_owned()),
            ..Audit::default()
        }
    }
}
