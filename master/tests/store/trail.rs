//! The journal as auditors read it, and what becomes of one that somebody touched.

use picket_master::store::{Outcome, Trail};
use picket_proto::audit::{
    Entry, Hash,
    chain::{Broken, Chain, Head},
};

use super::*;

fn forward(trail: &Trail, after: u64) -> Vec<Entry> {
    let mut walk = trail.forward(Revision(after)).unwrap();
    std::iter::from_fn(|| walk.step().unwrap()).collect()
}

fn backward(trail: &Trail, before: Option<u64>) -> Vec<Entry> {
    let mut walk = trail.backward(before.map(Revision)).unwrap();
    std::iter::from_fn(|| walk.step().unwrap()).collect()
}

fn check(entries: &[Entry], heads: &[Head]) -> Result<u64, Broken> {
    let mut chain = Chain::against(heads.iter().copied());
    entries.iter().try_for_each(|entry| chain.take(entry))?;
    chain.end().map(|()| chain.entries())
}

#[tokio::test]
async fn a_journal_of_several_files_reads_the_same_from_either_end_and_from_any_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    for n in 0..44_u8 {
        let size = if n % 2 == 0 { 900_000 } else { 3 };
        store
            .commit(commit(vec![], vec![put(&format!("k/{n}"), vec![n; size])]))
            .await
            .unwrap();
    }
    let segments = fs::read_dir(dir.path().join("store/journal")).unwrap().count();
    assert!(segments > 1, "{segments} files");
    let trail = store.trail();
    let all = forward(&trail, 0);
    assert_eq!(check(&all, &[]), Ok(44));
    assert_eq!(
        (all[43].hash, trail.head().0),
        (Hash(trail.head().1.0), Revision(44))
    );
    for revision in 0..=45_u64 {
        let place = usize::try_from(revision).unwrap();
        assert_eq!(
            forward(&trail, revision),
            all[place.min(44)..],
            "after {revision}"
        );
        let mut before = backward(&trail, Some(revision));
        before.reverse();
        assert_eq!(before, all[..place.saturating_sub(1)], "before {revision}");
    }
    // What is committed later is not in it.
    store.commit(commit(vec![], vec![put("k", "v")])).await.unwrap();
    assert_eq!(backward(&trail, None).len(), 44);
    assert_eq!(backward(&store.trail(), None).len(), 45);
    store.close().await;
    assert_eq!(forward(&Trail::of(dir.path()).unwrap(), 0).len(), 45);
}

#[tokio::test]
async fn what_is_said_of_a_change_and_of_a_refusal_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    let mut change = commit(vec![], vec![put("k", "v")]);
    change.audit.before = "{\"k\":null}".to_owned();
    change.audit.after = "{\"k\":1}".to_owned();
    let mut refusal = commit(vec![], vec![]);
    refusal.audit.outcome = Outcome::Refused("no".to_owned());
    refusal.audit.times = 12;
    let audits = [change.audit.clone(), refusal.audit.clone()];
    store.commit(change).await.unwrap();
    store.commit(refusal).await.unwrap();
    store.close().await;
    let store = open(dir.path()).await.unwrap();
    let read: Vec<_> = forward(&store.trail(), 0)
        .into_iter()
        .map(|entry| entry.audit)
        .collect();
    assert_eq!(read, audits);
}

/// A journal whose bytes were changed by somebody who computed every hash anew, as far as that goes.
async fn rewritten(change: impl Fn(&mut Vec<Entry>)) -> (Vec<Entry>, Vec<Entry>) {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    busy(&store, 20).await;
    let old = forward(&store.trail(), 0);
    let mut new = old.clone();
    change(&mut new);
    let mut previous = old[0].previous;
    for (revision, entry) in (1..).zip(&mut new) {
        (entry.revision, entry.previous) = (revision, previous);
        entry.hash = entry.computed().unwrap();
        previous = entry.hash;
    }
    (old, new)
}

fn head(entry: &Entry) -> Head {
    Head {
        lineage: entry.lineage,
        revision: entry.revision,
        hash: entry.hash,
    }
}

#[tokio::test]
async fn an_entry_edited_removed_or_reordered_shows_in_one_head_though_every_hash_was_made_anew() {
    type Change = fn(&mut Vec<Entry>);
    let changes: [Change; 3] = [
        |entries| entries[7].audit.who = "operator/bo".to_owned(),
        |entries| drop(entries.remove(7)),
        |entries| entries.swap(7, 8),
    ];
    for change in changes {
        let (old, new) = rewritten(change).await;
        assert_eq!(check(&new, &[]), Ok(new.len() as u64), "nothing in it tells");
        assert!(check(&new, &[head(&old[19])]).is_err());
        assert!(check(&new, &[head(&old[10])]).is_err());
        assert!(
            check(&new, &[head(&old[6])]).is_ok(),
            "what was before that is as it was"
        );
    }
}

#[tokio::test]
async fn bytes_of_a_journal_that_were_changed_under_a_running_store_are_noticed_by_whoever_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    busy(&store, 20).await;
    let path = segment(dir.path());
    let bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(12)
        .rposition(|seen| seen == b"operator/ada")
        .unwrap();
    let mut changed = bytes.clone();
    changed[at..at + 12].copy_from_slice(b"operator/bob");
    fs::write(&path, &changed).unwrap();
    let trail = store.trail();
    let mut walk = trail.forward(Revision(0)).unwrap();
    let seen: Result<Vec<_>, _> = std::iter::from_fn(|| walk.step().transpose()).collect();
    assert!(seen.unwrap_err().to_string().contains("revision 20"));
    let mut walk = trail.backward(None).unwrap();
    assert!(walk.step().unwrap_err().to_string().contains("revision 20"));
    fs::write(&path, &bytes).unwrap();
    assert_eq!(forward(&trail, 0).len(), 20);
}
