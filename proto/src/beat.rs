//! Beats: what an agent says of its machine, in sections under their digests.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    WireError,
    field::{array, time},
    wire::agent as wire,
};

/// The longest encoded beat a master reads.
pub const MOST_BEAT_BYTES: usize = 64 * 1024;
/// A longer section or document body does not travel inside the session.
pub const MOST_INLINE_BYTES: usize = 16 * 1024;
/// The longest chunk of a body in Report and Fetch.
pub const MOST_CHUNK_BYTES: usize = 64 * 1024;
/// The longest section body. A controller with 10,000 members reports about 1 MiB.
pub const MOST_SECTION_BYTES: usize = 4 * 1024 * 1024;
/// The longest document body.
pub const MOST_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;

/// SHA-256 of a body's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `body`.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The part of a beat a section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SectionKind {
    /// The local ZeroTier service.
    ZeroTier,
    /// The networks and members of the local controller.
    Controller,
    /// The deckies.
    Deckies,
    /// The machine and the agent.
    Host,
}

impl SectionKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::ZeroTier, Self::Controller, Self::Deckies, Self::Host];
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ZeroTier => "zerotier",
            Self::Controller => "controller",
            Self::Deckies => "deckies",
            Self::Host => "host",
        })
    }
}

/// One part of a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// SHA-256 of the body as sent.
    pub digest: Digest,
    /// Absent when the master was told before, or when it travels by Report.
    pub body: Option<Bytes>,
}

/// One status report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Counts up by one within a session, from 1.
    pub sequence: u64,
    /// The agent's clock, to the second.
    pub time: Timestamp,
    /// What there is; a part that does not exist on the machine is absent.
    pub sections: Vec<(SectionKind, Section)>,
}

impl Beat {
    /// The section of a kind.
    #[must_use]
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections
            .iter()
            .find(|(have, _)| *have == kind)
            .map(|(_, section)| section)
    }
}

impl From<&Beat> for wire::Beat {
    fn from(beat: &Beat) -> Self {
        let section = |kind| {
            beat.section(kind).map(|section| wire::Section {
                sha256: Bytes::copy_from_slice(&section.digest.0),
                body: section.body.clone(),
            })
        };
        Self {
            sequence: beat.sequence,
            // Whole seconds: skew is judged in tens of seconds, and every beat carries these bytes.
            time: Some(prost_types::Timestamp {
                seconds: beat.time.as_second(),
                nanos: 0,
            }),
            zerotier: section(SectionKind::ZeroTier),
            controller: section(SectionKind::Controller),
            deckies: section(SectionKind::Deckies),
            host: section(SectionKind::Host),
        }
    }
}

impl TryFrom<wire::Beat> for Beat {
    type Error = WireError;

    fn try_from(beat: wire::Beat) -> Result<Self, WireError> {
        let parts = [
            (SectionKind::ZeroTier, beat.zerotier),
            (SectionKind::Controller, beat.controller),
            (SectionKind::Deckies, beat.deckies),
            (SectionKind::Host, beat.host),
        ];
        let mut sections = Vec::with_capacity(parts.len());
        for (kind, part) in parts {
            let Some(part) = part else { continue };
            let section = Section {
                digest: Digest(array("beat.section.sha256", &part.sha256)?),
                body: part.body,
            };
            if let Some(body) = &section.body
                && Digest::of(body) != section.digest
            {
                return Err(WireError::new(
                    format!("beat.{kind}"),
                    "is not what its digest says",
                ));
            }
            sections.push((kind, section));
        }
        Ok(Self {
            sequence: beat.sequence,
            time: time("beat.time", beat.time)?,
            sections,
        })
    }
}

impl From<SectionKind> for wire::SectionKind {
    fn from(kind: SectionKind) -> Self {
        match kind {
            SectionKind::ZeroTier => Self::Zerotier,
            SectionKind::Controller => Self::Controller,
            SectionKind::Deckies => Self::Deckies,
            SectionKind::Host => Self::Host,
        }
    }
}

/// Reads a section kind from the wire.
///
/// # Errors
/// A kind this version does not know.
pub fn section_kind(value: i32) -> Result<SectionKind, WireError> {
    match wire::SectionKind::try_from(value) {
        Ok(wire::SectionKind::Zerotier) => Ok(SectionKind::ZeroTier),
        Ok(wire::SectionKind::Controller) => Ok(SectionKind::Controller),
        Ok(wire::SectionKind::Deckies) => Ok(SectionKind::Deckies),
        Ok(wire::SectionKind::Host) => Ok(SectionKind::Host),
        Ok(wire::SectionKind::Unspecified) | Err(_) => Err(WireError::new(
            "kind",
            format_args!("{value} is no section kind this version knows"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// What goes around a message of this size on the wire: gRPC 5, HTTP/2 frame 9, TLS record 5 + 1 + 16.
    const AROUND: usize = 36;

    #[test]
    fn an_unchanged_beat_with_every_section_takes_at_most_200_bytes_on_the_wire() {
        let section = |kind| {
            (
                kind,
                Section {
                    digest: Digest::of(b"body"),
                    body: None,
                },
            )
        };
        let beat = Beat {
            sequence: 10_000,
            time: "2026-11-22T18:00:00Z".parse().unwrap(),
            sections: SectionKind::ALL.map(section).to_vec(),
        };
        let message = wire::SessionRequest {
            message: Some(wire::session_request::Message::Beat((&beat).into())),
        };
        assert!(
            message.encoded_len() + AROUND <= 200,
            "{} bytes",
            message.encoded_len() + AROUND
        );
    }

    #[test]
    fn a_section_whose_body_is_not_what_the_digest_says_is_refused() {
        let beat = wire::Beat {
            sequence: 1,
            time: Some(prost_types::Timestamp::default()),
            host: Some(wire::Section {
                sha256: Bytes::copy_from_slice(&Digest::of(b"a").0),
                body: Some(Bytes::from_static(b"b")),
            }),
            ..wire::Beat::default()
        };
        assert_eq!(Beat::try_from(beat).unwrap_err().field, "beat.host");
    }
}
