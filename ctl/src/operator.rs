//! `picketctl operator`: those who may use the admin API.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;

use crate::{
    cli::Watch,
    desk::Desk,
    fault::{About, Fault},
    host::enroll::{Place, chain, grouped, quoted},
    print::Named,
    words::{filled, to_the_second},
};

mod view;

use view::{Operator, Revoked};

/// The command that shows what operators there are.
const SEE: &str = "picketctl operator list";

/// The most pages of operators that are asked for.
const MOST_PAGES: usize = 1000;

/// What can be done with operators.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Add an operator, or another device of one, and write the device's bundle
    #[command(
        long_about = "Add an operator, or another device of one, and write the device's bundle.\n\n\
            Each device has a certificate of its own, good for 30 days, which picketctl renews as it is used. A device \
            that was revoked, or whose certificate has expired, is added again in the same way.",
        after_help = "Examples:\n  picketctl operator add ana --role operator --device laptop --out ana.bundle\n  \
            picketctl operator add ana --device phone --out ana-phone.bundle"
    )]
    Add {
        /// The operator's name
        name: String,
        /// What it may do; needed for a new operator
        #[arg(long, value_enum)]
        role: Option<Role>,
        /// The device it works at
        #[arg(long, value_name = "DEVICE")]
        device: String,
        /// Where the bundle goes; a file that is there already is not replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// List operators, revoked ones too
    #[command(after_help = "Examples:\n  picketctl operator list\n  \
        picketctl operator list -o json | jq '.[] | select(.role == \"admin\") | .name'")]
    List {
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one operator with its devices
    #[command(
        after_help = "Examples:\n  picketctl operator show ana\n  picketctl operator show    # who am I?"
    )]
    Show {
        /// The operator's name [default: your own]
        name: Option<String>,
    },
    /// Give an operator another role; it holds at once
    #[command(after_help = "Example:\n  picketctl operator role ana viewer --reason 'moved to audit'")]
    Role {
        /// The operator's name
        name: String,
        /// What it may do from here on
        #[arg(value_enum)]
        role: Role,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Cut off an operator, or one of its devices; it holds at once
    #[command(
        long_about = "Cut off an operator, or one of its devices.\n\nIts connections end within a second, and its \
            certificates are refused for ever. `operator add` lets it in again with a new one.",
        after_help = "Examples:\n  picketctl operator revoke ana --reason 'left'\n  \
            picketctl operator revoke ana --device laptop --reason 'stolen'"
    )]
    Revoke {
        /// The operator's name
        name: String,
        /// This device alone
        #[arg(long, value_name = "DEVICE")]
        device: Option<String>,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Asks for what is its own
    Requester,
    /// Looks at everything
    Viewer,
    /// Hosts, networks, members, deployments
    Operator,
    /// Everything, other operators too
    Admin,
}

impl From<Role> for wire::OperatorRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Requester => Self::Requester,
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

/// What came of adding one, without the secret.
#[derive(Debug, Serialize)]
struct Added {
    operator: Operator,
    device: String,
    bundle_file: PathBuf,
    authority_fingerprint: Option<String>,
    bundle_expires_at: Option<Timestamp>,
}

impl Named for Added {
    fn name(&self) -> String {
        self.operator.name.clone()
    }
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::Add {
            name,
            role,
            device,
            out,
        } => add(desk, name, role, device, &out).await,
        Verb::List { watch } => desk.list(watch.watch, list).await,
        Verb::Show { name: Some(name) } => {
            let about = About::reading(format!("show the operator {name}"), SEE);
            let mut operators = desk.operators().await?;
            let answer = desk
                .call(&about, operators.get_operator(wire::GetOperatorRequest { name }))
                .await?;
            let operator = Operator::from(answer.operator.unwrap_or_default());
            desk.print.show(&operator, desk.clock.now())
        }
        Verb::Show { name: None } => {
            let about = About::reading("show who you are", SEE);
            let mut operators = desk.operators().await?;
            let answer = desk
                .call(&about, operators.get_self(wire::GetSelfRequest {}))
                .await?;
            let operator = Operator::from(answer.operator.unwrap_or_default()).called_from(&answer.device);
            desk.print.show(&operator, desk.clock.now())
        }
        Verb::Role { name, role, reason } => {
            let about = About::changing(
                format!("change the role of the operator {name}"),
                format!("picketctl operator show {name}"),
            );
            let request = wire::ChangeOperatorRequest {
                name,
                role: wire::OperatorRole::from(role).into(),
                reason,
            };
            let mut operators = desk.operators().await?;
            let answer = desk.call(&about, operators.change_operator(request)).await?;
            let operator = Operator::from(answer.operator.unwrap_or_default());
            let sentence = format!("operator {} is {}", operator.name, operator.role.with_article());
            desk.print.done(&operator, &sentence)
        }
        Verb::Revoke { name, device, reason } => {
            let about = About::changing(
                format!("revoke the operator {name}"),
                format!("picketctl operator show {name}"),
            );
            let request = wire::RevokeOperatorRequest {
                name,
                device: device.clone().unwrap_or_default(),
                reason,
            };
            let mut operators = desk.operators().await?;
            let answer = desk.call(&about, operators.revoke_operator(request)).await?;
            let operator = Operator::from(answer.operator.unwrap_or_default());
            let what = device.map_or_else(
                || format!("operator {} is revoked", operator.name),
                |device| format!("the device {device} of operator {} is revoked", operator.name),
            );
            let mut sentence =
                format!("{what}: open connections end within a second, and new ones are refused");
            let revoked = Revoked::new(operator, answer.still_authorized);
            sentence += &revoked.what_is_left();
            desk.print.done(&revoked, &sentence)
        }
    }
}

async fn add(
    desk: &mut Desk,
    name: String,
    role: Option<Role>,
    device: String,
    out: &Path,
) -> Result<(), Fault> {
    let about = About::changing(format!("add the operator {name}"), SEE);
    // The key is made for this one answer and cannot be asked for again: the place for it is taken first.
    let place = Place::take_or(out, "Nobody was added")?;
    let request = wire::AddOperatorRequest {
        name: name.clone(),
        role: role.map_or(wire::OperatorRole::Unspecified, Into::into).into(),
        device: device.clone(),
    };
    let mut operators = desk.operators().await?;
    let answer = desk.call(&about, operators.add_operator(request)).await?;
    place.fill(&answer.bundle).map_err(|cause| {
        Fault::Failed(format!(
            "the master made a bundle for the operator {name}, and it could not be kept: {}; make room, run `picketctl operator revoke {name} --device {device} --reason 'lost its bundle'`, and add it again",
            chain(&cause)
        ))
    })?;
    let added = Added {
        operator: Operator::from(answer.operator.unwrap_or_default()),
        device,
        bundle_file: out.to_owned(),
        authority_fingerprint: filled(answer.authority_fingerprint),
        bundle_expires_at: answer.bundle_expires_at.as_ref().and_then(from_wire_time),
    };
    let sentence = told(&added, out);
    desk.print.done(&added, &sentence)
}

fn told(added: &Added, out: &Path) -> String {
    let file = quoted(&out.display().to_string());
    let fingerprint = added.authority_fingerprint.as_deref();
    let expires = added.bundle_expires_at;
    let expires = expires.map_or_else(|| "at a time the master did not say".to_owned(), to_the_second);
    format!(
        "operator {} is {}; the bundle for {} is {file}: secret, until {expires}, renewed as it is used\n\
         CA fingerprint (compare it with what the bundle's first lines say there):\n  {}\n\
         next: carry it there, and keep no copy here\n  \
         ~/.config/picket/admin.bundle is where picketctl looks for it (chmod 600)",
        added.operator.name,
        added.operator.role.with_article(),
        added.device,
        grouped(fingerprint.unwrap_or("(the master did not say)"))
    )
}

/// All operators, page by page.
async fn list(desk: &mut Desk) -> Result<Vec<Operator>, Fault> {
    let about = About::reading("list the operators", SEE);
    let mut all = Vec::new();
    let mut request = wire::ListOperatorsRequest::default();
    for _ in 0..MOST_PAGES {
        let mut operators = desk.operators().await?;
        let page = desk
            .call(&about, operators.list_operators(request.clone()))
            .await?;
        all.extend(page.operators.into_iter().map(Operator::from));
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
    Err(Fault::Failed(format!(
        "the master's list of operators does not end after {MOST_PAGES} pages"
    )))
}
