//! A server that answers as Vault and OpenBao say in their public documentation of the transit engine and of tokens.
//!
//! It keeps state: keys with versions, tokens with policies and an end, a seal. It listens on loopback with TLS, on a
//! thread of its own with real time, so that a story whose clock is paused can use it. It can be told to fail.

mod keys;
mod routes;
mod server;
mod tokens;

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use picket_clock::Clock;
use picket_durable::{FileError, SecretFile};
use tokio::sync::oneshot;

pub use tokens::{Life, Policy};

use crate::{Address, Name, Place};

/// How a request goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status and text.
    Status(u16, String),
    /// It is never answered.
    Silence,
    /// The connection is closed instead.
    Closed,
    /// The answer is no JSON.
    Babble,
    /// A signature is made with another key.
    OtherKey,
    /// A signature is made with the newest version, whatever was asked for.
    OtherVersion,
}

/// A running server. It stops when it is dropped.
pub struct Fake {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    authority: String,
    _stop: oneshot::Sender<()>,
}

/// What it knows.
pub(crate) struct State {
    clock: Clock,
    mount: String,
    namespace: Option<String>,
    sealed: bool,
    keys: keys::Keys,
    tokens: tokens::Tokens,
    faults: Vec<Fault>,
    always: Option<Fault>,
    asked: Vec<String>,
}

impl Fake {
    /// Starts a server that has a transit engine mounted at `transit`, no key, and is unsealed.
    ///
    /// # Panics
    /// When nothing can listen on loopback.
    #[must_use]
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            clock: Clock::system(),
            mount: "transit".to_owned(),
            namespace: None,
            sealed: false,
            keys: keys::Keys::default(),
            tokens: tokens::Tokens::default(),
            faults: Vec::new(),
            always: None,
            asked: Vec::new(),
        }));
        let (address, authority, stop) = server::start(Arc::clone(&state));
        Self {
            state,
            address,
            authority,
            _stop: stop,
        }
    }

    /// Where it listens: `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The CA of its certificate, as PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Moves the engine to another mount and namespace.
    pub fn remount(&self, mount: &str, namespace: Option<&str>) {
        let mut state = self.state();
        state.mount = mount.to_owned();
        state.namespace = namespace.map(str::to_owned);
    }

    /// Makes a key of this kind, `ecdsa-p256` for one that signs.
    pub fn make_key(&self, name: &str, kind: &str) {
        self.state().keys.make(name, kind);
    }

    /// Makes a new version of a key.
    pub fn rotate_key(&self, name: &str) {
        self.state().keys.rotate(name);
    }

    /// Signs with no version of a key below this one.
    pub fn retire_versions(&self, name: &str, below: u32) {
        self.state().keys.retire(name, below);
    }

    /// Lets a key be taken out.
    pub fn loosen_key(&self, name: &str) {
        self.state().keys.loosen(name);
    }

    /// Makes a token and returns it.
    #[must_use]
    pub fn make_token(&self, policy: Policy, life: Life) -> String {
        let mut state = self.state();
        let now = state.clock.now();
        state.tokens.make(policy, life, now)
    }

    /// Makes a token end at once.
    pub fn revoke_token(&self, token: &str) {
        self.state().tokens.revoke(token);
    }

    /// How long a token has yet.
    #[must_use]
    pub fn token_ttl(&self, token: &str) -> Option<Duration> {
        let state = self.state();
        state.tokens.ttl(token, state.clock.now())
    }

    /// Seals it: it answers 503 to everything.
    pub fn seal(&self) {
        self.state().sealed = true;
    }

    /// Unseals it.
    pub fn unseal(&self) {
        self.state().sealed = false;
    }

    /// Makes the next requests go wrong, one after the other, those about tokens aside.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// Makes every request go wrong, until it is told otherwise.
    pub fn fail_always(&self, fault: Option<Fault>) {
        self.state().always = fault;
    }

    /// What was asked so far: method, path, status.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// Writes the CA and `token` into `dir`, and says how `key` is reached.
    ///
    /// # Errors
    /// When the files cannot be written.
    ///
    /// # Panics
    /// When `key` is no name.
    pub fn place(&self, dir: &Path, key: &str, token: &str) -> Result<Place, FileError> {
        let name = |text: &str| text.parse::<Name>().expect("the fake's names are names");
        let (authority, file) = (dir.join("transit-ca.pem"), dir.join("transit-token"));
        picket_durable::write_private(&authority, self.authority.as_bytes())?;
        picket_durable::write_private(&file, token.as_bytes())?;
        let state = self.state();
        Ok(Place {
            address: self
                .address()
                .parse::<Address>()
                .expect("the fake's address is one"),
            mount: name(&state.mount),
            key: name(key),
            namespace: state.namespace.as_deref().map(name),
            authority,
            token: SecretFile::Named(file),
            timeout: Duration::from_secs(5),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
