//! Which ZeroTier node a host is believed to be.

use std::time::Duration;

use picket_master::{
    node::NodeStanding,
    record::{HostRecord, Record as _, key},
    store::{Audit, Commit, Guard},
};
use picket_proto::wire::agent::{NodeProof, ServiceState, ZeroTierStatus};
use picket_tests::{
    Host, HostNodeStanding, HostState,
    MemberObservation::Authorized,
    Site,
    conversation::Conversation,
    stranger::{Door, Stranger},
};
use picket_zerotier::NodeId;
use tonic::Code;

#[tokio::test(start_paused = true)]
async fn a_host_proves_its_node_at_first_sight() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let node = site.until_believed("oslo", oslo.node).await;
    assert_eq!(node.standing(), HostNodeStanding::Proven);
    assert_eq!((node.waiting, node.claimed_id), Default::default());
    assert_eq!(site.events("node.").await.len(), 1);
    assert_eq!(site.host("oslo").await.conditions, Vec::<String>::new());
    site.stop_master().await;
    site.start_master().await;
    site.until("oslo", HostState::Online).await;
    let node = site.until_believed("oslo", oslo.node).await;
    assert_eq!(
        node.standing(),
        HostNodeStanding::Proven,
        "a restart forgets nothing"
    );
    assert_eq!(site.events("node.").await.len(), 1, "and tells nothing twice");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_says_it_is_another_hosts_node_waits_and_the_owner_keeps_it() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.until_believed("oslo", oslo.node).await;
    let network = site.governed_network_on(&oslo).await;
    let eve = site.machine("eve");
    eve.says_it_is(oslo.node);
    let eve = site.bring_in(eve).await;
    let waiting = site.until_waiting("eve", oslo.node).await;
    assert_eq!((waiting.id.as_str(), waiting.claimed_proven), ("", false));
    assert_eq!(waiting.other_hosts, ["oslo"]);
    site.until_event("node.claimed-twice").await;
    site.until_condition("eve", "which is oslo's").await;
    site.until_condition("oslo", "eve says too").await;
    site.until_condition("eve", "set zerotier.home").await;
    for refused in [
        site.try_admit(network, "eve").await.map(|()| Vec::new()),
        site.try_accept_node("eve", oslo.node).await,
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("oslo"), "{}", refused.message());
    }
    let owner = site.node_of("oslo").await;
    assert_eq!(
        (owner.id.clone(), owner.standing()),
        (oslo.node.to_string(), HostNodeStanding::Proven)
    );
    // Her own secret is no help: it proves another node than the one she says she is.
    eve.restart().await;
    site.wait(Duration::from_secs(300)).await;
    assert_eq!(site.node_of("eve").await.id, "");
}

#[tokio::test(start_paused = true)]
async fn two_machines_with_one_secret_are_an_alarm_and_the_first_stays_believed() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.until_believed("oslo", oslo.node).await;
    let eve = site.machine("eve");
    eve.says_it_is(oslo.node);
    eve.put_identity_of(oslo.node);
    site.bring_in(eve).await;
    let alarm = site.until_event("node.copied").await;
    assert_eq!(alarm.subject, "eve");
    assert!(
        alarm.message.contains("oslo") && alarm.message.contains("identity.secret"),
        "{}",
        alarm.message
    );
    let waiting = site.until_waiting("eve", oslo.node).await;
    assert_eq!((waiting.id.as_str(), waiting.claimed_proven), ("", true));
    assert_eq!(site.node_of("oslo").await.id, oslo.node.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_proof_from_another_connection_proves_nothing() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    oslo.stop().await;
    let stranger = Stranger::with_identity_of(&site, &oslo);
    let (one, other) = (
        stranger.connect(Door::Agents).await.unwrap(),
        stranger.connect(Door::Agents).await.unwrap(),
    );
    assert_ne!(one.binding, other.binding);
    let overheard = proof(&site, &oslo, one.binding.bytes()).await;

    let replayed = Conversation::open_with(&other, Some(overheard.clone()))
        .await
        .unwrap();
    let replayed = says(replayed, oslo.node).await;
    let waiting = site.until_waiting("oslo", oslo.node).await;
    assert!(!waiting.claimed_proven);
    assert!(
        waiting.waiting.contains("not that node's over this connection"),
        "{}",
        waiting.waiting
    );

    drop(replayed);
    let _first = says(
        Conversation::open_with(&one, Some(overheard)).await.unwrap(),
        oslo.node,
    )
    .await;
    site.until_believed("oslo", oslo.node).await;
}

#[tokio::test(start_paused = true)]
async fn a_proof_for_another_host_or_trust_domain_proves_nothing() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    oslo.stop().await;
    let id = site.host("oslo").await.id.parse().unwrap();
    let other = picket_proto::host::HostId(uuid::Uuid::from_u128(7));
    let identity = site.lab().secret(oslo.node).unwrap();
    let connected = Stranger::with_identity_of(&site, &oslo)
        .connect(Door::Agents)
        .await
        .unwrap();
    for (domain, host) in [("example.com", id), ("example.org", other)] {
        let signed = picket_proto::node::signed(domain, host, connected.binding.bytes());
        let proof = NodeProof {
            identity: identity.public().to_string(),
            signature: identity.sign(&signed).to_vec().into(),
        };
        let _session = says(
            Conversation::open_with(&connected, Some(proof)).await.unwrap(),
            oslo.node,
        )
        .await;
        assert!(
            !site.until_waiting("oslo", oslo.node).await.claimed_proven,
            "{domain} {host}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_made_anew_waits_until_it_is_accepted() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.until_believed("bern", bern.node).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;

    let anew = site.lab().grow();
    bern.put_identity_of(anew);
    bern.says_it_is(anew);
    let waiting = site.until_waiting("bern", anew).await;
    assert_eq!(
        waiting.id,
        bern.node.to_string(),
        "the one from before stays believed"
    );
    site.until_event("node.changed").await;
    site.until_proven_claim("bern").await;
    let refused = site.try_admit(network, "bern").await.unwrap_err();
    assert!(
        refused.message().contains(&anew.to_string()),
        "{}",
        refused.message()
    );
    let wrong = site.try_accept_node("bern", oslo.node).await.unwrap_err();
    assert_eq!(wrong.code(), Code::FailedPrecondition);

    let remarks = site.accept_node("bern", anew).await;
    assert!(
        remarks.concat().contains(&bern.node.to_string()),
        "what the old node may is told: {remarks:?}"
    );
    assert_eq!(site.accept_node("bern", anew).await, Vec::<String>::new());
    let node = site.until_believed("bern", anew).await;
    assert_eq!(
        (node.standing(), node.waiting.as_str()),
        (HostNodeStanding::Proven, "")
    );
    site.admit(network, "bern").await;
    site.until_member(network, anew, Authorized).await;
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_cannot_be_read_is_a_condition_and_is_proven_once_it_can() {
    let site = Site::new().await;
    let oslo = site.machine("oslo");
    oslo.hide_identity();
    let oslo = site.bring_in(oslo).await;
    let condition = site.until_condition("oslo", "identity.secret").await;
    assert!(
        condition.contains("give this user access to the file"),
        "{condition}"
    );
    let waiting = site.until_waiting("oslo", oslo.node).await;
    assert!(waiting.waiting.contains("--accept"), "{}", waiting.waiting);
    site.until_event("node.unproven").await;
    oslo.put_identity_of(oslo.node);
    let node = site.until_believed("oslo", oslo.node).await;
    assert_eq!(node.standing(), HostNodeStanding::Proven);
    assert_eq!(site.host("oslo").await.conditions, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_operator_accepts_what_a_host_cannot_prove_and_forgets_it_again() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.machine("bern"));
    bern.hide_identity();
    let bern = site.bring_in(bern).await;
    let network = site.governed_network_on(&oslo).await;
    site.until_waiting("bern", bern.node).await;
    let refused = site.try_admit(network, "bern").await.unwrap_err();
    assert!(
        refused.message().contains("does not prove"),
        "{}",
        refused.message()
    );
    site.wait(Duration::from_secs(60)).await;
    assert_eq!(bern.joined().await, [], "nothing rests on what waits");

    site.accept_node("bern", bern.node).await;
    assert_eq!(site.node_of("bern").await.standing(), HostNodeStanding::Accepted);
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    let remarks = site.forget_node("bern").await;
    assert!(remarks.concat().contains(&network.to_string()), "{remarks:?}");
    site.until_waiting("bern", bern.node).await;
    bern.until_on(&[]).await;
    assert_eq!(site.forget_node("bern").await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn who_proves_a_node_has_it_before_who_only_said_so_when_nobody_asked() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let bern = site.machine("bern");
    // As a master wrote it that asked for no proof.
    let entry = site
        .store()
        .get(&key::host(host_id(&site, "oslo").await))
        .unwrap()
        .unwrap();
    let mut record = HostRecord::of(&entry).unwrap();
    record.believe(bern.node, NodeStanding::Unproven, None);
    let commit = Commit {
        guards: vec![Guard::At(entry.key.clone(), entry.revision)],
        writes: vec![record.put()],
        audit: Audit {
            who: "story".to_owned(),
            from: "local".to_owned(),
            what: "host.node".to_owned(),
            subject: "oslo".to_owned(),
            ..Audit::default()
        },
    };
    site.store().commit(commit).await.unwrap();
    site.until_condition("oslo", "only said that it is node").await;
    site.bring_in(bern).await;
    let moved = site.until_event("node.moved").await;
    assert_eq!(moved.subject, "bern");
    assert_eq!(site.node_of("oslo").await.id, "");
    assert_eq!(site.node_of("bern").await.standing(), HostNodeStanding::Proven);
    drop(oslo);
}

#[tokio::test(start_paused = true)]
async fn a_banned_hosts_node_is_not_decided_on() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.until_believed("oslo", oslo.node).await;
    site.ban("oslo", "stolen").await;
    let refused = site.try_accept_node("oslo", oslo.node).await.unwrap_err();
    assert!(refused.message().contains("banned"), "{}", refused.message());
}

async fn host_id(site: &Site, name: &str) -> picket_proto::host::HostId {
    site.host(name).await.id.parse().expect("a host has an id")
}

/// What a machine's node signs for its host over a connection.
async fn proof(site: &Site, host: &Host, binding: &[u8; 32]) -> NodeProof {
    let identity = site.lab().secret(host.node).expect("a grown node has one");
    let signed = picket_proto::node::signed("example.org", host_id(site, &host.name).await, binding);
    NodeProof {
        identity: identity.public().to_string(),
        signature: identity.sign(&signed).to_vec().into(),
    }
}

/// Says in a session that the ZeroTier service is this node.
async fn says(mut session: Conversation, node: NodeId) -> Conversation {
    let zerotier = ZeroTierStatus {
        service: ServiceState::Answers.into(),
        node_id: node.to_string(),
        ..Default::default()
    };
    session.beat_zerotier(1, &zerotier).await;
    session.acknowledged().await;
    session
}
