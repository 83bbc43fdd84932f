//! `picketctl audit verify`: the chain is computed here, and held against signed heads: the one at the end, what was
//! remembered, and what was kept elsewhere.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
};

use jiff::Timestamp;
use picket_pki::{Authorities, Head, HeadError, SignedHead};
use picket_proto::{
    audit::{
        Hash, Line, Lineage,
        chain::{self, Broken, Chain},
    },
    wire::admin as wire,
};
use serde::Serialize;

use super::{SEE, export::Lines, memory::Memory};
use crate::{
    desk::Desk,
    fault::{About, Fault},
    print::Named,
    words::{count, to_the_second},
};

/// The longest line of an export that is read: a record of the first format, in hexadecimal.
const LONGEST_LINE: u64 = 32 << 20;
/// The longest file of heads that is read.
const LONGEST_HEADS: u64 = 256 << 20;

pub(super) async fn verify(
    desk: &mut Desk,
    file: Option<&Path>,
    heads: Option<&Path>,
    forget: bool,
) -> Result<(), Fault> {
    let authorities = desk.authorities()?;
    let memory = Memory::of(desk.home(), authorities.trust_domain());
    let remembered = if forget { None } else { memory.recall()? };
    let kept = match heads {
        Some(path) => {
            let (heads, of_others) = elsewhere(path, &authorities)?;
            if of_others > 0 {
                desk.print.note(&format!(
                    "{of_others} heads in {} are of a CA that your bundle does not trust (any more) and say nothing",
                    path.display()
                ));
            }
            heads
        }
        None => Vec::new(),
    };
    let known: Vec<Head> = remembered.iter().chain(&kept).cloned().collect();
    let (chain, closing) = match file {
        Some(path) => of_file(path, &known)?,
        None => of_master(desk, &known).await?,
    };
    let closing: SignedHead = closing.parse().map_err(|error| foreign(&error))?;
    // The bundle may have followed the CA on the way there.
    let authorities = desk.authorities()?;
    let head = closing.checked(&authorities).map_err(|error| foreign(&error))?;
    let same = remembered
        .as_ref()
        .is_none_or(|before| before.lineage == head.lineage);
    // An export may be of a history that was left behind; the master's own may not, without a word.
    if let Some(before) = remembered.as_ref().filter(|_| !same && file.is_none()) {
        return Err(other_lineage(before, head));
    }
    let verified = judge(chain, head, &known)?;
    if same && remembered.is_none_or(|before| before.revision <= head.revision) {
        memory.keep(&closing)?;
    }
    told(desk, &verified)
}

fn told(desk: &mut Desk, verified: &Verified) -> Result<(), Fault> {
    let sentence = verified.sentence();
    desk.print.done(verified, &sentence)
}

/// What was found.
#[derive(Debug, Serialize)]
struct Verified {
    trust_domain: String,
    lineage: String,
    entries: u64,
    first_revision: u64,
    revision: u64,
    hash: String,
    signed_at: Timestamp,
    /// How many heads known from before or from elsewhere fit.
    witnessed: u64,
}

impl Verified {
    fn sentence(&self) -> String {
        let entries = usize::try_from(self.entries).unwrap_or(usize::MAX);
        let before = if self.first_revision > 1 {
            format!(
                "\nIt begins with revision {}; what came before was not looked at.",
                self.first_revision
            )
        } else {
            String::new()
        };
        format!(
            "{} intact, up to revision {} as the master of {} signed it at {}.\nSHA-256 {}; {} known from before or from \
             elsewhere fit.{before}",
            count(entries, "entry is", "entries are"),
            self.revision,
            self.trust_domain,
            to_the_second(self.signed_at),
            self.hash,
            count(
                usize::try_from(self.witnessed).unwrap_or(usize::MAX),
                "head",
                "heads"
            ),
        )
    }
}

impl Named for Verified {
    fn name(&self) -> String {
        self.hash.clone()
    }
}

/// Holds the end of a chain against everything that is known of the journal.
fn judge(mut chain: Chain, head: &Head, known: &[Head]) -> Result<Verified, Fault> {
    let witnessed = chain.witnessed();
    chain.close(link(head)).map_err(|broken| spoiled(&broken))?;
    // An export of yesterday need not have what a head of today knows of.
    let earlier = known
        .iter()
        .filter(|known| known.lineage == head.lineage && known.time <= head.time);
    if let Some(last) = earlier.map(|known| known.revision).max()
        && last > head.revision
    {
        let (end, witnessed) = (head.revision, last);
        return Err(spoiled(&Broken::Cut { end, witnessed }));
    }
    Ok(Verified {
        trust_domain: head.trust_domain.to_string(),
        lineage: Lineage(head.lineage).to_string(),
        entries: chain.entries(),
        first_revision: chain.first(),
        revision: head.revision,
        hash: Hash(head.hash).to_string(),
        signed_at: head.time,
        witnessed,
    })
}

/// Asks the master for its verdict, then for everything.
async fn of_master(desk: &mut Desk, known: &[Head]) -> Result<(Chain, String), Fault> {
    let about = About::reading("verify the audit trail", SEE);
    let mut client = desk.audit().await?;
    let mut verdicts = desk
        .call(&about, client.verify_audit(wire::VerifyAuditRequest {}))
        .await?;
    loop {
        match desk.next(&about, &mut verdicts).await? {
            Some(verdict) if !verdict.problem.is_empty() => {
                return Err(Fault::Failed(format!(
                    "the master's own check failed: {}",
                    verdict.problem
                )));
            }
            Some(verdict) if verdict.done => break,
            Some(_) => {}
            None => {
                return Err(Fault::Ended(
                    "the master ended its check before its end; try again".to_owned(),
                ));
            }
        }
    }
    let mut lines = Lines::after(desk, 0).await?;
    let mut chain = Chain::against(known.iter().map(link));
    loop {
        match lines.next(desk).await? {
            Line::Entry(entry) => chain.take(&entry).map_err(|broken| spoiled(&broken))?,
            Line::Head(head) => return Ok((chain, head)),
        }
    }
}

/// Reads an export.
fn of_file(path: &Path, known: &[Head]) -> Result<(Chain, String), Fault> {
    let unread = |cause: std::io::Error| Fault::Failed(format!("cannot read {}: {cause}", path.display()));
    let mut reader = BufReader::new(File::open(path).map_err(unread)?);
    let mut chain = Chain::against(known.iter().map(link));
    let mut closing = None;
    for number in 1_u64.. {
        let mut text = Vec::new();
        (&mut reader)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut text)
            .map_err(unread)?;
        if text.is_empty() {
            break;
        }
        let place = || format!("{} line {number}", path.display());
        if closing.is_some() {
            return Err(Fault::Failed(format!(
                "{}: something follows the signed head",
                place()
            )));
        }
        let line = Line::parse(&String::from_utf8_lossy(&text));
        match line.map_err(|error| Fault::Failed(format!("{}: {error}: {}", place(), cause(&error))))? {
            Line::Entry(entry) => chain
                .take(&entry)
                .map_err(|broken| Fault::Failed(format!("{}: {broken}", place())))?,
            Line::Head(head) => closing = Some(head),
        }
    }
    match closing {
        Some(head) => Ok((chain, head)),
        None => Err(Fault::Failed(format!(
            "{} does not end with a signed head: its tail was cut, or the export was not whole",
            path.display()
        ))),
    }
}

/// Heads that somebody kept, and how many in the file are of another CA: they say nothing, and a file that has no others
/// is not taken for one.
fn elsewhere(path: &Path, authorities: &Authorities) -> Result<(Vec<Head>, usize), Fault> {
    let unread = |cause: std::io::Error| Fault::Failed(format!("cannot read {}: {cause}", path.display()));
    let mut text = String::new();
    File::open(path)
        .map_err(unread)?
        .take(LONGEST_HEADS)
        .read_to_string(&mut text)
        .map_err(unread)?;
    let (mut heads, mut of_others, mut why) = (Vec::new(), 0, None);
    for head in texts(&text) {
        let signed: SignedHead = head
            .parse()
            .map_err(|error| Fault::Failed(format!("{}: {error}", path.display())))?;
        match signed.checked(authorities) {
            Ok(head) => heads.push(head.clone()),
            Err(error) => {
                of_others += 1;
                why = Some(error);
            }
        }
    }
    if let (true, Some(error)) = (heads.is_empty(), why) {
        return Err(Fault::Failed(format!("{}: {error}", path.display())));
    }
    if heads.is_empty() {
        let nothing = format!(
            "{} has no heads; want events of the kind `audit.head`",
            path.display()
        );
        return Err(Fault::Failed(nothing));
    }
    Ok((heads, of_others))
}

/// The heads in a file: events in an array or one a line, lines of an export, or heads as they are.
fn texts(text: &str) -> Vec<String> {
    let of = |value: &serde_json::Value| {
        let field = |name: &str| value.get(name).and_then(serde_json::Value::as_str);
        match (field("kind"), field("message"), field("head")) {
            (Some("audit.head"), Some(message), _) => Some(message.to_owned()),
            (None, _, Some(head)) => Some(head.to_owned()),
            _ => None,
        }
    };
    if let Ok(events) = serde_json::from_str::<Vec<serde_json::Value>>(text) {
        return events.iter().filter_map(of).collect();
    }
    text.lines()
        .filter_map(|line| match serde_json::from_str::<serde_json::Value>(line) {
            Ok(value) => of(&value),
            Err(_) if line.starts_with("revision ") => Some(line.to_owned()),
            Err(_) => None,
        })
        .collect()
}

fn link(head: &Head) -> chain::Head {
    chain::Head {
        lineage: Lineage(head.lineage),
        revision: head.revision,
        hash: Hash(head.hash),
    }
}

fn other_lineage(before: &Head, head: &Head) -> Fault {
    Fault::Failed(format!(
        "the journal is of lineage {}, and that of {} was seen before (revision {}, {}): the master was restored, or its \
         history replaced. If it was restored on purpose, run `picketctl audit verify --forget`",
        Lineage(head.lineage),
        Lineage(before.lineage),
        before.revision,
        to_the_second(before.time)
    ))
}

fn foreign(error: &HeadError) -> Fault {
    Fault::Failed(format!("the head at the end proves nothing: {error}"))
}

fn spoiled(broken: &Broken) -> Fault {
    Fault::Failed(format!(
        "the audit trail is not intact: {broken}; keep the master's data directory as it is, and compare with an older \
         export or snapshot"
    ))
}

fn cause(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}
