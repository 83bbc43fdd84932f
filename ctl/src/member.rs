//! `picketctl member`: who may be on a network.

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use picket_proto::wire::admin as wire;
use serde::Serialize;
use tokio::time;

use crate::{
    cli::{Wait, Watch, span},
    desk::Desk,
    fault::{About, Fault},
    print::{Cell, Named, Page, Row, Tone, View},
    progress::Progress,
    words::filled,
};

/// How often the master is asked what the controller says by now.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A node on a network.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// A node id (10 digits) or the name of a host
    node: String,
    /// The network's id
    #[arg(long, value_name = "ID")]
    network: String,
}

/// A change of who may be there.
#[derive(Debug, Args)]
pub(crate) struct Decide {
    #[command(flatten)]
    which: Which,
    /// Why
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    wait: Wait,
    /// How long to wait for the controller
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = span)]
    within: Duration,
}

/// What can be done with members.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the members of a network: granted, revoked and unknown ones
    #[command(after_help = "Example:\n  picketctl member list --network 8056c2e21c000001 --watch")]
    List {
        /// The network's id
        #[arg(long, value_name = "ID")]
        network: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one node on one network, and why it may or may not be there
    #[command(after_help = "Example:\n  picketctl member show edge-07 --network 8056c2e21c000001")]
    Show(Which),
    /// Let a node onto a network, and wait until its controller says so
    #[command(
        after_help = "Examples:\n  picketctl member admit edge-07 --network 8056c2e21c000001 --reason 'new outpost'\n  \
        picketctl member admit d3adb33f00 --network 8056c2e21c000001 --reason laptop --no-wait"
    )]
    Admit(Decide),
    /// Take a node off a network, and wait until its controller says so
    #[command(
        after_help = "Example:\n  picketctl member revoke edge-07 --network 8056c2e21c000001 --reason 'site closed'"
    )]
    Revoke(Decide),
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::List { network, watch } => {
            desk.list(watch.watch, async |desk: &mut Desk| {
                let about =
                    About::reading(format!("list the members of {network}"), "picketctl network list");
                let request = wire::ListMembersRequest {
                    network_id: network.clone(),
                };
                let mut members = desk.members().await?;
                let answer = desk.call(&about, members.list_members(request)).await?;
                Ok(answer.members.into_iter().map(Member::from).collect())
            })
            .await
        }
        Verb::Show(which) => {
            let member = show(desk, &which).await?;
            desk.print.show(&member, desk.clock.now())
        }
        Verb::Admit(decide) => {
            let Decide {
                which,
                reason,
                wait,
                within,
            } = decide;
            let about = About::changing(format!("admit {} to {}", which.node, which.network), see(&which));
            let request = wire::AdmitMemberRequest {
                network_id: which.network.clone(),
                node: which.node.clone(),
                reason,
                lasts: None,
            };
            let mut members = desk.members().await?;
            let answer = desk.call(&about, members.admit_member(request)).await?;
            let member = Member::from(answer.member.unwrap_or_default());
            follow(desk, member, Aim::Admitted, wait, within).await
        }
        Verb::Revoke(decide) => {
            let Decide {
                which,
                reason,
                wait,
                within,
            } = decide;
            let about = About::changing(
                format!("revoke {} from {}", which.node, which.network),
                see(&which),
            );
            let request = wire::RevokeMemberRequest {
                network_id: which.network.clone(),
                node: which.node.clone(),
                reason,
            };
            let mut members = desk.members().await?;
            let answer = desk.call(&about, members.revoke_member(request)).await?;
            let member = Member::from(answer.member.unwrap_or_default());
            follow(desk, member, Aim::Revoked, wait, within).await
        }
    }
}

fn see(which: &Which) -> String {
    format!("picketctl member list --network {}", which.network)
}

async fn show(desk: &mut Desk, which: &Which) -> Result<Member, Fault> {
    let about = About::reading(format!("show {} on {}", which.node, which.network), see(which));
    let request = wire::GetMemberRequest {
        network_id: which.network.clone(),
        node: which.node.clone(),
    };
    let mut members = desk.members().await?;
    let answer = desk.call(&about, members.get_member(request)).await?;
    Ok(Member::from(answer.member.unwrap_or_default()))
}

/// What a change was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Admitted,
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

impl Aim {
    fn standing(self, member: &Member) -> Standing {
        match (self, member.decision, member.observed) {
            (Self::Admitted, Decision::Denied, _) | (Self::Revoked, Decision::Authorized, _) => {
                Standing::Overruled
            }
            (Self::Admitted, _, Observation::Authorized) => Standing::True,
            (Self::Revoked, _, Observation::Deauthorized | Observation::Absent) => Standing::True,
            (Self::Admitted, _, Observation::Deauthorized) => {
                Standing::NotYet("the controller still has it deauthorized")
            }
            (Self::Admitted, _, Observation::Absent) => {
                Standing::NotYet("the controller has no record of it")
            }
            (Self::Revoked, _, Observation::Authorized) => {
                Standing::NotYet("the controller still has it authorized")
            }
            (_, _, Observation::Unknown) => Standing::NotYet("the controller's agent has not reported"),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Admitted => "admitted to",
            Self::Revoked => "revoked from",
        }
    }
}

/// Waits until the controller says what was decided, and says what is confirmed and what is not.
async fn follow(
    desk: &mut Desk,
    mut member: Member,
    aim: Aim,
    wait: Wait,
    within: Duration,
) -> Result<(), Fault> {
    let (label, network, word) = (member.label(), member.network_id.clone(), aim.word());
    if wait.no_wait {
        let sentence = format!("{label} is {word} {network}: recorded, and not confirmed by the controller");
        return desk.print.done(&member, &sentence);
    }
    let which = Which {
        node: member.node_id.clone(),
        network: network.clone(),
    };
    let mut progress = Progress::begin(&desk.clock, &desk.print);
    let waited = loop {
        let missing = match aim.standing(&member) {
            Standing::True => break Ok(()),
            Standing::Overruled => {
                break Err(Fault::NotYet(format!(
                    "{label} was {word} {network}, and that is overruled: {}; see `picketctl member show {} --network {network}`",
                    member.because, member.node_id
                )));
            }
            Standing::NotYet(missing) => missing,
        };
        if progress.elapsed(&desk.clock) >= within {
            break Err(Fault::NotYet(format!(
                "{label} is {word} {network}: recorded, and after {within:?} {missing}; the master goes on by itself, look with `picketctl member show {} --network {network}`",
                member.node_id
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
    let confirmed = match aim {
        Aim::Admitted => {
            "the controller authorizes it; its own status shows that at its next report, which can take a minute"
        }
        Aim::Revoked => {
            "the controller has deauthorized it; its own status can lag about a minute, and members it talks to directly may hear it until its credential ends"
        }
    };
    let sentence = format!("{label} is {word} {network}: {confirmed}");
    desk.print.done(&member, &sentence)
}

/// A node on a network.
#[derive(Debug, Serialize)]
pub(crate) struct Member {
    network_id: String,
    node_id: String,
    host: Option<String>,
    decision: Decision,
    because: String,
    observed: Observation,
    addresses: Vec<String>,
}

/// What the grants say of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Authorized,
    Denied,
    Unknown,
}

impl Decision {
    fn cell(self) -> Cell {
        match self {
            Self::Authorized => Cell::new("authorized", Tone::Good),
            Self::Denied => Cell::new("denied", Tone::Bad),
            Self::Unknown => Cell::new("unknown", Tone::Fair),
        }
    }
}

/// What the controller said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Observation {
    Authorized,
    Deauthorized,
    Absent,
    Unknown,
}

impl From<wire::Member> for Member {
    fn from(member: wire::Member) -> Self {
        let decision = match member.decision() {
            wire::MemberDecision::Authorized => Decision::Authorized,
            wire::MemberDecision::Denied => Decision::Denied,
            wire::MemberDecision::Unspecified | wire::MemberDecision::Unknown => Decision::Unknown,
        };
        let observed = match member.observed() {
            wire::MemberObservation::Authorized => Observation::Authorized,
            wire::MemberObservation::Deauthorized => Observation::Deauthorized,
            wire::MemberObservation::Absent => Observation::Absent,
            wire::MemberObservation::Unspecified | wire::MemberObservation::Unknown => Observation::Unknown,
        };
        Self {
            decision,
            observed,
            network_id: member.network_id,
            node_id: member.node_id,
            host: filled(member.host),
            because: member.because,
            addresses: member.addresses,
        }
    }
}

impl Member {
    /// The node, with its host where that is known.
    fn label(&self) -> String {
        match &self.host {
            Some(host) => format!("{} ({host})", self.node_id),
            None => self.node_id.clone(),
        }
    }

    /// What the controller says, with a tone that tells whether it agrees.
    fn observation(&self) -> Cell {
        let word = match self.observed {
            Observation::Authorized => "authorized",
            Observation::Deauthorized => "deauthorized",
            Observation::Absent => "absent",
            Observation::Unknown => return Cell::new("unknown", Tone::Dim),
        };
        let authorized = self.observed == Observation::Authorized;
        let tone = match self.decision {
            Decision::Unknown => Tone::Fair,
            Decision::Authorized if authorized => Tone::Good,
            Decision::Denied if !authorized => Tone::Good,
            Decision::Authorized | Decision::Denied => Tone::Bad,
        };
        Cell::new(word, tone)
    }
}

impl Named for Member {
    fn name(&self) -> String {
        self.node_id.clone()
    }
}

impl Row for Member {
    const NOUNS: &'static str = "members";
    const HEADERS: &'static [&'static str] = &[
        "NODE",
        "HOST",
        "DECISION",
        "CONTROLLER SAYS",
        "ADDRESSES",
        "BECAUSE",
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        vec![
            self.node_id.as_str().into(),
            Cell::or_dash(self.host.as_ref()),
            self.decision.cell(),
            self.observation(),
            Cell::or_dash(Some(self.addresses.join(","))),
            self.because.as_str().into(),
        ]
    }
}

impl View for Member {
    fn page(&self, _: Timestamp) -> Page {
        let mut page = Page::default();
        page.facts([
            ("Network", self.network_id.as_str().into()),
            ("Node", self.node_id.as_str().into()),
            ("Host", Cell::or_dash(self.host.as_ref())),
            ("Decision", self.decision.cell()),
            ("Because", self.because.as_str().into()),
            ("Controller says", self.observation()),
            ("Addresses", Cell::or_dash(Some(self.addresses.join(", ")))),
        ]);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(decision: Decision, observed: Observation) -> Member {
        Member {
            network_id: "8056c2e21c000001".into(),
            node_id: "d3adb33f00".into(),
            host: None,
            decision,
            because: String::new(),
            observed,
            addresses: vec![],
        }
    }

    #[test]
    fn nothing_is_true_until_the_controller_says_so() {
        for (aim, decision) in [
            (Aim::Admitted, Decision::Authorized),
            (Aim::Revoked, Decision::Denied),
        ] {
            let standing = aim.standing(&member(decision, Observation::Unknown));
            assert!(matches!(standing, Standing::NotYet(_)), "{aim:?}: {standing:?}");
        }
        assert_eq!(
            Aim::Admitted.standing(&member(Decision::Authorized, Observation::Authorized)),
            Standing::True
        );
        for gone in [Observation::Deauthorized, Observation::Absent] {
            assert_eq!(
                Aim::Revoked.standing(&member(Decision::Denied, gone)),
                Standing::True
            );
        }
    }

    #[test]
    fn a_decision_that_somebody_else_turned_round_is_not_waited_for() {
        for observed in [
            Observation::Authorized,
            Observation::Deauthorized,
            Observation::Unknown,
        ] {
            assert_eq!(
                Aim::Admitted.standing(&member(Decision::Denied, observed)),
                Standing::Overruled
            );
            assert_eq!(
                Aim::Revoked.standing(&member(Decision::Authorized, observed)),
                Standing::Overruled
            );
        }
    }
}
