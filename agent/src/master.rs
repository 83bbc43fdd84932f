//! The calls to a master: one connection under one identity, and what can go wrong with it.

use std::sync::Arc;

use bytes::Bytes;
use picket_clock::Clock;
use picket_failpoint::{Point, pass};
use picket_link::{Connected, Dial, LinkError, Options};
use picket_pki::{Key, Refusal};
use picket_proto::{
    session::Leave,
    wire::agent::{RenewRequest, agent_service_client::AgentServiceClient},
};
use tokio::time;
use tonic::{Code, Status, transport::Channel};

use crate::identity::{Identity, IdentityError};

/// How long one call may take that is no stream.
const CALL: std::time::Duration = std::time::Duration::from_secs(20);

/// The generated client over one connection.
pub(crate) type Client = AgentServiceClient<Channel>;

/// How a master is reached.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) clock: Clock,
    pub(crate) dial: Arc<dyn Dial>,
    /// Dialled instead of the identity's own addresses, when not empty.
    pub(crate) addresses: Vec<String>,
}

/// Why the master could not be asked, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// There is no connection.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Our side of TLS cannot be set up, or what came cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The master answered a call with an error.
    #[error("the master refused to {what}: {} ({:?})", .status.message(), .status.code())]
    Call {
        /// What was asked.
        what: &'static str,
        /// What it answered.
        status: Box<Status>,
    },
    /// The master took a call and did not answer.
    #[error("the master did not answer within {} s when asked to {what}", CALL.as_secs())]
    Silent {
        /// What was asked.
        what: &'static str,
    },
    /// The master speaks another version of the protocol.
    #[error(transparent)]
    Version(#[from] crate::version::VersionError),
    /// The master sent something that makes no sense.
    #[error("what the master sent makes no sense")]
    Nonsense(#[from] picket_proto::WireError),
    /// The session ended before it had begun.
    #[error("the master ended the session: {0}")]
    Ended(String),
    /// The master sent us away when the session was opened.
    #[error("the master ended the session: {}", .0.message)]
    Left(Box<Leave>),
    /// What came over the session could not be taken.
    #[error("left the session: {0}")]
    Broken(String),
}

impl MasterError {
    /// Why the master does not accept this identity, when that is what happened.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Link(LinkError::Refused { cause, .. }) => Some(*cause),
            Self::Link(
                LinkError::Unreachable(_)
                | LinkError::NotTheMaster { .. }
                | LinkError::TimedOut { .. }
                | LinkError::NoAddress,
            )
            | Self::Identity(_)
            | Self::Call { .. }
            | Self::Silent { .. }
            | Self::Version(_)
            | Self::Nonsense(_)
            | Self::Ended(_)
            | Self::Left(_)
            | Self::Broken(_) => None,
        }
    }

    /// Whether the master knows this host and does not let it do this: nothing but renew, perhaps.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == Code::PermissionDenied)
    }

    /// Whether what answered is not the master that this identity trusts.
    pub(crate) fn is_distrust(&self) -> bool {
        matches!(self, Self::Link(LinkError::NotTheMaster { .. }))
    }

    /// A call that failed.
    pub(crate) fn call(what: &'static str, status: Status) -> Self {
        if status.code() == Code::DeadlineExceeded {
            return Self::Silent { what };
        }
        Self::Call {
            what,
            status: Box::new(status),
        }
    }
}

impl Reach {
    /// The addresses that are dialled under `identity`.
    pub(crate) fn addresses<'a>(&'a self, identity: &'a Identity) -> &'a [String] {
        if self.addresses.is_empty() {
            &identity.masters
        } else {
            &self.addresses
        }
    }

    /// Connects under `identity`.
    pub(crate) async fn connect(&self, identity: &Identity) -> Result<Connected, MasterError> {
        let tls = identity.tls(&self.clock)?;
        let addresses = self.addresses(identity);
        pass(Point::AgentBeforeConnect);
        let connected = picket_link::connect(&*self.dial, addresses, tls, Options::default()).await?;
        pass(Point::AgentAfterConnect);
        Ok(connected)
    }
}

/// Has a certificate signed for `key`, which is on disk already, and returns the identity it makes of `base`.
pub(crate) async fn renew(channel: Channel, key: &Key, base: &Identity) -> Result<Identity, MasterError> {
    const WHAT: &str = "sign a certificate for this host's new key";
    let csr = Bytes::from(key.csr().map_err(IdentityError::from)?);
    let mut client = Client::new(channel);
    pass(Point::AgentBeforeRequest);
    let answer = time::timeout(CALL, client.renew(RenewRequest { csr }))
        .await
        .map_err(|_| MasterError::Silent { what: WHAT })?
        .map_err(|status| MasterError::call(WHAT, status))?
        .into_inner();
    pass(Point::AgentAfterReply);
    let der = |list: &[Bytes]| list.iter().map(|der| der.to_vec()).collect::<Vec<_>>();
    let mut authorities = der(&answer.authorities);
    if !authorities.is_empty() {
        authorities = base.offered(&authorities, &der(&answer.cross_signed))?;
    }
    Ok(base.renewed(key.clone(), answer.certificate.to_vec(), authorities)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sentence;

    /// What the message of a refusal must name. A reason that is added does not compile here before it has something.
    fn way_out(cause: Refusal) -> &'static str {
        match cause {
            Refusal::NoCertificate => "picketctl host enroll",
            Refusal::OtherAuthority
            | Refusal::WrongTrustDomain
            | Refusal::Spent
            | Refusal::Unknown
            | Refusal::Expired => "picketctl host bundle NAME",
            Refusal::WrongRole => "agent port (7443)",
            Refusal::Revoked => "picketctl host unban NAME",
            Refusal::NotYetValid => "compare both clocks",
            Refusal::Protocol => "check the address",
        }
    }

    #[test]
    fn every_alert_is_told_with_the_masters_address_and_a_way_out() {
        for cause in Refusal::ALL.iter().copied() {
            let error = MasterError::from(LinkError::Refused {
                address: "master.example.org:7443".to_owned(),
                cause,
            });
            assert_eq!(error.refusal(), Some(cause));
            let said = sentence(&error);
            for wanted in ["master.example.org:7443", way_out(cause)] {
                assert!(said.contains(wanted), "{cause:?} does not name {wanted}: {said}");
            }
        }
    }
}
