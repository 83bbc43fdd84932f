//! What a plan promises, tried on worlds that a fake engine has been through.

use std::sync::Arc;

use picket_clock::Clock;
use picket_proto::shard::{Decky, DeckyNetwork, DeckyService, Driver, Shard};
use proptest::prelude::*;

use super::*;
use crate::deckies::{
    allow::{Allowed, GatewayRule, NetworkRule, permit},
    engine::Engine as _,
    fake::FakeEngine,
    form::{BaseImage, forms},
    pass::Deckies,
};

/// An owner for tests.
pub(crate) fn owner() -> Owner {
    Owner {
        trust_domain: "example.org".to_owned(),
        host: "6f1c2a52-9c1f-4f3e-8a77-0c7a5f1e2d3b".parse().unwrap(),
    }
}

/// A shard of `count` deckies, each with an ssh and a web service, on one bridge.
pub(crate) fn shard(count: u8) -> Shard {
    let service = |name: &str, port| DeckyService {
        name: name.parse().unwrap(),
        image: "picket-decoy:latest".to_owned(),
        command: vec![name.to_owned()],
        environment: BTreeMap::new(),
        ports: vec![port],
    };
    let decky = |number: u8| Decky {
        name: format!("decky-{number:02}").parse().unwrap(),
        deployment: "site".parse().unwrap(),
        network: "lan".parse().unwrap(),
        address: [10, 77, 0, 10 + number].into(),
        hostname: format!("web-{number:02}").parse().unwrap(),
        services: vec![service("ssh", 22), service("http", 80)],
    };
    let lan = DeckyNetwork {
        name: "lan".parse().unwrap(),
        driver: Driver::Bridge,
        parent: None,
        subnet: "10.77.0.0/24".parse().unwrap(),
        gateway: None,
    };
    Shard {
        deckies: (0..count)
            .map(decky)
            .map(|decky| (decky.name.clone(), decky))
            .collect(),
        networks: BTreeMap::from([(lan.name.clone(), lan)]),
    }
}

/// Allows what [`shard`] wants.
pub(crate) fn allowed() -> Allowed {
    Allowed {
        images: vec!["picket-decoy:*".parse().unwrap(), "missing:*".parse().unwrap()],
        networks: vec![NetworkRule {
            driver: Driver::Bridge,
            parent: None,
            subnet: "10.77.0.0/16".parse().unwrap(),
            gateway: GatewayRule::Never,
        }],
        most: 64,
        ports: vec!["22".parse().unwrap(), "80".parse().unwrap()],
    }
}

/// What may happen between two passes.
#[derive(Debug, Clone)]
enum Happening {
    Kill(usize),
    Remove(usize),
    Restart(usize),
    Pause(usize),
    NetworkGone,
    Want(Wish),
    Pass,
}

/// A shard somebody may want.
#[derive(Debug, Clone)]
struct Wish {
    count: u8,
    arguments: Vec<bool>,
    subnet: bool,
}

impl Wish {
    fn shard(&self) -> Shard {
        let mut shard = shard(self.count);
        for (decky, changed) in shard.deckies.values_mut().zip(&self.arguments) {
            if *changed {
                decky.services[1].command.push("--banner=nginx".to_owned());
            }
        }
        if self.subnet {
            let lan = shard.networks.values_mut().next().unwrap();
            lan.subnet = "10.77.0.0/23".parse().unwrap();
        }
        shard
    }
}

fn wish() -> impl Strategy<Value = Wish> {
    (
        0_u8..5,
        proptest::collection::vec(any::<bool>(), 5),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(count, arguments, subnet)| Wish {
            count,
            arguments,
            subnet,
        })
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0_usize..20).prop_map(Happening::Kill),
        (0_usize..20).prop_map(Happening::Remove),
        (0_usize..20).prop_map(Happening::Restart),
        (0_usize..20).prop_map(Happening::Pause),
        Just(Happening::NetworkGone),
        wish().prop_map(Happening::Want),
        Just(Happening::Pass),
    ]
}

/// A world after all that, and the shard wanted last.
async fn world(happenings: &[Happening]) -> (Arc<FakeEngine>, Deckies, Shard) {
    let engine = Arc::new(FakeEngine::new());
    engine.load_image("picket-decoy:latest");
    engine.run_foreign("nextcloud");
    let mut deckies = Deckies::new(
        engine.clone(),
        owner(),
        BaseImage::default(),
        allowed(),
        Clock::system(),
    );
    let mut want = shard(2);
    for happening in happenings {
        let names = engine.container_names();
        let victim = |index: &usize| {
            let ours: Vec<_> = names.iter().filter(|name| name.starts_with("picket-")).collect();
            ours.get(index % ours.len().max(1)).map(|name| (*name).clone())
        };
        match happening {
            Happening::Kill(index) => victim(index).iter().for_each(|name| engine.kill(name)),
            Happening::Remove(index) => victim(index).iter().for_each(|name| engine.lose(name)),
            Happening::Restart(index) => victim(index).iter().for_each(|name| engine.restart(name)),
            Happening::Pause(index) => victim(index).iter().for_each(|name| engine.pause(name)),
            Happening::NetworkGone => engine.lose_networks(),
            Happening::Want(wish) => want = wish.shard(),
            Happening::Pass => drop(deckies.pass(&want).await),
        }
    }
    (engine, deckies, want)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_second_pass_has_nothing_to_do(happenings in proptest::collection::vec(happening(), 0..12)) {
        run(async {
            let (engine, mut deckies, want) = world(&happenings).await;
            let first = deckies.pass(&want).await;
            prop_assert_eq!(&first.problems, &vec![]);
            let have = engine.inventory(&owner()).await.unwrap();
            // A network that no decky is on is not made.
            let forms = forms(&permit(&want, &allowed(), &BTreeSet::new()).0, &owner(), &BaseImage::default());
            prop_assert_eq!(plan(&forms, &have, &owner(), &BTreeSet::new()), Plan::default());
            let second = deckies.pass(&want).await;
            prop_assert_eq!(second.steps, vec![]);
            let services: usize = want.deckies.values().map(|decky| decky.services.len()).sum();
            prop_assert_eq!(have.containers.len(), want.deckies.len() + services);
            Ok(())
        })?;
    }

    #[test]
    fn a_plan_keeps_its_order(happenings in proptest::collection::vec(happening(), 0..12)) {
        let (engine, _, want) = run(world(&happenings));
        let have = run(engine.inventory(&owner())).unwrap();
        let steps = plan(&forms(&want, &owner(), &BaseImage::default()), &have, &owner(), &BTreeSet::new()).steps;
        prop_assert!(steps.is_sorted_by_key(Step::phase), "{steps:?}");
        for decky in steps.iter().filter_map(Step::decky) {
            let of_decky: Vec<&Step> = steps.iter().filter(|step| step.decky() == Some(decky)).collect();
            let position = |wanted: &dyn Fn(&Step) -> bool| of_decky.iter().position(|step| wanted(step));
            let base_goes = position(&|step| matches!(step, Step::Stop { role: Role::Base, .. }));
            let base_starts = position(&|step| matches!(step, Step::Start { role: Role::Base, .. }));
            for (at, step) in of_decky.iter().enumerate() {
                match step {
                    Step::Stop { role: Role::Service(_), .. } => {
                        prop_assert!(base_goes.is_none_or(|base| at < base), "{of_decky:?}");
                    }
                    Step::Start { role: Role::Service(_), .. } => {
                        prop_assert!(base_starts.is_none_or(|base| base < at), "{of_decky:?}");
                    }
                    Step::Image(_) | Step::Stop { .. } | Step::Remove { .. } | Step::RemoveNetwork { .. }
                    | Step::CreateNetwork(_) | Step::Create { .. } | Step::Start { .. } => {}
                }
            }
        }
    }

    #[test]
    fn a_container_of_another_owner_is_in_no_plan(
        happenings in proptest::collection::vec(happening(), 0..12),
        foreign in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let (engine, _, want) = run(world(&happenings));
        let mut have = run(engine.inventory(&owner())).unwrap();
        let mut theirs = BTreeSet::new();
        for (container, foreign) in have.containers.iter_mut().zip(&foreign) {
            if *foreign {
                container.owner = "example.org/00000000-0000-4000-8000-000000000000".to_owned();
                theirs.insert(container.id.clone());
            }
        }
        for network in &mut have.networks {
            if foreign[39] {
                network.owner = "elsewhere.org/6f1c2a52-9c1f-4f3e-8a77-0c7a5f1e2d3b".to_owned();
            }
        }
        for step in plan(&forms(&want, &owner(), &BaseImage::default()), &have, &owner(), &BTreeSet::new()).steps {
            let touched = match &step {
                Step::Stop { id, .. } | Step::Remove { id, .. } => Some(id),
                Step::Start { id, .. } => id.as_ref(),
                Step::Create { base, .. } => base.as_ref(),
                Step::RemoveNetwork { .. } => {
                    prop_assert!(!foreign[39]);
                    None
                }
                Step::Image(_) | Step::CreateNetwork(_) => None,
            };
            prop_assert!(touched.is_none_or(|id| !theirs.contains(id)), "{step:?}");
        }
    }

    #[test]
    fn a_decky_left_alone_is_in_no_plan(happenings in proptest::collection::vec(happening(), 0..12), other in wish()) {
        let (engine, _, _) = run(world(&happenings));
        let have = run(engine.inventory(&owner())).unwrap();
        let alone = BTreeSet::from(["decky-01".parse().unwrap()]);
        let plan = plan(&forms(&other.shard(), &owner(), &BaseImage::default()), &have, &owner(), &alone);
        prop_assert!(plan.steps.iter().all(|step| step.decky() != alone.first()), "{plan:?}");
        let its_network = have.containers.iter().find(|one| alone.contains(&one.decky)).and_then(|one| one.network.as_ref());
        for step in &plan.steps {
            if let Step::RemoveNetwork { id, .. } = step {
                prop_assert!(Some(id) != its_network, "{plan:?}");
            }
        }
    }
}

#[test]
fn adding_a_decky_touches_no_other() {
    let (engine, _, _) = run(world(&[Happening::Pass]));
    let have = run(engine.inventory(&owner())).unwrap();
    let more = forms(&shard(3), &owner(), &BaseImage::default());
    let steps = plan(&more, &have, &owner(), &BTreeSet::new()).steps;
    assert_eq!(
        steps.len(),
        1 + 6,
        "an image, and three containers to make and start: {steps:?}"
    );
    let added = "decky-02".parse().unwrap();
    assert!(
        steps
            .iter()
            .all(|step| step.decky().is_none_or(|decky| *decky == added))
    );
}

#[test]
fn a_service_in_a_dead_namespace_is_recreated_even_where_processes_cannot_be_looked_at() {
    let (engine, _, want) = run(world(&[Happening::Pass]));
    engine.restart("picket-6f1c2a52-decky-00");
    let mut have = run(engine.inventory(&owner())).unwrap();
    let forms = forms(&want, &owner(), &BaseImage::default());
    let seen = plan(&forms, &have, &owner(), &BTreeSet::new());
    let creates = seen
        .steps
        .iter()
        .filter(|step| matches!(step, Step::Create { base: Some(_), .. }));
    assert_eq!(creates.count(), 2, "{seen:?}");
    for container in &mut have.containers {
        container.namespace = None;
    }
    assert_eq!(plan(&forms, &have, &owner(), &BTreeSet::new()), seen);
}

#[test]
fn a_service_is_made_anew_once_for_a_start_of_its_base_whatever_the_clock_says() {
    let (engine, mut deckies, want) = run(world(&[Happening::Pass]));
    engine.restart("picket-6f1c2a52-decky-00");
    // Namespaces cannot be looked at, and the clock was set back after the base had been started.
    let blind = || {
        let mut have = run(engine.inventory(&owner())).unwrap();
        for container in &mut have.containers {
            container.namespace = None;
            if container.role != Role::Base {
                container.started = container
                    .started
                    .map(|at| at - jiff::SignedDuration::from_hours(24));
            }
        }
        have
    };
    let forms = forms(&want, &owner(), &BaseImage::default());
    assert!(plan(&forms, &blind(), &owner(), &BTreeSet::new()).steps.len() >= 8);
    run(deckies.pass(&want));
    let again = plan(&forms, &blind(), &owner(), &BTreeSet::new()).steps;
    assert!(
        again
            .iter()
            .all(|step| step.decky().is_none_or(|name| name.as_str() != "decky-00")),
        "{again:?}"
    );
}
