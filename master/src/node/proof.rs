//! Checks what a host shows for its ZeroTier node.
//!
//! A signature is cheap to check and comes first. Whether the node's id belongs to the keys takes 2 MiB and some
//! milliseconds, so that it is done beside the runtime, for one identity at a time, for one host not more often than
//! every few seconds, and not again for an identity that was looked at before.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use picket_clock::Instant;
use picket_proto::{host::HostId, node::NodeProof};
use picket_zerotier::identity::{IdentityError, PublicIdentity};
use tokio::{sync::Semaphore, time};

/// How long a host waits for the next identity of its that has to be computed: it has one, and a new one once in years.
const BETWEEN: Duration = Duration::from_secs(10);
/// How many identities are remembered. Those that are kept with a host need no memory here.
const MOST: usize = 4096;

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// What it names is no identity.
    #[error("its agent showed no identity: {0}")]
    Nonsense(IdentityError),
    /// The signature is not the node's, or not over this connection.
    #[error("the signature its agent showed is not that node's over this connection")]
    Signature,
    /// The id does not follow from the keys.
    #[error("its agent showed an identity that nobody made: {0}")]
    Forged(IdentityError),
    /// It was not looked at.
    #[error("the master stops")]
    Stops,
}

/// Checks proofs, and remembers what it has computed.
#[derive(Debug, Clone)]
pub struct Prover(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    turn: Semaphore,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    known: HashMap<PublicIdentity, Result<(), IdentityError>>,
    oldest: VecDeque<PublicIdentity>,
    /// When a host may have the next one computed.
    due: HashMap<HostId, Instant>,
}

impl Default for Prover {
    fn default() -> Self {
        Self(Arc::new(Inner {
            turn: Semaphore::new(1),
            memory: Mutex::default(),
        }))
    }
}

impl Prover {
    /// Checks what `host` showed over a connection, `signed` being what its node is to have signed. `kept` is the identity
    /// that is kept with the host: its id was found to belong to its keys.
    ///
    /// # Errors
    /// [`ProofError`].
    pub async fn check(
        self,
        host: HostId,
        proof: NodeProof,
        signed: Vec<u8>,
        kept: Option<PublicIdentity>,
    ) -> Result<PublicIdentity, ProofError> {
        let identity: PublicIdentity = proof.identity.parse().map_err(ProofError::Nonsense)?;
        if !identity.verify(&signed, &proof.signature) {
            return Err(ProofError::Signature);
        }
        if kept == Some(identity) {
            return Ok(identity);
        }
        let known = self.memory().known.get(&identity).cloned();
        let found = match known {
            Some(known) => known,
            None => self.compute(host, identity).await?,
        };
        found.map(|()| identity).map_err(ProofError::Forged)
    }

    async fn compute(
        &self,
        host: HostId,
        identity: PublicIdentity,
    ) -> Result<Result<(), IdentityError>, ProofError> {
        let due = self.memory().due.get(&host).copied();
        if let Some(due) = due {
            time::sleep_until(due).await;
        }
        let _turn = self.0.turn.acquire().await.map_err(|_| ProofError::Stops)?;
        self.memory().computes(host, Instant::now());
        let found = tokio::task::spawn_blocking(move || identity.check()).await;
        let found = found.map_err(|_| ProofError::Stops)?;
        self.memory().learn(identity, found.clone());
        Ok(found)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn computes(&mut self, host: HostId, now: Instant) {
        self.due.retain(|_, due| *due > now);
        self.due.insert(host, now + BETWEEN);
    }

    fn learn(&mut self, identity: PublicIdentity, found: Result<(), IdentityError>) {
        if self.known.insert(identity, found).is_none() {
            self.oldest.push_back(identity);
        }
        while self.oldest.len() > MOST {
            if let Some(oldest) = self.oldest.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use picket_proto::node;
    use picket_zerotier::identity::Identity;
    use uuid::Uuid;

    use super::*;

    const HOST: HostId = HostId(Uuid::from_u128(1));

    fn signed() -> Vec<u8> {
        node::signed("example.org", HOST, &[7; 32])
    }

    fn proof(identity: &Identity) -> NodeProof {
        NodeProof {
            identity: identity.public().to_string(),
            signature: identity.sign(&signed()).to_vec().into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_proof_is_good_over_its_own_connection_and_no_other() {
        let identity = Identity::generate().unwrap();
        let prover = Prover::default();
        let check = async |signed| prover.clone().check(HOST, proof(&identity), signed, None).await;
        assert_eq!(check(signed()).await, Ok(*identity.public()));
        let elsewhere = node::signed("example.org", HOST, &[8; 32]);
        assert_eq!(check(elsewhere).await, Err(ProofError::Signature));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_do_not_make_a_node_of_any_id() {
        let identity = Identity::generate().unwrap();
        let text = identity.public().to_string();
        let forged = NodeProof {
            identity: text.replace(&text[..10], "39966434ba"),
            ..proof(&identity)
        };
        let found = Prover::default().check(HOST, forged, signed(), None).await;
        assert!(matches!(found, Err(ProofError::Forged(_))), "{found:?}");
        let nonsense = NodeProof {
            identity: "me".to_owned(),
            ..proof(&identity)
        };
        let found = Prover::default().check(HOST, nonsense, signed(), None).await;
        assert!(matches!(found, Err(ProofError::Nonsense(_))), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_comes_with_one_identity_after_another_waits_between_them() {
        let prover = Prover::default();
        let check = |identity: &Identity| prover.clone().check(HOST, proof(identity), signed(), None);
        let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let began = Instant::now();
        check(&one).await.unwrap();
        check(&one).await.unwrap();
        assert_eq!(
            began.elapsed(),
            Duration::ZERO,
            "what is known is not computed again"
        );
        check(&other).await.unwrap();
        assert!(began.elapsed() >= BETWEEN);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut memory = Memory::default();
        for number in 0..MOST + 10 {
            let text = format!("1298e69128:0:{number:0128x}");
            memory.learn(text.parse().unwrap(), Ok(()));
        }
        assert_eq!((memory.known.len(), memory.oldest.len()), (MOST, MOST));
    }
}
