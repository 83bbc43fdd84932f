//! Daemons that kill themselves with SIGKILL in the middle of a renewal: the stories walk every point, these show that a
//! real kill is as survivable as theirs.

use std::time::Duration;

use picket_tests::process::{Agent, Site};

const SOON: Duration = Duration::from_secs(40);

#[test]
fn an_agent_killed_in_the_middle_of_its_enrolment_finishes_it_with_the_same_bundle() {
    let site = Site::new();
    for point in [
        "agent-after-key",
        "agent-after-reply",
        "agent-after-certificate",
        "agent-after-current",
    ] {
        let mut agent = site.machine(point);
        dies(&mut agent, point);
        drop(agent.enroll().ok());
        agent.start();
        is_in(&site, &agent);
        agent.stop();
    }
}

#[test]
fn an_agent_killed_in_the_middle_of_a_renewal_is_in_under_one_pin() {
    let site = Site::new();
    let mut agent = site.enrolled("oslo");
    for point in [
        "agent-after-key",
        "agent-after-certificate",
        "agent-after-previous",
        "agent-after-current",
    ] {
        // With another bundle for the host that it is, `enroll` renews what the machine has.
        let bundle = site.root().join(format!("{point}.bundle"));
        let out = bundle.display().to_string();
        drop(site.master.ctl(&["host", "bundle", "oslo", "--out", &out]).ok());
        agent.bundle = bundle;
        dies(&mut agent, point);
        agent.start();
        is_in(&site, &agent);
        agent.stop();
        drop(agent.enroll().ok());
    }
}

#[test]
fn a_master_killed_in_the_middle_of_a_renewal_knows_its_host_again() {
    let mut site = Site::new();
    for point in [
        "store-before-append",
        "store-after-append",
        "store-after-index",
        "master-before-reply",
        "master-after-promotion",
    ] {
        let mut agent = site.machine(point);
        site.master.stop();
        site.master.start_to_die_at(Some(point));
        let said = agent.enroll();
        assert_eq!(said.code, Some(1), "{point}: {}{}", said.stdout, said.stderr);
        site.master.until_dead(SOON);
        site.master.start();
        drop(agent.enroll().ok());
        agent.start();
        is_in(&site, &agent);
        agent.stop();
    }
}

/// Has an agent's enrolment kill itself at a point.
fn dies(agent: &mut Agent, point: &str) {
    agent.dies_at(Some(point));
    let said = agent.enroll();
    assert_eq!(said.code, None, "{point}: {}{}", said.stdout, said.stderr);
    agent.dies_at(None);
}

/// Waits until the host of an agent is online, under the one pin that the agent has.
fn is_in(site: &Site, agent: &Agent) {
    let host = site.master.until_host(&agent.name, "online", SOON);
    let pins = host["pins"].as_array().unwrap();
    let mut open = pins
        .iter()
        .filter(|pin| !["spent", "bundle"].contains(&pin["kind"].as_str().unwrap()));
    let pin = open.next().unwrap();
    assert!(open.next().is_none(), "{host}");
    let filed = picket_pki::Fingerprint::of(&agent.identity().certificate).to_string();
    assert_eq!(
        (pin["kind"].as_str(), pin["fingerprint"].as_str()),
        (Some("current"), Some(&*filed))
    );
}
