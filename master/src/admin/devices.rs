//! Devices: ZeroTier nodes and whose they are.

mod registering;
mod sight;

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use jiff::Timestamp;
use picket_proto::{
    to_wire_time,
    wire::admin::{
        Device, ListDevicesRequest, ListDevicesResponse, RegisterDeviceRequest, RegisterDeviceResponse,
        RemoveDeviceRequest, RemoveDeviceResponse, device_service_server::DeviceService,
    },
};
use picket_zerotier::ids::{NetworkId, NodeId};
use tonic::{Request, Response, Status};

use self::{
    registering::{Registration, register, remarks, removal},
    sight::sight,
};
use super::{
    members::{calling, decisions, pair},
    name,
    naming::bare_node,
    page, reason,
};
use crate::{
    desk::{Actor, Desk},
    event::Severity,
    membership::Decision,
    owner::Owner,
    record::{HostRecord, Record as _, key, network::RegisteredRecord},
    refused::Refused,
    store::{CommitError, Guard},
    views::State,
};

/// The service, over the desk.
#[derive(Debug)]
pub struct Devices(pub Arc<Desk>);

#[tonic::async_trait]
impl DeviceService for Devices {
    async fn register_device(
        &self,
        request: Request<RegisterDeviceRequest>,
    ) -> Result<Response<RegisterDeviceResponse>, Status> {
        let (actor, caller) = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let wanted = Registration {
            node: bare_node(&asked.node)?,
            name: name("name", &asked.name)?,
            owner: match asked.owner.as_str() {
                "" => caller.name.clone(),
                owner => owner.strip_prefix("person/").unwrap_or(owner).to_owned(),
            },
        };
        let (desk, node) = (&self.0, wanted.node);
        // Names and the number of somebody's devices are looked at, and no guard names them.
        let _turn = desk.turn.lock().await;
        let sight = sight(desk, node);
        let decided = register(&desk.views.read(), &caller, (&wanted, &sight), desk.now())?;
        let remarks = match decided {
            Some(_) => remarks(node, &sight),
            None => Vec::new(),
        };
        if let Some(record) = decided {
            // What was decided of the node before it was removed does not come back with it. What somebody decided of one
            // that nobody had registered stays.
            if self.is_removed(node) {
                self.undo(&actor, node, "the device is registered anew").await?;
            }
            let why = format!("for {}", record.owner);
            self.write(&record, &actor, "device.register", &why).await?;
            let message = format!(
                "node {node} is registered for {} by {}",
                record.owner,
                actor.name()
            );
            desk.say(
                Severity::Notice,
                "device.registered",
                record.name.as_str(),
                &message,
            );
        }
        Ok(Response::new(RegisterDeviceResponse {
            device: self.shown(node),
            remarks,
        }))
    }

    async fn list_devices(
        &self,
        request: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        let (_, caller) = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let after = match asked.page_token.as_str() {
            "" => Bound::Unbounded,
            token => Bound::Excluded(bare_node(token)?),
        };
        let wanted = |owner: &Owner| {
            let named = asked.owner.is_empty() || owner.is(&asked.owner) || owner.to_string() == asked.owner;
            named && (caller.sees_all() || caller.owns(Some(owner)))
        };
        let now = self.0.now();
        let nodes: BTreeSet<NodeId> = {
            let views = self.0.views.read();
            let persons = views.networks.devices().map(|kept| kept.record.node);
            let hosts = views.roster.hosts().filter_map(|host| host.record.node);
            persons.chain(hosts).collect()
        };
        let (size, mut devices) = (page::size(asked.page_size), Vec::new());
        let (mut listed, mut last, mut more) = (0, None, false);
        for node in nodes.range((after, Bound::Unbounded)).copied() {
            // Held for one node at a time: a list is long.
            let views = self.0.views.read();
            let person = views.networks.device(node).map(|kept| &kept.record);
            let person = person
                .filter(|device| asked.removed || stands(&views, device))
                .filter(|device| wanted(&Owner::Person(device.owner.clone())));
            let host = views.roster.of_node(node).map(|host| &host.record);
            let host = host.filter(|host| wanted(&Owner::Host(host.name.clone())));
            if person.is_none() && host.is_none() {
                continue;
            }
            if listed == size {
                more = true;
                break;
            }
            devices.extend(person.map(|device| of_person(&views, device, now)));
            devices.extend(host.map(|host| of_host(&views, host, node, now)));
            (listed, last) = (listed + 1, Some(node));
        }
        let next = last.filter(|_| more).map(|node| node.to_string());
        Ok(Response::new(ListDevicesResponse {
            devices,
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn remove_device(
        &self,
        request: Request<RemoveDeviceRequest>,
    ) -> Result<Response<RemoveDeviceResponse>, Status> {
        let (actor, caller) = calling(&self.0, &request)?;
        let asked = request.into_inner();
        let reason = reason(&asked.reason)?;
        let desk = &self.0;
        let _turn = desk.turn.lock().await;
        let (node, decided) = removal(&desk.views.read(), &caller, &asked.device, &reason, desk.now())?;
        if let Some(record) = decided {
            // From here on it is denied, whatever else is done.
            self.write(&record, &actor, "device.remove", &reason).await?;
            let message = format!(
                "node {node}, of {}, was removed by {}: {reason}",
                record.owner,
                actor.name()
            );
            desk.say(Severity::Notice, "device.removed", record.name.as_str(), &message);
            // What a host is granted that runs the node is the host's.
            let runs = desk.views.read().roster.of_node(node).is_some();
            if !runs {
                self.undo(&actor, node, &format!("its device was removed: {reason}"))
                    .await?;
            }
        }
        let device = {
            let views = desk.views.read();
            let kept = views.networks.device(node);
            kept.map(|kept| of_person(&views, &kept.record, desk.now()))
        };
        Ok(Response::new(RemoveDeviceResponse { device }))
    }
}

impl Devices {
    /// Writes a device's record over the one that is there.
    async fn write(
        &self,
        record: &RegisteredRecord,
        actor: &Actor,
        what: &str,
        why: &str,
    ) -> Result<(), Refused> {
        let (desk, at) = (&self.0, key::registered(record.node));
        let before = {
            let views = desk.views.read();
            views.networks.device(record.node).map(|kept| kept.revision)
        };
        let guard = match before {
            Some(revision) => Guard::At(at, revision),
            None => Guard::Absent(at),
        };
        let subject = format!("{}/{}", record.node, record.name);
        let audit = actor.does(what, subject, why);
        match desk.commit(vec![guard], vec![record.put()], audit).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { .. }) => Err(Refused::NotNow(format!(
                "device {} was changed by somebody else just now; try again",
                record.name
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes every permission of a node away, with what goes on and what waits: a commit for each network.
    async fn undo(&self, actor: &Actor, node: NodeId, reason: &str) -> Result<(), Refused> {
        let desk = &self.0;
        let networks: Vec<NetworkId> = {
            let views = desk.views.read();
            let all = views.networks.networks().map(|network| network.record.id);
            all.collect()
        };
        for network in networks {
            let undo = |pair: &pair::Pair| Ok(decisions::undo(pair, actor.name(), reason));
            pair::change(desk, actor, (network, node), undo).await?;
        }
        Ok(())
    }

    fn is_removed(&self, node: NodeId) -> bool {
        let views = self.0.views.read();
        let kept = views.networks.device(node);
        kept.is_some_and(|kept| kept.record.removed.is_some())
    }

    fn shown(&self, node: NodeId) -> Option<Device> {
        let views = self.0.views.read();
        let kept = views.networks.device(node)?;
        Some(of_person(&views, &kept.record, self.0.now()))
    }
}

/// Whether it is its owner's: it was not removed, and no host runs it.
fn stands(state: &State, device: &RegisteredRecord) -> bool {
    device.removed.is_none() && state.roster.of_node(device.node).is_none()
}

fn of_person(state: &State, device: &RegisteredRecord, now: Timestamp) -> Device {
    let removed = device.removed.as_ref();
    let of_host = state.roster.of_node(device.node).is_some();
    let because = match removed {
        Some(removed) => removed.reason.clone(),
        None if of_host => "an enrolled host runs the node, whose it is since".to_owned(),
        None => String::new(),
    };
    Device {
        node_id: device.node.to_string(),
        name: device.name.to_string(),
        owner: Owner::Person(device.owner.clone()).to_string(),
        registered_at: Some(to_wire_time(device.at)),
        registered_by: device.by.clone(),
        removed_at: removed.map(|removed| to_wire_time(removed.at)),
        removed_by: removed.map(|removed| removed.by.clone()).unwrap_or_default(),
        removed_because: because,
        // Where a host's node is on is said of the host.
        network_ids: match of_host {
            true => Vec::new(),
            false => authorized_on(state, device.node, now),
        },
    }
}

fn of_host(state: &State, host: &HostRecord, node: NodeId, now: Timestamp) -> Device {
    Device {
        node_id: node.to_string(),
        name: host.name.to_string(),
        owner: Owner::Host(host.name.clone()).to_string(),
        registered_at: Some(to_wire_time(host.enrolled_at)),
        network_ids: authorized_on(state, node, now),
        ..Device::default()
    }
}

/// The nodes of a person that are authorized somewhere.
pub(super) fn still_authorized(desk: &Desk, owner: &str) -> Vec<Device> {
    let (views, now) = (desk.views.read(), desk.now());
    let theirs = views.networks.devices().map(|kept| &kept.record);
    let theirs = theirs.filter(|device| device.owner == owner && stands(&views, device));
    let devices = theirs.map(|device| of_person(&views, device, now));
    devices.filter(|device| !device.network_ids.is_empty()).collect()
}

fn authorized_on(state: &State, node: NodeId, now: Timestamp) -> Vec<String> {
    let decide = |id: &NetworkId| state.networks.decide(&state.roster, *id, node, now);
    let all = state.networks.networks().map(|network| network.record.id);
    let on = all.filter(|id| matches!(decide(id), Decision::Authorized { .. }));
    on.map(|id| id.to_string()).collect()
}
