//! `picketctl deploy` and `picketctl decky`.

use insta::assert_snapshot;
use picketctl::Exit;

use crate::{hosts::with_hosts, office::Office};

const SITE: &str = include_str!("../../../docs/examples/site.yaml");

async fn with_site() -> (Office, String) {
    let office = with_hosts().await;
    office.file("site.yaml", SITE);
    let file = office.path("site.yaml").display().to_string();
    (office, file)
}

#[tokio::test(start_paused = true)]
async fn a_plan_shows_the_change_and_makes_none() {
    let (office, file) = with_site().await;
    assert_snapshot!("plan", office.types(&format!("deploy plan -f {file}")).await);
    assert_snapshot!(
        "plan_in_json",
        office.types(&format!("deploy plan -f {file} -o json")).await
    );
    assert_snapshot!("nothing_yet", office.types("deploy list").await);
}

#[tokio::test(start_paused = true)]
async fn applying_tells_how_each_decky_is_doing_until_all_run() {
    let (office, file) = with_site().await;
    assert_snapshot!("applied", office.types(&format!("deploy apply -f {file}")).await);
    assert_snapshot!("again", office.types(&format!("deploy apply -f {file}")).await);
    assert_snapshot!("listed", office.types("deploy list").await);
    assert_snapshot!("shown", office.types("deploy show oslo").await);
    assert_snapshot!("deckies", office.types("decky list --host edge-07").await);
    assert_snapshot!("decky", office.types("decky show web-01").await);
    assert_snapshot!(
        "decky_in_yaml",
        office.types("decky show web-01 --host edge-07 -o yaml").await
    );
    assert_eq!(
        office.types("decky list -o name").await.done().out,
        "edge-07/web-01\nedge-07/router-01\n"
    );
}

#[tokio::test(start_paused = true)]
async fn applying_in_json_is_one_document_at_the_end() {
    let (office, file) = with_site().await;
    let said = office
        .types(&format!("deploy apply -f {file} -o json"))
        .await
        .done();
    let document = said.json();
    assert_eq!(document["deployment"]["running"], 2);
    assert_eq!(document["changes"][0]["action"], "add");
    assert_eq!(document["outcome"]["decky_states"][1]["state"], "running");
    let said = office
        .types(&format!("deploy apply -f {file} -o json --no-wait"))
        .await
        .done();
    assert!(said.json()["outcome"].is_null());
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_of_a_site_can_be_applied_again_and_changes_nothing() {
    let (mut office, file) = with_site().await;
    office.types(&format!("deploy apply -f {file}")).await.done();
    let shown: serde_json::Value = office.types("deploy show oslo -o json").await.json();
    office.pipe_in(&shown["site"].to_string());
    let said = office.types("deploy apply -f - -o json").await.done();
    assert_eq!(said.json()["changes"], serde_json::json!([]));
    assert_eq!(said.json()["deployment"]["revision"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_decky_that_does_not_start_fails_the_command_and_is_named() {
    let (office, file) = with_site().await;
    office.master.state().broken.insert("web-01".into());
    assert_snapshot!(office.types(&format!("deploy apply -f {file}")).await);
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_said_to_go_on() {
    let (office, file) = with_site().await;
    assert_snapshot!(
        "out_of_time",
        office.types(&format!("deploy apply -f {file} --within 3s")).await
    );
    office.wait(10).await;
    assert_eq!(office.types("deploy list -o json").await.json()[0]["running"], 2);
}

#[tokio::test(start_paused = true)]
async fn what_hosts_cannot_do_is_told_once_and_ends_the_wait_when_nothing_moves() {
    let (office, file) = with_site().await;
    office.master.state().is_blocked = true;
    office.master.state().problems = vec![
        "edge-07: image `x` is not allowed".into(),
        "edge-07: Docker does not answer".into(),
    ];
    let before = office.clock.now();
    assert_snapshot!("stuck", office.types(&format!("deploy apply -f {file}")).await);
    let took = office.clock.now().duration_since(before).as_secs();
    assert!((40..45).contains(&took), "took {took} s");
}

#[tokio::test(start_paused = true)]
async fn not_waiting_says_where_to_look() {
    let (office, file) = with_site().await;
    assert_snapshot!(office.types(&format!("deploy apply -f {file} --no-wait")).await);
}

#[tokio::test(start_paused = true)]
async fn removing_waits_until_no_host_has_any_of_it() {
    let (office, file) = with_site().await;
    office.types(&format!("deploy apply -f {file}")).await.done();
    assert_snapshot!("removed", office.types("deploy remove oslo").await);
    assert_snapshot!("removed_again", office.types("deploy remove oslo").await);
    assert_snapshot!("no_deckies", office.types("decky list --deployment oslo").await);
}

#[tokio::test(start_paused = true)]
async fn a_bad_site_file_is_refused_whole_and_changes_nothing() {
    let (mut office, _) = with_site().await;
    for (name, from, to) in [
        (
            "unknown_key",
            "    address: 10.77.0.20",
            "    adress: 10.77.0.20\n    rack: 4",
        ),
        ("duplicate_name", "name: router-01", "name: web-01"),
        ("duplicate_address", "address: 10.77.0.254", "address: 10.77.0.20"),
        ("unknown_host", "host: edge-07   ", "host: edge-70   "),
        (
            "outside_the_subnet",
            "address: 10.77.0.254",
            "address: 10.78.0.254",
        ),
        ("several_at_once", "subnet: 10.77.0.0/24", "subnet: 10.78.0.0/24"),
        ("wrong_type", "ports: [22]", "ports: ssh"),
        ("not_yaml", "name: oslo", "name: oslo\n  name: oslo"),
    ] {
        let bad = SITE.replacen(from, to, 1);
        assert_ne!(bad, SITE, "{name}");
        office.pipe_in(&bad);
        let said = office.types("deploy apply -f -").await;
        assert_eq!(said.exit, Exit::Usage, "{said}");
        assert_snapshot!(name, said);
    }
    assert!(office.master.state().deployments.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_site_file_that_cannot_be_read_is_named() {
    let (mut office, _) = with_site().await;
    assert_snapshot!(
        "missing",
        office
            .types(&format!("deploy plan -f {}", office.path("no.yaml").display()))
            .await
    );
    office.pipe_in(&"#".repeat(2 * 1024 * 1024));
    assert_snapshot!("too_long", office.types("deploy plan -f -").await);
}

#[tokio::test(start_paused = true)]
async fn every_key_that_a_script_can_see_is_documented() {
    const DOCS: &str = include_str!("../../../docs/picketctl-output.md");
    fn walk(value: &serde_json::Value, missing: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    if !DOCS.contains(&format!("`{key}`")) {
                        missing.push(key.clone());
                    }
                    // What is in these is the operator's own.
                    if !["labels", "site", "form", "before", "after"].contains(&key.as_str()) {
                        walk(value, missing);
                    }
                }
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| walk(value, missing)),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => {}
        }
    }
    let (office, file) = with_site().await;
    office.master.tell(
        "host.online",
        "edge-07",
        "it is",
        picket_proto::wire::admin::EventSeverity::Info,
    );
    office.master.did("operator/ada", "host.note", "edge-07", "");
    let out = office.path("new").display().to_string();
    let ana = office.path("ana").display().to_string();
    office.file("network.yaml", "settings: {mtu: 1400}\n");
    let network = office.path("network.yaml").display().to_string();
    let mut missing = Vec::new();
    for line in [
        format!("host enroll new --out {out}"),
        "host list".into(),
        "host show edge-07".into(),
        "network adopt 8056c2e21c000001".into(),
        "network show 8056c2e21c000001".into(),
        "network enforce 8056c2e21c000001".into(),
        format!("network plan 8056c2e21c000001 -f {network}"),
        format!("network apply 8056c2e21c000001 -f {network}"),
        "network reconcile 8056c2e21c000001 --dry-run".into(),
        "network resume 8056c2e21c000001 --reason tests".into(),
        "device register 39966434ba --name laptop --owner ana".into(),
        "device list".into(),
        "member request laptop --network 8056c2e21c000001 --reason tests".into(),
        "member admit edge-07 --network 8056c2e21c000001 --for 1h --reason tests".into(),
        "member list --network 8056c2e21c000001".into(),
        "kill host edge-07 --reason tests --no-wait".into(),
        "kill list".into(),
        "moon create edge-07 --endpoint 192.0.2.1/9993".into(),
        "moon list".into(),
        "moon remove edge-07 --reason tests".into(),
        "network delete 8056c2e21c000001 --reason tests --yes".into(),
        format!("deploy plan -f {file}"),
        format!("deploy apply -f {file}"),
        "deploy list".into(),
        "deploy show oslo".into(),
        "decky list".into(),
        "event list".into(),
        format!("operator add ana --role viewer --device laptop --out {ana}"),
        "operator list".into(),
        "operator show".into(),
        "audit list".into(),
        "audit verify".into(),
        "clock show".into(),
    ] {
        let said = office.types(&format!("{line} -o json")).await.done();
        assert_ne!(said.json(), serde_json::json!([]), "{line}");
        walk(&said.json(), &mut missing);
    }
    assert!(missing.is_empty(), "not in docs/picketctl-output.md: {missing:?}");
}
