//! Where the CA's key is, and what becomes of a site when it cannot be had.

use std::{path::Path, time::Duration};

use picket_agent::status::State;
use picket_tests::{Host, HostState::Online, Site, Transit};
use picket_transit::fake::Fault;

/// Past half of the seven days that a host's certificate holds, and the tenth of them by which it may be later.
const FIVE_DAYS: i64 = 5 * 24 * 3600;
/// Past the end of a host's certificate.
const EIGHT_DAYS: i64 = 8 * 24 * 3600;

/// A host whose clock says that its certificate is due.
async fn after_its_half_life(host: Host) -> Host {
    host.stop().await;
    let host = host.skewed(FIVE_DAYS);
    host.start();
    host
}

/// The files in a directory, and below, that hold one of these.
fn holding(dir: &Path, secrets: &[&[u8]]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("the folder can be read") {
        let path = entry.expect("and so can its entries").path();
        if path.is_dir() {
            found.extend(holding(&path, secrets));
        } else if let Ok(bytes) = std::fs::read(&path)
            && secrets
                .iter()
                .any(|secret| bytes.windows(secret.len()).any(|window| window == *secret))
        {
            found.push(
                path.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_master_whose_ca_key_is_in_the_transit_engine_enrols_and_renews_hosts() {
    let transit = Transit::new();
    let site = Site::with_ca_key(&transit.lines, "").await;
    assert!(
        !site.data_dir().join("ca.key").exists(),
        "the key never was on this machine"
    );
    let oslo = site.enroll("oslo").await;
    let before = transit.signatures();
    let _oslo = after_its_half_life(oslo).await;
    transit.until_signed(&site, before).await;
    site.until("oslo", Online).await;
    assert_eq!(
        site.pins("oslo").await.first().map(String::as_str),
        Some("current")
    );
    assert!(holding(&site.data_dir(), &[transit.token.as_bytes()]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn while_the_engine_is_sealed_sessions_go_on_and_nothing_is_issued() {
    let transit = Transit::new();
    let site = Site::with_ca_key(&transit.lines, "").await;
    let oslo = site.enroll("oslo").await;
    transit.fake.seal();
    let refused = site.try_bundle("bergen").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{}", refused.message());
    assert!(refused.message().contains("is sealed"), "{}", refused.message());
    assert_eq!(site.until_event("ca.signing").await.subject, "ca");

    // Even a master that starts meanwhile: it shows the certificate it has.
    site.restart_master().await;
    site.until("oslo", Online).await;
    // And even a host whose certificate is due.
    let before = transit.signatures();
    let _oslo = after_its_half_life(oslo).await;
    site.wait(Duration::from_secs(600)).await;
    site.until("oslo", Online).await;
    assert_eq!(transit.signatures(), before, "a sealed engine signs nothing");

    transit.fake.unseal();
    transit.until_signed(&site, before).await;
    site.until("oslo", Online).await;
    site.enroll("bergen").await;
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_clock_says_that_its_certificate_has_ended_works_on_while_no_other_can_be_signed() {
    let transit = Transit::new();
    let site = Site::with_ca_key(&transit.lines, "").await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    oslo.stop().await;
    site.until_gone().await;
    transit.fake.seal();
    let before = transit.signatures();
    let oslo = oslo.skewed(EIGHT_DAYS);
    oslo.start();
    site.until("oslo", Online).await;
    oslo.until(State::Connected).await;
    let asked = site.refusals("host.renew").await;
    assert!(
        !asked.is_empty(),
        "it asked for another before it tried a session"
    );
    assert_eq!(transit.signatures(), before, "a sealed engine signs nothing");
    transit.fake.unseal();
    transit.until_signed(&site, before).await;
    site.until("oslo", Online).await;
}

#[tokio::test(start_paused = true)]
async fn a_ca_is_not_activated_while_the_engine_does_not_sign_with_it_and_is_once_it_does() {
    let transit = Transit::new();
    let site = Site::with_ca_key(&transit.lines, "").await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let first = site.active_ca().await;
    transit.fake.rotate_key("picket-ca");
    site.prepare_ca().await;
    site.until_lacking(&[]).await;
    transit.fake.seal();
    let again = site.try_prepare_ca().await.unwrap();
    assert!(!again.made, "an engine that is away has lost no key");
    let refused = site.activate_ca(false).await.unwrap_err();
    assert!(refused.message().contains("is sealed"), "{}", refused.message());
    assert_eq!(site.active_ca().await, first, "it is on record as it was");
    site.restart_master().await;
    site.until("oslo", Online).await;
    transit.fake.unseal();
    site.activate_ca(false).await.unwrap();
    assert_ne!(site.active_ca().await, first);
    site.until_under_earlier(&[]).await;
    oslo.until(State::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_master_whose_ca_is_not_its_first_starts_while_the_engine_does_not_sign() {
    let transit = Transit::new();
    let site = Site::with_ca_key(&transit.lines, "").await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    transit.fake.rotate_key("picket-ca");
    site.prepare_ca().await;
    site.until_lacking(&[]).await;
    site.activate_ca(false).await.unwrap();
    let active = site.active_ca().await;
    transit.fake.seal();
    site.restart_master().await;
    site.until("oslo", Online).await;
    assert_eq!(site.active_ca().await, active);
    transit.fake.unseal();
    site.until_under_earlier(&[]).await;
    oslo.until(State::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_signs_with_another_key_issues_nothing() {
    let transit = Transit::new();
    let site = Site::with_ca_key(&transit.lines, "").await;
    transit.fake.fail_next([Fault::OtherKey]);
    let refused = site.try_bundle("oslo").await.unwrap_err();
    assert!(
        refused.message().contains("not that of the CA's key"),
        "{}",
        refused.message()
    );
    site.enroll("oslo").await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_rotated_in_the_engine_goes_on_with_the_version_of_the_ca() {
    let transit = Transit::new();
    let site = Site::with_ca_key(&transit.lines, "").await;
    transit.fake.rotate_key("picket-ca");
    site.restart_master().await;
    site.enroll("oslo").await;
    transit.fake.retire_versions("picket-ca", 2);
    let refused = site.try_bundle("bergen").await.unwrap_err();
    assert!(
        refused.message().contains("min_encryption_version"),
        "{}",
        refused.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_master_with_an_encrypted_key_keeps_neither_passphrase_nor_plain_key() {
    const PASSPHRASE: &str = "a passphrase nobody else has";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("passphrase");
    picket_durable::write_private(&file, PASSPHRASE.as_bytes()).unwrap();
    let site = Site::with_ca_key(&format!("ca.passphrase_file = {file:?}"), "").await;
    site.enroll("oslo").await;
    site.restart_master().await;
    site.until("oslo", Online).await;
    let text = std::fs::read(site.data_dir().join("ca.key")).unwrap();
    let passphrase = picket_pki::Passphrase::new(PASSPHRASE.as_bytes()).unwrap();
    let key = picket_pki::Key::from_locked_pem(&text, &passphrase).unwrap();
    let pem = key.to_pem();
    let line = pem.lines().nth(1).unwrap();
    let secrets = [PASSPHRASE.as_bytes(), key.as_pkcs8(), line.as_bytes()];
    assert_eq!(holding(&site.data_dir(), &secrets), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_plain_key_is_an_event_at_every_start() {
    let site = Site::new().await;
    let first = site.until_event("ca.plain-key").await;
    assert!(
        first.message.contains("picket-master ca-key encrypt"),
        "{}",
        first.message
    );
}

#[tokio::test(start_paused = true)]
async fn another_version_of_the_key_in_the_engine_follows_the_first_as_the_ca() {
    let transit = Transit::new();
    let site = Site::with_ca_key(&transit.lines, "").await;
    let oslo = site.enroll("oslo").await;
    let first = site.active_ca().await;
    let refused = site.try_prepare_ca().await.unwrap_err();
    assert!(
        refused
            .message()
            .contains("vault write -f transit/keys/picket-ca/rotate"),
        "{refused}"
    );
    transit.fake.rotate_key("picket-ca");
    site.prepare_ca().await;
    site.until_lacking(&[]).await;
    site.activate_ca(false).await.unwrap();
    assert_ne!(site.active_ca().await, first);
    site.until_under_earlier(&[]).await;
    site.retire_ca(false).await.unwrap();
    // Both are found again at the next start, and a sealed engine keeps nobody out.
    transit.fake.seal();
    site.restart_master().await;
    site.until("oslo", Online).await;
    drop(oslo);
}
