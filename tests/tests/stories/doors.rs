//! What each door serves, and what comes of those who break the rules behind it.

use std::time::Duration;

use picket_link::Connected;
use picket_proto::wire::agent::{DeckiesStatus, DeckyState, DeckyStatus, LeaveReason};
use picket_tests::{
    Host,
    HostState::Online,
    Site,
    conversation::Conversation,
    stranger::{Door, Stranger},
};
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

#[tokio::test(start_paused = true)]
async fn both_doors_tell_their_health_and_only_the_operators_describes_itself() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let host = Stranger::with_identity_of(&site, &oslo)
        .connect(Door::Agents)
        .await
        .unwrap();
    let operator = Stranger::with_admin_bundle(&site)
        .connect(Door::Admin)
        .await
        .unwrap();
    for channel in [&host.channel, &operator.channel] {
        let health = HealthClient::new(channel.clone())
            .check(HealthCheckRequest::default())
            .await
            .unwrap();
        assert_eq!(health.into_inner().status(), ServingStatus::Serving);
    }
    assert!(reflect(&operator.channel).await.is_ok());
    assert_eq!(
        reflect(&host.channel).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test(start_paused = true)]
async fn the_metrics_page_counts_hosts_and_deckies_by_state() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.bundle("bern").await;
    assert_eq!(site.metric("master_host_state{state=\"online\"}").await, 1);
    assert_eq!(site.metric("master_host_state{state=\"never-seen\"}").await, 1);
    site.deploy(&picket_tests::Branch::default().decky("web", &oslo.name))
        .await;
    site.until_metric("master_decky_state{state=\"running\"}", 1)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_bundles_certificate_may_renew_and_nothing_else() {
    let site = Site::new().await;
    let carrier = Stranger::with_bundle(&site, &site.bundle("oslo").await);
    let connected = carrier.connect(Door::Agents).await.unwrap();
    let refused = Conversation::open(&connected).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied, "{}", refused.message());
}

#[tokio::test(start_paused = true)]
async fn a_beat_over_64_kib_ends_the_session_with_the_limit_in_words_and_no_other_session() {
    let site = Site::new().await;
    let (oslo, _bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let (mut talk, _connected) = converse(&site, &oslo).await;
    let deckies = (0..2000)
        .map(|number| decky(&format!("decky-{number}-{}", "x".repeat(30))))
        .collect();
    talk.beat(
        1,
        &DeckiesStatus {
            service: 1,
            deckies,
            ..Default::default()
        },
    )
    .await;
    let leave = talk.last_word().await;
    assert_eq!(leave.reason(), LeaveReason::Protocol);
    assert!(leave.message.contains("64 KiB"), "{}", leave.message);
    site.until("bern", Online).await;
}

#[tokio::test(start_paused = true)]
async fn a_decky_that_makes_no_sense_is_skipped_named_and_counted_and_the_rest_of_the_beat_counts() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let (mut talk, _connected) = converse(&site, &oslo).await;
    let deckies = vec![decky("web"), decky("no name at all!"), decky("nas")];
    talk.beat(
        1,
        &DeckiesStatus {
            service: 1,
            deckies,
            ..Default::default()
        },
    )
    .await;
    assert_eq!(talk.acknowledged().await, 1);
    assert_eq!(site.metric("master_skipped_entries_total").await, 1);
    let event = site.until_event("beat.skipped").await;
    assert_eq!(event.subject, "oslo");
    let host = site.host("oslo").await;
    assert_eq!((host.deckies, host.deckies_running), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_banned_peer_that_stays_on_the_line_is_cut_off_within_a_second_of_its_ban() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let (mut talk, connected) = converse(&site, &oslo).await;
    let mut health = HealthClient::new(connected.channel);
    health.check(HealthCheckRequest::default()).await.unwrap();
    site.ban("oslo", "seen scanning").await;
    let leave = talk.last_word().await;
    assert_eq!(leave.reason(), LeaveReason::Banned);
    site.wait(Duration::from_secs(1)).await;
    let gone = health.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(
        gone.code(),
        Code::Unavailable,
        "the connection is gone, and not only the permission: {gone:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hosts_connection_without_a_call_is_closed_after_a_minute_and_an_operators_after_five() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let host = Stranger::with_identity_of(&site, &oslo)
        .connect(Door::Agents)
        .await;
    let operator = Stranger::with_admin_bundle(&site).connect(Door::Admin).await;
    let (host, operator) = (host.unwrap(), operator.unwrap());
    let healthy = async |channel: &Channel| {
        let asked = HealthCheckRequest::default();
        HealthClient::new(channel.clone()).check(asked).await.is_ok()
    };
    site.wait(Duration::from_secs(50)).await;
    assert!(healthy(&host.channel).await, "a minute begins with its call");
    site.wait(Duration::from_secs(50)).await;
    assert!(healthy(&host.channel).await && healthy(&operator.channel).await);
    // Both ping every 15 s, which is no call.
    site.wait(Duration::from_secs(70)).await;
    assert!(!healthy(&host.channel).await);
    assert!(healthy(&operator.channel).await);
    let mut watch = site.watch().await;
    site.wait(Duration::from_secs(310)).await;
    assert!(!healthy(&operator.channel).await);
    assert!(site.metric("master_idle_closed_total").await >= 2);
    // A session is a call, and so is a watch.
    oslo.stop().await;
    assert_eq!(watch.until("host.stopped").await.subject, "oslo");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_let_in_and_never_finishes_its_first_words_is_closed_too() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let stranger = Stranger::with_identity_of(&site, &oslo);
    let began = tokio::time::Instant::now();
    stranger.mumbles().await;
    let closed = began.elapsed();
    assert!(
        (Duration::from_secs(55)..=Duration::from_secs(70)).contains(&closed),
        "{closed:?}"
    );
    site.until("oslo", Online).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_watches_hears_of_a_host_as_it_happens() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let mut watch = site.watch().await;
    oslo.stop().await;
    assert_eq!(watch.until("host.stopped").await.subject, "oslo");
}

/// A session under a machine's identity, in place of its agent's.
async fn converse(site: &Site, host: &Host) -> (Conversation, Connected) {
    host.stop().await;
    let connected = Stranger::with_identity_of(site, host)
        .connect(Door::Agents)
        .await
        .expect("the door opens");
    let talk = Conversation::open(&connected).await.expect("the master talks");
    (talk, connected)
}

fn decky(name: &str) -> DeckyStatus {
    DeckyStatus {
        name: name.to_owned(),
        deployment: "branch".to_owned(),
        state: DeckyState::Running.into(),
        address: "10.77.1.20".to_owned(),
        container_id: "ab".repeat(32),
        ..Default::default()
    }
}

async fn reflect(channel: &Channel) -> Result<(), Status> {
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = tokio_stream::once(asked);
    let mut answers = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(asked)
        .await?
        .into_inner();
    answers.message().await.map(drop)
}
