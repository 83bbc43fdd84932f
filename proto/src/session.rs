//! What opens and ends a session: Hello, Welcome, Leave, and the frames around beats and documents.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    WireError,
    beat::{
        Beat, MOST_BEAT_BYTES, MOST_CHUNK_BYTES, MOST_INLINE_BYTES, MOST_SECTION_BYTES, SectionKind,
        section_kind,
    },
    document::{Document, Kind, Lineage, MOST_PROBLEM_TEXT, Outcome, Stamp, kind, stamp},
    field::{array, present, span, text, time, to_wire_span, to_wire_time},
    node::NodeProof,
    wire::agent as wire,
};

/// The capability of an agent that answers [`FromMaster::Ping`] and knows [`LeaveReason::Quarantined`].
pub const PING: &str = "ping";

/// The capability of an agent that answers [`FromMaster::Look`].
pub const LOOK: &str = "look";

/// The most CAs an agent is told to trust, or says it does.
const MOST_AUTHORITIES: usize = 16;
/// The most certificates that vouch for them.
const MOST_VOUCHERS: usize = 64;
/// The longest certificate.
const LONGEST_CERTIFICATE: usize = 4 * 1024;
/// The most capabilities either side names.
const MOST_CAPABILITIES: usize = 64;

/// Who calls, and what it still holds from earlier sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// `major.minor.patch`.
    pub version: String,
    /// What the agent can do beyond the version's own.
    pub capabilities: Vec<String>,
    /// The machine's id, from its operating system.
    pub machine_id: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// Made anew when the agent's process started.
    pub instance_id: [u8; 16],
    /// The agent's clock.
    pub time: Timestamp,
    /// The documents the agent applied last.
    pub held: Vec<(Kind, Stamp)>,
    /// That its ZeroTier node is its own.
    pub node_proof: Option<NodeProof>,
    /// SHA-256 of each CA certificate the agent trusts, in its order.
    pub authorities: Vec<[u8; 32]>,
}

/// The CAs to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// CA certificates (DER), the one that signs first.
    pub authorities: Vec<Bytes>,
    /// What vouches for them (DER).
    pub cross_signed: Vec<Bytes>,
}

/// The master's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// `major.minor.patch`.
    pub version: String,
    /// What the master can do beyond the version's own.
    pub capabilities: Vec<String>,
    /// What the master refuses to read.
    pub limits: Limits,
    /// How long the agent waits between two beats, before jitter.
    pub beat_interval: Duration,
    /// The master's clock.
    pub time: Timestamp,
    /// The lineage of the master's documents.
    pub lineage: Lineage,
}

/// What a master refuses to read, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one encoded beat.
    pub beat: usize,
    /// A longer section body travels by Report.
    pub inline: usize,
    /// Of one chunk.
    pub chunk: usize,
    /// Of one whole section body.
    pub section: usize,
}

impl Limits {
    /// The limits of this version.
    pub const OURS: Self = Self {
        beat: MOST_BEAT_BYTES,
        inline: MOST_INLINE_BYTES,
        chunk: MOST_CHUNK_BYTES,
        section: MOST_SECTION_BYTES,
    };
}

/// One acknowledged beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeatAck {
    /// The beat's.
    pub sequence: u64,
    /// Another interval from here on.
    pub beat_interval: Option<Duration>,
    /// The sections whose bodies the next beat carries.
    pub unknown: Vec<SectionKind>,
    /// The master's time; older masters say it in Welcome alone.
    pub time: Option<Timestamp>,
}

/// The last message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leave {
    /// Why.
    pub reason: LeaveReason,
    /// One sentence.
    pub message: String,
    /// When to come back, if at all.
    pub retry_after: Option<Duration>,
}

/// Why a master ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveReason {
    /// The master stops or restarts.
    MasterStops,
    /// Leave the managed networks, stop the deckies.
    Banned,
    /// Clean up and do not come back.
    Retired,
    /// Another session of this host took over.
    Replaced,
    /// What was sent broke a limit or the protocol.
    Protocol,
    /// Another machine has a session under this identity and is alive.
    Quarantined,
}

/// From the agent, inside a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromAgent {
    /// First.
    Hello(Hello),
    /// A status report.
    Beat(Beat),
    /// What became of a document.
    Outcome(Outcome),
    /// A planned end, with its reason.
    Goodbye(String),
    /// The answer to [`FromMaster::Ping`], with its number.
    Pong(u64),
    /// The answer to [`FromMaster::Look`], and to those before it.
    Looked {
        /// Its number.
        nonce: u64,
        /// Why the controller could not be read; empty when it was.
        problem: String,
    },
    /// SHA-256 of each CA certificate that is kept as one to trust.
    TrustAck(Vec<[u8; 32]>),
}

/// From the master, inside a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromMaster {
    /// First.
    Welcome(Welcome),
    /// A beat was taken in.
    BeatAck(BeatAck),
    /// A desired document.
    Document(Document),
    /// The end.
    Leave(Leave),
    /// Asks whether the agent is there.
    Ping(u64),
    /// Asks the agent to read its controller now.
    Look(u64),
    /// The CAs to trust.
    Trust(Trust),
}

impl From<&FromAgent> for wire::SessionRequest {
    fn from(message: &FromAgent) -> Self {
        use wire::session_request::Message;
        let message = match message {
            FromAgent::Hello(hello) => Message::Hello(hello.into()),
            FromAgent::Beat(beat) => Message::Beat(beat.into()),
            FromAgent::Outcome(outcome) => Message::Outcome(outcome.into()),
            FromAgent::Goodbye(reason) => Message::Goodbye(wire::Goodbye {
                reason: reason.clone(),
            }),
            FromAgent::Pong(nonce) => Message::Pong(wire::Pong { nonce: *nonce }),
            FromAgent::TrustAck(held) => Message::TrustAck(wire::TrustAck {
                sha256: to_wire_digests(held),
            }),
            FromAgent::Looked { nonce, problem } => Message::Looked(wire::Looked {
                nonce: *nonce,
                problem: problem.clone(),
            }),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<wire::SessionRequest> for FromAgent {
    type Error = WireError;

    fn try_from(request: wire::SessionRequest) -> Result<Self, WireError> {
        use wire::session_request::Message;
        Ok(match present("session_request.message", request.message)? {
            Message::Hello(hello) => Self::Hello(hello.try_into()?),
            Message::Beat(beat) => Self::Beat(beat.try_into()?),
            Message::Outcome(outcome) => Self::Outcome(outcome.try_into()?),
            Message::Goodbye(goodbye) => Self::Goodbye(text("goodbye.reason", goodbye.reason, 256)?),
            Message::Pong(pong) => Self::Pong(pong.nonce),
            Message::TrustAck(ack) => Self::TrustAck(digests("trust_ack.sha256", &ack.sha256)?),
            Message::Looked(looked) => Self::Looked {
                nonce: looked.nonce,
                problem: text("looked.problem", looked.problem, MOST_PROBLEM_TEXT)?,
            },
        })
    }
}

impl From<&FromMaster> for wire::SessionResponse {
    fn from(message: &FromMaster) -> Self {
        use wire::session_response::Message;
        let message = match message {
            FromMaster::Welcome(welcome) => Message::Welcome(welcome.into()),
            FromMaster::BeatAck(ack) => Message::BeatAck(ack.into()),
            FromMaster::Document(document) => Message::Document(document.into()),
            FromMaster::Leave(leave) => Message::Leave(leave.into()),
            FromMaster::Ping(nonce) => Message::Ping(wire::Ping { nonce: *nonce }),
            FromMaster::Look(nonce) => Message::Look(wire::Look { nonce: *nonce }),
            FromMaster::Trust(trust) => Message::Trust(wire::Trust {
                authorities: trust.authorities.clone(),
                cross_signed: trust.cross_signed.clone(),
            }),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<wire::SessionResponse> for FromMaster {
    type Error = WireError;

    fn try_from(response: wire::SessionResponse) -> Result<Self, WireError> {
        use wire::session_response::Message;
        Ok(match present("session_response.message", response.message)? {
            Message::Welcome(welcome) => Self::Welcome(welcome.try_into()?),
            Message::BeatAck(ack) => Self::BeatAck(ack.try_into()?),
            Message::Document(document) => Self::Document(document.try_into()?),
            Message::Leave(leave) => Self::Leave(leave.try_into()?),
            Message::Ping(ping) => Self::Ping(ping.nonce),
            Message::Look(look) => Self::Look(look.nonce),
            Message::Trust(trust) => Self::Trust(Trust {
                authorities: certificates("trust.authorities", trust.authorities, MOST_AUTHORITIES)?,
                cross_signed: certificates("trust.cross_signed", trust.cross_signed, MOST_VOUCHERS)?,
            }),
        })
    }
}

impl From<&Hello> for wire::Hello {
    fn from(hello: &Hello) -> Self {
        let held = |(kind, stamp): &(Kind, Stamp)| wire::Held {
            kind: wire::DocumentKind::from(*kind).into(),
            lineage: Bytes::copy_from_slice(&stamp.lineage.0),
            generation: stamp.generation,
        };
        Self {
            version: hello.version.clone(),
            capabilities: hello.capabilities.clone(),
            machine_id: hello.machine_id.clone(),
            boot_id: hello.boot_id.clone(),
            instance_id: Bytes::copy_from_slice(&hello.instance_id),
            time: Some(to_wire_time(hello.time)),
            held: hello.held.iter().map(held).collect(),
            node_proof: hello.node_proof.as_ref().map(Into::into),
            authorities: to_wire_digests(&hello.authorities),
        }
    }
}

impl TryFrom<wire::Hello> for Hello {
    type Error = WireError;

    fn try_from(hello: wire::Hello) -> Result<Self, WireError> {
        if hello.held.len() > Kind::ALL.len() {
            return Err(WireError::new("hello.held", "names a document kind twice"));
        }
        // A kind this master does not know belongs to a newer agent, and is no business of this master's.
        let known = hello
            .held
            .iter()
            .filter_map(|held| Some((kind(held.kind).ok()?, held)));
        Ok(Self {
            version: text("hello.version", hello.version, 32)?,
            capabilities: capabilities("hello.capabilities", hello.capabilities)?,
            machine_id: text("hello.machine_id", hello.machine_id, 64)?,
            boot_id: text("hello.boot_id", hello.boot_id, 64)?,
            instance_id: array("hello.instance_id", &hello.instance_id)?,
            time: time("hello.time", hello.time)?,
            held: known
                .map(|(kind, held)| Ok((kind, stamp("hello.held.lineage", &held.lineage, held.generation)?)))
                .collect::<Result<_, WireError>>()?,
            node_proof: hello.node_proof.map(NodeProof::try_from).transpose()?,
            authorities: digests("hello.authorities", &hello.authorities)?,
        })
    }
}

fn to_wire_digests(digests: &[[u8; 32]]) -> Vec<Bytes> {
    digests
        .iter()
        .map(|digest| Bytes::copy_from_slice(digest))
        .collect()
}

fn digests(field: &str, digests: &[Bytes]) -> Result<Vec<[u8; 32]>, WireError> {
    few(field, digests.len(), MOST_AUTHORITIES)?;
    digests.iter().map(|digest| array(field, digest)).collect()
}

fn certificates(field: &str, certificates: Vec<Bytes>, most: usize) -> Result<Vec<Bytes>, WireError> {
    few(field, certificates.len(), most)?;
    match certificates.iter().find(|der| der.len() > LONGEST_CERTIFICATE) {
        Some(der) => Err(WireError::new(
            field,
            format_args!("{} bytes in one, at most {LONGEST_CERTIFICATE}", der.len()),
        )),
        None => Ok(certificates),
    }
}

fn few(field: &str, count: usize, most: usize) -> Result<(), WireError> {
    if count > most {
        return Err(WireError::new(
            field,
            format_args!("{count} of them, at most {most}"),
        ));
    }
    Ok(())
}

fn capabilities(field: &str, names: Vec<String>) -> Result<Vec<String>, WireError> {
    if names.len() > MOST_CAPABILITIES {
        return Err(WireError::new(
            field,
            format_args!("{} of them, at most {MOST_CAPABILITIES}", names.len()),
        ));
    }
    names.into_iter().map(|name| text(field, name, 64)).collect()
}

impl From<&Welcome> for wire::Welcome {
    fn from(welcome: &Welcome) -> Self {
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            version: welcome.version.clone(),
            capabilities: welcome.capabilities.clone(),
            limits: Some(wire::Limits {
                beat_bytes: size(welcome.limits.beat),
                inline_bytes: size(welcome.limits.inline),
                chunk_bytes: size(welcome.limits.chunk),
                section_bytes: size(welcome.limits.section),
            }),
            beat_interval: Some(to_wire_span(welcome.beat_interval)),
            time: Some(to_wire_time(welcome.time)),
            lineage: Bytes::copy_from_slice(&welcome.lineage.0),
        }
    }
}

impl TryFrom<wire::Welcome> for Welcome {
    type Error = WireError;

    fn try_from(welcome: wire::Welcome) -> Result<Self, WireError> {
        let limits = present("welcome.limits", welcome.limits)?;
        let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        let interval = span(
            "welcome.beat_interval",
            present("welcome.beat_interval", welcome.beat_interval)?,
        )?;
        Ok(Self {
            version: text("welcome.version", welcome.version, 32)?,
            capabilities: capabilities("welcome.capabilities", welcome.capabilities)?,
            limits: Limits {
                beat: size(limits.beat_bytes),
                inline: size(limits.inline_bytes),
                chunk: size(limits.chunk_bytes).clamp(1, MOST_CHUNK_BYTES),
                section: size(limits.section_bytes),
            },
            beat_interval: sane_interval(interval),
            time: time("welcome.time", welcome.time)?,
            lineage: Lineage(array("welcome.lineage", &welcome.lineage)?),
        })
    }
}

/// An interval an agent is willing to beat at: whatever a master says, not faster than once a second, and often
/// enough to be seen.
fn sane_interval(interval: Duration) -> Duration {
    interval.clamp(Duration::from_secs(1), Duration::from_secs(600))
}

impl From<&BeatAck> for wire::BeatAck {
    fn from(ack: &BeatAck) -> Self {
        Self {
            sequence: ack.sequence,
            beat_interval: ack.beat_interval.map(to_wire_span),
            unknown: ack
                .unknown
                .iter()
                .map(|kind| wire::SectionKind::from(*kind).into())
                .collect(),
            time: ack.time.map(to_wire_time),
        }
    }
}

impl TryFrom<wire::BeatAck> for BeatAck {
    type Error = WireError;

    fn try_from(ack: wire::BeatAck) -> Result<Self, WireError> {
        Ok(Self {
            sequence: ack.sequence,
            beat_interval: ack
                .beat_interval
                .map(|interval| span("beat_ack.beat_interval", interval).map(sane_interval))
                .transpose()?,
            unknown: ack
                .unknown
                .into_iter()
                .map(section_kind)
                .collect::<Result<_, _>>()?,
            time: ack.time.map(|at| time("beat_ack.time", Some(at))).transpose()?,
        })
    }
}

impl From<&Leave> for wire::Leave {
    fn from(leave: &Leave) -> Self {
        Self {
            reason: match leave.reason {
                LeaveReason::MasterStops => wire::LeaveReason::MasterStops,
                LeaveReason::Banned => wire::LeaveReason::Banned,
                LeaveReason::Retired => wire::LeaveReason::Retired,
                LeaveReason::Replaced => wire::LeaveReason::Replaced,
                LeaveReason::Protocol => wire::LeaveReason::Protocol,
                LeaveReason::Quarantined => wire::LeaveReason::Quarantined,
            }
            .into(),
            message: leave.message.clone(),
            retry_after: leave.retry_after.map(to_wire_span),
        }
    }
}

impl TryFrom<wire::Leave> for Leave {
    type Error = WireError;

    fn try_from(leave: wire::Leave) -> Result<Self, WireError> {
        Ok(Self {
            reason: match wire::LeaveReason::try_from(leave.reason) {
                Ok(wire::LeaveReason::MasterStops) => LeaveReason::MasterStops,
                Ok(wire::LeaveReason::Banned) => LeaveReason::Banned,
                Ok(wire::LeaveReason::Retired) => LeaveReason::Retired,
                Ok(wire::LeaveReason::Replaced) => LeaveReason::Replaced,
                Ok(wire::LeaveReason::Protocol) => LeaveReason::Protocol,
                Ok(wire::LeaveReason::Quarantined) => LeaveReason::Quarantined,
                Ok(wire::LeaveReason::Unspecified) | Err(_) => {
                    return Err(WireError::new(
                        "leave.reason",
                        "is none this agent knows; update it",
                    ));
                }
            },
            message: text("leave.message", leave.message, 1024)?,
            retry_after: leave
                .retry_after
                .map(|wait| span("leave.retry_after", wait))
                .transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_with_a_short_instance_id_names_the_field_and_both_lengths() {
        let hello = wire::Hello {
            instance_id: Bytes::from_static(&[1; 15]),
            ..wire::Hello::default()
        };
        assert_eq!(
            Hello::try_from(hello).unwrap_err().to_string(),
            "hello.instance_id: 15 bytes, want 16"
        );
    }

    #[test]
    fn an_agent_reads_no_more_cas_than_it_would_trust_and_none_that_is_too_long() {
        let trust = |authorities: Vec<Bytes>| {
            FromMaster::try_from(wire::SessionResponse {
                message: Some(wire::session_response::Message::Trust(wire::Trust {
                    authorities,
                    cross_signed: Vec::new(),
                })),
            })
        };
        let der = Bytes::from_static(b"der");
        assert!(trust(vec![der.clone(); MOST_AUTHORITIES]).is_ok());
        let many = trust(vec![der; MOST_AUTHORITIES + 1]).unwrap_err().to_string();
        assert_eq!(many, "trust.authorities: 17 of them, at most 16");
        let long = trust(vec![Bytes::from(vec![0; LONGEST_CERTIFICATE + 1])]).unwrap_err();
        assert!(long.to_string().contains("4097 bytes in one"), "{long}");
    }

    #[test]
    fn a_master_cannot_make_an_agent_beat_faster_than_once_a_second() {
        let ack = wire::BeatAck {
            beat_interval: Some(to_wire_span(Duration::from_nanos(1))),
            ..Default::default()
        };
        assert_eq!(
            BeatAck::try_from(ack).unwrap().beat_interval,
            Some(Duration::from_secs(1))
        );
    }
}
