//! Looks at a store and says what it finds. Changes nothing, also beside a running master.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::{
    commit::Revision,
    damage::Unreadable,
    file::FileError,
    format::{Layout, Lineage, Standing},
    head,
    index::Seal,
    lock,
    record::Hash,
    recover,
};

/// What is to be said about a store. Its `Display` says it in sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which line of history it is.
    pub lineage: Lineage,
    /// Whether it waits for somebody to accept what a restore left.
    pub frozen: bool,
    /// The state of the journal, when it is intact.
    pub journal: Option<JournalReport>,
    /// The state of the index.
    pub index: IndexStanding,
    /// What is wrong, each with what to do.
    pub damage: Vec<String>,
    /// What is unusual and right all the same.
    pub notes: Vec<String>,
}

/// An intact journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalReport {
    /// The revision of its last record.
    pub revision: Revision,
    /// The hash of that record, which stands for all before it.
    pub head: Hash,
    /// How many records it has.
    pub records: u64,
    /// In how many files.
    pub segments: usize,
    /// How many keys have a value.
    pub keys: usize,
}

/// What the next start will do with the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexStanding {
    /// It is as a clean stop left it, at the journal's head.
    Sealed,
    /// It is made anew from the journal, for this reason.
    Rebuilt(String),
    /// A master has it open, the one with this pid.
    InUse(String),
}

/// Says why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no store.
    #[error("{} holds no store; is it the --data-dir of a master?", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// This user may not look.
    #[error(
        "{}: permission denied; run as root, or as the user that the master runs as", dir.display()
    )]
    Denied {
        /// The directory.
        dir: PathBuf,
    },
    /// Not even the file that says which store it is can be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl From<FileError> for VerifyError {
    fn from(cause: FileError) -> Self {
        Self::Unreadable(cause.into())
    }
}

/// Reads all of a store and checks it.
///
/// # Errors
/// When there is none, or not even its format can be read. Damage in journal and index is in the report.
pub fn verify(dir: &Path) -> Result<Report, VerifyError> {
    let layout = Layout::of(dir);
    match layout.root.try_exists() {
        Ok(true) => {}
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
            return Err(VerifyError::Denied { dir: dir.to_owned() });
        }
        Ok(false) | Err(_) => return Err(VerifyError::Missing { dir: dir.to_owned() }),
    }
    let format = recover::intact(&layout)?;
    let holder = lock::held(dir)?;
    let witness = head::read(&layout, format.lineage)?;
    let (mut damage, mut notes) = (Vec::new(), Vec::new());
    if witness.is_none() {
        notes.push(format!(
            "{} cannot be read, so that nothing confirms the journal's end",
            layout.head().display()
        ));
    }
    let upto = holder.as_ref().and(witness).map(|(revision, _)| revision);
    let state = recover::replay(&layout, &format, upto).and_then(|state| {
        // Beside a running master the witness goes on while this reads.
        if holder.is_none() {
            recover::confirm(&layout, &format, &state)?
        }
        Ok(state)
    });
    let state = state.map_err(|error| damage.push(error.to_string())).ok();
    if let Some(torn) = state.as_ref().and_then(|state| state.torn.as_ref())
        && holder.is_none()
    {
        notes.push(format!(
            "{} ends with {} bytes of a commit that was never acknowledged; the next start cuts them off",
            torn.file.display(),
            torn.len - torn.keep
        ));
    }
    let index = match (holder, &state) {
        (Some(pid), _) => IndexStanding::InUse(pid),
        (None, None) => IndexStanding::Rebuilt("the journal comes first".to_owned()),
        (None, Some(state)) => match Seal::read(&layout)? {
            None => IndexStanding::Rebuilt("it was not closed cleanly".to_owned()),
            Some(seal) if (seal.revision, seal.head) != (state.revision, state.head) => {
                IndexStanding::Rebuilt(format!("it is at revision {}", seal.revision))
            }
            Some(seal) if seal.fits(&layout)? => IndexStanding::Sealed,
            Some(_) => IndexStanding::Rebuilt("its files are not those that were closed".to_owned()),
        },
    };
    let journal = state.map(|state| JournalReport {
        revision: state.revision,
        head: state.head,
        records: state.records,
        segments: state.segments,
        keys: state.stamps.len(),
    });
    let frozen = format.standing == Standing::Frozen;
    Ok(Report {
        lineage: format.lineage,
        frozen,
        journal,
        index,
        damage,
        notes,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The store is of lineage {}.", self.lineage)?;
        if self.frozen {
            writeln!(
                f,
                "It was restored without its latest changes and is frozen until `restore --accept`."
            )?;
        }
        if let Some(JournalReport {
            revision,
            head,
            records,
            segments,
            keys,
        }) = &self.journal
        {
            writeln!(
                f,
                "The journal is intact: revision {revision}, {records} records in {segments} files."
            )?;
            writeln!(f, "Its head is {head}; {keys} keys have a value.")?;
        }
        match &self.index {
            IndexStanding::Sealed => writeln!(f, "The index is as a clean stop left it.")?,
            IndexStanding::Rebuilt(reason) => {
                writeln!(
                    f,
                    "The index is made anew from the journal at the next start: {reason}."
                )?;
            }
            IndexStanding::InUse(pid) => writeln!(f, "The index is in use by a picket-master (pid {pid}).")?,
        }
        for sentence in self.notes.iter().chain(&self.damage) {
            writeln!(f, "{sentence}.")?;
        }
        Ok(())
    }
}
