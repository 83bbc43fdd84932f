//! `picketctl event`.

use insta::assert_snapshot;
use picket_proto::wire::admin::EventSeverity;
use picketctl::Exit;

use crate::office::Office;

fn with_events() -> Office {
    let office = Office::open();
    let master = &office.master;
    master.tell(
        "host.enrolled",
        "edge-07",
        "host edge-07 was enrolled by admin",
        EventSeverity::Info,
    );
    master.tell(
        "host.online",
        "edge-07",
        "host edge-07 is online from 198.51.100.7:51000",
        EventSeverity::Notice,
    );
    master.tell(
        "pin.spent",
        "edge-07",
        "a bundle that was used before was shown from 203.0.113.9",
        EventSeverity::Alert,
    );
    office
}

#[tokio::test(start_paused = true)]
async fn events_are_listed_oldest_first_and_can_be_narrowed() {
    let office = with_events();
    assert_snapshot!("list", office.types("event list").await);
    assert_snapshot!(
        "json",
        office.types("event list --kind host. --limit 1 -o json").await
    );
    assert_snapshot!("none", office.types("event list --subject edge-08").await);
}

#[tokio::test(start_paused = true)]
async fn events_are_told_as_they_happen_from_here_on_or_from_a_number() {
    let office = with_events();
    let later = async {
        office.wait(1).await;
        office.master.tell(
            "host.late",
            "edge-07",
            "host edge-07 is late",
            EventSeverity::Warning,
        );
    };
    let (said, ()) = tokio::join!(office.types_and_leaves("event watch", 3), later);
    assert_snapshot!("from_here", said);
    assert_snapshot!(
        "from_a_number",
        office.types_and_leaves("event watch --after 1 -o json", 3).await
    );
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_fell_behind_goes_on_where_it_was() {
    let office = with_events();
    office.master.state().watchers_lag_after = Some(1);
    let said = office.types_and_leaves("event watch --after 0 -o name", 5).await;
    assert_eq!(said.out, "1\n2\n3\n", "{said}");
    // With nothing to tell it cannot go on for ever.
    office.master.state().watchers_lag_after = Some(0);
    let said = office.types_and_leaves("event watch --after 0 -o name", 60).await;
    assert_eq!(said.exit, Exit::Failed, "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_ends_the_watch_as_unreachable() {
    let office = with_events();
    let cut = async {
        office.wait(1).await;
        office.pipes.cut();
    };
    let (said, ()) = tokio::join!(office.types_and_leaves("event watch --after 2 -o name", 60), cut);
    assert_eq!(said.out, "3\n");
    assert_snapshot!(said);
}

#[tokio::test(start_paused = true)]
async fn a_signed_head_is_short_for_people_and_whole_for_programs() {
    let office = with_events();
    office.master.did("operator/ada", "host.note", "edge-07", "");
    let head = office.master.head();
    office
        .master
        .tell("audit.head", "journal", &head, EventSeverity::Info);
    let table = office.types("event list --kind audit.").await.done().out;
    assert!(
        table.contains("revision 1 sha256") && !table.contains("signed"),
        "{table}"
    );
    let whole = office
        .types("event list --kind audit. -o json")
        .await
        .done()
        .json();
    assert_eq!(whole[0]["message"], head.as_str());
}
