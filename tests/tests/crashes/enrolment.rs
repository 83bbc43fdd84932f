//! Enrolments that are ended anywhere, on either side: doing it again finishes them.

use std::sync::Arc;

use picket_agent::status::State;
use picket_failpoint::{Point, Side};
use picket_tests::{Host, HostState::Online, Site, crash::Mortal};
use tokio::task::JoinSet;

use super::{TURN, after, crashes_at, ends_everywhere, unsettled};

/// An enrolment that ends at a point. Returns whether it did, after all is well again.
async fn ends_at(site: &Site, point: Point, before: u32) -> bool {
    let name = format!("{}-{before}", point.name());
    let oslo = Arc::new(site.machine(&name).without_zerotier());
    let bundle = site.bundle(&name).await;
    let crash = crashes_at(site, &oslo, point, before);
    let mut enrolment = JoinSet::new();
    let (machine, carried) = (Arc::clone(&oslo), bundle.clone());
    enrolment.spawn(async move { machine.enroll(&carried).await });
    let ended = enrolment.join_next().await.unwrap();
    if !crash.happened() {
        ended.unwrap().unwrap();
        return false;
    }
    after(site, &oslo, point, crash).await;
    let again = oslo.enroll(&bundle).await;
    if let Err(error) = again {
        panic!("{name}: {}", picket_agent::sentence(&error));
    }
    is_in(site, &oslo).await;
    true
}

async fn is_in(site: &Site, host: &Host) {
    host.start();
    site.until(&host.name, Online).await;
    host.until(State::Connected).await;
    assert_eq!(unsettled(site, host).await, None, "{}", host.name);
    host.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_enrolment_whose_agent_dies_at_any_point_is_finished_by_the_next() {
    let passed_by = ends_everywhere(Side::Agent, ends_at).await;
    // There is no identity before the first, which would be kept as the previous one.
    assert_eq!(passed_by, [Point::AgentAfterPrevious].into());
}

#[tokio::test(start_paused = true)]
async fn an_enrolment_whose_master_dies_at_any_point_is_finished_by_the_next() {
    assert_eq!(ends_everywhere(Side::Master, ends_at).await, [].into());
}

#[tokio::test(start_paused = true)]
async fn an_enrolment_that_is_dropped_wherever_it_waits_is_finished_by_the_next() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    for waits in 0.. {
        assert!(waits < 1000, "an enrolment does not end");
        let name = format!("oslo-{waits}");
        let oslo = site.machine(&name).without_zerotier();
        let bundle = site.bundle(&name).await;
        let ended = Mortal::new(oslo.enroll(&bundle), waits).await;
        if let Some(enrolled) = ended {
            enrolled.unwrap();
            assert!(waits >= 5, "{waits}");
            return;
        }
        oslo.unplug();
        oslo.plug_in();
        oslo.enroll(&bundle)
            .await
            .unwrap_or_else(|error| panic!("{waits}: {}", picket_agent::sentence(&error)));
        is_in(&site, &oslo).await;
    }
}
