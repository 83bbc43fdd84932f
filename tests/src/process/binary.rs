//! Where the programs are: beside this test's own, built from the sources as they are.
//!
//! `cargo test` builds the programs of the package it tests and no others, so that a program may be missing, or be of
//! yesterday. Either is said with the command to run, and no test goes on with it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

const BUILD: &str = "cargo build --workspace --bins --features picket-zerotier/fake";

/// The path of a program of this workspace.
///
/// # Panics
/// When it was not built, or not from the sources as they are.
#[must_use]
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    static CHECKED: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut checked = CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = checked.get(name) {
        return path.clone();
    }
    let test = std::env::current_exe().expect("the system knows which program runs");
    // target/debug/deps/processes-0123456789abcdef
    let folder = test.ancestors().nth(2).expect("a test lies in a target folder");
    let path = folder.join(name);
    if let Err(why) = fresh(&path) {
        panic!("{why}; run: {BUILD}");
    }
    checked.insert(name.to_owned(), path.clone());
    path
}

fn fresh(path: &Path) -> Result<(), String> {
    let built = changed(path).map_err(|_| format!("{} was not built", path.display()))?;
    // Cargo writes there which sources a program was made of.
    let list = path.with_extension("d");
    let text = fs::read_to_string(&list).map_err(|_| {
        format!(
            "{} is missing, which tells whether the program is of today",
            list.display()
        )
    })?;
    let (_, sources) = text
        .split_once(": ")
        .ok_or_else(|| format!("{} lists no sources", list.display()))?;
    for source in sources.trim_end().replace("\\ ", "\0").split(' ') {
        let source = PathBuf::from(source.replace('\0', " "));
        match changed(&source) {
            Ok(at) if at <= built => {}
            Ok(_) => return Err(format!("{} is older than {}", path.display(), source.display())),
            Err(_) => {
                return Err(format!(
                    "{} was built from {}, which is gone",
                    path.display(),
                    source.display()
                ));
            }
        }
    }
    Ok(())
}

fn changed(path: &Path) -> std::io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}
