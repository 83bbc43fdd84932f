//! Another CA takes the place of the one before, and everybody stays in.

use std::time::Duration;

use picket_agent::{identity::IdentityStore, status::State};
use picket_master::{audit::kept::witnessed, ca::keys};
use picket_pki::Fingerprint;
use picket_proto::{
    session::Trust,
    wire::admin::CaPhase::{Active, Distrusted, Outgoing, Prepared, Retired},
};
use picket_tests::{
    Host,
    HostState::{Offline, Online},
    Office,
    OperatorRole::Viewer,
    Site,
    conversation::Conversation,
    site::until,
    stranger::{Door, Stranger},
};
use tonic::Code;

/// As many hosts as it takes for one of them to be 5 %.
const FLEET: usize = 20;

#[tokio::test(start_paused = true)]
async fn a_ca_is_replaced_while_all_are_online_and_nobody_enrolls_again() {
    let site = Site::new().await;
    let hosts = fleet(&site, 3).await;
    let first = site.active_ca().await;
    site.prepare_ca().await;
    site.until_lacking(&[]).await;
    assert_eq!(site.ca_phases().await, [Active, Prepared]);
    site.activate_ca(false).await.unwrap();
    assert_ne!(site.active_ca().await, first);

    let early = site.retire_ca(false).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    for host in &hosts {
        assert!(early.message().contains(&host.name), "{}", early.message());
    }
    site.until_under_earlier(&[]).await;
    let retired = site.retire_ca(false).await.unwrap();
    assert_eq!(
        (retired.behind.len(), retired.cas[0].fingerprint.as_str()),
        (0, first.as_str())
    );
    assert_eq!(site.ca_phases().await, [Retired, Active]);

    let active = site.active_ca().await;
    for host in &hosts {
        until_trusts(&site, host, &[&active]).await;
        host.restart().await;
        host.until(State::Connected).await;
        assert_eq!(site.pins(&host.name).await[0], "current");
    }
}

#[tokio::test(start_paused = true)]
async fn with_one_host_in_twenty_offline_and_one_joining_in_each_phase_the_lists_are_exact_and_all_come_back()
{
    let site = Site::new().await;
    let mut hosts = fleet(&site, FLEET).await;
    let asleep = hosts.pop().unwrap();
    asleep.power_off().await;
    site.until(&asleep.name, Offline).await;
    // A bundle that was carried off before the rotation begins, and used in the middle of it.
    let carried = site.bundle("joins-2").await;

    site.prepare_ca().await;
    site.until_lacking(&["host-19", "joins-2"]).await;
    join(&site, "joins-1", None, &mut hosts).await;
    join(&site, "joins-2", Some(carried), &mut hosts).await;
    site.until_lacking(&["host-19"]).await;
    let refused = site.activate_ca(false).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused
            .message()
            .contains("1 hosts have not acknowledged the new CA: host-19;"),
        "{}",
        refused.message()
    );
    let forced = site.activate_ca(true).await.unwrap();
    assert_eq!(forced.lacking, ["host-19"]);
    let told = site.until_event("ca.activated").await;
    assert!(told.message.contains("host-19"), "{}", told.message);

    join(&site, "joins-3", None, &mut hosts).await;
    site.until_under_earlier(&["host-19"]).await;
    let refused = site.retire_ca(false).await.unwrap_err();
    assert!(
        refused
            .message()
            .contains("before, and could only renew until they have another: host-19;"),
        "{}",
        refused.message()
    );
    assert_eq!(site.retire_ca(true).await.unwrap().behind, ["host-19"]);

    join(&site, "joins-4", None, &mut hosts).await;
    asleep.start();
    site.until(&asleep.name, Online).await;
    site.until_lacking(&[]).await;
    assert_eq!(site.under_earlier().await, [""; 0]);
    let active = site.active_ca().await;
    for host in hosts.iter().chain([&asleep]) {
        site.until(&host.name, Online).await;
        until_trusts(&site, host, &[&active]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_slept_through_any_phase_recovers() {
    let site = Site::new().await;
    let phases = ["prepare", "activate", "retire"];
    let first = site.active_ca().await;
    for from in 0..phases.len() {
        for to in from..phases.len() {
            let active = site.active_ca().await;
            let name = format!("sleeps-{from}-{to}-{}", &active[..4]);
            let host = site.bring_in(site.machine(&name).without_zerotier()).await;
            for (phase, what) in phases.iter().enumerate() {
                if phase == from {
                    host.power_off().await;
                }
                match *what {
                    "prepare" => site.prepare_ca().await,
                    "activate" => drop(site.activate_ca(true).await.unwrap()),
                    _ => drop(site.retire_ca(true).await.unwrap()),
                }
                if phase == to {
                    host.start();
                    host.until(State::Connected).await;
                    site.until(&name, Online).await;
                }
            }
            let next = site.active_ca().await;
            until_trusts(&site, &host, &[&next]).await;
            host.restart().await;
            host.until(State::Connected).await;
            host.stop().await;
            site.retire(&name, "the next one").await;
        }
    }
    assert_ne!(site.active_ca().await, first);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_slept_through_two_rotations_recovers_without_the_first_cas_key() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    oslo.power_off().await;
    for _ in 0..2 {
        site.prepare_ca().await;
        site.activate_ca(true).await.unwrap();
        site.retire_ca(true).await.unwrap();
    }
    oslo.start();
    site.until("oslo", Online).await;
    let active = site.active_ca().await;
    until_trusts(&site, &oslo, &[&active]).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_a_retired_ca_renews_and_does_nothing_else() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let thief = Stranger::with_identity_of(&site, &oslo);
    oslo.power_off().await;
    site.prepare_ca().await;
    site.activate_ca(true).await.unwrap();
    site.retire_ca(true).await.unwrap();
    let connected = thief.connect(Door::Agents).await.unwrap();
    let refused = Conversation::open(&connected).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().contains("may only renew"),
        "{}",
        refused.message()
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_theft_of_the_ca_nothing_from_before_opens_a_door_and_new_bundles_do() {
    let site = Site::new().await;
    let hosts = fleet(&site, 2).await;
    let thief = Stranger::with_identity_of(&site, &hosts[0]);
    let operator = Stranger::with_admin_bundle(&site);
    site.prepare_ca().await;
    site.until_lacking(&[]).await;

    let answer = site.replace_ca().await;
    assert_eq!(answer.need_bundle, ["host-0", "host-1"]);
    site.until_gone().await;
    for (who, door) in [(&thief, Door::Agents), (&operator, Door::Admin)] {
        let error = who.connect(door).await.map(|_| ()).unwrap_err();
        let why = picket_agent::sentence(&error);
        assert!(
            why.contains("its certificate is of another CA"),
            "they do not take the master for theirs: {why}"
        );
    }
    site.renew_admin_bundle().await;
    assert_eq!(site.ca_phases().await, [Distrusted, Distrusted, Active]);
    let (told, active) = (site.until_event("ca.replaced").await, site.active_ca().await);
    assert!(told.message.contains("host-0, host-1"), "{}", told.message);

    for host in &hosts {
        host.until(State::Disconnected).await;
        host.stop().await;
        let bundle = site.another_bundle(&host.name, false).await;
        host.enroll(&bundle).await.unwrap();
        host.start();
        site.until(&host.name, Online).await;
        until_trusts(&site, host, &[&active]).await;
    }
    assert_eq!(site.lacking().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_master_that_is_restarted_or_crashes_between_any_two_steps_goes_on_where_it_was() {
    let site = Site::new().await;
    let hosts = fleet(&site, 2).await;
    hosts[1].power_off().await;
    for crash in [false, true] {
        let first = site.active_ca().await;
        let again = async || {
            if crash {
                site.crash_master().await;
            } else {
                site.restart_master().await;
            }
        };
        site.prepare_ca().await;
        again().await;
        assert_eq!(site.ca().await.cas.last().unwrap().phase(), Prepared);
        site.until_lacking(&["host-1"]).await;
        // Who has acknowledged is remembered without being there, once the second is over that they are gathered for.
        site.wait(Duration::from_secs(2)).await;
        hosts[0].power_off().await;
        again().await;
        site.until_lacking(&["host-1"]).await;
        site.activate_ca(true).await.unwrap();
        again().await;
        assert_ne!(site.active_ca().await, first);
        hosts[0].start();
        site.until("host-0", Online).await;
        site.until_under_earlier(&["host-1"]).await;
        site.retire_ca(true).await.unwrap();
        again().await;
        assert_eq!(
            site.ca()
                .await
                .cas
                .iter()
                .filter(|ca| ca.phase() == Outgoing)
                .count(),
            0
        );
        site.until("host-0", Online).await;
    }
    hosts[1].start();
    site.until("host-1", Online).await;
    site.until_lacking(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_killed_between_keeping_a_ca_and_saying_so_has_it() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    oslo.power_off().await;
    site.prepare_ca().await;
    let cas = site.ca().await.cas;
    let trust = Trust {
        authorities: cas.iter().map(|ca| ca.certificate.clone()).collect(),
        cross_signed: cas
            .iter()
            .map(|ca| ca.cross_signed.clone())
            .filter(|der| !der.is_empty())
            .collect(),
    };
    let store = IdentityStore::open(oslo.state().join("identity")).unwrap();
    store.trust(&trust).unwrap();
    assert_eq!(site.lacking().await, ["oslo"], "nobody told the master");
    oslo.start();
    site.until_lacking(&[]).await;
    site.activate_ca(false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_banned_host_and_a_retired_one_hold_no_rotation_up() {
    let site = Site::new().await;
    for name in ["bern", "oslo", "rome"] {
        site.bring_in(site.machine(name).without_zerotier())
            .await
            .power_off()
            .await;
    }
    site.ban("bern", "a story").await;
    site.retire("oslo", "a story").await;
    site.prepare_ca().await;
    assert_eq!(site.lacking().await, ["rome"]);
    site.ban("rome", "a story").await;
    site.activate_ca(false).await.unwrap();
    site.retire_ca(false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn preparing_twice_makes_one_ca_and_there_is_an_order_to_things() {
    let site = Site::new().await;
    let refused = site.activate_ca(true).await.unwrap_err();
    assert!(
        refused.message().contains("no CA is prepared"),
        "{}",
        refused.message()
    );
    let refused = site.retire_ca(true).await.unwrap_err();
    assert!(
        refused.message().contains("no CA before the active one"),
        "{}",
        refused.message()
    );
    site.prepare_ca().await;
    site.prepare_ca().await;
    assert_eq!(site.ca_phases().await, [Active, Prepared]);
    assert_eq!(site.events("ca.prepared").await.len(), 1);
    site.activate_ca(true).await.unwrap();
    let refused = site.try_prepare_ca().await.unwrap_err();
    assert!(
        refused.message().contains("retire it first"),
        "{}",
        refused.message()
    );
}

#[tokio::test(start_paused = true)]
async fn an_operators_bundle_follows_the_ca_and_works_in_every_phase_after() {
    let site = Site::new().await;
    let office = Office::with_admin_bundle(&site);
    let (first, own) = (site.active_ca().await, office.authorities());
    for step in ["prepare", "activate", "retire"] {
        let done = office.types(&site, &format!("ca rotate {step}")).await;
        assert_eq!(done.exit, picketctl::Exit::Done, "{}", done.text);
    }
    let active = site.active_ca().await;
    let seen = office.types(&site, "ca status -o json").await;
    assert!(
        seen.text.contains(&first) && seen.text.contains(&active),
        "{}",
        seen.text
    );
    let after = office.authorities();
    assert_eq!(Fingerprint::of(&after[0]).to_string(), active);
    assert_eq!(
        after[1..],
        own,
        "the one that signed the operator's own certificate stays until that is renewed"
    );
    // What the master shows is of a CA that the bundle has: nothing is asked, and nothing written.
    let quiet = office.types(&site, "host list -o json").await;
    assert_eq!((quiet.exit, quiet.text.trim()), (picketctl::Exit::Done, "[]"));

    let stolen = office
        .types(&site, "ca rotate activate --compromised --yes")
        .await;
    assert!(
        stolen.text.contains("picket-master admin-bundle"),
        "{}",
        stolen.text
    );
    let shut_out = office.types(&site, "host list").await;
    assert_eq!(shut_out.exit, picketctl::Exit::Unreachable, "{}", shut_out.text);
    assert_eq!(
        office.authorities(),
        after,
        "nothing that came over that connection was believed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_prepared_ca_whose_key_is_lost_holds_nothing_up_and_gives_way_to_another() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    let first = site.active_ca().await;
    site.prepare_ca().await;
    site.until_lacking(&[]).await;
    let lost = site.ca().await.cas[1].fingerprint.clone();
    let (_, key) = keys::paths(&site.data_dir(), lost.parse().unwrap());
    std::fs::remove_file(&key).unwrap();
    let refused = site.activate_ca(false).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for told in [lost.as_str(), "picketctl ca rotate prepare"] {
        assert!(refused.message().contains(told), "{}", refused.message());
    }
    assert_eq!(site.active_ca().await, first);

    let prepared = site.try_prepare_ca().await.unwrap();
    assert_eq!((prepared.made, prepared.replaced), (true, lost.clone()));
    assert_eq!(site.ca_phases().await, [Active, Prepared]);
    let told = site.until_event("ca.prepared").await;
    assert!(told.message.contains(&lost), "{}", told.message);
    site.until_lacking(&[]).await;
    site.activate_ca(false).await.unwrap();
    site.until_under_earlier(&[]).await;
    site.retire_ca(false).await.unwrap();
    let active = site.active_ca().await;
    assert!(active != lost && active != first);
    until_trusts(&site, &oslo, &[&active]).await;
    site.restart_master().await;
    site.until("oslo", Online).await;
}

#[tokio::test(start_paused = true)]
async fn to_distrust_earlier_cas_names_the_hosts_and_the_operators_that_it_shuts_out() {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    oslo.power_off().await;
    site.operator("ben", Viewer).await;
    site.operator("cleo", Viewer).await;
    site.revoke_operator("cleo", "").await.unwrap();
    site.wait(Duration::from_secs(2)).await;
    site.prepare_ca().await;
    site.activate_ca(true).await.unwrap();
    site.wait(Duration::from_secs(2)).await;
    let ana = site.operator("ana", Viewer).await;
    let answer = site.distrust_earlier_cas().await;
    assert_eq!(answer.need_bundle, ["oslo"]);
    assert_eq!(answer.operators_need_bundle, ["admin/local", "ben/laptop"]);
    Stranger::with_bundle(&site, &ana)
        .connect(Door::Admin)
        .await
        .unwrap();
    site.renew_admin_bundle().await;
    let told = site.until_event("ca.distrusted").await;
    for named in ["oslo", "admin/local, ben/laptop", "picketctl operator add"] {
        assert!(told.message.contains(named), "{named}: {}", told.message);
    }
}

#[tokio::test(start_paused = true)]
async fn heads_that_were_signed_under_every_ca_there_was_witness_the_journal_after_a_rotation() {
    let site = Site::new().await;
    let office = Office::with_admin_bundle(&site);
    site.until_event("audit.head").await;
    let verified = async |line: &str| {
        let said = office.types(&site, &format!("audit verify {line} -o json")).await;
        assert_eq!(said.exit, picketctl::Exit::Done, "{}", said.text);
        // A remark about the bundle comes before it.
        let (_, json) = said.text.split_once('{').unwrap();
        let found: serde_json::Value = serde_json::from_str(&format!("{{{json}")).unwrap();
        found["witnessed"].as_u64().unwrap()
    };
    assert_eq!(verified("").await, 0);
    let told: Vec<String> = site
        .events("audit.head")
        .await
        .into_iter()
        .map(|event| event.message)
        .collect();
    let elsewhere = office.file("heads", &(told.join("\n") + "\n"));
    let elsewhere = format!("--heads {}", elsewhere.display());

    site.prepare_ca().await;
    site.activate_ca(true).await.unwrap();
    site.retire_ca(true).await.unwrap();
    assert_eq!(
        verified("").await,
        1,
        "the head in the operator's home is of the CA before"
    );
    assert!(
        verified(&elsewhere).await > 1,
        "and so are those that were kept elsewhere"
    );
    let (entries, head) = site.export().await;
    assert_eq!(
        entries.len() as u64,
        site.believed_by(&head, &office.authorities()).revision
    );

    // What was told under the CA of today is there as well.
    let before = told.len();
    until("another head to be told", async || {
        let told = site.events("audit.head").await.len();
        if told > before { Ok(()) } else { Err(told) }
    })
    .await;
    let all = site.events("audit.head").await.len() as u64;
    site.stop_master().await;
    let kept = witnessed(&site.data_dir()).unwrap();
    assert_eq!((kept.foreign, kept.problem), (0, None));
    assert!(kept.fit >= all, "{} of {all}", kept.fit);
}

/// Hosts that are online, `host-0` and on.
async fn fleet(site: &Site, count: usize) -> Vec<Host> {
    let mut hosts = Vec::new();
    for number in 0..count {
        let machine = site.machine(&format!("host-{number}")).without_zerotier();
        hosts.push(site.bring_in(machine).await);
    }
    hosts
}

async fn join(site: &Site, name: &str, bundle: Option<Vec<u8>>, hosts: &mut Vec<Host>) {
    let machine = site.machine(name).without_zerotier();
    match bundle {
        None => hosts.push(site.bring_in(machine).await),
        Some(bundle) => {
            machine.enroll(&bundle).await.expect("the bundle is good");
            machine.start();
            site.until(name, Online).await;
            hosts.push(machine);
        }
    }
}

/// Waits until an agent trusts exactly these CAs, on disk, and works under a certificate of the first.
async fn until_trusts(site: &Site, host: &Host, cas: &[&str]) {
    until(&format!("{} to trust {cas:?}", host.name), async || {
        let store = IdentityStore::open(host.state().join("identity")).expect("the agent has one");
        let found = store.load().expect("that can be read");
        let current = found.current.expect("and is enrolled");
        let trusted: Vec<String> = current
            .authorities
            .iter()
            .map(|der| Fingerprint::of(der).to_string())
            .collect();
        let works = site.under_earlier().await.contains(&host.name);
        if trusted == cas && !works {
            Ok(())
        } else {
            Err(format!("{trusted:?}, under an earlier one: {works}"))
        }
    })
    .await;
}
