//! The audit trail, as the admin API asks for it. It is whatever a test makes of it; the head at its end is always signed.

use picket_pki::{Head, Identity, SignedHead};
use picket_proto::audit::{Audit, Entry, Hash, Lineage, Outcome, Written, genesis};

use super::*;

/// The master's line of history.
const LINEAGE: Lineage = Lineage([7; 16]);

impl FakeMaster {
    /// Somebody did something.
    pub(crate) fn did(&self, who: &str, what: &str, subject: &str, why: &str) {
        self.audit(Audit {
            who: who.into(),
            from: "192.0.2.7:40000".into(),
            what: what.into(),
            subject: subject.into(),
            why: why.into(),
            before: "{\"host/1\":{\"note\":\"\"}}".into(),
            after: "{\"host/1\":{\"note\":\"spare\"}}".into(),
            ..Audit::default()
        });
    }

    /// Somebody was refused something, so many times.
    pub(crate) fn refused(&self, who: &str, what: &str, refusal: &str, times: u32) {
        self.audit(Audit {
            who: who.into(),
            what: what.into(),
            outcome: Outcome::Refused(refusal.into()),
            times,
            ..Audit::default()
        });
    }

    fn audit(&self, audit: Audit) {
        let mut state = self.state();
        let previous = state.trail.last().map_or(genesis(LINEAGE), |last| last.hash);
        let revision = state.trail.last().map_or(0, |last| last.revision) + 1;
        state.trail.push(Entry {
            lineage: LINEAGE,
            revision,
            time: self.clock.now(),
            audit,
            previous,
            hash: previous,
            written: Written::Apart {
                sha256: Hash([3; 32]),
                length: 42,
            },
        });
        let last = state.trail.last_mut().unwrap();
        last.hash = last.computed().unwrap();
    }

    /// The whole history again under other hashes, as somebody who has the master's disk and key can write it.
    pub(crate) fn rewrites_history(&self, change: impl Fn(&mut Audit)) {
        let old = std::mem::take(&mut self.state().trail);
        for mut entry in old {
            change(&mut entry.audit);
            self.audit(entry.audit);
        }
    }

    /// What the master signs for the end of the trail as it is.
    pub(crate) fn head(&self) -> String {
        let key = Key::generate().unwrap();
        let issued = self
            .authority
            .issue(
                key.public(),
                &Identity::Master,
                lifetime::MASTER,
                self.clock.now(),
            )
            .unwrap();
        let state = self.state();
        let head = Head {
            trust_domain: self.authority.trust_domain().clone(),
            lineage: LINEAGE.0,
            revision: state.trail.last().map_or(0, |last| last.revision),
            hash: state.trail.last().map_or(genesis(LINEAGE), |last| last.hash).0,
            time: self.clock.now(),
        };
        SignedHead::sign(head, &key, &issued.der).unwrap().to_string()
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl audit::AuditService for FakeMaster {
    type VerifyAuditStream = Answers<wire::VerifyAuditResponse>;
    type ExportAuditStream = Answers<wire::ExportAuditResponse>;

    async fn list_audit(&self, request: Request<wire::ListAuditRequest>) -> Answer<wire::ListAuditResponse> {
        let asked = request.into_inner();
        let state = self.open().await?;
        let from = asked.page_token.parse().unwrap_or(u64::MAX);
        let mut found = state.trail.iter().rev().filter(|entry| {
            let refused = entry.audit.outcome != Outcome::Done;
            entry.revision < from
                && entry.revision > asked.after
                && entry.audit.who.ends_with(&asked.who)
                && entry.audit.what.starts_with(&asked.what)
                && (asked.outcome() != wire::AuditOutcome::Refused || refused)
        });
        let size = usize::try_from(asked.page_size).unwrap().min(PAGE);
        let entries: Vec<wire::AuditEntry> = found.by_ref().take(size).cloned().map(Into::into).collect();
        let more = found.next().is_some();
        let next_page_token = entries
            .last()
            .filter(|_| more)
            .map(|last| last.revision.to_string());
        Ok(Response::new(wire::ListAuditResponse {
            entries,
            next_page_token: next_page_token.unwrap_or_default(),
        }))
    }

    /// Believes itself.
    async fn verify_audit(&self, _: Request<wire::VerifyAuditRequest>) -> Answer<Self::VerifyAuditStream> {
        let entries = self.open().await?.trail.len() as u64;
        let answer = wire::VerifyAuditResponse {
            entries,
            done: true,
            ..wire::VerifyAuditResponse::default()
        };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(answer)]))))
    }

    async fn export_audit(
        &self,
        request: Request<wire::ExportAuditRequest>,
    ) -> Answer<Self::ExportAuditStream> {
        use wire::export_audit_response::Line;
        let after = request.into_inner().after;
        let entries: Vec<_> = self.open().await?.trail.clone();
        let mut lines: Vec<_> = entries
            .into_iter()
            .filter(|entry| entry.revision > after)
            .map(|entry| Line::Entry(entry.into()))
            .collect();
        lines.push(Line::Head(self.head()));
        let answers = lines
            .into_iter()
            .map(|line| Ok(wire::ExportAuditResponse { line: Some(line) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(
            answers.collect::<Vec<_>>(),
        ))))
    }
}
