//! Deckies on the hosts they are wanted on.

use std::time::Duration;

use picket_tests::{
    Branch,
    DeckyState::{Degraded, Failed, Running, Unknown},
    Host,
    HostState::Online,
    Site,
    host::IMAGE,
};

const SIX: [&str; 6] = ["mail", "nas", "print", "vpn", "web", "wiki"];
const HOSTS: [&str; 3] = ["oslo", "bern", "rome"];

#[tokio::test(start_paused = true)]
async fn six_deckies_on_three_hosts_run_and_applying_them_again_restarts_none() {
    let site = Site::new().await;
    let hosts = three_hosts(&site).await;
    assert_eq!(site.plan(&six()).await.len(), 6);
    assert_eq!(site.deckies().await, [], "a plan changes nothing");
    assert_eq!(site.deploy(&six()).await.len(), 6);
    let before = site.until_deckies(&SIX, Running).await;
    assert!(
        hosts.iter().all(|host| host.docker.container_names().len() == 4),
        "two deckies of two containers each"
    );

    assert_eq!(site.deploy(&six()).await, []);
    site.wait(Duration::from_secs(120)).await;
    assert_eq!(site.until_deckies(&SIX, Running).await, before);
    let shown = site.deployment("branch").await.deployment.unwrap();
    assert_eq!((shown.revision, shown.deckies, shown.running), (1, 6, 6));
}

#[tokio::test(start_paused = true)]
async fn one_decky_more_restarts_none_and_removal_leaves_nothing() {
    let site = Site::new().await;
    let hosts = three_hosts(&site).await;
    hosts[0].docker.run_foreign("somebody-elses");
    site.deploy(&six()).await;
    let before = site.until_deckies(&SIX, Running).await;
    site.deploy(&six().decky("ftp", "oslo")).await;
    let names: Vec<&str> = SIX.into_iter().chain(["ftp"]).collect();
    let mut after = site.until_deckies(&names, Running).await;
    assert!(after.remove("ftp").is_some());
    assert_eq!(after, before);

    site.remove_deployment("branch").await;
    site.until_deckies(&[], Running).await;
    for host in &hosts {
        site.until_outcome(&host.name, "shard", "done").await;
    }
    let left: Vec<_> = hosts
        .iter()
        .flat_map(|host| host.docker.container_names())
        .collect();
    assert_eq!(left, ["somebody-elses"]);
    assert!(hosts.iter().all(|host| host.docker.network_names().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_removed_while_the_master_is_away_comes_back() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.deploy(&Branch::default().decky("web", "oslo").decky("nas", "oslo"))
        .await;
    let before = site.until_deckies(&["web", "nas"], Running).await;
    site.stop_master().await;
    let all = oslo.docker.container_names();
    oslo.docker
        .lose(all.iter().find(|name| name.ends_with("-web")).unwrap());
    assert_eq!(oslo.docker.container_names().len(), all.len() - 1);
    site.wait(Duration::from_secs(60)).await;
    assert_eq!(
        oslo.docker.container_names(),
        all,
        "the agent made it anew by itself"
    );
    site.start_master().await;
    // The master shows what it knew before its restart until the agent is back and has beaten.
    site.wait(Duration::from_secs(60)).await;
    site.until("oslo", Online).await;
    let after = site.until_deckies(&["web", "nas"], Running).await;
    assert_eq!(after["nas"], before["nas"], "the other one was not touched");
    assert_ne!(after["web"], before["web"]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_restarts_restarts_no_decky() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.deploy(&Branch::default().decky("web", "oslo")).await;
    let before = site.until_deckies(&["web"], Running).await;
    oslo.power_off().await;
    oslo.start();
    site.wait(Duration::from_secs(120)).await;
    assert_eq!(site.until_deckies(&["web"], Running).await, before);
}

#[tokio::test(start_paused = true)]
async fn deckies_of_an_engine_that_does_not_answer_are_unknown_and_not_failed() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.deploy(&Branch::default().decky("web", "oslo")).await;
    let before = site.until_deckies(&["web"], Running).await;
    oslo.docker.go_away();
    let problem = site.until_decky("web", Unknown).await;
    assert!(problem.contains("Docker"), "{problem}");
    site.until("oslo", Online).await;
    oslo.docker.come_back();
    assert_eq!(site.until_deckies(&["web"], Running).await, before);
}

#[tokio::test(start_paused = true)]
async fn an_image_the_machine_does_not_allow_is_refused_in_words_and_the_rest_runs() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    oslo.docker.publish_image("miner:latest");
    site.deploy(
        &Branch::default()
            .decky("web", "oslo")
            .decky_of("mine", "oslo", "miner:latest"),
    )
    .await;
    site.until_decky("web", Running).await;
    let problems = site.until_outcome("oslo", "shard", "failed").await.join(" ");
    assert!(
        problems.contains("miner:latest") && problems.contains("agent.toml"),
        "{problems}"
    );
    site.until_decky("mine", Failed).await;
    assert_eq!(oslo.docker.pulls("miner:latest"), 0, "it was not even pulled");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_start_degrades_its_decky_and_no_other() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    oslo.docker.load_image("picket-decoy:broken");
    oslo.docker.refuse_to_start("picket-decoy:broken");
    site.deploy(
        &Branch::default()
            .decky("web", "oslo")
            .decky_of("bad", "oslo", "picket-decoy:broken"),
    )
    .await;
    site.until_decky("web", Running).await;
    let problem = site.until_decky("bad", Degraded).await;
    assert!(problem.contains("executable file not found"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_here_is_pulled_once() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    oslo.docker.publish_image("picket-decoy:next");
    site.deploy(&Branch::default().decky_of("web", "oslo", "picket-decoy:next"))
        .await;
    site.until_deckies(&["web"], Running).await;
    assert_eq!(
        (oslo.docker.pulls("picket-decoy:next"), oslo.docker.pulls(IMAGE)),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_site_is_refused_whole_with_every_problem_at_once() {
    let site = Site::new().await;
    site.enroll("oslo").await;
    let refused = site
        .try_deploy(&Branch::default().decky("web", "nowhere").decky("web", "oslo"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(
        refused.message().contains("nowhere") && refused.message().contains("web"),
        "{}",
        refused.message()
    );
    assert_eq!(site.deckies().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_ban_removes_the_hosts_deckies_and_nobody_elses() {
    let site = Site::new().await;
    let hosts = three_hosts(&site).await;
    site.deploy(&six()).await;
    site.until_deckies(&SIX, Running).await;
    site.ban("oslo", "seen scanning").await;
    site.wait(Duration::from_secs(30)).await;
    let left: Vec<_> = hosts
        .iter()
        .map(|host| host.docker.container_names().len())
        .collect();
    assert_eq!(left, [0, 4, 4]);
}

async fn three_hosts(site: &Site) -> Vec<Host> {
    let mut hosts = Vec::new();
    for name in HOSTS {
        hosts.push(site.enroll(name).await);
    }
    hosts
}

/// Two deckies on each of three hosts.
fn six() -> Branch {
    SIX.into_iter()
        .zip(HOSTS.into_iter().cycle())
        .fold(Branch::default(), |branch, (decky, host)| {
            branch.decky(decky, host)
        })
}
