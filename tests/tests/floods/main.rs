//! Floods at a running master's listeners, over real sockets: whatever one address or one peer sends, an honest agent's
//! beat and an operator's call get through meanwhile, and nothing grows without a bound.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod frames;
mod town;

use std::time::Duration;

use picket_proto::wire::agent::LeaveReason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use frames::{Frame, Kind, PREFACE, headers};
use town::{Town, resident};

/// Half of a listener's places for handshakes: the share of one address.
const SHARE: u64 = 256;
const PLACES: u64 = 512;
/// More than this a flood must not cost, attacker included: both are in this process.
const ROOM: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_with_hundreds_of_silent_connections_keeps_nobody_out_of_either_listener() {
    let town = Town::new().await;
    let oslo = town.enroll("oslo").await;
    for (listener, address) in [("agents", town.agents), ("admin", town.admin)] {
        // An operators' listener has fewer places: 128, of which one address has half.
        let share = if listener == "agents" { SHARE } else { 64 };
        let mut held = Vec::new();
        // The second is where the agent and the operator of this story dial from as well.
        for (from, displaced_by_then) in [(2, 100), (1, 200)] {
            for _ in 0..share + 100 {
                held.push(town.dial_from(from, address).await);
            }
            let displaced =
                format!("master_handshakes_total{{listener=\"{listener}\",outcome=\"displaced\"}}");
            town.until_metric(&displaced, displaced_by_then).await;
            town.is_well(&oslo).await;
        }
        let crowd = town
            .metric(&format!("master_crowd{{listener=\"{listener}\"}}"))
            .await;
        assert!(crowd <= 2 * share, "{crowd} handshakes of two addresses");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_drip_from_many_addresses_make_room_for_whoever_has_none() {
    let town = Town::new().await;
    let oslo = town.enroll("oslo").await;
    let mut held = Vec::new();
    for from in 2..8 {
        for _ in 0..PLACES / 5 {
            let mut stream = town.dial_from(from, town.agents).await;
            // The beginning of a ClientHello of 512 bytes that never comes.
            drop(stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await);
            held.push(stream);
        }
    }
    town.until_metric("master_crowd{listener=\"agents\"}", PLACES - 10)
        .await;
    town.is_well(&oslo).await;
    assert!(town.metric("master_crowd{listener=\"agents\"}").await <= PLACES);
    let displaced = "master_handshakes_total{listener=\"agents\",outcome=\"displaced\"}";
    assert!(town.metric(displaced).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_says_it_has_four_gigabytes_is_refused_before_room_is_made_for_it() {
    let town = Town::new().await;
    let (oslo, bern) = (town.enroll("oslo").await, town.enroll("bern").await);
    let before = resident();
    for path in [
        "/picket.agent.v1.AgentService/Session",
        "/picket.agent.v1.AgentService/Report",
        "/grpc.health.v1.Health/Check",
    ] {
        let mut line = town.speak_as(&bern).await;
        line.write_all(PREFACE).await.unwrap();
        // As many calls as a connection may have, and each announces as much.
        for call in 0..16 {
            let stream = 2 * call + 1;
            let announced = [&[0, 0xff, 0xff, 0xff, 0xff][..], &[0; 1000]].concat();
            line.write_all(&Frame(Kind::Headers, 4, stream, &headers(path)).bytes())
                .await
                .unwrap();
            line.write_all(&Frame(Kind::Data, 0, stream, &announced).bytes())
                .await
                .unwrap();
        }
        let mut heard = vec![0; 64];
        assert!(line.read(&mut heard).await.unwrap() > 0, "it is answered");
        town.is_well(&oslo).await;
    }
    assert!(resident() < before + ROOM, "{} bytes more", resident() - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_never_end_end_the_connection() {
    let town = Town::new().await;
    let (oslo, bern) = (town.enroll("oslo").await, town.enroll("bern").await);
    let before = resident();
    let mut flood = Frame(Kind::Headers, 0, 1, &headers("/")).bytes();
    let more = frames::literal("x-more", &"x".repeat(100)).repeat(9);
    flood.extend(Frame(Kind::Continuation, 0, 1, &more).bytes().repeat(100));
    town.is_cut_off(&bern, &flood, 200).await;
    town.is_well(&oslo).await;
    assert!(resident() < before + ROOM, "{} bytes more", resident() - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_opened_and_taken_back_without_end_end_the_connection() {
    let town = Town::new().await;
    let (oslo, bern) = (town.enroll("oslo").await, town.enroll("bern").await);
    let before = resident();
    let flood: Vec<u8> = (0..20_000)
        .flat_map(|call| {
            let stream = 2 * call + 1;
            let open = Frame(
                Kind::Headers,
                4,
                stream,
                &headers("/picket.agent.v1.AgentService/Session"),
            );
            [open.bytes(), Frame(Kind::Reset, 0, stream, &[0, 0, 0, 8]).bytes()].concat()
        })
        .collect();
    town.is_cut_off(&bern, &flood, 1).await;
    town.is_well(&oslo).await;
    assert!(resident() < before + ROOM, "{} bytes more", resident() - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_longer_than_may_be_ends_the_connection_before_it_is_read() {
    let town = Town::new().await;
    let (oslo, bern) = (town.enroll("oslo").await, town.enroll("bern").await);
    // Sixteen megabytes of settings.
    let flood = [&[0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0][..], &[0; 4096]].concat();
    town.is_cut_off(&bern, &flood, 1).await;
    town.is_well(&oslo).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_identity_has_four_connections_however_many_it_opens() {
    let town = Town::new().await;
    let (oslo, bern) = (town.enroll("oslo").await, town.enroll("bern").await);
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut line = town.speak_as(&bern).await;
        line.write_all(&PREFACE[..20]).await.unwrap();
        held.push(line);
    }
    town.is_well(&oslo).await;
    town.until_metric_is_at_most("master_connections{listener=\"agents\"}", 5)
        .await;
    tokio::time::timeout(Duration::from_secs(30), async {
        let mut heard = Vec::new();
        // The oldest of them was closed; a reset is as good an end as any.
        drop(held[0].read_to_end(&mut heard).await);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clones_that_come_again_and_again_leave_no_memory_behind() {
    let town = Town::new().await;
    let oslo = town.enroll("oslo").await;
    let (mut talk, _line) = town.converse(&oslo, "the machine itself").await;
    talk.welcomed().await.unwrap();
    let honest = tokio_util::task::TaskTracker::new().spawn(talk.answer_pings());
    let mut after = Vec::new();
    for _ in 0..3 {
        for n in 0..200 {
            let (mut clone, _line) = town.converse(&oslo, &format!("clone {n}")).await;
            let told = clone.welcomed().await.unwrap_err();
            assert_eq!(told.reason(), LeaveReason::Quarantined);
        }
        after.push(resident());
    }
    assert_eq!(town.metric("master_quarantined_total").await, 600);
    assert_eq!(town.metric("master_sessions").await, 1);
    assert!(!honest.is_finished());
    let grown = after[2].saturating_sub(after[0]);
    assert!(
        grown < 8 << 20,
        "{grown} bytes more after twice as many again: {after:?}"
    );
}
