//! The succession in force: which CA signs, what the doors show and look at, and which hosts have heard of it.
//!
//! In: the record, at the start, after each change of it, and as time passes. Out: the signer, the certificate that the
//! doors show, the CAs they look certificates up in; what agents acknowledge goes to the store, a second's worth at once.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use picket_clock::Instant;
use picket_pki::{Authorities, AuthoritiesError, CertificateError, Fingerprint, Issuer, Presented, TlsError};
use picket_proto::{
    host::HostId,
    session::{Leave, LeaveReason, Trust},
};
use tokio::{sync::Notify, time};
use tokio_util::sync::CancellationToken;

use super::{CaRecord, ENDING, HeldRecord, Phase, keys, part};
use crate::{
    desk::{Actor, Desk},
    event::Severity,
    record::{HostStanding, Pin, Record as _},
    sessions::LAST_WORD,
    signer::{Own, Signer, SignerError},
    store::Revision,
};

/// For how long acknowledgements are gathered before they are kept.
const GATHER: Duration = Duration::from_secs(1);
/// How often one host may take back what it said.
const LOSE_EVERY: Duration = Duration::from_secs(60);
/// The most records in one commit of them.
const MOST_PARTS: usize = 32;
/// How often it is looked whether a certificate is due or a CA is to be forgotten.
const LOOK: Duration = Duration::from_secs(3600);
/// How soon after it failed a succession is brought into force again.
const AGAIN: Duration = Duration::from_secs(60);
/// How often a CA that ends soon is told of.
const TELL: SignedDuration = SignedDuration::from_hours(24);

/// Why a succession cannot come into force.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The CA cannot be used.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// A certificate on record is of no use.
    #[error("a CA certificate on record cannot be used; run `picket-master verify`")]
    Authorities(#[from] AuthoritiesError),
    /// Nor can its name be read.
    #[error("a CA certificate on record cannot be read; run `picket-master verify`")]
    Certificate(#[from] CertificateError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
}

/// The succession in force.
#[derive(Debug)]
pub struct Work {
    data_dir: PathBuf,
    /// The master's names, for its own certificate.
    names: Vec<String>,
    /// As long as the store has none.
    first: CaRecord,
    presented: Arc<Presented>,
    authorities: Arc<Authorities>,
    force: ArcSwap<InForce>,
    /// Held while a succession comes into force.
    turn: Mutex<()>,
    /// Held from the look at the record until it is in force: an older one never follows a newer.
    order: Mutex<()>,
    noted: Mutex<BTreeMap<HostId, Vec<Fingerprint>>>,
    /// Which hosts took something back, and when, in the last minute.
    lost: Mutex<HashMap<HostId, Instant>>,
    news: Notify,
    /// The succession on record is another.
    changed: Notify,
    /// Connections that are to close once their last message is out, and that there are some.
    leaving: Mutex<Vec<CancellationToken>>,
    shut: Notify,
}

/// What callers are held against.
#[derive(Debug)]
struct InForce {
    issuers: HashMap<Issuer, Phase>,
    wanted: Vec<Fingerprint>,
    trust: Trust,
    /// The master's own certificate.
    own: Own,
}

impl Work {
    /// Brings the succession into force that is on record, or that of the first CA alone.
    ///
    /// # Errors
    /// When the CA that is active, or a certificate on record, cannot be used.
    pub fn open(
        data_dir: PathBuf,
        names: Vec<String>,
        signer: &Signer,
        record: Option<&CaRecord>,
        (created_at, now): (Timestamp, Timestamp),
    ) -> Result<Self, WorkError> {
        let first = CaRecord::first(&signer.certificate(), created_at);
        let mut waits = false;
        // The signer has the first CA, which may have ended, or be in wrong hands.
        let active = record.map_or(first.active(), CaRecord::active).fingerprint;
        if signer.fingerprint() != active {
            signer.follow(keys::load(signer, &data_dir, active)?);
        }
        let record = record.unwrap_or(&first);
        let own = match signer.own_of_active(&data_dir, &names, now) {
            Ok(own) => own,
            // It came into force on paper alone before the engine went away. Whoever is to come in trusts those before it.
            Err(error) => {
                let trusted = record.trusted();
                let trusted: Vec<&[u8]> = trusted.iter().map(|root| root.certificate.0.as_slice()).collect();
                let earlier = signer.own_of_earlier(&trusted, &data_dir, &names, now);
                waits = earlier.is_some();
                earlier.ok_or(error)?
            }
        };
        let authorities = Authorities::new(signer.trust_domain(), vec![signer.certificate()])?;
        let work = Self {
            data_dir,
            names,
            presented: Arc::new(Presented::new(&own.der, &own.key)?),
            authorities: Arc::new(authorities),
            force: ArcSwap::from_pointee(InForce::of(&first, own, now)?),
            first: first.clone(),
            turn: Mutex::default(),
            order: Mutex::default(),
            noted: Mutex::default(),
            lost: Mutex::default(),
            news: Notify::new(),
            changed: Notify::new(),
            leaving: Mutex::default(),
            shut: Notify::new(),
        };
        match work.settle(record, signer, now).1 {
            Ok(()) => {}
            // Whom to believe is in force, and the rest is tried each minute.
            Err(WorkError::Signer(_)) if waits => work.changed(),
            Err(error) => return Err(error),
        }
        Ok(work)
    }

    /// The certificate that the doors show.
    #[must_use]
    pub fn presented(&self) -> Arc<Presented> {
        Arc::clone(&self.presented)
    }

    /// The CAs that the doors look certificates up in.
    #[must_use]
    pub fn authorities(&self) -> Arc<Authorities> {
        Arc::clone(&self.authorities)
    }

    /// Where the CAs' files are.
    #[must_use]
    pub fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    /// How far the CA has come that signed a certificate.
    #[must_use]
    pub fn phase(&self, issuer: &Issuer) -> Option<Phase> {
        self.force.load().issuers.get(issuer).copied()
    }

    /// Whether the CA that signs signed this certificate (DER), which is pinned.
    #[must_use]
    pub fn signed_by_active(&self, certificate: &[u8]) -> bool {
        let issuer = picket_pki::Certificate::parse(certificate).map(|certificate| certificate.issuer);
        issuer.is_ok_and(|issuer| self.phase(&issuer) == Some(Phase::Active))
    }

    /// What everybody is to trust.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.force.load().trust.clone()
    }

    /// The fingerprints of what everybody is to trust, the one that signs first.
    #[must_use]
    pub fn wanted(&self) -> Vec<Fingerprint> {
        self.force.load().wanted.clone()
    }

    /// Brings `record` into force: from the next handshake and the next signature on. Again is harmless. It may take as
    /// long as a passphrase does, or a network.
    ///
    /// Returns whether a CA is trusted no more that was, and what went wrong: whom to believe is in force all the same,
    /// unless a certificate on record cannot be read.
    pub fn settle(
        &self,
        record: &CaRecord,
        signer: &Signer,
        now: Timestamp,
    ) -> (bool, Result<(), WorkError>) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Whom to believe needs no signature, and waits for none.
        let distrusted = match self.believe(record, now) {
            Ok(distrusted) => distrusted,
            Err(error) => return (false, Err(error)),
        };
        (distrusted, self.show(record, signer, now))
    }

    /// Holds callers against the record from here on. Returns whether a CA is trusted no more that was.
    fn believe(&self, record: &CaRecord, now: Timestamp) -> Result<bool, WorkError> {
        let force = InForce::of(record, self.own(), now)?;
        let looked_at = record.looked_at(now);
        self.authorities
            .replace(looked_at.iter().map(|root| root.certificate.0.clone()).collect())?;
        let distrusted = force.distrusted();
        let before = self.force.swap(Arc::new(force));
        Ok(distrusted > before.distrusted())
    }

    /// Signs with the CA that is active, and shows a certificate of it.
    fn show(&self, record: &CaRecord, signer: &Signer, now: Timestamp) -> Result<(), WorkError> {
        let active = record.active().fingerprint;
        if signer.fingerprint() != active {
            let authority = keys::load(signer, &self.data_dir, active)?;
            let own = signer.own(&authority, &self.data_dir, &self.names, now)?;
            signer.follow(authority);
            self.present(record, own, now)?;
        } else {
            let own = signer.own_of_active(&self.data_dir, &self.names, now)?;
            self.present(record, own, now)?;
        }
        let trusted = record.trusted();
        signer.vouch_for(trusted.iter().map(|root| root.certificate.0.clone()).collect());
        Ok(())
    }

    fn present(&self, record: &CaRecord, own: Own, now: Timestamp) -> Result<(), WorkError> {
        self.presented
            .replace_chain(&own.der, &own.key, &record.way(now))?;
        self.force.store(Arc::new(InForce::of(record, own, now)?));
        Ok(())
    }

    /// The succession on record is another: [`tend`] brings it into force.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// The master's own certificate and its key.
    #[must_use]
    pub fn own(&self) -> Own {
        self.force.load().own.clone()
    }

    /// Notes that a host said it trusts these CAs.
    pub fn hold(&self, host: HostId, holds: Vec<Fingerprint>) {
        self.noted().insert(host, holds);
        self.news.notify_one();
    }

    /// Whether a host may take back what it said just now.
    fn may_lose(&self, host: HostId, now: Instant) -> bool {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.retain(|_, at| now.saturating_duration_since(*at) < LOSE_EVERY);
        let may = !lost.contains_key(&host);
        lost.entry(host).or_insert(now);
        may
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<CancellationToken>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn noted(&self) -> MutexGuard<'_, BTreeMap<HostId, Vec<Fingerprint>>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InForce {
    /// How many CAs are trusted no more, not even for what they signed.
    fn distrusted(&self) -> usize {
        let distrusted = self.issuers.values().filter(|phase| **phase == Phase::Distrusted);
        distrusted.count()
    }

    fn of(record: &CaRecord, own: Own, now: Timestamp) -> Result<Self, CertificateError> {
        let trusted = record.trusted();
        let bytes = |der: &[u8]| Bytes::copy_from_slice(der);
        Ok(Self {
            issuers: record.issuers()?,
            wanted: record.wanted(),
            trust: Trust {
                authorities: trusted.iter().map(|root| bytes(&root.certificate.0)).collect(),
                cross_signed: record.way(now).iter().map(|der| bytes(der)).collect(),
            },
            own,
        })
    }
}

impl Desk {
    /// The succession, and the revision that wrote it.
    #[must_use]
    pub fn succession(&self) -> (CaRecord, Option<Revision>) {
        match self.views.read().ca.record() {
            Some((record, revision)) => (record.clone(), Some(*revision)),
            None => (self.ca.first.clone(), None),
        }
    }

    /// Brings the succession into force that the views have, and tells every session.
    ///
    /// # Errors
    /// When the CA that is active cannot sign or be read: who is trusted is in force, and the rest stays as it was until
    /// [`tend`] has tried again.
    pub async fn settle(self: &Arc<Self>) -> Result<(), WorkError> {
        let desk = Arc::clone(self);
        let settled = tokio::task::spawn_blocking(move || {
            let _order = desk.ca.order.lock().unwrap_or_else(PoisonError::into_inner);
            let (record, _) = desk.succession();
            desk.ca.settle(&record, &desk.signer, desk.now())
        });
        let (distrusted, result) = settled
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        if distrusted {
            self.shut_out();
        }
        self.sessions.nudge_all();
        result
    }

    /// As [`Self::settle`], for whoever has nobody to tell. Returns whether it is to be tried again.
    async fn settle_or_say(self: &Arc<Self>) -> bool {
        let Err(error) = self.settle().await else {
            return false;
        };
        let message = format!(
            "the CA on record cannot be used, and is tried again: {}",
            crate::status::chain(&error)
        );
        self.say(Severity::Alert, "ca.unusable", "ca", &message);
        true
    }

    /// Ends every session, and closes every connection a moment later: the doors know by now, so that whoever has a
    /// certificate of a CA that is trusted no more finds them shut, and the others are back at once.
    fn shut_out(&self) {
        self.sessions.end_all(&Leave {
            reason: LeaveReason::Protocol,
            message: "a CA is trusted no more; a host whose certificate it signed needs a new bundle \
                      (`picketctl host bundle NAME`)"
                .to_owned(),
            retry_after: Some(Duration::from_secs(1)),
        });
        self.ca.leaving().extend(self.sessions.everybody());
        self.ca.shut.notify_one();
    }

    /// The CAs a host said it trusts. One that never said any has the one it was enrolled with, the first.
    #[must_use]
    pub fn holds(&self, host: HostId) -> Vec<Fingerprint> {
        let noted = self.ca.noted().get(&host).cloned();
        noted
            .or_else(|| self.views.read().ca.held(host).cloned())
            .unwrap_or_else(|| self.first_ca())
    }

    /// Notes that a host said it trusts these CAs, when that is news. A host that takes back what it said is heard once a
    /// minute: each time costs a record in the journal.
    pub fn hold(&self, host: HostId, mut holds: Vec<Fingerprint>) {
        let before = self.holds(host);
        if before == holds {
            return;
        }
        let (record, _) = self.succession();
        holds.retain(|ca| record.roots.iter().any(|root| root.fingerprint == *ca));
        let is_more = before.iter().all(|ca| holds.contains(ca));
        if before != holds && (is_more || self.ca.may_lose(host, self.clock.monotonic())) {
            self.ca.hold(host, holds);
        }
    }

    /// Whether the CA that signs signed the certificate of a pin as it is stored.
    #[must_use]
    pub fn signed_by_active(&self, pin: &Pin) -> bool {
        let der = data_encoding::HEXLOWER.decode(pin.certificate.as_bytes());
        der.is_ok_and(|der| self.ca.signed_by_active(&der))
    }

    fn first_ca(&self) -> Vec<Fingerprint> {
        vec![self.ca.first.active().fingerprint]
    }

    /// Keeps what was noted. What cannot be kept is noted still.
    async fn keep_noted(&self) {
        let noted = self.ca.noted().clone();
        let mut parts: Vec<u8> = noted.keys().map(|host| part(*host)).collect();
        parts.dedup();
        for parts in parts.chunks(MOST_PARTS) {
            let records = {
                let views = self.views.read();
                let is_here = |host: &HostId| {
                    views
                        .roster
                        .host(*host)
                        .is_some_and(|host| !matches!(host.record.standing, HostStanding::Retired { .. }))
                };
                let record = |of: &u8| {
                    let before = views.ca.part(*of).map(|(host, holds)| (host, holds.clone()));
                    let news = noted.iter().filter(|(host, _)| part(**host) == *of);
                    let news = news.map(|(host, holds)| (*host, holds.clone()));
                    let hosts = before.chain(news).filter(|(host, _)| is_here(host));
                    HeldRecord {
                        part: *of,
                        hosts: hosts.collect(),
                    }
                };
                parts.iter().map(record).collect::<Vec<_>>()
            };
            let writes = records.iter().map(HeldRecord::put).collect();
            let audit = Actor::master().does("ca.acknowledged", "ca", "hosts said which CAs they trust");
            // Nobody else writes these records.
            if let Err(error) = self.commit(Vec::new(), writes, audit).await {
                tracing::warn!(%error, "could not keep which hosts have which CAs; tried again");
                return;
            }
            self.ca
                .noted()
                .retain(|host, holds| !parts.contains(&part(*host)) || noted.get(host) != Some(holds));
        }
    }
}

/// Keeps what agents acknowledge, shows a new certificate when half the life of the one before is over, and tells of a CA
/// that ends soon; until `stop`.
pub async fn tend(desk: Arc<Desk>, stop: CancellationToken) {
    let mut look_at = time::Instant::now();
    let mut told: Option<Timestamp> = None;
    let mut again = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = desk.ca.news.notified() => {
                // Others follow within the second.
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = time::sleep(GATHER) => {}
                }
                desk.keep_noted().await;
            }
            () = desk.ca.changed.notified() => {
                if desk.settle_or_say().await {
                    look_at = time::Instant::now() + AGAIN;
                    again = true;
                }
            }
            () = desk.ca.shut.notified() => {
                time::sleep(LAST_WORD).await;
                let leaving = std::mem::take(&mut *desk.ca.leaving());
                leaving.iter().for_each(CancellationToken::cancel);
            }
            () = time::sleep_until(look_at) => {
                look_at = time::Instant::now() + LOOK;
                let now = desk.now();
                // By the wall clock: a machine that slept does not wake up with a certificate that has ended.
                if again || now >= desk.ca.own().due() {
                    again = desk.settle_or_say().await;
                    if again {
                        look_at = time::Instant::now() + AGAIN;
                    }
                }
                if told.is_none_or(|at| now.duration_since(at) >= TELL) && tell_of_end(&desk, now) {
                    told = Some(now);
                }
                if !desk.ca.noted().is_empty() {
                    desk.keep_noted().await;
                }
            }
        }
    }
    desk.keep_noted().await;
}

/// Tells of an active CA that ends soon. Returns whether it did.
fn tell_of_end(desk: &Desk, now: Timestamp) -> bool {
    let ends = desk.signer.validity().not_after;
    if ends.duration_since(now) >= ENDING {
        return false;
    }
    let message = format!(
        "the CA ends at {ends}, and nothing can be signed after that; replace it with `picketctl ca rotate prepare`"
    );
    desk.say(Severity::Warning, "ca.ending", "ca", &message);
    true
}
