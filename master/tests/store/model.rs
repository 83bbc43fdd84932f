//! The store against a map in memory.

use picket_master::store::CommitError;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Guards as (key, whether it should hold), writes as (key, value or delete).
    Commit(Vec<(u8, bool)>, BTreeMap<u8, Option<Vec<u8>>>),
    Reopen,
    /// Without closing: the index is not sealed then.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let guards = prop::collection::vec((0_u8..6, prop::bool::weighted(0.8)), 0..3);
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40));
    let writes = prop::collection::btree_map(0_u8..6, value, 0..4);
    prop_oneof![
        12 => (guards, writes).prop_map(|(guards, writes)| Step::Commit(guards, writes)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

fn name(n: u8) -> String {
    format!("k/{n}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_map_does(steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Expected::new();
        let mut revision = Revision(0);
        Store::create(dir.path()).unwrap();
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut now = runtime();
        let mut store = now.block_on(open(dir.path())).unwrap();
        for step in steps {
            match step {
                Step::Commit(guards, writes) => {
                    let guards: Vec<Guard> = guards.into_iter().map(|(n, holds)| {
                        match (model.get(&name(n)).map(|(_, at)| *at), holds) {
                            (Some(at), true) => Guard::At(key(&name(n)), at),
                            (None, true) | (Some(_), false) => Guard::Absent(key(&name(n))),
                            (None, false) => Guard::At(key(&name(n)), Revision(1)),
                        }
                    }).collect();
                    let holds = guards.iter().all(|guard| {
                        guard.holds(model.get(guard.key().as_str()).map(|(_, at)| *at))
                    });
                    let wanted = writes.iter().map(|(n, value)| match value {
                        Some(value) => put(&name(*n), value),
                        None => delete(&name(*n)),
                    }).collect();
                    let answer = now.block_on(store.commit(commit(guards, wanted)));
                    if holds {
                        revision = revision.next();
                        prop_assert_eq!(answer, Ok(revision));
                        for (n, value) in writes {
                            match value {
                                Some(value) => { model.insert(name(n), (value, revision)); }
                                None => { model.remove(&name(n)); }
                            }
                        }
                    } else {
                        prop_assert!(matches!(answer, Err(CommitError::Conflict { .. })), "{:?}", answer);
                    }
                }
                Step::Reopen => {
                    now.block_on(store.close());
                    store = now.block_on(open(dir.path())).unwrap();
                    prop_assert_eq!(store.healed(), None);
                }
                Step::Crash => {
                    drop(store);
                    // Its tasks end with it, wherever they are.
                    drop(now);
                    now = runtime();
                    store = now.block_on(open(dir.path())).unwrap();
                }
            }
            prop_assert_eq!(store.revision(), revision);
            prop_assert_eq!(&contents(&store), &model);
        }
    }
}
