//! Desired documents: what the master wants of one host, numbered by lineage and generation.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::{
    WireError,
    beat::Digest,
    field::{array, text},
    rules::Members,
    shard::{ReadShard, Shard},
    stay::Stay,
    wire::agent as wire,
};

/// The most problems one outcome names.
pub const MOST_PROBLEMS: usize = 64;
/// The most characters of a problem's subject or message that are kept.
pub const MOST_PROBLEM_TEXT: usize = 512;

/// Which of a host's desired documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The networks the host is to be on.
    Networks,
    /// Who is authorized on the networks of the host's controller.
    Members,
    /// The deckies the host is to run.
    Shard,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Networks, Self::Members, Self::Shard];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Networks => "networks",
            Self::Members => "members",
            Self::Shard => "shard",
        })
    }
}

/// Which history a master's generations belong to. A restore without the journal's tail begins another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(pub [u8; 16]);

/// A document's number: lineage, and the generation within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The history the generation counts in.
    pub lineage: Lineage,
    /// Counts up with every change.
    pub generation: u64,
}

/// One announced document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Which.
    pub kind: Kind,
    /// Its number.
    pub stamp: Stamp,
    /// The body holds only what changed after this generation; 0 for a whole document.
    pub since: u64,
    /// SHA-256 of the body.
    pub digest: Digest,
    /// The body's length in bytes.
    pub size: u64,
    /// The body, unless it is too long for the session.
    pub body: Option<Bytes>,
}

/// A document's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// The networks to be on.
    Networks(Stay),
    /// Whether each node is authorized.
    Members(Members),
    /// The deckies to run.
    Shard(Shard),
}

impl Contents {
    /// Which document this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Networks(_) => Kind::Networks,
            Self::Members(_) => Kind::Members,
            Self::Shard(_) => Kind::Shard,
        }
    }

    /// The body as it travels; the same contents always give the same bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Networks(stay) => stay.to_wire().encode_to_vec(),
            Self::Members(members) => members.to_wire().encode_to_vec(),
            Self::Shard(shard) => wire::ShardDocument::from(shard).encode_to_vec(),
        }
        .into()
    }

    /// Reads a body. Entries that make no sense are skipped and named.
    ///
    /// # Errors
    /// When the bytes are no message of the kind at all.
    pub fn decode(kind: Kind, body: &[u8]) -> Result<(Self, Vec<(String, WireError)>), WireError> {
        let broken = |error: prost::DecodeError| WireError::new(format!("{kind} document"), error);
        Ok(match kind {
            Kind::Networks => {
                let (stay, skipped) = Stay::from_wire(wire::NetworksDocument::decode(body).map_err(broken)?);
                (Self::Networks(stay), skipped)
            }
            Kind::Members => {
                let document = wire::MembersDocument::decode(body).map_err(broken)?;
                let (members, skipped) = Members::from_wire(document);
                (Self::Members(members), skipped)
            }
            Kind::Shard => {
                let read = ReadShard::from(wire::ShardDocument::decode(body).map_err(broken)?);
                (Self::Shard(read.shard), read.skipped)
            }
        })
    }
}

/// What became of one desired document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which.
    pub kind: Kind,
    /// Its number.
    pub stamp: Stamp,
    /// How it ended.
    pub status: OutcomeStatus,
    /// What is not done and why.
    pub problems: Vec<Problem>,
}

/// How an attempt at a document ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeStatus {
    /// Everything in it is true on the machine.
    Done,
    /// Refused for its content; not offered again unchanged.
    Failed,
    /// A service is down or did not answer; tried again for ever.
    Blocked,
}

impl fmt::Display for OutcomeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Blocked => "blocked",
        })
    }
}

/// One thing that is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// A network id, a member as `network/node`, a decky's name.
    pub subject: String,
    /// One sentence.
    pub message: String,
}

impl Problem {
    /// A problem of `subject`; overlong texts are cut.
    pub fn new(subject: impl fmt::Display, message: impl fmt::Display) -> Self {
        let cut = |text: String| text.chars().take(MOST_PROBLEM_TEXT).collect();
        Self {
            subject: cut(subject.to_string()),
            message: cut(message.to_string()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

impl From<Kind> for wire::DocumentKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Networks => Self::Networks,
            Kind::Members => Self::Members,
            Kind::Shard => Self::Shard,
        }
    }
}

/// Reads a document kind from the wire.
///
/// # Errors
/// A kind this version does not know.
pub fn kind(value: i32) -> Result<Kind, WireError> {
    match wire::DocumentKind::try_from(value) {
        Ok(wire::DocumentKind::Networks) => Ok(Kind::Networks),
        Ok(wire::DocumentKind::Members) => Ok(Kind::Members),
        Ok(wire::DocumentKind::Shard) => Ok(Kind::Shard),
        Ok(wire::DocumentKind::Unspecified) | Err(_) => Err(WireError::new(
            "kind",
            format_args!("{value} is no document kind this version knows"),
        )),
    }
}

pub(crate) fn stamp(field: &str, lineage: &[u8], generation: u64) -> Result<Stamp, WireError> {
    Ok(Stamp {
        lineage: Lineage(array(field, lineage)?),
        generation,
    })
}

impl From<&Document> for wire::Document {
    fn from(document: &Document) -> Self {
        Self {
            kind: wire::DocumentKind::from(document.kind).into(),
            lineage: Bytes::copy_from_slice(&document.stamp.lineage.0),
            generation: document.stamp.generation,
            since: document.since,
            sha256: Bytes::copy_from_slice(&document.digest.0),
            size: document.size,
            body: document.body.clone(),
        }
    }
}

impl TryFrom<wire::Document> for Document {
    type Error = WireError;

    fn try_from(document: wire::Document) -> Result<Self, WireError> {
        let read = Self {
            kind: kind(document.kind)?,
            stamp: stamp("document.lineage", &document.lineage, document.generation)?,
            since: document.since,
            digest: Digest(array("document.sha256", &document.sha256)?),
            size: document.size,
            body: document.body,
        };
        if let Some(body) = &read.body
            && (Digest::of(body) != read.digest || body.len() as u64 != read.size)
        {
            return Err(WireError::new(
                "document.body",
                "is not what its digest and size say",
            ));
        }
        Ok(read)
    }
}

impl From<&Outcome> for wire::Outcome {
    fn from(outcome: &Outcome) -> Self {
        let problem = |p: &Problem| wire::Problem {
            subject: p.subject.clone(),
            message: p.message.clone(),
        };
        Self {
            kind: wire::DocumentKind::from(outcome.kind).into(),
            lineage: Bytes::copy_from_slice(&outcome.stamp.lineage.0),
            generation: outcome.stamp.generation,
            status: match outcome.status {
                OutcomeStatus::Done => wire::OutcomeStatus::Done,
                OutcomeStatus::Failed => wire::OutcomeStatus::Failed,
                OutcomeStatus::Blocked => wire::OutcomeStatus::Blocked,
            }
            .into(),
            problems: outcome.problems.iter().take(MOST_PROBLEMS).map(problem).collect(),
        }
    }
}

impl TryFrom<wire::Outcome> for Outcome {
    type Error = WireError;

    fn try_from(outcome: wire::Outcome) -> Result<Self, WireError> {
        if outcome.problems.len() > MOST_PROBLEMS {
            return Err(WireError::new(
                "outcome.problems",
                format_args!("{} problems, at most {MOST_PROBLEMS}", outcome.problems.len()),
            ));
        }
        let problem = |p: wire::Problem| {
            Ok(Problem {
                subject: text("outcome.problem.subject", p.subject, MOST_PROBLEM_TEXT)?,
                message: text("outcome.problem.message", p.message, MOST_PROBLEM_TEXT)?,
            })
        };
        Ok(Self {
            kind: kind(outcome.kind)?,
            stamp: stamp("outcome.lineage", &outcome.lineage, outcome.generation)?,
            status: match wire::OutcomeStatus::try_from(outcome.status) {
                Ok(wire::OutcomeStatus::Done) => OutcomeStatus::Done,
                Ok(wire::OutcomeStatus::Failed) => OutcomeStatus::Failed,
                Ok(wire::OutcomeStatus::Blocked) => OutcomeStatus::Blocked,
                Ok(wire::OutcomeStatus::Unspecified) | Err(_) => {
                    return Err(WireError::new("outcome.status", "is none this version knows"));
                }
            },
            problems: outcome
                .problems
                .into_iter()
                .map(problem)
                .collect::<Result<_, WireError>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use picket_zerotier::ids::{NetworkId, NodeId};

    use super::*;
    use crate::rules::Rule;

    #[test]
    fn contents_read_back_as_they_were_written_and_always_as_the_same_bytes() {
        let network: NetworkId = "5350d87547c880cb".parse().unwrap();
        let node: NodeId = "39966434ba".parse().unwrap();
        for contents in [
            Contents::Networks(Stay::on([network])),
            Contents::Members(Members {
                rules: [((network, node), Rule::plain(true))].into(),
                ..Members::default()
            }),
            Contents::Shard(Shard::default()),
        ] {
            let body = contents.encode();
            assert_eq!(body, contents.encode());
            assert_eq!(
                Contents::decode(contents.kind(), &body).unwrap(),
                (contents, Vec::new())
            );
        }
    }

    #[test]
    fn a_member_rule_with_a_12_digit_node_is_skipped_and_named() {
        let body = wire::MembersDocument {
            rules: vec![wire::MemberRule {
                network_id: "5350d87547c880cb".into(),
                node_id: "39966434ba00".into(),
                authorized: true,
                ..Default::default()
            }],
            ..Default::default()
        }
        .encode_to_vec();
        let (contents, skipped) = Contents::decode(Kind::Members, &body).unwrap();
        assert_eq!(contents, Contents::Members(Members::default()));
        assert_eq!(skipped[0].0, "5350d87547c880cb/39966434ba00");
    }

    #[test]
    fn a_body_that_is_not_what_its_digest_says_is_refused() {
        let mut document = wire::Document::from(&Document {
            kind: Kind::Networks,
            stamp: Stamp {
                lineage: Lineage([7; 16]),
                generation: 3,
            },
            since: 0,
            digest: Digest::of(b""),
            size: 0,
            body: Some(Bytes::new()),
        });
        document.body = Some(Bytes::from_static(b"x"));
        assert_eq!(Document::try_from(document).unwrap_err().field, "document.body");
    }
}
