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

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use picket_clock::Clock;
use picket_durable::FileError;
use picket_pki::{Bundle, BundleError, Csr, Fingerprint, Holder, IdentityError, Key, KeyError, OperatorName};
use picket_proto::host::Name;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::changing,
    ca::{self, CaRecord},
    desk::{Actor, Desk},
    operators,
    record::{MasterRecord, OperatorRecord, Pin, Record as _, RecordError, key},
    refused::Refused,
    signer::{Bundled, CaKey, Signer, SignerError},
    store::{Commit, CommitError, Guard, LockError, OpenError, ReadError, Store},
    time::Back,
};

/// The device of a bundle that is made for no other.
pub const DEVICE: &str = "local";
/// How every bundle begins.
const MAGIC: &[u8; 15] = b"# picket bundle";
/// The longest request.
const LONGEST: u64 = 4096;
/// How long one request may take: an engine that has the CA's key may be asked again and again.
const DEADLINE: Duration = Duration::from_secs(200);

#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    operator: String,
    device: Name,
    /// What is to be signed, in hex: the key is made by whoever asks, and stays there.
    csr: String,
}

/// Asks a master to believe its machine's clock.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptClock {
    /// Why.
    accept_clock: String,
    /// Whether the master's time may go back.
    go_back: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    refused: Option<String>,
    /// The certificate, in hex.
    #[serde(default)]
    certificate: String,
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
    /// No key could be made.
    #[error("make a key for the bundle")]
    Key(#[from] KeyError),
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

/// What the device of the first admin bundle is called, and of each that is made for no other.
#[must_use]
pub fn first_device() -> Name {
    DEVICE.parse().expect("the word is a name")
}

/// Makes an operator an admin whatever it was, makes a bundle for a device of it, pins that, and writes it to `out`.
/// What the device had before opens nothing from then on. A running master signs it; `ca` is how the CA's key is kept,
/// for when none runs.
///
/// # Errors
/// When the data directory is none, or the pin could not be kept; then no bundle is written.
pub async fn admin_bundle(
    data_dir: &Path,
    operator: &str,
    device: &Name,
    out: &Path,
    ca: &CaKey,
    clock: &Clock,
) -> Result<Fingerprint, LocalError> {
    let name: OperatorName = operator.parse()?;
    own(data_dir)?;
    replaceable(out)?;
    let opened = Store::open(data_dir, clock.clone()).await;
    let bundle = match opened {
        Ok(store) => {
            let made = make_directly(&store, data_dir, (name, device), ca, clock).await;
            store.close().await;
            made?
        }
        Err(OpenError::Lock(LockError::Held { .. })) => ask_bundle(data_dir, name, device).await?,
        Err(error) => return Err(error.into()),
    };
    let text = bundle.encode()?;
    picket_durable::write_private(out, text.as_bytes())?;
    let authority = bundle.authorities.first().map(Vec::as_slice);
    Ok(Fingerprint::of(authority.unwrap_or_default()))
}

/// No master runs: whoever can open the CA's key signs, and writes the pin into the store.
async fn make_directly(
    store: &Store,
    data_dir: &Path,
    (name, device): (OperatorName, &Name),
    kept: &CaKey,
    clock: &Clock,
) -> Result<Bundle, LocalError> {
    let record = master_record(store, data_dir)?;
    let signer = Arc::new(Signer::load(data_dir, &kept.as_found(data_dir), clock).await?);
    let succession = store.get(&ca::key())?.as_ref().map(CaRecord::of).transpose()?;
    if let Some(succession) = succession {
        let active = succession.active().fingerprint;
        if active != signer.fingerprint() {
            let (opener, dir) = (Arc::clone(&signer), data_dir.to_owned());
            let opened = tokio::task::spawn_blocking(move || ca::keys::load(&opener, &dir, active));
            signer.follow(
                opened
                    .await
                    .map_err(|error| silent(data_dir, io::Error::other(error)))??,
            );
        }
        let trusted = succession.trusted();
        signer.vouch_for(trusted.iter().map(|root| root.certificate.0.clone()).collect());
    }
    let (operator, now) = (name.clone(), clock.now());
    let signed = signer.sign(move |signer| signer.operator_bundle(operator, &record.admin_addresses, now));
    let Bundled { bundle, pin } = signed.await?;
    pin_directly(store, name.as_str(), device, pin, now).await?;
    Ok(bundle)
}

/// The running master signs and pins; the key is made here and goes nowhere but into the bundle.
async fn ask_bundle(data_dir: &Path, name: OperatorName, device: &Name) -> Result<Bundle, LocalError> {
    let record = ask_master_record(data_dir).await?;
    let succession = ask_succession(data_dir).await?;
    let key = Key::generate()?;
    let ask = Ask {
        operator: name.to_string(),
        device: device.clone(),
        csr: HEXLOWER.encode(&key.csr()?),
    };
    let answer = ask_certificate(data_dir, &ask).await?;
    let read = |digits: &str| {
        HEXLOWER
            .decode(digits.as_bytes())
            .map_err(|cause| silent(data_dir, io::Error::new(io::ErrorKind::InvalidData, cause)))
    };
    Ok(Bundle {
        holder: Holder::Operator { name },
        trust_domain: record.trust_domain.parse()?,
        masters: record.admin_addresses,
        authorities: succession
            .trusted()
            .iter()
            .map(|root| root.certificate.0.clone())
            .collect(),
        certificate: read(&answer.certificate)?,
        key,
    })
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

async fn pin_directly(
    store: &Store,
    operator: &str,
    device: &Name,
    pin: Pin,
    now: Timestamp,
) -> Result<(), LocalError> {
    let entry = store.get(&key::operator(operator))?;
    let record = entry.as_ref().map(OperatorRecord::of).transpose()?;
    let guard = guard(operator, entry.as_ref().map(|entry| entry.revision));
    let audit = local().does("operator.pin", operator, "picket-master admin-bundle");
    let record = operators::let_in(record, operator, operators::device(device, pin, now), now);
    let writes = vec![record.put()];
    store
        .commit(Commit {
            guards: vec![guard],
            audit: changing(store, &writes, audit),
            writes,
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

/// Has the running master believe its machine's clock: after a jump ahead and back, its certificate may be of a time that
/// has not come, and nobody reaches the admin API to say so.
///
/// # Errors
/// When no master runs, or it refuses.
pub async fn accept_clock(data_dir: &Path, reason: &str, back: Back) -> Result<(), LocalError> {
    let ask = AcceptClock {
        accept_clock: reason.to_owned(),
        go_back: back == Back::GoBack,
    };
    let ask = serde_json::to_string(&ask).unwrap_or_default();
    let line = exchange(data_dir, &format!("{ask}\n")).await?;
    let answer: Answer = serde_json::from_str(&line)
        .map_err(|cause| silent(data_dir, io::Error::new(io::ErrorKind::InvalidData, cause)))?;
    answer
        .refused
        .map_or(Ok(()), |refused| Err(LocalError::Refused(refused)))
}

async fn ask_certificate(data_dir: &Path, ask: &Ask) -> Result<Answer, LocalError> {
    let ask = serde_json::to_string(ask).unwrap_or_default();
    let line = exchange(data_dir, &format!("{ask}\n")).await?;
    let answer: Answer = serde_json::from_str(&line)
        .map_err(|cause| silent(data_dir, io::Error::new(io::ErrorKind::InvalidData, cause)))?;
    match answer.refused {
        Some(refused) => Err(LocalError::Refused(refused)),
        None => Ok(answer),
    }
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
            Ok((stream, _)) if !is_from_one_who_may(&stream) => {
                tracing::warn!("a local request of another user was refused");
                desk.say(
                    crate::event::Severity::Alert,
                    "local.refused",
                    "local",
                    "a user of the master's machine who is neither root nor the master's own asked for an admin bundle",
                );
            }
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
    } else if let Ok(asked) = serde_json::from_str::<AcceptClock>(&line) {
        let refused = believe_clock(desk, asked).await.err();
        serde_json::to_string(&Answer {
            refused: refused.map(|error| crate::status::chain(&error)),
            ..Answer::default()
        })?
    } else {
        let answer = match serde_json::from_str::<Ask>(&line) {
            Ok(ask) => sign_and_pin(desk, ask).await.unwrap_or_else(|error| Answer {
                refused: Some(crate::status::chain(&error)),
                ..Answer::default()
            }),
            Err(error) => Answer {
                refused: Some(error.to_string()),
                ..Answer::default()
            },
        };
        serde_json::to_string(&answer)?
    };
    write.write_all(format!("{text}\n").as_bytes()).await
}

async fn believe_clock(desk: &Desk, asked: AcceptClock) -> Result<(), Refused> {
    let back = if asked.go_back {
        Back::GoBack
    } else {
        Back::StandStill
    };
    let reason = crate::admin::reason(&asked.accept_clock)?;
    desk.accept_clock(&local(), &reason, back).await
}

async fn sign_and_pin(desk: &Desk, ask: Ask) -> Result<Answer, Refused> {
    let Ask {
        operator,
        device,
        csr,
    } = ask;
    let Ok(name) = operator.parse::<OperatorName>() else {
        return Err(Refused::invalid("operator", "is no name"));
    };
    let csr = HEXLOWER
        .decode(csr.as_bytes())
        .map_err(|_| Refused::invalid("csr", "is no hex"))?;
    let (csr, now) = (Csr::parse(&csr)?, desk.now());
    let from = local().from;
    let signed = desk
        .signer
        .sign(move |signer| signer.operator(&name, &csr, &from, now));
    let mut pin = signed.await?;
    // It is in the bundle, and no renewal of it is asked for twice.
    let certificate = std::mem::take(&mut pin.certificate);
    let known = desk.views.read().roster.operator(&operator).cloned();
    let guard = guard(&operator, known.as_ref().map(|(_, revision)| *revision));
    let message = format!(
        "is let in as an admin with a new certificate for {device}, made on the master's own machine"
    );
    let device = operators::device(&device, pin, now);
    let record = operators::let_in(known.map(|(record, _)| record), &operator, device, now);
    let audit = local().does("operator.pin", &operator, "picket-master admin-bundle");
    desk.commit(vec![guard], vec![record.put()], audit).await?;
    desk.say(
        crate::event::Severity::Alert,
        "operator.pinned",
        &operator,
        &message,
    );
    Ok(Answer {
        refused: None,
        certificate,
    })
}

fn is_from_one_who_may(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| may_ask(peer.uid(), ours))
}

/// Whether the user at the other end of the socket may ask: root, and the master's own. The directory and the socket keep
/// others out before; this holds where their modes were changed.
fn may_ask(user: u32, ours: u32) -> bool {
    user == 0 || user == ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_masters_own_user_may_ask_and_nobody_else() {
        assert!(may_ask(0, 999) && may_ask(999, 999));
        assert!(!may_ask(1000, 999) && !may_ask(1000, 0));
    }

    #[tokio::test]
    async fn the_socket_is_for_the_masters_own_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let listener = listen(dir.path()).unwrap();
        let mode = std::fs::metadata(socket(dir.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let asking = UnixStream::connect(socket(dir.path()));
        let (asking, accepted) = tokio::join!(asking, listener.accept());
        assert!(is_from_one_who_may(&accepted.unwrap().0));
        drop(asking.unwrap());
    }

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
