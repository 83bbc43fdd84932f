//! What an operator sees of the audit trail.

use picket_pki::{Authorities, Head, SignedHead};
use picket_proto::{
    audit::{Entry, Line, chain::Chain},
    wire::admin::{
        AuditEntry, AuditOutcome, ExportAuditRequest, ListAuditRequest, VerifyAuditRequest,
        VerifyAuditResponse, audit_service_client::AuditServiceClient, export_audit_response,
    },
};

use super::Site;

impl Site {
    /// The entries that are asked for, over all pages.
    pub async fn trail(&self, asked: &ListAuditRequest) -> Vec<AuditEntry> {
        let (mut asked, mut entries) = (asked.clone(), Vec::new());
        loop {
            let page = asked.clone();
            let page = self.told(async |channel| AuditServiceClient::new(channel).list_audit(page).await);
            let page = page.await;
            entries.extend(page.entries);
            if page.next_page_token.is_empty() {
                return entries;
            }
            asked.page_token = page.next_page_token;
        }
    }

    /// The refusals that are asked for.
    pub async fn refusals(&self, what: &str) -> Vec<AuditEntry> {
        let asked = ListAuditRequest {
            what: what.to_owned(),
            outcome: AuditOutcome::Refused.into(),
            oldest_first: true,
            ..Default::default()
        };
        self.trail(&asked).await
    }

    /// The master's verdict on its journal.
    pub async fn verify_audit(&self) -> VerifyAuditResponse {
        let verify = async |channel| {
            AuditServiceClient::new(channel)
                .verify_audit(VerifyAuditRequest {})
                .await
        };
        let mut stream = self.told(verify).await;
        loop {
            let answer = stream.message().await.unwrap_or_else(|status| panic!("{status}"));
            let answer = answer.expect("a verdict comes last");
            if answer.done {
                return answer;
            }
        }
    }

    /// The whole trail and the head at its end.
    pub async fn export(&self) -> (Vec<Entry>, SignedHead) {
        let export = async |channel| {
            AuditServiceClient::new(channel)
                .export_audit(ExportAuditRequest::default())
                .await
        };
        let mut stream = self.told(export).await;
        let mut entries = Vec::new();
        loop {
            let answer = stream.message().await.unwrap_or_else(|status| panic!("{status}"));
            match answer.and_then(|answer| answer.line).expect("a head comes last") {
                export_audit_response::Line::Entry(entry) => {
                    let entry = Entry::try_from(entry).expect("what the master exports can be read");
                    // What is written to a file is the same.
                    let line = Line::Entry(Box::new(entry.clone()));
                    assert_eq!(Line::parse(&line.encode()).expect("its own line"), line);
                    entries.push(entry);
                }
                export_audit_response::Line::Head(head) => {
                    return (
                        entries,
                        head.parse().expect("the master writes heads that can be read"),
                    );
                }
            }
        }
    }

    /// What a head says, when this master signed it.
    #[must_use]
    pub fn believed(&self, head: &SignedHead) -> Head {
        self.believed_by(head, &self.admin_bundle().authorities)
    }

    /// What a head says to whoever trusts these CAs.
    ///
    /// # Panics
    /// When none of them signed it.
    #[must_use]
    pub fn believed_by(&self, head: &SignedHead, authorities: &[Vec<u8>]) -> Head {
        let domain = self.admin_bundle().trust_domain;
        let authorities = Authorities::new(domain, authorities.to_vec()).expect("CAs");
        head.checked(&authorities).expect("the master signed it").clone()
    }
}

/// Whether entries are an intact trail, and how many there are.
///
/// # Panics
/// When they are not.
#[must_use]
pub fn intact(entries: &[Entry]) -> Chain {
    let mut chain = Chain::default();
    for entry in entries {
        chain.take(entry).unwrap_or_else(|broken| panic!("{broken}"));
    }
    chain.end().unwrap_or_else(|broken| panic!("{broken}"));
    chain
}
