//! Entries as `picket.admin.v1` carries them.

use super::{Audit, Entry, Hash, Lineage, Outcome, Written};
use crate::{
    WireError,
    field::{array, from_wire_time, to_wire_time},
    wire::admin as wire,
};

impl From<Entry> for wire::AuditEntry {
    fn from(entry: Entry) -> Self {
        let audit = entry.audit;
        let outcome = match audit.outcome {
            Outcome::Done => wire::AuditOutcome::Done,
            Outcome::Refused(_) => wire::AuditOutcome::Refused,
        };
        let mut message = Self {
            lineage: entry.lineage.0.to_vec().into(),
            revision: entry.revision,
            time: Some(to_wire_time(entry.time)),
            refusal: audit.refusal().to_owned(),
            who: audit.who,
            from: audit.from,
            what: audit.what,
            subject: audit.subject,
            why: audit.why,
            outcome: outcome.into(),
            times: audit.times,
            before: audit.before,
            after: audit.after,
            previous: entry.previous.0.to_vec().into(),
            hash: entry.hash.0.to_vec().into(),
            ..Self::default()
        };
        match entry.written {
            Written::Apart { sha256, length } => {
                message.writes_sha256 = sha256.0.to_vec().into();
                message.writes_length = length;
            }
            Written::Whole(body) => message.record = body.into(),
        }
        message
    }
}

impl TryFrom<wire::AuditEntry> for Entry {
    type Error = WireError;

    fn try_from(entry: wire::AuditEntry) -> Result<Self, WireError> {
        let outcome = match entry.outcome() {
            wire::AuditOutcome::Done => Outcome::Done,
            wire::AuditOutcome::Refused => Outcome::Refused(entry.refusal),
            wire::AuditOutcome::Unspecified => {
                return Err(WireError::new(
                    "entry.outcome",
                    "is missing, or one this version does not know",
                ));
            }
        };
        let time = entry.time.as_ref().and_then(from_wire_time);
        let written = if entry.record.is_empty() {
            Written::Apart {
                sha256: Hash(array("entry.writes_sha256", &entry.writes_sha256)?),
                length: entry.writes_length,
            }
        } else {
            Written::Whole(entry.record.to_vec())
        };
        Ok(Self {
            lineage: Lineage(array("entry.lineage", &entry.lineage)?),
            revision: entry.revision,
            time: time.ok_or_else(|| WireError::new("entry.time", "is missing"))?,
            audit: Audit {
                who: entry.who,
                from: entry.from,
                what: entry.what,
                subject: entry.subject,
                why: entry.why,
                outcome,
                times: entry.times,
                before: entry.before,
                after: entry.after,
            },
            previous: Hash(array("entry.previous", &entry.previous)?),
            hash: Hash(array("entry.hash", &entry.hash)?),
            written,
        })
    }
}
