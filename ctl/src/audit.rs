//! `picketctl audit`: who did what, and whether the journal that says so is whole.

use std::{path::PathBuf, time::Duration};

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use picket_proto::{
    audit::{Entry, Outcome},
    to_wire_time,
    wire::admin as wire,
};
use serde::Serialize;

use crate::{
    cli::{Watch, span},
    desk::Desk,
    fault::{About, Fault},
    print::{Cell, Named, Row, Tone},
    words::{filled, to_the_second},
};

mod check;
mod export;
mod memory;

/// The command that shows what there is.
const SEE: &str = "picketctl audit list";
/// How many entries are asked for at a time.
const PAGE: u32 = 1000;

/// What can be done with the audit trail.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List who did what, the newest first
    #[command(
        after_help = "Examples:\n  picketctl audit list --who ada --since 24h\n  picketctl audit list --what host. --subject edge-07\n  picketctl audit list --outcome refused -o json"
    )]
    List {
        /// Only of this caller: `ada`, `operator/ada`, `host/<id>`, `master`
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        who: String,
        /// Only what begins so, such as `host.`
        #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
        what: String,
        /// Only about this
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        subject: String,
        /// Only what was done, or refused
        #[arg(long, value_name = "OUTCOME", value_enum)]
        outcome: Option<Wanted>,
        /// Only from this time on, or for so long: 2026-11-22T18:00:00Z, 24h
        #[arg(long, value_name = "TIME", value_parser = when)]
        since: Option<When>,
        /// Only before this time, or longer ago
        #[arg(long, value_name = "TIME", value_parser = when)]
        until: Option<When>,
        /// Only what came after this revision
        #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
        after: u64,
        /// At most this many
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: usize,
        /// The oldest first
        #[arg(long)]
        oldest_first: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Check that no entry was edited, removed or reordered, and that none is missing at the end
    ///
    /// The master is asked, and then not believed: the whole trail is fetched and its hashes are computed here. What was
    /// seen last time is remembered, so that a history that was cut or rewritten since then is noticed.
    #[command(
        after_help = "Examples:\n  picketctl audit verify\n  picketctl audit verify --heads events.jsonl\n  picketctl audit verify --file audit.jsonl"
    )]
    Verify {
        /// Check this export; no master is asked
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Heads that were kept elsewhere: events `audit.head` as JSON lines or as `event list -o json`, or just heads
        #[arg(long, value_name = "FILE")]
        heads: Option<PathBuf>,
        /// Forget what was seen before, after the master was restored on purpose
        #[arg(long, conflicts_with = "file")]
        forget: bool,
    },
    /// Write the trail as JSON lines that can be checked without the master
    #[command(
        after_help = "Examples:\n  picketctl audit export --out audit.jsonl\n  picketctl audit export --after 1200 | jq -c 'select(.outcome == \"refused\")'"
    )]
    Export {
        /// Where to write it; an older one is replaced [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Only what came after this revision
        #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
        after: u64,
    },
}

/// Which outcomes are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wanted {
    /// What was done
    Done,
    /// What was refused
    Refused,
}

/// A moment, or how long ago it was.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    At(Timestamp),
    Ago(Duration),
}

impl When {
    fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        }
    }
}

fn when(text: &str) -> Result<When, String> {
    match (text.parse(), span(text)) {
        (Ok(at), _) => Ok(When::At(at)),
        (Err(_), Ok(ago)) => Ok(When::Ago(ago)),
        (Err(_), Err(_)) => {
            Err("want a time such as `2026-11-22T18:00:00Z`, or a span such as `24h`".to_owned())
        }
    }
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::List {
            who,
            what,
            subject,
            outcome,
            since,
            until,
            after,
            limit,
            oldest_first,
            watch,
        } => {
            let now = desk.clock.now();
            let moment = |when: Option<When>| when.map(|when| to_wire_time(when.from(now)));
            let outcome = match outcome {
                None => wire::AuditOutcome::Unspecified,
                Some(Wanted::Done) => wire::AuditOutcome::Done,
                Some(Wanted::Refused) => wire::AuditOutcome::Refused,
            };
            let request = wire::ListAuditRequest {
                who,
                what,
                subject,
                outcome: outcome.into(),
                since: moment(since),
                until: moment(until),
                after,
                oldest_first,
                ..wire::ListAuditRequest::default()
            };
            desk.list(watch.watch, async |desk: &mut Desk| {
                list(desk, request.clone(), limit).await
            })
            .await
        }
        Verb::Verify { file, heads, forget } => {
            check::verify(desk, file.as_deref(), heads.as_deref(), forget).await
        }
        Verb::Export { out, after } => export::export(desk, out.as_deref(), after).await,
    }
}

/// Pages until there are enough, or no more.
async fn list(
    desk: &mut Desk,
    mut request: wire::ListAuditRequest,
    limit: usize,
) -> Result<Vec<Shown>, Fault> {
    let about = About::reading("list the audit trail", SEE);
    let mut entries = Vec::new();
    let mut client = desk.audit().await?;
    loop {
        let left = limit - entries.len();
        request.page_size = u32::try_from(left).unwrap_or(PAGE).clamp(1, PAGE);
        let answer = desk.call(&about, client.list_audit(request.clone())).await?;
        for entry in answer.entries.into_iter().take(left) {
            entries.push(Shown::from(read(entry)?));
        }
        // A token that does not move on would be asked for ever.
        if entries.len() >= limit
            || answer.next_page_token.is_empty()
            || answer.next_page_token == request.page_token
        {
            return Ok(entries);
        }
        request.page_token = answer.next_page_token;
    }
}

fn read(entry: wire::AuditEntry) -> Result<Entry, Fault> {
    Entry::try_from(entry).map_err(|error| {
        Fault::Failed(format!(
            "the master's answer makes no sense ({error}); is it newer than this picketctl?"
        ))
    })
}

/// One entry, as it is listed.
#[derive(Debug, Serialize)]
struct Shown {
    revision: u64,
    time: Timestamp,
    who: String,
    from: Option<String>,
    what: String,
    subject: Option<String>,
    why: Option<String>,
    outcome: &'static str,
    refusal: Option<String>,
    times: u32,
    before: Option<serde_json::Value>,
    after: Option<serde_json::Value>,
    hash: String,
}

impl From<Entry> for Shown {
    fn from(entry: Entry) -> Self {
        let audit = entry.audit;
        let (outcome, refusal) = match audit.outcome {
            Outcome::Done => ("done", None),
            Outcome::Refused(refusal) => ("refused", Some(refusal)),
        };
        let object = |text: String| {
            let parsed = filled(text)
                .map(|text| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)));
            parsed.filter(|value| !value.is_null())
        };
        Self {
            revision: entry.revision,
            time: entry.time,
            who: audit.who,
            from: filled(audit.from),
            what: audit.what,
            subject: filled(audit.subject),
            why: filled(audit.why),
            outcome,
            refusal,
            times: audit.times,
            before: object(audit.before),
            after: object(audit.after),
            hash: entry.hash.to_string(),
        }
    }
}

impl Named for Shown {
    fn name(&self) -> String {
        self.revision.to_string()
    }
}

impl Row for Shown {
    const NOUNS: &'static str = "entries";
    const HEADERS: &'static [&'static str] =
        &["REVISION", "TIME", "WHO", "WHAT", "SUBJECT", "OUTCOME", "WHY"];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let outcome = match (&self.refusal, self.times) {
            (None, _) => Cell::new(self.outcome, Tone::Plain),
            (Some(_), 1) => Cell::new(self.outcome, Tone::Bad),
            (Some(_), times) => Cell::new(format!("{} {times} times", self.outcome), Tone::Bad),
        };
        vec![
            self.revision.to_string().into(),
            to_the_second(self.time).into(),
            self.who.as_str().into(),
            self.what.as_str().into(),
            Cell::or_dash(self.subject.as_ref()),
            outcome,
            Cell::or_dash(self.refusal.as_ref().or(self.why.as_ref())),
        ]
    }
}
