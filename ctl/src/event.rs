//! `picketctl event`: what happened.

use clap::Subcommand;
use jiff::Timestamp;
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::{
    cli::Watch,
    desk::Desk,
    fault::{About, Fault},
    print::{Cell, Line, Named, Row, Tone},
    words::{filled, to_the_second},
};

/// How often in a row a stream that cannot keep up is started again from where it was.
const MOST_RESTARTS: u32 = 5;

/// What can be done with events.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Tell what happens, as it happens, until interrupted
    #[command(
        after_help = "Examples:\n  picketctl event watch\n  picketctl event watch --after 1200 -o json | jq .message"
    )]
    Watch {
        /// Begin with what came after the event of this number
        #[arg(long, value_name = "ID")]
        after: Option<u64>,
    },
    /// List what happened, oldest first
    #[command(
        after_help = "Examples:\n  picketctl event list --subject edge-07\n  picketctl event list --kind host. --limit 20"
    )]
    List {
        /// Only what came after the event of this number
        #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
        after: u64,
        /// At most this many, the newest
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: u32,
        /// Only about this: a host, a network, a decky as HOST/NAME
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        subject: String,
        /// Only kinds that begin so, such as `host.`
        #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
        kind: String,
        #[command(flatten)]
        watch: Watch,
    },
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::Watch { after } => watch(desk, after).await,
        Verb::List {
            after,
            limit,
            subject,
            kind,
            watch,
        } => {
            let request = wire::ListEventsRequest {
                after,
                limit,
                subject,
                kind,
            };
            desk.list(watch.watch, async |desk: &mut Desk| {
                let about = About::reading("list the events", "picketctl event list");
                let mut events = desk.events().await?;
                let answer = desk.call(&about, events.list_events(request.clone())).await?;
                Ok(answer.events.into_iter().map(Event::from).collect())
            })
            .await
        }
    }
}

/// Follows the stream. One that could not keep up goes on from the last event that was told.
async fn watch(desk: &mut Desk, mut after: Option<u64>) -> Result<(), Fault> {
    let about = About::reading("watch the events", "picketctl event list");
    let mut restarts = 0;
    loop {
        let mut events = desk.events().await?;
        let mut stream = desk
            .call(&about, events.watch_events(wire::WatchEventsRequest { after }))
            .await?;
        loop {
            match stream.next().await {
                Some(Ok(answer)) => {
                    let Some(event) = answer.event.map(Event::from) else {
                        continue;
                    };
                    desk.print.tell(&event)?;
                    after = Some(event.id);
                    restarts = 0;
                }
                Some(Err(status)) if status.code() == Code::DataLoss && restarts < MOST_RESTARTS => {
                    restarts += 1;
                    break;
                }
                Some(Err(status)) => {
                    return Err(match (desk.fault(&status, &about), after) {
                        (Fault::Lost { .. }, Some(id)) => Fault::Ended(format!(
                            "the connection to the master broke; go on with `picketctl event watch --after {id}`"
                        )),
                        (fault, _) => fault,
                    });
                }
                None => {
                    let from = after.map(|id| format!(" --after {id}")).unwrap_or_default();
                    let sentence =
                        format!("the master ended the stream; go on with `picketctl event watch{from}`");
                    return Err(Fault::Ended(sentence));
                }
            }
        }
    }
}

/// One event.
#[derive(Debug, Serialize)]
struct Event {
    id: u64,
    time: Option<Timestamp>,
    severity: Severity,
    kind: String,
    subject: Option<String>,
    message: String,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Severity {
    Unknown,
    Info,
    Notice,
    Warning,
    Alert,
}

impl Severity {
    fn cell(self) -> Cell {
        match self {
            Self::Unknown => Cell::new("unknown", Tone::Dim),
            Self::Info => Cell::new("info", Tone::Dim),
            Self::Notice => Cell::new("notice", Tone::Plain),
            Self::Warning => Cell::new("warning", Tone::Fair),
            Self::Alert => Cell::new("alert", Tone::Bad),
        }
    }
}

impl From<wire::Event> for Event {
    fn from(event: wire::Event) -> Self {
        let severity = match event.severity() {
            wire::EventSeverity::Unspecified => Severity::Unknown,
            wire::EventSeverity::Info => Severity::Info,
            wire::EventSeverity::Notice => Severity::Notice,
            wire::EventSeverity::Warning => Severity::Warning,
            wire::EventSeverity::Alert => Severity::Alert,
        };
        Self {
            id: event.id,
            time: event.time.as_ref().and_then(from_wire_time),
            severity,
            kind: event.kind,
            subject: filled(event.subject),
            message: event.message,
        }
    }
}

impl Event {
    /// The message, of a signed head without what only a program reads.
    fn told(&self) -> &str {
        match self.message.split_once(" signed ") {
            Some((head, _)) if self.kind == "audit.head" => head,
            Some(_) | None => &self.message,
        }
    }
}

impl Named for Event {
    fn name(&self) -> String {
        self.id.to_string()
    }
}

impl Row for Event {
    const NOUNS: &'static str = "events";
    const HEADERS: &'static [&'static str] = &["ID", "TIME", "SEVERITY", "KIND", "SUBJECT", "MESSAGE"];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        vec![
            self.id.to_string().into(),
            Cell::or_dash(self.time.map(to_the_second)),
            self.severity.cell(),
            self.kind.as_str().into(),
            Cell::or_dash(self.subject.as_ref()),
            self.told().into(),
        ]
    }
}

impl Line for Event {
    fn line(&self) -> Vec<Cell> {
        self.cells(Timestamp::UNIX_EPOCH)
    }
}
