//! Clocks: certificates that ended, agents whose clock is off, and a master whose clock jumps.

use std::time::Duration;

use jiff::SignedDuration;
use picket_agent::status::State;
use picket_pki::{Key, Refusal};
use picket_proto::wire::agent::{
    FetchRequest, RenewRequest, ReportRequest, agent_service_client::AgentServiceClient,
};
use picket_tests::{
    Host,
    HostState::{Banned, Online},
    Site,
    conversation::Conversation,
    stranger::{Door, Stranger},
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a host's certificate holds.
const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A site with a host that is online, on a machine without ZeroTier.
async fn with_oslo() -> (Site, Host) {
    let site = Site::new().await;
    let oslo = site.bring_in(site.machine("oslo").without_zerotier()).await;
    (site, oslo)
}

/// Waits until a host works under another certificate than `before`.
async fn renewed(site: &Site, before: &str) {
    picket_tests::site::until("oslo to work under a new certificate", async || {
        let pin = site.current_pin("oslo").await;
        if pin == before { Err(pin) } else { Ok(()) }
    })
    .await;
}

/// Waits until a host is online under another certificate than `before`, with nothing wrong.
async fn back(site: &Site, oslo: &Host, before: &str) {
    renewed(site, before).await;
    site.until("oslo", Online).await;
    oslo.until(State::Connected).await;
    let conditions = site.host("oslo").await.conditions;
    assert!(conditions.is_empty(), "{conditions:?}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_off_past_the_end_of_its_certificate_renews_and_goes_on_by_itself() {
    for off in [8 * DAY, 30 * DAY, 31 * DAY, LIFE + 30 * DAY - HOUR] {
        let (site, oslo) = with_oslo().await;
        let before = site.current_pin("oslo").await;
        oslo.stop().await;
        site.sleep(off).await;
        oslo.start();
        back(&site, &oslo, &before).await;
        assert_eq!(
            site.events("host.renewed-expired").await.len(),
            1,
            "after {off:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn on_day_31_after_its_end_a_certificate_is_refused_and_the_agent_says_how_to_get_in_again() {
    let (site, oslo) = with_oslo().await;
    oslo.stop().await;
    site.sleep(LIFE + 31 * DAY).await;
    assert_eq!(
        Stranger::with_identity_of(&site, &oslo)
            .refused_at(Door::Agents)
            .await,
        Refusal::Expired
    );
    oslo.start();
    let told = oslo.until(State::Refused).await;
    assert!(told.contains("picketctl host bundle NAME"), "{told}");
    let condition = site.until_condition("oslo", "certificate: it ended on").await;
    assert!(condition.contains("picketctl host bundle oslo"), "{condition}");
    oslo.stop().await;
    oslo.enroll(&site.another_bundle("oslo", false).await)
        .await
        .unwrap();
    oslo.start();
    oslo.until(State::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_with_only_an_expired_certificate_shows_until_when_it_may_renew() {
    let (site, oslo) = with_oslo().await;
    oslo.stop().await;
    site.sleep(LIFE + DAY).await;
    let condition = site.until_condition("oslo", "certificate: it ended on").await;
    assert!(
        condition.contains("may only renew it until 2026-12-29"),
        "{condition}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_renews_and_opens_nothing_else() {
    let (site, oslo) = with_oslo().await;
    oslo.stop().await;
    site.sleep(LIFE + DAY).await;
    let connected = Stranger::with_identity_of(&site, &oslo)
        .connect(Door::Agents)
        .await
        .unwrap();
    let refused = Conversation::open(&connected).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().contains("may only renew"),
        "{}",
        refused.message()
    );
    let mut health = HealthClient::new(connected.channel.clone());
    let checked = health.check(HealthCheckRequest::default()).await;
    assert_eq!(checked.unwrap_err().code(), Code::PermissionDenied);
    let mut client = AgentServiceClient::new(connected.channel.clone());
    let report = tokio_stream::iter([ReportRequest::default()]);
    assert_eq!(
        client.report(report).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let fetched = client.fetch(FetchRequest::default()).await.map(|_| ());
    assert_eq!(fetched.unwrap_err().code(), Code::PermissionDenied);
    let csr = Key::generate().unwrap().csr().unwrap().into();
    assert!(
        !client
            .renew(RenewRequest { csr })
            .await
            .unwrap()
            .into_inner()
            .certificate
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_renewal_after_the_end_is_audited_under_its_own_word_and_is_an_event() {
    let (site, oslo) = with_oslo().await;
    oslo.stop().await;
    assert_eq!(site.in_journal("host.renew-expired"), 0);
    site.sleep(LIFE + DAY).await;
    oslo.start();
    let event = site.until_event("host.renewed-expired").await;
    assert_eq!(event.subject, "oslo");
    assert!(
        event.message.contains("its certificate ended on 2026-11-29"),
        "{}",
        event.message
    );
    oslo.until(State::Connected).await;
    assert_eq!(site.in_journal("host.renew-expired"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_banned_host_is_refused_however_long_ago_its_certificate_ended() {
    let (site, oslo) = with_oslo().await;
    site.ban("oslo", "stolen").await;
    oslo.until(State::Banned).await;
    oslo.stop().await;
    for more in [8 * DAY, 22 * DAY, 8 * DAY] {
        site.sleep(more).await;
        let stranger = Stranger::with_identity_of(&site, &oslo);
        assert_eq!(stranger.refused_at(Door::Agents).await, Refusal::Revoked);
        oslo.start();
        oslo.until(State::Refused).await;
        oslo.stop().await;
        assert_eq!(site.host("oslo").await.state(), Banned);
    }
    assert_eq!(site.events("host.renewed-expired").await, []);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_slept_past_the_end_of_its_certificate_wakes_renews_and_goes_on() {
    for slept in [8 * DAY, 30 * DAY, 31 * DAY, LIFE + 30 * DAY - HOUR] {
        let (site, oslo) = with_oslo().await;
        let before = site.current_pin("oslo").await;
        site.sleep(slept).await;
        back(&site, &oslo, &before).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_slept_until_day_31_after_the_end_wakes_and_says_how_to_get_in_again() {
    let (site, oslo) = with_oslo().await;
    site.sleep(LIFE + 31 * DAY).await;
    let told = oslo.until(State::Refused).await;
    assert!(told.contains("picketctl host bundle NAME"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_banned_while_it_sleeps_wakes_to_be_refused() {
    for slept in [8 * DAY, LIFE + 31 * DAY] {
        let (site, oslo) = with_oslo().await;
        oslo.line.lose_packets();
        site.ban("oslo", "stolen").await;
        site.sleep(slept).await;
        oslo.plug_in();
        oslo.until(State::Refused).await;
        assert_eq!(site.host("oslo").await.state(), Banned);
        assert_eq!(site.events("host.renewed-expired").await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_slept_past_half_the_life_of_its_certificate_renews_in_its_session() {
    let (site, oslo) = with_oslo().await;
    let before = site.current_pin("oslo").await;
    site.clock.sleep(5 * DAY);
    site.wait(Duration::from_secs(120)).await;
    back(&site, &oslo, &before).await;
    assert_eq!(site.events("host.renewed-expired").await, []);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_its_certificate_also_when_both_machines_slept_and_the_agent_comes_back() {
    let (site, oslo) = with_oslo().await;
    let before = site.current_pin("oslo").await;
    site.clock.sleep(8 * DAY);
    site.wait(Duration::from_secs(120)).await;
    back(&site, &oslo, &before).await;
    assert_eq!(site.events("host.renewed-expired").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_at_the_end_of_its_certificate() {
    let (site, oslo) = with_oslo().await;
    oslo.stop().await;
    let pins = site.try_host("oslo").await.unwrap().pins;
    let end = picket_proto::from_wire_time(pins[0].expires_at.as_ref().unwrap()).unwrap();
    site.sleep(LIFE - DAY).await;
    let left = end.duration_since(site.clock.now()) - SignedDuration::from_secs(50);
    site.clock.sleep(left.try_into().unwrap());
    let connected = Stranger::with_identity_of(&site, &oslo)
        .connect(Door::Agents)
        .await
        .unwrap();
    let mut talk = Conversation::open(&connected).await.unwrap();
    let leave = talk.last_word().await;
    assert!(
        leave.message.contains("certificate of this session has ended"),
        "{}",
        leave.message
    );
    let late = site.clock.now().duration_since(end).as_secs();
    assert!((0..2).contains(&late), "{late} s after the end");
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_clock_is_4_minutes_off_enrolls_and_renews_and_its_skew_is_a_condition() {
    for (skew, says) in [(-240, "behind"), (240, "ahead of")] {
        let site = Site::new().await;
        let oslo = site
            .bring_in(site.machine("oslo").without_zerotier().skewed(skew))
            .await;
        let condition = site.until_condition("oslo", "clock").await;
        assert!(condition.contains(says), "{condition}");
        let before = site.current_pin("oslo").await;
        oslo.stop().await;
        site.sleep(5 * DAY).await;
        oslo.start();
        renewed(&site, &before).await;
        oslo.until(State::Connected).await;
        assert_eq!(site.events("host.renewed-expired").await, [], "{skew}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_10_minutes_ahead_enrolls_and_renews_and_its_skew_is_a_condition() {
    let site = Site::new().await;
    let oslo = site
        .bring_in(site.machine("oslo").without_zerotier().skewed(600))
        .await;
    site.until_condition("oslo", "s ahead of the master's; set it")
        .await;
    site.until_condition("oslo", "s ahead of the master's; set the one")
        .await;
    let before = site.current_pin("oslo").await;
    oslo.stop().await;
    site.sleep(5 * DAY).await;
    oslo.start();
    renewed(&site, &before).await;
    oslo.until(State::Connected).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_10_minutes_behind_is_told_both_times_and_enrolls_once_its_clock_is_set() {
    let site = Site::new().await;
    let oslo = site.machine("oslo").without_zerotier().skewed(-600);
    let bundle = site.bundle("oslo").await;
    let refused = picket_agent::sentence(&oslo.enroll(&bundle).await.unwrap_err());
    // Ten minutes before the site's present, and the five minutes by which certificates are backdated.
    let (here, begins) = (oslo.clock.now(), site.clock.now() - SignedDuration::from_mins(5));
    for time in [here, begins] {
        let minute = time.strftime("%Y-%m-%dT%H:%M").to_string();
        assert!(refused.contains(&minute), "{minute}: {refused}");
    }
    assert!(refused.contains("set"), "{refused}");
    oslo.clock.jump(600);
    oslo.enroll(&bundle).await.unwrap();
    oslo.start();
    site.until("oslo", Online).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_10_minutes_behind_certificates_that_are_older_gets_in_and_its_skew_is_a_condition() {
    let site = Site::new().await;
    let oslo = site.machine("oslo").without_zerotier().skewed(-600);
    let bundle = site.bundle("oslo").await;
    site.wait(Duration::from_secs(600)).await;
    oslo.enroll(&bundle).await.unwrap();
    oslo.start();
    site.until("oslo", Online).await;
    site.until_condition("oslo", "s behind the master's; set it")
        .await;
    site.until_condition("oslo", "s behind the master's; set the one")
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_the_masters_certificate_for_ended_or_for_not_begun_says_both_times() {
    let (_site, oslo) = with_oslo().await;
    for (days, said) in [(40, "was valid until"), (-40, "is valid from")] {
        let jump = days * 24 * 3600;
        oslo.stop().await;
        oslo.clock.jump(jump);
        oslo.start();
        let told = oslo.until(State::Disconnected).await;
        assert!(
            told.contains(said) && told.contains("set this machine's clock"),
            "{told}"
        );
        let here = oslo.clock.now().strftime("%Y-%m-%d").to_string();
        assert!(told.contains(&here), "{here}: {told}");
        oslo.clock.jump(-jump);
        oslo.until(State::Connected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_while_the_agent_runs_is_a_condition_and_its_session_goes_on() {
    let (site, oslo) = with_oslo().await;
    let accepted = site.handshakes("agents", "accepted").await;
    for jump in [-600, 600, -240, 240] {
        oslo.clock.jump(jump);
        let direction = if jump < 0 { "behind" } else { "ahead of" };
        let condition = site.until_condition("oslo", "the clock here is").await;
        assert!(condition.contains(direction), "{condition}");
        oslo.clock.jump(-jump);
        picket_tests::site::until("the condition to end", async || {
            let conditions = site.host("oslo").await.conditions;
            if conditions.is_empty() {
                Ok(())
            } else {
                Err(format!("{conditions:?}"))
            }
        })
        .await;
    }
    oslo.until(State::Connected).await;
    assert_eq!(
        site.handshakes("agents", "accepted").await,
        accepted,
        "it was one session"
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_clock_jumps_past_the_end_of_its_certificate_renews_once_and_goes_on() {
    let (site, oslo) = with_oslo().await;
    let before = site.current_pin("oslo").await;
    oslo.clock.jump(8 * 24 * 3600);
    site.wait(HOUR / 2).await;
    oslo.until(State::Connected).await;
    let after = site.current_pin("oslo").await;
    assert_ne!(after, before);
    site.wait(HOUR / 4).await;
    assert_eq!(site.current_pin("oslo").await, after);
    assert_eq!(site.events("host.renewed-expired").await, [], "it had not ended");
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_clock_is_so_far_behind_that_it_does_not_see_its_certificate_end_renews_all_the_same()
{
    let (site, oslo) = with_oslo().await;
    let before = site.current_pin("oslo").await;
    oslo.stop().await;
    site.clock.sleep(LIFE + HOUR);
    // By this clock the certificate has an hour left.
    oslo.clock.jump(-2 * 3600);
    oslo.start();
    site.until_event("host.renewed-expired").await;
    renewed(&site, &before).await;
}

#[tokio::test(start_paused = true)]
async fn the_masters_time_does_not_go_back_over_a_restart() {
    let (site, _oslo) = with_oslo().await;
    let mut told = site.master_time().await;
    for (jump, reboot) in [(-3600, false), (-60, true), (-86_400, true), (7200, false)] {
        site.stop_master().await;
        site.clock.jump(jump);
        if reboot {
            site.clock.reboot();
        }
        site.start_master().await;
        let now = site.master_time().await;
        assert!(now >= told, "{jump}: {told} and then {now}");
        told = now;
    }
}

#[tokio::test(start_paused = true)]
async fn the_masters_time_does_not_go_back_to_before_what_a_restored_store_has() {
    let (site, _oslo) = with_oslo().await;
    let snapshot = site.snapshot().await;
    let told = site.master_time().await;
    site.stop_master().await;
    site.lose_journal_and_restore(&snapshot);
    std::fs::remove_file(site.data_dir().join("clock.json")).unwrap();
    site.clock.reboot();
    site.clock.jump(-86_400);
    site.start_master().await;
    let now = site.master_time().await;
    assert!(now >= told, "{told} and then {now}");
    assert!(site.master_clock().await.held);
}

#[tokio::test(start_paused = true)]
async fn a_jump_of_the_masters_clock_is_an_alarm_and_nothing_is_approved_until_the_clocks_agree() {
    let site = Site::new().await;
    let (oslo, bern) = (site.enroll("oslo").await, site.enroll("bern").await);
    let network = site.governed_network_on(&oslo).await;
    site.ban("bern", "a story").await;
    for jump in [61, -3600, 40 * 86_400] {
        site.clock.jump(jump);
        let told = site.master_time().await;
        assert!(
            told.duration_since(oslo.clock.now()).abs().as_secs() <= 1,
            "{told}"
        );
        let refused = [
            site.try_bundle("rome").await.map(drop),
            site.try_another_bundle("oslo", false).await.map(drop),
            site.try_admit(network, oslo.node).await,
            site.try_unban("bern").await,
        ];
        for refusal in refused {
            let refusal = refusal.unwrap_err();
            assert_eq!(refusal.code(), Code::FailedPrecondition);
            assert!(
                refusal.message().contains("picketctl clock accept"),
                "{}",
                refusal.message()
            );
        }
        site.wait(Duration::from_secs(5)).await;
        site.clock.jump(-jump);
        site.wait(Duration::from_secs(5)).await;
    }
    assert_eq!(site.events("clock.jumped").await.len(), 3);
    assert_eq!(site.events("clock.agreed").await.len(), 3);
    site.try_admit(network, oslo.node).await.unwrap();
    site.unban("bern").await;
    drop(bern);
}

#[tokio::test(start_paused = true)]
async fn what_takes_something_away_goes_on_while_the_masters_clock_is_not_believed() {
    let site = Site::new().await;
    let oslo = site.enroll("oslo").await;
    let network = site.governed_network_on(&oslo).await;
    site.admit(network, oslo.node).await;
    site.clock.jump(3600);
    site.revoke(network, oslo.node).await;
    site.ban("oslo", "stolen").await;
    oslo.until(State::Banned).await;
    site.retire("oslo", "stolen").await;
}

#[tokio::test(start_paused = true)]
async fn no_certificate_ends_by_a_clock_that_jumped_and_hosts_go_on_renewing() {
    let (site, oslo) = with_oslo().await;
    let before = site.current_pin("oslo").await;
    site.clock.jump(20 * 24 * 3600);
    site.until_event("clock.jumped").await;
    oslo.restart().await;
    oslo.until(State::Connected).await;
    assert_eq!(site.current_pin("oslo").await, before);
    site.clock.sleep(5 * DAY);
    site.wait(Duration::from_secs(120)).await;
    back(&site, &oslo, &before).await;
    assert!(site.master_clock().await.held);
    assert_eq!(site.events("host.renewed-expired").await, []);
    assert_eq!(site.events("clock.jumped").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_operator_accepts_a_clock_that_jumped_ahead_and_the_master_follows_it() {
    let (site, oslo) = with_oslo().await;
    site.clock.jump(7200);
    site.until_event("clock.jumped").await;
    let clock = site.try_accept_clock(false).await.unwrap();
    assert!(!clock.held);
    assert_eq!(site.master_time().await, site.clock.now());
    site.until_event("clock.accepted").await;
    assert_eq!(site.in_journal("clock.accept"), 1);
    site.try_accept_clock(false).await.unwrap();
    assert_eq!(site.in_journal("clock.accept"), 1, "twice changes nothing");
    site.bundle("rome").await;
    // It was the right time.
    oslo.clock.jump(7200);
    site.office.jump(7200);
    site.restart_master().await;
    assert!(!site.master_clock().await.held, "also after a restart");
    site.until("oslo", Online).await;
}

#[tokio::test(start_paused = true)]
async fn accepting_a_clock_that_went_back_makes_the_masters_time_stand_still_until_it_has_caught_up() {
    let (site, _oslo) = with_oslo().await;
    site.clock.jump(-600);
    site.until_event("clock.jumped").await;
    let stood = site.master_time().await;
    site.try_accept_clock(false).await.unwrap();
    site.wait(Duration::from_secs(300)).await;
    let now = site.master_time().await;
    assert!(
        now >= stood && now.duration_since(stood).as_secs() <= 2,
        "{stood} and then {now}"
    );
    site.bundle("rome").await;
    site.wait(Duration::from_secs(400)).await;
    assert_eq!(site.master_time().await, site.clock.now());
}

#[tokio::test(start_paused = true)]
async fn the_masters_time_goes_back_when_an_operator_says_so_and_stays_there_over_a_restart() {
    let (site, _oslo) = with_oslo().await;
    // Back to when there was a CA already.
    site.wait(HOUR).await;
    site.clock.jump(-20 * 60);
    site.until_event("clock.jumped").await;
    site.try_accept_clock(true).await.unwrap();
    assert_eq!(site.master_time().await, site.clock.now());
    site.restart_master().await;
    assert_eq!(site.master_time().await, site.clock.now());
    assert!(!site.master_clock().await.held);
}

#[tokio::test(start_paused = true)]
async fn a_jump_while_the_master_was_down_is_an_alarm_when_it_is_back() {
    let (site, _oslo) = with_oslo().await;
    site.stop_master().await;
    site.clock.jump(86_400);
    site.start_master().await;
    let alarm = site.until_event("clock.jumped").await;
    assert!(alarm.message.contains("ahead by 86400 s"), "{}", alarm.message);
    assert!(site.master_clock().await.held_since.is_some());
}
