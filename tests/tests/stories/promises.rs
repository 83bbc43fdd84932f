//! What `docs/security.md` promises names the test that shows it; a name that no test has is a promise nobody keeps.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_promise_names_a_test_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let promised: BTreeSet<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.matches('_').count() > 3)
        .filter(|word| {
            word.bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        })
        .collect();
    assert!(promised.len() > 20, "the page names its tests: {promised:?}");
    let mut tests = BTreeSet::new();
    collect(&root, &mut tests);
    let missing: Vec<_> = promised.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(missing.is_empty(), "no test is called so: {missing:#?}");
}

/// The names of all functions in the tree's Rust files.
fn collect(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the tree can be read") {
        let path = entry.expect("and so can its entries").path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() && !hidden && !path.ends_with("target") {
            collect(&path, names);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).expect("sources are text");
            let found = text.split("fn ").skip(1).filter_map(|rest| rest.split_once('('));
            names.extend(found.map(|(name, _)| name.to_owned()));
        }
    }
}
