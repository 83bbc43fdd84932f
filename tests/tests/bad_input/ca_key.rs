//! Passphrases and CA keys that do not do: each refusal says what would.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use picket_tests::process::{Master, Plain, Said, binary, command, run};

use crate::{Answers, read_by_people};

const AT: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn keyed(verb: &str, master: &Master, more: &[&Path]) -> Said {
    let mut program = command(&binary("picket-master"));
    program.args(["ca-key", verb, "--config"]).arg(master.config());
    program.arg("--data-dir").arg(master.data_dir());
    for (flag, path) in ["--passphrase-file", "--new-passphrase-file"].iter().zip(more) {
        program.arg(flag).arg(path);
    }
    run(&mut program)
}

fn started(master: &Master) -> Said {
    run(command(&binary("picket-master"))
        .arg("run")
        .arg("--config")
        .arg(master.config()))
}

/// What no refusal may change. A start opens the store, and with it the index, before it opens the CA.
fn kept(master: &Master) -> Vec<PathBuf> {
    ["ca.key", "ca.pem", "store/journal"]
        .map(|name| master.data_dir().join(name))
        .into()
}

#[test]
fn a_passphrase_that_does_not_do_is_refused_with_what_would() {
    let root = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = root.path().join(name);
        picket_durable::write_private(&path, text.as_bytes()).unwrap();
        path
    };
    let good = file("good", "correct horse battery staple\n");
    let (short, lines, empty) = (
        file("short", "secret\n"),
        file("lines", "one\ntwo\n"),
        file("empty", "\n"),
    );
    let wrong = file("wrong", "incorrect horse battery staple\n");
    let open = file("open", "correct horse battery staple\n");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let missing = root.path().join("missing");
    let named = |path: &Path| format!("ca.passphrase_file = {path:?}");

    let mut master = Master::not_yet("", &root.path().join("master"), AT);
    let plain = Plain::default().with_path(root.path(), "[dir]");
    let mut answers = Answers::keeping(plain, &[]);
    for (what, ca) in [
        ("no passphrase", String::new()),
        ("a short one", named(&short)),
        ("two lines", named(&lines)),
        ("an empty file", named(&empty)),
        ("a file that others can read", named(&open)),
        ("no file", named(&missing)),
    ] {
        master.set_ca_key(&ca);
        answers.refusal(&format!("picket-master init    # {what}"), || master.make());
        assert!(!master.data_dir().join("store").exists());
    }

    master.set_ca_key(&named(&good));
    drop(master.make().ok());
    let mut answers = Answers {
        kept: kept(&master),
        ..answers
    };
    for (what, ca) in [
        ("no passphrase", String::new()),
        ("another passphrase", named(&wrong)),
        ("told that it is plain", "ca.key = \"plain\"".to_owned()),
    ] {
        master.set_ca_key(&ca);
        answers.refusal(&format!("picket-master run    # {what}"), || started(&master));
    }
    answers.refusal("picket-master ca-key encrypt    # an encrypted key", || {
        keyed("encrypt", &master, &[&good])
    });
    answers.refusal("picket-master ca-key passphrase    # another passphrase", || {
        keyed("passphrase", &master, &[&wrong, &good])
    });
    answers.refusal("picket-master ca-key passphrase    # a short new one", || {
        keyed("passphrase", &master, &[&good, &short])
    });

    let mut master = Master::init(&root.path().join("plain"), AT);
    master.set_ca_key("");
    let mut answers = Answers {
        kept: kept(&master),
        ..answers
    };
    answers.refusal("picket-master run    # a plain key", || started(&master));
    read_by_people!("ca_keys", answers);
}
