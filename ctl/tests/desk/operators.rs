//! `picketctl operator`.

use std::fs;

use insta::assert_snapshot;
use picket_pki::{Bundle, Holder};

use crate::{
    members::{NETWORK, with_network},
    office::Office,
};

async fn with_ana() -> Office {
    let office = Office::open();
    for (role, device) in [(" --role operator", "laptop"), ("", "phone")] {
        let out = office.path(device).display().to_string();
        let line = format!("operator add ana{role} --device {device} --out {out}");
        office.types(&line).await.done();
    }
    office
}

#[tokio::test(start_paused = true)]
async fn an_operators_bundle_is_written_for_its_owner_alone_and_says_where_to_put_it() {
    let office = Office::open();
    let out = office.path("ana.bundle").display().to_string();
    let said = office
        .types(&format!(
            "operator add ana --role viewer --device laptop --out {out}"
        ))
        .await;
    assert_snapshot!("added", said);
    assert_eq!(office.mode("ana.bundle"), 0o600);
    let bundle = Bundle::parse(office.read("ana.bundle").as_bytes()).unwrap();
    assert!(matches!(bundle.holder, Holder::Operator { name } if name.as_str() == "ana"));
    assert_snapshot!(
        "taken",
        office
            .types(&format!("operator add ana --device phone --out {out}"))
            .await
    );
    let other = office.path("other").display().to_string();
    let twice = office
        .types(&format!("operator add ana --device laptop --out {other}"))
        .await;
    assert_snapshot!("twice", twice);
    let new = office
        .types(&format!("operator add ben --device laptop --out {other}"))
        .await;
    assert_snapshot!("without_role", new);
    assert_eq!(
        office.files(),
        ["admin.bundle", "ana.bundle"],
        "nothing is left of what was refused"
    );
}

#[tokio::test(start_paused = true)]
async fn operators_are_listed_and_shown_with_their_devices() {
    let office = with_ana().await;
    assert_snapshot!("shown", office.types("operator show ana").await);
    assert_snapshot!("who_am_i", office.types("operator show").await);
    assert_snapshot!(
        "device_revoked",
        office
            .types("operator revoke ana --device phone --reason lost")
            .await
    );
    assert_snapshot!(
        "changed",
        office
            .types("operator role ana requester --reason 'on leave'")
            .await
    );
    assert_snapshot!("revoked", office.types("operator revoke ana --reason left").await);
    assert_snapshot!("shown_to_people", office.types("operator show ana").await);
    assert_snapshot!("listed", office.types("operator list").await);
    assert_snapshot!("shown_revoked", office.types("operator show ana -o yaml").await);
    assert_snapshot!("unknown", office.types("operator show eve").await);
}

#[tokio::test(start_paused = true)]
async fn who_is_revoked_leaves_nodes_behind_and_that_is_said_with_what_to_do() {
    let office = with_network().await;
    let out = office.path("laptop").display().to_string();
    let add = format!("operator add ana --role operator --device laptop --out {out}");
    office.types(&add).await.done();
    let register = "device register 39966434ba --name ana-laptop --owner ana";
    office.types(register).await.done();
    let admit = format!("member admit ana-laptop --network {NETWORK} --reason tests");
    office.types(&admit).await.done();
    assert_snapshot!(
        "revoked_with_nodes",
        office.types("operator revoke ana --reason left").await
    );
    let again = office
        .types("operator revoke ana --reason left -o json")
        .await
        .done();
    assert_eq!(again.json()["state"], "revoked");
    assert_eq!(again.json()["still_authorized"][0]["node_id"], "39966434ba");
}

#[tokio::test(start_paused = true)]
async fn operators_are_listed_over_all_pages() {
    let office = with_ana().await;
    for name in ["ben", "cem", "dag"] {
        let out = office.path(name).display().to_string();
        let line = format!("operator add {name} --role viewer --device laptop --out {out}");
        office.types(&line).await.done();
    }
    let said = office.types("operator list -o name").await.done();
    assert_eq!(said.out, "ana\nben\ncem\ndag\n");
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_renewed_past_half_its_life_and_only_then() {
    let office = Office::open();
    let first = office.read("admin.bundle");
    office.wait(14 * 86_400).await;
    office.types("host list").await.done();
    assert_eq!(office.read("admin.bundle"), first);
    office.wait(86_400).await;
    office.types("host list").await.done();
    let renewed = Bundle::parse(office.read("admin.bundle").as_bytes()).unwrap();
    renewed.check(office.clock.now()).unwrap();
    assert_ne!(
        renewed.key.public(),
        Bundle::parse(first.as_bytes()).unwrap().key.public()
    );
    assert_eq!(office.read("admin.bundle.previous"), first);
    assert_eq!(
        (office.mode("admin.bundle"), office.mode("admin.bundle.previous")),
        (0o600, 0o600)
    );
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_cannot_be_rewritten_works_on_with_a_remark() {
    let office = Office::open();
    fs::create_dir(office.path("admin.bundle.key")).unwrap();
    office.wait(16 * 86_400).await;
    assert_snapshot!("not_renewed", office.types("operator show").await.done());
}
