//! Beats that a sound agent does not send. The master says what is wrong with them, and goes on serving.

use std::time::Duration;

use bytes::Bytes;
use picket_clock::Clock;
use picket_proto::{
    to_wire_time,
    wire::agent::{self as wire, session_response::Message},
};
use picket_tests::process::{Caller, Site, until};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_beat_over_64_kib_ends_its_session_with_a_sentence_and_no_other() {
    let site = Site::new();
    let oslo = site.online("oslo");
    let bergen = Caller::from(site.enrolled("bergen").identity());
    let mut session = bergen.session(site.master.agents);
    // One decky that is longer than a whole beat may be.
    let deckies = wire::DeckiesStatus {
        service: wire::ServiceState::Answers.into(),
        deckies: vec![wire::DeckyStatus {
            problem: "x".repeat(70 * 1024),
            ..decky("web-01")
        }],
        ..wire::DeckiesStatus::default()
    };
    session.say(beat(1, &deckies));
    let leave = loop {
        match session.hear() {
            Some(Message::Leave(leave)) => break leave,
            Some(Message::Document(_)) => {}
            other => panic!("wanted a word of farewell, and it was {other:?}"),
        }
    };
    assert_eq!(leave.reason(), wire::LeaveReason::Protocol);
    insta::assert_snapshot!(leave.message, @"a message is over 64 KiB; long sections travel by Report");
    assert!(leave.retry_after.is_some(), "it may come back");

    // The other host is served as if nothing had been.
    let before = site.master.metrics().of("master_beats_total");
    until("beats of the other host", SOON, || {
        let beats = site.master.metrics().of("master_beats_total");
        if beats > before {
            Ok(())
        } else {
            Err(beats.to_string())
        }
    });
    drop(oslo.until_standing("connected", SOON));
    assert_eq!(site.master.host("oslo").unwrap()["state"], "online");
    // And so is the one that broke the limit, as soon as it keeps it.
    let mut session = bergen.session(site.master.agents);
    session.say(beat(
        1,
        &wire::DeckiesStatus {
            service: wire::ServiceState::Answers.into(),
            ..Default::default()
        },
    ));
    until_acknowledged(&mut session);
}

#[test]
fn a_decky_entry_that_makes_no_sense_is_skipped_named_and_counted_and_the_rest_counts() {
    let site = Site::new();
    let oslo = Caller::from(site.enrolled("oslo").identity());
    let mut session = oslo.session(site.master.agents);
    let before = site.master.metrics().of("master_skipped_entries_total");
    let deckies = wire::DeckiesStatus {
        service: wire::ServiceState::Answers.into(),
        deckies: vec![
            decky("web-01"),
            wire::DeckyStatus {
                address: "10.77.0.300".into(),
                ..decky("nas-01")
            },
            wire::DeckyStatus {
                name: "No Name!".into(),
                ..decky("x")
            },
            wire::DeckyStatus {
                address: "10.77.0.21".into(),
                ..decky("printer-01")
            },
        ],
        ..wire::DeckiesStatus::default()
    };
    session.say(beat(1, &deckies));
    until_acknowledged(&mut session);

    assert_eq!(
        site.master.metrics().of("master_skipped_entries_total") - before,
        2.0,
        "counted"
    );
    let event = site.master.until_event("beat.skipped", "oslo", SOON);
    insta::assert_snapshot!(
        event["message"].as_str().unwrap(),
        @"deckies: 2 entries make no sense and were skipped: nas-01 (address: invalid IPv4 address syntax), No Name! (name: `No Name!` is no name: use 1 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit)"
    );
    let host = site.master.host("oslo").unwrap();
    assert_eq!(
        (&host["deckies"], &host["deckies_running"]),
        (&2.into(), &2.into()),
        "the rest counts: {host}"
    );
    let conditions = host["conditions"].to_string();
    assert!(
        conditions.contains("nas-01") && conditions.contains("No Name!"),
        "named: {conditions}"
    );
}

/// A session goes on after a beat it was acknowledged.
#[track_caller]
fn until_acknowledged(session: &mut picket_tests::process::RawSession) {
    loop {
        match session.hear() {
            Some(Message::BeatAck(ack)) => {
                assert_eq!((ack.sequence, ack.unknown), (1, Vec::new()));
                return;
            }
            Some(Message::Document(_)) => {}
            other => panic!("wanted an acknowledgement, and it was {other:?}"),
        }
    }
}

fn beat(sequence: u64, deckies: &wire::DeckiesStatus) -> wire::Beat {
    let body = Bytes::from(deckies.encode_to_vec());
    wire::Beat {
        sequence,
        time: Some(to_wire_time(Clock::system().now())),
        deckies: Some(wire::Section {
            sha256: Bytes::copy_from_slice(&Sha256::digest(&body)),
            body: Some(body),
        }),
        ..wire::Beat::default()
    }
}

fn decky(name: &str) -> wire::DeckyStatus {
    wire::DeckyStatus {
        name: name.into(),
        deployment: "street".into(),
        state: wire::DeckyState::Running.into(),
        address: "10.77.0.20".into(),
        container_id: "0123456789ab".into(),
        ..wire::DeckyStatus::default()
    }
}
