//! The succession of CAs: which one signs, which ones are trusted, and who has heard of them.
//!
//! Plain functions of two kinds of records. What they say comes into force in [`work`]; the keys are in [`keys`].

pub mod keys;
pub mod work;

use std::collections::{BTreeMap, HashMap};

use data_encoding::BASE64;
use jiff::{SignedDuration, Timestamp};
use picket_pki::{CertificateError, Fingerprint, Issuer, lifetime};
use picket_proto::host::HostId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    record::{Record, RecordError},
    store::{Key, Revision},
};

/// Everything about CAs, in the store.
pub const PREFIX: &str = "ca/";
/// The succession.
const ROOTS: &str = "ca/roots";
/// Who holds which CAs, in as many records as the first byte of a host's id has values.
const HELD: &str = "ca/held/";

/// For how long after it was retired a CA's pinned certificates may still renew: as long as the longest lived one, and
/// the 30 days in which one that has ended may renew.
const REMEMBERED: SignedDuration = SignedDuration::from_hours((30 + 30 + 5) * 24);
/// The most CAs on record. Those that nothing needs are forgotten when another is prepared.
const MOST: usize = 8;
/// A CA that ends within this time is told of.
pub const ENDING: SignedDuration = SignedDuration::from_hours(365 * 24);

/// How far a CA has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is being made known and signs nothing.
    Prepared,
    /// It signs.
    Active,
    /// It signs nothing more, and what it signed is good.
    Outgoing,
    /// What it signed and is pinned may renew.
    Retired,
    /// What it signed is good for nothing.
    Distrusted,
}

/// One CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
    /// Its certificate.
    pub certificate: Der,
    /// How far it has come.
    pub phase: Phase,
    /// The CA that vouches for it, and the certificate by which it does.
    #[serde(default)]
    pub vouched: Option<Vouched>,
    /// When it was made.
    pub prepared_at: Timestamp,
    /// From when it signed.
    #[serde(default)]
    pub activated_at: Option<Timestamp>,
    /// From when it was trusted no more.
    #[serde(default)]
    pub retired_at: Option<Timestamp>,
}

/// A CA's word for its successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouched {
    /// Which CA gave it.
    pub by: Fingerprint,
    /// The certificate.
    pub certificate: Der,
}

/// A certificate (DER), kept as base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Der(pub Vec<u8>);

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let der = BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        Ok(Self(der))
    }
}

/// The CAs there were, the oldest first. Exactly one is active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct CaRecord {
    /// All of them.
    pub roots: Vec<Root>,
}

/// A succession as it is read.
#[derive(Deserialize)]
struct Unchecked {
    roots: Vec<Root>,
}

impl TryFrom<Unchecked> for CaRecord {
    type Error = &'static str;

    fn try_from(read: Unchecked) -> Result<Self, Self::Error> {
        let in_phase = |phase| read.roots.iter().filter(|root| root.phase == phase).count();
        if in_phase(Phase::Active) != 1 || in_phase(Phase::Prepared) > 1 {
            return Err("not exactly one CA is active, or several are prepared");
        }
        Ok(Self { roots: read.roots })
    }
}

/// Which CAs the hosts of one record said they trust, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRecord {
    /// The first byte of the hosts' ids.
    pub part: u8,
    /// By host. One that is not here trusts the first CA there was.
    pub hosts: BTreeMap<HostId, Vec<Fingerprint>>,
}

impl Record for CaRecord {
    fn key(&self) -> Key {
        key()
    }
}

impl Record for HeldRecord {
    fn key(&self) -> Key {
        Key::new(format!("{HELD}{:02x}", self.part)).expect("two digits are printable and short")
    }
}

/// Where the succession is kept.
#[must_use]
pub fn key() -> Key {
    Key::new(ROOTS).expect("a plain word is printable and short")
}

/// In which record a host is.
#[must_use]
pub fn part(host: HostId) -> u8 {
    host.0.as_bytes()[0]
}

impl CaRecord {
    /// The succession as long as there was one CA.
    #[must_use]
    pub fn first(certificate: &[u8], at: Timestamp) -> Self {
        Self {
            roots: vec![Root {
                activated_at: Some(at),
                phase: Phase::Active,
                ..Root::made(certificate, at)
            }],
        }
    }

    /// The one that signs.
    ///
    /// # Panics
    /// When there is none, which no change of this record brings about.
    #[must_use]
    pub fn active(&self) -> &Root {
        let mut active = self.roots.iter().filter(|root| root.phase == Phase::Active);
        active.next().expect("one CA is active")
    }

    /// The one that is being made known.
    #[must_use]
    pub fn prepared(&self) -> Option<&Root> {
        self.roots.iter().find(|root| root.phase == Phase::Prepared)
    }

    /// Those that signed before the active one and are trusted still.
    pub fn outgoing(&self) -> impl Iterator<Item = &Root> {
        self.roots.iter().filter(|root| root.phase == Phase::Outgoing)
    }

    /// Those that hosts and operators are to trust, the one that signs first.
    #[must_use]
    pub fn trusted(&self) -> Vec<&Root> {
        std::iter::once(self.active())
            .chain(self.prepared())
            .chain(self.outgoing())
            .collect()
    }

    /// The fingerprints of [`Self::trusted`].
    #[must_use]
    pub fn wanted(&self) -> Vec<Fingerprint> {
        self.trusted().iter().map(|root| root.fingerprint).collect()
    }

    /// Those whose certificates the master looks at, at `now`: the ones that signed, as long as something they signed
    /// may be pinned.
    #[must_use]
    pub fn looked_at(&self, now: Timestamp) -> Vec<&Root> {
        let is = |root: &&Root| match root.phase {
            Phase::Active | Phase::Outgoing => true,
            Phase::Retired => root.is_remembered(now),
            Phase::Prepared | Phase::Distrusted => false,
        };
        self.roots.iter().filter(is).collect()
    }

    /// The certificates by which those who trust an earlier CA find the way to the active and the prepared one, at `now`.
    #[must_use]
    pub fn way(&self, now: Timestamp) -> Vec<Vec<u8>> {
        let stands = |voucher: Fingerprint| {
            self.roots.iter().any(|root| {
                root.fingerprint == voucher
                    && match root.phase {
                        Phase::Prepared | Phase::Distrusted => false,
                        Phase::Active | Phase::Outgoing => true,
                        Phase::Retired => root.is_remembered(now),
                    }
            })
        };
        let vouched = self.roots.iter().filter(|root| root.phase != Phase::Distrusted);
        // The newest first: that is the order of a chain.
        let mut way: Vec<_> = vouched
            .filter_map(|root| root.vouched.as_ref())
            .filter(|vouched| stands(vouched.by))
            .map(|vouched| vouched.certificate.0.clone())
            .collect();
        way.reverse();
        way
    }

    /// Which CA signed what, by the name in certificates.
    ///
    /// # Errors
    /// When a certificate on record cannot be read.
    pub fn issuers(&self) -> Result<HashMap<Issuer, Phase>, CertificateError> {
        let issuer = |root: &Root| Ok((Issuer::of_authority(&root.certificate.0)?, root.phase));
        self.roots.iter().map(issuer).collect()
    }

    /// Puts a CA on record that is to be made known.
    pub fn prepare(&mut self, certificate: &[u8], vouched: Vouched, now: Timestamp) {
        self.forget(now);
        self.roots.push(Root {
            vouched: Some(vouched),
            ..Root::made(certificate, now)
        });
    }

    /// Takes the prepared CA off the record, whose key cannot be had: nothing was signed with it.
    pub fn give_up_prepared(&mut self) {
        self.roots.retain(|root| root.phase != Phase::Prepared);
    }

    /// Makes the prepared CA the active one; returns whether there was one.
    pub fn activate(&mut self, now: Timestamp) -> bool {
        if self.prepared().is_none() {
            return false;
        }
        for root in &mut self.roots {
            match root.phase {
                Phase::Active => root.phase = Phase::Outgoing,
                Phase::Prepared => {
                    root.phase = Phase::Active;
                    root.activated_at = Some(now);
                }
                Phase::Outgoing | Phase::Retired | Phase::Distrusted => {}
            }
        }
        true
    }

    /// Makes another CA the active one that nobody vouches for, and trusts no other.
    pub fn replace(&mut self, certificate: &[u8], now: Timestamp) {
        for root in &mut self.roots {
            root.leave(Phase::Distrusted, now);
        }
        self.forget(now);
        self.roots.push(Root {
            phase: Phase::Active,
            activated_at: Some(now),
            ..Root::made(certificate, now)
        });
    }

    /// Retires every CA before the active one, or distrusts it when a key is in wrong hands; then retired ones are
    /// distrusted too. Returns those whose phase this changed.
    pub fn retire(&mut self, compromised: bool, now: Timestamp) -> Vec<Fingerprint> {
        let to = if compromised {
            Phase::Distrusted
        } else {
            Phase::Retired
        };
        let concerned = |phase| phase == Phase::Outgoing || compromised && phase == Phase::Retired;
        let mut changed = Vec::new();
        for root in self.roots.iter_mut().filter(|root| concerned(root.phase)) {
            root.leave(to, now);
            changed.push(root.fingerprint);
        }
        changed
    }

    /// Drops the oldest of those that nothing needs any more, so that there is room for one.
    fn forget(&mut self, now: Timestamp) {
        while self.roots.len() >= MOST {
            let unneeded = |root: &Root| match root.phase {
                Phase::Distrusted => true,
                Phase::Retired => !root.is_remembered(now),
                Phase::Prepared | Phase::Active | Phase::Outgoing => false,
            };
            // What is remembered goes before what works.
            let oldest = self
                .roots
                .iter()
                .position(unneeded)
                .or_else(|| self.roots.iter().position(|root| root.phase == Phase::Retired));
            match oldest {
                Some(oldest) => drop(self.roots.remove(oldest)),
                None => return,
            }
        }
    }
}

impl Root {
    fn made(certificate: &[u8], at: Timestamp) -> Self {
        Self {
            fingerprint: Fingerprint::of(certificate),
            certificate: Der(certificate.to_vec()),
            phase: Phase::Prepared,
            vouched: None,
            prepared_at: at,
            activated_at: None,
            retired_at: None,
        }
    }

    fn leave(&mut self, to: Phase, now: Timestamp) {
        self.phase = to;
        if to == Phase::Distrusted {
            // What was made until now lay beside a key that is in wrong hands.
            self.retired_at = Some(now);
        }
        self.retired_at.get_or_insert(now);
    }

    fn is_remembered(&self, now: Timestamp) -> bool {
        self.retired_at
            .is_none_or(|at| now.duration_since(at) < REMEMBERED)
    }

    /// Whether a bundle that ends at `not_after` was made since this CA signs.
    #[must_use]
    pub fn signed_since(&self, not_after: Timestamp) -> bool {
        self.activated_at
            .is_none_or(|at| not_after.duration_since(at) >= lifetime::BUNDLE)
    }
}

/// A host that is not where the rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Straggler {
    /// What it is called.
    pub name: String,
    /// The CAs it is to trust and has not said it does.
    pub lacks: Vec<Fingerprint>,
    /// Whether the certificate it works under was signed by a CA that is not active.
    pub under_earlier: bool,
}

/// What is known of one host that may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What it is called.
    pub name: String,
    /// The CAs it said it trusts.
    pub holds: Vec<Fingerprint>,
    /// Whether the certificate it works under was signed by a CA that is not active.
    pub under_earlier: bool,
}

/// The hosts that are not where the rotation is, in the order they come.
pub fn stragglers(record: &CaRecord, hosts: impl IntoIterator<Item = Known>) -> Vec<Straggler> {
    // Those that go are no loss to whoever does not have them.
    let wanted: Vec<Fingerprint> = std::iter::once(record.active())
        .chain(record.prepared())
        .map(|root| root.fingerprint)
        .collect();
    let straggler = |known: Known| {
        let lacks: Vec<_> = wanted
            .iter()
            .filter(|root| !known.holds.contains(root))
            .copied()
            .collect();
        (!lacks.is_empty() || known.under_earlier).then_some(Straggler {
            name: known.name,
            lacks,
            under_earlier: known.under_earlier,
        })
    };
    hosts.into_iter().filter_map(straggler).collect()
}

/// The names of the hosts that keep `root` from becoming active: they would not know it.
#[must_use]
pub fn lacking(stragglers: &[Straggler], root: Fingerprint) -> Vec<String> {
    let lacking = stragglers
        .iter()
        .filter(|straggler| straggler.lacks.contains(&root));
    lacking.map(|straggler| straggler.name.clone()).collect()
}

/// The names of the hosts that keep earlier CAs from being retired: they work under one.
#[must_use]
pub fn behind(stragglers: &[Straggler]) -> Vec<String> {
    let behind = stragglers.iter().filter(|straggler| straggler.under_earlier);
    behind.map(|straggler| straggler.name.clone()).collect()
}

/// The records as they are in memory.
#[derive(Debug, Default)]
pub struct View {
    record: Option<(CaRecord, Revision)>,
    held: HashMap<HostId, Vec<Fingerprint>>,
}

impl View {
    /// Takes a record in. Returns whether it changes the succession.
    ///
    /// # Errors
    /// When the value is no record of its key.
    pub fn put(&mut self, key: &Key, value: &[u8], revision: Revision) -> Result<bool, RecordError> {
        if key.as_str() == ROOTS {
            self.record = Some((CaRecord::read(key, value)?, revision));
            return Ok(true);
        }
        if key.as_str().starts_with(HELD) {
            let record = HeldRecord::read(key, value)?;
            self.held.retain(|host, _| part(*host) != record.part);
            self.held.extend(record.hosts);
        }
        Ok(false)
    }

    /// The succession and the revision that wrote it; none as long as there was one CA.
    #[must_use]
    pub fn record(&self) -> Option<&(CaRecord, Revision)> {
        self.record.as_ref()
    }

    /// How many CAs are trusted no more for what they signed.
    #[must_use]
    pub fn distrusted(&self) -> usize {
        let roots = self.record.iter().flat_map(|(record, _)| &record.roots);
        roots.filter(|root| root.phase == Phase::Distrusted).count()
    }

    /// The CAs a host said it trusts; none when it never said anything but the first.
    #[must_use]
    pub fn held(&self, host: HostId) -> Option<&Vec<Fingerprint>> {
        self.held.get(&host)
    }

    /// What is kept of the hosts of one part.
    pub fn part(&self, of: u8) -> impl Iterator<Item = (HostId, &Vec<Fingerprint>)> {
        let theirs = self.held.iter().filter(move |(host, _)| part(**host) == of);
        theirs.map(|(host, held)| (*host, held))
    }
}

/// What one session's agent holds, and was told, of the CAs.
#[derive(Debug)]
pub struct Told {
    /// Whether it can be told at all.
    hears: bool,
    last: Vec<Fingerprint>,
}

impl Told {
    /// An agent whose Hello named these CAs. One that named none is of a version that cannot be told.
    #[must_use]
    pub fn new(holds: &[[u8; 32]]) -> Self {
        Self {
            hears: !holds.is_empty(),
            last: fingerprints(holds),
        }
    }

    /// Whether it is to be told of `wanted`, which counts as told from here on.
    pub fn is_due(&mut self, wanted: &[Fingerprint]) -> bool {
        if !self.hears || self.last == wanted {
            return false;
        }
        self.last = wanted.to_vec();
        true
    }
}

/// Digests as they came over the wire.
#[must_use]
pub fn fingerprints(digests: &[[u8; 32]]) -> Vec<Fingerprint> {
    digests.iter().copied().map(Fingerprint::from_bytes).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(day * 24)
    }

    fn print(n: u8) -> Fingerprint {
        Fingerprint::of(&[n])
    }

    fn word(by: u8, of: u8) -> Vouched {
        Vouched {
            by: print(by),
            certificate: Der(vec![by, of]),
        }
    }

    /// A first CA, and a second one that it vouches for.
    fn prepared() -> CaRecord {
        let mut record = CaRecord::first(&[1], at(0));
        record.prepare(&[2], word(1, 2), at(1));
        record
    }

    fn known(name: &str, holds: &[u8], under_earlier: bool) -> Known {
        Known {
            name: name.to_owned(),
            holds: holds.iter().map(|n| print(*n)).collect(),
            under_earlier,
        }
    }

    #[test]
    fn one_ca_is_active_in_every_phase_and_stands_first() {
        let mut record = prepared();
        assert_eq!(record.wanted(), [print(1), print(2)]);
        assert!(record.activate(at(2)));
        assert_eq!(record.wanted(), [print(2), print(1)]);
        assert!(!record.activate(at(2)), "there is none to activate");
        assert_eq!(record.retire(false, at(3)), [print(1)]);
        assert_eq!(record.wanted(), [print(2)]);
        assert_eq!(record.retire(false, at(3)), []);
        record.replace(&[3], at(4));
        assert_eq!(record.wanted(), [print(3)]);
    }

    #[test]
    fn what_a_retired_ca_signed_is_looked_at_until_none_of_it_can_renew() {
        let mut record = prepared();
        record.activate(at(2));
        record.retire(false, at(3));
        let looked_at = |day| {
            record
                .looked_at(at(day))
                .iter()
                .map(|root| root.fingerprint)
                .collect::<Vec<_>>()
        };
        assert_eq!(looked_at(3 + 64), [print(1), print(2)]);
        assert_eq!(looked_at(3 + 65), [print(2)]);
        assert_eq!(record.way(at(3 + 64)), [vec![1, 2]]);
        assert!(record.way(at(3 + 65)).is_empty());
    }

    #[test]
    fn a_prepared_ca_signed_nothing_that_is_looked_at() {
        let seen = prepared();
        let looked_at: Vec<_> = seen
            .looked_at(at(1))
            .iter()
            .map(|root| root.fingerprint)
            .collect();
        assert_eq!(looked_at, [print(1)]);
    }

    #[test]
    fn the_way_leads_over_every_ca_that_is_remembered_and_begins_at_the_newest() {
        let mut record = prepared();
        record.activate(at(2));
        record.retire(false, at(3));
        record.prepare(&[3], word(2, 3), at(4));
        assert_eq!(record.way(at(4)), [vec![2, 3], vec![1, 2]]);
    }

    #[test]
    fn a_ca_in_wrong_hands_vouches_for_nobody_and_nothing_it_signed_is_looked_at() {
        let mut replaced = prepared();
        replaced.replace(&[3], at(2));
        assert!(replaced.way(at(2)).is_empty());
        assert_eq!(replaced.looked_at(at(2)).len(), 1);
        assert_eq!(
            replaced.prepared(),
            None,
            "the key of the prepared one lay beside it"
        );

        let mut retired = prepared();
        retired.activate(at(2));
        retired.retire(false, at(3));
        assert_eq!(
            retired.retire(true, at(4)),
            [print(1)],
            "a retired one can turn out to be in wrong hands"
        );
        assert!(retired.way(at(4)).is_empty());
        assert_eq!(retired.looked_at(at(4)).len(), 1);
        assert_eq!(
            retired.roots[0].retired_at,
            Some(at(4)),
            "what was made until then lay beside it"
        );
    }

    #[test]
    fn the_record_does_not_grow_with_the_years_and_forgets_nothing_that_is_needed() {
        let mut record = CaRecord::first(&[0], at(0));
        for n in 1..40 {
            let day = i64::from(n) * 100;
            record.prepare(&[n], word(n - 1, n), at(day));
            record.activate(at(day + 1));
            record.retire(false, at(day + 2));
            assert!(record.roots.len() <= MOST);
            assert_eq!(record.active().fingerprint, print(n));
            assert_eq!(record.looked_at(at(day + 2)).len(), 2);
        }
    }

    #[test]
    fn a_host_keeps_a_ca_from_being_active_when_it_lacks_it_and_from_being_retired_when_it_works_under_it() {
        let mut record = prepared();
        let hosts = || {
            [
                known("bern", &[1], true),
                known("oslo", &[1, 2], true),
                known("rome", &[1, 2], false),
            ]
        };
        let found = stragglers(&record, hosts());
        assert_eq!(lacking(&found, print(2)), ["bern"]);
        record.activate(at(2));
        let found = stragglers(&record, hosts());
        assert_eq!(lacking(&found, print(2)), ["bern"]);
        assert_eq!(behind(&found), ["bern", "oslo"]);
        assert_eq!(stragglers(&record, [known("rome", &[2], false)]), []);
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let record = prepared();
        let bytes = serde_json::to_vec(&record).unwrap();
        assert_eq!(CaRecord::read(&key(), &bytes).unwrap(), record);
        let host = HostId(Uuid::from_u128(7));
        let held = HeldRecord {
            part: part(host),
            hosts: [(host, vec![print(1)])].into(),
        };
        let bytes = serde_json::to_vec(&held).unwrap();
        assert_eq!(HeldRecord::read(&held.key(), &bytes).unwrap(), held);
    }

    #[test]
    fn a_succession_without_an_active_ca_is_not_read() {
        let mut record = prepared();
        record.roots.remove(0);
        let bytes = serde_json::to_vec(&record).unwrap();
        assert!(CaRecord::read(&key(), &bytes).is_err());
    }

    #[test]
    fn a_host_that_left_its_record_is_not_in_memory_either() {
        let (one, two) = (HostId(Uuid::from_u128(1)), HostId(Uuid::from_u128(2)));
        let mut view = View::default();
        let mut put = |hosts: &[HostId]| {
            let record = HeldRecord {
                part: 0,
                hosts: hosts.iter().map(|host| (*host, vec![print(1)])).collect(),
            };
            let bytes = serde_json::to_vec(&record).unwrap();
            view.put(&record.key(), &bytes, Revision(1)).unwrap();
            (view.held(one).is_some(), view.held(two).is_some())
        };
        assert_eq!(put(&[one, two]), (true, true));
        assert_eq!(put(&[two]), (false, true));
    }

    #[test]
    fn an_agent_is_told_once_of_each_change_and_one_that_cannot_be_told_never() {
        let mut told = Told::new(&[*print(1).as_bytes()]);
        assert!(!told.is_due(&[print(1)]));
        assert!(told.is_due(&[print(1), print(2)]));
        assert!(!told.is_due(&[print(1), print(2)]));
        assert!(told.is_due(&[print(2), print(1)]), "another one signs");
        assert!(!Told::new(&[]).is_due(&[print(2)]));
    }
}
