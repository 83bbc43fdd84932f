//! The session: connects, speaks, and comes back, for as long as the agent runs.
//!
//! In: the identity, the observed sections, the reports of the reconcilers. Out: beats and outcomes to the master;
//! documents to [`Desired`]; what the connection is like to the status file.

mod looking;
mod renew;
mod skew;
mod streams;
mod talk;
mod transfer;
mod turn;

use std::{sync::Arc, time::Duration};

use picket_backoff::Backoff;
use picket_clock::Instant;
use picket_pki::Refusal;
use picket_proto::{
    plain,
    session::{Leave, LeaveReason},
};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

pub(crate) use looking::Looks;
pub(crate) use streams::{Streams, hello};

use crate::{
    desired::{Desired, Parting, Reports},
    identity::{Identity, IdentityError, IdentityStore},
    machine::Machine,
    master::{MasterError, Reach},
    master_time::MasterTime,
    node::LocalNode,
    observed::Observed,
    path::Path,
    sentence,
    status::{Connection, State},
    version::VersionError,
};

/// The waits between attempts, under full jitter.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_secs(20);
/// After a refusal that only an operator can lift.
const REFUSED_WAIT: Duration = Duration::from_secs(60);
/// While another machine has this identity's place, when the master does not say how long.
const QUARANTINED_WAIT: Duration = Duration::from_secs(300);
/// The longest a master can have an agent wait, whatever it says: no word of it is for ever.
const MOST_SAID_WAIT: Duration = Duration::from_secs(3600);
/// After a ban, which may be lifted.
const BANNED_WAIT: Duration = Duration::from_secs(300);
/// A session that lasted this long was a success.
const LASTED: Duration = Duration::from_secs(30);
/// How long a retired host may take to clean up before it says that it is late; the master allows 60 s.
const CLEAN_UP: Duration = Duration::from_secs(45);

/// The longest account of why there is no session.
const MOST_PROBLEM: usize = 2048;

/// Everything a session needs.
pub(crate) struct Session {
    pub(crate) reach: Reach,
    pub(crate) identities: IdentityStore,
    pub(crate) node: LocalNode,
    pub(crate) machine: Arc<Machine>,
    pub(crate) observed: Observed,
    pub(crate) time: MasterTime,
    pub(crate) desired: Arc<Desired>,
    pub(crate) reports: watch::Receiver<Reports>,
    pub(crate) connection: watch::Sender<Connection>,
    /// Told where a session goes out and when the master answers.
    pub(crate) path: Path,
    /// Who looks when the master asks.
    pub(crate) looks: Looks,
    /// When this process last renewed, in boot time.
    pub(crate) renewed: Option<Duration>,
    /// Which of the identities was used last.
    pub(crate) which: Which,
    pub(crate) stop: CancellationToken,
}

/// Which of the identities there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Signed, and not seen used.
    Next,
    /// The one to work under.
    Current,
    /// The one before: the master was restored from before the renewal.
    Previous,
}

/// How a session ended, when nothing went wrong with the connection.
#[derive(Debug)]
pub(crate) enum End {
    /// The agent stops.
    Stopped,
    /// A new certificate waits to be used.
    Renewed,
    /// The local ZeroTier node can be proven, and was not in this session.
    Node,
    /// The master ended it.
    Left(Leave),
}

/// Why there are no more sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// The agent was told to stop.
    Stopped,
    /// The host is retired; nothing of it is left on the machine.
    Retired,
}

/// What comes after a session.
enum Next {
    Again(Duration),
    Farewell(Farewell),
}

impl Session {
    /// Runs until `stop`, or until the host is retired.
    ///
    /// # Errors
    /// When the identity cannot be read or kept.
    pub(crate) async fn run(mut self) -> Result<Farewell, IdentityError> {
        let store = self.identities.clone();
        if blocking(move || Ok(store.is_retired())).await? {
            self.lost(
                State::Retired,
                "this host is retired; goes on removing its networks, deckies and keys".to_owned(),
            );
            return self.retire().await;
        }
        let mut backoff = Backoff::new(FIRST_WAIT, MOST_WAIT);
        loop {
            let began = self.reach.clock.monotonic();
            let result = self.once().await;
            self.path.closed();
            if matches!(result, Ok(End::Renewed)) {
                self.renewed = Some(self.reach.clock.boot());
            }
            if self.reach.clock.monotonic().duration_since(began) >= LASTED {
                backoff.reset();
            }
            let wait = match self.next(result, &mut backoff).await? {
                Next::Again(wait) => wait,
                Next::Farewell(farewell) => return Ok(farewell),
            };
            tokio::select! {
                () = time::sleep(wait) => {}
                () = self.stop.cancelled() => return Ok(Farewell::Stopped),
            }
        }
    }

    /// Connects under the identity that works, and speaks until the session ends.
    async fn once(&mut self) -> Result<End, MasterError> {
        let opening = async {
            let (identity, connected, which) = self.connect().await?;
            let (channel, store) = (connected.channel.clone(), self.identities.clone());
            if self.has_ended(&identity) {
                tracing::warn!(not_after = %identity.not_after, "the certificate has ended; renews it before anything else");
                match renew::renew(channel.clone(), store.clone(), identity.clone()).await {
                    Ok(()) => return Ok(None),
                    // By a clock that is days ahead it only seems so, and the master may take it all the same.
                    Err(error) => {
                        tracing::warn!(error = %sentence(&error), "could not renew it; tries a session")
                    }
                }
            }
            match talk::Talk::open(self, &identity, &connected).await {
                Ok(talk) => Ok::<_, MasterError>(Some((identity, connected, which, talk))),
                Err(error) if self.may_be_ended(&error) => {
                    tracing::warn!(error = %sentence(&error), "asks for a new certificate instead");
                    renew::renew(channel, store, identity).await?;
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        let opened = tokio::select! {
            opened = opening => opened?,
            () = self.stop.cancelled() => return Ok(End::Stopped),
        };
        let Some((identity, connected, which, talk)) = opened else {
            return Ok(End::Renewed);
        };
        self.which = which;
        match self.promote(&identity).await {
            Ok(false) => {}
            Ok(true) => tracing::info!(not_after = %identity.not_after, "the new certificate is in use"),
            // The session is good. The next one tries this identity first again.
            Err(error) => {
                tracing::error!(error = %sentence(&error), "the certificate in use could not be filed as the current one");
            }
        }
        talk.run(self, &identity, connected).await
    }

    /// Tries the identities in the order in which they may be good. The one before is for a master that does not know
    /// the present one: it was restored from before the renewal.
    async fn connect(&self) -> Result<(Identity, picket_link::Connected, Which), MasterError> {
        let store = self.identities.clone();
        let found = blocking(move || store.load()).await?;
        let mut next_refused = false;
        if let Some(next) = found.next {
            match self.reach.connect(&next).await {
                Ok(connected) => return Ok((next, connected, Which::Next)),
                Err(error) if error.refusal().is_some() && found.current.is_some() => {
                    tracing::warn!(error = %sentence(&error), "the master does not take the new certificate; tries the present one");
                    next_refused = true;
                }
                Err(error) => return Err(error),
            }
        }
        let current = found.current.ok_or(IdentityError::NotEnrolled)?;
        let error = match self.reach.connect(&current).await {
            Ok(connected) => {
                // Forgotten only now: as long as the master takes neither, either may be the one that it takes again.
                if next_refused {
                    let store = self.identities.clone();
                    blocking(move || store.drop_next()).await?;
                }
                return Ok((current, connected, Which::Current));
            }
            Err(error) => error,
        };
        let lost = matches!(error.refusal(), Some(Refusal::Unknown | Refusal::OtherAuthority));
        match found.previous {
            Some(previous) if lost => match self.reach.connect(&previous).await {
                Ok(connected) => Ok((previous, connected, Which::Previous)),
                Err(_) => Err(error),
            },
            Some(_) | None => Err(error),
        }
    }

    /// Makes the identity the current one when it was the next one; tells whether it was.
    async fn promote(&self, identity: &Identity) -> Result<bool, IdentityError> {
        let (store, key) = (self.identities.clone(), identity.key.public().clone());
        blocking(move || {
            let is_next = store.load()?.next.is_some_and(|next| next.key.public() == &key);
            if is_next {
                store.promote()?;
            }
            Ok(is_next)
        })
        .await
    }

    /// Judges how a session ended, and says so once.
    async fn next(
        &self,
        result: Result<End, MasterError>,
        backoff: &mut Backoff,
    ) -> Result<Next, IdentityError> {
        let error = match result {
            Ok(End::Stopped) => return Ok(Next::Farewell(Farewell::Stopped)),
            // The master sees the new certificate at the next connection; there is nothing to wait for.
            Ok(End::Renewed) => return Ok(Next::Again(Duration::ZERO)),
            Ok(End::Node) => return Ok(Next::Again(jittered(FIRST_WAIT))),
            Ok(End::Left(leave)) => return self.left(leave, backoff).await,
            Err(MasterError::Left(leave)) => return self.left(*leave, backoff).await,
            Err(MasterError::Identity(error @ IdentityError::NotEnrolled)) => return Err(error),
            Err(error) => error,
        };
        let refusal = error.refusal();
        self.lost(
            if refusal.is_some() {
                State::Refused
            } else {
                State::Disconnected
            },
            sentence(&error),
        );
        let patient = matches!(
            error,
            MasterError::Version(
                VersionError::AgentTooOld { .. }
                    | VersionError::MasterTooOld { .. }
                    | VersionError::Unreadable(_)
            )
        );
        Ok(Next::Again(match refusal {
            Some(Refusal::Revoked) => {
                // Only our master could have said so: it had proven its key before it refused ours.
                self.give_up(Parting::ForNow).await;
                jittered(BANNED_WAIT)
            }
            Some(
                Refusal::NoCertificate
                | Refusal::OtherAuthority
                | Refusal::WrongRole
                | Refusal::WrongTrustDomain
                | Refusal::Spent
                | Refusal::Unknown
                | Refusal::Expired
                | Refusal::NotYetValid,
            ) => jittered(REFUSED_WAIT),
            None if patient => jittered(REFUSED_WAIT),
            Some(Refusal::Protocol) | None => backoff.next_wait(),
        }))
    }

    async fn left(&self, leave: Leave, backoff: &mut Backoff) -> Result<Next, IdentityError> {
        let said = if leave.message.is_empty() {
            String::new()
        } else {
            format!(": {}", leave.message)
        };
        match leave.reason {
            LeaveReason::MasterStops => {
                self.lost(State::Disconnected, format!("the master stops or restarts{said}"));
                backoff.reset();
            }
            LeaveReason::Banned => {
                self.lost(
                    State::Banned,
                    format!(
                        "{}; an operator can run `picketctl host unban NAME`",
                        if leave.message.is_empty() {
                            "this host is banned"
                        } else {
                            &leave.message
                        }
                    ),
                );
                self.give_up(Parting::ForNow).await;
            }
            LeaveReason::Retired => {
                self.lost(
                    State::Retired,
                    format!("this host is retired{said}; removes its networks, deckies and keys"),
                );
                return Ok(Next::Farewell(self.retire().await?));
            }
            LeaveReason::Replaced => {
                self.lost(
                    State::Refused,
                    format!("another agent has this host's identity and took over{said}; stop one of the two, or enroll one of them under a name of its own"),
                );
            }
            LeaveReason::Quarantined => {
                self.lost(
                    State::Refused,
                    format!("another machine has this host's identity and its place at the master{said}; goes on with what it was told last. Stop one of the two, or enroll this machine under a name of its own"),
                );
            }
            LeaveReason::Protocol => {
                self.lost(
                    State::Disconnected,
                    format!("the master ended the session over what it was sent{said}"),
                );
            }
        }
        Ok(Next::Again(stays_away(&leave, backoff)))
    }

    /// Notes that there is no session, and logs why when that is news.
    fn lost(&self, state: State, problem: String) {
        // Some of it may be a master's words.
        let problem = plain(&problem, MOST_PROBLEM);
        let now = self.reach.clock.now();
        self.connection.send_if_modified(|connection| {
            if connection.state == state && connection.problem.as_deref() == Some(&problem) {
                return false;
            }
            match state {
                State::Refused | State::Banned | State::Retired => tracing::error!(problem, "no session"),
                State::Connecting | State::Connected | State::Disconnected => {
                    tracing::warn!(problem, "no session")
                }
            }
            *connection = Connection {
                state,
                since: if connection.state == state {
                    connection.since
                } else {
                    now
                },
                problem: Some(problem),
                ..connection.clone()
            };
            true
        });
    }

    /// Wants nothing more of this machine until the master says otherwise.
    async fn give_up(&self, parting: Parting) {
        // Done already: a refusal that is repeated must not write to the disk each time.
        if self.desired.is_cleared(parting) {
            return;
        }
        let desired = self.desired.clone();
        let cleared = tokio::task::spawn_blocking(move || desired.clear(parting)).await;
        if let Ok(Err(error)) = cleared {
            tracing::error!(error = %sentence(&error), "the ban is in force and may be forgotten at a restart");
        }
    }

    /// Cleans up, and forgets who this machine was when nothing of it is left. A stop in between forgets nothing: the
    /// next start goes on.
    async fn retire(&self) -> Result<Farewell, IdentityError> {
        let identities = self.identities.clone();
        if let Err(error) = blocking(move || identities.mark_retired()).await {
            tracing::error!(error = %sentence(&error), "a restart before the end would have to be told again that this host is retired");
        }
        self.give_up(Parting::ForEver).await;
        let mut reports = self.reports.clone();
        let mut late = false;
        let deadline = Instant::now() + CLEAN_UP;
        while !self.desired.is_done(&reports.borrow_and_update()) {
            tokio::select! {
                seen = reports.changed() => if seen.is_err() { return Ok(Farewell::Stopped) },
                () = time::sleep_until(deadline), if !late => {
                    late = true;
                    tracing::error!("not everything could be removed in time; goes on trying, and keeps the keys until then");
                }
                () = self.stop.cancelled() => return Ok(Farewell::Stopped),
            }
        }
        let (desired, identities) = (self.desired.clone(), self.identities.clone());
        blocking(move || {
            if let Err(error) = desired.remove() {
                tracing::error!(%error, "could not remove the kept documents");
            }
            identities.clear()
        })
        .await?;
        Ok(Farewell::Retired)
    }
}

/// How long to stay away after a master's last word.
fn stays_away(leave: &Leave, backoff: &mut Backoff) -> Duration {
    let said = leave.retry_after.map(|wait| wait.min(MOST_SAID_WAIT));
    match leave.reason {
        LeaveReason::MasterStops | LeaveReason::Protocol => said.unwrap_or_default() + backoff.next_wait(),
        LeaveReason::Banned => jittered(said.unwrap_or(BANNED_WAIT).max(BANNED_WAIT)),
        LeaveReason::Quarantined => jittered(said.unwrap_or(QUARANTINED_WAIT).max(REFUSED_WAIT)),
        LeaveReason::Replaced | LeaveReason::Retired => jittered(REFUSED_WAIT),
    }
}

/// `wait`, a tenth more or less.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Runs disk work beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IdentityError> + Send + 'static,
) -> Result<T, IdentityError> {
    tokio::task::spawn_blocking(work)
        .await
        .expect("reading and writing files does not panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_last_word_of_a_master_keeps_an_agent_away_for_much_longer_than_an_hour() {
        let mut backoff = Backoff::new(FIRST_WAIT, MOST_WAIT);
        for reason in [
            LeaveReason::MasterStops,
            LeaveReason::Banned,
            LeaveReason::Retired,
            LeaveReason::Replaced,
            LeaveReason::Quarantined,
            LeaveReason::Protocol,
        ] {
            let mut after = |retry_after| {
                let leave = Leave {
                    reason,
                    message: String::new(),
                    retry_after,
                };
                stays_away(&leave, &mut backoff)
            };
            let hour = Duration::from_secs(3600);
            assert!(after(Some(Duration::MAX)) <= hour + hour / 10, "{reason:?}");
            assert!(after(None) <= Duration::from_secs(330), "{reason:?}");
        }
    }
}
