//! The CA's key, as the real programs keep it.

use std::{fs, net::Ipv4Addr, process::Command};

use picket_tests::process::{Master, binary, command, run};
use picket_transit::{
    Place,
    fake::{Fake, Life, Policy},
};

const AT: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PASSPHRASE: &str = "correct horse battery staple";

#[test]
fn an_encrypted_key_opens_with_openssl_too_and_takes_another_passphrase() {
    let root = tempfile::tempdir().unwrap();
    let (file, other) = (root.path().join("passphrase"), root.path().join("other"));
    picket_durable::write_private(&file, PASSPHRASE.as_bytes()).unwrap();
    picket_durable::write_private(&other, b"an entirely different one\n").unwrap();
    let mut master = Master::with_ca_key(
        &format!("ca.passphrase_file = {file:?}"),
        &root.path().join("master"),
        AT,
    );
    let key = master.data_dir().join("ca.key");
    let openssl = |passphrase: &std::path::Path| {
        Command::new("openssl")
            .args(["pkey", "-noout", "-check", "-in"])
            .arg(&key)
            .arg("-passin")
            .arg(format!("file:{}", passphrase.display()))
            .output()
            .expect("openssl is there")
    };
    assert!(openssl(&file).status.success(), "{:?}", openssl(&file));
    assert!(!openssl(&other).status.success());
    master.start();
    let changed = run(command(&binary("picket-master"))
        .args(["ca-key", "passphrase", "--data-dir"])
        .arg(master.data_dir())
        .arg("--passphrase-file")
        .arg(&file)
        .arg("--new-passphrase-file")
        .arg(&other));
    drop(changed.ok());
    assert!(openssl(&other).status.success() && !openssl(&file).status.success());

    // The running master has the key open: nobody needs the passphrase for a bundle.
    let bundle = master.data_dir().join("again.bundle");
    let made = run(command(&binary("picket-master"))
        .args(["admin-bundle", "--data-dir"])
        .arg(master.data_dir())
        .arg("--out")
        .arg(&bundle));
    drop(made.ok());
    assert!(bundle.exists());
    assert_eq!(master.stop().code, Some(0));
    master.set_ca_key(&format!("ca.passphrase_file = {other:?}"));
    master.start();
    assert!(!master.log().contains(PASSPHRASE));
}

#[test]
fn neither_token_nor_passphrase_is_in_a_log_of_everything() {
    let (fake, root) = (Fake::start(), tempfile::tempdir().unwrap());
    fake.make_key("picket-ca", "ecdsa-p256");
    let token = fake.make_token(Policy::Sign, Life::Periodic(std::time::Duration::from_secs(4)));
    let Place {
        address,
        authority,
        token: file,
        ..
    } = fake.place(root.path(), "picket-ca", &token).unwrap();
    let ca = format!(
        "ca.key = \"transit\"\nca.transit.address = \"{address}\"\nca.transit.authority = {authority:?}\n\
         ca.transit.token_file = {:?}\nlog.level = \"trace\"",
        file.path()
    );
    let mut master = Master::with_ca_key(&ca, &root.path().join("master"), AT);
    master.start();
    let enrolled = run(command(&binary("picketctl"))
        .args(["host", "enroll", "oslo", "--out"])
        .arg(root.path().join("oslo.bundle"))
        .env("PICKET_BUNDLE", master.bundle()));
    drop(enrolled.ok());
    fake.revoke_token(&token);
    let refused = run(command(&binary("picketctl"))
        .args(["host", "enroll", "bergen", "--out"])
        .arg(root.path().join("bergen.bundle"))
        .env("PICKET_BUNDLE", master.bundle()));
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("refuses the token"), "{}", refused.stderr);
    let log = master.log();
    assert!(
        log.contains("TRACE") && log.contains("refuses the token"),
        "the log is that of everything"
    );
    assert!(!log.contains(&token) && !refused.stderr.contains(&token));
    for entry in fs::read_dir(master.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap_or_default();
        assert!(
            !bytes
                .windows(token.len())
                .any(|window| window == token.as_bytes()),
            "{}",
            path.display()
        );
    }
}
