//! What time it is, judged from two clocks: the wall clock, which anybody may set, and the time since the machine
//! started, which nobody can.
//!
//! Plain functions. As long as the two move together the wall clock is followed; when it jumps against boot time it is
//! not, and time goes on by boot time from the last good moment. Whatever the clocks do, the time told never goes back.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The wall clock may move against boot time by this much; more is a jump.
pub const MOST_JUMP: SignedDuration = SignedDuration::from_secs(60);
/// For so long the two are compared with the same moment. A wall clock that is stepped a little and often would be
/// followed anywhere if each look were compared with the one before.
pub const ANCHOR: Duration = Duration::from_secs(3600);
/// How far ahead of the time told a promise goes that is kept on disk: what was told before a crash is below it.
pub const PROMISE: SignedDuration = SignedDuration::from_secs(60);

/// Both clocks of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The wall clock.
    pub wall: Timestamp,
    /// Since the machine started, suspended time included.
    pub boot: Duration,
}

/// What is known of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// A moment at which the wall clock was right.
    pub anchor: Reading,
    /// The time that was told last, and when.
    pub told: Reading,
}

/// Whether the wall clock is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It moves with boot time.
    Agreed,
    /// It jumped by so much, ahead when positive. The time told goes on by boot time.
    Jumped(SignedDuration),
}

/// What is kept on disk for the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What was known.
    pub known: Known,
    /// No later time was told before this was replaced.
    pub promised: Timestamp,
    /// Whether the wall clock was not believed.
    pub held: bool,
    /// Which start of the machine boot times count from.
    pub boot_id: String,
}

/// Which way an operator takes a wall clock that is behind the time told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// The time told stands still until the wall clock has caught up.
    StandStill,
    /// The time told goes back to the wall clock. Only an operator's word does that.
    GoBack,
}

/// Judges one moment: returns what is known after it, whose `told` is the time, and whether the wall clock is believed.
#[must_use]
pub fn judge(wall: Timestamp, boot: Duration, before: &Known) -> (Known, Verdict) {
    let Known { anchor, told } = *before;
    let off = wall.duration_since(later(anchor.wall, boot, anchor.boot));
    if off.abs() <= MOST_JUMP {
        let fresh = boot.saturating_sub(anchor.boot) < ANCHOR;
        let known = Known {
            anchor: if fresh { anchor } else { Reading { wall, boot } },
            told: Reading {
                wall: wall.max(told.wall),
                boot,
            },
        };
        return (known, Verdict::Agreed);
    }
    let told = Reading {
        wall: later(told.wall, boot, told.boot),
        boot: boot.max(told.boot),
    };
    (Known { anchor, told }, Verdict::Jumped(off))
}

/// What is known at a start: from what was kept by the run before, and from `floor`, a time that was certainly told.
#[must_use]
pub fn begin(now: Reading, boot_id: &str, kept: Option<&Kept>, floor: Option<Timestamp>) -> Known {
    let floor = floor.unwrap_or(Timestamp::MIN);
    let known = match kept {
        // The machine has not been started anew: boot time tells how long the master was away.
        Some(kept) if kept.boot_id == boot_id && !boot_id.is_empty() && now.boot >= kept.known.told.boot => {
            judge(now.wall, now.boot, &kept.known).0
        }
        Some(kept) => anew(now, floor.max(kept.promised), kept.held),
        None => anew(now, floor, false),
    };
    if floor > known.told.wall {
        return anew(now, floor, false);
    }
    known
}

/// What is known on a machine that was started anew. Nobody knows how long it was off, so a wall clock that is ahead of
/// the last time told is believed, unless it was not believed before.
fn anew(now: Reading, floor: Timestamp, held: bool) -> Known {
    let behind = floor.duration_since(now.wall) > MOST_JUMP;
    Known {
        anchor: Reading {
            wall: if behind || held { floor } else { now.wall },
            boot: now.boot,
        },
        told: Reading {
            wall: if held { floor } else { now.wall.max(floor) },
            boot: now.boot,
        },
    }
}

/// Takes the wall clock for right, as an operator said.
#[must_use]
pub fn accept(now: Reading, before: &Known, back: Back) -> Known {
    let wall = match back {
        Back::StandStill => now.wall.max(judge(now.wall, now.boot, before).0.told.wall),
        Back::GoBack => now.wall,
    };
    Known {
        anchor: now,
        told: Reading { wall, boot: now.boot },
    }
}

/// `from`, as much later as boot time went on.
fn later(from: Timestamp, boot: Duration, since: Duration) -> Timestamp {
    let run = SignedDuration::try_from(boot.saturating_sub(since)).unwrap_or(SignedDuration::MAX);
    from.saturating_add(run).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn at(wall: i64, boot: u64) -> Reading {
        Reading {
            wall: NOON + SignedDuration::from_secs(wall),
            boot: Duration::from_secs(boot),
        }
    }

    /// A master that runs, on a machine whose clocks the test sets.
    struct Master {
        known: Known,
        verdict: Verdict,
        boot_id: String,
    }

    impl Master {
        fn new() -> Self {
            Self {
                known: begin(at(0, 100), "one", None, None),
                verdict: Verdict::Agreed,
                boot_id: "one".to_owned(),
            }
        }

        fn look(&mut self, now: Reading) -> i64 {
            (self.known, self.verdict) = judge(now.wall, now.boot, &self.known);
            self.told()
        }

        /// The time told, in seconds since noon.
        fn told(&self) -> i64 {
            self.known.told.wall.duration_since(NOON).as_secs()
        }

        fn restart(&mut self, now: Reading, boot_id: &str, kept: bool) {
            let before = Kept {
                known: self.known,
                promised: self.known.told.wall + PROMISE,
                held: self.verdict != Verdict::Agreed,
                boot_id: self.boot_id.clone(),
            };
            let floor = (!kept).then_some(self.known.told.wall);
            self.known = begin(now, boot_id, kept.then_some(&before), floor);
            boot_id.clone_into(&mut self.boot_id);
            self.look(now);
        }
    }

    #[test]
    fn a_wall_clock_that_moves_with_boot_time_is_followed() {
        let mut master = Master::new();
        for second in [0, 1, 3600, 3_000_000] {
            assert_eq!(
                master.look(at(second, 100 + u64::try_from(second).unwrap())),
                second
            );
            assert_eq!(master.verdict, Verdict::Agreed);
        }
    }

    #[test]
    fn a_suspended_machine_did_not_jump() {
        let mut master = Master::new();
        // Eight days: the wall clock and boot time count them alike.
        assert_eq!(master.look(at(8 * 86_400, 100 + 8 * 86_400)), 8 * 86_400);
        assert_eq!(master.verdict, Verdict::Agreed);
    }

    #[test]
    fn a_jump_of_more_than_60_seconds_is_not_followed_and_time_goes_on_by_boot_time() {
        for jump in [61, -61, 86_400, -86_400] {
            let mut master = Master::new();
            master.look(at(10, 110));
            assert_eq!(master.look(at(20 + jump, 120)), 20);
            assert_eq!(master.verdict, Verdict::Jumped(SignedDuration::from_secs(jump)));
            assert_eq!(master.look(at(5020 + jump, 5120)), 5020);
            assert_eq!(master.look(at(5021, 5121)), 5021, "the clocks agree again");
            assert_eq!(master.verdict, Verdict::Agreed);
        }
    }

    #[test]
    fn a_step_of_up_to_60_seconds_is_followed_ahead_at_once_and_back_by_standing_still() {
        let mut master = Master::new();
        assert_eq!(master.look(at(60, 100)), 60);
        assert_eq!(master.look(at(0, 100)), 60);
        assert_eq!(master.look(at(30, 130)), 60);
        assert_eq!(master.look(at(61, 161)), 61);
        assert_eq!(master.verdict, Verdict::Agreed);
    }

    #[test]
    fn many_small_steps_are_a_jump_all_the_same() {
        let mut master = Master::new();
        let looks = (1..=10).map(|n| {
            master.look(at(50 * n, 100 + u64::try_from(n).unwrap()));
            master.verdict
        });
        assert!(looks.last().is_some_and(|verdict| verdict != Verdict::Agreed));
        assert!(master.told() <= 70, "{}", master.told());
    }

    #[test]
    fn a_clock_that_loses_two_seconds_an_hour_is_followed_for_ever() {
        let mut master = Master::new();
        for hour in 1..10_000_i64 {
            let wall = hour * 3598;
            assert_eq!(
                master.look(at(wall, 100 + u64::try_from(hour * 3600).unwrap())),
                wall
            );
        }
        assert_eq!(master.verdict, Verdict::Agreed);
    }

    #[test]
    fn a_jump_while_the_master_was_down_is_noticed_at_its_start() {
        let mut master = Master::new();
        master.look(at(10, 110));
        master.restart(at(86_400, 170), "one", true);
        assert!(matches!(master.verdict, Verdict::Jumped(_)));
        assert_eq!(master.told(), 70);
    }

    #[test]
    fn a_machine_that_was_off_for_a_year_is_believed_and_one_whose_clock_went_back_is_not() {
        let mut master = Master::new();
        master.restart(at(365 * 86_400, 5), "two", true);
        assert_eq!((master.verdict, master.told()), (Verdict::Agreed, 365 * 86_400));
        master.restart(at(0, 5), "three", true);
        assert!(matches!(master.verdict, Verdict::Jumped(_)));
        assert!(master.told() >= 365 * 86_400);
    }

    #[test]
    fn a_reboot_makes_nobody_believe_a_clock_that_was_not_believed() {
        let mut master = Master::new();
        master.look(at(86_400, 101));
        master.restart(at(86_420, 5), "two", true);
        assert!(matches!(master.verdict, Verdict::Jumped(_)));
        assert!(master.told() < 100, "{}", master.told());
    }

    #[test]
    fn an_accepted_clock_is_followed_and_one_that_is_behind_makes_time_stand_still() {
        let mut master = Master::new();
        master.look(at(86_400, 100));
        master.known = accept(at(86_401, 101), &master.known, Back::StandStill);
        assert_eq!(master.look(at(86_402, 102)), 86_402);
        master.look(at(0, 103));
        master.known = accept(at(0, 103), &master.known, Back::StandStill);
        assert_eq!(master.look(at(100, 203)), 86_403);
        assert_eq!(master.verdict, Verdict::Agreed);
        assert_eq!(master.look(at(86_404, 203 + 86_304)), 86_404);
    }

    #[test]
    fn time_goes_back_on_an_operators_word_alone() {
        let mut master = Master::new();
        master.look(at(86_400, 100 + 86_400));
        master.look(at(0, 101 + 86_400));
        master.known = accept(at(1, 102 + 86_400), &master.known, Back::GoBack);
        assert_eq!(master.look(at(2, 103 + 86_400)), 2);
    }

    /// What may happen to a machine's clocks.
    #[derive(Debug, Clone)]
    enum Act {
        /// Time passes.
        Run(u32),
        /// The wall clock is set.
        Set(i32),
        /// An operator accepts it.
        Accept,
        /// The master starts again, with or without its file.
        Restart(bool),
        /// The machine starts again after a while.
        Reboot(u32),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => (0_u32..100_000).prop_map(Act::Run),
            3 => (-200_i32..200).prop_map(Act::Set),
            2 => (-100_000_000_i32..100_000_000).prop_map(Act::Set),
            1 => Just(Act::Accept),
            1 => any::<bool>().prop_map(Act::Restart),
            1 => (0_u32..1000).prop_map(Act::Reboot),
        ];
        proptest::collection::vec(act, 1..60)
    }

    proptest! {
        #[test]
        fn now_never_goes_back_whatever_the_clocks_do_and_however_often_the_master_starts(acts in acts()) {
            let mut master = Master::new();
            let (mut wall, mut boot, mut boots) = (0_i64, 100_u64, 0_u32);
            let mut told = master.told();
            for act in acts {
                match act {
                    Act::Run(seconds) => {
                        wall += i64::from(seconds);
                        boot += u64::from(seconds);
                    }
                    Act::Set(by) => wall += i64::from(by),
                    Act::Accept => {
                        master.known = accept(at(wall, boot), &master.known, Back::StandStill);
                    }
                    Act::Restart(kept) => {
                        let id = master.boot_id.clone();
                        master.restart(at(wall, boot), &id, kept);
                    }
                    Act::Reboot(off) => {
                        boots += 1;
                        wall += i64::from(off);
                        boot = 3;
                        master.restart(at(wall, boot), &format!("boot {boots}"), true);
                    }
                }
                let before = std::mem::replace(&mut told, master.look(at(wall, boot)));
                prop_assert!(told >= before, "{before} and then {told}");
            }
        }

        #[test]
        fn an_accepted_clock_is_the_time_once_it_has_caught_up(jump in -1_000_000_i32..1_000_000) {
            let mut master = Master::new();
            let jump = i64::from(jump);
            master.look(at(jump, 100));
            master.known = accept(at(jump, 100), &master.known, Back::StandStill);
            let later = 2_000_000;
            let boot = 100 + u64::try_from(later).unwrap();
            prop_assert_eq!(master.look(at(jump + later, boot)), jump + later);
        }
    }
}
