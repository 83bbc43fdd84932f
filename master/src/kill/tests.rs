use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Of a member whose controller and agent have done what they can, and that nobody witnesses.
fn cut() -> Sight {
    Sight {
        controller: Controller::Denies,
        agent: Agent::Off,
        carries_session: false,
        silence: Silence::Unwitnessed,
        window: WINDOW,
    }
}

#[test]
fn a_member_that_is_deauthorized_and_left_is_done_at_once() {
    let (times, standing) = weigh(Times::default(), &cut(), at(5));
    assert!(standing.done);
    assert_eq!(standing.deauthorized, Proof::Confirmed(at(5)));
    assert_eq!(standing.left, Proof::Confirmed(at(5)));
    assert_eq!(standing.unconfirmed_until, None);
    let (later, _) = weigh(times, &cut(), at(99));
    assert_eq!(later, times, "a proof keeps the time at which it was there");
}

#[test]
fn nothing_is_proven_by_who_was_not_told_yet() {
    let untold = Sight {
        controller: Controller::Untold,
        agent: Agent::Untold,
        silence: Silence::Unknown,
        ..cut()
    };
    let (times, standing) = weigh(Times::default(), &untold, at(5));
    assert_eq!(times, Times::default());
    assert_eq!(
        (standing.deauthorized, standing.left, standing.silent),
        (Proof::Waiting, Proof::Waiting, Proof::Waiting)
    );
    assert!(!standing.done);
}

#[test]
fn one_that_nobody_can_ask_or_witness_is_unconfirmed_until_its_credential_has_ended() {
    let external = Sight {
        agent: Agent::Nobody,
        ..cut()
    };
    let (times, standing) = weigh(Times::default(), &external, at(0));
    assert_eq!(standing.unconfirmed_until, Some(at(1800)));
    assert_eq!(
        (standing.left, standing.silent, standing.done),
        (Proof::None, Proof::None, false)
    );
    assert!(!weigh(times, &external, at(1799)).1.done);
    assert!(weigh(times, &external, at(1800)).1.done);
}

#[test]
fn silence_proves_what_the_end_of_a_credential_would() {
    let silent = Sight {
        agent: Agent::Nobody,
        silence: Silence::Silent,
        ..cut()
    };
    let (_, standing) = weigh(Times::default(), &silent, at(0));
    assert!(standing.done);
    assert_eq!(standing.unconfirmed_until, None);
}

#[test]
fn one_that_still_answers_is_not_done_whatever_its_agent_says_and_however_long_it_takes() {
    let answers = Sight {
        silence: Silence::Answers("oslo".into()),
        ..cut()
    };
    let (times, standing) = weigh(Times::default(), &answers, at(0));
    assert!(!standing.done);
    assert!(
        standing.problem.contains("still answers oslo"),
        "{}",
        standing.problem
    );
    assert!(!weigh(times, &answers, at(100_000)).1.done);
}

#[test]
fn an_offline_host_is_waited_for_past_the_end_of_its_credential() {
    let offline = Sight {
        agent: Agent::Away("bern is not connected".into()),
        ..cut()
    };
    let (times, standing) = weigh(Times::default(), &offline, at(0));
    assert_eq!(standing.left, Proof::Unreachable);
    assert_eq!(standing.problem, "bern is not connected");
    let (times, standing) = weigh(times, &offline, at(10_000));
    assert!(!standing.done);
    assert!(weigh(times, &cut(), at(10_001)).1.done);
}

#[test]
fn a_banned_host_is_not_waited_for_and_shows_that_it_never_said() {
    let banned = Sight {
        agent: Agent::Cut("bern is banned".into()),
        ..cut()
    };
    let (times, standing) = weigh(Times::default(), &banned, at(0));
    assert_eq!((standing.left, standing.done), (Proof::Unreachable, false));
    assert!(weigh(times, &banned, at(1800)).1.done);
}

#[test]
fn a_controller_that_goes_away_takes_no_proof_back() {
    let away = Sight {
        controller: Controller::Away("oslo is not connected".into()),
        ..cut()
    };
    assert_eq!(
        weigh(Times::default(), &away, at(0)).1.deauthorized,
        Proof::Unreachable
    );
    let (times, _) = weigh(Times::default(), &cut(), at(1));
    let (_, standing) = weigh(times, &away, at(2));
    assert_eq!(standing.deauthorized, Proof::Confirmed(at(1)));
    assert!(standing.done);
}

#[test]
fn one_that_is_authorized_again_is_proven_no_more_and_says_why_until_it_is_taken_back() {
    let again = Sight {
        controller: Controller::Authorizes,
        ..cut()
    };
    let (times, standing) = weigh(Times::default(), &again, at(0));
    assert_eq!(standing.problem, "", "it was not deauthorized before");
    let (times, _) = weigh(times, &cut(), at(1));
    let (times, standing) = weigh(times, &again, at(2));
    assert_eq!((standing.deauthorized, standing.done), (Proof::Waiting, false));
    let (times, standing) = weigh(times, &again, at(3));
    assert!(
        standing.problem.contains("outside Picket"),
        "{}",
        standing.problem
    );
    let (_, standing) = weigh(times, &cut(), at(4));
    assert_eq!(standing.deauthorized, Proof::Confirmed(at(4)));
    assert_eq!(standing.problem, "");
}

#[test]
fn a_network_joined_by_hand_is_not_left_and_that_is_said() {
    let by_hand = Sight {
        agent: Agent::ByHand("bern".into()),
        ..cut()
    };
    let (times, standing) = weigh(Times::default(), &by_hand, at(0));
    assert_eq!((standing.left, standing.done), (Proof::None, false));
    assert!(standing.problem.contains("by hand"), "{}", standing.problem);
    assert!(weigh(times, &by_hand, at(1800)).1.done);
}

#[test]
fn that_our_own_path_is_cut_is_said_while_it_is_and_after_it_was() {
    let path = Sight {
        agent: Agent::On,
        carries_session: true,
        ..cut()
    };
    let (times, standing) = weigh(Times::default(), &path, at(0));
    assert!(
        standing.problem.contains("cuts our own path"),
        "{}",
        standing.problem
    );
    let gone = Sight {
        agent: Agent::Away("bern is not connected".into()),
        ..cut()
    };
    let (_, standing) = weigh(times, &gone, at(1));
    assert!(
        standing.problem.contains("went over this network"),
        "{}",
        standing.problem
    );
}

fn host() -> HostSight {
    HostSight {
        made: true,
        banned: true,
        session: false,
        deckies: Some(2),
        wanted: 2,
    }
}

#[test]
fn a_killed_host_is_banned_when_its_session_is_cut_and_its_deckies_are_nobodys_word() {
    let open = HostSight {
        session: true,
        ..host()
    };
    let (times, standing) = weigh_host(HostTimes::default(), open, "bern", at(0));
    assert_eq!(
        (standing.banned, standing.shard_removed),
        (Proof::Waiting, Proof::Waiting)
    );
    let (times, standing) = weigh_host(times, host(), "bern", at(1));
    assert_eq!(
        (standing.banned, standing.shard_removed),
        (Proof::Confirmed(at(1)), Proof::Unreachable)
    );
    assert!(
        standing.cautions[0].contains("2 deckies"),
        "{:?}",
        standing.cautions
    );
    let none = HostSight {
        deckies: Some(0),
        ..host()
    };
    let (_, standing) = weigh_host(times, none, "bern", at(2));
    assert_eq!(standing.banned, Proof::Confirmed(at(1)));
    assert_eq!(standing.shard_removed, Proof::Confirmed(at(2)));
}

#[test]
fn a_host_that_somebody_let_in_again_is_not_said_to_be_banned() {
    let (times, _) = weigh_host(HostTimes::default(), host(), "bern", at(0));
    let let_in = HostSight {
        banned: false,
        session: true,
        ..host()
    };
    let (_, standing) = weigh_host(times, let_in, "bern", at(1));
    assert_eq!(standing.banned, Proof::None);
    assert!(standing.cautions[0].contains("host unban"));
    let drilled = HostSight {
        made: false,
        ..let_in
    };
    let (_, standing) = weigh_host(HostTimes::default(), drilled, "bern", at(1));
    assert!(
        standing.cautions.is_empty(),
        "nobody was banned to be let in: {:?}",
        standing.cautions
    );
}
