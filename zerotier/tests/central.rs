//! What the client of ZeroTier Central does when Central is busy, broken, or somebody else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fmt, sync::Arc, time::Duration};

use picket_zerotier::{
    NetworkId, NodeId,
    central::{Central, HOST},
    controller::{Controller as _, NewNetwork},
    dial::{Dial, Dialing, Tls, TlsError, Wire, authorities},
    fake::{FakeCentral, Trouble},
    home::Token,
    service::Error,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::{task::JoinSet, time::Instant};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

#[tokio::test(start_paused = true)]
async fn a_call_waits_as_long_as_central_asks_and_is_then_done_once() {
    let (fake, central, network) = site().await;
    fake.trouble([Trouble::TooMany(Some(7)), Trouble::TooMany(None)]);
    let (before, asked) = (Instant::now(), fake.requests().len());
    central.authorize(network, node(), true).await.unwrap();
    // 7 s as asked, and one of its own where Central does not say.
    assert_eq!(before.elapsed().as_secs(), 8);
    assert_eq!(fake.requests().len(), asked + 3);
}

#[tokio::test(start_paused = true)]
async fn while_central_asks_for_patience_nothing_else_is_sent() {
    let (fake, central, network) = site().await;
    fake.trouble([Trouble::TooMany(Some(7))]);
    let asked = fake.requests().len();
    let mut calls = JoinSet::new();
    let first = central.clone();
    calls.spawn(async move { first.network(network).await.map(drop) });
    while fake.requests().len() == asked {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        let other = central.clone();
        calls.spawn(async move { other.members(network).await.map(drop) });
    }
    let before = Instant::now();
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
        assert!(before.elapsed() >= Duration::from_secs(6));
    }
    assert_eq!(fake.requests().len(), asked + 7);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_long_is_an_error_that_says_when_to_come_again() {
    let (fake, central, network) = site().await;
    fake.trouble([Trouble::TooMany(Some(3600))]);
    let before = Instant::now();
    let error = central.network(network).await.unwrap_err();
    assert!(matches!(error, Error::TooMany { retry_after, .. } if retry_after.as_secs().abs_diff(3600) <= 1));
    assert!(before.elapsed() < Duration::from_secs(1));
    // The next call does not ask at all.
    let asked = fake.requests().len();
    assert!(matches!(central.networks().await, Err(Error::TooMany { .. })));
    assert_eq!(fake.requests().len(), asked);
    tokio::time::sleep(Duration::from_secs(3601)).await;
    central.networks().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_wait_that_central_asks_for_makes_a_loop_that_never_rests() {
    let (fake, central, network) = site().await;
    let (before, asked) = (Instant::now(), fake.requests().len());
    fake.trouble([Trouble::TooMany(Some(0)); 100]);
    let patient = central.clone().within(Duration::from_secs(10));
    assert!(patient.network(network).await.is_err());
    assert!(fake.requests().len() - asked <= 11);
    assert!(before.elapsed() <= Duration::from_secs(11));
    fake.untroubled();
    tokio::time::sleep(Duration::from_secs(2)).await;

    let asked = fake.requests().len();
    fake.trouble([Trouble::TooMany(Some(u64::MAX))]);
    let error = central.network(network).await.unwrap_err();
    assert!(
        matches!(error, Error::TooMany { retry_after, .. } if retry_after.as_secs().abs_diff(3600) <= 1),
        "{error}"
    );
    assert_eq!(fake.requests().len(), asked + 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_failed_is_tried_again_and_a_write_is_not() {
    let (fake, central, network) = site().await;
    let asked = fake.requests().len();
    fake.trouble([Trouble::Status(502), Trouble::Cut, Trouble::Status(500)]);
    central.network(network).await.unwrap();
    assert_eq!(fake.requests().len(), asked + 4);

    fake.trouble([Trouble::Status(503); 4]);
    let error = central.network(network).await.unwrap_err();
    assert!(matches!(error, Error::Failed { status: 503, .. }), "{error}");
    assert_eq!(fake.requests().len(), asked + 8);

    for trouble in [Trouble::Status(502), Trouble::Cut] {
        let asked = fake.requests().len();
        fake.trouble([trouble]);
        assert!(central.authorize(network, node(), true).await.is_err());
        assert_eq!(fake.requests().len(), asked + 1);
    }
    // The one that broke off had been done.
    assert!(central.member(network, node()).await.unwrap().authorized);
}

#[tokio::test(start_paused = true)]
async fn each_way_to_fail_is_its_own_error() {
    let (fake, central, network) = site().await;
    fake.trouble([Trouble::Nonsense]);
    assert!(matches!(central.networks().await, Err(Error::Broken { .. })));
    fake.trouble([Trouble::Status(401)]);
    let error = central.networks().await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(error.to_string().contains("API token"), "{error}");
    fake.trouble([Trouble::Status(403)]);
    let error = central.network(network).await.unwrap_err();
    assert!(matches!(error, Error::Failed { status: 403, .. }), "{error}");
    assert!(!error.is_away(), "the next network may be ours");
    assert!(error.to_string().contains("not allowed"), "{error}");
    fake.trouble([Trouble::Status(400)]);
    assert!(matches!(
        central.networks().await,
        Err(Error::Failed { status: 400, .. })
    ));
    fake.trouble([Trouble::Silence]);
    let before = Instant::now();
    let patient = central.clone().within(Duration::from_secs(3));
    assert!(matches!(
        patient.network(network).await,
        Err(Error::TimedOut { .. })
    ));
    assert_eq!(before.elapsed(), Duration::from_secs(3));

    let stranger = Central::new(fake.dial(), HOST, Token::new("wrong").unwrap());
    assert!(matches!(stranger.networks().await, Err(Error::Refused { .. })));
    assert!(!format!("{stranger:?} {central:?}").contains(fake.token().expose()));
}

#[tokio::test]
async fn only_a_server_that_the_authority_vouches_for_by_its_name_is_told_the_token() {
    let fake = FakeCentral::new();
    let (server, authority) = Encrypted::new(&fake, HOST);
    let server: Arc<dyn Dial> = Arc::new(server);
    let through = |name: &str, pem: &str| {
        let tls = Tls::new(server.clone(), name, authorities(pem.as_bytes()).unwrap()).unwrap();
        Central::new(Arc::new(tls), HOST, fake.token())
    };
    assert!(through(HOST, &authority).networks().await.unwrap().is_empty());
    let told = fake.requests().len();
    let (_, other_authority) = Encrypted::new(&fake, HOST);
    for central in [
        through(HOST, &other_authority),
        through("central.example", &authority),
    ] {
        let central = central.within(Duration::from_secs(5));
        let call = central.authorize(NetworkId::at(node(), 1), node(), true);
        let error = call.await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    }
    assert_eq!(fake.requests().len(), told);
}

#[test]
fn a_file_without_authorities_is_refused() {
    assert!(matches!(authorities(b""), Err(TlsError::NoAuthority)));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        authorities(broken.as_bytes()),
        Err(TlsError::Authority(1))
    ));
}

/// A simulated Central with one network.
async fn site() -> (FakeCentral, Central, NetworkId) {
    let fake = FakeCentral::new();
    let central = fake.client();
    let network = central.create_network(&NewNetwork::default()).await.unwrap().id;
    (fake, central, network)
}

fn node() -> NodeId {
    "39966434ba".parse().unwrap()
}

/// A simulated Central behind TLS.
struct Encrypted {
    fake: FakeCentral,
    acceptor: TlsAcceptor,
    tasks: std::sync::Mutex<JoinSet<()>>,
}

impl Encrypted {
    /// Returns it and the authority that vouches for it.
    fn new(fake: &FakeCentral, name: &str) -> (Self, String) {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new([name.to_owned()])
            .unwrap()
            .signed_by(&key, &root)
            .unwrap();
        let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let server = Self {
            fake: fake.clone(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            tasks: std::sync::Mutex::default(),
        };
        (server, root.pem())
    }
}

impl Dial for Encrypted {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let (fake, acceptor) = (self.fake.clone(), self.acceptor.clone());
            self.tasks.lock().unwrap().spawn(async move {
                if let Ok(stream) = acceptor.accept(far).await {
                    fake.serve(stream).await;
                }
            });
            Ok(Box::new(near) as Box<dyn Wire>)
        })
    }
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated Central behind TLS")
    }
}
