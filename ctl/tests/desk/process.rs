//! The real program as a process.

use std::{
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use crate::office::Office;

fn picketctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_picketctl"))
        .args(args)
        .env_remove("PICKET_BUNDLE")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_and_version_are_results_and_mistakes_are_not() {
    let help = picketctl(&["--help"]);
    assert!(help.status.success() && help.stderr.is_empty());
    assert!(text(&help.stdout).contains("picketctl host enroll"));
    let version = picketctl(&["--version"]);
    assert_eq!(
        text(&version.stdout),
        format!("picketctl {}\n", env!("CARGO_PKG_VERSION"))
    );
    let wrong = picketctl(&["host", "lst"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stdout.is_empty());
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_exit_code_three() {
    let office = Office::open();
    let real = picket_clock::Clock::system();
    let holder = picket_pki::Holder::Operator {
        name: "admin".parse().unwrap(),
    };
    let domain = office.authority.trust_domain();
    let authority = picket_pki::Authority::create(domain, real.now()).unwrap();
    let key = picket_pki::Key::generate().unwrap();
    let life = picket_pki::lifetime::OPERATOR;
    let issued = authority
        .issue(key.public(), &holder.identity(), life, real.now())
        .unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let bundle = picket_pki::Bundle {
        holder,
        trust_domain: domain.clone(),
        masters: vec![format!("127.0.0.1:{port}")],
        authorities: vec![authority.certificate().to_vec()],
        certificate: issued.der,
        key,
    };
    office.bundle("real.bundle", &bundle);
    let output = Command::new(env!("CARGO_BIN_EXE_picketctl"))
        .args(["host", "list"])
        .env("PICKET_BUNDLE", office.path("real.bundle"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(output.stdout.is_empty());
    let said = text(&output.stderr);
    assert!(
        said.contains(&format!("127.0.0.1:{port} (nothing listens there)")),
        "{said}"
    );
}

#[test]
fn a_closed_pipe_ends_it_without_a_word() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_picketctl"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
