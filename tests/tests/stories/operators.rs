//! Operators: roles that hold at once, certificates that follow each other, and nobody locked out.

use std::time::Duration;

use jiff::SignedDuration;
use picket_link::Connected;
use picket_master::{local, signer::CaKey};
use picket_pki::{Bundle, Key, Refusal};
use picket_proto::wire::admin::{
    GetSelfRequest, ListHostsRequest, NoteHostRequest, OperatorState, RenewOperatorRequest,
    RenewOperatorResponse, WatchEventsRequest, event_service_client::EventServiceClient,
    host_service_client::HostServiceClient, operator_service_client::OperatorServiceClient,
};
use picket_tests::{
    OperatorRole::{Admin, Operator, Requester, Viewer},
    Site,
    site::{change_role, revoke},
    stranger::{Door, Stranger},
};
use tokio::time;
use tonic::{Code, Status};

#[tokio::test(start_paused = true)]
async fn a_change_of_role_holds_at_once_for_calls_and_for_streams_that_are_open() {
    let site = Site::new().await;
    site.bundle("oslo").await;
    let ana = enter(&site, &site.operator("ana", Viewer).await).await;
    assert_eq!(note(&ana).await.unwrap_err().code(), Code::PermissionDenied);
    site.change_role("ana", Operator).await;
    note(&ana).await.unwrap();
    let asked = WatchEventsRequest::default();
    let watch = EventServiceClient::new(ana.channel.clone())
        .watch_events(asked)
        .await;
    let mut watch = watch.unwrap().into_inner();
    site.change_role("ana", Requester).await;
    let end = time::timeout(Duration::from_secs(1), async {
        loop {
            if let Err(status) = watch.message().await {
                return status;
            }
        }
    });
    let end = end.await.expect("the stream ends within a second");
    assert_eq!(end.code(), Code::PermissionDenied, "{end:?}");
    assert_eq!(list(&ana).await.unwrap_err().code(), Code::PermissionDenied);
    whoami(&ana).await.expect("the connection itself goes on");
}

#[tokio::test(start_paused = true)]
async fn a_revoked_operator_is_cut_off_within_a_second_and_told_so_at_the_door() {
    let site = Site::new().await;
    let bundle = site.operator("ana", Admin).await;
    let ana = enter(&site, &bundle).await;
    list(&ana).await.unwrap();
    site.revoke_operator("ana", "").await.unwrap();
    assert_eq!(list(&ana).await.unwrap_err().code(), Code::Unauthenticated);
    site.wait(Duration::from_secs(1)).await;
    assert_eq!(
        list(&ana).await.unwrap_err().code(),
        Code::Unavailable,
        "the connection is gone"
    );
    let stranger = Stranger::with_bundle(&site, &bundle);
    assert_eq!(stranger.refused_at(Door::Admin).await, Refusal::Revoked);
    let again = enter(&site, &site.operator("ana", Viewer).await).await;
    list(&again).await.unwrap();
    assert_eq!(
        stranger.refused_at(Door::Admin).await,
        Refusal::Revoked,
        "what was revoked stays so"
    );
}

#[tokio::test(start_paused = true)]
async fn each_device_has_a_certificate_of_its_own_and_one_can_be_revoked_without_the_others() {
    let site = Site::new().await;
    let laptop = site.operator("ana", Viewer).await;
    let phone = site.try_operator("ana", Viewer, "phone").await.unwrap();
    let twice = site.try_operator("ana", Viewer, "phone").await.unwrap_err();
    assert_eq!(twice.code(), Code::AlreadyExists, "{}", twice.message());
    let other = site.try_operator("ana", Admin, "tablet").await.unwrap_err();
    assert_eq!(
        other.code(),
        Code::FailedPrecondition,
        "adding a device is no way to another role"
    );
    site.revoke_operator("ana", "laptop").await.unwrap();
    assert_eq!(
        Stranger::with_bundle(&site, &laptop)
            .refused_at(Door::Admin)
            .await,
        Refusal::Revoked
    );
    list(&enter(&site, &phone).await).await.unwrap();
    let found = site.shown_operator("ana").await.devices;
    let states: Vec<_> = found
        .iter()
        .map(|device| (device.name.as_str(), device.state()))
        .collect();
    assert_eq!(
        states,
        [
            ("laptop", OperatorState::Revoked),
            ("phone", OperatorState::Active)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_operators_certificate_that_has_ended_is_refused_as_expired_and_the_device_is_added_anew() {
    let site = Site::new().await;
    let bundle = site
        .short_lived_operator("ana", SignedDuration::from_mins(10))
        .await;
    let ana = enter(&site, &bundle).await;
    let asked = WatchEventsRequest::default();
    let watch = EventServiceClient::new(ana.channel.clone())
        .watch_events(asked)
        .await;
    let mut watch = watch.unwrap().into_inner();
    let end = time::timeout(Duration::from_secs(660), async {
        loop {
            if let Err(status) = watch.message().await {
                return status;
            }
        }
    });
    assert_eq!(
        end.await.expect("a stream ends with its certificate").code(),
        Code::Unauthenticated
    );
    site.wait(Duration::from_secs(60)).await;
    let stranger = Stranger::with_bundle(&site, &bundle);
    assert_eq!(stranger.refused_at(Door::Admin).await, Refusal::Expired);
    assert_eq!(
        site.shown_operator("ana").await.devices[0].state(),
        OperatorState::Expired
    );
    let renewed = site.try_operator("ana", Viewer, "laptop").await.unwrap();
    list(&enter(&site, &renewed).await).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_admin_locks_itself_out_and_two_who_revoke_each_other_leave_one() {
    let site = Site::new().await;
    for refused in [
        site.revoke_operator("admin", "").await.map(drop),
        site.revoke_operator("admin", "local").await.map(drop),
        site.ask_to_change("admin", Viewer).await,
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
    }
    let ana = enter(&site, &site.operator("ana", Admin).await).await;
    let ben = enter(&site, &site.operator("ben", Admin).await).await;
    let (by_ana, by_ben) = tokio::join!(
        revoke(ana.channel.clone(), "ben", ""),
        change_role(ben.channel.clone(), "ana", Viewer)
    );
    assert!(by_ana.is_ok() != by_ben.is_ok(), "{by_ana:?} {by_ben:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewed_certificate_ends_the_one_before_it_with_its_first_call_and_a_lost_reply_is_harmless() {
    let site = Site::new().await;
    let text = site.operator("ana", Requester).await;
    let ana = enter(&site, &text).await;
    let key = Key::generate().unwrap();
    let first = renew(&ana, &key).await.unwrap();
    let again = renew(&ana, &key).await.unwrap();
    assert_eq!(first, again, "the same key gets the same certificate");
    let hasty = renew(&ana, &Key::generate().unwrap()).await.unwrap_err();
    assert_eq!(hasty.code(), Code::FailedPrecondition, "{}", hasty.message());
    let bundle = Bundle::parse(&text).unwrap();
    let travelled = renew(&ana, &bundle.key).await.unwrap_err();
    assert_eq!(
        travelled.code(),
        Code::PermissionDenied,
        "{}",
        travelled.message()
    );
    let renewed = Bundle {
        certificate: first.certificate.to_vec(),
        key,
        ..bundle
    };
    let renewed = renewed.encode().unwrap().as_bytes().to_vec();
    whoami(&ana)
        .await
        .expect("the old one works until the new one is used");
    let ana = enter(&site, &renewed).await;
    assert_eq!(whoami(&ana).await.unwrap(), "laptop");
    assert_eq!(
        Stranger::with_bundle(&site, &text).refused_at(Door::Admin).await,
        Refusal::Spent
    );
    enter(&site, &renewed).await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_uses_each_new_certificate_at_once_gets_a_few_and_then_one_a_minute() {
    let site = Site::new().await;
    let mut bundle = Bundle::parse(&site.operator("ana", Viewer).await).unwrap();
    let mut got = 0;
    let refused = loop {
        let ana = enter(&site, bundle.encode().unwrap().as_bytes()).await;
        whoami(&ana).await.unwrap();
        let key = Key::generate().unwrap();
        match renew(&ana, &key).await {
            Ok(renewed) => {
                bundle.certificate = renewed.certificate.to_vec();
                bundle.key = key;
                got += 1;
            }
            Err(status) => break status,
        }
    };
    assert_eq!((got, refused.code()), (8, Code::FailedPrecondition));
    assert!(
        refused.message().contains("many certificates"),
        "{}",
        refused.message()
    );
    let phone = site.try_operator("ana", Viewer, "phone").await.unwrap();
    let phone = enter(&site, &phone).await;
    let other = renew(&phone, &Key::generate().unwrap()).await;
    other.expect("no device waits for another");
    site.wait(Duration::from_secs(61)).await;
    let ana = enter(&site, bundle.encode().unwrap().as_bytes()).await;
    renew(&ana, &Key::generate().unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_masters_own_machine_lets_an_admin_in_when_every_admin_is_revoked() {
    let site = Site::new().await;
    let ana = enter(&site, &site.operator("ana", Admin).await).await;
    revoke(ana.channel.clone(), "admin", "").await.unwrap();
    let admin = Stranger::with_admin_bundle(&site);
    assert_eq!(admin.refused_at(Door::Admin).await, Refusal::Revoked);
    site.stop_master().await;
    let (dir, out) = (site.data_dir(), site.data_dir().join("again.bundle"));
    let device = local::first_device();
    let made = local::admin_bundle(&dir, "admin", &device, &out, &CaKey::Plain, &site.clock);
    made.await.unwrap();
    site.start_master().await;
    let back = enter(&site, &std::fs::read(&out).unwrap()).await;
    revoke(back.channel.clone(), "ana", "")
        .await
        .expect("it is an admin");
    assert_eq!(
        admin.refused_at(Door::Admin).await,
        Refusal::Revoked,
        "what was revoked stays so"
    );
}

/// Connects as the operator whose bundle this is.
async fn enter(site: &Site, bundle: &[u8]) -> Connected {
    let door = Stranger::with_bundle(site, bundle).connect(Door::Admin).await;
    door.unwrap_or_else(|error| panic!("{error}"))
}

async fn list(as_: &Connected) -> Result<(), Status> {
    let asked = ListHostsRequest::default();
    HostServiceClient::new(as_.channel.clone())
        .list_hosts(asked)
        .await
        .map(drop)
}

async fn note(as_: &Connected) -> Result<(), Status> {
    let asked = NoteHostRequest {
        name: "oslo".to_owned(),
        note: "looked at".to_owned(),
    };
    HostServiceClient::new(as_.channel.clone())
        .note_host(asked)
        .await
        .map(drop)
}

/// The device the master takes the caller for.
async fn whoami(as_: &Connected) -> Result<String, Status> {
    let answer = OperatorServiceClient::new(as_.channel.clone())
        .get_self(GetSelfRequest {})
        .await?;
    Ok(answer.into_inner().device)
}

async fn renew(as_: &Connected, key: &Key) -> Result<RenewOperatorResponse, Status> {
    let csr = key.csr().expect("a key makes a request").into();
    let answer = OperatorServiceClient::new(as_.channel.clone())
        .renew_operator(RenewOperatorRequest { csr })
        .await?;
    Ok(answer.into_inner())
}
