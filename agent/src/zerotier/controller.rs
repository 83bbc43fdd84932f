//! The controller's section of the beat.

use std::collections::BTreeMap;

use picket_govern::{There, unseen};
use picket_proto::{
    document::{MOST_PROBLEM_TEXT, Problem},
    plain,
    status::{ControlledNetwork, ControllerStatus, ServiceState},
};
use picket_zerotier::{
    NetworkId,
    controller::{Controller as _, LocalController, Readiness},
    service::Error,
};

use super::{
    ZeroTierError,
    governance::{Found, Governance},
    is_away,
};
use crate::{observed::Observed, sentence};

/// What networks were like when they could last be read.
pub(super) type LastSeen = BTreeMap<NetworkId, ControlledNetwork>;

/// Reads the controller; none where it hosts no networks and governs none.
pub(super) async fn read(
    controller: &LocalController,
    governance: &Governance,
    last: &mut LastSeen,
    observed: &Observed,
) -> Option<ControllerStatus> {
    let status = |service, networks| ControllerStatus {
        service,
        node: Some(controller.address()),
        networks,
        ..ControllerStatus::default()
    };
    let mut status = match controller.ready().await {
        Ok(Readiness::Ready) => match networks(controller, governance, last).await {
            Ok((networks, skipped)) => {
                observed.complain("controller", skipped);
                status(ServiceState::Answers, networks)
            }
            Err(error) => status(ZeroTierError::from(error).state(), Vec::new()),
        },
        Ok(Readiness::Absent) => return None,
        Ok(Readiness::Loading) => {
            let state = ServiceState::Broken("the controller is still reading its records".to_owned());
            status(state, Vec::new())
        }
        Err(error) => status(ZeroTierError::from(error).state(), Vec::new()),
    };
    governance.fill(&mut status);
    let is_idle =
        status.networks.is_empty() && status.repairs.is_empty() && status.service == ServiceState::Answers;
    (!is_idle).then_some(status)
}

/// What a pass read just now is not read again. One network that makes no sense hides no other: it is shown as it was last seen, and why it is not seen now.
async fn networks(
    controller: &LocalController,
    governance: &Governance,
    last: &mut LastSeen,
) -> Result<(Vec<ControlledNetwork>, Vec<Problem>), Error> {
    let mut ids = controller.networks().await?;
    ids.sort_unstable();
    last.retain(|id, _| ids.contains(id));
    let mut networks = Vec::with_capacity(ids.len());
    let mut problems = Vec::new();
    for id in ids {
        let found = match governance.recent(id) {
            Some(found) => Ok(found),
            None => network(controller, id).await,
        };
        match found {
            Ok(Found { network, skipped }) => {
                problems.extend(skipped.into_iter().map(|sentence| Problem::new(id, sentence)));
                last.insert(id, network.clone());
                networks.push(network);
            }
            // Deleted since it was listed.
            Err(Error::NotFound { .. }) => {}
            Err(error) if is_away(&error) => return Err(error),
            Err(error) => {
                let seen = last.get(&id).cloned();
                networks.push(ControlledNetwork {
                    frozen: plain(&sentence(&error), MOST_PROBLEM_TEXT),
                    ..seen.unwrap_or_else(|| unseen(id, String::new()))
                });
            }
        }
    }
    Ok((networks, problems))
}

async fn network(controller: &LocalController, id: NetworkId) -> Result<Found, Error> {
    let network = controller.network(id).await?;
    let members = controller.members(id).await?;
    Ok(There { network, members }.into())
}
