//! A master that is killed again and again while operators make changes: what it acknowledged is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use picket_tests::process::{Change, FakeZeroTier, Master, Recorder, Site, Street, elapsed, until};
use serde_json::Value;

const ROUNDS: usize = 20;
/// What the master takes in at least while it runs, a second, all rounds together.
const RATE: f64 = 100.0;
const SOON: Duration = Duration::from_secs(40);

#[test]
fn a_master_killed_twenty_times_has_every_change_it_acknowledged_and_no_decky_notices_on_docker() {
    let mut site = Site::new();
    let zerotier = FakeZeroTier::start(site.root(), 2);
    let mut street = Street::new();
    let mut oslo = street.machine(&site, "oslo", 0).with_zerotier(&zerotier.homes[0]);
    let mut bergen = street
        .machine(&site, "bergen", 1)
        .with_zerotier(&zerotier.homes[1]);
    let mut hosts = Vec::new();
    for agent in [&mut oslo, &mut bergen] {
        agent.start();
        hosts.push(site.master.until_host(&agent.name, "online", SOON)["id"].clone());
    }
    let network = zerotier.network.as_str();
    until("the controller's network to be adopted", SOON, || {
        let said = site.master.ctl(&["network", "adopt", network]);
        if said.code == Some(0) {
            Ok(())
        } else {
            Err(said.stderr)
        }
    });
    drop(site.master.ctl(&["network", "enforce", network]).ok());
    street.deploy(&site, &["oslo", "bergen"]);
    let deckies = street.containers();

    let mut recorder = Recorder::start(
        env!("CARGO_BIN_EXE_picket-recorder"),
        &site.master.bundle(),
        site.root(),
        network,
    );
    let (mut counted, mut up) = (0, Duration::ZERO);
    for round in 1..=ROUNDS {
        // Killed at a moment of no choosing: after some number of changes, and always with more in flight.
        let target = recorder.count() + 60 + usize::from(fastrand::u8(..));
        let (began, before) = (elapsed(), recorder.count());
        until(&format!("changes in round {round}"), SOON, || {
            let now = recorder.count();
            if now >= target {
                Ok(())
            } else {
                Err(format!("{now} of {target}; {}", site.master.log()))
            }
        });
        site.master.kill();
        up += began();
        counted += recorder.count() - before;
        site.master.start();
    }
    let rate = f64::from(u32::try_from(counted).unwrap()) / up.as_secs_f64();
    let acknowledged = recorder.end();

    let missing = missing(&site.master, &acknowledged);
    assert!(
        missing.is_empty(),
        "{} of {} are missing: {missing:?}",
        missing.len(),
        acknowledged.len()
    );
    for (name, id) in ["oslo", "bergen"].iter().zip(&hosts) {
        let host = site.master.until_host(name, "online", SOON);
        assert_eq!(&host["id"], id);
        assert_eq!(host["deckies_running"], 2, "{host}");
    }
    assert_eq!(
        street.containers(),
        deckies,
        "by id and by when they were started"
    );
    drop(site.master.local("verify", &[]).ok());
    println!(
        "{ROUNDS} times kill -9 under {rate:.0} changes/s ({} acknowledged, none missing); {} containers unchanged",
        acknowledged.len(),
        deckies.len(),
    );
    assert!(rate >= RATE, "{rate:.0} changes/s are too few to tell");
}

/// What was acknowledged and is not there.
fn missing(master: &Master, acknowledged: &[Change]) -> Vec<Change> {
    let listed = master.json(&["host", "list"]).unwrap();
    let hosts: BTreeMap<&str, &Value> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|host| (host["name"].as_str().unwrap(), host))
        .collect();
    let mut members = BTreeMap::new();
    for change in acknowledged {
        if let Change::Admitted { network, .. } = change {
            members
                .entry(network.clone())
                .or_insert_with(|| admitted(master, network));
        }
    }
    let there = |change: &Change| match change {
        Change::Enrolled { host } => hosts.contains_key(host.as_str()),
        Change::Labelled { host, value } => hosts
            .get(host.as_str())
            .is_some_and(|host| host["labels"]["round"] == *value),
        Change::Noted { host, note } => hosts.get(host.as_str()).is_some_and(|host| host["note"] == *note),
        Change::Admitted { network, node } => members[network].contains(node),
    };
    acknowledged
        .iter()
        .filter(|change| !there(change))
        .cloned()
        .collect()
}

/// The nodes that the master wants on a network.
fn admitted(master: &Master, network: &str) -> BTreeSet<String> {
    let listed = master.json(&["member", "list", "--network", network]).unwrap();
    let wanted = listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|member| member["decision"] == "authorized");
    wanted
        .map(|member| member["node_id"].as_str().unwrap().to_owned())
        .collect()
}
