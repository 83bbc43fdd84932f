//! Commits, guards, watches, and what a restart finds.

use picket_master::store::{CommitError, CreateError, Guard, LockError, OpenError, Revision};

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
