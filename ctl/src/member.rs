//! `picketctl member`: who may be on a network.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::SignedDuration;
use picket_proto::wire::admin as wire;

use crate::{
    cli::{Wait, Watch, span},
    desk::{Desk, MOST_PAGES, endless},
    fault::{About, Fault},
    words::count,
};

use self::follow::Aim;
pub(crate) use self::view::{Member, Requested};

mod follow;
mod view;

/// A node on a network.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// A node id (10 digits), its RFC4193 or 6PLANE address, or the name of a device or host
    node: String,
    /// The network's id
    #[arg(long, value_name = "ID")]
    network: String,
}

/// How long to wait until a change has come true.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Patience {
    #[command(flatten)]
    wait: Wait,
    /// How long to wait for the controller
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = span)]
    within: Duration,
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
    patience: Patience,
}

/// As above, for a time.
#[derive(Debug, Args)]
pub(crate) struct DecideFor {
    #[command(flatten)]
    decide: Decide,
    /// How long, such as `2h`
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    lasts: Option<Duration>,
}

/// A step of a request, that says why.
#[derive(Debug, Args)]
pub(crate) struct Say {
    #[command(flatten)]
    which: Which,
    /// Why
    #[arg(long)]
    reason: String,
}

/// A step of a request, that may say why.
#[derive(Debug, Args)]
pub(crate) struct MaySay {
    #[command(flatten)]
    which: Which,
    /// Why
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// What an approval grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum As {
    /// It is a member until that is revoked
    Stands,
    /// It may be activated for a time
    Activate,
}

impl From<As> for wire::GrantKind {
    fn from(grant: As) -> Self {
        match grant {
            As::Stands => Self::Stands,
            As::Activate => Self::MayActivate,
        }
    }
}

/// What can be done with members.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the members of a network, or the requests that wait
    #[command(
        long_about = "List the members of a network: granted, requested, revoked and unknown ones; or the requests that wait.\n\n\
            Without a network it lists the requests that wait on all of them: who asked, why, and how many approvals are \
            missing.",
        after_help = "Examples:\n  picketctl member list --network 8056c2e21c000001 --watch\n  \
            picketctl member list                # what waits for an approval, anywhere\n  \
            picketctl member list --network 8056c2e21c000001 --requests"
    )]
    List {
        /// The network's id [default: all of them, and their requests alone]
        #[arg(long, value_name = "ID")]
        network: Option<String>,
        /// Only requests that wait
        #[arg(long)]
        requests: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one node on one network, and why it may or may not be there
    #[command(after_help = "Example:\n  picketctl member show edge-07 --network 8056c2e21c000001")]
    Show(Which),
    /// Let a node onto a network, and wait until its controller says so
    #[command(
        after_help = "Examples:\n  picketctl member admit edge-07 --network 8056c2e21c000001 --reason 'new outpost'\n  \
        picketctl member admit laptop --network 8056c2e21c000001 --for 2h --reason 'ticket 4711'\n  \
        picketctl member admit d3adb33f00 --network 8056c2e21c000001 --reason laptop --no-wait"
    )]
    Admit(DecideFor),
    /// Ask that a node be let on
    #[command(
        after_help = "Example:\n  picketctl member request laptop --network 8056c2e21c000001 --reason 'ticket 4711'"
    )]
    Request(Say),
    /// Approve a request that waits; whoever made it cannot
    #[command(
        after_help = "Examples:\n  picketctl member approve laptop --network 8056c2e21c000001 --as activate\n  \
        picketctl member approve sensor --network 8056c2e21c000001 --reason 'seen the contract'"
    )]
    Approve {
        #[command(flatten)]
        say: MaySay,
        /// What this approval grants; the narrowest of all approvals holds
        #[arg(long = "as", value_name = "GRANT", value_enum, default_value_t = As::Stands)]
        grant: As,
    },
    /// Turn a request down
    #[command(
        after_help = "Example:\n  picketctl member deny laptop --network 8056c2e21c000001 --reason 'no ticket'"
    )]
    Deny(Say),
    /// Take one's own request back
    #[command(after_help = "Example:\n  picketctl member cancel laptop --network 8056c2e21c000001")]
    Cancel(MaySay),
    /// Let a node on for a time that may be, and wait until its controller says so
    #[command(
        after_help = "Example:\n  picketctl member activate laptop --network 8056c2e21c000001 --for 2h --reason 'ticket 4711'"
    )]
    Activate(DecideFor),
    /// Move the end of an activation that goes on, to so long from here on
    #[command(
        long_about = "Move the end of an activation that goes on, to so long from here on.\n\n\
            An approver does that. From its start on it lasts at most as long as an activation does on the network; after \
            that it is activated again. Where the network wants approvals, neither whose device it is nor who asked for it \
            or started it extends it.",
        after_help = "Example:\n  picketctl member extend laptop --network 8056c2e21c000001 --for 1h --reason 'not done yet'"
    )]
    Extend {
        #[command(flatten)]
        say: Say,
        /// How long from here on [default: the network's]
        #[arg(long = "for", value_name = "SPAN", value_parser = span)]
        lasts: Option<Duration>,
    },
    /// End an activation before its time, and wait until its controller says so
    #[command(after_help = "Example:\n  picketctl member end laptop --network 8056c2e21c000001")]
    End {
        #[command(flatten)]
        say: MaySay,
        #[command(flatten)]
        patience: Patience,
    },
    /// Take a node off a network, and wait until its controller says so
    #[command(
        after_help = "Example:\n  picketctl member revoke edge-07 --network 8056c2e21c000001 --reason 'site closed'"
    )]
    Revoke(Decide),
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::List {
            network: Some(network),
            requests: false,
            watch,
        } => {
            desk.list(watch.watch, async |desk: &mut Desk| {
                let about =
                    About::reading(format!("list the members of {network}"), "picketctl network list");
                let request = wire::ListMembersRequest {
                    network_id: network.clone(),
                    ..wire::ListMembersRequest::default()
                };
                listed(desk, &about, request).await
            })
            .await
        }
        Verb::List {
            network,
            requests: _,
            watch,
        } => {
            desk.list(watch.watch, async |desk: &mut Desk| {
                let about = About::reading("list the requests", "picketctl network list");
                let request = wire::ListMembersRequest {
                    network_id: network.clone().unwrap_or_default(),
                    requested: true,
                    ..wire::ListMembersRequest::default()
                };
                let members = listed(desk, &about, request).await?;
                Ok(members.into_iter().map(Requested).collect())
            })
            .await
        }
        Verb::Show(which) => {
            let member = show(desk, &which).await?;
            desk.print.show(&member, desk.clock.now())
        }
        Verb::Admit(decide) => admit(desk, decide).await,
        Verb::Request(say) => request(desk, say).await,
        Verb::Approve { say, grant } => approve(desk, say, grant).await,
        Verb::Deny(Say { which, reason }) => {
            let about = changing("deny the request for", &which);
            let request = wire::DenyMemberRequest {
                network_id: which.network,
                node: which.node,
                reason,
            };
            let mut members = desk.members().await?;
            let answer = desk.call(&about, members.deny_member(request)).await?;
            ended(desk, answer.member, "denied")
        }
        Verb::Cancel(MaySay { which, reason }) => {
            let about = changing("cancel the request for", &which);
            let request = wire::CancelMemberRequest {
                network_id: which.network,
                node: which.node,
                reason,
            };
            let mut members = desk.members().await?;
            let answer = desk.call(&about, members.cancel_member(request)).await?;
            ended(desk, answer.member, "cancelled")
        }
        Verb::Activate(decide) => activate(desk, decide).await,
        Verb::Extend { say, lasts } => extend(desk, say, lasts).await,
        Verb::End {
            say: MaySay { which, reason },
            patience,
        } => {
            let about = changing("end the activation of", &which);
            let request = wire::EndMemberRequest {
                network_id: which.network,
                node: which.node,
                reason,
            };
            let mut members = desk.members().await?;
            let answer = desk.call(&about, members.end_member(request)).await?;
            let member = Member::from(answer.member.unwrap_or_default());
            follow::until_true(desk, member, Aim::Ended, patience).await
        }
        Verb::Revoke(Decide {
            which,
            reason,
            patience,
        }) => {
            let about = About::changing(
                format!("revoke {} from {}", which.node, which.network),
                see(&which),
            );
            let request = wire::RevokeMemberRequest {
                network_id: which.network,
                node: which.node,
                reason,
            };
            let mut members = desk.members().await?;
            let answer = desk.call(&about, members.revoke_member(request)).await?;
            let member = Member::from(answer.member.unwrap_or_default());
            follow::until_true(desk, member, Aim::Revoked, patience).await
        }
    }
}

/// The members that a request is for, page by page, from its own on.
pub(crate) async fn listed(
    desk: &mut Desk,
    about: &About,
    mut request: wire::ListMembersRequest,
) -> Result<Vec<Member>, Fault> {
    let mut listed = Vec::new();
    for _ in 0..MOST_PAGES {
        let mut members = desk.members().await?;
        let page = desk.call(about, members.list_members(request.clone())).await?;
        listed.extend(page.members.into_iter().map(Member::from));
        if page.next_page_token.is_empty() {
            return Ok(listed);
        }
        request.page_token = page.next_page_token;
    }
    Err(endless(
        "members",
        "look at one node with `picketctl member show`",
    ))
}

fn see(which: &Which) -> String {
    format!("picketctl member list --network {}", which.network)
}

fn changing(what: &str, which: &Which) -> About {
    About::changing(
        format!("{what} {} on {}", which.node, which.network),
        format!("picketctl member show {} --network {}", which.node, which.network),
    )
}

/// A span as it travels. What is too long for that is too long for the master.
fn on_the_wire(lasts: Option<Duration>) -> Option<prost_types::Duration> {
    lasts.map(|lasts| {
        prost_types::Duration::try_from(lasts).unwrap_or(prost_types::Duration {
            seconds: SignedDuration::MAX.as_secs(),
            nanos: 0,
        })
    })
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

/// What the master says besides, when it does.
fn remark(desk: &mut Desk, remark: &str) {
    if !remark.is_empty() {
        desk.print.note(remark);
    }
}

async fn admit(desk: &mut Desk, admit: DecideFor) -> Result<(), Fault> {
    let DecideFor {
        decide: Decide {
            which,
            reason,
            patience,
        },
        lasts,
    } = admit;
    let about = About::changing(format!("admit {} to {}", which.node, which.network), see(&which));
    let request = wire::AdmitMemberRequest {
        network_id: which.network,
        node: which.node,
        reason,
        lasts: on_the_wire(lasts),
    };
    let mut members = desk.members().await?;
    let answer = desk.call(&about, members.admit_member(request)).await?;
    desk.print.caution(&answer.caution);
    remark(desk, &answer.remark);
    let member = Member::from(answer.member.unwrap_or_default());
    follow::until_true(desk, member, Aim::Admitted, patience).await
}

async fn request(desk: &mut Desk, say: Say) -> Result<(), Fault> {
    let Say { which, reason } = say;
    let about = changing("request", &which);
    let request = wire::RequestMemberRequest {
        network_id: which.network,
        node: which.node,
        reason,
    };
    let mut members = desk.members().await?;
    let answer = desk.call(&about, members.request_member(request)).await?;
    remark(desk, &answer.remark);
    let member = Member::from(answer.member.unwrap_or_default());
    let sentence = match member.missing() {
        Some(missing) => format!(
            "{} is requested on {}: {} needed{}",
            member.label(),
            member.network_id,
            count(missing, "approval is", "approvals are"),
            member.waits_until(),
        ),
        None => format!(
            "{} has no request that waits on {}: {}",
            member.label(),
            member.network_id,
            member.because
        ),
    };
    desk.print.done(&member, &sentence)
}

async fn approve(desk: &mut Desk, say: MaySay, grant: As) -> Result<(), Fault> {
    let MaySay { which, reason } = say;
    let about = changing("approve the request for", &which);
    let request = wire::ApproveMemberRequest {
        network_id: which.network,
        node: which.node,
        reason,
        grant: wire::GrantKind::from(grant).into(),
    };
    let mut members = desk.members().await?;
    let answer = desk.call(&about, members.approve_member(request)).await?;
    let member = Member::from(answer.member.unwrap_or_default());
    let then = match member.missing() {
        Some(missing) => format!(
            "{} needed",
            count(missing, "more approval is", "more approvals are")
        ),
        None if grant == As::Stands && member.may_only_be_activated() => format!(
            "another approval said no more than that {}",
            member.what_the_grant_allows()
        ),
        None => member.what_the_grant_allows(),
    };
    let sentence = format!(
        "the request for {} on {} is approved: {then}",
        member.label(),
        member.network_id
    );
    desk.print.done(&member, &sentence)
}

fn ended(desk: &mut Desk, member: Option<wire::Member>, how: &str) -> Result<(), Fault> {
    let member = Member::from(member.unwrap_or_default());
    let sentence = format!(
        "the request for {} on {} is {how}: {}",
        member.label(),
        member.network_id,
        member.because
    );
    desk.print.done(&member, &sentence)
}

async fn activate(desk: &mut Desk, activate: DecideFor) -> Result<(), Fault> {
    let DecideFor {
        decide: Decide {
            which,
            reason,
            patience,
        },
        lasts,
    } = activate;
    let about = changing("activate", &which);
    let request = wire::ActivateMemberRequest {
        network_id: which.network,
        node: which.node,
        reason,
        lasts: on_the_wire(lasts),
    };
    let mut members = desk.members().await?;
    let answer = desk.call(&about, members.activate_member(request)).await?;
    desk.print.caution(&answer.caution);
    remark(desk, &answer.remark);
    let member = Member::from(answer.member.unwrap_or_default());
    follow::until_true(desk, member, Aim::Activated, patience).await
}

async fn extend(desk: &mut Desk, say: Say, lasts: Option<Duration>) -> Result<(), Fault> {
    let Say { which, reason } = say;
    let about = changing("extend the activation of", &which);
    let request = wire::ExtendMemberRequest {
        network_id: which.network,
        node: which.node,
        reason,
        lasts: on_the_wire(lasts),
    };
    let mut members = desk.members().await?;
    let answer = desk.call(&about, members.extend_member(request)).await?;
    desk.print.caution(&answer.caution);
    let member = Member::from(answer.member.unwrap_or_default());
    let sentence = format!(
        "the activation of {} on {} goes on{}",
        member.label(),
        member.network_id,
        member.until_when()
    );
    desk.print.done(&member, &sentence)
}
