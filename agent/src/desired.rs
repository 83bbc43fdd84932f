//! Desired documents on the agent's side: kept on disk before anybody acts on them, handed on by `watch`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use data_encoding::BASE64;
use picket_durable::FileError;
use picket_proto::{
    WireError,
    beat::{Digest, MOST_DOCUMENT_BYTES},
    document::{Contents, Document, Kind, Outcome, OutcomeStatus, Problem, Stamp},
    rules::Members,
    shard::Shard,
    stay::Stay,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The longest document file: a body in base64, and its number.
const LONGEST: u64 = 2 * MOST_DOCUMENT_BYTES as u64;

/// What a reconciler is to make true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The document's number; none for what the agent wants by itself after a ban.
    pub(crate) stamp: Option<Stamp>,
    /// Tells one value from the next.
    pub(crate) ticket: u64,
    pub(crate) contents: Contents,
    /// Entries of the document that made no sense.
    pub(crate) skipped: Vec<Problem>,
}

impl Wanted {
    /// Whether it is what the agent wants by itself after a ban or a retirement: nothing.
    pub(crate) fn is_own(&self) -> bool {
        self.stamp.is_none() && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        match &self.contents {
            Contents::Networks(networks) => networks.is_empty(),
            Contents::Members(rules) => rules.is_empty(),
            Contents::Shard(shard) => shard == &Shard::default(),
        }
    }
}

/// How a reconciler fared with what it was last handed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) stamp: Option<Stamp>,
    pub(crate) ticket: u64,
    pub(crate) status: OutcomeStatus,
    pub(crate) problems: Vec<Problem>,
}

/// Reports by document, for the session and the status file.
pub(crate) type Reports = BTreeMap<Kind, Report>;

impl Report {
    /// The report as the master gets it; none for what no master asked for.
    pub(crate) fn outcome(&self, kind: Kind) -> Option<Outcome> {
        Some(Outcome {
            kind,
            stamp: self.stamp?,
            status: self.status,
            problems: self.problems.clone(),
        })
    }
}

/// Why a document is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    /// The body is not what was announced.
    #[error("the {0} document that came is not the one that was announced")]
    OtherBody(Kind),
    /// The document holds changes to something that is not here.
    #[error("the changes to {0} do not follow what is held here; asks for the whole document")]
    Gap(Kind),
    /// The body is no document.
    #[error("the {0} document makes no sense")]
    Nonsense(Kind, #[source] WireError),
    /// It cannot be kept.
    #[error("keep the {0} document")]
    Keep(Kind, #[source] FileError),
}

/// The documents of this host.
#[derive(Debug)]
pub(crate) struct Desired {
    directory: PathBuf,
    writer: Mutex<()>,
    ticket: AtomicU64,
    wanted: BTreeMap<Kind, watch::Sender<Option<Arc<Wanted>>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    stamp: Option<Stamp>,
    digest: Digest,
    body: String,
}

/// For how long a host goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It is banned, and may be let in again.
    ForNow,
    /// It is retired, or another host from now on.
    ForEver,
}

impl Desired {
    /// Reads what was kept. A file that is damaged is left out, so that the master sends the document again.
    ///
    /// # Errors
    /// When the directory cannot be made or is open to others.
    pub(crate) fn open(directory: PathBuf) -> Result<(Self, Vec<Problem>), FileError> {
        picket_durable::create_private_dir(&directory)?;
        let desired = Self {
            directory,
            writer: Mutex::new(()),
            ticket: AtomicU64::new(0),
            wanted: Kind::ALL.map(|kind| (kind, watch::Sender::new(None))).into(),
        };
        let mut problems = Vec::new();
        for kind in Kind::ALL {
            match desired.read(kind) {
                Ok(Some((stamp, contents, skipped))) => desired.hand_on(stamp, contents, skipped),
                Ok(None) => {}
                Err(what) => {
                    problems.push(Problem::new(
                        kind,
                        format_args!(
                            "the document kept here is of no use ({what}); the master is asked for it again"
                        ),
                    ));
                }
            }
        }
        Ok((desired, problems))
    }

    pub(crate) fn watch(&self, kind: Kind) -> watch::Receiver<Option<Arc<Wanted>>> {
        self.wanted[&kind].subscribe()
    }

    /// What Hello says of the documents that are here.
    pub(crate) fn held(&self) -> Vec<(Kind, Stamp)> {
        let stamp = |kind: Kind| Some((kind, self.current(kind)?.stamp?));
        Kind::ALL.into_iter().filter_map(stamp).collect()
    }

    fn current(&self, kind: Kind) -> Option<Arc<Wanted>> {
        self.wanted[&kind].borrow().clone()
    }

    /// Keeps a document and hands it on. Blocks on the disk.
    ///
    /// # Errors
    /// [`AcceptError`]; what was held before stays in force.
    pub(crate) fn accept(&self, document: &Document, body: &Bytes) -> Result<(), AcceptError> {
        let kind = document.kind;
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if Digest::of(body) != document.digest || body.len() as u64 != document.size {
            return Err(AcceptError::OtherBody(kind));
        }
        let before = self.current(kind);
        let held = before.as_ref().and_then(|wanted| wanted.stamp);
        let same_lineage = held.filter(|held| held.lineage == document.stamp.lineage);
        if same_lineage.is_some_and(|held| document.stamp.generation <= held.generation) {
            return Ok(());
        }
        let (contents, skipped) =
            Contents::decode(kind, body).map_err(|error| AcceptError::Nonsense(kind, error))?;
        let contents = match (document.since, same_lineage, before) {
            (0, _, _) => contents,
            // What changed since an earlier one is all that changed since this one, and more that is known already.
            (since, Some(held), Some(before)) if since <= held.generation => {
                // Changes on changes could outgrow what can be read again; the whole document cannot.
                merged(&before.contents, contents)
                    .filter(|merged| merged.encode().len() <= MOST_DOCUMENT_BYTES)
                    .ok_or(AcceptError::Gap(kind))?
            }
            (_, _, _) => return Err(AcceptError::Gap(kind)),
        };
        let skipped = skipped
            .into_iter()
            .map(|(subject, error)| Problem::new(subject, format_args!("is skipped: {error}")))
            .collect();
        self.write(Some(document.stamp), &contents)
            .map_err(|error| AcceptError::Keep(kind, error))?;
        self.hand_on(Some(document.stamp), contents, skipped);
        Ok(())
    }

    /// Wants nothing more of this machine: no managed network and no decky. Of a host that comes back perhaps, what was
    /// said of the members of its networks stays in force, so that nobody is on for longer than that. No document is held
    /// any more. Blocks on the disk.
    ///
    /// # Errors
    /// When that cannot be kept; it is in force all the same until the next start.
    pub(crate) fn clear(&self, parting: Parting) -> Result<(), FileError> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = Ok(());
        for contents in [
            Contents::Networks(Stay::default()),
            self.parted(parting),
            Contents::Shard(Shard::default()),
        ] {
            kept = kept.and(self.write(None, &contents));
            self.hand_on(None, contents, Vec::new());
        }
        kept
    }

    /// The members of a host that goes.
    fn parted(&self, parting: Parting) -> Contents {
        match (parting, self.current(Kind::Members)) {
            (Parting::ForNow, Some(wanted)) => wanted.contents.clone(),
            (Parting::ForNow, None) | (Parting::ForEver, _) => Contents::Members(Members::default()),
        }
    }

    /// No longer claims to hold any document, across restarts: they may be another host's. What they say stays in force
    /// until the master sends its own. Blocks on the disk.
    ///
    /// # Errors
    /// When that cannot be kept.
    pub(crate) fn disown(&self) -> Result<(), FileError> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in Kind::ALL {
            self.forget_stamp(kind);
            if let Some(wanted) = self.current(kind) {
                self.write(None, &wanted.contents)?;
            }
        }
        Ok(())
    }

    /// Whether [`Self::clear`] came last.
    pub(crate) fn is_cleared(&self, parting: Parting) -> bool {
        let is_own = |kind: Kind| {
            let stays = kind == Kind::Members && parting == Parting::ForNow;
            self.current(kind)
                .is_some_and(|wanted| wanted.stamp.is_none() && (stays || wanted.is_empty()))
        };
        Kind::ALL.into_iter().all(is_own)
    }

    /// Whether all of what is wanted has been made true, by these reports.
    pub(crate) fn is_done(&self, reports: &Reports) -> bool {
        Kind::ALL.into_iter().all(|kind| {
            let Some(wanted) = self.current(kind) else {
                return true;
            };
            reports
                .get(&kind)
                .is_some_and(|report| report.ticket == wanted.ticket && report.status == OutcomeStatus::Done)
        })
    }

    /// No longer claims to hold a document, so that the next session brings it whole. What it said stays in force.
    pub(crate) fn forget_stamp(&self, kind: Kind) {
        self.wanted[&kind].send_if_modified(|wanted| {
            if let Some(now) = wanted {
                *wanted = Some(Arc::new(Wanted {
                    stamp: None,
                    ..Wanted::clone(now)
                }));
            }
            false
        });
    }

    /// Removes every document: the host is retired. Blocks on the disk.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for kind in Kind::ALL {
            match fs::remove_file(self.path(kind)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn hand_on(&self, stamp: Option<Stamp>, contents: Contents, skipped: Vec<Problem>) {
        let ticket = self.ticket.fetch_add(1, Ordering::Relaxed) + 1;
        let kind = contents.kind();
        self.wanted[&kind].send_replace(Some(Arc::new(Wanted {
            stamp,
            ticket,
            contents,
            skipped,
        })));
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.directory.join(format!("{kind}.json"))
    }

    fn write(&self, stamp: Option<Stamp>, contents: &Contents) -> Result<(), FileError> {
        let body = contents.encode();
        let stored = Stored {
            stamp,
            digest: Digest::of(&body),
            body: BASE64.encode(&body),
        };
        let bytes = serde_json::to_vec(&stored).expect("numbers and text always become JSON");
        picket_durable::write_private(self.path(contents.kind()), &bytes)
    }

    #[allow(clippy::type_complexity, reason = "read once, in `open`")]
    fn read(&self, kind: Kind) -> Result<Option<(Option<Stamp>, Contents, Vec<Problem>)>, String> {
        let bytes = match picket_durable::read_private(self.path(kind), LONGEST) {
            Ok(bytes) => bytes,
            Err(FileError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let body = BASE64
            .decode(stored.body.as_bytes())
            .map_err(|error| error.to_string())?;
        if Digest::of(&body) != stored.digest {
            return Err("its digest does not fit".to_owned());
        }
        let (contents, skipped) = Contents::decode(kind, &body).map_err(|error| error.to_string())?;
        let skipped = skipped
            .into_iter()
            .map(|(subject, error)| Problem::new(subject, error))
            .collect();
        Ok(Some((stored.stamp, contents, skipped)))
    }
}

/// `changes` on top of `before`; none when the kind does not travel as changes.
fn merged(before: &Contents, changes: Contents) -> Option<Contents> {
    match (before, changes) {
        (Contents::Members(before), Contents::Members(changes)) => {
            Some(Contents::Members(before.with(changes)))
        }
        (Contents::Networks(_) | Contents::Members(_) | Contents::Shard(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use picket_proto::{
        document::Lineage,
        rules::{Governed, Rule},
    };
    use picket_zerotier::{NetworkId, NodeId};

    use super::*;

    fn open(root: &tempfile::TempDir) -> Desired {
        Desired::open(root.path().join("desired")).unwrap().0
    }

    fn document(contents: &Contents, lineage: u8, generation: u64, since: u64) -> (Document, Bytes) {
        let body = contents.encode();
        let document = Document {
            kind: contents.kind(),
            stamp: Stamp {
                lineage: Lineage([lineage; 16]),
                generation,
            },
            since,
            digest: Digest::of(&body),
            size: body.len() as u64,
            body: None,
        };
        (document, body)
    }

    fn rules(pairs: &[(u64, bool)]) -> Contents {
        let network: NetworkId = "5350d87547c880cb".parse().unwrap();
        let rule = |(node, authorized): &(u64, bool)| {
            ((network, NodeId::new(*node).unwrap()), Rule::plain(*authorized))
        };
        let governed = (!pairs.is_empty()).then(|| (network, Governed::default()));
        Contents::Members(Members {
            networks: governed.into_iter().collect(),
            rules: pairs.iter().map(rule).collect(),
            ..Members::default()
        })
    }

    fn accept(desired: &Desired, (document, body): (Document, Bytes)) -> Result<(), AcceptError> {
        desired.accept(&document, &body)
    }

    fn contents(desired: &Desired, kind: Kind) -> Contents {
        desired.current(kind).unwrap().contents.clone()
    }

    #[test]
    fn a_document_is_on_disk_when_it_is_handed_on() {
        let root = tempfile::tempdir().unwrap();
        let wanted = Contents::Networks(Stay::on(["5350d87547c880cb".parse().unwrap()]));
        accept(&open(&root), document(&wanted, 1, 4, 0)).unwrap();
        let again = open(&root);
        assert_eq!(contents(&again, Kind::Networks), wanted);
        assert_eq!(again.held()[0].1.generation, 4);
    }

    #[test]
    fn changes_are_laid_over_no_earlier_generation_than_they_follow() {
        let root = tempfile::tempdir().unwrap();
        let desired = open(&root);
        accept(&desired, document(&rules(&[(1, true), (2, true)]), 1, 4, 0)).unwrap();
        accept(&desired, document(&rules(&[(2, false), (3, true)]), 1, 6, 4)).unwrap();
        let want = rules(&[(1, true), (2, false), (3, true)]);
        assert_eq!(contents(&desired, Kind::Members), want);
        for (lineage, generation, since) in [(1, 9, 7), (2, 9, 6)] {
            let gap = accept(
                &desired,
                document(&rules(&[(1, false)]), lineage, generation, since),
            );
            assert!(matches!(gap, Err(AcceptError::Gap(Kind::Members))));
        }
        assert_eq!(contents(&open(&root), Kind::Members), want);
    }

    #[test]
    fn changes_that_were_sent_before_the_master_heard_how_far_we_are_are_laid_over_too() {
        let root = tempfile::tempdir().unwrap();
        let desired = open(&root);
        accept(&desired, document(&rules(&[(1, true)]), 1, 9, 0)).unwrap();
        accept(&desired, document(&rules(&[(2, true)]), 1, 10, 9)).unwrap();
        accept(&desired, document(&rules(&[(2, false), (3, true)]), 1, 11, 9)).unwrap();
        assert_eq!(
            contents(&desired, Kind::Members),
            rules(&[(1, true), (2, false), (3, true)])
        );
    }

    #[test]
    fn changes_that_would_outgrow_what_can_be_read_again_are_a_gap() {
        let root = tempfile::tempdir().unwrap();
        let desired = open(&root);
        let part = |from: u64, count: u64| {
            let pairs: Vec<_> = (from..from + count).map(|node| (node, true)).collect();
            rules(&pairs)
        };
        // As many as fit, and as many again.
        let one = part(1, 1000).encode().len();
        let most = (MOST_DOCUMENT_BYTES / one) as u64 * 900;
        accept(&desired, document(&part(1, most), 1, 4, 0)).unwrap();
        let more = accept(&desired, document(&part(most + 1, most), 1, 5, 4));
        assert!(matches!(more, Err(AcceptError::Gap(Kind::Members))), "{more:?}");
        assert_eq!(
            open(&root).held()[0].1.generation,
            4,
            "what is kept can be read again"
        );
    }

    #[test]
    fn an_older_generation_changes_nothing_and_another_lineage_always_replaces() {
        let root = tempfile::tempdir().unwrap();
        let desired = open(&root);
        accept(&desired, document(&rules(&[(1, true)]), 1, 4, 0)).unwrap();
        accept(&desired, document(&rules(&[]), 1, 3, 0)).unwrap();
        assert_eq!(contents(&desired, Kind::Members), rules(&[(1, true)]));
        accept(&desired, document(&rules(&[]), 2, 1, 0)).unwrap();
        assert_eq!(contents(&desired, Kind::Members), rules(&[]));
    }

    #[test]
    fn a_body_that_was_not_announced_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (document, _) = document(&rules(&[(1, true)]), 1, 4, 0);
        let refused = open(&root).accept(&document, &rules(&[(2, true)]).encode());
        assert!(matches!(refused, Err(AcceptError::OtherBody(Kind::Members))));
    }

    #[test]
    fn after_a_ban_nothing_is_held_and_nothing_wanted_but_of_members_what_was_said_across_restarts_too() {
        let root = tempfile::tempdir().unwrap();
        let desired = open(&root);
        let wanted = Contents::Networks(Stay::on(["5350d87547c880cb".parse().unwrap()]));
        accept(&desired, document(&wanted, 1, 4, 0)).unwrap();
        accept(&desired, document(&rules(&[(1, true)]), 1, 4, 0)).unwrap();
        desired.clear(Parting::ForNow).unwrap();
        for desired in [&desired, &open(&root)] {
            assert_eq!(
                contents(desired, Kind::Networks),
                Contents::Networks(Stay::default())
            );
            assert_eq!(contents(desired, Kind::Members), rules(&[(1, true)]));
            assert!(desired.held().is_empty() && desired.is_cleared(Parting::ForNow));
        }
        assert!(!desired.is_cleared(Parting::ForEver));
        desired.clear(Parting::ForEver).unwrap();
        assert_eq!(contents(&desired, Kind::Members), rules(&[]));
        assert!(desired.is_cleared(Parting::ForEver));
    }

    #[test]
    fn a_damaged_file_is_named_and_not_claimed_to_be_held() {
        let root = tempfile::tempdir().unwrap();
        let desired = open(&root);
        accept(&desired, document(&rules(&[(1, true)]), 1, 4, 0)).unwrap();
        let path = desired.path(Kind::Members);
        let text = fs::read_to_string(&path)
            .unwrap()
            .replace("\"digest\":[", "\"digest\":[1");
        picket_durable::write_private(&path, text.as_bytes()).unwrap();
        let (desired, problems) = Desired::open(root.path().join("desired")).unwrap();
        assert!(desired.held().is_empty());
        assert_eq!(problems[0].subject, "members");
    }
}
