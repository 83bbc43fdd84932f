//! The one name in a certificate that says who somebody is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use picket_pki::Identity;

fuzz_target!(|text: &str| {
    if let Ok((domain, identity)) = Identity::parse_uri(text) {
        // Two spellings of one name would be two names to whoever compares text.
        assert_eq!(identity.uri(&domain), text);
    }
});
