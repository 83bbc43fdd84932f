//! Sessions and who is there.

use picket_tests::{GRACE, HostState::{Late, Offline, Online}, Site};

#[tokio::test(start_paused = true)]
async fn a_machine_enrolls_renews_at_once_and_is_online() {
    let site = Site::new().await;
    site.enroll("oslo").await;
    let oslo = site.try_host("oslo").await.unwrap();
    let pins: Vec<_> = oslo.pins.iter().map(|pin| pin.kind.as_str()).collect();
    assert_eq!(pins, ["current", "spent"], "the bundle's pin is spent and the agent's own key has the only other one");
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
