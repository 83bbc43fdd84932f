//! `picket.agent.v1.AgentService`: what hosts call.

use std::{sync::Arc, time::Duration};

use futures::{
    StreamExt as _,
    stream::{BoxStream, Map},
};
use picket_failpoint::{Point, pass, pending};
use picket_pki::{AuthorityError, Csr};
use picket_proto::{
    beat::{MOST_CHUNK_BYTES, section_kind},
    document::kind,
    wire::agent::{
        FetchRequest, FetchResponse, RenewRequest, RenewResponse, ReportRequest, ReportResponse,
        SessionRequest, SessionResponse, agent_service_server::AgentService,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    audit::refusal,
    caller::{HostCaller, RenewOnly, host, working},
    desired,
    desk::Desk,
    event::Severity,
    expired::{self, Ended},
    record::{HostRecord, HostStanding, Pin, Record as _, key},
    refused::Refused,
    renewal::{self, Renewal},
    session::{self, digest, needs_session},
    status::chain,
};

/// How long one call of Report may take; the agent goes on in another.
const REPORT_DEADLINE: Duration = Duration::from_secs(120);

/// The service, over the desk.
#[derive(Debug)]
pub struct Agents {
    /// What the services share.
    pub desk: Arc<Desk>,
    /// Sessions run here.
    pub tasks: TaskTracker,
    /// Sessions end when it fires.
    pub stop: CancellationToken,
}

type Answer = Result<SessionResponse, Status>;

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = Map<ReceiverStream<Box<SessionResponse>>, fn(Box<SessionResponse>) -> Answer>;
    type FetchStream = BoxStream<'static, Result<FetchResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = working(host(&self.desk, &request)?)?;
        let (out, messages) = mpsc::channel(session::OUT);
        let (desk, stop) = (Arc::clone(&self.desk), self.stop.clone());
        self.tasks
            .spawn(session::serve(desk, caller, request.into_inner(), out, stop));
        Ok(Response::new(
            ReceiverStream::new(messages).map(|message| Ok(*message)),
        ))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let caller = host(&self.desk, &request)?;
        let csr = Csr::parse(&request.into_inner().csr).map_err(Refused::Csr);
        pass(Point::MasterBeforeRenewal);
        // A caller that goes away in between does not stop what was begun: an event belongs to its commit.
        let agents = Self {
            desk: Arc::clone(&self.desk),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        };
        let renewal = self.tasks.spawn(async move {
            let renewed = match &csr {
                Ok(csr) => pending(Point::MasterRenewalWaits, agents.renewed(&caller, csr)).await,
                Err(_) => csr.map(|_| Vec::new()),
            };
            if let Err(refused) = &renewed {
                agents.tell_refused(&caller, refused).await;
            }
            renewed
        });
        let certificate = renewal
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        pass(Point::MasterBeforeReply);
        let trust = self.desk.ca.trust();
        Ok(Response::new(RenewResponse {
            certificate: certificate.into(),
            authorities: trust.authorities,
            cross_signed: trust.cross_signed,
        }))
    }

    async fn report(
        &self,
        request: Request<Streaming<ReportRequest>>,
    ) -> Result<Response<ReportResponse>, Status> {
        let caller = working(host(&self.desk, &request)?)?;
        needs_session(&self.desk, &caller)?;
        let seen = self.desk.observed.of(caller.id);
        let mut chunks = request.into_inner();
        let Some(first) = chunks.message().await? else {
            return Err(Refused::invalid("report", "has no chunk").into());
        };
        let what = (
            section_kind(first.kind).map_err(Refused::Invalid)?,
            digest("report.sha256", &first.sha256)?,
            usize::try_from(first.size).map_err(|_| Refused::invalid("report.size", "is too large"))?,
        );
        let mut next = Some(first);
        let mut held = 0;
        let ends = self.desk.clock.monotonic() + REPORT_DEADLINE;
        while let Some(chunk) = next {
            let offset = usize::try_from(chunk.offset)
                .map_err(|_| Refused::invalid("report.offset", "is too large"))?;
            held = seen.chunk(what, offset, &chunk.chunk).map_err(Refused::Invalid)?;
            let message = tokio::time::timeout_at(ends, chunks.message()).await;
            next = message.map_err(|_| {
                Refused::NotNow("the report takes too long; go on from what is held".to_owned())
            })??;
        }
        Ok(Response::new(ReportResponse {
            held: u64::try_from(held).unwrap_or(u64::MAX),
        }))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let caller = working(host(&self.desk, &request)?)?;
        needs_session(&self.desk, &caller)?;
        let wanted = request.into_inner();
        let (kind, digest) = (
            kind(wanted.kind).map_err(Refused::Invalid)?,
            digest("fetch.sha256", &wanted.sha256)?,
        );
        let offered = self
            .desk
            .observed
            .of(caller.id)
            .tried(kind)
            .wanted
            .filter(|offered| offered.digest == digest);
        let made = offered.map(|offered| {
            let views = self.desk.views.read();
            desired::document(&views, caller.id, kind, offered.since, self.desk.now())
        });
        let Some(made) = made.filter(|made| made.digest == digest) else {
            let refused =
                format!("this {kind} document is not offered any more; wait for the one that replaces it");
            return Err(Refused::NotNow(refused).into());
        };
        let start = usize::try_from(wanted.offset)
            .unwrap_or(usize::MAX)
            .min(made.body.len());
        let body = made.body;
        let chunks = (start..body.len().max(start + 1))
            .step_by(MOST_CHUNK_BYTES)
            .map(move |offset| {
                let end = (offset + MOST_CHUNK_BYTES).min(body.len());
                let chunk = body.slice(offset.min(end)..end);
                Ok(FetchResponse {
                    offset: u64::try_from(offset).unwrap_or(u64::MAX),
                    chunk,
                })
            });
        Ok(Response::new(Box::pin(futures::stream::iter(
            chunks.collect::<Vec<_>>(),
        ))))
    }
}

impl Agents {
    /// A refused renewal is in the audit trail, and an alarm where it was denied. A host that tries for ever is neither
    /// at every try.
    async fn tell_refused(&self, caller: &HostCaller, refused: &Refused) {
        let desk = &self.desk;
        let audit = caller.actor().does("host.renew", caller.id, "");
        let news = refusal::note(desk, audit, &chain(refused)).await;
        if let (true, Refused::Denied(why)) = (news, refused) {
            let message = format!("a renewal from {} was refused: {why}", caller.peer.address);
            desk.say(
                Severity::Alert,
                "renewal.refused",
                &desk.name_of(caller.id),
                &message,
            );
        }
    }

    /// An agent at work renews over the connection of its session. While that is open, a renewal that comes over another
    /// connection is made with a copy of its certificate, and would spend the pin that the host itself works under.
    fn renews_where_its_session_is(&self, caller: &HostCaller) -> Result<(), Refused> {
        let desk = &self.desk;
        let seated = desk.sessions.seated(caller.id);
        let elsewhere = seated.filter(|seated| seated.who.connection != caller.peer.connection);
        let Some(elsewhere) = elsewhere.filter(|_| caller.renew_only != Some(RenewOnly::Bundle)) else {
            return Ok(());
        };
        let name = desk.name_of(caller.id);
        let why = format!(
            "the session of this host is open from {}, and this is another connection, from {}; if they are two machines, \
             somebody copied its certificate: `picketctl host bundle {name} --cut`",
            elsewhere.who.address, caller.peer.address
        );
        if desk.observed.of(caller.id).may_tell(desk.clock.monotonic()) {
            desk.say(
                Severity::Alert,
                "renewal.refused",
                &name,
                &format!("a renewal was refused: {why}"),
            );
        }
        Err(Refused::NotNow(why))
    }

    /// The certificate for a request that asks for one, as the host's record stands: what signs may be far away, and a
    /// commit waits for nobody.
    async fn signed_ahead(&self, caller: &HostCaller, csr: &Csr, from: &str) -> Result<Option<Pin>, Refused> {
        let desk = &self.desk;
        let entry = desk.store.get(&key::host(caller.id))?;
        let Some(mut record) = entry.as_ref().map(HostRecord::of).transpose()? else {
            return Ok(None);
        };
        if record.standing != HostStanding::Active {
            return Ok(None);
        }
        renewal::promote(&mut record, &caller.fingerprint);
        let (id, now) = (caller.id, desk.now());
        let asks = csr.public_key().fingerprint();
        match renewal::renew(&record.pins, &caller.fingerprint, &asks, now) {
            Renewal::Issue => {}
            Renewal::Again(pin) if !desk.signed_by_active(&pin) => {}
            Renewal::Again(_)
            | Renewal::BundleUsed { .. }
            | Renewal::BundleKey
            | Renewal::NotPinned
            | Renewal::TooSoon => return Ok(None),
        }
        if !desk.pace.allows(id, desk.clock.monotonic()) {
            return Err(Refused::NotNow(
                "many certificates were made for this host within a few minutes; wait a minute".to_owned(),
            ));
        }
        let (csr, from) = (csr.clone(), from.to_owned());
        let signed = desk
            .signer
            .sign(move |signer| signer.host(id, &csr, &from, now))
            .await;
        signed.map(Some).map_err(|error| {
            // Where the CA's key is, and how it fares, is no host's business.
            if matches!(error, AuthorityError::Unsigned(_)) {
                tracing::error!(error = %chain(&error), host = %id, "a renewal could not be signed");
                Refused::NotNow("the master's CA cannot sign at the moment; try again in a minute".to_owned())
            } else {
                error.into()
            }
        })
    }

    async fn renewed(&self, caller: &HostCaller, csr: &Csr) -> Result<Vec<u8>, Refused> {
        let desk = &self.desk;
        let key = csr.public_key().fingerprint();
        let from = caller.peer.address.to_string();
        self.renews_where_its_session_is(caller)?;
        let expired = expired::ended(caller.pin, caller.peer.not_after, desk.now()) != Ended::No;
        let (what, why) = if expired {
            let end = caller.peer.not_after;
            ("host.renew-expired", format!("its certificate ended on {end:.0}"))
        } else {
            ("host.renew", String::new())
        };
        let audit = caller.actor().does(what, caller.id, &why);
        let signed = self.signed_ahead(caller, csr, &from).await?;
        pass(Point::MasterAfterSigning);
        let mut answer = None;
        let changed = desk
            .change_host(caller.id, audit, |record: &mut HostRecord| {
                if record.standing != HostStanding::Active {
                    return Err(Refused::Denied(format!("host {} is banned or retired", record.name)));
                }
                let promoted = renewal::promote(record, &caller.fingerprint);
                match renewal::renew(&record.pins, &caller.fingerprint, &key, desk.now()) {
                    Renewal::Again(pin) if desk.signed_by_active(&pin) => {
                        answer = Some(pin);
                        Ok(promoted)
                    }
                    // The same certificate again would be no use where another CA signs by now.
                    Renewal::Again(_) | Renewal::Issue => {
                        let Some(pin) = signed.clone() else {
                            return Err(Refused::NotNow("this host was changed just now; try again".to_owned()));
                        };
                        renewal::offer(record, pin.clone());
                        answer = Some(pin);
                        Ok(true)
                    }
                    Renewal::BundleUsed { by } => Err(Refused::Denied(format!(
                        "this bundle was used from {by} before, with another key; if that was not you, it was stolen: \
                         `picketctl host bundle {} --cut --out FILE`, and enroll the machine again",
                        record.name
                    ))),
                    Renewal::BundleKey => {
                        Err(Refused::Denied("the key in a bundle travelled; renew with a key made here".to_owned()))
                    }
                    Renewal::TooSoon => Err(Refused::NotNow(
                        "a certificate with another key was made for this host a moment ago; wait a minute".to_owned(),
                    )),
                    Renewal::NotPinned => {
                        Err(Refused::Denied("the certificate of this call is not pinned any more".to_owned()))
                    }
                }
            })
            .await;
        let (record, written) = changed?;
        if expired && written {
            let message = format!("was let in from {from} to renew, and for nothing else: {why}");
            desk.say(
                Severity::Warning,
                "host.renewed-expired",
                record.name.as_str(),
                &message,
            );
        }
        pass(Point::MasterAfterRenewal);
        let pin = answer.ok_or_else(|| Refused::NotNow("no certificate was made; try again".to_owned()))?;
        data_encoding::HEXLOWER
            .decode(pin.certificate.as_bytes())
            .map_err(|_| {
                Refused::NotNow(
                    "the stored certificate cannot be read; run `picket-master verify`".to_owned(),
                )
            })
    }
}
