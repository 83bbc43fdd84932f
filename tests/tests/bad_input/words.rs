//! Ids and names with the wrong letters or of the wrong length, as an operator mistypes them.

use picket_tests::process::Site;

use crate::{Answers, read_by_people};

#[test]
fn ids_and_names_of_the_wrong_length_or_letters_are_refused_with_what_they_look_like() {
    let site = Site::new();
    drop(site.bundle("oslo"));
    // What is refused is noted in the journal, and what was done stands there as before.
    let done = || site.master.json(&["audit", "list", "--outcome", "done"]).unwrap();
    let before = done();
    let mut answers = Answers::keeping(site.plain(), &[]);
    for typed in [
        "network adopt 8056c2e21c00000",
        "network adopt 8056c2e21c00000g",
        "network adopt 8056C2E21C0000010",
        "network enforce 8056c2e21c000001",
        "member list --network 8056c2e21c",
        "member show 8056c2e21c000001 --network 8056c2e21c000001",
        "member show 8056c2e21 --network 8056c2e21c000001",
        "member admit 8056c2e21z --network 8056c2e21c000001 --reason new",
        "host enroll Oslo_1 --out oslo-1.bundle",
        "host enroll a-name-that-is-longer-than-the-sixty-three-letters-that-a-name-may-have --out long.bundle",
        "host enroll -- -oslo --out dash.bundle",
        "host enroll oslo --out again.bundle",
        "host show nowhere",
        "host label oslo site",
        "host label oslo site=a/b/c/\u{e5}",
        "host ban oslo --reason ",
        "decky show nowhere",
    ] {
        let typed = typed.replace("-- -oslo --out dash.bundle", "--out dash.bundle -- -oslo");
        let mut args: Vec<&str> = typed.split(' ').collect();
        // An empty word at the end is an empty reason.
        args.iter_mut().for_each(|word| *word = word.trim());
        answers.refusal(&format!("picketctl {typed}"), || site.master.ctl(&args));
    }
    let mut left: Vec<_> = std::fs::read_dir(site.root().join("master"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["data", "master.log", "master.toml"],
        "no bundle was written"
    );
    assert_eq!(before, done(), "what was refused changed something");
    read_by_people!("ids_and_names", answers);
}
