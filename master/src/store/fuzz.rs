//! The journal's readers, for the fuzzer alone. What stands in the way of an accident (checksums, the chain) would
//! stand in the way of the fuzzer as well; here it is put right before each look.

use super::{
    commit::{Audit, Revision},
    journal::read_header,
    record::{HEADER, Hash, Header, Record, TRAILER, VERSION},
};

/// Reads the bytes as each part of a journal.
///
/// # Panics
/// When a record that is taken for whole would be written differently.
pub fn read(bytes: &[u8]) {
    drop(read_header(&mut &*bytes));
    if let Some(front) = bytes.first_chunk::<HEADER>() {
        std::hint::black_box(Header::decode(front));
    }
    for version in 1..=VERSION {
        let mut header = Header::of(Revision(7), version, bytes.len(), 0);
        let Some(format) = header.readable() else { continue };
        let rest = Audit::unseal(format, bytes).map_or(bytes, |(_, _, rest)| rest);
        header = Header::of(Revision(7), version, bytes.len(), bytes.len() - rest.len());
        if let Some(record) = Record::decode(&header, bytes)
            && version == VERSION
        {
            let mut again = Vec::new();
            record.encode(Hash([0; 32]), &mut again);
            assert_eq!(&again[HEADER..again.len() - TRAILER], bytes);
        }
    }
}
