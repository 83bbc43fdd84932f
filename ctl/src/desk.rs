//! The operator's desk: the bundle in hand, a connection to the master when one is needed, calls with a deadline.

use std::{
    io::{self, BufRead as _, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use picket_clock::Clock;
use picket_link::{Connected, Dial, LinkError, Options};
use picket_pki::{Authorities, Bundle, Holder, Refusal, bundle};
use picket_proto::wire::admin::{
    GetCaRequest, audit_service_client::AuditServiceClient, ca_service_client::CaServiceClient,
    clock_service_client::ClockServiceClient, decky_service_client::DeckyServiceClient,
    deployment_service_client::DeploymentServiceClient, device_service_client::DeviceServiceClient,
    event_service_client::EventServiceClient, host_service_client::HostServiceClient,
    kill_service_client::KillServiceClient, member_service_client::MemberServiceClient,
    moon_service_client::MoonServiceClient, network_service_client::NetworkServiceClient,
    operator_service_client::OperatorServiceClient,
};
use tokio::time;
use tonic::{Response, Status, Streaming, transport::Channel};

use crate::{
    ca,
    cli::Globals,
    config::{self, World},
    fault::{About, Fault},
    print::{Print, Row},
    renew::{self, Kept},
};

/// The longest answer that is taken: a page of hosts has less than a tenth of it.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

/// How long `--watch` leaves a list on the screen.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// The most pages of a list that are asked for: a master that never ends one is not followed for ever.
pub(crate) const MOST_PAGES: usize = 1000;

/// That a list does not end, and how to ask for less.
pub(crate) fn endless(nouns: &str, narrow: &str) -> Fault {
    Fault::Failed(format!(
        "the master's list of {nouns} does not end after {MOST_PAGES} pages; {narrow}"
    ))
}

/// As much of a reply to a question as is read.
const LONGEST_REPLY: u64 = 64;

/// What came of listening to a stream for a while.
pub(crate) enum Heard<T> {
    Message(T),
    /// It goes on, and nothing came.
    Nothing,
    End,
}

/// Everything a command works with.
pub(crate) struct Desk {
    pub(crate) print: Print,
    pub(crate) clock: Clock,
    pub(crate) stdin: Box<dyn Read + Send>,
    pub(crate) someone_is_there: bool,
    timeout: Duration,
    bundle: Option<PathBuf>,
    master: Option<String>,
    home: Option<PathBuf>,
    dial: Arc<dyn Dial>,
    channel: Option<Channel>,
}

macro_rules! clients {
    ($($noun:ident: $client:ident),* $(,)?) => {
        $(pub(crate) async fn $noun(&mut self) -> Result<$client<Channel>, Fault> {
            Ok($client::new(self.channel().await?).max_decoding_message_size(LONGEST_ANSWER))
        })*
    };
}

impl Desk {
    pub(crate) fn new(world: World, globals: &Globals) -> Self {
        let World {
            stdin,
            stdout,
            stderr,
            terminals,
            no_color,
            home,
            clock,
            dial,
        } = world;
        Self {
            print: Print::new(stdout, stderr, terminals, no_color, globals.output),
            clock,
            stdin,
            someone_is_there: terminals.stdin && terminals.stderr,
            timeout: globals.timeout,
            bundle: globals.bundle.clone(),
            master: globals.master.clone(),
            home,
            dial,
            channel: None,
        }
    }

    clients! {
        hosts: HostServiceClient,
        networks: NetworkServiceClient,
        members: MemberServiceClient,
        devices: DeviceServiceClient,
        kills: KillServiceClient,
        moons: MoonServiceClient,
        deployments: DeploymentServiceClient,
        deckies: DeckyServiceClient,
        events: EventServiceClient,
        operators: OperatorServiceClient,
        audit: AuditServiceClient,
        clocks: ClockServiceClient,
        cas: CaServiceClient,
    }

    /// Makes one call, within the deadline.
    pub(crate) async fn call<T>(
        &self,
        about: &About,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Fault> {
        match time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Fault::of(&status, about, self.timeout)),
            Err(_) => Err(Fault::Silent {
                about: about.clone(),
                after: self.timeout,
            }),
        }
    }

    /// The next message of a stream that does not pause by itself, within the deadline.
    pub(crate) async fn next<T>(&self, about: &About, stream: &mut Streaming<T>) -> Result<Option<T>, Fault> {
        match time::timeout(self.timeout, stream.message()).await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(status)) => Err(self.fault(&status, about)),
            Err(_) => Err(Fault::Silent {
                about: about.clone(),
                after: self.timeout,
            }),
        }
    }

    /// The CAs of the operator's bundle.
    pub(crate) fn authorities(&self) -> Result<Authorities, Fault> {
        let bundle = self.kept()?.bundle;
        Authorities::new(bundle.trust_domain, bundle.authorities).map_err(Fault::Authorities)
    }

    /// The operator's home directory.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Puts a status in words that came in the middle of a stream.
    pub(crate) fn fault(&self, status: &Status, about: &About) -> Fault {
        Fault::of(status, about, self.timeout)
    }

    /// Prints a list, once or until interrupted.
    pub(crate) async fn list<R: Row>(
        &mut self,
        watch: bool,
        mut fetch: impl AsyncFnMut(&mut Self) -> Result<Vec<R>, Fault>,
    ) -> Result<(), Fault> {
        if !watch {
            let rows = fetch(self).await?;
            return self.print.list(&rows, self.clock.now());
        }
        loop {
            let rows = fetch(self).await?;
            self.print.list_again(&rows, self.clock.now())?;
            time::sleep(WATCH_EVERY).await;
        }
    }

    /// Asks whether to go on. Where nobody can be asked, nothing happens.
    pub(crate) fn confirm(&mut self, question: &str) -> Result<(), Fault> {
        self.confirm_or(question, &["y", "yes"], "[y/N]", "--yes")
    }

    /// Asks whether to go on, and takes nothing but this word for a yes.
    pub(crate) fn confirm_with(&mut self, question: &str, word: &str, option: &str) -> Result<(), Fault> {
        self.confirm_or(question, &[word], &format!("Type `{word}` to go on:"), option)
    }

    fn confirm_or(&mut self, question: &str, yes: &[&str], how: &str, option: &str) -> Result<(), Fault> {
        if !self.someone_is_there {
            return Err(Fault::Usage(format!(
                "there is nobody to ask whether this is meant; add `{option}`"
            )));
        }
        self.print.ask(&format!("{question} {how} "));
        let mut answer = Vec::new();
        let reply = (&mut self.stdin).take(LONGEST_REPLY);
        // A reply that cannot be read is none, and none is a no.
        drop(io::BufReader::new(reply).read_until(b'\n', &mut answer));
        let answer = answer.trim_ascii().to_ascii_lowercase();
        if yes.iter().any(|yes| yes.as_bytes() == answer) {
            Ok(())
        } else {
            Err(Fault::Declined)
        }
    }

    /// The next message of a stream that may pause, or nothing when none came in time.
    pub(crate) async fn next_within<T>(
        &self,
        about: &About,
        stream: &mut Streaming<T>,
        within: Duration,
    ) -> Result<Heard<T>, Fault> {
        match time::timeout(within, stream.message()).await {
            Ok(Ok(Some(message))) => Ok(Heard::Message(message)),
            Ok(Ok(None)) => Ok(Heard::End),
            Ok(Err(status)) => Err(self.fault(&status, about)),
            Err(_) => Ok(Heard::Nothing),
        }
    }

    /// The connection, made when first needed and kept.
    async fn channel(&mut self) -> Result<Channel, Fault> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let kept = self.kept()?;
        let first = self.connect(&kept.bundle).await;
        // The master was restored from before the renewal, or a copy of this bundle was renewed elsewhere.
        let previous = match &first {
            Err(Fault::Link(LinkError::Refused {
                cause: Refusal::Unknown | Refusal::Spent,
                ..
            })) => kept.previous(self.clock.now()),
            Ok(_) | Err(_) => None,
        };
        let (connected, kept) = match previous {
            Some(previous) => (self.connect(&previous.bundle).await?, previous),
            None => (first?, kept),
        };
        let channel = connected.channel;
        self.channel = Some(channel.clone());
        let kept = self.follow(&channel, kept, &connected.master_der).await;
        renew::renew(self, &channel, &kept).await;
        Ok(channel)
    }

    async fn connect(&self, bundle: &Bundle) -> Result<Connected, Fault> {
        let addresses = self
            .master
            .clone()
            .map_or_else(|| bundle.masters.clone(), |master| vec![master]);
        let authorities = Authorities::new(bundle.trust_domain.clone(), bundle.authorities.clone());
        let authorities = Arc::new(authorities.map_err(Fault::Authorities)?);
        let clock = self.clock.clone();
        let config = picket_pki::client_config(
            Arc::clone(&authorities),
            &bundle.certificate,
            &bundle.key,
            Arc::new(move || clock.unix()),
        )
        .map_err(Fault::Tls)?;
        let options = Options {
            deadline: self.timeout,
            ..Options::default()
        };
        let connected = picket_link::connect(&*self.dial, &addresses, Arc::new(config), options).await;
        connected.map_err(Fault::Link)
    }

    /// Puts the CAs into the bundle that took the place of those in it: when the master shows a certificate of one that
    /// it does not have, and until only one is left. What cannot be done is tried at the next command.
    async fn follow(&mut self, channel: &Channel, kept: Kept, shown: &[u8]) -> Kept {
        let bundle = &kept.bundle;
        let known = Authorities::new(bundle.trust_domain.clone(), bundle.authorities.clone());
        let is_settled = known.is_ok_and(|known| known.signed(shown)) && bundle.authorities.len() == 1;
        if is_settled || kept.is_previous {
            return kept;
        }
        let mut cas = CaServiceClient::new(channel.clone());
        let asked = time::timeout(self.timeout, cas.get_ca(GetCaRequest {})).await;
        let Ok(Ok(answer)) = asked else { return kept };
        let Some(followed) = ca::followed(bundle, answer.get_ref()) else {
            return kept;
        };
        match ca::keep(&kept.file, &followed) {
            Ok(()) => self.print.note("the CA was replaced; the bundle has the new one"),
            Err(fault) => {
                self.print.note(&format!(
                    "the CA was replaced, and the bundle could not be: {fault}"
                ));
                return kept;
            }
        }
        Kept {
            bundle: followed,
            ..kept
        }
    }

    /// The operator's bundle, read and checked.
    fn kept(&self) -> Result<Kept, Fault> {
        let default = || self.home.as_deref().map(config::default_bundle);
        let Some(path) = self.bundle.clone().or_else(default) else {
            return Err(Fault::NoBundle(None));
        };
        if !picket_durable::is_there(&path)? {
            return Err(Fault::NoBundle(Some(path)));
        }
        let limit = u64::try_from(bundle::LONGEST).unwrap_or(u64::MAX);
        let bytes = picket_durable::read_private(&path, limit)?;
        let unusable = |cause| Fault::Bundle {
            path: path.clone(),
            cause,
        };
        let bundle = Bundle::parse(&bytes).map_err(unusable)?;
        if let Holder::Host { name, .. } = &bundle.holder {
            return Err(Fault::NotAnOperator {
                path,
                host: name.clone(),
            });
        }
        let certificate = bundle.check(self.clock.now()).map_err(unusable)?;
        Ok(Kept {
            // What is replaced is the file, and not a link to it.
            file: path.canonicalize().unwrap_or_else(|_| path.clone()),
            bundle,
            certificate,
            is_previous: false,
        })
    }
}
