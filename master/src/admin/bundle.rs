//! The bundle that an operator is answered: with a key that was made for it, or for the request of a worker that made its
//! own.

use bytes::Bytes;
use picket_pki::Csr;
use picket_proto::host::{HostId, Name};
use tokio::sync::MutexGuard;

use crate::{desk::Desk, record::Pin, refused::Refused, roster::KeyOf, signer::Bundled};

/// A bundle, and the pin that makes it good once it is committed.
pub(super) struct Made {
    /// The file.
    pub(super) file: Bytes,
    /// Of the certificate in it.
    pub(super) pin: Pin,
}

/// What is held from the look at whose key it is to the commit of its pin: no guard of a commit names all pins there are.
/// A key that is made for a bundle is nobody's, and waits for nobody.
///
/// # Errors
/// When the key of the request is a host's already.
pub(super) async fn turn<'a>(
    desk: &'a Desk,
    id: HostId,
    request: &[u8],
) -> Result<Option<MutexGuard<'a, ()>>, Refused> {
    if request.is_empty() {
        return Ok(None);
    }
    let turn = desk.turn.lock().await;
    of_nobody_else(desk, id, &Csr::parse(request).map_err(Refused::Csr)?)?;
    Ok(Some(turn))
}

/// Makes a bundle for a host; `request` is empty, or a certificate request. What signs may be far
/// away, so that the [`turn`] is taken after this.
pub(super) async fn make(desk: &Desk, id: HostId, name: &Name, request: &[u8]) -> Result<Made, Refused> {
    if request.is_empty() {
        let (name, addresses, now) = (name.clone(), desk.addresses.clone(), desk.now());
        let signed = desk
            .signer
            .sign(move |signer| signer.host_bundle(id, &name, &addresses, now));
        let Bundled { bundle, pin } = signed.await.map_err(Refused::Authority)?;
        return made(bundle.encode().map_err(Refused::Bundle)?.as_bytes(), pin);
    }
    let csr = Csr::parse(request).map_err(Refused::Csr)?;
    of_nobody_else(desk, id, &csr)?;
    let (name, addresses, now) = (name.clone(), desk.addresses.clone(), desk.now());
    let signed = desk
        .signer
        .sign(move |signer| signer.keyless_bundle(id, &name, &csr, &addresses, now));
    let (bundle, pin) = signed.await.map_err(Refused::Authority)?;
    made(bundle.encode().map_err(Refused::Bundle)?.as_bytes(), pin)
}

/// Refuses a request for a key that a host has already, or has had a bundle for.
fn of_nobody_else(desk: &Desk, id: HostId, csr: &Csr) -> Result<(), Refused> {
    let key = csr.public_key().fingerprint();
    let owner = {
        let views = desk.views.read();
        let owner = views.roster.of_key(&key);
        owner.map(|(host, kind)| (host.record.id, host.record.name.clone(), kind))
    };
    match owner {
        // Its bundle was lost on the way: the key is where it was made, and the bundle before opens nothing.
        Some((owner, _, KeyOf::Bundle)) if owner == id => {}
        Some((_, owner, _)) => {
            return Err(Refused::NotNow(format!(
                "the key of this request is, or was, one of the host {owner} already; make another on the worker: \
                 `picket-agent request --new --out FILE`"
            )));
        }
        None => {}
    }
    Ok(())
}

fn made(text: &[u8], pin: Pin) -> Result<Made, Refused> {
    Ok(Made {
        file: Bytes::copy_from_slice(text),
        pin,
    })
}
