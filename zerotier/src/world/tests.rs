use proptest::prelude::*;

use super::*;
use crate::identity::Identity;

/// What `zerotier-idtool genmoon` made, and the key it was given. They were used in a laboratory once.
const RECORDED: &str = "7f0000008fee13b48c000001a2042013911cb61013c0af59918bc9d1ce852567\
    a6e7a325252d4b78997af3a99f7a239b229a7c5c2e4a516228fc24708cd85f82\
    a02d2beb882eeb9bc88d65aa92959679e80dcfb9b8ebe2d227f82bd354bc2268\
    fab9ea69db91e4d347e50ef47468ae3145422b0894f0f7f0a0501be5cd6a179c\
    e6fd1081c6616e45748c5e1c15cff58f005b26a71089b00bafcade4325238eca\
    15f7b2895306f1819becf9bad1a6c61e31018fee13b48c0035ee9a05bc49daa8\
    6142d9865492d3650e64da0be5fa061b01554bbd7e31d00e18a13ca06eba5e0b\
    c5449fc0c84f38db1a6c18e9f14f678e1fbf40405a38531b0002040a63000527\
    0906fd00009900000000000000000000000527090000";
const RECORDED_KEY: &str = "1cb61013c0af59918bc9d1ce852567a6e7a325252d4b78997af3a99f7a239b22\
    9a7c5c2e4a516228fc24708cd85f82a02d2beb882eeb9bc88d65aa92959679e8:\
    bc5cf781cc5184adbecac2d75d815ff192dbd7f28f2ec8b7712895451fa3e054\
    34cb512265ca5b1c4a20a9226290b46b68396aed8bcf5353e76eb89bb6438642";
const ROOT: &str = "8fee13b48c:0:35ee9a05bc49daa86142d9865492d3650e64da0be5fa061b01554bbd7e31d00e\
    18a13ca06eba5e0bc5449fc0c84f38db1a6c18e9f14f678e1fbf40405a38531b";

fn recorded() -> Vec<u8> {
    let digits: Vec<u8> = RECORDED
        .bytes()
        .filter_map(|digit| u8::try_from(char::from(digit).to_digit(16)?).ok())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn key() -> WorldKey {
    RECORDED_KEY.parse().unwrap()
}

fn root(endpoints: &[&str]) -> Root {
    Root {
        identity: ROOT.parse().unwrap(),
        endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

#[test]
fn a_moon_that_a_real_tool_made_is_read_verified_and_written_again() {
    let file = recorded();
    let moon = World::parse(&file).unwrap();
    assert_eq!(moon.check(), Ok(()));
    assert_eq!(moon.to_bytes(), file);
    assert_eq!(
        (moon.file_name().as_str(), moon.timestamp()),
        ("0000008fee13b48c.moon", 1_795_365_540_753)
    );
    assert_eq!(moon.updates(), key().public());
    assert_eq!(moon.roots(), [root(&["10.99.0.5:9993", "[fd00:99::5]:9993"])]);
}

#[test]
fn a_moon_of_the_same_parts_is_the_one_that_a_real_tool_made() {
    let moon = root(&["[fd00:99::5]:9993", "10.99.0.5:9993"]);
    let id = WorldId::Moon(moon.identity.node());
    let made = World::make(id, 1_795_365_540_753, vec![moon], &key()).unwrap();
    assert_eq!(made.to_bytes(), recorded());
}

#[test]
fn a_moon_is_replaced_by_a_newer_one_that_its_key_signed_and_by_no_other() {
    let moon = World::parse(&recorded()).unwrap();
    let roots = || vec![root(&["192.0.2.7:9993"])];
    let later = moon.timestamp() + 1;
    let next = moon.update(later, roots(), &key()).unwrap();
    assert_eq!(next.check_update(&moon), Ok(()));
    assert_eq!(World::parse(&next.to_bytes()).unwrap(), next);
    assert!(matches!(
        moon.check_update(&next).unwrap_err(),
        WorldError::NoUpdate(_)
    ));

    let not_newer = moon.update(moon.timestamp(), roots(), &key());
    assert!(matches!(not_newer.unwrap_err(), WorldError::NoUpdate(_)));
    let other = WorldKey::generate().unwrap();
    assert_eq!(
        moon.update(later, roots(), &other).unwrap_err(),
        WorldError::Signature
    );
    let planet = World::make(WorldId::Planet(7), later, roots(), &key()).unwrap();
    assert!(matches!(
        planet.check_update(&moon).unwrap_err(),
        WorldError::NoUpdate(_)
    ));
    assert_eq!((planet.check(), planet.file_name().as_str()), (Ok(()), "planet"));
    assert_eq!(World::parse(&planet.to_bytes()).unwrap(), planet);
}

#[test]
fn no_byte_of_a_world_can_be_changed_unnoticed() {
    let file = recorded();
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        let seen = World::parse(&changed).and_then(|world| world.check());
        assert!(seen.is_err(), "byte {at}");
    }
    for end in 0..file.len() {
        assert!(World::parse(&file[..end]).is_err(), "{end} bytes");
    }
    let mut longer = file;
    longer.push(0);
    assert_eq!(World::parse(&longer).unwrap_err(), WorldError::Long(1));
}

#[test]
fn what_a_service_could_not_use_is_not_made() {
    let id = WorldId::Planet(1);
    let make = |roots| World::make(id, 1, roots, &key()).unwrap_err();
    let one = root(&["10.0.0.1:9993"]);
    assert!(matches!(make(Vec::new()), WorldError::Count { found: 0, .. }));
    assert!(matches!(
        make(vec![root(&[])]),
        WorldError::Count { found: 0, .. }
    ));
    assert!(matches!(
        make(vec![one.clone(); 5]),
        WorldError::Count { found: 5, .. }
    ));
    assert_eq!(make(vec![one.clone(); 2]), WorldError::Twice(one.identity.node()));
    let many: Vec<String> = (1..=33).map(|port| format!("10.0.0.1:{port}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(
        make(vec![root(&many)]),
        WorldError::Count { found: 33, .. }
    ));
}

#[test]
fn a_key_is_read_only_as_the_pair_it_is_and_does_not_show() {
    let made = WorldKey::generate().unwrap();
    let text = made.to_secret_text();
    assert_eq!(text.parse::<WorldKey>().unwrap().public(), made.public());
    let (public, private) = text.split_once(':').unwrap();
    assert!(!format!("{made:?}").contains(private));
    let other = key().public().to_string();
    for (wrong, error) in [
        (format!("{other}:{private}"), WorldKeyError::Mismatch),
        (
            format!("{}:{private}", public.to_uppercase()),
            WorldKeyError::Parts,
        ),
        (format!("{}\n", *text), WorldKeyError::Parts),
        (public.to_owned(), WorldKeyError::Parts),
    ] {
        assert_eq!(wrong.parse::<WorldKey>().unwrap_err(), error);
    }
}

#[test]
fn the_longest_world_is_as_long_as_is_said() {
    let roots = (1..=4_u8)
        .map(|number| Root {
            identity: Identity::grow(zeroize::Zeroizing::new([number; identity::KEYS]))
                .public()
                .to_owned(),
            endpoints: (1..=32)
                .map(|port| SocketAddr::new([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), port))
                .collect(),
        })
        .collect::<Vec<_>>();
    let id = WorldId::Moon(roots[0].identity.node());
    let world = World::make(id, 1, roots, &key()).unwrap();
    assert_eq!(world.to_bytes().len(), MAX_BYTES);
}

proptest! {
    #[test]
    fn what_is_read_is_written_to_the_same_bytes(file in changed()) {
        if let Ok(world) = World::parse(&file) {
            prop_assert_eq!(world.to_bytes(), file);
        }
    }
}

/// The recorded file with some bytes otherwise.
fn changed() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((0..recorded().len(), any::<u8>()), 0..4).prop_map(|changes| {
        let mut file = recorded();
        for (at, byte) in changes {
            file[at] = byte;
        }
        file
    })
}
