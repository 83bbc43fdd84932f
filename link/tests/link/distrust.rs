//! Every way not to take a server for the master.

use std::sync::Arc;

use jiff::SignedDuration;
use picket_link::{AcceptError, LinkError};
use picket_pki::{Authority, Distrust, Identity, Key, PinKind, Role};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::ClientConfig;
use uuid::Uuid;

use crate::forger::{insider, twin, uri};
use crate::site::{Card, Site, domain, healthy};

#[tokio::test(start_paused = true)]
async fn a_hosts_or_an_operators_certificate_is_no_master() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let (forger, server) = (insider(&site), vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let as_server =
        |identity| forger.sign_changed(&site, &identity, |it| it.extended_key_usages = server.clone());
    let client = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let as_client = forger.sign_changed(&site, &Identity::Master, |it| {
        it.extended_key_usages = client.clone()
    });
    let dressed_up = as_server(Identity::Host(Uuid::from_u128(7)));
    for impostor in [site.host(), site.operator(), dressed_up, as_client] {
        distrusted(&site, &impostor, &site.caller(&host), |cause| {
            *cause == Distrust::NotTheMaster
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_master_of_another_ca_is_not_the_master_not_even_under_our_cas_name() {
    let site = Site::new();
    let host = site.host();
    let other = Authority::create(&domain(), site.clock.now()).unwrap();
    let key = Key::generate().unwrap();
    let der = other
        .issue_master(key.public(), &[], site.clock.now())
        .unwrap()
        .der;
    let foreign = Card { key, der };
    distrusted(&site, &foreign, &site.caller(&host), |cause| {
        *cause == Distrust::OtherAuthority
    })
    .await;

    let named = twin().sign(&site, &Identity::Master);
    distrusted(&site, &named, &site.caller(&host), |cause| {
        *cause == Distrust::OtherAuthority
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_named_with_both_times() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let behind = site.clock.skewed(-600);
    let early = |cause: &Distrust| {
        let Distrust::NotYetValid { now, not_before } = cause else {
            return false;
        };
        *now == behind.now() && *not_before == site.clock.now() - SignedDuration::from_mins(5)
    };
    distrusted(&site, &site.master(), &site.caller_at(&host, &behind), early).await;

    let ahead = site.clock.skewed(8 * 24 * 3600);
    let late = |cause: &Distrust| matches!(cause, Distrust::Expired { now, .. } if *now == ahead.now());
    distrusted(&site, &site.master(), &site.caller_at(&host, &ahead), late).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_four_minutes_off_is_no_hindrance() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let _served = site.serve(site.door(Role::Host, &site.master()));
    for seconds in [-240, 240] {
        let skewed = site.clock.skewed(seconds);
        healthy(&site.dial(site.caller_at(&host, &skewed)).await.unwrap())
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_master_of_another_domain_under_our_ca_is_not_the_master() {
    let site = Site::new();
    let elsewhere = Identity::Master.uri(&"example.com".parse().unwrap());
    let other = insider(&site).sign_changed(&site, &Identity::Master, |it| {
        it.subject_alt_names = vec![uri(&elsewhere)]
    });
    let caller = site.caller(&site.host());
    distrusted(&site, &other, &caller, |cause| {
        *cause == Distrust::OtherTrustDomain
    })
    .await;
}

async fn distrusted(
    site: &Site,
    shown: &Card,
    caller: &Arc<ClientConfig>,
    right: impl Fn(&Distrust) -> bool,
) {
    let mut served = site.serve(site.door(Role::Host, shown));
    match site.dial(caller.clone()).await {
        Err(LinkError::NotTheMaster { cause, .. }) => assert!(right(&cause), "{cause:?}"),
        other => panic!("taken for the master: {other:?}"),
    }
    let outcome = served.outcome().await;
    assert!(matches!(outcome, Err(AcceptError::Distrusted(_))), "{outcome:?}");
}
