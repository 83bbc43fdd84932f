//! Roots of our own: what their hosts sign, and what of it is believed.

use picket_link::Connected;
use picket_proto::wire::agent::{OrbitedMoon, ServiceState, ZeroTierStatus};
use picket_tests::{
    Host, Site,
    conversation::Conversation,
    stranger::{Door, Stranger},
};
use picket_zerotier::world::{Root, World, WorldId, WorldKey};
use tonic::Code;

const HERE: &str = "192.0.2.1/9993";
const THERE: &str = "192.0.2.2/9993";

/// A session under a machine's identity, in place of its agent's.
async fn converse(site: &Site, host: &Host) -> (Conversation, Connected) {
    host.stop().await;
    let connected = Stranger::with_identity_of(site, host)
        .connect(Door::Agents)
        .await
        .expect("the door opens");
    let talk = Conversation::open(&connected).await.expect("the master talks");
    (talk, connected)
}

/// What a host's node signs as its moon, so long after the lab began.
fn signed(site: &Site, host: &Host, key: &WorldKey, endpoint: &str, millisecond: u64) -> Vec<u8> {
    let identity = site.lab().secret(host.node).expect("a grown node has one");
    let root = Root {
        identity: *identity.public(),
        endpoints: vec![endpoint.replace('/', ":").parse().unwrap()],
    };
    let began = 1_795_364_728_000;
    let world = World::make(WorldId::Moon(host.node), began + millisecond, vec![root], key);
    world.unwrap().to_bytes()
}

/// Says what a ZeroTier service of this node and this moon says.
async fn say(talk: &mut Conversation, sequence: u64, host: &Host, moon: &[u8]) {
    let status = ZeroTierStatus {
        service: ServiceState::Answers.into(),
        node_id: host.node.to_string(),
        own_moon: moon.to_vec().into(),
        ..Default::default()
    };
    talk.beat_zerotier(sequence, &status).await;
    talk.acknowledged().await;
}

#[tokio::test(start_paused = true)]
async fn a_moon_is_what_its_root_signed_and_counts_who_orbits_it() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    site.until_believed("oslo", oslo.node).await;
    site.until_believed("bern", bern.node).await;
    let (mut talk, _open) = converse(&site, &oslo).await;
    let made = site.moon("oslo", &[HERE]).await;
    assert_eq!(made.world_id, format!("{:016x}", oslo.node.to_u64()));
    assert_eq!((made.signed, made.endpoints), (false, vec![HERE.to_owned()]));
    let key = WorldKey::generate().unwrap();
    say(&mut talk, 1, &oslo, &signed(&site, &oslo, &key, HERE, 1)).await;
    let moon = site.until_moon("oslo", "signed", |moon| moon.signed).await;
    assert_eq!((moon.orbiting, moon.waiting, moon.problem.as_str()), (0, 1, ""));
    site.until_event("moon.signed").await;

    let (mut other, _open_too) = converse(&site, &bern).await;
    let status = ZeroTierStatus {
        service: ServiceState::Answers.into(),
        node_id: bern.node.to_string(),
        moons: vec![OrbitedMoon {
            world_id: moon.world_id.clone(),
            waiting: false,
        }],
        ..Default::default()
    };
    other.beat_zerotier(1, &status).await;
    other.acknowledged().await;
    let orbits = |moon: &picket_tests::Moon| (moon.orbiting, moon.waiting) == (1, 0);
    site.until_moon("oslo", "orbited by bern", orbits).await;

    let changed = site.moon("oslo", &[THERE]).await;
    assert!(!changed.signed, "the root has not signed where it is now");
    say(&mut talk, 2, &oslo, &signed(&site, &oslo, &key, THERE, 2)).await;
    site.until_moon("oslo", "signed again", |moon| moon.signed).await;
    assert_eq!(site.events("moon.refused").await.len(), 0);

    site.try_remove_moon("oslo").await.unwrap();
    assert_eq!(site.moons().await, []);
    assert_eq!(
        site.try_remove_moon("oslo").await.unwrap_err().code(),
        Code::NotFound
    );
}

/// The definition that another machine's agent put where its service looks.
fn put_by(agent: &Host, root: &Host) -> Option<World> {
    let name = format!("{:016x}.moon", root.node.to_u64());
    let bytes = std::fs::read(agent.zerotier_home().join("moons.d").join(name)).ok()?;
    Some(World::parse(&bytes).unwrap())
}

/// Waits until a machine's service orbits the moon of `root`, by the definition with this endpoint, and returns that.
async fn until_orbited(site: &Site, host: &Host, root: &Host, endpoint: &str) -> World {
    let wanted: std::net::SocketAddr = endpoint.replace('/', ":").parse().unwrap();
    picket_tests::site::until(&format!("{} to orbit by {endpoint}", host.name), async || {
        let listed = site.lab().service(host.node).node().moons().await.unwrap();
        let there = listed.iter().any(|moon| moon.id == root.node && !moon.waiting);
        match put_by(host, root) {
            Some(world) if there && world.roots()[0].endpoints == [wanted] => Ok(world),
            other => Err(format!("{other:?} {listed:?}")),
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_moon_goes_from_its_roots_agent_over_the_master_to_anothers_and_so_does_its_next_place_and_its_end()
{
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    site.until_believed("oslo", oslo.node).await;
    site.moon("oslo", &[HERE]).await;
    site.until_moon("oslo", "signed", |moon| moon.signed).await;
    // Its service is the root that others hear the definition from.
    site.lab().found_moon(oslo.node);
    let first = until_orbited(&site, &bern, &oslo, HERE).await;
    first.check().unwrap();
    assert_eq!(first.id(), WorldId::Moon(oslo.node));
    assert_eq!(
        put_by(&oslo, &oslo),
        Some(first.clone()),
        "the root goes by the same bytes"
    );
    site.until_moon("oslo", "orbited by bern", |moon| {
        (moon.orbiting, moon.waiting) == (1, 0)
    })
    .await;

    site.moon("oslo", &[THERE]).await;
    site.until_moon("oslo", "signed again", |moon| moon.signed).await;
    site.lab().found_moon(oslo.node);
    let second = until_orbited(&site, &bern, &oslo, THERE).await;
    second.check_update(&first).unwrap();

    site.try_remove_moon("oslo").await.unwrap();
    picket_tests::site::until("bern to leave the orbit", async || {
        let listed = site.lab().service(bern.node).node().moons().await.unwrap();
        if listed.is_empty() && put_by(&bern, &oslo).is_none() {
            Ok(())
        } else {
            Err(format!("{listed:?}"))
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hostile_root_spoils_no_moon_and_its_nonsense_is_told_once() {
    let site = Site::new().await;
    let (oslo, eve) = (site.enroll("oslo").await, site.enroll("eve").await);
    site.until_believed("oslo", oslo.node).await;
    site.until_believed("eve", eve.node).await;
    let (mut talk, _open) = converse(&site, &eve).await;
    site.moon("eve", &[HERE]).await;
    let key = WorldKey::generate().unwrap();
    let elsewhere = signed(&site, &eve, &key, "198.51.100.9/9993", 1);
    let anothers = signed(&site, &oslo, &key, HERE, 1);
    for (sequence, nonsense) in [(1, b"noise".to_vec()), (2, elsewhere), (3, anothers)] {
        say(&mut talk, sequence, &eve, &nonsense).await;
        site.until_moon("eve", "refused", |moon| !moon.problem.is_empty())
            .await;
        let refusals = usize::try_from(sequence).unwrap();
        picket_tests::site::until("it to be told", async || {
            let told = site.events("moon.refused").await.len();
            if told == refusals { Ok(()) } else { Err(told) }
        })
        .await;
    }
    let moon = site.moons().await.remove(0);
    assert!(
        !moon.signed && moon.problem.contains("not taken over"),
        "{}",
        moon.problem
    );
    say(&mut talk, 4, &eve, &signed(&site, &eve, &key, HERE, 4)).await;
    site.until_moon("eve", "signed", |moon| moon.signed).await;
    let other = WorldKey::generate().unwrap();
    say(&mut talk, 5, &eve, &signed(&site, &eve, &other, HERE, 5)).await;
    let refused = |moon: &picket_tests::Moon| moon.problem.contains("another key");
    let kept = site.until_moon("eve", "refused", refused).await;
    assert!(kept.signed, "what was signed before goes on");
}

#[tokio::test(start_paused = true)]
async fn a_moon_needs_a_host_that_proved_its_node_and_endpoints_that_others_reach() {
    let site = Site::new().await;
    site.bundle("cork").await;
    let unproven = site.try_moon("cork", &[HERE]).await.unwrap_err();
    assert_eq!(unproven.code(), Code::FailedPrecondition);
    assert!(
        unproven.message().contains("has not proven"),
        "{}",
        unproven.message()
    );
    let oslo = site.enroll("oslo").await;
    site.until_believed("oslo", oslo.node).await;
    for endpoints in [
        &[][..],
        &["192.0.2.1"],
        &["127.0.0.1/9993"],
        &["0.0.0.0/9993"],
        &["192.0.2.1/0"],
    ] {
        let refused = site.try_moon("oslo", endpoints).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{endpoints:?}");
    }
    assert_eq!(site.moons().await, []);
}
