//! `picketctl device` and `picketctl moon`.

use insta::assert_snapshot;

use crate::{
    hosts::with_hosts,
    members::{NETWORK, with_network},
};

#[tokio::test(start_paused = true)]
async fn a_device_is_registered_listed_and_removed() {
    let office = with_network().await;
    let register = "device register 39966434ba --name ana-laptop --owner ana";
    assert_snapshot!("registered", office.types(register).await);
    office.types(register).await.done();
    assert_snapshot!(
        "taken",
        office
            .types("device register 39966434ba --name mine --owner bo")
            .await
    );
    let admit = format!("member admit ana-laptop --network {NETWORK} --reason tests");
    assert_snapshot!("admitted_by_name", office.types(&admit).await);
    assert_snapshot!("listed", office.types("device list").await);
    assert_snapshot!("of_one", office.types("device list --owner ana -o json").await);
    let remove = "device remove ana-laptop --reason sold";
    assert_snapshot!("removed", office.types(remove).await);
    assert_snapshot!("none_left", office.types("device list --owner ana").await);
    assert_snapshot!(
        "removed_listed",
        office.types("device list --owner ana --removed").await
    );
    assert_snapshot!("unknown", office.types("device remove phone --reason lost").await);
}

#[tokio::test(start_paused = true)]
async fn a_moon_is_made_signed_and_removed() {
    let office = with_hosts().await;
    let create = "moon create edge-07 --endpoint 192.0.2.1/9993 --endpoint 2001:db8::1/9993";
    assert_snapshot!("moon_created", office.types(create).await);
    assert_snapshot!("moon_unsigned", office.types("moon list").await);
    office.wait(3).await;
    assert_snapshot!("moon_signed", office.types("moon list").await);
    assert_snapshot!("moon_in_json", office.types("moon list -o json").await);
    assert_snapshot!(
        "moon_without_port",
        office.types("moon create edge-07 --endpoint 192.0.2.1").await
    );
    assert_snapshot!(
        "moon_without_node",
        office.types("moon create hub-01 --endpoint 192.0.2.1/9993").await
    );
    let remove = "moon remove edge-07 --reason 'it moves'";
    assert_snapshot!("moon_removed", office.types(remove).await);
    assert_snapshot!("moon_removed_again", office.types(remove).await);
    assert_snapshot!("no_moons", office.types("moon list").await);
}
