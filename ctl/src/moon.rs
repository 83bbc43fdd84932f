//! `picketctl moon`: roots of our own.

use clap::Subcommand;
use jiff::Timestamp;
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;

use crate::{
    cli::Watch,
    desk::Desk,
    fault::{About, Fault},
    print::{Cell, Named, Row, Tone},
    words::filled,
};

const SEE: &str = "picketctl moon list";

/// What can be done with moons.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a host's node the root of a moon, or change where it is reached
    #[command(
        long_about = "Make a host's node the root of a moon, or change where it is reached.\n\n\
            Its agent signs the definition; the agents of the other hosts orbit it as soon as that is there, so that they \
            find each other without the public roots.",
        after_help = "Example:\n  picketctl moon create hub-01 --endpoint 192.0.2.1/9993 --endpoint 2001:db8::1/9993"
    )]
    Create {
        /// The host that is its root
        host: String,
        /// Where its node can always be reached; can be given several times
        #[arg(long = "endpoint", value_name = "ADDRESS/PORT", required = true)]
        endpoints: Vec<String>,
    },
    /// List moons
    #[command(after_help = "Example:\n  picketctl moon list --watch")]
    List {
        #[command(flatten)]
        watch: Watch,
    },
    /// End a moon: agents stop orbiting it
    #[command(after_help = "Example:\n  picketctl moon remove hub-01 --reason 'it moves'")]
    Remove {
        /// The host that is its root
        host: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::Create { host, endpoints } => {
            let about = About::changing(format!("make the moon of {host}"), SEE);
            let mut moons = desk.moons().await?;
            let request = wire::CreateMoonRequest { host, endpoints };
            let answer = desk.call(&about, moons.create_moon(request)).await?;
            let moon = Moon::from(answer.moon.unwrap_or_default());
            let then = if moon.signed {
                "hosts orbit it"
            } else {
                "hosts orbit it as soon as its agent has signed it"
            };
            let sentence = format!(
                "host {} is the root of the moon {}: {then}; see `{SEE}`",
                moon.host, moon.world_id
            );
            desk.print.done(&moon, &sentence)
        }
        Verb::List { watch } => {
            desk.list(watch.watch, async |desk: &mut Desk| {
                let about = About::reading("list the moons", SEE);
                let mut moons = desk.moons().await?;
                let answer = desk
                    .call(&about, moons.list_moons(wire::ListMoonsRequest {}))
                    .await?;
                Ok(answer.moons.into_iter().map(Moon::from).collect())
            })
            .await
        }
        Verb::Remove { host, reason } => {
            let about = About::changing(format!("remove the moon of {host}"), SEE);
            let mut moons = desk.moons().await?;
            let request = wire::RemoveMoonRequest {
                host: host.clone(),
                reason,
            };
            desk.call(&about, moons.remove_moon(request)).await?;
            let sentence = format!("host {host} is the root of no moon any more; agents stop orbiting it");
            desk.print.done(&Removed { host }, &sentence)
        }
    }
}

/// A moon.
#[derive(Debug, Serialize)]
struct Moon {
    world_id: String,
    host: String,
    endpoints: Vec<String>,
    signed: bool,
    signed_at: Option<Timestamp>,
    orbiting: u32,
    waiting: u32,
    problem: Option<String>,
}

impl From<wire::Moon> for Moon {
    fn from(moon: wire::Moon) -> Self {
        Self {
            world_id: moon.world_id,
            host: moon.host,
            endpoints: moon.endpoints,
            signed: moon.signed,
            signed_at: moon.signed_at.as_ref().and_then(from_wire_time),
            orbiting: moon.orbiting,
            waiting: moon.waiting,
            problem: filled(moon.problem),
        }
    }
}

impl Named for Moon {
    fn name(&self) -> String {
        self.host.clone()
    }
}

impl Row for Moon {
    const NOUNS: &'static str = "moons";
    const HEADERS: &'static [&'static str] = &[
        "HOST",
        "MOON",
        "ENDPOINTS",
        "SIGNED",
        "ORBITING",
        "WAITING",
        "PROBLEM",
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        vec![
            self.host.as_str().into(),
            self.world_id.as_str().into(),
            self.endpoints.join(",").into(),
            if self.signed {
                Cell::new("yes", Tone::Good)
            } else {
                Cell::new("not yet", Tone::Fair)
            },
            self.orbiting.to_string().into(),
            Cell::new(
                self.waiting.to_string(),
                if self.waiting == 0 {
                    Tone::Plain
                } else {
                    Tone::Fair
                },
            ),
            Cell::or_dash(self.problem.as_ref()),
        ]
    }
}

/// A moon that is none any more.
#[derive(Debug, Serialize)]
struct Removed {
    host: String,
}

impl Named for Removed {
    fn name(&self) -> String {
        self.host.clone()
    }
}
