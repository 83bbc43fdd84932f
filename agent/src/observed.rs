//! What the agent sees of its machine, as the sections of a beat.
//!
//! Each reader puts its own section; the session sends what is there and waits for nobody. A section that is put
//! again unchanged wakes no one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use picket_proto::{
    VERSION,
    beat::{Digest, MOST_SECTION_BYTES, SectionKind},
    document::{MOST_PROBLEM_TEXT, MOST_PROBLEMS, Problem},
    plain,
    status::{ControllerStatus, DeckiesStatus, HostStatus, ServiceState, ZeroTierStatus},
};
use picket_zerotier::NodeId;
use tokio::sync::watch;

use crate::machine::Machine;

/// An encoded section under its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let digest = Digest::of(&bytes);
        Self { bytes, digest }
    }
}

/// The sections there are.
pub(crate) type Sections = BTreeMap<SectionKind, Body>;

/// The observed state. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    sections: watch::Sender<Sections>,
    machine: Arc<Machine>,
    complaints: Arc<Mutex<BTreeMap<String, Vec<Problem>>>>,
}

impl Observed {
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        let observed = Self {
            sections: watch::Sender::new(Sections::new()),
            machine,
            complaints: Arc::default(),
        };
        observed.put_host();
        observed
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Sections> {
        self.sections.subscribe()
    }

    /// The node that the local service says it is.
    pub(crate) fn node(&self) -> Option<NodeId> {
        let sections = self.sections.borrow();
        let body = sections.get(&SectionKind::ZeroTier)?;
        ZeroTierStatus::decode(&body.bytes).ok()?.status.node
    }

    pub(crate) fn put_zerotier(&self, status: &ZeroTierStatus) {
        let bytes = self.fit(SectionKind::ZeroTier, status.encode(), |service| {
            ZeroTierStatus {
                service,
                node: status.node,
                ..ZeroTierStatus::default()
            }
            .encode()
        });
        self.put(SectionKind::ZeroTier, Some(bytes));
    }

    /// Puts the controller's section, or takes it away where the machine hosts no networks.
    pub(crate) fn put_controller(&self, status: Option<&ControllerStatus>) {
        let bytes = status.map(|status| {
            self.fit(SectionKind::Controller, status.encode(), |service| {
                ControllerStatus {
                    service,
                    node: status.node,
                    ..ControllerStatus::default()
                }
                .encode()
            })
        });
        self.put(SectionKind::Controller, bytes);
    }

    pub(crate) fn put_deckies(&self, status: &DeckiesStatus) {
        let bytes = self.fit(SectionKind::Deckies, status.encode(), |service| {
            DeckiesStatus {
                service,
                ..DeckiesStatus::default()
            }
            .encode()
        });
        self.put(SectionKind::Deckies, Some(bytes));
    }

    /// Replaces what `source` complains of in the host's section; an empty list withdraws it.
    pub(crate) fn complain(&self, source: &str, problems: Vec<Problem>) {
        {
            let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
            if problems.is_empty() {
                complaints.remove(source);
            } else {
                complaints.insert(source.to_owned(), problems.iter().map(shown).collect());
            }
        }
        self.put_host();
    }

    fn put_host(&self) {
        let problems = {
            let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
            complaints
                .values()
                .flatten()
                .take(MOST_PROBLEMS)
                .cloned()
                .collect()
        };
        let status = HostStatus {
            hostname: self.machine.hostname.clone(),
            os: self.machine.os.clone(),
            kernel: self.machine.kernel.clone(),
            agent_version: VERSION.to_owned(),
            problems,
        };
        self.put(SectionKind::Host, Some(status.encode()));
    }

    /// A body that no master reads is replaced by one that says so.
    fn fit(&self, kind: SectionKind, bytes: Bytes, short: impl FnOnce(ServiceState) -> Bytes) -> Bytes {
        if bytes.len() <= MOST_SECTION_BYTES {
            self.complain(&format!("{kind} size"), Vec::new());
            return bytes;
        }
        let message = format!(
            "its report has {} bytes and a master reads {MOST_SECTION_BYTES}; what it says is left out",
            bytes.len()
        );
        self.complain(&format!("{kind} size"), vec![Problem::new(kind, &message)]);
        short(ServiceState::Broken(message))
    }

    fn put(&self, kind: SectionKind, bytes: Option<Bytes>) {
        let body = bytes.map(Body::from);
        self.sections.send_if_modified(|sections| {
            if sections.get(&kind) == body.as_ref() {
                return false;
            }
            match body {
                Some(body) => sections.insert(kind, body),
                None => sections.remove(&kind),
            };
            true
        });
    }
}

/// A problem that logs and terminals show and do not obey: subjects and messages may be somebody else's words.
pub(crate) fn shown(problem: &Problem) -> Problem {
    Problem::new(
        plain(&problem.subject, MOST_PROBLEM_TEXT),
        plain(&problem.message, MOST_PROBLEM_TEXT),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> Observed {
        Observed::new(Arc::new(Machine {
            machine_id: "m".into(),
            boot_id: "b".into(),
            instance_id: [0; 16],
            hostname: "edge-07".into(),
            os: "Linux".into(),
            kernel: "6".into(),
        }))
    }

    #[test]
    fn a_section_that_is_put_again_unchanged_wakes_nobody() {
        let observed = observed();
        let mut watch = observed.watch();
        observed.put_zerotier(&ZeroTierStatus::default());
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        observed.put_zerotier(&ZeroTierStatus::default());
        assert!(!watch.has_changed().unwrap());
    }

    #[test]
    fn complaints_travel_in_the_hosts_section_until_they_are_withdrawn() {
        let observed = observed();
        let problems = |observed: &Observed| {
            let sections = observed.watch().borrow().clone();
            HostStatus::decode(&sections[&SectionKind::Host].bytes)
                .unwrap()
                .status
                .problems
        };
        observed.complain("shard", vec![Problem::new("web-01", "makes no sense")]);
        assert_eq!(problems(&observed).len(), 1);
        observed.complain("shard", Vec::new());
        assert!(problems(&observed).is_empty());
    }

    #[test]
    fn a_report_too_long_for_any_master_says_so_instead() {
        let observed = observed();
        let peer = |n: u64| picket_proto::status::Peer {
            node: picket_zerotier::NodeId::new(n + 1).unwrap(),
            role: "x".repeat(200),
            direct: true,
        };
        let status = ZeroTierStatus {
            peers: (0..30_000).map(peer).collect(),
            ..ZeroTierStatus::default()
        };
        observed.put_zerotier(&status);
        let sections = observed.watch().borrow().clone();
        let read = ZeroTierStatus::decode(&sections[&SectionKind::ZeroTier].bytes)
            .unwrap()
            .status;
        assert!(
            matches!(read.service, ServiceState::Broken(_)),
            "{:?}",
            read.service
        );
    }
}
