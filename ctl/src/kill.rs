//! `picketctl kill` and `picketctl unkill`: a prohibition that beats every permission, and how far it is true.

use std::time::Duration;

use clap::{Args, Subcommand};
use picket_proto::wire::admin as wire;

use crate::{
    cli::{Watch, span},
    desk::Desk,
    fault::{About, Fault},
};

use self::view::Kill;

mod follow;
mod view;

const SEE: &str = "picketctl kill list";

/// What `picketctl unkill --help` shows.
pub(crate) const UNKILL_EXAMPLES: &str =
    "Example:\n  picketctl unkill host edge-07 --reason 'found, and wiped'";

/// How a kill is made.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Why
    #[arg(long)]
    reason: String,
    /// Say what would happen; change nothing
    #[arg(long)]
    drill: bool,
    /// Do not wait until it is true; the master goes on by itself
    #[arg(long, conflicts_with = "drill")]
    no_wait: bool,
    /// How long to wait for proofs
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    within: Duration,
}

/// What can be done with kills.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Kill one node on every network
    #[command(
        after_help = "Examples:\n  picketctl kill node 39966434ba --reason 'laptop stolen'\n  \
        picketctl kill node ana-laptop --reason 'laptop stolen' --drill"
    )]
    Node {
        /// A node id, its RFC4193 or 6PLANE address, or the name of a device or host
        node: String,
        #[command(flatten)]
        how: How,
    },
    /// Ban a host, kill its nodes, and take its deckies away
    #[command(
        after_help = "Example:\n  picketctl kill host edge-07 --reason 'somebody got out of the decoy'"
    )]
    Host {
        /// The host's name
        host: String,
        #[command(flatten)]
        how: How,
    },
    /// Kill a network: nobody is on it
    #[command(
        after_help = "Example:\n  picketctl kill network 8056c2e21c000001 --reason 'it is being scanned' --drill"
    )]
    Network {
        /// The network's id
        network: String,
        #[command(flatten)]
        how: How,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Kill every device of an owner
    #[command(after_help = "Example:\n  picketctl kill owner ana --reason 'account taken over'")]
    Owner {
        /// The operator
        owner: String,
        #[command(flatten)]
        how: How,
    },
    /// Kill everything: nobody is on any network
    #[command(
        after_help = "Examples:\n  picketctl kill all --reason 'exercise' --drill    # look first\n  \
        picketctl kill all --reason 'the controller was broken into'"
    )]
    All {
        #[command(flatten)]
        how: How,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// List kills that hold
    #[command(after_help = "Example:\n  picketctl kill list --lifted")]
    List {
        /// Lifted ones too
        #[arg(long)]
        lifted: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one kill with its members and proofs
    #[command(after_help = "Example:\n  picketctl kill show 7a310001")]
    Show {
        /// The kill's id
        id: String,
    },
}

/// What can be let live again.
#[derive(Debug, Subcommand)]
pub(crate) enum Lift {
    /// Lift the kill of a node
    #[command(after_help = "Example:\n  picketctl unkill node ana-laptop --reason 'found again'")]
    Node {
        /// As it was killed
        node: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Lift the kill of a host, and let it in again
    #[command(after_help = "Example:\n  picketctl unkill host edge-07 --reason 'found, and wiped'")]
    Host {
        /// The host's name
        host: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Lift the kill of a network
    #[command(after_help = "Example:\n  picketctl unkill network 8056c2e21c000001 --reason 'over'")]
    Network {
        /// The network's id
        network: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Lift the kill of an owner
    #[command(after_help = "Example:\n  picketctl unkill owner ana --reason 'account is hers again'")]
    Owner {
        /// The operator
        owner: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Lift the kill of everything; other kills stay
    #[command(after_help = "Example:\n  picketctl unkill all --reason 'over'")]
    All {
        /// Why
        #[arg(long)]
        reason: String,
    },
}

/// Whom a kill is about.
struct Target {
    scope: wire::KillScope,
    subject: String,
    /// As the object of a sentence.
    told: String,
}

impl Target {
    fn new(scope: wire::KillScope, noun: &str, subject: String) -> Self {
        let told = format!("the {noun} {subject}");
        Self { scope, subject, told }
    }

    fn node(subject: String) -> Self {
        Self::new(wire::KillScope::Node, "node", subject)
    }

    fn host(subject: String) -> Self {
        Self::new(wire::KillScope::Host, "host", subject)
    }

    fn network(subject: String) -> Self {
        Self::new(wire::KillScope::Network, "network", subject)
    }

    fn owner(subject: String) -> Self {
        Self::new(wire::KillScope::Owner, "owner", subject)
    }

    fn all() -> Self {
        Self {
            scope: wire::KillScope::All,
            subject: String::new(),
            told: "everything".to_owned(),
        }
    }
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::Node { node, how } => kill(desk, Target::node(node), how).await,
        Verb::Host { host, how } => kill(desk, Target::host(host), how).await,
        Verb::Owner { owner, how } => kill(desk, Target::owner(owner), how).await,
        Verb::Network { network, how, yes } => {
            if !yes && !how.drill {
                let question = format!("Kill the network {network}? Every member of it is cut off.");
                desk.confirm_with(&question, "kill", "--yes")?;
            }
            kill(desk, Target::network(network), how).await
        }
        Verb::All { how, yes } => {
            if !yes && !how.drill {
                let question = "Kill everything? Every member of every network is cut off.";
                desk.confirm_with(question, "kill all", "--yes")?;
            }
            kill(desk, Target::all(), how).await
        }
        Verb::List { lifted, watch } => {
            desk.list(watch.watch, async |desk: &mut Desk| list(desk, lifted).await)
                .await
        }
        Verb::Show { id } => {
            let kill = show(desk, id).await?;
            desk.print.show(&kill, desk.clock.now())
        }
    }
}

async fn list(desk: &mut Desk, lifted: bool) -> Result<Vec<Kill>, Fault> {
    let about = About::reading("list the kills", SEE);
    let mut kills = desk.kills().await?;
    let answer = desk
        .call(&about, kills.list_kills(wire::ListKillsRequest { lifted }))
        .await?;
    Ok(answer.kills.into_iter().map(Kill::from).collect())
}

/// One kill with all of its members; a list has fewer of each.
async fn show(desk: &mut Desk, id: String) -> Result<Kill, Fault> {
    let about = About::reading(format!("show the kill {id}"), "picketctl kill list --lifted");
    let mut kills = desk.kills().await?;
    let watching = kills.watch_kill(wire::WatchKillRequest { id });
    let mut stream = desk.call(&about, watching).await?;
    let first = desk.next(&about, &mut stream).await?;
    let kill = first.and_then(|message| message.kill);
    kill.map(Kill::from)
        .ok_or_else(|| Fault::Ended("the master ended the stream; try again".to_owned()))
}

async fn kill(desk: &mut Desk, target: Target, how: How) -> Result<(), Fault> {
    let about = About::changing(format!("kill {}", target.told), SEE);
    let request = wire::KillRequest {
        scope: target.scope.into(),
        subject: target.subject,
        reason: how.reason,
        drill: how.drill,
    };
    let mut kills = desk.kills().await?;
    let answer = desk.call(&about, kills.kill(request)).await?;
    let kill = Kill::from(answer.kill.unwrap_or_default());
    if how.drill {
        return desk.print.show(&kill.drilled(), desk.clock.now());
    }
    for caution in kill.cautions() {
        desk.print.caution(caution);
    }
    if how.no_wait {
        let sentence = format!(
            "{} is killed: recorded, and not confirmed; see how it goes with `{}`",
            target.told,
            kill.see()
        );
        return desk.print.done(&kill, &sentence);
    }
    let (kill, open) = follow::until_proven(desk, kill, how.within).await?;
    desk.print.show(&kill, desk.clock.now())?;
    if let Some(by) = kill.lifted_by() {
        return Err(Fault::NotYet(format!(
            "{} was killed, and {by} has lifted that; see `{}`",
            target.told,
            kill.see()
        )));
    }
    if open.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = open.iter().map(|line| format!("  {line}")).collect();
    Err(Fault::NotYet(format!(
        "{} is killed, and not all of it is confirmed; what cannot be reached is carried out when it is back, look with `{}`:\n{}",
        target.told,
        kill.see(),
        lines.join("\n")
    )))
}

pub(crate) async fn lift(what: Lift, desk: &mut Desk) -> Result<(), Fault> {
    let (target, reason) = match what {
        Lift::Node { node, reason } => (Target::node(node), reason),
        Lift::Host { host, reason } => (Target::host(host), reason),
        Lift::Network { network, reason } => (Target::network(network), reason),
        Lift::Owner { owner, reason } => (Target::owner(owner), reason),
        Lift::All { reason } => (Target::all(), reason),
    };
    let about = About::changing(format!("lift the kill of {}", target.told), SEE);
    let request = wire::UnkillRequest {
        scope: target.scope.into(),
        subject: target.subject,
        reason,
    };
    let mut kills = desk.kills().await?;
    let answer = desk.call(&about, kills.unkill(request)).await?;
    let kill = Kill::from(answer.kill.unwrap_or_default());
    for caution in kill.cautions() {
        desk.print.caution(caution);
    }
    let sentence = format!(
        "the kill of {} is lifted: what the grants say holds again, and no more",
        target.told
    );
    desk.print.done(&kill, &sentence)
}
