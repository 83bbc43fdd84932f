//! The end of a network.

use picket_zerotier::ids::NetworkId;

use super::shown::record;
use crate::{
    desk::{Actor, Desk},
    event::Severity,
    record::{
        Record as _, key,
        network::{NetworkMode, NetworkRecord},
    },
    refused::Refused,
    store::Guard,
};

/// What becomes of a network at its controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    /// It is deleted.
    Deleted,
    /// It stays as it is.
    Kept,
}

pub(super) async fn end(
    desk: &Desk,
    actor: &Actor,
    id: NetworkId,
    there: There,
    reason: &str,
) -> Result<(), Refused> {
    let before = record(desk, id)?;
    let whose = desk.whose(before.record.controller);
    let (mode, what, kind, message) = match there {
        There::Deleted if before.record.mode == NetworkMode::Deleting => return Ok(()),
        There::Deleted => (
            NetworkMode::Deleting,
            "network.delete",
            "network.deleting",
            format!(
                "nobody is on it any more, and {whose} is to delete it; by {}: {reason}",
                actor.name()
            ),
        ),
        There::Kept => (
            NetworkMode::Gone,
            "network.forget",
            "network.forgotten",
            format!(
                "it is watched no longer, and {whose} keeps it as it is; by {}: {reason}",
                actor.name()
            ),
        ),
    };
    let record = NetworkRecord {
        mode,
        ..before.record
    };
    let guards = vec![Guard::At(key::network(id), before.revision)];
    desk.commit(guards, vec![record.put()], actor.does(what, id, reason))
        .await?;
    desk.say(Severity::Notice, kind, &id.to_string(), &message);
    Ok(())
}
