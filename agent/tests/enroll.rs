//! Enrolment against a master over real TLS: what it does, what it refuses, and that it can always be repeated.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail at any line; its tasks end with its runtime"
)]

mod site;

use std::fs;

use picket_agent::enroll::{
    EnrollError,
    node::{self, NodeIdentity},
};
use picket_pki::{Bundle, NodeSecret, Standing};
use picket_zerotier::{home::Home, identity as zerotier};
use site::{Site, Worker};

fn sentence(error: &EnrollError) -> String {
    picket_agent::sentence(error)
}

#[tokio::test(start_paused = true)]
async fn an_enrolled_machine_works_under_a_key_that_never_left_it() {
    let site = Site::new();
    let worker = site.machine("edge-07");
    let enrolled = worker.enroll().await.unwrap();
    assert_eq!((enrolled.name.as_str(), enrolled.before), ("edge-07", false));
    assert_eq!(site.master.keys_signed(), 1);
    assert_eq!(site.master.log().goodbyes, ["enrolled"]);
    let again = worker.enroll().await.unwrap();
    assert!(again.before, "the second time there is nothing left to do");
    assert_eq!(site.master.keys_signed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_renew_ends_under_the_same_key_at_the_second_attempt() {
    let site = Site::new();
    let worker = site.machine("edge-07");
    site.master.lose_next_renew_reply();
    let error = worker.enroll().await.unwrap_err();
    assert!(
        sentence(&error).contains("the reply was lost"),
        "{}",
        sentence(&error)
    );
    worker.enroll().await.unwrap();
    assert_eq!(site.master.keys_signed(), 1, "no second key was made");
}

#[tokio::test(start_paused = true)]
async fn a_used_bundle_opens_nothing_on_another_machine() {
    let site = Site::new();
    let worker = site.machine("edge-07");
    worker.enroll().await.unwrap();
    let mut thief = site.machine("thief");
    thief.bundle = worker.bundle.clone();
    let error = thief.enroll().await.unwrap_err();
    assert!(
        sentence(&error).contains("the bundle has been used before"),
        "{}",
        sentence(&error)
    );
    assert!(
        !thief.state.exists(),
        "nothing is written before the master accepts the bundle"
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_somebody_is_not_made_somebody_else() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    worker.enroll().await.unwrap();
    worker.bundle = site.machine("edge-08").bundle;
    let error = worker.enroll().await.unwrap_err();
    assert!(
        matches!(&error, EnrollError::OtherHost { name, other, .. } if name == "edge-07" && other == "edge-08")
    );
    assert_eq!(site.master.keys_signed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_bundle_for_the_same_host_gives_it_a_new_identity() {
    let site = Site::new();
    let worker = site.machine("edge-07");
    worker.enroll().await.unwrap();
    site.master.judge("edge-07", Standing::Spent);
    fs::write(&worker.bundle, site.master.bundle("edge-07")).unwrap();
    let enrolled = worker.enroll().await.unwrap();
    assert!(!enrolled.before);
    assert_eq!(site.master.keys_signed(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_bundle_is_used_up_even_while_the_present_identity_works() {
    let site = Site::new();
    let worker = site.machine("edge-07");
    worker.enroll().await.unwrap();
    fs::write(&worker.bundle, site.master.bundle("edge-07")).unwrap();
    assert!(worker.enroll().await.unwrap().before);
    let mut thief = site.machine("thief");
    thief.bundle = worker.bundle.clone();
    let said = sentence(&thief.enroll().await.unwrap_err());
    assert!(said.contains("the bundle has been used before"), "{said}");
    assert!(worker.enroll().await.unwrap().before, "and the machine is in");
}

#[tokio::test(start_paused = true)]
async fn the_machine_of_a_host_that_was_retired_while_it_was_off_takes_a_bundle_of_a_new_host() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    let old = worker.enroll().await.unwrap();
    site.master.judge("edge-07", Standing::Banned);
    worker.bundle = site.machine("edge-08").bundle;
    let new = worker.enroll().await.unwrap();
    assert_eq!((new.name.as_str(), new.before), ("edge-08", false));
    assert_ne!(new.host, old.host);
    assert!(worker.enroll().await.unwrap().before);
}

#[tokio::test(start_paused = true)]
async fn damaged_identity_files_do_not_stand_in_the_way_of_a_new_bundle() {
    let site = Site::new();
    let worker = site.machine("edge-07");
    worker.enroll().await.unwrap();
    let identity = worker.state.join("identity");
    for name in ["current.json", "next.json", "key.json", "previous.json"] {
        picket_durable::write_private(identity.join(name), b"{").unwrap();
    }
    site.master.judge("edge-07", Standing::Spent);
    fs::write(&worker.bundle, site.master.bundle("edge-07")).unwrap();
    assert!(!worker.enroll().await.unwrap().before);
    assert!(identity.join("current.json.damaged").exists());
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_is_cut_edited_expired_or_open_to_others_is_refused_and_nothing_is_written() {
    let site = Site::new();
    let worker = site.machine("edge-07");
    let good = fs::read(&worker.bundle).unwrap();
    let mut edited = good.clone();
    edited[40] ^= 1;
    for (bytes, want) in [
        (&good[..good.len() / 2], "cut off"),
        (&edited[..], "edited or damaged"),
    ] {
        picket_durable::write_private(&worker.bundle, bytes).unwrap();
        let error = worker.enroll().await.unwrap_err();
        assert!(sentence(&error).contains(want), "{}", sentence(&error));
    }
    picket_durable::write(&worker.bundle, &good, 0o644).unwrap();
    assert!(sentence(&worker.enroll().await.unwrap_err()).contains("chmod 600"));
    picket_durable::write_private(&worker.bundle, &good).unwrap();
    tokio::time::advance(std::time::Duration::from_secs(4 * 24 * 3600)).await;
    assert!(sentence(&worker.enroll().await.unwrap_err()).contains("expired"));
    assert!(!worker.state.exists());
}

#[tokio::test(start_paused = true)]
async fn a_master_that_cannot_be_reached_changes_nothing() {
    let site = Site::new();
    let worker = site.machine("edge-07");
    worker.wire.cut();
    let error = worker.enroll().await.unwrap_err();
    assert!(
        sentence(&error).contains("no master answers at master.example.org:7443"),
        "{}",
        sentence(&error)
    );
    assert!(!worker.state.exists());
}

#[tokio::test(start_paused = true)]
async fn an_agent_without_a_good_identity_ends_and_says_that_starting_it_again_is_no_use() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    worker.start();
    assert!(worker.ends().await.unwrap_err().needs_enrolment());
    worker.enroll().await.unwrap();
    picket_durable::write_private(worker.state.join("identity/current.json"), b"{").unwrap();
    worker.start();
    assert!(worker.ends().await.unwrap_err().needs_enrolment());
}

/// Puts an identity into the machine's bundle, as `--lasting-secret` does.
fn carry(worker: &Worker, secret: &str) {
    let bundle = Bundle::parse(&fs::read(&worker.bundle).unwrap()).unwrap();
    let text = bundle.encode_with(&NodeSecret::new(secret).unwrap()).unwrap();
    fs::write(&worker.bundle, text.as_bytes()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_identity_in_the_bundle_is_used_where_there_is_a_place_for_it_and_else_the_bundle_is_kept() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    let identity = zerotier::Identity::generate().unwrap();
    carry(&worker, &identity.to_secret_text());
    let nowhere = worker.state.with_file_name("zerotier");
    worker.settings += &format!("zerotier.home = {nowhere:?}\n");
    let error = worker.enroll().await.unwrap_err();
    assert!(sentence(&error).contains("install zerotier-one first"), "{error}");
    assert_eq!(site.master.keys_signed(), 0, "the bundle was not used");

    fs::create_dir(&nowhere).unwrap();
    let enrolled = worker.enroll().await.unwrap();
    let brought = enrolled.brought.unwrap();
    let home = Home::new(&nowhere);
    assert_eq!(
        node::provide(&home, Some(&brought)).unwrap(),
        NodeIdentity::Placed(identity.public().node())
    );
    let again = worker.enroll().await.unwrap();
    assert!(
        again.before && again.brought.is_some(),
        "it can be put into place late"
    );
}

#[tokio::test(start_paused = true)]
async fn an_identity_whose_halves_do_not_belong_together_is_refused_before_anything_is_sent() {
    let site = Site::new();
    let mut worker = site.machine("edge-07");
    worker.home();
    let [one, other] = [(); 2].map(|()| zerotier::Identity::generate().unwrap().to_secret_text());
    let (public, _) = one.rsplit_once(':').unwrap();
    let (_, private) = other.rsplit_once(':').unwrap();
    carry(&worker, &format!("{public}:{private}"));
    let error = worker.enroll().await.unwrap_err();
    assert!(matches!(error, EnrollError::NodeSecret { .. }), "{error}");
    assert!(!sentence(&error).contains(private), "{error}");
    assert_eq!(site.master.keys_signed(), 0);
}
