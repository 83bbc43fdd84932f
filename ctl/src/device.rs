//! `picketctl device`: ZeroTier nodes and whose they are.

use clap::Subcommand;
use jiff::Timestamp;
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;

use crate::{
    cli::Watch,
    desk::{Desk, MOST_PAGES, endless},
    fault::{About, Fault},
    print::{Cell, Named, Row, Tone},
    words::{ago, filled},
};

const SEE: &str = "picketctl device list";

/// What can be done with devices.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Register a node as a person's device
    #[command(
        long_about = "Register a node as a person's device.\n\n\
            A registered node is known by its name, and may ask to be let onto networks. Until something admits it, it is \
            denied where members are enforced. A node that works on a network where nobody admitted it is admitted there \
            first, by an operator. The node's id is in `zerotier-cli info`. The nodes of hosts need no registration.",
        after_help = "Examples:\n  picketctl device register 39966434ba --name ana-laptop\n  \
            picketctl device register 39966434ba --name bo-phone --owner bo"
    )]
    Register {
        /// A node id (10 digits), or an RFC4193 address
        node: String,
        /// What it is called; unique among devices
        #[arg(long)]
        name: String,
        /// The operator whose it is [default: you]
        #[arg(long, default_value = "", hide_default_value = true)]
        owner: String,
    },
    /// List devices, the nodes of hosts among them
    #[command(
        after_help = "Examples:\n  picketctl device list --owner ana\n  picketctl device list --removed"
    )]
    List {
        /// Only this owner's
        #[arg(long, default_value = "", hide_default_value = true)]
        owner: String,
        /// Removed ones too, and those whose node is a host's by now
        #[arg(long)]
        removed: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Remove a person's device: it is denied on every network, also when it comes back
    #[command(after_help = "Example:\n  picketctl device remove ana-laptop --reason 'sold'")]
    Remove {
        /// The device's name, or its node id
        device: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::Register { node, name, owner } => {
            let about = About::changing(format!("register the device {name}"), SEE);
            let mut devices = desk.devices().await?;
            let request = wire::RegisterDeviceRequest { node, name, owner };
            let answer = desk.call(&about, devices.register_device(request)).await?;
            for remark in &answer.remarks {
                desk.print.note(remark);
            }
            let device = Device::from(answer.device.unwrap_or_default());
            let sentence = format!(
                "device {} is node {} of {}; ask for a network with `picketctl member request {} --network ...`",
                device.name, device.node_id, device.owner, device.name
            );
            desk.print.done(&device, &sentence)
        }
        Verb::List {
            owner,
            removed,
            watch,
        } => {
            desk.list(watch.watch, async |desk: &mut Desk| {
                let about = About::reading("list the devices", SEE);
                let mut request = wire::ListDevicesRequest {
                    owner: owner.clone(),
                    removed,
                    ..wire::ListDevicesRequest::default()
                };
                let mut listed = Vec::new();
                for _ in 0..MOST_PAGES {
                    let mut devices = desk.devices().await?;
                    let page = desk.call(&about, devices.list_devices(request.clone())).await?;
                    listed.extend(page.devices.into_iter().map(Device::from));
                    if page.next_page_token.is_empty() {
                        return Ok(listed);
                    }
                    request.page_token = page.next_page_token;
                }
                Err(endless("devices", "narrow it with `--owner`"))
            })
            .await
        }
        Verb::Remove { device, reason } => {
            let about = About::changing(format!("remove the device {device}"), SEE);
            let mut devices = desk.devices().await?;
            let request = wire::RemoveDeviceRequest { device, reason };
            let answer = desk.call(&about, devices.remove_device(request)).await?;
            let device = Device::from(answer.device.unwrap_or_default());
            let sentence = format!(
                "device {} (node {}) is removed: it is denied on every network from here on",
                device.name, device.node_id
            );
            desk.print.done(&device, &sentence)
        }
    }
}

/// A node with an owner.
#[derive(Debug, Serialize)]
pub(crate) struct Device {
    node_id: String,
    name: String,
    owner: String,
    registered_at: Option<Timestamp>,
    registered_by: Option<String>,
    removed_at: Option<Timestamp>,
    removed_by: Option<String>,
    removed_because: Option<String>,
    network_ids: Vec<String>,
}

impl From<wire::Device> for Device {
    fn from(device: wire::Device) -> Self {
        Self {
            node_id: device.node_id,
            name: device.name,
            owner: device.owner,
            registered_at: device.registered_at.as_ref().and_then(from_wire_time),
            registered_by: filled(device.registered_by),
            removed_at: device.removed_at.as_ref().and_then(from_wire_time),
            removed_by: filled(device.removed_by),
            removed_because: filled(device.removed_because),
            network_ids: device.network_ids,
        }
    }
}

impl Device {
    /// The node and the networks it is authorized on, in a sentence.
    pub(crate) fn where_it_is(&self) -> String {
        format!(
            "{} ({}) on {}",
            self.name,
            self.node_id,
            self.network_ids.join(", ")
        )
    }

    fn removed(&self, now: Timestamp) -> Cell {
        let Some(at) = self.removed_at else {
            return Cell::or_dash(self.removed_because.as_deref());
        };
        let by = self.removed_by.as_deref().unwrap_or("somebody");
        let why = self.removed_because.as_deref().unwrap_or("no reason given");
        Cell::new(format!("{} by {by}: {why}", ago(at, now)), Tone::Bad)
    }
}

impl Named for Device {
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for Device {
    const NOUNS: &'static str = "devices";
    const HEADERS: &'static [&'static str] =
        &["NAME", "NODE", "OWNER", "REGISTERED", "AUTHORIZED ON", "REMOVED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.name.as_str().into(),
            self.node_id.as_str().into(),
            self.owner.as_str().into(),
            Cell::or_dash(self.registered_at.map(|at| ago(at, now))),
            Cell::or_dash(Some(self.network_ids.join(","))),
            self.removed(now),
        ]
    }
}
