use picket_zerotier::world::{Root, WorldKey};

use super::*;

const ENDPOINT: &str = "192.0.2.1:9993";

fn now() -> Timestamp {
    "2026-11-22T20:05:28Z".parse().unwrap()
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap()
}

/// A node that somebody used in a laboratory once.
fn identity() -> PublicIdentity {
    "8fee13b48c:0:35ee9a05bc49daa86142d9865492d3650e64da0be5fa061b01554bbd7e31d00e18a13ca06eba5e0bc5449fc0c84f38db1a6c18e9f14f678e1fbf40405a38531b"
        .parse()
        .unwrap()
}

/// Another one.
fn stranger() -> PublicIdentity {
    "3729f399a1:0:00ec73b896fee96b9fa938c2c4ddbfc34e56073c691937ea46fd13934f68ae614a81436b8884b10bf4ffedd87ed31696a132b7f3e5226b822c34da94de027d1e"
        .parse()
        .unwrap()
}

fn moon() -> MoonRecord {
    MoonRecord {
        host: "6f1c2a52-9c1f-4f3e-8a77-0c7a5f1e2d3b".parse().unwrap(),
        node: identity().node(),
        endpoints: [ENDPOINT.parse().unwrap()].into(),
        at: now(),
        by: "ada".into(),
        definition: String::new(),
        signed_at: None,
        removed: None,
    }
}

fn root(identity: PublicIdentity, endpoints: &[&str]) -> Root {
    Root {
        identity,
        endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

/// What an honest root signs.
fn signed(key: &WorldKey, at: u64) -> World {
    let id = WorldId::Moon(identity().node());
    World::make(id, at, vec![root(identity(), &[ENDPOINT])], key).unwrap()
}

fn kept(world: &World) -> MoonRecord {
    MoonRecord {
        definition: HEXLOWER.encode(&world.to_bytes()),
        ..moon()
    }
}

#[test]
fn what_the_proven_root_signs_is_taken_over_once() {
    let world = signed(&WorldKey::generate().unwrap(), millis(now()));
    let definition = accept(&moon(), &identity(), &world.to_bytes(), now()).unwrap();
    assert_eq!(definition, Some(HEXLOWER.encode(&world.to_bytes())));
    assert_eq!(
        accept(&kept(&world), &identity(), &world.to_bytes(), now()),
        Ok(None)
    );
    assert!(is_signed(&kept(&world)) && !is_signed(&moon()));
}

#[test]
fn another_identity_under_the_same_node_or_more_roots_are_refused() {
    let key = WorldKey::generate().unwrap();
    let id = WorldId::Moon(identity().node());
    let other = World::make(id, millis(now()), vec![root(stranger(), &[ENDPOINT])], &key).unwrap();
    assert_eq!(
        accept(&moon(), &identity(), &other.to_bytes(), now()),
        Err(MoonError::Identity)
    );
    let roots = vec![root(identity(), &[ENDPOINT]), root(stranger(), &[ENDPOINT])];
    let two = World::make(id, millis(now()), roots, &key).unwrap();
    assert_eq!(
        accept(&moon(), &identity(), &two.to_bytes(), now()),
        Err(MoonError::Roots(2))
    );
}

#[test]
fn a_planet_another_moon_and_noise_are_refused() {
    let key = WorldKey::generate().unwrap();
    for id in [WorldId::Planet(1), WorldId::Moon(stranger().node())] {
        let world = World::make(id, millis(now()), vec![root(identity(), &[ENDPOINT])], &key).unwrap();
        assert_eq!(
            accept(&moon(), &identity(), &world.to_bytes(), now()),
            Err(MoonError::Other(identity().node()))
        );
    }
    assert!(matches!(
        accept(&moon(), &identity(), b"noise", now()),
        Err(MoonError::World(_))
    ));
    let mut forged = signed(&key, millis(now())).to_bytes();
    forged[100] ^= 1;
    assert_eq!(
        accept(&moon(), &identity(), &forged, now()),
        Err(MoonError::World(WorldError::Signature))
    );
}

#[test]
fn endpoints_that_nobody_gave_are_refused_and_named() {
    let key = WorldKey::generate().unwrap();
    let id = WorldId::Moon(identity().node());
    let elsewhere = vec![root(identity(), &["198.51.100.9:9993"])];
    let world = World::make(id, millis(now()), elsewhere, &key).unwrap();
    let error = accept(&moon(), &identity(), &world.to_bytes(), now()).unwrap_err();
    assert!(error.to_string().contains("198.51.100.9/9993"), "{error}");
    assert!(error.to_string().contains("192.0.2.1/9993"), "{error}");
}

#[test]
fn what_replaces_a_moon_is_newer_and_of_the_same_key() {
    let (key, other) = (WorldKey::generate().unwrap(), WorldKey::generate().unwrap());
    let at = millis(now());
    let before = kept(&signed(&key, at));
    let next = |key: &WorldKey, at| accept(&before, &identity(), &signed(key, at).to_bytes(), now());
    assert!(next(&key, at + 1).unwrap().is_some());
    assert!(matches!(
        next(&key, at - 1),
        Err(MoonError::World(WorldError::NoUpdate(_)))
    ));
    assert_eq!(next(&other, at + 1), Err(MoonError::Key));
}

#[test]
fn a_moon_from_the_future_is_refused_since_nothing_could_replace_it() {
    let key = WorldKey::generate().unwrap();
    for at in [millis(now()) + 2 * 3_600_000, u64::MAX] {
        let world = signed(&key, at).to_bytes();
        let error = accept(&moon(), &identity(), &world, now()).unwrap_err();
        assert!(matches!(error, MoonError::Ahead(_)), "{error}");
    }
    let soon = signed(&key, millis(now()) + 60_000).to_bytes();
    assert!(accept(&moon(), &identity(), &soon, now()).is_ok());
}

#[test]
fn new_endpoints_are_signed_when_the_root_has_signed_them_and_the_old_moon_goes_on_until_then() {
    let world = signed(&WorldKey::generate().unwrap(), millis(now()));
    let mut changed = kept(&world);
    changed.endpoints = ["192.0.2.2:9993".parse().unwrap()].into();
    assert!(!is_signed(&changed));
    assert_eq!(
        accept(&changed, &identity(), &world.to_bytes(), now()),
        Ok(None),
        "what is kept is no nonsense"
    );
}
