//! Networks as a whole: their settings, who is a member by rule, what is repaired and told, and their end.

use std::time::Duration;

use picket_proto::wire::{
    admin::{ListNetworksRequest, NetworkForm, network_service_client::NetworkServiceClient},
    agent::{NetworkSettings, UnknownMembers},
};
use picket_tests::{
    MemberDecision,
    MemberObservation::{Authorized, Deauthorized},
    NetworkMode, OperatorRole, Site, members_by_label, naming,
    stranger::{Door, Stranger},
};
use picket_zerotier::{
    NetworkId, NodeId, address,
    controller::{Controller as _, NewNetwork, V4Range},
    node::Settings,
    settings,
};
use tokio::time::Instant;
use tonic::Code;

const MINUTE: Duration = Duration::from_secs(60);

async fn join(site: &Site, node: NodeId, network: NetworkId) {
    let joined = site
        .lab()
        .service(node)
        .node()
        .join(network, Settings::default())
        .await;
    joined.unwrap();
}

fn managing(mtu: u32) -> NetworkForm {
    NetworkForm {
        settings: Some(NetworkSettings {
            mtu: Some(mtu),
            ..NetworkSettings::default()
        }),
        ..NetworkForm::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_gets_the_label_is_let_on_and_joins_and_one_that_loses_it_leaves() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.apply(network, members_by_label("site", "bern")).await;
    site.wait(MINUTE).await;
    assert_eq!(bern.joined().await, []);
    site.label("bern", "site", "bern").await;
    bern.until_on(&[network]).await;
    let member = site.until_member(network, bern.node, Authorized).await;
    assert!(member.because.contains("labels"), "{}", member.because);
    site.unlabel("bern", "site").await;
    site.until_member(network, bern.node, Deauthorized).await;
    bern.until_on(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_with_the_label_is_let_on_before_its_first_join() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.governed_network_on(&oslo).await;
    site.apply(network, members_by_label("site", "bern")).await;
    let bern = site.enroll("bern").await;
    site.until_believed("bern", bern.node).await;
    bern.stop_zerotier();
    site.label("bern", "site", "bern").await;
    site.until_member(network, bern.node, Authorized).await;
    let record = oslo.controller().member(network, bern.node).await.unwrap();
    assert!(record.authorized && !record.has_asked());
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_identity_was_made_at_enrolment_is_let_on_before_its_service_ever_ran_and_never_refused()
{
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.governed_network_on(&oslo).await;
    site.apply(network, members_by_label("site", "bern")).await;

    let mut bern = site.machine("bern").before_zerotier_ran();
    let bundle = site.bundle("bern").await;
    site.label("bern", "site", "bern").await;
    bern.enroll(&bundle).await.unwrap();
    bern.make_identity();
    bern.start();
    site.until_believed("bern", bern.node).await;
    site.until_member(network, bern.node, Authorized).await;
    let record = oslo.controller().member(network, bern.node).await.unwrap();
    assert!(record.authorized && !record.has_asked());

    bern.start_zerotier();
    picket_tests::site::until("bern to be on the network", async || {
        let joined = bern.joined().await;
        assert!(
            !joined.iter().any(|(_, status)| status == "ACCESS_DENIED"),
            "{joined:?}"
        );
        if joined == [(network, "OK".to_owned())] {
            Ok(())
        } else {
            Err(format!("{joined:?}"))
        }
    })
    .await;
    assert_eq!(site.node_of("bern").await.id, bern.node.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_node_of_nobody_named_by_its_address_is_let_on_and_off_again_when_it_is_named_no_more() {
    let site = Site::new().await;
    let (oslo, friend) = (site.enroll("oslo").await, site.lab().grow());
    let network = site.governed_network_on(&oslo).await;
    let named = address::rfc4193(network, friend).to_string();
    let plan = site
        .plan_network(network, naming(std::slice::from_ref(&named)))
        .await;
    let whats: Vec<_> = plan.changes.iter().map(|change| change.what.clone()).collect();
    assert_eq!(whats, [format!("allow {friend}"), format!("member {friend}")]);
    assert_eq!(
        site.apply(network, naming(std::slice::from_ref(&named)))
            .await
            .changes,
        plan.changes
    );
    join(&site, friend, network).await;
    let member = site.until_member(network, friend, Authorized).await;
    assert!(member.because.contains("settings"), "{}", member.because);
    assert_eq!(
        site.apply(network, naming(std::slice::from_ref(&named)))
            .await
            .changes,
        []
    );
    site.apply(network, NetworkForm::default()).await;
    let member = site.until_member(network, friend, Deauthorized).await;
    assert!(
        member.because.contains("no longer in the settings"),
        "{}",
        member.because
    );
    site.apply(network, naming(&[named])).await;
    site.until_member(network, friend, Authorized).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_admitted_while_the_settings_name_him_no_more_stays_on() {
    let site = Site::new().await;
    let (oslo, friend) = (site.enroll("oslo").await, site.lab().grow());
    let network = site.governed_network_on(&oslo).await;
    for _ in 0..8 {
        site.apply(network, naming(&[friend.to_string()])).await;
        // Whichever comes first: both are acknowledged, so both hold.
        tokio::join!(
            site.admit(network, friend),
            site.apply(network, NetworkForm::default())
        );
        let member = site.until_member(network, friend, Authorized).await;
        assert_eq!(
            member.decision(),
            MemberDecision::Authorized,
            "{}",
            member.because
        );
        assert!(member.because.contains("admitted by"), "{}", member.because);
        site.revoke(network, friend).await;
    }
}

#[tokio::test(start_paused = true)]
async fn more_nodes_than_one_commit_takes_are_named_no_more_and_none_stays() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.governed_network_on(&oslo).await;
    let nodes: Vec<_> = (1..=300).map(|number| format!("10{number:08x}")).collect();
    site.apply(network, naming(&nodes)).await;
    site.until_outcome("oslo", "members", "done").await;
    site.apply(network, NetworkForm::default()).await;
    let members = site.members(network).await;
    let on = members
        .iter()
        .filter(|member| member.decision() == MemberDecision::Authorized);
    assert_eq!(on.count(), 1, "the controller's own node");
    assert_eq!(
        members
            .iter()
            .filter(|member| member.because.contains("no longer"))
            .count(),
        300
    );
}

#[tokio::test(start_paused = true)]
async fn settings_of_a_network_that_is_only_watched_are_kept_and_change_nothing() {
    let site = Site::new().await;
    let (oslo, friend) = (site.enroll("oslo").await, site.lab().grow());
    let network = site.network_on(&oslo).await;
    site.adopt(network).await;
    let before = oslo.controller().network(network).await.unwrap();
    site.apply(network, NetworkForm { ..managing(1400) }).await;
    site.apply(
        network,
        NetworkForm {
            allow: naming(&[friend.to_string()]).allow,
            ..managing(1400)
        },
    )
    .await;
    site.wait(2 * MINUTE).await;
    assert_eq!(oslo.controller().network(network).await.unwrap(), before);
    assert!(oslo.controller().member(network, friend).await.is_err());
    let form = site.form(network).await;
    assert_eq!(form.settings.unwrap().mtu, Some(1400));
}

#[tokio::test(start_paused = true)]
async fn settings_changed_at_the_controller_are_repaired_and_what_is_not_managed_stays() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.governed_network_on(&oslo).await;
    site.apply(network, managing(1400)).await;
    site.until_outcome("oslo", "members", "done").await;
    let meddled = settings::NetworkSettings {
        mtu: Some(9000),
        multicast_limit: Some(7),
        ..settings::NetworkSettings::default()
    };
    oslo.controller().put_network(network, &meddled).await.unwrap();
    site.wait(MINUTE).await;
    let seen = oslo.controller().network(network).await.unwrap();
    assert_eq!((seen.mtu, seen.multicast_limit), (1400, 7));
    let event = site.until_event("network.repaired").await;
    assert!(
        event.message.contains("changed outside Picket"),
        "{}",
        event.message
    );
}

#[tokio::test(start_paused = true)]
async fn a_network_is_made_on_a_hosts_controller_lives_and_is_deleted_there() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    site.label("bern", "site", "bern").await;
    let form = NetworkForm {
        settings: Some(NetworkSettings {
            name: Some("sensors".into()),
            rfc4193: Some(true),
            ..NetworkSettings::default()
        }),
        ..members_by_label("site", "bern")
    };
    let network = site.create(&oslo, form.clone()).await;
    assert_eq!(network.controller(), oslo.node);
    bern.until_on(&[network]).await;
    let seen = oslo.controller().network(network).await.unwrap();
    assert_eq!((seen.name.as_str(), seen.private), ("sensors", true));
    let again = site
        .try_create(&oslo, &network.to_string(), NetworkForm::default())
        .await;
    assert_eq!(again.unwrap(), network, "the second changes nothing");
    site.try_delete(network, false).await.unwrap();
    bern.until_on(&[]).await;
    site.until_no_network(network).await;
    assert!(oslo.controller().network(network).await.is_err());
    site.until_event("network.deleted").await;
    let twice = site.try_delete(network, false).await.unwrap_err();
    assert_eq!(twice.code(), Code::NotFound, "{}", twice.message());
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_deleted_while_its_controller_is_away_goes_when_that_is_back() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.governed_network_on(&oslo).await;
    site.until_outcome("oslo", "members", "done").await;
    oslo.stop_zerotier();
    site.try_delete(network, false).await.unwrap();
    site.wait(5 * MINUTE).await;
    assert_eq!(site.network(network).await.mode(), NetworkMode::Deleting);
    // Nobody is told that it is there, or watched, while it goes.
    let again = [
        site.try_create(&oslo, &network.to_string(), NetworkForm::default())
            .await
            .map(drop),
        site.try_adopt(network).await.map(drop),
    ];
    for refused in again {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("is being deleted"), "{refused}");
    }
    oslo.start_zerotier();
    site.until_no_network(network).await;
    assert!(oslo.controller().network(network).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_forgotten_stays_at_its_controller_and_its_old_permissions_do_not_come_back() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.try_delete(network, true).await.unwrap();
    site.until_no_network(network).await;
    site.wait(MINUTE).await;
    let record = oslo.controller().member(network, bern.node).await.unwrap();
    assert!(record.authorized, "its controller was not touched");
    oslo.controller()
        .authorize(network, bern.node, false)
        .await
        .unwrap();
    site.wait(MINUTE).await;
    site.adopt(network).await;
    let member = site.until_member(network, bern.node, Deauthorized).await;
    assert_eq!(member.decision(), MemberDecision::Denied, "{}", member.because);
}

#[tokio::test(start_paused = true)]
async fn whoever_nobody_registered_is_told_once_within_a_minute_and_not_again_after_a_restart() {
    let site = Site::new().await;
    let (oslo, stranger) = (site.enroll("oslo").await, site.lab().grow());
    let network = site.governed_network_on(&oslo).await;
    join(&site, stranger, network).await;
    let joined = Instant::now();
    let event = site.until_event("member.unknown").await;
    assert!(joined.elapsed() <= MINUTE, "{:?}", joined.elapsed());
    assert_eq!(event.subject, format!("{network}/{stranger}"));
    site.wait(5 * MINUTE).await;
    site.restart_master().await;
    site.until("oslo", picket_tests::HostState::Online).await;
    site.wait(5 * MINUTE).await;
    assert_eq!(site.events("member.unknown").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_was_revoked_and_turns_up_again_is_told_with_who_revoked_it() {
    let site = Site::new().await;
    let (oslo, friend) = (site.enroll("oslo").await, site.lab().grow());
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, friend).await;
    join(&site, friend, network).await;
    site.until_member(network, friend, Authorized).await;
    site.revoke(network, friend).await;
    site.until_member(network, friend, Deauthorized).await;
    site.wait(MINUTE).await;
    let left = site.lab().service(friend).node().leave(network).await;
    left.unwrap();
    oslo.controller().delete_member(network, friend).await.unwrap();
    site.wait(2 * MINUTE).await;
    assert_eq!(site.events("member.returned").await, []);
    join(&site, friend, network).await;
    let event = site.until_event("member.returned").await;
    assert!(event.message.contains("revoked by admin"), "{}", event.message);
}

#[tokio::test(start_paused = true)]
async fn where_unknown_members_are_put_off_somebody_let_on_by_hand_is_put_off() {
    let site = Site::new().await;
    let (oslo, stranger) = (site.enroll("oslo").await, site.lab().grow());
    let network = site.governed_network_on(&oslo).await;
    let form = NetworkForm {
        unknown: UnknownMembers::Deauthorize.into(),
        ..NetworkForm::default()
    };
    site.apply(network, form).await;
    site.until_outcome("oslo", "members", "done").await;
    oslo.controller()
        .authorize(network, stranger, true)
        .await
        .unwrap();
    site.wait(MINUTE).await;
    assert!(
        !oslo
            .controller()
            .member(network, stranger)
            .await
            .unwrap()
            .authorized
    );
}

#[tokio::test(start_paused = true)]
async fn a_repair_is_told_once_with_what_was_and_what_is() {
    let site = Site::new().await;
    let (oslo, friend) = (site.enroll("oslo").await, site.lab().grow());
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, friend).await;
    site.until_member(network, friend, Authorized).await;
    oslo.controller().authorize(network, friend, false).await.unwrap();
    let event = site.until_event("member.repaired").await;
    assert_eq!(event.subject, format!("{network}/{friend}"));
    assert!(
        event.message.contains("changed outside Picket"),
        "{}",
        event.message
    );
    assert!(event.message.contains("deauthorized"), "{}", event.message);
    site.restart_master().await;
    site.wait(3 * MINUTE).await;
    assert_eq!(site.events("member.repaired").await.len(), 1);
}

/// A network with this many members that were admitted, all of them put off by somebody at the controller.
async fn turned_upside_down(site: &Site, oslo: &picket_tests::Host, members: u64) -> NetworkId {
    let network = site.network_on(oslo).await;
    let node = |number| NodeId::new(0x10_0000_0000 + number).unwrap();
    for number in 1..=members {
        oslo.controller()
            .authorize(network, node(number), true)
            .await
            .unwrap();
    }
    site.wait(MINUTE).await;
    site.adopt(network).await;
    site.enforce(network).await;
    site.until_outcome("oslo", "members", "done").await;
    site.wait(MINUTE).await;
    for number in 1..=members {
        oslo.controller()
            .authorize(network, node(number), false)
            .await
            .unwrap();
    }
    network
}

#[tokio::test(start_paused = true)]
async fn a_network_that_somebody_turned_upside_down_waits_for_an_operator() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = turned_upside_down(&site, &oslo, 20).await;
    let alert = site.until_event("network.held-back").await;
    assert!(
        alert
            .message
            .contains(&format!("picketctl network resume {network}")),
        "{}",
        alert.message
    );
    assert!(site.network(network).await.held_back >= 20);
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert_eq!((dry.authorize, dry.held_back), (20, 20));
    site.wait(5 * MINUTE).await;
    let on = |members: picket_zerotier::controller::Members| {
        members
            .by_node
            .values()
            .filter(|member| member.authorized)
            .count()
    };
    assert!(on(oslo.controller().members(network).await.unwrap()) <= 1);
    site.resume(network).await;
    site.until_event("network.recovered").await;
    assert!(on(oslo.controller().members(network).await.unwrap()) >= 20);
    assert_eq!(site.events("network.held-back").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn reconciling_by_hand_repairs_at_once_and_counts_what_it_did() {
    let site = Site::new().await;
    let (oslo, friend) = (site.enroll("oslo").await, site.lab().grow());
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, friend).await;
    site.until_member(network, friend, Authorized).await;
    site.until_outcome("oslo", "members", "done").await;
    // Where the master has seen it, the agent has repaired it.
    oslo.controller().authorize(network, friend, false).await.unwrap();
    let asked = Instant::now();
    let answer = site.try_reconcile(network, false).await.unwrap();
    assert!(
        asked.elapsed() <= Duration::from_secs(12),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(answer.held_back, 0);
    assert!(
        oslo.controller()
            .member(network, friend)
            .await
            .unwrap()
            .authorized
    );
    let dry = site.try_reconcile(network, true).await.unwrap();
    assert_eq!((dry.authorize, dry.deauthorize, dry.changes.len()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_requester_sees_which_networks_there_are_and_not_who_is_on_them() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.governed_network_on(&oslo).await;
    site.apply(network, naming(&["39966434ba".to_owned()])).await;
    let bundle = site.operator("ana", OperatorRole::Requester).await;
    let ana = Stranger::with_bundle(&site, &bundle).connect(Door::Admin).await;
    let ana = ana.unwrap_or_else(|error| panic!("{error}"));
    let listed = NetworkServiceClient::new(ana.channel.clone())
        .list_networks(ListNetworksRequest {})
        .await
        .unwrap()
        .into_inner()
        .networks;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].id.clone(), listed[0].name.as_str()),
        (network.to_string(), "lab")
    );
    assert_eq!((listed[0].form.clone(), listed[0].members_authorized), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn an_id_is_only_for_the_node_it_begins_with_and_one_that_is_there_is_adopted_instead() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let range: V4Range = "10.147.20.0/24".parse().unwrap();
    let new = NewNetwork {
        name: "lab".to_owned(),
        v4: Some(range),
        ..NewNetwork::default()
    };
    let there = oslo.controller().create_network(&new).await.unwrap().id;
    site.wait(MINUTE).await;
    let foreign = site
        .try_create(&oslo, "39966434ba000001", NetworkForm::default())
        .await;
    assert_eq!(foreign.unwrap_err().code(), Code::InvalidArgument);
    let taken = site
        .try_create(&oslo, &there.to_string(), NetworkForm::default())
        .await;
    let taken = taken.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists, "{}", taken.message());
    assert!(taken.message().contains("network adopt"), "{}", taken.message());
}

#[tokio::test(start_paused = true)]
async fn one_that_exists_is_said_to_exist_and_one_whose_host_is_away_to_wait() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.until_believed("oslo", oslo.node).await;
    let made = site.made(&oslo, "").await;
    assert_eq!((made.existed, made.waits.as_str()), (false, ""));
    let id = made.network.unwrap().id;
    assert!(site.made(&oslo, &id).await.existed);
    oslo.stop().await;
    site.until("oslo", picket_tests::HostState::Offline).await;
    let waits = site.made(&oslo, "").await;
    assert_eq!(
        (waits.existed, waits.waits.as_str()),
        (false, "oslo is not connected")
    );
}
