//! `picketctl host`.

use insta::assert_snapshot;
use picket_pki::{Bundle, Carried, Holder, Key, pem};
use picket_proto::wire::admin as wire;
use picket_zerotier::identity::Identity as ZeroTierIdentity;
use picketctl::Exit;

use crate::office::{Office, before};

/// Three hosts: one in service, one silent, one that never came.
pub(crate) async fn with_hosts() -> Office {
    let office = Office::open();
    for (name, label) in [
        ("edge-07", " --label site=oslo"),
        ("edge-08", " --label site=oslo"),
        ("hub-01", ""),
    ] {
        office
            .types(&format!(
                "host enroll {name}{label} --out {}",
                office.path(name).display()
            ))
            .await
            .done();
    }
    let now = office.clock.now();
    {
        let mut state = office.master.state();
        let edge = state.hosts.get_mut("edge-07").unwrap();
        edge.set_state(wire::HostState::Online);
        edge.last_seen_at = before(now, 12);
        edge.address = "198.51.100.7:51000".into();
        edge.agent_version = "0.1.0".into();
        edge.node_id = "d3adb33f00".into();
        edge.deckies = 3;
        edge.deckies_running = 2;
        let silent = state.hosts.get_mut("edge-08").unwrap();
        silent.set_state(wire::HostState::Offline);
        silent.last_seen_at = before(now, 7300);
        silent.conditions = vec!["Docker does not answer".into(), "the clock is 90 s ahead".into()];
    }
    office
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_written_for_its_owner_alone_and_the_next_steps_are_told() {
    let office = Office::open();
    let out = office.path("edge-07.bundle");
    let said = office
        .types(&format!(
            "host enroll edge-07 --label site=oslo --out {}",
            out.display()
        ))
        .await;
    assert_snapshot!(said);
    assert_eq!(office.mode("edge-07.bundle"), 0o600);
    let bundle = Bundle::parse(office.read("edge-07.bundle").as_bytes()).unwrap();
    bundle.check(office.clock.now()).unwrap();
    assert!(matches!(bundle.holder, Holder::Host { name, .. } if name == "edge-07"));
    assert_eq!(office.files(), ["admin.bundle", "edge-07.bundle"]);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_for_a_request_holds_no_key_and_what_is_no_request_asks_nobody() {
    let office = Office::open();
    let key = Key::generate().unwrap();
    let request = office.path("edge-07.csr");
    std::fs::write(&request, pem::request_to_pem(&key.csr().unwrap())).unwrap();
    let out = office.path("edge-07.bundle");
    let typed = format!(
        "host enroll edge-07 --csr {} --out {}",
        request.display(),
        out.display()
    );
    assert_snapshot!("requested", office.types(&typed).await);
    let carried = Carried::parse(office.read("edge-07.bundle").as_bytes()).unwrap();
    let Carried::Keyless(bundle) = carried else {
        panic!("the key never left the worker")
    };
    bundle.with_key(key).check(office.clock.now()).unwrap();

    std::fs::write(&request, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let out = office.path("edge-08.bundle");
    let typed = format!(
        "host enroll edge-08 --csr {} --out {}",
        request.display(),
        out.display()
    );
    assert_snapshot!("not_a_request", office.types(&typed).await);
    assert!(!out.exists());
}

#[tokio::test(start_paused = true)]
async fn enrolling_in_json_shows_everything_but_the_secret() {
    let office = Office::open();
    let said = office
        .types(&format!(
            "host enroll edge-07 --out {} -o json",
            office.path("b").display()
        ))
        .await;
    assert_snapshot!(said);
    assert!(!said.out.contains(office.read("b").lines().last().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_zerotier_identity_travels_in_a_bundle_only_when_that_is_said_and_the_master_never_sees_it() {
    let office = Office::open();
    let out = office.path("edge-07.bundle");
    let said = office
        .types(&format!(
            "host enroll edge-07 --lasting-secret --out {} -o json",
            out.display()
        ))
        .await;
    let enrolled = said.json();
    let Carried::WithNode(bundle, node) = Carried::parse(office.read("edge-07.bundle").as_bytes()).unwrap()
    else {
        panic!("it carries no node")
    };
    bundle.check(office.clock.now()).unwrap();
    let identity: ZeroTierIdentity = node.as_secret_text().parse().unwrap();
    assert_eq!(identity.public().node().to_string(), node.node());
    assert_eq!(enrolled["node"], node.node());
    assert!(!said.out.contains(node.as_secret_text()));
    assert_eq!(office.mode("edge-07.bundle"), 0o600);

    let told = office
        .types(&format!(
            "host enroll edge-08 --lasting-secret --out {}",
            office.path("edge-08.bundle").display()
        ))
        .await;
    assert!(
        told.out.contains("secret, also after its one use"),
        "{}",
        told.out
    );
    assert!(
        told.out.contains("whoever has a copy can be that node"),
        "{}",
        told.out
    );

    let both = office
        .types("host enroll edge-09 --lasting-secret --csr edge-09.csr --out edge-09.bundle")
        .await;
    assert_eq!(
        both.exit,
        Exit::Usage,
        "where no key may travel, no identity does"
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_there_is_kept_and_the_master_is_not_asked() {
    let office = Office::open();
    office.file("taken", "something dear");
    let said = office
        .types(&format!(
            "host enroll edge-07 --out {}",
            office.path("taken").display()
        ))
        .await;
    assert_snapshot!(said);
    assert_eq!(office.read("taken"), "something dear");
    assert!(office.master.state().hosts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_cannot_be_written_is_found_out_before_a_host_is_enrolled() {
    let office = Office::open();
    let said = office
        .types(&format!(
            "host enroll edge-07 --out {}",
            office.path("no/where").display()
        ))
        .await;
    assert_snapshot!(said);
    assert!(office.master.state().hosts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_refused_unless_absent_is_enough() {
    let office = with_hosts().await;
    let out = office.path("again").display().to_string();
    assert_snapshot!(
        "taken",
        office.types(&format!("host enroll edge-07 --out {out}")).await
    );
    assert_snapshot!(
        "if_absent",
        office
            .types(&format!("host enroll edge-07 --out {out} --if-absent"))
            .await
    );
    assert!(!office.path("again").exists());
    // A playbook that runs a second time finds its own file, too.
    let own = office.path("edge-07").display().to_string();
    let again = office
        .types(&format!("host enroll edge-07 --out {own} --if-absent"))
        .await;
    assert_eq!(again.exit, Exit::Done, "{again}");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_will_not_do_is_a_mistake_of_the_caller_and_leaves_no_file() {
    let office = Office::open();
    let said = office
        .types(&format!(
            "host enroll Edge_07! --out {}",
            office.path("b").display()
        ))
        .await;
    assert_snapshot!(said);
    assert_eq!(office.files(), ["admin.bundle"]);
}

#[tokio::test(start_paused = true)]
async fn hosts_are_listed_over_all_pages() {
    let office = with_hosts().await;
    assert_snapshot!("table", office.types("host list").await);
    assert_snapshot!("json", office.types("host list -o json").await);
    assert_snapshot!("yaml", office.types("host list --label site=oslo -o yaml").await);
    assert_snapshot!("name", office.types("host list -o name").await);
    assert_snapshot!("none", office.types("host list --label site=bergen").await);
    assert_snapshot!(
        "none_in_json",
        office.types("host list --label site=bergen -o json").await
    );
}

#[tokio::test(start_paused = true)]
async fn states_are_coloured_on_a_screen_alone_and_not_where_colour_is_unwanted() {
    let mut office = with_hosts().await;
    let plain = office.types("host list").await.out;
    office.on_a_screen(true);
    assert_eq!(office.types("host list").await.out, plain);
    office.on_a_screen(false);
    assert_snapshot!(office.types("host list").await);
}

#[tokio::test(start_paused = true)]
async fn a_watched_list_comes_again_every_two_seconds() {
    let mut office = with_hosts().await;
    let said = office.types_and_leaves("host list --watch -o name", 5).await;
    assert_eq!(said.out, "edge-07\nedge-08\nhub-01\n".repeat(3));
    office.on_a_screen(true);
    let said = office.types_and_leaves("host list --watch", 3).await;
    assert_eq!(said.out.matches("\x1b[H\x1b[J").count(), 2, "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_host_is_shown_with_its_pins_documents_and_networks() {
    let office = with_hosts().await;
    assert_snapshot!("page", office.types("host show edge-07").await);
    assert_snapshot!("document", office.types("host show edge-07 -o json").await);
    assert_snapshot!("unknown", office.types("host show edge-70").await);
}

#[tokio::test(start_paused = true)]
async fn labels_are_set_and_removed_in_one_command() {
    let office = with_hosts().await;
    assert_snapshot!("labelled", office.types("host label edge-07 rack=4 site-").await);
    assert_snapshot!("no_change", office.types("host label edge-07 rack").await);
    assert_eq!(
        office.types("host list --label rack=4 -o name").await.done().out,
        "edge-07\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_note_stays_until_an_empty_one_replaces_it() {
    let office = with_hosts().await;
    assert_eq!(
        office.types("host note edge-07 'disk is noisy'").await.done().out,
        "host edge-07: noted\n"
    );
    assert_eq!(
        office.types("host show edge-07 -o json").await.json()["note"],
        "disk is noisy"
    );
    assert_eq!(
        office.types("host note edge-07 ''").await.done().out,
        "host edge-07: the note is removed\n"
    );
    assert!(office.types("host show edge-07 -o json").await.json()["note"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_ban_says_whether_a_session_was_cut() {
    let office = with_hosts().await;
    assert_snapshot!("open", office.types("host ban edge-07 --reason stolen").await);
    assert_snapshot!("closed", office.types("host ban edge-08 --reason stolen").await);
    assert_snapshot!("without_reason", office.types("host ban edge-08").await);
}

#[tokio::test(start_paused = true)]
async fn a_banned_host_is_let_in_again_with_a_reason() {
    let office = with_hosts().await;
    office.types("host ban edge-07 --reason stolen").await.done();
    assert_snapshot!("unban", office.types("host unban edge-07 --reason found").await);
    assert_snapshot!("unban_without_reason", office.types("host unban edge-07").await);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_accepted_or_forgotten_and_what_stays_with_the_old_one_is_told() {
    let office = with_hosts().await;
    let accept = "host node edge-07 --accept 89e92ceee5 --reason anew";
    assert_snapshot!("node_accepted", office.types(accept).await);
    assert_snapshot!("node_accepted_again", office.types(accept).await);
    assert_snapshot!(
        "node_forgotten",
        office.types("host node edge-07 --forget --reason copy").await
    );
    assert_snapshot!(
        "node_undecided",
        office.types("host node edge-07 --reason copy").await
    );
    let both = format!("{accept} --forget");
    assert_snapshot!("node_decided_twice", office.types(&both).await);
}

#[tokio::test(start_paused = true)]
async fn another_bundle_is_written_and_says_what_the_first_is_worth() {
    let office = with_hosts().await;
    let out = office.path("again");
    assert_snapshot!(
        "bundle",
        office
            .types(&format!("host bundle edge-07 --out {}", out.display()))
            .await
    );
    let cut = office.path("cut");
    assert_snapshot!(
        "bundle_cut",
        office
            .types(&format!("host bundle edge-07 --cut --out {}", cut.display()))
            .await
    );
    assert_ne!(std::fs::read(out).unwrap(), std::fs::read(cut).unwrap());
    assert_snapshot!(
        "bundle_unknown",
        office.types("host bundle nobody --out nobody.bundle").await
    );
}

#[tokio::test(start_paused = true)]
async fn retiring_asks_first_and_needs_yes_where_nobody_can_answer() {
    let mut office = with_hosts().await;
    assert_snapshot!(
        "nobody",
        office.types("host retire edge-07 --reason closed").await
    );
    office.someone_answers("n\n");
    assert_snapshot!(
        "declined",
        office.types("host retire edge-07 --reason closed").await
    );
    office.someone_answers("\n");
    assert_eq!(
        office.types("host retire edge-07 --reason closed").await.exit,
        Exit::Failed
    );
    assert_eq!(office.master.state().hosts.len(), 3);
    office.someone_answers("y\n");
    assert_snapshot!(
        "agreed",
        office.types("host retire edge-07 --reason closed").await
    );
    assert_snapshot!(
        "yes",
        office.types("host retire edge-08 --reason closed --yes").await
    );
    assert_eq!(office.types("host list -o name").await.out, "hub-01\n");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_has_enough_ends_it_quietly() {
    let office = with_hosts().await;
    let said = office.types_into_head("host list --watch", 40).await;
    assert_eq!((said.exit, said.err.as_str()), (Exit::Done, ""));
}

#[tokio::test(start_paused = true)]
async fn what_a_host_says_of_itself_does_not_steer_the_terminal() {
    let office = with_hosts().await;
    office.master.state().hosts.get_mut("hub-01").unwrap().conditions =
        vec!["\x1b]0;owned\x07 all is well\nroot# ".into()];
    let said = office.types("host list").await;
    assert!(
        said.out.lines().count() == 4 && !said.out.contains('\x1b') && !said.out.contains('\x07'),
        "{said}"
    );
}
