//! Rules, tags and capabilities: passed on as they are, bounded, and compared with what a controller makes of them.

use serde_json::Value;

/// The most items of one list: rules of a network, tags and capabilities that a member can be told.
const MAX_ITEMS: [(&str, usize); 3] = [("rules", 1024), ("tags", 128), ("capabilities", 128)];
/// The most bytes of one list as JSON.
const MAX_BYTES: usize = 256 * 1024;
/// How much of a list is shown where two are compared.
const SHOWN: usize = 160;

/// Returns what is wrong with a list: the field, and a sentence.
pub(super) fn problems(field: &'static str, items: &[Value]) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    for (_, most) in MAX_ITEMS
        .iter()
        .filter(|(name, most)| *name == field && items.len() > *most)
    {
        problems.push((
            field.to_owned(),
            format!("{} are more than a network has: {most}", items.len()),
        ));
    }
    for (index, item) in items.iter().enumerate() {
        if !item.is_object() {
            let sentence = "it is no object; write it as the controller shows it";
            problems.push((format!("{field}[{index}]"), sentence.to_owned()));
        }
    }
    let bytes: usize = items.iter().map(|item| item.to_string().len()).sum();
    if bytes > MAX_BYTES {
        problems.push((
            field.to_owned(),
            format!("{bytes} bytes are more than the {MAX_BYTES} that are passed on"),
        ));
    }
    problems
}

/// Returns whether what a controller has is what was sent: it fills in what an item lacks, and keeps tags and
/// capabilities in the order of their ids.
pub(super) fn follows(field: &str, have: &[Value], want: &[Value]) -> bool {
    let (mut have, mut want): (Vec<_>, Vec<_>) = (have.iter().collect(), want.iter().collect());
    if field != "rules" {
        let id = |item: &&Value| item.get("id").and_then(Value::as_u64);
        have.sort_by_key(id);
        want.sort_by_key(id);
    }
    have.len() == want.len() && have.into_iter().zip(want).all(|(have, want)| covers(have, want))
}

fn covers(have: &Value, want: &Value) -> bool {
    match (have, want) {
        (Value::Object(have), Value::Object(want)) => want.iter().all(|(key, want)| {
            let have = have.get(key).unwrap_or(&Value::Null);
            covers(have, want)
        }),
        (Value::Array(have), Value::Array(want)) => {
            have.len() == want.len() && have.iter().zip(want).all(|(have, want)| covers(have, want))
        }
        _ => have == want,
    }
}

/// Returns a list for an operator to read, cut off where it gets long.
pub(super) fn show(items: &[Value]) -> String {
    let mut text = Value::from(items.to_vec()).to_string();
    if text.len() > SHOWN {
        let end = (0..=SHOWN).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}
