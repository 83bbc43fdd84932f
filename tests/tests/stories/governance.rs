//! Whatever happens, in whatever order: after two passes the controller is what the pure function says.

use std::time::Duration;

use picket_proto::wire::{
    admin::{AllowedNode, NetworkForm},
    agent::NetworkSettings,
};
use picket_tests::{
    GrantKind::MayActivate, Host, KillScope, MemberDecision, MemberObservation, OperatorRole::Operator,
    Person, Site,
};
use picket_zerotier::{
    NetworkId, NodeId,
    controller::{Controller as _, Member, MemberChange},
    settings,
};
use proptest::{prelude::*, test_runner::Config};

/// Two passes, and the second of a deauthorization that is made again.
const SETTLED: Duration = Duration::from_secs(200);
/// Those of these are ana's devices, and each has a name that Picket keeps.
const NODES: usize = 3;
/// One node more, which the settings file names, with a name and an address.
const NAMED: usize = NODES;
const NAME: &str = "pump";
const ADDRESS: &str = "10.147.20.77";
const MTU: u32 = 1400;

#[derive(Debug, Clone)]
enum Move {
    Admit(usize),
    Revoke(usize),
    Activate(usize, u64),
    End(usize),
    Kill(Whom),
    Unkill(Whom),
    Outside(usize, Edit),
    Settings(u32),
    Deleted(usize),
    MasterRestarts,
    MasterCrashes,
    AgentRestarts,
    ControllerRestarts,
    Wait(u64),
}

/// Whom a kill is for.
#[derive(Debug, Clone, Copy)]
enum Whom {
    Node(usize),
    Owner,
    Network,
    All,
}

/// What somebody changes in a member's record at the controller.
#[derive(Debug, Clone, Copy)]
enum Edit {
    Authorized(bool),
    Name,
    Addresses(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let (node, record) = (0..NODES, 0..=NAMED);
    let whom = prop_oneof![
        3 => record.clone().prop_map(Whom::Node),
        1 => Just(Whom::Owner),
        1 => Just(Whom::Network),
        1 => Just(Whom::All),
    ];
    let edit = prop_oneof![
        2 => any::<bool>().prop_map(Edit::Authorized),
        1 => Just(Edit::Name),
        1 => (0_usize..3).prop_map(Edit::Addresses),
    ];
    let one = prop_oneof![
        node.clone().prop_map(Move::Admit),
        node.clone().prop_map(Move::Revoke),
        (node.clone(), 5_u64..200).prop_map(|(node, lasts)| Move::Activate(node, lasts)),
        node.prop_map(Move::End),
        whom.clone().prop_map(Move::Kill),
        whom.prop_map(Move::Unkill),
        (record.clone(), edit).prop_map(|(node, edit)| Move::Outside(node, edit)),
        (1300_u32..1600).prop_map(Move::Settings),
        record.prop_map(Move::Deleted),
        Just(Move::MasterRestarts),
        Just(Move::MasterCrashes),
        Just(Move::AgentRestarts),
        Just(Move::ControllerRestarts),
        (1_u64..90).prop_map(Move::Wait),
    ];
    prop::collection::vec(one, 1..14)
}

/// A site, its network, the nodes it is about, and two who decide.
struct Scene {
    site: Site,
    oslo: Host,
    network: NetworkId,
    nodes: Vec<NodeId>,
    ana: Person,
    bo: Person,
}

impl Scene {
    async fn new() -> Self {
        let site = Site::new().await;
        let oslo = site.enroll("oslo").await;
        let nodes: Vec<_> = (0..=NAMED).map(|_| site.lab().grow()).collect();
        site.until_believed("oslo", oslo.node).await;
        let network = site.create(&oslo, form(nodes[NAMED])).await;
        let (ana, bo) = (
            site.person("ana", Operator).await,
            site.person("bo", Operator).await,
        );
        for (number, node) in nodes.iter().enumerate().take(NODES) {
            ana.register(node, &format!("device-{number}"), "").await.unwrap();
        }
        Self {
            site,
            oslo,
            network,
            nodes,
            ana,
            bo,
        }
    }

    /// What is refused as things stand changes nothing, and is a move all the same.
    async fn make(&self, one: &Move) {
        let (site, network) = (&self.site, self.network);
        match one {
            Move::Admit(node) => drop(self.bo.admit(network, self.nodes[*node], None).await),
            Move::Revoke(node) => drop(self.bo.revoke(network, self.nodes[*node]).await),
            Move::Activate(node, lasts) => {
                let node = self.nodes[*node];
                drop(self.ana.request(network, node).await);
                drop(self.bo.approve(network, node, MayActivate).await);
                let lasts = Duration::from_secs(*lasts);
                drop(self.ana.activate(network, node, Some(lasts)).await);
            }
            Move::End(node) => drop(self.ana.end(network, self.nodes[*node]).await),
            Move::Kill(whom) => {
                let (scope, subject) = self.subject(*whom);
                drop(site.try_kill(scope, subject).await);
            }
            Move::Unkill(whom) => {
                let (scope, subject) = self.subject(*whom);
                drop(site.try_unkill(scope, subject).await);
            }
            Move::Outside(node, edit) => {
                let (controller, node) = (self.oslo.controller(), self.nodes[*node]);
                drop(controller.change_member(network, node, &change(*edit)).await);
            }
            Move::Settings(mtu) => {
                let meddled = settings::NetworkSettings {
                    mtu: Some(*mtu),
                    ..settings::NetworkSettings::default()
                };
                drop(self.oslo.controller().put_network(network, &meddled).await);
            }
            Move::Deleted(node) => {
                let controller = self.oslo.controller();
                drop(controller.delete_member(network, self.nodes[*node]).await);
            }
            Move::MasterRestarts => site.restart_master().await,
            Move::MasterCrashes => {
                site.crash_master().await;
            }
            Move::AgentRestarts => self.oslo.restart().await,
            Move::ControllerRestarts => site.lab().restart(self.oslo.node),
            Move::Wait(seconds) => site.wait(Duration::from_secs(*seconds)).await,
        }
    }

    fn subject(&self, whom: Whom) -> (KillScope, String) {
        match whom {
            Whom::Node(node) => (KillScope::Node, self.nodes[node].to_string()),
            Whom::Owner => (KillScope::Owner, self.ana.name.clone()),
            Whom::Network => (KillScope::Network, self.network.to_string()),
            Whom::All => (KillScope::All, String::new()),
        }
    }

    async fn check(&self) {
        self.site.wait(SETTLED).await;
        let members = self.site.members(self.network).await;
        let controller = self.oslo.controller();
        let records = controller.members(self.network).await.unwrap();
        let settings = controller.network(self.network).await.unwrap();
        assert_eq!((settings.mtu, settings.private), (MTU, true));
        for (number, node) in self.nodes.iter().enumerate() {
            let shown = members.iter().find(|member| member.node_id == node.to_string());
            let says = shown.is_some_and(|member| member.decision() == MemberDecision::Authorized);
            let has = records.by_node.get(node).is_some_and(|record| record.authorized);
            assert_eq!(has, says, "{node}: {shown:?}");
            let seen = shown.is_some_and(|member| member.observed() == MemberObservation::Authorized);
            assert_eq!(seen, has, "{node}: {shown:?}");
            if let Some(record) = records.by_node.get(node).filter(|_| has) {
                check_record(number, record);
            }
        }
    }
}

/// What the network is to be: an MTU of its own, and one node more than is admitted.
fn form(named: NodeId) -> NetworkForm {
    let settings = NetworkSettings {
        mtu: Some(MTU),
        ..NetworkSettings::default()
    };
    let allowed = AllowedNode {
        node: named.to_string(),
        name: NAME.to_owned(),
        addresses: vec![ADDRESS.to_owned()],
    };
    NetworkForm {
        settings: Some(settings),
        allow: vec![allowed],
        ..NetworkForm::default()
    }
}

fn change(edit: Edit) -> MemberChange {
    match edit {
        Edit::Authorized(on) => MemberChange::authorized(on),
        Edit::Name => MemberChange {
            name: Some("somebody else's".to_owned()),
            ..MemberChange::default()
        },
        Edit::Addresses(count) => MemberChange {
            addresses: Some(
                (0..count)
                    .map(|last| format!("10.147.20.{}", 200 + last))
                    .collect(),
            ),
            ..MemberChange::default()
        },
    }
}

/// A member that is let on is called as it is to be, and is where it is to be when that was said.
fn check_record(number: usize, record: &Member) {
    let name = record.name.as_deref().unwrap_or_default();
    if number == NAMED {
        assert_eq!((name, &record.addresses[..]), (NAME, &[ADDRESS.to_owned()][..]));
    } else {
        assert_eq!(name, format!("device-{number}"));
    }
}

#[test]
fn whatever_is_granted_killed_restarted_and_edited_outside_the_controller_ends_as_the_decision_says() {
    let config = Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    };
    proptest!(config, |(moves in moves())| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let scene = Scene::new().await;
            for one in &moves {
                scene.make(one).await;
            }
            scene.check().await;
        });
    });
}
