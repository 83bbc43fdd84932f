//! What is in the store is what holds, by whatever way it came there.

use picket_agent::status::State;
use picket_master::{
    record::{HostRecord, HostStanding, Record as _},
    store::{Audit, Commit, Guard},
};
use picket_tests::{
    HostState::{Banned, Online},
    MemberObservation, Site,
};

#[tokio::test(start_paused = true)]
async fn a_commit_through_a_second_handle_reaches_roster_session_and_agent() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let store = site.store();
    let entry = store.load("host/").unwrap().remove(0);
    let mut record = HostRecord::of(&entry).unwrap();
    record.standing = HostStanding::Banned {
        at: site.clock.now(),
        reason: "by another hand".to_owned(),
    };
    let guards = vec![Guard::At(entry.key, entry.revision)];
    let audit = Audit {
        who: "story".to_owned(),
        from: "here".to_owned(),
        what: "host.ban".to_owned(),
        subject: "oslo".to_owned(),
        ..Audit::default()
    };
    store
        .commit(Commit {
            guards,
            writes: vec![record.put()],
            audit,
        })
        .await
        .unwrap();
    site.until("oslo", Banned).await;
    site.until_gone().await;
    let told = oslo.until(State::Banned).await;
    assert!(told.contains("by another hand"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_store_restored_without_its_latest_changes_pushes_nothing_until_that_is_accepted() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    let snapshot = site.snapshot().await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;

    site.stop_master().await;
    site.lose_journal_and_restore(&snapshot);
    site.start_master().await;
    site.until("bern", Online).await;
    site.wait(std::time::Duration::from_secs(300)).await;
    bern.until_on(&[network]).await;
    let refused = site.try_admit(network, "bern").await.unwrap_err();
    assert!(refused.message().contains("frozen"), "{}", refused.message());

    site.stop_master().await;
    site.accept_restored();
    site.start_master().await;
    bern.until_on(&[]).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.until_member(network, bern.node, MemberObservation::Authorized)
        .await;
}
