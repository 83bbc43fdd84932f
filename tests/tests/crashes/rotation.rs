//! An engine that goes away in the middle of a rotation, when another CA is on record and has signed nothing.

use std::time::Duration;

use picket_agent::status::State;
use picket_failpoint::Point;
use picket_tests::{HostState::Online, Site, Transit};

use super::TURN;

#[tokio::test(start_paused = true)]
async fn a_ca_that_is_in_force_on_record_alone_keeps_nobody_out_and_signs_once_its_engine_does() {
    let _turn = TURN.lock().await;
    let transit = Transit::new();
    let site = Site::with_ca_key(&transit.lines, "").await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let first = site.active_ca().await;
    transit.fake.rotate_key("picket-ca");
    site.prepare_ca().await;
    site.until_lacking(&[]).await;
    // That it has it is kept a second later.
    site.wait(Duration::from_secs(2)).await;

    // It dies when the other CA is on record and has signed nothing, not even the master's own certificate.
    let crash = site.crashes_at(Point::StoreAfterIndex, 0);
    site.activate_ca(false).await.unwrap_err();
    assert!(crash.happened());
    transit.fake.seal();
    site.after(crash).await;
    assert_ne!(site.active_ca().await, first);
    site.until_event("ca.unusable").await;
    // What it shows is of the CA before, which everybody trusts still.
    site.until("oslo", Online).await;
    oslo.restart().await;
    oslo.until(State::Connected).await;

    transit.fake.unseal();
    site.until_under_earlier(&[]).await;
    site.retire_ca(false).await.unwrap();
    oslo.restart().await;
    oslo.until(State::Connected).await;
    site.until("oslo", Online).await;
}
