//! The bundle that an operator is answered: with a key that was made for it, or for the request of a worker that made its
//! own.

use bytes::Bytes;
use picket_pki::{Csr, PinKind};
use picket_proto::host::{HostId, Name};
use tokio::sync::MutexGuard;

use crate::{desk::Desk, record::Pin, refused::Refused, signer::Bundled};

/// A bundle, and the pin that makes it good once it is committed.
pub(super) struct Made {
    /// The file.
    pub(super) file: Bytes,
    /// Of the certificate in it.
    pub(super) pin: Pin,
}

/// What is held from the look at a request to the commit of its pin: no guard of a commit names all pins there are. A
/// key that is made for a bundle is nobody's, and waits for nobody.
pub(super) async fn turn<'a>(desk: &'a Desk, request: &[u8]) -> Option<MutexGuard<'a, ()>> {
    if request.is_empty() {
        return None;
    }
    Some(desk.turn.lock().await)
}

/// Makes a bundle for a host; `request` is empty, or a certificate request. The caller holds the [`turn`].
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
    let key = csr.public_key().fingerprint();
    let owner = {
        let views = desk.views.read();
        let owner = views.roster.of_key(&key);
        owner.map(|(host, kind)| (host.record.id, host.record.name.clone(), kind))
    };
    match owner {
        // Its bundle was lost on the way: the key is where it was made, and the bundle before opens nothing.
        Some((owner, _, PinKind::Bundle)) if owner == id => {}
        Some((_, owner, _)) => {
            return Err(Refused::NotNow(format!(
                "the key of this request is one of the host {owner} already; make another on the worker: \
                 `picket-agent request --new --out FILE`"
            )));
        }
        None => {}
    }
    let (name, addresses, now) = (name.clone(), desk.addresses.clone(), desk.now());
    let signed = desk
        .signer
        .sign(move |signer| signer.keyless_bundle(id, &name, &csr, &addresses, now));
    let (bundle, pin) = signed.await.map_err(Refused::Authority)?;
    made(bundle.encode().map_err(Refused::Bundle)?.as_bytes(), pin)
}

fn made(text: &[u8], pin: Pin) -> Result<Made, Refused> {
    Ok(Made {
        file: Bytes::copy_from_slice(text),
        pin,
    })
}
