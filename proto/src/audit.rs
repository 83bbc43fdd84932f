//! What the journal says of a change beside the change itself: who, from where, what, why, and what came of it.
//!
//! The bytes of it are laid down here, because two sides compute their hash: the master, which writes them, and whoever
//! checks an export without believing the master. [`chain`] is that check.
//!
//! ```text
//! header   magic "PKR1" | version u16 | 0 u16 | body length u32 | audit length u32 | revision u64 | first 8 bytes of SHA-256 of those
//! body     audit | writes
//! audit    time in microseconds i64 | who, from, what, subject, why | outcome u8 | refusal | times u32 | before, after
//! hash     SHA-256 of (hash before, header, audit, SHA-256 of writes)
//! ```
//!
//! Numbers are big-endian; a text is its length as u16 and its bytes. Records of version 1 have an audit length of 0, end
//! their audit after `why`, and are hashed whole.

pub mod chain;
mod line;
mod wire;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use self::line::{Line, LineError};

/// One text of an audit entry is at most this long.
pub const MOST_TEXT: usize = 4096;
/// How long the header of a record is.
pub const HEADER: usize = 32;
/// How a header starts.
pub const MAGIC: [u8; 4] = *b"PKR1";

/// The formats of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Without before, after and outcome; hashed whole.
    One,
    /// As it is written.
    Two,
}

impl Version {
    /// The format of this number.
    #[must_use]
    pub fn of(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// A SHA-256, shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

/// Which line of history a journal is, shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lineage(pub [u8; 16]);

macro_rules! hexadecimal {
    ($($name:ident $what:literal),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
                bytes.and_then(|bytes| bytes.try_into().ok().map(Self)).ok_or($what)
            }
        }
    )*};
}

hexadecimal!(Hash "want 64 hexadecimal digits", Lineage "want 32 hexadecimal digits");

/// What became of what was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, in the same commit.
    #[default]
    Done,
    /// It was refused, for this reason, and nothing was written.
    Refused(String),
}

/// Who did it, from where, what, to what, why, and what it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The identity that asked, such as `operator/ada`; the master itself where it acts on its own.
    pub who: String,
    /// The address it asked from.
    pub from: String,
    /// The verb.
    pub what: String,
    /// What the verb was applied to.
    pub subject: String,
    /// The reason given.
    pub why: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How many times: more than one only where refusals are counted together.
    pub times: u32,
    /// How what changed was, as JSON by key; a hash where that is long or not for showing.
    pub before: String,
    /// How it is.
    pub after: String,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            who: String::new(),
            from: String::new(),
            what: String::new(),
            subject: String::new(),
            why: String::new(),
            outcome: Outcome::Done,
            times: 1,
            before: String::new(),
            after: String::new(),
        }
    }
}

impl Audit {
    /// Why it was refused; empty when it was not.
    #[must_use]
    pub fn refusal(&self) -> &str {
        match &self.outcome {
            Outcome::Done => "",
            Outcome::Refused(why) => why,
        }
    }

    /// Every text in it.
    #[must_use]
    pub fn texts(&self) -> [&str; 8] {
        [
            &self.who,
            &self.from,
            &self.what,
            &self.subject,
            &self.why,
            self.refusal(),
            &self.before,
            &self.after,
        ]
    }

    /// Appends its bytes, as they are hashed. Texts longer than [`MOST_TEXT`] do not come this far.
    pub fn seal(&self, time: Timestamp, out: &mut Vec<u8>) {
        out.extend(time.as_microsecond().to_be_bytes());
        for text in [&self.who, &self.from, &self.what, &self.subject, &self.why] {
            put_text(out, text);
        }
        out.push(match self.outcome {
            Outcome::Done => 0,
            Outcome::Refused(_) => 1,
        });
        put_text(out, self.refusal());
        out.extend(self.times.to_be_bytes());
        put_text(out, &self.before);
        put_text(out, &self.after);
    }

    /// Reads what stands at the front of a record's body and returns what follows it.
    #[must_use]
    pub fn unseal(version: Version, body: &[u8]) -> Option<(Timestamp, Self, &[u8])> {
        let mut reader = Reader(body);
        let time = Timestamp::from_microsecond(reader.i64()?).ok()?;
        let mut audit = Self {
            who: reader.text()?.to_owned(),
            from: reader.text()?.to_owned(),
            what: reader.text()?.to_owned(),
            subject: reader.text()?.to_owned(),
            why: reader.text()?.to_owned(),
            ..Self::default()
        };
        if version == Version::Two {
            let outcome = reader.u8()?;
            let refusal = reader.text()?;
            audit.outcome = match (outcome, refusal) {
                (0, "") => Outcome::Done,
                (1, refusal) => Outcome::Refused(refusal.to_owned()),
                _ => return None,
            };
            audit.times = reader.u32()?;
            reader.text()?.clone_into(&mut audit.before);
            reader.text()?.clone_into(&mut audit.after);
        }
        Some((time, audit, reader.0))
    }
}

/// One entry of the journal with what it takes to compute its hash, and without the values that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which line of history.
    pub lineage: Lineage,
    /// Which commit.
    pub revision: u64,
    /// When.
    pub time: Timestamp,
    /// Who, what, why.
    pub audit: Audit,
    /// The hash of the entry before.
    pub previous: Hash,
    /// The hash of this one.
    pub hash: Hash,
    /// What was written.
    pub written: Written,
}

/// What was written, as far as the hash needs it.
#[derive(Clone, PartialEq, Eq)]
pub enum Written {
    /// Of a record of version 2: the values are hashed by themselves.
    Apart {
        /// Their SHA-256.
        sha256: Hash,
        /// How many bytes they are.
        length: u32,
    },
    /// Of a record of version 1: the whole body.
    Whole(Vec<u8>),
}

impl std::fmt::Debug for Written {
    /// Tells no value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Apart { sha256, length } => write!(f, "Apart({sha256}, {length} bytes)"),
            Self::Whole(body) => write!(f, "Whole({} bytes)", body.len()),
        }
    }
}

impl Entry {
    /// The hash that these fields have; none when they do not fit together.
    #[must_use]
    pub fn computed(&self) -> Option<Hash> {
        match &self.written {
            Written::Apart { sha256, length } => {
                if self.audit.texts().iter().any(|text| text.len() > MOST_TEXT) {
                    return None;
                }
                let mut audit = Vec::new();
                self.audit.seal(self.time, &mut audit);
                let sealed = u32::try_from(audit.len()).ok()?;
                let front = header(Version::Two, sealed.checked_add(*length)?, sealed, self.revision);
                Some(hash(&[&self.previous.0, &front, &audit, &sha256.0]))
            }
            Written::Whole(body) => {
                let (time, audit, _) = Audit::unseal(Version::One, body)?;
                let front = header(Version::One, u32::try_from(body.len()).ok()?, 0, self.revision);
                (time == self.time && audit == self.audit).then(|| hash(&[&self.previous.0, &front, body]))
            }
        }
    }
}

/// The header of a record.
#[must_use]
pub fn header(version: Version, body: u32, audit: u32, revision: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&version.number().to_be_bytes());
    bytes[8..12].copy_from_slice(&body.to_be_bytes());
    bytes[12..16].copy_from_slice(&audit.to_be_bytes());
    bytes[16..24].copy_from_slice(&revision.to_be_bytes());
    let Hash(sum) = hash(&[&bytes[..24]]);
    bytes[24..].copy_from_slice(&sum[..8]);
    bytes
}

/// The hash before the first record of a lineage.
#[must_use]
pub fn genesis(lineage: Lineage) -> Hash {
    hash(&[b"picket journal 1", &lineage.0])
}

/// SHA-256 over some parts.
#[must_use]
pub fn hash(parts: &[&[u8]]) -> Hash {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part);
    }
    Hash(sha.finalize().into())
}

/// Appends a text with its length before it.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("texts are bounded before they come here");
    out.extend(length.to_be_bytes());
    out.extend(text.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::from(self.array().map(u16::from_be_bytes)?);
        std::str::from_utf8(self.take(len)?).ok()
    }
}
