//! Two machines under one identity: which of them goes on, and what the operator and the other one are told.

use std::time::Duration;

use picket_agent::status::State;
use picket_link::Connected;
use picket_proto::{
    beat::Digest,
    wire::agent::{
        DocumentKind, FetchRequest, LeaveReason, ReportRequest, SectionKind,
        agent_service_client::AgentServiceClient,
    },
};
use picket_tests::{
    Host,
    HostState::Online,
    Site,
    conversation::Conversation,
    stranger::{Door, Stranger},
};
use tokio::{task::JoinSet, time::Instant};

const HOUR: Duration = Duration::from_secs(3600);
/// The older session has this long for its answer to a ping.
const ANSWER: Duration = Duration::from_secs(3);
/// What an agent and its master need beside that, in simulated time: an agent writes its status once a second.
const MOMENT: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn a_machine_that_lost_power_takes_its_own_place_when_it_is_back() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    lose_power(&site, &oslo).await;
    let back = Instant::now();
    oslo.boot();
    site.until_metric("master_takeovers_total{why=\"rebooted\"}", 1)
        .await;
    assert!(back.elapsed() <= ANSWER + MOMENT, "{:?}", back.elapsed());
    oslo.until(State::Connected).await;
    site.until("oslo", Online).await;
    assert_eq!(site.events("session.").await, [], "nobody is alarmed");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_died_takes_its_own_place_without_delay() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    lose_power(&site, &oslo).await;
    let back = Instant::now();
    oslo.start();
    site.until_metric("master_takeovers_total{why=\"restarted\"}", 1)
        .await;
    assert!(back.elapsed() <= MOMENT, "{:?}", back.elapsed());
    oslo.until(State::Connected).await;
    assert_eq!(site.events("session.").await, []);
}

#[tokio::test(start_paused = true)]
async fn of_two_machines_that_are_alive_the_first_goes_on_and_the_other_waits_for_an_hour_without_a_flap() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let twin = site.machine("oslo").without_zerotier();
    oslo.clone_to(&twin);
    twin.start();
    let told = twin.until(State::Refused).await;
    assert!(
        told.contains("another machine has this host's identity") && told.contains("10.0.0.1:40000"),
        "{told}"
    );
    let condition = site.until_condition("oslo", "identity").await;
    assert!(condition.contains("10.0.0.2:40000"), "{condition}");
    let before = site.handshakes("agents", "accepted").await;
    site.wait(HOUR).await;
    let came = site.handshakes("agents", "accepted").await - before;
    assert!((5..=15).contains(&came), "{came} times in an hour");
    let told = site.events("session.").await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (told[0].kind.as_str(), told[0].subject.as_str()),
        ("session.quarantined", "oslo")
    );
    assert!(
        told[0].message.contains("10.0.0.1:40000") && told[0].message.contains("10.0.0.2:40000"),
        "{}",
        told[0].message
    );
    assert_eq!(site.metric("master_takeovers_total").await, 0);
    assert_eq!(site.events("host.late").await, []);
    let host = site.try_host("oslo").await.unwrap();
    assert_eq!(host.host.unwrap().address, "10.0.0.1:40000");
    oslo.until(State::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_waited_has_the_place_when_the_other_is_gone_and_the_condition_ends() {
    let site = Site::new().await;
    let (oslo, twin) = (site.enroll("oslo").await, site.machine("oslo"));
    oslo.clone_to(&twin);
    twin.start();
    twin.until(State::Refused).await;
    oslo.stop().await;
    site.wait(Duration::from_secs(330)).await;
    twin.until(State::Connected).await;
    site.until("oslo", Online).await;
    site.wait(Duration::from_secs(900)).await;
    let conditions = site.host("oslo").await.conditions;
    assert!(
        !conditions
            .iter()
            .any(|condition| condition.contains("another machine")),
        "{conditions:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_sent_away_is_told_nothing_and_counts_for_nothing() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.deploy(&picket_tests::Branch::default().decky("web", "oslo"))
        .await;
    let twin = Stranger::with_identity_of(&site, &oslo);
    let connected = twin.connect(Door::Agents).await.unwrap();
    let mut talk = Conversation::open_on(&connected, "another machine", true)
        .await
        .unwrap();
    let first_word = talk.welcomed().await.unwrap_err();
    assert_eq!(first_word.reason(), LeaveReason::Quarantined);
    assert!(first_word.retry_after.unwrap().seconds >= 300);
    let mut client = AgentServiceClient::new(connected.channel);
    let nothing = ReportRequest {
        kind: SectionKind::Deckies.into(),
        sha256: Digest::of(&[]).0.to_vec().into(),
        ..Default::default()
    };
    let refused = client.report(tokio_stream::once(nothing)).await.unwrap_err();
    assert!(
        refused.message().contains("session first"),
        "{}",
        refused.message()
    );
    let wanted = FetchRequest {
        kind: DocumentKind::Shard.into(),
        sha256: Digest::of(&[]).0.to_vec().into(),
        ..Default::default()
    };
    let refused = client.fetch(wanted).await.unwrap_err();
    assert!(
        refused.message().contains("session first"),
        "{}",
        refused.message()
    );
    site.until_deckies(&["web"], picket_tests::DeckyState::Running)
        .await;
    site.until("oslo", Online).await;
}

#[tokio::test(start_paused = true)]
async fn an_older_agent_that_knows_no_pings_is_replaced_as_before_and_sent_away_in_its_own_words() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let (mut late, _line) = arrive(&site, &oslo, "another machine", false).await;
    assert_eq!(
        late.welcomed().await.unwrap_err().reason(),
        LeaveReason::Replaced,
        "the word for it that it knows"
    );
    oslo.stop().await;
    let (mut old, _line) = arrive(&site, &oslo, "an old agent", false).await;
    old.welcomed().await.unwrap();
    let (mut newer, _line) = arrive(&site, &oslo, "another machine", true).await;
    newer.welcomed().await.unwrap();
    assert_eq!(old.last_word().await.reason(), LeaveReason::Replaced);
    assert_eq!(site.metric("master_takeovers_total{why=\"unasked\"}").await, 1);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_clones_cost_one_place_one_event_and_four_connections() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let mut clones = Vec::new();
    for _ in 0..200 {
        let twin = site.machine("oslo").without_zerotier();
        oslo.clone_to(&twin);
        twin.start();
        clones.push(twin);
    }
    for twin in &clones {
        twin.until(State::Refused).await;
    }
    let before = site.handshakes("agents", "accepted").await;
    for _ in 0..33 {
        site.wait(Duration::from_secs(20)).await;
        let open = site.metric("master_connections{listener=\"agents\"}").await;
        assert!(open <= 4, "{open} connections");
        assert_eq!(site.metric("master_sessions").await, 1);
    }
    let came = site.handshakes("agents", "accepted").await - before;
    assert!(came <= 200 * 3, "{came} connections in eleven minutes");
    assert_eq!(site.events("session.").await.len(), 1);
    assert_eq!(site.metric("master_takeovers_total").await, 0);
    assert_eq!(site.events("host.late").await, []);
    let condition = site.until_condition("oslo", "identity").await;
    assert!(condition.contains("16 or more other machines"), "{condition}");
    oslo.until(State::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn two_agents_on_one_machine_take_over_three_times_and_are_then_told_apart() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    oslo.stop().await;
    let mut sessions = JoinSet::new();
    let mut lines = Vec::new();
    for came in 0..=3_u64 {
        let takeovers = came.saturating_sub(1);
        assert_eq!(site.metric("master_takeovers_total").await, takeovers);
        let (mut talk, line) = arrive(&site, &oslo, "one machine", true).await;
        talk.welcomed().await.unwrap();
        sessions.spawn(talk.answer_pings());
        lines.push(line);
        site.wait(Duration::from_secs(10)).await;
    }
    let alarm = site.until_event("session.takeovers").await;
    assert_eq!(alarm.subject, "oslo");
    site.until_condition("oslo", "identity: its sessions take each other's place")
        .await;
    let (mut fourth, _line) = arrive(&site, &oslo, "one machine", true).await;
    assert_eq!(
        fourth.welcomed().await.unwrap_err().reason(),
        LeaveReason::Quarantined
    );
    assert_eq!(site.metric("master_takeovers_total").await, 3);
    assert_eq!(sessions.len(), 4);
    let told = [(); 3].map(|()| sessions.try_join_next().unwrap().unwrap().reason());
    assert_eq!(told, [LeaveReason::Replaced; 3]);
    assert_eq!(site.events("session.takeovers").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_copied_certificate_cannot_be_renewed_past_the_host_that_works_under_it() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let pins = site.pins("oslo").await;
    let thief = Stranger::with_identity_of(&site, &oslo);
    let connected = thief.connect(Door::Agents).await.unwrap();
    let refused = thief.renew(&connected).await.err().unwrap();
    assert!(
        refused.message().contains("10.0.0.1:40000"),
        "{}",
        refused.message()
    );
    let alarm = site.until_event("renewal.refused").await;
    assert!(alarm.message.contains("--cut"), "{}", alarm.message);
    assert_eq!(
        site.pins("oslo").await,
        pins,
        "nothing is pending and nothing is spent"
    );
    // Nor does a session help, which it would need to have its renewal taken.
    let mut talk = Conversation::open_on(&connected, "a thief's machine", true)
        .await
        .unwrap();
    assert_eq!(
        talk.welcomed().await.unwrap_err().reason(),
        LeaveReason::Quarantined
    );
    oslo.until(State::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_stolen_certificate_keeps_the_real_host_out_no_longer_than_an_operator_needs_to_cut_it() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let thief = Stranger::with_identity_of(&site, &oslo);
    // The worst a thief can do: he comes while the host is off, renews, and works under a key that only he has.
    oslo.power_off().await;
    site.until_gone().await;
    let connected = thief.connect(Door::Agents).await.unwrap();
    let mut first = Conversation::open_on(&connected, "a thief's machine", true)
        .await
        .unwrap();
    first.welcomed().await.unwrap();
    let his = thief.renew(&connected).await.unwrap();
    drop((first, connected));
    site.until_gone().await;
    let (mut talk, _line) = {
        let connected = his.connect(Door::Agents).await.unwrap();
        (
            Conversation::open_on(&connected, "a thief's machine", true)
                .await
                .unwrap(),
            connected,
        )
    };
    talk.welcomed().await.unwrap();
    oslo.boot();
    let told = oslo.until(State::Refused).await;
    assert!(told.contains("has been replaced"), "{told}");
    let noticed = site.until_event("handshake.refused").await;
    assert!(noticed.message.contains("spent"), "{}", noticed.message);

    let cut = Instant::now();
    let bundle = site.another_bundle("oslo", true).await;
    site.until_gone().await;
    oslo.stop().await;
    oslo.enroll(&bundle).await.unwrap();
    oslo.start();
    oslo.until(State::Connected).await;
    assert!(cut.elapsed() <= 3 * MOMENT, "{:?}", cut.elapsed());
    site.wait(HOUR).await;
    his.refused_at(Door::Agents).await;
    thief.refused_at(Door::Agents).await;
    oslo.until(State::Connected).await;
    assert_eq!(site.metric("master_sessions").await, 1);
}

/// The machine is gone at once, and nobody tells the master.
async fn lose_power(site: &Site, host: &Host) {
    host.line.lose_packets();
    host.power_off().await;
    // What is left of its connections is gone before the line carries anything again.
    site.wait(MOMENT).await;
    host.plug_in();
}

/// A session under a host's identity, on a machine of its own, by an agent that answers pings or is too old to.
async fn arrive(site: &Site, host: &Host, machine: &str, answers: bool) -> (Conversation, Connected) {
    let connected = Stranger::with_identity_of(site, host)
        .connect(Door::Agents)
        .await
        .expect("the door opens");
    let talk = Conversation::open_on(&connected, machine, answers).await;
    (talk.expect("the master talks"), connected)
}
