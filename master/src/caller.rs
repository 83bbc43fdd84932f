//! Who calls: read from the connection's certificate, and held against the live roster on every call.

use std::sync::Arc;

use picket_link::Peer;
use picket_pki::{Fingerprint, Identity, PinKind};
use picket_proto::host::HostId;
use tonic::{Request, Status};

use crate::{
    ca::Phase,
    desk::{Actor, Desk},
    status::unauthenticated,
};

/// A host that calls.
#[derive(Debug, Clone)]
pub struct HostCaller {
    /// Which.
    pub id: HostId,
    /// The certificate it came with.
    pub fingerprint: Fingerprint,
    /// Which of its pins that is.
    pub pin: PinKind,
    /// Why it may renew and do nothing else, if so.
    pub renew_only: Option<RenewOnly>,
    /// The connection.
    pub peer: Peer,
}

/// Why a host may renew its certificate and do nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewOnly {
    /// The certificate travelled in a bundle.
    Bundle,
    /// The CA that signed it is retired.
    RetiredRoot,
}

impl HostCaller {
    /// For the audit.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor {
            who: format!("host/{}", self.id),
            from: self.peer.address.to_string(),
        }
    }
}

/// The host at the other end of a call.
///
/// # Errors
/// When it is none, or its certificate is not pinned any more.
pub fn host<T>(desk: &Arc<Desk>, request: &Request<T>) -> Result<HostCaller, Status> {
    let (peer, pin) = admitted(desk, request)?;
    let renew_only = match (pin, desk.ca.phase(&peer.issuer)) {
        (PinKind::Bundle, _) => Some(RenewOnly::Bundle),
        (_, Some(Phase::Retired)) => Some(RenewOnly::RetiredRoot),
        (PinKind::Current | PinKind::Pending | PinKind::Operator, _) => None,
    };
    match peer.identity {
        Identity::Host(id) => Ok(HostCaller {
            id: HostId(id),
            fingerprint: peer.fingerprint,
            pin,
            renew_only,
            peer,
        }),
        Identity::Master | Identity::Operator(_) => Err(unauthenticated("this call is for hosts")),
    }
}

/// The operator at the other end of a call.
///
/// # Errors
/// When it is none, or its certificate is not pinned any more.
pub fn operator<T>(desk: &Arc<Desk>, request: &Request<T>) -> Result<Actor, Status> {
    let (peer, _) = admitted(desk, request)?;
    match &peer.identity {
        Identity::Operator(name) => Ok(Actor {
            who: format!("operator/{name}"),
            from: peer.address.to_string(),
        }),
        Identity::Master | Identity::Host(_) => Err(unauthenticated("this call is for operators")),
    }
}

/// Refuses calls of any service on a connection whose certificate is not pinned any more.
///
/// # Errors
/// `UNAUTHENTICATED`.
#[allow(clippy::result_large_err, reason = "tonic's interceptors return a Status")]
pub fn admitted<T>(desk: &Arc<Desk>, request: &Request<T>) -> Result<(Peer, PinKind), Status> {
    let peer = request.extensions().get::<Peer>();
    let peer = peer.ok_or_else(|| unauthenticated("the connection has no certificate"))?;
    if peer.not_after < desk.now() {
        return Err(unauthenticated(
            "the certificate of this connection has ended; connect again with a newer one",
        ));
    }
    // Pinned, it is what we signed: what it says of its issuer is true.
    match desk.ca.phase(&peer.issuer) {
        Some(Phase::Active | Phase::Outgoing | Phase::Retired) => {}
        Some(Phase::Prepared | Phase::Distrusted) | None => {
            return Err(unauthenticated(
                "the CA that signed the certificate of this connection is trusted no more; get a new bundle",
            ));
        }
    }
    let pin = desk.views.read().roster.admits(&peer.identity, &peer.fingerprint);
    match pin {
        Some(pin) => Ok((peer.clone(), pin)),
        None => Err(unauthenticated(
            "the certificate of this connection is not pinned any more; connect again",
        )),
    }
}
