//! Where the store keeps what, and the small file that says which format and lineage it is.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{
    commit::Revision,
    damage::{Damage, Unreadable},
    file::{self, FileError},
    record::{Hash, hash},
};

/// The format this program reads and writes.
const FORMAT: u32 = 1;

/// Which line of history a store belongs to. A store restored without the end of its journal starts a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lineage(pub [u8; 16]);

impl Lineage {
    pub(super) fn random() -> Self {
        Self(uuid::Uuid::new_v4().into_bytes())
    }

    /// The hash before the first record of this lineage.
    pub(super) fn genesis(self) -> Hash {
        Hash(picket_proto::audit::genesis(picket_proto::audit::Lineage(self.0)).0)
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The paths of one store.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// What the operator calls `--data-dir`.
    pub(super) data: PathBuf,
    /// The folder in it that is the store; another one while a store is being made.
    pub(super) root: PathBuf,
}

impl Layout {
    pub(super) fn of(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            root: data.join("store"),
        }
    }

    /// A store that is being made, to be moved to its place when it is whole.
    pub(super) fn in_the_making(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            root: data.join("store.making"),
        }
    }

    pub(super) fn format(&self) -> PathBuf {
        self.root.join("format")
    }

    pub(super) fn base(&self) -> PathBuf {
        self.root.join("base")
    }

    pub(super) fn head(&self) -> PathBuf {
        self.root.join("head")
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(super) fn seal(&self) -> PathBuf {
        self.root.join("index.seal")
    }

    pub(super) fn damage(&self, file: &Path, offset: u64, what: impl Into<String>) -> Damage {
        Damage {
            file: file.to_owned(),
            offset,
            what: what.into(),
            data: self.data.clone(),
        }
    }
}

/// The state a journal starts from, when it does not start from nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) revision: Revision,
    pub(super) head: Hash,
    /// The hash at the end of the file `base`.
    pub(super) file: Hash,
}

/// Whether a store takes commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Live,
    /// Restored without the end of its journal, and nobody accepted that yet.
    Frozen,
}

/// What the file `format` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) lineage: Lineage,
    pub(super) standing: Standing,
    pub(super) base: Option<Base>,
}

impl Format {
    /// Where the journal's chain starts.
    pub(super) fn start(&self) -> (Revision, Hash) {
        match &self.base {
            Some(base) => (base.revision, base.head),
            None => (Revision(0), self.lineage.genesis()),
        }
    }

    pub(super) fn write(&self, layout: &Layout) -> Result<(), FileError> {
        let standing = match self.standing {
            Standing::Live => "live",
            Standing::Frozen => "frozen",
        };
        let base = match &self.base {
            Some(base) => format!("{} {} {}", base.revision, base.head, base.file),
            None => "none".to_owned(),
        };
        let text = format!(
            "picket-store {FORMAT}\nlineage {}\nstanding {standing}\nbase {base}\n",
            self.lineage
        );
        let sum = hash(&[text.as_bytes()]);
        file::replace(&layout.format(), format!("{text}check {sum}\n").as_bytes())
    }

    /// Reads the file; `None` when there is none.
    pub(super) fn read(layout: &Layout) -> Result<Option<Self>, Unreadable> {
        let path = layout.format();
        let Some(bytes) = file::read(&path)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        let found = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("picket-store ")?.parse::<u32>().ok());
        if let Some(found) = found
            && found > FORMAT
        {
            return Err(Unreadable::Newer {
                file: path,
                found,
                known: FORMAT,
            });
        }
        match parse(&text) {
            Some(format) => Ok(Some(format)),
            None => Err(layout
                .damage(&path, 0, "it does not carry its own checksum")
                .into()),
        }
    }
}

fn parse(text: &str) -> Option<Format> {
    let (front, sum) = text.split_at_checked(text.rfind("check ")?)?;
    if sum != format!("check {}\n", hash(&[front.as_bytes()])) {
        return None;
    }
    let mut lines = front.lines().skip(1);
    let lineage = Lineage(hex(lines.next()?.strip_prefix("lineage ")?)?);
    let standing = match lines.next()?.strip_prefix("standing ")? {
        "live" => Standing::Live,
        "frozen" => Standing::Frozen,
        _ => return None,
    };
    let base = match lines.next()?.strip_prefix("base ")? {
        "none" => None,
        base => {
            let mut words = base.split(' ');
            Some(Base {
                revision: Revision(words.next()?.parse().ok()?),
                head: Hash(hex(words.next()?)?),
                file: Hash(hex(words.next()?)?),
            })
        }
    };
    Some(Format {
        lineage,
        standing,
        base,
    })
}

/// Lower-case hex of exactly that many bytes.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    data_encoding::HEXLOWER
        .decode(text.as_bytes())
        .ok()?
        .try_into()
        .ok()
}
