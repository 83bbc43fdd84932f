//! Times, counts and foreign text, as people read them.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// The text without characters that would steer a terminal.
pub(crate) fn shown(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            // Directional overrides make text read other than it is.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// How long ago it was, in its largest unit.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    match seconds {
        ..0 => "just now".to_owned(),
        0..120 => format!("{seconds}s ago"),
        120..7200 => format!("{}m ago", seconds / 60),
        7200..172_800 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// A moment to the second, with how long ago it was.
pub(crate) fn moment(then: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", to_the_second(then), ago(then, now))
}

/// A moment to the second.
pub(crate) fn to_the_second(then: Timestamp) -> String {
    then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `key=value` pairs in one line.
pub(crate) fn pairs(labels: &BTreeMap<String, String>) -> String {
    let each: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    each.join(",")
}

/// `1 decky`, `2 deckies`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The text, or nothing when it is empty, which is how the wire says nothing.
pub(crate) fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_a_unit_that_fits() {
        let now: Timestamp = "2026-11-22T18:00:00Z".parse().unwrap();
        for (then, told) in [
            ("2026-11-22T18:00:05Z", "just now"),
            ("2026-11-22T17:59:48Z", "12s ago"),
            ("2026-11-22T17:57:00Z", "3m ago"),
            ("2026-11-22T13:00:00Z", "5h ago"),
            ("2026-11-18T18:00:00Z", "4d ago"),
        ] {
            assert_eq!(ago(then.parse().unwrap(), now), told);
        }
    }
}
