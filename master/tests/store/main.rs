//! Stories of the store, through its public interface and the files it leaves behind.

use std::{collections::BTreeMap, path::Path};

use picket_clock::Clock;
use picket_master::store::{Audit, Commit, Guard, Key, OpenError, Revision, Store, Write};

mod commits;

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
