//! The reconciler of a shard's containers: what the master wants, as far as `agent.toml` allows it, against what
//! Docker has.
//!
//! | file | is |
//! | --- | --- |
//! | [`allow`] | what of the desired shard this machine permits |
//! | [`form`] | how each container and network is to look |
//! | [`inventory`] | what Docker has |
//! | [`plan`] | the steps from one to the other |
//! | [`engine`] | the little of the Docker Engine that is needed; [`docker`] is the real one |
//! | [`pass`] | read, plan, act, report |
//! | [`changes`] | when to look again |
//! | [`status`] | what the beat says |
//!
//! Docker is the inventory: there is no state file. Only objects that carry this host's owner label are touched.

use picket_proto::host::HostId;

pub mod allow;
mod answer;
pub mod changes;
pub mod docker;
pub mod engine;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod form;
pub mod inventory;
pub mod pass;
pub mod plan;
mod request;
pub mod status;

/// Whose objects these are. Agents of several hosts may share one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The trust domain of the host's identity.
    pub trust_domain: String,
    /// The host.
    pub host: HostId,
}

impl Owner {
    /// The value of the owner label.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}/{}", self.trust_domain, self.host)
    }

    /// What the names of our objects begin with.
    #[must_use]
    pub fn prefix(&self) -> String {
        let host = self.host.0.simple().to_string();
        format!("picket-{}", &host[..8])
    }
}
