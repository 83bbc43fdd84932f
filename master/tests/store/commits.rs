//! Commits, guards, watches, and what a restart finds.

use picket_master::store::{CommitError, CreateError, End, LockError};

use super::*;

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart_and_the_index_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    assert_eq!(store.revision(), Revision(0));
    for n in 0..50 {
        store
            .commit(commit(vec![], vec![put(&format!("k/{}", n % 20), [n; 100])]))
            .await
            .unwrap();
    }
    store
        .commit(commit(vec![], vec![delete("k/3"), put("other", "x")]))
        .await
        .unwrap();
    let (before, lineage, head) = (contents(&store), store.lineage(), store.head());
    assert_eq!(before.len(), 20);
    store.close().await;

    let store = open(dir.path()).await.unwrap();
    assert_eq!(store.healed(), None);
    assert_eq!(
        (contents(&store), store.lineage(), store.head()),
        (before, lineage, head)
    );
    assert_eq!(store.get(&key("k/3")).unwrap(), None);
    assert_eq!(store.get(&key("other")).unwrap().unwrap().revision, Revision(51));
    assert_eq!(store.load("k/").unwrap().len(), 19);
    store.close().await;
}

#[tokio::test]
async fn a_guard_that_does_not_hold_stops_the_whole_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    let first = store
        .commit(commit(vec![Guard::Absent(key("a"))], vec![put("a", "1")]))
        .await
        .unwrap();
    let again = store
        .commit(commit(
            vec![Guard::Absent(key("a"))],
            vec![put("a", "2"), put("b", "2")],
        ))
        .await;
    assert_eq!(
        again,
        Err(CommitError::Conflict {
            key: key("a"),
            stands: Some(first)
        })
    );
    assert_eq!(store.get(&key("b")).unwrap(), None);
    store
        .commit(commit(vec![Guard::At(key("a"), first)], vec![put("a", "3")]))
        .await
        .unwrap();
    let late = store
        .commit(commit(vec![Guard::At(key("a"), first)], vec![put("a", "4")]))
        .await;
    assert!(matches!(late, Err(CommitError::Conflict { .. })), "{late:?}");
    assert_eq!(store.get(&key("a")).unwrap().unwrap().value, b"3");
}

#[tokio::test]
async fn a_second_store_on_the_same_directory_is_refused_by_name_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    let refused = open(dir.path()).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Lock(LockError::Held { .. })),
        "{refused}"
    );
    let text = refused.to_string();
    assert!(
        text.contains(&format!(
            "in use by another picket-master (pid {})",
            std::process::id()
        )),
        "{text}"
    );
    store.close().await;
    open(dir.path()).await.unwrap().close().await;
    assert!(matches!(
        Store::create(dir.path()),
        Err(CreateError::Exists { .. })
    ));
}

#[tokio::test]
async fn a_commit_through_a_second_handle_reaches_a_watch_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    store
        .commit(commit(vec![], vec![put("host/1", "a")]))
        .await
        .unwrap();
    let (entries, mut watch) = store.follow("host/").unwrap();
    assert_eq!(entries.len(), 1);

    let other = store.clone();
    other
        .commit(commit(vec![], vec![put("network/1", "n")]))
        .await
        .unwrap();
    let revision = other
        .commit(commit(vec![], vec![put("host/2", "b"), put("network/2", "n")]))
        .await
        .unwrap();
    let change = watch.next().await.unwrap().unwrap();
    assert_eq!(
        (change.revision, change.writes),
        (revision, vec![put("host/2", "b")])
    );
    store.close().await;
    assert_eq!(watch.next().await, Ok(None));
    assert_eq!(
        other.commit(commit(vec![], vec![])).await,
        Err(CommitError::Closed)
    );
    assert_eq!(other.ended().await, End::Closed);
}

#[tokio::test]
async fn a_view_that_follows_never_misses_and_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    let mut committers = tokio::task::JoinSet::new();
    for committer in 0..4 {
        let store = store.clone();
        committers.spawn(async move {
            for n in 0..50 {
                let write = if n % 7 == 6 {
                    delete("k/3")
                } else {
                    put(&format!("k/{}", n % 5), [committer, n])
                };
                store.commit(commit(vec![], vec![write])).await.unwrap();
            }
        });
    }
    // Begins to follow while the others commit.
    let mut views = Vec::new();
    for _ in 0..20 {
        tokio::task::yield_now().await;
        let (entries, watch) = store.follow("k/").unwrap();
        let view: Expected = entries
            .into_iter()
            .map(|it| (it.key.to_string(), (it.value, it.revision)))
            .collect();
        views.push((view, watch));
    }
    committers.join_all().await;
    assert_eq!(store.revision(), Revision(200));
    let expected = contents(&store);
    store.close().await;
    for (mut view, mut watch) in views {
        let mut at = watch.revision();
        while let Some(change) = watch.next().await.unwrap() {
            assert!(change.revision > at);
            at = change.revision;
            for write in change.writes {
                match write {
                    Write::Put(key, value) => view.insert(key.to_string(), (value, change.revision)),
                    Write::Delete(key) => view.remove(key.as_str()),
                };
            }
        }
        assert_eq!(view, expected);
    }
}

#[tokio::test]
async fn a_view_from_before_the_start_is_told_to_load_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    busy(&store, 5).await;
    store.close().await;
    let store = open(dir.path()).await.unwrap();
    let compacted = store.watch("", Revision(2)).unwrap_err();
    assert_eq!((compacted.from, compacted.floor), (Revision(2), Revision(5)));
    let (entries, watch) = store.follow("").unwrap();
    assert_eq!(
        (entries.len(), watch.revision()),
        (contents(&store).len(), Revision(5))
    );
}

#[tokio::test]
async fn a_store_nobody_holds_closes_by_itself_and_leaves_its_index_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    busy(&store, 5).await;
    let mut watch = store.watch("", Revision(5)).unwrap();
    drop(store);
    assert_eq!(watch.next().await, Ok(None));
    assert_eq!(open(dir.path()).await.unwrap().healed(), None);
}

#[tokio::test(start_paused = true)]
async fn no_simulated_time_passes_while_a_commit_is_written() {
    let dir = tempfile::tempdir().unwrap();
    Store::create(dir.path()).unwrap();
    let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
    let store = Store::open(dir.path(), clock.clone()).await.unwrap();
    let mut watch = store.watch("", Revision(0)).unwrap();
    let mut hour = tokio::task::JoinSet::new();
    hour.spawn(tokio::time::sleep(std::time::Duration::from_secs(3600)));
    for _ in 0..10 {
        store.commit(commit(vec![], vec![put("k", "v")])).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().time, clock.now());
    }
    assert_eq!(clock.now().to_string(), "2026-01-01T00:00:00Z");
    store.close().await;
}

#[tokio::test]
async fn a_journal_of_several_files_is_read_as_one_and_none_may_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    for n in 0..45 {
        store
            .commit(commit(vec![], vec![put(&format!("k/{n}"), vec![n; 900_000])]))
            .await
            .unwrap();
    }
    let expected = contents(&store);
    store.close().await;
    let journal = dir.path().join("store/journal");
    let files: Vec<PathBuf> = tree(&journal).into_keys().collect();
    assert_eq!(files.len(), 3, "{files:?}");
    fs::remove_file(dir.path().join("store/index.seal")).unwrap();
    let store = open(dir.path()).await.unwrap();
    assert!(store.healed().is_some());
    assert_eq!(contents(&store), expected);
    store.close().await;

    for file in &files {
        let kept = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        let text = open(dir.path()).await.unwrap_err().to_string();
        assert!(
            text.contains("missing") && text.contains("picket-master restore"),
            "{text}"
        );
        fs::write(file, &kept[..kept.len() - 1]).unwrap();
        let text = open(dir.path()).await.unwrap_err().to_string();
        assert!(text.contains("picket-master restore"), "{text}");
        fs::write(file, kept).unwrap();
    }
    assert_eq!(contents(&open(dir.path()).await.unwrap()), expected);
}

#[test]
fn a_directory_that_cannot_be_written_is_told_from_one_in_use() {
    // Nobody can make a directory there, not even root.
    let error = Store::create(Path::new("/sys/picket")).unwrap_err();
    assert!(
        matches!(error, CreateError::Lock(LockError::Forbidden { .. })),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("the data directory /sys/picket cannot be written by this user")
    );
}
