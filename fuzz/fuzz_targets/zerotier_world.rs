//! A planet or moon file says who introduces nodes to each other; it is carried to workers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use picket_zerotier::world::{MAX_BYTES, World};

fuzz_target!(|data: &[u8]| {
    if let Ok(world) = World::parse(data) {
        assert_eq!(world.to_bytes(), data);
        assert!(data.len() <= MAX_BYTES);
        drop(world.check());
        assert!(world.check_update(&world).is_err());
    }
});
