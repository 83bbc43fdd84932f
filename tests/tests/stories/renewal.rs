//! Renewals against a master that knows less than it did, and replies that are lost on the way.

use std::time::Duration;

use picket_agent::status::State;
use picket_pki::Key;
use picket_proto::wire::agent::{RenewRequest, agent_service_client::AgentServiceClient};
use picket_tests::{
    HostState::Online,
    Site,
    site::until,
    stranger::{Door, Stranger},
};
use tokio::time::Instant;

/// More than half of a week and a tenth: by a clock that is so far ahead every certificate is due.
const AHEAD: i64 = 102 * 3600;

/// A machine that has renewed once since the master's snapshot, and the pin it had before.
async fn renewed_since(site: &Site, name: &str) -> (picket_tests::Host, std::path::PathBuf, String) {
    let mut oslo = site.bring_in(site.machine(name).without_zerotier()).await;
    let before = site.current_pin(name).await;
    let snapshot = site.snapshot().await;
    oslo.stop().await;
    oslo.clock = site.clock.skewed(AHEAD);
    oslo.start();
    until_other(site, name, &[&before]).await;
    oslo.until(State::Connected).await;
    oslo.stop().await;
    oslo.clock = site.clock.clone();
    (oslo, snapshot, before)
}

/// Waits until a host has one pin that opens something, which is none of these.
async fn until_other(site: &Site, name: &str, known: &[&str]) -> String {
    until(&format!("{name} to have another certificate"), async || {
        let pins = site
            .try_host(name)
            .await
            .map_err(|status| status.to_string())?
            .pins;
        let open: Vec<_> = pins.iter().filter(|pin| pin.kind != "spent").collect();
        match open[..] {
            [pin] if pin.kind == "current" && !known.contains(&pin.fingerprint.as_str()) => {
                Ok(pin.fingerprint.clone())
            }
            _ => Err(format!("{pins:?}")),
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_master_restored_from_before_a_renewal_strands_nobody() {
    let site = Site::new().await;
    let (oslo, snapshot, before) = renewed_since(&site, "oslo").await;
    let lost = site.current_pin("oslo").await;
    site.stop_master().await;
    site.lose_journal_and_restore(&snapshot);

    // Frozen it changes nothing, and lets the agent in under what it knows.
    site.start_master().await;
    assert_eq!(site.current_pin("oslo").await, before);
    oslo.start();
    site.until("oslo", Online).await;
    oslo.until(State::Connected).await;
    site.wait(Duration::from_secs(600)).await;
    assert_eq!(site.current_pin("oslo").await, before);

    site.stop_master().await;
    site.accept_restored();
    site.start_master().await;
    let after = until_other(&site, "oslo", &[&before, &lost]).await;
    site.until("oslo", Online).await;
    oslo.until(State::Connected).await;
    oslo.restart().await;
    oslo.until(State::Connected).await;
    assert_eq!(site.current_pin("oslo").await, after);
    assert_eq!(site.events("renewal.refused").await, []);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_reply_is_lost_is_done_again_within_minutes_with_the_same_key() {
    let site = Site::new().await;
    let mut oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let before = site.current_pin("oslo").await;
    oslo.stop().await;
    oslo.clock = site.clock.skewed(AHEAD);
    let line = oslo.line.clone();
    let cut = site.at_commit(1, "host/", move || line.cut());
    oslo.start();
    cut.await.unwrap();
    let pending = site.try_host("oslo").await.unwrap().pins;
    let pending = pending.iter().find(|pin| pin.kind == "pending").unwrap();
    oslo.plug_in();
    assert_eq!(
        until_other(&site, "oslo", &[&before]).await,
        pending.fingerprint,
        "the same key got the same certificate"
    );
    assert_eq!(site.pins("oslo").await, ["current", "spent", "spent"]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_refused_is_tried_again_every_minute_over_the_same_session() {
    let site = Site::new().await;
    let mut oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let before = site.current_pin("oslo").await;
    oslo.stop().await;
    site.until_gone().await;
    // Somebody else with this host's key has just had a certificate made: another one is refused for a minute.
    let other = Stranger::with_identity_of(&site, &oslo)
        .connect(Door::Agents)
        .await
        .unwrap();
    let csr = Key::generate().unwrap().csr().unwrap().into();
    let mut client = AgentServiceClient::new(other.channel.clone());
    client.renew(RenewRequest { csr }).await.unwrap();
    oslo.clock = site.clock.skewed(AHEAD);
    let began = Instant::now();
    oslo.start();
    site.until_metric("master_sessions", 1).await;
    let sessions = site.handshakes("agents", "accepted").await;
    until_other(&site, "oslo", &[&before]).await;
    let took = began.elapsed().as_secs();
    assert!((50..=140).contains(&took), "after {took} s");
    assert_eq!(
        site.handshakes("agents", "accepted").await,
        sessions + 1,
        "the one under the new certificate"
    );
}
