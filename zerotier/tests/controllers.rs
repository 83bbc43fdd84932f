//! What every kind of controller does alike: one suite, told to the local controller and to Central, simulated both, and
//! to the controller of a real service where `PICKET_ZEROTIER_ONE` names its binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap, env, future::Future, io::Write as _, path::Path, sync::Arc, time::Duration,
};

use picket_zerotier::{
    NetworkId, NodeId,
    central::Central,
    controller::{Controller, LocalController, Member, MemberChange, NewNetwork, Readiness},
    dial::{Dial, Tcp},
    fake::{FakeCentral, Lab},
    home::Token,
    real,
    service::{Error, Service},
    settings::NetworkSettings,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time,
};

macro_rules! suite {
    ($($story:ident)*) => {
        mod the_local_controller {
            $(#[tokio::test(start_paused = true)]
            async fn $story() {
                super::$story(&super::Local::fake()).await;
            })*
        }

        mod central {
            $(#[tokio::test(start_paused = true)]
            async fn $story() {
                super::$story(&super::Cloud::new()).await;
            })*
        }

        /// Needs root, and a `zerotier-one` binary in `PICKET_ZEROTIER_ONE`.
        #[tokio::test]
        async fn the_controllers_of_real_nodes_behave_as_the_simulated_ones_do() {
            let Some(binary) = env::var_os("PICKET_ZEROTIER_ONE") else {
                // Not `eprintln!`, which the test harness would keep to itself.
                let told = "NOT RUN: real ZeroTier; PICKET_ZEROTIER_ONE names no zerotier-one";
                writeln!(std::io::stderr(), "{told}").unwrap();
                return;
            };
            let homes = tempfile::tempdir().unwrap();
            let site = real::Site::start(Path::new(&binary), homes.path(), 1).await.unwrap();
            let home = site.home(0);
            let local = Local::new(Arc::new(Tcp::new(home.place().unwrap())), home.token().unwrap(), site.id(0));
            $($story(&local).await;)*
            only_the_local_controller_makes_a_network_of_a_given_id_below_its_own(&local).await;
        }
    };
}

suite! {
    a_network_is_created_private_changed_and_deleted
    what_is_not_managed_stays_as_somebody_made_it
    a_second_change_to_the_same_finds_nothing_to_do
    a_public_network_becomes_private_with_any_change
    a_member_is_known_before_it_asks_and_is_changed_part_by_part
    many_members_are_changed_and_listed_at_once
    what_is_not_there_is_not_found_and_deleted_already
    what_a_controller_drops_is_noticed
}

async fn a_network_is_created_private_changed_and_deleted(site: &impl Site) {
    let controller = site.controller();
    let new = NewNetwork {
        name: "first".into(),
        v4: Some("10.147.20.0/24".parse().unwrap()),
        rfc4193: true,
        sixplane: false,
    };
    let network = controller.create_network(&new).await.unwrap();
    assert!(network.private && network.v4_assign && network.v6_assign.rfc4193);
    assert_eq!(controller.network(network.id).await.unwrap(), network);
    assert!(controller.networks().await.unwrap().contains(&network.id));

    let want = settings(json!({
        "name": "second", "mtu": 1400, "multicast_limit": 8, "broadcast": false,
        "routes": [{"target": "10.2.0.0/16"}, {"target": "10.3.0.0/16", "via": "10.2.0.1"}, {"target": "fd00:7::/64"}],
        "pools": [{"start": "10.2.0.10", "end": "10.2.0.99"}, {"start": "fd00:7::10", "end": "fd00:7::99"}],
        "rfc4193": false, "sixplane": true, "zt_v6": true,
        "dns": {"domain": "lab.example", "servers": ["10.2.0.53"]},
    }));
    assert_eq!(want.validate(), []);
    let changed = controller.put_network(network.id, &want).await.unwrap();
    assert_eq!(want.differences(&changed), []);
    assert_eq!(controller.network(network.id).await.unwrap(), changed);

    let nothing =
        settings(json!({ "routes": [], "pools": [], "dns": {}, "v4_assign": false, "zt_v6": false }));
    let emptied = controller.put_network(network.id, &nothing).await.unwrap();
    assert!(emptied.routes.is_empty() && emptied.pools.is_empty() && emptied.dns.servers.is_empty());
    assert_eq!((emptied.name.as_str(), emptied.mtu), ("second", 1400));

    controller.delete_network(network.id).await.unwrap();
    assert!(!controller.networks().await.unwrap().contains(&network.id));
}

async fn what_is_not_managed_stays_as_somebody_made_it(site: &impl Site) {
    let controller = site.controller();
    let network = site.network("kept").await;
    let rules = json!([
        {"type": "MATCH_ETHERTYPE", "etherType": 2048, "not": true, "or": false},
        {"type": "ACTION_DROP"}, {"type": "ACTION_ACCEPT"},
    ]);
    let fields = json!({
        "rules": rules, "tags": [{"id": 7, "default": 2}], "capabilities": [{"id": 3, "default": false, "rules": []}],
        "v6AssignMode": {"6plane": true, "rfc4193": true, "zt": false}, "multicastLimit": 16,
    });
    site.edit(network, fields).await;
    let before = controller.network(network).await.unwrap();
    assert_eq!(
        (before.rules.len(), before.tags.len(), before.capabilities.len()),
        (3, 1, 1)
    );

    let want = settings(json!({ "name": "renamed", "rfc4193": false }));
    let after = controller.put_network(network, &want).await.unwrap();
    assert_eq!(after.name, "renamed");
    assert_eq!(
        (&after.rules, &after.tags, &after.capabilities),
        (&before.rules, &before.tags, &before.capabilities)
    );
    assert!(after.v6_assign.sixplane && !after.v6_assign.rfc4193);
    assert_eq!((after.multicast_limit, after.routes), (16, before.routes));
    controller.delete_network(network).await.unwrap();
}

async fn a_second_change_to_the_same_finds_nothing_to_do(site: &impl Site) {
    let controller = site.controller();
    let network = site.network("same").await;
    let want = settings(json!({ "name": "other", "mtu": 1500, "routes": [{"target": "10.9.0.0/16"}] }));
    let first = controller.put_network(network, &want).await.unwrap();
    let second = controller.put_network(network, &want).await.unwrap();
    assert_eq!((want.differences(&first), &first), (Vec::new(), &second));

    let change = MemberChange::authorized(true);
    let first = controller.change_member(network, node(1), &change).await.unwrap();
    let second = controller.change_member(network, node(1), &change).await.unwrap();
    assert_eq!(first, second);
    controller.delete_network(network).await.unwrap();
}

async fn a_public_network_becomes_private_with_any_change(site: &impl Site) {
    let controller = site.controller();
    let network = site.network("open").await;
    site.edit(network, json!({ "private": false })).await;
    let open = controller.network(network).await.unwrap();
    let nothing = NetworkSettings::default();
    assert_eq!(nothing.differences(&open)[0].field, "private");
    assert!(controller.put_network(network, &nothing).await.unwrap().private);
    controller.delete_network(network).await.unwrap();
}

async fn a_member_is_known_before_it_asks_and_is_changed_part_by_part(site: &impl Site) {
    let controller = site.controller();
    let network = site.network("members").await;
    assert!(controller.members(network).await.unwrap().by_node.is_empty());
    let member = controller.authorize(network, node(1), true).await.unwrap();
    assert!(member.authorized && !member.has_asked() && member.addresses.is_empty());
    assert!(member.last_authorized > 0 && member.last_deauthorized == 0);

    let named = MemberChange {
        name: Some("pump".into()),
        addresses: Some(vec!["10.147.20.7".into(), "fd00:0::7".into()]),
        ..MemberChange::default()
    };
    let member = controller.change_member(network, node(1), &named).await.unwrap();
    assert!(member.authorized && named.holds_in(&member));
    let member = controller.authorize(network, node(1), false).await.unwrap();
    assert!(!member.authorized && named.holds_in(&member) && member.last_deauthorized > 0);
    let bare = MemberChange {
        addresses: Some(Vec::new()),
        ..MemberChange::default()
    };
    let member = controller.change_member(network, node(1), &bare).await.unwrap();
    assert_eq!(
        (member.addresses.len(), member.name.as_deref()),
        (0, Some("pump"))
    );
    assert_eq!(controller.member(network, node(1)).await.unwrap(), member);
    let listed = controller.members(network).await.unwrap();
    assert_eq!((&listed.by_node[&node(1)], listed.skipped.len()), (&member, 0));

    controller.delete_member(network, node(1)).await.unwrap();
    assert!(controller.members(network).await.unwrap().by_node.is_empty());
    controller.delete_network(network).await.unwrap();
}

async fn many_members_are_changed_and_listed_at_once(site: &impl Site) {
    let controller = site.controller();
    let network = site.network("many").await;
    let changes: BTreeMap<_, _> = (1..=97)
        .map(|number| (node(number), MemberChange::authorized(number % 3 > 0)))
        .collect();
    let answers = controller.change_members(network, &changes).await;
    assert_eq!(answers.len(), changes.len());
    let members = controller.members(network).await.unwrap();
    for (node, change) in &changes {
        let answered: &Member = answers[node].as_ref().unwrap();
        assert!(change.holds_in(answered));
        assert_eq!(answered, &members.by_node[node]);
    }
    assert_eq!(members.by_node.len(), changes.len());
    controller.delete_network(network).await.unwrap();
}

async fn what_is_not_there_is_not_found_and_deleted_already(site: &impl Site) {
    let controller = site.controller();
    let network = site.network("gone").await;
    let missing = |error: Error| assert!(matches!(error, Error::NotFound { .. }), "{error}");
    missing(controller.member(network, node(1)).await.unwrap_err());
    controller.delete_member(network, node(1)).await.unwrap();
    controller.delete_network(network).await.unwrap();
    controller.delete_network(network).await.unwrap();
    controller.delete_member(network, node(1)).await.unwrap();
    missing(controller.network(network).await.unwrap_err());
    missing(controller.members(network).await.unwrap_err());
    missing(controller.authorize(network, node(1), true).await.unwrap_err());
}

async fn what_a_controller_drops_is_noticed(site: &impl Site) {
    let controller = site.controller();
    let network = site.network("dropped").await;
    let change = MemberChange {
        addresses: Some(vec!["10.147.20.7".into(), "nonsense".into()]),
        ..MemberChange::default()
    };
    let error = controller
        .change_member(network, node(1), &change)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Disagrees { want, have, .. } if want.contains("nonsense") && !have.contains("nonsense")),
        "{error}"
    );
    let mtu = settings(json!({ "mtu": 70_000 }));
    let error = controller.put_network(network, &mtu).await.unwrap_err();
    assert!(
        matches!(&error, Error::Disagrees { want, .. } if want == "mtu 70000"),
        "{error}"
    );
    controller.delete_network(network).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_network_of_a_given_id_is_made_below_the_controllers_own_and_nowhere_else() {
    only_the_local_controller_makes_a_network_of_a_given_id_below_its_own(&Local::fake()).await;
    let central = Cloud::new();
    let absent = NetworkId::at(node(1), 7);
    let put = central
        .controller()
        .put_network(absent, &NetworkSettings::default())
        .await;
    assert!(matches!(put, Err(Error::NotFound { .. })));
}

async fn only_the_local_controller_makes_a_network_of_a_given_id_below_its_own(local: &Local) {
    let controller = &local.controller;
    assert_eq!(controller.ready().await.unwrap(), Readiness::Ready);
    let chosen = NetworkId::at(controller.address(), 0x00_00aa);
    let want = settings(json!({ "name": "chosen" }));
    let made = controller.put_network(chosen, &want).await.unwrap();
    assert!(made.id == chosen && made.private && made.name == "chosen");
    controller.delete_network(chosen).await.unwrap();

    let foreign = NetworkId::at(node(1), 0x00_00aa);
    for error in [
        controller.put_network(foreign, &want).await.unwrap_err(),
        controller.network(foreign).await.unwrap_err(),
        controller.delete_network(foreign).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
    }
    let changes = BTreeMap::from([(node(2), MemberChange::authorized(true))]);
    let answers = controller.change_members(foreign, &changes).await;
    assert!(matches!(answers[&node(2)], Err(Error::Foreign { .. })));
    assert!(!controller.networks().await.unwrap().contains(&foreign));
}

#[tokio::test(start_paused = true)]
async fn rules_that_central_compiles_itself_are_not_sent_there() {
    let central = Cloud::new();
    let network = central.network("rules").await;
    let want = settings(json!({ "name": "x", "rules": [] }));
    let put = central.controller().put_network(network, &want).await;
    assert!(matches!(put, Err(Error::Unsupported { .. })));
    assert_eq!(central.controller().network(network).await.unwrap().name, "rules");
}

#[tokio::test(start_paused = true)]
async fn rules_tags_and_capabilities_that_are_managed_are_set_on_a_local_controller() {
    let local = Local::fake();
    let network = local.network("rules").await;
    let want = settings(json!({
        "rules": [{"type": "ACTION_DROP"}], "tags": [{"id": 2, "default": 1}], "capabilities": [],
    }));
    let network = local.controller.put_network(network, &want).await.unwrap();
    assert_eq!((network.rules.len(), network.tags.len()), (1, 1));
}

/// A controller, and a way to change its networks past the client.
trait Site {
    type Kind: Controller;

    fn controller(&self) -> &Self::Kind;

    /// Sets fields of a network's record.
    fn edit(&self, network: NetworkId, fields: Value) -> impl Future<Output = ()>;

    async fn network(&self, name: &str) -> NetworkId {
        let new = NewNetwork {
            name: name.to_owned(),
            v4: Some("10.147.20.0/24".parse().unwrap()),
            ..NewNetwork::default()
        };
        self.controller().create_network(&new).await.unwrap().id
    }
}

/// The controller of one service.
struct Local {
    controller: LocalController,
    dial: Arc<dyn Dial>,
    token: Token,
}

impl Local {
    fn new(dial: Arc<dyn Dial>, token: Token, id: NodeId) -> Self {
        let controller = Service::new(dial.clone(), token.clone()).controller(id);
        Self {
            controller,
            dial,
            token,
        }
    }

    fn fake() -> Self {
        let lab = Lab::new();
        let id = lab.grow();
        Self::new(lab.dial(id), lab.token(id), id)
    }
}

impl Site for Local {
    type Kind = LocalController;

    fn controller(&self) -> &LocalController {
        &self.controller
    }

    async fn edit(&self, network: NetworkId, fields: Value) {
        let body = fields.to_string();
        let request = format!(
            "POST /controller/network/{network} HTTP/1.1\r\nHost: x\r\nX-ZT1-Auth: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.token.expose(),
            body.len()
        );
        let mut wire = self.dial.dial().await.unwrap();
        wire.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = time::timeout(Duration::from_secs(10), wire.read_to_string(&mut answer));
        read.await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// A simulated Central.
struct Cloud {
    fake: FakeCentral,
    client: Central,
}

impl Cloud {
    fn new() -> Self {
        let fake = FakeCentral::new();
        let client = fake.client();
        Self { fake, client }
    }
}

impl Site for Cloud {
    type Kind = Central;

    fn controller(&self) -> &Central {
        &self.client
    }

    async fn edit(&self, network: NetworkId, fields: Value) {
        self.fake.edit(network, &fields);
    }
}

fn settings(value: Value) -> NetworkSettings {
    serde_json::from_value(value).unwrap()
}

fn node(number: u64) -> NodeId {
    NodeId::new(0x10_0000_0000 + number).unwrap()
}
