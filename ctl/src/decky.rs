//! `picketctl decky`: decoy machines as they are.

use clap::Subcommand;
use jiff::Timestamp;
use picket_proto::wire::admin as wire;
use serde::Serialize;

use crate::{
    cli::Watch,
    desk::Desk,
    fault::{About, Fault},
    print::{Cell, Named, Page, Row, Tone, View},
    words::filled,
};

/// How many digits of a container's id tell it apart.
const SHORT_ID: usize = 12;

/// What can be done with deckies.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List deckies
    #[command(
        after_help = "Examples:\n  picketctl decky list\n  picketctl decky list --host edge-07 --watch"
    )]
    List {
        /// Only this host's
        #[arg(long, value_name = "HOST", default_value = "", hide_default_value = true)]
        host: String,
        /// Only this deployment's
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        deployment: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one decky with its services
    #[command(after_help = "Example:\n  picketctl decky show web-01 --host edge-07")]
    Show {
        /// The decky's name
        name: String,
        /// Its host; needed when two hosts have a decky of that name
        #[arg(long, value_name = "HOST", default_value = "", hide_default_value = true)]
        host: String,
    },
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::List {
            host,
            deployment,
            watch,
        } => {
            desk.list(watch.watch, async |desk: &mut Desk| {
                list(desk, &host, &deployment).await
            })
            .await
        }
        Verb::Show { name, host } => {
            let about = About::reading(format!("show the decky {name}"), "picketctl decky list");
            let mut deckies = desk.deckies().await?;
            let answer = desk
                .call(&about, deckies.get_decky(wire::GetDeckyRequest { name, host }))
                .await?;
            let decky = Decky::from(answer.decky.unwrap_or_default());
            desk.print.show(&decky, desk.clock.now())
        }
    }
}

/// The deckies of a host and a deployment, of all where these are empty.
pub(crate) async fn list(desk: &mut Desk, host: &str, deployment: &str) -> Result<Vec<Decky>, Fault> {
    let about = About::reading("list the deckies", "picketctl decky list");
    let request = wire::ListDeckiesRequest {
        host: host.to_owned(),
        deployment: deployment.to_owned(),
    };
    let mut deckies = desk.deckies().await?;
    let answer = desk.call(&about, deckies.list_deckies(request)).await?;
    Ok(answer.deckies.into_iter().map(Decky::from).collect())
}

/// One decky.
#[derive(Debug, Serialize)]
pub(crate) struct Decky {
    host: String,
    name: String,
    deployment: String,
    state: State,
    problem: Option<String>,
    address: Option<String>,
    container_id: Option<String>,
    services: Vec<Service>,
}

/// One of its services.
#[derive(Debug, Serialize)]
struct Service {
    name: String,
    state: State,
    image: String,
    ports: Vec<u32>,
    container_id: Option<String>,
    problem: Option<String>,
}

/// How a decky or a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Pending,
    Pulling,
    Starting,
    Running,
    Degraded,
    Failed,
    Stopping,
    Unknown,
}

impl State {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
            Self::Unknown => "unknown",
        }
    }

    fn cell(self) -> Cell {
        let tone = match self {
            Self::Running => Tone::Good,
            Self::Pending | Self::Pulling | Self::Starting | Self::Stopping => Tone::Fair,
            Self::Degraded | Self::Failed => Tone::Bad,
            Self::Unknown => Tone::Dim,
        };
        Cell::new(self.word(), tone)
    }
}

impl From<wire::DeckyState> for State {
    fn from(state: wire::DeckyState) -> Self {
        match state {
            wire::DeckyState::Pending => Self::Pending,
            wire::DeckyState::Pulling => Self::Pulling,
            wire::DeckyState::Starting => Self::Starting,
            wire::DeckyState::Running => Self::Running,
            wire::DeckyState::Degraded => Self::Degraded,
            wire::DeckyState::Failed => Self::Failed,
            wire::DeckyState::Stopping => Self::Stopping,
            wire::DeckyState::Unspecified | wire::DeckyState::Unknown => Self::Unknown,
        }
    }
}

impl From<wire::Decky> for Decky {
    fn from(decky: wire::Decky) -> Self {
        Self {
            state: decky.state().into(),
            host: decky.host,
            name: decky.name,
            deployment: decky.deployment,
            problem: filled(decky.problem),
            address: filled(decky.address),
            container_id: filled(decky.container_id),
            services: decky.services.into_iter().map(Service::from).collect(),
        }
    }
}

impl From<wire::DeckyServiceInfo> for Service {
    fn from(service: wire::DeckyServiceInfo) -> Self {
        Self {
            state: service.state().into(),
            name: service.name,
            image: service.image,
            ports: service.ports,
            container_id: filled(service.container_id),
            problem: filled(service.problem),
        }
    }
}

impl Decky {
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// How it is, with what is wrong.
    pub(crate) fn told(&self) -> String {
        match &self.problem {
            Some(problem) => format!("{} ({problem})", self.state.word()),
            None => self.state.word().to_owned(),
        }
    }

    pub(crate) fn headers() -> &'static [&'static str] {
        <Self as Row>::HEADERS
    }
}

impl Named for Decky {
    fn name(&self) -> String {
        format!("{}/{}", self.host, self.name)
    }
}

impl Row for Decky {
    const NOUNS: &'static str = "deckies";
    const HEADERS: &'static [&'static str] = &[
        "HOST",
        "NAME",
        "STATE",
        "ADDRESS",
        "SERVICES",
        "DEPLOYMENT",
        "PROBLEM",
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let services: Vec<&str> = self
            .services
            .iter()
            .map(|service| service.name.as_str())
            .collect();
        vec![
            self.host.as_str().into(),
            self.name.as_str().into(),
            self.state.cell(),
            Cell::or_dash(self.address.as_ref()),
            Cell::or_dash(Some(services.join(","))),
            self.deployment.as_str().into(),
            Cell::or_dash(self.problem.as_ref()),
        ]
    }
}

impl View for Decky {
    fn page(&self, _: Timestamp) -> Page {
        let mut page = Page::default();
        page.facts([
            ("Name", self.name.as_str().into()),
            ("Host", self.host.as_str().into()),
            ("Deployment", self.deployment.as_str().into()),
            ("State", self.state.cell()),
            ("Problem", Cell::or_dash(self.problem.as_ref())),
            ("Address", Cell::or_dash(self.address.as_ref())),
            (
                "Container",
                Cell::or_dash(self.container_id.as_deref().map(short)),
            ),
        ]);
        let rows: Vec<Vec<Cell>> = self.services.iter().map(Service::cells).collect();
        if !rows.is_empty() {
            page.title("Services");
        }
        page.table(&["NAME", "STATE", "PORTS", "IMAGE", "CONTAINER", "PROBLEM"], rows);
        page
    }
}

impl Service {
    fn cells(&self) -> Vec<Cell> {
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        vec![
            self.name.as_str().into(),
            self.state.cell(),
            Cell::or_dash(Some(ports.join(","))),
            self.image.as_str().into(),
            Cell::or_dash(self.container_id.as_deref().map(short)),
            Cell::or_dash(self.problem.as_ref()),
        ]
    }
}

fn short(id: &str) -> String {
    id.chars().take(SHORT_ID).collect()
}
