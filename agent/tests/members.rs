//! Stories of a controller that is made to follow the rules, with and without a master.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail at any line; its tasks end with its runtime"
)]

mod site;

use std::time::Duration;

use picket_proto::{
    document::OutcomeStatus,
    repair::Why,
    rules::{Governed, Presence, Rule},
};
use picket_zerotier::{
    NetworkId,
    controller::{Controller as _, MemberChange, NewNetwork},
    settings::NetworkSettings,
};
use serde_json::json;
use site::{
    controlled::{Mood, Story, until_then},
    until,
};
use tokio::time;

#[tokio::test(start_paused = true)]
async fn without_a_master_an_activation_ends_on_time_whatever_is_done_to_the_clock_here() {
    for jump in [-7200, 7200] {
        let mut story = Story::new().await;
        let guest = story.let_on(1)[0];
        let end = story.in_seconds(600);
        story.rule(guest, until_then(end));
        story.done().await;
        story.worker.wire.cut();
        story.worker.clock.jump(jump);
        time::sleep(Duration::from_secs(590)).await;
        assert!(story.site.clock.now() < end && story.is_on(guest).await);
        story.until_on(guest, false).await;
        let late = story.site.clock.now().duration_since(end).as_secs();
        assert!((-2..=5).contains(&late), "{late} s late");
        // By a clock that is hours off no certificate is good.
        story.worker.clock.jump(-jump);
        story.worker.wire.mend();
        let told = story.repair(|repair| repair.node == Some(guest)).await;
        assert_eq!((told.why, told.after.as_str()), (Why::Ended, "deauthorized"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_activation_that_is_overdue_when_the_agent_starts_again_ends_at_once_after_a_reboot_too() {
    for reboot in [false, true] {
        let mut story = Story::new().await;
        let guest = story.let_on(1)[0];
        let end = story.in_seconds(60);
        story.rule(guest, until_then(end));
        story.done().await;
        story.worker.wire.cut();
        story.worker.kill().await;
        time::sleep(Duration::from_secs(600)).await;
        assert!(story.is_on(guest).await);
        if reboot {
            story.worker.clock.reboot();
        }
        story.worker.start();
        let started = time::Instant::now();
        story.until_on(guest, false).await;
        assert!(
            started.elapsed() <= Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_changed_is_changed_back_and_told_with_before_and_after_across_a_restart_too() {
    let mut story = Story::new().await;
    let guest = story.let_on(1)[0];
    let rule = Rule {
        name: "oslo".into(),
        addresses: ["10.147.20.5".parse().unwrap()].into(),
        ..Rule::plain(true)
    };
    story.rule(guest, rule);
    story.done().await;
    let decided = story.repair(|repair| repair.why == Why::Decided).await;
    assert_eq!(decided.after, "authorized, name=oslo, addresses=10.147.20.5");

    story.worker.kill().await;
    let change = MemberChange {
        authorized: Some(false),
        name: Some("bern".into()),
        addresses: Some(vec!["10.147.20.9".into()]),
    };
    story
        .controller
        .change_member(story.network, guest, &change)
        .await
        .unwrap();
    story.worker.start();
    let drift = story
        .repair(|repair| repair.why == Why::Drift && repair.after.starts_with("addresses"))
        .await;
    assert_eq!(
        (drift.before.as_str(), drift.after.as_str()),
        ("addresses=10.147.20.9", "addresses=10.147.20.5")
    );
    assert!(drift.sequence > decided.sequence);
    let member = story.controller.member(story.network, guest).await.unwrap();
    assert!(
        member.authorized && member.name.as_deref() == Some("oslo"),
        "{member:?}"
    );

    // While the agent runs, too, and the beat that shows it comes at once.
    story
        .controller
        .authorize(story.network, guest, false)
        .await
        .unwrap();
    story.until_on(guest, true).await;
    let repaired = time::Instant::now();
    story.repair(|repair| repair.sequence > drift.sequence).await;
    assert!(
        repaired.elapsed() <= Duration::from_secs(3),
        "{:?}",
        repaired.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_network_turned_upside_down_waits_for_an_operator_and_a_kill_on_it_does_not() {
    let mut story = Story::new().await;
    let nodes = story.let_on(10);
    story.done().await;
    for node in &nodes[..6] {
        story
            .controller
            .authorize(story.network, *node, false)
            .await
            .unwrap();
    }
    let network = story.network;
    story.until_shown(network, |seen| seen.held_back == 6).await;
    assert!(!story.is_on(nodes[0]).await);
    let killed = Rule {
        urgent: true,
        ..Rule::plain(false)
    };
    story.rule(nodes[9], killed);
    story.done().await;
    assert!(!story.is_on(nodes[9]).await && !story.is_on(nodes[0]).await);
    story.governed().resumed += 1;
    story.done().await;
    assert!(story.is_on(nodes[0]).await && story.is_on(nodes[5]).await);
    story.until_shown(network, |seen| seen.held_back == 0).await;
}

#[tokio::test(start_paused = true)]
async fn nonsense_about_one_network_freezes_that_one_and_no_other() {
    let mut story = Story::new().await;
    let other = story
        .controller
        .create_network(&NewNetwork::default())
        .await
        .unwrap()
        .id;
    let guest = story.let_on(1)[0];
    story.want.networks.insert(other, Governed::default());
    story.want.rules.insert((other, guest), Rule::plain(true));
    story.done().await;
    let network = story.network;
    story.until_shown(network, |seen| seen.members.len() == 1).await;

    story.wire.be(Mood {
        nonsense: Some(format!("/network/{network}/member")),
        ..Mood::default()
    });
    for id in [network, other] {
        story.controller.authorize(id, guest, false).await.unwrap();
    }
    story
        .until_shown(network, |seen| {
            seen.frozen.contains("makes no sense") && seen.members.len() == 1
        })
        .await;
    until("the other network's repair", async || {
        let member = story.controller.member(other, guest).await.unwrap();
        member.authorized.then_some(())
    })
    .await;
    story.until_outcome(OutcomeStatus::Blocked).await;
    assert!(!story.is_on(guest).await);

    story.wire.be(Mood::default());
    story.until_outcome(OutcomeStatus::Done).await;
    assert!(story.is_on(guest).await);
    story.until_shown(network, |seen| seen.frozen.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_dies_between_a_change_and_its_confirmation_is_looked_at_again_and_not_accused() {
    let mut story = Story::new().await;
    let guest = story.let_on(1)[0];
    story.wire.be(Mood {
        loses_answers: true,
        ..Mood::default()
    });
    story.send().await;
    story.until_outcome(OutcomeStatus::Blocked).await;
    assert!(story.is_on(guest).await, "it was done");
    story.site.lab.restart(story.worker.node);
    story.wire.be(Mood::default());
    story.until_outcome(OutcomeStatus::Done).await;
    let repairs = story
        .site
        .master
        .controller()
        .map(|controller| controller.repairs);
    assert!(
        repairs
            .into_iter()
            .flatten()
            .all(|repair| repair.why == Why::Decided)
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_cut_off_right_after_the_controller_started_is_cut_off_on_the_wire_too() {
    let mut story = Story::new().await;
    let (one, other) = (story.guest().await, story.guest().await);
    story.rule(one, Rule::plain(true));
    story.rule(other, Rule::plain(true));
    story.done().await;
    let network = story.network;
    let lab = story.site.lab.clone();
    until("the two to talk", async || {
        lab.connected(network, one, other).then_some(())
    })
    .await;
    lab.stop(story.worker.node);
    time::sleep(Duration::from_secs(3)).await;
    lab.start(story.worker.node);
    story.rule(
        one,
        Rule {
            urgent: true,
            ..Rule::plain(false)
        },
    );
    story.done().await;
    assert!(lab.connected(network, one, other), "nobody was told of it");
    until("the two to be silent", async || {
        (!lab.connected(network, one, other)).then_some(())
    })
    .await;
    story
        .repair(|repair| repair.why == Why::Repeated && repair.node == Some(one))
        .await;
    story.until_on(one, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_record_was_deleted_and_that_asks_again_is_let_on_again_and_a_removed_one_is_not() {
    let mut story = Story::new().await;
    let (friend, removed) = (story.guest().await, story.guest().await);
    story.rule(friend, Rule::plain(true));
    story.rule(removed, Rule::plain(false));
    story.done().await;
    for node in [friend, removed] {
        story.controller.delete_member(story.network, node).await.unwrap();
    }
    story
        .repair(|repair| repair.why == Why::Drift && repair.node == Some(friend))
        .await;
    assert!(story.is_on(friend).await);
    // The removed one asks until somebody lets it on.
    until("its record", async || {
        story.controller.member(story.network, removed).await.ok()
    })
    .await;
    story
        .controller
        .authorize(story.network, removed, true)
        .await
        .unwrap();
    story.until_on(removed, false).await;
}

#[tokio::test(start_paused = true)]
async fn settings_are_repaired_and_what_is_not_managed_stays_as_somebody_made_it() {
    let mut story = Story::new().await;
    story.governed().settings.mtu = Some(1400);
    story.done().await;
    let by_hand = NetworkSettings {
        mtu: Some(2000),
        rules: Some(vec![json!({"type": "ACTION_ACCEPT"})]),
        ..NetworkSettings::default()
    };
    story
        .controller
        .put_network(story.network, &by_hand)
        .await
        .unwrap();
    let repair = story
        .repair(|repair| repair.why == Why::Drift && repair.node.is_none())
        .await;
    assert_eq!(
        (repair.before.as_str(), repair.after.as_str()),
        ("mtu=2000", "mtu=1400")
    );
    let network = story.controller.network(story.network).await.unwrap();
    assert_eq!(network.mtu, 1400);
    assert_eq!(network.rules, by_hand.rules.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_network_is_made_where_it_is_missing_and_again_when_it_is_lost_and_deleted_when_told() {
    let mut story = Story::new().await;
    let made = NetworkId::at(story.worker.node, 0x00ab_cdef);
    let guest = story.let_on(1)[0];
    let settings = NetworkSettings {
        name: Some("office".into()),
        ..NetworkSettings::default()
    };
    let governed = Governed {
        presence: Presence::Made,
        settings,
        ..Governed::default()
    };
    story.want.networks.insert(made, governed);
    story.want.rules.insert((made, guest), Rule::plain(true));
    story.done().await;
    assert_eq!(story.controller.network(made).await.unwrap().name, "office");
    assert!(story.controller.member(made, guest).await.unwrap().authorized);

    story.controller.delete_network(made).await.unwrap();
    story
        .repair(|repair| repair.network == made && repair.why == Why::Drift)
        .await;
    until("its member", async || {
        story.controller.member(made, guest).await.ok()
    })
    .await;

    story.want.networks.get_mut(&made).unwrap().presence = Presence::Deleted;
    story.done().await;
    assert!(story.controller.network(made).await.is_err());
    assert!(story.controller.network(story.network).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_same_document_twice_changes_nothing() {
    let mut story = Story::new().await;
    let nodes = story.let_on(3);
    story.done().await;
    let before = story.controller.members(story.network).await.unwrap();
    story.done().await;
    story.done().await;
    assert_eq!(story.controller.members(story.network).await.unwrap(), before);
    assert!(story.is_on(nodes[0]).await);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_the_service_wrote_back_over_a_change_is_seen_within_seconds() {
    let mut story = Story::new().await;
    let guest = story.let_on(1)[0];
    story.done().await;
    story.rule(
        guest,
        Rule {
            urgent: true,
            ..Rule::plain(false)
        },
    );
    story.done().await;
    let written_back = time::Instant::now();
    let record = story.controller.authorize(story.network, guest, true).await;
    assert!(record.unwrap().authorized);
    story.until_on(guest, false).await;
    assert!(
        written_back.elapsed() <= Duration::from_secs(5),
        "{:?}",
        written_back.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_activation_lasts_as_long_as_it_was_granted_after_the_masters_clock_was_set() {
    for set in [-7200, 7200] {
        let mut story = Story::new().await;
        let guest = story.let_on(1)[0];
        story.rule(guest, Rule::plain(false));
        story.done().await;
        story.site.clock.jump(set);
        // With the acknowledgement of a beat the agent hears of it.
        let beats = story.site.master.log().beats.len();
        until("another beat", async || {
            (story.site.master.log().beats.len() > beats + 1).then_some(())
        })
        .await;
        let end = story.in_seconds(120);
        story.rule(guest, until_then(end));
        story.done().await;
        assert!(story.is_on(guest).await, "{set}");
        story.worker.wire.cut();
        story.until_on(guest, false).await;
        let late = story.site.clock.now().duration_since(end).as_secs();
        assert!((-2..=5).contains(&late), "{late} s late");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_stopped_while_it_cuts_a_member_off_again_leaves_nobody_on() {
    let mut story = Story::new().await;
    let guest = story.guest().await;
    story.rule(guest, Rule::plain(true));
    story.done().await;
    story.site.lab.stop(story.worker.node);
    time::sleep(Duration::from_secs(3)).await;
    story.site.lab.start(story.worker.node);
    story.rule(guest, Rule::plain(false));
    story.done().await;
    story.until_on(guest, true).await;
    story.worker.stop().await.unwrap();
    assert!(!story.is_on(guest).await, "it was let on to be cut off once more");
}
