//! A session that a story speaks by hand, for what no agent of ours says.

use picket_link::Connected;
use picket_proto::{
    VERSION,
    wire::agent::{
        Beat, DeckiesStatus, Hello, Leave, Section, SessionRequest, SessionResponse,
        agent_service_client::AgentServiceClient, session_request, session_response,
    },
};
use prost::Message as _;
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
    /// Opens a session and says Hello.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn open(connected: &Connected) -> Result<Self, Status> {
        let (to_master, requests) = mpsc::channel(16);
        let hello = Hello {
            version: VERSION.to_owned(),
            machine_id: "a story".to_owned(),
            boot_id: "a story".to_owned(),
            instance_id: vec![7; 16].into(),
            time: Some(std::time::SystemTime::UNIX_EPOCH.into()),
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

    /// Says a beat with these deckies.
    pub async fn beat(&self, sequence: u64, deckies: &DeckiesStatus) {
        let body = deckies.encode_to_vec();
        let section = Section {
            sha256: Digest::of(&body).0.to_vec().into(),
            body: Some(body.into()),
        };
        let time = Some(std::time::SystemTime::UNIX_EPOCH.into());
        let beat = Beat {
            sequence,
            time,
            deckies: Some(section),
            ..Default::default()
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
