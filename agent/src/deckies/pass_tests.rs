//! Each rule of a pass, on the fake engine.

use picket_proto::status::ServiceState;

use super::*;
use crate::deckies::{
    fake::FakeEngine,
    form::label,
    plan::tests::{allowed, owner, shard},
};

const BASE: &str = "picket-6f1c2a52-decky-00";
const SSH: &str = "picket-6f1c2a52-decky-00_ssh";

fn name(name: &str) -> Name {
    name.parse().unwrap()
}

fn house() -> (Arc<FakeEngine>, Deckies) {
    let engine = Arc::new(FakeEngine::new());
    engine.load_image("picket-decoy:latest");
    let deckies = Deckies::new(
        engine.clone(),
        owner(),
        BaseImage::default(),
        allowed(),
        Clock::system(),
    );
    (engine, deckies)
}

async fn ids(engine: &FakeEngine) -> BTreeMap<String, (ContainerId, Option<jiff::Timestamp>)> {
    let have = engine.inventory(&owner()).await.unwrap();
    have.containers
        .into_iter()
        .map(|one| (one.docker_name, (one.id, one.started)))
        .collect()
}

fn states(report: &Report) -> Vec<DeckyState> {
    report.deckies.deckies.iter().map(|decky| decky.state).collect()
}

#[tokio::test]
async fn a_shard_comes_up_and_says_so() {
    let (_, mut deckies) = house();
    let report = deckies.pass(&shard(6)).await;
    assert_eq!(report.outcome, OutcomeStatus::Done);
    assert_eq!(states(&report), [DeckyState::Running; 6]);
    assert!(
        report
            .deckies
            .deckies
            .iter()
            .all(|decky| decky.services.len() == 2 && decky.problem.is_empty())
    );
}

#[tokio::test]
async fn adding_and_removing_a_decky_restarts_no_other() {
    let (engine, mut deckies) = house();
    deckies.pass(&shard(3)).await;
    let before = ids(&engine).await;
    deckies.pass(&shard(4)).await;
    let after = ids(&engine).await;
    assert_eq!(after.len(), 12);
    assert!(before.iter().all(|(name, id)| after.get(name) == Some(id)));
    deckies.pass(&shard(3)).await;
    assert_eq!(ids(&engine).await, before);
}

#[tokio::test]
async fn what_is_killed_or_removed_comes_back_and_the_rest_stays() {
    let (engine, mut deckies) = house();
    deckies.pass(&shard(2)).await;
    let before = ids(&engine).await;
    engine.kill(SSH);
    engine.lose("picket-6f1c2a52-decky-01_http");
    let status = deckies.observe(&shard(2)).await;
    assert_eq!(status.deckies[0].state, DeckyState::Degraded);
    assert_eq!(
        status.deckies[0].problem,
        "service ssh: it ended with exit code 137"
    );
    let report = deckies.pass(&shard(2)).await;
    assert_eq!(states(&report), [DeckyState::Running; 2]);
    let changed: Vec<_> = ids(&engine)
        .await
        .into_iter()
        .filter(|(name, id)| before[name] != *id)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(changed, [SSH, "picket-6f1c2a52-decky-01_http"]);
}

#[tokio::test]
async fn a_base_that_was_restarted_gets_new_services() {
    let (engine, mut deckies) = house();
    deckies.pass(&shard(2)).await;
    let before = ids(&engine).await;
    engine.restart(BASE);
    let status = deckies.observe(&shard(2)).await;
    assert_eq!(
        status.deckies[0].state,
        DeckyState::Degraded,
        "Docker calls all of it running"
    );
    assert_eq!(states(&deckies.pass(&shard(2)).await), [DeckyState::Running; 2]);
    let after = ids(&engine).await;
    assert_eq!(after[BASE].0, before[BASE].0, "the base stays");
    assert_ne!(after[SSH].0, before[SSH].0);
    assert_eq!(
        after["picket-6f1c2a52-decky-01_ssh"],
        before["picket-6f1c2a52-decky-01_ssh"]
    );
}

#[tokio::test]
async fn removal_leaves_nothing_of_ours_and_everything_of_others() {
    let (engine, mut deckies) = house();
    engine.run_foreign("nextcloud");
    engine.run_foreign("picket-lookalike");
    deckies.pass(&shard(3)).await;
    let report = deckies.pass(&Shard::default()).await;
    assert_eq!(report.outcome, OutcomeStatus::Done);
    assert_eq!(engine.container_names(), ["nextcloud", "picket-lookalike"]);
    assert_eq!(engine.network_names(), [""; 0]);
}

#[tokio::test]
async fn a_foreign_container_with_our_name_fails_that_decky_only() {
    let (engine, mut deckies) = house();
    engine.run_foreign(BASE);
    let report = deckies.pass(&shard(2)).await;
    assert_eq!(report.outcome, OutcomeStatus::Failed);
    assert_eq!(states(&report), [DeckyState::Failed, DeckyState::Running]);
    assert!(
        report.problems[0].message.contains("already in use"),
        "{:?}",
        report.problems
    );
    assert!(engine.container_names().contains(&BASE.to_owned()));
}

#[tokio::test]
async fn an_engine_that_is_away_makes_deckies_unknown_and_the_attempt_blocked() {
    let (engine, mut deckies) = house();
    deckies.pass(&shard(2)).await;
    let before = ids(&engine).await;
    engine.go_away();
    let report = deckies.pass(&shard(2)).await;
    assert_eq!(report.outcome, OutcomeStatus::Blocked);
    assert_eq!(states(&report), [DeckyState::Unknown; 2]);
    assert!(matches!(report.deckies.service, ServiceState::Unreachable(_)));
    engine.come_back();
    let report = deckies.pass(&shard(2)).await;
    assert_eq!((report.outcome, report.steps), (OutcomeStatus::Done, vec![]));
    assert_eq!(ids(&engine).await, before, "nothing was restarted");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_is_tried_once_and_the_old_form_goes_on() {
    let (engine, mut deckies) = house();
    deckies.pass(&shard(2)).await;
    let before = ids(&engine).await;
    let mut want = shard(2);
    want.deckies.get_mut(&name("decky-00")).unwrap().services[0].image = "missing:1".to_owned();
    for _ in 0..3 {
        let report = deckies.pass(&want).await;
        assert_eq!(report.outcome, OutcomeStatus::Failed);
        assert_eq!(states(&report), [DeckyState::Degraded, DeckyState::Running]);
        assert!(
            report.deckies.deckies[0]
                .problem
                .starts_with("get the image missing:1; load it")
        );
        assert_eq!(ids(&engine).await, before);
        assert_eq!(engine.pulls("missing:1"), 1);
    }
    tokio::time::advance(FORGET_AFTER).await;
    deckies.pass(&want).await;
    assert_eq!(engine.pulls("missing:1"), 2);
    engine.load_image("missing:1");
    assert_eq!(
        deckies.pass(&want).await.outcome,
        OutcomeStatus::Done,
        "somebody loaded it by hand"
    );
}

#[tokio::test]
async fn one_pull_serves_every_decky_that_needs_the_image() {
    let (engine, mut deckies) = house();
    engine.publish_image("picket-decoy:2");
    let mut want = shard(4);
    for decky in want.deckies.values_mut() {
        decky.services[0].image = "picket-decoy:2".to_owned();
    }
    assert_eq!(deckies.pass(&want).await.outcome, OutcomeStatus::Done);
    assert_eq!(engine.pulls("picket-decoy:2"), 1);
}

#[tokio::test]
async fn a_container_that_cannot_be_started_fails_its_decky_until_its_content_changes() {
    let (engine, mut deckies) = house();
    engine.load_image("picket-decoy:broken");
    engine.refuse_to_start("picket-decoy:broken");
    let mut want = shard(2);
    want.deckies.get_mut(&name("decky-00")).unwrap().services[0].image = "picket-decoy:broken".to_owned();
    let report = deckies.pass(&want).await;
    assert_eq!(report.outcome, OutcomeStatus::Failed);
    assert_eq!(states(&report), [DeckyState::Degraded, DeckyState::Running]);
    assert_eq!(deckies.pass(&want).await.steps, vec![], "it is not tried again");
    assert_eq!(states(&deckies.pass(&shard(2)).await), [DeckyState::Running; 2]);
}

#[tokio::test]
async fn a_refused_decky_fails_and_the_rest_is_applied() {
    let (engine, mut deckies) = house();
    let mut want = shard(3);
    want.deckies.get_mut(&name("decky-01")).unwrap().services[0].image = "evil:latest".to_owned();
    let report = deckies.pass(&want).await;
    assert_eq!(report.outcome, OutcomeStatus::Failed);
    assert_eq!(
        states(&report),
        [DeckyState::Running, DeckyState::Failed, DeckyState::Running]
    );
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].subject, "decky-01");
    assert_eq!((engine.pulls("evil:latest"), ids(&engine).await.len()), (0, 6));
}

#[tokio::test]
async fn a_network_that_changes_takes_its_deckies_along() {
    let (engine, mut deckies) = house();
    deckies.pass(&shard(2)).await;
    let before = ids(&engine).await;
    let mut want = shard(2);
    want.networks.get_mut(&name("lan")).unwrap().subnet = "10.77.0.0/23".parse().unwrap();
    let report = deckies.pass(&want).await;
    assert_eq!(report.outcome, OutcomeStatus::Done, "{:?}", report.problems);
    assert!(ids(&engine).await.iter().all(|(name, id)| before[name] != *id));
}

#[tokio::test]
async fn a_network_that_changes_waits_for_a_decky_on_it_that_may_not() {
    let (engine, mut deckies) = house();
    deckies.pass(&shard(2)).await;
    let before = ids(&engine).await;
    let mut want = shard(2);
    want.networks.get_mut(&name("lan")).unwrap().subnet = "10.77.0.0/23".parse().unwrap();
    want.deckies.get_mut(&name("decky-01")).unwrap().services[0].image = "evil:latest".to_owned();
    let report = deckies.pass(&want).await;
    assert_eq!(report.outcome, OutcomeStatus::Blocked);
    assert_eq!(ids(&engine).await, before);
    assert!(
        report
            .problems
            .iter()
            .any(|problem| problem.message.contains("network lan changes when"))
    );
}

#[tokio::test]
async fn an_object_of_ours_that_makes_no_sense_is_skipped_named_and_counted() {
    let (engine, mut deckies) = house();
    deckies.pass(&shard(1)).await;
    engine.run_foreign("odd");
    engine.relabel("odd", label::OWNER, &owner().label());
    let report = deckies.pass(&shard(1)).await;
    assert_eq!((report.outcome, report.skipped_count), (OutcomeStatus::Done, 1));
    assert_eq!(report.skipped[0].to_string(), "odd: label picket.role is missing");
    assert!(engine.container_names().contains(&"odd".to_owned()));
}

#[tokio::test]
async fn a_decky_that_runs_and_is_no_longer_allowed_as_it_is_goes() {
    let (engine, mut deckies) = house();
    let before: Allowed = allowed();
    deckies.pass(&shard(2)).await;
    for forbid in [
        Allowed {
            images: Vec::new(),
            ..before.clone()
        },
        Allowed {
            ports: Vec::new(),
            ..before.clone()
        },
        Allowed {
            networks: Vec::new(),
            ..before.clone()
        },
    ] {
        deckies.allowed = before.clone();
        deckies.pass(&shard(2)).await;
        assert_eq!(ids(&engine).await.len(), 6);
        deckies.allowed = forbid;
        let report = deckies.pass(&shard(2)).await;
        assert_eq!(report.outcome, OutcomeStatus::Failed);
        assert!(ids(&engine).await.is_empty());
    }
}

#[tokio::test]
async fn an_update_that_is_refused_leaves_what_runs_alone() {
    let (engine, mut deckies) = house();
    deckies.pass(&shard(2)).await;
    let before = ids(&engine).await;
    let mut want = shard(2);
    want.deckies.get_mut(&name("decky-01")).unwrap().services[0].image = "evil:latest".to_owned();
    assert_eq!(deckies.pass(&want).await.outcome, OutcomeStatus::Failed);
    assert_eq!(ids(&engine).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_waits_for_images_ends_when_another_document_comes_and_has_changed_nothing() {
    let (engine, mut deckies) = house();
    engine.publish_image("picket-decoy:2");
    engine.hold_pulls();
    let mut want = shard(2);
    for decky in want.deckies.values_mut() {
        decky.services[0].image = "picket-decoy:2".to_owned();
    }
    // Simulated time passes when nothing else can happen: the pass waits for its images by then.
    let newer = tokio::time::sleep(Duration::from_millis(10));
    let pass = deckies.pass_unless(&want, newer);
    let report = tokio::time::timeout(Duration::from_secs(5), pass)
        .await
        .expect("it does not wait");
    assert_eq!((report.outcome, report.steps), (OutcomeStatus::Blocked, vec![]));
    assert_eq!(engine.container_names(), Vec::<String>::new());
    assert!(deckies.progress().borrow().is_empty());
}
