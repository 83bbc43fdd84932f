use super::*;

fn network(record: Value) -> Network {
    let mut whole = json!({ "id": "5350d87547c880cb", "private": true });
    for (key, value) in record.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn settings(text: &str) -> NetworkSettings {
    serde_json::from_str(text).unwrap()
}

fn fields(problems: &[SettingsProblem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.field.as_str()).collect()
}

#[test]
fn nothing_is_managed_until_it_is_written_down_but_that_the_network_is_private() {
    let nothing = settings("{}");
    assert_eq!(nothing, NetworkSettings::default());
    assert_eq!(serde_json::to_string(&nothing).unwrap(), "{}");
    assert_eq!(Value::from(nothing.to_json(None)), json!({ "private": true }));
    assert!(nothing.validate().is_empty());
    assert!(
        nothing
            .differences(&network(json!({ "name": "x", "mtu": 1400 })))
            .is_empty()
    );
    let public = nothing.differences(&network(json!({ "private": false })));
    assert_eq!(public[0].to_string(), "private is false, wanted true");
}

#[test]
fn a_key_that_is_none_is_refused() {
    for text in [
        r#"{"private": false}"#,
        r#"{"mtus": 1400}"#,
        r#"{"routes": [{"target": "10.0.0.0/8", "metric": 1}]}"#,
        r#"{"pools": [{"ipRangeStart": "10.0.0.1", "ipRangeEnd": "10.0.0.9"}]}"#,
        r#"{"dns": {"domain": "x", "server": []}}"#,
    ] {
        assert!(serde_json::from_str::<NetworkSettings>(text).is_err(), "{text}");
    }
}

#[test]
fn all_problems_come_together_and_name_their_field() {
    let wrong = settings(
        r#"{
            "name": "a\nb",
            "routes": [
                {"target": "10.1.0.7/24"}, {"target": "10.1.0.0/24", "via": "fd00::1"}
            ],
            "pools": [
                {"start": "10.1.0.9", "end": "10.1.0.1"}, {"start": "10.2.0.1", "end": "10.2.0.9"},
                {"start": "10.1.0.9", "end": "fd00::1"}
            ],
            "zt_v6": true, "mtu": 1279, "multicast_limit": 4000000000,
            "dns": {"domain": "lab.example", "servers": ["ns1"]}, "rules": [7]
        }"#,
    );
    assert_eq!(
        fields(&wrong.validate()),
        [
            "name",
            "routes[0]",
            "routes[1]",
            "routes[1]",
            "pools[0]",
            "pools[1]",
            "pools[2]",
            "zt_v6",
            "dns.servers[0]",
            "mtu",
            "multicast_limit",
            "rules[0]",
            "rules",
        ]
    );
    let far = NetworkSettings {
        name: Some("n".repeat(MAX_NAME + 1)),
        mtu: Some(MAX_MTU + 1),
        rules: Some(vec![json!({"type": "ACTION_ACCEPT"}); 1025]),
        dns: Some(Dns {
            domain: "lab.example".into(),
            servers: Vec::new(),
        }),
        ..NetworkSettings::default()
    };
    assert_eq!(fields(&far.validate()), ["name", "dns", "mtu", "rules"]);
}

#[test]
fn rules_that_a_controller_would_drop_or_that_let_nothing_through_are_refused() {
    let problems = |text: &str| {
        let problems = settings(text).validate();
        problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.field, problem.sentence))
            .collect::<Vec<_>>()
    };
    let accept = r#"{"type": "ACTION_ACCEPT"}"#;
    for (rule, wanted) in [
        (r#"{"type": "BOGUS"}"#, "use one of ACTION_ACCEPT"),
        (r#"{"type": "INTEGER_RANGE"}"#, "drops rules of the type"),
        (r#"{}"#, "needs a `type`"),
        (r#"{"type": "MATCH_ETHERTYPE", "etherType": 65536}"#, "0 to 65535"),
        (
            r#"{"type": "MATCH_ETHERTYPE", "ethertype": 1}"#,
            "knows no `ethertype`",
        ),
        (
            r#"{"type": "MATCH_IPV4_DEST", "ip": "10.0.0.300/8"}"#,
            "IPv4 range",
        ),
        (
            r#"{"type": "MATCH_SOURCE_ZEROTIER_ADDRESS", "zt": "39966434"}"#,
            "node id",
        ),
        (r#"{"type": "MATCH_MAC_DEST", "mac": "020000000001"}"#, "a MAC"),
        (r#"{"type": "ACTION_DROP", "not": 1}"#, "true or false"),
    ] {
        let found = problems(&format!(r#"{{"rules": [{rule}, {accept}]}}"#));
        assert!(
            found.len() == 1 && found[0].starts_with("rules[0]: ") && found[0].contains(wanted),
            "{found:?}"
        );
    }
    for nothing in ["[]", r#"[{"type": "ACTION_DROP"}]"#] {
        let found = problems(&format!(r#"{{"rules": {nothing}}}"#));
        assert!(
            found.len() == 1 && found[0].contains("let nothing through"),
            "{found:?}"
        );
    }
    for (field, items) in [
        ("tags", r#"[{"id": -1}]"#),
        ("tags", r#"[{"id": 1}, {"id": 1}]"#),
        ("tags", "[{}]"),
        ("capabilities", r#"[{"id": 4294967296}]"#),
        ("capabilities", r#"[{"id": 1, "rules": [{"type": "BOGUS"}]}]"#),
    ] {
        assert_eq!(
            problems(&format!(r#"{{"{field}": {items}}}"#)).len(),
            1,
            "{items}"
        );
    }
    let good = format!(
        r#"{{"rules": [
            {{"type": "MATCH_ICMP", "icmpType": 8, "icmpCode": null, "not": true, "or": false}}, {{"type": "ACTION_BREAK"}},
            {{"type": "MATCH_CHARACTERISTICS", "mask": "0000000000000002"}}, {{"type": "ACTION_TEE", "address": "39966434ba", "flags": 0, "length": 65535}},
            {{"type": "MATCH_IPV6_SOURCE", "ip": "fd00::/8"}}, {{"type": "MATCH_TAGS_DIFFERENCE", "id": 1, "value": 0}}, {accept}
        ], "tags": [{{"id": 1, "default": 0}}], "capabilities": [{{"id": 2, "default": true, "rules": [{accept}]}}]}}"#
    );
    assert_eq!(problems(&good), Vec::<String>::new());
}

#[test]
fn a_pool_is_checked_against_the_routes_only_where_both_are_managed() {
    let pool = r#""pools": [{"start": "10.2.0.1", "end": "10.2.0.9"}]"#;
    assert!(settings(&format!("{{{pool}}}")).validate().is_empty());
    let outside = settings(&format!(r#"{{{pool}, "routes": [{{"target": "10.3.0.0/16"}}]}}"#));
    assert_eq!(fields(&outside.validate()), ["pools[0]"]);
    let inside = settings(&format!(
        r#"{{{pool}, "v4_assign": true, "routes": [{{"target": "10.2.0.0/16"}}]}}"#
    ));
    assert!(inside.validate().is_empty());
}

#[test]
fn a_record_that_follows_in_other_words_is_no_difference() {
    let want = settings(
        r#"{
            "name": "lab", "rfc4193": true, "mtu": 1400, "multicast_limit": 8, "broadcast": false, "v4_assign": true,
            "routes": [{"target": "10.2.0.0/16"}, {"target": "10.1.0.0/24", "via": "10.2.0.1"}],
            "pools": [{"start": "10.2.0.1", "end": "10.2.0.9"}],
            "dns": {"domain": "lab.example", "servers": ["fd00:0::53"]},
            "rules": [{"type": "ACTION_ACCEPT"}], "tags": [{"id": 2}, {"id": 1, "default": null}],
            "capabilities": []
        }"#,
    );
    let have = network(json!({
        "name": "lab", "mtu": 1400, "multicastLimit": 8, "enableBroadcast": false, "v4AssignMode": {"zt": true},
        "v6AssignMode": {"rfc4193": true, "6plane": true, "zt": false},
        "routes": [{"target": "10.1.0.0/24", "via": "10.2.0.1"}, {"target": "10.2.0.0/16", "via": null}],
        "ipAssignmentPools": [{"ipRangeStart": "10.2.0.1", "ipRangeEnd": "10.2.0.9"}],
        "dns": {"domain": "lab.example", "servers": ["fd00::53"]},
        "rules": [{"not": false, "or": false, "type": "ACTION_ACCEPT"}],
        "tags": [{"id": 1, "default": null}, {"id": 2, "default": null}],
    }));
    assert_eq!(want.differences(&have), []);
}

#[test]
fn every_field_that_is_managed_and_otherwise_is_a_difference() {
    let want = settings(
        r#"{
            "name": "lab", "routes": [], "pools": [], "v4_assign": true, "rfc4193": true, "sixplane": true,
            "zt_v6": true, "dns": {}, "mtu": 1400, "multicast_limit": 8, "broadcast": false,
            "rules": [{"type": "ACTION_DROP"}], "tags": [{"id": 1}], "capabilities": [{"id": 1}]
        }"#,
    );
    let have = network(json!({
        "name": "other", "routes": [{"target": "10.0.0.0/24", "via": "10.0.0.1"}],
        "ipAssignmentPools": [{"ipRangeStart": "10.0.0.1", "ipRangeEnd": "10.0.0.9"}],
        "dns": {"domain": "d", "servers": ["10.0.0.1"]}, "rules": [{"type": "ACTION_ACCEPT"}],
    }));
    let differences = want.differences(&have);
    let fields: Vec<_> = differences.iter().map(|difference| difference.field).collect();
    assert_eq!(
        fields,
        [
            "name",
            "routes",
            "pools",
            "v4_assign",
            "rfc4193",
            "sixplane",
            "zt_v6",
            "dns",
            "mtu",
            "multicast_limit",
            "broadcast",
            "rules",
            "tags",
            "capabilities",
        ]
    );
    assert_eq!(
        differences[1].to_string(),
        "routes is 10.0.0.0/24 via 10.0.0.1, wanted none"
    );
}

#[test]
fn what_a_network_has_of_a_field_that_is_managed_in_part_is_sent_along() {
    let have = network(json!({"v6AssignMode": {"rfc4193": false, "6plane": true, "zt": true}}));
    let want = settings(r#"{"rfc4193": true, "zt_v6": false}"#);
    assert_eq!(
        want.to_json(Some(&have))["v6AssignMode"],
        json!({"rfc4193": true, "6plane": true, "zt": false})
    );
    assert_eq!(
        want.to_json(None)["v6AssignMode"],
        json!({"rfc4193": true, "6plane": false, "zt": false})
    );
}

#[test]
fn settings_survive_their_own_writing() {
    let text = r#"{"routes":[{"target":"10.1.0.0/24"},{"target":"fd00::/64","via":"fd00::1"}],"mtu":1400}"#;
    assert_eq!(serde_json::to_string(&settings(text)).unwrap(), text);
}

#[test]
fn a_long_list_is_shown_in_part() {
    let shown = rules::show(&vec![json!({"type": "é".repeat(40)}); 9]);
    assert!(shown.len() < 200 && shown.ends_with('…'), "{shown}");
}
