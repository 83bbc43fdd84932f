//! The settings of a network come in a file from an operator.
#![no_main]

use libfuzzer_sys::fuzz_target;
use picket_zerotier::{network::Network, settings::NetworkSettings};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(settings) = serde_json::from_slice::<NetworkSettings>(data) else {
        return;
    };
    // What is passed on as it is may hold numbers that are not written as they were read.
    let plain = NetworkSettings {
        rules: None,
        tags: None,
        capabilities: None,
        ..settings.clone()
    };
    let again = serde_json::to_string(&plain).expect("settings can be written");
    assert_eq!(
        serde_json::from_str::<NetworkSettings>(&again).expect("and read"),
        plain
    );
    let mut record = settings.to_json(None);
    record.insert("id".into(), "5350d87547c880cb".into());
    let record = serde_json::from_value::<Network>(Value::Object(record));
    if settings.validate().is_empty() {
        // A network that took what was sent follows it.
        assert_eq!(
            settings.differences(&record.expect("a record of good settings")),
            []
        );
    } else if let Ok(record) = record {
        drop(settings.differences(&record));
    }
});
