//! `picketctl clock`.

use insta::assert_snapshot;
use picketctl::Exit;

use crate::office::Office;

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumped_is_shown_with_both_times_and_what_to_do() {
    let office = Office::open();
    assert_snapshot!("believed", office.types("clock show").await);
    office.master.state().jumped = 3600;
    assert_snapshot!("held", office.types("clock show").await);
    assert_snapshot!("held_in_json", office.types("clock show -o json").await);
}

#[tokio::test(start_paused = true)]
async fn an_accepted_clock_is_told_with_how_long_time_stands_still() {
    let office = Office::open();
    office.master.state().jumped = 3600;
    assert_snapshot!(
        "ahead",
        office.types("clock accept --reason 'it was wrong before'").await
    );
    office.master.state().jumped = -600;
    assert_snapshot!(
        "behind",
        office.types("clock accept --reason 'it was wrong before'").await
    );
    assert_eq!(office.types("clock accept").await.exit, Exit::Usage);
}
