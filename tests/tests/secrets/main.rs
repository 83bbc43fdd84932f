//! No secret is anywhere where it has no business: a whole life of a site is lived with every log at its loudest, and then
//! every private key and token that was used is looked for, in each form it could have, in everything that was written,
//! sent or printed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod needle;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use needle::{Secret, Secrets};
use picket_agent::identity::IdentityStore;
use picket_pki::{Bundle, Key};
use picket_proto::{audit::Line, wire::admin::ListAuditRequest};
use picket_tests::{
    Branch, DeckyState, Host,
    HostState::{Banned, Online},
    Site,
    stranger::{Door, Stranger},
};
use tracing_subscriber::fmt::MakeWriter;

#[tokio::test(start_paused = true)]
async fn no_private_key_and_no_token_is_in_journal_index_events_logs_export_or_debug() {
    let logs = Logs::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(logs.clone())
        .init();
    let mut secrets = Secrets::default();
    let mut printed = String::new();

    let site = Site::new().await;
    let dir = site.data_dir();
    secrets.add_keys_in(&dir);
    let admin = fs::read(dir.join("admin.bundle")).unwrap();
    secrets.add_bundle("the admin bundle", &admin);
    printed += &format!("{:?}", Bundle::parse(&admin).unwrap());

    let mut hosts = Vec::new();
    for name in ["oslo", "bern"] {
        let machine = site.machine(name);
        let bundle = site.bundle(name).await;
        secrets.add_bundle(name, &bundle);
        printed += &format!("{:?}", Bundle::parse(&bundle).unwrap());
        printed += &format!("{:?}", machine.enroll(&bundle).await.unwrap());
        machine.start();
        site.until(name, Online).await;
        of_machine(&site, &machine, &mut secrets, &mut printed);
        hosts.push(machine);
    }
    let [oslo, bern] = hosts.as_slice() else {
        unreachable!("two were made")
    };

    let network = site.governed_network_on(oslo).await;
    site.admit(network, "bern").await;
    bern.until_on(&[network]).await;
    site.revoke(network, "bern").await;
    let branch = Branch::new("branch", 1).decky("files", "oslo");
    site.deploy(&branch).await;
    site.until_deckies(&["files"], DeckyState::Running).await;
    site.remove_deployment("branch").await;
    site.try_deploy(&Branch::new("branch", 2).decky("x", "nowhere"))
        .await
        .unwrap_err();
    site.label("oslo", "rack", "7").await;

    // A bundle that is used again, a ban, another bundle, a restart of everybody.
    bern.power_off().await;
    let used = site.another_bundle("bern", false).await;
    secrets.add_bundle("bern's second", &used);
    let thief = site.machine("thief");
    thief.enroll(&used).await.unwrap();
    site.machine("second").enroll(&used).await.unwrap_err();
    secrets.add_keys_in(&thief.state());
    site.ban("bern", "a story").await;
    site.until("bern", Banned).await;
    site.unban("bern").await;
    let again = site.another_bundle("bern", true).await;
    secrets.add_bundle("bern's third", &again);
    bern.enroll(&again).await.unwrap();
    bern.start();
    site.until("bern", Online).await;
    of_machine(&site, bern, &mut secrets, &mut printed);
    site.restart_master().await;
    site.until("oslo", Online).await;
    site.retire("bern", "a story").await;
    Stranger::with_unpinned_certificate(&site)
        .refused_at(Door::Agents)
        .await;

    let mut everything = Vec::new();
    for event in site.events("").await {
        everything.push((
            "the events as they are told".to_owned(),
            format!("{event:?}").into_bytes(),
        ));
    }
    let (entries, head) = site.export().await;
    assert!(entries.len() > 15, "a whole life has {} entries", entries.len());
    for entry in entries {
        printed += &format!("{entry:?}");
        let line = Line::Entry(Box::new(entry));
        everything.push(("the export".to_owned(), line.encode().into_bytes()));
    }
    printed += &format!("{head:?}{:?}", site.store());
    for entry in site.trail(&ListAuditRequest::default()).await {
        printed += &format!("{entry:?}");
    }
    oslo.stop().await;
    site.stop_master().await;
    everything.push(("what Debug prints".to_owned(), printed.into_bytes()));
    let seen = logs.0.lock().unwrap().clone();
    assert!(
        seen.len() > 100_000,
        "the logs were listened to: {} bytes",
        seen.len()
    );
    everything.push(("the logs".to_owned(), seen));
    for path in files(&dir) {
        let name = path.file_name().unwrap().to_str().unwrap();
        // The two that are there to have one.
        if !["ca.key", "admin.bundle"].contains(&name) {
            everything.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    for needed in ["journal/", "index/", "events.jsonl"] {
        assert!(
            everything.iter().any(|(name, _)| name.contains(needed)),
            "no {needed}"
        );
    }
    assert!(secrets.len() >= 12, "{} secrets were used", secrets.len());
    secrets.must_not_be_in(&everything);
}

#[test]
fn a_secret_is_found_in_every_form_it_could_have() {
    let key = Key::generate().unwrap();
    let mut secrets = Secrets::default();
    secrets.add("a key", Secret::Key(key.clone()));
    secrets.add("a token", Secret::Text("pvkmtqr7ub3acjosv8d2hfzy".to_owned()));
    let scalar = needle::scalar(key.as_pkcs8());
    let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
    let forms: Vec<Vec<u8>> = vec![
        key.as_pkcs8().to_vec(),
        scalar.to_vec(),
        key.to_pem().as_bytes().to_vec(),
        base64(&[b"x", scalar].concat()).into_bytes(),
        base64(&[b"xy", scalar].concat()).into_bytes(),
        base64(scalar).into_bytes(),
        data_encoding::HEXLOWER.encode(scalar).into_bytes(),
        data_encoding::HEXUPPER.encode(scalar).into_bytes(),
        format!("{scalar:?}").into_bytes(),
        serde_json::to_vec(&key.to_pem().as_str()).unwrap(),
        b"authorization: pvkmtqr7ub3acjosv8d2hfzy".to_vec(),
    ];
    for (number, form) in forms.into_iter().enumerate() {
        let hidden = [b"before ".to_vec(), form, b" after".to_vec()].concat();
        assert_eq!(secrets.found_in(&hidden).len(), 1, "form {number}");
    }
    let other = Key::generate().unwrap();
    assert!(secrets.found_in(other.to_pem().as_bytes()).is_empty());
    assert!(secrets.found_in(key.public().as_spki()).is_empty());
}

/// What a machine knows and nobody else may: keys, and what opens its ZeroTier service.
fn of_machine(site: &Site, machine: &Host, secrets: &mut Secrets, printed: &mut String) {
    secrets.add_keys_in(&machine.state());
    let token = site.lab().token(machine.node).expose().to_owned();
    secrets.add(&format!("{}'s authtoken", machine.name), Secret::Text(token));
    let metrics = site.lab().metrics_token(machine.node).expose().to_owned();
    secrets.add(
        &format!("{}'s metrics token", machine.name),
        Secret::Text(metrics),
    );
    let kept = IdentityStore::open(machine.state().join("identity")).unwrap();
    *printed += &format!("{:?}", kept.load().unwrap());
    *printed += &format!(
        "{:?}{:?}",
        site.lab().token(machine.node),
        site.lab().service(machine.node)
    );
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

/// Everything that is logged.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
