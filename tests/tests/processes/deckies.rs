//! Deckies on a real Docker Engine, while the daemons around them come and go. They are known by their containers' ids
//! and by when these were started: a decky that was restarted is not the same.

use std::time::Duration;

use picket_tests::process::{Site, Street, until};

const SOON: Duration = Duration::from_secs(40);

#[test]
fn deckies_outlive_their_agent_and_the_next_one_adopts_them_on_docker() {
    let site = Site::new();
    let mut street = Street::new();
    let mut oslo = street.machine(&site, "oslo", 0);
    oslo.start();
    drop(site.master.until_host("oslo", "online", SOON));
    street.deploy(&site, &["oslo"]);
    let before = street.containers();

    oslo.kill();
    drop(site.master.until_host("oslo", "offline", SOON));
    assert_eq!(street.containers(), before, "they go on without it");
    oslo.start();
    until("its deckies to be seen running", SOON, || {
        let host = site.master.host("oslo")?;
        let fine = host["state"] == "online" && host["deckies_running"] == 2 && host["deckies"] == 2;
        if fine { Ok(()) } else { Err(host.to_string()) }
    });
    assert_eq!(street.containers(), before, "the next agent adopts them");
}

#[test]
fn a_container_that_is_removed_while_the_master_is_away_comes_back_on_docker() {
    let mut site = Site::new();
    let mut street = Street::new();
    let mut oslo = street.machine(&site, "oslo", 0);
    oslo.start();
    drop(site.master.until_host("oslo", "online", SOON));
    street.deploy(&site, &["oslo"]);
    let before = street.containers();

    site.master.kill();
    drop(oslo.until_standing("disconnected", SOON));
    let gone = before
        .iter()
        .find(|one| one.name.contains("http"))
        .expect("a service")
        .clone();
    drop(street.engine.docker(&["rm", "--force", &gone.id]).ok());
    let after = until("the container to be restored", SOON, || {
        let now = street.containers();
        let whole = now.len() == before.len() && now.iter().all(|one| one.state == "running");
        if whole { Ok(now) } else { Err(format!("{now:?}")) }
    });
    for (was, is) in before.iter().zip(&after) {
        assert_eq!(was.name, is.name);
        assert_eq!(
            was.id == is.id,
            was.id != gone.id,
            "only the one that was removed is another: {was:?} {is:?}"
        );
    }

    // An agent that starts while the master is away keeps to what it was last told, too.
    oslo.kill();
    let base = after
        .iter()
        .find(|one| one.name.contains("nas"))
        .expect("a decky")
        .clone();
    drop(street.engine.docker(&["rm", "--force", &base.id]).ok());
    oslo.start();
    drop(street.until_running(before.len()));
    site.master.start();
    drop(site.master.until_host("oslo", "online", SOON));
}
