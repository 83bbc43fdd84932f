//! The handle that signs, and the thread behind it.
//!
//! [`Engine::sign`] blocks its caller and may be called from any thread. All talking is done by one thread with a
//! runtime of its own: it needs nothing of the caller's runtime, and goes on renewing the token while nobody signs.

use std::{
    sync::{Arc, mpsc as answers},
    time::Duration,
};

use data_encoding::BASE64;
use http::StatusCode;
use picket_backoff::Backoff;
use picket_clock::Clock;
use rustls::ClientConfig;
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time,
};

use crate::{
    Place, TransitError, Versions,
    answer::{self, success},
    exchange::{Ask, exchange, tls},
    token::{self, Next, Standing, Token, TokenHealth},
};

/// How many signatures may wait; each waits on a thread.
const WAITING: usize = 64;
/// How many requests are under way at once.
const AT_ONCE: usize = 8;
/// All tries of one signature together have this many times the time of one.
const PATIENCE: u32 = 3;
/// The first pause between two tries, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// The same for the token.
const TOKEN_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A handle on the engine.
#[derive(Debug)]
pub struct Engine {
    jobs: mpsc::Sender<Job>,
    health: watch::Receiver<Health>,
    place: Arc<Place>,
}

/// How it stands with the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// The token.
    pub token: TokenHealth,
    /// Why the last signature was not made, when it was not.
    pub signing: Option<String>,
}

#[derive(Debug)]
enum Job {
    Versions(Reply<Versions>),
    Sign(u32, Vec<u8>, Reply<Vec<u8>>),
}

type Reply<T> = answers::SyncSender<Result<T, TransitError>>;

impl Engine {
    /// Reads what `place` names on disk and starts the thread. The engine itself may be away.
    ///
    /// # Errors
    /// When the CA certificates of the engine's server or the token cannot be read.
    pub fn start(place: Place, clock: Clock) -> Result<Self, TransitError> {
        let tls = tls(&place)?;
        Token::read(&place.token)?;
        let (jobs, queue) = mpsc::channel(WAITING);
        let (say, health) = watch::channel(Health::default());
        let place = Arc::new(place);
        let client = Client {
            place: Arc::clone(&place),
            tls,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(TransitError::Thread)?;
        std::thread::Builder::new()
            .name("transit".to_owned())
            .spawn(move || runtime.block_on(serve(client, queue, say, clock)))
            .map_err(TransitError::Thread)?;
        Ok(Self { jobs, health, place })
    }

    /// The versions of the key. Blocks, at most for three times the time of one request.
    ///
    /// # Errors
    /// [`TransitError`].
    pub fn versions(&self) -> Result<Versions, TransitError> {
        self.ask(Job::Versions)
    }

    /// The signature (DER) of `version` of the key over SHA-256 of `message`. Blocks, at most for three times the time
    /// of one request.
    ///
    /// # Errors
    /// [`TransitError`].
    pub fn sign(&self, version: u32, message: &[u8]) -> Result<Vec<u8>, TransitError> {
        self.ask(|reply| Job::Sign(version, message.to_vec(), reply))
    }

    /// How it stands with the engine, and every change of that.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, TransitError> {
        let (reply, answer) = answers::sync_channel(1);
        self.jobs.try_send(job(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => self.crowded(),
            mpsc::error::TrySendError::Closed(_) => TransitError::Gone,
        })?;
        // A job that waits for its turn is not under way yet, so the wait here is longer than one job takes.
        match answer.recv_timeout(self.place.timeout * PATIENCE * 2) {
            Ok(answered) => answered,
            Err(answers::RecvTimeoutError::Timeout) => Err(self.crowded()),
            Err(answers::RecvTimeoutError::Disconnected) => Err(TransitError::Gone),
        }
    }

    fn crowded(&self) -> TransitError {
        TransitError::Crowded {
            place: self.place.address.to_string(),
        }
    }
}

/// The thread's work: jobs as they come, and the token beside them, until the handle is gone.
async fn serve(client: Client, mut queue: mpsc::Receiver<Job>, say: watch::Sender<Health>, clock: Clock) {
    let mut under_way = JoinSet::new();
    let keeper = keep_token(client.clone(), say.clone(), clock);
    tokio::pin!(keeper);
    loop {
        tokio::select! {
            job = queue.recv(), if under_way.len() < AT_ONCE => match job {
                Some(job) => drop(under_way.spawn(work(client.clone(), say.clone(), job))),
                None => return,
            },
            Some(_) = under_way.join_next() => {}
            () = &mut keeper => return,
        }
    }
}

async fn work(client: Client, say: watch::Sender<Health>, job: Job) {
    // Whoever asked may have given up: then nobody takes the answer.
    match job {
        Job::Versions(reply) => drop(reply.try_send(client.versions().await)),
        Job::Sign(version, message, reply) => {
            let signed = client.sign(version, &message).await;
            let why = signed.as_ref().err().map(TransitError::chain);
            say.send_if_modified(|health| {
                // What it says may differ from try to try; that it fails is told once.
                let turned = health.signing.is_some() != why.is_some();
                health.signing = why;
                turned
            });
            drop(reply.try_send(signed));
        }
    }
}

/// Looks at the token again and again, and renews it in time.
async fn keep_token(client: Client, say: watch::Sender<Health>, clock: Clock) {
    let mut backoff = Backoff::new(TOKEN_PAUSES.0, TOKEN_PAUSES.1);
    let mut lease: Option<(Token, Duration)> = None;
    loop {
        let looked = client.look(&mut lease).await;
        let wait = match &looked {
            Ok((_, wait)) => {
                backoff.reset();
                *wait
            }
            Err(_) => backoff.next_wait(),
        };
        let health = match looked {
            Ok((standing, _)) => token::health(standing, clock.now()),
            Err(error) => TokenHealth::Lost(error.chain()),
        };
        say.send_if_modified(|all| {
            let turned = turned(&all.token, &health);
            all.token = health;
            turned
        });
        time::sleep(wait).await;
    }
}

/// Whether a change of the token's health is news.
fn turned(before: &TokenHealth, after: &TokenHealth) -> bool {
    match (before, after) {
        (TokenHealth::Lost(_), TokenHealth::Lost(_)) => false,
        (TokenHealth::Ends { soon: before, .. }, TokenHealth::Ends { soon: after, .. }) => before != after,
        (before, after) => before != after,
    }
}

#[derive(Debug, Clone)]
struct Client {
    place: Arc<Place>,
    tls: Arc<ClientConfig>,
}

impl Client {
    async fn versions(&self) -> Result<Versions, TransitError> {
        let Place { mount, key, .. } = &*self.place;
        let ask = Ask::get(format!("{mount}/keys/{key}"));
        let body = self.persist(&ask).await?;
        let read = answer::versions(&body).map_err(|why| self.nonsense(&ask, why))?;
        read.map_err(|kind| TransitError::WrongKind {
            key: key.to_string(),
            place: self.place.address.to_string(),
            kind,
        })
    }

    async fn sign(&self, version: u32, message: &[u8]) -> Result<Vec<u8>, TransitError> {
        let Place { mount, key, .. } = &*self.place;
        let body = json!({
            "input": BASE64.encode(message),
            "key_version": version,
            "prehashed": false,
            "marshaling_algorithm": "asn1",
        });
        let ask = Ask {
            version: Some(version),
            ..Ask::post(format!("{mount}/sign/{key}/sha2-256"), &body)
        };
        let body = self.persist(&ask).await?;
        answer::signature(version, &body).map_err(|why| self.nonsense(&ask, why))
    }

    /// Looks at the token, renews it when that is due, and says when to look again. `lease` is what the last renewal of
    /// this token gave.
    async fn look(
        &self,
        lease: &mut Option<(Token, Duration)>,
    ) -> Result<(Standing, Duration), TransitError> {
        let token = Token::read(&self.place.token)?;
        let look = Ask::get("auth/token/lookup-self");
        let body = self.once(&token, &look).await?;
        let mut standing = answer::standing(&body).map_err(|why| self.nonsense(&look, why))?;
        match lease {
            Some((of, given)) if *of == token => standing.lease = *given,
            Some(_) | None => {}
        }
        if let Next::Wait(wait) = token::next(standing) {
            return Ok((standing, wait));
        }
        let renew = Ask::post("auth/token/renew-self", &json!({}));
        let body = self.once(&token, &renew).await?;
        let renewed = answer::renewed(&body).map_err(|why| self.nonsense(&renew, why))?;
        *lease = Some((token, renewed.lease));
        let standing = Standing {
            // One that came to the longest life it may have gets no more time from a renewal.
            renewable: renewed.renewable && renewed.ttl > standing.ttl,
            ..renewed
        };
        let wait = match token::next(standing) {
            Next::Wait(wait) => wait,
            Next::Renew => token::LOOK,
        };
        Ok((standing, wait))
    }

    /// Asks, and asks again while that may help and there is time.
    async fn persist(&self, ask: &Ask) -> Result<bytes::Bytes, TransitError> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let ends = time::Instant::now() + self.place.timeout * PATIENCE;
        loop {
            let tried = match Token::read(&self.place.token) {
                Ok(token) => self.once(&token, ask).await,
                Err(error) => Err(error),
            };
            let wait = backoff.next_wait();
            match tried {
                Err(error) if error.passes() && time::Instant::now() + wait + self.place.timeout <= ends => {
                    tracing::debug!(error = %error.chain(), "the engine is asked again");
                    time::sleep(wait).await;
                }
                done => return done,
            }
        }
    }

    async fn once(&self, token: &Token, ask: &Ask) -> Result<bytes::Bytes, TransitError> {
        let tls = Arc::clone(&self.tls);
        let (status, body): (StatusCode, _) =
            exchange(&self.place, tls, token, ask, self.place.timeout).await?;
        success(&self.place, ask, status, &body)?;
        Ok(body)
    }

    fn nonsense(&self, ask: &Ask, why: String) -> TransitError {
        TransitError::Nonsense {
            ask: ask.name(),
            place: self.place.address.to_string(),
            why,
        }
    }
}
