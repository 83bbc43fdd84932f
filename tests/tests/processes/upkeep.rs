//! What an administrator does on the master's own machine while the master runs.

use std::{fs, path::Path, time::Duration};

use picket_tests::process::{Site, until};

const SOON: Duration = Duration::from_secs(25);

#[test]
fn a_second_master_on_one_data_directory_is_refused_and_the_first_goes_on() {
    let mut site = Site::new();
    let oslo = site.online("oslo");
    let at_rest = picket_tests::process::Master::init(&site.root().join("second"), site.at());
    let pid = site.master.program().id();
    let said = at_rest.run_on(&site.master.data_dir());
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(
        said.stderr.contains("in use by another picket-master") && said.stderr.contains(&pid.to_string()),
        "{}",
        said.stderr
    );
    drop(oslo.until_standing("connected", SOON));
    drop(site.master.ctl(&["host", "note", "oslo", "still here"]).ok());
}

#[test]
fn the_store_is_verified_and_copied_beside_a_running_master() {
    let mut site = Site::new();
    drop(site.bundle("oslo"));
    let verified = site.master.local("verify", &[]).ok();
    assert!(verified.stdout.contains("revision"), "{}", verified.stdout);

    let snapshots = site.root().join("snapshots");
    let to = snapshots.display().to_string();
    drop(site.master.local("snapshot", &["--to", &to]).ok());
    let snapshot = only_file(&snapshots);

    // What came after the snapshot is in the journal, and comes back too.
    drop(site.bundle("bergen"));
    let held = site.master.local("restore", &["--from", &snapshot]);
    assert_eq!(
        held.code,
        Some(1),
        "a running master's store is not replaced: {}",
        held.stdout
    );
    assert!(held.stderr.contains("stop that one first"), "{}", held.stderr);

    assert_eq!(site.master.stop().code, Some(0));
    drop(site.master.local("restore", &["--from", &snapshot]).ok());
    site.master.start();
    let hosts = site.master.json(&["host", "list"]).unwrap();
    let names: Vec<&str> = hosts
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|host| host["name"].as_str())
        .collect();
    assert_eq!(names, ["bergen", "oslo"]);
}

#[test]
fn the_clock_is_accepted_on_the_masters_own_machine_with_a_reason_and_only_while_a_master_runs() {
    let mut site = Site::new();
    let said = site.master.local("accept-clock", &["--reason", "a story"]).ok();
    assert!(said.stdout.contains("believes the clock"), "{}", said.stdout);
    let without = site.master.local("accept-clock", &["--reason", " "]);
    assert!(without.stderr.contains("reason"), "{}", without.stderr);
    assert_eq!(without.code, Some(1));
    site.master.stop();
    let silent = site.master.local("accept-clock", &["--reason", "a story"]);
    assert_eq!(silent.code, Some(1), "{}", silent.stderr);
}

#[test]
fn an_admin_bundle_is_made_beside_a_running_master_and_works_at_once() {
    let site = Site::new();
    let out = site.root().join("ana.bundle");
    let path = out.display().to_string();
    drop(
        site.master
            .local("admin-bundle", &["--name", "ana", "--out", &path])
            .ok(),
    );
    drop(site.master.ctl_as(&out, &["host", "list"]).ok());
    // The first one goes on working.
    drop(site.master.ctl(&["host", "list"]).ok());
}

#[test]
fn an_admin_is_let_in_again_on_the_masters_machine_when_all_are_revoked_whether_the_master_runs_or_not() {
    let mut site = Site::new();
    let file = |name: &str| site.root().join(name);
    let (ana, back, again) = (file("ana"), file("back"), file("again"));
    let add = |bundle: &Path, name: &str, out: &Path| {
        let out = out.display().to_string();
        let words = [
            "operator", "add", name, "--role", "admin", "--device", "laptop", "--out", &out,
        ];
        drop(site.master.ctl_as(bundle, &words).ok());
    };
    let revoke = |bundle: &Path, name: &str| {
        let words = ["operator", "revoke", name, "--reason", "a test"];
        drop(site.master.ctl_as(bundle, &words).ok());
    };
    let first = site.master.bundle();
    add(&first, "ana", &ana);
    revoke(&ana, "admin");
    let refused = site.master.ctl(&["host", "list"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("has been revoked"), "{}", refused.stderr);

    let made = site
        .master
        .local("admin-bundle", &["--out", &back.display().to_string()]);
    drop(made.ok());
    revoke(&back, "ana");
    let refused = site.master.ctl_as(&ana, &["host", "list"]);
    assert!(refused.stderr.contains("has been revoked"), "{}", refused.stderr);

    assert_eq!(site.master.stop().code, Some(0));
    let words = [
        "--name",
        "ana",
        "--device",
        "console",
        "--out",
        &again.display().to_string(),
    ];
    drop(site.master.local("admin-bundle", &words).ok());
    site.master.start();
    drop(site.master.ctl_as(&again, &["operator", "list"]).ok());
    let refused = site.master.ctl_as(&ana, &["host", "list"]);
    assert!(
        refused.stderr.contains("has been revoked"),
        "what was revoked stays so: {}",
        refused.stderr
    );
}

#[test]
fn a_store_without_its_journals_end_is_frozen_until_that_is_accepted() {
    let mut site = Site::new();
    let oslo = site.online("oslo");
    let snapshots = site.root().join("snapshots");
    drop(
        site.master
            .local("snapshot", &["--to", &snapshots.display().to_string()])
            .ok(),
    );
    let snapshot = only_file(&snapshots);
    drop(site.bundle("bergen"));
    assert_eq!(site.master.stop().code, Some(0));
    fs::remove_dir_all(site.master.data_dir().join("store/journal")).unwrap();

    let said = site.master.local("restore", &["--from", &snapshot]).ok();
    assert!(
        said.stdout.contains("may be missing") && said.stdout.contains("restore --accept"),
        "{}",
        said.stdout
    );
    site.master.start();
    let refused = site.master.ctl(&["host", "note", "oslo", "anything"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert!(
        refused.stderr.contains("frozen") && refused.stderr.contains("accept"),
        "{}",
        refused.stderr
    );
    // Its hosts are there, and heard, all the same.
    drop(site.master.until_host("oslo", "online", SOON));
    drop(oslo.until_standing("connected", SOON));

    assert_eq!(site.master.stop().code, Some(0));
    drop(site.master.local("restore", &["--accept"]).ok());
    site.master.start();
    until("a change to be taken", SOON, || {
        let said = site.master.ctl(&["host", "note", "oslo", "accepted"]);
        if said.code == Some(0) {
            Ok(())
        } else {
            Err(said.stderr)
        }
    });
}

fn only_file(folder: &std::path::Path) -> String {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0).display().to_string()
}
