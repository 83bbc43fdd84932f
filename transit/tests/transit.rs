//! The client against the simulated engine, over TLS on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use picket_clock::Clock;
use picket_durable::SecretFile;
use picket_transit::{
    Engine, Health, Place, TokenHealth, TransitError,
    fake::{Fake, Fault, Life, Policy},
};

const HOUR: Duration = Duration::from_secs(3600);
const KEY: &str = "picket-ca";

struct Site {
    fake: Fake,
    token: String,
    place: Place,
    _dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with(Policy::Sign, Life::Periodic(HOUR))
    }

    fn with(policy: Policy, life: Life) -> Self {
        let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
        fake.make_key(KEY, "ecdsa-p256");
        let token = fake.make_token(policy, life);
        let place = fake.place(dir.path(), KEY, &token).unwrap();
        Self {
            fake,
            token,
            place: Place {
                timeout: Duration::from_secs(2),
                ..place
            },
            _dir: dir,
        }
    }

    fn engine(&self) -> Engine {
        Engine::start(self.place.clone(), Clock::system()).unwrap()
    }

    fn sign(&self) -> Result<Vec<u8>, TransitError> {
        self.engine().sign(1, b"a message")
    }

    fn replace_token(&self, token: &str) {
        picket_durable::write_private(self.place.token.path(), token.as_bytes()).unwrap();
    }
}

/// Waits until the engine's health is as wanted.
#[track_caller]
fn until(engine: &Engine, wanted: impl Fn(&Health) -> bool) -> Health {
    let ends = deadline(Duration::from_secs(20));
    loop {
        let health = engine.health().borrow().clone();
        if wanted(&health) {
            return health;
        }
        assert!(!ends.is_over(), "the health is {health:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Deadline(Instant, Duration);

impl Deadline {
    fn is_over(&self) -> bool {
        self.0.elapsed() > self.1
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the engine and its simulation run in real time"
)]
fn deadline(span: Duration) -> Deadline {
    Deadline(Instant::now(), span)
}

#[test]
fn a_signature_is_asked_of_the_version_that_was_named() {
    let site = Site::new();
    site.fake.rotate_key(KEY);
    let engine = site.engine();
    let versions = engine.versions().unwrap();
    assert_eq!((versions.newest, versions.public.len()), (2, 2));
    assert!(versions.public[&1].starts_with("-----BEGIN PUBLIC KEY-----"));
    assert_ne!(versions.public[&1], versions.public[&2]);
    let signature = engine.sign(1, b"a message").unwrap();
    assert_eq!(signature[0], 0x30, "DER");
    let asked = site.fake.asked();
    assert!(
        asked.contains(&"POST /v1/transit/sign/picket-ca/sha2-256 200".to_owned()),
        "{asked:?}"
    );
}

#[test]
fn another_mount_and_a_namespace_are_found() {
    let mut site = Site::new();
    site.fake.remount("team-a/signing", Some("eng"));
    assert!(
        matches!(site.sign().unwrap_err(), TransitError::Denied { .. }),
        "without the namespace"
    );
    site.place.mount = "team-a/signing".parse().unwrap();
    site.place.namespace = Some("eng".parse().unwrap());
    site.sign().unwrap();
}

#[test]
fn what_passes_is_tried_again_and_signs_in_the_end() {
    let site = Site::new();
    let passing = [
        Fault::Closed,
        Fault::Status(429, "request path: rate limit quota exceeded".to_owned()),
        Fault::Status(
            500,
            "local node not active but active cluster node not found".to_owned(),
        ),
        Fault::Status(473, String::new()),
        Fault::Status(502, "upstream".to_owned()),
    ];
    let engine = site.engine();
    for fault in passing {
        site.fake.fail_next([fault.clone()]);
        engine
            .sign(1, b"a message")
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
    }
}

#[test]
fn what_does_not_pass_is_told_at_once_with_what_to_do() {
    let site = Site::new();
    let engine = site.engine();
    type Want = (Fault, &'static str);
    let cases: [Want; 6] = [
        (Fault::Status(503, "Vault is sealed".to_owned()), "is sealed"),
        (
            Fault::Status(403, "permission denied".to_owned()),
            "refuses the token",
        ),
        (
            Fault::Status(404, "no handler".to_owned()),
            "bao write -f transit/keys/picket-ca type=ecdsa-p256",
        ),
        (Fault::Status(307, String::new()), "name the active node"),
        (Fault::Babble, "makes no sense"),
        (Fault::Status(418, "teapot".to_owned()), "418, teapot"),
    ];
    for (fault, wanted) in cases {
        let before = site
            .fake
            .asked()
            .iter()
            .filter(|asked| asked.contains("/sign/"))
            .count();
        site.fake.fail_next([fault.clone()]);
        let error = engine.sign(1, b"a message").unwrap_err();
        assert!(error.chain().contains(wanted), "{fault:?}: {}", error.chain());
        let after = site
            .fake
            .asked()
            .iter()
            .filter(|asked| asked.contains("/sign/"))
            .count();
        assert_eq!(after - before, 1, "{fault:?} is not tried again");
    }
}

#[test]
fn an_engine_that_is_silent_holds_a_signature_no_longer_than_it_is_told() {
    let mut site = Site::new();
    site.place.timeout = Duration::from_millis(300);
    site.fake.fail_always(Some(Fault::Silence));
    let ends = deadline(Duration::from_secs(2));
    let error = site.sign().unwrap_err();
    assert!(matches!(error, TransitError::TimedOut { .. }), "{error}");
    assert!(!ends.is_over(), "three tries of 300 ms took longer than 2 s");
}

#[test]
fn an_engine_that_is_away_or_is_another_is_told_apart() {
    let mut site = Site::new();
    let other = Fake::start();
    site.place.address = other.address().parse().unwrap();
    let error = site.sign().unwrap_err();
    assert!(matches!(error, TransitError::Tls { .. }), "{}", error.chain());
    drop(other);
    site.place.address = "https://127.0.0.1:1".parse().unwrap();
    let error = site.sign().unwrap_err();
    assert!(
        matches!(error, TransitError::Unreachable { .. }),
        "{}",
        error.chain()
    );
}

#[test]
fn a_certificate_for_another_name_is_not_taken() {
    let mut site = Site::new();
    let port = site.place.address.port();
    site.place.address = format!("https://127.0.0.2:{port}").parse().unwrap();
    let error = site.sign().unwrap_err();
    // Nothing listens there on most systems; where all of loopback is one, the name is wrong.
    assert!(
        matches!(error, TransitError::Tls { .. } | TransitError::Unreachable { .. }),
        "{}",
        error.chain()
    );
    site.place.address = format!("https://localhost:{port}").parse().unwrap();
    site.sign().unwrap();
}

#[test]
fn a_key_that_is_missing_of_another_kind_or_retired_is_named() {
    let site = Site::new();
    site.fake.make_key("other", "aes256-gcm96");
    let at = |key: &str| {
        let place = Place {
            key: key.parse().unwrap(),
            ..site.place.clone()
        };
        Engine::start(place, Clock::system()).unwrap()
    };
    let error = at("none").versions().unwrap_err();
    assert!(matches!(error, TransitError::NotFound { .. }), "{error}");
    let error = at("none").sign(1, b"").unwrap_err();
    assert!(matches!(error, TransitError::NotFound { .. }), "{error}");
    let error = at("other").versions().unwrap_err();
    assert!(
        matches!(&error, TransitError::WrongKind { kind, .. } if kind == "aes256-gcm96"),
        "{error}"
    );
    site.fake.rotate_key(KEY);
    site.fake.retire_versions(KEY, 2);
    let error = site.sign().unwrap_err();
    assert!(
        matches!(error, TransitError::VersionRefused { version: 1, .. }),
        "{error}"
    );
    let error = site.engine().sign(9, b"").unwrap_err();
    assert!(
        matches!(error, TransitError::VersionRefused { version: 9, .. }),
        "{error}"
    );
}

#[test]
fn a_signature_of_another_version_is_refused() {
    let site = Site::new();
    site.fake.rotate_key(KEY);
    site.fake.fail_next([Fault::OtherVersion]);
    let error = site.sign().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("signed with version 2, and 1 was asked for"),
        "{error}"
    );
}

#[test]
fn a_token_is_renewed_while_nobody_signs_and_lives_on() {
    let site = Site::with(Policy::Sign, Life::Periodic(Duration::from_secs(3)));
    let engine = site.engine();
    let ends = deadline(Duration::from_secs(30));
    let renewed = |asked: &[String]| {
        asked
            .iter()
            .filter(|asked| asked.contains("renew-self 200"))
            .count()
    };
    while renewed(&site.fake.asked()) < 3 {
        assert!(!ends.is_over(), "{:?}", site.fake.asked());
        assert!(
            site.fake.token_ttl(&site.token).is_some(),
            "it ended before it was renewed"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        until(&engine, |health| health.token != TokenHealth::Unknown).token,
        TokenHealth::Good
    );
    engine.sign(1, b"a message").unwrap();
}

#[test]
fn a_token_that_nothing_renews_is_told_before_it_ends_and_another_in_its_place_is_taken() {
    let site = Site::with(Policy::Sign, Life::Fixed(Duration::from_secs(3)));
    let engine = site.engine();
    until(&engine, |health| {
        matches!(health.token, TokenHealth::Ends { soon: true, .. })
    });
    let lost = until(&engine, |health| matches!(health.token, TokenHealth::Lost(_)));
    let TokenHealth::Lost(why) = lost.token else {
        unreachable!()
    };
    assert!(
        why.contains("refuses the token") && why.contains("transit-token"),
        "{why}"
    );
    let error = engine.sign(1, b"a message").unwrap_err();
    assert!(matches!(error, TransitError::Denied { .. }), "{error}");
    assert!(engine.health().borrow().signing.is_some());
    site.replace_token(&site.fake.make_token(Policy::Sign, Life::Periodic(HOUR)));
    engine.sign(1, b"a message").unwrap();
    until(&engine, |health| {
        *health
            == Health {
                token: TokenHealth::Good,
                signing: None,
            }
    });
}

#[test]
fn a_token_at_the_end_of_the_longest_life_it_may_have_is_told() {
    let life = Life::Renewable(Duration::from_secs(2), Duration::from_secs(3));
    let site = Site::with(Policy::Sign, life);
    until(&site.engine(), |health| {
        matches!(health.token, TokenHealth::Ends { .. })
    });
}

#[test]
fn a_token_whose_policy_is_too_small_signs_nothing_and_says_so() {
    let site = Site::with(Policy::Read, Life::Periodic(HOUR));
    site.engine().versions().unwrap();
    let error = site.sign().unwrap_err();
    assert!(
        error.to_string().contains("whose policy allows this path"),
        "{error}"
    );
}

#[test]
fn an_engine_without_its_files_does_not_start() {
    let site = Site::new();
    let started = |place: Place| Engine::start(place, Clock::system()).map(drop).unwrap_err();
    let missing = PathBuf::from("/nonexistent/file");
    let error = started(Place {
        token: SecretFile::Named(missing.clone()),
        ..site.place.clone()
    });
    assert!(matches!(error, TransitError::Token(_)), "{error}");
    let error = started(Place {
        authority: missing,
        ..site.place.clone()
    });
    assert!(matches!(error, TransitError::Authority(_)), "{error}");
    let error = started(Place {
        authority: site.place.token.path().to_owned(),
        ..site.place.clone()
    });
    assert!(matches!(error, TransitError::NoAuthority(_)), "{error}");
    site.replace_token("");
    assert!(matches!(started(site.place.clone()), TransitError::NoToken(_)));
}

#[test]
fn the_token_is_in_no_message_and_in_nothing_that_is_printed() {
    let site = Site::with(Policy::Default, Life::Periodic(HOUR));
    let engine = site.engine();
    let error = engine.sign(1, b"a message").unwrap_err();
    until(&engine, |health| health.signing.is_some());
    for text in [
        error.chain(),
        format!("{error:?}"),
        format!("{engine:?}"),
        format!("{:?}", engine.health()),
    ] {
        assert!(!text.contains(&site.token) && !text.contains("hvs."), "{text}");
    }
}
