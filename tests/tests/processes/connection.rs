//! The connection between an agent and its master: killed ends, cut wires, clean stops.

use std::{path::Path, time::Duration};

use picket_tests::process::{Agent, Flow, Program, Proxy, Site, binary, command, elapsed, until};
use serde_json::Value;

/// An agent notices a silent wire by a ping every 15 s and a wait of 10 s, and comes back within 20 s.
const NOTICED: Duration = Duration::from_secs(50);
const SOON: Duration = Duration::from_secs(25);

#[test]
fn a_host_that_was_enrolled_from_its_bundle_comes_online_and_beats() {
    let site = Site::new();
    let oslo = site.online("oslo");
    let status = oslo.until_standing("connected", SOON);
    assert_eq!(status["name"], "oslo");
    let before = site.master.metrics().of("master_beats_total");
    until("another beat", SOON, || {
        let beats = site.master.metrics().of("master_beats_total");
        if beats > before {
            Ok(())
        } else {
            Err(beats.to_string())
        }
    });
}

#[test]
fn an_agent_that_is_killed_is_missed_and_is_online_again_when_it_is_back() {
    let site = Site::new();
    let mut oslo = site.online("oslo");
    let id = site.master.host("oslo").unwrap()["id"].clone();
    oslo.kill();
    drop(site.master.until_host("oslo", "late", SOON));
    drop(site.master.until_host("oslo", "offline", SOON));

    oslo.start();
    let host = site.master.until_host("oslo", "online", SOON);
    assert_eq!(host["id"], id);
}

#[test]
fn a_cut_wire_is_mended_by_the_agent_and_the_host_stays() {
    let (site, proxy, oslo) = wired();
    let id = site.master.host("oslo").unwrap()["id"].clone();
    for round in 1..=3 {
        let before = proxy.opened();
        proxy.cut();
        let beats = beats(&site);
        until("a session after a cut", SOON, || {
            assert_eq!(site.master.host("oslo")?["id"], id, "the host stays");
            let status = oslo.status()?;
            let again = proxy.opened() > before
                && status["master"]["state"] == "connected"
                && self::beats(&site) > beats;
            if again {
                Ok(())
            } else {
                Err(format!("round {round}: {status}"))
            }
        });
    }
    drop(site.master.until_host("oslo", "online", SOON));
}

#[test]
fn a_wire_that_is_silent_both_ways_is_noticed_and_the_host_is_neither_lost_nor_doubled() {
    let (site, proxy, oslo) = wired();
    proxy.silence(Flow::ToMaster);
    proxy.silence(Flow::ToAgent);
    silent_until_noticed(&site, &proxy, &oslo);
}

#[test]
fn a_wire_on_which_only_the_masters_words_are_lost_is_noticed_by_the_agent() {
    let (site, proxy, oslo) = wired();
    proxy.silence(Flow::ToAgent);
    silent_until_noticed(&site, &proxy, &oslo);
}

#[test]
fn a_wire_on_which_only_the_agents_words_are_lost_is_noticed_at_both_ends() {
    let (site, proxy, oslo) = wired();
    proxy.silence(Flow::ToMaster);
    drop(site.master.until_host("oslo", "late", SOON));
    silent_until_noticed(&site, &proxy, &oslo);
}

#[test]
fn a_master_that_is_told_to_stop_says_goodbye_and_is_gone_within_ten_seconds() {
    let mut site = Site::new();
    let agents = ["oslo", "bergen", "tromso"].map(|name| site.online(name));
    // An operator who watches is a session too.
    let bundle = site.master.bundle();
    let mut watching = watch_events(&site, &bundle);
    let stopped = site.master.stop();
    assert_eq!(stopped.code, Some(0), "{}", site.master.log());
    for agent in &agents {
        let status = agent.until_standing("disconnected", SOON);
        let problem = status["master"]["problem"].as_str().unwrap().to_owned();
        assert!(problem.contains("the master"), "{problem}");
    }
    until("the operator to be told", SOON, || {
        watching.ended().map(drop).ok_or_else(|| watching.log())
    });

    site.master.start();
    for name in ["oslo", "bergen", "tromso"] {
        drop(site.master.until_host(name, "online", NOTICED));
    }
    let events = site.master.json(&["event", "list"]).unwrap().to_string();
    assert!(
        !events.contains("host.offline"),
        "a planned stop accuses nobody: {events}"
    );
    println!(
        "a master with 3 sessions and a watching operator stopped within {} ms",
        stopped.took.as_millis()
    );
}

#[test]
fn an_agent_that_is_told_to_stop_says_goodbye_and_is_gone_within_ten_seconds() {
    let site = Site::new();
    let mut oslo = site.online("oslo");
    let stopped = oslo.stop();
    assert_eq!(stopped.code, Some(0), "{}", oslo.log());
    let sessions = || site.master.metrics().of("master_sessions");
    until("the session to end", SOON, || {
        if sessions() == 0.0 {
            Ok(())
        } else {
            Err(sessions().to_string())
        }
    });
    println!(
        "an agent with an open session stopped within {} ms",
        stopped.took.as_millis()
    );
}

/// A host whose wire to its master is in our hands.
fn wired() -> (Site, Proxy, Agent) {
    let site = Site::new();
    let proxy = Proxy::new(site.at(), site.master.agents);
    let mut oslo = site.machine("oslo").dialling(proxy.address);
    drop(oslo.enroll().ok());
    oslo.start();
    drop(site.master.until_host("oslo", "online", SOON));
    drop(oslo.until_standing("connected", SOON));
    (site, proxy, oslo)
}

/// Waits until the agent has noticed that its wire is silent, heals the wire, and waits until all is well.
fn silent_until_noticed(site: &Site, proxy: &Proxy, oslo: &Agent) {
    let before = site.master.host("oslo").unwrap();
    let began = elapsed();
    drop(oslo.until_standing("disconnected", NOTICED));
    let noticed = began();
    proxy.heal();
    let after: Value = site.master.until_host("oslo", "online", NOTICED);
    drop(oslo.until_standing("connected", NOTICED));
    assert_eq!(after["id"], before["id"]);
    assert_eq!(
        after["pins"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|pin| pin["kind"] == "current")
            .count(),
        1,
        "{after}"
    );
    let hosts = site.master.json(&["host", "list"]).unwrap();
    assert_eq!(hosts.as_array().unwrap().len(), 1, "{hosts}");
    until("one session", SOON, || {
        let open = site.master.metrics().of("master_sessions");
        if open == 1.0 {
            Ok(())
        } else {
            Err(open.to_string())
        }
    });
    println!(
        "a silent wire was noticed after {:.1} s and healed after {:.1} s",
        noticed.as_secs_f64(),
        began().as_secs_f64()
    );
}

fn beats(site: &Site) -> f64 {
    site.master.metrics().of("master_beats_total")
}

fn watch_events(site: &Site, bundle: &Path) -> Program {
    let mut command = command(&binary("picketctl"));
    command
        .arg("--bundle")
        .arg(bundle)
        .args(["event", "watch", "--after", "0"]);
    let log = site.root().join("watch.log");
    let watching = Program::start("picketctl event watch", &mut command, &log);
    // It is being served once it tells of the enrolments.
    until("the watch to begin", SOON, || {
        let said = watching.log();
        if said.is_empty() {
            Err("nothing".to_owned())
        } else {
            Ok(())
        }
    });
    watching
}
