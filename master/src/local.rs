//! The way back in for an administrator on the master's own machine: `picket-master admin-bundle`.
//!
//! Whoever can read the CA's key can sign anything, so this asks for no more than that. The pin goes into the store: by
//! the running master, asked over a socket in its private data directory, or directly when no master runs.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use picket_clock::Clock;
use picket_durable::FileError;
use picket_pki::{BundleError, Fingerprint, IdentityError, OperatorName};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    ca::{self, CaRecord},
    desk::{Actor, Desk},
    record::{MasterRecord, OperatorRecord, Record as _, RecordError, key},
    refused::Refused,
    signer::{Bundled, Signer, SignerError},
    store::{Commit, CommitError, Guard, LockError, OpenError, ReadError, Store},
};

/// How many certificates an operator may have at once; the oldest gives way.
const MOST_PINS: usize = 8;
/// How every bundle begins.
const MAGIC: &[u8; 15] = b"# picket bundle";
/// The longest request.
const LONGEST: u64 = 4096;
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    operator: String,
    pin: Fingerprint,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    refused: Option<String>,
}

/// Why there is no admin bundle.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The CA cannot be used.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record in it cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The store does not take the pin.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The name is none.
    #[error("the operator's name cannot be used")]
    Name(#[from] IdentityError),
    /// The bundle cannot be written.
    #[error("the bundle cannot be made")]
    Bundle(#[from] BundleError),
    /// Nor can its file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The CA cannot sign.
    #[error("the CA cannot sign")]
    Authority(#[from] picket_pki::AuthorityError),
    /// The data directory was never set up.
    #[error("{} holds no master; run `picket-master init` first", .0.display())]
    NotInitialised(PathBuf),
    /// Something that is no bundle is where the bundle is to go.
    #[error("{} is there already and is no bundle; nothing was replaced, give another place with --out", .0.display())]
    InTheWay(PathBuf),
    /// The data directory is another user's.
    #[error("{} belongs to user {uid}, whose master could not start after this; run it as that user: `setpriv --reuid {uid} --regid {uid} --clear-groups picket-master admin-bundle ...`, or while the master runs", dir.display())]
    OtherUser {
        /// The data directory.
        dir: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// The running master cannot be asked.
    #[error("a picket-master runs on {} but does not answer at {}; restart it, or stop it and try again", dir.display(), socket.display())]
    Silent {
        /// The data directory.
        dir: PathBuf,
        /// Its socket.
        socket: PathBuf,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
    /// The running master refused.
    #[error("the running master refused: {0}")]
    Refused(String),
}

/// Where the running master is asked.
#[must_use]
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("local.sock")
}

/// Makes a bundle for an operator, pins it, and writes it to `out`.
///
/// # Errors
/// When the data directory is none, or the pin could not be kept; then no bundle is written.
pub async fn admin_bundle(
    data_dir: &Path,
    operator: &str,
    out: &Path,
    clock: &Clock,
) -> Result<Fingerprint, LocalError> {
    let name: OperatorName = operator.parse()?;
    own(data_dir)?;
    replaceable(out)?;
    let signer = Signer::load(data_dir)?;
    let opened = Store::open(data_dir, clock.clone()).await;
    let (store, record, succession) = match opened {
        Ok(store) => {
            let record = master_record(&store, data_dir)?;
            let succession = store.get(&ca::key())?.as_ref().map(CaRecord::of).transpose()?;
            (Some(store), record, succession)
        }
        Err(OpenError::Lock(LockError::Held { .. })) => {
            let record = ask_master_record(data_dir).await?;
            (None, record, Some(ask_succession(data_dir).await?))
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(succession) = succession {
        let active = succession.active().fingerprint;
        if active != signer.fingerprint() {
            signer.follow(ca::keys::load(data_dir, active)?);
        }
        let trusted = succession.trusted();
        signer.vouch_for(trusted.iter().map(|root| root.certificate.0.clone()).collect());
    }
    let Bundled { bundle, pin } = signer.operator_bundle(name, &record.admin_addresses, clock.now())?;
    let text = bundle.encode()?;
    match store {
        Some(store) => {
            let pinned = pin_directly(&store, operator, pin.fingerprint).await;
            store.close().await;
            pinned?;
        }
        None => ask_pin(data_dir, operator, pin.fingerprint).await?,
    }
    picket_durable::write_private(out, text.as_bytes())?;
    Ok(signer.fingerprint())
}

/// Refuses to write a bundle over anything but a bundle: a mistyped name could be that of the CA's key.
fn replaceable(out: &Path) -> Result<(), LocalError> {
    let mut start = [0; MAGIC.len()];
    let there =
        std::fs::File::open(out).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    match there {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) if start == *MAGIC => Ok(()),
        Ok(()) | Err(_) => Err(LocalError::InTheWay(out.to_owned())),
    }
}

/// Refuses to touch the data directory of another user: files made as root would lock its master out.
fn own(data_dir: &Path) -> Result<(), LocalError> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(about) = std::fs::metadata(data_dir) else {
        return Err(LocalError::NotInitialised(data_dir.to_owned()));
    };
    let ours = rustix::process::geteuid().as_raw();
    // Beside a running master nothing is written but the bundle.
    if about.uid() == ours
        || socket(data_dir).exists() && std::os::unix::net::UnixStream::connect(socket(data_dir)).is_ok()
    {
        return Ok(());
    }
    Err(LocalError::OtherUser {
        dir: data_dir.to_owned(),
        uid: about.uid(),
    })
}

fn master_record(store: &Store, data_dir: &Path) -> Result<MasterRecord, LocalError> {
    let entry = store
        .get(&key::master())?
        .ok_or_else(|| LocalError::NotInitialised(data_dir.to_owned()))?;
    Ok(MasterRecord::of(&entry)?)
}

async fn pin_directly(store: &Store, operator: &str, pin: Fingerprint) -> Result<(), LocalError> {
    let entry = store.get(&key::operator(operator))?;
    let record = entry.as_ref().map(OperatorRecord::of).transpose()?;
    let guard = guard(operator, entry.as_ref().map(|entry| entry.revision));
    let audit = local().does("operator.pin", operator, "picket-master admin-bundle");
    store
        .commit(Commit {
            guards: vec![guard],
            writes: vec![pinned(record, operator, pin).put()],
            audit,
        })
        .await?;
    Ok(())
}

fn guard(operator: &str, revision: Option<crate::store::Revision>) -> Guard {
    let at = key::operator(operator);
    revision.map_or(Guard::Absent(at.clone()), |revision| Guard::At(at, revision))
}

fn local() -> Actor {
    Actor {
        who: "local/root".to_owned(),
        from: "local".to_owned(),
    }
}

/// An operator's record with one more certificate.
fn pinned(record: Option<OperatorRecord>, operator: &str, pin: Fingerprint) -> OperatorRecord {
    let mut record = record.unwrap_or_else(|| OperatorRecord {
        name: operator.to_owned(),
        pins: Vec::new(),
    });
    record.pins.push(pin);
    if record.pins.len() > MOST_PINS {
        record.pins.remove(0);
    }
    record
}

async fn ask_master_record(data_dir: &Path) -> Result<MasterRecord, LocalError> {
    let line = exchange(data_dir, "record\n").await?;
    serde_json::from_str(&line)
        .map_err(|cause| silent(data_dir, io::Error::new(io::ErrorKind::InvalidData, cause)))
}

async fn ask_succession(data_dir: &Path) -> Result<CaRecord, LocalError> {
    let line = exchange(data_dir, "ca\n").await?;
    serde_json::from_str(&line)
        .map_err(|cause| silent(data_dir, io::Error::new(io::ErrorKind::InvalidData, cause)))
}

async fn ask_pin(data_dir: &Path, operator: &str, pin: Fingerprint) -> Result<(), LocalError> {
    let ask = serde_json::to_string(&Ask {
        operator: operator.to_owned(),
        pin,
    })
    .unwrap_or_default();
    let line = exchange(data_dir, &format!("{ask}\n")).await?;
    let answer: Answer = serde_json::from_str(&line)
        .map_err(|cause| silent(data_dir, io::Error::new(io::ErrorKind::InvalidData, cause)))?;
    answer
        .refused
        .map_or(Ok(()), |refused| Err(LocalError::Refused(refused)))
}

fn silent(data_dir: &Path, cause: io::Error) -> LocalError {
    LocalError::Silent {
        dir: data_dir.to_owned(),
        socket: socket(data_dir),
        cause,
    }
}

async fn exchange(data_dir: &Path, ask: &str) -> Result<String, LocalError> {
    let talk = async {
        let mut stream = UnixStream::connect(socket(data_dir)).await?;
        stream.write_all(ask.as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(stream.take(LONGEST * 16))
            .read_line(&mut line)
            .await?;
        Ok::<_, io::Error>(line)
    };
    match time::timeout(DEADLINE, talk).await {
        Ok(talked) => talked.map_err(|cause| silent(data_dir, cause)),
        Err(elapsed) => Err(silent(data_dir, elapsed.into())),
    }
}

/// Opens the running master's end, for its own user alone.
///
/// # Errors
/// When the socket cannot be made.
pub fn listen(data_dir: &Path) -> io::Result<UnixListener> {
    let path = socket(data_dir);
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        // The lock on the store says that no other master is here: what is left is of one that was killed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers requests one by one, until `stop`.
pub async fn serve(desk: Arc<Desk>, listener: UnixListener, record: MasterRecord, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => match time::timeout(DEADLINE, answer(&desk, stream, &record)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "a local request broke off"),
                Err(_) => tracing::warn!("a local request took too long"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot take local requests just now");
                time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(desk: &Desk, mut stream: UnixStream, record: &MasterRecord) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(LONGEST)).read_line(&mut line).await?;
    let text = if line.trim() == "record" {
        serde_json::to_string(record)?
    } else if line.trim() == "ca" {
        serde_json::to_string(&desk.succession().0)?
    } else {
        let refused = match serde_json::from_str::<Ask>(&line) {
            Ok(ask) => pin_through_desk(desk, ask)
                .await
                .err()
                .map(|error| crate::status::chain(&error)),
            Err(error) => Some(error.to_string()),
        };
        serde_json::to_string(&Answer { refused })?
    };
    write.write_all(format!("{text}\n").as_bytes()).await
}

async fn pin_through_desk(desk: &Desk, Ask { operator, pin }: Ask) -> Result<(), Refused> {
    if operator.parse::<OperatorName>().is_err() {
        return Err(Refused::invalid("operator", "is no name"));
    }
    let known = desk.views.read().roster.operator(&operator).cloned();
    let guard = guard(&operator, known.as_ref().map(|(_, revision)| *revision));
    let record = pinned(known.map(|(record, _)| record), &operator, pin);
    let audit = local().does("operator.pin", &operator, "picket-master admin-bundle");
    desk.commit(vec![guard], vec![record.put()], audit).await?;
    let message = "a new certificate was made on the master's own machine";
    desk.say(
        crate::event::Severity::Alert,
        "operator.pinned",
        &operator,
        message,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_written_over_a_bundle_and_over_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        assert!(replaceable(&out).is_ok());
        std::fs::write(&out, "# picket bundle, version 1\n").unwrap();
        assert!(replaceable(&out).is_ok());
        for other in ["", "-----BEGIN PRIVATE KEY-----\n", "precious"] {
            std::fs::write(&out, other).unwrap();
            assert!(
                matches!(replaceable(&out), Err(LocalError::InTheWay(_))),
                "{other}"
            );
        }
    }
}
