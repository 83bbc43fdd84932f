//! Moons: what a root's host signed is taken over when it is what was asked for, and of the node that the host proved.
//!
//! A host that somebody broke into can spoil its own moon and no other: a definition names one root, the host's own node
//! under the identity that it proved, with the endpoints that an operator gave.

use std::{collections::HashMap, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use jiff::{SignedDuration, Timestamp};
use picket_proto::{beat::Digest, host::HostId, stay::endpoint_text};
use picket_zerotier::{
    identity::PublicIdentity,
    ids::NodeId,
    world::{World, WorldError, WorldId},
};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    desk::{Actor, Desk},
    event::Severity,
    node::NodeStanding,
    record::{HostRecord, HostStanding, Record as _, key, network::MoonRecord},
    store::{CommitError, Guard},
};

/// Looks follow each other no faster.
const PAUSE: Duration = Duration::from_millis(200);
/// A definition may be dated this far ahead, by a host whose clock is wrong. One from years ahead could never be replaced.
const MOST_AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// Why a definition is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoonError {
    /// It is no definition.
    #[error("what it signed is no moon")]
    World(#[from] WorldError),
    /// It is of another moon.
    #[error("it signed another world than the moon of node {0}")]
    Other(NodeId),
    /// There are other roots.
    #[error("its moon has {0} roots, and is to have its own node alone")]
    Roots(usize),
    /// The root is somebody else.
    #[error("the root of its moon is not the identity that its node proved")]
    Identity,
    /// The endpoints are others.
    #[error("its moon says {found}, and is to say {want}")]
    Endpoints {
        /// Of the definition.
        found: String,
        /// Of the record.
        want: String,
    },
    /// It would have others sign what replaces it.
    #[error(
        "its moon names another key than before; was the machine made anew? remove the moon and make it again"
    )]
    Key,
    /// It is from the future.
    #[error("its moon is dated {0:.0}, which is ahead; set the clock of the host")]
    Ahead(Timestamp),
}

/// Decides on what a host signed: the definition to keep, or none when that is the one that is kept.
///
/// # Errors
/// When it is not what was asked for.
pub fn accept(
    moon: &MoonRecord,
    identity: &PublicIdentity,
    signed: &[u8],
    now: Timestamp,
) -> Result<Option<String>, MoonError> {
    let text = HEXLOWER.encode(signed);
    if text == moon.definition {
        return Ok(None);
    }
    let world = World::parse(signed)?;
    if world.id() != WorldId::Moon(moon.node) {
        return Err(MoonError::Other(moon.node));
    }
    let [root] = world.roots() else {
        return Err(MoonError::Roots(world.roots().len()));
    };
    if root.identity != *identity || identity.node() != moon.node {
        return Err(MoonError::Identity);
    }
    let texts = |endpoints: &mut dyn Iterator<Item = &std::net::SocketAddr>| {
        endpoints.map(endpoint_text).collect::<Vec<_>>().join(", ")
    };
    if !root.endpoints.iter().eq(moon.endpoints.iter()) {
        return Err(MoonError::Endpoints {
            found: texts(&mut root.endpoints.iter()),
            want: texts(&mut moon.endpoints.iter()),
        });
    }
    let dated = i64::try_from(world.timestamp())
        .ok()
        .and_then(|at| Timestamp::from_millisecond(at).ok());
    let dated = dated.unwrap_or(Timestamp::MAX);
    if dated.duration_since(now) > MOST_AHEAD {
        return Err(MoonError::Ahead(dated));
    }
    let kept = HEXLOWER.decode(moon.definition.as_bytes()).unwrap_or_default();
    if kept.is_empty() {
        world.check()?;
        return Ok(Some(text));
    }
    let kept = World::parse(&kept)?;
    if kept.updates() != world.updates() {
        return Err(MoonError::Key);
    }
    world.check_update(&kept)?;
    Ok(Some(text))
}

/// Whether what is kept of a moon is what was asked for last.
#[must_use]
pub fn is_signed(moon: &MoonRecord) -> bool {
    let kept = HEXLOWER.decode(moon.definition.as_bytes()).unwrap_or_default();
    let world = World::parse(&kept).ok();
    let root = world.as_ref().and_then(|world| world.roots().first());
    root.is_some_and(|root| root.endpoints.iter().eq(moon.endpoints.iter()))
}

/// The identity that a host proved to have, when its node is the moon's.
#[must_use]
pub fn root_of<'a>(moon: &MoonRecord, host: Option<&'a HostRecord>) -> Option<&'a PublicIdentity> {
    let host = host.filter(|host| host.standing == HostStanding::Active && host.node == Some(moon.node))?;
    host.node_identity
        .as_ref()
        .filter(|_| host.node_standing == NodeStanding::Proven)
}

/// What its root's host signed last and is refused, and why; none when all is well or nothing was signed.
#[must_use]
pub fn refusal(desk: &Desk, moon: &MoonRecord) -> Option<MoonError> {
    let signed = desk.observed.get(moon.host)?.zerotier()?.own_moon;
    if signed.is_empty() {
        return None;
    }
    let views = desk.views.read();
    let host = views.roster.host(moon.host).map(|host| &host.record);
    accept(moon, root_of(moon, host)?, &signed, desk.now()).err()
}

/// Takes over what roots sign, until `stop`.
pub(crate) async fn follow(desk: Arc<Desk>, stop: CancellationToken) {
    let mut news = desk.news.subscribe();
    let mut refused = HashMap::new();
    loop {
        let standing: Vec<_> = {
            let views = desk.views.read();
            let moons = views.networks.moons();
            let standing = moons.filter(|moon| moon.record.removed.is_none());
            standing
                .map(|moon| (moon.record.clone(), moon.revision))
                .collect()
        };
        refused.retain(|node, _| standing.iter().any(|(moon, _)| moon.node == *node));
        for (moon, revision) in standing {
            let signed = desk.observed.get(moon.host).and_then(|seen| seen.zerotier());
            let signed = signed.map(|status| status.own_moon).unwrap_or_default();
            if signed.is_empty() {
                continue;
            }
            let accepted = {
                let views = desk.views.read();
                let host = views.roster.host(moon.host).map(|host| &host.record);
                let Some(identity) = root_of(&moon, host) else {
                    continue;
                };
                accept(&moon, identity, &signed, desk.now())
            };
            match accepted {
                Ok(None) => {}
                Ok(Some(definition)) => take(&desk, moon, revision, definition).await,
                Err(error) => {
                    let what = (Digest::of(&signed), error.to_string());
                    if refused.insert(moon.node, what.clone()) != Some(what) {
                        complain(&desk, moon.host, &error);
                    }
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = time::sleep(PAUSE) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            seen = news.changed() => if seen.is_err() { return },
        }
    }
}

async fn take(desk: &Desk, moon: MoonRecord, revision: crate::store::Revision, definition: String) {
    let host = moon.host;
    let record = MoonRecord {
        definition,
        signed_at: Some(desk.now()),
        ..moon
    };
    let actor = Actor {
        who: format!("host/{host}"),
        from: "session".to_owned(),
    };
    let guards = vec![Guard::At(key::moon(record.node), revision)];
    let audit = actor.does("moon.sign", format_args!("{:016x}", record.node.to_u64()), "");
    match desk.commit(guards, vec![record.put()], audit).await {
        Ok(_) => {
            let message = format!(
                "the moon of node {} is signed by its root; the others orbit it from here on",
                record.node
            );
            desk.say(Severity::Notice, "moon.signed", &desk.name_of(host), &message);
        }
        // An operator changed it meanwhile; looked at again.
        Err(CommitError::Conflict { .. }) => {}
        Err(error) => {
            tracing::warn!(%error, %host, "a moon that was signed could not be kept; tried when its host says something again");
        }
    }
}

fn complain(desk: &Desk, host: HostId, error: &MoonError) {
    let seen = desk.observed.of(host);
    if seen.may_tell(desk.clock.monotonic()) {
        let message = format!("not taken over: {}", crate::status::chain(error));
        desk.say(Severity::Warning, "moon.refused", &desk.name_of(host), &message);
    }
}

#[cfg(test)]
#[path = "moon_tests.rs"]
mod tests;
