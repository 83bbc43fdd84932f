//! Making a network: on a host's controller, where its agent makes it from the members document, or in ZeroTier Central.

use std::sync::Arc;

use picket_proto::{
    form::Form,
    host::HostId,
    wire::admin::{CreateNetworkRequest, CreateNetworkResponse},
};
use picket_zerotier::ids::{NetworkId, NodeId};

use super::{
    adopt::{both, caution, free, not_ending, warn},
    shown::shown,
};
use crate::{
    admin::{name, network_id},
    central,
    desk::{Actor, Desk},
    event::Severity,
    network_plan,
    record::{
        HostStanding, Record as _,
        network::{Governor, NetworkMode, NetworkRecord},
    },
    refused::Refused,
    store::{Commit, CommitError, Guard},
};

/// How many ids are tried. A controller has 16 million; one that is taken is rare.
const MOST_TRIES: usize = 64;

pub(super) async fn create(
    desk: &Arc<Desk>,
    actor: &Actor,
    asked: CreateNetworkRequest,
) -> Result<CreateNetworkResponse, Refused> {
    let form = Form::from_wire(asked.form.unwrap_or_default())?;
    let wanted = (!asked.id.is_empty())
        .then(|| network_id(&asked.id))
        .transpose()?;
    let governor = match (asked.central, asked.controller_host.as_str()) {
        (true, "") => Governor::CENTRAL,
        (true, _) => return Err(both()),
        (false, host) => Governor::Host(desk.host_named(&name("controller_host", host)?)?),
    };
    if let Some(id) = wanted {
        not_ending(desk, id)?;
    }
    if let Some(there) = wanted.and_then(|id| there(desk, id)) {
        if there.controller != governor {
            let whose = desk.whose(there.controller);
            return Err(Refused::Exists(format!(
                "network {} is there, and {whose} runs it",
                there.id
            )));
        }
        return Ok(CreateNetworkResponse {
            network: Some(shown(desk, there.id)?),
            caution: caution(desk, there.id),
            existed: true,
            waits: String::new(),
        });
    }
    desk.may_approve()?;
    let approving = NetworkRecord {
        approvals: form.approvals,
        approvers: form.approvers.clone(),
        ..NetworkRecord::watched(
            NetworkId::at(NodeId::new(1).expect("one is a node"), 1),
            governor,
            desk.now(),
        )
    };
    if let Some(why) = network_plan::nobody_approves(&desk.views.read(), &approving) {
        return Err(Refused::invalid("approvers", why));
    }
    let id = match governor {
        Governor::Host(host) => on_host(desk, actor, host, wanted, form).await?,
        Governor::Central(_) if wanted.is_some() => {
            return Err(Refused::invalid(
                "id",
                "ZeroTier Central chooses ids itself; leave it out, or adopt the network that has it",
            ));
        }
        Governor::Central(_) => {
            // A caller that goes away in between does not stop what was begun: nobody would know whose it is.
            let (own, actor) = (Arc::clone(desk), actor.clone());
            let making = desk
                .central
                .making
                .spawn(async move { in_central(&own, &actor, form).await });
            making
                .await
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?
        }
    };
    let away = governor.host().filter(|host| !desk.sessions.has(*host));
    Ok(CreateNetworkResponse {
        network: Some(shown(desk, id)?),
        caution: caution(desk, id),
        existed: false,
        waits: away
            .map(|host| format!("{} is not connected", desk.name_of(host)))
            .unwrap_or_default(),
    })
}

/// Makes a network in Central, and keeps that. Central chooses its id, so that what is kept before it is made is a name:
/// whoever finds a network of that name there and nothing of it here finds in the audit trail whose it was to be.
async fn in_central(desk: &Desk, actor: &Actor, form: Form) -> Result<NetworkId, Refused> {
    let name = format!("picket-{:08x}", fastrand::u32(..));
    let intent = Commit {
        audit: actor.does(
            "network.intend",
            &name,
            "to be made in ZeroTier Central under this name",
        ),
        ..Commit::default()
    };
    desk.store.commit(intent).await?;
    desk.metrics.commits.increment(1);
    let id = central::create(desk, &name).await?;
    tracing::info!(%id, name, "made in Central");
    let Err(refused) = keep(desk, actor, (id, Governor::CENTRAL), form).await else {
        return Ok(id);
    };
    if let Err(problem) = central::abandon(desk, id).await {
        let message = format!(
            "it was made in ZeroTier Central as {name}, could not be kept here ({refused}), and is still there ({problem}); \
             delete it at Central's web page, or watch it with `picketctl network adopt {id} --central`"
        );
        desk.say(Severity::Warning, "network.orphaned", &id.to_string(), &message);
    }
    Err(refused)
}

fn there(desk: &Desk, id: NetworkId) -> Option<NetworkRecord> {
    let views = desk.views.read();
    views.networks.network(id).map(|network| network.record.clone())
}

async fn on_host(
    desk: &Desk,
    actor: &Actor,
    host: HostId,
    wanted: Option<NetworkId>,
    form: Form,
) -> Result<NetworkId, Refused> {
    let node = node_of(desk, host)?;
    if let Some(id) = wanted {
        if id.controller() != node {
            let problem = format_args!(
                "{id} is an id of node {}, and {} is node {node}; it begins with that",
                id.controller(),
                desk.name_of(host)
            );
            return Err(Refused::invalid("id", problem));
        }
        if runs(desk, host, id) {
            return Err(Refused::Exists(format!(
                "the controller on {} runs a network {id} that Picket did not make; `picketctl network adopt {id}` \
                 watches it",
                desk.name_of(host)
            )));
        }
        keep(desk, actor, (id, Governor::Host(host)), form).await?;
        return Ok(id);
    }
    for _ in 0..MOST_TRIES {
        let id = NetworkId::at(node, fastrand::u32(1..1 << 24));
        // One that is gone is not given out again: somebody may remember it.
        let taken = desk.views.read().networks.network_or_gone(id).is_some();
        if taken || runs(desk, host, id) {
            continue;
        }
        match keep(desk, actor, (id, Governor::Host(host)), form.clone()).await {
            Ok(()) => return Ok(id),
            Err(Refused::Commit(CommitError::Conflict { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Refused::NotNow(format!(
        "no free id was found under node {node}; try again, or give one with --id"
    )))
}

/// The node under whose id a host's controller makes networks: one that is believed, and that nobody disputes.
fn node_of(desk: &Desk, host: HostId) -> Result<NodeId, Refused> {
    let name = desk.name_of(host);
    if let Some(waiting) = desk.nodes.of(host) {
        return Err(Refused::NotNow(format!(
            "host {name} {}",
            waiting.sentence(&name)
        )));
    }
    let views = desk.views.read();
    let record = views.roster.host(host).map(|host| &host.record);
    let record = record.ok_or_else(|| Refused::no_host(&name))?;
    if record.standing != HostStanding::Active {
        return Err(Refused::NotNow(format!(
            "host {name} is banned; it can run no network"
        )));
    }
    record.node.ok_or_else(|| {
        Refused::NotNow(format!(
            "host {name} has no ZeroTier node that is believed; see its conditions in `picketctl host show {name}`"
        ))
    })
}

fn runs(desk: &Desk, host: HostId, id: NetworkId) -> bool {
    let status = desk.controller(Governor::Host(host));
    status.is_some_and(|status| status.networks.iter().any(|network| network.id == id))
}

async fn keep(
    desk: &Desk,
    actor: &Actor,
    (id, governor): (NetworkId, Governor),
    form: Form,
) -> Result<(), Refused> {
    let now = desk.now();
    let empty = NetworkRecord {
        mode: NetworkMode::Enforce,
        made: true,
        ..NetworkRecord::watched(id, governor, now)
    };
    // What was decided of a network of this id that is gone holds no more; a revocation does, unless the form names its node.
    let record = {
        let views = desk.views.read();
        network_plan::with_form(&empty, form, now, |node| views.networks.taken_off(id, node))?
    };
    let guard = free(desk, id).unwrap_or_else(|| Guard::Absent(record.key()));
    let write = super::apply::bounded(&record)?;
    desk.commit(vec![guard], vec![write], actor.does("network.create", id, ""))
        .await?;
    let message = format!("made by {}, at {}", actor.name(), desk.whose(governor));
    desk.say(Severity::Notice, "network.created", &id.to_string(), &message);
    warn(desk, &record);
    Ok(())
}
