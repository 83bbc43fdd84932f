//! The audit trail: listing, verifying and exporting the journal. Reading it blocks, so that it happens a piece at a time
//! on a blocking thread, and for few callers at once.

use std::sync::Arc;

use futures::{StreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use picket_proto::{
    audit::{Entry, Outcome},
    from_wire_time,
    wire::admin::{
        self as wire, ExportAuditRequest, ExportAuditResponse, ListAuditRequest, ListAuditResponse,
        VerifyAuditRequest, VerifyAuditResponse, audit_service_server::AuditService,
        export_audit_response::Line,
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    audit::head,
    caller::operator,
    desk::Desk,
    refused::Refused,
    store::{Backward, Forward, Revision, Trail, Unreadable},
};

/// How many entries are listed when the caller does not say, and at most.
const USUAL: u32 = 100;
const MOST: u32 = 1000;
/// How many entries one call of `ListAudit` looks at: a tenth of a second.
const MOST_LOOKED_AT: usize = 20_000;
/// How many entries are read at a time for a stream, and of how many bytes together.
const PIECE: usize = 512;
const PIECE_BYTES: usize = 1 << 20;
/// How many entries are checked between two signs of life.
const CHECKED: usize = 20_000;
/// How many callers read the journal at once. Each has a file open and a piece in memory.
const READERS: usize = 4;

/// The service, over the desk.
#[derive(Debug)]
pub struct AuditTrail {
    desk: Arc<Desk>,
    readers: Arc<Semaphore>,
    stop: CancellationToken,
}

impl AuditTrail {
    /// Streams end when `stop` fires.
    #[must_use]
    pub fn new(desk: Arc<Desk>, stop: CancellationToken) -> Self {
        Self {
            desk,
            readers: Arc::new(Semaphore::new(READERS)),
            stop,
        }
    }

    fn reader(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let place = Arc::clone(&self.readers).try_acquire_owned();
        place.map_err(|_| {
            Refused::NotNow(format!(
                "{READERS} callers read the journal already; try again in a moment"
            ))
        })
    }
}

#[tonic::async_trait]
impl AuditService for AuditTrail {
    type VerifyAuditStream = BoxStream<'static, Result<VerifyAuditResponse, Status>>;
    type ExportAuditStream = BoxStream<'static, Result<ExportAuditResponse, Status>>;

    async fn list_audit(
        &self,
        request: Request<ListAuditRequest>,
    ) -> Result<Response<ListAuditResponse>, Status> {
        operator(&self.desk, &request)?;
        let asked = request.into_inner();
        let wanted = Wanted::of(&asked)?;
        let _place = self.reader()?;
        let trail = self.desk.store.trail();
        let page = blocking(move || page(&trail, &wanted))
            .await?
            .map_err(Refused::from)?;
        Ok(Response::new(page))
    }

    async fn verify_audit(
        &self,
        request: Request<VerifyAuditRequest>,
    ) -> Result<Response<Self::VerifyAuditStream>, Status> {
        operator(&self.desk, &request)?;
        let place = self.reader()?;
        let trail = self.desk.store.trail();
        let upto = trail.head();
        let walk = blocking(move || trail.forward(Revision(0)))
            .await?
            .map_err(Refused::from)?;
        let desk = Arc::clone(&self.desk);
        let state = Some((Verifying { walk, entries: 0 }, place));
        let stream = futures::stream::unfold(state, move |state| {
            let desk = Arc::clone(&desk);
            async move {
                let (verifying, place) = state?;
                let (verifying, step) = match blocking(move || verifying.step()).await {
                    Ok(stepped) => stepped,
                    Err(refused) => return Some((Err(refused.into()), None)),
                };
                let mut answer = verifying.answer();
                match step {
                    Step::More => return Some((Ok(answer), Some((verifying, place)))),
                    Step::Broken(problem) => answer.problem = problem,
                    Step::End => match (verifying.walk.head() == upto, head::signed(&desk, upto)) {
                        (true, Ok(head)) => answer.head = head.to_string(),
                        (true, Err(error)) => return Some((Err(Refused::Signer(error.into()).into()), None)),
                        (false, _) => {
                            answer.problem = format!(
                                "the journal on the disk ends with revision {}, and the running master is at {} ({})",
                                answer.revision, upto.0, upto.1
                            );
                        }
                    },
                }
                answer.done = true;
                Some((Ok(answer), None))
            }
        });
        let stream = stream.take_until(self.stop.clone().cancelled_owned());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn export_audit(
        &self,
        request: Request<ExportAuditRequest>,
    ) -> Result<Response<Self::ExportAuditStream>, Status> {
        operator(&self.desk, &request)?;
        let after = Revision(request.into_inner().after);
        let place = self.reader()?;
        let trail = self.desk.store.trail();
        let upto = trail.head();
        let walk = blocking(move || trail.forward(after))
            .await?
            .map_err(Refused::from)?;
        let desk = Arc::clone(&self.desk);
        let pieces = futures::stream::unfold(Some((walk, place)), move |state| {
            let desk = Arc::clone(&desk);
            async move {
                let (mut walk, place) = state?;
                let read = blocking(move || {
                    let piece = piece(&mut walk);
                    (walk, piece)
                });
                let (walk, piece) = match read.await {
                    Ok((walk, Ok(piece))) => (walk, piece),
                    Ok((_, Err(error))) => return Some((vec![Err(Refused::from(error).into())], None)),
                    Err(refused) => return Some((vec![Err(refused.into())], None)),
                };
                if piece.is_empty() {
                    let head = match head::signed(&desk, upto) {
                        Ok(head) => Ok(line(Line::Head(head.to_string()))),
                        Err(error) => Err(Refused::Signer(error.into()).into()),
                    };
                    return Some((vec![head], None));
                }
                let lines = piece
                    .into_iter()
                    .map(|entry| Ok(line(Line::Entry(entry.into()))))
                    .collect();
                Some((lines, Some((walk, place))))
            }
        });
        let stream = pieces
            .flat_map(futures::stream::iter)
            .take_until(self.stop.clone().cancelled_owned());
        Ok(Response::new(Box::pin(stream)))
    }
}

fn line(line: Line) -> ExportAuditResponse {
    ExportAuditResponse { line: Some(line) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Refused::NotNow("reading the journal was cut short; try again".to_owned()))
}

/// The next entries of an export; none at the end.
fn piece(walk: &mut Forward) -> Result<Vec<Entry>, Unreadable> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while entries.len() < PIECE && bytes < PIECE_BYTES {
        let Some(entry) = walk.step()? else { break };
        bytes += weight(&entry);
        entries.push(entry);
    }
    Ok(entries)
}

fn weight(entry: &Entry) -> usize {
    let texts: usize = entry.audit.texts().iter().map(|text| text.len()).sum();
    match &entry.written {
        picket_proto::audit::Written::Apart { .. } => texts,
        picket_proto::audit::Written::Whole(body) => texts + body.len(),
    }
}

struct Verifying {
    walk: Forward,
    entries: u64,
}

enum Step {
    More,
    End,
    Broken(String),
}

impl Verifying {
    fn step(mut self) -> (Self, Step) {
        for _ in 0..CHECKED {
            match self.walk.step() {
                Ok(Some(_)) => self.entries += 1,
                Ok(None) => return (self, Step::End),
                Err(error) => return (self, Step::Broken(error.to_string())),
            }
        }
        (self, Step::More)
    }

    fn answer(&self) -> VerifyAuditResponse {
        let (revision, hash) = self.walk.head();
        VerifyAuditResponse {
            entries: self.entries,
            revision: revision.0,
            hash: hash.0.to_vec().into(),
            ..VerifyAuditResponse::default()
        }
    }
}

/// What a caller wants listed.
struct Wanted {
    who: String,
    what: String,
    subject: String,
    outcome: wire::AuditOutcome,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    after: Revision,
    oldest_first: bool,
    size: usize,
    /// Where the page before ended.
    from: Option<Revision>,
}

impl Wanted {
    fn of(asked: &ListAuditRequest) -> Result<Self, Refused> {
        let moment = |field: &str, at: &Option<prost_types::Timestamp>| match at {
            Some(at) => from_wire_time(at)
                .map(Some)
                .ok_or_else(|| Refused::invalid(field, "is no moment")),
            None => Ok(None),
        };
        let size = match asked.page_size {
            0 => USUAL,
            size => size.min(MOST),
        };
        let from = match asked.page_token.as_str() {
            "" => None,
            token => Some(Revision(token.parse().map_err(|_| {
                Refused::invalid("page_token", "is none of ours; leave it empty for the first page")
            })?)),
        };
        Ok(Self {
            outcome: asked.outcome(),
            who: asked.who.clone(),
            what: asked.what.clone(),
            subject: asked.subject.clone(),
            since: moment("since", &asked.since)?,
            until: moment("until", &asked.until)?,
            after: Revision(asked.after),
            oldest_first: asked.oldest_first,
            size: usize::try_from(size).unwrap_or(usize::MAX),
            from,
        })
    }

    fn takes(&self, entry: &Entry) -> bool {
        let audit = &entry.audit;
        let name = audit.who.rsplit('/').next().unwrap_or_default();
        let outcome = match (self.outcome, &audit.outcome) {
            (wire::AuditOutcome::Unspecified, _)
            | (wire::AuditOutcome::Done, Outcome::Done)
            | (wire::AuditOutcome::Refused, Outcome::Refused(_)) => true,
            (wire::AuditOutcome::Done, Outcome::Refused(_))
            | (wire::AuditOutcome::Refused, Outcome::Done) => false,
        };
        outcome
            && (self.who.is_empty() || audit.who == self.who || name == self.who)
            && audit.what.starts_with(&self.what)
            && (self.subject.is_empty() || audit.subject == self.subject)
            && self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time < until)
    }
}

enum Reading {
    Forward(Forward),
    Backward(Backward),
}

impl Reading {
    fn step(&mut self) -> Result<Option<Entry>, Unreadable> {
        match self {
            Self::Forward(walk) => walk.step(),
            Self::Backward(walk) => walk.step(),
        }
    }
}

/// One page. It ends early when it has looked at enough; the next one goes on there.
fn page(trail: &Trail, wanted: &Wanted) -> Result<ListAuditResponse, Unreadable> {
    let mut reading = if wanted.oldest_first {
        let from = wanted.from.map_or(wanted.after, |from| from.max(wanted.after));
        Reading::Forward(trail.forward(from)?)
    } else {
        Reading::Backward(trail.backward(wanted.from)?)
    };
    let mut page = ListAuditResponse::default();
    for _ in 0..MOST_LOOKED_AT {
        let Some(entry) = reading.step()? else {
            page.next_page_token.clear();
            return Ok(page);
        };
        if entry.revision <= wanted.after.0 {
            // Newest first, so nothing that follows is wanted.
            page.next_page_token.clear();
            return Ok(page);
        }
        page.next_page_token = entry.revision.to_string();
        if wanted.takes(&entry) {
            page.entries.push(entry.into());
            if page.entries.len() == wanted.size {
                break;
            }
        }
    }
    Ok(page)
}
