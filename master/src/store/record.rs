//! One record of the journal as bytes: a header with its own checksum, a body, and the hash that chains it to the
//! record before. Bytes in, values out; it knows no file.
//!
//! ```text
//! header   see [`picket_proto::audit`], where header and audit are laid down
//! body     audit | count u16 | count × write
//! write    1 u8, key length u16, key, value length u32, value   or   2 u8, key length u16, key
//! trailer  SHA-256 of (hash before, header, audit, SHA-256 of the writes); of version 1: of (hash before, header, body)
//! ```
//!
//! Numbers are big-endian. The header's checksum tells a length that was damaged from a record that was cut. The writes
//! are hashed by themselves, so that the chain can be checked by somebody who is not shown the values.

use std::fmt;

use jiff::Timestamp;
use picket_proto::audit::{self as sealed, Version};

pub(super) use picket_proto::audit::{HEADER, MAGIC};

use super::{
    commit::{Audit, COMMIT_MAX, Key, Revision, WRITES_MAX, Write},
    format::Lineage,
};

/// Bytes of the hash after the body.
pub(super) const TRAILER: usize = 32;
/// A body is no longer: a commit, and what its lengths and time take.
pub(super) const BODY_MAX: usize = COMMIT_MAX + 64 + 16 * WRITES_MAX;
/// The newest version this program reads, and the one it writes.
pub(super) const VERSION: u16 = 2;

/// A SHA-256 of the chain. The head of the journal stands for everything before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256 over some parts.
pub(super) fn hash(parts: &[&[u8]]) -> Hash {
    Hash(sealed::hash(parts).0)
}

/// The first 8 bytes of the SHA-256: against accidents, not against an adversary.
pub(super) fn check(parts: &[&[u8]]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash(parts).0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// What a commit left in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) revision: Revision,
    pub(super) time: Timestamp,
    pub(super) audit: Audit,
    pub(super) writes: Vec<Write>,
}

/// The header of a record, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) revision: Revision,
    pub(super) body: usize,
    /// How much of the body is the audit entry, where that is hashed apart from the writes.
    audit: usize,
    pub(super) version: u16,
}

impl Header {
    /// A header, when these bytes are one.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let (front, sum) = bytes.split_at(HEADER - 8);
        if !front.starts_with(&MAGIC) || sum != check(&[front]).to_be_bytes() {
            return None;
        }
        let mut reader = Reader(front.get(4..)?);
        let version = reader.u16()?;
        reader.u16()?;
        let body = usize::try_from(reader.u32()?).ok()?;
        let audit = usize::try_from(reader.u32()?).ok()?;
        let revision = Revision(reader.u64()?);
        (body <= BODY_MAX && audit <= body).then_some(Self {
            revision,
            body,
            audit,
            version,
        })
    }

    /// The header of a body with so long an audit entry.
    #[cfg(fuzzing)]
    pub(super) fn of(revision: Revision, version: u16, body: usize, audit: usize) -> Self {
        Self {
            revision,
            body,
            audit,
            version,
        }
    }

    /// The format of the body, when this program can read it.
    pub(super) fn readable(&self) -> Option<Version> {
        Version::of(self.version)
    }

    /// The hash of the record that has this header, as bytes, and this body.
    pub(super) fn hash(&self, before: Hash, front: &[u8], body: &[u8]) -> Hash {
        match self.readable() {
            Some(Version::Two) => {
                let (audit, writes) = body.split_at_checked(self.audit).unwrap_or((body, &[]));
                hash(&[&before.0, front, audit, &hash(&[writes]).0])
            }
            Some(Version::One) | None => hash(&[&before.0, front, body]),
        }
    }

    /// The entry of the record that has this header and body, and was read with this hash.
    pub(super) fn entry(
        &self,
        lineage: Lineage,
        (previous, seen): (Hash, Hash),
        record: &Record,
        body: &[u8],
    ) -> sealed::Entry {
        let writes = body.get(self.audit..).unwrap_or_default();
        let written = match self.readable() {
            Some(Version::Two) => sealed::Written::Apart {
                sha256: sealed::hash(&[writes]),
                length: u32::try_from(writes.len()).expect("a body's length is a u32"),
            },
            Some(Version::One) | None => sealed::Written::Whole(body.to_vec()),
        };
        sealed::Entry {
            lineage: sealed::Lineage(lineage.0),
            revision: record.revision.0,
            time: record.time,
            audit: record.audit.clone(),
            previous: sealed::Hash(previous.0),
            hash: sealed::Hash(seen.0),
            written,
        }
    }
}

impl Record {
    /// Appends the record to `out` and returns its hash. `out` grows by header, body and trailer.
    pub(super) fn encode(&self, before: Hash, out: &mut Vec<u8>) -> Hash {
        let start = out.len();
        out.extend([0; HEADER]);
        self.audit.seal(self.time, out);
        let audit = out.len() - start - HEADER;
        out.extend(
            u16::try_from(self.writes.len())
                .expect("fewer than 128")
                .to_be_bytes(),
        );
        for write in &self.writes {
            match write {
                Write::Put(key, value) => {
                    out.push(1);
                    put_text(out, key.as_str());
                    out.extend(
                        u32::try_from(value.len())
                            .expect("less than a mebibyte")
                            .to_be_bytes(),
                    );
                    out.extend(value);
                }
                Write::Delete(key) => {
                    out.push(2);
                    put_text(out, key.as_str());
                }
            }
        }
        let body = out.len() - start - HEADER;
        let long = |length: usize| u32::try_from(length).expect("a commit's limits keep it far below");
        let front = sealed::header(Version::Two, long(body), long(audit), self.revision.0);
        out[start..start + HEADER].copy_from_slice(&front);
        let header = Header {
            revision: self.revision,
            body,
            audit,
            version: VERSION,
        };
        let hash = header.hash(before, &front, &out[start + HEADER..]);
        out.extend(hash.0);
        hash
    }

    /// The record of a checked header and the body that belongs to it, or `None` when the body makes no sense.
    pub(super) fn decode(header: &Header, body: &[u8]) -> Option<Self> {
        let version = header.readable()?;
        let (time, audit, writes) = Audit::unseal(version, body)?;
        if version == Version::Two && body.len() - writes.len() != header.audit {
            return None;
        }
        let mut reader = Reader(writes);
        let count = usize::from(reader.u16()?);
        let mut writes = Vec::with_capacity(count.min(WRITES_MAX));
        for _ in 0..count {
            let kind = reader.u8()?;
            let key = Key::new(reader.text()?).ok()?;
            writes.push(match kind {
                1 => {
                    let len = usize::try_from(reader.u32()?).ok()?;
                    Write::Put(key, reader.take(len)?.to_vec())
                }
                2 => Write::Delete(key),
                _ => return None,
            });
        }
        reader.0.is_empty().then_some(Self {
            revision: header.revision,
            time,
            audit,
            writes,
        })
    }
}

/// The writes, their keys and values only: how many bytes a record keeps in memory.
pub(super) fn weight(writes: &[Write]) -> usize {
    writes
        .iter()
        .map(|write| match write {
            Write::Put(key, value) => key.as_str().len() + value.len(),
            Write::Delete(key) => key.as_str().len(),
        })
        .sum()
}

/// Appends a text with its length before it.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(
        u16::try_from(text.len())
            .expect("keys and audit fields are bounded")
            .to_be_bytes(),
    );
    out.extend(text.as_bytes());
}

/// Reads numbers and texts from the front of some bytes.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let len = usize::from(self.u16()?);
        std::str::from_utf8(self.take(len)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Outcome;

    fn record() -> impl Strategy<Value = Record> {
        let write = (
            "[ -~]{1,20}",
            prop::option::of(prop::collection::vec(any::<u8>(), 0..50)),
        );
        let writes = prop::collection::vec(write, 0..6);
        (
            any::<u64>(),
            0_i64..1 << 50,
            prop::array::uniform8(".{0,12}"),
            any::<(bool, u32)>(),
            writes,
        )
            .prop_map(
                |(
                    revision,
                    time,
                    [who, from, what, subject, why, refusal, before, after],
                    (done, times),
                    writes,
                )| Record {
                    revision: Revision(revision),
                    time: Timestamp::from_microsecond(time).unwrap(),
                    audit: Audit {
                        who,
                        from,
                        what,
                        subject,
                        why,
                        outcome: if done {
                            Outcome::Done
                        } else {
                            Outcome::Refused(refusal)
                        },
                        times,
                        before,
                        after,
                    },
                    writes: writes
                        .into_iter()
                        .map(|(key, value)| {
                            let key = Key::new(key).unwrap();
                            value.map_or(Write::Delete(key.clone()), |value| Write::Put(key, value))
                        })
                        .collect(),
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_record_reads_back_as_it_was_written(record in record(), before in any::<[u8; 32]>()) {
            let mut bytes = vec![1, 2, 3];
            let after = record.encode(Hash(before), &mut bytes);
            let (front, rest) = bytes[3..].split_at(HEADER);
            let header = Header::decode(front.try_into().unwrap()).unwrap();
            let (body, trailer) = rest.split_at(header.body);
            prop_assert_eq!(trailer, after.0);
            prop_assert_eq!(header.hash(Hash(before), front, body), after);
            let read = Record::decode(&header, body).unwrap();
            prop_assert_eq!(&read, &record);
            let entry = header.entry(Lineage([7; 16]), (Hash(before), after), &read, body);
            prop_assert_eq!(entry.computed(), Some(entry.hash), "who is not shown the values computes the same");
            let line = sealed::Line::Entry(Box::new(entry));
            prop_assert_eq!(sealed::Line::parse(&line.encode()).unwrap(), line);
        }

        #[test]
        fn a_header_with_any_bit_flipped_is_none(record in record(), bit in 0..HEADER * 8) {
            let mut bytes = Vec::new();
            record.encode(Hash([0; 32]), &mut bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Header::decode(bytes[..HEADER].try_into().unwrap()), None);
        }

        #[test]
        fn a_body_that_is_cut_or_longer_is_none(record in record(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            record.encode(Hash([0; 32]), &mut bytes);
            let header = Header::decode(bytes[..HEADER].try_into().unwrap()).unwrap();
            let body = &bytes[HEADER..HEADER + header.body];
            prop_assert_eq!(Record::decode(&header, &body[..cut.index(body.len())]), None);
            prop_assert_eq!(Record::decode(&header, &[body, &[0]].concat()), None);
        }

        #[test]
        fn no_bytes_at_all_make_a_body_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            for version in 0..4 {
                for audit in 0..=body.len() {
                    let header = Header { revision: Revision(1), body: body.len(), audit, version };
                    if let Some(record) = Record::decode(&header, &body) && version == VERSION {
                        let mut bytes = Vec::new();
                        record.encode(Hash([0; 32]), &mut bytes);
                        prop_assert_eq!(&bytes[HEADER..HEADER + body.len()], &body[..]);
                    }
                }
            }
        }
    }
}
