//! The guard of the session's path: a step that may cut it is undone when no session is back in time, and is not taken
//! again for the same wishes.
//!
//! What it knows is on disk before a step is taken, so that a restart in between forgets nothing; `picket-agent rejoin`
//! reads it there. A kill is none of its business.

use std::{collections::BTreeSet, io, path::Path, path::PathBuf, sync::Arc, time::Duration};

use picket_clock::Instant;
use picket_durable::FileError;
use picket_proto::{
    beat::Digest,
    stay::{Join, Stay},
};
use picket_zerotier::NetworkId;
use serde::{Deserialize, Serialize};

/// How long a session may take to come back after a step that may have cut it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The longest file: a few networks.
const LONGEST: u64 = 1 << 20;

/// A network and how the node is, or was, on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) network: NetworkId,
    pub(crate) settings: Join,
}

/// What is remembered across restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// The network that carried the session last, as it was joined then.
    pub(crate) carrier: Option<Held>,
    /// How it was before a step whose end is open.
    pub(crate) open: Option<Open>,
    /// What cut the session and was undone.
    pub(crate) failed: Option<Failed>,
}

/// A step whose end is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) before: Held,
    /// For which wishes it was taken.
    asked: Digest,
}

/// Networks on which steps cut the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// For which wishes.
    asked: Digest,
    networks: BTreeSet<NetworkId>,
}

impl Kept {
    /// Reads what a guard keeps at `path`; without a file nothing is remembered.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        match picket_durable::read_private(path, LONGEST) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| FileError::Read {
                path: path.to_owned(),
                cause: io::Error::new(io::ErrorKind::InvalidData, error),
            }),
            Err(FileError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Replaces what a guard keeps at `path`. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), FileError> {
        let bytes = serde_json::to_vec(self).expect("texts and truths always become JSON");
        picket_durable::write_private(path, &bytes)
    }
}

/// What is to become of a step whose end is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A session has been heard since: it stands.
    Stands,
    /// None so far.
    Wait,
    /// None came back.
    Undo,
}

/// Judges a step that was taken at `since`, when the master last answered what was said at `said`.
pub(crate) fn judge(since: Instant, said: Option<Instant>, now: Instant) -> Verdict {
    if said > Some(since) {
        Verdict::Stands
    } else if now.saturating_duration_since(since) < PATIENCE {
        Verdict::Wait
    } else {
        Verdict::Undo
    }
}

/// What a document wishes of networks; another one may be worth another try. Whom to witness and which moons to orbit
/// changes nothing about what cuts the session.
pub(crate) fn asked(stay: &Stay) -> Digest {
    let networks: Vec<_> = stay.networks.iter().collect();
    Digest::of(&serde_json::to_vec(&networks).expect("texts and truths always become JSON"))
}

/// The guard.
#[derive(Debug)]
pub(crate) struct Guard {
    path: Arc<PathBuf>,
    kept: Kept,
    /// From when on this process waits for a session.
    since: Option<Instant>,
}

impl Guard {
    /// Reads what is remembered at `path`. A step that was taken by a process before this one has its whole time again.
    ///
    /// # Errors
    /// When the file is there and cannot be read: going on could leave this host cut off.
    pub(crate) fn open(path: PathBuf, now: Instant) -> Result<Self, FileError> {
        let kept = Kept::read(&path)?;
        Ok(Self {
            since: kept.open.map(|_| now),
            path: Arc::new(path),
            kept,
        })
    }

    /// The network that carried the session last.
    pub(crate) fn carrier(&self) -> Option<NetworkId> {
        self.kept.carrier.map(|held| held.network)
    }

    /// The step whose end is open: how the network was before, and from when on a session is waited for.
    pub(crate) fn open_step(&self) -> Option<(Held, Instant)> {
        Some((self.kept.open?.before, self.since?))
    }

    /// The networks on which a step for these wishes cut the session.
    pub(crate) fn failed(&self, asked: Digest) -> BTreeSet<NetworkId> {
        let failed = self.kept.failed.as_ref().filter(|failed| failed.asked == asked);
        failed.map(|failed| failed.networks.clone()).unwrap_or_default()
    }

    /// Remembers what carries the session; nothing is written when that is known.
    pub(crate) async fn carries(&mut self, held: Option<Held>) -> Result<(), FileError> {
        if self.kept.carrier == held {
            return Ok(());
        }
        self.keep(Kept {
            carrier: held,
            ..self.kept.clone()
        })
        .await
    }

    /// Remembers how a network was, before a step that may cut the session.
    pub(crate) async fn begin(&mut self, before: Held, asked: Digest, now: Instant) -> Result<(), FileError> {
        let failed = self.kept.failed.clone().filter(|failed| failed.asked == asked);
        let open = Some(Open { before, asked });
        self.keep(Kept {
            carrier: Some(before),
            open,
            failed,
        })
        .await?;
        self.since = Some(now);
        Ok(())
    }

    /// The step has been taken; only what is said from here on tells that it cut nothing.
    pub(crate) fn taken(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// The step stands, or was none.
    pub(crate) async fn close(&mut self) -> Result<(), FileError> {
        if self.kept.open.is_none() {
            return Ok(());
        }
        self.keep(Kept {
            open: None,
            ..self.kept.clone()
        })
        .await?;
        self.since = None;
        Ok(())
    }

    /// The step has been undone, and is not to be taken again for the same wishes.
    pub(crate) async fn undone(&mut self) -> Result<(), FileError> {
        let Some(Open { before, asked }) = self.kept.open else {
            return Ok(());
        };
        let mut networks = self.failed(asked);
        networks.insert(before.network);
        self.keep(Kept {
            open: None,
            failed: Some(Failed { asked, networks }),
            ..self.kept.clone()
        })
        .await?;
        self.since = None;
        Ok(())
    }

    async fn keep(&mut self, kept: Kept) -> Result<(), FileError> {
        let (path, to_write) = (self.path.clone(), kept.clone());
        tokio::task::spawn_blocking(move || to_write.write(&path))
            .await
            .expect("writing a file does not panic")?;
        self.kept = kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use picket_proto::stay::Witnessed;

    use super::*;

    fn held() -> Held {
        Held {
            network: "5350d87547c880cb".parse().unwrap(),
            settings: Join {
                dns: true,
                ..Join::default()
            },
        }
    }

    #[test]
    fn a_step_stands_once_the_master_answers_what_was_said_after_it_and_is_undone_after_a_minute_without() {
        let since = Instant::now();
        let later = |seconds| since + Duration::from_secs(seconds);
        assert_eq!(judge(since, None, later(59)), Verdict::Wait);
        assert_eq!(judge(since, Some(since), later(60)), Verdict::Undo, "said before");
        assert_eq!(judge(since, Some(later(1)), later(600)), Verdict::Stands);
    }

    #[test]
    fn wishes_are_the_same_whoever_is_to_be_witnessed_and_others_when_a_network_is() {
        let one: NetworkId = "5350d87547c880cb".parse().unwrap();
        let plain = Stay::on([one]);
        let witnessed = Witnessed {
            network: one,
            node: "39966434ba".parse().unwrap(),
            address: "10.147.20.5".parse().unwrap(),
            killed: false,
        };
        let more = Stay {
            witnessed: [witnessed].into(),
            ..plain.clone()
        };
        assert_eq!(asked(&plain), asked(&more));
        assert_ne!(asked(&plain), asked(&Stay::default()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_was_open_at_a_restart_is_open_after_it_and_has_its_time_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("guard.json");
        let asked = asked(&Stay::default());
        let mut guard = Guard::open(path.clone(), Instant::now()).unwrap();
        assert_eq!(guard.open_step(), None);
        guard.begin(held(), asked, Instant::now()).await.unwrap();
        drop(guard);
        tokio::time::advance(PATIENCE * 2).await;
        let now = Instant::now();
        let mut guard = Guard::open(path.clone(), now).unwrap();
        assert_eq!(guard.open_step(), Some((held(), now)));
        assert!(guard.failed(asked).is_empty());
        guard.undone().await.unwrap();
        drop(guard);
        let guard = Guard::open(path, now).unwrap();
        assert_eq!(guard.open_step(), None);
        assert_eq!(guard.failed(asked), [held().network].into());
        assert!(guard.failed(super::asked(&Stay::on([held().network]))).is_empty());
        assert_eq!(guard.carrier(), Some(held().network), "what rejoin goes by");
    }
}
