//! One pass: read, plan, act, report.
//!
//! Steps of one decky are done one after another, different deckies at the same time. A failed step ends its decky's
//! queue and nobody else's. A content that Docker refuses is remembered and not tried again while it stays the same,
//! except every [`FORGET_AFTER`], since what made Docker refuse may lie outside the shard.
//!
//! What goes wrong is told in the report, and whoever made the pass logs it when it is news.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use picket_clock::{Clock, Instant};
use picket_proto::{
    document::{OutcomeStatus, Problem},
    host::Name,
    shard::Shard,
    status::{DeckiesStatus, DeckyState},
};
use tokio::sync::watch;
use tracing::{debug, info};

use super::{
    Owner,
    allow::{Allowed, permit, place_refusal, service_refusal},
    changes::Changes,
    engine::{Engine, EngineError, Image},
    form::{BaseImage, ContainerForm, Forms, forms},
    inventory::{ContainerId, Inventory},
    plan::{Phase, Plan, Step, plan},
    status::{Progress, blind, status, with_causes},
};

/// Deckies acted upon at the same time. An engine serialises much of its work; more only lengthens every call.
const AT_ONCE: usize = 4;
/// After this long, refused content is tried once more.
pub const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Complaints about objects that make no sense, in one report.
const MOST_SKIPPED: usize = 16;

/// The deckies of this host.
pub struct Deckies {
    engine: Arc<dyn Engine>,
    owner: Owner,
    base: BaseImage,
    allowed: Allowed,
    reserved: BTreeSet<Ipv4Addr>,
    clock: Clock,
    failed: BTreeMap<Name, Failure>,
    troubles: BTreeMap<Name, String>,
    progress: watch::Sender<Progress>,
}

/// Content that was refused.
struct Failure {
    content: String,
    message: String,
    /// The image that could not be had.
    image: Option<String>,
    until: Instant,
}

/// What a pass did and found.
#[derive(Debug)]
pub struct Report {
    /// How deckies are, for the beat.
    pub deckies: DeckiesStatus,
    /// How the attempt at the document ended: blocked when something may yet pass, else failed when something was
    /// refused, else done.
    pub outcome: OutcomeStatus,
    /// What is not done and why.
    pub problems: Vec<Problem>,
    /// Objects with our owner label that make no sense: the first few.
    pub skipped: Vec<Problem>,
    /// How many there are.
    pub skipped_count: usize,
    /// What was done, in no particular order between deckies.
    pub steps: Vec<Step>,
}

/// Why something of a decky is not done.
#[derive(Debug, Clone)]
struct Trouble {
    message: String,
    may_pass: bool,
    image: Option<String>,
}

impl From<&EngineError> for Trouble {
    fn from(error: &EngineError) -> Self {
        let image = match error {
            EngineError::NoImage { image, .. } => Some(image.clone()),
            EngineError::Unreachable { .. }
            | EngineError::Denied { .. }
            | EngineError::Refused { .. }
            | EngineError::Changed { .. }
            | EngineError::TimedOut { .. }
            | EngineError::Broken { .. } => None,
        };
        Self {
            message: with_causes(error),
            may_pass: error.may_pass(),
            image,
        }
    }
}

/// What a pass gathers.
#[derive(Default)]
struct Attempt {
    steps: Vec<Step>,
    /// By decky.
    deckies: BTreeMap<Name, Trouble>,
    /// By network.
    networks: BTreeMap<Name, Trouble>,
}

impl Deckies {
    /// Deckies of `owner` on `engine`.
    #[must_use]
    pub fn new(
        engine: Arc<dyn Engine>,
        owner: Owner,
        base: BaseImage,
        allowed: Allowed,
        clock: Clock,
    ) -> Self {
        Self {
            engine,
            owner,
            base,
            allowed,
            reserved: BTreeSet::new(),
            clock,
            failed: BTreeMap::new(),
            troubles: BTreeMap::new(),
            progress: watch::Sender::default(),
        }
    }

    /// Addresses that no decky may have from now on: the machine's own and its gateways'.
    pub fn reserve(&mut self, addresses: BTreeSet<Ipv4Addr>) {
        self.reserved = addresses;
    }

    /// What is being done to deckies while a pass runs.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Something that says when it is time to look again. It is independent of this, so that a pass and the wait for
    /// the next change can be in different hands.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes::new(self.engine.clone(), self.owner.clone())
    }

    /// How deckies are, without doing anything about it.
    pub async fn observe(&self, want: &Shard) -> DeckiesStatus {
        match self.engine.inventory(&self.owner).await {
            Ok(have) => status(want, &have, &self.owner, &self.troubles, &self.progress.borrow()),
            Err(error) => blind(want, &error),
        }
    }

    /// Makes the shard true, as far as it is allowed and Docker can.
    pub async fn pass(&mut self, want: &Shard) -> Report {
        self.pass_unless(want, std::future::pending()).await
    }

    /// Like [`Deckies::pass`], and stops waiting for images when `newer` returns: they may take minutes, nothing is
    /// changed until they are here, and whoever is to go must not wait for them.
    pub async fn pass_unless(&mut self, want: &Shard, newer: impl Future<Output = ()>) -> Report {
        let (permitted, refusals) = permit(want, &self.allowed, &self.reserved);
        let forms = forms(&permitted, &self.owner, &self.base);
        let have = match self.engine.inventory(&self.owner).await {
            Ok(have) => have,
            Err(error) => return self.sightless(want, &error),
        };
        let mut attempt = Attempt::default();
        // An update that is refused leaves what runs alone, unless what runs is the very thing that is refused.
        let as_wanted = self::forms(want, &self.owner, &self.base);
        let mut alone: BTreeSet<Name> = refusals
            .keys()
            .filter(|name| !self.runs_what_is_refused(name, want, &permitted, &as_wanted, &have))
            .cloned()
            .collect();
        for (name, refused) in &refusals {
            let trouble = Trouble {
                message: refused.to_string(),
                may_pass: false,
                image: None,
            };
            attempt.deckies.insert(name.clone(), trouble);
        }
        self.recall(&forms, &mut attempt, &mut alone).await;

        let mut plan = plan(&forms, &have, &self.owner, &alone);
        let got = {
            let images = self.images(&plan, &forms);
            tokio::pin!(images, newer);
            tokio::select! {
                biased;
                () = &mut newer => None,
                got = &mut images => Some(got),
            }
        };
        let Some(got) = got else {
            self.clear_progress();
            return self.interrupted(want, &have);
        };
        let images = sort(got, &plan, &mut attempt);
        let lacking: Vec<Name> = attempt
            .deckies
            .keys()
            .filter(|name| !alone.contains(*name) && !refusals.contains_key(*name))
            .cloned()
            .collect();
        if !lacking.is_empty() {
            // Whoever lacks an image keeps what it has.
            alone.extend(lacking);
            plan = self::plan(&forms, &have, &self.owner, &alone);
        }
        for (decky, network) in &plan.stuck {
            let message =
                format!("network {network} changes when the deckies on it that cannot change are gone");
            attempt.deckies.insert(
                decky.clone(),
                Trouble {
                    message,
                    may_pass: true,
                    image: None,
                },
            );
        }
        self.act(plan, &forms, &images, &mut attempt).await;
        self.report(want, &forms, &refusals.into_keys().collect(), attempt)
            .await
    }

    /// Leaves alone what was refused before and has not changed since.
    async fn recall(&mut self, forms: &Forms, attempt: &mut Attempt, alone: &mut BTreeSet<Name>) {
        let now = self.clock.monotonic();
        let mut recalled = BTreeMap::new();
        for (name, failure) in std::mem::take(&mut self.failed) {
            if content(forms, &name).as_ref() != Some(&failure.content) || failure.until <= now {
                continue;
            }
            if let Some(image) = &failure.image
                && matches!(self.engine.image(image).await, Ok(Some(_)))
            {
                // Somebody put it here.
                continue;
            }
            let trouble = Trouble {
                message: failure.message.clone(),
                may_pass: false,
                image: failure.image.clone(),
            };
            attempt.deckies.insert(name.clone(), trouble);
            alone.insert(name.clone());
            recalled.insert(name, failure);
        }
        self.failed = recalled;
    }

    /// Gets the images a plan needs, each once however many deckies want it.
    async fn images(&self, plan: &Plan, forms: &Forms) -> Vec<(String, Result<Image, EngineError>)> {
        // Collected first: a closure over borrowed steps inside the stream would keep a pass from moving to a task.
        let needed: Vec<String> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Image(image) => Some(image.clone()),
                Step::Stop { .. }
                | Step::Remove { .. }
                | Step::RemoveNetwork { .. }
                | Step::CreateNetwork(_)
                | Step::Create { .. }
                | Step::Start { .. } => None,
            })
            .collect();
        stream::iter(needed)
            .map(|image| async {
                let result = self.image(&image, forms).await;
                (image, result)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    /// Whether the containers of a refused decky are what is refused: its image, its port, the place it has.
    fn runs_what_is_refused(
        &self,
        name: &Name,
        want: &Shard,
        permitted: &Shard,
        as_wanted: &Forms,
        have: &Inventory,
    ) -> bool {
        let (Some(decky), Some(form)) = (want.deckies.get(name), as_wanted.deckies.get(name)) else {
            return false;
        };
        let owner = self.owner.label();
        let held = |form: &ContainerForm| {
            have.containers.iter().find(|container| {
                container.owner == owner
                    && container.decky == *name
                    && container.role == form.role
                    && container.hash == form.hash()
            })
        };
        let service_is = decky
            .services
            .iter()
            .zip(&form.services)
            .any(|(service, (_, form))| {
                service_refusal(service, &self.allowed).is_some() && held(form).is_some()
            });
        let place_is = || {
            let Some(base) = held(&form.base) else {
                return false;
            };
            // The same address on the network as it was is not the place that is refused.
            let network = base
                .network
                .as_ref()
                .and_then(|id| have.networks.iter().find(|one| one.id == *id));
            let unchanged = match (network, as_wanted.networks.get(&form.network)) {
                (Some(network), Some(wanted)) => network.hash == wanted.hash(),
                (None, _) | (_, None) => false,
            };
            unchanged
                && (place_refusal(decky, want, &self.allowed, &self.reserved).is_some()
                    || permitted.deckies.len() >= self.allowed.most)
        };
        service_is || place_is()
    }

    fn clear_progress(&self) {
        self.progress.send_if_modified(|progress| {
            let had = !progress.is_empty();
            progress.clear();
            had
        });
    }

    /// What is told of a pass that another document ended before it changed anything.
    fn interrupted(&self, want: &Shard, have: &Inventory) -> Report {
        Report {
            deckies: status(want, have, &self.owner, &self.troubles, &Progress::new()),
            outcome: OutcomeStatus::Blocked,
            problems: vec![Problem::new(
                "images",
                "another document came before they were here",
            )],
            skipped: skipped(have),
            skipped_count: have.skipped.len(),
            steps: Vec::new(),
        }
    }

    async fn image(&self, image: &str, forms: &Forms) -> Result<Image, EngineError> {
        if let Some(here) = self.engine.image(image).await? {
            return Ok(here);
        }
        info!(%image, "pulling");
        for (name, decky) in &forms.deckies {
            if decky.containers().any(|form| form.image == image) {
                self.progress.send_modify(|progress| {
                    progress.insert(name.clone(), DeckyState::Pulling);
                });
            }
        }
        self.engine.pull(image).await?;
        self.engine
            .image(image)
            .await?
            .ok_or_else(|| EngineError::NoImage {
                image: image.to_owned(),
                message: "it was pulled and is not here".to_owned(),
            })
    }

    /// Does the steps, phase by phase.
    async fn act(&self, plan: Plan, forms: &Forms, images: &BTreeMap<String, Image>, attempt: &mut Attempt) {
        let mut phases: BTreeMap<Phase, Vec<Step>> = BTreeMap::new();
        for step in plan.steps {
            phases.entry(step.phase()).or_default().push(step);
        }
        let departures = phases.remove(&Phase::Departures).unwrap_or_default();
        self.queues(departures, DeckyState::Stopping, images, attempt)
            .await;
        for step in phases.remove(&Phase::Networks).unwrap_or_default() {
            self.network(step, attempt).await;
        }
        let mut arrivals = phases.remove(&Phase::Arrivals).unwrap_or_default();
        for (name, decky) in &forms.deckies {
            let trouble = attempt.networks.get(&decky.network).cloned();
            if let Some(trouble) = trouble
                && arrivals.iter().any(|step| step.decky() == Some(name))
            {
                attempt.deckies.entry(name.clone()).or_insert(trouble);
            }
        }
        arrivals.retain(|step| {
            step.decky()
                .is_none_or(|decky| !attempt.deckies.contains_key(decky))
        });
        self.queues(arrivals, DeckyState::Starting, images, attempt).await;
        self.clear_progress();
    }

    async fn network(&self, step: Step, attempt: &mut Attempt) {
        let (name, result) = match &step {
            Step::RemoveNetwork { name, id } => (name.clone(), self.engine.remove_network(id).await),
            Step::CreateNetwork(form) if attempt.networks.contains_key(&form.network.name) => return,
            Step::CreateNetwork(form) => (form.network.name.clone(), self.engine.create_network(form).await),
            Step::Image(_)
            | Step::Stop { .. }
            | Step::Remove { .. }
            | Step::Create { .. }
            | Step::Start { .. } => {
                return;
            }
        };
        match result {
            Ok(()) => attempt.steps.push(step),
            Err(error) => {
                debug!(network = %name, error = with_causes(&error), "a network is not as wanted");
                attempt.networks.insert(name, Trouble::from(&error));
            }
        }
    }

    /// Does each decky's steps in order, and several deckies at once.
    async fn queues(
        &self,
        steps: Vec<Step>,
        state: DeckyState,
        images: &BTreeMap<String, Image>,
        attempt: &mut Attempt,
    ) {
        let mut queues: BTreeMap<Name, Vec<Step>> = BTreeMap::new();
        for step in steps {
            if let Some(decky) = step.decky().cloned() {
                queues.entry(decky).or_default().push(step);
            }
        }
        self.progress.send_if_modified(|progress| {
            progress.extend(queues.keys().map(|name| (name.clone(), state)));
            !queues.is_empty()
        });
        let mut ends = stream::iter(queues)
            .map(|(decky, steps)| self.queue(decky, steps, images))
            .buffer_unordered(AT_ONCE);
        while let Some((decky, done, trouble)) = ends.next().await {
            attempt.steps.extend(done);
            self.progress.send_modify(|progress| {
                progress.remove(&decky);
            });
            if let Some(trouble) = trouble {
                attempt.deckies.insert(decky, trouble);
            }
        }
    }

    async fn queue(
        &self,
        decky: Name,
        steps: Vec<Step>,
        images: &BTreeMap<String, Image>,
    ) -> (Name, Vec<Step>, Option<Trouble>) {
        let mut done = Vec::new();
        let mut made = Made::default();
        for step in steps {
            match self.take(&step, &mut made, images).await {
                Ok(()) => {
                    debug!(%decky, ?step, "done");
                    done.push(step);
                }
                Err(error) => {
                    debug!(%decky, ?step, error = with_causes(&error), "a step failed");
                    return (decky, done, Some(Trouble::from(&error)));
                }
            }
        }
        (decky, done, None)
    }

    async fn take(
        &self,
        step: &Step,
        made: &mut Made,
        images: &BTreeMap<String, Image>,
    ) -> Result<(), EngineError> {
        match step {
            Step::Stop { id, .. } => self.engine.stop(id).await,
            Step::Remove { id, .. } => self.engine.remove(id).await,
            Step::Create { form, base } => {
                let image = images
                    .get(&form.image)
                    .copied()
                    .unwrap_or(Image { read_only: false });
                let base = base.as_ref().or(made.base.as_ref());
                let id = self.engine.create(form, base, image).await?;
                if form.role == super::form::Role::Base {
                    made.base = Some(id.clone());
                }
                made.last = Some(id);
                Ok(())
            }
            Step::Start { id, .. } => {
                let id = id.as_ref().or(made.last.as_ref());
                self.engine
                    .start(id.expect("a plan makes a container before it starts it"))
                    .await
            }
            Step::Image(_) | Step::RemoveNetwork { .. } | Step::CreateNetwork(_) => Ok(()),
        }
    }

    async fn report(
        &mut self,
        want: &Shard,
        forms: &Forms,
        refused: &BTreeSet<Name>,
        attempt: Attempt,
    ) -> Report {
        let until = self.clock.monotonic() + FORGET_AFTER;
        for (name, trouble) in &attempt.deckies {
            if !trouble.may_pass
                && !refused.contains(name)
                && let Some(content) = content(forms, name)
            {
                self.failed.entry(name.clone()).or_insert_with(|| Failure {
                    content,
                    message: trouble.message.clone(),
                    image: trouble.image.clone(),
                    until,
                });
            }
        }
        self.troubles = attempt
            .deckies
            .iter()
            .map(|(name, trouble)| (name.clone(), trouble.message.clone()))
            .collect();
        let have = match self.engine.inventory(&self.owner).await {
            Ok(have) => have,
            Err(error) => {
                let mut report = self.sightless(want, &error);
                report.steps = attempt.steps;
                return report;
            }
        };
        let troubles = || attempt.deckies.iter().chain(&attempt.networks);
        let outcome = if troubles().any(|(_, trouble)| trouble.may_pass) {
            OutcomeStatus::Blocked
        } else if troubles().next().is_some() {
            OutcomeStatus::Failed
        } else {
            OutcomeStatus::Done
        };
        let mut problems: Vec<Problem> = attempt
            .deckies
            .iter()
            .map(|(name, trouble)| Problem::new(name, &trouble.message))
            .collect();
        problems.extend(
            attempt
                .networks
                .iter()
                .map(|(name, trouble)| Problem::new(format_args!("network {name}"), &trouble.message)),
        );
        Report {
            deckies: status(want, &have, &self.owner, &self.troubles, &Progress::new()),
            outcome,
            problems,
            skipped: skipped(&have),
            skipped_count: have.skipped.len(),
            steps: attempt.steps,
        }
    }

    fn sightless(&self, want: &Shard, error: &EngineError) -> Report {
        debug!(error = with_causes(error), "Docker does not say what it has");
        Report {
            deckies: blind(want, error),
            outcome: OutcomeStatus::Blocked,
            problems: vec![Problem::new("docker", with_causes(error))],
            skipped: Vec::new(),
            skipped_count: 0,
            steps: Vec::new(),
        }
    }
}

/// The images that are here; the deckies that lack one are in trouble.
fn sort(
    got: Vec<(String, Result<Image, EngineError>)>,
    plan: &Plan,
    attempt: &mut Attempt,
) -> BTreeMap<String, Image> {
    let mut images = BTreeMap::new();
    for (image, result) in got {
        match result {
            Ok(got) => {
                images.insert(image, got);
            }
            Err(error) => {
                for step in &plan.steps {
                    if let Step::Create { form, .. } = step
                        && form.image == image
                    {
                        attempt.deckies.insert(form.decky.clone(), Trouble::from(&error));
                    }
                }
            }
        }
    }
    images
}

/// What the present queue has made.
#[derive(Default)]
struct Made {
    base: Option<ContainerId>,
    last: Option<ContainerId>,
}

/// Everything that decides whether a decky can be brought up, as one text.
fn content(forms: &Forms, name: &Name) -> Option<String> {
    let decky = forms.deckies.get(name)?;
    let network = forms.networks.get(&decky.network)?;
    Some(format!("{} {}", decky.hash(), network.hash()))
}

fn skipped(have: &Inventory) -> Vec<Problem> {
    have.skipped
        .iter()
        .take(MOST_SKIPPED)
        .map(|(name, why)| Problem::new(name, why))
        .collect()
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
