//! What hosts said last, across a restart of the master: written every minute and on a clean stop, and nothing that
//! must not be lost.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use jiff::Timestamp;
use picket_durable::FileError;
use picket_proto::{
    beat::{Digest, Section, SectionKind},
    document::{Kind, Outcome},
    host::HostId,
};
use serde::{Deserialize, Serialize};

use crate::{
    central::Kept, desk::Desk, kill::progress::Saved, liveness::Presence, network_watch::Told,
    observed::Taken,
};

/// How often it is written.
pub const EVERY: std::time::Duration = std::time::Duration::from_secs(60);
/// The longest checkpoint that is read: 100,000 hosts with 10 deckies each have about 300 MiB.
const LONGEST: u64 = 1 << 30;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Checkpoint {
    hosts: Vec<Host>,
    /// What is kept of ZeroTier Central.
    #[serde(default)]
    central: Kept,
    /// What was proven of kills.
    #[serde(default)]
    kills: Vec<Saved>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Host {
    id: HostId,
    presence: Presence,
    seen_at: Option<Timestamp>,
    sections: Vec<(SectionKind, String)>,
    outcomes: Vec<Outcome>,
    /// What was told of its controller.
    #[serde(default)]
    told: Told,
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("checkpoint.json")
}

/// Writes what is known just now.
///
/// # Errors
/// When the file cannot be written.
pub async fn write(desk: &Desk, data_dir: &Path) -> Result<(), FileError> {
    let host = |(id, seen): (HostId, std::sync::Arc<crate::observed::Seen>)| {
        let (presence, seen_at) = desk.liveness().of(id);
        Host {
            id,
            presence,
            seen_at,
            sections: SectionKind::ALL
                .into_iter()
                .filter_map(|kind| Some((kind, BASE64.encode(&seen.body(kind)?))))
                .collect(),
            outcomes: Kind::ALL
                .into_iter()
                .filter_map(|kind| seen.tried(kind).outcome)
                .collect(),
            told: seen.told(),
        }
    };
    let checkpoint = Checkpoint {
        hosts: desk.observed.all().into_iter().map(host).collect(),
        central: desk.central.kept(),
        kills: desk.kills.save(),
    };
    let path = path(data_dir);
    let task = tokio::task::spawn_blocking(move || {
        let bytes = serde_json::to_vec(&checkpoint).expect("a checkpoint has only keys that are text");
        picket_durable::write_private(path, &bytes)
    });
    task.await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Takes up what was known before the restart. A checkpoint that is missing or makes no sense is passed over: hosts say
/// it all again.
pub fn read(desk: &Desk, data_dir: &Path) {
    let Ok(bytes) = picket_durable::read_private(path(data_dir), LONGEST) else {
        return;
    };
    let Ok(checkpoint) = serde_json::from_slice::<Checkpoint>(&bytes) else {
        tracing::warn!("the checkpoint of soft state makes no sense and is passed over; hosts report again");
        return;
    };
    desk.kills.restore(checkpoint.kills);
    let now = desk.clock.monotonic();
    desk.central.take_up(checkpoint.central);
    for host in checkpoint.hosts {
        let known = desk.views.read().roster.host(host.id).is_some();
        if !known {
            continue;
        }
        if let Some(at) = host.seen_at {
            desk.liveness().restore(host.id, host.presence, at, now);
        }
        let seen = desk.observed.of(host.id);
        for (kind, body) in host.sections {
            let Ok(body) = BASE64.decode(body.as_bytes()) else {
                continue;
            };
            let section = Section {
                digest: Digest::of(&body),
                body: Some(body.into()),
            };
            if let Taken::Nonsense(error) = seen.take(kind, section) {
                tracing::debug!(host = %host.id, %error, "a section in the checkpoint is passed over");
            }
        }
        for outcome in host.outcomes {
            seen.outcome(outcome);
        }
        seen.remember(host.told);
    }
}
