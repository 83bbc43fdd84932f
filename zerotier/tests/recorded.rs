//! The fake answers every recorded request as the real services did: status, headers, and the body's keys, types and
//! literal values, except for those that differ from run to run.
//!
//! `recorded/exchanges.jsonl` holds what was recorded from five nodes of version 1.14.1 with throwaway identities: `a`
//! controls, `b`, `c` and `d` are members. Between some of the requests the people who recorded them did other things;
//! those are repeated in [`before`].

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, time::Duration};

use picket_zerotier::{
    NodeId,
    fake::{Lab, Origin},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const RECORDED: &str = include_str!("recorded/exchanges.jsonl");
const ROWS: usize = 111;

/// Values that differ from run to run: times, ports, keys, sockets, what an interface subscribes to.
const VOLATILE: &[&str] = &[
    "clock",
    "creationTime",
    "lastAuthorizedTime",
    "lastDeauthorizedTime",
    "lastReceive",
    "lastSend",
    "latency",
    "localSocket",
    "listeningOn",
    "surfaceAddresses",
    "secondaryPort",
    "planetWorldTimestamp",
    "timestamp",
    "signature",
    "updatesMustBeSignedBy",
    "stableEndpoints",
    "multicastSubscriptions",
];
/// Identities: their node id is literal, their key is not.
const IDENTITIES: &[&str] = &["identity", "publicIdentity"];

#[tokio::test(start_paused = true)]
async fn every_recorded_request_is_answered_as_recorded() {
    let site = Recorded::new();
    let mut wrong = Vec::new();
    let mut rows = 0;
    for line in RECORDED.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        rows += 1;
        before(&site, row["no"].as_u64().unwrap()).await;
        let answer = site.replay(&row).await;
        let problems = compare(&row, &answer);
        if !problems.is_empty() {
            wrong.push(format!("#{} {}: {}", row["no"], row["name"], problems.join("; ")));
        }
    }
    assert_eq!(rows, ROWS);
    assert!(
        wrong.is_empty(),
        "{} of {rows} rows differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Does what was done before a request was recorded.
async fn before(site: &Recorded, no: u64) {
    const NET: &str = "/controller/network/5350d87547c880cb";
    let member = |node: &str| format!("{NET}/member/{node}");
    let authorize = |yes: bool| json!({ "authorized": yes });
    match no {
        22 | 26 | 39 => site.pass(5).await,
        28 => {
            site.post("c", "/network/5350d87547c880cb", json!({})).await;
            site.pass(5).await;
            site.post("a", &member("39966434ba"), authorize(true)).await;
            site.post("a", &member("5350d87547"), authorize(true)).await;
            site.post("a", "/network/5350d87547c880cb", json!({})).await;
            site.pass(5).await;
        }
        33 => {
            let routes = json!([
                {"target": "10.147.20.0/24", "via": null},
                {"target": "10.200.0.0/16", "via": "10.147.20.1"},
            ]);
            site.post("a", NET, json!({ "routes": routes })).await;
            let both = json!({ "ipAssignments": ["10.147.20.135", "10.147.20.77"] });
            site.post("a", &member("68c19b4c83"), both).await;
        }
        34 => site.pass(65).await,
        35 => {
            for yes in [true, false, true, false, true] {
                site.post("a", &member("68c19b4c83"), authorize(yes)).await;
            }
        }
        47 => {
            site.post("b", "/network/5350d875470000ff", json!({})).await;
            site.pass(5).await;
            site.post("b", "/network/0123456789000001", json!({})).await;
            site.post("b", "/network/ff0001ffff000000", json!({})).await;
        }
        94 => {
            site.post("a", "/controller/network/5350d87547397c1d", json!({ "name": "" }))
                .await;
            site.post("b", "/network/5350d87547397c1d", json!({})).await;
            let member = "/controller/network/5350d87547397c1d/member/68c19b4c83";
            site.post("a", member, authorize(true)).await;
            site.pass(5).await;
        }
        99 => site.lab.found_moon(site.node("d")),
        101 => site.pass(20).await,
        108 => site.pass(65).await,
        110 => site.lab.set_tun(site.node("b"), false),
        _ => {}
    }
}

/// The recorded nodes, simulated.
struct Recorded {
    lab: Lab,
}

/// What came back, as text.
struct Answer {
    head: String,
    body: String,
}

impl Recorded {
    fn new() -> Self {
        let site = Self { lab: Lab::new() };
        for letter in ["a", "b", "c", "d"] {
            site.lab.add(site.node(letter));
        }
        site.lab.number_networks([0xc8_80cb, 0x39_7c1d]);
        site
    }

    fn node(&self, letter: &str) -> NodeId {
        let id = match letter {
            "a" => "5350d87547",
            "b" => "68c19b4c83",
            "c" => "39966434ba",
            "d" => "8fee13b48c",
            other => panic!("no node {other}"),
        };
        id.parse().unwrap()
    }

    async fn pass(&self, seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    async fn post(&self, letter: &str, path: &str, body: Value) {
        let body = body.to_string();
        let row = json!({
            "node": letter, "method": "POST", "path": path, "token": "own", "content_type": "application/json",
            "body": body,
        });
        let answer = self.replay(&row).await;
        assert!(answer.head.starts_with("HTTP/1.1 200"), "{path}: {}", answer.head);
    }

    async fn replay(&self, row: &Value) -> Answer {
        let node = self.node(row["node"].as_str().unwrap());
        let token = |which: &Value| match which.as_str().unwrap() {
            "own" => self.lab.token(node).expose().to_owned(),
            "metrics" => self.lab.metrics_token(node).expose().to_owned(),
            other => other.to_owned(),
        };
        let mut path = row["path"].as_str().unwrap().to_owned();
        if !row["query_token"].is_null() {
            path = format!("{path}?auth={}", token(&row["query_token"]));
        }
        let mut request = format!(
            "{} {path} HTTP/1.1\r\nHost: 127.0.0.1:9993\r\n",
            row["method"].as_str().unwrap()
        );
        if !row["token"].is_null() {
            request += &format!("X-ZT1-Auth: {}\r\n", token(&row["token"]));
        }
        if !row["bearer"].is_null() {
            request += &format!("Authorization: Bearer {}\r\n", token(&row["bearer"]));
        }
        let body = if let Some(length) = row["body_name_of"].as_u64() {
            Some(json!({ "name": "x".repeat(usize::try_from(length).unwrap()) }).to_string())
        } else if let Some(length) = row["body_form_of"].as_u64() {
            Some(format!("a={}", "x".repeat(usize::try_from(length).unwrap())))
        } else {
            row["body"].as_str().map(ToOwned::to_owned)
        };
        if let Some(body) = &body {
            let kind = row["content_type"].as_str().unwrap_or("application/json");
            request += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        }
        request += "Connection: close\r\n\r\n";
        request += body.as_deref().unwrap_or_default();

        let origin = match row["from"].as_str() {
            Some("elsewhere") => Origin::Elsewhere,
            Some("loopback6") => Origin::Loopback6,
            _ => Origin::Loopback,
        };
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (mut from, mut to) = tokio::io::split(near);
        let mut answer = Vec::new();
        let (_, sent, received) = tokio::join!(
            self.lab.serve(node, origin, far),
            // A body that is too long is refused before all of it was taken.
            to.write_all(request.as_bytes()),
            from.read_to_end(&mut answer),
        );
        drop(sent);
        received.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer to {row}: {answer}"));
        Answer {
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }
}

/// Returns what is different, in sentences.
fn compare(row: &Value, answer: &Answer) -> Vec<String> {
    let mut problems = Vec::new();
    let mut lines = answer.head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default();
    if status.parse().ok() != row["status"].as_u64() {
        problems.push(format!("status {status}, recorded {}", row["status"]));
    }
    let header = |name: &str| {
        let found = answer
            .head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name);
        found.map(|(_, value)| value)
    };
    for (name, want) in [
        ("Content-Type", row["answer_type"].as_str()),
        ("Content-Length", Some(answer.body.len().to_string().as_str())),
        ("Connection", Some("close")),
        ("Date", None),
        ("Transfer-Encoding", None),
    ] {
        if header(name) != want {
            problems.push(format!("{name} is {:?}, recorded {want:?}", header(name)));
        }
    }
    if let Some(recorded) = row.get("answer") {
        match serde_json::from_str::<Value>(&answer.body) {
            Ok(got) => {
                // These two are put together by hand, not by the service's JSON library.
                let by_hand = row["path"] == "/controller" || row["status"] == 500;
                if by_hand && row["bytes"] != answer.body.len() {
                    problems.push(format!("{} bytes, recorded {}", answer.body.len(), row["bytes"]));
                }
                if !by_hand && serde_json::to_string(&got).unwrap() != answer.body {
                    problems.push("the body is not compact or not in alphabetical order".to_owned());
                }
                differences("", recorded, &got, &mut problems);
            }
            Err(error) => problems.push(format!("the body is not JSON ({error}): {}", answer.body)),
        }
    } else if let Some(start) = row["text_starts"].as_str() {
        if !answer.body.starts_with(start) {
            problems.push("the text starts otherwise".to_owned());
        }
    } else if let Some(text) = row["text"].as_str() {
        match text.strip_prefix("cb(").and_then(|text| text.strip_suffix(");")) {
            Some(recorded) => {
                let inner = answer
                    .body
                    .strip_prefix("cb(")
                    .and_then(|text| text.strip_suffix(");"));
                let inner = serde_json::from_str(inner.unwrap_or("null")).unwrap();
                differences(
                    "",
                    &serde_json::from_str(recorded).unwrap(),
                    &inner,
                    &mut problems,
                );
            }
            None if text != answer.body => problems.push(format!("`{}`, recorded `{text}`", answer.body)),
            None => {}
        }
    } else if row["bytes"] != answer.body.len() {
        problems.push(format!("{} bytes, recorded {}", answer.body.len(), row["bytes"]));
    }
    problems
}

fn differences(at: &str, recorded: &Value, got: &Value, problems: &mut Vec<String>) {
    let key = at.rsplit('.').next().unwrap_or_default();
    if VOLATILE.contains(&key) || IDENTITIES.contains(&key) {
        if !alike(key, recorded, got) {
            problems.push(format!("{at} is {got}, recorded {recorded}"));
        }
        return;
    }
    match (recorded, got) {
        (Value::Object(recorded), Value::Object(got)) => {
            if recorded.keys().ne(got.keys()) {
                let (want, have): (Vec<_>, Vec<_>) = (recorded.keys().collect(), got.keys().collect());
                problems.push(format!("{at} has {have:?}, recorded {want:?}"));
                return;
            }
            for (key, recorded) in recorded {
                differences(&format!("{at}.{key}"), recorded, &got[key], problems);
            }
        }
        (Value::Array(recorded), Value::Array(got)) => {
            if recorded.len() != got.len() {
                problems.push(format!(
                    "{at} has {} entries, recorded {}",
                    got.len(),
                    recorded.len()
                ));
                return;
            }
            for (recorded, got) in in_order(recorded).into_iter().zip(in_order(got)) {
                differences(&format!("{at}[]"), recorded, got, problems);
            }
        }
        _ if recorded != got => problems.push(format!("{at} is {got}, recorded {recorded}")),
        _ => {}
    }
}

/// Compares values that differ from run to run as far as they can be.
fn alike(key: &str, recorded: &Value, got: &Value) -> bool {
    match (recorded, got) {
        (Value::Array(recorded), Value::Array(got)) => {
            let kinds = |items: &[Value]| items.iter().map(kind).collect::<BTreeSet<_>>();
            recorded.is_empty() || got.is_empty() || kinds(recorded) == kinds(got)
        }
        // Zero means never, in all of them but the latency.
        (Value::Number(recorded), Value::Number(got)) => {
            key == "latency" || (recorded.as_u64() == Some(0)) == (got.as_u64() == Some(0))
        }
        (Value::String(recorded), Value::String(got)) => {
            let literal = if IDENTITIES.contains(&key) { 13 } else { 0 };
            recorded.len() == got.len() && recorded.get(..literal) == got.get(..literal)
        }
        _ => kind(recorded) == kind(got),
    }
}

/// Lists of records come in no order; others do.
fn in_order(items: &[Value]) -> Vec<&Value> {
    let mut items: Vec<_> = items.iter().collect();
    if items.iter().all(|item| item["id"].is_string()) {
        items.sort_by_key(|item| item["id"].to_string());
    }
    items
}

fn kind(value: &Value) -> String {
    match value {
        Value::Object(fields) => format!(
            "{:?}",
            fields
                .iter()
                .map(|(key, value)| (key, kind(value)))
                .collect::<Vec<_>>()
        ),
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
    }
}

#[test]
fn the_comparison_notices_a_missing_key_another_type_and_another_value() {
    let recorded = json!({"id": "x", "revision": 3, "clock": 5, "list": [{"a": 1}]});
    for other in [
        json!({"id": "x", "revision": 3, "clock": 5}),
        json!({"id": "x", "revision": "3", "clock": 5, "list": [{"a": 1}]}),
        json!({"id": "x", "revision": 4, "clock": 5, "list": [{"a": 1}]}),
        json!({"id": "x", "revision": 3, "clock": 0, "list": [{"a": 1}]}),
        json!({"id": "x", "revision": 3, "clock": 5, "list": [{"b": 1}]}),
    ] {
        let mut problems = Vec::new();
        differences("", &recorded, &other, &mut problems);
        assert!(!problems.is_empty(), "{other}");
    }
    let mut problems = Vec::new();
    differences(
        "",
        &recorded,
        &json!({"id": "x", "revision": 3, "clock": 9, "list": [{"a": 1}]}),
        &mut problems,
    );
    assert!(problems.is_empty());
}
