//! A CA key in a transit engine, as the CA sees it.

use std::sync::{Arc, OnceLock};

use picket_pki::{AuthorityKey, Fingerprint, KeyError, PublicKey, SignError};
use picket_transit::{Engine, TransitError, Versions};

/// Why the engine's key is not the CA's.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The engine does not answer as it should.
    #[error(transparent)]
    Engine(#[from] TransitError),
    /// A public key of the engine's is none of ours.
    #[error(
        "the public key of {key} at {place} cannot be read; a CA of ours needs a key made with type=ecdsa-p256"
    )]
    PublicKey {
        /// The key.
        key: String,
        /// Where.
        place: String,
        /// Why.
        #[source]
        cause: KeyError,
    },
    /// None of its versions is the CA's.
    #[error(
        "no version of {key} at {place} is the key {wanted} of ca.pem; restore the key from the engine's backup, or name the right one in ca.transit.key"
    )]
    OtherKey {
        /// The key.
        key: String,
        /// Where.
        place: String,
        /// The CA's.
        wanted: Fingerprint,
    },
}

/// A key in an engine, by its public half. Which of the engine's versions it is, is asked when it is first used.
#[derive(Debug)]
pub(super) struct Remote {
    engine: Arc<Engine>,
    public: PublicKey,
    version: OnceLock<u32>,
}

impl Remote {
    /// The newest version of the engine's key.
    pub(super) fn newest(engine: Arc<Engine>) -> Result<Self, RemoteError> {
        let versions = engine.versions()?;
        let text = versions.public.get(&versions.newest).map(String::as_str);
        let public = public(&engine, text.unwrap_or_default())?;
        Ok(Self {
            engine,
            public,
            version: OnceLock::from(versions.newest),
        })
    }

    /// The version with this public half.
    pub(super) fn of(engine: Arc<Engine>, public: PublicKey) -> Self {
        Self {
            engine,
            public,
            version: OnceLock::new(),
        }
    }

    fn version(&self) -> Result<u32, RemoteError> {
        if let Some(version) = self.version.get() {
            return Ok(*version);
        }
        let versions = self.engine.versions()?;
        let found = version_of(&self.engine, &versions, &self.public)?;
        Ok(*self.version.get_or_init(|| found))
    }
}

/// The version of the engine's key that is `wanted`.
pub(super) fn version_of(
    engine: &Engine,
    versions: &Versions,
    wanted: &PublicKey,
) -> Result<u32, RemoteError> {
    for (number, text) in &versions.public {
        if &public(engine, text)? == wanted {
            return Ok(*number);
        }
    }
    Err(RemoteError::OtherKey {
        key: engine.place().key.to_string(),
        place: engine.place().address.to_string(),
        wanted: wanted.fingerprint(),
    })
}

fn public(engine: &Engine, text: &str) -> Result<PublicKey, RemoteError> {
    PublicKey::from_pem(text.as_bytes()).map_err(|cause| RemoteError::PublicKey {
        key: engine.place().key.to_string(),
        place: engine.place().address.to_string(),
        cause,
    })
}

impl AuthorityKey for Remote {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let version = self.version()?;
        Ok(self.engine.sign(version, message)?)
    }
}
