//! Networks from what an operator writes: made, planned, changed.

use std::path::{Path, PathBuf};

use clap::Args;
use picket_proto::{form::Form, wire::admin as wire};
use picket_zerotier::settings::{NewNetwork, V4Range};
use serde::Serialize;

use super::{
    SEE,
    file::{KIND, NetworkFile},
    see,
    view::{Network, Plan, changes},
};
use crate::{
    desk::Desk,
    document::{Document, FromFile},
    fault::{About, Fault},
    print::{Named, View as _},
    words::{count, filled},
};

/// Whose controller runs a network.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Where {
    /// The host whose controller runs it
    #[arg(long, value_name = "HOST")]
    on: Option<String>,
    /// ZeroTier Central runs it
    #[arg(long)]
    central: bool,
}

/// What a new network is to be like.
#[derive(Debug, Args)]
pub(crate) struct New {
    #[command(flatten)]
    at: Where,
    /// Its name
    #[arg(long)]
    name: Option<String>,
    /// Its IPv4 range, such as 10.147.20.0/24; members get addresses of it
    #[arg(long, value_name = "CIDR")]
    v4: Option<V4Range>,
    /// A settings file; `-` reads it from standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The id it is to have, so that typing this twice makes one network [default: chosen]
    #[arg(long)]
    id: Option<String>,
}

/// A settings file, and what it is for.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// The network's id [default: the one in the file]
    id: Option<String>,
    #[command(flatten)]
    from: FromFile,
}

pub(super) async fn create(desk: &mut Desk, new: New) -> Result<(), Fault> {
    let New {
        at: Where { on, central },
        name,
        v4,
        file,
        id,
    } = new;
    let mut written = match &file {
        Some(file) => NetworkFile::parse(&Document::read(desk, file, &KIND)?)?,
        None => NetworkFile::default(),
    };
    let id = agreed(id, written.id.take())?.unwrap_or_default();
    overlay(&mut written.form, name, v4);
    let settings = &written.form.settings;
    let gives_addresses = [
        settings.v4_assign,
        settings.rfc4193,
        settings.sixplane,
        settings.zt_v6,
    ]
    .contains(&Some(true));
    let about = About::changing("make the network", SEE).of_one_in("picketctl host list");
    let request = wire::CreateNetworkRequest {
        controller_host: on.unwrap_or_default(),
        central,
        id,
        form: Some(written.form.to_wire()),
    };
    let mut networks = desk.networks().await?;
    let answer = desk.call(&about, networks.create_network(request)).await?;
    desk.print.caution(&answer.caution);
    let network = Network::from(&answer.network.unwrap_or_default());
    let addresses = if gives_addresses {
        String::new()
    } else {
        format!(
            "; its members get no addresses until a settings file says which: `picketctl network apply {} -f FILE`",
            network.id
        )
    };
    let (id, governor) = (&network.id, network.governor());
    let sentence = match answer.waits.as_str() {
        _ if answer.existed => format!(
            "network {id} exists already{}, and is left as it is; `picketctl network apply {id} -f FILE` changes it",
            network.as_named()
        ),
        "" => {
            format!(
                "network {id} is made, and run by {governor}: its members are what the grants say{addresses}"
            )
        }
        waits => format!(
            "network {id} will be made when {governor} is back ({waits}): its members are what the grants say{addresses}"
        ),
    };
    desk.print.done(&network, &sentence)
}

/// What options say beside the file, or without one.
fn overlay(form: &mut Form, name: Option<String>, v4: Option<V4Range>) {
    if let Some(name) = name {
        form.settings.name = Some(name);
    }
    if v4.is_some() {
        let new = NewNetwork {
            v4,
            ..NewNetwork::default()
        };
        let ranged = new.settings();
        form.settings.routes = ranged.routes;
        form.settings.pools = ranged.pools;
        form.settings.v4_assign = ranged.v4_assign;
    }
}

/// The one id of two places that may say one.
fn agreed(typed: Option<String>, written: Option<String>) -> Result<Option<String>, Fault> {
    match (typed, written) {
        (Some(typed), Some(written)) if typed != written => Err(Fault::Usage(format!(
            "the file is for the network {written}, and not for {typed}; take `id` out of it if it is for several"
        ))),
        (typed, written) => Ok(typed.or(written)),
    }
}

fn read(desk: &mut Desk, typed: Option<String>, file: &Path) -> Result<(String, Form), Fault> {
    let written = NetworkFile::parse(&Document::read(desk, file, &KIND)?)?;
    let id = agreed(typed, written.id)?.ok_or_else(|| {
        Fault::Usage("which network? name it before `-f`, or write `id` into the file".to_owned())
    })?;
    Ok((id, written.form))
}

/// What a file would change. `doing` is what it is looked at for.
async fn planned(desk: &mut Desk, doing: &str, id: &str, form: &Form) -> Result<Plan, Fault> {
    let about = About::reading(format!("{doing} {id}"), see(id)).of_one_in(SEE);
    let request = wire::PlanNetworkRequest {
        id: id.to_owned(),
        form: Some(form.to_wire()),
    };
    let mut networks = desk.networks().await?;
    let answer = desk.call(&about, networks.plan_network(request)).await?;
    Ok(Plan {
        network_id: id.to_owned(),
        changes: changes(answer.changes),
        cuts_own_path: answer.cuts_own_path,
        needs_admin: filled(answer.needs_admin),
        cautions: answer.cautions,
    })
}

pub(super) async fn plan(desk: &mut Desk, settings: Settings) -> Result<(), Fault> {
    let (id, form) = read(desk, settings.id, &settings.from.file)?;
    let plan = planned(desk, "plan the network", &id, &form).await?;
    desk.print.show(&plan, desk.clock.now())
}

/// Whether a change goes ahead that takes a host's way to the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnPath {
    Ask,
    MayBeCut,
}

pub(super) async fn apply(desk: &mut Desk, settings: Settings, own_path: OwnPath) -> Result<(), Fault> {
    let (id, form) = read(desk, settings.id, &settings.from.file)?;
    let plan = planned(desk, "apply the settings of", &id, &form).await?;
    if desk.print.is_table() {
        desk.print.page(&plan.page(desk.clock.now()))?;
    }
    if !plan.cuts_own_path.is_empty() && own_path == OwnPath::Ask {
        let hosts = plan.cuts_own_path.join(", ");
        let question = format!(
            "This takes the way to the master from {hosts}. Its agent undoes that when no session is back in 60 s."
        );
        desk.confirm_with(&question, "yes", "--force")?;
    }
    let about = About::changing(format!("apply the settings of {id}"), see(&id)).of_one_in(SEE);
    let request = wire::ApplyNetworkRequest {
        id,
        form: Some(form.to_wire()),
    };
    let mut networks = desk.networks().await?;
    let answer = desk.call(&about, networks.apply_network(request)).await?;
    let applied = Applied {
        network: Network::from(&answer.network.unwrap_or_default()),
        changes: changes(answer.changes),
        cuts_own_path: plan.cuts_own_path,
    };
    let sentence = match applied.changes.len() {
        0 => format!("network {} is as the file says", applied.network.id),
        many => format!(
            "network {}: {} recorded; its controller follows",
            applied.network.id,
            count(many, "change", "changes")
        ),
    };
    // The plan has said already that there is nothing to do.
    if desk.print.is_table() && applied.changes.is_empty() && plan.changes.is_empty() {
        return Ok(());
    }
    desk.print.done(&applied, &sentence)
}

/// What applying a file came to.
#[derive(Debug, Serialize)]
struct Applied {
    network: Network,
    changes: Vec<super::view::Change>,
    cuts_own_path: Vec<String>,
}

impl Named for Applied {
    fn name(&self) -> String {
        self.network.name()
    }
}
