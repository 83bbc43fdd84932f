//! Whose node is whose, what each person may touch, and what nodes are called.

use std::time::Duration;

use picket_proto::wire::admin::{ListDevicesRequest, ListMembersRequest};
use picket_tests::{
    GrantKind::Stands,
    Host, KillScope, MemberDecision,
    MemberObservation::{Authorized, Deauthorized},
    OperatorRole::{Operator, Requester, Viewer},
    Site, naming,
};
use picket_zerotier::{NetworkId, NodeId, address, controller::Controller as _, node::Settings};
use tonic::Code;

async fn site() -> (Site, Host, NetworkId, NodeId) {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.governed_network_on(&oslo).await;
    let laptop = site.lab().grow();
    let service = site.lab().service(laptop);
    service.node().join(network, Settings::default()).await.unwrap();
    (site, oslo, network, laptop)
}

#[tokio::test(start_paused = true)]
async fn a_requester_sees_and_touches_only_its_own() {
    let (site, oslo, network, laptop) = site().await;
    let phone = site.lab().grow();
    let (ana, eve) = (
        site.person("ana", Requester).await,
        site.person("eve", Requester).await,
    );
    let bo = site.person("bo", Operator).await;
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    eve.register(phone, "eves-phone", "").await.unwrap();
    ana.request(network, laptop).await.unwrap();
    eve.request(network, phone).await.unwrap();

    let names = |devices: Vec<picket_proto::wire::admin::Device>| {
        devices.into_iter().map(|device| device.name).collect::<Vec<_>>()
    };
    assert_eq!(names(eve.devices().await), ["eves-phone"]);
    assert_eq!(names(bo.devices().await).len(), 3, "the host's too");
    let seen: Vec<_> = eve
        .members(network)
        .await
        .into_iter()
        .map(|member| member.owner)
        .collect();
    assert_eq!(seen, ["person/eve"]);
    for node in [
        laptop.to_string(),
        "anas-laptop".into(),
        oslo.node.to_string(),
        "oslo".into(),
        "nothing".into(),
    ] {
        let refused = [
            eve.member(network, &node).await.map(drop),
            eve.request(network, &node).await.map(drop),
            eve.cancel(network, &node).await.map(drop),
            eve.activate(network, &node, None).await.map(drop),
            eve.end(network, &node).await.map(drop),
            eve.remove(&node).await.map(drop),
        ];
        for refused in refused {
            let refused = refused.unwrap_err();
            assert_eq!(refused.code(), Code::NotFound, "{node}: {refused}");
        }
    }
    let for_another = eve
        .register(site.lab().grow(), "a-gift", "ana")
        .await
        .unwrap_err();
    assert_eq!(for_another.code(), Code::PermissionDenied);
    let taken = eve.register(laptop, "mine", "").await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    assert!(!taken.message().contains("ana"), "{taken}");
    // A viewer looks at everything, and acts for itself.
    let vi = site.person("vi", Viewer).await;
    vi.member(network, laptop).await.unwrap();
    for refused in [
        vi.end(network, laptop).await.map(drop),
        vi.request(network, "anas-laptop").await.map(drop),
        vi.remove("anas-laptop").await.map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains("is ana's; vi, as viewer"), "{refused}");
    }
    assert_eq!(
        vi.end(network, "nothing").await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_is_named_by_id_addresses_and_names_and_not_by_what_could_be_two() {
    let (site, oslo, network, laptop) = site().await;
    let bo = site.person("bo", Operator).await;
    let by_address = address::rfc4193(network, laptop);
    let device = bo.register(by_address, "laptop", "").await.unwrap();
    assert_eq!(device.node_id, laptop.to_string());
    for text in [
        laptop.to_string(),
        by_address.to_string(),
        address::sixplane(network, laptop).to_string(),
        "laptop".to_owned(),
    ] {
        let member = bo.member(network, &text).await.unwrap();
        assert_eq!(member.node_id, laptop.to_string(), "{text}");
        assert_eq!(member.rfc4193, by_address.to_string());
    }
    assert_eq!(
        bo.member(network, "oslo").await.unwrap().node_id,
        oslo.node.to_string()
    );
    let elsewhere = NetworkId::at(oslo.node, 0xff);
    let refused = bo
        .member(network, address::rfc4193(elsewhere, laptop))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");

    let other = site.lab().grow();
    assert_eq!(
        bo.register(other, "oslo", "").await.unwrap_err().code(),
        Code::AlreadyExists
    );
    let host = bo.register(oslo.node, "a-name", "").await.unwrap_err();
    assert!(host.message().contains("host oslo's"), "{host}");
    // A host that is enrolled later may have a device's name.
    site.enroll("laptop").await;
    let refused = bo.member(network, "laptop").await.unwrap_err();
    assert!(refused.message().contains(&laptop.to_string()), "{refused}");
    assert!(refused.message().contains("host laptop"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_removed_device_is_denied_and_remembered_and_its_permissions_do_not_come_back_with_it() {
    let (site, _oslo, network, laptop) = site().await;
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    ana.request(network, laptop).await.unwrap();
    bo.approve(network, laptop, Stands).await.unwrap();
    site.until_member(network, laptop, Authorized).await;

    for _ in 0..2 {
        let removed = bo.remove("anas-laptop").await.unwrap();
        assert_eq!(
            (removed.removed_by.as_str(), removed.removed_because.as_str()),
            ("bo", "a story")
        );
    }
    let member = site.until_member(network, laptop, Deauthorized).await;
    assert_eq!(member.decision(), MemberDecision::Denied);
    assert!(member.because.contains("removed by bo"), "{}", member.because);
    let refused = bo.admit(network, laptop, None).await.unwrap_err();
    assert!(
        refused.message().contains("picketctl device register"),
        "{refused}"
    );
    assert!(ana.request(network, laptop).await.is_err());
    // It knocks again, and is still remembered.
    site.restart_master().await;
    site.wait(Duration::from_secs(120)).await;
    let member = site.until_member(network, laptop, Deauthorized).await;
    assert!(member.because.contains("removed by bo"), "{}", member.because);
    assert_eq!(ana.devices().await[0].removed_by, "bo");

    let refused = ana.register(laptop, "anas-laptop", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    bo.register(laptop, "anas-laptop", "ana").await.unwrap();
    let member = ana.member(network, laptop).await.unwrap();
    assert_eq!(member.decision(), MemberDecision::Denied, "{}", member.because);
    site.wait(Duration::from_secs(120)).await;
    site.until_member(network, laptop, Deauthorized).await;
    ana.request(network, laptop).await.unwrap();
    bo.approve(network, laptop, Stands).await.unwrap();
    site.until_member(network, laptop, Authorized).await;
}

#[tokio::test(start_paused = true)]
async fn a_requester_does_not_take_a_node_that_is_somewhere_already() {
    let (site, _oslo, network, laptop) = site().await;
    site.admit(network, laptop).await;
    let ana = site.person("ana", Requester).await;
    let refused = ana.register(laptop, "anas-laptop", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    site.until_member(network, laptop, Authorized).await;
    assert!(ana.devices().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_admitted_or_adopted_is_still_on_after_an_operator_registers_it() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.network_on(&oslo).await;
    let (adopted, admitted) = (site.lab().grow(), site.lab().grow());
    oslo.controller().authorize(network, adopted, true).await.unwrap();
    site.wait(Duration::from_secs(60)).await;
    assert_eq!(site.adopt(network).await, 1);
    site.enforce(network).await;
    site.admit(network, admitted).await;
    site.person("ana", Requester).await;
    let bo = site.person("bo", Operator).await;
    for (node, name) in [(adopted, "anas-laptop"), (admitted, "anas-phone")] {
        let device = bo.register(node, name, "ana").await.unwrap();
        assert_eq!(device.network_ids, [network.to_string()], "{name}");
    }
    site.wait(Duration::from_secs(120)).await;
    for node in [adopted, admitted] {
        let member = site.until_member(network, node, Authorized).await;
        assert_eq!(
            member.decision(),
            MemberDecision::Authorized,
            "{}",
            member.because
        );
        assert_eq!(member.owner, "person/ana");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_somebody_let_on_by_hand_stays_on_whoever_registers_it() {
    let (site, oslo, network, gateway) = site().await;
    oslo.controller().authorize(network, gateway, true).await.unwrap();
    let member = site.until_member(network, gateway, Authorized).await;
    assert_eq!(member.decision(), MemberDecision::Unknown);
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );
    let refused = ana.register(gateway, "mine", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let refused = bo.register(gateway, "gateway", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    for words in [network.to_string(), "picketctl member admit".to_owned()] {
        assert!(refused.message().contains(&words), "{refused}");
    }
    bo.admit(network, gateway, None).await.unwrap();
    bo.register(gateway, "gateway", "").await.unwrap();
    site.wait(Duration::from_secs(120)).await;
    site.until_member(network, gateway, Authorized).await;
}

#[tokio::test(start_paused = true)]
async fn while_a_controller_cannot_be_read_only_an_operator_registers() {
    let (site, oslo, network, laptop) = site().await;
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );
    oslo.stop_zerotier();
    site.until_problem(network).await;
    let refused = ana.register(laptop, "anas-laptop", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("ask an operator"), "{refused}");
    bo.register(laptop, "anas-laptop", "ana").await.unwrap();
    assert_eq!(ana.devices().await[0].name, "anas-laptop");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_was_removed_is_let_on_by_settings_that_name_it_afterwards() {
    let (site, _oslo, network, gateway) = site().await;
    let ana = site.person("ana", Requester).await;
    ana.register(gateway, "mine", "").await.unwrap();
    ana.remove(gateway).await.unwrap();
    let form = naming(&[gateway.to_string()]);
    let plan = site.plan_network(network, form.clone()).await.changes;
    let member = plan
        .iter()
        .find(|change| change.what.starts_with("member"))
        .unwrap();
    assert!(member.before.contains("removed by ana"), "{member:?}");
    assert!(member.after.starts_with("authorized"), "{member:?}");
    site.apply(network, form.clone()).await;
    site.until_member(network, gateway, Authorized).await;
    // What is removed after it was named is denied again.
    let bo = site.person("bo", Operator).await;
    bo.register(gateway, "mine", "ana").await.unwrap();
    bo.remove(gateway).await.unwrap();
    site.apply(network, form).await;
    site.until_member(network, gateway, Deauthorized).await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_of_an_owner_is_not_about_a_host_whose_node_he_registered_before_it_was_enrolled() {
    let (site, _oslo, network, laptop) = site().await;
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );
    let (removed, kept) = (site.machine("edge-04"), site.machine("edge-05"));
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    ana.register(removed.node, "claimed", "").await.unwrap();
    ana.register(kept.node, "claimed-too", "").await.unwrap();
    ana.remove(removed.node).await.unwrap();
    bo.admit(network, laptop, None).await.unwrap();
    let hosts = [site.bring_in(removed).await, site.bring_in(kept).await];
    for host in &hosts {
        site.until_believed(&host.name, host.node).await;
        site.admit(network, host.node).await;
        site.until_member(network, host.node, Authorized).await;
    }
    site.until_member(network, laptop, Authorized).await;

    let about = |kill: &picket_proto::wire::admin::Kill| {
        let members = kill.members.iter();
        members.map(|member| member.node_id.clone()).collect::<Vec<_>>()
    };
    let drill = site.drill(KillScope::Owner, "ana").await;
    assert_eq!(about(&drill), [laptop.to_string()]);
    let kill = site.kill(KillScope::Owner, "ana").await;
    assert_eq!(about(&kill), [laptop.to_string()]);
    site.until_member(network, laptop, Deauthorized).await;
    for host in &hosts {
        let member = site.until_member(network, host.node, Authorized).await;
        assert_eq!(
            member.decision(),
            MemberDecision::Authorized,
            "{}",
            member.because
        );
        assert_eq!(member.owner, format!("host/{}", host.name));
    }
    // What was claimed is remembered.
    for person in [&ana, &bo] {
        let claims = person.devices().await.into_iter();
        let claims: Vec<_> = claims
            .filter(|device| device.name.starts_with("claimed"))
            .map(|device| (device.owner, device.removed_because))
            .collect();
        let ana = "person/ana".to_owned();
        let host = "an enrolled host runs the node, whose it is since".to_owned();
        let mut want = vec![(ana.clone(), "a story".to_owned()), (ana, host)];
        want.sort();
        let mut claims = claims;
        claims.sort();
        assert_eq!(claims, want, "{}", person.name);
    }
}

#[tokio::test(start_paused = true)]
async fn devices_and_members_are_listed_a_page_at_a_time_and_none_twice_or_never() {
    let (site, _oslo, network, _laptop) = site().await;
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );
    for number in 0..7 {
        let node = NodeId::new(0x10_0000_0000 + number).unwrap();
        ana.register(node, &format!("sensor-{number}"), "").await.unwrap();
        ana.request(network, node).await.unwrap();
    }
    for (person, many) in [(&ana, 7), (&bo, 8)] {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let asked = ListDevicesRequest {
                page_size: 3,
                page_token: token,
                ..Default::default()
            };
            let (page, next) = person.list_devices(asked).await;
            assert!((1..=3).contains(&page.len()), "{}", page.len());
            found.extend(page.into_iter().map(|device| device.node_id));
            if next.is_empty() {
                break;
            }
            token = next;
        }
        let mut once = found.clone();
        once.dedup();
        assert_eq!((found.len(), once.len()), (many, many), "{}", person.name);
    }
    // Of every network at once there are the requests that wait.
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let asked = ListMembersRequest {
            page_size: 3,
            page_token: token,
            ..Default::default()
        };
        let (page, next) = bo.list_members(asked).await;
        assert!((1..=3).contains(&page.len()), "{}", page.len());
        assert!(page.iter().all(|member| member.request.is_some()));
        found.extend(page.into_iter().map(|member| member.device));
        if next.is_empty() {
            break;
        }
        token = next;
    }
    let want: Vec<_> = (0..7).map(|number| format!("sensor-{number}")).collect();
    assert_eq!(found, want);
    let all = bo.members(network).await;
    assert!(all.len() > 7, "{}", all.len());
    assert_eq!(site.network(network).await.form, None, "lists leave settings out");
}

#[tokio::test(start_paused = true)]
async fn a_removed_device_that_was_never_granted_is_in_no_list_of_members() {
    let (site, _oslo, network, laptop) = site().await;
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );
    let phone = site.lab().grow();
    for (node, name) in [(laptop, "anas-laptop"), (phone, "anas-phone")] {
        ana.register(node, name, "").await.unwrap();
    }
    bo.admit(network, laptop, None).await.unwrap();
    site.until_member(network, laptop, Authorized).await;
    for name in ["anas-laptop", "anas-phone"] {
        ana.remove(name).await.unwrap();
    }
    site.until_member(network, laptop, Deauthorized).await;
    let listed: Vec<_> = bo
        .members(network)
        .await
        .into_iter()
        .map(|member| member.node_id)
        .collect();
    assert!(listed.contains(&laptop.to_string()), "{listed:?}");
    assert!(!listed.contains(&phone.to_string()), "{listed:?}");
    let devices: Vec<_> = ana
        .devices()
        .await
        .into_iter()
        .map(|device| device.name)
        .collect();
    assert!(devices.contains(&"anas-phone".to_owned()), "{devices:?}");
}

#[tokio::test(start_paused = true)]
async fn an_owner_is_killed_by_the_name_that_lists_show() {
    let (site, _oslo, network, laptop) = site().await;
    let (ana, bo) = (
        site.person("ana", Requester).await,
        site.person("bo", Operator).await,
    );
    ana.register(laptop, "anas-laptop", "").await.unwrap();
    ana.request(network, laptop).await.unwrap();
    bo.approve(network, laptop, Stands).await.unwrap();
    let owner = ana.devices().await.remove(0).owner;
    assert_eq!(owner, "person/ana");
    let killed = site.kill(KillScope::Owner, &owner).await;
    assert_eq!(killed.subject, "ana");
    site.until_member(network, laptop, Deauthorized).await;
    site.unkill(KillScope::Owner, &owner).await;
    site.until_member(network, laptop, Authorized).await;
    let refused = site.try_kill(KillScope::Owner, "host/oslo").await.unwrap_err();
    assert!(
        refused.message().contains("picketctl kill host oslo"),
        "{refused}"
    );
}
