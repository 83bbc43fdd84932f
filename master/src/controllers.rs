//! What controllers said of their networks last, those on hosts and ZeroTier Central alike.

use std::collections::BTreeMap;

use picket_proto::{
    host::{HostId, Labels},
    status::{ControlledNetwork, ControllerStatus},
};
use picket_zerotier::ids::NetworkId;

use crate::{
    desk::Desk,
    record::{HostRecord, network::Governor},
};

impl Desk {
    /// What a controller said last; none when it has not said anything. While the service that it is part of does not
    /// answer, that is what it says.
    #[must_use]
    pub fn controller(&self, governor: Governor) -> Option<ControllerStatus> {
        match governor {
            Governor::Host(host) => {
                let seen = self.observed.get(host)?;
                let mut status = seen.controller()?;
                let service = seen.zerotier().map(|zerotier| zerotier.service);
                if let Some(away) = service.filter(|service| service.problem().is_some()) {
                    status.service = away;
                }
                Some(status)
            }
            Governor::Central(_) => self.central.seen(),
        }
    }

    /// What a controller said of a network last.
    ///
    /// # Errors
    /// Why that is not known, in a sentence.
    pub fn controlled(&self, governor: Governor, id: NetworkId) -> Result<ControlledNetwork, String> {
        let status = self.readable(governor, self.controller(governor))?;
        let network = status.networks.into_iter().find(|network| network.id == id);
        network.ok_or_else(|| self.runs_none(governor))
    }

    /// What controllers said last, for whoever looks at many networks.
    #[must_use]
    pub fn controllers(&self) -> Controllers<'_> {
        Controllers {
            desk: self,
            said: BTreeMap::new(),
        }
    }

    /// What a controller said, when it can be read.
    fn readable(
        &self,
        governor: Governor,
        said: Option<ControllerStatus>,
    ) -> Result<ControllerStatus, String> {
        let Some(status) = said else {
            return Err(match governor {
                Governor::Host(host) => {
                    let host = self.name_of(host);
                    format!("{host} has not reported its controller; is its agent running?")
                }
                Governor::Central(_) if self.central.is_configured() => {
                    "ZeroTier Central has not been asked yet; it is within a minute".to_owned()
                }
                Governor::Central(_) => crate::central::NOT_CONFIGURED.to_owned(),
            });
        };
        match status.service.problem() {
            Some(problem) => Err(format!("{}: {problem}", self.whose(governor))),
            None => Ok(status),
        }
    }

    fn runs_none(&self, governor: Governor) -> String {
        format!("{} does not run it", self.whose(governor))
    }

    /// What a controller is called in a sentence.
    #[must_use]
    pub fn whose(&self, governor: Governor) -> String {
        match governor {
            Governor::Host(host) => format!("the controller on {}", self.name_of(host)),
            Governor::Central(_) => "ZeroTier Central".to_owned(),
        }
    }

    /// Whether a host's labels make it a member of a network that those before did not, whether or not its node is known.
    #[must_use]
    pub fn lets_on(&self, host: &HostRecord, before: &Labels) -> bool {
        let views = self.views.read();
        let mut networks = views.networks.networks().map(|network| &network.record);
        networks.any(|network| network.takes_labels_of(host) && !before.include(&network.member_labels))
    }

    /// A network that a host is a member of by the labels before and no more by those of now, while its session goes over it.
    #[must_use]
    pub fn takes_its_path(&self, host: &HostRecord, before: &Labels) -> Option<NetworkId> {
        let was = HostRecord {
            labels: before.clone(),
            ..host.clone()
        };
        let left: Vec<NetworkId> = {
            let views = self.views.read();
            let networks = views.networks.networks().map(|network| &network.record);
            networks
                .filter(|network| network.is_governed())
                .filter(|network| network.takes_labels_of(&was) && !network.takes_labels_of(host))
                .map(|network| network.id)
                .collect()
        };
        left.into_iter()
            .find(|id| self.paths_over(*id).contains(&host.id))
    }

    /// The hosts whose session goes over a network.
    #[must_use]
    pub fn paths_over(&self, id: NetworkId) -> std::collections::BTreeSet<HostId> {
        let carries = |seen: &crate::observed::Seen| {
            let joined = seen.zerotier().map(|status| status.networks).unwrap_or_default();
            joined.iter().any(|on| on.id == id && on.carries_session)
        };
        let all = self.observed.all();
        let over = all.into_iter().filter(|(_, seen)| carries(seen));
        over.map(|(host, _)| host).collect()
    }
}

/// What controllers said last. Each is read once, however many networks it runs.
#[derive(Debug)]
pub struct Controllers<'a> {
    desk: &'a Desk,
    said: BTreeMap<Governor, Result<ControllerStatus, String>>,
}

impl Controllers<'_> {
    /// What a controller said of a network last.
    ///
    /// # Errors
    /// Why that is not known, in a sentence.
    pub fn network(&mut self, governor: Governor, id: NetworkId) -> Result<&ControlledNetwork, String> {
        let desk = self.desk;
        let said = self
            .said
            .entry(governor)
            .or_insert_with(|| desk.readable(governor, desk.controller(governor)));
        let status = said.as_ref().map_err(Clone::clone)?;
        let network = status.networks.iter().find(|network| network.id == id);
        network.ok_or_else(|| desk.runs_none(governor))
    }
}
