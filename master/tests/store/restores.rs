//! Snapshots, and what comes back from them.

use picket_clock::Clock;
use picket_master::store::{
    CommitError, IndexStanding, RestoreError, Restored, Snapshot, accept, restore, snapshot, verify,
};

use super::*;

/// A store with a snapshot in its middle, closed; and what it had at the end and in the middle.
async fn half_way(dir: &Path) -> (Snapshot, Expected, Expected) {
    let store = fresh(&dir.join("data")).await;
    busy(&store, 20).await;
    let middle = contents(&store);
    let taken = store.snapshot(&dir.join("snapshots")).await.unwrap();
    busy(&store, 13).await;
    let end = contents(&store);
    store.close().await;
    (taken, middle, end)
}

fn bring_back(data: &Path, from: Option<&Path>) -> Restored {
    restore(data, from, &Clock::system()).unwrap()
}

#[tokio::test]
async fn a_snapshot_and_the_journal_after_it_bring_back_everything_in_the_same_lineage() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (taken, _, end) = half_way(dir.path()).await;
    // Damage before the snapshot's revision: the journal cannot be read from its start.
    let path = segment(&data);
    let mut bytes = fs::read(&path).unwrap();
    bytes[300] ^= 4;
    fs::write(&path, &bytes).unwrap();
    assert!(open(&data).await.is_err());

    let restored = bring_back(&data, Some(&taken.file));
    assert_eq!(
        (restored.missing, restored.replayed, restored.lineage),
        (None, 13, taken.lineage)
    );
    let store = open(&data).await.unwrap();
    assert_eq!(
        (contents(&store), store.frozen(), store.revision()),
        (end, false, Revision(33))
    );
    store
        .commit(commit(vec![], vec![put("more", "x")]))
        .await
        .unwrap();
    store.close().await;
    assert_eq!(open(&data).await.unwrap().revision(), Revision(34));
    // What was there is kept, damage and all.
    let aside = restored.aside.unwrap();
    assert_eq!(
        fs::read(aside.join("journal").join(path.file_name().unwrap())).unwrap(),
        bytes
    );
}

#[tokio::test]
async fn without_the_end_of_the_journal_the_store_is_frozen_under_a_new_lineage_until_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (taken, middle, _) = half_way(dir.path()).await;
    for lost in ["its end", "all of it", "the whole machine"] {
        let data = dir.path().join(lost);
        if lost != "the whole machine" {
            copy(&dir.path().join("data"), &data);
            let path = segment(&data);
            let bytes = fs::read(&path).unwrap();
            let keep = if lost == "its end" { bytes.len() - 1 } else { 100 };
            fs::write(&path, &bytes[..keep]).unwrap();
        }
        let restored = bring_back(&data, Some(&taken.file));
        assert!(
            restored.missing.is_some() && restored.lineage != taken.lineage,
            "{lost}: {restored:?}"
        );
        let store = open(&data).await.unwrap();
        assert!(store.frozen());
        if lost == "its end" {
            assert_eq!((restored.replayed, store.revision()), (12, Revision(32)));
        } else {
            assert_eq!(
                (contents(&store), store.revision()),
                (middle.clone(), Revision(20)),
                "{lost}"
            );
        }
        let refused = store
            .commit(commit(vec![], vec![put("k", "v")]))
            .await
            .unwrap_err();
        assert!(
            matches!(refused, CommitError::Frozen { .. }) && refused.to_string().contains("restore --accept")
        );
        assert!(
            matches!(accept(&data), Err(RestoreError::Lock(_))),
            "accepted under a running master"
        );
        store.close().await;

        assert_eq!(accept(&data).unwrap(), restored.lineage);
        let store = open(&data).await.unwrap();
        assert!(!store.frozen());
        store.commit(commit(vec![], vec![put("k", "v")])).await.unwrap();
        store.close().await;
    }
    assert!(open(&data).await.is_ok(), "the one that was copied is as it was");
}

#[tokio::test]
async fn without_a_snapshot_what_comes_before_the_damage_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    busy(&store, 9).await;
    let expected = contents(&store);
    let start = fs::metadata(segment(dir.path())).unwrap().len();
    busy(&store, 9).await;
    store.close().await;
    let path = segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[usize::try_from(start).unwrap() + 50] ^= 1;
    fs::write(&path, bytes).unwrap();
    let restored = bring_back(dir.path(), None);
    assert_eq!(restored.revision, Revision(9));
    assert!(restored.missing.is_some());
    let store = open(dir.path()).await.unwrap();
    assert_eq!((contents(&store), store.frozen()), (expected, true));
}

#[tokio::test]
async fn an_intact_store_is_restored_to_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (taken, _, end) = half_way(dir.path()).await;
    let data = dir.path().join("data");
    for from in [Some(taken.file.as_path()), None] {
        let restored = bring_back(&data, from);
        assert_eq!(
            (restored.missing, restored.lineage),
            (None, taken.lineage),
            "{from:?}"
        );
        let store = open(&data).await.unwrap();
        assert_eq!(contents(&store), end);
        store.close().await;
    }
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (taken, ..) = half_way(dir.path()).await;
    let data = dir.path().join("data");
    let good = fs::read(&taken.file).unwrap();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let before = tree(&data);
    for _ in 0..100 {
        let at = random.usize(..good.len());
        let mut bad = good.clone();
        if random.bool() {
            bad.truncate(at)
        } else {
            bad[at] ^= random.u8(1..)
        }
        fs::write(&taken.file, bad).unwrap();
        let refused = restore(&data, Some(&taken.file), &Clock::system());
        assert!(
            matches!(refused, Err(RestoreError::Unreadable(_))),
            "seed {seed}, at {at}: {refused:?}"
        );
        assert_eq!(tree(&data), before, "seed {seed}, at {at}");
    }
}

#[tokio::test]
async fn a_snapshot_can_be_taken_beside_a_running_master_and_of_a_stopped_one() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let store = fresh(&data).await;
    busy(&store, 10).await;
    let beside = snapshot(&data, &to, &Clock::system()).unwrap();
    assert_eq!((beside.revision, beside.head), store.head());
    busy(&store, 1).await;
    let expected = contents(&store);
    store.close().await;
    let stopped = snapshot(&data, &to, &Clock::system()).unwrap();
    assert_eq!(stopped.revision, Revision(11));
    let other = dir.path().join("other");
    bring_back(&other, Some(&stopped.file));
    assert_eq!(contents(&open(&other).await.unwrap()), expected);
}

#[tokio::test]
async fn verify_says_what_it_finds_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    busy(&store, 10).await;
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.index, IndexStanding::InUse(std::process::id().to_string()));
    store.close().await;

    let before = tree(dir.path());
    let report = verify(dir.path()).unwrap();
    let text = report.to_string();
    assert!(
        text.contains("The journal is intact: revision 10, 10 records in 1 files."),
        "{text}"
    );
    assert_eq!((report.index, report.damage.len()), (IndexStanding::Sealed, 0));
    assert_eq!(tree(dir.path()), before);

    let path = segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[200] ^= 1;
    fs::write(&path, bytes).unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(
        report.journal.is_none() && report.damage[0].contains("picket-master restore"),
        "{report}"
    );
}
