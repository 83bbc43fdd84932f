//! Who did what, what was refused, and that nobody can change what was said of it.

use std::{fs, path::Path, time::Duration};

use picket_master::audit::kept::witnessed;
use picket_proto::{
    audit::{
        Hash, Lineage,
        chain::{Broken, Head},
    },
    wire::{
        admin::{AuditEntry, AuditOutcome, ListAuditRequest},
        agent::{RenewRequest, agent_service_client::AgentServiceClient},
    },
};
use picket_tests::{
    HostState::Banned,
    Site,
    site::intact,
    stranger::{Door, Stranger},
};
use tonic::Code;

const MINUTE: Duration = Duration::from_secs(60);

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn only<'a>(entries: &'a [AuditEntry], what: &str) -> &'a AuditEntry {
    let mut found = entries.iter().filter(|entry| entry.what == what);
    let first = found.next().unwrap_or_else(|| panic!("no {what} in {entries:?}"));
    assert!(found.next().is_none(), "{what} is there twice");
    first
}

#[tokio::test(start_paused = true)]
async fn every_change_is_in_the_trail_with_how_it_was_and_how_it_is() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.label("oslo", "rack", "7").await;
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, "oslo").await;
    site.ban("oslo", "stolen").await;
    let done = ListAuditRequest {
        outcome: AuditOutcome::Done.into(),
        ..Default::default()
    };
    let all = site.trail(&done).await;
    for entry in &all {
        assert_eq!(entry.outcome(), AuditOutcome::Done, "{entry:?}");
        let (before, after) = (json(&entry.before), json(&entry.after));
        assert_eq!(
            before.as_object().unwrap().keys().collect::<Vec<_>>(),
            after.as_object().unwrap().keys().collect::<Vec<_>>()
        );
        assert_ne!(before, after, "{entry:?}");
        assert!(!entry.who.is_empty() && !entry.what.is_empty() && !entry.subject.is_empty());
    }
    let host = site.host("oslo").await.id;
    let ban = only(&all, "host.ban");
    assert_eq!(
        (ban.who.as_str(), ban.subject.as_str(), ban.why.as_str()),
        ("operator/admin", "oslo", "stolen")
    );
    assert!(ban.from.starts_with("127.0.0.1:"), "{}", ban.from);
    let standing = |text: &str| json(text)[format!("host/{host}")]["standing"]["state"].clone();
    assert_eq!(
        (standing(&ban.before), standing(&ban.after)),
        ("active".into(), "banned".into())
    );
    let label = only(&all, "host.label");
    assert_eq!(json(&label.after)[format!("host/{host}")]["labels"]["rack"], "7");
    let renew = all.iter().find(|entry| entry.what == "host.renew").unwrap();
    assert_eq!(renew.who, format!("host/{host}"));
    assert!(
        !renew.after.contains("\"certificate\""),
        "a pin stands for it: {}",
        renew.after
    );
    let enroll = only(&all, "host.enroll");
    assert_eq!(json(&enroll.before)["name/oslo"], serde_json::Value::Null);
    assert_eq!(json(&enroll.after)["name/oslo"], host.as_str());
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_refused_is_in_the_trail_with_its_reason_and_one_that_reads_is_not() {
    let site = Site::new().await;
    site.enroll("oslo").await;
    site.try_bundle("oslo").await.unwrap_err();
    site.try_host("bern").await.unwrap_err();
    let refused = site.refusals("").await;
    let [one] = refused.as_slice() else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (one.who.as_str(), one.what.as_str()),
        ("operator/admin", "HostService/EnrollHost")
    );
    assert_eq!((one.subject.as_str(), one.times), ("oslo", 1));
    assert!(
        one.refusal.contains("host oslo exists already"),
        "{}",
        one.refusal
    );
    assert_eq!((one.before.as_str(), one.after.as_str()), ("", ""));
    for _ in 0..20 {
        site.try_bundle("oslo").await.unwrap_err();
    }
    assert_eq!(site.refusals("").await.len(), 1, "the same again is counted");
    site.wait(2 * MINUTE).await;
    let refused = site.refusals("").await;
    assert_eq!(
        refused.iter().map(|entry| entry.times).collect::<Vec<_>>(),
        [1, 20]
    );
}

#[tokio::test(start_paused = true)]
async fn a_hostile_host_that_loops_refused_renewals_leaves_the_journal_bounded() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let hostile = Stranger::with_identity_of(&site, &oslo);
    let connected = hostile.connect(Door::Agents).await.unwrap();
    let mut agent = AgentServiceClient::new(connected.channel.clone());
    let before = site.store().revision().0;
    for n in 0..600_u32 {
        // Another one each time, so that no two are the same.
        let csr = vec![0x30; n as usize % 97].into();
        let refused = agent.renew(RenewRequest { csr }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
    }
    let at_once = site.store().revision().0 - before;
    assert!((1..=24).contains(&at_once), "{at_once} entries at once");
    site.wait(2 * MINUTE).await;
    let refused = site.refusals("host.renew").await;
    let times: u32 = refused.iter().map(|entry| entry.times).sum();
    assert_eq!(times, 600, "each is counted");
    assert!(refused.len() <= 48, "{} entries", refused.len());
    assert_eq!(refused[0].who, format!("host/{}", site.host("oslo").await.id));
}

#[tokio::test(start_paused = true)]
async fn strangers_at_the_door_leave_no_trace_in_the_journal() {
    let site = Site::new().await;
    let before = site.store().revision();
    let stranger = Stranger::with_unpinned_certificate(&site);
    for _ in 0..5 {
        stranger.refused_at(Door::Agents).await;
        stranger.refused_at(Door::Admin).await;
    }
    site.until_event("handshake.refused").await;
    assert_eq!(site.store().revision(), before);
}

#[tokio::test(start_paused = true)]
async fn the_trail_is_filtered_and_paged_in_either_direction() {
    let site = Site::new().await;
    site.bundle("oslo").await;
    for n in 0..30 {
        site.label("oslo", "n", &n.to_string()).await;
    }
    let (early, since) = (
        site.trail(&ListAuditRequest::default()).await.len(),
        site.clock.now(),
    );
    site.wait(MINUTE).await;
    site.ban("oslo", "a story").await;
    let revisions = async |asked: ListAuditRequest| -> Vec<u64> {
        let found = site.trail(&asked).await;
        found.iter().map(|entry| entry.revision).collect()
    };
    let paged = |oldest_first| ListAuditRequest {
        page_size: 7,
        oldest_first,
        ..Default::default()
    };
    let (mut newest, oldest) = (revisions(paged(false)).await, revisions(paged(true)).await);
    newest.reverse();
    assert_eq!(newest, oldest);
    assert_eq!(oldest, (1..=early as u64 + 1).collect::<Vec<_>>());
    let labels = ListAuditRequest {
        what: "host.label".to_owned(),
        who: "admin".to_owned(),
        subject: "oslo".to_owned(),
        page_size: 4,
        ..Default::default()
    };
    assert_eq!(revisions(labels.clone()).await.len(), 30);
    let after = ListAuditRequest {
        after: 20,
        ..labels.clone()
    };
    assert!(revisions(after).await.iter().all(|revision| *revision > 20));
    let later = ListAuditRequest {
        since: Some(picket_proto::to_wire_time(
            since + jiff::SignedDuration::from_secs(1),
        )),
        ..Default::default()
    };
    assert_eq!(revisions(later.clone()).await.len(), 1);
    let earlier = ListAuditRequest {
        until: later.since,
        ..Default::default()
    };
    assert_eq!(revisions(earlier).await.len(), early);
    let nobody = ListAuditRequest {
        who: "eve".to_owned(),
        ..Default::default()
    };
    assert!(revisions(nobody).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_export_is_checked_without_believing_the_master_and_has_no_values() {
    let site = Site::new().await;
    site.enroll("oslo").await;
    site.try_bundle("oslo").await.unwrap_err();
    site.restart_master().await;
    site.label("oslo", "rack", "7").await;
    let (entries, head) = site.export().await;
    let chain = intact(&entries);
    let head = site.believed(&head);
    assert_eq!(
        (head.revision, Hash(head.hash)),
        (chain.at().unwrap().revision, chain.at().unwrap().hash)
    );
    let verdict = site.verify_audit().await;
    assert_eq!((verdict.problem.as_str(), verdict.revision), ("", head.revision));
    assert_eq!(verdict.entries, entries.len() as u64);
    assert_eq!(site.believed(&verdict.head.parse().unwrap()).hash, head.hash);
}

#[tokio::test(start_paused = true)]
async fn heads_go_out_as_events_when_the_journal_has_grown_and_at_a_clean_stop() {
    let site = Site::new().await;
    site.bundle("oslo").await;
    site.wait(2 * MINUTE).await;
    let heads = site.events("audit.head").await;
    let last = site.believed(&heads.last().unwrap().message.parse().unwrap());
    let (revision, hash) = site.store().head();
    assert_eq!((last.revision, last.hash), (revision.0, hash.0));
    site.wait(10 * MINUTE).await;
    assert_eq!(
        site.events("audit.head").await.len(),
        heads.len(),
        "nothing was changed, nothing is told"
    );
    site.bundle("bern").await;
    let grown = site.store().revision().0;
    site.stop_master().await;
    let kept = fs::read_to_string(site.data_dir().join("events.jsonl")).unwrap();
    assert!(kept.contains(&format!("revision {grown} sha256")), "{kept}");
    let seen = witnessed(&site.data_dir()).unwrap();
    assert_eq!(seen.problem, None);
    assert!(seen.fit >= 2, "{seen:?}");
    site.start_master().await;
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_was_put_back_to_an_older_state_is_found_by_the_heads_among_the_events() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    site.stop_master().await;
    let (store, aside) = (site.data_dir().join("store"), site.data_dir().join("aside"));
    copy(&store, &aside);
    site.start_master().await;
    site.ban("oslo", "stolen").await;
    site.until("oslo", Banned).await;
    let end = site.store().revision().0;
    site.stop_master().await;
    drop(oslo);
    // All of it, with the witness and the index: the store itself has nothing to find.
    fs::remove_dir_all(&store).unwrap();
    fs::rename(&aside, &store).unwrap();
    let seen = witnessed(&site.data_dir()).unwrap();
    let Some(Broken::Cut { witnessed, end: cut }) = seen.problem else {
        panic!("{seen:?}")
    };
    assert!(witnessed >= end && cut < end, "{seen:?}");
    // A watcher's head says the same to whoever has an export.
    site.start_master().await;
    let (entries, head) = site.export().await;
    let older = site.believed(&head);
    let mut chain = intact(&entries);
    let kept = Head {
        lineage: Lineage(older.lineage),
        revision: witnessed,
        hash: Hash([7; 32]),
    };
    assert!(matches!(chain.close(kept), Err(Broken::Cut { .. })));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the data directory takes another one");
    for entry in fs::read_dir(from).expect("a stopped master's store can be read") {
        let entry = entry.expect("and listed");
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("and copied");
        }
    }
}
