//! Whatever happens, in whatever order: after two passes the controller is what the pure function says.

use std::time::Duration;

use picket_tests::{
    GrantKind::MayActivate, Host, KillScope, MemberDecision, MemberObservation, OperatorRole::Operator,
    Person, Site,
};
use picket_zerotier::{NetworkId, NodeId, controller::Controller as _};
use proptest::{prelude::*, test_runner::Config};

/// Two passes, and the second of a deauthorization that is made again.
const SETTLED: Duration = Duration::from_secs(200);
const NODES: usize = 3;

#[derive(Debug, Clone)]
enum Move {
    Admit(usize),
    Revoke(usize),
    Activate(usize, u64),
    End(usize),
    Kill(usize),
    Unkill(usize),
    Outside(usize, bool),
    Deleted(usize),
    MasterRestarts,
    MasterCrashes,
    AgentRestarts,
    ControllerRestarts,
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let node = 0..NODES;
    let one = prop_oneof![
        node.clone().prop_map(Move::Admit),
        node.clone().prop_map(Move::Revoke),
        (node.clone(), 5_u64..200).prop_map(|(node, lasts)| Move::Activate(node, lasts)),
        node.clone().prop_map(Move::End),
        node.clone().prop_map(Move::Kill),
        node.clone().prop_map(Move::Unkill),
        (node.clone(), any::<bool>()).prop_map(|(node, on)| Move::Outside(node, on)),
        node.prop_map(Move::Deleted),
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
        let network = site.governed_network_on(&oslo).await;
        let nodes: Vec<_> = (0..NODES).map(|_| site.lab().grow()).collect();
        let (ana, bo) = (
            site.person("ana", Operator).await,
            site.person("bo", Operator).await,
        );
        for (number, node) in nodes.iter().enumerate() {
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
            Move::Kill(node) => drop(site.try_kill(KillScope::Node, self.nodes[*node]).await),
            Move::Unkill(node) => drop(site.try_unkill(KillScope::Node, self.nodes[*node]).await),
            Move::Outside(node, on) => {
                drop(
                    self.oslo
                        .controller()
                        .authorize(network, self.nodes[*node], *on)
                        .await,
                );
            }
            Move::Deleted(node) => drop(
                self.oslo
                    .controller()
                    .delete_member(network, self.nodes[*node])
                    .await,
            ),
            Move::MasterRestarts => site.restart_master().await,
            Move::MasterCrashes => {
                site.crash_master().await;
            }
            Move::AgentRestarts => self.oslo.restart().await,
            Move::ControllerRestarts => site.lab().restart(self.oslo.node),
            Move::Wait(seconds) => site.wait(Duration::from_secs(*seconds)).await,
        }
    }

    async fn check(&self) {
        self.site.wait(SETTLED).await;
        let members = self.site.members(self.network).await;
        let records = self.oslo.controller().members(self.network).await.unwrap();
        for node in &self.nodes {
            let shown = members.iter().find(|member| member.node_id == node.to_string());
            let says = shown.is_some_and(|member| member.decision() == MemberDecision::Authorized);
            let has = records.by_node.get(node).is_some_and(|record| record.authorized);
            assert_eq!(has, says, "{node}: {shown:?}");
            let seen = shown.is_some_and(|member| member.observed() == MemberObservation::Authorized);
            assert_eq!(seen, has, "{node}: {shown:?}");
        }
    }
}

#[test]
fn whatever_is_granted_killed_restarted_and_edited_outside_the_controller_ends_as_the_decision_says() {
    let config = Config {
        cases: 12,
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
