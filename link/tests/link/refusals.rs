//! Every way to be refused at a master's door. Each story looks at both ends.

use std::sync::Arc;

use crate::forger::{insider, twin, uri};
use crate::site::{Card, MASTER, PATIENCE, Site, address, domain, healthy, time};
use jiff::SignedDuration;
use picket_link::{AcceptError, LinkError};
use picket_pki::{Authorities, Authority, Identity, Key, PinKind, Refusal, Role, Standing, client_config};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsConnector, client::TlsStream};
use uuid::Uuid;

#[tokio::test(start_paused = true)]
async fn a_pinned_host_is_let_in_and_named_and_its_calls_are_answered() {
    let site = Site::new();
    for kind in [PinKind::Bundle, PinKind::Current, PinKind::Pending] {
        let host = site.host();
        site.pin(&host, kind);
        let mut served = site.serve(site.door(Role::Host, &site.master()));
        let connected = site.dial(site.caller(&host)).await.unwrap();
        healthy(&connected).await.unwrap();
        let peer = served.outcome().await.unwrap();
        assert_eq!(peer.identity, Identity::Host(Uuid::from_u128(7)));
        assert_eq!((peer.fingerprint, peer.address), (host.fingerprint(), address()));
        assert_eq!(connected.master.identity, Identity::Master);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pinned_operator_is_let_in_at_the_operators_door() {
    let site = Site::new();
    let ana = site.operator();
    site.pin(&ana, PinKind::Operator);
    let mut served = site.serve(site.door(Role::Operator, &site.master()));
    healthy(&site.dial(site.caller(&ana)).await.unwrap())
        .await
        .unwrap();
    assert_eq!(
        served.outcome().await.unwrap().identity,
        Identity::Operator("ana".parse().unwrap())
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_a_certificate_is_asked_for_one() {
    let site = Site::new();
    let host = site.host();
    let mut bare = (*site.caller(&host)).clone();
    bare.client_auth_cert_resolver = Arc::new(NoCard);
    refused(&site, Role::Host, Arc::new(bare), Refusal::NoCertificate).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_ca_of_the_same_domain_is_of_an_unknown_ca() {
    let site = Site::new();
    let other = Authority::create(&domain(), site.clock.now()).unwrap();
    let stranger = stranger(&site, &other);
    site.pin(&stranger, PinKind::Current);
    refused(&site, Role::Host, site.caller(&stranger), Refusal::OtherAuthority).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_a_ca_with_our_cas_very_name_is_of_an_unknown_ca() {
    let site = Site::new();
    let twin = twin();
    for identity in [Identity::Host(Uuid::from_u128(7)), Identity::Master] {
        let card = twin.sign(&site, &identity);
        site.pin(&card, PinKind::Current);
        refused(&site, Role::Host, site.caller(&card), Refusal::OtherAuthority).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_at_the_operators_door_and_an_operator_at_the_hosts_have_the_wrong_role() {
    let site = Site::new();
    let (host, ana) = (site.host(), site.operator());
    site.pin(&host, PinKind::Current);
    site.pin(&ana, PinKind::Operator);
    refused(&site, Role::Operator, site.caller(&host), Refusal::WrongRole).await;
    refused(&site, Role::Host, site.caller(&ana), Refusal::WrongRole).await;
    // The role is looked at before the pin: an unpinned one at the wrong door is at the wrong door.
    refused(
        &site,
        Role::Operator,
        site.caller(&site.host()),
        Refusal::WrongRole,
    )
    .await;
    refused(
        &site,
        Role::Host,
        site.caller(&site.operator()),
        Refusal::WrongRole,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_masters_own_certificate_opens_no_door() {
    let site = Site::new();
    let master = site.master();
    site.pin(&master, PinKind::Current);
    refused(&site, Role::Host, site.caller(&master), Refusal::WrongRole).await;
    refused(&site, Role::Operator, site.caller(&master), Refusal::WrongRole).await;
}

#[tokio::test(start_paused = true)]
async fn a_pin_of_another_kind_than_the_role_is_the_wrong_role() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Operator);
    refused(&site, Role::Host, site.caller(&host), Refusal::WrongRole).await;
}

#[tokio::test(start_paused = true)]
async fn what_our_ca_would_never_write_is_refused_even_when_it_is_signed_and_pinned() {
    let site = Site::new();
    let forger = insider(&site);
    let host = Identity::Host(Uuid::from_u128(7));
    let elsewhere = host.uri(&"example.com".parse().unwrap());
    let second = uri("spiffe://example.org/operator/ana");
    for (card, reason) in [
        (
            forger.sign_changed(&site, &host, |it| it.subject_alt_names.clear()),
            Refusal::WrongRole,
        ),
        (
            forger.sign_changed(&site, &host, |it| it.subject_alt_names.push(second.clone())),
            Refusal::WrongRole,
        ),
        (
            forger.sign_changed(&site, &host, |it| {
                it.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)
            }),
            Refusal::WrongRole,
        ),
        (
            forger.sign_changed(&site, &host, |it| {
                it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            Refusal::WrongRole,
        ),
        (
            forger.sign_changed(&site, &host, |it| it.extended_key_usages.clear()),
            Refusal::WrongRole,
        ),
        (
            forger.sign_changed(&site, &host, |it| it.subject_alt_names = vec![uri(&elsewhere)]),
            Refusal::WrongTrustDomain,
        ),
    ] {
        site.pin(&card, PinKind::Current);
        refused(&site, Role::Host, site.caller(&card), reason).await;
    }
    let untouched = forger.sign(&site, &host);
    site.pin(&untouched, PinKind::Current);
    let _served = site.serve(site.door(Role::Host, &site.master()));
    healthy(&site.dial(site.caller(&untouched)).await.unwrap())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn spent_banned_retired_and_never_known_certificates_are_each_told_so() {
    let site = Site::new();
    for (standing, reason) in [
        (Standing::Spent, Refusal::Spent),
        (Standing::Banned, Refusal::Revoked),
        (Standing::Retired, Refusal::Revoked),
        (Standing::Unknown, Refusal::Unknown),
    ] {
        let host = site.host();
        site.stand(&host, standing);
        refused(&site, Role::Host, site.caller(&host), reason).await;
    }
}

/// Lets time pass; the master's own certificate is always new.
async fn days(days: u64) {
    tokio::time::advance(std::time::Duration::from_secs(days * 24 * 3600)).await;
}

#[tokio::test(start_paused = true)]
async fn the_certificate_in_use_opens_the_door_for_30_days_after_its_end_and_not_on_day_31() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    for more in [7, 1, 29] {
        days(more).await;
        let _served = site.serve(site.door(Role::Host, &site.master()));
        healthy(&site.dial(site.caller(&host)).await.unwrap())
            .await
            .unwrap();
    }
    days(1).await;
    refused(&site, Role::Host, site.caller(&host), Refusal::Expired).await;
}

#[tokio::test(start_paused = true)]
async fn a_bundle_a_pending_certificate_and_an_operator_get_no_day_after_their_end() {
    let site = Site::new();
    for (kind, role) in [
        (PinKind::Bundle, Role::Host),
        (PinKind::Pending, Role::Host),
        (PinKind::Operator, Role::Operator),
    ] {
        let card = if role == Role::Host {
            site.host()
        } else {
            site.operator()
        };
        site.pin(&card, kind);
        days(7).await;
        {
            let _served = site.serve(site.door(role, &site.master()));
            healthy(&site.dial(site.caller(&card)).await.unwrap())
                .await
                .unwrap();
        }
        days(1).await;
        refused(&site, role, site.caller(&card), Refusal::Expired).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_from_the_future_is_refused_and_counted_apart() {
    let site = Site::new();
    let later = site.clock.now() + SignedDuration::from_hours(1);
    let host = site.card(&Identity::Host(Uuid::from_u128(7)), later);
    site.pin(&host, PinKind::Current);
    let (seen, counted) = both_ends(&site, Role::Host, site.caller(&host)).await;
    // One alert stands for both, as TLS has it.
    assert_eq!((seen, counted), (Refusal::Expired, Refusal::NotYetValid));
}

#[tokio::test(start_paused = true)]
async fn a_banned_host_with_an_expired_certificate_is_told_of_the_ban() {
    let site = Site::new();
    let host = site.host();
    site.stand(&host, Standing::Banned);
    for more in [8, 22, 8] {
        days(more).await;
        refused(&site, Role::Host, site.caller(&host), Refusal::Revoked).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ban_holds_from_the_next_handshake_on() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let mut served = site.serve(site.door(Role::Host, &site.master()));
    site.dial(site.caller(&host)).await.unwrap();
    served.outcome().await.unwrap();
    site.stand(&host, Standing::Banned);
    let error = site.dial(site.caller(&host)).await.unwrap_err();
    assert!(
        matches!(
            error,
            LinkError::Refused {
                cause: Refusal::Revoked,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_certificate_without_its_key_opens_nothing() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let mut thief = (*site.caller(&host)).clone();
    let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(
        &rustls_pki_types::PrivatePkcs8KeyDer::from(Key::generate().unwrap().as_pkcs8().to_vec()).into(),
    );
    let chain = vec![host.der.clone().into()];
    let stolen = rustls::sign::CertifiedKey::new(chain, signer.unwrap());
    thief.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(stolen));
    refused(&site, Role::Host, Arc::new(thief), Refusal::Protocol).await;
}

#[tokio::test(start_paused = true)]
async fn no_http_2_of_an_unpinned_peer_is_read_even_when_it_speaks_first() {
    let site = Site::new();
    let host = site.host();
    let mut incoming = site.pipes.listen(MASTER);
    let door = site.door(Role::Host, &site.master());
    let server = async {
        let (io, from) = incoming.accept().await.unwrap();
        picket_link::accept(io, from, door, PATIENCE).await
    };
    let client = async {
        let mut stream = raw(&site, site.caller(&host)).await.unwrap();
        // The preface goes out before the alert is read; nobody takes it.
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.flush().await.unwrap();
        stream.read_u8().await.unwrap_err()
    };
    let (accepted, seen) = tokio::join!(server, client);
    assert!(matches!(
        accepted.unwrap_err(),
        AcceptError::Refused(Refusal::Unknown)
    ));
    let tls = seen
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .unwrap();
    assert_eq!(Refusal::of(tls), Some(Refusal::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_new_ca_and_a_new_master_certificate_hold_from_the_next_handshake_on() {
    let site = Site::new();
    let next = Authority::create(&domain(), site.clock.now()).unwrap();
    let host = stranger(&site, &next);
    site.pin(&host, PinKind::Current);
    let authorities = site.authorities();
    let shown = site.master();
    let presented = Arc::new(picket_pki::Presented::new(&shown.der, &shown.key).unwrap());
    let door = picket_pki::server_config(
        presented.clone(),
        authorities.clone(),
        Role::Host,
        site.pins.clone(),
        time(&site.clock),
    );
    let mut served = site.serve(Arc::new(door.unwrap()));
    let roots = vec![site.authority.certificate().to_vec(), next.certificate().to_vec()];
    let both = Arc::new(Authorities::new(domain(), roots.clone()).unwrap());
    let caller = Arc::new(client_config(both, &host.der, &host.key, time(&site.clock)).unwrap());
    site.dial(caller.clone()).await.unwrap_err();
    assert!(matches!(
        served.outcome().await.unwrap_err(),
        AcceptError::Refused(Refusal::OtherAuthority)
    ));

    authorities.replace(roots).unwrap();
    let key = Key::generate().unwrap();
    let renewed = next.issue_master(key.public(), &[], site.clock.now()).unwrap();
    presented.replace(&renewed.der, &key).unwrap();
    let connected = site.dial(caller).await.unwrap();
    assert_eq!(connected.master.fingerprint, renewed.fingerprint);
}

#[tokio::test(start_paused = true)]
async fn tls_1_2_is_refused() {
    let site = Site::new();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let old = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    refused(&site, Role::Host, Arc::new(old), Refusal::Protocol).await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_is_tls_1_3_with_a_hybrid_key_exchange_and_http_2_and_is_never_resumed() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let _served = site.serve(site.door(Role::Host, &site.master()));
    // This caller would resume if it were offered a ticket.
    let mut eager = (*site.caller(&host)).clone();
    let tickets = Arc::new(Tickets::default());
    eager.resumption = rustls::client::Resumption::store(tickets.clone());
    let eager = Arc::new(eager);
    for _ in 0..2 {
        let mut stream = raw(&site, eager.clone()).await.unwrap();
        // The server's settings have come, so tickets would have come before them.
        stream.read_u8().await.unwrap();
        let tls = stream.get_ref().1;
        assert_eq!(tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(tls.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(tls.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(
            tls.negotiated_key_exchange_group().unwrap().name(),
            NamedGroup::X25519MLKEM768
        );
    }
    assert_eq!(tickets.0.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// Counts the tickets that a server gives out.
#[derive(Debug, Default)]
struct Tickets(std::sync::atomic::AtomicUsize);

impl rustls::client::ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: rustls_pki_types::ServerName<'static>, _: NamedGroup) {}
    fn kx_hint(&self, _: &rustls_pki_types::ServerName<'_>) -> Option<NamedGroup> {
        None
    }
    fn set_tls12_session(
        &self,
        _: rustls_pki_types::ServerName<'static>,
        _: rustls::client::Tls12ClientSessionValue,
    ) {
    }
    fn tls12_session(
        &self,
        _: &rustls_pki_types::ServerName<'_>,
    ) -> Option<rustls::client::Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &rustls_pki_types::ServerName<'static>) {}
    fn insert_tls13_ticket(
        &self,
        _: rustls_pki_types::ServerName<'static>,
        _: rustls::client::Tls13ClientSessionValue,
    ) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    fn take_tls13_ticket(
        &self,
        _: &rustls_pki_types::ServerName<'static>,
    ) -> Option<rustls::client::Tls13ClientSessionValue> {
        None
    }
}

#[derive(Debug)]
struct NoCard;

impl rustls::client::ResolvesClientCert for NoCard {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

fn stranger(site: &Site, authority: &Authority) -> Card {
    let key = Key::generate().unwrap();
    let host = Identity::Host(Uuid::from_u128(7));
    let lifetime = picket_pki::lifetime::HOST;
    let der = authority
        .issue(key.public(), &host, lifetime, site.clock.now())
        .unwrap()
        .der;
    Card { key, der }
}

async fn raw(site: &Site, caller: Arc<ClientConfig>) -> std::io::Result<TlsStream<Box<dyn picket_link::Io>>> {
    let io = picket_link::Dial::dial(&site.pipes.wire(address()), MASTER).await?;
    TlsConnector::from(caller)
        .connect("master".try_into().unwrap(), io)
        .await
}

/// Both ends give the same reason.
async fn refused(site: &Site, role: Role, caller: Arc<ClientConfig>, reason: Refusal) {
    assert_eq!(both_ends(site, role, caller).await, (reason, reason));
}

/// The reason as the caller sees it, and as the master counts it.
async fn both_ends(site: &Site, role: Role, caller: Arc<ClientConfig>) -> (Refusal, Refusal) {
    let mut served = site.serve(site.door(role, &site.master()));
    let seen = match site.dial(caller).await {
        Err(LinkError::Refused { cause, .. }) => cause,
        other => panic!("not refused: {other:?}"),
    };
    match served.outcome().await {
        Err(AcceptError::Refused(counted)) => (seen, counted),
        other => panic!("not refused: {other:?}"),
    }
}
