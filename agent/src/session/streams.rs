//! The two directions of a session's stream: Hello and Welcome, messages, the farewell.

use std::time::Duration;

use picket_failpoint::{Point, pass};
use picket_proto::{
    VERSION,
    document::Kind,
    session::{FromAgent, FromMaster, Hello, LOOK, PING, Welcome},
    wire::agent as wire,
};
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::talk::ANSWER;
use crate::{
    machine::Machine,
    master::{Client, MasterError},
    version,
};

/// Messages on their way to the connection. A beat, three outcomes and some more: when this is full the connection has
/// taken nothing for a long time.
const OUTBOUND: usize = 16;
/// How long a farewell may take to be sent.
const GOODBYE: Duration = Duration::from_millis(300);

/// Returns the Hello of this machine.
pub(crate) fn hello(
    machine: &Machine,
    now: jiff::Timestamp,
    held: Vec<(Kind, picket_proto::document::Stamp)>,
) -> Hello {
    Hello {
        version: VERSION.to_owned(),
        capabilities: vec![PING.to_owned(), LOOK.to_owned()],
        machine_id: machine.machine_id.clone(),
        boot_id: machine.boot_id.clone(),
        instance_id: machine.instance_id,
        time: now,
        held,
        node_proof: None,
        authorities: Vec::new(),
    }
}

/// The two directions of an open session.
pub(crate) struct Streams {
    outbound: mpsc::Sender<wire::SessionRequest>,
    inbound: Streaming<wire::SessionResponse>,
}

impl Streams {
    /// Says Hello and waits for the answer.
    pub(crate) async fn open(channel: Channel, hello: Hello) -> Result<(Self, Welcome), MasterError> {
        const WHAT: &str = "open a session";
        let (outbound, requests) = mpsc::channel(OUTBOUND);
        let mut client = Client::new(channel);
        pass(Point::AgentBeforeHello);
        let opening = async {
            let first = wire::SessionRequest::from(&FromAgent::Hello(hello));
            outbound
                .try_send(first)
                .map_err(|_| MasterError::Ended("the connection takes nothing".into()))?;
            let answer = client.session(ReceiverStream::new(requests)).await;
            let inbound = answer
                .map_err(|status| MasterError::call(WHAT, status))?
                .into_inner();
            let mut streams = Self { outbound, inbound };
            match streams.receive().await? {
                FromMaster::Welcome(welcome) => Ok((streams, welcome)),
                FromMaster::Leave(leave) => Err(MasterError::Left(Box::new(leave))),
                FromMaster::BeatAck(_)
                | FromMaster::Document(_)
                | FromMaster::Ping(_)
                | FromMaster::Look(_)
                | FromMaster::Trust(_) => Err(MasterError::Ended("its first message was no Welcome".into())),
            }
        };
        let opened = time::timeout(ANSWER, opening).await;
        let (streams, welcome) = opened.map_err(|_| MasterError::Silent { what: WHAT })??;
        pass(Point::AgentAfterWelcome);
        version::check(VERSION, &welcome.version)?;
        Ok((streams, welcome))
    }

    pub(super) async fn receive(&mut self) -> Result<FromMaster, MasterError> {
        const WHAT: &str = "go on with the session";
        match self
            .inbound
            .message()
            .await
            .map_err(|status| MasterError::call(WHAT, status))?
        {
            Some(message) => Ok(message.try_into()?),
            None => Err(MasterError::Ended("it closed the stream without a word".into())),
        }
    }

    pub(super) fn send(&self, message: &FromAgent) -> Result<(), MasterError> {
        self.outbound
            .try_send(message.into())
            .map_err(|_| MasterError::Ended("the connection takes nothing".into()))
    }

    /// Says goodbye, and waits a moment for the words to leave.
    pub(crate) async fn goodbye(mut self, reason: &str) {
        pass(Point::AgentBeforeGoodbye);
        // A farewell that cannot be said is none the less one.
        drop(self.send(&FromAgent::Goodbye(reason.to_owned())));
        drop(self.outbound);
        let closed = async { while let Ok(Some(_)) = self.inbound.message().await {} };
        drop(time::timeout(GOODBYE, closed).await);
        pass(Point::AgentAfterGoodbye);
    }
}
