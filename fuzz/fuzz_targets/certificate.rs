//! A certificate is read in the handshake, before anything else is known of its sender.
#![no_main]

use libfuzzer_sys::fuzz_target;
use picket_pki::{Certificate, Fingerprint, Root};

fuzz_target!(|data: &[u8]| {
    if let Ok(certificate) = Certificate::parse(data) {
        assert_eq!(certificate.fingerprint, Fingerprint::of(data));
        assert!(certificate.not_before <= certificate.not_after);
    }
    drop(Root::parse(data));
});
