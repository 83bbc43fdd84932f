//! What an operator reads when it does not work: each time one sentence that says what to do, and nothing is changed.

use std::{fs, os::unix::fs::PermissionsExt};

use insta::assert_snapshot;
use jiff::SignedDuration;
use picket_pki::{Authority, Holder, Identity, Standing, lifetime};
use picketctl::Exit;
use tonic::Code;
use uuid::Uuid;

use crate::{
    hosts::with_hosts,
    office::{MASTER, Office},
};

#[tokio::test(start_paused = true)]
async fn no_bundle_at_all_says_where_one_was_looked_for() {
    let office = Office::open();
    assert_snapshot!("default_place", office.types_all("host list").await);
    fs::create_dir_all(office.path(".config/picket")).unwrap();
    fs::copy(
        office.path("admin.bundle"),
        office.path(".config/picket/admin.bundle"),
    )
    .unwrap();
    office.types_all("host list").await.done();
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_is_of_no_use_says_why() {
    let office = Office::open();
    let good = office.read("admin.bundle");
    let write =
        |text: &str| picket_durable::write_private(office.path("admin.bundle"), text.as_bytes()).unwrap();

    fs::set_permissions(office.path("admin.bundle"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_snapshot!("readable_by_others", office.types("host list").await);
    write(&good[..good.len() / 2]);
    assert_snapshot!("truncated", office.types("host list").await);
    write(&good.replace("example.org:7444", "example.net:7444"));
    assert_snapshot!("edited", office.types("host list").await);
    write("hello\n");
    assert_snapshot!("no_bundle", office.types("host list").await);
    write(&good.replace("version 1", "version 7"));
    assert_snapshot!("newer", office.types("host list").await);
    let host = Holder::Host {
        id: Uuid::from_u128(7),
        name: "edge-07".into(),
    };
    office.bundle(
        "admin.bundle",
        &office.bundle_of(&office.authority, host, lifetime::BUNDLE),
    );
    assert_snapshot!("of_a_host", office.types("host list").await);
}

#[tokio::test(start_paused = true)]
async fn what_was_typed_or_pasted_does_not_steer_the_terminal_when_it_is_said_back() {
    let mut office = Office::open();
    office.someone_answers("n\n");
    let steering = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}";
    for line in [
        format!("host shew '{steering}'"),
        format!("host list --label '{steering}'"),
        format!("host list --{steering}"),
        format!("host show 'edge{steering}'"),
        format!("host retire 'edge{steering}' --reason gone"),
        format!("host enroll 'edge{steering}' --out '{steering}/no-such-place'"),
        format!("audit verify '{steering}'"),
        format!("deploy plan -f '{steering}'"),
        format!("--bundle '{steering}' host list"),
    ] {
        let said = office.types(&line).await;
        let text = format!("{}{}", said.out, said.err);
        assert!(!text.is_empty(), "{line:?} was answered");
        let steers = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!text.contains(steers), "{line:?}: {text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_out_of_its_time_names_the_clock() {
    let mut office = Office::open();
    office.skew(40 * 86_400);
    assert_snapshot!("expired", office.types("host list").await);
    office.skew(-80 * 86_400);
    assert_snapshot!("not_yet_valid", office.types("host list").await);
}

#[tokio::test(start_paused = true)]
async fn a_master_whose_certificate_does_not_fit_the_clock_here_is_not_asked() {
    let mut office = Office::open();
    // The bundle outlives the master's certificate, so that only the latter is out of its time.
    let holder = Holder::Operator {
        name: "admin".parse().unwrap(),
    };
    let long = office.bundle_of(&office.authority, holder, SignedDuration::from_hours(24 * 365));
    office.bundle("admin.bundle", &long);
    office.skew(31 * 86_400);
    assert_snapshot!(office.types("host list").await);
}

#[tokio::test(start_paused = true)]
async fn a_master_that_does_not_answer_is_named_with_its_address() {
    let office = Office::open();
    assert_snapshot!("nothing_there", office.types("host list --master 10.0.0.9").await);
    let mut bundle = office.operator();
    bundle.masters = vec!["one.example.org:7444".into(), "two.example.org:7444".into()];
    office.bundle("admin.bundle", &bundle);
    assert_snapshot!("none_of_two", office.types("host list").await);
    bundle.masters.push(MASTER.into());
    office.bundle("admin.bundle", &bundle);
    office.types("host list").await.done();
    office.pipes.cut();
    assert_eq!(office.types("host list").await.exit, Exit::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn a_master_that_says_nothing_is_given_up_in_time() {
    let office = with_hosts().await;
    office.master.state().is_stuck = true;
    assert_snapshot!("reading", office.types("host list --timeout 3s").await);
    assert_snapshot!("changing", office.types("host ban edge-07 --reason stolen").await);
    let incoming = office.pipes.listen(MASTER);
    assert_snapshot!("no_handshake", office.types("host list --timeout 3s").await);
    drop(incoming);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_under_a_change_leaves_it_open_whether_it_was_done() {
    let office = with_hosts().await;
    office.master.state().is_stuck = true;
    let cut = async {
        office.wait(1).await;
        office.pipes.cut();
    };
    let (said, ()) = tokio::join!(office.types("host ban edge-07 --reason stolen"), cut);
    assert_snapshot!(said);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_master_is_not_asked() {
    let mut office = Office::open();
    let other = Authority::create(office.authority.trust_domain(), office.clock.now()).unwrap();
    office.listen(MASTER, Identity::Master, &other);
    assert_snapshot!("other_ca", office.types("host list").await);
    office.listen(
        MASTER,
        Identity::Host(Uuid::from_u128(7)),
        &office.authority.clone(),
    );
    assert_snapshot!("a_host_plays_master", office.types("host list").await);
}

#[tokio::test(start_paused = true)]
async fn a_refused_handshake_says_why() {
    let office = Office::open();
    for (name, standing) in [
        ("spent", Standing::Spent),
        ("cut_off", Standing::Banned),
        ("unknown", Standing::Unknown),
    ] {
        office.stand(standing);
        let said = office.types("host list").await;
        assert_eq!(said.exit, Exit::Failed, "{said}");
        assert_snapshot!(name, said);
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_becomes_one_sentence_and_an_exit_code() {
    let office = with_hosts().await;
    for (name, code, message) in [
        (
            "permission_denied",
            Code::PermissionDenied,
            "the operator `admin` is a viewer and may not ban",
        ),
        (
            "not_found_with_a_hint",
            Code::NotFound,
            "there is no host `edge-07`; see `picketctl host list`",
        ),
        (
            "resource_exhausted",
            Code::ResourceExhausted,
            "there are too many calls at once",
        ),
        (
            "not_found_with_another_hint",
            Code::NotFound,
            "there is no host `edge-07`; see `picketctl host list --label site=oslo`",
        ),
        ("unimplemented", Code::Unimplemented, ""),
        (
            "internal",
            Code::Internal,
            "the master could not save its state; see its log",
        ),
        ("unavailable", Code::Unavailable, "the master is stopping"),
        ("without_words", Code::Unknown, ""),
        ("escapes", Code::FailedPrecondition, "\u{1b}[2Jthe screen is mine"),
    ] {
        office.master.state().refuses_with = Some((code, message.to_owned()));
        assert_snapshot!(name, office.types("host ban edge-07 --reason stolen").await);
    }
}
