//! A journal is read whole at every start, after whatever a disk or a crash did to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use picket_master::store::fuzz;

fuzz_target!(|data: &[u8]| fuzz::read(data));
