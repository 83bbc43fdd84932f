//! `picketctl network`: ZeroTier networks that Picket watches over.

use clap::{Args, Subcommand};
use picket_proto::wire::admin as wire;

use crate::{
    cli::Watch,
    desk::Desk,
    fault::{About, Fault},
    member,
    words::count,
};

use self::{
    apply::{New, OwnPath, Settings},
    file::FORMAT,
    view::{Deleted, Mode, Network, NetworkDetail, Reconciled},
};

mod apply;
mod file;
mod problem;
mod view;

const SEE: &str = "picketctl network list";

fn see(id: &str) -> String {
    format!("picketctl network show {id}")
}

const CREATE: &str = "Examples:\n  picketctl network create --on hub-01 --name decoys --v4 10.147.20.0/24\n  \
    picketctl network create --on hub-01 -f network.yaml\n  \
    picketctl network create --central --name decoys --v4 10.147.20.0/24";
const PLAN: &str = "Example:\n  picketctl network plan 8056c2e21c000001 -f network.yaml";
const APPLY: &str = "Examples:\n  picketctl network apply 8056c2e21c000001 -f network.yaml\n  \
    picketctl network apply -f network.yaml --dry-run    # the id is in the file\n  \
    picketctl network show 8056c2e21c000001 -o json | jq .form    # the file as it holds";

fn long_help(examples: &str) -> String {
    format!("{FORMAT}\n\n{examples}")
}

/// What can be done with networks.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a network on a worker's controller, or in ZeroTier Central
    #[command(after_help = CREATE, after_long_help = long_help(CREATE))]
    Create(New),
    /// Begin to watch a network; nothing on it is changed
    #[command(
        long_about = "Begin to watch a network; nothing on it is changed.\n\n\
            The network's controller runs on an enrolled host, or is ZeroTier Central. Its authorized members are imported \
            as grants, so that nothing that works stops working; `network enforce` starts repairs.",
        after_help = "Examples:\n  picketctl network adopt 8056c2e21c000001\n  \
            picketctl network adopt 8056c2e21c000001 --on hub-01 --approvals 1\n  \
            picketctl network adopt 8056c2e21c000001 --central"
    )]
    Adopt(Adopt),
    /// Start repairs: from here on the members are what the grants say
    #[command(
        after_help = "Example:\n  picketctl network show 8056c2e21c000001      # who would lose access?\n  \
        picketctl network enforce 8056c2e21c000001"
    )]
    Enforce {
        /// The network's id
        id: String,
    },
    /// Say what a settings file would change; change nothing
    #[command(after_help = PLAN, after_long_help = long_help(PLAN))]
    Plan(Settings),
    /// Make a network follow a settings file, and say before what that changes
    #[command(after_help = APPLY, after_long_help = long_help(APPLY))]
    Apply {
        #[command(flatten)]
        settings: Settings,
        /// Only say what it would change
        #[arg(long)]
        dry_run: bool,
        /// Go ahead where it takes a host's way to the master
        #[arg(long)]
        force: bool,
    },
    /// List networks
    #[command(after_help = "Example:\n  picketctl network list --watch")]
    List {
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one network: settings, requests, members, and what is not as it should be
    #[command(after_help = "Example:\n  picketctl network show 8056c2e21c000001")]
    Show {
        /// The network's id
        id: String,
    },
    /// Have the controller read, compare and repair at once, and count what that is
    #[command(
        long_about = "Have the controller read, compare and repair at once, and count what that is.\n\n\
            This is done every 60 s and on every change by itself. Where the controller cannot be read now, a caution says \
            from when the counts are. `Held back` is what the brake holds back by itself; of a network that is only watched \
            that is nothing, since `network enforce` does all at once.",
        after_help = "Example:\n  picketctl network reconcile 8056c2e21c000001 --dry-run"
    )]
    Reconcile {
        /// The network's id
        id: String,
        /// Only say what would be repaired
        #[arg(long)]
        dry_run: bool,
    },
    /// Let the repairs through that the brake holds back
    #[command(
        long_about = "Let the repairs through that the brake holds back.\n\n\
            Repairs that would change more than a fifth of a network's members, and more than 5, wait for this. Look with \
            `network show` first: it is either a mistake at the controller that wants repair, or one in the grants. \
            Kills, bans and what comes to its end never wait.",
        after_help = "Example:\n  picketctl network reconcile 8056c2e21c000001 --dry-run    # what waits\n  \
            picketctl network resume 8056c2e21c000001 --reason 'the controller was restored from a backup'"
    )]
    Resume {
        /// The network's id
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// End a network: nobody is on it any more, and its controller forgets it
    #[command(
        after_help = "Examples:\n  picketctl network delete 8056c2e21c000001 --reason 'site closed'\n  \
            picketctl network delete 8056c2e21c000001 --forget --reason 'governed by somebody else'"
    )]
    Delete(Delete),
}

/// A network that is to end.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The network's id
    id: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// Watch it no longer; the controller keeps it as it is
    #[arg(long)]
    forget: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// A network that is to be watched.
#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// The network's id, 16 digits
    id: String,
    /// The host whose controller runs it [default: found by the network's id]
    #[arg(long, value_name = "HOST", alias = "controller", conflicts_with = "central")]
    on: Option<String>,
    /// ZeroTier Central runs it
    #[arg(long)]
    central: bool,
    /// How many approvals a request needs, 0, 1 or 2; 0: an operator admits directly
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    approvals: u32,
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::Create(new) => apply::create(desk, new).await,
        Verb::Adopt(network) => adopt(desk, network).await,
        Verb::Enforce { id } => {
            let about = About::changing(format!("enforce the network {id}"), SEE);
            let mut networks = desk.networks().await?;
            let answer = desk
                .call(
                    &about,
                    networks.enforce_network(wire::EnforceNetworkRequest { id }),
                )
                .await?;
            let network = Network::from(&answer.network.unwrap_or_default());
            let drift = match network.drift {
                0 => "its members are what the grants say".to_owned(),
                1 => "1 member differs from the grants and is being repaired".to_owned(),
                drift => format!("{drift} members differ from the grants and are being repaired"),
            };
            let sentence = format!("network {} is enforced: {drift}", network.id);
            desk.print.done(&network, &sentence)
        }
        Verb::Plan(settings)
        | Verb::Apply {
            settings,
            dry_run: true,
            force: _,
        } => apply::plan(desk, settings).await,
        Verb::Apply {
            settings,
            dry_run: false,
            force,
        } => {
            let own_path = if force { OwnPath::MayBeCut } else { OwnPath::Ask };
            apply::apply(desk, settings, own_path).await
        }
        Verb::List { watch } => {
            desk.list(watch.watch, async |desk: &mut Desk| {
                let about = About::reading("list the networks", SEE);
                let mut networks = desk.networks().await?;
                let answer = desk
                    .call(&about, networks.list_networks(wire::ListNetworksRequest {}))
                    .await?;
                Ok(answer.networks.iter().map(Network::from).collect())
            })
            .await
        }
        Verb::Show { id } => {
            let about = About::reading(format!("show the network {id}"), SEE);
            let mut networks = desk.networks().await?;
            let answer = desk
                .call(&about, networks.get_network(wire::GetNetworkRequest { id }))
                .await?;
            let rest = match answer.next_page_token.clone() {
                none if none.is_empty() => Vec::new(),
                page_token => {
                    let request = wire::ListMembersRequest {
                        network_id: answer
                            .network
                            .as_ref()
                            .map(|network| network.id.clone())
                            .unwrap_or_default(),
                        page_token,
                        ..wire::ListMembersRequest::default()
                    };
                    member::listed(desk, &about, request).await?
                }
            };
            desk.print
                .show(&NetworkDetail::new(answer, rest), desk.clock.now())
        }
        Verb::Reconcile { id, dry_run } => {
            let about = About::changing(format!("reconcile the network {id}"), see(&id)).of_one_in(SEE);
            let request = wire::ReconcileNetworkRequest { id, dry_run };
            let mut networks = desk.networks().await?;
            let answer = desk.call(&about, networks.reconcile_network(request)).await?;
            desk.print
                .show(&Reconciled::new(answer, dry_run), desk.clock.now())
        }
        Verb::Resume { id, reason } => {
            let about = About::changing(format!("resume the network {id}"), see(&id)).of_one_in(SEE);
            let mut networks = desk.networks().await?;
            let request = wire::ResumeNetworkRequest { id, reason };
            let answer = desk.call(&about, networks.resume_network(request)).await?;
            let network = Network::from(&answer.network.unwrap_or_default());
            let held = match usize::try_from(network.held_back).unwrap_or(usize::MAX) {
                0 => "nothing is held back".to_owned(),
                held => format!("{} let through", count(held, "repair is", "repairs are")),
            };
            let sentence = format!("network {}: {held}", network.id);
            desk.print.done(&network, &sentence)
        }
        Verb::Delete(network) => delete(desk, network).await,
    }
}

async fn adopt(desk: &mut Desk, network: Adopt) -> Result<(), Fault> {
    let Adopt {
        id,
        on,
        central,
        approvals,
    } = network;
    let about = About::changing(format!("adopt the network {id}"), SEE);
    let request = wire::AdoptNetworkRequest {
        id,
        controller_host: on.unwrap_or_default(),
        approvals,
        central,
    };
    let mut networks = desk.networks().await?;
    let answer = desk.call(&about, networks.adopt_network(request)).await?;
    desk.print.caution(&answer.caution);
    let network = Network::from(&answer.network.unwrap_or_default());
    let imported = usize::try_from(answer.imported).unwrap_or(usize::MAX);
    let mode = match network.mode {
        Mode::Enforce => "it is enforced already".to_owned(),
        Mode::Observe | Mode::Deleting | Mode::Unknown => {
            format!(
                "nothing is changed until `picketctl network enforce {}`",
                network.id
            )
        }
    };
    let sentence = format!(
        "network {} is watched through {}: {} imported as granted; {mode}",
        network.id,
        network.governor(),
        count(imported, "member", "members"),
    );
    desk.print.done(&network, &sentence)
}

async fn delete(desk: &mut Desk, network: Delete) -> Result<(), Fault> {
    let Delete {
        id,
        reason,
        forget,
        yes,
    } = network;
    if !yes {
        let what = if forget {
            format!(
                "Watch the network {id} no longer? Its controller keeps it as it is, and what was granted on it is forgotten."
            )
        } else {
            format!(
                "Delete the network {id}? Nobody is on it any more, its controller forgets it, and it cannot be had back."
            )
        };
        desk.confirm(&what)?;
    }
    let about = About::changing(format!("delete the network {id}"), SEE);
    let mut networks = desk.networks().await?;
    let request = wire::DeleteNetworkRequest {
        id: id.clone(),
        reason,
        forget,
    };
    desk.call(&about, networks.delete_network(request)).await?;
    let sentence = if forget {
        format!("network {id} is watched no longer; its controller keeps it as it is")
    } else {
        format!("network {id} is being deleted: its controller forgets it as soon as it can be reached")
    };
    let deleted = Deleted {
        network_id: id,
        forgotten: forget,
    };
    desk.print.done(&deleted, &sentence)
}
