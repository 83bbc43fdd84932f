//! A governed network while its controller, its agent or the master is killed half way: what was decided comes about, and
//! nothing that was acknowledged is lost.

use std::time::Duration;

use picket_tests::process::{Agent, FakeZeroTier, Flow, Proxy, Site, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(40);
/// An agent that lost its master tries again within 20 s, and a controller is compared every 30 s.
const SETTLED: Duration = Duration::from_secs(90);

const ONE: &str = "1000000001";
const TWO: &str = "1000000002";
const THREE: &str = "1000000003";

#[test]
fn what_was_decided_holds_when_the_controllers_service_is_killed_between_a_change_and_its_confirmation() {
    let mut town = Town::new();
    town.admit(ONE);
    town.until_settled(&[(ONE, true)]);

    town.zerotier.mute();
    town.admit(TWO);
    town.until_on_disk(TWO, true);
    town.zerotier.kill();
    // Decided while nobody can be told.
    town.revoke(ONE);
    town.admit(THREE);
    town.zerotier.start_again();
    town.until_settled(&[(ONE, false), (TWO, true), (THREE, true)]);

    town.zerotier.mute();
    town.revoke(TWO);
    town.until_on_disk(TWO, false);
    town.zerotier.kill();
    town.zerotier.start_again();
    town.until_settled(&[(ONE, false), (TWO, false), (THREE, true)]);
}

#[test]
fn what_was_decided_holds_when_the_agent_is_killed_between_a_change_and_its_confirmation() {
    let mut town = Town::new();
    town.admit(ONE);
    town.until_settled(&[(ONE, true)]);

    town.zerotier.mute();
    town.revoke(ONE);
    town.admit(TWO);
    town.until_on_disk(ONE, false);
    town.oslo.kill();
    town.zerotier.speak();
    // Decided otherwise while no agent runs that knew of the change.
    town.revoke(TWO);
    town.admit(ONE);
    town.admit(THREE);
    town.oslo.start();
    town.until_settled(&[(ONE, true), (TWO, false), (THREE, true)]);
}

#[test]
fn a_grant_and_a_revocation_that_a_killed_master_acknowledged_and_did_not_push_hold_after_its_restart() {
    let mut town = Town::new();
    town.admit(ONE);
    town.until_settled(&[(ONE, true)]);

    // Nothing reaches the agent from here on, by no connection.
    town.wire.silence(Flow::ToAgent);
    town.wire.silence(Flow::ToMaster);
    town.wire.cut();
    town.revoke(ONE);
    town.admit(TWO);
    town.site.master.kill();
    assert_eq!(
        (town.zerotier.lets_on(ONE), town.zerotier.lets_on(TWO)),
        (Some(true), None),
        "neither was pushed"
    );
    town.site.master.start();
    town.wire.cut();
    town.wire.heal();
    town.until_settled(&[(ONE, false), (TWO, true)]);
}

/// A master, a host whose controller runs a governed network, and the wire between them.
struct Town {
    site: Site,
    wire: Proxy,
    zerotier: FakeZeroTier,
    oslo: Agent,
}

impl Town {
    fn new() -> Self {
        let site = Site::new();
        let zerotier = FakeZeroTier::start(site.root(), 1);
        let wire = Proxy::new(site.at(), site.master.agents);
        let mut oslo = site
            .machine("oslo")
            .dialling(wire.address)
            .with_zerotier(&zerotier.homes[0]);
        drop(oslo.enroll().ok());
        oslo.start();
        drop(site.master.until_host("oslo", "online", SOON));
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
        Self {
            site,
            wire,
            zerotier,
            oslo,
        }
    }

    /// Has the master acknowledge that a node is let on.
    fn admit(&self, node: &str) {
        self.decide(&["member", "admit", node, "--no-wait"]);
    }

    /// Has the master acknowledge that a node's permission is taken away.
    fn revoke(&self, node: &str) {
        self.decide(&["member", "revoke", node, "--no-wait"]);
    }

    fn decide(&self, verb: &[&str]) {
        let which = ["--network", &self.zerotier.network, "--reason", "a test"];
        drop(self.site.master.ctl(&[verb, &which].concat()).ok());
    }

    /// Waits until the controller has done so, whether anybody knows or not.
    fn until_on_disk(&self, node: &str, on: bool) {
        until(&format!("{node} on the controller's disk"), SOON, || {
            match self.zerotier.lets_on(node) {
                seen if seen == Some(on) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        });
    }

    /// Waits until the master decides so of each node, the controller has it, and the master has seen that.
    fn until_settled(&self, wanted: &[(&str, bool)]) {
        until("the controller to be as was decided", SETTLED, || {
            let network = self.zerotier.network.as_str();
            let listed = self.site.master.json(&["member", "list", "--network", network])?;
            let settled = wanted.iter().all(|(node, on)| {
                let member = find(&listed, node);
                // Whoever was not let on yet has no record to be put off in.
                let seen: &[_] = if *on {
                    &["authorized"]
                } else {
                    &["deauthorized", "absent"]
                };
                self.zerotier.lets_on(node).unwrap_or_default() == *on
                    && (member["decision"] == "authorized") == *on
                    && seen.iter().any(|word| member["observed"] == *word)
            });
            if settled { Ok(()) } else { Err(listed.to_string()) }
        });
    }
}

fn find<'a>(listed: &'a Value, node: &str) -> &'a Value {
    let mut members = listed.as_array().into_iter().flatten();
    members
        .find(|member| member["node_id"] == node)
        .unwrap_or(&Value::Null)
}
