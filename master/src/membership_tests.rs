use picket_proto::host::Labels;
use picket_zerotier::ids::NetworkId;

use super::*;
use crate::{
    node::NodeStanding,
    record::{
        Pins, Revocation,
        network::{AllowedNode, Governor, KillScope, NetworkRecord},
    },
};

const NODE: &str = "39966434ba";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn network() -> NetworkRecord {
    let id: NetworkId = "5350d87547c880cb".parse().unwrap();
    NetworkRecord {
        mode: NetworkMode::Enforce,
        ..NetworkRecord::watched(id, Governor::CENTRAL, at(0))
    }
}

fn host(standing: HostStanding) -> HostRecord {
    HostRecord {
        id: "6f1c2a52-9c1f-4f3e-8a77-0c7a5f1e2d3b".parse().unwrap(),
        name: "oslo".parse().unwrap(),
        labels: Labels::new([("site".to_owned(), "oslo".to_owned())]).unwrap(),
        note: String::new(),
        enrolled_at: at(0),
        standing,
        pins: Pins::default(),
        node: Some(NODE.parse().unwrap()),
        node_standing: NodeStanding::default(),
        node_identity: None,
        former_nodes: Vec::new(),
    }
}

fn grant(admitted: bool, for_activation: bool) -> GrantRecord {
    GrantRecord {
        network: network().id,
        node: NODE.parse().unwrap(),
        admitted,
        for_activation,
        by: "ada".into(),
        reason: "sensor".into(),
        at: at(10),
    }
}

fn activation(until: i64, ended: Option<i64>) -> ActivationRecord {
    ActivationRecord {
        network: network().id,
        node: NODE.parse().unwrap(),
        by: "ana".into(),
        reason: "on call".into(),
        at: at(20),
        until: at(until),
        ended: ended.map(by_bo),
    }
}

fn by_bo(second: i64) -> Revocation {
    Revocation {
        at: at(second),
        by: "bo".into(),
        reason: "lost".into(),
    }
}

fn kill() -> KillRecord {
    KillRecord {
        id: "k3v9x2mq".into(),
        scope: KillScope::All,
        by: "ada".into(),
        reason: "a leak".into(),
        at: at(30),
        banned: false,
        lifted: None,
    }
}

fn device(removed: bool) -> RegisteredRecord {
    RegisteredRecord {
        node: NODE.parse().unwrap(),
        name: "anas-laptop".parse().unwrap(),
        owner: "ana".into(),
        at: at(0),
        by: "ana".into(),
        removed: removed.then(|| by_bo(40)),
    }
}

/// Of a node that nobody knows.
fn nothing(network: &NetworkRecord) -> Facts<'_> {
    Facts {
        node: NODE.parse().unwrap(),
        network,
        kill: None,
        grant: None,
        activation: None,
        host: None,
        former: None,
        retired: None,
        device: None,
    }
}

fn banned() -> HostRecord {
    host(HostStanding::Banned {
        at: at(40),
        reason: String::new(),
    })
}

#[test]
fn a_node_that_nobody_knows_is_unknown_and_one_that_is_somebodys_is_denied() {
    let (network, oslo, laptop) = (network(), host(HostStanding::Active), device(false));
    let unknown = nothing(&network);
    assert_eq!(authorized(&unknown, at(100)), Decision::Unknown);
    let somebodys = [
        Facts {
            host: Some(&oslo),
            ..unknown
        },
        Facts {
            device: Some(&laptop),
            ..unknown
        },
    ];
    for facts in somebodys {
        assert_eq!(
            authorized(&facts, at(100)),
            Decision::Denied(Because::NotAdmitted)
        );
    }
}

#[test]
fn a_kill_beats_whatever_was_granted_and_covers_whom_nobody_knows() {
    let (network, oslo, granted, killed) =
        (network(), host(HostStanding::Active), grant(true, false), kill());
    let alone = Facts {
        kill: Some(&killed),
        ..nothing(&network)
    };
    let granted = Facts {
        grant: Some(&granted),
        host: Some(&oslo),
        ..alone
    };
    for facts in [alone, granted] {
        let Decision::Denied(because) = authorized(&facts, at(100)) else {
            panic!("a killed node is let on")
        };
        assert!(because.is_urgent());
        assert_eq!(because.to_string(), "killed by ada (kill k3v9x2mq): a leak");
    }
}

#[test]
fn a_ban_beats_a_grant_and_says_so() {
    let (network, oslo, granted) = (network(), banned(), grant(true, false));
    let facts = Facts {
        host: Some(&oslo),
        grant: Some(&granted),
        ..nothing(&network)
    };
    let decision = authorized(&facts, at(100));
    assert_eq!(decision, Decision::Denied(Because::HostBanned(oslo.name.clone())));
}

#[test]
fn a_standing_grant_authorizes_without_end_and_a_revoked_one_denies() {
    let (network, standing, revoked) = (network(), grant(true, false), grant(false, false));
    let with = |grant| Facts {
        grant: Some(grant),
        ..nothing(&network)
    };
    assert!(matches!(
        authorized(&with(&standing), at(100)),
        Decision::Authorized { until: None, .. }
    ));
    let denied = authorized(&with(&revoked), at(100));
    assert!(matches!(denied, Decision::Denied(Because::Revoked { .. })));
}

#[test]
fn an_activation_authorizes_until_its_end_and_not_at_it() {
    let (network, granted, running) = (network(), grant(true, true), activation(100, None));
    let facts = Facts {
        grant: Some(&granted),
        activation: Some(&running),
        ..nothing(&network)
    };
    let on = authorized(&facts, at(99));
    assert!(matches!(on, Decision::Authorized { until: Some(until), .. } if until == at(100)));
    let over = Because::Over {
        at: at(100),
        by: None,
    };
    assert_eq!(authorized(&facts, at(100)), Decision::Denied(over));
    let cut = activation(100, Some(50));
    let facts = Facts {
        activation: Some(&cut),
        ..facts
    };
    let ended = Because::Over {
        at: at(50),
        by: Some("bo".into()),
    };
    assert_eq!(authorized(&facts, at(60)), Decision::Denied(ended));
}

#[test]
fn an_activation_on_a_network_of_the_same_id_that_ended_before_is_worth_nothing() {
    let (mut again, running) = (network(), activation(100, None));
    again.adopted_at = at(30);
    let granted = GrantRecord {
        at: at(40),
        ..grant(true, true)
    };
    let facts = Facts {
        grant: Some(&granted),
        activation: Some(&running),
        ..nothing(&again)
    };
    assert_eq!(authorized(&facts, at(50)), Decision::Denied(Because::NotActive));
}

#[test]
fn who_may_be_activated_and_is_not_is_denied() {
    let (network, granted) = (network(), grant(true, true));
    let facts = Facts {
        grant: Some(&granted),
        ..nothing(&network)
    };
    assert_eq!(authorized(&facts, at(100)), Decision::Denied(Because::NotActive));
}

#[test]
fn an_activation_without_a_grant_that_allows_it_is_worth_nothing() {
    let (network, revoked, running) = (network(), grant(false, false), activation(100, None));
    for grant in [None, Some(&revoked)] {
        let facts = Facts {
            grant,
            activation: Some(&running),
            ..nothing(&network)
        };
        assert!(!authorized(&facts, at(50)).authorizes(), "{grant:?}");
    }
}

#[test]
fn labels_admit_a_host_for_as_long_as_it_has_them_and_a_revocation_beats_them() {
    let (mut ruled, oslo, revoked) = (network(), host(HostStanding::Active), grant(false, false));
    ruled.member_labels = oslo.labels.clone();
    let facts = Facts {
        host: Some(&oslo),
        ..nothing(&ruled)
    };
    assert!(authorized(&facts, at(100)).authorizes());
    let facts = Facts {
        grant: Some(&revoked),
        ..facts
    };
    assert!(!authorized(&facts, at(100)).authorizes());
    let mut moved = oslo.clone();
    moved.labels = Labels::default();
    let facts = Facts {
        host: Some(&moved),
        ..nothing(&ruled)
    };
    assert_eq!(
        authorized(&facts, at(100)),
        Decision::Denied(Because::NotAdmitted)
    );
}

#[test]
fn a_network_without_a_label_rule_admits_no_host_by_its_labels() {
    let (network, oslo) = (network(), host(HostStanding::Active));
    let facts = Facts {
        host: Some(&oslo),
        ..nothing(&network)
    };
    assert!(!authorized(&facts, at(100)).authorizes());
}

#[test]
fn the_settings_file_admits_a_node_with_its_name_and_addresses() {
    let mut network = network();
    let allowed = AllowedNode {
        name: "camera".into(),
        addresses: ["10.147.20.5".parse().unwrap()].into(),
        since: at(5),
    };
    network.allow.insert(NODE.parse().unwrap(), allowed.clone());
    let facts = nothing(&network);
    let rule = rule(&facts, at(100)).unwrap();
    assert!(rule.authorized);
    assert_eq!((rule.name, rule.addresses), (allowed.name, allowed.addresses));
}

#[test]
fn a_revocation_beats_the_settings_that_named_the_node_before_and_not_those_that_name_it_since() {
    let (mut network, revoked) = (network(), grant(false, false));
    for (since, on) in [(9, false), (10, false), (11, true)] {
        let allowed = AllowedNode {
            since: at(since),
            ..AllowedNode::default()
        };
        network.allow.insert(NODE.parse().unwrap(), allowed);
        let facts = Facts {
            grant: Some(&revoked),
            ..nothing(&network)
        };
        assert_eq!(authorized(&facts, at(100)).authorizes(), on, "{since}");
    }
}

#[test]
fn a_permission_ends_with_the_network_and_is_none_for_another_one_of_that_id() {
    let mut network = network();
    network.adopted_at = at(11);
    let (granted, revoked) = (grant(true, false), grant(false, false));
    let facts = |grant| Facts {
        grant: Some(grant),
        ..nothing(&network)
    };
    assert_eq!(authorized(&facts(&granted), at(100)), Decision::Unknown);
    assert!(matches!(
        authorized(&facts(&revoked), at(100)),
        Decision::Denied(Because::Revoked { .. })
    ));
}

#[test]
fn the_controllers_own_node_is_a_member_by_itself_and_a_ban_ends_that_too() {
    for (oslo, on) in [(host(HostStanding::Active), true), (banned(), false)] {
        let mut network = network();
        network.controller = Governor::Host(oslo.id);
        let facts = Facts {
            host: Some(&oslo),
            ..nothing(&network)
        };
        assert_eq!(authorized(&facts, at(100)).authorizes(), on);
    }
}

#[test]
fn a_grant_ends_with_the_host_it_was_for_and_one_made_later_stands() {
    let (network, oslo, granted) = (network(), host(HostStanding::Active), grant(true, false));
    for host in [None, Some(&oslo)] {
        let facts = |retired| Facts {
            grant: Some(&granted),
            host,
            retired: Some((&oslo.name, retired)),
            ..nothing(&network)
        };
        let ended = authorized(&facts(at(11)), at(100));
        assert_eq!(ended, Decision::Denied(Because::HostRetired(oslo.name.clone())));
        assert!(authorized(&facts(at(9)), at(100)).authorizes());
    }
}

#[test]
fn a_node_that_its_host_is_no_longer_is_denied_and_not_forgotten() {
    let (network, oslo) = (network(), host(HostStanding::Active));
    let facts = Facts {
        former: Some(&oslo),
        ..nothing(&network)
    };
    assert_eq!(
        authorized(&facts, at(100)),
        Decision::Denied(Because::HostMoved(oslo.name.clone()))
    );
}

#[test]
fn a_removed_device_stays_denied_unless_it_is_a_hosts_by_now() {
    let (network, oslo, laptop, granted) = (
        network(),
        host(HostStanding::Active),
        device(true),
        grant(true, false),
    );
    let facts = Facts {
        device: Some(&laptop),
        grant: Some(&granted),
        ..nothing(&network)
    };
    assert!(matches!(
        authorized(&facts, at(100)),
        Decision::Denied(Because::DeviceRemoved { .. })
    ));
    let facts = Facts {
        host: Some(&oslo),
        ..facts
    };
    assert!(authorized(&facts, at(100)).authorizes());
}

#[test]
fn nobody_is_on_a_network_that_is_being_deleted() {
    let mut network = network();
    network.mode = NetworkMode::Deleting;
    let granted = grant(true, false);
    let facts = Facts {
        grant: Some(&granted),
        ..nothing(&network)
    };
    assert_eq!(
        authorized(&facts, at(100)),
        Decision::Denied(Because::NetworkDeleted)
    );
}

#[test]
fn names_are_managed_only_where_picket_made_the_network() {
    let (mut network, laptop, granted) = (network(), device(false), grant(true, false));
    let name = |network: &NetworkRecord| {
        let facts = Facts {
            device: Some(&laptop),
            grant: Some(&granted),
            ..nothing(network)
        };
        rule(&facts, at(100)).unwrap().name
    };
    assert_eq!(name(&network), "");
    network.made = true;
    assert_eq!(name(&network), "anas-laptop");
}
