//! The check of an export: whether its entries are all there, untouched and in their order, and reach as far as was
//! witnessed. It believes nothing but hashes, and heads that somebody kept elsewhere.

use std::collections::BTreeMap;

use super::{Entry, Hash, Lineage, genesis};

/// How far a journal had come, as witnessed by something outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which line of history.
    pub lineage: Lineage,
    /// The revision.
    pub revision: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What is wrong with a journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry is not as it was written.
    #[error("the entry of revision {revision} was edited: its fields do not have its hash")]
    Edited {
        /// Which.
        revision: u64,
    },
    /// Entries are not there.
    #[error("{}", missing(*.first, *.last))]
    Removed {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// An entry stands where it does not belong.
    #[error("the entry of revision {revision} stands after that of revision {after}: entries were reordered")]
    Reordered {
        /// Which.
        revision: u64,
        /// The one before it.
        after: u64,
    },
    /// An entry has a right hash and does not follow the one before it.
    #[error("the entry of revision {revision} does not follow the one before it: one of them was rewritten")]
    Unchained {
        /// Which.
        revision: u64,
    },
    /// Entries are of two histories.
    #[error("the entry of revision {revision} is of another lineage, {lineage}")]
    OtherLineage {
        /// Which.
        revision: u64,
        /// Its lineage.
        lineage: Lineage,
    },
    /// The hash is another than the one that was witnessed.
    #[error("revision {revision} is not the one that was witnessed: the history was rewritten")]
    Rewritten {
        /// Which.
        revision: u64,
    },
    /// The end is missing.
    #[error("the journal ends with revision {end}, but revision {witnessed} was witnessed: its tail was cut")]
    Cut {
        /// The last revision there is.
        end: u64,
        /// The last one there was.
        witnessed: u64,
    },
}

fn missing(first: u64, last: u64) -> String {
    if first == last {
        format!("the entry of revision {first} was removed")
    } else {
        format!("the entries of revisions {first} to {last} were removed")
    }
}

/// Takes the entries of a journal one by one.
#[derive(Debug, Default)]
pub struct Chain {
    heads: BTreeMap<([u8; 16], u64), Hash>,
    at: Option<Head>,
    /// Revisions that were passed over. Whether they were removed or stand elsewhere is seen at the end.
    gap: Option<(u64, u64)>,
    first: u64,
    entries: u64,
    witnessed: u64,
}

impl Chain {
    /// A check against these heads; those of other lineages say nothing. Where two say different things of one revision,
    /// no entry fits both.
    #[must_use]
    pub fn against(heads: impl IntoIterator<Item = Head>) -> Self {
        let mut chain = Self::default();
        for head in heads {
            let kept = chain
                .heads
                .entry((head.lineage.0, head.revision))
                .or_insert(head.hash);
            if *kept != head.hash {
                *kept = Hash([0; 32]);
            }
        }
        chain
    }

    /// Where the check is, when it has begun.
    #[must_use]
    pub fn at(&self) -> Option<Head> {
        self.at
    }

    /// How many entries were taken.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The revision it began with; entries before it were not looked at.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// How many heads were found in it.
    #[must_use]
    pub fn witnessed(&self) -> u64 {
        self.witnessed
    }

    /// Takes the next entry. That some are missing before it is said by [`Chain::end`]: they may follow.
    ///
    /// # Errors
    /// What is wrong with it, or between it and the one before it.
    pub fn take(&mut self, entry: &Entry) -> Result<(), Broken> {
        let Entry {
            revision,
            lineage,
            previous,
            hash,
            ..
        } = *entry;
        if entry.computed() != Some(hash) {
            return Err(Broken::Edited { revision });
        }
        match self.at {
            Some(at) if at.lineage != lineage => return Err(Broken::OtherLineage { revision, lineage }),
            Some(at) if self.gap.is_some() && revision > at.revision => {
                self.at = Some(Head { revision, hash, ..at });
                return Ok(());
            }
            Some(at) if revision > at.revision + 1 => {
                self.gap = Some((at.revision + 1, revision - 1));
                self.at = Some(Head { revision, hash, ..at });
                return Ok(());
            }
            Some(at) if revision <= at.revision => {
                return Err(Broken::Reordered {
                    revision,
                    after: at.revision,
                });
            }
            Some(at) if previous != at.hash => return Err(Broken::Unchained { revision }),
            Some(_) => {}
            None => {
                self.first = revision;
                if revision == 1 && previous != genesis(lineage) {
                    return Err(Broken::Unchained { revision });
                }
                if let Some(before) = revision.checked_sub(1) {
                    self.confirm(before, previous, lineage)?;
                }
            }
        }
        self.confirm(revision, hash, lineage)?;
        self.at = Some(Head {
            lineage,
            revision,
            hash,
        });
        self.entries += 1;
        Ok(())
    }

    /// Ends the check.
    ///
    /// # Errors
    /// When entries were missing on the way, or a head says that there was more.
    pub fn end(&self) -> Result<(), Broken> {
        self.whole()?;
        let Some(at) = self.at else { return Ok(()) };
        let last = self
            .heads
            .range((at.lineage.0, 0)..=(at.lineage.0, u64::MAX))
            .next_back();
        match last {
            Some(((_, witnessed), _)) if *witnessed > at.revision => Err(Broken::Cut {
                end: at.revision,
                witnessed: *witnessed,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Adds a head that came behind the entries, and checks it against the last of them.
    ///
    /// # Errors
    /// When entries were missing on the way, or it is of another journal, or of a later or another state of this one.
    pub fn close(&mut self, head: Head) -> Result<(), Broken> {
        self.whole()?;
        let end = self.at.map_or(0, |at| at.revision);
        if let Some(at) = self.at
            && at.lineage != head.lineage
        {
            let (revision, lineage) = (head.revision, head.lineage);
            return Err(Broken::OtherLineage { revision, lineage });
        }
        if head.revision > end {
            return Err(Broken::Cut {
                end,
                witnessed: head.revision,
            });
        }
        if head.revision == end && self.at.is_some_and(|at| at.hash != head.hash) {
            return Err(Broken::Rewritten { revision: end });
        }
        if head.revision == end {
            self.witnessed += 1;
        }
        Ok(())
    }

    fn whole(&self) -> Result<(), Broken> {
        match self.gap {
            Some((first, last)) => Err(Broken::Removed { first, last }),
            None => Ok(()),
        }
    }

    fn confirm(&mut self, revision: u64, hash: Hash, lineage: Lineage) -> Result<(), Broken> {
        match self.heads.get(&(lineage.0, revision)) {
            Some(head) if *head != hash => Err(Broken::Rewritten { revision }),
            Some(_) => {
                self.witnessed += 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Audit, Written, hash};

    const LINEAGE: Lineage = Lineage([1; 16]);

    #[test]
    fn an_untouched_journal_passes_from_any_revision_on() {
        let trail = trail(9);
        for first in 0..9 {
            assert_eq!(checked(&trail[first..], &[]), Ok(9 - first as u64));
        }
    }

    #[test]
    fn any_field_that_is_edited_shows() {
        type Edit = fn(&mut Entry);
        let edits: [Edit; 13] = [
            |entry| entry.audit.who.push('x'),
            |entry| entry.audit.from.push('x'),
            |entry| entry.audit.what.push('x'),
            |entry| entry.audit.subject.push('x'),
            |entry| entry.audit.why.push('x'),
            |entry| entry.audit.before.push('x'),
            |entry| entry.audit.after.push('x'),
            |entry| entry.audit.outcome = crate::audit::Outcome::Refused(String::new()),
            |entry| entry.audit.times += 1,
            |entry| entry.time += jiff::SignedDuration::from_micros(1),
            |entry| entry.previous.0[0] ^= 1,
            |entry| entry.hash.0[0] ^= 1,
            |entry| {
                entry.written = Written::Apart {
                    sha256: Hash([9; 32]),
                    length: 4,
                }
            },
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let mut trail = trail(5);
            edit(&mut trail[2]);
            assert_eq!(
                checked(&trail, &[]),
                Err(Broken::Edited { revision: 3 }),
                "{number}"
            );
        }
        // Text that moves from one field to the next has other lengths before it.
        let mut trail = trail(5);
        let moved = trail[2].audit.who.pop().unwrap();
        trail[2].audit.from.insert(0, moved);
        assert_eq!(checked(&trail, &[]), Err(Broken::Edited { revision: 3 }));
    }

    #[test]
    fn an_entry_that_is_edited_under_a_new_hash_is_not_followed_by_the_next() {
        let mut trail = trail(5);
        trail[2].audit.who = "somebody else".into();
        trail[2].hash = trail[2].computed().unwrap();
        assert_eq!(checked(&trail, &[]), Err(Broken::Unchained { revision: 4 }));
    }

    #[test]
    fn entries_that_are_removed_are_named() {
        let whole = trail(9);
        for (first, last) in [(2, 2), (3, 6), (8, 8)] {
            let mut trail = whole.clone();
            trail.retain(|entry| entry.revision < first || entry.revision > last);
            assert_eq!(checked(&trail, &[]), Err(Broken::Removed { first, last }));
        }
    }

    #[test]
    fn entries_that_are_reordered_are_not_called_removed() {
        for (one, other) in [(1, 2), (2, 7), (7, 8)] {
            let mut trail = trail(9);
            trail.swap(one, other);
            let seen = checked(&trail, &[]);
            assert!(
                matches!(seen, Err(Broken::Reordered { .. })),
                "{one} {other}: {seen:?}"
            );
        }
        let mut twice = trail(4);
        twice.push(twice[1].clone());
        let again = Broken::Reordered {
            revision: 2,
            after: 4,
        };
        assert_eq!(checked(&twice, &[]), Err(again));
    }

    #[test]
    fn a_tail_that_is_cut_shows_by_a_head_that_was_kept_and_by_nothing_else() {
        let trail = trail(9);
        assert_eq!(checked(&trail[..6], &[]), Ok(6));
        let cut = Broken::Cut { end: 6, witnessed: 9 };
        assert_eq!(checked(&trail[..6], &[head(&trail[8])]), Err(cut));
        assert_eq!(checked(&trail, &[head(&trail[3]), head(&trail[8])]), Ok(9));
    }

    #[test]
    fn a_history_that_is_rewritten_whole_shows_by_any_head_of_the_old_one() {
        let (old, mut new) = (trail(9), Vec::new());
        for entry in &old {
            let mut entry = entry.clone();
            entry.audit.who = "somebody else".into();
            entry.previous = new.last().map_or(entry.previous, |last: &Entry| last.hash);
            entry.hash = entry.computed().unwrap();
            new.push(entry);
        }
        assert_eq!(checked(&new, &[]), Ok(9));
        for kept in &old {
            let revision = kept.revision;
            assert_eq!(checked(&new, &[head(kept)]), Err(Broken::Rewritten { revision }));
        }
        let torn = [head(&old[4]), head(&new[4])];
        assert_eq!(
            checked(&old, &torn),
            Err(Broken::Rewritten { revision: 5 }),
            "two heads that contradict"
        );
    }

    #[test]
    fn a_first_record_that_is_not_of_its_lineage_and_a_change_of_lineage_show() {
        let mut other = trail(3);
        other[0].lineage = Lineage([2; 16]);
        assert_eq!(checked(&other, &[]), Err(Broken::Unchained { revision: 1 }));
        let mut other = trail(3);
        other[1].lineage = Lineage([2; 16]);
        assert!(matches!(
            checked(&other, &[]),
            Err(Broken::OtherLineage { revision: 2, .. })
        ));
    }

    fn checked(trail: &[Entry], heads: &[Head]) -> Result<u64, Broken> {
        let mut chain = Chain::against(heads.iter().copied());
        for entry in trail {
            chain.take(entry)?;
        }
        chain.end().map(|()| chain.entries())
    }

    fn head(entry: &Entry) -> Head {
        Head {
            lineage: entry.lineage,
            revision: entry.revision,
            hash: entry.hash,
        }
    }

    fn trail(length: u64) -> Vec<Entry> {
        let mut trail: Vec<Entry> = Vec::new();
        for revision in 1..=length {
            let previous = trail.last().map_or(genesis(LINEAGE), |last| last.hash);
            let mut entry = Entry {
                lineage: LINEAGE,
                revision,
                time: jiff::Timestamp::UNIX_EPOCH,
                audit: Audit {
                    who: "operator/ada".into(),
                    ..Audit::default()
                },
                previous,
                hash: previous,
                written: Written::Apart {
                    sha256: hash(&[&revision.to_be_bytes()]),
                    length: 8,
                },
            };
            entry.hash = entry.computed().unwrap();
            trail.push(entry);
        }
        trail
    }
}
