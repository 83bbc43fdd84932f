//! Stories of the store, through its public interface and the files it leaves behind.

#![allow(
    clippy::unwrap_used,
    reason = "what a test cannot set up is a failure of the test"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use picket_clock::Clock;
use picket_master::store::{Audit, Commit, Guard, Key, OpenError, Revision, Store, Write};

mod commits;
mod damage;
mod killed;
mod model;
mod restores;
mod trail;

/// What should be in a store: each key's value and the revision that wrote it.
type Expected = BTreeMap<String, (Vec<u8>, Revision)>;

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put(name: &str, value: impl AsRef<[u8]>) -> Write {
    Write::Put(key(name), value.as_ref().to_vec())
}

fn delete(name: &str) -> Write {
    Write::Delete(key(name))
}

fn commit(guards: Vec<Guard>, writes: Vec<Write>) -> Commit {
    let audit = Audit {
        who: "operator/ada".to_owned(),
        from: "192.0.2.1".to_owned(),
        what: "test".to_owned(),
        ..Audit::default()
    };
    Commit {
        guards,
        writes,
        audit,
    }
}

fn contents(store: &Store) -> Expected {
    let entries = store.load("").unwrap();
    entries
        .into_iter()
        .map(|entry| (entry.key.to_string(), (entry.value, entry.revision)))
        .collect()
}

async fn open(dir: &Path) -> Result<Store, OpenError> {
    Store::open(dir, Clock::system()).await
}

async fn fresh(dir: &Path) -> Store {
    Store::create(dir).unwrap();
    open(dir).await.unwrap()
}

/// Every file below a directory with its bytes.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in tree(from) {
        let path = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn segment(dir: &Path) -> PathBuf {
    let mut segments: Vec<_> = fs::read_dir(dir.join("store/journal"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    segments.sort();
    segments.pop().unwrap()
}

/// Some commits that write, overwrite and delete.
async fn busy(store: &Store, count: u8) {
    for n in 0..count {
        let mut writes = vec![put(&format!("k/{}", n % 17), vec![n; usize::from(n) * 3])];
        if n % 5 == 4 {
            writes.push(delete(&format!("k/{}", (n + 3) % 17)));
        }
        store.commit(commit(vec![], writes)).await.unwrap();
    }
}
