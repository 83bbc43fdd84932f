//! Waiting until a controller says what was decided of a member.

use std::time::Duration;

use picket_proto::wire::admin as wire;
use tokio::time;

use super::{
    Patience, Which, show,
    view::{Decision, Member, Observation},
};
use crate::{
    desk::Desk,
    fault::{About, Fault},
    progress::Progress,
    words::count,
};

/// How often the master is asked what the controller says by now.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What a change was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    Admitted,
    Activated,
    Ended,
    Revoked,
}

/// How far a change has come.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// The controller says what was wanted.
    True,
    /// It does not say so yet.
    NotYet(&'static str),
    /// Something else decides against it, so that waiting is in vain.
    Overruled,
}

/// Whether a change lets a node on or takes it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    On,
    Off,
}

impl Aim {
    fn way(self) -> Way {
        match self {
            Self::Admitted | Self::Activated => Way::On,
            Self::Ended | Self::Revoked => Way::Off,
        }
    }

    fn standing(self, member: &Member) -> Standing {
        match (self.way(), member.decision, member.observed) {
            (Way::On, Decision::Denied, _) | (Way::Off, Decision::Authorized, _) => Standing::Overruled,
            (Way::On, _, Observation::Authorized) => Standing::True,
            (Way::Off, _, Observation::Deauthorized | Observation::Absent) => Standing::True,
            (Way::On, _, Observation::Deauthorized) => {
                Standing::NotYet("the controller still has it deauthorized")
            }
            (Way::On, _, Observation::Absent) => Standing::NotYet("the controller has no record of it"),
            (Way::Off, _, Observation::Authorized) => {
                Standing::NotYet("the controller still has it authorized")
            }
            (_, _, Observation::Unknown) => Standing::NotYet("the controller's agent has not reported"),
        }
    }

    /// `5f3c (laptop) is ...`.
    fn word(self, member: &Member) -> String {
        let network = &member.network_id;
        match self {
            Self::Admitted => format!("admitted to {network}{}", member.until_when()),
            Self::Activated => format!("activated on {network}{}", member.until_when()),
            Self::Ended => format!("no longer activated on {network}"),
            Self::Revoked => format!("revoked from {network}"),
        }
    }
}

/// Waits until the controller says what was decided, and says what is confirmed and what is not.
pub(super) async fn until_true(
    desk: &mut Desk,
    mut member: Member,
    aim: Aim,
    patience: Patience,
) -> Result<(), Fault> {
    let Patience { wait, within } = patience;
    let (label, word) = (member.label(), aim.word(&member));
    if wait.no_wait {
        let sentence = format!("{label} is {word}: recorded, and not confirmed by the controller");
        return desk.print.done(&member, &sentence);
    }
    let which = Which {
        node: member.node_id.clone(),
        network: member.network_id.clone(),
    };
    let look = format!(
        "`picketctl member show {} --network {}`",
        which.node, which.network
    );
    let mut progress = Progress::begin(&desk.clock, &desk.print);
    let waited = loop {
        let missing = match aim.standing(&member) {
            Standing::True => break Ok(()),
            Standing::Overruled => {
                break Err(Fault::NotYet(format!(
                    "{label} was {word}, and that is overruled: {}; see {look}",
                    member.because
                )));
            }
            Standing::NotYet(missing) => missing,
        };
        if progress.elapsed(&desk.clock) >= within {
            let next = match held_back(desk, &which.network).await {
                0 => "the master goes on by itself".to_owned(),
                held => braked(held, &which.network),
            };
            break Err(Fault::NotYet(format!(
                "{label} is {word}: recorded, and after {within:?} {missing}; {next}, look with {look}"
            )));
        }
        progress.tell(&desk.clock, &mut desk.print, [(label.as_str(), missing)]);
        time::sleep(ASK_EVERY).await;
        member = match show(desk, &which).await {
            Ok(member) => member,
            Err(fault) => break Err(fault),
        };
    };
    progress.end();
    waited?;
    let confirmed = match aim.way() {
        Way::On => {
            "the controller authorizes it; its own status shows that at its next report, which can take a minute"
        }
        Way::Off => {
            "the controller has deauthorized it; its own status can lag about a minute, and members it talks to directly may hear it until its credential ends"
        }
    };
    let sentence = format!("{label} is {word}: {confirmed}");
    desk.print.done(&member, &sentence)
}

/// How many repairs the brake of a network holds back; 0 too where the caller may not know.
async fn held_back(desk: &mut Desk, network: &str) -> u32 {
    let about = About::reading("list the networks", "picketctl network list");
    let listed = async {
        let mut networks = desk.networks().await?;
        desk.call(&about, networks.list_networks(wire::ListNetworksRequest {}))
            .await
    };
    // It is only for a better word to somebody who waited in vain.
    let listed = listed.await.map(|answer| answer.networks).unwrap_or_default();
    let found = listed.iter().find(|listed| listed.id == network);
    found.map_or(0, |network| network.held_back)
}

fn braked(held: u32, network: &str) -> String {
    let held = count(
        usize::try_from(held).unwrap_or(usize::MAX),
        "repair is",
        "repairs are",
    );
    format!(
        "{held} held back by the network's brake until `picketctl network resume {network} --reason ...` (`picketctl network \
         reconcile {network} --dry-run` says which)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(decision: wire::MemberDecision, observed: wire::MemberObservation) -> Member {
        Member::from(wire::Member {
            decision: decision.into(),
            observed: observed.into(),
            ..wire::Member::default()
        })
    }

    const LETS_ON: [Aim; 2] = [Aim::Admitted, Aim::Activated];
    const TAKES_OFF: [Aim; 2] = [Aim::Ended, Aim::Revoked];

    #[test]
    fn nothing_is_true_until_the_controller_says_so() {
        use wire::{MemberDecision::*, MemberObservation as Seen};
        for (aims, decision) in [(LETS_ON, Authorized), (TAKES_OFF, Denied)] {
            for aim in aims {
                let standing = aim.standing(&member(decision, Seen::Unknown));
                assert!(matches!(standing, Standing::NotYet(_)), "{aim:?}: {standing:?}");
            }
        }
        for aim in LETS_ON {
            let standing = aim.standing(&member(Authorized, Seen::Authorized));
            assert_eq!(standing, Standing::True);
        }
        for (aim, gone) in TAKES_OFF.into_iter().zip([Seen::Deauthorized, Seen::Absent]) {
            assert_eq!(aim.standing(&member(Denied, gone)), Standing::True);
        }
    }

    #[test]
    fn a_decision_that_somebody_else_turned_round_is_not_waited_for() {
        use wire::{MemberDecision::*, MemberObservation as Seen};
        for observed in [Seen::Authorized, Seen::Deauthorized, Seen::Unknown] {
            for aim in LETS_ON {
                assert_eq!(aim.standing(&member(Denied, observed)), Standing::Overruled);
            }
            for aim in TAKES_OFF {
                assert_eq!(aim.standing(&member(Authorized, observed)), Standing::Overruled);
            }
        }
    }
}
