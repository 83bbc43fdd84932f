//! Who calls: read from the connection's certificate, and held against the live roster on every call.

use std::sync::Arc;

use picket_link::Peer;
use picket_pki::{Fingerprint, Identity, OperatorName, PinKind};
use picket_proto::host::HostId;
use tonic::{Request, Status};

use crate::{
    ca::Phase,
    desk::{Actor, Desk},
    expired::{self, Ended},
    refused::Refused,
    status::{certificate_ended, unauthenticated},
};

/// Why a host may renew and do nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewOnly {
    /// It comes with the certificate of its bundle.
    Bundle,
    /// Its certificate has ended, and not so long ago that it is lost.
    Expired,
    /// The CA that signed its certificate is retired.
    RetiredRoot,
}

/// A host that calls.
#[derive(Debug, Clone)]
pub struct HostCaller {
    /// Which.
    pub id: HostId,
    /// The certificate it came with.
    pub fingerprint: Fingerprint,
    /// Which of its pins that is.
    pub pin: PinKind,
    /// Set when it may renew and nothing else: why.
    pub renew_only: Option<RenewOnly>,
    /// The connection.
    pub peer: Peer,
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
    let ended = expired::ended(pin, peer.not_after, desk.now());
    let renew_only = match (pin, desk.ca.phase(&peer.issuer), ended) {
        (PinKind::Bundle, _, _) => Some(RenewOnly::Bundle),
        (PinKind::Current | PinKind::Pending | PinKind::Operator, Some(Phase::Retired), _) => {
            Some(RenewOnly::RetiredRoot)
        }
        (PinKind::Current | PinKind::Pending | PinKind::Operator, _, Ended::No) => None,
        (PinKind::Current | PinKind::Pending | PinKind::Operator, _, Ended::Renewable | Ended::Lost) => {
            Some(RenewOnly::Expired)
        }
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

/// Refuses whoever may renew and nothing else.
///
/// # Errors
/// `PERMISSION_DENIED`.
#[allow(clippy::result_large_err, reason = "tonic's interceptors return a Status")]
pub fn working(caller: HostCaller) -> Result<HostCaller, Status> {
    let why = match caller.renew_only {
        None => return Ok(caller),
        Some(RenewOnly::Bundle) => "a bundle's certificate may only renew; enroll with it first".to_owned(),
        Some(RenewOnly::Expired) => format!(
            "this certificate ended on {:.0} and may only renew; renew it and come back with the new one",
            caller.peer.not_after
        ),
        Some(RenewOnly::RetiredRoot) => {
            "the CA that signed this certificate is retired: it may only renew, and come back with another"
                .to_owned()
        }
    };
    Err(Refused::Denied(why).into())
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

/// The operator at the other end of a call, with its connection.
///
/// # Errors
/// When it is none, or its certificate is not pinned any more.
pub fn operator_peer<T>(desk: &Arc<Desk>, request: &Request<T>) -> Result<(OperatorName, Peer), Status> {
    let (peer, _) = admitted(desk, request)?;
    match &peer.identity {
        Identity::Operator(name) => Ok((name.clone(), peer)),
        Identity::Master | Identity::Host(_) => Err(unauthenticated("this call is for operators")),
    }
}

/// Refuses calls of any service on a connection whose certificate is not pinned any more.
///
/// # Errors
/// `UNAUTHENTICATED`.
#[allow(clippy::result_large_err, reason = "tonic's interceptors return a Status")]
pub fn admitted<T>(desk: &Arc<Desk>, request: &Request<T>) -> Result<(Peer, PinKind), Status> {
    peer_admitted(desk, request.extensions().get::<Peer>())
}

/// As [`admitted`], of a connection's peer.
///
/// # Errors
/// `UNAUTHENTICATED`.
#[allow(clippy::result_large_err, reason = "tonic answers a call with a Status")]
pub fn peer_admitted(desk: &Arc<Desk>, peer: Option<&Peer>) -> Result<(Peer, PinKind), Status> {
    let peer = peer.ok_or_else(|| unauthenticated("the connection has no certificate"))?;
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
        Some(pin) if expired::ended(pin, peer.not_after, desk.now()) == Ended::Lost => {
            Err(certificate_ended())
        }
        Some(pin) => Ok((peer.clone(), pin)),
        None => Err(unauthenticated(
            "the certificate of this connection is not pinned any more; connect again",
        )),
    }
}
