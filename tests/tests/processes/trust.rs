//! Who is let in, and who is not: each is refused in the handshake, before one byte of HTTP/2 is read, with an alert
//! that says why, and is counted.

use std::{fs, time::Duration};

use picket_link::LinkError;
use picket_pki::{Authority, Identity, Refusal};
use picket_proto::wire::agent::{LeaveReason, session_response::Message};
use picket_tests::process::{Caller, Site, elapsed, twin, until};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(25);

#[test]
fn a_certificate_of_another_ca_is_answered_unknown_ca() {
    let (site, other) = (Site::new(), Site::new());
    let trusted = host_bundle(&site, "oslo");
    let foreign = host_bundle(&other, "oslo");
    let caller = trusted.showing(foreign.certificate, foreign.key);
    refused(&site, "agents", &caller, Refusal::OtherAuthority);
}

#[test]
fn a_certificate_of_a_ca_that_bears_our_cas_name_is_answered_unknown_ca() {
    let site = Site::new();
    let known = host_bundle(&site, "oslo");
    let identity = Identity::Host(Uuid::from_u128(7));
    let (certificate, key) = twin(&known.authorities[0], &known.trust_domain, &identity);
    refused(
        &site,
        "agents",
        &known.showing(certificate, key),
        Refusal::OtherAuthority,
    );

    let operator = Identity::Operator("admin".parse().unwrap());
    let (certificate, key) = twin(&known.authorities[0], &known.trust_domain, &operator);
    refused(
        &site,
        "admin",
        &known.showing(certificate, key),
        Refusal::OtherAuthority,
    );
}

#[test]
fn a_hosts_certificate_opens_no_admin_port_and_an_operators_no_agent_port() {
    let site = Site::new();
    let host = Caller::from(site.enrolled("oslo").identity());
    host.knock(site.master.agents).unwrap();
    refused(&site, "admin", &host, Refusal::WrongRole);

    let operator = Caller::of(&fs::read(site.master.bundle()).unwrap());
    operator.knock(site.master.admin).unwrap();
    refused(&site, "agents", &operator, Refusal::WrongRole);
}

#[test]
fn a_certificate_that_our_ca_signed_and_nobody_pinned_is_answered_certificate_unknown() {
    let site = Site::new();
    let read = |name| fs::read(site.master.data_dir().join(name)).unwrap();
    let authority = Authority::load(&read("ca.pem"), &read("ca.key")).unwrap();
    let host = Caller::signed_by(&authority, &Identity::Host(Uuid::from_u128(7)));
    refused(&site, "agents", &host, Refusal::Unknown);
    let operator = Caller::signed_by(&authority, &Identity::Operator("admin".parse().unwrap()));
    refused(&site, "admin", &operator, Refusal::Unknown);
}

#[test]
fn a_bundle_opens_nothing_once_its_machine_has_a_key_of_its_own() {
    let site = Site::new();
    let oslo = site.online("oslo");
    let bundle = Caller::of(&fs::read(&oslo.bundle).unwrap());
    refused(&site, "agents", &bundle, Refusal::Spent);

    // A thief with the bundle and another machine learns no more.
    let thief = picket_tests::process::Agent::new("oslo", &site.root().join("thief"), &oslo.bundle);
    let said = thief.enroll();
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("has been used before"), "{}", said.stderr);
    assert!(!thief.state_dir().exists(), "nothing was written");
    drop(site.master.until_host("oslo", "online", SOON));
}

#[test]
fn an_agent_takes_no_host_for_its_master_and_says_what_answered() {
    let site = Site::new();
    let mut oslo = site.enrolled("oslo");
    let impostor = Caller::from(site.enrolled("bergen").identity());
    let mut impostor = impostor.play_master(site.at());
    oslo.dial(impostor.address);
    oslo.start();
    let error = impostor.caught().expect_err("the agent hung up");
    assert_eq!(error.label(), "distrusted", "{error:?}");
    let status = oslo.until_standing("disconnected", SOON);
    let problem = status["master"]["problem"].as_str().unwrap();
    assert!(
        problem.contains("not the master") && problem.contains("somebody else"),
        "{problem}"
    );
}

#[test]
fn an_agent_takes_no_ca_of_the_same_name_for_its_own() {
    let site = Site::new();
    let mut oslo = site.enrolled("oslo");
    let known = oslo.identity();
    let (certificate, key) = twin(&known.authorities[0], &known.trust_domain, &Identity::Master);
    let impostor = Caller::from(known).showing(certificate, key);
    let mut impostor = impostor.play_master(site.at());
    oslo.dial(impostor.address);
    oslo.start();
    let error = impostor.caught().expect_err("the agent hung up");
    assert_eq!(error.label(), "distrusted", "{error:?}");
    let status = oslo.until_standing("disconnected", SOON);
    let problem = status["master"]["problem"].as_str().unwrap();
    assert!(problem.contains("its certificate is of another CA"), "{problem}");
}

#[test]
fn a_banned_hosts_open_session_is_cut_within_a_second() {
    let site = Site::new();
    let oslo = Caller::from(site.enrolled("oslo").identity());
    let mut operator = Caller::of(&fs::read(site.master.bundle()).unwrap()).operator(site.master.admin);
    let mut session = oslo.session(site.master.agents);

    // From before the operator asks until the other end sees the connection end.
    let began = elapsed();
    operator.ban("oslo", "stolen");
    let mut told = None;
    while let Some(said) = session.hear() {
        if let Message::Leave(leave) = said {
            told = Some(leave);
        }
    }
    let cut = began();
    let leave = told.expect("a last word");
    assert_eq!(
        (leave.reason(), leave.message.as_str()),
        (LeaveReason::Banned, "this host is banned: stolen")
    );
    assert!(cut < Duration::from_secs(1), "it took {} ms", cut.as_millis());
    refused(&site, "agents", &oslo, Refusal::Revoked);
    println!("a ban cut an open session after {} ms", cut.as_millis());
}

#[test]
fn a_banned_agent_says_that_it_is_and_why() {
    let site = Site::new();
    let oslo = site.online("oslo");
    drop(oslo.until_standing("connected", SOON));
    drop(
        site.master
            .ctl(&["host", "ban", "oslo", "--reason", "stolen"])
            .ok(),
    );
    let status = oslo.until_standing("banned", SOON);
    let problem = status["master"]["problem"].as_str().unwrap();
    assert!(
        problem.contains("banned") && problem.contains("stolen"),
        "{problem}"
    );
    assert!(oslo.log().contains("this host is banned"), "{}", oslo.log());
    until("the session to be gone", SOON, || {
        let open = site.master.metrics().of("master_sessions");
        if open == 0.0 {
            Ok(())
        } else {
            Err(open.to_string())
        }
    });
    drop(site.master.until_host("oslo", "banned", SOON));
}

/// Whoever holds the bundle that a host was enrolled with.
fn host_bundle(site: &Site, name: &str) -> Caller {
    Caller::of(&fs::read(site.bundle(name)).unwrap())
}

/// Knocks at a door; it stays shut, for this reason, and that is counted there and nowhere else.
#[track_caller]
fn refused(site: &Site, door: &str, caller: &Caller, reason: Refusal) {
    let address = if door == "admin" {
        site.master.admin
    } else {
        site.master.agents
    };
    let before = site.master.metrics();
    match caller.knock(address) {
        Err(LinkError::Refused { cause, .. }) => assert_eq!(cause, reason, "the alert"),
        other => panic!("wanted {reason:?}, and it was {other:?}"),
    }
    let counted = |count: f64, outcome| count - before.handshakes(door, outcome);
    // The alert leaves before it is counted.
    until("the refusal to be counted", SOON, || {
        let refused = counted(
            site.master.metrics().handshakes(door, reason.label()),
            reason.label(),
        );
        if refused == 1.0 {
            Ok(())
        } else {
            Err(refused.to_string())
        }
    });
    // HTTP/2 begins on accepted connections alone, and there was none but those of hosts that are online.
    let accepted = counted(site.master.metrics().handshakes(door, "accepted"), "accepted");
    assert_eq!(accepted, 0.0, "no connection was let in");
}
