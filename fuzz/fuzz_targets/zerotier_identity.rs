//! An identity is read from a worker's disk, from what it sends, and from what a controller keeps of a member.
#![no_main]

use libfuzzer_sys::fuzz_target;
use picket_zerotier::{
    identity::{Identity, PublicIdentity},
    world::WorldKey,
};

fuzz_target!(|text: &str| {
    // Two spellings of one identity would be two to whoever compares text.
    if let Ok(identity) = text.parse::<PublicIdentity>() {
        assert_eq!(identity.to_string(), text);
    }
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(*identity.to_secret_text(), text);
    }
    if let Ok(key) = text.parse::<WorldKey>() {
        assert_eq!(*key.to_secret_text(), text);
    }
});
