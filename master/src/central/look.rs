//! Looking at one network in Central now, between the passes over all of them.

use std::time::Duration;

use picket_govern::{Memory, Report, shown};
use picket_proto::status::ControlledNetwork;
use picket_zerotier::{ids::NetworkId, service::Error};
use tokio::time;

use super::{chain, lock, pass};
use crate::{desk::Desk, refused::Refused};

/// Reads a network, says how it is by the rules, and shows it so from here on. Nothing is changed in Central.
///
/// # Errors
/// When Central does not say within `patience`.
pub async fn look(desk: &Desk, id: NetworkId, patience: Duration) -> Result<ControlledNetwork, Refused> {
    let looked = time::timeout(patience, read(desk, id)).await;
    let network = looked.map_err(|_| {
        Refused::NotNow(format!(
            "ZeroTier Central did not answer within {patience:?}; try again"
        ))
    })??;
    if let Some(seen) = lock(&desk.central.seen).as_mut()
        && let Some(known) = seen.networks.iter_mut().find(|known| known.id == id)
    {
        known.clone_from(&network);
    }
    Ok(network)
}

async fn read(desk: &Desk, id: NetworkId) -> Result<ControlledNetwork, Refused> {
    let client = desk.central.client().map_err(Refused::NotNow)?;
    let (_, mut want) = pass::wanted(desk);
    want.networks.retain(|network, _| *network == id);
    let (now, kept) = (desk.now(), lock(&desk.central.kept).memory.clone());
    let memory = kept.unwrap_or_else(|| Memory::new(now));
    let look = picket_govern::look(&client, &want, &memory, now).await;
    let network = match look.there.get(&id) {
        Some(there) => shown(&there.network, &there.members),
        None => {
            let read = pass::read(&client, id).await;
            read.map_err(|error: Error| Refused::NotNow(chain(&error)))?
        }
    };
    let report = Report {
        networks: look.networks,
        ..Report::default()
    };
    Ok(pass::standing(network, &report))
}
