//! `picketctl deploy`: sets of decoy machines, from a site file.

use std::{path::Path, time::Duration};

use clap::Subcommand;
use jiff::Timestamp;
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;

use crate::{
    cli::{Wait, Watch, span},
    decky::Decky,
    desk::Desk,
    document::{Document, FromFile, Kind},
    fault::{About, Fault},
    print::{Cell, Named, Page, Row, Tone, View},
    site::{FORMAT, LONGEST, Site},
    words::{ago, count, moment},
};

mod follow;

const SEE: &str = "picketctl deploy list";

const SITE_FILE: Kind = Kind {
    noun: "site file",
    longest: LONGEST,
    when_longer: "split the site into several deployments",
    format: "picketctl deploy apply --help",
};

/// What can be done with deployments.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Say what applying a site file would change; change nothing
    #[command(after_help = "Example:\n  picketctl deploy plan -f site.yaml", after_long_help = long_help("Example:\n  picketctl deploy plan -f site.yaml"))]
    Plan(FromFile),
    /// Make a site file come true, and wait until its deckies run
    #[command(
        after_help = "Examples:\n  picketctl deploy apply -f site.yaml\n  generate-site | picketctl deploy apply -f - --within 10m",
        after_long_help = long_help("Examples:\n  picketctl deploy apply -f site.yaml\n  generate-site | picketctl deploy apply -f - --within 10m")
    )]
    Apply {
        #[command(flatten)]
        file: FromFile,
        #[command(flatten)]
        wait: Wait,
        /// How long to wait until every decky runs
        #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = span)]
        within: Duration,
    },
    /// List deployments
    #[command(after_help = "Example:\n  picketctl deploy list --watch")]
    List {
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one deployment with its deckies
    #[command(
        after_help = "Examples:\n  picketctl deploy show oslo\n  picketctl deploy show oslo -o yaml    # with the site as it was applied"
    )]
    Show {
        /// The deployment's name
        name: String,
    },
    /// Remove a deployment and its deckies, for good
    #[command(after_help = "Example:\n  picketctl deploy remove oslo")]
    Remove {
        /// The deployment's name
        name: String,
        #[command(flatten)]
        wait: Wait,
        /// How long to wait until its deckies are gone
        #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = span)]
        within: Duration,
    },
}

fn long_help(examples: &str) -> String {
    format!("{FORMAT}\n\n{examples}")
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::Plan(file) => {
            let site = read(desk, &file.file)?;
            let plan = plan(desk, site).await?;
            desk.print.show(&plan, desk.clock.now())
        }
        Verb::Apply { file, wait, within } => apply(desk, &file.file, wait, within).await,
        Verb::List { watch } => {
            desk.list(watch.watch, async |desk: &mut Desk| {
                let about = About::reading("list the deployments", SEE);
                let mut deployments = desk.deployments().await?;
                let answer = desk
                    .call(
                        &about,
                        deployments.list_deployments(wire::ListDeploymentsRequest {}),
                    )
                    .await?;
                Ok(answer.deployments.into_iter().map(Deployment::from).collect())
            })
            .await
        }
        Verb::Show { name } => {
            let detail = show(desk, &name).await?;
            desk.print.show(&detail, desk.clock.now())
        }
        Verb::Remove { name, wait, within } => remove(desk, name, wait, within).await,
    }
}

fn read(desk: &mut Desk, path: &Path) -> Result<Site, Fault> {
    let document = Document::read(desk, path, &SITE_FILE)?;
    Site::parse(&document.text).map_err(|cause| document.fault(&cause.0))
}

async fn plan(desk: &mut Desk, site: Site) -> Result<Plan, Fault> {
    let name = site.name.clone();
    let about = About::reading(format!("plan the deployment {name}"), "picketctl host list");
    let mut deployments = desk.deployments().await?;
    let request = wire::PlanDeploymentRequest {
        site: Some(site.into()),
    };
    let answer = desk.call(&about, deployments.plan_deployment(request)).await?;
    Ok(Plan {
        deployment: name,
        changes: changes(answer.changes),
    })
}

async fn show(desk: &mut Desk, name: &str) -> Result<DeploymentDetail, Fault> {
    let about = About::reading(format!("show the deployment {name}"), SEE);
    let mut deployments = desk.deployments().await?;
    let request = wire::GetDeploymentRequest {
        name: name.to_owned(),
    };
    Ok(desk
        .call(&about, deployments.get_deployment(request))
        .await?
        .into())
}

/// Applies and tells what it came to. In a script's format that is one document at the end.
async fn apply(desk: &mut Desk, file: &Path, wait: Wait, within: Duration) -> Result<(), Fault> {
    let site = read(desk, file)?;
    let about = About::changing(
        format!("apply the deployment {}", site.name),
        format!("picketctl deploy show {}", site.name),
    );
    let mut deployments = desk.deployments().await?;
    let request = wire::ApplyDeploymentRequest {
        site: Some(site.into()),
    };
    let answer = desk.call(&about, deployments.apply_deployment(request)).await?;
    let deployment = Deployment::from(answer.deployment.unwrap_or_default());
    let plan = Plan {
        deployment: deployment.name.clone(),
        changes: changes(answer.changes),
    };
    if desk.print.is_table() {
        desk.print.page(&plan.page(desk.clock.now()))?;
    }
    if wait.no_wait {
        let sentence = format!(
            "deployment {} is recorded as revision {}; see how it goes with `picketctl deploy show {}`",
            deployment.name, deployment.revision, deployment.name
        );
        let applied = Applied {
            changes: plan.changes,
            detail: None,
            deployment,
        };
        return desk.print.done(&applied, &sentence);
    }
    let (detail, end) = follow::until_settled(desk, &deployment.name, within).await?;
    let sentence = format!(
        "deployment {}, revision {}: {} of {} running",
        deployment.name,
        deployment.revision,
        detail.running(),
        count(detail.deckies.len(), "decky", "deckies")
    );
    let deployment = detail.deployment.clone();
    let applied = Applied {
        deployment,
        changes: plan.changes,
        detail: Some(detail),
    };
    desk.print.done(&applied, &sentence)?;
    end.into_result(&applied.deployment.name)
}

async fn remove(desk: &mut Desk, name: String, wait: Wait, within: Duration) -> Result<(), Fault> {
    let about = About::changing(format!("remove the deployment {name}"), SEE);
    let mut deployments = desk.deployments().await?;
    let request = wire::RemoveDeploymentRequest { name: name.clone() };
    let answer = desk.call(&about, deployments.remove_deployment(request)).await?;
    let plan = Plan {
        deployment: name.clone(),
        changes: changes(answer.changes),
    };
    if desk.print.is_table() {
        desk.print.page(&plan.page(desk.clock.now()))?;
    }
    let sentence = if wait.no_wait {
        format!("deployment {name} is removed; its deckies are being stopped")
    } else {
        follow::until_gone(desk, &name, within).await?;
        format!("deployment {name} is removed, and no host reports a decky of it")
    };
    desk.print.done(&plan, &sentence)
}

/// What happens to one decky.
#[derive(Debug, Serialize)]
struct Change {
    action: Action,
    host: String,
    decky: String,
    detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Unknown,
    Add,
    Replace,
    Remove,
}

fn changes(changes: Vec<wire::Change>) -> Vec<Change> {
    let change = |change: wire::Change| {
        let action = match change.action() {
            wire::ChangeAction::Unspecified => Action::Unknown,
            wire::ChangeAction::Add => Action::Add,
            wire::ChangeAction::Replace => Action::Replace,
            wire::ChangeAction::Remove => Action::Remove,
        };
        Change {
            action,
            host: change.host,
            decky: change.decky,
            detail: crate::words::filled(change.detail),
        }
    };
    changes.into_iter().map(change).collect()
}

impl Change {
    fn cells(&self) -> Vec<Cell> {
        let action = match self.action {
            Action::Unknown => Cell::new("unknown", Tone::Dim),
            Action::Add => Cell::new("add", Tone::Good),
            Action::Replace => Cell::new("replace", Tone::Fair),
            Action::Remove => Cell::new("remove", Tone::Bad),
        };
        vec![
            action,
            self.host.as_str().into(),
            self.decky.as_str().into(),
            Cell::or_dash(self.detail.as_ref()),
        ]
    }
}

/// What would happen, or does.
#[derive(Debug, Serialize)]
struct Plan {
    deployment: String,
    changes: Vec<Change>,
}

impl Named for Plan {
    fn name(&self) -> String {
        self.deployment.clone()
    }
}

impl View for Plan {
    fn page(&self, _: Timestamp) -> Page {
        let mut page = Page::default();
        if self.changes.is_empty() {
            page.line(format!("deployment {}: nothing to change", self.deployment));
            return page;
        }
        page.table(
            &["ACTION", "HOST", "DECKY", "DETAIL"],
            self.changes.iter().map(Change::cells).collect(),
        );
        let number = |action| {
            self.changes
                .iter()
                .filter(|change| change.action == action)
                .count()
        };
        page.line(format!(
            "deployment {}: {} to add, {} to replace, {} to remove",
            self.deployment,
            number(Action::Add),
            number(Action::Replace),
            number(Action::Remove)
        ));
        page
    }
}

/// A deployment in a list.
#[derive(Debug, Clone, Serialize)]
struct Deployment {
    name: String,
    revision: u64,
    deckies: u32,
    running: u32,
    hosts: Vec<String>,
    applied_at: Option<Timestamp>,
    applied_by: String,
}

impl From<wire::Deployment> for Deployment {
    fn from(deployment: wire::Deployment) -> Self {
        Self {
            name: deployment.name,
            revision: deployment.revision,
            deckies: deployment.deckies,
            running: deployment.running,
            hosts: deployment.hosts,
            applied_at: deployment.applied_at.as_ref().and_then(from_wire_time),
            applied_by: deployment.applied_by,
        }
    }
}

impl Deployment {
    fn running(&self) -> Cell {
        let tone = if self.running < self.deckies {
            Tone::Fair
        } else {
            Tone::Good
        };
        Cell::new(format!("{}/{}", self.running, self.deckies), tone)
    }
}

impl Named for Deployment {
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for Deployment {
    const NOUNS: &'static str = "deployments";
    const HEADERS: &'static [&'static str] = &["NAME", "REVISION", "RUNNING", "HOSTS", "APPLIED", "BY"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            self.name.as_str().into(),
            self.revision.to_string().into(),
            self.running(),
            Cell::or_dash(Some(self.hosts.join(","))),
            Cell::or_dash(self.applied_at.map(|then| ago(then, now))),
            self.applied_by.as_str().into(),
        ]
    }
}

/// One deployment with its site and the state of its deckies.
#[derive(Debug, Serialize)]
struct DeploymentDetail {
    #[serde(flatten)]
    deployment: Deployment,
    site: Site,
    #[serde(rename = "decky_states")]
    deckies: Vec<Decky>,
    problems: Vec<String>,
}

impl From<wire::GetDeploymentResponse> for DeploymentDetail {
    fn from(answer: wire::GetDeploymentResponse) -> Self {
        Self {
            deployment: answer.deployment.unwrap_or_default().into(),
            site: answer.site.unwrap_or_default().into(),
            deckies: answer.deckies.into_iter().map(Decky::from).collect(),
            problems: answer.problems,
        }
    }
}

impl DeploymentDetail {
    fn running(&self) -> usize {
        self.deckies
            .iter()
            .filter(|decky| decky.state() == crate::decky::State::Running)
            .count()
    }
}

impl Named for DeploymentDetail {
    fn name(&self) -> String {
        self.deployment.name()
    }
}

impl View for DeploymentDetail {
    fn page(&self, now: Timestamp) -> Page {
        let deployment = &self.deployment;
        let mut page = Page::default();
        page.facts([
            ("Name", deployment.name.as_str().into()),
            ("Revision", deployment.revision.to_string().into()),
            (
                "Applied",
                Cell::or_dash(deployment.applied_at.map(|then| moment(then, now))),
            ),
            ("By", deployment.applied_by.as_str().into()),
            ("Running", deployment.running()),
        ]);
        page.sentences("Problems", &self.problems, Tone::Bad);
        if !self.deckies.is_empty() {
            page.title("Deckies");
            page.table(
                Decky::headers(),
                self.deckies.iter().map(|decky| decky.cells(now)).collect(),
            );
        }
        page
    }
}

/// What applying came to.
#[derive(Debug, Serialize)]
struct Applied {
    deployment: Deployment,
    changes: Vec<Change>,
    /// Absent when nobody waited for it.
    #[serde(rename = "outcome")]
    detail: Option<DeploymentDetail>,
}

impl Named for Applied {
    fn name(&self) -> String {
        self.deployment.name()
    }
}
