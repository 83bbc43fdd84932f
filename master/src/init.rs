//! `picket-master init`: a data directory with a CA, a store, and the first admin bundle.

use std::path::{Path, PathBuf};

use picket_clock::Clock;
use picket_durable::FileError;
use picket_pki::{Fingerprint, TrustDomain};

use crate::{
    desk::Actor,
    local::{self, LocalError},
    record::{MasterRecord, Record as _},
    signer::{self, Signer, SignerError},
    store::{Commit, CommitError, CreateError, OpenError, Store},
};

/// What a new master is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// The DNS names and addresses of the master.
    pub names: Vec<String>,
    /// `host:port` where agents dial.
    pub addresses: Vec<String>,
    /// `host:port` where operators dial.
    pub admin_addresses: Vec<String>,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// SHA-256 of the CA's certificate.
    pub authority: Fingerprint,
    /// Where the admin bundle is.
    pub bundle: PathBuf,
}

/// Why there is no master.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one.
    #[error("{} holds a CA already; start it with `picket-master run`, or choose another --data-dir", .0.display())]
    Exists(PathBuf),
    /// The directory cannot be used.
    #[error(
        "the data directory cannot be made or used; choose another --data-dir, or move away what is in its place"
    )]
    Directory(#[from] FileError),
    /// No CA could be made.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// A name or address cannot be used.
    #[error("a name or address cannot be used")]
    Names(#[source] SignerError),
    /// No store could be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store does not take its first record.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// No admin bundle could be made.
    #[error(transparent)]
    Bundle(#[from] LocalError),
}

/// Makes a master. A directory that holds one is refused and left as it is; one that was left half made by a crash is
/// finished.
///
/// # Errors
/// When there is one, or a file cannot be written.
pub async fn init(plan: &Plan, clock: &Clock) -> Result<Made, InitError> {
    let dir = plan.data_dir.as_path();
    let bundle = dir.join("admin.bundle");
    if bundle.exists() {
        return Err(InitError::Exists(dir.to_owned()));
    }
    picket_durable::create_private_dir(dir)?;
    let half_made = signer::key_path(dir).exists() && signer::certificate_path(dir).exists();
    let signer = if half_made {
        Signer::load(dir)?
    } else {
        remove_if_there(&signer::key_path(dir));
        Signer::create(dir, &plan.trust_domain, clock.now())?
    };
    // Names and addresses are tried before anything refers to them.
    signer
        .master(&plan.names, clock.now())
        .map_err(InitError::Names)?;
    match Store::create(dir) {
        Ok(()) | Err(CreateError::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let store = Store::open(dir, clock.clone()).await?;
    let record = MasterRecord {
        trust_domain: plan.trust_domain.to_string(),
        names: plan.names.clone(),
        addresses: plan.addresses.clone(),
        admin_addresses: plan.admin_addresses.clone(),
        created_at: clock.now(),
    };
    let audit = Actor::master().does("master.init", &plan.trust_domain, "");
    let kept = store
        .commit(Commit {
            guards: Vec::new(),
            writes: vec![record.put()],
            audit,
        })
        .await;
    store.close().await;
    kept?;
    let authority = local::admin_bundle(dir, "admin", &bundle, clock).await?;
    Ok(Made { authority, bundle })
}

/// A key without its certificate is of a crash between the two, and nothing was ever signed with it.
fn remove_if_there(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "could not remove a half made CA");
    }
}
