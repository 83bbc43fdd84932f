//! What the real master takes from its settings, and what it remarks on.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt as _};

use picket_pki::Bundle;
use picket_tests::process::{Master, Said, binary, command, run};

const AT: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn typed(master: &Master, words: &[&str]) -> Said {
    run(command(&binary("picket-master"))
        .args(words)
        .arg("--config")
        .arg(master.config()))
}

fn masters(text: &[u8]) -> Vec<String> {
    Bundle::parse(text).unwrap().masters
}

#[test]
fn init_and_admin_bundle_find_the_data_directory_and_the_addresses_in_the_settings() {
    let root = tempfile::tempdir().unwrap();
    let mut master = Master::not_yet("ca.key = \"plain\"", &root.path().join("master"), AT);
    let made = typed(
        &master,
        &["init", "--trust-domain", "example.org", "--name", "localhost"],
    );
    drop(made.ok());
    let first = fs::read(master.bundle()).unwrap();
    assert_eq!(masters(&first), [master.admin.to_string()]);

    // Without a running master, and beside one.
    drop(typed(&master, &["admin-bundle"]).ok());
    let second = fs::read(master.bundle()).unwrap();
    master.start();
    drop(typed(&master, &["admin-bundle"]).ok());
    let third = fs::read(master.bundle()).unwrap();
    assert!(first != second && second != third);
    assert_eq!(masters(&third), [master.admin.to_string()]);

    let bundle = root.path().join("oslo.bundle");
    let enrolled = run(command(&binary("picketctl"))
        .args(["host", "enroll", "oslo", "--out"])
        .arg(&bundle)
        .env("PICKET_BUNDLE", master.bundle()));
    drop(enrolled.ok());
    let agents = format!("localhost:{}", master.agents.port());
    assert_eq!(masters(&fs::read(&bundle).unwrap()), [agents]);
}

#[test]
fn a_data_directory_that_others_may_look_into_is_remarked_on_when_it_is_checked_and_at_every_start() {
    let root = tempfile::tempdir().unwrap();
    let mut master = Master::init(&root.path().join("master"), AT);
    let quiet = typed(&master, &["check-config"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
    fs::set_permissions(master.data_dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let said = typed(&master, &["check-config"]);
    assert_eq!(said.code, Some(0), "it keeps no master from running");
    assert!(
        said.stderr.contains("has the mode 0755") && said.stderr.contains("chmod 700"),
        "{}",
        said.stderr
    );
    master.start();
    assert!(master.log().contains("chmod 700"), "{}", master.log());
}
