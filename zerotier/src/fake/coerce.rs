//! How a controller reads JSON of the wrong type: it takes what it can make of it and complains of nothing.

use serde_json::{Map, Value};

/// A record as the controller keeps it.
pub(super) type Record = Map<String, Value>;

/// What the service says when its JSON library gives up: the description of a 500.
#[derive(Debug)]
pub(super) struct Thrown(pub(super) String);

/// Booleans, numbers over 0 and strings that start with `t`, `T` or `1` are true.
pub(super) fn boolean(value: &Value, default: bool) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64().is_some_and(|number| number > 0.0),
        Value::String(text) => text.starts_with(['t', 'T', '1']),
        Value::Null | Value::Array(_) | Value::Object(_) => default,
    }
}

/// A string counts as far as its leading digits go.
pub(super) fn integer(value: &Value, default: u64) -> u64 {
    match value {
        Value::Number(number) => number.as_u64().unwrap_or(0),
        Value::Bool(value) => u64::from(*value),
        Value::String(text) => {
            let end = text
                .find(|letter: char| !letter.is_ascii_digit())
                .unwrap_or(text.len());
            text[..end].parse().unwrap_or(0)
        }
        Value::Null | Value::Array(_) | Value::Object(_) => default,
    }
}

/// Numbers and booleans become their digits.
pub(super) fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => u8::from(*value).to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

/// Parses a body of the controller's API; anything but an object then has no fields.
pub(super) fn body(text: &str) -> Result<Record, Thrown> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Ok(Record::new()),
        Err(error) => {
            let why = if error.is_eof() && !text.ends_with(|letter: char| letter.is_ascii_alphanumeric()) {
                "unexpected end of input; expected '[', '{', or a literal".to_owned()
            } else {
                // The text goes into the answer as it is, quotes and all: such an answer is not JSON.
                format!(
                    "invalid literal; last read: '{}'",
                    text.get(1..).unwrap_or_default()
                )
            };
            Err(Thrown(format!(
                "[json.exception.parse_error.101] parse error at line {}, column {}: syntax error while parsing value \
                 - {why}",
                error.line().max(1),
                error.column() + 1,
            )))
        }
    }
}

/// Writes JSON as the service does: compact, keys in alphabetical order.
pub(super) fn dump(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields: Vec<_> = fields
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::String(key.clone()), dump(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(dump).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_string_that_starts_like_true_is_true() {
        for (value, read) in [
            (json!("yes"), false),
            (json!("true"), true),
            (json!("T"), true),
            (json!("1"), true),
            (json!(2), true),
            (json!(0), false),
            (json!(-1), false),
            (json!([true]), false),
        ] {
            assert_eq!(boolean(&value, false), read, "{value}");
        }
    }

    #[test]
    fn keys_are_written_in_alphabetical_order() {
        assert_eq!(
            dump(&json!({"b": {"d": 1, "c": [null]}, "a": "x"})),
            r#"{"a":"x","b":{"c":[null],"d":1}}"#
        );
    }
}
