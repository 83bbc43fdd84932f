//! Adopting: a network that is there is watched, and whoever is on it stays.

use picket_proto::{
    form::MOST_APPROVALS,
    host::HostId,
    status::ControlledNetwork,
    wire::admin::{AdoptNetworkRequest, AdoptNetworkResponse},
};
use picket_zerotier::ids::NetworkId;

use super::shown::{count, shown};
use crate::{
    admin::{name, network_id},
    central,
    desk::{Actor, Desk},
    event::Severity,
    record::{
        Record as _, key,
        network::{Governor, GrantRecord, NetworkMode, NetworkRecord},
    },
    refused::Refused,
    store::{CommitError, Guard, WRITES_MAX},
};

pub(super) async fn adopt(
    desk: &Desk,
    actor: &Actor,
    asked: AdoptNetworkRequest,
) -> Result<AdoptNetworkResponse, Refused> {
    let id = network_id(&asked.id)?;
    let approvals = u8::try_from(asked.approvals)
        .ok()
        .filter(|approvals| *approvals <= MOST_APPROVALS)
        .ok_or_else(|| Refused::invalid("approvals", "want 0, 1 or 2"))?;
    if asked.central && !asked.controller_host.is_empty() {
        return Err(both());
    }
    not_ending(desk, id)?;
    let guard = match free(desk, id) {
        Some(guard) => guard,
        None => {
            return Ok(AdoptNetworkResponse {
                network: Some(shown(desk, id)?),
                imported: 0,
                caution: caution(desk, id),
            });
        }
    };
    let (controller, controlled) = if asked.central {
        (Governor::CENTRAL, central::read(desk, id).await?)
    } else {
        let (host, controlled) = find_controller(desk, id, &asked.controller_host)?;
        if !desk.sessions.has(host) {
            let host = desk.name_of(host);
            return Err(Refused::NotNow(format!(
                "{host}, whose controller runs {id}, is not connected, so what is known of its members may be old; try again \
                 when it is online"
            )));
        }
        (Governor::Host(host), controlled)
    };
    if !controlled.frozen.is_empty() {
        return Err(Refused::NotNow(format!(
            "its members are not known just now: {}; try again when it can be read",
            controlled.frozen
        )));
    }
    let now = desk.now();
    let authorized = controlled.members.iter().filter(|member| member.authorized);
    let grants: Vec<_> = authorized
        .map(|member| GrantRecord {
            network: id,
            node: member.node,
            admitted: true,
            for_activation: false,
            by: actor.name().to_owned(),
            reason: "adopted".to_owned(),
            at: now,
        })
        .collect();
    // The network's own record comes last: until it is there nothing is watched, and adopting again starts over.
    let audit = actor.does("network.adopt", id, "");
    for batch in grants.chunks(WRITES_MAX - 1) {
        let writes = batch.iter().map(GrantRecord::put).collect();
        desk.commit(vec![guard.clone()], writes, audit.clone()).await?;
    }
    let record = NetworkRecord {
        approvals,
        ..NetworkRecord::watched(id, controller, now)
    };
    match desk.commit(vec![guard], vec![record.put()], audit).await {
        // Somebody else adopted it meanwhile: that is what was asked for.
        Ok(_) | Err(CommitError::Conflict { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let imported = count(grants.len());
    let message = format!(
        "adopted by {}, {imported} members imported; nothing is changed yet",
        actor.name()
    );
    desk.say(Severity::Notice, "network.adopted", &id.to_string(), &message);
    warn(desk, &record);
    Ok(AdoptNetworkResponse {
        network: Some(shown(desk, id)?),
        imported,
        caution: caution(desk, id),
    })
}

/// What an operator has to know of a network before relying on it; empty when there is nothing.
pub(super) fn caution(desk: &Desk, id: NetworkId) -> String {
    let views = desk.views.read();
    let governor = views.networks.network(id).map(|kept| kept.record.controller);
    governor.and_then(central::caution).unwrap_or_default().to_owned()
}

/// Refuses where a network of this id is being deleted.
pub(super) fn not_ending(desk: &Desk, id: NetworkId) -> Result<(), Refused> {
    let views = desk.views.read();
    let network = views.networks.network(id).map(|kept| &kept.record);
    if network.is_none_or(|network| network.mode != NetworkMode::Deleting) {
        return Ok(());
    }
    Err(Refused::NotNow(format!(
        "network {id} is being deleted; try again when `picketctl network list` shows it no more. Where its controller does not \
         come back, `picketctl network delete {id} --forget --reason ...` gives it up"
    )))
}

/// What a commit that begins to watch a network is guarded by; none when it is watched.
pub(super) fn free(desk: &Desk, id: NetworkId) -> Option<Guard> {
    let views = desk.views.read();
    if views.networks.network(id).is_some() {
        return None;
    }
    let at = key::network(id);
    Some(match views.networks.network_or_gone(id) {
        Some(gone) => Guard::At(at, gone.revision),
        None => Guard::Absent(at),
    })
}

/// Says what an operator has to know of a network before relying on it.
pub(super) fn warn(desk: &Desk, record: &NetworkRecord) {
    if let Some(caution) = central::caution(record.controller) {
        desk.say(
            Severity::Notice,
            "network.caution",
            &record.id.to_string(),
            caution,
        );
    }
}

pub(super) fn both() -> Refused {
    Refused::invalid("controller_host", "is of no use with central; say one of the two")
}

/// The host whose controller runs a network, and what it said of it.
fn find_controller(desk: &Desk, id: NetworkId, host: &str) -> Result<(HostId, ControlledNetwork), Refused> {
    let candidates: Vec<HostId> = if host.is_empty() {
        let views = desk.views.read();
        views.roster.hosts().map(|host| host.record.id).collect()
    } else {
        vec![desk.host_named(&name("controller_host", host)?)?]
    };
    for candidate in candidates {
        // A controller's word counts for networks under its own node id, and that must be the host's own.
        let own = desk
            .views
            .read()
            .roster
            .host(candidate)
            .and_then(|host| host.record.node);
        if own != Some(id.controller()) {
            continue;
        }
        let status = desk.observed.get(candidate).and_then(|seen| seen.controller());
        let network = status.and_then(|status| status.networks.into_iter().find(|network| network.id == id));
        if let Some(network) = network {
            return Ok((candidate, network));
        }
    }
    let who = if host.is_empty() {
        "no enrolled host reports".to_owned()
    } else {
        format!("{host} does not report")
    };
    Err(Refused::NotNow(format!(
        "{who} a controller that runs network {id}; enroll the machine of node {} first, and see with \
         `picketctl host show` that its agent reaches the ZeroTier service",
        id.controller()
    )))
}
