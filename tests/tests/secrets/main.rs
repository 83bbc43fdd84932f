//! No secret is anywhere where it has no business: a whole life of a site is lived with every log at its loudest, and then
//! every private key and token that was used is looked for, in each form it could have, in everything that was written,
//! sent or printed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod carried;
mod needle;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex},
};

use needle::{Secret, Secrets};
use picket_agent::{identity::IdentityStore, request::Which};
use picket_pki::{Bundle, Key, Passphrase};
use picket_proto::{
    audit::Line,
    wire::admin::{ListAuditRequest, RenewOperatorRequest, operator_service_client::OperatorServiceClient},
};
use picket_tests::{
    Branch, DeckyState, Host,
    HostState::{Banned, Online},
    OperatorRole::Viewer,
    Site, Transit,
    stranger::{Door, Stranger},
};
use tracing_subscriber::fmt::MakeWriter;

#[tokio::test(start_paused = true)]
async fn no_private_key_and_no_token_is_in_journal_index_events_logs_export_or_debug() {
    let logs = Logs::of_everything();
    let mut secrets = Secrets::default();
    let mut printed = String::new();
    let mut everything = Vec::new();

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

    // An operator who renews, a worker that makes its own key, and another CA.
    let ana = site.operator("ana", Viewer).await;
    secrets.add_bundle("ana's", &ana);
    printed += &format!("{:?}", Bundle::parse(&ana).unwrap());
    let door = Stranger::with_bundle(&site, &ana).connect(Door::Admin).await;
    let mut operators = OperatorServiceClient::new(door.unwrap().channel.clone());
    let key = Key::generate().unwrap();
    let csr = key.csr().unwrap().into();
    printed += &format!(
        "{:?}",
        operators
            .renew_operator(RenewOperatorRequest { csr })
            .await
            .unwrap()
    );
    secrets.add("ana's renewed", Secret::Key(key));
    let rome = site.machine("rome").without_zerotier();
    let request = rome.request(Which::Same).unwrap();
    secrets.add_keys_in(&rome.state());
    let keyless = site.try_bundle_for("rome", &request).await.unwrap();
    everything.push(("a bundle without a key".to_owned(), keyless.clone()));
    printed += &format!("{:?}", rome.enroll(&keyless).await.unwrap());
    secrets.add_keys_in(&rome.state());
    site.prepare_ca().await;
    site.activate_ca(true).await.unwrap();
    let before = secrets.len();
    secrets.add_keys_in(&dir);
    assert_eq!(secrets.len(), before + 2, "both CAs'");

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

    oslo.stop().await;
    // Those that are there to have one.
    let has_one = |name: &str| name == "admin.bundle" || name.starts_with("ca") && name.ends_with(".key");
    everything.extend(all_of(&site, &logs, printed, has_one).await);
    assert!(secrets.len() >= 20, "{} secrets were used", secrets.len());
    secrets.must_not_be_in(&everything);
}

#[tokio::test(start_paused = true)]
async fn neither_passphrase_nor_key_of_an_encrypted_ca_is_in_any_file_event_log_export_or_debug() {
    const PASSPHRASE: &str = "pvkmtqr7ub3acjosv8d2hfzy";
    let logs = Logs::of_everything();
    let mut secrets = Secrets::default();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passphrase");
    picket_durable::write_private(&file, PASSPHRASE.as_bytes()).unwrap();
    let site = Site::with_ca_key(&format!("ca.passphrase_file = {file:?}"), "").await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    site.restart_master().await;
    site.until("oslo", Online).await;
    oslo.stop().await;

    let passphrase = Passphrase::new(PASSPHRASE.as_bytes()).unwrap();
    let text = fs::read(site.data_dir().join("ca.key")).unwrap();
    let key = Key::from_locked_pem(&text, &passphrase).unwrap();
    let printed = format!("{passphrase:?}{key:?}");
    secrets.add("the passphrase", Secret::Text(PASSPHRASE.to_owned()));
    secrets.add("the CA's key", Secret::Key(key));
    secrets.add_keys_in(&oslo.state());
    // The file of the CA's key is among those that are looked through.
    let everything = all_of(&site, &logs, printed, |name| name == "admin.bundle").await;
    secrets.must_not_be_in(&everything);
}

#[tokio::test(start_paused = true)]
async fn the_token_of_a_ca_in_the_engine_is_nowhere_and_the_masters_key_in_one_file_alone() {
    let logs = Logs::of_everything();
    let mut secrets = Secrets::default();
    let transit = Transit::new();
    let site = Site::with_ca_key(&transit.lines, "").await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    site.restart_master().await;
    site.until("oslo", Online).await;
    oslo.stop().await;
    secrets.add("the token", Secret::Text(transit.token.clone()));
    let before = secrets.len();
    secrets.add_keys_in(&site.data_dir());
    assert_eq!(secrets.len(), before + 1, "the master's own");
    secrets.add_keys_in(&oslo.state());
    let has_one = |name: &str| ["admin.bundle", "master.identity"].contains(&name);
    let everything = all_of(&site, &logs, format!("{:?}", transit.fake), has_one).await;
    secrets.must_not_be_in(&everything);
}

/// Everything that was told, exported, logged, printed and written, but for the files that are there to have a secret. The
/// master is stopped for it.
async fn all_of(
    site: &Site,
    logs: &Logs,
    mut printed: String,
    has_one: impl Fn(&str) -> bool,
) -> Vec<(String, Vec<u8>)> {
    let mut everything = Vec::new();
    for event in site.events("").await {
        everything.push((
            "the events as they are told".to_owned(),
            format!("{event:?}").into_bytes(),
        ));
    }
    let (entries, head) = site.export().await;
    for entry in entries {
        printed += &format!("{entry:?}");
        let line = Line::Entry(Box::new(entry));
        everything.push(("the export".to_owned(), line.encode().into_bytes()));
    }
    printed += &format!("{head:?}{:?}", site.store());
    for entry in site.trail(&ListAuditRequest::default()).await {
        printed += &format!("{entry:?}");
    }
    site.stop_master().await;
    everything.push(("what Debug prints".to_owned(), printed.into_bytes()));
    let seen = logs.0.lock().unwrap().clone();
    assert!(
        seen.len() > 100_000,
        "the logs were listened to: {} bytes",
        seen.len()
    );
    everything.push(("the logs".to_owned(), seen));
    for path in files(&site.data_dir()) {
        if !has_one(path.file_name().unwrap().to_str().unwrap()) {
            everything.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    for needed in ["journal/", "index/", "events.jsonl", "the export"] {
        assert!(
            everything.iter().any(|(name, _)| name.contains(needed)),
            "no {needed}"
        );
    }
    everything
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

impl Logs {
    /// All that this process logs, from here on.
    fn of_everything() -> Self {
        static LOGS: LazyLock<Logs> = LazyLock::new(|| {
            let logs = Logs::default();
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_writer(logs.clone())
                .init();
            logs
        });
        LOGS.clone()
    }
}

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
