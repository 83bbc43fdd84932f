//! Site files that make no sense: every mistake is named, with its place, and no decky is touched.

use std::fs;

use picket_tests::process::Site;

use crate::{Answers, read_by_people};

const GOOD: &str = "\
name: street
networks:
  - name: lan
    driver: bridge
    subnet: 10.77.0.0/24
deckies:
  - name: web-01
    host: oslo
    network: lan
    address: 10.77.0.20
    services:
      - { name: http, image: \"picket-decoy:latest\", command: [http], ports: [80] }
  - name: nas-01
    host: oslo
    network: lan
    address: 10.77.0.21
    services:
      - { name: ftp, image: \"picket-decoy:latest\", command: [ftp], ports: [21] }
";

#[test]
fn a_site_file_that_makes_no_sense_is_refused_with_every_mistake_in_it() {
    let site = Site::new();
    drop(site.bundle("oslo"));
    // What is refused is noted in the journal, and what was done stands there as before.
    let done = || site.master.json(&["audit", "list", "--outcome", "done"]).unwrap();
    let before = done();
    let mut answers = Answers::keeping(site.plain(), &[]);
    let file = site.root().join("site.yaml");
    let path = file.display().to_string();
    for (what, text) in [
        (
            "an unknown key",
            GOOD.replace("    driver", "    drivr").replace(
                "    host: oslo\n    network: lan\n    address: 10.77.0.21",
                "    hosts: oslo\n    network: lan\n    address: 10.77.0.21",
            ),
        ),
        ("a name that stands twice", GOOD.replace("nas-01", "web-01")),
        (
            "an address that stands twice",
            GOOD.replace("10.77.0.21", "10.77.0.20"),
        ),
        (
            "a host that is not there",
            GOOD.replace("host: oslo", "host: nowhere"),
        ),
        (
            "an address outside the subnet",
            GOOD.replace("10.77.0.21", "10.78.0.21"),
        ),
        (
            "several at once",
            GOOD.replace("nas-01", "web-01")
                .replace("10.77.0.21", "10.77.0.255")
                .replace("network: lan", "network: wan"),
        ),
        ("no YAML", "name: [street".to_owned()),
    ] {
        fs::write(&file, text).unwrap();
        for verb in ["plan", "apply"] {
            answers.refusal(
                &format!("picketctl deploy {verb} -f site.yaml    # {what}"),
                || site.master.ctl(&["deploy", verb, "-f", &path]),
            );
        }
    }
    assert_eq!(before, done(), "what was refused changed something");
    read_by_people!("site_files", answers);
    let deployments = site.master.json(&["deploy", "list"]).unwrap();
    assert_eq!(deployments.as_array().unwrap().len(), 0);
}
