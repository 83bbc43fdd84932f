//! A thin agent: it dials, opens a session and beats as `picket-agent` does, over the same connector and messages.

use std::time::Duration;

use picket_clock::{Clock, Instant};
use picket_link::{Connected, LinkError, Options, Tcp};
use picket_pki::Key;
use picket_proto::{
    VERSION, WireError,
    beat::{Beat, Section, SectionKind},
    document::{Document, Outcome, OutcomeStatus},
    session::{BeatAck, FromAgent, FromMaster, Hello},
    wire::agent::{RenewRequest, SessionRequest, SessionResponse, agent_service_client::AgentServiceClient},
};
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::site::{Host, Site, SiteError};

/// As a real agent's: a beat, three outcomes and some more.
const OUTBOUND: usize = 16;
/// How long an answer may take. Flat out every agent waits for all others, on a machine that may have other work.
const ANSWER: Duration = Duration::from_secs(120);

/// Why an agent does not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It has no identity to dial with.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// There is no connection.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The server refused the session, or broke it.
    #[error("the server broke the session: {} ({:?})", .0.message(), .0.code())]
    Call(#[from] Box<Status>),
    /// The server ended the session.
    #[error("the server ended the session: {0}")]
    Ended(String),
    /// The server does not answer.
    #[error("the server did not answer within {} s", ANSWER.as_secs())]
    Silent,
    /// The server sent something else than it should.
    #[error("expected {wanted}, the server sent {seen:?}")]
    Other {
        /// What should have come.
        wanted: &'static str,
        /// What came.
        seen: Box<FromMaster>,
    },
    /// What the server sent makes no sense.
    #[error("what the server sent makes no sense")]
    Nonsense(#[from] WireError),
    /// A beat of digests alone was not enough.
    #[error("the server asks again for {0:?}, which it was told before")]
    Forgotten(Vec<SectionKind>),
}

/// An agent in a session.
#[derive(Debug)]
pub struct Agent {
    outbound: mpsc::Sender<SessionRequest>,
    inbound: Streaming<SessionResponse>,
    clock: Clock,
    sequence: u64,
    sections: Vec<(SectionKind, Section)>,
    documents: Vec<Document>,
    name: String,
    connected: Connected,
}

impl Agent {
    /// Dials `address` as `host`, says Hello and waits for Welcome.
    ///
    /// # Errors
    /// When there is no session.
    pub async fn open(
        address: &str,
        site: &Site,
        host: &Host,
        sections: Vec<(SectionKind, Section)>,
    ) -> Result<Self, AgentError> {
        let tls = site.tls(host)?;
        let options = Options {
            deadline: ANSWER,
            ..Options::default()
        };
        let connected = picket_link::connect(&Tcp::default(), &[address.to_owned()], tls, options).await?;
        let (outbound, requests) = mpsc::channel(OUTBOUND);
        let clock = site.clock().clone();
        say(&outbound, &FromAgent::Hello(hello(host, &clock)))?;
        let mut client = AgentServiceClient::new(connected.channel.clone());
        let opening = client.session(ReceiverStream::new(requests));
        let answer = time::timeout(ANSWER, opening)
            .await
            .map_err(|_| AgentError::Silent)?;
        let mut agent = Self {
            outbound,
            inbound: answer.map_err(Box::new)?.into_inner(),
            clock,
            sequence: 0,
            sections,
            documents: Vec::new(),
            name: host.name().to_string(),
            connected,
        };
        match agent.receive().await? {
            FromMaster::Welcome(_) => Ok(agent),
            seen @ (FromMaster::BeatAck(_)
            | FromMaster::Document(_)
            | FromMaster::Leave(_)
            | FromMaster::Ping(_)
            | FromMaster::Look(_)
            | FromMaster::Trust(_)) => Err(other("a Welcome", seen)),
        }
    }

    /// Beats in full, and says of every document that came that it is in effect. From here on beats are digests alone.
    ///
    /// # Errors
    /// When the session breaks.
    pub async fn report(&mut self) -> Result<(), AgentError> {
        self.exchange().await?;
        for (_, section) in &mut self.sections {
            section.body = None;
        }
        for document in self.documents.drain(..) {
            let outcome = Outcome {
                kind: document.kind,
                stamp: document.stamp,
                status: OutcomeStatus::Done,
                problems: Vec::new(),
            };
            say(&self.outbound, &FromAgent::Outcome(outcome))?;
        }
        Ok(())
    }

    /// Beats that nothing changed, and returns how long the acknowledgement took.
    ///
    /// # Errors
    /// When the session breaks, or the server does not know what it was told.
    pub async fn beat(&mut self) -> Result<Duration, AgentError> {
        let began = Instant::now();
        let ack = self.exchange().await?;
        if ack.unknown.is_empty() {
            Ok(began.elapsed())
        } else {
            Err(AgentError::Forgotten(ack.unknown))
        }
    }

    /// What the master calls its host.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// Has a certificate signed for a new key, as an agent at work does.
    ///
    /// # Errors
    /// When the master refuses.
    pub async fn renew(&self) -> Result<(), AgentError> {
        let key = Key::generate().map_err(SiteError::from)?;
        let csr = key.csr().map_err(SiteError::from)?.into();
        let mut client = AgentServiceClient::new(self.connected.channel.clone());
        let renewing = time::timeout(ANSWER, client.renew(RenewRequest { csr }));
        let answer = renewing.await.map_err(|_| AgentError::Silent)?;
        answer.map(drop).map_err(|status| Box::new(status).into())
    }

    /// Waits until the master ends the session, and returns when that was.
    ///
    /// # Errors
    /// When it does not.
    pub async fn until_cut(mut self) -> Result<Instant, AgentError> {
        loop {
            match self.receive().await {
                Ok(_) => {}
                Err(AgentError::Ended(_) | AgentError::Call(_)) => return Ok(Instant::now()),
                Err(error) => return Err(error),
            }
        }
    }

    async fn exchange(&mut self) -> Result<BeatAck, AgentError> {
        self.sequence += 1;
        let beat = Beat {
            sequence: self.sequence,
            time: self.clock.now(),
            sections: self.sections.clone(),
        };
        say(&self.outbound, &FromAgent::Beat(beat))?;
        loop {
            match self.receive().await? {
                FromMaster::Document(document) => self.documents.push(document),
                FromMaster::BeatAck(ack) if ack.sequence == self.sequence => return Ok(ack),
                FromMaster::Ping(nonce) => say(&self.outbound, &FromAgent::Pong(nonce))?,
                seen @ (FromMaster::Welcome(_)
                | FromMaster::BeatAck(_)
                | FromMaster::Leave(_)
                | FromMaster::Look(_)
                | FromMaster::Trust(_)) => {
                    return Err(other("the acknowledgement of the last beat", seen));
                }
            }
        }
    }

    async fn receive(&mut self) -> Result<FromMaster, AgentError> {
        let message = time::timeout(ANSWER, self.inbound.message())
            .await
            .map_err(|_| AgentError::Silent)?;
        match message.map_err(Box::new)? {
            Some(message) => Ok(message.try_into()?),
            None => Err(AgentError::Ended(
                "it closed the stream without a word".to_owned(),
            )),
        }
    }
}

fn say(outbound: &mpsc::Sender<SessionRequest>, message: &FromAgent) -> Result<(), AgentError> {
    outbound
        .try_send(message.into())
        .map_err(|_| AgentError::Ended("the connection takes nothing".to_owned()))
}

fn other(wanted: &'static str, seen: FromMaster) -> AgentError {
    match seen {
        FromMaster::Leave(leave) => AgentError::Ended(leave.message),
        seen @ (FromMaster::Welcome(_)
        | FromMaster::BeatAck(_)
        | FromMaster::Document(_)
        | FromMaster::Ping(_)
        | FromMaster::Look(_)
        | FromMaster::Trust(_)) => AgentError::Other {
            wanted,
            seen: Box::new(seen),
        },
    }
}

fn hello(host: &Host, clock: &Clock) -> Hello {
    let id = u128::from(host.number) + (1 << 100);
    Hello {
        version: VERSION.to_owned(),
        capabilities: Vec::new(),
        machine_id: format!("{id:032x}"),
        boot_id: uuid::Uuid::from_u128(id).to_string(),
        instance_id: id.to_be_bytes(),
        time: clock.now(),
        held: Vec::new(),
        node_proof: None,
        authorities: Vec::new(),
    }
}
