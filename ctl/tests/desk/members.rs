//! `picketctl member`.

use std::time::Duration;

use insta::assert_snapshot;
use picketctl::Exit;

use crate::{
    hosts::with_hosts,
    office::{Office, Said},
};

pub(crate) const NETWORK: &str = "8056c2e21c000001";

pub(crate) async fn with_network() -> Office {
    let office = with_hosts().await;
    office.types(&format!("network adopt {NETWORK}")).await.done();
    office.types(&format!("network enforce {NETWORK}")).await.done();
    office
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
async fn whoever_waits_while_the_brake_holds_is_told_what_lets_it_through() {
    let office = with_network().await;
    {
        let mut state = office.master.state();
        state.controller_takes = None;
        state.networks.get_mut(NETWORK).unwrap().held_back = 8;
    }
    let said = office
        .types(&format!(
            "member admit edge-07 --network {NETWORK} --reason new --within 20s"
        ))
        .await;
    assert_snapshot!("braked", said);
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

/// A network that needs approvals, and a device of ana's, who asks.
async fn with_approvals(approvals: u32) -> Office {
    let office = with_hosts().await;
    office
        .types(&format!("network adopt {NETWORK} --approvals {approvals}"))
        .await
        .done();
    office.types(&format!("network enforce {NETWORK}")).await.done();
    office.master.state().caller = "ana".into();
    office
        .types("device register 39966434ba --name ana-laptop")
        .await
        .done();
    office
}

async fn types_as(office: &Office, who: &str, line: &str) -> Said {
    office.master.state().caller = who.into();
    office.types(&format!("member {line} --network {NETWORK}")).await
}

#[tokio::test(start_paused = true)]
async fn a_request_says_what_it_waits_for_until_it_may_be_activated() {
    let office = with_approvals(2).await;
    let ask = "request ana-laptop --reason 'ticket 4711'";
    assert_snapshot!("requested", types_as(&office, "ana", ask).await);
    let approve = "approve ana-laptop --as activate";
    assert_snapshot!("own_request", types_as(&office, "ana", approve).await);
    assert_snapshot!("approved_once", types_as(&office, "bo", approve).await);
    assert_snapshot!("pending_shown", types_as(&office, "bo", "show ana-laptop").await);
    assert_snapshot!(
        "pending_in_the_network",
        office.types(&format!("network show {NETWORK}")).await
    );
    assert_snapshot!("pending_in_the_list", types_as(&office, "bo", "list").await);
    assert_snapshot!("requests_listed", office.types("member list").await);
    let of_one = types_as(&office, "bo", "list --requests -o name").await;
    assert_eq!(of_one.out.trim(), "39966434ba");
    let seen = "approve ana-laptop --as activate --reason 'seen the ticket'";
    assert_snapshot!("approved_twice", types_as(&office, "eve", seen).await);
    let activate = "activate ana-laptop --for 2h --reason 'ticket 4711'";
    assert_snapshot!("activated", types_as(&office, "ana", activate).await);
    let again = types_as(&office, "ana", "activate ana-laptop --for 3h --reason more").await;
    assert!(again.err.contains("goes on and is left as it is"), "{again}");
    assert_snapshot!(
        "activated_shown",
        types_as(&office, "ana", "show ana-laptop").await
    );
    assert_snapshot!(
        "activated_in_json",
        types_as(&office, "ana", "show ana-laptop -o json").await
    );
}

#[tokio::test(start_paused = true)]
async fn the_narrowest_of_two_approvals_holds_and_whoever_said_more_is_told() {
    let office = with_approvals(2).await;
    types_as(&office, "ana", "request ana-laptop --reason tests")
        .await
        .done();
    types_as(&office, "bo", "approve ana-laptop --as activate")
        .await
        .done();
    let wide = types_as(&office, "eve", "approve ana-laptop --as stands")
        .await
        .done();
    assert!(
        wide.out
            .contains("another approval said no more than that it may be activated"),
        "{wide}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_activation_is_extended_ended_and_comes_to_its_end() {
    let office = with_approvals(1).await;
    types_as(&office, "ana", "request ana-laptop --reason tests")
        .await
        .done();
    types_as(&office, "bo", "approve ana-laptop --as activate")
        .await
        .done();
    let activate = "activate ana-laptop --reason tests";
    types_as(&office, "ana", activate).await.done();
    let extend = "extend ana-laptop --for 3h --reason 'not done yet'";
    assert_snapshot!("extended", types_as(&office, "bo", extend).await);
    let end = "end ana-laptop --reason done";
    assert_snapshot!("ended", types_as(&office, "ana", end).await);
    assert_snapshot!("ended_shown", types_as(&office, "ana", "show ana-laptop").await);
    assert_snapshot!("nothing_to_extend", types_as(&office, "bo", extend).await);
    let long = "activate ana-laptop --for 2d --reason tests";
    assert_snapshot!("too_long", types_as(&office, "ana", long).await);
    types_as(&office, "ana", activate).await.done();
    office.wait(3600).await;
    let shown = types_as(&office, "ana", "show ana-laptop -o json").await.done();
    assert_eq!(shown.json()["decision"], "denied");
    assert_eq!(shown.json()["activation"]["ended_because"], "it came to its end");
}

#[tokio::test(start_paused = true)]
async fn an_approval_may_stand_and_a_request_may_be_turned_down_or_taken_back() {
    let office = with_approvals(1).await;
    let ask = "request ana-laptop --reason tests";
    types_as(&office, "ana", ask).await.done();
    let deny = "deny ana-laptop --reason 'no ticket'";
    assert_snapshot!("denied", types_as(&office, "bo", deny).await);
    assert_snapshot!("denied_shown", types_as(&office, "bo", "show ana-laptop").await);
    assert_snapshot!("nothing_pending", types_as(&office, "bo", deny).await);
    types_as(&office, "ana", ask).await.done();
    assert_snapshot!("cancelled", types_as(&office, "ana", "cancel ana-laptop").await);
    types_as(&office, "ana", ask).await.done();
    assert_snapshot!("stands", types_as(&office, "bo", "approve ana-laptop").await);
    assert_snapshot!(
        "needs_approvals",
        types_as(&office, "bo", "admit edge-07 --reason new").await
    );
}

#[tokio::test(start_paused = true)]
async fn admitting_for_a_time_says_until_when() {
    let office = with_network().await;
    let admit = format!("member admit edge-07 --network {NETWORK} --for 90m --reason 'a look'");
    assert_snapshot!(office.types(&admit).await);
}

#[tokio::test(start_paused = true)]
async fn an_activation_that_cannot_end_without_the_master_says_so() {
    let office = with_hosts().await;
    office
        .types(&format!("network create --central --id {NETWORK} --name decoys"))
        .await
        .done();
    types_as(&office, "ana", "request edge-07 --reason tests")
        .await
        .done();
    types_as(&office, "bo", "approve edge-07 --as activate")
        .await
        .done();
    let said = types_as(&office, "ana", "activate edge-07 --reason tests").await;
    assert_snapshot!(said);
}
