//! Beats: which sections travel with their bodies, which by digest alone, and which by Report.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use picket_clock::{Instant, Reading};
use picket_proto::{
    beat::{Beat, Digest, Section, SectionKind},
    session::{BeatAck, Limits},
};

use crate::observed::{Body, Sections};

/// What an encoded beat has besides its bodies: sequence, time, four digests and the fields around them.
const AROUND: usize = 512;
/// Beats that wait for their acknowledgement; a session that has more is given up long before.
const MOST_UNANSWERED: usize = 64;

/// The beats of one session.
#[derive(Debug)]
pub(crate) struct Beats {
    limits: Limits,
    sequence: u64,
    /// What the master has.
    told: BTreeMap<SectionKind, Digest>,
    unanswered: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    sequence: u64,
    at: Instant,
    /// The same by the boot clock.
    boot: Duration,
    carried: Vec<(SectionKind, Digest)>,
}

impl Beats {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            sequence: 0,
            told: BTreeMap::new(),
            unanswered: VecDeque::new(),
        }
    }

    /// The next beat, taken as sent at `at`, which is `now` by the wall and boot clocks.
    ///
    /// A section that must travel by Report keeps the digest the master has until the report has arrived.
    pub(crate) fn compose(&mut self, now: Reading, at: Instant, sections: &Sections) -> Beat {
        let inline = self.inline(sections);
        let mut carried = Vec::new();
        let mut section = |kind: SectionKind, body: &Body| {
            let told = self.told.get(&kind).copied();
            let (digest, bytes) = if told == Some(body.digest) {
                (body.digest, None)
            } else if inline.contains(&kind) {
                carried.push((kind, body.digest));
                (body.digest, Some(body.bytes.clone()))
            } else {
                (told.unwrap_or(body.digest), None)
            };
            (kind, Section { digest, body: bytes })
        };
        let sections = sections.iter().map(|(kind, body)| section(*kind, body)).collect();
        self.sequence += 1;
        if self.unanswered.len() >= MOST_UNANSWERED {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(Sent {
            sequence: self.sequence,
            at,
            boot: now.boot,
            carried,
        });
        Beat {
            sequence: self.sequence,
            time: now.wall,
            sections,
        }
    }

    /// The sections that the master lacks and that no beat has room for.
    pub(crate) fn to_report(&self, sections: &Sections) -> Vec<(SectionKind, Body)> {
        let inline = self.inline(sections);
        let lacks = |kind: &SectionKind, body: &Body| self.told.get(kind) != Some(&body.digest);
        sections
            .iter()
            .filter(|(kind, body)| lacks(kind, body) && !inline.contains(kind))
            .filter(|(_, body)| body.bytes.len() <= self.limits.section)
            .map(|(kind, body)| (*kind, body.clone()))
            .collect()
    }

    /// Notes that a report has arrived.
    pub(crate) fn reported(&mut self, kind: SectionKind, digest: Digest) {
        self.told.insert(kind, digest);
    }

    /// Takes an acknowledgement. Returns whether the master lacks something it was not just sent, so that the next
    /// beat is worth sending soon.
    pub(crate) fn acknowledged(&mut self, ack: &BeatAck) -> bool {
        let mut carried = Vec::new();
        while self
            .unanswered
            .front()
            .is_some_and(|sent| sent.sequence <= ack.sequence)
        {
            carried.extend(
                self.unanswered
                    .pop_front()
                    .into_iter()
                    .flat_map(|sent| sent.carried),
            );
        }
        for (kind, digest) in &carried {
            self.told.insert(*kind, *digest);
        }
        for kind in &ack.unknown {
            self.told.remove(kind);
        }
        let was_sent = |kind: &SectionKind| carried.iter().any(|(sent, _)| sent == kind);
        ack.unknown.iter().any(|kind| !was_sent(kind))
    }

    /// When the oldest beat without an acknowledgement was sent.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.unanswered.front().map(|sent| sent.at)
    }

    /// When a beat was sent that has no acknowledgement so far, by the boot clock too.
    pub(crate) fn sent_at(&self, sequence: u64) -> Option<(Instant, Duration)> {
        let sent = self.unanswered.iter().find(|sent| sent.sequence == sequence)?;
        Some((sent.at, sent.boot))
    }

    /// The sections whose bodies fit into one beat together, the short ones first.
    fn inline(&self, sections: &Sections) -> Vec<SectionKind> {
        let mut lacking: Vec<_> = sections
            .iter()
            .filter(|(kind, body)| self.told.get(*kind) != Some(&body.digest))
            .map(|(kind, body)| (body.bytes.len(), *kind))
            .collect();
        lacking.sort_unstable();
        let mut room = self.limits.beat.saturating_sub(AROUND);
        let mut inline = Vec::new();
        for (length, kind) in lacking {
            if length <= self.limits.inline && length <= room {
                room -= length;
                inline.push(kind);
            }
        }
        inline
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use picket_proto::wire::agent as wire;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    const NEVER: Reading = Reading {
        wall: jiff::Timestamp::UNIX_EPOCH,
        boot: Duration::ZERO,
    };

    fn sections(lengths: [usize; 4]) -> Sections {
        let body = |(kind, length): (SectionKind, usize)| (kind, Body::from(Bytes::from(vec![7; length])));
        SectionKind::ALL.into_iter().zip(lengths).map(body).collect()
    }

    fn ack(sequence: u64, unknown: &[SectionKind]) -> BeatAck {
        BeatAck {
            sequence,
            beat_interval: None,
            unknown: unknown.to_vec(),
            time: None,
        }
    }

    fn compose(beats: &mut Beats, sections: &Sections) -> Beat {
        beats.compose(NEVER, Instant::now(), sections)
    }

    fn bodies(beat: &Beat) -> Vec<SectionKind> {
        let with_body = beat.sections.iter().filter(|(_, section)| section.body.is_some());
        with_body.map(|(kind, _)| *kind).collect()
    }

    #[test]
    fn the_first_beat_is_full_and_an_acknowledged_one_is_followed_by_digests_alone() {
        let mut beats = Beats::new(Limits::OURS);
        let sections = sections([10, 20, 30, 40]);
        assert_eq!(bodies(&compose(&mut beats, &sections)).len(), 4);
        assert_eq!(
            bodies(&compose(&mut beats, &sections)).len(),
            4,
            "nothing is told before it is acknowledged"
        );
        assert!(!beats.acknowledged(&ack(2, &[])));
        assert_eq!(bodies(&compose(&mut beats, &sections)), []);
        assert_eq!(beats.sequence, 3);
    }

    #[test]
    fn what_the_master_asks_for_is_sent_again_and_soon() {
        let mut beats = Beats::new(Limits::OURS);
        let sections = sections([10, 20, 30, 40]);
        compose(&mut beats, &sections);
        beats.acknowledged(&ack(1, &[]));
        compose(&mut beats, &sections);
        assert!(beats.acknowledged(&ack(2, &[SectionKind::Deckies])));
        assert_eq!(bodies(&compose(&mut beats, &sections)), [SectionKind::Deckies]);
        // A master that goes on asking is answered at the usual pace.
        assert!(!beats.acknowledged(&ack(3, &[SectionKind::Deckies])));
    }

    #[test]
    fn a_long_section_is_named_by_its_new_digest_only_after_its_report() {
        let mut beats = Beats::new(Limits::OURS);
        let mut have = sections([10, 20, 30, 40]);
        compose(&mut beats, &have);
        beats.acknowledged(&ack(1, &[]));
        let old = have[&SectionKind::Controller].digest;
        let long = Body::from(Bytes::from(vec![1; Limits::OURS.inline + 1]));
        have.insert(SectionKind::Controller, long.clone());
        assert_eq!(
            compose(&mut beats, &have)
                .section(SectionKind::Controller)
                .unwrap()
                .digest,
            old
        );
        assert_eq!(beats.to_report(&have), [(SectionKind::Controller, long.clone())]);
        beats.reported(SectionKind::Controller, long.digest);
        let beat = compose(&mut beats, &have);
        assert_eq!(beat.section(SectionKind::Controller).unwrap().digest, long.digest);
        assert_eq!((bodies(&beat), beats.to_report(&have)), (vec![], vec![]));
    }

    #[test]
    fn the_wait_for_an_acknowledgement_counts_from_the_oldest_beat() {
        let mut beats = Beats::new(Limits::OURS);
        let first = Instant::now();
        beats.compose(NEVER, first, &Sections::new());
        let second = first + std::time::Duration::from_secs(30);
        beats.compose(NEVER, second, &Sections::new());
        assert_eq!(beats.waiting_since(), Some(first));
        beats.acknowledged(&ack(1, &[]));
        assert_eq!(beats.waiting_since(), Some(second));
    }

    proptest! {
        #[test]
        fn no_beat_is_over_the_limit_and_every_section_travels_one_way_or_the_other(
            lengths in prop::array::uniform4(0_usize..40_000),
        ) {
            let mut beats = Beats::new(Limits::OURS);
            let have = sections(lengths);
            let reports = beats.to_report(&have);
            let beat = compose(&mut beats, &have);
            prop_assert_eq!(bodies(&beat).len() + reports.len(), 4);
            prop_assert!(wire::Beat::from(&beat).encoded_len() <= Limits::OURS.beat);
        }
    }
}
