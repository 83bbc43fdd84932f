//! An export as text: one JSON object a line, and a signed head at the end.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Audit, Entry, Hash, Lineage, Outcome, Written};

/// One line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// An entry.
    Entry(Box<Entry>),
    /// What the master signed, as it wrote it.
    Head(String),
}

/// Why a line is none.
#[derive(Debug, thiserror::Error)]
#[error("this is no line of an audit export")]
pub struct LineError(#[source] serde_json::Error);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Head(HeadText),
    Entry(Box<EntryText>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadText {
    head: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryText {
    lineage: Lineage,
    revision: u64,
    time: Timestamp,
    who: String,
    from: String,
    what: String,
    subject: String,
    why: String,
    outcome: OutcomeText,
    refusal: Option<String>,
    times: u32,
    before: String,
    after: String,
    previous: Hash,
    hash: Hash,
    #[serde(skip_serializing_if = "Option::is_none")]
    writes_sha256: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writes_length: Option<u32>,
    /// In hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeText {
    Done,
    Refused,
}

impl Line {
    /// The line, without its end.
    ///
    /// # Panics
    /// Never: nothing in it cannot be JSON.
    #[must_use]
    pub fn encode(&self) -> String {
        let text = match self {
            Self::Head(head) => Text::Head(HeadText { head: head.clone() }),
            Self::Entry(entry) => Text::Entry(Box::new(shown(entry))),
        };
        serde_json::to_string(&text).expect("texts and numbers are JSON")
    }

    /// Reads a line. Fields that are not ours are refused: they would be in no hash.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn parse(line: &str) -> Result<Self, LineError> {
        let wrong = |problem: &str| LineError(serde::de::Error::custom(problem));
        // Telling them apart by hand names the field that is wrong.
        if let Ok(HeadText { head }) = serde_json::from_str(line) {
            return Ok(Self::Head(head));
        }
        let text: EntryText = serde_json::from_str(line).map_err(LineError)?;
        let written = match (text.writes_sha256, text.writes_length, text.record) {
            (Some(sha256), Some(length), None) => Written::Apart { sha256, length },
            (None, None, Some(record)) => Written::Whole(
                data_encoding::HEXLOWER
                    .decode(record.as_bytes())
                    .map_err(|_| wrong("record: want hexadecimal digits"))?,
            ),
            _ => return Err(wrong("want either writes_sha256 and writes_length, or record")),
        };
        let outcome = match (text.outcome, text.refusal) {
            (OutcomeText::Done, None) => Outcome::Done,
            (OutcomeText::Refused, Some(why)) => Outcome::Refused(why),
            (OutcomeText::Done | OutcomeText::Refused, _) => {
                return Err(wrong("outcome and refusal do not go together"));
            }
        };
        Ok(Self::Entry(Box::new(Entry {
            lineage: text.lineage,
            revision: text.revision,
            time: text.time,
            audit: Audit {
                who: text.who,
                from: text.from,
                what: text.what,
                subject: text.subject,
                why: text.why,
                outcome,
                times: text.times,
                before: text.before,
                after: text.after,
            },
            previous: text.previous,
            hash: text.hash,
            written,
        })))
    }
}

fn shown(entry: &Entry) -> EntryText {
    let Audit {
        who,
        from,
        what,
        subject,
        why,
        outcome,
        times,
        before,
        after,
    } = entry.audit.clone();
    let (outcome, refusal) = match outcome {
        Outcome::Done => (OutcomeText::Done, None),
        Outcome::Refused(refusal) => (OutcomeText::Refused, Some(refusal)),
    };
    let (writes_sha256, writes_length, record) = match &entry.written {
        Written::Apart { sha256, length } => (Some(*sha256), Some(*length), None),
        Written::Whole(body) => (None, None, Some(data_encoding::HEXLOWER.encode(body))),
    };
    EntryText {
        lineage: entry.lineage,
        revision: entry.revision,
        time: entry.time,
        who,
        from,
        what,
        subject,
        why,
        outcome,
        refusal,
        times,
        before,
        after,
        previous: entry.previous,
        hash: entry.hash,
        writes_sha256,
        writes_length,
        record,
    }
}
