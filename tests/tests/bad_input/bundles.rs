//! Bundles that are of no use.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use jiff::SignedDuration;
use picket_clock::Clock;
use picket_pki::{Authority, Bundle, Holder, Identity, Key, lifetime};
use picket_tests::process::{Agent, Site};
use uuid::Uuid;

use crate::{Answers, read_by_people};

#[test]
fn an_agent_is_enrolled_from_no_bundle_that_is_damaged_old_or_open_to_others() {
    let site = Site::new();
    let agent = site.machine("oslo");
    let good = fs::read_to_string(&agent.bundle).unwrap();
    let plain = site.plain().with("mode 0644", "mode 0644");
    let mut answers = Answers::keeping(plain, &[&agent.state_dir(), &journal(&site)]);
    let mut enroll = |what: &str, bundle: &str, mode: u32| {
        let file = write(site.root(), &format!("{what}.bundle"), bundle, mode);
        let agent = Agent::new("oslo", &site.root().join("oslo"), &file);
        answers.refusal(&format!("picket-agent enroll {what}.bundle"), || agent.enroll());
    };
    enroll("truncated", &good[..good.len() / 2], 0o600);
    enroll("edited", &good.replacen("oslo", "bergen", 1), 0o600);
    enroll("edited-inside", &edited_inside(&good), 0o600);
    enroll("no", "-----BEGIN CERTIFICATE-----\n", 0o600);
    enroll("expired", &bundle_of(SignedDuration::from_hours(-24 * 30)), 0o600);
    enroll("future", &bundle_of(SignedDuration::from_hours(24 * 30)), 0o600);
    enroll("open", &good, 0o644);
    enroll(
        "operator",
        &fs::read_to_string(site.master.bundle()).unwrap(),
        0o600,
    );
    let missing = Agent::new(
        "oslo",
        &site.root().join("oslo"),
        &site.root().join("missing.bundle"),
    );
    answers.refusal("picket-agent enroll missing.bundle", || missing.enroll());
    read_by_people!("agent_bundles", answers);

    // The good one is as good as before.
    drop(agent.enroll().ok());
}

#[test]
fn a_bundle_that_was_used_or_is_of_another_master_enrolls_nobody() {
    let (site, other) = (Site::new(), Site::new());
    let used = site.enrolled("oslo");
    let plain = site
        .plain()
        .with_address(other.master.agents, "[other-agents]")
        .with_path(other.root(), "[other]");
    let thief = Agent::new("oslo", &site.root().join("thief"), &used.bundle);
    let foreign = Agent::new("bergen", &site.root().join("bergen"), &other.bundle("bergen"))
        .dialling(site.master.agents);
    let mut answers = Answers::keeping(
        plain,
        &[
            &thief.state_dir(),
            &foreign.state_dir(),
            &used.state_dir(),
            &journal(&site),
        ],
    );
    answers.refusal("picket-agent enroll used.bundle", || thief.enroll());
    answers.refusal("picket-agent enroll of-another-master.bundle", || {
        foreign.enroll()
    });
    let second = site.bundle("tromso");
    // Its host is new in the journal, and that was before.
    let mut answers_here = Answers::keeping(site.plain(), &[&used.state_dir(), &journal(&site)]);
    let again = Agent::new("tromso", &site.root().join("oslo"), &second);
    answers_here.refusal("picket-agent enroll another-host.bundle", || again.enroll());
    answers.text.extend(answers_here.text);
    read_by_people!("agent_bundles_of_others", answers);
}

#[test]
fn an_operator_is_let_in_with_no_bundle_that_is_damaged_old_or_open_to_others() {
    let site = Site::new();
    let good = fs::read_to_string(site.master.bundle()).unwrap();
    let host = site.bundle("oslo");
    let mut answers = Answers::keeping(site.plain(), &[&journal(&site)]);
    let mut list = |what: &str, bundle: &Path| {
        answers.refusal(&format!("picketctl --bundle {what}.bundle host list"), || {
            site.master.ctl_as(bundle, &["host", "list"])
        });
    };
    list(
        "truncated",
        &write(site.root(), "truncated.bundle", &good[..good.len() - 10], 0o600),
    );
    list(
        "edited",
        &write(site.root(), "edited.bundle", &edited_inside(&good), 0o600),
    );
    list(
        "expired",
        &write(
            site.root(),
            "expired.bundle",
            &operators_of(SignedDuration::from_hours(-24 * 60)),
            0o600,
        ),
    );
    list("open", &write(site.root(), "open.bundle", &good, 0o640));
    list("host", &host);
    list("missing", &site.root().join("missing.bundle"));
    read_by_people!("operator_bundles", answers);
}

/// Where every change of a master would show.
pub(crate) fn journal(site: &Site) -> PathBuf {
    site.master.data_dir().join("store/journal")
}

/// A bundle with one letter of its key changed.
fn edited_inside(bundle: &str) -> String {
    let at = bundle.find("\"key\": \"").unwrap() + 40;
    let other = if &bundle[at..=at] == "A" { "B" } else { "A" };
    format!("{}{other}{}", &bundle[..at], &bundle[at + 1..])
}

/// A bundle as a master of our own would have written it that long after now.
fn bundle_of(shift: SignedDuration) -> String {
    let holder = Holder::Host {
        id: Uuid::from_u128(7),
        name: "oslo".into(),
    };
    written(&holder, lifetime::BUNDLE, shift)
}

fn operators_of(shift: SignedDuration) -> String {
    written(
        &Holder::Operator {
            name: "admin".parse().unwrap(),
        },
        lifetime::OPERATOR,
        shift,
    )
}

fn written(holder: &Holder, life: SignedDuration, shift: SignedDuration) -> String {
    let at = Clock::system().now() + shift;
    let domain = "example.org".parse().unwrap();
    let authority = Authority::create(&domain, at).unwrap();
    let key = Key::generate().unwrap();
    let identity: Identity = holder.identity();
    let certificate = authority.issue(key.public(), &identity, life, at).unwrap().der;
    let bundle = Bundle {
        holder: holder.clone(),
        trust_domain: domain,
        masters: vec!["127.0.0.1:1".into()],
        authorities: vec![authority.certificate().to_vec()],
        certificate,
        key,
    };
    bundle.encode().unwrap().to_string()
}

fn write(root: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = root.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}
