//! Renewals over an open session that are ended anywhere, on either side: the agent is in again, under one pin.

use std::time::Duration;

use picket_agent::status::State;
use picket_failpoint::{Point, Side};
use picket_tests::{HostState::Online, Site, site::until};

use super::{after, crashes_at, ends_everywhere, filed, unsettled};

/// More than half of a week and a tenth: by a clock that is so far ahead every certificate is due.
const AHEAD: i64 = 102 * 3600;

/// A renewal that ends at a point. Returns whether it did, after all is well again.
async fn ends_at(site: &Site, point: Point, before: u32) -> bool {
    let name = format!("{}-{before}", point.name());
    let mut oslo = site.machine(&name).without_zerotier();
    oslo.enroll(&site.bundle(&name).await).await.unwrap();
    let first = site.current_pin(&name).await;
    let crash = crashes_at(site, &oslo, point, before);
    oslo.clock = site.clock.skewed(AHEAD);
    oslo.start();
    let renewed = async || match unsettled(site, &oslo).await {
        None if filed(&oslo).as_ref() == Some(&first) => Err("the certificate is the first one".to_owned()),
        None => Ok(()),
        Some(why) => Err(why),
    };
    let ended = until(&format!("{name} or the end of the renewal"), async || {
        if crash.happened() {
            return Ok(true);
        }
        renewed().await.map(|()| false)
    })
    .await;
    // The last points lie behind what can be seen from outside.
    site.wait(Duration::from_secs(2)).await;
    if !ended && !crash.happened() {
        // A clean stop comes by some of the points as well.
        drop(crash);
        oslo.stop().await;
        return false;
    }
    after(site, &oslo, point, crash).await;
    if point.side() == Side::Agent {
        oslo.start();
    }
    until(&format!("{name} to be renewed"), renewed).await;
    site.until(&name, Online).await;
    oslo.until(State::Connected).await;
    assert_eq!(site.events("renewal.refused").await, [], "{name}");
    oslo.stop().await;
    true
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_agent_dies_at_any_point_ends_under_one_pin() {
    let passed_by = ends_everywhere(Side::Agent, ends_at).await;
    // No bundle is used up by a renewal.
    assert_eq!(
        passed_by,
        [Point::AgentBeforeSpent, Point::AgentAfterSpent].into()
    );
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_master_dies_at_any_point_ends_under_one_pin() {
    assert_eq!(ends_everywhere(Side::Master, ends_at).await, [].into());
}
