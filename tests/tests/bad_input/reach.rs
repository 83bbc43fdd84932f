//! Masters that do not answer, are none, or live at another time.

use std::{fs, net::TcpListener, path::PathBuf};

use jiff::SignedDuration;
use picket_clock::Clock;
use picket_pki::{Authority, Bundle, Holder, Identity, Key, lifetime};
use picket_tests::process::{Agent, Caller, Impostor, Site};
use uuid::Uuid;

use crate::{Answers, bundles::journal, read_by_people};

#[test]
fn a_master_that_cannot_be_reached_is_said_to_be_so() {
    let site = Site::at_rest();
    let free = TcpListener::bind((site.at(), 0)).unwrap().local_addr().unwrap();
    let (bundle, _) = another_time(&site, free.to_string(), SignedDuration::ZERO);
    let agent = Agent::new("oslo", &site.root().join("oslo"), &bundle);
    let plain = site.plain().with_address(free, "[nowhere]");
    let mut answers = Answers::keeping(plain, &[&agent.state_dir(), &site.master.data_dir()]);
    answers.refusal("picket-agent enroll oslo.bundle    # nothing listens", || {
        agent.enroll()
    });
    answers.refusal("picketctl host list    # nothing listens", || {
        site.master.ctl(&["host", "list"])
    });
    answers.refusal("picket-agent status    # never enrolled", || {
        agent.ask(&["status"])
    });
    answers.refusal("picket-agent run    # never enrolled", || agent.ask(&["run"]));
    read_by_people!("master_unreachable", answers);
}

#[test]
fn whatever_is_not_the_master_is_not_taken_for_it() {
    let (site, other) = (Site::new(), Site::new());
    let agent = site.machine("oslo").dialling(other.master.agents);
    let plain = site
        .plain()
        .with_address(other.master.agents, "[other-agents]")
        .with_address(other.master.admin, "[other-admin]")
        .with_address(other.master.monitor, "[other-metrics]");
    let mut answers = Answers::keeping(plain, &[&agent.state_dir(), &journal(&site), &journal(&other)]);
    answers.refusal(
        "picket-agent enroll oslo.bundle    # another master answers",
        || agent.enroll(),
    );
    let agent = agent.dialling(site.master.admin);
    answers.refusal("picket-agent enroll oslo.bundle    # the operators' port", || {
        agent.enroll()
    });
    let agent = agent.dialling(other.master.monitor);
    answers.refusal(
        "picket-agent enroll oslo.bundle    # something that speaks no TLS",
        || agent.enroll(),
    );
    for (what, address) in [
        ("another master answers", other.master.admin),
        ("the agents' port", site.master.agents),
        ("something that speaks no TLS", site.master.monitor),
    ] {
        answers.refusal(&format!("picketctl --master ... host list    # {what}"), || {
            site.master
                .ctl(&["--master", &address.to_string(), "host", "list"])
        });
    }
    read_by_people!("not_the_master", answers);
}

#[test]
fn a_clock_that_is_off_is_blamed_and_not_the_certificate() {
    let site = Site::at_rest();
    let mut answers = Answers::keeping(site.plain(), &[]);
    for (what, shift) in [
        (
            "the master lives a month ago",
            SignedDuration::from_hours(-24 * 40),
        ),
        ("the master lives a day ahead", SignedDuration::from_hours(24)),
    ] {
        let (bundle, impostor) = another_time(&site, String::new(), shift);
        let agent = Agent::new("oslo", &site.root().join("oslo"), &bundle).dialling(impostor.address);
        answers.plain = answers.plain.clone().with_address(impostor.address, "[agents]");
        answers.refusal(&format!("picket-agent enroll oslo.bundle    # {what}"), || {
            agent.enroll()
        });
        assert!(!agent.state_dir().exists());
    }
    read_by_people!("clock_off", answers);
}

/// A bundle that is good now, and a master of its CA whose certificate was made that long after now.
fn another_time(site: &Site, address: String, shift: SignedDuration) -> (PathBuf, Impostor) {
    let now = Clock::system().now();
    let domain = "example.org".parse().unwrap();
    let authority = Authority::create(&domain, now - SignedDuration::from_hours(24 * 365)).unwrap();
    let (key, masters_key) = (Key::generate().unwrap(), Key::generate().unwrap());
    let id = Uuid::from_u128(7);
    let issue = |key: &Key, identity: &Identity, life, at| {
        authority.issue(key.public(), identity, life, at).unwrap().der
    };
    let certificate = issue(&key, &Identity::Host(id), lifetime::BUNDLE, now);
    let masters = issue(&masters_key, &Identity::Master, lifetime::MASTER, now + shift);
    let master = Caller {
        trust_domain: domain.clone(),
        authorities: vec![authority.certificate().to_vec()],
        certificate: masters,
        key: masters_key,
    };
    let impostor = master.play_master(site.at());
    let bundle = Bundle {
        holder: Holder::Host {
            id,
            name: "oslo".into(),
        },
        trust_domain: domain,
        masters: vec![if address.is_empty() {
            impostor.address.to_string()
        } else {
            address
        }],
        authorities: vec![authority.certificate().to_vec()],
        certificate,
        key,
    };
    let path = site.root().join("oslo.bundle");
    // The mode first, then the secret.
    drop(fs::remove_file(&path));
    picket_tests::process::write_private(&path, bundle.encode().unwrap().as_bytes());
    (path, impostor)
}
