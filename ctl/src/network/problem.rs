//! Why a value of a settings file will not do, in an operator's words.

use serde::de::DeserializeOwned;
use serde_norway::Value;

/// Why a value is none of these; nothing when it is one.
pub(super) fn problem<T: DeserializeOwned>(value: &Value) -> Option<String> {
    let cause = serde_norway::from_value::<T>(value.clone()).err()?.to_string();
    // `1234567890` is a number to YAML, and `12e4567890` too.
    let is_plain = ["integer", "floating point", "boolean"]
        .iter()
        .any(|kind| cause.contains(&format!("invalid type: {kind}")));
    let quotes = if is_plain && cause.contains("expected a string") {
        "; put it in quotes"
    } else {
        ""
    };
    // The path before it is ours already.
    let (_, plain) = cause
        .rsplit_once(": invalid ")
        .map_or(("", None), |(path, rest)| {
            let is_path = !path.contains(' ');
            (path, is_path.then(|| format!("invalid {rest}")))
        });
    Some(format!("{}{quotes}", plainly(&plain.unwrap_or(cause))))
}

/// A parser's sentence in an operator's words: what is there, and what is wanted.
fn plainly(cause: &str) -> String {
    const KINDS: [(&str, &str); 6] = [
        ("integer ", "the number "),
        ("floating point ", "the number "),
        ("boolean ", ""),
        ("string ", "the text "),
        ("unit value", "nothing"),
        ("sequence", "a list"),
    ];
    let said = |prefix| cause.strip_prefix(prefix);
    if let Some((found, wanted)) = said("invalid type: ")
        .or_else(|| said("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    {
        let plain = KINDS.iter().find_map(|(kind, plain)| {
            let rest = found.strip_prefix(kind)?;
            Some(format!("{plain}{}", rest.replace('`', "")))
        });
        let found = match found {
            "map" => "a mapping".to_owned(),
            _ => plain.unwrap_or_else(|| found.to_owned()),
        };
        let wanted = if wanted.starts_with("struct ") || wanted == "a map" {
            "a mapping of keys"
        } else if ["u8", "u16", "u32", "u64"].contains(&wanted) {
            "a whole number"
        } else if wanted == "a sequence" {
            "a list"
        } else if wanted == "a string" {
            "a text"
        } else if wanted == "a boolean" {
            "true or false"
        } else {
            wanted
        };
        return format!("{found} is there, and {wanted} is wanted");
    }
    cause
        .replace("unknown field", "there is no key")
        .replace("unknown variant", "there is no")
        .replace("missing field", "there has to be a key")
        .replace(", expected one of ", "; there are ")
        .replace(", expected ", "; there is ")
}
