//! What a newcomer reads.

use insta::assert_snapshot;
use picketctl::Exit;

use crate::office::Office;

#[tokio::test(start_paused = true)]
async fn the_help_shows_how_to_begin() {
    let office = Office::open();
    assert_snapshot!("picketctl", office.types_all("--help").await);
    assert_snapshot!("host", office.types_all("host --help").await);
    assert_snapshot!("host_enroll", office.types_all("host enroll --help").await);
    assert_snapshot!("host_retire", office.types_all("host retire -h").await);
    assert_snapshot!("member_admit", office.types_all("member admit -h").await);
    assert_snapshot!("network_apply", office.types_all("network apply --help").await);
    assert_snapshot!("kill", office.types_all("kill --help").await);
    assert_snapshot!("kill_all", office.types_all("kill all -h").await);
    assert_snapshot!("unkill", office.types_all("unkill --help").await);
    assert_snapshot!(
        "device_register",
        office.types_all("device register --help").await
    );
    assert_snapshot!("audit_verify", office.types_all("audit verify --help").await);
    assert_snapshot!("deploy_apply", office.types_all("deploy apply --help").await);
}

#[tokio::test(start_paused = true)]
async fn every_verb_has_an_example_that_the_program_understands() {
    let office = Office::open();
    for noun in [
        "host", "network", "member", "device", "kill", "unkill", "moon", "deploy", "decky", "operator",
        "event", "audit", "clock",
    ] {
        let help = office.types_all(&format!("{noun} -h")).await.done().out;
        let verbs = help
            .split_once("Verbs:\n")
            .or_else(|| help.split_once("What:\n"))
            .unwrap()
            .1
            .split("\n\n")
            .next()
            .unwrap();
        for verb in verbs.lines().filter_map(|line| line.split_whitespace().next()) {
            let help = office.types_all(&format!("{noun} {verb} -h")).await.done().out;
            let examples = help
                .split_once("Example")
                .unwrap_or_else(|| panic!("{noun} {verb}: {help}"))
                .1;
            let lines = examples
                .lines()
                .filter_map(|line| line.trim_start().strip_prefix("picketctl "));
            let mut count = 0;
            for line in lines {
                let line = line
                    .split(" | ")
                    .next()
                    .unwrap()
                    .split("    #")
                    .next()
                    .unwrap()
                    .trim();
                let said = office
                    .types_and_leaves(&format!("--master nowhere:1 {line}"), 5)
                    .await;
                // Understood is: it failed at the bundle's master or at a file, and not at the words.
                assert!(!said.err.contains("Usage:"), "{line}: {said}");
                count += 1;
            }
            assert!(count > 0, "{noun} {verb}: {help}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_not_understood_is_a_mistake_of_the_caller() {
    let office = Office::open();
    assert_snapshot!("verb", office.types("host lst").await);
    assert_snapshot!("pair", office.types("host list --label oslo").await);
    assert_snapshot!("span", office.types("host list --timeout 10").await);
    assert_snapshot!("address", office.types("host list --master master:port").await);
    for line in ["", "host", "nonsense", "host enroll edge-07"] {
        assert_eq!(office.types_all(line).await.exit, Exit::Usage, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn completions_know_every_noun() {
    let office = Office::open();
    for shell in ["bash", "zsh", "fish"] {
        let said = office.types_all(&format!("completions {shell}")).await.done();
        for noun in [
            "host", "network", "member", "device", "kill", "unkill", "moon", "deploy", "decky", "event",
            "audit", "enroll",
        ] {
            assert!(said.out.contains(noun), "{shell} does not complete {noun}");
        }
    }
}
