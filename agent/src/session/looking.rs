//! What the master asked to have looked at: from its question until it has what was seen since.

use picket_proto::{
    beat::{Beat, Digest, SectionKind},
    session::{BeatAck, FromAgent},
};

use crate::{
    observed::Sections,
    question::{Answer, Question},
};

/// Who is asked, and in this order: how things are by the rules, and then what is there.
#[derive(Debug, Clone)]
pub(crate) struct Looks {
    pub(crate) members: Question,
    /// None where nobody reads the service.
    pub(crate) reader: Option<Question>,
}

impl Looks {
    /// Has the controller's section made anew.
    pub(super) async fn look(self) -> Answer {
        let Some(reader) = self.reader else {
            return Err("ZeroTier is switched off here (zerotier.enabled in agent.toml)".to_owned());
        };
        self.members.ask().await?;
        reader.ask().await
    }
}

/// Questions of the master, of which one is looked at a time. An answer holds for those before it too.
#[derive(Debug, Default)]
pub(super) struct Looking {
    /// The newest that is not looked at yet.
    asked: Option<u64>,
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// It is being looked at.
    Begun(u64),
    /// It was, and no beat has said so.
    Seen(u64),
    /// The beat of this sequence does.
    Told(u64, u64),
}

impl Looking {
    /// The master asks.
    pub(super) fn asked(&mut self, nonce: u64) {
        self.asked = self.asked.max(Some(nonce));
    }

    /// Whether it is to be looked now.
    pub(super) fn begins(&mut self) -> bool {
        let Stage::Idle = self.stage else { return false };
        let Some(nonce) = self.asked.take() else {
            return false;
        };
        self.stage = Stage::Begun(nonce);
        true
    }

    /// Notes how looking went. Returns what to say at once.
    pub(super) fn looked(&mut self, answer: Answer) -> Option<FromAgent> {
        let Stage::Begun(nonce) = self.stage else {
            return None;
        };
        match answer {
            Ok(()) => {
                self.stage = Stage::Seen(nonce);
                None
            }
            Err(problem) => {
                self.stage = Stage::Idle;
                Some(FromAgent::Looked { nonce, problem })
            }
        }
    }

    /// Whether a beat is to say what was seen.
    pub(super) fn is_untold(&self) -> bool {
        matches!(self.stage, Stage::Seen(_))
    }

    /// Notes a beat. One whose section travels by Report names the one before until that has arrived.
    pub(super) fn beat(&mut self, beat: &Beat, sections: &Sections) {
        let named: Option<Digest> = beat
            .section(SectionKind::Controller)
            .map(|section| section.digest);
        let seen = sections.get(&SectionKind::Controller).map(|body| body.digest);
        if let Stage::Seen(nonce) = self.stage
            && named == seen
        {
            self.stage = Stage::Told(nonce, beat.sequence);
        }
    }

    /// Notes an acknowledgement. Returns what to say when the master has what was seen.
    pub(super) fn acknowledged(&mut self, ack: &BeatAck) -> Option<FromAgent> {
        let Stage::Told(nonce, sequence) = self.stage else {
            return None;
        };
        if ack.sequence < sequence {
            return None;
        }
        if ack.unknown.contains(&SectionKind::Controller) {
            self.stage = Stage::Seen(nonce);
            return None;
        }
        self.stage = Stage::Idle;
        Some(FromAgent::Looked {
            nonce,
            problem: String::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use picket_proto::beat::Section;

    use super::*;
    use crate::observed::Body;

    fn sections(bytes: &'static [u8]) -> Sections {
        let body = Body::from(Bytes::from_static(bytes));
        [(SectionKind::Controller, body)].into()
    }

    fn beat(sequence: u64, of: &'static [u8]) -> Beat {
        let section = Section {
            digest: Digest::of(of),
            body: None,
        };
        Beat {
            sequence,
            time: jiff::Timestamp::UNIX_EPOCH,
            sections: vec![(SectionKind::Controller, section)],
        }
    }

    fn ack(sequence: u64, unknown: &[SectionKind]) -> BeatAck {
        BeatAck {
            sequence,
            beat_interval: None,
            unknown: unknown.to_vec(),
            time: None,
        }
    }

    fn answer(nonce: u64) -> Option<FromAgent> {
        Some(FromAgent::Looked {
            nonce,
            problem: String::new(),
        })
    }

    fn looked(nonce: u64) -> Looking {
        let mut looking = Looking::default();
        looking.asked(nonce);
        assert!(looking.begins());
        assert_eq!(looking.looked(Ok(())), None);
        looking
    }

    #[test]
    fn the_answer_comes_when_the_master_acknowledged_what_was_seen_and_not_what_was_known_before() {
        let mut looking = looked(7);
        looking.beat(&beat(3, b"before"), &sections(b"after"));
        assert_eq!(
            looking.acknowledged(&ack(3, &[])),
            None,
            "its report is under way"
        );
        looking.beat(&beat(4, b"after"), &sections(b"after"));
        assert_eq!(looking.acknowledged(&ack(3, &[])), None);
        assert_eq!(looking.acknowledged(&ack(4, &[])), answer(7));
        assert_eq!(looking.acknowledged(&ack(5, &[])), None, "once");
    }

    #[test]
    fn a_master_that_does_not_have_the_section_is_told_again_first() {
        let mut looking = looked(7);
        looking.beat(&beat(1, b"it"), &sections(b"it"));
        assert_eq!(looking.acknowledged(&ack(1, &[SectionKind::Controller])), None);
        looking.beat(&beat(2, b"it"), &sections(b"it"));
        assert_eq!(looking.acknowledged(&ack(2, &[])), answer(7));
    }

    #[test]
    fn whoever_asks_meanwhile_has_it_looked_at_once_more_and_all_of_them_together() {
        let mut looking = looked(1);
        for nonce in 2..=200 {
            looking.asked(nonce);
            assert!(!looking.begins());
        }
        looking.beat(&beat(1, b"it"), &sections(b"it"));
        assert_eq!(looking.acknowledged(&ack(1, &[])), answer(1));
        assert!(looking.begins());
        let problem = "it is down".to_owned();
        assert_eq!(
            looking.looked(Err(problem.clone())),
            Some(FromAgent::Looked { nonce: 200, problem })
        );
        assert!(!looking.begins());
    }
}
