//! Networks that ZeroTier Central governs: the master itself makes their members what the grants say.
//!
//! In: that something was decided, the time, what Central answers. Out: what Central has, in the words in which a host's
//! controller tells it, so that whoever looks need not know the difference. Nobody else ends an activation there.

mod look;
mod pass;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use picket_govern::Memory;
use picket_proto::status::{ControlledNetwork, ControllerStatus};
use picket_zerotier::{
    central::Central as Client,
    controller::{Controller as _, NewNetwork},
    dial::{Dial, TcpHost, Tls, authorities},
    home::Token,
    ids::NetworkId,
    service::Error,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

pub use self::{look::look, pass::tend};
use crate::{
    config::{Account, MOST_TOKEN},
    desk::Desk,
    network_watch::Told,
    record::network::Governor,
    refused::Refused,
    store::Revision,
};

/// Why nothing can be done in Central, and what to do.
pub const NOT_CONFIGURED: &str = "this master has no account in ZeroTier Central; give it the token of one, as \
    `token_file` in the section `central` of its settings, and start it again";
/// The longest list of CA certificates that is read: Debian's has 220 KiB.
const MOST_AUTHORITIES: u64 = 4 << 20;

/// What operators are told before they rely on it.
const CAUTION: &str = "ZeroTier Central governs this network: the master ends activations there, and while it does not run, or \
    does not reach Central, they go on";

/// What an operator has to know of a network with activations; nothing where its controller ends them by itself.
#[must_use]
pub fn caution(governor: Governor) -> Option<&'static str> {
    match governor {
        Governor::Host(_) => None,
        Governor::Central(_) => Some(CAUTION),
    }
}

/// What is known of Central.
#[derive(Debug)]
pub struct Central {
    account: Option<Account>,
    /// In place of the way that the account says.
    way: Option<Arc<dyn Dial>>,
    /// The client, as long as the token is the same: it knows how long Central wants to be left alone.
    client: Mutex<Option<(String, Client)>>,
    seen: Mutex<Option<ControllerStatus>>,
    kept: Mutex<Kept>,
    followed: watch::Sender<Revision>,
    /// Counts the decisions that the next pass is to follow.
    due: watch::Sender<u64>,
    /// Networks that are being made.
    pub(crate) making: TaskTracker,
}

/// What is kept of Central across restarts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    told: Told,
    /// What was seen to be true there.
    memory: Option<Memory>,
}

impl Central {
    /// Nothing is known yet. Without an account, nothing ever is.
    #[must_use]
    pub fn new(account: Option<Account>, way: Option<Arc<dyn Dial>>) -> Self {
        Self {
            account,
            way,
            client: Mutex::default(),
            seen: Mutex::default(),
            kept: Mutex::default(),
            followed: watch::Sender::new(Revision(0)),
            due: watch::Sender::new(0),
            making: TaskTracker::new(),
        }
    }

    /// Whether there is an account.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.account.is_some()
    }

    /// What Central said last.
    #[must_use]
    pub fn seen(&self) -> Option<ControllerStatus> {
        lock(&self.seen).clone()
    }

    /// Notes that something was decided.
    pub fn nudge(&self) {
        self.due
            .send_modify(|decisions| *decisions = decisions.wrapping_add(1));
    }

    /// Up to where a pass was made over everything that was decided, whatever network it was about.
    #[must_use]
    pub fn followed(&self) -> Revision {
        *self.followed.borrow()
    }

    /// Whether a pass was made over what was decided at `revision`.
    #[must_use]
    pub fn has_followed(&self, revision: Revision) -> bool {
        self.followed() >= revision
    }

    /// What was told of it.
    #[must_use]
    pub fn told(&self) -> Told {
        lock(&self.kept).told.clone()
    }

    /// Notes what was told of it.
    pub fn remember(&self, told: Told) {
        lock(&self.kept).told = told;
    }

    /// What is to be kept across a restart.
    #[must_use]
    pub fn kept(&self) -> Kept {
        lock(&self.kept).clone()
    }

    /// Takes up what was kept before a restart.
    pub fn take_up(&self, kept: Kept) {
        *lock(&self.kept) = kept;
    }

    /// A client with the token as its file has it by now.
    fn client(&self) -> Result<Client, String> {
        let account = self.account.as_ref().ok_or_else(|| NOT_CONFIGURED.to_owned())?;
        let read = account.token.read(MOST_TOKEN);
        let read = read.map_err(|error| format!("its token cannot be read: {}", chain(&error)))?;
        let text = String::from_utf8_lossy(&read).trim().to_owned();
        let mut client = lock(&self.client);
        if let Some((token, client)) = client.as_ref()
            && *token == text
        {
            return Ok(client.clone());
        }
        let token = Token::new(&text).ok_or_else(|| {
            let path = account.token.path().display();
            format!("{path} holds no token; make one in Central's account settings and put it there")
        })?;
        let made = Client::new(self.dial(account)?, account.api.host(), token);
        *client = Some((text, made.clone()));
        Ok(made)
    }

    fn dial(&self, account: &Account) -> Result<Arc<dyn Dial>, String> {
        if let Some(way) = &self.way {
            return Ok(Arc::clone(way));
        }
        let pem = picket_durable::read_bounded(&account.authorities, MOST_AUTHORITIES);
        let pem = pem.map_err(|error| chain(&error))?;
        let authorities = authorities(&pem).map_err(|error| chain(&error))?;
        let under = Arc::new(TcpHost::new(account.api.host(), account.api.port()));
        let tls = Tls::new(under, account.api.host(), authorities).map_err(|error| chain(&error))?;
        Ok(Arc::new(tls))
    }
}

/// Reads a network in Central that nobody may have watched before.
///
/// # Errors
/// When there is none, or Central cannot be asked.
pub async fn read(desk: &Desk, network: NetworkId) -> Result<ControlledNetwork, Refused> {
    let client = desk.central.client().map_err(Refused::NotNow)?;
    pass::read(&client, network)
        .await
        .map_err(|error| Refused::NotNow(chain(&error)))
}

/// Makes a network in Central, and returns the id that it was given. Its settings follow with its first pass, the name that
/// it is to have among them.
///
/// # Errors
/// When Central does not do it, or nobody knows whether it did.
pub async fn create(desk: &Desk, name: &str) -> Result<NetworkId, Refused> {
    let client = desk.central.client().map_err(Refused::NotNow)?;
    let new = NewNetwork {
        name: name.to_owned(),
        ..NewNetwork::default()
    };
    let made = client.create_network(&new).await;
    made.map(|network| network.id).map_err(|error| {
        let refused = chain(&error);
        Refused::NotNow(if was_not_done(&error) {
            refused
        } else {
            format!(
                "{refused}; it may have been made all the same, as {name}: look at Central's web page, and delete it there or \
                 watch it with `picketctl network adopt ID --central`"
            )
        })
    })
}

/// Whether what was asked of Central surely was not done.
fn was_not_done(error: &Error) -> bool {
    match error {
        Error::Refused { .. }
        | Error::NotFound { .. }
        | Error::TooMany { .. }
        | Error::NoTun { .. }
        | Error::Foreign { .. }
        | Error::Unsupported { .. } => true,
        Error::Failed { status, .. } => *status < 500,
        Error::Unreachable { .. }
        | Error::TimedOut { .. }
        | Error::Broken { .. }
        | Error::Disagrees { .. } => false,
    }
}

/// Deletes a network in Central that was made and that nothing is kept of.
///
/// # Errors
/// Why it is still there, in a sentence.
pub async fn abandon(desk: &Desk, network: NetworkId) -> Result<(), String> {
    let client = desk.central.client()?;
    let deleted = client.delete_network(network).await;
    deleted.map_err(|error| chain(&error))
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |all, cause| format!("{all}: {cause}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
