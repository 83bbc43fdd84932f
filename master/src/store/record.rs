//! One record of the journal as bytes: a header with its own checksum, a body, and the hash that chains it to the
//! record before. Bytes in, values out; it knows no file.
//!
//! ```text
//! header   magic "PKR1" | version u16 | 0 u16 | body length u32 | 0 u32 | revision u64 | first 8 bytes of SHA-256 of those
//! body     time in microseconds i64 | 5 × (length u16, text) | count u16 | count × write
//! write    1 u8, key length u16, key, value length u32, value   or   2 u8, key length u16, key
//! trailer  SHA-256 of (hash before, header, body)
//! ```
//!
//! Numbers are big-endian. The header's checksum tells a length that was damaged from a record that was cut.

use std::fmt;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::commit::{Audit, COMMIT_MAX, Key, Revision, WRITES_MAX, Write};

/// Bytes of a header.
pub(super) const HEADER: usize = 32;
/// Bytes of the hash after the body.
pub(super) const TRAILER: usize = 32;
/// A body is no longer: a commit, and what its lengths and time take.
pub(super) const BODY_MAX: usize = COMMIT_MAX + 64 + 16 * WRITES_MAX;
/// How a header starts.
pub(super) const MAGIC: [u8; 4] = *b"PKR1";
const VERSION: u16 = 1;

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
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part);
    }
    Hash(sha.finalize().into())
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
        reader.u32()?;
        let revision = Revision(reader.u64()?);
        (body <= BODY_MAX).then_some(Self {
            revision,
            body,
            version,
        })
    }

    /// The header of a body of this length, as this program writes it.
    #[cfg(fuzzing)]
    pub(super) fn of(revision: Revision, body: usize) -> Self {
        Self {
            revision,
            body,
            version: VERSION,
        }
    }

    /// Whether this program can read the body.
    pub(super) fn readable(&self) -> bool {
        self.version == VERSION
    }

    fn encode(revision: Revision, body: usize) -> [u8; HEADER] {
        let body = u32::try_from(body).expect("a commit's limits keep it far below");
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_be_bytes());
        bytes[8..12].copy_from_slice(&body.to_be_bytes());
        bytes[16..24].copy_from_slice(&revision.0.to_be_bytes());
        let sum = check(&[&bytes[..24]]);
        bytes[24..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

impl Record {
    /// Appends the record to `out` and returns its hash. `out` grows by header, body and trailer.
    pub(super) fn encode(&self, before: Hash, out: &mut Vec<u8>) -> Hash {
        let start = out.len();
        out.extend([0; HEADER]);
        out.extend(self.time.as_microsecond().to_be_bytes());
        for field in self.audit.fields() {
            put_text(out, field);
        }
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
        let header = Header::encode(self.revision, out.len() - start - HEADER);
        out[start..start + HEADER].copy_from_slice(&header);
        let hash = hash(&[&before.0, &out[start..]]);
        out.extend(hash.0);
        hash
    }

    /// The record of a checked header and the body that belongs to it, or `None` when the body makes no sense.
    pub(super) fn decode(header: &Header, body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let time = Timestamp::from_microsecond(reader.i64()?).ok()?;
        let audit = Audit {
            who: reader.text()?.to_owned(),
            from: reader.text()?.to_owned(),
            what: reader.text()?.to_owned(),
            subject: reader.text()?.to_owned(),
            why: reader.text()?.to_owned(),
        };
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

    fn record() -> impl Strategy<Value = Record> {
        let write = (
            "[ -~]{1,20}",
            prop::option::of(prop::collection::vec(any::<u8>(), 0..50)),
        );
        let writes = prop::collection::vec(write, 0..6);
        (
            any::<u64>(),
            0_i64..1 << 50,
            prop::array::uniform5(".{0,12}"),
            writes,
        )
            .prop_map(
                |(revision, time, [who, from, what, subject, why], writes)| Record {
                    revision: Revision(revision),
                    time: Timestamp::from_microsecond(time).unwrap(),
                    audit: Audit {
                        who,
                        from,
                        what,
                        subject,
                        why,
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
            prop_assert_eq!(hash(&[&before, front, body]), after);
            prop_assert_eq!(Record::decode(&header, body), Some(record));
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
            let header = Header { revision: Revision(1), body: body.len(), version: 1 };
            if let Some(record) = Record::decode(&header, &body) {
                let mut bytes = Vec::new();
                record.encode(Hash([0; 32]), &mut bytes);
                prop_assert_eq!(&bytes[HEADER..HEADER + body.len()], &body[..]);
            }
        }
    }
}
