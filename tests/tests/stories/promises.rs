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

/// The names of all tests in the tree's Rust files.
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
            names.extend(tests_in(&text).into_iter().map(str::to_owned));
        }
    }
}

/// The names of the functions that a runner of tests runs.
fn tests_in(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(rest) = ["fn ", "async fn "]
            .iter()
            .find_map(|word| line.strip_prefix(word))
        {
            let name = rest.split_once('(').map_or(rest, |(name, _)| name);
            names.extend(is_test.then_some(name));
            is_test = false;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            // Anything else between the two, and the attribute was not the function's.
            is_test = false;
        }
    }
    names
}

#[test]
fn a_function_that_no_runner_runs_keeps_no_promise() {
    let text = r#"
        fn helper() {}
        #[test]
        fn one_that_runs() { helper() }
        #[tokio::test(start_paused = true)]
        // Why it is long.
        #[expect(clippy::too_many_lines, reason = "a story")]
        async fn one_that_waits() {}
        async fn a_story_that_is_told_by_two() {}
        #[test]
        mod other {
            fn one_inside() {}
        }
        #[cfg(test)]
        fn one_for_tests() {}
    "#;
    assert_eq!(tests_in(text), ["one_that_runs", "one_that_waits"]);
}
