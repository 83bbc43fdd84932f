//! `picketctl network`.

use insta::assert_snapshot;
use picketctl::Exit;

use crate::{
    hosts::with_hosts,
    members::{NETWORK, with_network},
    office::Office,
};

#[tokio::test(start_paused = true)]
async fn adopting_changes_nothing_and_says_what_would() {
    let office = with_hosts().await;
    assert_snapshot!(
        "adopted",
        office
            .types(&format!("network adopt {NETWORK} --on hub-01"))
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

const FILE: &str = "\
settings:
  name: decoys
  mtu: 1400
members:
  labels: {site: oslo}
allow:
  - node: '39966434ba'
    name: ana's laptop
approvals: 1
";

fn with_file(office: &Office, text: &str) -> String {
    office.file("network.yaml", text);
    office.path("network.yaml").display().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_network_is_made_on_a_host_or_in_central() {
    let office = with_hosts().await;
    let create = "network create --on hub-01 --name decoys --v4 10.147.20.0/24";
    assert_snapshot!("created", office.types(create).await);
    assert_snapshot!(
        "created_in_central",
        office.types("network create --central --name guests").await
    );
    assert_snapshot!("created_listed", office.types("network list").await);
    let file = with_file(&office, FILE);
    let create =
        format!("network create --on hub-01 -f {file} --name lab --v4 10.147.21.0/24 --id {NETWORK}");
    office.types(&create).await.done();
    assert_snapshot!(
        "created_shown",
        office.types(&format!("network show {NETWORK}")).await
    );
    assert_snapshot!(
        "created_in_json",
        office.types(&format!("network show {NETWORK} -o json")).await
    );
    let again = office.types(&create).await.done();
    let exists = format!("network {NETWORK} exists already, as `lab`, and is left as it is");
    assert!(again.out.contains(&exists), "{again}");
    let listed = office.types("network list -o name").await.done();
    assert_eq!(listed.out.lines().count(), 3, "{listed}");
    let away = office
        .types("network create --on edge-08 --name decoys")
        .await
        .done();
    assert!(away.out.contains("will be made when edge-08 is back"), "{away}");
}

#[tokio::test(start_paused = true)]
async fn a_network_is_made_in_one_place_that_is_named() {
    let office = with_hosts().await;
    assert_snapshot!("nowhere", office.types("network create --name x").await);
    assert_snapshot!(
        "twice",
        office.types("network create --on hub-01 --central").await
    );
    assert_snapshot!(
        "no_range",
        office
            .types("network create --on hub-01 --v4 10.147.20.7/24")
            .await
    );
    assert_snapshot!(
        "no_such_host",
        office
            .types("network create --on hub-09 --v4 10.147.20.0/24")
            .await
    );
}

#[tokio::test(start_paused = true)]
async fn a_settings_file_is_planned_before_it_is_applied() {
    let office = with_network().await;
    let file = with_file(&office, FILE);
    let planned = office.types(&format!("network plan {NETWORK} -f {file}")).await;
    assert_snapshot!("planned", planned);
    let dry = office
        .types(&format!("network apply {NETWORK} -f {file} --dry-run"))
        .await;
    assert_eq!(dry.out, planned.out);
    assert_snapshot!(
        "planned_in_json",
        office
            .types(&format!("network plan {NETWORK} -f {file} -o json"))
            .await
    );
    assert_snapshot!(
        "applied",
        office.types(&format!("network apply {NETWORK} -f {file}")).await
    );
    assert_snapshot!(
        "applied_again",
        office.types(&format!("network apply {NETWORK} -f {file}")).await
    );
    let empty = with_file(&office, &format!("id: {NETWORK}\napprovals: 0\n"));
    let said = office.types(&format!("network apply -f {empty} -o json")).await;
    assert_snapshot!("applied_in_json", said);
}

#[tokio::test(start_paused = true)]
async fn the_form_that_is_shown_is_a_settings_file_that_changes_nothing() {
    let office = with_network().await;
    let file = with_file(&office, FILE);
    office
        .types(&format!("network apply {NETWORK} -f {file}"))
        .await
        .done();
    let shown = office
        .types(&format!("network show {NETWORK} -o json"))
        .await
        .done();
    let file = with_file(&office, &shown.json()["form"].to_string());
    let plan = office
        .types(&format!("network plan {NETWORK} -f {file} -o json"))
        .await
        .done();
    assert_eq!(plan.json()["changes"], serde_json::json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_that_it_takes_an_admin() {
    let office = with_network().await;
    let file = with_file(&office, "approvals: 1\n");
    office.master.state().needs_admin = "it asks for fewer approvals".into();
    let plan = format!("network plan {NETWORK} -f {file}");
    assert_snapshot!("needs_admin", office.types(&plan).await);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cuts_our_own_path_is_asked_about() {
    let mut office = with_network().await;
    let file = with_file(&office, FILE);
    let cut = vec!["edge-07".into()];
    office.master.state().own_path.insert(NETWORK.into(), cut);
    let apply = format!("network apply {NETWORK} -f {file}");
    assert_snapshot!("cuts_asked_of_nobody", office.types(&apply).await);
    office.someone_answers("y\n");
    assert_snapshot!("cuts_declined", office.types(&apply).await);
    let form = |office: &Office| {
        let state = office.master.state();
        state.networks[NETWORK].form.clone().unwrap()
    };
    assert_eq!(form(&office).approvals, 0);
    office.someone_answers("yes\n");
    assert_snapshot!("cuts_agreed", office.types(&apply).await);
    assert_eq!(form(&office).approvals, 1);
    let file = with_file(&office, "approvals: 0\n");
    office
        .types(&format!("network apply {NETWORK} -f {file} --force"))
        .await
        .done();
}

#[tokio::test(start_paused = true)]
async fn a_settings_file_that_will_not_do_names_every_problem_and_asks_nobody() {
    let office = with_network().await;
    let file = with_file(
        &office,
        "setings: {}\nsettings: {mtu: 100}\nallow:\n  - nodes: x\n",
    );
    assert_snapshot!(
        "wrong_shape",
        office.types(&format!("network apply {NETWORK} -f {file}")).await
    );
    let file = with_file(&office, "settings: {mtu: 100}\napprovals: 7\n");
    assert_snapshot!(
        "wrong_values",
        office.types(&format!("network apply {NETWORK} -f {file}")).await
    );
    let file = with_file(&office, "id: 8056c2e21c000009\n");
    assert_snapshot!(
        "other_id",
        office.types(&format!("network apply {NETWORK} -f {file}")).await
    );
    let file = with_file(&office, "approvals: 1\n");
    assert_snapshot!("no_id", office.types(&format!("network apply -f {file}")).await);
    let none = office.types("network apply -f nowhere.yaml").await;
    assert_eq!(none.exit, Exit::Usage, "{none}");
}

#[tokio::test(start_paused = true)]
async fn repairs_are_counted_and_held_back_ones_are_let_through() {
    let office = with_network().await;
    office.master.state().networks.get_mut(NETWORK).unwrap().held_back = 12;
    assert_snapshot!(
        "held_back",
        office.types(&format!("network show {NETWORK}")).await
    );
    office.master.state().cautions = vec![
        "hub-01 did not answer; this is as of 2026-11-22T08:12:03Z, 27 s ago, when it reported last".into(),
    ];
    assert_snapshot!(
        "would_repair",
        office
            .types(&format!("network reconcile {NETWORK} --dry-run"))
            .await
    );
    office.master.state().cautions.clear();
    assert_snapshot!(
        "repairs",
        office.types(&format!("network reconcile {NETWORK}")).await
    );
    assert_snapshot!(
        "nothing_to_repair",
        office
            .types(&format!("network reconcile {NETWORK} -o json"))
            .await
    );
    let resume = format!("network resume {NETWORK} --reason 'restored from a backup'");
    assert_snapshot!("resumed", office.types(&resume).await);
    assert_snapshot!("nothing_held", office.types(&resume).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_network_is_shown() {
    let office = with_network().await;
    {
        let mut state = office.master.state();
        let network = state.networks.get_mut(NETWORK).unwrap();
        network.differences = vec!["mtu is 1400 and is to be 2800".into()];
        network.problem = "host hub-01 is \u{1b}[31moffline".into();
        network.killed = "7a310001".into();
    }
    assert_snapshot!(
        "wrong_shown",
        office.types(&format!("network show {NETWORK}")).await
    );
}

#[tokio::test(start_paused = true)]
async fn a_network_ends_only_when_that_is_meant() {
    let mut office = with_network().await;
    let delete = format!("network delete {NETWORK} --reason 'site closed'");
    assert_snapshot!("delete_unasked", office.types(&delete).await);
    office.someone_answers("n\n");
    assert_snapshot!("delete_declined", office.types(&delete).await);
    office.someone_answers("y\n");
    assert_snapshot!("deleted", office.types(&delete).await);
    assert_snapshot!("deleted_again", office.types(&delete).await);
    office.types(&format!("network adopt {NETWORK}")).await.done();
    assert_snapshot!(
        "forgotten",
        office.types(&format!("{delete} --forget --yes")).await
    );
}
