//! A bundle is what an operator was handed by whoever; it is read as root on a worker.
#![no_main]

use data_encoding::HEXLOWER;
use libfuzzer_sys::fuzz_target;
use picket_pki::Carried;
use sha2::{Digest, Sha256};

fuzz_target!(|data: &[u8]| {
    read(data);
    // The checksum keeps accidents out and would keep the fuzzer out: what is behind it is tried as well.
    let mut sealed = data.to_vec();
    if !sealed.ends_with(b"\n") {
        sealed.push(b'\n');
    }
    let seal = format!("sha256 {}\n", HEXLOWER.encode(&Sha256::digest(&sealed)));
    sealed.extend_from_slice(seal.as_bytes());
    read(&sealed);
});

/// What is taken for a bundle is byte for byte what would be written.
fn read(bytes: &[u8]) {
    if let Ok(carried) = Carried::parse(bytes) {
        let again = match carried {
            Carried::Whole(bundle) => bundle.encode(),
            Carried::WithNode(bundle, node) => bundle.encode_with(&node),
            Carried::Keyless(bundle) => bundle.encode(),
        };
        let again = again.expect("what was read can be written");
        assert_eq!(again.as_bytes(), bytes);
    }
}
