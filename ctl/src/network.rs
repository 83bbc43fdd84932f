//! `picketctl network`: ZeroTier networks that Picket watches over.

use clap::Subcommand;
use jiff::Timestamp;
use picket_proto::wire::admin as wire;
use serde::Serialize;

use crate::{
    cli::Watch,
    desk::Desk,
    fault::{About, Fault},
    member::Member,
    print::{Cell, Named, Page, Row, Tone, View},
    words::{count, filled},
};

const SEE: &str = "picketctl network list";

/// What can be done with networks.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Begin to watch a network; nothing on it is changed
    #[command(
        long_about = "Begin to watch a network; nothing on it is changed.\n\n\
            The network's controller runs on an enrolled host. Its authorized members are imported as grants, so that \
            nothing that works stops working; `network enforce` starts repairs.",
        after_help = "Examples:\n  picketctl network adopt 8056c2e21c000001\n  \
            picketctl network adopt 8056c2e21c000001 --controller hub-01"
    )]
    Adopt {
        /// The network's id, 16 digits
        id: String,
        /// The host whose controller runs it [default: found by the network's id]
        #[arg(long, value_name = "HOST", default_value = "", hide_default_value = true)]
        controller: String,
        /// How many approvals a request needs; 0: an operator admits directly
        #[arg(long, value_name = "COUNT", default_value_t = 0)]
        approvals: u32,
    },
    /// Start repairs: from here on the members are what the grants say
    #[command(
        after_help = "Example:\n  picketctl network show 8056c2e21c000001      # who would lose access?\n  \
        picketctl network enforce 8056c2e21c000001"
    )]
    Enforce {
        /// The network's id
        id: String,
    },
    /// List networks
    #[command(after_help = "Example:\n  picketctl network list --watch")]
    List {
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one network with its members
    #[command(after_help = "Example:\n  picketctl network show 8056c2e21c000001")]
    Show {
        /// The network's id
        id: String,
    },
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::Adopt {
            id,
            controller,
            approvals,
        } => {
            let about = About::changing(format!("adopt the network {id}"), SEE);
            let request = wire::AdoptNetworkRequest {
                id,
                controller_host: controller,
                approvals,
                central: false,
            };
            let mut networks = desk.networks().await?;
            let answer = desk.call(&about, networks.adopt_network(request)).await?;
            let network = Network::from(answer.network.unwrap_or_default());
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
                network.controller_host,
                count(imported, "member", "members"),
            );
            desk.print.done(&network, &sentence)
        }
        Verb::Enforce { id } => {
            let about = About::changing(format!("enforce the network {id}"), SEE);
            let mut networks = desk.networks().await?;
            let answer = desk
                .call(
                    &about,
                    networks.enforce_network(wire::EnforceNetworkRequest { id }),
                )
                .await?;
            let network = Network::from(answer.network.unwrap_or_default());
            let drift = match network.drift {
                0 => "its members are what the grants say".to_owned(),
                1 => "1 member differs from the grants and is being repaired".to_owned(),
                drift => format!("{drift} members differ from the grants and are being repaired"),
            };
            let sentence = format!("network {} is enforced: {drift}", network.id);
            desk.print.done(&network, &sentence)
        }
        Verb::List { watch } => {
            desk.list(watch.watch, async |desk: &mut Desk| {
                let about = About::reading("list the networks", SEE);
                let mut networks = desk.networks().await?;
                let answer = desk
                    .call(&about, networks.list_networks(wire::ListNetworksRequest {}))
                    .await?;
                Ok(answer.networks.into_iter().map(Network::from).collect())
            })
            .await
        }
        Verb::Show { id } => {
            let about = About::reading(format!("show the network {id}"), SEE);
            let mut networks = desk.networks().await?;
            let answer = desk
                .call(&about, networks.get_network(wire::GetNetworkRequest { id }))
                .await?;
            desk.print.show(&NetworkDetail::from(answer), desk.clock.now())
        }
    }
}

/// One network.
#[derive(Debug, Serialize)]
struct Network {
    id: String,
    name: Option<String>,
    mode: Mode,
    controller_host: String,
    approvals: u32,
    members_authorized: u32,
    members_unknown: u32,
    drift: u32,
    problem: Option<String>,
}

/// How far Picket goes on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Unknown,
    Observe,
    Enforce,
    Deleting,
}

impl Mode {
    fn cell(self) -> Cell {
        match self {
            Self::Unknown => Cell::new("unknown", Tone::Dim),
            Self::Observe => Cell::new("observe", Tone::Fair),
            Self::Enforce => Cell::new("enforce", Tone::Good),
            Self::Deleting => Cell::new("deleting", Tone::Bad),
        }
    }
}

impl From<wire::Network> for Network {
    fn from(network: wire::Network) -> Self {
        let mode = match network.mode() {
            wire::NetworkMode::Unspecified => Mode::Unknown,
            wire::NetworkMode::Observe => Mode::Observe,
            wire::NetworkMode::Enforce => Mode::Enforce,
            wire::NetworkMode::Deleting => Mode::Deleting,
        };
        Self {
            mode,
            id: network.id,
            name: filled(network.name),
            controller_host: network.controller_host,
            approvals: network.approvals,
            members_authorized: network.members_authorized,
            members_unknown: network.members_unknown,
            drift: network.drift,
            problem: filled(network.problem),
        }
    }
}

/// A number that should be nought.
fn worrying(number: u32) -> Cell {
    Cell::new(
        number.to_string(),
        if number == 0 { Tone::Plain } else { Tone::Fair },
    )
}

impl Named for Network {
    fn name(&self) -> String {
        self.id.clone()
    }
}

impl Row for Network {
    const NOUNS: &'static str = "networks";
    const HEADERS: &'static [&'static str] = &[
        "ID",
        "NAME",
        "MODE",
        "CONTROLLER",
        "AUTHORIZED",
        "UNKNOWN",
        "DRIFT",
        "PROBLEM",
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            Cell::or_dash(self.name.as_ref()),
            self.mode.cell(),
            self.controller_host.as_str().into(),
            self.members_authorized.to_string().into(),
            worrying(self.members_unknown),
            worrying(self.drift),
            Cell::or_dash(self.problem.as_ref()),
        ]
    }
}

/// One network with its members.
#[derive(Debug, Serialize)]
struct NetworkDetail {
    #[serde(flatten)]
    network: Network,
    members: Vec<Member>,
}

impl From<wire::GetNetworkResponse> for NetworkDetail {
    fn from(answer: wire::GetNetworkResponse) -> Self {
        Self {
            network: Network::from(answer.network.unwrap_or_default()),
            members: answer.members.into_iter().map(Member::from).collect(),
        }
    }
}

impl Named for NetworkDetail {
    fn name(&self) -> String {
        self.network.name()
    }
}

impl View for NetworkDetail {
    fn page(&self, now: Timestamp) -> Page {
        let network = &self.network;
        let mut page = Page::default();
        page.facts([
            ("Id", network.id.as_str().into()),
            ("Name", Cell::or_dash(network.name.as_ref())),
            ("Mode", network.mode.cell()),
            ("Controller", network.controller_host.as_str().into()),
            ("Approvals", network.approvals.to_string().into()),
            ("Authorized", network.members_authorized.to_string().into()),
            ("Unknown", worrying(network.members_unknown)),
            ("Drift", worrying(network.drift)),
            ("Problem", Cell::or_dash(network.problem.as_ref())),
        ]);
        if !self.members.is_empty() {
            page.title("Members");
            page.table(
                Member::HEADERS,
                self.members.iter().map(|member| member.cells(now)).collect(),
            );
        }
        page
    }
}
