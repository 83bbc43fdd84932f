//! What a session's host says of its ZeroTier node: checked, weighed, kept or told.

use std::{pin::Pin, sync::Arc};

use picket_proto::{host::HostId, node, session::Hello};
use picket_zerotier::identity::PublicIdentity;

use crate::{
    caller::HostCaller,
    desk::{Actor, Desk},
    event::Severity,
    node::{Claim, Doubt, Kept, NodeStanding, ProofError, Verdict, Waiting, weigh},
    observed::{Seen, Summary},
    record::{HostRecord, HostStanding, Record as _, key},
    refused::Refused,
    store::Guard,
};

/// The claims of one session.
pub(super) struct Claims {
    desk: Arc<Desk>,
    host: HostId,
    proof: Proof,
    /// The last claim that was weighed waits, or could not be kept.
    waits: bool,
}

/// What became of the proof in Hello.
enum Proof {
    Checking(Pin<Box<dyn Future<Output = Result<PublicIdentity, ProofError>> + Send + Sync>>),
    Checked(Result<PublicIdentity, Box<str>>),
}

impl Claims {
    pub(super) fn new(desk: &Arc<Desk>, caller: &HostCaller, hello: &Hello) -> Self {
        let host = caller.id;
        let proof = match hello.node_proof.clone() {
            Some(proof) => {
                let domain = desk.signer.trust_domain().to_string();
                let signed = node::signed(&domain, host, caller.peer.binding.bytes());
                let kept = kept(desk, host).and_then(|kept| kept.identity);
                let prover = desk.nodes.prover.clone();
                Proof::Checking(Box::pin(prover.check(host, proof, signed, kept)))
            }
            None => Proof::Checked(Err(
                "its agent showed no proof; see its other conditions, or update it".into(),
            )),
        };
        Self {
            desk: Arc::clone(desk),
            host,
            proof,
            waits: false,
        }
    }

    /// Whether [`Self::check`] is to be waited for.
    pub(super) fn is_checking(&self) -> bool {
        matches!(self.proof, Proof::Checking(_))
    }

    /// Waits until the proof is checked. Can be dropped and called again.
    pub(super) async fn check(&mut self) {
        if let Proof::Checking(checking) = &mut self.proof {
            let checked = checking.await;
            self.proof = Proof::Checked(checked.map_err(|error| error.to_string().into()));
        }
    }

    /// Whether the last claim was not believed, so that it is worth weighing again.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Weighs what the host says now. While its proof is being checked, nothing is decided.
    pub(super) async fn weigh(&mut self, seen: &Seen) {
        let Proof::Checked(proof) = &self.proof else {
            return;
        };
        // A service that does not answer says nothing against what the host proves.
        let proven = proof.as_ref().ok().map(PublicIdentity::node);
        let says = |summary: &Summary| {
            summary
                .node
                .or_else(|| proven.filter(|_| summary.is_without_zerotier()))
        };
        let Some(node) = seen.glance(says) else {
            return;
        };
        let proof = match proof {
            Ok(identity) if identity.node() != node => Err(format!(
                "what it proved is node {}; the ZeroTier service and the home in agent.toml are two",
                identity.node()
            )
            .into()),
            other => other.clone(),
        };
        let claim = Claim { node, proof };
        let result = Keeper {
            desk: &self.desk,
            host: self.host,
        }
        .settle(claim, seen)
        .await;
        self.waits = match result {
            Ok(settled) => !settled,
            Err(error) => {
                tracing::warn!(host = %self.host, %error, "could not keep a node id; the next beat tries again");
                true
            }
        };
    }
}

/// What weighs one claim, and keeps it.
struct Keeper<'a> {
    desk: &'a Desk,
    host: HostId,
}

impl Keeper<'_> {
    /// Does what a claim comes to. Returns whether it is believed.
    async fn settle(&self, claim: Claim, seen: &Seen) -> Result<bool, Refused> {
        let desk = self.desk;
        let (verdict, waiting) = self.look(&claim);
        match verdict {
            Verdict::Known => {
                desk.nodes.settle(self.host);
                Ok(true)
            }
            Verdict::Wait(_) => {
                let name = desk.name_of(self.host);
                let (severity, kind) = waiting.kind();
                let sentence = waiting.sentence(&name);
                let news = desk.nodes.wait(self.host, waiting);
                if news && seen.may_tell(desk.clock.monotonic()) {
                    desk.say(severity, kind, &name, &sentence);
                }
                Ok(false)
            }
            Verdict::Keep | Verdict::Take => {
                let Ok(identity) = claim.proof else {
                    return Ok(false);
                };
                // Two hosts that claim one node at once take turns.
                let _turn = desk.turn.lock().await;
                // The look before was not in turn.
                match self.look(&claim).0 {
                    Verdict::Keep => self.keep(identity).await,
                    Verdict::Take => self.take(identity).await,
                    Verdict::Known | Verdict::Wait(_) => Ok(false),
                }
            }
        }
    }

    /// Weighs a claim as things stand, and says how it would wait.
    fn look(&self, claim: &Claim) -> (Verdict, Waiting) {
        let views = self.desk.views.read();
        let owner = views.roster.of_node(claim.node);
        let other = owner.filter(|owner| owner.record.id != self.host);
        let kept = views
            .roster
            .host(self.host)
            .and_then(|host| host.record.kept_node());
        let verdict = weigh(claim, kept, other.map(|other| other.record.node_standing));
        let waiting = Waiting {
            claim: claim.clone(),
            doubt: match verdict {
                Verdict::Wait(doubt) => doubt,
                Verdict::Known | Verdict::Keep | Verdict::Take => Doubt::Unproven,
            },
            before: kept.map(|kept| kept.node),
            other: other.map(|other| other.record.name.clone()),
        };
        (verdict, waiting)
    }

    async fn keep(&self, identity: PublicIdentity) -> Result<bool, Refused> {
        let (desk, node) = (self.desk, identity.node());
        let audit = Actor::master().does("host.node", self.host, &format!("its agent proved node {node}"));
        let kept = |record: &mut HostRecord| {
            let may =
                record.standing == HostStanding::Active && record.node.is_none_or(|before| before == node);
            if may {
                record.believe(identity.node(), NodeStanding::Proven, Some(identity));
            }
            Ok(may)
        };
        let (record, changed) = desk.change_host(self.host, audit, kept).await?;
        desk.nodes.settle(self.host);
        if changed {
            let message = format!("proved that it is node {node}");
            desk.say(Severity::Info, "node.proven", record.name.as_str(), &message);
        }
        Ok(changed)
    }

    /// Keeps a proven node with this host, and no longer with the one that only said that it was its own.
    async fn take(&self, identity: PublicIdentity) -> Result<bool, Refused> {
        let (desk, node) = (self.desk, identity.node());
        let other = desk
            .views
            .read()
            .roster
            .of_node(node)
            .map(|other| other.record.id);
        let mut both = Vec::new();
        for id in [Some(self.host), other].into_iter().flatten() {
            let at = key::host(id);
            let entry = desk.store.get(&at)?.ok_or_else(|| Refused::no_host(id))?;
            both.push((Guard::At(at, entry.revision), HostRecord::of(&entry)?));
        }
        let [(_, own), (_, theirs)] = both.as_mut_slice() else {
            return Ok(false);
        };
        let only_said = theirs.node == Some(node) && theirs.node_standing == NodeStanding::Unproven;
        if own.standing != HostStanding::Active || own.node.is_some() || !only_said {
            return Ok(false);
        }
        own.believe(node, NodeStanding::Proven, Some(identity));
        theirs.forget_node();
        let (name, loser) = (own.name.to_string(), theirs.name.to_string());
        let writes = both.iter().map(|(_, record)| record.put()).collect();
        let guards = both.into_iter().map(|(guard, _)| guard).collect();
        let why = format!("its agent proved node {node}, which {loser} only said it was");
        let audit = Actor::master().does("host.node", self.host, &why);
        desk.commit(guards, writes, audit).await?;
        desk.nodes.settle(self.host);
        let message = format!(
            "proved that it is node {node}, which {loser} had said it was; {loser} is not believed any more"
        );
        desk.say(Severity::Alert, "node.moved", &name, &message);
        Ok(true)
    }
}

/// What is kept of a host's node.
fn kept(desk: &Desk, host: HostId) -> Option<Kept> {
    desk.views
        .read()
        .roster
        .host(host)
        .and_then(|host| host.record.kept_node())
}
