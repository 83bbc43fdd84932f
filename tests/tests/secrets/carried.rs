//! The identity of a ZeroTier node that a bundle carries, from the operator's machine to the worker's, by the real programs.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use picket_pki::{Carried, NodeSecret};
use picket_tests::process::{Agent, FakeZeroTier, Master, Site, until, write_private};
use picket_zerotier::identity::Identity;

use super::{
    files,
    needle::{Secret, Secrets},
};

const SOON: Duration = Duration::from_secs(40);
const LOUD: &str = "beat_interval = \"1s\"\nlog.level = \"trace\"\n";

#[test]
fn an_identity_in_a_bundle_is_put_into_place_once_and_its_secret_is_nowhere_at_the_master() {
    let mut site = Site::at_rest();
    site.master.configure(LOUD);
    site.master.start();
    let mut secrets = Secrets::default();
    let mut said = String::new();

    // A machine whose service has not run yet is from here on the node that the operator was told.
    let (bundle, oslo_is) = carrying(&site, "oslo", &mut secrets, &mut said);
    let home = site.root().join("zerotier-0");
    directory(&home);
    let mut oslo = Agent::new("oslo", &site.root().join("oslo"), &bundle).with_zerotier(&home);
    let enrolled = oslo.enroll().ok();
    let placed = format!(
        "this machine is ZeroTier node {} once zerotier-one runs",
        oslo_is.node()
    );
    assert!(enrolled.stdout.contains(&placed), "{}", enrolled.stdout);
    assert!(
        enrolled.stdout.contains("destroy every copy of it"),
        "{}",
        enrolled.stdout
    );
    let file = home.join("identity.secret");
    assert_eq!(fs::read_to_string(&file).unwrap(), oslo_is.as_secret_text());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let zerotier = FakeZeroTier::start(site.root(), 1);
    assert_eq!(zerotier.homes, [home]);
    oslo.start();
    until_node(&site.master, "oslo", oslo_is.node());

    // A machine that is a node already stays that one.
    let (bundle, bern_was_to_be) = carrying(&site, "bern", &mut secrets, &mut said);
    let home = site.root().join("bern-zerotier");
    directory(&home);
    let own = Identity::generate().unwrap();
    write_private(&home.join("identity.secret"), own.to_secret_text().as_bytes());
    let mut bern = Agent::new("bern", &site.root().join("bern"), &bundle).with_zerotier(&home);
    let enrolled = bern.enroll().ok();
    let kept = format!(
        "this machine is ZeroTier node {} and stays it: the identity of node {} in the bundle was not used",
        own.public().node(),
        bern_was_to_be.node()
    );
    assert!(enrolled.stdout.contains(&kept), "{}", enrolled.stdout);
    let now = fs::read_to_string(home.join("identity.secret")).unwrap();
    assert_eq!(now, *own.to_secret_text());
    bern.start();
    drop(site.master.until_host("bern", "online", SOON));

    oslo.stop();
    bern.stop();
    let everything = all_of(&mut site, &[&oslo, &bern], said);
    secrets.must_not_be_in(&everything);
}

/// Has an operator enroll a host with a bundle that carries a node, and returns both. What was printed is kept.
fn carrying(site: &Site, name: &str, secrets: &mut Secrets, said: &mut String) -> (PathBuf, NodeSecret) {
    let file = site.root().join(format!("{name}.bundle"));
    let out = file.display().to_string();
    let enrolled = site
        .master
        .ctl(&["host", "enroll", name, "--lasting-secret", "--out", &out])
        .ok();
    *said += &enrolled.stdout;
    *said += &enrolled.stderr;
    let Carried::WithNode(_, node) = Carried::parse(&fs::read(&file).unwrap()).unwrap() else {
        panic!("the bundle of {name} carries no node")
    };
    assert!(
        said.contains(node.node()),
        "the operator is told which node: {said}"
    );
    let private = node.as_secret_text().rsplit(':').next().unwrap();
    secrets.add(name, Secret::Text(private.to_owned()));
    let bytes = data_encoding::HEXLOWER.decode(private.as_bytes()).unwrap();
    // Each half alone is secret.
    for half in bytes.chunks(32) {
        secrets.add(name, Secret::Bytes(half.to_vec()));
    }
    (file, node)
}

/// Waits until the master believes that a host is this node.
fn until_node(master: &Master, name: &str, node: &str) {
    until(&format!("{name} to be node {node}"), SOON, || {
        let host = master.host(name)?;
        if host["node"]["id"] == node {
            Ok(())
        } else {
            Err(host.to_string())
        }
    });
}

/// As a package makes one.
fn directory(path: &Path) {
    fs::DirBuilder::new().mode(0o755).create(path).unwrap();
}

/// Everything that the master wrote, logged and exported, and what operators and agents were told and keep. The master is
/// stopped for it.
fn all_of(site: &mut Site, agents: &[&Agent], said: String) -> Vec<(String, Vec<u8>)> {
    let export = site.root().join("audit.jsonl");
    let out = export.display().to_string();
    drop(site.master.ctl(&["audit", "export", "--out", &out]).ok());
    let mut everything = vec![
        ("what was printed".to_owned(), said.into_bytes()),
        ("the export".to_owned(), fs::read(&export).unwrap()),
    ];
    for verb in [["event", "list"], ["host", "list"]] {
        let listed = site.master.json(&verb).unwrap().to_string();
        everything.push((verb.join(" "), listed.into_bytes()));
    }
    site.master.stop();
    let log = site.master.log();
    assert!(log.len() > 10_000, "the log was listened to: {} bytes", log.len());
    everything.push(("the master's log".to_owned(), log.into_bytes()));
    for agent in agents {
        everything.push((format!("the log of {}", agent.name), agent.log().into_bytes()));
    }
    let states = agents.iter().map(|agent| agent.state_dir());
    for directory in states.chain([site.master.data_dir()]) {
        for path in files(&directory) {
            everything.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    for needed in ["journal/", "index/", "events.jsonl", "the export"] {
        assert!(
            everything.iter().any(|(name, _)| name.contains(needed)),
            "no {needed}"
        );
    }
    everything
}
