//! Makes the networks of the local controller follow the rules: what to change is for `picket-govern` to say.

mod kept;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use picket_clock::Clock;
use picket_govern::{Lasts, Left, Moment, Report, Sighting, Standing, pass};
use picket_proto::{
    document::{Contents, Kind, Problem},
    rules::Members,
};
use picket_zerotier::{NetworkId, controller::LocalController};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

pub(crate) use kept::Kept;

use super::{Newer, Reconciler, Trouble};
use crate::{
    desired::Wanted,
    master_time::{MasterTime, Told},
    question::{Answer, Question},
    sentence,
    zerotier::{
        Reach, ZeroTierError,
        governance::{Governance, Shown},
    },
};

/// How soon to try again while somebody who has to go could not be cut off.
const SOON: Duration = Duration::from_secs(2);

/// How long a pass has to come to its end when the agent is stopped.
const FINISH: Duration = Duration::from_secs(3);

/// Makes the members document true.
#[derive(Debug)]
pub(crate) struct MemberReconciler {
    pub(crate) reach: Option<Reach>,
    pub(crate) clock: Clock,
    pub(crate) time: MasterTime,
    pub(crate) governance: Governance,
    pub(crate) kept: Kept,
    /// Told after every change.
    pub(crate) changed: Arc<Notify>,
    pub(crate) due: Due,
    pub(crate) looked: Looked,
    /// Somebody wants to know how things are.
    pub(crate) asked: Question,
}

/// When a pass is due by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// There is nothing to wait for.
    Never,
    /// At this time of the master's.
    At(Timestamp),
    /// In a moment.
    Soon(Instant),
}

/// For which wishes what was changed was looked at once more: the service may write back a record that it had read before.
/// Somebody who changes records all the time is not answered all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Looked(Option<u64>);

impl Looked {
    /// Notes a pass, and tells whether another look is due soon.
    fn again(&mut self, ticket: u64, taken: usize) -> bool {
        let before = self.0;
        self.0 = (taken > 0).then_some(ticket);
        taken > 0 && before != Some(ticket)
    }
}

impl Reconciler for MemberReconciler {
    fn kind(&self) -> Kind {
        Kind::Members
    }

    async fn pass(&mut self, wanted: &Wanted, newer: Newer) -> Vec<Trouble> {
        let Contents::Members(members) = &wanted.contents else {
            return Vec::new();
        };
        self.due = Due::Never;
        if members.networks.is_empty() {
            self.governance.found(BTreeMap::new());
            self.show(None);
            return Vec::new();
        }
        let Some(reach) = self.reach.clone() else {
            let message = "ZeroTier is switched off here (zerotier.enabled in agent.toml)";
            return vec![Trouble::Refused(Problem::new("zerotier", message))];
        };
        let controller = match controller(&reach).await {
            Ok(controller) => controller,
            Err(error) => {
                if error.is_away() {
                    self.governance.missed();
                }
                // Somebody may have to be cut off as soon as it answers.
                self.due = Due::Soon(Instant::now() + SOON);
                return vec![Trouble::InTheWay(Problem::new("zerotier", sentence(&error)))];
            }
        };
        self.governance.answered();
        let sighting = Sighting {
            mark: reach.mark(),
            watched: self.governance.watched(),
        };
        self.kept.memory.saw(&sighting, self.time.now().at());
        loop {
            let report = self.once(&controller, members, wanted.ticket).await;
            // A kill that came meanwhile waits for no more of this.
            if report.left != Left::More || newer.has_come() {
                return troubles(report);
            }
        }
    }

    /// A member that was let on to be cut off once more is.
    fn finishes(&self) -> Duration {
        FINISH
    }

    async fn due(&self) {
        match self.due {
            Due::Never => std::future::pending().await,
            Due::At(at) => self.time.reaches(at).await,
            Due::Soon(at) => time::sleep_until(at).await,
        }
    }

    async fn asked(&self) {
        self.asked.asked().await;
    }

    async fn answer(&mut self, wanted: Option<&Wanted>) {
        let asked = self.asked.take();
        let answer = match wanted.map(|wanted| &wanted.contents) {
            Some(Contents::Members(members)) if !members.networks.is_empty() => self.look(members).await,
            Some(Contents::Members(_) | Contents::Networks(_) | Contents::Shard(_)) | None => Ok(()),
        };
        asked.answer(&answer);
    }
}

impl MemberReconciler {
    async fn once(&mut self, controller: &LocalController, members: &Members, ticket: u64) -> Report {
        self.time.look().await;
        let told = self.time.now();
        let want = as_of(told, members);
        let moment = Moment {
            now: told.at(),
            here: self.clock.now(),
        };
        let mut report = pass(controller, &want, &mut self.kept.memory, moment).await;
        let found = std::mem::take(&mut report.untouched);
        let found = found.into_iter().map(|(id, there)| (id, there.into()));
        let news = self.governance.found(found.collect());
        if matches!(told, Told::Known(_)) && report.ended > 0 {
            self.time.passed(told.at()).await;
        }
        self.kept.keep().await;
        self.show(Some(&report.networks));
        if news {
            self.changed.notify_one();
        }
        let looks_again = self.looked.again(ticket, report.taken);
        self.due = if report.left == Left::Departures || looks_again {
            Due::Soon(Instant::now() + SOON)
        } else {
            picket_govern::next(&want, &self.kept.memory, told.at()).map_or(Due::Never, Due::At)
        };
        report
    }

    /// Reads the controller and keeps how it is by the rules, for the reader to show. Changes nothing there.
    async fn look(&mut self, members: &Members) -> Answer {
        let reach = self.reach.clone().ok_or("ZeroTier is switched off here")?;
        let controller = controller(&reach).await.map_err(|error| sentence(&error))?;
        self.time.look().await;
        let told = self.time.now();
        let want = as_of(told, members);
        let look = picket_govern::look(&controller, &want, &self.kept.memory, told.at()).await;
        let there = look.there.into_iter();
        self.governance
            .found(there.map(|(id, there)| (id, there.into())).collect());
        self.show(Some(&look.networks));
        Ok(())
    }

    /// Shows what was done, and has the controller read at once when that is news.
    fn show(&self, networks: Option<&BTreeMap<NetworkId, Standing>>) {
        let networks = networks.into_iter().flatten();
        let shown = Shown {
            repairs: self.kept.memory.repairs(),
            forgotten: self.kept.memory.forgotten(),
            networks: networks.map(|(id, standing)| (*id, standing.into())).collect(),
        };
        if self.governance.show(shown) {
            self.changed.notify_one();
        }
    }
}

/// The rules as they hold at a time. While nobody knows how late it is, no activation goes on.
fn as_of(told: Told, members: &Members) -> Cow<'_, Members> {
    match told {
        Told::Known(_) => Cow::Borrowed(members),
        Told::Doubtful(_) => {
            let mut members = members.clone();
            for rule in members.rules.values_mut() {
                rule.until = rule.until.map(|_| Timestamp::MIN);
            }
            Cow::Owned(members)
        }
    }
}

async fn controller(reach: &Reach) -> Result<LocalController, ZeroTierError> {
    let service = reach.service()?;
    let address = service.node().status().await?.address;
    Ok(service.controller(address))
}

fn troubles(report: Report) -> Vec<Trouble> {
    let mut troubles: Vec<_> = report
        .troubles
        .into_iter()
        .map(|trouble| {
            let problem = Problem::new(trouble.subject, trouble.sentence);
            match trouble.lasts {
                Lasts::UntilChanged => Trouble::Refused(problem),
                Lasts::ForNow => Trouble::InTheWay(problem),
            }
        })
        .collect();
    if troubles.is_empty() && report.left != Left::Nothing {
        troubles.push(Trouble::InTheWay(Problem::new(
            "members",
            "not everything is done yet",
        )));
    }
    troubles
}

#[cfg(test)]
mod tests {
    use picket_proto::rules::{Governed, Rule};
    use picket_zerotier::{NetworkId, NodeId};

    use super::*;

    #[test]
    fn while_nobody_knows_how_late_it_is_no_activation_goes_on_and_what_stands_does() {
        let network: NetworkId = "5350d87547c880cb".parse().unwrap();
        let at = |number| (network, NodeId::new(number).unwrap());
        let noon = Timestamp::from_second(1_795_000_000).unwrap();
        let activated = Rule {
            until: Some(Timestamp::MAX),
            ..Rule::plain(true)
        };
        let members = Members {
            networks: [(network, Governed::default())].into(),
            rules: [(at(1), activated), (at(2), Rule::plain(true))].into(),
            ..Members::default()
        };
        let holds = |told| -> Vec<bool> {
            let members = as_of(told, &members);
            members.rules.values().map(|rule| rule.holds(noon)).collect()
        };
        assert_eq!(holds(Told::Known(noon)), [true, true]);
        assert_eq!(holds(Told::Doubtful(noon)), [false, true]);
    }
}
