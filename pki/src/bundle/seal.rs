//! The first line of a bundle, which says what it is, and the last, which says that nothing is missing or changed.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::BundleError;

/// What a bundle begins with; its version follows.
pub(super) const MAGIC: &str = "# picket bundle, version ";

const SEAL: &str = "sha256 ";

/// Writes the last line.
pub(super) fn close(text: &mut String) {
    let seal = HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
    text.push_str(SEAL);
    text.push_str(&seal);
    text.push('\n');
}

/// The version in the first line.
pub(super) fn version(bytes: &[u8]) -> Result<u64, BundleError> {
    let Some(rest) = bytes.strip_prefix(MAGIC.as_bytes()) else {
        let cut_short = !bytes.is_empty() && MAGIC.as_bytes().starts_with(bytes);
        return Err(if cut_short {
            BundleError::Truncated
        } else {
            BundleError::NotABundle
        });
    };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() == rest.len() {
        return Err(BundleError::Truncated);
    }
    let digits = str::from_utf8(line).map_err(|_| BundleError::NotABundle)?;
    digits.parse().map_err(|_| BundleError::NotABundle)
}

/// The text above the checksum line, once that fits.
pub(super) fn open(bytes: &[u8]) -> Result<&str, BundleError> {
    let whole = bytes.strip_suffix(b"\n").ok_or(BundleError::Truncated)?;
    let start = whole
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let (text, last) = bytes.split_at(start);
    let last = last.strip_suffix(b"\n").unwrap_or(last);
    let seal = last
        .strip_prefix(SEAL.as_bytes())
        .filter(|seal| seal.len() == 64)
        .ok_or(BundleError::Truncated)?;
    if HEXLOWER.encode(&Sha256::digest(text)).as_bytes() != seal {
        return Err(BundleError::Edited);
    }
    str::from_utf8(text).map_err(|_| BundleError::Edited)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_are_taken_for_a_bundle_by_chance(head in "(# picket bundle, version 1\n)?", tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let bytes = [head.as_bytes(), &tail].concat();
            prop_assert!(super::super::Bundle::parse(&bytes).is_err());
        }

        #[test]
        fn what_stands_above_a_seal_is_given_back_unchanged(text in "[ -~\n]{0,200}\n") {
            let mut sealed = text.clone();
            super::close(&mut sealed);
            prop_assert_eq!(super::open(sealed.as_bytes()).unwrap(), text);
        }
    }
}
