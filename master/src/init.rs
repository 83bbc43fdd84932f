//! `picket-master init`: a data directory with a CA, a store, and the first admin bundle.

use std::path::{Path, PathBuf};

use picket_clock::Clock;
use picket_durable::FileError;
use picket_pki::{Fingerprint, TrustDomain};

use crate::{
    audit::changing,
    config::{Config, with_port},
    desk::Actor,
    local::{self, LocalError},
    record::{MasterRecord, Record as _, key},
    signer::{self, CaKey, Signer, SignerError},
    store::{Commit, CommitError, CreateError, Guard, OpenError, Revision, Store},
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
    /// How the CA's key is kept.
    pub ca: CaKey,
}

/// Where a new master is reached: as it was asked for, or as its settings have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// `host:port` where agents dial.
    pub addresses: Vec<String>,
    /// `host:port` where operators dial.
    pub admin_addresses: Vec<String>,
}

impl Reached {
    /// Completes what was asked for from the settings, and what they leave open from the master's names.
    #[must_use]
    pub fn by(names: &[String], asked: Self, settings: &Config) -> Self {
        let at = |port| names.iter().map(|name| with_port(name, port)).collect::<Vec<_>>();
        let first = |lists: [Vec<String>; 3]| {
            lists
                .into_iter()
                .find(|list| !list.is_empty())
                .unwrap_or_default()
        };
        let admin = settings.admin;
        let listens = if admin.ip().is_unspecified() {
            Vec::new()
        } else {
            vec![admin.to_string()]
        };
        Self {
            addresses: first([
                asked.addresses,
                settings.advertise.clone(),
                at(settings.agents.port()),
            ]),
            admin_addresses: first([asked.admin_addresses, listens, at(admin.port())]),
        }
    }
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
    #[error("{} holds a master already; start it with `picket-master run`, make an admin bundle with `picket-master admin-bundle`, or choose another --data-dir", .0.display())]
    Exists(PathBuf),
    /// There is a store and its CA is gone.
    #[error("{} holds a master's store, and its ca.pem or ca.key is missing; restore both from a backup, or choose another --data-dir", .0.display())]
    Lost(PathBuf),
    /// There is a CA and its store is gone.
    #[error("{} holds a master's CA, and its store is missing; bring it back with `picket-master restore --data-dir {} --from SNAPSHOT`, or choose another --data-dir", .0.display(), .0.display())]
    LostStore(PathBuf),
    /// A half made one is of another trust domain.
    #[error("{} holds a CA of the trust domain {domain}; use that, or choose another --data-dir", dir.display())]
    OtherDomain {
        /// The directory.
        dir: PathBuf,
        /// Whose CA is there.
        domain: TrustDomain,
    },
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
    let key = signer::key_path(dir);
    let store_is_there = dir.join("store").exists();
    // The bundle is made last: with it there was a store.
    if dir.join("admin.bundle").exists() && !store_is_there {
        return Err(InitError::LostStore(dir.to_owned()));
    }
    if store_is_there && !Signer::is_there(dir, &plan.ca) {
        return Err(InitError::Lost(dir.to_owned()));
    }
    // Names are tried before anything is made that they would stand in.
    Signer::try_names(&plan.trust_domain, &plan.names, clock.now()).map_err(InitError::Names)?;
    if store_is_there {
        return finish(plan, clock).await;
    }
    // So is the passphrase.
    plan.ca.check().map_err(SignerError::from)?;
    picket_durable::create_private_dir(dir)?;
    if !Signer::is_there(dir, &plan.ca) {
        // One without the other is of a crash between the two, and nothing was ever signed with it.
        remove_if_there(&key);
        Signer::create(dir, &plan.ca, &plan.trust_domain, clock).await?;
    }
    match Store::create(dir) {
        Ok(()) | Err(CreateError::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    finish(plan, clock).await
}

/// Writes the master's record and its first admin bundle, unless there is a record.
async fn finish(plan: &Plan, clock: &Clock) -> Result<Made, InitError> {
    let dir = plan.data_dir.as_path();
    let signer = Signer::load(dir, &plan.ca, clock).await?;
    if signer.trust_domain() != plan.trust_domain {
        return Err(InitError::OtherDomain {
            dir: dir.to_owned(),
            domain: signer.trust_domain(),
        });
    }
    // What is made last is there: nothing needs to be opened, and so written, to know that there is a master.
    if dir.join("admin.bundle").exists() {
        return Err(InitError::Exists(dir.to_owned()));
    }
    let store = Store::open(dir, clock.clone()).await?;
    let record = MasterRecord {
        trust_domain: plan.trust_domain.to_string(),
        names: plan.names.clone(),
        addresses: plan.addresses.clone(),
        admin_addresses: plan.admin_addresses.clone(),
        authority: Some(signer.fingerprint()),
        created_at: clock.now(),
    };
    let writes = vec![record.put()];
    let audit = Actor::master().does("master.init", &plan.trust_domain, "");
    let commit = Commit {
        guards: vec![Guard::Absent(key::master())],
        audit: changing(&store, &writes, audit),
        writes,
    };
    let kept = store.commit(commit).await;
    store.close().await;
    let bundle = dir.join("admin.bundle");
    match kept {
        Ok(_) => {}
        // The record was written and the bundle was not.
        Err(CommitError::Conflict { .. }) if !bundle.exists() && only_record(dir, clock).await? => {}
        Err(CommitError::Conflict { .. }) => return Err(InitError::Exists(dir.to_owned())),
        Err(error) => return Err(error.into()),
    }
    let authority =
        local::admin_bundle(dir, "admin", &local::first_device(), &bundle, &plan.ca, clock).await?;
    Ok(Made { authority, bundle })
}

/// Whether nothing ever happened here but the first half of `init`.
async fn only_record(dir: &Path, clock: &Clock) -> Result<bool, InitError> {
    let store = Store::open(dir, clock.clone()).await?;
    let first = store.revision() == Revision(1);
    store.close().await;
    Ok(first)
}

fn remove_if_there(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "could not remove a half made CA");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use picket_settings::Settings;

    use super::*;

    #[test]
    fn a_new_master_is_reached_as_asked_then_as_its_settings_say_then_at_its_names() {
        let names = ["master.example.org".to_owned(), "2001:db8::1".to_owned()];
        let reached = |text: &str, asked: &str| {
            let settings = Settings::from_text(text, Path::new("master.toml")).unwrap();
            let asked: Vec<String> = asked.split_whitespace().map(str::to_owned).collect();
            let asked = Reached {
                addresses: asked.clone(),
                admin_addresses: asked,
            };
            let reached = Reached::by(&names, asked, &Config::resolve(settings).unwrap());
            format!(
                "{} | {}",
                reached.addresses.join(" "),
                reached.admin_addresses.join(" ")
            )
        };
        assert_eq!(
            reached("", ""),
            "master.example.org:7443 [2001:db8::1]:7443 | 127.0.0.1:7444"
        );
        let other = "agents.listen = \"0.0.0.0:8443\"\nadmin.listen = \"0.0.0.0:8444\"";
        assert_eq!(
            reached(other, ""),
            "master.example.org:8443 [2001:db8::1]:8443 | master.example.org:8444 [2001:db8::1]:8444"
        );
        let advertised = "advertise = [\"nat.example.org:443\"]\nadmin.listen = \"192.0.2.1:7444\"";
        assert_eq!(reached(advertised, ""), "nat.example.org:443 | 192.0.2.1:7444");
        assert_eq!(reached(advertised, "there:1"), "there:1 | there:1");
    }
}
