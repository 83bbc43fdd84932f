//! The second opinion: OpenSSL's command-line tool verifies the same certificates and knocks at the same doors, over
//! loopback. Where both can know, both must agree; what OpenSSL cannot know (pins, SPIFFE roles) it passes, and the
//! alert it is then answered with is read by its own eyes.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use picket_link::{AcceptError, accept};
use picket_pki::{Authority, Identity, PinKind, Refusal, Role, Standing, lifetime, pem};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
};
use uuid::Uuid;

use crate::{
    forger::twin,
    site::{Card, PATIENCE, Site, domain},
};

/// What one certificate meets with.
struct Row {
    what: &'static str,
    card: Option<Card>,
    /// What `openssl verify` says of its chain, purpose and time; none when it has nothing to say.
    verdict: Option<Verdict>,
    /// What our door says, and the number of the alert that OpenSSL then reads; none when it is let in.
    refusal: Option<(Refusal, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// With this number of OpenSSL's.
    Bad(u32),
}

/// Numbers of `openssl verify`: X509_V_ERR_* of its manual.
const SIGNATURE_FAILURE: Verdict = Verdict::Bad(7);
const NOT_YET_VALID: Verdict = Verdict::Bad(9);
const HAS_EXPIRED: Verdict = Verdict::Bad(10);
const NO_LOCAL_ISSUER: Verdict = Verdict::Bad(20);
const INVALID_PURPOSE: Verdict = Verdict::Bad(26);

#[tokio::test]
async fn openssl_and_our_verifier_agree_on_every_kind_of_client_certificate() {
    let site = Site::new();
    for row in rows(&site) {
        let verdict = match &row.card {
            Some(card) => Some(verify(&site, card, "sslclient").await),
            None => None,
        };
        assert_eq!(verdict, row.verdict, "openssl verify, {}", row.what);
        let door = site.door(Role::Host, &site.master());
        let (ours, seen) = knock(&site, door, row.card.as_ref(), &["-tls1_3"]).await;
        let (refusal, alert) = row.refusal.unzip();
        assert_eq!(ours, refusal, "our door, {}: {seen}", row.what);
        match alert {
            Some(number) => assert!(
                seen.contains(&format!("SSL alert number {number}")),
                "{} should be told by alert {number}: {seen}",
                row.what
            ),
            None => assert!(!seen.contains("SSL alert number"), "{}: {seen}", row.what),
        }
    }
}

fn rows(site: &Site) -> Vec<Row> {
    let now = site.clock.now();
    let host = Identity::Host(Uuid::from_u128(7));
    let pinned = |card: Card| {
        site.pin(&card, PinKind::Current);
        Some(card)
    };
    let stands = |standing| {
        let card = site.host();
        site.stand(&card, standing);
        Some(card)
    };
    let elsewhere = Authority::create(&domain(), now).unwrap();
    let row = |what, card, verdict, refusal| Row {
        what,
        card,
        verdict,
        refusal,
    };
    let good = Some(Verdict::Good);
    // A host's current one is let in for a while after its end, to renew; a bundle's is not.
    let ended = signed(&site.authority, &host, SignedDuration::from_mins(-2), now);
    site.pin(&ended, PinKind::Bundle);
    vec![
        row(
            "the right one",
            stands(Standing::Pinned(PinKind::Current)),
            good,
            None,
        ),
        row(
            "one of another CA",
            pinned(signed_by(&elsewhere, &host, now)),
            Some(NO_LOCAL_ISSUER),
            Some((Refusal::OtherAuthority, 48)),
        ),
        row(
            "one of a CA with our CA's name",
            pinned(twin().sign(site, &host)),
            Some(SIGNATURE_FAILURE),
            Some((Refusal::OtherAuthority, 48)),
        ),
        row(
            "the master's",
            pinned(site.master()),
            Some(INVALID_PURPOSE),
            Some((Refusal::WrongRole, 43)),
        ),
        row(
            "an operator's",
            pinned(site.operator()),
            good,
            Some((Refusal::WrongRole, 43)),
        ),
        row(
            "an expired one",
            Some(ended),
            Some(HAS_EXPIRED),
            Some((Refusal::Expired, 45)),
        ),
        row(
            "one that is not valid yet",
            pinned(site.card(&host, now + SignedDuration::from_hours(1))),
            Some(NOT_YET_VALID),
            Some((Refusal::NotYetValid, 45)),
        ),
        row(
            "an unpinned one",
            Some(site.host()),
            good,
            Some((Refusal::Unknown, 46)),
        ),
        row(
            "a spent one",
            stands(Standing::Spent),
            good,
            Some((Refusal::Spent, 49)),
        ),
        row(
            "a banned one",
            stands(Standing::Banned),
            good,
            Some((Refusal::Revoked, 44)),
        ),
        row(
            "a retired one",
            stands(Standing::Retired),
            good,
            Some((Refusal::Revoked, 44)),
        ),
        row("none", None, None, Some((Refusal::NoCertificate, 116))),
    ]
}

#[tokio::test]
async fn openssl_trusts_the_master_under_our_ca_and_under_no_other() {
    let site = Site::new();
    let master = site.master();
    assert_eq!(verify(&site, &master, "sslserver").await, Verdict::Good);
    assert_eq!(verify(&site, &site.host(), "sslserver").await, INVALID_PURPOSE);
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let (ours, seen) = knock(
        &site,
        site.door(Role::Host, &master),
        Some(&host),
        &["-verify_return_error"],
    )
    .await;
    assert_eq!(ours, None, "{seen}");
    assert!(seen.contains("Verify return code: 0 (ok)"), "{seen}");

    let stranger = Authority::create(&domain(), site.clock.now()).unwrap();
    let shown = signed_by(&stranger, &Identity::Master, site.clock.now());
    let (_, seen) = knock(
        &site,
        site.door(Role::Host, &shown),
        Some(&host),
        &["-verify_return_error"],
    )
    .await;
    assert!(seen.contains("verify error:num=20"), "{seen}");
    assert!(!seen.contains("Verify return code: 0 (ok)"), "{seen}");
}

#[tokio::test]
async fn openssl_gets_no_older_tls_than_1_3() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let (ours, seen) = knock(
        &site,
        site.door(Role::Host, &site.master()),
        Some(&host),
        &["-tls1_2"],
    )
    .await;
    assert_eq!(ours, Some(Refusal::Protocol), "{seen}");
    assert!(seen.contains("SSL alert number 70"), "{seen}");
}

#[tokio::test]
async fn openssl_is_given_nothing_to_resume_with() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let kept = tempfile::tempdir().unwrap();
    let session = kept.path().join("session").display().to_string();
    let door = site.door(Role::Host, &site.master());
    let (ours, seen) = knock(
        &site,
        door.clone(),
        Some(&host),
        &["-tls1_3", "-sess_out", &session],
    )
    .await;
    assert_eq!(ours, None, "{seen}");
    assert!(!seen.contains("New Session Ticket"), "{seen}");
    // What it kept of the first connection has no ticket in it, and the second is as new as the first.
    let again: &[&str] = if Path::new(&session).exists() {
        &["-tls1_3", "-sess_in", &session]
    } else {
        &["-tls1_3"]
    };
    let (ours, seen) = knock(&site, door, Some(&host), again).await;
    assert_eq!(ours, None, "{seen}");
    assert!(
        seen.contains("New, TLSv1.3") && !seen.contains("Reused"),
        "{seen}"
    );
}

fn signed_by(authority: &Authority, identity: &Identity, now: Timestamp) -> Card {
    signed(authority, identity, lifetime::HOST, now)
}

/// A certificate that ends `life` from now.
fn signed(authority: &Authority, identity: &Identity, life: SignedDuration, now: Timestamp) -> Card {
    let key = picket_pki::Key::generate().unwrap();
    let der = authority.issue(key.public(), identity, life, now).unwrap().der;
    Card { key, der }
}

/// What `openssl verify` says of a certificate under the site's CA at the site's time.
async fn verify(site: &Site, card: &Card, purpose: &str) -> Verdict {
    let files = tempfile::tempdir().unwrap();
    let (ca, leaf) = (files.path().join("ca.pem"), files.path().join("leaf.pem"));
    std::fs::write(&ca, site.authority.certificate_pem()).unwrap();
    std::fs::write(&leaf, pem::certificate_to_pem(&card.der)).unwrap();
    let out = openssl()
        .args([
            "verify",
            "-no-CApath",
            "-no-CAstore",
            "-x509_strict",
            "-purpose",
            purpose,
        ])
        .args(["-attime", &site.clock.now().as_second().to_string(), "-CAfile"])
        .args([&ca, &leaf])
        .output()
        .await
        .expect("openssl runs; on Debian it is in the package of that name");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    if out.status.success() {
        return Verdict::Good;
    }
    let number = said
        .split_once("error ")
        .and_then(|(_, rest)| rest.split(' ').next());
    let number = number.and_then(|digits| digits.parse().ok());
    Verdict::Bad(number.unwrap_or_else(|| panic!("no number in: {said}")))
}

/// Knocks at a door with `openssl s_client`: how our end took it, and what the other end printed.
async fn knock(
    site: &Site,
    door: Arc<ServerConfig>,
    card: Option<&Card>,
    how: &[&str],
) -> (Option<Refusal>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut client = openssl();
    client
        .args([
            "s_client",
            "-connect",
            &address.to_string(),
            "-alpn",
            "h2",
            "-no-CApath",
            "-no-CAstore",
        ])
        .args(["-attime", &site.clock.now().as_second().to_string(), "-CAfile"])
        .arg(file("ca.pem", site.authority.certificate_pem().as_bytes()))
        .args(how);
    if let Some(card) = card {
        client
            .arg("-cert")
            .arg(file("card.pem", pem::certificate_to_pem(&card.der).as_bytes()));
        client
            .arg("-key")
            .arg(file("card.key", card.key.to_pem().as_bytes()));
    }
    // An open standard input keeps it there until the other end closes, so that it reads the alert.
    let mut client = client.stdin(Stdio::piped()).spawn().expect("openssl runs");
    let served = async {
        let (io, from) = listener.accept().await.unwrap();
        match accept(Box::new(io), from, door, PATIENCE).await {
            Ok(mut let_in) => {
                let_in.shutdown().await.unwrap();
                // Until the client has hung up as well.
                let mut rest = Vec::new();
                drop(tokio::time::timeout(PATIENCE, let_in.read_to_end(&mut rest)).await);
                None
            }
            Err(error) => Some(refusal_of(&error)),
        }
    };
    let ours = tokio::time::timeout(Duration::from_secs(30), served)
        .await
        .expect("a handshake ends");
    let mut said = String::new();
    let reading = async {
        let (mut out, mut err) = (client.stdout.take().unwrap(), client.stderr.take().unwrap());
        let mut complaints = String::new();
        let (read, complained) =
            tokio::join!(out.read_to_string(&mut said), err.read_to_string(&mut complaints));
        read.unwrap();
        complained.unwrap();
        said.push_str(&complaints);
    };
    tokio::time::timeout(Duration::from_secs(30), reading)
        .await
        .expect("openssl ends");
    client.wait().await.unwrap();
    (ours, said)
}

/// A client that distrusts the master breaks the handshake off itself.
fn refusal_of(error: &AcceptError) -> Refusal {
    match error {
        AcceptError::Refused(why) => *why,
        AcceptError::Distrusted(_) => Refusal::OtherAuthority,
        AcceptError::Broken(_) | AcceptError::TimedOut(_) => panic!("{error:?}"),
    }
}

fn openssl() -> Command {
    let mut command = Command::new("openssl");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}
