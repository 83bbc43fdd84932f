//! A session that a story speaks by hand, for what no agent of ours says.

use picket_link::Connected;
use picket_proto::{
    VERSION,
    session::PING,
    wire::agent::{
        Beat, DeckiesStatus, Hello, Leave, NodeProof, Pong, Section, SessionRequest, SessionResponse,
        ZeroTierStatus, agent_service_client::AgentServiceClient, session_request, session_response,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use picket_proto::beat::Digest;

/// An open session.
pub struct Conversation {
    to_master: mpsc::Sender<SessionRequest>,
    from_master: Streaming<SessionResponse>,
}

impl Conversation {
    /// Opens a session and says Hello, as an agent that answers no pings.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn open(connected: &Connected) -> Result<Self, Status> {
        Self::open_as(connected, "a story", false, None).await
    }

    /// Opens a session and shows this for a ZeroTier node.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn open_with(connected: &Connected, node_proof: Option<NodeProof>) -> Result<Self, Status> {
        Self::open_as(connected, "a story", false, node_proof).await
    }

    /// Opens a session and says Hello from a machine, as an agent that answers pings or as one that is too old to.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn open_on(connected: &Connected, machine: &str, answers: bool) -> Result<Self, Status> {
        Self::open_as(connected, machine, answers, None).await
    }

    async fn open_as(
        connected: &Connected,
        machine: &str,
        answers: bool,
        node_proof: Option<NodeProof>,
    ) -> Result<Self, Status> {
        let (to_master, requests) = mpsc::channel(16);
        let hello = Hello {
            version: VERSION.to_owned(),
            capabilities: answers.then(|| PING.to_owned()).into_iter().collect(),
            machine_id: machine.to_owned(),
            boot_id: machine.to_owned(),
            instance_id: vec![7; 16].into(),
            time: Some(std::time::SystemTime::UNIX_EPOCH.into()),
            node_proof,
            ..Default::default()
        };
        let hello = SessionRequest {
            message: Some(session_request::Message::Hello(hello)),
        };
        to_master.try_send(hello).expect("an empty channel takes one");
        let mut client = AgentServiceClient::new(connected.channel.clone());
        let from_master = client.session(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Self {
            to_master,
            from_master,
        })
    }

    /// Listens until the master welcomes it.
    ///
    /// # Errors
    /// With the master's last word, when it sends it away.
    pub async fn welcomed(&mut self) -> Result<(), Leave> {
        loop {
            match self.hear().await {
                Some(session_response::Message::Welcome(_)) => return Ok(()),
                Some(session_response::Message::Leave(leave)) => return Err(leave),
                Some(_) => {}
                None => panic!("the master ends it without a word"),
            }
        }
    }

    /// Answers pings until the session ends, and returns the last word. Never returns while it goes on.
    pub async fn answer_pings(mut self) -> Leave {
        loop {
            match self.hear().await {
                Some(session_response::Message::Ping(ping)) => {
                    let pong = SessionRequest {
                        message: Some(session_request::Message::Pong(Pong { nonce: ping.nonce })),
                    };
                    // A master that ends the session takes nothing more, and says so next.
                    drop(self.to_master.send(pong).await);
                }
                Some(session_response::Message::Leave(leave)) => return leave,
                Some(_) => {}
                None => panic!("the master ends it without a word"),
            }
        }
    }

    /// Says a beat with these deckies.
    pub async fn beat(&self, sequence: u64, deckies: &DeckiesStatus) {
        self.say(Beat {
            sequence,
            deckies: Some(section(deckies)),
            ..Default::default()
        })
        .await;
    }

    /// Says a beat with this ZeroTier service.
    pub async fn beat_zerotier(&self, sequence: u64, zerotier: &ZeroTierStatus) {
        self.say(Beat {
            sequence,
            zerotier: Some(section(zerotier)),
            ..Default::default()
        })
        .await;
    }

    async fn say(&self, beat: Beat) {
        let beat = Beat {
            time: Some(std::time::SystemTime::UNIX_EPOCH.into()),
            ..beat
        };
        let beat = SessionRequest {
            message: Some(session_request::Message::Beat(beat)),
        };
        self.to_master
            .send(beat)
            .await
            .expect("the master takes messages");
    }

    /// Listens until a beat is acknowledged.
    ///
    /// # Panics
    /// When the master ends the session instead.
    pub async fn acknowledged(&mut self) -> u64 {
        loop {
            match self.hear().await {
                Some(session_response::Message::BeatAck(ack)) => return ack.sequence,
                Some(session_response::Message::Leave(leave)) => {
                    panic!("the master ends it: {}", leave.message)
                }
                Some(
                    session_response::Message::Welcome(_)
                    | session_response::Message::Document(_)
                    | session_response::Message::Ping(_)
                    | session_response::Message::Look(_)
                    | session_response::Message::Trust(_),
                ) => {}
                None => panic!("the master ends it without a word"),
            }
        }
    }

    /// Listens until the master ends the session, and returns its last word.
    ///
    /// # Panics
    /// When there is none.
    pub async fn last_word(&mut self) -> Leave {
        loop {
            match self.hear().await {
                Some(session_response::Message::Leave(leave)) => return leave,
                Some(_) => {}
                None => panic!("the master ends it without a word"),
            }
        }
    }

    async fn hear(&mut self) -> Option<session_response::Message> {
        let heard = self.from_master.message().await;
        heard
            .unwrap_or_else(|status| panic!("the session broke: {status}"))
            .and_then(|response| response.message)
    }
}

fn section(status: &impl prost::Message) -> Section {
    let body = status.encode_to_vec();
    Section {
        sha256: Digest::of(&body).0.to_vec().into(),
        body: Some(body.into()),
    }
}
