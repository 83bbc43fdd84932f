//! `picketctl audit`.

use insta::assert_snapshot;
use picketctl::Exit;

use crate::office::{Office, Said};

fn with_a_trail() -> Office {
    let office = Office::open();
    let master = &office.master;
    master.did("master", "master.init", "example.org", "");
    master.did("operator/ada", "host.enroll", "edge-07", "");
    master.did("operator/ada", "host.note", "edge-07", "");
    master.did("operator/bo", "host.ban", "edge-07", "stolen");
    master.refused(
        "host/0198a1de",
        "host.renew",
        "host edge-07 is banned or retired",
        41,
    );
    office
}

/// What is said, without what another key signs another time.
fn without_hash(said: &Said) -> String {
    let hash = said.out.split("SHA-256 ").nth(1).and_then(|rest| rest.get(..64));
    said.to_string().replace(hash.unwrap_or("none"), "[HASH]")
}

#[tokio::test(start_paused = true)]
async fn the_trail_is_listed_newest_first_over_pages_and_can_be_narrowed() {
    let office = with_a_trail();
    assert_snapshot!("list", office.types("audit list").await);
    assert_snapshot!("refused", office.types("audit list --outcome refused").await);
    let newest = office
        .types("audit list --who ada --limit 1 -o json")
        .await
        .done()
        .json();
    assert_eq!(newest[0]["revision"], 3);
    assert_eq!(newest[0]["after"]["host/1"]["note"], "spare");
    assert_eq!(newest.as_array().unwrap().len(), 1);
    assert_snapshot!("none", office.types("audit list --what network.").await);
    let usage = office.types("audit list --since soon").await;
    assert_eq!(usage.exit, Exit::Usage, "{usage}");
}

#[tokio::test(start_paused = true)]
async fn an_intact_trail_is_verified_and_its_head_remembered_for_its_owner_alone() {
    let office = with_a_trail();
    let said = office.types("audit verify").await.done();
    assert_snapshot!("verified", without_hash(&said));
    assert_eq!(office.mode(".config/picket/audit-head.example.org"), 0o600);
    office
        .master
        .did("operator/ada", "host.unban", "edge-07", "found");
    let again = office.types("audit verify -o json").await.done().json();
    assert_eq!((&again["revision"], &again["witnessed"]), (&6.into(), &1.into()));
}

#[tokio::test(start_paused = true)]
async fn a_master_that_says_all_is_well_is_not_believed() {
    type Tamper = fn(&Office);
    let tampers: [(&str, Tamper); 3] = [
        ("edited", |office| {
            office.master.state().trail[3].audit.who = "operator/ada".into()
        }),
        ("removed", |office| drop(office.master.state().trail.remove(3))),
        ("reordered", |office| office.master.state().trail.swap(1, 2)),
    ];
    for (name, tamper) in tampers {
        let office = with_a_trail();
        tamper(&office);
        let said = office.types("audit verify").await;
        assert_eq!(said.exit, Exit::Failed, "{name}");
        assert_snapshot!(name, said);
    }
}

#[tokio::test(start_paused = true)]
async fn a_history_that_was_cut_or_rewritten_since_the_last_look_is_noticed_though_the_master_signs_it() {
    let office = with_a_trail();
    office.types("audit verify").await.done();
    let whole = office.master.state().trail.clone();
    office.master.state().trail.truncate(3);
    assert_snapshot!("cut", office.types("audit verify").await);
    office.master.state().trail = whole;
    office.master.rewrites_history(|audit| {
        if audit.who == "operator/bo" {
            audit.who = "operator/ada".into();
        }
    });
    assert_snapshot!("rewritten", office.types("audit verify").await);
    office.types("audit verify --forget").await.done();
    office.types("audit verify").await.done();
}

#[tokio::test(start_paused = true)]
async fn heads_kept_elsewhere_find_a_history_that_was_rewritten_before_the_first_look() {
    let office = with_a_trail();
    let head = office.master.head();
    let event = serde_json::json!({ "id": 9, "kind": "audit.head", "message": head });
    office.file(
        "events.jsonl",
        &format!("{{\"id\":8,\"kind\":\"host.late\"}}\n{event}\n"),
    );
    office.file("events.json", &serde_json::json!([event]).to_string());
    office.file("heads.txt", &format!("{head}\n"));
    office.file("nothing.txt", "\n");
    for file in ["events.jsonl", "events.json", "heads.txt"] {
        let line = format!("audit verify --heads {}", office.path(file).display());
        office.types(&line).await.done();
    }
    office.master.rewrites_history(|audit| audit.why.clear());
    for file in ["events.jsonl", "events.json", "heads.txt", "nothing.txt"] {
        let line = format!("audit verify --forget --heads {}", office.path(file).display());
        assert_eq!(office.types(&line).await.exit, Exit::Failed, "{file}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_export_is_verified_without_a_master_and_shows_what_was_done_to_it() {
    let office = with_a_trail();
    let file = office.path("audit.jsonl");
    let verify = format!("--master nowhere:1 audit verify --file {}", file.display());
    office
        .types(&format!("audit export --out {}", file.display()))
        .await
        .done();
    assert_eq!(office.mode("audit.jsonl"), 0o600);
    let whole = office.read("audit.jsonl");
    assert_snapshot!("file", without_hash(&office.types(&verify).await));

    let lines: Vec<&str> = whole.lines().collect();
    let edited = whole.replacen("stolen", "sold", 1);
    let removed = [&lines[..2], &lines[3..]].concat().join("\n");
    let reordered = [&lines[..1], &[lines[2], lines[1]], &lines[3..]]
        .concat()
        .join("\n");
    let cut = [&lines[..4], &lines[5..]].concat().join("\n");
    let headless = lines[..5].join("\n");
    let behind = format!("{whole}{}\n", lines[4]);
    for (name, text) in [
        ("file_edited", edited),
        ("file_removed", removed),
        ("file_reordered", reordered),
        ("file_cut", cut),
        ("file_headless", headless),
        ("file_behind", behind),
    ] {
        office.file("audit.jsonl", &text);
        assert_snapshot!(name, office.types(&verify).await);
    }
    let part = office.types("audit export --after 3").await.done();
    assert_eq!(part.out.lines().count(), 3, "two entries and a head");
}

#[tokio::test(start_paused = true)]
async fn an_export_of_another_ca_proves_nothing() {
    let (office, other) = (with_a_trail(), with_a_trail());
    let export = other.types("audit export").await.done().out;
    office.file("audit.jsonl", &export);
    let said = office
        .types(&format!(
            "audit verify --file {}",
            office.path("audit.jsonl").display()
        ))
        .await;
    assert_eq!(said.exit, Exit::Failed);
    assert!(said.err.contains("another CA"), "{said}");
}
