//! Puts the host on the networks it is wanted on, as it is wanted there, and takes it off those that only we put it on.
//!
//! A step that may cut the session's own path is taken last, and undone when no session is back in time: see [`guard`].
//! A kill is taken first and never undone.

pub(crate) mod guard;
pub(crate) mod moons;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use picket_clock::Instant;
use picket_durable::FileError;
use picket_proto::{
    beat::Digest,
    document::{Contents, Kind, Problem},
    stay::{Join, Stay},
};
use picket_zerotier::{
    NetworkId,
    node::{Joined, Settings},
    service::Error,
};
use tokio::{sync::Notify, time};

use self::{
    guard::{Guard, Held, Verdict},
    moons::Moons,
    plan::{Have, Refused, Step, plan},
};
use super::{Newer, Reconciler, Trouble};
use crate::{
    config::{Networks, Take},
    desired::Wanted,
    managed::Managed,
    observed::Observed,
    path::{Carrier, Path},
    sentence,
    zerotier::{Reach, ZeroTierError, condition},
};

/// Makes the networks document true.
#[derive(Debug)]
pub(crate) struct NetworkReconciler {
    pub(crate) reach: Option<Reach>,
    pub(crate) managed: Managed,
    pub(crate) allowed: Networks,
    /// What networks may give to this machine.
    pub(crate) take: BTreeSet<Take>,
    pub(crate) guard: Guard,
    pub(crate) path: Path,
    pub(crate) moons: Moons,
    pub(crate) observed: Observed,
    /// Told after every change.
    pub(crate) changed: Arc<Notify>,
    /// What we made of each network in this process: another state of it is somebody else's doing.
    pub(crate) made: BTreeMap<NetworkId, Join>,
    /// Networks that the session went over when this host was killed there.
    pub(crate) cut_off: BTreeSet<NetworkId>,
}

impl Reconciler for NetworkReconciler {
    fn kind(&self) -> Kind {
        Kind::Networks
    }

    async fn pass(&mut self, wanted: &Wanted, _newer: Newer) -> Vec<Trouble> {
        let Contents::Networks(stay) = &wanted.contents else {
            return Vec::new();
        };
        let Some(reach) = self.reach.clone() else {
            let off = |id: &NetworkId| {
                Trouble::Refused(Problem::new(
                    id,
                    "ZeroTier is switched off here (zerotier.enabled in agent.toml)",
                ))
            };
            return stay.networks.keys().map(off).collect();
        };
        let joined = match observe(&reach).await {
            Ok(joined) => joined,
            // Nothing is wanted and nothing of ours is there: no service is needed for that.
            Err(_) if asks_for_nothing(stay) && self.has_nothing() => return Vec::new(),
            Err(error) => return vec![Trouble::InTheWay(Problem::new("zerotier", sentence(&error)))],
        };
        // After a ban or a retirement nobody waits for a session.
        let guarded = !wanted.is_own();
        let (mut troubles, away) = self.networks(&reach, stay, joined, guarded).await;
        if !away && let Ok(service) = reach.service() {
            troubles.extend(self.moons.pass(&service.node(), stay).await);
        }
        troubles
    }

    /// A step whose end is open is judged when a session is back, or its time is over.
    async fn woken(&self) {
        let Some((_, since)) = self.guard.open_step() else {
            return std::future::pending().await;
        };
        tokio::select! {
            () = self.path.answers_after(since) => {}
            () = time::sleep_until(since + guard::PATIENCE) => {}
        }
    }
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
enum Stumble {
    #[error(transparent)]
    List(#[from] FileError),
    #[error(transparent)]
    ZeroTier(#[from] ZeroTierError),
}

impl Stumble {
    fn is_away(&self) -> bool {
        match self {
            Self::List(_) => false,
            Self::ZeroTier(error) => error.is_away(),
        }
    }
}

fn asks_for_nothing(stay: &Stay) -> bool {
    stay.networks.is_empty() && stay.moons.is_empty() && stay.root_of_moon.is_none()
}

impl NetworkReconciler {
    fn has_nothing(&self) -> bool {
        self.managed.current().is_empty()
            && self.moons.managed.current().is_empty()
            && self.guard.open_step().is_none()
    }

    /// Returns what is not done, and whether the service went away in between.
    async fn networks(
        &mut self,
        reach: &Reach,
        stay: &Stay,
        mut joined: Vec<Joined>,
        guarded: bool,
    ) -> (Vec<Trouble>, bool) {
        let mut troubles = Vec::new();
        // A disk that takes nothing keeps nobody from being killed.
        let stumbles = |stumble: &Stumble| Trouble::InTheWay(Problem::new("guard", sentence(stumble)));
        if let Err(error) = self.remember(&joined).await {
            troubles.push(stumbles(&error.into()));
        }
        match self.settle(reach, stay, guarded).await {
            Ok(None) => {}
            Ok(Some(undone)) => {
                troubles.push(undone);
                match observe(reach).await {
                    Ok(anew) => joined = anew,
                    Err(error) => {
                        troubles.push(stumbles(&error.into()));
                        return (troubles, true);
                    }
                }
            }
            Err(stumble) => {
                troubles.push(stumbles(&stumble));
                if stumble.is_away() {
                    return (troubles, true);
                }
            }
        }
        let carrier = self.carrier(&joined).filter(|_| guarded);
        let have: BTreeMap<_, _> = joined
            .iter()
            .map(|network| (network.id, join_of(network.settings)))
            .collect();
        let managed = self.managed.current();
        let asked = guard::asked(stay);
        let failed = self.guard.failed(asked);
        let have = Have {
            joined: &have,
            managed: &managed,
            carrier,
            failed: &failed,
        };
        let plan = plan(stay, have, &self.allowed, &self.take);
        self.made.retain(|id, _| stay.networks.contains_key(id));
        troubles.extend(plan.refused.iter().map(told));
        let mut no_tun = None;
        let steps = plan.steps.into_iter().map(|step| (step, false));
        for (step, cuts) in steps.chain(plan.cut.map(|step| (step, true))) {
            let before = have.joined.get(&step.network()).copied();
            let taken = if cuts {
                self.take_guarded(reach, step, before, asked).await
            } else {
                self.take(reach, step).await
            };
            self.changed.notify_one();
            match taken {
                Ok(()) => troubles.extend(self.remark(step, before, carrier)),
                Err(stumble) => {
                    let what = sentence(&stumble);
                    if matches!(
                        &stumble,
                        Stumble::ZeroTier(ZeroTierError::Service(Error::NoTun { .. }))
                    ) {
                        no_tun = Some(Problem::new("zerotier", condition::no_tun(&what)));
                    }
                    troubles.push(Trouble::InTheWay(Problem::new(step.network(), what)));
                    if stumble.is_away() {
                        return (troubles, true);
                    }
                }
            }
        }
        self.observed.complain("tun", no_tun.into_iter().collect());
        self.cut_off.retain(|id| stay.killed.contains(id));
        let cut_off = |id| {
            let message = "killed here and left, though the session went over it; `picket-agent rejoin` on the machine joins it again";
            Problem::new(id, message)
        };
        self.observed
            .complain("kill", self.cut_off.iter().map(cut_off).collect());
        if let Some((before, _)) = self.guard.open_step() {
            let message = format!(
                "this changed the session's own path; it is undone when no session is back within {} s",
                guard::PATIENCE.as_secs()
            );
            troubles.push(Trouble::InTheWay(Problem::new(before.network, message)));
        }
        (troubles, false)
    }

    /// The network that carries the session: the present one, or the last one while there is none, and while a step
    /// has an end that is open.
    fn carrier(&self, joined: &[Joined]) -> Option<NetworkId> {
        match self.path.carrier(joined) {
            Carrier::Network(id) => Some(id),
            Carrier::Other if self.guard.open_step().is_none() => None,
            Carrier::Other | Carrier::Unknown => self.guard.carrier(),
        }
    }

    /// Remembers what carries the session, for a restart and for `rejoin`.
    async fn remember(&mut self, joined: &[Joined]) -> Result<(), FileError> {
        let network = |id| joined.iter().find(|network| network.id == id);
        match self.path.carrier(joined) {
            Carrier::Network(id) => {
                let held = network(id).map(|network| Held {
                    network: id,
                    settings: join_of(network.settings),
                });
                self.guard.carries(held).await
            }
            // A network that this host was taken off is still what `rejoin` goes by.
            Carrier::Other if self.guard.carrier().is_some_and(|last| network(last).is_none()) => Ok(()),
            Carrier::Other if self.guard.open_step().is_none() => self.guard.carries(None).await,
            Carrier::Other | Carrier::Unknown => Ok(()),
        }
    }

    /// Judges a step whose end is open, and says so when it was undone.
    async fn settle(
        &mut self,
        reach: &Reach,
        stay: &Stay,
        guarded: bool,
    ) -> Result<Option<Trouble>, Stumble> {
        let Some((before, since)) = self.guard.open_step() else {
            return Ok(None);
        };
        let id = before.network;
        if !guarded || stay.killed.contains(&id) {
            self.guard.close().await?;
            return Ok(None);
        }
        match guard::judge(since, self.path.said(), Instant::now()) {
            Verdict::Wait => {}
            Verdict::Stands => {
                tracing::info!(network = %id, "a session is back; what changed its path stands");
                self.guard.close().await?;
            }
            Verdict::Undo => {
                tracing::warn!(network = %id, "no session is back; undoes what cut it off");
                self.take(reach, Step::Join(id, before.settings)).await?;
                self.guard.undone().await?;
                self.changed.notify_one();
                let message = "no session was back in time, and it is joined again as it was before";
                return Ok(Some(Trouble::Remark(Problem::new(id, message))));
            }
        }
        Ok(None)
    }

    async fn take_guarded(
        &mut self,
        reach: &Reach,
        step: Step,
        before: Option<Join>,
        asked: Digest,
    ) -> Result<(), Stumble> {
        let Some(settings) = before else {
            return self.take(reach, step).await;
        };
        let held = Held {
            network: step.network(),
            settings,
        };
        tracing::warn!(network = %held.network, "changes the session's own path; undone when no session is back in time");
        self.guard.begin(held, asked, Instant::now()).await?;
        match self.take(reach, step).await {
            Ok(()) => {
                self.guard.taken(Instant::now());
                Ok(())
            }
            Err(stumble) => {
                // What may have been done all the same is undone all the same.
                if matches!(&stumble, Stumble::ZeroTier(error) if error.changed_nothing()) {
                    self.guard.close().await?;
                }
                Err(stumble)
            }
        }
    }

    async fn take(&mut self, reach: &Reach, step: Step) -> Result<(), Stumble> {
        match step {
            Step::Join(id, join) => {
                // Listed first: a crash in between must not leave a network behind that nobody would ever leave.
                self.managed.add(id).await?;
                tracing::info!(network = %id, ?join, "joins");
                if let Err(error) = set(reach, id, join).await {
                    // Nobody is to be taken off a network that somebody joins by hand meanwhile.
                    if error.changed_nothing() {
                        self.managed.remove(id).await?;
                    }
                    return Err(error.into());
                }
                self.made.insert(id, join);
            }
            Step::Set(id, join) => {
                tracing::info!(network = %id, ?join, "changes how this host is on a network");
                set(reach, id, join).await?;
            }
            Step::Kill(id) | Step::Leave(id) => {
                tracing::info!(network = %id, killed = matches!(step, Step::Kill(_)), "leaves");
                leave(reach, id).await?;
                self.managed.remove(id).await?;
                self.made.remove(&id);
            }
            Step::Forget(id) => self.managed.remove(id).await?,
        }
        Ok(())
    }

    /// What is worth a word of a step that went well.
    fn remark(&mut self, step: Step, before: Option<Join>, carrier: Option<NetworkId>) -> Option<Trouble> {
        let message = match step {
            Step::Kill(id) => {
                if carrier == Some(id) {
                    self.cut_off.insert(id);
                }
                return None;
            }
            Step::Set(id, join) => {
                let ours = self.made.insert(id, join);
                let before = before.filter(|_| ours == Some(join))?;
                format!("{} outside Picket, and was set back", difference(join, before))
            }
            Step::Leave(_) | Step::Forget(_) | Step::Join(..) => return None,
        };
        Some(Trouble::Remark(Problem::new(step.network(), message)))
    }
}

/// What somebody changed: `allowDNS was set to true`.
fn difference(from: Join, to: Join) -> String {
    let each = [
        ("allowManaged", from.managed, to.managed),
        ("allowGlobal", from.global, to.global),
        ("allowDefault", from.default_route, to.default_route),
        ("allowDNS", from.dns, to.dns),
    ];
    let changed = each.into_iter().filter(|(_, from, to)| from != to);
    let words: Vec<_> = changed
        .map(|(name, _, to)| format!("{name} was set to {to}"))
        .collect();
    words.join(", ")
}

fn told(refused: &Refused) -> Trouble {
    let (id, message) = match refused {
        Refused::Network(id) => (
            id,
            format!("agent.toml does not let the master put this host on it; add \"{id}\" to networks.allow"),
        ),
        Refused::Take(id, what) => (
            id,
            format!("agent.toml does not let it give this machine {}; add \"{what}\" to networks.take", what.means()),
        ),
        Refused::ByHand(id) => (
            id,
            "killed here, and not left: it was joined by hand, which is not ours to undo. The controller cuts it off; to leave it as well, run `zerotier-cli leave` on the machine".to_owned(),
        ),
        Refused::Cuts(id) => (
            id,
            "not done again: it cut the session's own path before, no session was back in time, and it was undone. Give this host another way to its master, or wish something else of its networks first".to_owned(),
        ),
    };
    Trouble::Refused(Problem::new(id, message))
}

/// How a node is on a network, in the words of a document.
pub(crate) fn join_of(settings: Settings) -> Join {
    Join {
        managed: settings.managed,
        global: settings.global,
        default_route: settings.default_route,
        dns: settings.dns,
    }
}

/// How a node is to be on a network, in the words of the service.
pub(crate) fn settings_of(join: Join) -> Settings {
    Settings {
        managed: join.managed,
        global: join.global,
        default_route: join.default_route,
        dns: join.dns,
    }
}

async fn set(reach: &Reach, id: NetworkId, join: Join) -> Result<(), ZeroTierError> {
    reach.service()?.node().join(id, settings_of(join)).await?;
    Ok(())
}

async fn leave(reach: &Reach, id: NetworkId) -> Result<(), ZeroTierError> {
    reach.service()?.node().leave(id).await?;
    Ok(())
}

async fn observe(reach: &Reach) -> Result<Vec<Joined>, ZeroTierError> {
    Ok(reach.service()?.node().networks().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_changed_is_named_in_the_services_own_words() {
        let changed = Join {
            managed: false,
            dns: true,
            ..Join::default()
        };
        assert_eq!(
            difference(Join::default(), changed),
            "allowManaged was set to false, allowDNS was set to true"
        );
    }
}
