//! What happens to a bundle on its way, and to whoever else has it.

use std::{sync::Arc, time::Duration};

use picket_agent::{
    MasterError, enroll::EnrollError, identity::IdentityStore, request::Which, status::State,
};
use picket_link::LinkError;
use picket_pki::{Authority, Csr, Key, PublicKey, Refusal, pem};
use picket_tests::{
    HostState::Online,
    Site,
    impostor::{Impostor, Record},
    stranger::{Door, Stranger},
};
use tokio::task::JoinSet;

#[tokio::test(start_paused = true)]
async fn a_hundred_machines_with_one_bundle_are_one_host_and_ninety_nine_are_told_why() {
    let site = Site::new().await;
    let bundle: Arc<[u8]> = site.bundle("oslo").await.into();
    let mut all = JoinSet::new();
    for _ in 0..100 {
        let (machine, bundle) = (site.machine("oslo").without_zerotier(), Arc::clone(&bundle));
        all.spawn(async move {
            // A host has four connections at most, and one more closes the oldest: those try again.
            for _ in 0..100 {
                match machine.enroll(&bundle).await {
                    // Each at its own time, as people and scripts do.
                    Err(EnrollError::Master(error)) if is_lost(&error) => {
                        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..10_000))).await;
                    }
                    ended => return (machine, ended),
                }
            }
            panic!("the master does not let go of its connections");
        });
    }
    let mut enrolled = Vec::new();
    while let Some(ended) = all.join_next().await {
        let (machine, result) = ended.unwrap();
        match result {
            Ok(_) => enrolled.push(machine),
            Err(error) => {
                let said = picket_agent::sentence(&error);
                let told = said.contains("used before") || said.contains("this bundle was used from");
                assert!(told, "{said}");
            }
        }
    }
    let [machine] = &enrolled[..] else {
        panic!("{} of 100 were enrolled", enrolled.len())
    };
    assert_eq!(
        site.pins("oslo").await,
        ["current", "spent"],
        "one certificate was signed, beside the bundle's"
    );
    machine.start();
    machine.until(State::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_bundle_replayed_after_its_use_opens_neither_a_session_nor_a_renewal() {
    let site = Site::new().await;
    let (oslo, bundle) = (site.machine("oslo"), site.bundle("oslo").await);
    oslo.enroll(&bundle).await.unwrap();
    let pin = site.current_pin("oslo").await;
    for _ in 0..3 {
        let replayed = Stranger::with_bundle(&site, &bundle);
        assert_eq!(replayed.refused_at(Door::Agents).await, Refusal::Spent);
        assert_eq!(replayed.bursts_in().await, 0);
    }
    assert_eq!(site.current_pin("oslo").await, pin);
    oslo.start();
    site.until("oslo", Online).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_makes_its_own_key_and_the_bundle_that_travels_holds_none() {
    let site = Site::new().await;
    let oslo = site.machine("oslo");
    let request = oslo.request(Which::Same).unwrap();
    let key = IdentityStore::open(oslo.state().join("identity"))
        .unwrap()
        .request_key()
        .unwrap()
        .unwrap();
    let bundle = site.try_bundle_for("oslo", &request).await.unwrap();
    let secret = digits(&key);
    let text = String::from_utf8(bundle.clone()).unwrap();
    assert!(!text.contains(&secret) && !text.contains("\"key\""), "{text}");
    assert!(text.contains("# CA fingerprint"), "{text}");
    let again = oslo.request(Which::Same).unwrap();
    assert_eq!(public(&again), public(&request), "asking again spoils nothing");

    let thief = site.machine("thief");
    let error = thief.enroll(&bundle).await.unwrap_err();
    assert!(matches!(error, EnrollError::NoRequest(_)), "{error}");
    thief.request(Which::Same).unwrap();
    let error = thief.enroll(&bundle).await.unwrap_err();
    assert!(matches!(error, EnrollError::OtherRequest(_)), "{error}");

    oslo.enroll(&bundle).await.unwrap();
    oslo.start();
    site.until("oslo", Online).await;
    assert_eq!(
        site.pins("oslo").await,
        ["current", "spent"],
        "its first act was to renew with a second key"
    );
    oslo.stop().await;
    assert!(
        oslo.enroll(&bundle).await.unwrap().before,
        "twice is safe with the same bundle"
    );
    let next = oslo.request(Which::Same).unwrap();
    assert_ne!(
        public(&next),
        public(&request),
        "a used key is not asked for again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_for_a_key_that_is_known_or_that_its_sender_does_not_have_is_refused() {
    let site = Site::new().await;
    let oslo = site.machine("oslo");
    let request = oslo.request(Which::Same).unwrap();
    site.try_bundle_for("oslo", &request).await.unwrap();
    let known = site.try_bundle_for("bern", &request).await.unwrap_err();
    assert_eq!(known.code(), tonic::Code::FailedPrecondition);
    assert!(
        known.message().contains("oslo") && known.message().contains("picket-agent request --new"),
        "{}",
        known.message()
    );
    let mut forged = Key::generate().unwrap().csr().unwrap();
    *forged.last_mut().unwrap() ^= 1;
    let unproven = site.try_bundle_for("bern", &forged).await.unwrap_err();
    assert_eq!(
        unproven.code(),
        tonic::Code::InvalidArgument,
        "{}",
        unproven.message()
    );
    let text = pem::request_to_pem(&Key::generate().unwrap().csr().unwrap());
    let unread = site.try_bundle_for("bern", text.as_bytes()).await.unwrap_err();
    assert_eq!(
        unread.code(),
        tonic::Code::InvalidArgument,
        "{}",
        unread.message()
    );
    assert_eq!(site.hosts().await.len(), 1, "none of them was enrolled");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_enrolled_a_host_enrolls_no_other_after_its_use_nor_after_its_host_is_gone() {
    let site = Site::new().await;
    let oslo = site.machine("oslo").without_zerotier();
    let request = oslo.request(Which::Same).unwrap();
    let bundle = site.try_bundle_for("oslo", &request).await.unwrap();
    oslo.enroll(&bundle).await.unwrap();
    assert_eq!(
        site.pins("oslo").await,
        ["current", "spent"],
        "its key is used up"
    );
    let is_refused = async |name: &str| {
        let said = site.try_bundle_for(name, &request).await.unwrap_err();
        assert_eq!(said.code(), tonic::Code::FailedPrecondition, "{}", said.message());
        assert!(said.message().contains("of the host oslo"), "{}", said.message());
    };
    is_refused("bern").await;
    site.restart_master().await;
    is_refused("bern").await;
    site.retire("oslo", "a story").await;
    is_refused("bern").await;
    is_refused("oslo").await;
    let another = oslo.request(Which::Same).unwrap();
    site.try_bundle_for("bern", &another).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bundle_of_another_ca_than_expected_is_refused_before_anything_is_dialled() {
    let site = Site::new().await;
    let (oslo, bundle) = (site.machine("oslo"), site.bundle("oslo").await);
    oslo.unplug();
    let other = picket_pki::Fingerprint::of(b"another");
    let error = oslo.enroll_expecting(&bundle, &[other]).await.unwrap_err();
    assert!(matches!(error, EnrollError::OtherAuthority { .. }), "{error}");
    let carried = picket_pki::Bundle::parse(&bundle).unwrap();
    let right = picket_pki::Fingerprint::of(&carried.authorities[0]);
    let said = error.to_string();
    assert!(
        said.contains("nothing was sent") && said.contains(&right.to_string()),
        "{said}"
    );
    // One that trusts another CA beside ours is no better.
    let another = Authority::create(&carried.trust_domain, site.clock.now()).unwrap();
    let mut both = carried.clone();
    both.authorities.push(another.certificate().to_vec());
    let both = both.encode().unwrap();
    let error = oslo
        .enroll_expecting(both.as_bytes(), &[right])
        .await
        .unwrap_err();
    assert!(matches!(error, EnrollError::OtherAuthority { .. }), "{error}");
    assert!(!oslo.state().exists());
    oslo.plug_in();
    oslo.enroll_expecting(&bundle, &[right]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_machine_shows_whoever_is_not_its_master_no_certificate_and_no_word() {
    // What TLS calls the record of a handshake, and one that is encrypted.
    const HANDSHAKE: u8 = 22;
    const ENCRYPTED: u8 = 23;
    let site = Site::new().await;
    let (oslo, bundle) = (site.machine("oslo"), site.bundle("oslo").await);
    let secrets = picket_pki::Bundle::parse(&bundle).unwrap().certificate.len();
    site.stop_master().await;

    let mut impostor = Impostor::with_a_ca_of_its_own(&site);
    let (error, (heard, outcome)) = tokio::join!(oslo.enroll(&bundle), impostor.hears());
    let said = picket_agent::sentence(&error.unwrap_err());
    assert!(said.contains("not the master of this bundle"), "{said}");
    assert!(outcome.is_err(), "it hung up");
    let encrypted: usize = lengths(&heard, ENCRYPTED);
    assert!(
        encrypted <= 24,
        "an alert and nothing beside it has at most 24 bytes: {heard:?}"
    );
    assert_eq!(
        heard.iter().filter(|(kind, _)| *kind == HANDSHAKE).count(),
        1,
        "{heard:?}"
    );
    assert!(!oslo.state().exists());

    // Whom it trusts it sends its certificate, so that this would have been seen.
    let mut master = Impostor::with_our_ca(&site);
    let (_, (heard, outcome)) = tokio::join!(oslo.enroll(&bundle), master.hears());
    outcome.unwrap();
    assert!(lengths(&heard, ENCRYPTED) > secrets, "{heard:?}");
}

fn lengths(records: &[Record], kind: u8) -> usize {
    let of_kind = records.iter().filter(|record| record.0 == kind);
    of_kind.map(|record| record.1).sum()
}

/// Whether a call ended because its connection did.
fn is_lost(error: &MasterError) -> bool {
    match error {
        MasterError::Link(error) => !matches!(error, LinkError::Refused { .. }),
        MasterError::Call { status, .. } => {
            matches!(status.code(), tonic::Code::Unknown | tonic::Code::Unavailable)
        }
        MasterError::Ended(_) | MasterError::Silent { .. } => true,
        MasterError::Identity(_)
        | MasterError::Version(_)
        | MasterError::Nonsense(_)
        | MasterError::Left(_)
        | MasterError::Broken(_) => false,
    }
}

fn public(request: &[u8]) -> PublicKey {
    let csr = Csr::parse(request).expect("it was made a moment ago");
    csr.public_key().clone()
}

fn digits(key: &Key) -> String {
    let pem = key.to_pem();
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
    lines.concat()
}
