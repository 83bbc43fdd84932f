//! `picketctl kill` and `picketctl unkill`.

use insta::assert_snapshot;
use picketctl::Exit;

use crate::{
    members::{NETWORK, with_network},
    office::Office,
};

/// A network with a host that is online, one that is silent, and a person's device.
async fn with_members() -> Office {
    let office = with_network().await;
    office.master.state().hosts.get_mut("edge-08").unwrap().node_id = "89e92ceee5".into();
    office
        .types("device register 39966434ba --name ana-laptop --owner ana")
        .await
        .done();
    for node in ["edge-07", "edge-08", "ana-laptop"] {
        office
            .types(&format!("member admit {node} --network {NETWORK} --reason tests"))
            .await
            .done();
    }
    office.master.state().witnesses = true;
    office
}

#[tokio::test(start_paused = true)]
async fn a_kill_is_done_when_every_proof_is_there() {
    let office = with_members().await;
    let kill = "kill host edge-07 --reason 'somebody got out of the decoy'";
    assert_snapshot!("host", office.types(kill).await);
    assert_snapshot!("host_again", office.types(kill).await);
    assert_snapshot!("listed", office.types("kill list").await);
    let id = office.types("kill list -o name").await.done().out;
    let id = id.trim();
    assert_snapshot!("shown", office.types(&format!("kill show {id}")).await);
    assert_snapshot!(
        "shown_in_json",
        office.types(&format!("kill show {id} -o json")).await
    );
    assert_snapshot!("unknown", office.types("kill show 00000000").await);
    assert_snapshot!("drill_of_a_kill", office.types(&format!("{kill} --drill")).await);
}

#[tokio::test(start_paused = true)]
async fn a_kill_that_somebody_lifts_meanwhile_is_not_waited_for() {
    let office = with_members().await;
    office.master.state().controller_takes = None;
    let line = "kill node ana-laptop --reason tests --within 1h";
    let (said, _) = tokio::join!(office.types(line), async {
        office.wait(2).await;
        office
            .types("unkill node ana-laptop --reason mistaken")
            .await
            .done()
    });
    assert_eq!(said.exit, Exit::Failed);
    assert!(said.err.contains("admin has lifted that"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_cannot_be_reached_is_named_and_is_not_success() {
    let office = with_members().await;
    let before = office.clock.now();
    let said = office.types("kill host edge-08 --reason 'not ours'").await;
    assert_eq!(said.exit, Exit::Failed);
    assert_snapshot!("offline", said);
    let took = office.clock.now().duration_since(before).as_secs();
    assert!(took < 20, "what cannot be had is not waited for: {took} s");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_witnesses_is_unconfirmed_until_its_credential_ends() {
    let office = with_members().await;
    office.master.state().witnesses = false;
    let kill = "kill node ana-laptop --reason 'laptop stolen'";
    let said = office.types(kill).await;
    assert_eq!(said.exit, Exit::Failed);
    assert_snapshot!("unconfirmed", said);
    office.wait(31 * 60).await;
    let said = office.types(kill).await;
    assert_eq!(said.exit, Exit::Done);
    assert_snapshot!("credential_ended", said);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_does_not_answer_is_waited_for_in_vain_and_told() {
    let office = with_members().await;
    office.master.state().controller_takes = None;
    let said = office.types("kill owner ana --reason 'account taken over'").await;
    assert_snapshot!("controller_away", said);
    office.master.state().controller_takes = Some(std::time::Duration::from_secs(900));
    let kill = "kill owner ana --reason 'account taken over' --within 20s";
    assert_snapshot!("out_of_time", office.types(kill).await);
}

#[tokio::test(start_paused = true)]
async fn a_drill_changes_nothing_and_says_what_would() {
    let office = with_members().await;
    let path = vec!["edge-07".into()];
    office.master.state().own_path.insert(NETWORK.into(), path);
    assert_snapshot!(
        "drill_all",
        office.types("kill all --reason exercise --drill").await
    );
    assert_snapshot!(
        "drill_host",
        office.types("kill host edge-08 --reason exercise --drill").await
    );
    assert_snapshot!(
        "drill_in_json",
        office
            .types("kill node ana-laptop --reason exercise --drill -o json")
            .await
    );
    assert_snapshot!("none", office.types("kill list").await);
}

#[tokio::test(start_paused = true)]
async fn killing_a_network_or_everything_takes_a_word() {
    let mut office = with_members().await;
    let network = format!("kill network {NETWORK} --reason scanned");
    let all = "kill all --reason 'broken into'";
    assert_snapshot!("asked_of_nobody", office.types(all).await);
    office.someone_answers("kill\n");
    assert_snapshot!("other_word", office.types(all).await);
    assert!(office.types("kill list -o name").await.done().out.is_empty());
    let path = vec!["edge-07".into()];
    office.master.state().own_path.insert(NETWORK.into(), path);
    assert_snapshot!("network", office.types(&format!("{network} --no-wait")).await);
    assert_snapshot!("network_killed", office.types("network list").await);
    office.someone_answers("kill all\n");
    let said = office.types(&format!("{all} --no-wait -o json")).await;
    assert_eq!(said.done().json()["scope"], "all");
    office.pipe_in("");
    let said = office
        .types(&format!("{all} --no-wait --yes -o name"))
        .await
        .done();
    assert_eq!(said.out.lines().count(), 1, "{said}");
}

#[tokio::test(start_paused = true)]
async fn lifting_a_kill_restores_what_the_grants_say_and_no_more() {
    let office = with_members().await;
    office
        .types("kill host edge-07 --reason tests --no-wait")
        .await
        .done();
    office
        .types("kill node ana-laptop --reason tests --no-wait")
        .await
        .done();
    let unkill = "unkill host edge-07 --reason 'found, and wiped'";
    assert_snapshot!("lifted", office.types(unkill).await);
    assert_snapshot!("lifted_again", office.types(unkill).await);
    let left = office.types("kill list -o json").await.done();
    assert_eq!(left.json().as_array().unwrap().len(), 1);
    // What stays is said.
    office
        .types("kill owner ana --reason tests --no-wait")
        .await
        .done();
    let said = office.types("unkill owner ana --reason tests").await.done();
    assert!(
        said.err.contains("caution: 1 member stays killed by kill"),
        "{said}"
    );
    assert_snapshot!("lifted_listed", office.types("kill list --lifted").await);
    let shown = office.types("kill show 7a310001").await;
    assert_snapshot!("lifted_shown", shown);
    for (what, subject) in [("network", NETWORK), ("owner", "ana"), ("all", "")] {
        let said = office
            .types(&format!("unkill {what} {subject} --reason tests"))
            .await;
        assert_eq!(said.exit, Exit::Failed, "{said}");
    }
}
