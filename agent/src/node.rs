//! Shows the master that the local ZeroTier node is this machine's: what its identity signs over the connection.
//!
//! The identity is read for each session and again when the service says that it is another node, and kept no longer
//! than that. What keeps it from being read is a condition of the host; without it the node waits for an operator.

use picket_link::Binding;
use picket_proto::{
    document::Problem,
    node::{NodeProof, signed},
};
use picket_zerotier::{
    NodeId,
    home::{Home, HomeError},
    identity::Identity as NodeIdentity,
};

use crate::{identity::Identity, observed::Observed, sentence};

/// Under what name it is complained that the node cannot be proven.
const SOURCE: &str = "zerotier identity";

/// The local node's identity, in the home of its service.
#[derive(Debug, Clone)]
pub(crate) struct LocalNode {
    home: Option<Home>,
    observed: Observed,
}

impl LocalNode {
    /// Of the service in `home`, unless ZeroTier is switched off.
    pub(crate) fn new(home: Option<Home>, observed: Observed) -> Self {
        Self { home, observed }
    }

    /// What the service says that it is.
    pub(crate) fn says(&self) -> Option<NodeId> {
        self.observed.node()
    }

    /// Reads the identity, and complains when it cannot be read or is not the service's.
    pub(crate) async fn identity(&self) -> Option<NodeIdentity> {
        let home = self.home.clone()?;
        let read = {
            let home = home.clone();
            tokio::task::spawn_blocking(move || home.identity()).await
        };
        let read = read.expect("reading a file does not panic");
        let (identity, problem) = match (read, self.says()) {
            // There is no service to be proven, which its own section says.
            (Err(HomeError::NoDirectory { .. }), _) => (None, None),
            (Err(error), _) => (
                None,
                Some(format!(
                    "{}; until then the master takes nobody's word for which node this is",
                    sentence(&error)
                )),
            ),
            (Ok(identity), Some(says)) if identity.public().node() != says => {
                let problem = format!(
                    "{} is of node {}, and the service says that it is {says}: set zerotier.home in agent.toml to the home of \
                     that service, or restart it",
                    home.directory().join("identity.secret").display(),
                    identity.public().node()
                );
                (Some(identity), Some(problem))
            }
            (Ok(identity), _) => (Some(identity), None),
        };
        let problems = problem.map(|problem| Problem::new(SOURCE, problem));
        self.observed.complain(SOURCE, problems.into_iter().collect());
        identity
    }
}

/// What the node signs for this host over one connection.
pub(crate) fn prove(node: &NodeIdentity, host: &Identity, binding: &Binding) -> NodeProof {
    let signed = signed(&host.trust_domain.to_string(), host.host, binding.bytes());
    NodeProof {
        identity: node.public().to_string(),
        signature: node.sign(&signed).to_vec().into(),
    }
}
