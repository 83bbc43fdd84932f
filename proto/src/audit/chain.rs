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

    /// Takes the next entry.
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
            Some(at) if revision > at.revision + 1 => {
                return Err(Broken::Removed {
                    first: at.revision + 1,
                    last: revision - 1,
                });
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
    /// When a head says that there was more.
    pub fn end(&self) -> Result<(), Broken> {
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
    /// When it is of another journal, or of a later or another state of this one.
    pub fn close(&mut self, head: Head) -> Result<(), Broken> {
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
