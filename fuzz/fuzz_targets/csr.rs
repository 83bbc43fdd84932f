//! A signing request comes from a worker that somebody may be breaking into.
#![no_main]

use libfuzzer_sys::fuzz_target;
use picket_pki::Csr;

fuzz_target!(|data: &[u8]| {
    if let Ok(csr) = Csr::parse(data) {
        // The key it asks for is one that can be written down and compared.
        assert_eq!(csr.public_key(), csr.public_key());
        csr.public_key().fingerprint();
    }
});
