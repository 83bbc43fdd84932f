//! Devices, as the admin API asks for them.

use super::*;

#[tonic::async_trait]
impl device::DeviceService for FakeMaster {
    async fn register_device(
        &self,
        request: Request<wire::RegisterDeviceRequest>,
    ) -> Answer<wire::RegisterDeviceResponse> {
        let request = request.into_inner();
        let now = self.clock.now();
        let mut state = self.open().await?;
        let caller = state.caller();
        let owner = match request.owner {
            owner if owner.is_empty() => format!("person/{caller}"),
            owner => format!("person/{owner}"),
        };
        if let Some(had) = state.devices.get(&request.node)
            && had.owner != owner
        {
            return Err(Status::already_exists(format!(
                "{} is registered for {}",
                had.node_id, had.owner
            )));
        }
        let device = wire::Device {
            node_id: request.node.clone(),
            name: request.name,
            owner,
            registered_at: Some(to_wire_time(now)),
            registered_by: caller,
            ..wire::Device::default()
        };
        let device = state.devices.entry(request.node).or_insert(device).clone();
        Ok(Response::new(wire::RegisterDeviceResponse {
            device: Some(device),
            remarks: Vec::new(),
        }))
    }

    async fn list_devices(
        &self,
        request: Request<wire::ListDevicesRequest>,
    ) -> Answer<wire::ListDevicesResponse> {
        let request = request.into_inner();
        let state = self.open().await?;
        let of_hosts = state.hosts.values().filter(|host| !host.node_id.is_empty());
        let of_hosts = of_hosts.map(|host| wire::Device {
            node_id: host.node_id.clone(),
            name: host.name.clone(),
            owner: format!("host/{}", host.name),
            registered_at: host.enrolled_at,
            ..wire::Device::default()
        });
        let wanted = |device: &wire::Device| {
            let owners = [request.owner.clone(), format!("person/{}", request.owner)];
            let owned = request.owner.is_empty() || owners.contains(&device.owner);
            owned && (request.removed || device.removed_at.is_none())
        };
        let devices = of_hosts.chain(state.devices.values().cloned());
        let devices = devices.filter(wanted).map(|device| wire::Device {
            network_ids: match device.removed_at {
                None => state.networks_of(&device.node_id),
                Some(_) => Vec::new(),
            },
            ..device
        });
        let mut devices: Vec<_> = devices.collect();
        devices.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        devices.retain(|device| device.node_id > request.page_token);
        // One a page, so that whoever asks follows pages.
        let more = devices.len() > 1;
        devices.truncate(1);
        let last = devices.last().filter(|_| more);
        Ok(Response::new(wire::ListDevicesResponse {
            next_page_token: last.map(|device| device.node_id.clone()).unwrap_or_default(),
            devices,
        }))
    }

    async fn remove_device(
        &self,
        request: Request<wire::RemoveDeviceRequest>,
    ) -> Answer<wire::RemoveDeviceResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let now = self.clock.now();
        let mut state = self.open().await?;
        let by = state.caller();
        let node = state.node(&request.device);
        let device = state
            .devices
            .get_mut(&node)
            .ok_or_else(|| Status::not_found(format!("there is no device `{}`", request.device)))?;
        if device.removed_at.is_none() {
            device.removed_at = Some(to_wire_time(now));
            device.removed_by = by;
            device.removed_because = request.reason;
        }
        Ok(Response::new(wire::RemoveDeviceResponse {
            device: Some(device.clone()),
        }))
    }
}

impl State {
    /// The devices of somebody that are authorized somewhere.
    pub(super) fn still_authorized(&self, owner: &str) -> Vec<wire::Device> {
        let theirs = self.devices.values().filter(|device| device.owner == owner);
        let shown = theirs.map(|device| wire::Device {
            network_ids: self.networks_of(&device.node_id),
            ..device.clone()
        });
        shown.filter(|device| !device.network_ids.is_empty()).collect()
    }

    fn networks_of(&self, node: &str) -> Vec<String> {
        let authorized = self.members.iter().filter(|((_, on), seat)| {
            on == node && seat.member.decision() == wire::MemberDecision::Authorized
        });
        authorized.map(|((network, _), _)| network.clone()).collect()
    }
}
