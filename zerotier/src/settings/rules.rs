//! Rules, tags and capabilities: checked, passed on as they are, and compared with what a controller makes of them.
//!
//! A controller drops what it cannot read without a word, and a network without rules lets nothing through: so nothing is
//! passed on that it would not keep.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Map, Value};

use crate::ids::NodeId;

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
    let mut ids = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let place = format!("{field}[{index}]");
        let Value::Object(item) = item else {
            let sentence = "it is no object; write it as the controller shows it";
            problems.push((place, sentence.to_owned()));
            continue;
        };
        if field == "rules" {
            problems.extend(rule(item).map(|sentence| (place, sentence)));
            continue;
        }
        match item.get("id").and_then(Value::as_u64) {
            Some(id) if id <= u64::from(u32::MAX) => {
                if !ids.insert(id) {
                    problems.push((place.clone(), format!("the id {id} is there twice")));
                }
            }
            Some(_) | None => {
                problems.push((place.clone(), "it needs an `id` from 0 to 4294967295".to_owned()))
            }
        }
        if field == "capabilities" {
            let rules = item.get("rules").and_then(Value::as_array);
            for (index, item) in rules.into_iter().flatten().enumerate() {
                let wrong = item.as_object().map_or_else(
                    || Some("it is no object; write it as the controller shows it".to_owned()),
                    rule,
                );
                problems.extend(wrong.map(|sentence| (format!("{place}.rules[{index}]"), sentence)));
            }
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

/// What a field of a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// A number up to this one.
    Number(u64),
    /// The same, or nothing.
    Perhaps(u64),
    Node,
    Mac,
    V4,
    V6,
    /// A number, or its digits in hexadecimal.
    Bits,
}

const BYTE: Holds = Holds::Number(u8::MAX as u64);
const WORD: Holds = Holds::Number(u16::MAX as u64);
const LONG: Holds = Holds::Number(u32::MAX as u64);
const RANGE: &[(&str, Holds)] = &[("start", WORD), ("end", WORD)];
const TAG: &[(&str, Holds)] = &[("id", LONG), ("value", LONG)];
const COPY: &[(&str, Holds)] = &[("address", Holds::Node), ("flags", LONG), ("length", WORD)];

/// What a controller reads: types of rules and their fields. (It knows INTEGER_RANGE by name, and drops it.)
const TYPES: &[(&str, &[(&str, Holds)])] = &[
    ("ACTION_ACCEPT", &[]),
    ("ACTION_BREAK", &[]),
    ("ACTION_DROP", &[]),
    ("ACTION_REDIRECT", &[("address", Holds::Node), ("flags", LONG)]),
    ("ACTION_TEE", COPY),
    ("ACTION_WATCH", COPY),
    ("MATCH_CHARACTERISTICS", &[("mask", Holds::Bits)]),
    ("MATCH_DEST_ZEROTIER_ADDRESS", &[("zt", Holds::Node)]),
    ("MATCH_ETHERTYPE", &[("etherType", WORD)]),
    ("MATCH_FRAME_SIZE_RANGE", RANGE),
    (
        "MATCH_ICMP",
        &[("icmpType", BYTE), ("icmpCode", Holds::Perhaps(u8::MAX as u64))],
    ),
    ("MATCH_IPV4_DEST", &[("ip", Holds::V4)]),
    ("MATCH_IPV4_SOURCE", &[("ip", Holds::V4)]),
    ("MATCH_IPV6_DEST", &[("ip", Holds::V6)]),
    ("MATCH_IPV6_SOURCE", &[("ip", Holds::V6)]),
    ("MATCH_IP_DEST_PORT_RANGE", RANGE),
    ("MATCH_IP_PROTOCOL", &[("ipProtocol", BYTE)]),
    ("MATCH_IP_SOURCE_PORT_RANGE", RANGE),
    ("MATCH_IP_TOS", &[("mask", BYTE), ("start", BYTE), ("end", BYTE)]),
    ("MATCH_MAC_DEST", &[("mac", Holds::Mac)]),
    ("MATCH_MAC_SOURCE", &[("mac", Holds::Mac)]),
    ("MATCH_RANDOM", &[("probability", LONG)]),
    ("MATCH_SOURCE_ZEROTIER_ADDRESS", &[("zt", Holds::Node)]),
    ("MATCH_TAGS_BITWISE_AND", TAG),
    ("MATCH_TAGS_BITWISE_OR", TAG),
    ("MATCH_TAGS_BITWISE_XOR", TAG),
    ("MATCH_TAGS_DIFFERENCE", TAG),
    ("MATCH_TAGS_EQUAL", TAG),
    ("MATCH_TAG_RECEIVER", TAG),
    ("MATCH_TAG_SENDER", TAG),
    ("MATCH_VLAN_DEI", &[("vlanDei", BYTE)]),
    ("MATCH_VLAN_ID", &[("vlanId", WORD)]),
    ("MATCH_VLAN_PCP", &[("vlanPcp", BYTE)]),
];

/// What is wrong with a rule, if anything is.
fn rule(item: &Map<String, Value>) -> Option<String> {
    let Some(named) = item.get("type").and_then(Value::as_str) else {
        return Some("it needs a `type`, such as ACTION_ACCEPT".to_owned());
    };
    let Some((_, fields)) = TYPES.iter().find(|(known, _)| *known == named) else {
        let known: Vec<_> = TYPES.iter().map(|(known, _)| *known).collect();
        return Some(format!(
            "a controller drops rules of the type {named:?}; use one of {}",
            known.join(", ")
        ));
    };
    for (key, value) in item {
        match key.as_str() {
            "type" => {}
            "not" | "or" if value.is_boolean() => {}
            "not" | "or" => return Some(format!("`{key}` is true or false")),
            key => {
                let Some((_, holds)) = fields.iter().find(|(field, _)| *field == key) else {
                    return Some(format!("a controller knows no `{key}` of {named}"));
                };
                if !holds.fits(value) {
                    return Some(format!("`{key}` is {}", holds.words()));
                }
            }
        }
    }
    None
}

impl Holds {
    fn fits(self, value: &Value) -> bool {
        let number = |most: u64| value.as_u64().is_some_and(|number| number <= most);
        match self {
            Self::Number(most) => number(most),
            Self::Perhaps(most) => value.is_null() || number(most),
            Self::Bits => {
                let digits = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).is_ok();
                value.is_u64() || value.as_str().is_some_and(digits)
            }
            Self::Node => value.as_str().is_some_and(|text| text.parse::<NodeId>().is_ok()),
            Self::Mac => value.as_str().is_some_and(is_mac),
            Self::V4 => value.as_str().is_some_and(|text| text.parse::<Ipv4Net>().is_ok()),
            Self::V6 => value.as_str().is_some_and(|text| text.parse::<Ipv6Net>().is_ok()),
        }
    }

    fn words(self) -> String {
        match self {
            Self::Number(most) => format!("a number from 0 to {most}"),
            Self::Perhaps(most) => format!("a number from 0 to {most}, or null"),
            Self::Bits => "a number, or its digits in hexadecimal".to_owned(),
            Self::Node => "a node id of ten digits".to_owned(),
            Self::Mac => "a MAC such as 02:00:00:00:00:01".to_owned(),
            Self::V4 => "an IPv4 range such as 10.147.20.0/24".to_owned(),
            Self::V6 => "an IPv6 range such as fd00::/64".to_owned(),
        }
    }
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))
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
        (Value::String(have), Value::String(want)) => alike(have, want),
        (Value::String(have), Value::Number(want)) => {
            let digits = u64::from_str_radix(have.trim_start_matches("0x"), 16).ok();
            digits.is_some() && digits == want.as_u64()
        }
        _ => have == want,
    }
}

/// Whether two texts are the same address range, or the same digits.
fn alike(have: &str, want: &str) -> bool {
    let range = |text: &str| text.parse::<IpNet>().ok();
    have.eq_ignore_ascii_case(want) || range(have).is_some_and(|have| range(want) == Some(have))
}

/// Whether anything gets through. What belongs to a capability gets through by that one's rules.
pub(super) fn let_through(rules: &[Value], capabilities: &[Value]) -> bool {
    let accepts = |item: &Value| item.get("type").and_then(Value::as_str) == Some("ACTION_ACCEPT");
    let of_capabilities = capabilities
        .iter()
        .filter_map(|item| item.get("rules")?.as_array())
        .flatten();
    rules.iter().chain(of_capabilities).any(accepts)
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
