//! Daemons that end at a named point, in the middle of what they do: nobody is locked out by it.
//!
//! The armed point is one for the process, so that these stories have a program of their own and take turns.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod enrolment;
mod renewal;
mod rotation;

use std::collections::BTreeSet;

use picket_failpoint::{Point, Side};
use picket_tests::{Host, Site, crash::Crash};
use tokio::sync::Mutex;

/// Held by the story whose turn it is.
static TURN: Mutex<()> = Mutex::const_new(());

/// A point is passed fewer times than this on the way of any of these stories.
const MOST: u32 = 64;

/// Has every point of a side end a daemon, at the first time it is passed, at the second, and so on until it is passed no
/// more. Returns the points that were never passed, and how many crashes there were.
async fn at_every_point(side: Side, story: impl AsyncFn(Point, u32) -> bool) -> (BTreeSet<Point>, u32) {
    let (mut passed_by, mut crashes) = (BTreeSet::new(), 0);
    for point in Point::ALL.iter().copied().filter(|point| point.side() == side) {
        let mut before = 0;
        while story(point, before).await {
            before += 1;
            assert!(before < MOST, "{} is passed again and again", point.name());
        }
        if before == 0 {
            passed_by.insert(point);
        }
        crashes += before;
    }
    (passed_by, crashes)
}

/// Runs a story at every point of a side, on a site of its own.
async fn ends_everywhere(side: Side, story: impl AsyncFn(&Site, Point, u32) -> bool) -> BTreeSet<Point> {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    let (passed_by, crashes) =
        at_every_point(side, async |point, before| story(&site, point, before).await).await;
    assert!(crashes >= 20, "{crashes}");
    passed_by
}

/// Has the side that a point is of crash there.
fn crashes_at(site: &Site, host: &Host, point: Point, before: u32) -> Crash {
    match point.side() {
        Side::Agent => host.crashes_at(point, before),
        Side::Master => site.crashes_at(point, before),
    }
}

/// Everything is as it was at the crash: the master runs, and the agent does when it is not the one that died.
async fn after(site: &Site, host: &Host, point: Point, crash: Crash) {
    match point.side() {
        Side::Agent => host.after(crash).await,
        Side::Master => site.after(crash).await,
    }
}

/// The fingerprint of the certificate that the agent's own files say it works under.
fn filed(host: &Host) -> Option<String> {
    let store = picket_agent::identity::IdentityStore::open(host.state().join("identity")).unwrap();
    let current = store.load().unwrap().current?;
    Some(picket_pki::Fingerprint::of(&current.certificate).to_string())
}

/// What is wrong with how a host stands after a renewal, if anything: it has one pin that opens something, the one of the
/// certificate that its agent has filed, and nothing is left half done.
async fn unsettled(site: &Site, host: &Host) -> Option<String> {
    // While the master is down it cannot be asked.
    let pins = match site.try_host(&host.name).await {
        Ok(shown) => shown.pins,
        Err(status) => return Some(status.message().to_owned()),
    };
    let mut open = pins.iter().filter(|pin| pin.kind != "spent");
    let (Some(pinned), None) = (open.next(), open.next()) else {
        return Some(format!("the pins are {pins:?}"));
    };
    if pinned.kind != "current" {
        return Some(format!("the one pin is {pinned:?}"));
    }
    for left in ["next.json", "key.json"] {
        if host.state().join("identity").join(left).exists() {
            return Some(format!("{left} is left"));
        }
    }
    let filed = filed(host);
    (filed.as_ref() != Some(&pinned.fingerprint))
        .then(|| format!("the agent has {filed:?}, the master {}", pinned.fingerprint))
}
