//! `picketctl network` and `picketctl member`.

use std::time::Duration;

use insta::assert_snapshot;
use picketctl::Exit;

use crate::{hosts::with_hosts, office::Office};

const NETWORK: &str = "8056c2e21c000001";

async fn with_network() -> Office {
    let office = with_hosts().await;
    office.types(&format!("network adopt {NETWORK}")).await.done();
    office.types(&format!("network enforce {NETWORK}")).await.done();
    office
}

#[tokio::test(start_paused = true)]
async fn adopting_changes_nothing_and_says_what_would() {
    let office = with_hosts().await;
    assert_snapshot!(
        "adopted",
        office
            .types(&format!("network adopt {NETWORK} --controller hub-01"))
            .await
    );
    assert_snapshot!("listed", office.types("network list").await);
    assert_snapshot!("shown", office.types(&format!("network show {NETWORK}")).await);
    assert_snapshot!(
        "shown_in_json",
        office.types(&format!("network show {NETWORK} -o json")).await
    );
    assert_snapshot!(
        "enforced",
        office.types(&format!("network enforce {NETWORK}")).await
    );
    assert_snapshot!(
        "adopted_again",
        office.types(&format!("network adopt {NETWORK}")).await
    );
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_none_is_named_by_the_master_and_is_a_mistake_of_the_caller() {
    let office = with_hosts().await;
    assert_snapshot!("short", office.types("network adopt 8056c2e21c").await);
    assert_snapshot!(
        "letters",
        office.types("member list --network 8056c2e21c00000g").await
    );
    assert_snapshot!(
        "not_adopted",
        office.types("member list --network 8056c2e21c000009").await
    );
    assert_snapshot!(
        "approvals",
        office
            .types(&format!("network adopt {NETWORK} --approvals 3"))
            .await
    );
}

#[tokio::test(start_paused = true)]
async fn admitting_waits_for_the_controller_and_says_what_is_confirmed() {
    let office = with_network().await;
    let said = office
        .types(&format!(
            "member admit edge-07 --network {NETWORK} --reason 'new outpost'"
        ))
        .await;
    assert_snapshot!("admitted", said);
    assert_snapshot!(
        "member_shown",
        office
            .types(&format!("member show edge-07 --network {NETWORK}"))
            .await
    );
    assert_snapshot!(
        "members_listed",
        office.types(&format!("member list --network {NETWORK}")).await
    );
    let again = office
        .types(&format!(
            "member admit edge-07 --network {NETWORK} --reason again -o json"
        ))
        .await;
    assert_eq!(again.done().json()["observed"], "authorized");
}

#[tokio::test(start_paused = true)]
async fn what_comes_true_within_a_second_needs_no_progress() {
    let office = with_network().await;
    office.master.state().controller_takes = Some(Duration::from_millis(700));
    let said = office
        .types(&format!(
            "member revoke aaaaaaaaaa --network {NETWORK} --reason lost"
        ))
        .await
        .done();
    assert_eq!(said.err, "");
}

#[tokio::test(start_paused = true)]
async fn revoking_says_that_the_members_own_status_lags() {
    let office = with_network().await;
    let said = office
        .types(&format!(
            "member revoke aaaaaaaaaa --network {NETWORK} --reason lost"
        ))
        .await;
    assert_snapshot!(said);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_does_not_confirm_is_not_success() {
    let office = with_network().await;
    office.master.state().controller_takes = None;
    let before = office.clock.now();
    let said = office
        .types(&format!(
            "member revoke aaaaaaaaaa --network {NETWORK} --reason lost --within 20s"
        ))
        .await;
    assert_snapshot!("not_confirmed", said);
    let took = office.clock.now().duration_since(before).as_secs();
    assert!((20..22).contains(&took), "took {took} s");
    let said = office
        .types(&format!(
            "member revoke bbbbbbbbbb --network {NETWORK} --reason lost --no-wait"
        ))
        .await;
    assert_snapshot!("not_waited", said);
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_only_observed_admits_nobody() {
    let office = with_hosts().await;
    office.types(&format!("network adopt {NETWORK}")).await.done();
    let said = office
        .types(&format!("member admit edge-07 --network {NETWORK} --reason new"))
        .await;
    assert_snapshot!(said);
}

#[tokio::test(start_paused = true)]
async fn a_decision_without_a_reason_is_not_sent() {
    let office = with_network().await;
    let said = office
        .types(&format!("member admit edge-07 --network {NETWORK}"))
        .await;
    assert_eq!(said.exit, Exit::Usage, "{said}");
    assert!(said.err.contains("--reason"), "{said}");
}
