//! A controller that does not answer, or answers nonsense: its network is frozen, says so, and is repaired when it is well.

use std::time::Duration;

use picket_tests::{
    Host,
    MemberObservation::{Authorized, Deauthorized},
    Site, site,
};
use picket_zerotier::{NetworkId, NodeId, fake::Mood};

const MINUTE: Duration = Duration::from_secs(60);

/// A governed network and a node that is let on there, whatever mood its controller is in.
struct Scene {
    site: Site,
    oslo: Host,
    network: NetworkId,
    friend: NodeId,
}

impl Scene {
    async fn new() -> Self {
        let site = Site::new().await;
        let (oslo, friend) = (site.enroll("oslo").await, site.lab().grow());
        let network = site.governed_network_on(&oslo).await;
        site.admit(network, friend).await;
        site.until_member(network, friend, Authorized).await;
        site.until_outcome("oslo", "members", "done").await;
        Self {
            site,
            oslo,
            network,
            friend,
        }
    }

    fn be(&self, mood: Mood) {
        self.site.lab().set_mood(self.oslo.node, mood);
    }

    fn is_on(&self) -> bool {
        self.site.lab().lets_on(self.network, self.friend)
    }

    /// How often the controller was asked to change the friend.
    fn changes(&self) -> usize {
        let (network, friend) = (self.network, self.friend);
        let path = format!("POST /controller/network/{network}/member/{friend}");
        self.site.lab().asked(self.oslo.node, &path)
    }
}

/// What somebody changes at a controller in this mood stays until it is well, and the network says why.
async fn drift_waits_out(mood: Mood) {
    let scene = Scene::new().await;
    let (site, network) = (&scene.site, scene.network);
    scene.be(mood);
    site::until(
        &format!("{network} to say that it is frozen, {mood:?}"),
        async || {
            let problem = site.network(network).await.problem;
            if problem.is_empty() {
                Err("no problem")
            } else {
                Ok(())
            }
        },
    )
    .await;
    site.lab().let_on(network, scene.friend, false);
    let before = scene.changes();

    site.wait(5 * MINUTE).await;
    assert_eq!(scene.changes(), before, "nobody tried to repair it, {mood:?}");
    assert!(!scene.is_on(), "{mood:?}");
    assert_ne!(site.network(network).await.problem, "", "{mood:?}");
    assert_eq!(site.events("member.repaired").await, [], "{mood:?}");

    scene.be(Mood::Well);
    site.until_event("member.repaired").await;
    assert!(scene.is_on(), "{mood:?}");
    site.until_outcome("oslo", "members", "done").await;
    site::until("the network to be well", async || {
        let problem = site.network(network).await.problem;
        if problem.is_empty() { Ok(()) } else { Err(problem) }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_answers_nonsense_freezes_its_network_until_it_answers_right() {
    drift_waits_out(Mood::Confused).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_controller_alone_answers_nonsense_freezes_its_network_until_it_answers_right() {
    drift_waits_out(Mood::Muddled).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_times_out_freezes_its_network_until_it_answers() {
    drift_waits_out(Mood::Hanging).await;
}

#[tokio::test(start_paused = true)]
async fn who_was_revoked_while_the_controller_was_frozen_is_put_off_as_soon_as_it_is_well() {
    let scene = Scene::new().await;
    for mood in [Mood::Muddled, Mood::Hanging] {
        let (site, network) = (&scene.site, scene.network);
        scene.be(mood);
        site.wait(2 * MINUTE).await;
        site.revoke(network, scene.friend).await;
        site.wait(MINUTE).await;
        assert!(scene.is_on(), "{mood:?}");
        scene.be(Mood::Well);
        site.until_member(network, scene.friend, Deauthorized).await;
        assert!(!scene.is_on(), "{mood:?}");
        site.admit(network, scene.friend).await;
        site.until_member(network, scene.friend, Authorized).await;
    }
}
