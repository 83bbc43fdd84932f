//! Data and state directories that cannot be used, and ports that others have.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use picket_tests::process::{Said, Site, Tree, binary, command, run};

use crate::{Answers, read_by_people};

/// The user who owns nothing.
const NOBODY: u32 = 65534;

#[test]
fn a_port_that_something_else_has_is_named_with_its_setting() {
    let site = Site::at_rest();
    let mut answers = Answers::keeping(site.plain(), &[&site.master.data_dir()]);
    for (name, address) in [
        ("agents", site.master.agents),
        ("admin", site.master.admin),
        ("metrics", site.master.monitor),
    ] {
        let _held = TcpListener::bind(address).unwrap();
        answers.refusal(&format!("picket-master run    # {name} port in use"), || {
            start(&site)
        });
    }
    read_by_people!("ports", answers);
}

#[test]
fn a_data_directory_in_use_is_named_with_who_has_it() {
    let mut site = Site::new();
    let second = picket_tests::process::Master::init(&site.root().join("second"), site.at());
    let pid = site.master.program().id();
    let plain = site.plain().with(format!("pid {pid}"), "pid [pid]");
    let agent = site.online("oslo");
    let mut answers = Answers::keeping(plain, &[&second.data_dir(), &crate::bundles::journal(&site)]);
    answers.refusal("picket-master run    # on the data directory of another", || {
        second.run_on(&site.master.data_dir())
    });
    answers.refusal("picket-master restore    # beside a running master", || {
        site.master.local("restore", &[])
    });
    answers.refusal("picket-agent run    # on the state directory of another", || {
        agent.ask(&["run"])
    });
    read_by_people!("directories_in_use", answers);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_left_as_it_is() {
    let mut site = Site::new();
    let enrolled = site.enrolled("oslo");
    assert_eq!(site.master.stop().code, Some(0));
    let mut answers = Answers::keeping(site.plain(), &[]);
    let data = site.master.data_dir();
    let config = site.master.config();
    for (typed, program, config, folder) in [
        (
            "picket-master run    # may not write its data directory",
            "picket-master",
            config,
            data,
        ),
        (
            "picket-agent run    # may not write its state directory",
            "picket-agent",
            enrolled.config(),
            enrolled.state_dir(),
        ),
    ] {
        let mut command = unprivileged(&site, program, &folder);
        let before = Tree::of(&folder);
        answers.refusal(typed, || run(command.arg("run").arg("--config").arg(config)));
        assert_eq!(before, Tree::of(&folder), "{typed}");
    }
    // What lies in the way is left there as well.
    let file = site.root().join("a-file");
    fs::write(&file, "something else").unwrap();
    let path = file.display().to_string();
    let init = [
        "init",
        "--data-dir",
        &path,
        "--trust-domain",
        "example.org",
        "--name",
        "localhost",
        "--plain-ca-key",
    ];
    answers.refusal("picket-master init    # where there is a file", || {
        run(command(&binary("picket-master")).args(init))
    });
    assert_eq!(fs::read_to_string(&file).unwrap(), "something else");
    let again = site.master.data_dir().display().to_string();
    let init = [
        "init",
        "--data-dir",
        &again,
        "--trust-domain",
        "example.org",
        "--name",
        "localhost",
        "--plain-ca-key",
    ];
    let before = Tree::of(&site.master.data_dir());
    answers.refusal("picket-master init    # where there is a master", || {
        run(command(&binary("picket-master")).args(init))
    });
    assert_eq!(before, Tree::of(&site.master.data_dir()));
    let empty = site.root().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o700)).unwrap();
    answers.refusal("picket-master run    # where there is no master", || {
        site.master.run_on(&empty)
    });
    read_by_people!("directories_not_usable", answers);
}

#[test]
fn a_store_that_is_damaged_or_newer_is_not_touched() {
    let mut site = Site::new();
    for name in ["oslo", "bergen", "tromso"] {
        drop(site.bundle(name));
    }
    assert_eq!(site.master.stop().code, Some(0));
    let store = site.master.data_dir().join("store");
    let mut answers = Answers::keeping(site.plain(), &[&site.master.data_dir()]);

    let format = store.join("format");
    let good = fs::read_to_string(&format).unwrap();
    fs::write(&format, good.replacen("picket-store 1", "picket-store 2", 1)).unwrap();
    answers.refusal(
        "picket-master run    # a newer picket-master wrote the store",
        || start(&site),
    );
    answers.refusal("picket-master verify    # the same", || {
        site.master.local("verify", &[])
    });
    fs::write(&format, &good).unwrap();

    let segment = fs::read_dir(store.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .min()
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    // Well inside what the first record says, whatever the lengths of the others.
    bytes[200] ^= 0x20;
    fs::write(&segment, &bytes).unwrap();
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    answers.plain = answers.plain.clone().with(name, "[segment]");
    answers.refusal("picket-master run    # a byte of the journal is another", || {
        start(&site)
    });
    answers.refusal("picket-master verify    # the same", || {
        site.master.local("verify", &[])
    });
    let text = answers.text();
    answers.text = vec![offsets_hidden(&text)];
    read_by_people!("stores_not_usable", answers);
}

fn start(site: &Site) -> Said {
    run(command(&binary("picket-master"))
        .arg("run")
        .arg("--config")
        .arg(site.master.config()))
}

/// A program as a user who may read `folder` and not write it.
fn unprivileged(site: &Site, program: &str, folder: &Path) -> Command {
    let read_only = || fs::set_permissions(folder, fs::Permissions::from_mode(0o500)).unwrap();
    if !rustix::process::geteuid().is_root() {
        read_only();
        return command(&binary(program));
    }
    // Nobody may write nothing, but must get as far as the folder, and to a copy of the program.
    let copy = site.root().join(program);
    fs::copy(binary(program), &copy).unwrap();
    for path in folder
        .ancestors()
        .skip(1)
        .take_while(|path| path.starts_with(site.root()))
    {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    given(folder);
    read_only();
    let mut command = command(Path::new("setpriv"));
    let user = NOBODY.to_string();
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .arg(copy);
    command
}

/// Makes nobody the owner of a folder and of everything in it.
fn given(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        let inside: Vec<PathBuf> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        inside.iter().for_each(|path| given(path));
    }
}

/// Bytes and revisions differ with the length of what was enrolled.
fn offsets_hidden(text: &str) -> String {
    let words = text.split(' ').scan("", |before, word| {
        let hidden = matches!(*before, "byte" | "offset") && word.starts_with(|c: char| c.is_ascii_digit());
        *before = word;
        Some(if hidden {
            word.replace(|c: char| c.is_ascii_digit(), "#").replace("##", "#")
        } else {
            word.to_owned()
        })
    });
    words.collect::<Vec<_>>().join(" ")
}
