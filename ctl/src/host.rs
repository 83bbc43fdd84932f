//! `picketctl host`: worker machines.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Subcommand;
use picket_proto::wire::admin as wire;

use crate::{
    cli::{Watch, pair},
    desk::{Desk, MOST_PAGES, endless},
    fault::{About, Fault},
    words::pairs,
};

pub(crate) mod enroll;
mod node;
mod view;

use view::{Host, HostDetail};

/// The command that shows what hosts there are.
const SEE: &str = "picketctl host list";

/// What can be done with hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Register a worker machine and write the bundle to carry there
    #[command(
        long_about = "Register a worker machine and write the bundle to carry there.\n\n\
            The bundle holds the master's addresses, its CA, and a certificate with its key that is good for 72 hours \
            and for one use. Copy it to the worker, run `picket-agent enroll FILE` there, and delete it.\n\n\
            Where no key may travel: `picket-agent request --out FILE` on the worker, and `--csr FILE` here. The bundle \
            then holds no key, and is of use on that worker alone.\n\n\
            The worker makes its own ZeroTier identity when it is enrolled and has none. Where its node id must be known \
            before that, `--lasting-secret` makes one here and puts it into the bundle, which then stays a secret after \
            its use: whoever has a copy can be that node.",
        after_help = "Examples:\n  picketctl host enroll edge-07 --label site=oslo --out edge-07.bundle\n  \
            picketctl host enroll edge-07 --out edge-07.bundle --if-absent    # in a playbook\n  \
            picketctl host enroll edge-07 --csr edge-07.csr --out edge-07.bundle    # its key stays there\n  \
            picketctl host enroll edge-07 --lasting-secret --out edge-07.bundle    # its node id is known from here on"
    )]
    Enroll {
        /// The host's name
        name: String,
        /// A label; can be given several times
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// A certificate request that `picket-agent request` wrote on the worker: the bundle then holds no key
        #[arg(long, value_name = "FILE")]
        csr: Option<PathBuf>,
        /// Put a ZeroTier identity into the bundle, which then stays a secret for as long as the node is let on anywhere
        #[arg(long, conflicts_with = "csr")]
        lasting_secret: bool,
        /// Where the bundle goes; a file that is there already is not replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Do nothing, and succeed, when there is a host of this name
        #[arg(long)]
        if_absent: bool,
    },
    /// List hosts
    #[command(
        after_help = "Examples:\n  picketctl host list\n  picketctl host list --label site=oslo --watch\n  \
        picketctl host list -o json | jq '.[] | select(.state == \"offline\") | .name'"
    )]
    List {
        /// Only hosts with this label; can be given several times
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one host with everything it last said of itself
    #[command(after_help = "Example:\n  picketctl host show edge-07")]
    Show {
        /// The host's name
        name: String,
    },
    /// Set and remove labels
    #[command(
        after_help = "Example:\n  picketctl host label edge-07 site=oslo rack=4 old-    # the dash removes"
    )]
    Label {
        /// The host's name
        name: String,
        /// KEY=VALUE sets, KEY- removes
        #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = label)]
        changes: Vec<Label>,
        /// Also where the host leaves the network that its session goes over by that
        #[arg(long)]
        force: bool,
    },
    /// Replace the note on a host
    #[command(
        after_help = "Examples:\n  picketctl host note edge-07 'disk is being replaced'\n  picketctl host note edge-07 ''    # removes it"
    )]
    Note {
        /// The host's name
        name: String,
        /// The note; empty removes it
        text: String,
    },
    /// Cut a host off and keep its record
    #[command(after_help = "Example:\n  picketctl host ban edge-07 --reason 'stolen'")]
    Ban {
        /// The host's name
        name: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Let a banned host in again
    #[command(after_help = "Example:\n  picketctl host unban edge-07 --reason 'found, and wiped'")]
    Unban {
        /// The host's name
        name: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Make another bundle for a host that exists
    #[command(
        long_about = "Make another bundle for a host that exists: its bundle was lost, was used by somebody else, or its \
            identity is gone.\n\nThe bundle before it opens nothing from then on. The certificate in use goes on, unless \
            `--cut` is given: then the host is out until it is enrolled with the new bundle.",
        after_help = "Examples:\n  picketctl host bundle edge-07 --out edge-07.bundle\n  \
            picketctl host bundle edge-07 --out edge-07.bundle --cut    # somebody else has its certificate"
    )]
    Bundle {
        /// The host's name
        name: String,
        /// A certificate request that `picket-agent request` wrote on the worker: the bundle then holds no key
        #[arg(long, value_name = "FILE")]
        csr: Option<PathBuf>,
        /// Where the bundle goes; a file that is there already is not replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Drop the certificate in use as well, and cut its session
        #[arg(long)]
        cut: bool,
    },
    /// Decide which ZeroTier node a host is, where it could not prove that
    #[command(
        long_about = "Decide which ZeroTier node a host is, where it could not prove that.\n\n\
            A node that a host proves to have is believed by itself, the first time. What it did not prove, what another \
            host has, and another node than before wait: `picketctl host show` says what and why. Permissions are of nodes \
            and stay with theirs.",
        after_help = "Examples:\n  picketctl host node edge-07 --accept 89e92ceee5 --reason 'identity made anew'\n  \
            picketctl host node edge-07 --forget --reason 'it was a copy'    # what it proves next is believed",
        group = clap::ArgGroup::new("decision").required(true).args(["accept", "forget"])
    )]
    Node {
        /// The host's name
        name: String,
        /// Believe that it is this node, which it says it is
        #[arg(long, value_name = "NODE_ID")]
        accept: Option<String>,
        /// Believe no longer that it is the node it was
        #[arg(long)]
        forget: bool,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// End a host for good
    #[command(
        long_about = "End a host for good.\n\nAn agent that can be reached is told to clean up. The host's certificates \
            are refused for ever; its name is free.",
        after_help = "Example:\n  picketctl host retire edge-07 --reason 'site closed' --yes"
    )]
    Retire {
        /// The host's name
        name: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// Do not ask; needed where nobody can be asked
        #[arg(short, long)]
        yes: bool,
    },
}

/// One change to a host's labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    Set(String, String),
    Remove(String),
}

fn label(text: &str) -> Result<Label, String> {
    if let Ok((key, value)) = pair(text) {
        return Ok(Label::Set(key, value));
    }
    match text.strip_suffix('-') {
        Some(key) if !key.is_empty() && !key.contains('=') => Ok(Label::Remove(key.to_owned())),
        Some(_) | None => Err("want KEY=VALUE to set or KEY- to remove".to_owned()),
    }
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::Enroll {
            name,
            labels,
            csr,
            lasting_secret,
            out,
            if_absent,
        } => {
            let carries = match (csr, lasting_secret) {
                (Some(request), _) => enroll::Carries::NoKey(request),
                (None, true) => enroll::Carries::KeyAndNode,
                (None, false) => enroll::Carries::Key,
            };
            let when = if if_absent {
                enroll::When::Absent
            } else {
                enroll::When::Asked
            };
            enroll::enroll(desk, name, labels.into_iter().collect(), carries, &out, when).await
        }
        Verb::List { labels, watch } => {
            let labels: BTreeMap<String, String> = labels.into_iter().collect();
            desk.list(watch.watch, async |desk: &mut Desk| list(desk, &labels).await)
                .await
        }
        Verb::Show { name } => {
            let about = About::reading(format!("show the host {name}"), SEE);
            let mut hosts = desk.hosts().await?;
            let answer = desk
                .call(&about, hosts.get_host(wire::GetHostRequest { name }))
                .await?;
            desk.print.show(&HostDetail::from(answer), desk.clock.now())
        }
        Verb::Label { name, changes, force } => relabel(desk, name, changes, force).await,
        Verb::Note { name, text } => {
            let about = changing(format!("note something on the host {name}"), &name);
            let mut hosts = desk.hosts().await?;
            let removed = text.is_empty();
            let answer = desk
                .call(
                    &about,
                    hosts.note_host(wire::NoteHostRequest { name, note: text }),
                )
                .await?;
            let host = Host::from(answer.host.unwrap_or_default());
            let what = if removed { "the note is removed" } else { "noted" };
            let sentence = format!("host {}: {what}", host.name);
            desk.print.done(&host, &sentence)
        }
        Verb::Ban { name, reason } => {
            let about = changing(format!("ban the host {name}"), &name);
            let mut hosts = desk.hosts().await?;
            let answer = desk
                .call(&about, hosts.ban_host(wire::BanHostRequest { name, reason }))
                .await?;
            let host = Host::from(answer.host.unwrap_or_default());
            let session = if answer.session_cut {
                "its open session is being cut"
            } else {
                "it had no session open"
            };
            let sentence = format!("host {} is banned: {session}, and the next is refused", host.name);
            desk.print.done(&host, &sentence)
        }
        Verb::Unban { name, reason } => {
            let about = changing(format!("let the host {name} in again"), &name);
            let mut hosts = desk.hosts().await?;
            let answer = desk
                .call(&about, hosts.unban_host(wire::UnbanHostRequest { name, reason }))
                .await?;
            let host = Host::from(answer.host.unwrap_or_default());
            let sentence = format!(
                "host {} may come in again; its agent tries every few minutes",
                host.name
            );
            desk.print.done(&host, &sentence)
        }
        Verb::Bundle { name, csr, out, cut } => {
            let carries = csr.map_or(enroll::Carries::Key, enroll::Carries::NoKey);
            enroll::bundle(desk, name, cut, carries, &out).await
        }
        Verb::Node {
            name,
            accept,
            forget: _,
            reason,
        } => node::decide(desk, name, accept, reason).await,
        Verb::Retire { name, reason, yes } => {
            if !yes {
                desk.confirm(&format!(
                    "Retire the host {name}? Its agent is told to clean up, its certificates are refused for ever, and its name becomes free."
                ))?;
            }
            let about = About::changing(format!("retire the host {name}"), SEE);
            let mut hosts = desk.hosts().await?;
            let answer = desk
                .call(
                    &about,
                    hosts.retire_host(wire::RetireHostRequest { name, reason }),
                )
                .await?;
            let host = Host::from(answer.host.unwrap_or_default());
            let told = if answer.told {
                "its agent is told to clean up"
            } else {
                "its agent could not be reached, so what runs there stays until somebody stops it"
            };
            let sentence = format!("host {} is retired: {told}", host.name);
            desk.print.done(&host, &sentence)
        }
    }
}

/// What changes one host.
fn changing(doing: String, name: &str) -> About {
    About::changing(doing, format!("picketctl host show {name}")).of_one_in(SEE)
}

/// All hosts with these labels, page by page.
async fn list(desk: &mut Desk, labels: &BTreeMap<String, String>) -> Result<Vec<Host>, Fault> {
    let about = About::reading("list the hosts", SEE);
    let mut hosts = Vec::new();
    let mut request = wire::ListHostsRequest {
        labels: labels.clone(),
        ..wire::ListHostsRequest::default()
    };
    for _ in 0..MOST_PAGES {
        let mut client = desk.hosts().await?;
        let page = desk.call(&about, client.list_hosts(request.clone())).await?;
        hosts.extend(page.hosts.into_iter().map(Host::from));
        if page.next_page_token.is_empty() {
            return Ok(hosts);
        }
        request.page_token = page.next_page_token;
    }
    Err(endless("hosts", "narrow it with `--label`"))
}

async fn relabel(desk: &mut Desk, name: String, changes: Vec<Label>, force: bool) -> Result<(), Fault> {
    let about = changing(format!("label the host {name}"), &name);
    let (mut set, mut remove) = (BTreeMap::new(), Vec::new());
    for change in changes {
        match change {
            Label::Set(key, value) => drop(set.insert(key, value)),
            Label::Remove(key) => remove.push(key),
        }
    }
    let mut hosts = desk.hosts().await?;
    let answer = desk
        .call(
            &about,
            hosts.label_host(wire::LabelHostRequest {
                name,
                set,
                remove,
                force,
            }),
        )
        .await?;
    let host = Host::from(answer.host.unwrap_or_default());
    let labels = if host.labels.is_empty() {
        "no labels".to_owned()
    } else {
        pairs(&host.labels)
    };
    let sentence = format!("host {}: {labels}", host.name);
    desk.print.done(&host, &sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_dash_removes_a_label_and_one_in_a_value_does_not() {
        assert_eq!(label("site=oslo"), Ok(Label::Set("site".into(), "oslo".into())));
        assert_eq!(label("site=oslo-"), Ok(Label::Set("site".into(), "oslo-".into())));
        assert_eq!(label("site="), Ok(Label::Set("site".into(), String::new())));
        assert_eq!(label("site-"), Ok(Label::Remove("site".into())));
        for wrong in ["", "-", "site", "=oslo", "=-"] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
    }
}
