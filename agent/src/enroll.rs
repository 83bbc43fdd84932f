//! Enrolment: from the bundle's key to a key of this machine's own.
//!
//! Everything is checked before anything is written, the master's answer included. After that each step may be the last
//! one before a crash, and doing all of it again ends in the same place: the key is stored before it is sent, the same
//! key always gets the same certificate, and the certificate counts once the master has seen it used.

pub mod node;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use picket_clock::Clock;
use picket_durable::FileError;
use picket_failpoint::{Point, pending};
use picket_link::Dial;
use picket_pki::{
    Bundle, BundleError, Carried, Certificate, Fingerprint, Keyless, NodeSecret, Refusal, bundle,
};
use picket_proto::host::HostId;
use picket_zerotier::identity as zerotier;

use crate::{
    config::Config,
    desired::{Desired, Parting},
    identity::{Identity, IdentityError, IdentityStore},
    machine::Machine,
    master::{self, MasterError, Reach},
    session::{Streams, hello},
    state::{StateDir, StateError},
};

/// A machine that is enrolled.
#[derive(Debug)]
pub struct Enrolled {
    /// Its id.
    pub host: HostId,
    /// Its name.
    pub name: String,
    /// Where its master answered.
    pub master: String,
    /// The CA that it trusts, to be compared with the one that the operator was shown.
    pub authority: Option<Fingerprint>,
    /// Whether it was enrolled before this call.
    pub before: bool,
    /// The ZeroTier identity that its bundle carried, for [`node::provide`].
    pub brought: Option<zerotier::Identity>,
}

/// Why a machine could not be enrolled. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// There is no bundle file.
    #[error("there is no bundle at {}; copy the file here that `picketctl host enroll NAME --out FILE` wrote", .0.display())]
    Missing(PathBuf),
    /// The bundle file cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bundle is of no use.
    #[error("{}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: BundleError,
    },
    /// The bundle is an operator's.
    #[error("{} is an operator's bundle; a machine is enrolled with one that `picketctl host enroll NAME` wrote", .0.display())]
    Operator(PathBuf),
    /// The bundle carries a ZeroTier identity whose halves do not belong together.
    #[error(
        "the ZeroTier identity of node {node} in {} is of no use; get a bundle without one by `picketctl host bundle NAME`: this machine then makes its own", path.display()
    )]
    NodeSecret {
        /// The bundle.
        path: PathBuf,
        /// The node that it says it is.
        node: String,
        /// Why.
        #[source]
        cause: zerotier::IdentityError,
    },
    /// The bundle carries a ZeroTier identity, and there is no place for it.
    #[error(
        "{} carries the identity of ZeroTier node {node}, and this machine has no place for it: {why}. The bundle was not used", path.display()
    )]
    NoPlace {
        /// The bundle.
        path: PathBuf,
        /// The node.
        node: String,
        /// What is missing, and what to do.
        why: String,
    },
    /// The bundle is of another CA than the operator was shown.
    #[error(
        "{} trusts the CA {seen}, which was not expected; nothing was sent anywhere: somebody may have exchanged the bundle, compare with what `picketctl host enroll` showed", path.display()
    )]
    OtherAuthority {
        /// The bundle.
        path: PathBuf,
        /// The fingerprint of the CA in it.
        seen: Fingerprint,
    },
    /// The bundle has no key, and neither has the machine.
    #[error(
        "{} is for a machine that made a certificate request, and this one made none; run `picket-agent request --out FILE` here, and with that `picketctl host bundle NAME --csr FILE --out BUNDLE`", .0.display()
    )]
    NoRequest(PathBuf),
    /// The bundle is for another key than the one of this machine's request.
    #[error(
        "{} is for another request than the one of this machine; carry it to the machine that made that, or make another: `picket-agent request --out FILE` here, and with that `picketctl host bundle NAME --csr FILE --out BUNDLE`", .0.display()
    )]
    OtherRequest(PathBuf),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The machine is somebody else.
    #[error(
        "this machine is enrolled as {name} ({host}) already, and the bundle is for {other}; to enroll it anew, retire {name} first and have its master within reach, or set another state_dir"
    )]
    OtherHost {
        /// What the machine is called.
        name: String,
        /// Who the machine is.
        host: HostId,
        /// Whom the bundle is for.
        other: String,
    },
    /// The identity cannot be read or kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The master could not be asked, or refused.
    #[error(transparent)]
    Master(#[from] MasterError),
}

/// What an enrolment talks through.
#[derive(Clone)]
pub struct Tools {
    /// The clock.
    pub clock: Clock,
    /// The way to the master.
    pub dial: Arc<dyn Dial>,
    /// This machine.
    pub machine: Arc<Machine>,
}

/// Enrolls this machine with the bundle in `file`; when `authorities` are given, with one that names no other CA.
///
/// # Errors
/// [`EnrollError`]. Calling again after any of them is safe, and goes on where the last call stopped.
pub async fn enroll(
    file: &Path,
    authorities: &[Fingerprint],
    config: &Config,
    tools: &Tools,
) -> Result<Enrolled, EnrollError> {
    if !picket_durable::is_there(file)? {
        return Err(EnrollError::Missing(file.to_owned()));
    }
    let bytes = zeroize::Zeroizing::new(picket_durable::read_private(file, bundle::LONGEST as u64)?);
    let failed = |cause| EnrollError::Bundle {
        path: file.to_owned(),
        cause,
    };
    let (bundle, node) = match Carried::parse(&bytes).map_err(failed)? {
        Carried::Whole(bundle) => (bundle, None),
        Carried::WithNode(bundle, node) => (bundle, Some(node)),
        Carried::Keyless(bundle) => (complete(bundle, file, config)?, None),
    };
    check_authorities(&bundle, authorities, file)?;
    let brought = node.map(|node| brought(&node, file, config)).transpose()?;
    let enrolled = enroll_with(&bundle, file, config, tools).await?;
    Ok(Enrolled { brought, ..enrolled })
}

/// The identity that a bundle carries, once it is sure that there is a place for it: its bundle is used but once.
fn brought(node: &NodeSecret, file: &Path, config: &Config) -> Result<zerotier::Identity, EnrollError> {
    let identity = node
        .as_secret_text()
        .parse()
        .map_err(|cause| EnrollError::NodeSecret {
            path: file.to_owned(),
            node: node.node().to_owned(),
            cause,
        })?;
    let no_place = |why: String| EnrollError::NoPlace {
        path: file.to_owned(),
        node: node.node().to_owned(),
        why,
    };
    let Some(service) = &config.zerotier else {
        return Err(no_place(
            "zerotier.enabled is false in agent.toml; set it, or get a bundle without the identity by `picketctl host bundle NAME`"
                .to_owned(),
        ));
    };
    if service.home.is_dir() {
        return Ok(identity);
    }
    Err(no_place(format!(
        "{} is not there; install zerotier-one first, or make that directory",
        service.home.display()
    )))
}

async fn enroll_with(
    bundle: &Bundle,
    file: &Path,
    config: &Config,
    tools: &Tools,
) -> Result<Enrolled, EnrollError> {
    let failed = |cause| EnrollError::Bundle {
        path: file.to_owned(),
        cause,
    };
    let Some(carried) = Identity::from_bundle(bundle)? else {
        return Err(EnrollError::Operator(file.to_owned()));
    };
    let checked = bundle.check(tools.clock.now()).map_err(failed);
    let fresh = !picket_durable::is_there(config.state_dir.join("identity"))?;
    let enrolment = Enrolment::new(config, tools);
    if fresh {
        checked?;
        return enrolment.first(&carried).await;
    }
    let state = StateDir::open(&config.state_dir)?;
    let store = IdentityStore::open(state.identity())?;
    let found = store.salvage()?;
    if found.current.is_none() && found.next.is_none() {
        // The clean-up of an earlier host was cut off at its end: the next one is not to be cleaned up for it.
        store.forget_retired()?;
        // Whose documents these are cannot be told any more.
        Desired::open(state.desired())?.0.disown()?;
    }
    let others: Vec<&Identity> = found
        .next
        .iter()
        .chain(&found.current)
        .filter(|known| known.host != carried.host)
        .collect();
    if !others.is_empty() {
        checked?;
        return enrolment.replace(&state, &store, &others, &carried).await;
    }
    // The identity that is here may be good: then it is used, and that uses the bundle up.
    for (known, before) in [(found.next, false), (found.current, true)] {
        let Some(known) = known else { continue };
        let used = if before && !store.is_spent(&carried) {
            enrolment.again(&store, &known).await
        } else {
            enrolment.finish(&store, &known, before).await
        };
        match used {
            Ok(enrolled) => {
                store.mark_spent(&carried)?;
                return Ok(enrolled);
            }
            Err(EnrollError::Master(error)) if error.refusal().is_some() => {}
            // The bundle may be of the CA that took the place of the one that is trusted here.
            Err(EnrollError::Master(error))
                if error.is_distrust() && known.authorities != carried.authorities => {}
            Err(error) => return Err(error),
        }
    }
    checked?;
    let connected = enrolment.reach.connect(&carried).await?;
    enrolment.renew(&store, &carried, connected).await
}

/// Puts the key of this machine's request into a bundle that came without one.
fn complete(bundle: Keyless, file: &Path, config: &Config) -> Result<Bundle, EnrollError> {
    let none = || EnrollError::NoRequest(file.to_owned());
    if !picket_durable::is_there(config.state_dir.join("identity"))? {
        return Err(none());
    }
    let state = StateDir::open(&config.state_dir)?;
    let key = IdentityStore::open(state.identity())?.request_key()?;
    let key = key.ok_or_else(none)?;
    let certificate =
        Certificate::parse(&bundle.certificate).map_err(|cause| EnrollError::Identity(cause.into()))?;
    if &certificate.public_key != key.public() {
        return Err(EnrollError::OtherRequest(file.to_owned()));
    }
    Ok(bundle.with_key(key))
}

/// A bundle with one CA that was expected and another beside it would be as good as the other's.
fn check_authorities(bundle: &Bundle, expected: &[Fingerprint], file: &Path) -> Result<(), EnrollError> {
    if expected.is_empty() {
        return Ok(());
    }
    let mut seen = bundle.authorities.iter().map(|der| Fingerprint::of(der));
    match seen.find(|seen| !expected.contains(seen)) {
        None => Ok(()),
        Some(seen) => Err(EnrollError::OtherAuthority {
            path: file.to_owned(),
            seen,
        }),
    }
}

struct Enrolment<'a> {
    reach: Reach,
    config: &'a Config,
    tools: &'a Tools,
}

impl<'a> Enrolment<'a> {
    fn new(config: &'a Config, tools: &'a Tools) -> Self {
        let reach = Reach {
            clock: tools.clock.clone(),
            dial: tools.dial.clone(),
            addresses: config.masters.clone(),
        };
        Self { reach, config, tools }
    }

    /// The first attempt on this machine: the master accepts the bundle before a directory is made.
    async fn first(&self, carried: &Identity) -> Result<Enrolled, EnrollError> {
        let connected = self.reach.connect(carried).await?;
        let state = StateDir::open(&self.config.state_dir)?;
        let store = IdentityStore::open(state.identity())?;
        self.renew(&store, carried, connected).await
    }

    /// Changes the bundle's key for one that has never left this machine.
    async fn renew(
        &self,
        store: &IdentityStore,
        carried: &Identity,
        connected: picket_link::Connected,
    ) -> Result<Enrolled, EnrollError> {
        let enrolled = self.fresh(store, carried, connected).await?;
        store.mark_spent(carried)?;
        Ok(enrolled)
    }

    /// Renews an identity that works. A bundle that was made for this host since is good until a newer certificate is
    /// used, and nobody is to find one that is.
    async fn again(&self, store: &IdentityStore, known: &Identity) -> Result<Enrolled, EnrollError> {
        let connected = self.reach.connect(known).await?;
        Ok(Enrolled {
            before: true,
            ..self.fresh(store, known, connected).await?
        })
    }

    async fn fresh(
        &self,
        store: &IdentityStore,
        base: &Identity,
        connected: picket_link::Connected,
    ) -> Result<Enrolled, EnrollError> {
        let key = store.next_key(base.host)?;
        let renewal = master::renew(connected.channel, &key, base);
        let next = pending(Point::AgentRenewalWaits, renewal).await?;
        store.keep_next(&next)?;
        self.finish(store, &next, false).await
    }

    /// Makes the machine of a host that is no more into another host: when the master itself says that it will not
    /// have the old one, and takes the bundle. What the old one left behind is given up.
    async fn replace(
        &self,
        state: &StateDir,
        store: &IdentityStore,
        others: &[&Identity],
        carried: &Identity,
    ) -> Result<Enrolled, EnrollError> {
        for known in others {
            let other = || EnrollError::OtherHost {
                name: known.name.clone(),
                host: known.host,
                other: carried.name.clone(),
            };
            let same_authority = known
                .authorities
                .iter()
                .any(|der| carried.authorities.contains(der));
            if known.trust_domain != carried.trust_domain || !same_authority {
                return Err(other());
            }
            match self.reach.connect(known).await {
                Err(error) if matches!(error.refusal(), Some(Refusal::Revoked | Refusal::Unknown)) => {}
                // Neither a master that takes it nor one that cannot be asked says that this host is no more.
                Ok(_) | Err(_) => return Err(other()),
            }
        }
        let connected = self.reach.connect(carried).await?;
        Desired::open(state.desired())?.0.clear(Parting::ForEver)?;
        store.clear_host()?;
        self.renew(store, carried, connected).await
    }

    /// Uses an identity once, which makes the master take it for the current one, and then does the same here.
    async fn finish(
        &self,
        store: &IdentityStore,
        identity: &Identity,
        before: bool,
    ) -> Result<Enrolled, EnrollError> {
        let connected = self.reach.connect(identity).await?;
        let mut hello = hello(&self.tools.machine, self.tools.clock.now(), Vec::new());
        hello.authorities = identity.authority_digests();
        let (streams, _) = Streams::open(connected.channel.clone(), hello).await?;
        if !before {
            store.promote()?;
        }
        streams.goodbye("enrolled").await;
        Ok(Enrolled {
            host: identity.host,
            name: identity.name.clone(),
            master: connected.address,
            authority: identity.authorities.first().map(|der| Fingerprint::of(der)),
            before,
            brought: None,
        })
    }
}
