//! A master that keeps state and can be told to misbehave. It pins, signs, takes beats and hands out documents.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use picket_clock::Clock;
use picket_link::{Peer, Pipes};
use picket_pki::{
    Authorities, Authority, Bundle, Csr, Fingerprint, Holder, Identity, Key, PinKind, Pins, Presented,
    PublicKey, Role, Standing, lifetime, server_config,
};
use picket_proto::{
    VERSION,
    beat::{Beat, Digest, MOST_INLINE_BYTES, SectionKind, section_kind},
    document::{Contents, Document, Kind, Lineage, Outcome, Stamp},
    session::{BeatAck, FromAgent, FromMaster, Hello, Leave, LeaveReason, Limits, Trust, Welcome},
    status::{ControllerStatus, DeckiesStatus, HostStatus, ZeroTierStatus},
    wire::agent::{
        FetchRequest, FetchResponse, RenewRequest, RenewResponse, ReportRequest, ReportResponse,
        SessionRequest, SessionResponse,
        agent_service_server::{AgentService, AgentServiceServer},
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

pub const ADDRESS: &str = "master.example.org:7443";
pub const LINEAGE: Lineage = Lineage([9; 16]);
const BEAT: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Master {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

struct State {
    authority: Authority,
    pins: BTreeMap<Fingerprint, (Uuid, Standing)>,
    /// Every key a certificate was signed for, and the certificate.
    signed: Vec<(PublicKey, Vec<u8>)>,
    hosts: BTreeMap<String, Uuid>,
    documents: BTreeMap<Kind, Document>,
    bodies: BTreeMap<Digest, Bytes>,
    sessions: Vec<mpsc::Sender<Result<SessionResponse, Status>>>,
    log: Log,
    mood: Mood,
}

/// What the agents said.
#[derive(Default, Clone)]
pub struct Log {
    pub hellos: Vec<Hello>,
    pub beats: Vec<Beat>,
    pub outcomes: Vec<Outcome>,
    pub goodbyes: Vec<String>,
    pub trusted: Vec<Vec<[u8; 32]>>,
    pub reports: usize,
    pub fetches: usize,
}

#[derive(Default)]
struct Mood {
    lose_renew_reply: bool,
    silent: bool,
    version: Option<String>,
    turn_away: Option<LeaveReason>,
}

#[derive(Clone)]
struct Roster(Arc<Mutex<State>>);

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Roster")
    }
}

impl Pins for Roster {
    fn standing(&self, fingerprint: &Fingerprint) -> Standing {
        self.0
            .lock()
            .unwrap()
            .pins
            .get(fingerprint)
            .map_or(Standing::Unknown, |(_, standing)| *standing)
    }
}

impl Master {
    pub fn start(pipes: &Pipes, clock: Clock) -> Self {
        let domain = "example.org".parse().unwrap();
        let authority = Authority::create(&domain, clock.now()).unwrap();
        let key = Key::generate().unwrap();
        let certificate = authority.issue_master(key.public(), &[], clock.now()).unwrap();
        let authorities = Authorities::new(domain, vec![authority.certificate().to_vec()]).unwrap();
        let state = Arc::new(Mutex::new(State {
            authority,
            pins: BTreeMap::new(),
            signed: Vec::new(),
            hosts: BTreeMap::new(),
            documents: BTreeMap::new(),
            bodies: BTreeMap::new(),
            sessions: Vec::new(),
            log: Log::default(),
            mood: Mood::default(),
        }));
        let time = clock.clone();
        let config = Arc::new(
            server_config(
                Arc::new(Presented::new(&certificate.der, &key).unwrap()),
                Arc::new(authorities),
                Role::Host,
                Arc::new(Roster(state.clone())),
                Arc::new(move || time.unix()),
            )
            .unwrap(),
        );
        let master = Self { state, clock };
        let (sender, accepted) = mpsc::channel(16);
        let mut incoming = pipes.listen(ADDRESS);
        tokio::task::spawn(async move {
            while let Some((io, from)) = incoming.accept().await {
                let (config, sender) = (config.clone(), sender.clone());
                tokio::task::spawn(async move {
                    if let Ok(io) = picket_link::accept(io, from, config, Duration::from_secs(10)).await {
                        drop(sender.send(Ok::<_, std::io::Error>(io)).await);
                    }
                });
            }
        });
        let service = AgentServiceServer::new(master.clone());
        tokio::task::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(ReceiverStream::new(accepted)),
        );
        master
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What the agents have said so far.
    pub fn log(&self) -> Log {
        self.state().log.clone()
    }

    /// How many keys certificates were signed for, bundles' included.
    pub fn keys_signed(&self) -> usize {
        self.state().signed.len()
    }

    /// A bundle for a host, new or known, as `picketctl host enroll` would write it.
    pub fn bundle(&self, name: &str) -> Vec<u8> {
        let mut state = self.state();
        let id = *state.hosts.entry(name.to_owned()).or_insert_with(Uuid::new_v4);
        let key = Key::generate().unwrap();
        let issued = state
            .authority
            .issue(
                key.public(),
                &Identity::Host(id),
                lifetime::BUNDLE,
                self.clock.now(),
            )
            .unwrap();
        state
            .pins
            .insert(issued.fingerprint, (id, Standing::Pinned(PinKind::Bundle)));
        let bundle = Bundle {
            holder: Holder::Host {
                id,
                name: name.to_owned(),
            },
            trust_domain: state.authority.trust_domain().clone(),
            masters: vec![ADDRESS.to_owned()],
            authorities: vec![state.authority.certificate().to_vec()],
            certificate: issued.der,
            key,
        };
        bundle.encode().unwrap().as_bytes().to_vec()
    }

    /// Announces a document to every session, and to those that come.
    pub async fn want(&self, contents: Contents, generation: u64) {
        let body = contents.encode();
        let digest = Digest::of(&body);
        let document = Document {
            kind: contents.kind(),
            stamp: Stamp {
                lineage: LINEAGE,
                generation,
            },
            since: 0,
            digest,
            size: body.len() as u64,
            body: (body.len() <= MOST_INLINE_BYTES).then(|| body.clone()),
        };
        self.state().bodies.insert(digest, body);
        self.state().documents.insert(document.kind, document.clone());
        self.tell(&FromMaster::Document(document)).await;
    }

    /// Tells every session to trust the CA that it has and another, with this to vouch for it.
    pub async fn name_another_ca(&self, other: &Authority, vouched: Vec<u8>) {
        let ours = Bytes::copy_from_slice(self.state().authority.certificate());
        let trust = Trust {
            authorities: vec![ours, Bytes::copy_from_slice(other.certificate())],
            cross_signed: vec![vouched.into()],
        };
        self.tell(&FromMaster::Trust(trust)).await;
    }

    /// What the CA signs for another.
    pub fn vouch_for(&self, other: &Authority) -> Vec<u8> {
        let state = self.state();
        state
            .authority
            .cross_sign(other.certificate(), self.clock.now())
            .unwrap()
    }

    /// Ends every session, in words.
    pub async fn leave(&self, reason: LeaveReason) {
        let message = "said the test".to_owned();
        let retry_after = None;
        self.tell(&FromMaster::Leave(Leave {
            reason,
            message,
            retry_after,
        }))
        .await;
        self.state().sessions.clear();
    }

    async fn tell(&self, message: &FromMaster) {
        let sessions = self.state().sessions.clone();
        for session in sessions {
            drop(session.send(Ok(message.into())).await);
        }
    }

    /// Gives every pin of a host this standing.
    pub fn judge(&self, name: &str, standing: Standing) {
        let mut state = self.state();
        let id = state.hosts[name];
        state
            .pins
            .values_mut()
            .filter(|(host, _)| *host == id)
            .for_each(|(_, now)| *now = standing);
    }

    /// Signs at the next Renew, and then breaks off before it answers.
    pub fn lose_next_renew_reply(&self) {
        self.state().mood.lose_renew_reply = true;
    }

    /// Takes beats and does not acknowledge them, or does again.
    pub fn be_silent(&self, silent: bool) {
        self.state().mood.silent = silent;
    }

    /// Answers the next Hello with a farewell.
    pub fn turn_away(&self, reason: LeaveReason) {
        self.state().mood.turn_away = Some(reason);
    }

    /// Says it has this version.
    pub fn claim_version(&self, version: &str) {
        self.state().mood.version = Some(version.to_owned());
    }

    /// Forgets the bodies it was told of, so that it asks for them.
    pub fn forget_bodies(&self) {
        self.state().bodies.clear();
    }

    /// The last ZeroTier section that came, decoded.
    pub fn zerotier(&self) -> Option<ZeroTierStatus> {
        let state = self.state();
        let section = state.log.beats.last()?.section(SectionKind::ZeroTier)?;
        Some(
            ZeroTierStatus::decode(state.bodies.get(&section.digest)?)
                .unwrap()
                .status,
        )
    }

    /// The last section about the controller that came, decoded.
    pub fn controller(&self) -> Option<ControllerStatus> {
        let state = self.state();
        let section = state.log.beats.last()?.section(SectionKind::Controller)?;
        Some(
            ControllerStatus::decode(state.bodies.get(&section.digest)?)
                .unwrap()
                .status,
        )
    }

    /// The last section about deckies that came, decoded.
    pub fn deckies(&self) -> Option<DeckiesStatus> {
        let state = self.state();
        let section = state.log.beats.last()?.section(SectionKind::Deckies)?;
        Some(
            DeckiesStatus::decode(state.bodies.get(&section.digest)?)
                .unwrap()
                .status,
        )
    }

    /// The last section about the host itself that came, decoded.
    pub fn host(&self) -> Option<HostStatus> {
        let state = self.state();
        let section = state.log.beats.last()?.section(SectionKind::Host)?;
        Some(
            HostStatus::decode(state.bodies.get(&section.digest)?)
                .unwrap()
                .status,
        )
    }

    /// Whether it has the bodies that the last beat names.
    pub fn has_all_bodies(&self) -> bool {
        let state = self.state();
        let Some(beat) = state.log.beats.last() else {
            return false;
        };
        beat.sections
            .iter()
            .all(|(_, section)| state.bodies.contains_key(&section.digest))
    }

    fn promote(&self, peer: &Peer) -> Result<(), Status> {
        let mut state = self.state();
        match state.pins.get(&peer.fingerprint) {
            Some((_, Standing::Pinned(PinKind::Current))) => Ok(()),
            Some((id, Standing::Pinned(PinKind::Pending))) => {
                let id = *id;
                for (host, standing) in state.pins.values_mut() {
                    if *host == id {
                        *standing = Standing::Spent;
                    }
                }
                state
                    .pins
                    .insert(peer.fingerprint, (id, Standing::Pinned(PinKind::Current)));
                Ok(())
            }
            Some(_) | None => Err(Status::permission_denied("this certificate may only renew")),
        }
    }

    fn heard(&self, message: FromAgent) -> Option<FromMaster> {
        let mut state = self.state();
        match message {
            FromAgent::Hello(_) | FromAgent::Pong(_) | FromAgent::Looked { .. } => {}
            FromAgent::TrustAck(holds) => state.log.trusted.push(holds),
            FromAgent::Outcome(outcome) => state.log.outcomes.push(outcome),
            FromAgent::Goodbye(reason) => state.log.goodbyes.push(reason),
            FromAgent::Beat(beat) => {
                let mut unknown = Vec::new();
                for (kind, section) in &beat.sections {
                    if let Some(body) = &section.body {
                        state.bodies.insert(section.digest, body.clone());
                    } else if !state.bodies.contains_key(&section.digest) {
                        unknown.push(*kind);
                    }
                }
                let sequence = beat.sequence;
                state.log.beats.push(beat);
                if !state.mood.silent {
                    return Some(FromMaster::BeatAck(BeatAck {
                        sequence,
                        beat_interval: None,
                        unknown,
                        time: Some(self.clock.now()),
                    }));
                }
            }
        }
        None
    }
}

fn peer<T>(request: &Request<T>) -> Peer {
    request.extensions().get::<Peer>().unwrap().clone()
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for Master {
    type SessionStream = Answers<SessionResponse>;
    type FetchStream = Answers<FetchResponse>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        self.promote(&peer(&request))?;
        let mut messages = request.into_inner();
        let first = messages
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("no Hello"))?;
        let Ok(FromAgent::Hello(hello)) = first.try_into() else {
            return Err(Status::invalid_argument("no Hello"));
        };
        let (sender, answers) = mpsc::channel(64);
        let away = self.state().mood.turn_away.take();
        if let Some(reason) = away {
            let leave = FromMaster::Leave(Leave {
                reason,
                message: "said the test".to_owned(),
                retry_after: None,
            });
            sender.send(Ok((&leave).into())).await.unwrap();
            return Ok(Response::new(ReceiverStream::new(answers).boxed()));
        }
        let mut first = vec![FromMaster::Welcome(Welcome {
            version: self
                .state()
                .mood
                .version
                .clone()
                .unwrap_or_else(|| VERSION.to_owned()),
            capabilities: Vec::new(),
            limits: Limits::OURS,
            beat_interval: BEAT,
            time: self.clock.now(),
            lineage: LINEAGE,
        })];
        for document in self.state().documents.values() {
            if !hello.held.contains(&(document.kind, document.stamp)) {
                first.push(FromMaster::Document(document.clone()));
            }
        }
        for message in &first {
            sender.send(Ok(message.into())).await.unwrap();
        }
        {
            let mut state = self.state();
            state.log.hellos.push(hello);
            state.sessions = vec![sender.clone()];
        }
        let master = self.clone();
        tokio::task::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                if let Some(answer) = master.heard(message.try_into().unwrap()) {
                    drop(sender.send(Ok((&answer).into())).await);
                }
            }
            // The agent has said its last: what is left of the session ends with it.
            let mut state = master.state();
            state.sessions.retain(|session| !session.same_channel(&sender));
        });
        Ok(Response::new(ReceiverStream::new(answers).boxed()))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let peer = peer(&request);
        let csr = Csr::parse(&request.into_inner().csr)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut state = self.state();
        let (id, standing) = state.pins[&peer.fingerprint];
        let known = state
            .signed
            .iter()
            .find(|(key, _)| key == csr.public_key())
            .cloned();
        let certificate = match known {
            Some((_, certificate)) => certificate,
            None => {
                let spent = standing == Standing::Pinned(PinKind::Bundle)
                    && state.pins.values().any(|(host, standing)| {
                        *host == id && *standing == Standing::Pinned(PinKind::Pending)
                    });
                if spent {
                    return Err(Status::permission_denied("this bundle was used with another key"));
                }
                let issued = state
                    .authority
                    .issue(
                        csr.public_key(),
                        &Identity::Host(id),
                        lifetime::HOST,
                        self.clock.now(),
                    )
                    .unwrap();
                state
                    .pins
                    .insert(issued.fingerprint, (id, Standing::Pinned(PinKind::Pending)));
                state.signed.push((csr.public_key().clone(), issued.der.clone()));
                issued.der
            }
        };
        if std::mem::take(&mut state.mood.lose_renew_reply) {
            return Err(Status::unavailable("the reply was lost on its way"));
        }
        Ok(Response::new(RenewResponse {
            certificate: certificate.into(),
            authorities: vec![Bytes::copy_from_slice(state.authority.certificate())],
            cross_signed: Vec::new(),
        }))
    }

    async fn report(
        &self,
        request: Request<Streaming<ReportRequest>>,
    ) -> Result<Response<ReportResponse>, Status> {
        let mut chunks = request.into_inner();
        let (mut body, mut digest) = (Vec::new(), [0; 32]);
        while let Some(chunk) = chunks.message().await? {
            section_kind(chunk.kind).map_err(|error| Status::invalid_argument(error.to_string()))?;
            digest = chunk.sha256[..].try_into().unwrap();
            assert_eq!(chunk.offset, body.len() as u64);
            body.extend_from_slice(&chunk.chunk);
        }
        assert_eq!(Digest::of(&body), Digest(digest));
        let held = body.len() as u64;
        let mut state = self.state();
        state.log.reports += 1;
        state.bodies.insert(Digest(digest), body.into());
        Ok(Response::new(ReportResponse { held }))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        state.log.fetches += 1;
        let digest = Digest(request.sha256[..].try_into().unwrap());
        let body = state.bodies[&digest].clone();
        // Breaks off after one chunk the first time, so that the agent must go on from there.
        let chunks = if state.log.fetches == 1 { 1 } else { usize::MAX };
        let offset = usize::try_from(request.offset).unwrap();
        let parts: Vec<_> = (offset..body.len())
            .step_by(64 * 1024)
            .take(chunks)
            .map(|at| {
                Ok(FetchResponse {
                    offset: at as u64,
                    chunk: body.slice(at..body.len().min(at + 64 * 1024)),
                })
            })
            .collect();
        Ok(Response::new(tokio_stream::iter(parts).boxed()))
    }
}
