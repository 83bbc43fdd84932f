//! Sessions, and who is there.

use std::time::Duration;

use picket_agent::status::State;
use picket_tests::{
    GRACE,
    HostState::{Late, Offline, Online},
    Site,
};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_machine_enrolls_renews_at_once_and_is_online() {
    let site = Site::new().await;
    site.enroll("oslo").await;
    assert_eq!(
        site.pins("oslo").await,
        ["current", "spent"],
        "the bundle's is spent, the agent's own is the one left"
    );
    assert_eq!(site.hosts().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_goes_late_and_offline_and_comes_back() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    oslo.unplug();
    site.until("oslo", Late).await;
    site.wait(GRACE).await;
    site.until("oslo", Offline).await;
    oslo.plug_in();
    site.until("oslo", Online).await;
}

#[tokio::test(start_paused = true)]
async fn a_master_that_restarts_accuses_nobody_and_everybody_is_back() {
    let site = Site::new().await;
    site.enroll("oslo").await;
    site.enroll("bern").await;
    site.restart_master().await;
    site.until("oslo", Online).await;
    site.until("bern", Online).await;
    site.wait(2 * GRACE).await;
    assert_eq!(site.events("host.late").await, []);
    assert_eq!(site.events("host.offline").await, []);
}

#[tokio::test(start_paused = true)]
async fn a_master_accuses_nobody_in_its_first_hundred_seconds() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.restart_master().await;
    site.until("oslo", Online).await;
    oslo.unplug();
    site.wait(Duration::from_secs(70)).await;
    assert_eq!(site.host("oslo").await.state(), Online);
    oslo.plug_in();
    site.wait(GRACE).await;
    assert_eq!(site.events("host.late").await, []);
}

#[tokio::test(start_paused = true)]
async fn a_master_stops_within_ten_seconds_with_sessions_open_and_their_agents_come_back() {
    let site = Site::new().await;
    let hosts = [
        site.enroll("oslo").await,
        site.enroll("bern").await,
        site.enroll("rome").await,
    ];
    let took = site.stop_master().await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    for host in &hosts {
        host.until(State::Disconnected).await;
    }
    site.start_master().await;
    for host in &hosts {
        site.until(&host.name, Online).await;
        host.until(State::Connected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_stops_says_goodbye_and_alarms_nobody() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    oslo.stop().await;
    site.until("oslo", Offline).await;
    site.until_event("host.stopped").await;
    site.wait(2 * GRACE).await;
    // A beat may be missed: 33 s since the last, the pause, and up to 20 s until the agent dials again.
    assert_eq!(site.events("host.offline").await, vec![]);
}

#[tokio::test(start_paused = true)]
async fn what_did_not_change_travels_as_a_digest_while_every_beat_is_acknowledged() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.wait(GRACE).await;
    let (sections, beats) = (
        site.metric("master_sections_total").await,
        site.metric("master_beats_total").await,
    );
    assert!(sections >= 2, "ZeroTier's and the host's own were told once");
    site.wait(Duration::from_secs(600)).await;
    let beaten = site.metric("master_beats_total").await - beats;
    assert!(
        (18..=23).contains(&beaten),
        "{beaten} beats in 10 minutes of one every 30 s"
    );
    assert_eq!(site.metric("master_sections_total").await, sections);
    let acknowledged = oslo.status().unwrap().master.last_ack.unwrap();
    assert!(site.clock.now().duration_since(acknowledged).as_secs() <= 35);
}

#[tokio::test(start_paused = true)]
async fn a_master_that_restarted_asks_for_what_it_does_not_have() {
    let site = Site::new().await;
    site.enroll("oslo").await;
    site.restart_master().await;
    site.until("oslo", Online).await;
    let host = site.try_host("oslo").await.unwrap();
    assert_eq!((host.hostname.as_str(), host.kernel.as_str()), ("oslo", "6.12"));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_loses_every_packet_is_noticed_at_both_ends_and_healed() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    oslo.line.lose_packets();
    let lost = Instant::now();
    oslo.until(State::Disconnected).await;
    assert!(
        lost.elapsed() <= Duration::from_secs(26),
        "the agent noticed after {:?}",
        lost.elapsed()
    );
    site.until_gone().await;
    assert!(
        lost.elapsed() <= Duration::from_secs(95),
        "the master noticed after {:?}",
        lost.elapsed()
    );
    oslo.plug_in();
    site.until("oslo", Online).await;
    oslo.until(State::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_shorter_than_the_grace_leaves_nobody_offline() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    for _ in 0..5 {
        oslo.unplug();
        site.wait(Duration::from_secs(10)).await;
        oslo.plug_in();
        site.wait(Duration::from_secs(60)).await;
    }
    // A beat may be missed: 33 s since the last, the pause, and up to 20 s until the agent dials again.
    assert_eq!(site.events("host.offline").await, vec![]);
}

#[tokio::test(start_paused = true)]
async fn many_hosts_falling_silent_together_are_one_alert() {
    let site = Site::new().await;
    let mut hosts = Vec::new();
    for name in ["oslo", "bern", "rome", "riga", "cork", "lyon"] {
        hosts.push(site.bring_in(site.machine(name).without_zerotier()).await);
    }
    hosts[0].unplug();
    site.until("oslo", Offline).await;
    assert_eq!(
        site.events("hosts.mass-silence").await,
        [],
        "one of six is a host's matter"
    );
    site.wait(GRACE).await;
    hosts.iter().for_each(picket_tests::Host::unplug);
    site.until("lyon", Offline).await;
    site.wait(3 * GRACE).await;
    assert_eq!(site.events("hosts.mass-silence").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_clock_ten_minutes_ahead_is_a_condition_of_its_host() {
    let site = Site::new().await;
    site.bring_in(site.machine("oslo").skewed(600)).await;
    let condition = site.until_condition("oslo", "clock").await;
    assert!(condition.contains("60"), "{condition}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_clock_is_ten_minutes_behind_is_told_to_set_it() {
    let site = Site::new().await;
    let oslo = site.machine("oslo").skewed(-600);
    let refused = oslo.enroll(&site.bundle("oslo").await).await.unwrap_err();
    let sentence = picket_agent::sentence(&refused);
    assert!(sentence.contains("clock"), "{sentence}");
    assert!(!oslo.state().exists(), "nothing is written");
}

#[tokio::test(start_paused = true)]
async fn a_change_on_a_machine_is_seen_within_three_seconds_and_not_with_the_next_beat() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.network_on(&oslo).await;
    site.wait(Duration::from_secs(60)).await;
    bern.join_by_hand(network).await;
    site.wait(Duration::from_secs(3)).await;
    let networks = site.try_host("bern").await.unwrap().networks;
    assert_eq!(networks.len(), 1);
    assert!(!networks[0].managed, "somebody joined it by hand");
}
