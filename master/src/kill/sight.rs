//! Looking at one member: what its controller, its own agent and its witnesses said last, and whether they knew.
//!
//! What was said before the one who says it was told of the kill proves nothing: an authorization may have been under
//! way. A controller's agent and a member's count from when they tried a document that is as new as the kill.

use std::collections::BTreeMap;

use jiff::Timestamp;
use picket_proto::{host::HostId, witness::Answer};
use picket_zerotier::ids::{NetworkId, NodeId};

use super::{
    Agent, Controller, HostSight, LONGEST_WINDOW, Sight, Silence, WINDOW,
    cover::Pair,
    report::{Report, Reports},
};
use crate::{
    desired::stay::{Witnesses, address_of},
    record::{
        HostRecord, HostStanding,
        network::{Governor, KillScope, NetworkMode, NetworkRecord},
    },
    store::Revision,
    views::State,
};

/// Who looks, and from where.
#[derive(Debug)]
pub(crate) struct Eyes<'a> {
    pub(crate) state: &'a State,
    pub(crate) reports: &'a Reports,
    pub(crate) scope: &'a KillScope,
    /// The kill was made; else it is a drill, and nobody was told.
    pub(crate) made: bool,
    pub(crate) now: Timestamp,
    witnesses: BTreeMap<NetworkId, Witnesses>,
}

impl<'a> Eyes<'a> {
    pub(crate) fn new(
        state: &'a State,
        reports: &'a Reports,
        scope: &'a KillScope,
        made: bool,
        now: Timestamp,
    ) -> Self {
        Self {
            state,
            reports,
            scope,
            made,
            now,
            witnesses: BTreeMap::new(),
        }
    }

    /// Looks at a member.
    pub(crate) fn look(&mut self, (network, node): Pair) -> Sight {
        let since = self
            .state
            .networks
            .killed_since(&self.state.roster, network, node)
            .filter(|_| self.made);
        let record = self.state.networks.network(network).map(|kept| &kept.record);
        let (agent, carries_session) = self.agent(network, node, since);
        Sight {
            controller: match record {
                Some(record) => self.controller(record, node, since),
                None => self.controller_of_gone(network),
            },
            agent,
            carries_session,
            silence: record.map_or(Silence::Unwitnessed, |record| self.silence(record, node, since)),
            window: match record.map(|record| record.controller) {
                Some(Governor::Central(_)) => LONGEST_WINDOW,
                Some(Governor::Host(_)) | None => WINDOW,
            },
        }
    }

    /// Why a network's controller cannot be asked; or what it says.
    pub(crate) fn records(
        &self,
        network: &NetworkRecord,
    ) -> Result<(&'a Report, &'a BTreeMap<NodeId, bool>), String> {
        let report = match network.controller {
            Governor::Host(id) => self.controllers_host(id)?,
            Governor::Central(_) => self
                .reports
                .of_controller(network.controller)
                .ok_or("ZeroTier Central has not said yet who is on it")?,
        };
        let whose = match network.controller {
            Governor::Host(id) => format!("the controller on {}", self.name(id)),
            Governor::Central(_) => "ZeroTier Central".to_owned(),
        };
        let controlled = report.controller.as_ref();
        let controlled = controlled.ok_or_else(|| format!("{whose} has not been reported"))?;
        // A service that does not answer has no controller that would.
        let away = report
            .zerotier
            .as_ref()
            .and_then(|joined| joined.problem.as_ref());
        if let Some(problem) = controlled.problem.as_ref().or(away) {
            return Err(format!("{whose}: {problem}; done when it is back"));
        }
        let records = controlled.networks.get(&network.id);
        let records = records.ok_or_else(|| format!("{whose} does not run the network"))?;
        if records.frozen.is_empty() {
            Ok((report, &records.authorized))
        } else {
            Err(format!("{whose}: {}", records.frozen))
        }
    }

    /// What a host said that runs a controller, while it can carry out there what is decided.
    fn controllers_host(&self, id: HostId) -> Result<&'a Report, String> {
        let name = self.name(id);
        if self.is_cut(id) {
            return Err(format!(
                "{name}, whose controller runs the network, is banned: nobody carries out there what is decided"
            ));
        }
        let report = self.reports.of(id).filter(|report| report.session);
        report.ok_or_else(|| {
            format!("{name}, whose controller runs the network, is not connected; done when it is back")
        })
    }

    /// Of a network that was deleted nobody is a member. One that was forgotten goes on, and nobody reports it.
    fn controller_of_gone(&self, network: NetworkId) -> Controller {
        let gone = self.state.networks.network_or_gone(network);
        if gone.is_some_and(|kept| kept.record.deleted) {
            return Controller::Denies;
        }
        Controller::Away(format!(
            "network {network} is watched no longer, so that nobody tells its controller of the kill or says what it does; \
             `picketctl network adopt {network}` watches it again"
        ))
    }

    fn controller(&self, network: &NetworkRecord, node: NodeId, since: Option<Revision>) -> Controller {
        match self.records(network) {
            Err(why) => Controller::Away(why),
            Ok((report, records)) => match records.get(&node) {
                Some(true) => Controller::Authorizes,
                Some(false) | None if report.did(network.id, node, since) => Controller::Denies,
                Some(false) | None => Controller::Untold,
            },
        }
    }

    fn agent(&self, network: NetworkId, node: NodeId, since: Option<Revision>) -> (Agent, bool) {
        let Some(host) = self.state.roster.of_node(node).map(|host| &host.record) else {
            return (Agent::Nobody, false);
        };
        let (id, name) = (host.id, &host.name);
        let report = self.reports.of(id).filter(|report| report.session);
        let on = report
            .and_then(|report| report.zerotier.as_ref())
            .and_then(|joined| joined.networks.get(&network));
        let carries_session = on.is_some_and(|on| on.carries_session);
        if self.is_cut(id) {
            let why = format!(
                "{name} is banned: its agent leaves when it hears so, and cannot say from outside that it did"
            );
            return (Agent::Cut(why), carries_session);
        }
        let Some(report) = report else {
            let why = format!("{name} is not connected; its agent leaves when it is back");
            return (Agent::Away(why), false);
        };
        let Some(joined) = &report.zerotier else {
            return (
                Agent::Away(format!("{name} has not reported its ZeroTier service")),
                false,
            );
        };
        if let Some(problem) = &joined.problem {
            return (Agent::Away(format!("ZeroTier on {name}: {problem}")), false);
        }
        let told = told(since, report.tried_networks);
        let agent = match on {
            Some(on) if on.managed => Agent::On,
            Some(_) if told => Agent::ByHand(name.to_string()),
            None if told => Agent::Off,
            Some(_) | None => Agent::Untold,
        };
        (agent, carries_session)
    }

    fn silence(&mut self, network: &NetworkRecord, node: NodeId, since: Option<Revision>) -> Silence {
        // Nobody is asked to witness a node whose address is not known.
        if address_of(network, node).is_none() {
            return Silence::Unwitnessed;
        }
        let (state, now) = (self.state, self.now);
        let witnesses = self.witnesses.entry(network.id);
        let witnesses = witnesses.or_insert_with(|| Witnesses::on(state, network, now));
        let (mut known, mut never, mut silent) = (0, 0, false);
        for witness in witnesses.of(node) {
            let Some(host) = state.roster.of_node(witness).map(|host| &host.record) else {
                continue;
            };
            known += 1;
            let report = self.reports.of(host.id).filter(|report| report.session);
            let report = report.filter(|report| told(since, report.tried_networks));
            let answer = report
                .and_then(|report| report.zerotier.as_ref())
                .and_then(|joined| joined.witnesses.get(&(network.id, node)));
            match answer {
                // One who gets an answer is right, whoever else gets none.
                Some(Answer::Answers) => return Silence::Answers(host.name.to_string()),
                Some(Answer::Silent) => silent = true,
                Some(Answer::Never) => never += 1,
                None => {}
            }
        }
        if silent {
            Silence::Silent
        } else if known == never {
            Silence::Unwitnessed
        } else {
            Silence::Unknown
        }
    }

    /// Looks at a host that is killed.
    pub(crate) fn host(&self, host: &HostRecord) -> HostSight {
        let report = self.reports.of(host.id);
        HostSight {
            made: self.made,
            banned: self.made && host.standing != HostStanding::Active,
            session: report.is_some_and(|report| report.session),
            deckies: report.and_then(|report| report.deckies),
            wanted: self.state.deployments.shard(host.id).deckies.len(),
        }
    }

    /// What the operator should know before and after: whose path to this master is cut, and what cannot be reached.
    pub(crate) fn cautions(&self, networks: impl IntoIterator<Item = NetworkId>) -> Vec<String> {
        let mut found = Vec::new();
        for id in networks {
            let Some(network) = self.state.networks.network(id).map(|kept| &kept.record) else {
                continue;
            };
            if network.mode == NetworkMode::Observe {
                found.push(format!(
                    "network {id} is only observed: who is killed is deauthorized there all the same, and nothing else is \
                     changed, but that a public network is made private, since it would let them on again; lifting the kill does not authorize them again there (`picketctl network enforce {id}` does)"
                ));
            }
            if let Err(why) = self.records(network) {
                found.push(format!("network {id}: {why}"));
            }
        }
        found
    }

    fn is_cut(&self, host: HostId) -> bool {
        if !self.made && *self.scope == KillScope::Host(host) {
            return true;
        }
        let record = self.state.roster.host(host).map(|host| &host.record);
        record.is_some_and(|record| record.standing != HostStanding::Active)
    }

    fn name(&self, host: HostId) -> String {
        let record = self.state.roster.host(host).map(|host| &host.record);
        record.map_or_else(|| host.to_string(), |record| record.name.to_string())
    }
}

/// Whether somebody who tried what he was told up to a revision knew of a kill.
fn told(since: Option<Revision>, tried: Revision) -> bool {
    since.is_some_and(|since| since <= tried)
}

/// What a node is called: by its host, or as a device; nothing when it is nobody's.
pub(crate) fn name_of(state: &State, node: NodeId) -> String {
    let roster = &state.roster;
    let host = roster.of_node(node).or_else(|| roster.formerly(node));
    let host = host.map(|host| host.record.name.to_string());
    let device = || {
        state
            .networks
            .device(node)
            .map(|kept| kept.record.name.to_string())
    };
    host.or_else(device).unwrap_or_default()
}
