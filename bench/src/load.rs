//! The fleet: every agent does the same thing, all at once or spread over an interval.

use std::{sync::Arc, time::Duration};

use picket_clock::Instant;
use tokio::{sync::Semaphore, task::JoinSet, time};

use crate::{
    agent::{Agent, AgentError},
    report::{TooMany, sections},
    site::{Host, Site},
};

/// So many agents dial at once, as a fleet does that comes back with jitter.
const DIALLING: usize = 64;

/// Why a load could not be put on a server.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Such hosts cannot be made up.
    #[error(transparent)]
    Deckies(#[from] TooMany),
    /// One agent failed, and figures without it would be of another load.
    #[error("agent {number} does not go on")]
    Agent {
        /// Which.
        number: usize,
        /// Why.
        #[source]
        cause: AgentError,
    },
    /// A task of the load ended.
    #[error("an agent's task ended; this is a fault of picket-bench")]
    Task(#[from] tokio::task::JoinError),
}

/// Agents in session, in no order.
#[derive(Debug)]
pub struct Fleet(Vec<Agent>);

/// Opens a session for every host.
///
/// # Errors
/// When one does not open.
pub async fn open(
    address: &str,
    site: &Arc<Site>,
    hosts: Vec<Host>,
    deckies: u16,
) -> Result<Fleet, LoadError> {
    let places = Arc::new(Semaphore::new(DIALLING));
    let mut opening = JoinSet::new();
    for (number, host) in hosts.into_iter().enumerate() {
        let sections = sections(host.number, deckies)?;
        let (places, site, address) = (Arc::clone(&places), Arc::clone(site), address.to_owned());
        opening.spawn(async move {
            let _place = places.acquire_owned().await;
            let agent = Agent::open(&address, &site, &host, sections).await;
            agent.map_err(|cause| LoadError::Agent { number, cause })
        });
    }
    let mut agents = Vec::with_capacity(opening.len());
    while let Some(agent) = opening.join_next().await {
        agents.push(agent??);
    }
    Ok(Fleet(agents))
}

impl Fleet {
    /// The agents, in no order.
    #[must_use]
    pub fn into_agents(self) -> Vec<Agent> {
        self.0
    }

    /// Each agent reports in full, and what became of its documents.
    ///
    /// # Errors
    /// When a session breaks.
    pub async fn report(self) -> Result<Self, LoadError> {
        let reported = self.each(|mut agent, _| async move { agent.report().await.map(|()| (agent, ())) });
        Ok(reported.await?.0)
    }

    /// Each agent beats `beats` times that nothing changed. Without an interval it beats again as soon as it has the
    /// acknowledgement; with one, at its own moment in each interval. Returns how long acknowledgements took.
    ///
    /// # Errors
    /// When a session breaks.
    pub async fn beat(self, beats: u32, interval: Duration) -> Result<(Self, Vec<Duration>), LoadError> {
        let (start, all) = (
            Instant::now(),
            u32::try_from(self.0.len()).unwrap_or(u32::MAX).max(1),
        );
        let beaten = self.each(|mut agent, number| async move {
            let mut due = start + interval / all * number;
            let mut waits = Vec::with_capacity(usize::try_from(beats).unwrap_or_default());
            for _ in 0..beats {
                if !interval.is_zero() {
                    time::sleep_until(due).await;
                    due += interval;
                }
                waits.push(agent.beat().await?);
            }
            Ok((agent, waits))
        });
        let (fleet, waits) = beaten.await?;
        Ok((fleet, waits.into_iter().flatten().collect()))
    }

    async fn each<T, F>(self, act: impl Fn(Agent, u32) -> F) -> Result<(Self, Vec<T>), LoadError>
    where
        T: Send + 'static,
        F: Future<Output = Result<(Agent, T), AgentError>> + Send + 'static,
    {
        let mut acting = JoinSet::new();
        for (agent, number) in self.0.into_iter().zip(0_u32..) {
            let act = act(agent, number);
            acting.spawn(async move {
                let number = usize::try_from(number).unwrap_or(usize::MAX);
                act.await.map_err(|cause| LoadError::Agent { number, cause })
            });
        }
        let (mut agents, mut found) = (Vec::with_capacity(acting.len()), Vec::with_capacity(acting.len()));
        while let Some(done) = acting.join_next().await {
            let (agent, what) = done??;
            agents.push(agent);
            found.push(what);
        }
        Ok((Self(agents), found))
    }
}
